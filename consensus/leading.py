"""Whether this member should go on leading: a leader whose disk is full or read-only refuses for everybody, while the others'
disks may be well. (That it is slow the group itself sees: consensus/group.)

The leader looks at its own disk once a second, and when it had to refuse a command. If that is in trouble it asks the other
voters how theirs are, and hands over to one that takes commands. While nobody does, it goes on.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

from consensus import protocol
from consensus.core import tasks
from consensus.core.errors import ClusterError
from consensus.core.model import Member

if TYPE_CHECKING:
    from consensus.group.changing import Changes

log = logging.getLogger("staddle.meta")

LOOK_S = 1.0


class Raft(Protocol):
    """What is needed of consensus.raft.RaftNode."""

    @property
    def leads(self) -> bool: ...
    @property
    def members(self) -> tuple[Member, ...]: ...
    @property
    def changes(self) -> "Changes": ...


class Leading:
    """Works from `start` to `stop`. `refusing` tells why our own disk takes no commands (room.py), "" if it does; `ask` is
    another member's status."""

    def __init__(self, name: str, raft: Raft, refusing: Callable[[], str],
                 ask: Callable[[str], Awaitable[protocol.Status]]) -> None:
        self._name, self._raft, self._refusing, self._ask = name, raft, refusing, ask
        self._task: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
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
        refusing = self._refusing() if self._raft.leads else ""
        if not refusing:
            self.sole = False
            return
        fit = await self._fit()
        self.sole = not fit
        if fit and self._raft.leads:
            log.warning("the metadata's disk is %s: %s is to lead", refusing, " or ".join(sorted(fit)))
            await self._raft.changes.hand_over(fit)

    async def _fit(self) -> set[str]:
        """The other voters whose disks take commands."""
        voters = [member for member in self._raft.members if member.voter and member.name != self._name]
        answers = await asyncio.gather(*[self._status(member.address) for member in voters])
        return {member.name for member, status in zip(voters, answers, strict=True)
                if status is not None and not status.refusing}

    async def _status(self, address: str) -> protocol.Status | None:
        try:
            return await self._ask(address)
        except ClusterError:
            return None
