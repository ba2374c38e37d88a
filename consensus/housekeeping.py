"""What a member does beside the log. Each: SQLite's WAL stays short, snapshots are taken and the journal is trimmed behind
them. Who leads, as well: silent sessions end, nodes that are silent are said to be down, released things are drained.

Nothing here is needed for a right answer, only for space, memory and speed. What takes long runs in a thread, one thing
at a time; what goes through the log gives way to clients.

What a new leader has heard it has heard itself: for everybody, silence begins anew with it.
"""

import asyncio
import contextlib
import logging
import math
import os
import sqlite3
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from consensus import snapshot
from consensus.apply.nodes import DOWN, LOST, UP
from consensus.config import MetaConfig
from consensus.core.clock import Clock
from consensus.core.commands import AnyCommand, Drain, EndSession, SetDefaults, SetNodeState
from consensus.core.errors import Unavailable, UnknownOutcome
from consensus.core.ids import NodeId, SessionId
from consensus.core.results import AnyResult, Drained
from consensus.disk import Disk
from consensus.expiry import Expiry
from consensus.grace import Grace
from consensus.journal import Journal
from consensus.machine import Machine
from consensus.recovery import is_damage
from consensus.soundness import Check

log = logging.getLogger("staddle.meta")

Value = TypeVar("Value")

NODES_LOOK_S = 1.0
"""Of the seconds after which a silent node is down, this much may be added."""

WAL_LOOK_S = 0.25
"""A busy member writes a few MiB of WAL in this time."""

WAL_BYTES = 8 << 20
"""From here on a checkpoint runs beside the writer. Larger ones cost the same, smaller ones write hot pages more often."""

WAL_BYTES_MAX = 32 << 20
"""A WAL begins anew only when a checkpoint has caught up with the writer, which never happens beside a busy one. At this
size the writer waits for the little that is left; at twice the size SQLite itself would make it wait for all."""

DRAIN_ALWAYS_S = 600.0
"""Some work comes due by time alone (finished uploads are forgotten after a day): drain this often even if idle."""

SNAPSHOT_RETRY_S = 300.0
"""After a snapshot that failed for want of space."""

OLD_KEPT_S = 60.0
"""Readers notice another generation with their next read."""

SPACE_KEPT_BYTES = 128 << 20
"""A snapshot must leave this much free."""


class Log(Protocol):
    """What housekeeping needs of the server."""

    @property
    def busy(self) -> bool:
        """Clients are waiting for the log."""

    async def propose(self, command: AnyCommand) -> AnyResult: ...

    def may_write(self) -> None:
        """Raises Unavailable while the disk is full or read-only."""


class Housekeeper:
    """Works from `start` to `stop`; the steps can be called one by one as well."""

    def __init__(self, folder: str, machine: Machine, journal: Journal, log: Log, *, disk: Disk, config: MetaConfig,
                 clock: Clock, on_failure: Callable[[BaseException], None], defaults: tuple[int, str] | None = None,
                 alone: bool = True) -> None:
        """`defaults`: the settings `copies` and `replication` of this member."""
        self._folder, self._machine, self._journal, self._log = folder, machine, journal, log
        self._disk, self._config, self._clock, self._on_failure = disk, config, clock, on_failure
        self._defaults, self._alone = defaults, alone
        self._grace = Grace(config.read_grace_s)
        self.heard: dict[int, float] = {}
        """When each session was heard of last, monotonic."""
        self._expiry = Expiry(clock, config.upload_expire_s)
        self.soundness = Check(folder, lambda: machine.path, interval_s=config.check_interval_s, clock=clock, disk=disk)
        self.leads = False
        self._led_since = time.monotonic()
        self._begun: dict[int, float] = {}
        self._drained_at = self._snapshot_at = 0.0
        self._beside: asyncio.Future[Any] | None = None
        self._one = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._repeat(WAL_LOOK_S, self.keep_wal_short), name="meta checkpoints"),
            loop.create_task(self._repeat(self._config.housekeeping_s, self.keep_house), name="meta housekeeping"),
            loop.create_task(self._repeat(min(NODES_LOOK_S, self._config.housekeeping_s), self.keep_nodes),
                             name="meta nodes"),
            loop.create_task(self._repeat(self._config.housekeeping_s, self.keep_journal_short), name="meta snapshots"),
            loop.create_task(self._remove_old(), name="meta old files"),
            loop.create_task(self.soundness.run(), name="meta soundness"),
        ]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._beside is not None and not self._beside.done():
            with contextlib.suppress(OSError, sqlite3.Error):        # threads cannot be cancelled
                await self._beside

    async def _repeat(self, period_s: float, work: Callable[[], Awaitable[None]]) -> None:
        said = ""
        while True:
            await asyncio.sleep(period_s)
            try:
                await work()
                said = ""
            except (Unavailable, UnknownOutcome) as error:
                if str(error) != said:                # once: a disk may be full for days
                    log.warning("housekeeping is put off: %s", error)
                said = str(error)
            except Exception as error:  # noqa: BLE001  what failed may be SQLite or the journal: see raft.py
                self._on_failure(error)
                return

    async def _remove_old(self) -> None:
        """The file of an earlier generation, after a rebuild: its readers have gone on to the present one long since."""
        await asyncio.sleep(OLD_KEPT_S)
        with contextlib.suppress(OSError):
            await self._in_thread(lambda: snapshot.remove_old(self._folder, self._disk))

    async def _in_thread(self, work: Callable[[], Value]) -> Value:
        """One thing at a time, and it is waited for even if we are stopped."""
        async with self._one:
            running = asyncio.get_running_loop().run_in_executor(None, work)
            self._beside = running
            return await asyncio.shield(running)

    # Sessions and the queue

    def lead(self, leads: bool) -> None:
        """The member leads from now on, or doesn't any more."""
        self.leads, self._led_since = leads, time.monotonic()
        self.heard.clear()
        self._begun.clear()

    async def keep_house(self) -> None:
        if not self.leads:
            return
        await self.keep_defaults()
        await self.end_silent_sessions()
        await self.expire_uploads()
        await self.drain()

    async def end_silent_sessions(self) -> None:
        now, heard, sessions = time.monotonic(), self.heard, self._machine.sessions
        for session in list(sessions.open):
            if now - heard.setdefault(session, now) > self._config.session_silence_s:
                log.info("session %d has been silent and is ended", session, extra={"session": session})
                await self._log.propose(EndSession(session=SessionId(session)))
        for session in heard.keys() - sessions.open.keys():
            del heard[session]

    async def keep_defaults(self) -> None:
        """Let the log say what this leader's settings say: all members count copies by that, and what is there follows a change
        of them. A member that is alone with one storage node counts by its settings as long as the log says nothing."""
        state = self._machine.state
        said = state.get_meta("copies"), state.get_meta("replication")
        matters = not self._alone or said[0] is not None or len(state.nodes) > 1
        if self.leads and matters and self._defaults not in (None, said):
            copies, replication = self._defaults
            with contextlib.suppress(Unavailable, UnknownOutcome):           # the next leader will
                await self._log.propose(SetDefaults(copies=copies, replication=replication))

    async def keep_nodes(self) -> None:
        """A storage node that has been silent for `down_after_s` is down; one that speaks again is up. With one node there
        is nobody who could do anything about it."""
        nodes = self._machine.state.nodes
        if not self.leads or len(nodes) < 2:
            return
        now = time.monotonic()
        heard: dict[NodeId, float] = {}
        begun: dict[NodeId, float] = {}                  # sessions that we know since; each node has one
        sessions = {session.id: session.node for session in self._machine.sessions.open.values() if session.node is not None}
        self._begun = {session: self._begun.get(session, now) for session in sessions}
        for session, node in sessions.items():
            begun[node] = self._begun[session]
            if session in self.heard:
                heard[node] = self.heard[session]
        for node, (_, info) in list(nodes.items()):
            silent_s = now - max(heard.get(node, 0.0), begun.get(node, 0.0), self._led_since)
            if silent_s > self._config.down_after_s and info.state not in (DOWN, LOST):
                log.warning("storage node %s has been silent for %.0f s: it is down", node, silent_s)
                await self._log.propose(SetNodeState(node=node, state=DOWN))
            elif silent_s > self._config.lost_after_s and info.state == DOWN and info.counts:
                log.warning("storage node %s has been down for long: its copies are made anew on others", node)
                await self._log.propose(SetNodeState(node=node, state=LOST))
            elif node in heard and now - heard[node] < self._config.down_after_s and info.state in (DOWN, LOST):
                log.info("storage node %s is back", node)
                await self._log.propose(SetNodeState(node=node, state=UP))

    async def expire_uploads(self) -> None:
        while (command := self._expiry.due(self._machine.oldest_upload_ms())) is not None:
            began = time.monotonic()
            result = await self._log.propose(command)
            if isinstance(result, Drained):
                log.info("%d multipart uploads have expired", result.released)
            await self._give_way(began)

    async def drain(self, grace_s: float | None = None, for_s: float = math.inf) -> tuple[int, bool]:
        """Release what nothing refers to, until nothing is left or for so long: (units released, whether more is left).

        `grace_s`: what readers of deleted objects get; None for as much as is set.
        """
        log_ms, wall_ms = self._machine.state.now, self._clock.now_ms()
        self._grace.note(log_ms, wall_ms)
        # The log's time will be this when the command is carried out: it brings the wall clock's.
        grace_ms = self._grace.before_ms(max(log_ms, wall_ms)) if grace_s is None else int(grace_s * 1000)
        until = time.monotonic() + for_s
        due = time.monotonic() - self._drained_at > DRAIN_ALWAYS_S
        released = 0
        while due or self._machine.has_work(self._clock.now_ms(), grace_ms):
            began = time.monotonic()
            if began > until:
                return released, True
            result = await self._log.propose(Drain(grace_ms=grace_ms))
            self._drained_at, due = time.monotonic(), False
            assert isinstance(result, Drained)
            released += result.released
            if not result.more:
                break
            await self._give_way(began)
        return released, False

    async def _give_way(self, began: float) -> None:
        """If clients have come in meanwhile, the greater share of the log is theirs."""
        spent = time.monotonic() - began
        await asyncio.sleep(spent * (1 / self._config.drain_share - 1) if self._log.busy else 0.0)

    # Checkpoints and snapshots

    async def keep_wal_short(self) -> None:
        if self._wal_bytes() >= WAL_BYTES:
            self._log.may_write()
            try:
                await self.checkpoint()
            except sqlite3.OperationalError as error:
                # The file can't grow, and the WAL holds what it lacks. To end now would be to need room for a start.
                if error.sqlite_errorname != "SQLITE_FULL":
                    raise
                raise Unavailable(f"no room for a checkpoint: {error}") from error

    async def checkpoint(self) -> int:
        """Bring SQLite's file up to date. Returns the last entry that it holds durably."""
        durable = await self._in_thread(self._machine.checkpoint)
        if self._wal_bytes() >= WAL_BYTES_MAX:
            async with self._one:
                durable = self._machine.checkpoint()
        return durable

    def _wal_bytes(self) -> int:
        try:
            return os.stat(self._machine.path + "-wal").st_size
        except FileNotFoundError:
            return 0

    async def keep_journal_short(self) -> None:
        """Snapshots are due by journal bytes, but not before as many as the database is large: so they write about as
        much as the journal does, whatever the size of the database."""
        kept = snapshot.listed(self._folder)
        after = self._journal.bytes_after(kept[-1].index if kept else 0)
        database = os.stat(self._machine.path).st_size
        if after < max(self._config.snapshot_journal_bytes, database) or time.monotonic() < self._snapshot_at:
            return
        self._log.may_write()
        free = os.statvfs(self._folder)
        if free.f_bavail * free.f_frsize < database + SPACE_KEPT_BYTES:
            log.warning("no room for a snapshot of %d bytes: the journal grows", database)
            self._snapshot_at = time.monotonic() + SNAPSHOT_RETRY_S
            return
        await self.take_snapshot()

    async def take_snapshot(self) -> None:
        """Make one, and trim the journal behind the older of the two that are kept."""
        durable = await self.checkpoint()
        try:
            await self._in_thread(lambda: snapshot.make(self._machine.path, self._folder, self._disk))
        except (OSError, sqlite3.Error) as error:      # a full disk, most likely: the older snapshots still count
            if is_damage(error):
                raise                                  # and they must not be replaced by copies of what is damaged
            log.error("no snapshot could be taken: %s", error)
            self._snapshot_at = time.monotonic() + SNAPSHOT_RETRY_S
            return
        kept = snapshot.listed(self._folder)
        gone = self._journal.trim(min(kept[0].index, durable)) if len(kept) >= snapshot.KEPT else 0
        log.info("snapshot taken", extra={"index": kept[-1].index, "segments_trimmed": gone})
