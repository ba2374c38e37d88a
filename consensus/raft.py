"""A Raft member on PySyncObj's core: elections, log matching and the commit rule are the library's; disk, network,
ticks and the state machine are ours (raft_library.py says what of it is used).

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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import pysyncobj.syncobj
from pysyncobj import FAIL_REASON, SyncObj
from pysyncobj.node import Node

from consensus.core.commands import Envelope
from consensus.core.errors import Unavailable, UnknownOutcome
from consensus.core.results import AnyResult
from consensus.endings import exit_for_restart, exit_process
from consensus.group.timing import Timing
from consensus.journal import COMMANDS, CONFIGURATION, Journal
from consensus.raft_library import PRIVATE_FIELDS, NoPoller, check_library, configuration, own_parts
from consensus.transport import LocalTransport

if TYPE_CHECKING:                                 # a machine that is alone loads nothing of it
    from consensus.core.model import Member
    from consensus.group.changing import Changes
    from consensus.group.group import Group, MemberStatus
    from consensus.group.transport import GroupTransport
    from consensus.snapshot import Snapshot

REPLAY_COMMIT_ENTRIES = 64
"""While old entries are replayed, SQLite commits after so many: a transaction stays as small as in normal work."""

TAKEN_MAX = 10_000
"""Entries waiting for a tick. The server makes its entries in the tick, so only its housekeeping's wait here."""

class StateMachine(Protocol):
    """What Raft drives. See consensus/machine.py."""

    @property
    def applied(self) -> int: ...
    @property
    def applied_term(self) -> int: ...

    def apply(self, entry: bytes, index: int, decoded: Sequence[Envelope] | None = None) -> list[AnyResult]: ...
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
        self._taken: list[tuple[bytes, Callable[[list[AnyResult] | None, int], None], Sequence[Envelope] | None]] = []
        self._decoded: dict[int, tuple[bytes, Sequence[Envelope]]] = {}
        """Of entries that are not applied yet, by index: the bytes in the log, and what they were decoded to."""
        self._answers: list[tuple[Answer, list[AnyResult] | None, Exception | None]] = []
        self._replay_until = journal.last_index
        self._fill: Callable[[], None] = lambda: None
        self._on_change: list[Callable[[], None]] = []
        self._seen: tuple[object, ...] = ()
        self._led_in = 0
        self.pauses = False                                   # hands over: nothing more comes into the log
        self._set_clock()
        with own_parts(journal):
            super().__init__(Node(name), [], configuration(group.timing if group is not None else Timing()),
                             transport=group.transport if group is not None else None, transportClass=LocalTransport)
        missing = [field for field in PRIVATE_FIELDS if field not in self.__dict__]
        assert not missing, missing
        self._poller = NoPoller()
        self._transport: LocalTransport | GroupTransport = self._SyncObj__transport
        self._SyncObj__raftLastApplied = max(1, machine.applied)       # replay only what SQLite does not have
        if group is None:
            self._SyncObj__raftElectionDeadline = 0.0                  # nobody to wait for
        else:
            from consensus.group.core import Core

            group.attach(self, Core(self), journal, lambda: machine.applied)
            self.changes: Changes = group.changes
            """Of the members; a member that is alone makes none."""
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

    def propose(self, entry: bytes, answer: Answer, decoded: Sequence[Envelope] | None = None) -> None:
        """Put one entry (as core.codec writes it) into the log. `answer` is called exactly once. `decoded`: what just these bytes
        have been decoded to, so that it need not be done again."""

        def applied(results: list[AnyResult] | None, reason: int) -> None:
            # In the middle of a tick: answers wait for its end.
            self._answers.append((answer, results, None if reason == FAIL_REASON.SUCCESS else _error(reason)))

        if len(self._taken) >= TAKEN_MAX:
            applied(None, FAIL_REASON.QUEUE_FULL)
        else:
            self._taken.append((_COMMANDS + entry, applied, decoded))
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

    def add_configuration(self, encoded: bytes) -> "asyncio.Future[None]":
        """Put a configuration of the group into the log of the leader that we are: it is in force at once. The future ends
        when it is applied. See consensus/group/changing.py for what may be put there."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        index, term = self._journal.last_index + 1, self.term

        def applied(results: list[AnyResult] | None, error: Exception | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

        self._journal.add(encoded, index, term)
        self._SyncObj__commandsWaitingCommit[index].append(
            (term, lambda results, reason: self._answers.append(
                (applied, results, None if reason == FAIL_REASON.SUCCESS else _error(reason)))))
        self._many.refresh()
        self.noticed()
        self.wake()
        return future

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
        if self._taken and not self.pauses:
            taken, self._taken = self._taken, []
            if self._isLeader():
                journal, waiting, term = self._journal, self._SyncObj__commandsWaitingCommit, self.raftCurrentTerm
                index = journal.last_index
                for command, applied, decoded in taken:
                    index += 1
                    journal.add(command, index, term)
                    if decoded is not None:
                        self._decoded[index] = command, decoded
                    waiting[index].append((term, applied))
            else:
                for _, applied, _ in taken:
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
            # Entries of others may have come in the place of ours: only for the same bytes is it the same.
            known = self._decoded.pop(index, None) if self._decoded else None
            if known is not None and known[0] is command:
                results = self._machine.apply(command[1:], index, known[1])
            else:
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
        for _, applied, _ in self._taken:
            applied(None, FAIL_REASON.NOT_LEADER)
        self._taken = []
        self._decoded.clear()
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
