"""A Raft member on PySyncObj's core: elections, log matching and the commit rule are the library's; disk, network,
ticks and the state machine are ours. Exactly one release of it has been audited, so exactly that one is accepted.

The order within a tick is what every promise about durability rests on:

    queued entries → log (and to the others) → journal.fdatasync → the library counts and applies → machine.commit →
    answers → acknowledgements held back by the transport

So an entry is counted, applied and answered only after it is durable here, and one fdatasync and one SQLite transaction
serve everything that queued while the previous tick ran. Ticks follow events (`wake`); a group of one needs no timer
and campaigns at its first tick.

Whatever fails inside a tick (disk, SQLite, damage, our bug) ends the process through `on_failure`: nothing may be
answered from a state in doubt, and applying the entry again would fail again.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import pysyncobj.syncobj
from pysyncobj import FAIL_REASON, SyncObj, SyncObjConf
from pysyncobj.config import SERIALIZER_STATE
from pysyncobj.node import Node
from pysyncobj.version import VERSION

from consensus.core.errors import Unavailable, UnknownOutcome
from consensus.core.results import AnyResult
from consensus.journal import Journal
from consensus.transport import LocalTransport

if TYPE_CHECKING:
    from consensus.core.model import Member

logger = logging.getLogger(__name__)

AUDITED_VERSION = "0.3.17"
PRIVATE_METHODS = ("_checkCommandsToApply", "_onTick", "_applyCommand", "_isLeader", "_SyncObj__sendAppendEntries",
                   "_SyncObj__doApplyCommand", "_SyncObj__onBecomeLeader", "_SyncObj__getEntries")
PRIVATE_FIELDS = ("_SyncObj__raftLastApplied", "_SyncObj__raftLog", "_SyncObj__transport", "_SyncObj__noopIDx",
                  "_SyncObj__commandsWaitingCommit", "_SyncObj__raftElectionDeadline", "_poller")
REPLACED_GLOBALS = ("createJournal", "Serializer")
"""What this file uses of the library beside its documented face; `check_library` looks for each."""

EXIT_FAILED = 70
"""Exit status of a member that stopped itself (EX_SOFTWARE)."""

EXIT_RESTART = 75
"""Exit status of a member that has put another state in its folder, and wants to be started again at once."""

REPLAY_COMMIT_ENTRIES = 64
"""While old entries are replayed, SQLite commits after so many: a transaction stays as small as in normal work."""

NEVER = 2**62


class StateMachine(Protocol):
    """What Raft drives. See consensus/machine.py."""

    @property
    def applied(self) -> int: ...
    @property
    def applied_term(self) -> int: ...

    def apply(self, entry: bytes, index: int) -> list[AnyResult]: ...
    def commit(self, applied: int, term: int) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RaftStatus:
    role: str
    term: int
    leader: str
    commit_index: int
    applied_index: int
    last_index: int


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
                 on_failure: Callable[[BaseException], None] = exit_process, *, group: None = None) -> None:
        check_library()
        self._journal, self._machine, self._on_failure = journal, machine, on_failure
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tick_is_due = self._may_take = self.failed = False
        self._answers: list[tuple[Answer, list[AnyResult] | None, Exception | None]] = []
        self._replay_until = journal.last_index
        self._fill: Callable[[], None] = lambda: None
        self._on_change: list[Callable[[], None]] = []
        conf = SyncObjConf(
            autoTick=False, appendEntriesUseBatch=True, appendEntriesBatchSizeBytes=1 << 20, commandsWaitLeader=False,
            raftMinTimeout=0.5, raftMaxTimeout=1.0, appendEntriesPeriod=0.05, leaderFallbackTimeout=2.0,
            logCompactionMinEntries=NEVER, logCompactionMinTime=NEVER, dynamicMembershipChange=False,
        )
        library = pysyncobj.syncobj
        kept = library.createJournal, library.Serializer       # there is no other way to pass our own
        library.createJournal, library.Serializer = lambda file: journal, lambda *arguments: _NoSerializer()
        try:
            super().__init__(Node(name), [], conf, transportClass=LocalTransport)
        finally:
            library.createJournal, library.Serializer = kept
        missing = [field for field in PRIVATE_FIELDS if field not in self.__dict__]
        assert not missing, missing
        self._poller = _NoPoller()
        self._transport: LocalTransport = self._SyncObj__transport
        self._SyncObj__raftLastApplied = max(1, machine.applied)       # replay only what SQLite does not have
        self._SyncObj__raftElectionDeadline = 0.0                      # nobody to wait for
        self.addOnTickCallback(self._end_of_tick)

    # Life

    def start(self) -> None:
        """Campaign, win, and apply what the journal holds beyond SQLite. Leads and is up to date on return."""
        self._loop = asyncio.get_running_loop()
        self._tick()
        self._tick()
        if not self.failed:
            assert self._isLeader(), "a group of one elects itself"
            assert self.raftLastApplied == self.raftCommitIndex == self._journal.last_index

    def stop(self) -> None:
        """What is queued is still carried out and answered; then nothing more."""
        self._tick()
        while self._tick_is_due and not self.failed:         # `fill` has more than one tick may take
            self._tick()
        self._loop = None

    # For the server

    def before_taking(self, fill: Callable[[], None]) -> None:
        """`fill` is called at the beginning of each tick and may propose what has queued until then."""
        self._fill = fill

    def propose(self, entry: bytes, answer: Answer) -> None:
        """Put one entry (as core.codec writes it) into the log. `answer` is called exactly once."""

        def applied(results: list[AnyResult] | None, reason: int) -> None:
            # In the middle of a tick: answers wait for its end.
            self._answers.append((answer, results, None if reason == FAIL_REASON.SUCCESS else _error(reason)))

        self._applyCommand(entry, applied, 0)
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
        return ()

    def on_change(self, callback: Callable[[], None]) -> None:
        """Called, in the loop, after the leader or the configuration has changed."""
        self._on_change.append(callback)

    async def read_index(self) -> int:
        """A transaction on SQLite that shows at least this applied index is linearizable. Raises Unavailable.

        In a group of one every commit index is applied and in SQLite at the end of the tick that made it.
        """
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
        )

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
            self._fill()
            self._take()
            self._journal.sync()             # before the library counts these entries
            self._onTick(0.0)                # count, apply, then _end_of_tick
        except BaseException as error:  # noqa: BLE001  the outermost edge: see the module
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """The member's state is in doubt: nothing more is answered."""
        self.failed = True
        self._on_failure(error)

    def _take(self) -> None:
        """Queued entries into the log, and at once to the others, who sync at the same time as we do."""
        self._may_take = True
        self._checkCommandsToApply()
        self._may_take = False

    def _checkCommandsToApply(self) -> None:
        # The library calls this after it has applied. What it took in then would have to be synced before this tick's
        # answers could leave, so it takes nothing there; the next tick does.
        if self._may_take:
            super()._checkCommandsToApply()

    def _SyncObj__doApplyCommand(self, command: bytes) -> list[AnyResult] | None:
        """In place of unpickle-and-call. The library raises raftLastApplied only after this returns."""
        if command[0] != 0:
            return None                      # the no-op that begins a term
        index = self.applying
        if index <= self._machine.applied:
            return None
        results = self._machine.apply(command[1:], index)
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
        self._resolve()
        self._transport.flush()

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
