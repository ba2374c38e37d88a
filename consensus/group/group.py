"""One member's side of the group. A server makes it and gives it to its RaftNode, which drives it: see there for the tick.

What it needs of the world comes in: the post, a clock that only counts, randomness. Timers are the loop's.
"""

import asyncio
import logging
import math
import random
import time
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Any, Protocol

from consensus.core import tasks
from consensus.core.errors import Refused, Unavailable
from consensus.core.model import Member
from consensus.core.wire import Link
from consensus.disk import Disk
from consensus.group import catching_up, members, messages
from consensus.group.changing import Changes, Log
from consensus.group.core import Core, Peer
from consensus.group.elections import Elections
from consensus.group.links import LinkPost
from consensus.group.members import Members
from consensus.group.messages import (
    Append,
    Appended,
    AskVote,
    Behind,
    Campaign,
    Message,
    Page,
    Paged,
    Probe,
    Probed,
    Read,
    Readable,
    Voted,
)
from consensus.group.post import Post
from consensus.group.probes import Probes
from consensus.group.replication import Replication
from consensus.group.timing import Timing
from consensus.group.transport import GroupTransport
from consensus.journal import Journal
from consensus.snapshot import Snapshot

log = logging.getLogger("staddle.meta")

SILENT_S = 1.5
"""A link over which nothing has been answered for so long, though we have asked, is dialled anew: after a partition, TCP
itself would take its time to find out that it may send again."""

CAUGHT_UP_S = 1.0
"""A learner that has acknowledged so lately, and all that is committed, may become a voter; a voter is there."""


class Driver(Log, Protocol):
    """What the group needs of its RaftNode."""

    failed: bool

    def fail(self, error: BaseException) -> None: ...
    def noticed(self) -> None: ...
    def freeze_for(self, fetched: Snapshot) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberStatus:
    """As this member sees another: `match` and `heard_s` (seconds ago) are known to the leader only."""

    name: str
    address: str
    voter: bool
    connected: bool
    match: int = 0
    heard_s: float | None = None


class Group:
    """See the module."""

    def __init__(self, *, name: str, address: str, incarnation: bytes, post: Post, configured: Members = (),
                 birth: bool = False, voters_wanted: int = 3, timing: Timing | None = None,
                 now: Callable[[], float] = time.monotonic, chance: Callable[[], float] = random.random) -> None:
        """`configured`: the members as SQLite has them. `birth`: a store without any, whose first configuration is this
        member alone; without it such a store waits for a leader, and never asks for votes. `chance`: as random.random."""
        self.name, self.address, self.incarnation, self.post = name, address, incarnation, post
        self.timing, self.now, self.chance, self.voters_wanted = timing or Timing(), now, chance, voters_wanted
        self._ours = Member(name=name, address=address, incarnation=incarnation)
        self._base: Members = configured or ((self._ours,) if birth else ())
        self.first_is_due = birth and not configured
        self.transport = GroupTransport(incarnation, self.answer)
        self.server: catching_up.Server | None = None
        self.fetcher: catching_up.Fetcher | None = None
        self._peers: dict[str, Peer] = {}
        self._linked: set[str] = set()
        self._stopped = False
        self._asked_at: dict[str, float] = {}
        self._in_force: bytes | None = b""
        self._timer: asyncio.TimerHandle | None = None
        self._changing: asyncio.Future[None] | None = None
        self.members: Members = ()

    # Life

    def attach(self, node: Driver, core: Core, journal: Journal, applied: Callable[[], int]) -> None:
        self._node, self._core, self._journal, self._applied = node, core, journal, applied
        self.changes = Changes(self, node, journal, lambda: core.commit)
        self.replication = Replication(core, journal, self.now, self.timing.heartbeat_s, self.send)
        self.elections = Elections(self.name, self.incarnation, core, journal, self.timing, self.now, self.send, self.answer)
        self.probes = Probes(self.name, self.incarnation, core, journal, applied, self.now, self.send, self.answer,
                             lambda name: self.replication.tell_commit(self._peer(name)))
        self.transport.core, self.transport.elections, self.transport.journal = core, self.elections, journal
        self.post.start(self.receive, self._connected, self._lost)
        self.refresh()

    def serve_snapshots(self, folder: str, disk: Disk, take: catching_up.Take) -> None:
        """`take` makes one in `folder`/snapshots. Without this, members behind the log wait."""
        self._folder, self._disk = folder, disk
        self.server = catching_up.Server(folder, take, self._core, self._journal, self.now, self.answer)
        self.fetcher = catching_up.Fetcher(folder, disk, self._core, self.send, self._node.freeze_for)

    def install(self, fetched: Snapshot) -> None:
        catching_up.install(fetched, self._folder, self._disk, self._journal)

    def start(self) -> None:
        self.post.keep(members.addresses(self.members, self.name))
        self._fire()

    async def stop(self) -> None:
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for part in (self.fetcher, self.server):
            if part is not None:
                await part.stop()
        await self.post.stop()

    def _fire(self) -> None:
        """The timer: heartbeats and elections are due by time alone."""
        node, core, now = self._node, self._core, self.now()
        if node.failed:
            return
        due = core.beat_at if core.leads else core.election_deadline
        if due <= now:
            node.wake()
        try:
            self._look(now)
        except BaseException as error:  # noqa: BLE001  an outermost edge, as the tick is
            node.fail(error)
            return
        beat_s = self.timing.heartbeat_s
        delay = beat_s / 10 if due <= now else min(due - now + 0.001, beat_s)
        self._timer = asyncio.get_running_loop().call_later(delay, self._fire)

    def _look(self, now: float) -> None:
        for name, asked_at in list(self._asked_at.items()):
            if now - asked_at > SILENT_S:
                del self._asked_at[name]
                self.post.redial(name)
        self.probes.look()
        if self.server is not None:
            self.server.look()
        if self._core.leads:
            self._keep_members(now)

    # The configuration

    def refresh(self) -> bool:
        """The last configuration in the log is in force, committed or not. True if it is another than before."""
        entries = self._journal.configurations
        last = entries[-1][1] if entries else None
        if last is self._in_force or last == self._in_force:
            return False
        self._in_force, before = last, self.members
        self.members = self.elections.members = self.probes.members = members.decode(last) if last is not None else self._base
        others = [member for member in self.members if member.name != self.name]
        for member in before:                            # what it had acknowledged is gone with it
            known = members.find(self.members, member.name)
            if known is None or known.incarnation != member.incarnation:
                self._core.forget(self._peer(member.name))
                self.replication.forget(member.name)
        self._core.set_others([self._peer(member.name) for member in others if member.voter],
                              [self._peer(member.name) for member in others if not member.voter],
                              self._linked, self._journal.last_index, self.now())
        self.post.keep(members.addresses(self.members, self.name))
        return True

    @property
    def change_pends(self) -> bool:
        entries = self._journal.configurations
        return bool(entries) and entries[-1][0] > self._core.commit

    def _keep_members(self, now: float) -> None:
        """The leader's own changes: the first configuration, and learners that have caught up."""
        core = self._core
        if self.change_pends or self._journal.term_at(core.commit) != core.term or \
                (self._changing is not None and not self._changing.done()):
            return
        ours = members.find(self.members, self.name)
        if self.first_is_due or (ours is not None and ours.address != self.address):
            self.first_is_due = False
            kept = tuple(member for member in self.members if member.name != self.name)
            self._change((*kept, self._ours))
        elif len(members.voters(self.members)) < self.voters_wanted:
            for member in self.members:
                if not member.voter and self._caught_up(member.name, now):
                    log.info("member %s has caught up and is counted from now on", member.name)
                    self._change(members.with_voter(self.members, member.name))
                    break

    def _change(self, proposed: Members) -> None:
        self._changing = self.changes.configure(proposed)
        self._changing.add_done_callback(tasks.seen)       # tried again if need be

    def _caught_up(self, name: str, now: float) -> bool:
        core, node = self._core, self._peer(name)
        return node in core.connected and core.match_index[node] >= core.commit and \
            now - core.responded.get(node, now) < CAUGHT_UP_S

    def check_without(self, name: str) -> None:
        """Raises Unavailable if the voters that answer would be no majority without this one: the change would be in force at
        once, could not be committed, and nothing else could be either."""
        core, now = self._core, self.now()
        left = members.voters(tuple(member for member in self.members if member.name != name))
        heard = sum(member.name == self.name or now - core.responded.get(self._peer(member.name), -math.inf) < CAUGHT_UP_S
                    for member in left)
        if core.leads and heard < members.majority(left):
            raise Unavailable(f"without {name}, only {heard} of {len(left)} voting members would be there now: no majority. "
                              "Remove first those that are not there")

    def most_caught_up(self, fit: Container[str] | None = None) -> str | None:
        """The voter that could be elected at once: it has all of the log. One of the `fit`, if they are given."""
        core, last = self._core, self._journal.last_index
        able = [node.id for node in core.voters if node in core.connected and core.match_index[node] == last
                and (fit is None or node.id in fit)]
        return max(able, key=lambda name: core.responded[self._peer(name)], default=None)

    def ask_to_stand(self, fit: Container[str] | None = None) -> None:
        """We stop: who has all of the log may be elected."""
        able = self.most_caught_up(fit)
        if able is not None:
            self.send(able, Campaign(self._core.term))

    @property
    def is_alone(self) -> bool:
        """No other voter is known here, so nobody has to be waited for."""
        return self.elections.is_voter and members.majority(self.members) == 1

    def status(self) -> dict[str, Any]:
        """For RaftStatus."""
        core, now, fetcher = self._core, self.now(), self.fetcher
        fetching = fetcher is not None and fetcher.running
        return {"members": tuple(self._status_of(member, core, now) for member in self.members),
                "fetched_bytes": fetcher.got_bytes if fetcher is not None and fetching else 0,
                "of_bytes": fetcher.of_bytes if fetcher is not None and fetching else 0}

    def _status_of(self, member: Member, core: Core, now: float) -> MemberStatus:
        node = self._peer(member.name)
        known = core.leads and member.name != self.name
        return MemberStatus(
            name=member.name, address=member.address, voter=member.voter,
            connected=member.name == self.name or node in core.connected,
            match=core.match_index.get(node, 0) if known else self._journal.last_index if member.name == self.name else 0,
            heard_s=now - core.responded[node] if known and node in core.responded else None)

    # Frames

    def frame(self, link: Link, operation: int, status: int, request_id: int, payload: memoryview) -> None:
        """From a link that the server has accepted. Whatever no member sends closes it."""
        assert isinstance(self.post, LinkPost), "other posts have no links"
        try:
            self.post.frame(link, operation, payload)
        except Refused as error:
            log.warning("a link from %s is closed: %s", link.peer or "another member", error)
            link.close()

    def lost(self, link: Link) -> None:
        if isinstance(self.post, LinkPost):
            self.post.lost(link)

    def send(self, name: str, message: Message) -> None:
        operation, payload = messages.encode(message)
        if operation in messages.ANSWERED and name in self._linked:
            self._asked_at.setdefault(name, self.now())
        self.post.send(name, operation, payload)

    def answer(self, name: str, message: Message) -> None:
        self.post.answer(name, *messages.encode(message))

    def _peer(self, name: str) -> Peer:
        peer = self._peers.get(name)
        if peer is None:
            peer = self._peers[name] = Peer(name)
        return peer

    def _connected(self, name: str) -> None:
        node, core = self._peer(name), self._core
        self._asked_at.pop(name, None)
        self._linked.add(name)
        if node in core.voters or node in core.learners:
            core.connected.add(node)
            if not self._node.failed:
                self.replication.connected(node)

    def _lost(self, name: str) -> None:
        self._linked.discard(name)
        self._core.connected.discard(self._peer(name))
        self._asked_at.pop(name, None)
        if name == self._core.leader and not self._node.failed:
            self.elections.lost_link()

    def receive(self, name: str, operation: int, payload: bytes | memoryview) -> None:
        """Raises Refused for what no member sends. Nothing of it has had an effect then."""
        message = messages.decode(operation, payload)
        if operation in messages.ANSWERS:
            self._asked_at.pop(name, None)
        if self._node.failed or self._stopped:
            return
        if name == self.name:
            raise Refused("another machine has our name")
        try:
            self._take(self._peer(name), message)
        except Refused:
            raise
        except BaseException as error:  # noqa: BLE001  an outermost edge, as the tick is
            self._node.fail(error)

    def _take(self, sender: Peer, message: Message) -> None:
        core, name = self._core, sender.id
        match message:
            case Append() | Behind() | Campaign() | Probe():
                if message.term < core.term:
                    self.answer(name, Voted(message.term, core.term, self.incarnation, False, False))
                    return
                self._from_leader(sender, message)
            case Appended():
                self._appended(sender, message)
            case AskVote():
                self.elections.asked(sender, message)
                self._node.noticed()
            case Voted():
                self.elections.answered(sender, message)
                self._node.noticed()
                self._node.wake()
            case Probed():
                self.probes.answered(name, message)
            case Read():
                self.probes.wanted_by(name, message)
            case Readable():
                self.probes.readable(name, message)
            case Page():
                if self.server is not None:
                    self.server.asked(name, message)
            case Paged():
                if self.fetcher is not None:
                    self.fetcher.paged(message)
            case _:
                raise Refused(f"member {name} sends what has no place here")

    def _from_leader(self, sender: Peer, message: Append | Behind | Campaign | Probe) -> None:
        core = self._core
        if core.leads and message.term == core.term:
            raise Refused(f"{sender.id} leads our own term {core.term}, it says")
        if isinstance(message, Append):
            self.transport.append(sender, message, self._applied())
            self.elections.heard_leader()
            if self.fetcher is not None and self.fetcher.running and message.entries:
                self._entries_again(message)
            if self.refresh():
                self._node.noticed()
        elif message.term > core.term:
            core.adopt(message.term)
        if isinstance(message, Behind):
            self._behind(sender, message)
        elif isinstance(message, Campaign):
            if core.leader == sender.id:
                self.elections.stand()
        elif isinstance(message, Probe):
            self.probes.probed(sender.id, message)
        self._node.noticed()
        if not isinstance(message, Probe):
            self._node.wake()

    def _entries_again(self, message: Append) -> None:
        assert self.fetcher is not None
        if self._journal.term_at(message.previous + 1) == message.entries[0][0]:
            self.fetcher.no_more()

    def _behind(self, sender: Peer, message: Behind) -> None:
        """The leader's log begins after what we have; or it doesn't know yet what we have."""
        core, applied = self._core, self._applied()
        core.follow(sender, self.now() + core.election_timeout())
        self.elections.heard_leader()
        if applied >= message.first:
            self.transport.behind(sender.id, applied + 1)
            return
        self.transport.behind(sender.id, None)
        if self.fetcher is not None:
            self.fetcher.begin()

    def _appended(self, sender: Peer, answer: Appended) -> None:
        core = self._core
        member = members.find(self.members, sender.id)
        if not core.leads or answer.term != core.term or member is None or member.incarnation != answer.incarnation:
            return                                       # of another log than ours, or of one that is lost
        last, following = self._journal.last_index, answer.next
        if following > last + 1:
            if answer.success:
                raise Refused(f"{sender.id} acknowledges entry {following - 1} of {last}")
            following = last + 1
        if answer.reset:
            following = max(following, core.match_index[sender] + 1)
            if not self.replication.goes_back(sender, following):
                core.responded[sender] = self.now()
                return
        core.give(sender, {"type": "next_node_idx", "next_node_idx": following, "reset": answer.reset,
                           "success": answer.success})
        if answer.success or answer.reset:
            self.replication.acknowledged(sender, messages.Appended(
                answer.term, answer.incarnation, following, answer.reset, answer.success))
        if answer.success and core.match_index[sender] > core.commit:
            self._node.wake()
