"""Whether this member should go on leading: a leader whose disk is full, read-only or slow makes everybody wait for it, while
the others' disks may be well.

Once a second the leader looks at its own disk. If that is in trouble it asks the other voters how theirs are, and hands over
to one that is better off. While nobody is, it goes on.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from consensus import protocol
from consensus.core import tasks
from consensus.core.errors import ClusterError
from consensus.core.model import Member
from consensus.journal import Journal

log = logging.getLogger("staddle.meta")

LOOK_S = 1.0

SLOW_S = 0.010
"""A mean sync that takes longer is worth a question: disks that are well take one to five milliseconds."""

SLOWER = 3.0
"""Who syncs so many times as fast leads better. Less would be noise, and each change costs clients some 50 ms."""

SYNCS_MIN = 5
"""Fewer in a second say nothing."""

SETTLE_S = 10.0
"""After a change of leaders, slowness is no reason for the next: what was slow may have been the change."""


class Raft(Protocol):
    """What is needed of consensus.raft.RaftNode."""

    @property
    def leads(self) -> bool: ...
    @property
    def members(self) -> tuple[Member, ...]: ...
    async def hand_over(self, fit: "set[str] | None" = None) -> bool: ...


class Leading:
    """Works from `start` to `stop`. `refusing` tells why our own disk takes no commands (room.py), "" if it does; `ask` is
    another member's status."""

    def __init__(self, name: str, raft: Raft, journal: Journal, refusing: Callable[[], str],
                 ask: Callable[[str], Awaitable[protocol.Status]]) -> None:
        self._name, self._raft, self._journal, self._refusing, self._ask = name, raft, journal, refusing, ask
        self._task: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._syncs, self._seconds = journal.syncs, journal.sync_seconds
        self._before: dict[str, tuple[int, float]] = {}
        self._led_for_s = 0.0
        self.sole = False
        """Nobody else is fit to lead, as of the last look. False before it: then it is worth a try."""

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._repeat(), name="meta leading")

    async def stop(self) -> None:
        await tasks.end(self._task)

    def hurry(self) -> None:
        """A command was refused for our disk: look now."""
        self._hurry.set()

    async def _repeat(self) -> None:
        while True:
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._hurry.wait()
            except TimeoutError:
                pass
            self._hurry.clear()
            await self.look()

    async def look(self) -> None:
        """Hand over if that is better."""
        syncs, seconds = self._journal.syncs - self._syncs, self._journal.sync_seconds - self._seconds
        if syncs >= SYNCS_MIN or not self._raft.leads:
            self._syncs, self._seconds = self._journal.syncs, self._journal.sync_seconds
        if not self._raft.leads:
            self._led_for_s, self.sole = 0.0, False
            return
        self._led_for_s += LOOK_S
        refusing = self._refusing()
        slow_s = seconds / syncs if syncs >= SYNCS_MIN and self._led_for_s > SETTLE_S else 0.0
        if not refusing and slow_s < SLOW_S:
            self._before.clear()
            self.sole = False
            return
        fit = await self._fit(None if refusing else slow_s / SLOWER)
        self.sole = not fit
        if fit and self._raft.leads:
            log.warning("the metadata's disk is %s: %s is to lead", refusing or f"slow ({slow_s * 1e3:.0f} ms a sync)",
                        " or ".join(sorted(fit)))
            self._led_for_s = 0.0
            await self._raft.hand_over(fit)

    async def _fit(self, faster_than_s: float | None) -> set[str]:
        """The voters whose disks take commands, and sync faster than this if it is given."""
        voters = [member for member in self._raft.members if member.voter and member.name != self._name]
        answers = await asyncio.gather(*[self._status(member.address) for member in voters])
        fit = set()
        for member, status in zip(voters, answers, strict=True):
            if status is None or status.refusing:
                continue
            syncs, seconds = self._before.get(member.name, (0, 0.0))
            self._before[member.name] = status.syncs, status.sync_seconds
            new = status.syncs - syncs
            if faster_than_s is None or (syncs and new >= SYNCS_MIN and (status.sync_seconds - seconds) / new < faster_than_s):
                fit.add(member.name)
        return fit

    async def _status(self, address: str) -> protocol.Status | None:
        try:
            return await self._ask(address)
        except ClusterError:
            return None
