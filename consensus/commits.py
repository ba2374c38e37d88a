"""Commits of one process: tickets, frames, retries, and the sessions that give each command its one effect.

All commands of one loop turn travel in one frame. A command keeps its ticket (session, sequence) through every retry, so
a repeat is answered with the first result; only when its session has ended before an answer came is the outcome unknown,
and then it is reported as unknown (promise 6).

One slow upload must not hold back the mark of all others, so when the mark falls behind, new tickets come from a fresh
session and the old one is ended once its last ticket is answered. A storage node's session comes from its registration,
which ends those of its earlier lives.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Coroutine
from typing import Any, TypeVar

from consensus import protocol
from consensus.config import COMMIT_DEADLINE_S, PING_S, SESSION_SPREAD_MAX
from consensus.core import tasks
from consensus.core.clock import Clock
from consensus.core.codec import decode_results
from consensus.core.commands import (
    RESULTS_PER_SESSION_MAX,
    AnyCommand,
    AppendVersion,
    CompleteUpload,
    EndSession,
    Envelope,
    OpenSession,
    PutPart,
    PutVersion,
    RegisterNode,
    StageContent,
    StageParts,
)
from consensus.core.errors import ClusterError, ReadOnly, Refused, Unavailable, UnknownOutcome
from consensus.core.ids import ContentId, Generation, SessionId
from consensus.core.results import (
    AnyResult,
    Committed,
    PartStored,
    SequencePassed,
    SessionEnded,
    SessionOpened,
    Staged,
)
from consensus.core.wire import OK, WireClient
from consensus.link import MemberLink
from consensus.sessions import Session

log = logging.getLogger("staddle.meta.client")

Value = TypeVar("Value")

STOP_S = 1.0
"""Ending our sessions is a courtesy: the leader ends them anyway once they are silent."""

RETRY_S = 0.05
"""After the member said that it cannot take commands just now."""

SAY_S = 5.0
"""Why commands wait is said so often: without a majority each of them would say it twenty times a second."""

SWEEP_S = 0.5
"""How often deadlines are looked at: cheaper than a timer for each command, and they are tens of seconds."""

NO_SESSION = SessionId(0)


class _Pending:
    """A command on its way. `uncertain`: an earlier try may have been carried out. `fixed`: no other ticket will do."""

    __slots__ = ("command", "deadline", "fixed", "future", "sequence", "session", "uncertain")

    def __init__(self, command: AnyCommand, session: Session, sequence: int, fixed: bool, deadline: float,
                 future: "asyncio.Future[AnyResult]") -> None:
        self.command, self.session, self.sequence, self.fixed = command, session, sequence, fixed
        self.deadline, self.future, self.uncertain = deadline, future, False


class Commits:
    """One per process, over one link. All methods belong to the loop in which `start` ran."""

    def __init__(self, link: MemberLink, clock: Clock, owner: str, deadline_s: float = COMMIT_DEADLINE_S) -> None:
        self._link, self._clock, self._owner, self._deadline_s = link, clock, owner, deadline_s
        self._sessions: dict[int, Session] = {}
        self._session: Session | None = None
        self._opening: asyncio.Task[Session] | None = None
        self._registration: RegisterNode | None = None
        self._staged: dict[ContentId, Session] = {}
        self._queue: deque[_Pending] = deque()
        self._sent: set[_Pending] = set()
        self._flush_is_due = self._stopping = False
        self._may_say_at = 0.0
        self._tasks: set[asyncio.Task[Any]] = set()
        self.answered, self.answer_seconds = 0, 0.0
        """Commands that got their results so far, and how long that took them, added up. For metrics."""

    @property
    def waiting(self) -> int:
        """Commands that have no result yet."""
        return len(self._queue) + len(self._sent)

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._spawn(self._ping())
        self._spawn(self._sweep())

    async def stop(self) -> None:
        """End our sessions as far as nothing of them is open. Open commits are given up, as unknown if they were sent."""
        self._stopping = True
        ending = [session for session in self._sessions.values() if session.idle and not session.ended]
        if ending and self._link.serving is not None:
            with contextlib.suppress(ClusterError, TimeoutError):
                async with asyncio.timeout(STOP_S):
                    await self._submit_now(*[EndSession(session=session.id) for session in ending])
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for pending in [*self._queue, *self._sent]:
            self._give_up(pending, "this process stops")
        self._queue.clear()

    # Tickets

    async def reserve(self, beside: ContentId | None = None) -> Generation:
        """A ticket for a later commit, and the generation of the chunks that it will bring.

        `beside` is a content under construction (Staged) that the command will continue or take over: only its own
        session may. Holds its session's mark until `commit` or `release`. Raises Unavailable.
        """
        session = self._session if beside is None else self._session_of(beside)
        if session is None or (beside is None and session.spread >= SESSION_SPREAD_MAX):
            session = await self._usable_session()
        return Generation(session.id, session.take())

    async def reserve_two(self) -> tuple[Generation, Generation]:
        """Tickets of one session, for two commands of which the second needs what the first has left in the session. The
        session lives until both are done with. Raises Unavailable."""
        first = await self.reserve()
        while (second := await self.reserve()).session != first.session:
            self.release(first)
            first = second
        return first, second

    def reserve_beside(self, ticket: Generation) -> Generation:
        """Another ticket of the same session, for what that ticket's command will take over. Raises Unavailable."""
        session = self._sessions.get(ticket.session)
        if session is None or session.ended:
            raise Unavailable("the session has ended in which the chunks were written: write them again")
        return Generation(session.id, session.take())

    def release(self, ticket: Generation) -> None:
        """The ticket will not be committed (any more): the mark may pass it. Repeats do no harm."""
        session = self._sessions.get(ticket.session)
        if session is not None:
            session.answer(ticket.sequence)
            if session is not self._session:
                self._retire(session)

    def abandon(self, content: ContentId) -> None:
        """A content under construction will not be continued. It is released with its session, which now ends soon."""
        session = self._staged.pop(content, None)
        if session is not None:
            session.staged.discard(content)
            self._replace(session)

    def _session_of(self, content: ContentId) -> Session:
        session = self._staged.get(content)
        if session is None or session.ended:
            raise Unavailable("the session has ended in which these pages were staged: start over")
        return session

    # Commits

    async def commit(self, command: AnyCommand, ticket: Generation | None = None) -> AnyResult:
        """Carry out a command: its result, once it is durable. Consumes the ticket, whatever happens.

        Raises Unavailable (not done, and will not be) or UnknownOutcome. Of RegisterNode see `register`.
        """
        if ticket is not None:
            known = self._sessions.get(ticket.session)
            if known is None or known.ended:
                raise Unavailable("the session has ended in which the chunks were written: write them again")
            session, sequence, fixed = known, ticket.sequence, True
        elif type(command) is RegisterNode:
            return await self.register(command)
        elif (staged := _continues(command)) is not None:
            session, fixed = self._session_of(staged), True
            sequence = session.take()
        else:
            current = self._session
            if current is None or current.spread >= SESSION_SPREAD_MAX:
                current = await self._usable_session()
            session, sequence, fixed = current, current.take(), False
        loop = self._loop
        pending = _Pending(command, session, sequence, fixed, loop.time() + self._deadline_s, loop.create_future())
        self._enqueue(pending)
        return await pending.future

    async def register(self, command: RegisterNode) -> SessionOpened:
        """Begin this storage node's session. All its earlier ones end in the same step. Raises Unavailable, Refused."""
        self._registration = command
        for session in self._sessions.values():
            session.ended = True
        self._session = None
        return SessionOpened(session=(await self._open_session()).id)

    def _enqueue(self, pending: _Pending) -> None:
        self._queue.append(pending)
        if not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Send everything that has queued, in frames of bounded size."""
        self._flush_is_due = False
        wire, queue = self._link.wire, self._queue
        if wire is None:
            return                                       # sent as soon as there is a link
        while queue:
            batch: list[_Pending] = []
            while queue and len(batch) < protocol.SUBMIT_COMMANDS_MAX:
                pending = queue.popleft()
                if pending.future.done():                # its caller has gone: it will not be sent (again)
                    self._finish(pending)
                else:
                    batch.append(pending)
            if batch:
                self._send(wire, batch)
        wire.flush()                                     # the member had better begin: the loop's turn may be long

    def _send(self, wire: WireClient, batch: list[_Pending]) -> None:
        now = self._clock.now_ms()
        raw = protocol.encode([
            Envelope(session=pending.session.id, sequence=pending.sequence, low=pending.session.low, now_ms=now,
                     command=pending.command)
            for pending in batch
        ])
        if len(raw) > protocol.SUBMIT_BYTES_MAX and len(batch) > 1:
            half = len(batch) // 2
            self._send(wire, batch[:half])
            self._send(wire, batch[half:])
            return
        self._sent.update(batch)
        for pending in batch:
            pending.session.said = pending.session.low
        wire.call(protocol.SUBMIT, raw).add_done_callback(lambda answer: self._answered(batch, answer))

    def _answered(self, batch: list[_Pending], answer: "asyncio.Future[tuple[int, bytes]]") -> None:
        self._sent.difference_update(batch)
        if answer.cancelled() or answer.exception() is not None:     # the link is lost: ask again over the next one
            self._again(batch, uncertain=True)
            return
        code, payload = answer.result()
        if code == OK:
            results = decode_results(payload)
            assert len(results) == len(batch)
            latest = self._loop.time() + self._deadline_s        # the deadline of one that is sent now
            for pending, result in zip(batch, results, strict=True):
                self.answer_seconds += latest - pending.deadline
                self._resolve(pending, result)
            self.answered += len(batch)
        elif code in (protocol.UNAVAILABLE, protocol.UNKNOWN):
            if self._loop.time() > self._may_say_at:
                self._may_say_at = self._loop.time() + SAY_S
                log.info("the metadata member did not carry out commands: %s", payload.decode(errors="replace"))
            self._loop.call_later(RETRY_S, self._again, batch, code == protocol.UNKNOWN)
        elif code in _OF_ONE and len(batch) > 1 and (wire := self._link.wire) is not None:
            for pending in batch:                        # the others may be such as give space back, or as it understands
                self._send(wire, [pending])
        else:
            error = protocol.error_of(code, payload)
            for pending in batch:                        # that this try was refused says nothing of an earlier one
                self._fail(pending, UnknownOutcome(f"refused when asked again: {error}") if pending.uncertain else error)

    def _again(self, batch: list[_Pending], uncertain: bool) -> None:
        for pending in batch:
            pending.uncertain |= uncertain
            if pending.future.done() or self._stopping:
                self._give_up(pending, "this process stops")
            else:
                self._enqueue(pending)

    def _resolve(self, pending: _Pending, result: AnyResult) -> None:
        if type(result) is SessionEnded or type(result) is SequencePassed:
            self._refused(pending)
            return
        command, session = pending.command, pending.session
        if type(result) is Staged:
            self._staged[result.content] = session
            session.staged.add(result.content)
        elif isinstance(command, _TAKING_OVER) and (staged := _continues(command)) is not None:
            self._staged.pop(staged, None)
            session.staged.discard(staged)
            if not isinstance(result, Committed | PartStored):
                self._replace(session)                   # what it staged is left over
        if not pending.future.done():
            pending.future.set_result(result)
        self._finish(pending)

    def _refused(self, pending: _Pending) -> None:
        """Its session takes no commands any more. If it was never tried before, it certainly did not happen."""
        session = pending.session
        session.ended = True
        if self._session is session:
            self._session = None
        if pending.future.done():                        # given up before: it must not come any more
            self._finish(pending)
        elif pending.uncertain:
            self._fail(pending, UnknownOutcome("the session ended before the command was answered"))
        elif pending.fixed:
            self._fail(pending, Unavailable("the session has ended in which the chunks were written: write them again"))
        else:
            self._finish(pending)
            self._spawn(self._move(pending))

    async def _move(self, pending: _Pending) -> None:
        """Give a command that did not happen a ticket of another session."""
        try:
            session = await self._usable_session()
        except ClusterError as error:
            self._fail(pending, error)
            return
        pending.session, pending.sequence = session, session.take()
        self._enqueue(pending)

    def _fail(self, pending: _Pending, error: ClusterError) -> None:
        if not pending.future.done():
            pending.future.set_exception(error)
        self._finish(pending)

    def _give_up(self, pending: _Pending, why: str) -> None:
        if pending.uncertain or pending in self._sent:
            self._fail(pending, UnknownOutcome(f"a metadata command has no answer: {why}"))
        else:
            self._fail(pending, Unavailable(f"a metadata command could not be sent: {why}"))
        self._sent.discard(pending)

    def _finish(self, pending: _Pending) -> None:
        session = pending.session
        session.answer(pending.sequence)
        if session is not self._session:
            self._retire(session)

    # Sessions

    async def _usable_session(self) -> Session:
        """The current session, or a fresh one when its mark has fallen behind. Raises Unavailable."""
        session = self._session
        while session is None or (self._registration is None and session.spread >= 2 * SESSION_SPREAD_MAX):
            # All who wait wake up to the same fresh session: who comes too late for it waits for the next one.
            session = await self._open_session()
        if self._registration is not None:
            # Another session could be ended by nobody but us, so a node has one only and waits for its mark.
            if session.spread >= RESULTS_PER_SESSION_MAX // 2:
                raise Unavailable("too many commands of this storage node are unanswered")
            return session
        if session.spread >= SESSION_SPREAD_MAX and self._opening is None:
            self._begin_opening()
        return session

    async def _open_session(self) -> Session:
        """All callers of the moment share one new session, which becomes the current one."""
        return await asyncio.shield(self._opening or self._begin_opening())

    def _begin_opening(self) -> "asyncio.Task[Session]":
        self._opening = self._spawn(self._open())
        self._opening.add_done_callback(self._opened)
        return self._opening

    def _opened(self, task: "asyncio.Task[Session]") -> None:
        self._opening = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("no session could be opened: %s", error)

    async def _open(self) -> Session:
        until = self._loop.time() + self._deadline_s
        while True:
            command = self._registration or OpenSession(owner=self._owner)
            try:
                (result,) = await self._submit_now(command)
                break
            except ReadOnly:
                raise
            except (Unavailable, UnknownOutcome) as error:           # a repeat does no harm: see WITHOUT_SESSION
                if self._loop.time() > until:
                    raise Unavailable(f"no session could be opened: {error}") from error
                await asyncio.sleep(RETRY_S)
        if not isinstance(result, SessionOpened):
            raise Refused(f"the metadata refused {type(command).__name__}: {result}")
        old, session = self._session, Session(result.session)
        self._session = self._sessions[session.id] = session
        if old is not None:
            self._retire(old)
        return session

    def _replace(self, session: Session) -> None:
        """Let another session become the current one, so that this one can end."""
        if session is self._session:
            if self._opening is None and self._registration is None and not self._stopping:
                self._begin_opening()
        else:
            self._retire(session)

    def _retire(self, session: Session) -> None:
        """A session that is not current any more goes with its last ticket."""
        if session.idle and not session.staged and self._sessions.pop(session.id, None) is not None:
            if not session.ended and not self._stopping:
                self._spawn(self._end(session))
            session.ended = True

    async def _end(self, session: Session) -> None:
        with contextlib.suppress(ClusterError):                      # else the leader ends it for its silence
            await self._submit_now(EndSession(session=session.id))

    async def _submit_now(self, *commands: AnyCommand) -> tuple[AnyResult, ...]:
        """Commands that begin or end sessions. Raises Unavailable, UnknownOutcome, Refused."""
        await self._link.wait(self._deadline_s)
        now = self._clock.now_ms()
        raw = protocol.encode([Envelope(session=NO_SESSION, sequence=0, low=0, now_ms=now, command=command)
                               for command in commands])
        return decode_results(await self._link.ask(protocol.SUBMIT, raw))

    # Beside the commands

    async def _ping(self) -> None:
        """Name our sessions to the leader, and learn which have ended without us."""
        while True:
            await asyncio.sleep(PING_S)
            with contextlib.suppress(ClusterError):
                payload = protocol.encode([session.id for session in self._sessions.values() if not session.ended])
                for ended in protocol.sessions.decode(await self._link.ask(protocol.PING, payload)):
                    session = self._sessions.get(ended)
                    if session is not None:
                        session.ended = True
                        if self._session is session:
                            self._session = None
                        self._retire(session)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            now = self._loop.time()
            late = [pending for pending in self._sent if pending.deadline < now]
            late += [pending for pending in self._queue if pending.deadline < now]
            for pending in late:
                self._give_up(pending, f"none in {self._deadline_s:.0f} s")
            if not self._queue and not self._sent:
                self._say_mark()

    def _say_mark(self) -> None:
        """Each command tells the mark. When no more commands come, the last ones are told by one without effect, so that
        storage nodes learn which chunks nobody will bring any more."""
        session = self._session
        if session is None or not session.unsaid or self._registration is not None or self._link.wire is None:
            return
        session.telling = session.take()
        pending = _Pending(EndSession(session=NO_SESSION), session, session.telling, True,
                           self._loop.time() + self._deadline_s, self._loop.create_future())
        pending.future.add_done_callback(tasks.seen)    # nobody waits
        self._enqueue(pending)

    def _spawn(self, work: Coroutine[Any, Any, Value]) -> "asyncio.Task[Value]":
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


_OF_ONE = frozenset({protocol.NO_SPACE, protocol.REFUSED, protocol.NOT_YET})
"""What one command brings upon all that were sent with it."""

_WITH_CONTENT = (PutVersion, PutPart, AppendVersion)
_TAKING_OVER = (*_WITH_CONTENT, CompleteUpload)
_STAGING = (StageContent, StageParts)


def _continues(command: AnyCommand) -> ContentId | None:
    """The content under construction that the command continues or takes over, if any."""
    if isinstance(command, _WITH_CONTENT):
        return command.content.staged if command.content is not None else None
    if isinstance(command, CompleteUpload):
        return command.staged
    if isinstance(command, _STAGING):
        return command.into
    return None
