"""A loop of care goes on, whatever becomes of one turn, and says its trouble once."""

import asyncio
import logging

import pytest

from consensus.core.errors import Unavailable
from consensus.core.ids import NodeId
from storage_node.care.loop import Loop


class Turns:
    """Each call takes the next of `outcomes`: a pause, or what is raised. `seen` is the loop's trouble before each."""

    def __init__(self, *outcomes: float | Exception) -> None:
        self._left, self.seen, self.done = list(outcomes), [], asyncio.Event()
        self.loop = Loop("dusting", NodeId("n1"), self.take, pause_s=0)

    async def take(self) -> float:
        self.seen.append(self.loop.trouble)
        outcome = self._left.pop(0)
        if not self._left:
            self.done.set()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def run(turns: Turns) -> None:
    async def until_done() -> None:
        turns.loop.start()
        async with asyncio.timeout(5):
            await turns.done.wait()
        await asyncio.sleep(0)
        await turns.loop.stop()

    asyncio.run(until_done())


def test_trouble_is_said_once_shown_while_it_lasts_and_again_when_it_is_another(caplog: pytest.LogCaptureFixture) -> None:
    first, other = Unavailable("no leader"), Unavailable("no room")
    turns = Turns(first, first, other, 0, first, 60)
    run(turns)
    assert turns.seen == ["", "no leader", "no leader", "no room", "", "no leader"]
    assert turns.loop.trouble == ""
    assert [record.getMessage().partition("waits: ")[2] for record in caplog.records] == ["no leader", "no room", "no leader"]


def test_our_own_fault_does_not_end_it(caplog: pytest.LogCaptureFixture) -> None:
    turns = Turns(KeyError("a bug"), 60)
    run(turns)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_a_kick_ends_the_pause() -> None:
    turns = Turns(3600, 3600)

    async def kicked() -> None:
        turns.loop.start()
        while not turns.seen:
            await asyncio.sleep(0)
        turns.loop.kick()
        async with asyncio.timeout(5):
            await turns.done.wait()
        await turns.loop.stop()

    asyncio.run(kicked())
    assert len(turns.seen) == 2
