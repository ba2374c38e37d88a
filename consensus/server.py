"""The metadata member as a role: owns the folder `meta`, takes commands from clients into the log, and answers them.

One loop turn collects what all clients have sent; one tick makes it one or two log entries, syncs, applies, commits and
answers. What needs longer is kept out of the way (housekeeping.py).

A member that is *alone* leads from its start on. In a *cluster* it comes in first (membership.py), serves once it has caught up
with what the leader had committed by then, and while another one leads it passes on what only the leader can answer
(forwarding.py). What it can answer itself it reads from its own SQLite, at a read index.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from consensus import figures, joining, protocol, queries, recovery
from consensus.apply.state import Replication
from consensus.beside import Beside
from consensus.config import MetaConfig
from consensus.core.clock import Clock, SystemClock
from consensus.core.codec import UNDECODABLE, FutureEntry, encode_entry
from consensus.core.commands import AnyCommand, Envelope
from consensus.core.errors import ClusterError, Corrupt, NoSpace, ReadOnly, Refused, Unavailable
from consensus.core.ids import POSITION_BITS, SessionId
from consensus.core.results import AnyResult
from consensus.core.wire import OK, Handler, Link, WireServer
from consensus.disk import Disk
from consensus.endings import exit_for_restart, exit_process
from consensus.forwarding import PASSED_ON
from consensus.housekeeping import Housekeeper
from consensus.inquiries import Inquiries
from consensus.intake import Intake
from consensus.joining import ClusterSettings
from consensus.later import Later, Work
from consensus.leading import Leading
from consensus.raft import RaftNode
from consensus.reads import Reader
from consensus.room import Room
from consensus.standby import LOCK, prove
from consensus.upgrading import Upgrading
from consensus.visitors import check_joining, check_member, is_member

if TYPE_CHECKING:                                 # a machine that is alone loads nothing of it
    from consensus.core.tls import Tls
    from consensus.group.group import Group
    from consensus.membership import Membership

log = logging.getLogger("staddle.meta")

KEEP_BYTES = 64 << 20
"""Entries of a cluster's log that stay in memory although SQLite has them: a member that was away for less than about these
gets them, one that was away for longer fetches a snapshot."""

HOUSEKEEP_S_MAX = 10.0
"""One HOUSEKEEP is answered within this time: who wants more asks again, and can show how it goes."""


class MetaServer:
    """See the module. `stop` may be called once, after `start`."""

    def __init__(
        self, folder: str, address: str, secret: bytes, *, name: str = "meta-1", config: MetaConfig | None = None,
        clock: Clock | None = None, disk: Disk | None = None, copies: int = 3, replication: Replication = "sync",
        on_failure: Callable[[BaseException], None] = exit_process, tls: "Tls | None" = None, also: Iterable[str] = (),
        cluster: ClusterSettings | None = None, on_restart: Callable[[], None] = exit_for_restart,
    ) -> None:
        """`folder` is DIR/meta and exists; `address` is where clients come (and those in `also`, of which the network's need
        `tls`); `secret` is the cluster's. Without `cluster` it is alone; with it, `name` is the machine's.
        `on_restart`: it has fetched another state, and is to be started anew."""
        self._folder, self._name, self._secret = folder, name, secret
        self._config, self._clock, self._disk = config or MetaConfig(), clock or SystemClock(), disk or Disk()
        self._copies, self._replication, self._on_failure = copies, replication, on_failure
        self._on_restart = on_restart
        self._wire = WireServer(address, secret, lambda: _Connection(self), also=also, tls=tls)
        several = (None, None) if cluster is None else (self._clock, self._said_for_all)
        self.intake = Intake(self._config, self._check_room, *several)
        self._watching: set[Link] = set()
        self._room = Room(folder)
        self._epoch = secrets.token_hex(8)
        self._lock = -1
        self._raft: RaftNode | None = None
        self._recovered = False
        self._failure: BaseException | None = None
        self._membership = None if cluster is None else _membership(name, cluster, folder, self._disk, secret, tls)
        self._ready = cluster is None
        self._stopping = False
        self._group: Group | None = None
        self._leading: Leading | None = None
        self._upgrading: Upgrading | None = None

    # Life

    async def start(self) -> None:
        """Recover, come in, and listen. It serves on return: everything that was answered before this call is in SQLite.

        Raises Refused if another process has this folder or the cluster does not take us in, Corrupt if what was durable is
        damaged (and alone here).
        """
        self._lock = _lock(os.path.join(self._folder, LOCK))
        try:
            if self._membership is not None:
                await self._wire.start()                 # others ask what we know while we ask them
            await self._recover()
            prove(self._lock, self._machine.generation)
            if self._membership is None:
                await self._wire.start()
            else:
                await self._membership.catch_up()
            self.housekeeper.lead(self.leads)
            await self.housekeeper.keep_defaults()
        except BaseException:
            await self._let_go()
            raise
        self._ready = True
        self.housekeeper.start()
        if self._leading is not None:
            self._leading.start()
        if self._upgrading is not None:
            self._upgrading.start()
        self.beside.start()
        log.info("serving", extra={"applied": self._machine.applied, "epoch": self._epoch})
        if self._membership is not None:
            self._changed()

    async def _recover(self) -> None:
        try:
            await self._replay()
        except (Corrupt, Refused) as error:
            damaged = isinstance(error, Corrupt) or (error.__cause__ is not None and recovery.is_damage(error.__cause__))
            if self._membership is None or not self._membership.cluster.peers or not damaged:
                raise
            log.error("%s. The other members have all of it: what is here is set aside once they answer", error)
            await self._membership.others_serve()
            recovery.set_aside(self._folder, self._disk)
            await self._replay()
        self._recovered = True
        assert self._raft is not None
        membership = self._membership
        self._reader = Reader(self._folder, queries.header, queries.ALONE, queries.KnowingBuckets)
        self.inquiries = Inquiries(self._folder, self._machine.generation, self._reader, self._clock, self._raft.fail)
        self._later = Later(self.inquiries.found_damaged, self._raft.fail)
        self.beside = Beside(self._folder, self._machine, disk=self._disk, clock=self._clock, secret=self._secret,
                             ask_others=None if membership is None else membership.ask_others)
        self.housekeeper = Housekeeper(self._folder, self._machine, self._journal, self, disk=self._disk,
                                       config=self._config, clock=self._clock, on_failure=self._raft.fail,
                                       defaults=(self._copies, self._replication), alone=membership is None)
        if membership is not None:
            assert self._group is not None
            self._leading = Leading(self._name, self._raft, lambda: self._room.refusing, membership.status_of)
            self._upgrading = Upgrading(self._name, self._raft, membership.status_of)
            self._group.serve_snapshots(self._folder, self._disk, self.housekeeper.take_snapshot)
            self._raft.on_change(self._changed)

    async def _let_go(self) -> None:
        """A start that came to nothing holds nothing."""
        if self._membership is not None:
            await self._membership.forwarder.stop()
        await self._wire.stop()
        if self._raft is not None and self._recovered:
            self._raft.stop()
            await self._raft.close()
            self._reader.close()
            self._journal.close()
            self._machine.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    async def _replay(self) -> None:
        """A log that leads (alone) or takes part, and SQLite that holds all of it that is known to be committed: on the best
        state on which every entry can be applied."""
        refused: Refused | None = None
        fresh = not recovery.has_journal(self._folder)
        for opening in recovery.openings(self._folder, disk=self._disk, config=self._config, copies=self._copies,
                                         replication=self._replication, now_ms=self._clock.now_ms(),
                                         keep_bytes=0 if self._membership is None else KEEP_BYTES):
            self._machine, self._journal = opening.machine, opening.journal
            try:
                if self._membership is None:
                    self._check_alone()
                else:
                    self._group = await self._membership.come_in(self._machine, self._journal, fresh=fresh)
            except BaseException:
                opening.close()
                raise
            self._raft = raft = RaftNode(self._name, self._journal, self._machine, self._failed, group=self._group,
                                          on_restart=self._on_restart)
            if self._membership is not None:
                self._membership.raft = raft
            raft.before_taking(partial(self.intake.fill, raft))
            raft.start()
            error = self._failure
            if error is None:
                if refused is not None:
                    log.warning("the metadata is made anew from %s", opening.origin)
                return
            if isinstance(error, FutureEntry):
                raise Refused(f"{error}. Start the Staddle that wrote it") from error
            if not recovery.in_doubt(error):
                self._on_failure(error)                              # which ends a real process
                raise Unavailable(f"the log could not be recovered: {error}") from error
            await raft.close()
            opening.close()
            refused = recovery.refusal(opening.origin, raft.applying, error)
            refused.__cause__ = error
            log.error("log entry %d cannot be applied on %s: %r", raft.applying, opening.origin, error)
            self._failure = None
        assert refused is not None, "openings raises if there is none"
        raise refused

    def _check_alone(self) -> None:
        """Raises Refused if the folder is of a member that has others."""
        configured = queries.members(self._machine.db)
        if len(configured) > 1 or (not configured and joining.is_of_a_cluster(self._folder)):
            raise Refused(f"{self._folder} is a cluster's ({', '.join(member.name for member in configured) or 'joining'}): a "
                          "member that was alone now would go its own way. Give --cluster-listen, as before")

    def _failed(self, error: BaseException) -> None:
        """The log cannot go on. While it is recovered, `_replay` decides what that means."""
        self._failure = error
        if not self._recovered:
            return
        if recovery.is_damage(error):
            with contextlib.suppress(OSError):
                recovery.distrust(self._folder, self._machine.generation, repr(error), self._disk, self._clock.now_ms())
        self._on_failure(error)

    async def stop(self) -> None:
        """Answer what has been taken, then let go. SQLite's file is left checkpointed."""
        if self._raft is not None:
            self._stopping = True                               # take nothing more, and let another member lead
            if self._membership is not None:
                await self._membership.hand_over()
            await self._later.stop()
            if self._membership is not None:
                await self._membership.forwarder.stop()
            if self._leading is not None:
                await self._leading.stop()
            if self._upgrading is not None:
                await self._upgrading.stop()
            await self.housekeeper.stop()
            await self.beside.stop()
            self._raft.stop()
            await self._raft.close()
            await asyncio.sleep(0)                              # the last answers leave
            await self._wire.stop()
            await asyncio.sleep(0)                              # and the sockets close
            self._reader.close()
            self._journal.close()
            if not self._raft.failed:
                self._machine.checkpoint()
            self._machine.close()
        if self._lock >= 0:
            os.close(self._lock)

    @property
    def busy(self) -> bool:
        """Clients are waiting for the log."""
        return bool(self.intake.queue)

    @property
    def leads(self) -> bool:
        return self._raft is not None and self._raft.leads

    @property
    def serving(self) -> protocol.Serving:
        raft, membership = self._raft, self._membership
        assert raft is not None
        if membership is None:
            return protocol.Serving(epoch=self._epoch, generation=self._machine.generation)
        return protocol.Serving(
            epoch=self._epoch, generation=self._machine.generation, alone=False, led=self._ready and raft.leader is not None,
            members=tuple(member.address for member in raft.members), address=membership.cluster.address)

    def _changed(self) -> None:
        """Who leads, or who belongs to the cluster, is another now."""
        raft, membership = self._raft, self._membership
        assert raft is not None
        assert membership is not None
        if raft.leads != self.housekeeper.leads:
            self.housekeeper.lead(raft.leads)
        membership.forwarder.changed()
        if self._upgrading is not None:
            self._upgrading.changed()
        told = protocol.encode(self.serving)
        for link in self._watching:
            link.send(protocol.WATCH, OK, 0, told)

    # Commands

    def submit(self, link: Link, request_id: int, payload: memoryview) -> None:
        """A client's commands, which are answered once they are carried out. Raises ClusterError if they are not taken."""
        if self._stopping or not self._ready:
            raise Unavailable("the metadata member stops" if self._stopping else "the metadata member starts")
        self.intake.take(link, request_id, payload, self.housekeeper.heard)
        assert self._raft is not None
        self._raft.wake()

    def _check_room(self, commands: Iterable[AnyCommand]) -> None:
        """Raises NoSpace or ReadOnly for commands that the disk may not have room for; Unavailable if another member, whose
        disk may have, is to lead instead."""
        try:
            self._room.check(commands)
        except (NoSpace, ReadOnly) as error:
            if self._membership is None or self._leading is None or self._leading.sole or not self._membership.has_heirs:
                raise
            self._leading.hurry()
            raise Unavailable(f"{error}; another member is to lead") from error

    def _said_for_all(self, envelopes: Sequence[Envelope]) -> Sequence[Envelope]:
        assert self._upgrading is not None
        return self._upgrading.said_for_all(envelopes)

    def may_write(self) -> None:
        """Whether the member may write on its own account. Raises Unavailable."""
        self._room.check_own()

    async def propose(self, command: AnyCommand) -> AnyResult:
        """A command of the leader's own housekeeping, in session 0."""
        assert self._raft is not None
        self.may_write()
        envelope = Envelope(session=SessionId(0), sequence=0, low=0, now_ms=self._clock.now_ms(), command=command)
        return (await self._raft.submit(encode_entry((envelope,))))[0]

    # Everything else that clients ask

    def ping(self, payload: memoryview) -> bytes:
        now, open_sessions = time.monotonic(), self._machine.sessions.open
        ended = []
        for session in protocol.sessions.decode(payload):
            if session in open_sessions:
                self.housekeeper.heard[session] = now
            elif session >> POSITION_BITS <= self._machine.applied:      # else a new leader has not got so far yet
                ended.append(session)
        return protocol.encode(ended)

    def watch(self, link: Link) -> bytes:
        self._watching.add(link)
        return protocol.encode(self.serving)

    def status(self) -> protocol.Status:
        assert self._raft is not None
        return figures.status(self._name, self._folder, self._raft, self._machine, self._journal, self.intake, self._room,
                              self.housekeeper, alone=self._membership is None, links=len(self._watching))

    # The cluster

    def raft_frame(self, link: Link, operation: int, status: int, request_id: int, payload: memoryview) -> None:
        if self._group is None or not is_member(link):
            link.close()                              # no member speaks so to us; or not yet, and it comes again
            return
        self._group.frame(link, operation, status, request_id, payload)

    def pass_on(self, link: Link, operation: int, request_id: int, payload: memoryview, passed_on: bool) -> None:
        """To the leader, once."""
        if operation == protocol.JOIN:
            check_joining(link, payload, passed_on)
        if passed_on or self._membership is None:
            raise Unavailable("this member does not lead")
        self._membership.forwarder.relay(link, operation, request_id, bytes(payload))

    def takes_time(self, link: Link, operation: int, payload: memoryview, passed_on: bool
                   ) -> Work | None:
        """What answers it, if that cannot be done at once."""
        if operation == protocol.READ_INDEX:
            self._check_ready()
            return self.read_index()
        membership = self._membership
        if operation == protocol.QUERY and membership is not None:
            self._check_ready()
            return self.query_later(bytes(payload))
        if operation == protocol.HOUSEKEEP:
            return self.housekeep(bytes(payload))
        if operation in protocol.BESIDE:
            self._check_ready()
            if operation == protocol.BACKUP_READ and membership is not None:
                return self._read_backup(bytes(payload), passed_on)
            return self.beside.operations[operation](bytes(payload))
        if operation == protocol.JOIN and membership is not None:
            check_joining(link, payload, passed_on)
            return membership.join(bytes(payload))
        if operation == protocol.LEAVE and membership is not None:
            return membership.leave(bytes(payload))
        return None

    async def _read_backup(self, payload: bytes, passed_on: bool) -> bytes:
        assert self._raft is not None
        await self._raft.read_index()                 # which backups there are, as of now
        return await (self.beside.read_here if passed_on else self.beside.operations[protocol.BACKUP_READ])(payload)

    def check_recovered(self, operation: int) -> None:
        """In a cluster others may come before there is anything to answer them from. Raises Unavailable."""
        if not self._recovered and operation != protocol.MEET:
            raise Unavailable("this member starts")

    def _check_ready(self) -> None:
        if not self._ready:
            raise Unavailable("this member is not up to date yet")

    def met(self, link: Link) -> bytes:
        """Raises Refused, Unavailable."""
        if self._membership is None:
            raise Refused("this machine is alone: it has no `cluster_listen`")
        check_member(link)
        return self._membership.met(self._ready)

    async def read_index(self) -> bytes:
        assert self._raft is not None
        return protocol.encode(await self._raft.read_index())

    async def housekeep(self, payload: bytes) -> bytes:
        asked = protocol.housekeep.decode(payload)
        return protocol.encode(await self.housekeeper.drain(asked.grace_s, min(asked.for_s, HOUSEKEEP_S_MAX)))

    def answer_later(self, link: Link, operation: int, request_id: int, work: Work) -> None:
        self._later.answer(link, operation, request_id, work)

    async def query_later(self, payload: bytes) -> bytes:
        """A question in a cluster: at a read index."""
        assert self._raft is not None
        return self.inquiries.answer(payload, await self._raft.read_index())

    def forget(self, link: Link) -> None:
        self._watching.discard(link)
        if self._group is not None:
            self._group.lost(link)


class _Connection(Handler):
    """One client's link."""

    def __init__(self, server: MetaServer) -> None:
        self._server = server

    def frame(self, link: Link, operation: int, status: int, request_id: int, payload: memoryview) -> None:
        server = self._server
        try:
            if protocol.RAFT_FIRST <= operation <= protocol.RAFT_LAST:
                server.raft_frame(link, operation, status, request_id, payload)
                return
            passed_on, operation = operation & PASSED_ON, operation & ~PASSED_ON
            server.check_recovered(operation)
            if operation in protocol.LEADERS and not server.leads:
                server.pass_on(link, operation, request_id, payload, bool(passed_on))
                return
            if operation == protocol.SUBMIT:
                server.submit(link, request_id, payload)
                return
            work = server.takes_time(link, operation, payload, bool(passed_on))
            if work is not None:
                server.answer_later(link, operation, request_id, work)
                return
            if operation == protocol.PING:
                answer = server.ping(payload)
            elif operation == protocol.WATCH:
                answer = server.watch(link)
            elif operation == protocol.STATUS:
                answer = protocol.encode(server.status())
            elif operation == protocol.QUERY:
                answer = server.inquiries.answer(payload)
            elif operation == protocol.DAMAGE:
                answer = server.inquiries.look_at_damage(payload)
            elif operation == protocol.MEET:
                answer = server.met(link)
            else:
                raise Refused(f"there is no operation {operation}")
        except (ClusterError, *UNDECODABLE) as error:
            protocol.refuse(link, operation, request_id, error)
        else:
            link.send(operation, OK, request_id, answer)

    def lost(self, link: Link) -> None:
        self._server.forget(link)


def _membership(name: str, cluster: ClusterSettings, folder: str, disk: Disk, secret: bytes, tls: "Tls | None") -> "Membership":
    from consensus.membership import Membership  # here: a machine that is alone loads nothing of it

    return Membership(name, cluster, folder, disk, secret, tls)


def _lock(path: str) -> int:
    """Only the process that holds this writes the folder. Raises Refused."""
    fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise Refused(f"another process uses {os.path.dirname(path)}") from error
    return fd

