"""Clocks that jump cut no reader short, and hold nothing up for longer than they must."""

import time

import pytest

from consensus.core.clock import SteadyClock
from consensus.grace import NEVER_MS, Grace

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
GRACE_S = 3600.0


class World:
    """A wall clock, one that counts, and log time that follows the first and never runs back. Something lingers."""

    def __init__(self) -> None:
        self.counted_s, self.wall_ms, self.log_ms = 1000.0, 1_800_000_000_000, 1_800_000_000_000
        self.grace = Grace(GRACE_S, lambda: self.counted_s)
        self.lingering: list[int] = []

    def jump(self, ms: int) -> None:
        self.wall_ms += ms

    def deleted(self) -> None:
        self.log_ms = max(self.log_ms, self.wall_ms)
        self.lingering.append(self.log_ms)

    def passes(self, seconds: float) -> None:
        """With a look at the notes every five seconds, as housekeeping does."""
        while seconds > 0:
            step = min(5.0, seconds)
            self.counted_s += step
            self.wall_ms += int(step * 1000)
            seconds -= step
            self.look()

    def look(self) -> None:
        self.grace.note(self.log_ms, self.wall_ms)
        log_ms = max(self.log_ms, self.wall_ms)
        before = log_ms - self.grace.before_ms(log_ms)
        kept = [at for at in self.lingering if at > before]
        if len(kept) < len(self.lingering):
            self.lingering, self.log_ms = kept, log_ms


def test_it_lasts_as_long_as_was_said() -> None:
    world = World()
    world.passes(2 * GRACE_S)
    world.deleted()
    world.passes(GRACE_S - 10)
    assert world.lingering
    world.passes(20)
    assert not world.lingering


@pytest.mark.parametrize("jump", [HOUR_MS, 30 * DAY_MS, -HOUR_MS, -30 * DAY_MS])
def test_no_jump_shortens_it(jump: int) -> None:
    world = World()
    world.passes(2 * GRACE_S)
    world.deleted()
    world.passes(60)
    world.jump(jump)
    world.deleted()
    world.passes(GRACE_S - 70)
    assert len(world.lingering) == 2
    world.passes(60 + 20)
    world.deleted()                                    # the wall clock brings log time on again
    world.passes(GRACE_S + 20)
    assert len(world.lingering) <= (3 if jump < 0 else 0)


def test_a_jump_there_and_back_shortens_nothing_either() -> None:
    world = World()
    world.passes(2 * GRACE_S)
    world.jump(30 * DAY_MS)
    world.deleted()
    world.passes(10)
    world.jump(-30 * DAY_MS)
    for _ in range(10):                                # all at one log time, which stands still now
        world.passes(GRACE_S / 5)
        world.deleted()
    assert len(world.lingering) >= 5


def test_a_leader_that_has_just_begun_waits() -> None:
    world = World()
    world.lingering = [0]
    assert world.grace.before_ms(world.log_ms) == NEVER_MS
    world.passes(GRACE_S - 10)
    assert world.lingering
    world.passes(20)
    assert not world.lingering


def test_without_grace_nothing_waits() -> None:
    assert Grace(0.0).before_ms(5) == 0


def test_notes_are_few() -> None:
    world = World()
    world.passes(10 * GRACE_S)
    assert len(world.grace._notes) < 1100


@pytest.mark.parametrize("jump", [HOUR_MS, 30 * DAY_MS, -HOUR_MS, -30 * DAY_MS])
def test_a_steady_clock_does_not_jump(monkeypatch: pytest.MonkeyPatch, jump: int) -> None:
    before = SteadyClock().now_ms()
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + jump * 1_000_000)
    assert 0 <= SteadyClock().now_ms() - before < 60_000
