"""Duties as gateways hold them: one at a time, renewed before the lease ends, let go, lost cleanly."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from consensus import queries
from consensus.core.commands import AnyCommand
from consensus.core.errors import Unavailable
from consensus.core.results import AnyResult
from gateway.duties import Duties, Duty
from tests.unit.consensus.metadata import Cluster

LEASE_S = 20.0


class Metadata:
    """A client of one member, and the clock of the host, which is `late_ms`. `down`: the member does not answer."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.down, self.commits, self.late_ms = cluster, False, 0, 0

    async def commit(self, command: AnyCommand) -> AnyResult:
        if self.down:
            raise Unavailable("it is down")
        self.commits += 1
        result: AnyResult = self.cluster.run(command)
        return result

    async def read(self, query: Callable[..., Any], *arguments: Any) -> Any:
        return self.cluster.read(query, *arguments)

    def now_ms(self) -> int:
        return self.cluster.now - self.late_ms

    def monotonic(self) -> float:
        return self.cluster.now / 1000

    def passes(self, seconds: float) -> None:
        self.cluster.now += int(seconds * 1000)


@pytest.fixture
def metadata(tmp_path: Any) -> Metadata:
    return Metadata(Cluster(tmp_path))


def duty(metadata: Metadata, holder: str) -> Duty:
    return Duty(metadata, metadata, "lifecycle", holder, LEASE_S)     # type: ignore[arg-type]  # a stand-in


def held(*duties: Duty) -> list[bool]:
    """Who has it, after each has tried."""
    return [asyncio.run(each.hold()) for each in duties]


def test_one_has_it_and_the_other_waits_without_writing(metadata: Metadata) -> None:
    first, second = duty(metadata, "n1/gateway-1"), duty(metadata, "n2/gateway-1")
    assert held(first, second) == [True, False]
    commits = metadata.commits
    for _ in range(5):
        metadata.passes(1)
        assert held(first, second) == [True, False]
    assert metadata.commits == commits, "neither a holder nor who waits writes the log each time"
    assert (first.held, second.held) == (True, False)


def test_a_clock_that_is_late_keeps_nobody_waiting(metadata: Metadata) -> None:
    """A lease that was not renewed for as long as it lasts is over, whatever the host's clock says."""
    first, second = duty(metadata, "n1/gateway-1"), duty(metadata, "n2/gateway-1")
    metadata.late_ms = 3_600_000
    assert held(first, second) == [True, False]
    metadata.passes(LEASE_S * 0.6)
    assert held(first, second) == [True, False]
    metadata.passes(LEASE_S * 0.9)
    assert held(second) == [False], "it was renewed"
    metadata.passes(LEASE_S * 0.2)
    assert held(second) == [True]


def test_a_clock_that_is_ahead_does_not_ask_all_the_time(metadata: Metadata) -> None:
    first, second = duty(metadata, "n1/gateway-1"), duty(metadata, "n2/gateway-1")
    metadata.late_ms = -3_600_000
    held(first)
    commits = metadata.commits
    for _ in range(50):
        metadata.passes(0.25)
        assert held(second) == [False]
        held(first)
    assert metadata.commits - commits <= 4, "once for each lease that it sees, and the holder's renewals"
    metadata.passes(LEASE_S + 1)
    assert held(second) == [True]


def test_it_is_renewed_in_time_and_lasts_as_long_as_it_is_held(metadata: Metadata) -> None:
    first, second = duty(metadata, "n1/gateway-1"), duty(metadata, "n2/gateway-1")
    for _ in range(10):
        assert held(first, second) == [True, False]
        metadata.passes(LEASE_S * 0.6)
    (known,) = metadata.cluster.read(queries.duties)
    assert known.expires_ms - known.since_ms > LEASE_S * 1000 * 5


def test_one_that_was_stopped_for_long_has_lost_it_and_knows(metadata: Metadata) -> None:
    first, second = duty(metadata, "n1/gateway-1"), duty(metadata, "n2/gateway-1")
    assert held(first) == [True]
    metadata.passes(LEASE_S + 1)
    assert not first.held
    assert held(second, first) == [True, False]
    asyncio.run(first.release())
    assert held(second) == [True], "what was lost cannot be let go of"


def test_what_is_let_go_is_taken_at_once_and_a_restart_goes_on(metadata: Metadata) -> None:
    first, second = duty(metadata, "n1/gateway-1"), duty(metadata, "n2/gateway-1")
    assert held(first) == [True]
    assert held(duty(metadata, "n1/gateway-1")) == [True], "the same process, started again"
    asyncio.run(first.release())
    assert held(second) == [True]


def test_where_the_metadata_does_not_answer_it_is_held_until_its_lease_ends(metadata: Metadata) -> None:
    first = duty(metadata, "n1/gateway-1")
    assert held(first) == [True]
    metadata.down = True
    metadata.passes(LEASE_S * 0.6)
    with pytest.raises(Unavailable):
        held(first)
    assert first.held
    metadata.passes(LEASE_S)
    assert not first.held
    asyncio.run(first.release())                    # says nothing: there is nothing to let go of


def test_the_logs_time_is_known_to_who_holds_it(metadata: Metadata) -> None:
    first = duty(metadata, "n1/gateway-1")
    held(first)
    began = metadata.cluster.now
    metadata.passes(7)
    assert abs(first.log_now_ms() - (began + 7_000)) <= 1


def test_metrics_show_what_is_held(metadata: Metadata) -> None:
    duties = Duties(metadata, metadata, "n1/gateway-1")     # type: ignore[arg-type]
    made = duties.duty("lifecycle")
    duties.duty("events")
    held(made)
    assert duties.figures() == {"lifecycle": 1, "events": 0}
