"""A member's place in its cluster: how it comes in at its start, and how it takes others in and lets them go when it leads.

Who belongs to the cluster says the log, in its last configuration. A member that has one starts with it; one that has none
asks its peers (joining.py), and one whose incarnation is another than the log's has lost its journal and asks to be taken in
again, as a learner. What a member says to others before it knows who it is would be wrong: it says that it is starting.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import msgspec

from consensus import joining, protocol, queries
from consensus.core.errors import ClusterError, Refused, Unavailable
from consensus.core.model import Member
from consensus.disk import Disk
from consensus.forwarding import PASSED_ON, Forwarder, Leader, call_member
from consensus.group import members as configurations
from consensus.group.group import Group
from consensus.group.links import LinkPost
from consensus.group.members import Members, find
from consensus.joining import ClusterSettings, Joiner
from consensus.journal import Journal
from consensus.machine import Machine
from consensus.raft import RaftNode

if TYPE_CHECKING:
    from consensus.core.tls import Tls

log = logging.getLogger("staddle.meta")

AT_WORK_S = 5.0
"""A member that was heard within this time is there. Followers acknowledge several times a second."""

REMOVED_S = 5.0
"""A member that has found no leader for so long asks whether it is one at all: those who removed it tell it nothing more."""

CATCH_UP_S = 0.02
"""Between attempts to get a read index at the start: an election takes longer."""

STATUS_S = 1.0
OTHERS_S = 5.0
"""For the status of another member, and for a page of a backup or such from it."""


class Membership:
    """One per server of a cluster. `raft` is its node, once there is one."""

    def __init__(self, name: str, cluster: ClusterSettings, folder: str, disk: Disk, secret: bytes, tls: "Tls | None") -> None:
        self.name, self.cluster = name, cluster
        self._folder, self._disk, self._secret, self._tls = folder, disk, secret, tls
        self.raft: RaftNode | None = None
        self.forwarder = Forwarder(secret, tls, self._other_leader)
        self._born = b""
        self._knows_of_none = False
        """It was never in a cluster, and asks its peers whether there is one."""

    # Coming in

    async def come_in(self, machine: Machine, journal: Journal, *, fresh: bool) -> Group:
        """This member's side of the group, once it may take part. `fresh`: no journal was there. Raises Refused, OSError."""
        folder, cluster = self._folder, self.cluster
        configured = tuple(queries.members(machine.db))
        in_force = configurations.decode(journal.configurations[-1][1]) if journal.configurations else configured
        ours = find(in_force, self.name)
        if ours is not None and len(in_force) == 1:      # nobody else has ever had a vote of ours
            joining.keep_incarnation(folder, self._disk, ours.incarnation)
            fresh = False
        born = self._born = joining.incarnation(folder, self._disk, fresh=fresh)
        new = not in_force and not joining.was_taken_in(folder)
        birth = False
        if in_force and (ours is None or ours.incarnation == born):
            pass                                         # a member, or one that was removed: the others will tell
        elif new and (machine.applied or not cluster.peers):
            birth = True
        else:
            joiner = self._joiner(in_force, begins=cluster.begins and new)
            self._knows_of_none = new
            birth = not await joiner.join()
            self._knows_of_none = False
            if not birth:
                joining.note_taken_in(folder, self._disk)
        post = LinkPost(self.name, cluster.address, self._secret, tls=self._tls)
        return Group(name=self.name, address=cluster.address, incarnation=born, post=post, configured=configured, birth=birth,
                     voters_wanted=cluster.voters, timing=cluster.timing)

    def _joiner(self, known: Members, *, begins: bool = False) -> Joiner:
        others = tuple(member.address for member in known if member.name != self.name)
        return Joiner(self.cluster.asking(others, begins), self.name, self._born, self._secret, self._tls)

    async def others_serve(self) -> None:
        """Until they do: they have what is lost here."""
        await self._joiner(()).find()

    async def catch_up(self) -> None:
        """Until SQLite holds what the leader had committed when it was asked. Raises Refused if we are no member any more."""
        raft, look_at = self._raft, time.monotonic() + REMOVED_S
        while True:
            ours = find(raft.members, self.name)
            if ours is not None and ours.address != self.cluster.address and not raft.leads:
                await self._joiner(raft.members).say_where()         # the others look for us where we were
            try:
                await raft.read_index()
                return
            except Unavailable as error:
                log.debug("not up to date yet: %s", error)
            if time.monotonic() > look_at:
                if await self._joiner(raft.members).removed():
                    raise Refused(f"{self.name} was removed from the metadata members of this cluster. To go on without one "
                                  f"here, give the roles node and gateway; to join anew, delete the folder {self._folder}")
                look_at = time.monotonic() + REMOVED_S
            await asyncio.sleep(CATCH_UP_S)

    # The others

    @property
    def _raft(self) -> RaftNode:
        assert self.raft is not None
        return self.raft

    def _other_leader(self) -> Leader | None:
        raft = self.raft
        if raft is None or raft.leader in (None, self.name):
            return None
        return next(((member.name, member.address) for member in raft.members if member.name == raft.leader), None)

    @property
    def has_heirs(self) -> bool:
        """Another member could lead."""
        return any(member.voter and member.name != self.name for member in self._raft.members)

    async def hand_over(self) -> None:
        """Let another member lead, if there is one who would be elected."""
        if self._raft.leads and self.has_heirs:
            voters = [member for member in self._raft.status().members if member.voter]
            if sum(member.connected for member in voters) > len(voters) // 2:
                await self._raft.changes.hand_over()

    async def ask_others(self, operation: int, payload: bytes) -> AsyncIterator[bytes]:
        """The answers of the other members, of those who have one."""
        for member in self._raft.members:
            if member.name != self.name:
                with contextlib.suppress(ClusterError):
                    yield await call_member(member.address, self._secret, self._tls, operation | PASSED_ON, payload,
                                            answer_s=OTHERS_S)

    async def status_of(self, address: str) -> protocol.Status:
        """Another member's. Raises ClusterError."""
        return protocol.status.decode(await call_member(address, self._secret, self._tls, protocol.STATUS, b"",
                                                        answer_s=STATUS_S))

    # What others ask

    def met(self, serves: bool) -> bytes:
        """MEET. Raises Unavailable."""
        raft = self.raft
        if raft is None and not self._knows_of_none:
            raise Unavailable("this member starts, and cannot say yet whether there is a cluster")
        return protocol.encode(protocol.Met(
            name=self.name, incarnation=self._born, may_begin=self.cluster.begins, members=() if raft is None else raft.members,
            serves=serves and raft is not None and raft.group is not None and raft.group.elections.led))

    async def join(self, payload: bytes) -> bytes:
        """JOIN: take a member in, a new one, one that has come back with an empty folder, or one that has moved."""
        asked, raft = protocol.joining.decode(payload), self._raft
        known = find(raft.members, asked.name)
        if known is not None and known.incarnation != asked.incarnation and known.address != asked.address:
            self._check_gone(known)
        same = known is not None and known.incarnation == asked.incarnation
        if known is None or not same or known.address != asked.address:
            log.info("member %s %s", asked.name, "joins" if known is None else "has moved" if same else "is back, empty",
                     extra={"address": asked.address})
            await raft.changes.add(Member(name=asked.name, address=asked.address, incarnation=asked.incarnation))
        return self.met(serves=True)

    def _check_gone(self, known: Member) -> None:
        """Somebody else asks to come back in its place. Raises Unavailable while it is at work itself."""
        heard_s = next((member.heard_s for member in self._raft.status().members if member.name == known.name), None)
        if known.name == self.name or (heard_s is not None and heard_s < AT_WORK_S):
            raise Unavailable(f"a member {known.name} is at work at {known.address}: give another machine another name")

    async def leave(self, payload: bytes) -> bytes:
        """LEAVE. Who leads hands over first, and has the next one do it."""
        name, raft = msgspec.msgpack.decode(payload, type=str), self._raft
        if find(raft.members, name) is None:
            raise Refused(f"the cluster has no metadata member {name}")
        if name == self.name and raft.leads:
            if len(raft.members) == 1:
                raise Refused(f"{name} is the only metadata member")
            await raft.changes.hand_over()
            return await self.forwarder.ask(protocol.LEAVE, payload)
        await raft.changes.remove(name)
        return b""
