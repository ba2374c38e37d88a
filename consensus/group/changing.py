"""Members come, are counted, and go: one change at a time through the log, made by the leader. What may be changed is
decided in members.py; here it is put into the log, and a leader that goes lets another one be elected first.
"""

import asyncio
from collections.abc import Callable, Container
from typing import TYPE_CHECKING, Protocol

from consensus.core.errors import ClusterError, Refused, Unavailable
from consensus.core.model import Member
from consensus.group import members
from consensus.group.members import Members, with_member, without
from consensus.journal import Journal

if TYPE_CHECKING:
    from consensus.group.group import Group

HAND_OVER_S = 1.0
"""A leader that stops waits so long for another one."""

LOOK_S = 0.01


class Log(Protocol):
    """What is needed of a RaftNode."""

    pauses: bool

    @property
    def leads(self) -> bool: ...
    @property
    def leader(self) -> str | None: ...
    @property
    def term(self) -> int: ...

    def wake(self) -> None: ...
    def add_configuration(self, encoded: bytes) -> "asyncio.Future[None]": ...


class Changes:
    """Of one group, as its leader makes them. Elsewhere they are refused as Unavailable."""

    def __init__(self, group: "Group", log: Log, journal: Journal, committed: Callable[[], int]) -> None:
        self._group, self._log, self._journal, self._committed = group, log, journal, committed

    async def add(self, member: Member) -> None:
        """Take it in as a learner, or with its new address; one with another incarnation begins as a learner again. It
        becomes a voter by itself once it has caught up, if there are too few. Returns when that is committed; Raises
        Unavailable (not now, or not here), Refused, UnknownOutcome."""
        await self._change(with_member(self._group.members, member))

    async def remove(self, name: str) -> None:
        """It is neither counted nor told anything any more. A leader cannot remove itself, since the library would go on
        counting it: it hands over to another, who can."""
        group = self._group
        if name == group.name and self._log.leads:
            without(group.members, name)                     # refused at all?
            await self.hand_over()
            raise Unavailable(f"{name} leads, and hands over: ask again")
        group.check_without(name)
        await self._change(without(group.members, name))

    async def _change(self, proposed: Members) -> None:
        if proposed != self._group.members:
            await self.configure(proposed)

    def configure(self, proposed: Members) -> "asyncio.Future[None]":
        """Put a configuration into the log, where it is in force at once. The future ends when it is applied."""
        refused: ClusterError | None = None
        group = self._group
        ours = members.find(proposed, group.name)
        if not self._log.leads:
            refused = Unavailable("this member does not lead")
        elif ours is None or not ours.voter or ours.incarnation != group.incarnation:
            # The library would go on counting it. Removal hands over first; so this is another machine of the same name.
            refused = Refused(f"{group.name} is the name of the member that leads")
        elif group.change_pends or self._journal.term_at(self._committed()) != self._log.term:
            refused = Unavailable("another change of the members is not finished yet")
        if refused is None:
            return self._log.add_configuration(members.encode(proposed))
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.set_exception(refused)
        return future

    async def hand_over(self, fit: Container[str] | None = None) -> bool:
        """Let a voter be elected at once, one of the `fit` if they are given, as soon as it has all of the log: nothing more
        is taken until then. True when another leads; within a second, or not at all."""
        group, log = self._group, self._log
        until = group.now() + HAND_OVER_S
        log.pauses = True
        try:
            while log.leader in (None, group.name) and group.now() < until:
                if log.leads:
                    log.wake()
                    group.ask_to_stand(fit)
                await asyncio.sleep(LOOK_S)
        finally:
            log.pauses = False
            log.wake()
        return log.leader not in (None, group.name)
