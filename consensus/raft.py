"""A Raft member on PySyncObj's core: elections, log matching and the commit rule are the library's; disk, network,
ticks and the state machine are ours. Exactly one release of it has been audited, so exactly that one is accepted.

The order within a tick is what every promise about durability rests on:

    queued entries → log (and to the others) → journal.fdatasync → the library counts and applies → machine.commit →
    answers → acknowledgements held back by the transport

So an entry is counted, applied and answered only after it is durable here, and one fdatasync and one SQLite transaction
serve everything that queued while the previous tick ran. Ticks follow events (`wake`); a group of one needs no timer
and campaigns at its first tick. In a group of several (consensus/group) a tick that has sent entries lets the loop turn
before it syncs, so that the frames are on their way meanwhile, and a timer wakes it for heartbeats and elections.

Whatever fails inside a tick (disk, SQLite, damage, our bug) ends the process through `on_failure`: nothing may be
answered from a state in doubt, and applying the entry again would fail again.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import pysyncobj.syncobj
from pysyncobj import FAIL_REASON, SyncObj, SyncObjConf
from pysyncobj.config import SERIALIZER_STATE
from pysyncobj.node import Node
from pysyncobj.version import VERSION

from consensus.core.errors import Refused, Unavailable, UnknownOutcome
from consensus.core.results import AnyResult
from consensus.group.timing import Timing
from consensus.journal import COMMANDS, CONFIGURATION, Journal
from consensus.transport import LocalTransport

if TYPE_CHECKING:                                 # a machine that is alone loads nothing of it
    from consensus.core.model import Member
    from consensus.group.group import Group, MemberStatus
    from consensus.group.members import Members
    from consensus.group.transport import GroupTransport
    from consensus.snapshot import Snapshot

logger = logging.getLogger(__name__)
logging.getLogger(pysyncobj.syncobj.__name__).addFilter(lambda record: not str(record.msg).startswith("truncating already"))
"""The library says so of entries that the journal only hides from it. One that a committed entry contradicts is Corrupt."""

AUDITED_VERSION = "0.3.17"
PRIVATE_METHODS = ("_checkCommandsToApply", "_onTick", "_isLeader", "_getLeader", "_SyncObj__sendAppendEntries",
                   "_SyncObj__doApplyCommand", "_SyncObj__onBecomeLeader", "_SyncObj__generateRaftTimeout")
PRIVATE_FIELDS = ("_SyncObj__raftLastApplied", "_SyncObj__raftLog", "_SyncObj__transport", "_SyncObj__noopIDx",
                  "_SyncObj__commandsWaitingCommit", "_SyncObj__raftElectionDeadline", "_SyncObj__raftCurrentTerm",
                  "_poller")
REPLACED_GLOBALS = ("createJournal", "Serializer", "monotonicTime")
"""What this file uses of the library beside its documented face; `check_library` looks for each."""

EXIT_FAILED = 70
"""Exit status of a member that stopped itself (EX_SOFTWARE)."""

EXIT_RESTART = 75
"""Exit status of a member that has put another state in its folder, and wants to be started again at once."""

REPLAY_COMMIT_ENTRIES = 64
"""While old entries are replayed, SQLite commits after so many: a transaction stays as small as in normal work."""

NEVER = 2**62

TAKEN_MAX = 10_000
"""Entries waiting for a tick. The server makes its entries in the tick, so only its housekeeping's wait here."""

HAND_OVER_S = 1.0
"""A leader that stops waits so long for another one."""


class StateMachine(Protocol):
    """What Raft drives. See consensus/machine.py."""

    @property
    def applied(self) -> int: ...
    @property
    def applied_term(self) -> int: ...

    def apply(self, entry: bytes, index: int) -> list[AnyResult]: ...
    def configure(self, members: "tuple[Member, ...]", index: int) -> None: ...
    def commit(self, applied: int, term: int) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RaftStatus:
    role: str
    term: int
    leader: str
    commit_index: int
    applied_index: int
    last_index: int
    members: "tuple[MemberStatus, ...]" = ()
    fetched_bytes: int = 0
    of_bytes: int = 0
    """While this member fetches a snapshot: how far it is."""


_COMMANDS = bytes((COMMANDS,))

Answer = Callable[[list[AnyResult] | None, Exception | None], None]
"""Called once, in the loop, after the entry is committed and in SQLite, or with why that is not known. Never raises."""


def check_library() -> None:
    """Raises RuntimeError unless the installed PySyncObj is the audited one with the names that we rely on."""
    missing = [name for name in PRIVATE_METHODS if not hasattr(SyncObj, name)]
    missing += [name for name in REPLACED_GLOBALS if not hasattr(pysyncobj.syncobj, name)]
    if VERSION != AUDITED_VERSION or missing:
        raise RuntimeError(f"PySyncObj {AUDITED_VERSION} is needed, not {VERSION}; missing names: {missing or 'none'}")


def exit_process(error: BaseException) -> None:
    """The default of `on_failure`: end at once, without another write, flush or answer."""
    logger.critical("the metadata member stops: %s", error, exc_info=error)
    os._exit(EXIT_FAILED)


def exit_for_restart() -> None:
    """The default of `on_restart`."""
    logger.info("the metadata member begins anew, on a state that it has fetched")
    os._exit(EXIT_RESTART)


class _NoSerializer:
    """In place of the library's dump file: SQLite is the snapshot."""

    def checkSerializing(self) -> tuple[int, None]:
        return SERIALIZER_STATE.NOT_SERIALIZING, None

    def cancelTransmisstion(self, node: Node) -> None:
        pass

    def getTransmissionData(self, node: Node) -> None:
        return None


class _NoPoller:
    """In place of the library's poll of its own sockets: it has none."""

    def poll(self, timeout: float) -> None:
        pass


class RaftNode(SyncObj):  # type: ignore[misc]  # the library has no types
    """One member. All methods are called in the loop's thread."""

    def __init__(self, name: str, journal: Journal, machine: StateMachine,
                 on_failure: Callable[[BaseException], None] = exit_process, *, group: "Group | None" = None,
                 on_restart: Callable[[], None] = exit_for_restart) -> None:
        """`on_restart`: this member has put another state in its folder, and does nothing more."""
        check_library()
        self._journal, self._machine, self._on_failure, self.group = journal, machine, on_failure, group
        """`group`: None on a machine that is alone."""
        self._on_restart = on_restart
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tick_is_due = self._is_half_way = self.failed = False
        self._taken: list[tuple[bytes, Callable[[list[AnyResult] | None, int], None]]] = []
        self._answers: list[tuple[Answer, list[AnyResult] | None, Exception | None]] = []
        self._replay_until = journal.last_index
        self._fill: Callable[[], None] = lambda: None
        self._on_change: list[Callable[[], None]] = []
        self._seen: tuple[object, ...] = ()
        self._led_in = 0
        self._pauses = False                                  # hands over: nothing more comes into the log
        timing = group.timing if group is not None else Timing()
        conf = SyncObjConf(
            autoTick=False, appendEntriesUseBatch=True, appendEntriesBatchSizeBytes=NEVER, commandsWaitLeader=False,
            raftMinTimeout=timing.election_min_s, raftMaxTimeout=timing.election_max_s,
            appendEntriesPeriod=timing.heartbeat_s, leaderFallbackTimeout=timing.fallback_s,
            logCompactionMinEntries=NEVER, logCompactionMinTime=NEVER, dynamicMembershipChange=False,
        )
        library = pysyncobj.syncobj
        kept = library.createJournal, library.Serializer       # there is no other way to pass our own
        library.createJournal, library.Serializer = lambda file: journal, lambda *arguments: _NoSerializer()
        self._set_clock()
        try:
            super().__init__(Node(name), [], conf, transport=group.transport if group is not None else None,
                             transportClass=LocalTransport)
        finally:
            library.createJournal, library.Serializer = kept
        missing = [field for field in PRIVATE_FIELDS if field not in self.__dict__]
        assert not missing, missing
        self._poller = _NoPoller()
        self._transport: LocalTransport | GroupTransport = self._SyncObj__transport
        self._SyncObj__raftLastApplied = max(1, machine.applied)       # replay only what SQLite does not have
        if group is None:
            self._SyncObj__raftElectionDeadline = 0.0                  # nobody to wait for
        else:
            from consensus.group.core import Core

            group.attach(self, Core(self), journal, lambda: machine.applied)
            if group.is_alone:
                self._SyncObj__raftElectionDeadline = 0.0
        self.addOnTickCallback(self._end_of_tick)

    # Life

    def start(self) -> None:
        """Alone: campaign, win, and apply what the journal holds beyond SQLite; leads and is up to date on return. One of
        several has only begun on return: `read_index` waits until it is up to date."""
        self._loop = asyncio.get_running_loop()
        if self.group is not None:
            self.group.start()
        if self.group is None or self.group.is_alone:
            self._whole_tick()
            self._whole_tick()
            if not self.failed:
                assert self._isLeader(), "a group of one elects itself"
                assert self.raftLastApplied == self.raftCommitIndex == self._journal.last_index

    def stop(self) -> None:
        """What is queued is still carried out and answered; then nothing more. `close` lets go of the others."""
        self._whole_tick()
        while self._tick_is_due and not self.failed:         # `fill` has more than one tick may take
            self._whole_tick()
        self._loop = None
        self._lost_sight("this member stops")

    async def close(self) -> None:
        """After `stop`: end what goes on with the other members."""
        if self.group is not None:
            await self.group.stop()

    # For the server

    def before_taking(self, fill: Callable[[], None]) -> None:
        """`fill` is called at the beginning of each tick and may propose what has queued until then."""
        self._fill = fill

    def propose(self, entry: bytes, answer: Answer) -> None:
        """Put one entry (as core.codec writes it) into the log. `answer` is called exactly once."""

        def applied(results: list[AnyResult] | None, reason: int) -> None:
            # In the middle of a tick: answers wait for its end.
            self._answers.append((answer, results, None if reason == FAIL_REASON.SUCCESS else _error(reason)))

        if len(self._taken) >= TAKEN_MAX:
            applied(None, FAIL_REASON.QUEUE_FULL)
        else:
            self._taken.append((_COMMANDS + entry, applied))
        self.wake()

    def submit(self, entry: bytes) -> "asyncio.Future[list[AnyResult]]":
        """The entry's results, once it is committed and in SQLite. Raises Unavailable or UnknownOutcome."""
        future: asyncio.Future[list[AnyResult]] = asyncio.get_running_loop().create_future()

        def answer(results: list[AnyResult] | None, error: Exception | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                assert results is not None
                future.set_result(results)

        self.propose(entry, answer)
        return future

    @property
    def leads(self) -> bool:
        return not self.failed and bool(self._isLeader())

    @property
    def leader(self) -> str | None:
        """Who leads, as far as this member knows."""
        leader = self._getLeader()
        return leader.id if leader is not None else None

    @property
    def term(self) -> int:
        term: int = self.raftCurrentTerm
        return term

    @property
    def members(self) -> "tuple[Member, ...]":
        """The configuration in force here: the last one in the log, committed or not. Empty while alone."""
        return self.group.members if self.group is not None else ()

    def on_change(self, callback: Callable[[], None]) -> None:
        """Called, in the loop, after the leader or the configuration has changed."""
        self._on_change.append(callback)

    async def read_index(self) -> int:
        """A transaction on SQLite that shows at least this applied index is linearizable. Raises Unavailable.

        In a group of one every commit index is applied and in SQLite at the end of the tick that made it. Otherwise this
        returns when this member's SQLite shows the index.
        """
        if self.group is not None and not self.failed:
            return await self.group.probes.read_index()
        if self.failed or not self._isLeader():
            raise Unavailable("this member does not lead")
        index: int = self.raftCommitIndex
        assert self._journal.term_at(index) == self.raftCurrentTerm, "the term's first entry is committed at start"
        return index

    def status(self) -> RaftStatus:
        leader = self._getLeader()
        return RaftStatus(
            role="leader" if self._isLeader() else "follower", term=self.raftCurrentTerm,
            leader=leader.id if leader else "", commit_index=self.raftCommitIndex,
            applied_index=self._machine.applied, last_index=self._journal.last_index,
            **({} if self.group is None else self.group.status()),
        )

    # Members, on the leader

    async def add(self, member: "Member") -> None:
        """Take it in as a learner, or with its new address; one with another incarnation begins as a learner again. It
        becomes a voter by itself once it has caught up, if there are too few. Returns when that is committed; Raises
        Unavailable (not now, or not here), Refused, UnknownOutcome."""
        from consensus.group.members import with_member

        await self._change(lambda members: with_member(members, member))

    async def promote(self, name: str) -> None:
        """Make a learner that has caught up a voter."""
        from consensus.group.members import with_voter

        self._many.check_caught_up(name)
        await self._change(lambda members: with_voter(members, name))

    async def remove(self, name: str) -> None:
        """It is neither counted nor told anything any more. A leader cannot remove itself, since the library would go on
        counting it: it hands over to another, who can."""
        from consensus.group.members import without

        if name == self._many.name and self.leads:
            without(self.members, name)                      # refused at all?
            await self.hand_over()
            raise Unavailable(f"{name} leads, and hands over: ask again")
        self._many.check_without(name)
        await self._change(lambda members: without(members, name))

    async def _change(self, change: "Callable[[Members], Members]") -> None:
        proposed = change(self.members)
        if proposed != self.members:
            await self.configure(proposed)

    def configure(self, proposed: "Members") -> "asyncio.Future[None]":
        """Put a configuration into the log, where it is in force at once. The future ends when it is applied."""
        from consensus.group import members

        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        group, index, term = self._many, self._journal.last_index + 1, self.term
        ours = members.find(proposed, group.name)
        if not self.leads:
            future.set_exception(Unavailable("this member does not lead"))
        elif ours is None or not ours.voter or ours.incarnation != group.incarnation:
            # The library would go on counting it. Removal hands over first; so this is another machine of the same name.
            future.set_exception(Refused(f"{group.name} is the name of the member that leads"))
        elif group.change_pends or self._journal.term_at(self.raftCommitIndex) != term:
            future.set_exception(Unavailable("another change of the members is not finished yet"))
        if future.done():
            return future

        def applied(results: list[AnyResult] | None, error: Exception | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

        self._journal.add(members.encode(proposed), index, term)
        self._SyncObj__commandsWaitingCommit[index].append(
            (term, lambda results, reason: self._answers.append(
                (applied, results, None if reason == FAIL_REASON.SUCCESS else _error(reason)))))
        group.refresh()
        self.noticed()
        self.wake()
        return future

    async def hand_over(self, fit: Container[str] | None = None) -> bool:
        """Let a voter be elected at once, one of the `fit` if they are given, as soon as it has all of the log: nothing more
        is taken until then. True when another leads; within a second, or not at all."""
        group, until = self._many, self._now() + HAND_OVER_S
        self._pauses = True
        try:
            while self.leader in (None, group.name) and self._now() < until:
                if self.leads:
                    self.wake()
                    group.ask_to_stand(fit)
                await asyncio.sleep(0.01)
        finally:
            self._pauses = False
            self.wake()
        return self.leader not in (None, group.name)

    # The tick

    @property
    def applying(self) -> int:
        """The entry that is applied now or next: after a failure, the one that could not be."""
        last: int = self.raftLastApplied
        return last + 1

    def wake(self) -> None:
        """Tick in the next turn of the loop, once, whatever comes until then."""
        if not self._tick_is_due and self._loop is not None:
            self._tick_is_due = True
            self._loop.call_soon(self._tick)

    def _tick(self) -> None:
        self._tick_is_due = False
        if self.failed or self._loop is None:
            return
        try:
            self._set_clock()
            if not self._is_half_way:
                self._fill()
                if self._take() and self.group is not None:
                    self._is_half_way = True                 # two turns: the frames are gathered, and then written
                    self._loop.call_soon(self._loop.call_soon, self._second_half)
                    return
            self._finish()
        except BaseException as error:  # noqa: BLE001  the outermost edge: see the module
            self.fail(error)

    def _second_half(self) -> None:
        if self._is_half_way:
            self._tick()

    def _whole_tick(self) -> None:
        self._tick()
        self._second_half()

    def _finish(self) -> None:
        self._is_half_way = False
        self._journal.sync()                 # before the library counts these entries
        if self.group is not None:
            self.group.elections.before_tick()
        self._onTick(0.0)                    # count, apply, then _end_of_tick

    def fail(self, error: BaseException) -> None:
        """The member's state is in doubt: nothing more is answered."""
        self.failed = True
        self._on_failure(error)

    def _take(self) -> bool:
        """Queued entries into the log, and at once to the others, who sync at the same time as we do. True if there were
        any to send."""
        if self._taken and not self._pauses:
            taken, self._taken = self._taken, []
            if self._isLeader():
                journal, waiting, term = self._journal, self._SyncObj__commandsWaitingCommit, self.raftCurrentTerm
                index = journal.last_index
                for command, applied in taken:
                    index += 1
                    journal.add(command, index, term)
                    waiting[index].append((term, applied))
            else:
                for _, applied in taken:
                    applied(None, FAIL_REASON.NOT_LEADER)
        group = self.group
        if group is None or not self._isLeader() or group.replication.sent_to == self._journal.last_index:
            return False
        group.replication.send_all()
        return True

    def _checkCommandsToApply(self) -> None:
        # The library calls this after it has applied. What it took in then would have to be synced before this tick's
        # answers could leave, so nothing is ever put into its queue: see _take.
        pass

    def _SyncObj__sendAppendEntries(self) -> None:
        if self.group is not None:
            self.group.replication.send_all()

    def _SyncObj__generateRaftTimeout(self) -> float:
        conf = self.conf
        chance = self.group.chance() if self.group is not None else 0.0
        timeout: float = conf.raftMinTimeout + (conf.raftMaxTimeout - conf.raftMinTimeout) * chance
        return timeout

    def _set_clock(self) -> None:
        if self.group is not None:
            pysyncobj.syncobj.monotonicTime = self.group.now

    def _now(self) -> float:
        return self._many.now()

    @property
    def _many(self) -> "Group":
        return self.group  # type: ignore[return-value]  # there is one; no assertion: the library looks at all properties

    def _SyncObj__doApplyCommand(self, command: bytes) -> list[AnyResult] | None:
        """In place of unpickle-and-call. The library raises raftLastApplied only after this returns."""
        kind, index = command[0], self.applying
        if index <= self._machine.applied:
            return None
        if kind == COMMANDS:
            results = self._machine.apply(command[1:], index)
        elif kind == CONFIGURATION:
            from consensus.group import members

            self._machine.configure(members.decode(command), index)
            results = []
        else:
            return None                      # the no-op that begins a term
        if index <= self._replay_until and index % REPLAY_COMMIT_ENTRIES == 0:
            term = self._journal.term_at(index)
            assert term is not None
            self._machine.commit(index, term)
        return results

    def _end_of_tick(self) -> None:
        journal, machine, applied = self._journal, self._machine, self.raftLastApplied
        journal.sync()                       # the first entry of a term is added, and counted, within one library tick
        if applied > machine.applied:
            term = journal.term_at(applied)
            assert term is not None
            machine.commit(applied, term)
            journal.forget(applied)
        if self.group is not None:
            self.noticed()
            self.group.probes.moved()
        self._resolve()
        self._transport.flush()

    def noticed(self) -> None:
        """Whoever wants to know learns that another leads, or other members are in force."""
        group = self._many
        group.refresh()
        seen = (self.term, self._isLeader(), self.leader, group.members)
        if seen == self._seen:
            return
        led, self._seen = bool(self._seen and self._seen[1]), seen
        if led and (not seen[1] or seen[0] != self._led_in):
            self._lost_sight("another member leads now")
        if seen[1]:
            self._led_in = seen[0]
        group.probes.look()
        for callback in self._on_change:
            callback()

    def _lost_sight(self, why: str) -> None:
        """We lead no more: what has not been committed yet may be, or not."""
        waiting = self._SyncObj__commandsWaitingCommit
        for subscribers in list(waiting.values()):
            for _, applied in subscribers:
                applied(None, FAIL_REASON.LEADER_CHANGED)
        waiting.clear()
        for _, applied in self._taken:
            applied(None, FAIL_REASON.NOT_LEADER)
        self._taken = []
        self._resolve()

    def freeze_for(self, fetched: "Snapshot") -> None:
        """A snapshot was fetched: put it in place, and end."""
        if fetched.index <= self._machine.applied:
            return                           # entries have come after all
        self.failed = True
        try:
            self._many.install(fetched)
        except BaseException as error:  # noqa: BLE001  an outermost edge: what is on disk is for the next start to judge
            self.fail(error)
            return
        self._on_restart()

    def _resolve(self) -> None:
        if self._answers:
            answers, self._answers = self._answers, []
            for answer, results, error in answers:
                answer(results, error)


def _error(reason: int) -> Exception:
    if reason in (FAIL_REASON.QUEUE_FULL, FAIL_REASON.MISSING_LEADER, FAIL_REASON.NOT_LEADER,
                  FAIL_REASON.REQUEST_DENIED, FAIL_REASON.DISCARDED):
        return Unavailable(f"the log did not take the entry (reason {reason})")
    return UnknownOutcome(f"the log lost sight of the entry (reason {reason})")
