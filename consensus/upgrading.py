"""What the other members of a cluster understand while it is upgraded machine by machine.

A member that has been upgraded knows commands that the others do not. It asks each of them which entries it reads, and until all
read the newest ones it takes nothing into the log that one of them would stop at: what needs such an entry is refused (NotYet,
503 for clients), or said without what is new. One that has not answered for a while is down, and nobody waits for it: were it to
come back as it was, it would stop at the first entry that it does not know, and say so.

Everybody asks, whoever leads, so that a new leader knows it already.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import msgspec

from consensus import protocol
from consensus.core import tasks
from consensus.core.codec import ENTRY_NEWEST, ENTRY_OLDEST, version_of
from consensus.core.commands import CreateUpload, Envelope, SetLegalHold
from consensus.core.errors import ClusterError, NotYet, Unavailable
from consensus.core.model import Member

log = logging.getLogger("staddle.meta")

ASK_S = 1.0
"""Between two questions to a member that is not known to read the newest entries; nobody is asked when all do."""

PATIENCE_S = 5.0
"""A member that starts answers within this time; one that has not is down."""


class Raft(Protocol):
    """What is needed of consensus.raft.RaftNode."""

    @property
    def members(self) -> tuple[Member, ...]: ...


class Upgrading:
    """Works from `start` to `stop`. `ask` is another member's status."""

    def __init__(self, name: str, raft: Raft, ask: Callable[[str], Awaitable[protocol.Status]]) -> None:
        self._name, self._raft, self._ask = name, raft, ask
        self._reads: dict[tuple[str, bytes], int] = {}
        self._since: dict[tuple[str, bytes], float] = {}
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._newest: int | None = None
        """What all members read; None as long as one of them is still waited for."""

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._repeat(), name="meta upgrading")

    async def stop(self) -> None:
        await tasks.end(self._task)

    def changed(self) -> None:
        """There may be other members than before."""
        self._judge()
        self._changed.set()

    def said_for_all(self, envelopes: Sequence[Envelope]) -> Sequence[Envelope]:
        """These commands as every member understands them. Raises NotYet for one that some member does not know, Unavailable
        before it is known what all of them do."""
        if self._newest == ENTRY_NEWEST or all(version_of(envelope.command) == ENTRY_OLDEST for envelope in envelopes):
            return envelopes
        if self._newest is None:
            raise Unavailable("it is not known yet whether all members of the cluster understand this command")
        return [self._said(envelope, self._newest) for envelope in envelopes]

    @staticmethod
    def _said(envelope: Envelope, newest: int) -> Envelope:
        command = envelope.command
        if version_of(command) <= newest:
            return envelope
        if isinstance(command, CreateUpload):            # nobody is refused an upload; who began it is its owner then
            return msgspec.structs.replace(envelope, command=msgspec.structs.replace(command, initiator="", said=()))
        if isinstance(command, SetLegalHold):
            return msgspec.structs.replace(envelope, command=msgspec.structs.replace(command, remembered=False))
        raise NotYet(f"{type(command).__name__} waits until all machines of the cluster run this release")

    async def _repeat(self) -> None:
        while True:
            self._changed.clear()
            await self.look()
            wait = None if self._newest == ENTRY_NEWEST and not self._open() else ASK_S
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                pass

    def _others(self) -> list[Member]:
        return [member for member in self._raft.members if member.name != self._name]

    def _open(self) -> list[Member]:
        """Those that are not known to read everything."""
        return [member for member in self._others() if self._reads.get(_key(member), ENTRY_OLDEST) < ENTRY_NEWEST]

    async def look(self) -> None:
        """Ask once."""
        asked = self._open()
        now = asyncio.get_running_loop().time()
        for member in asked:
            self._since.setdefault(_key(member), now)
        answers = await asyncio.gather(*[self._status(member.address) for member in asked])
        for member, status in zip(asked, answers, strict=True):
            if status is not None:
                self._reads[_key(member)] = status.reads
        self._judge()

    def _judge(self) -> None:
        before, now = self._newest, asyncio.get_running_loop().time()
        known = [self._reads.get(_key(member)) or self._of_silent(member, now) for member in self._others()]
        self._newest = None if None in known else min([ENTRY_NEWEST, *[reads for reads in known if reads is not None]])
        if self._newest != before and ENTRY_OLDEST in (before, self._newest):
            log.info("all members read the newest entries" if self._newest == ENTRY_NEWEST else
                     "some members run an older release: what only this one knows is refused until they are upgraded")

    def _of_silent(self, member: Member, now: float) -> int | None:
        since = self._since.get(_key(member))
        return None if since is None or now - since < PATIENCE_S else ENTRY_NEWEST

    async def _status(self, address: str) -> protocol.Status | None:
        try:
            return await self._ask(address)
        except ClusterError:
            return None


def _key(member: Member) -> tuple[str, bytes]:
    return member.name, member.incarnation
