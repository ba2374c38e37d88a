"""How gateways and storage nodes reach the metadata: commits through the member's socket, reads from its SQLite file.

Commits. All commands of one loop turn travel in one frame. A command keeps its ticket (session, sequence) through every
retry, so a repeat is answered with the first result; only when its session has ended before an answer came is the
outcome unknown, and then it is reported as unknown (promise 6).

Sessions. One slow upload must not hold back the mark of all others, so when the mark falls behind, new tickets come
from a fresh session and the old one is ended once its last ticket is answered. A storage node's session comes from its
registration, which ends those of its earlier lives.

Reads. One synchronous transaction each on the local file, allowed only while the link holds the member's word that it
serves; on a host without a member the same function runs over there.
"""

import asyncio
import contextlib
import logging
import sqlite3
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar, get_type_hints

import msgspec

from consensus import protocol, queries
from consensus.config import (
    BUSY_WAIT_S,
    COMMIT_DEADLINE_S,
    PING_S,
    SERVING_WAIT_S,
    SESSION_SPREAD_MAX,
)
from consensus.core.clock import Clock, SystemClock
from consensus.core.codec import decode_results
from consensus.core.commands import (
    RESULTS_PER_SESSION_MAX,
    AnyCommand,
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
from consensus.core.errors import ClusterError, Refused, Unavailable, UnknownOutcome
from consensus.core.ids import (
    BucketId,
    ContentId,
    Digest,
    Generation,
    NodeId,
    SessionId,
    UploadId,
    VersionId,
)
from consensus.core.model import (
    Bucket,
    LocatedSlice,
    NodeInfo,
    ObjectVersion,
    Page,
    Part,
    Upload,
    UploadPage,
)
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
from consensus.reads import Reader, failure, passes
from consensus.sessions import Session

log = logging.getLogger("staddle.meta.client")

Asked = ParamSpec("Asked")
Value = TypeVar("Value")

STOP_S = 1.0
"""Ending our sessions is a courtesy: the leader ends them anyway once they are silent."""

RECONNECT_S_MIN, RECONNECT_S_MAX = 0.02, 0.5
"""Pauses between attempts to reach the member: a restart is noticed at once, a long absence costs little."""

RETRY_S = 0.05
"""After the member said that it cannot take commands just now."""

SWEEP_S = 0.5
"""How often deadlines are looked at: cheaper than a timer for each command, and they are tens of seconds."""


class _Pending:
    """A command on its way. `uncertain`: an earlier try may have been carried out. `fixed`: no other ticket will do."""

    __slots__ = ("command", "deadline", "fixed", "future", "sequence", "session", "uncertain")

    def __init__(self, command: AnyCommand, session: Session, sequence: int, fixed: bool, deadline: float,
                 future: "asyncio.Future[AnyResult]") -> None:
        self.command, self.session, self.sequence, self.fixed = command, session, sequence, fixed
        self.deadline, self.future, self.uncertain = deadline, future, False


class MetadataClient:
    """One per process. All methods belong to the loop in which `start` ran."""

    def __init__(self, address: str, secret: bytes, meta_dir: str | None = None, *, owner: str = "",
                 clock: Clock | None = None, deadline_s: float = COMMIT_DEADLINE_S,
                 serving_wait_s: float = SERVING_WAIT_S) -> None:
        """`meta_dir` is the member's folder if it lives on this host, None to read over the wire."""
        self._address, self._secret, self._owner = address, secret, owner
        self._clock, self._deadline_s, self._serving_wait_s = clock or SystemClock(), deadline_s, serving_wait_s
        self._reader = None if meta_dir is None else Reader(meta_dir, queries.header)
        self._wire: WireClient | None = None
        self._serving: protocol.Serving | None = None
        self._served, self._lost = asyncio.Event(), asyncio.Event()
        self._why_not: ClusterError = Unavailable(f"the metadata member at {address} has not answered yet")
        self._sessions: dict[int, Session] = {}
        self._session: Session | None = None
        self._opening: asyncio.Task[Session] | None = None
        self._registration: RegisterNode | None = None
        self._staged: dict[ContentId, Session] = {}
        self._queue: deque[_Pending] = deque()
        self._sent: set[_Pending] = set()
        self._flush_is_due = self._stopping = False
        self._tasks: set[asyncio.Task[Any]] = set()

    # Life

    async def start(self) -> None:
        """Raises Unavailable if the member does not serve within the deadline of a commit, Refused if it isn't ours."""
        self._loop = asyncio.get_running_loop()
        self._spawn(self._keep_connected())
        self._spawn(self._ping())
        self._spawn(self._sweep())
        await self._wait_served(self._deadline_s)

    async def stop(self) -> None:
        """End our sessions as far as nothing of them is open, and let go. Open commits are given up as unknown."""
        if self._stopping:
            return
        self._stopping = True
        ending = [session for session in self._sessions.values() if session.idle and not session.ended]
        if ending and self._serving is not None:
            with contextlib.suppress(ClusterError, TimeoutError):
                async with asyncio.timeout(STOP_S):
                    await self._submit_now(*[EndSession(session=session.id) for session in ending])
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for pending in [*self._queue, *self._sent]:
            self._give_up(pending, "this process stops")
        self._queue.clear()
        if self._wire is not None:
            self._wire.close()
        if self._reader is not None:
            self._reader.close()
        await asyncio.sleep(0)                           # the socket is closed in the loop's next turn

    @property
    def serving(self) -> bool:
        """Whether reads and commits can go through now."""
        return self._serving is not None

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
            session, sequence = known, ticket.sequence
        elif type(command) is RegisterNode:
            return await self.register(command)
        elif (staged := _continues(command)) is not None:
            session = self._session_of(staged)
            sequence = session.take()
        else:
            current = self._session
            if current is None or current.spread >= SESSION_SPREAD_MAX:
                current = await self._usable_session()
            session, sequence = current, current.take()
        loop = self._loop
        pending = _Pending(command, session, sequence, ticket is not None or _continues(command) is not None,
                           loop.time() + self._deadline_s, loop.create_future())
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
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Send everything that has queued, in frames of bounded size."""
        self._flush_is_due = False
        wire, queue = self._wire, self._queue
        if wire is None or self._serving is None:
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
            for pending, result in zip(batch, results, strict=True):
                self._resolve(pending, result)
        elif code in (protocol.UNAVAILABLE, protocol.UNKNOWN):
            log.info("the metadata member did not carry out commands: %s", payload.decode(errors="replace"))
            self._loop.call_later(RETRY_S, self._again, batch, code == protocol.UNKNOWN)
        else:
            for pending in batch:
                self._fail(pending, protocol.error_of(code, payload))

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
        await self._wait_served(self._deadline_s)
        now = self._clock.now_ms()
        raw = protocol.encode([Envelope(session=SessionId(0), sequence=0, low=0, now_ms=now, command=command)
                               for command in commands])
        return decode_results(await self._ask(protocol.SUBMIT, raw))

    # The link

    async def _keep_connected(self) -> None:
        pause = RECONNECT_S_MIN
        while True:
            self._lost.clear()
            wire = WireClient(self._address, self._secret, on_push=self._pushed, on_lost=self._on_lost)
            try:
                await wire.connect()
                code, payload = await wire.call(protocol.WATCH)
                if code != OK:
                    raise protocol.error_of(code, payload)
            except ClusterError as error:
                wire.close()
                self._why_not = error
                await asyncio.sleep(pause)
                pause = min(pause * 2, RECONNECT_S_MAX)
                continue
            pause = RECONNECT_S_MIN
            self._wire, self._serving = wire, protocol.serving.decode(payload)
            self._served.set()
            self._flush()
            try:
                await self._lost.wait()
            finally:
                wire.close()

    def _on_lost(self) -> None:
        self._wire = self._serving = None
        self._why_not = Unavailable("the link to the metadata member was lost")
        self._served.clear()
        self._lost.set()

    def _pushed(self, operation: int, payload: bytes) -> None:
        if operation == protocol.WATCH and self._serving is not None:
            self._serving = protocol.serving.decode(payload)

    async def _wait_served(self, timeout_s: float) -> protocol.Serving:
        if self._serving is None:
            try:
                async with asyncio.timeout(timeout_s):
                    while self._serving is None:
                        await self._served.wait()
            except TimeoutError:
                raise self._why_not from None
        return self._serving

    async def _ask(self, operation: int, payload: bytes) -> bytes:
        """Call once. Raises what the status stands for, LinkLost."""
        wire = self._wire
        if wire is None:
            raise self._why_not
        code, answer = await wire.call(operation, payload)
        if code != OK:
            raise protocol.error_of(code, answer)
        return answer

    async def _ping(self) -> None:
        """Name our sessions to the leader, and learn which have ended without us."""
        while True:
            await asyncio.sleep(PING_S)
            with contextlib.suppress(ClusterError):
                payload = protocol.encode([session.id for session in self._sessions.values() if not session.ended])
                for ended in protocol.sessions.decode(await self._ask(protocol.PING, payload)):
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

    def _spawn(self, work: Coroutine[Any, Any, Value]) -> "asyncio.Task[Value]":
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # Reads

    async def read(self, query: Callable[Concatenate[sqlite3.Connection, Asked], Value], *arguments: Asked.args,
                   **named: Asked.kwargs) -> Value:
        """Any function of queries.py, at one moment that is not before this call. Raises Unavailable, Corrupt.

        Does not suspend while the member on this host serves.
        """
        serving, reader = self._serving, self._reader
        if serving is not None and reader is not None:
            try:
                return reader.run(serving.generation, query, *arguments, **named)
            except sqlite3.Error as error:
                if not passes(error):
                    raise failure(error) from error
        if reader is None:
            return await self._read_remote(query, arguments, named)
        return await self._read_later(reader, lambda generation: reader.run(generation, query, *arguments, **named))

    async def _read_later(self, reader: Reader, run: Callable[[int], Value]) -> Value:
        until = self._loop.time() + BUSY_WAIT_S
        while True:
            serving = await self._wait_served(self._serving_wait_s)
            try:
                return run(serving.generation)
            except sqlite3.Error as error:
                if not passes(error) or self._loop.time() > until:
                    raise failure(error) from error
            reader.close()
            await asyncio.sleep(RECONNECT_S_MIN)

    async def _read_remote(self, query: Callable[..., Value], arguments: tuple[Any, ...],
                           named: dict[str, Any]) -> Value:
        assert not named, "arguments travel by position"
        kind = get_type_hints(query)["return"]
        payload = protocol.encode([query.__name__, *arguments])
        until = self._loop.time() + self._serving_wait_s
        while True:
            await self._wait_served(self._serving_wait_s)
            try:
                answer = await self._ask(protocol.QUERY, payload)
                break
            except Unavailable:                          # reading twice does no harm
                if self._loop.time() > until:
                    raise
                await asyncio.sleep(RETRY_S)
        value: Value = msgspec.msgpack.decode(answer, type=kind)
        return value

    async def bucket(self, name: str) -> Bucket | None:
        return await self.read(queries.bucket, name)

    async def buckets(self, account: str | None, prefix: str = "", after: str = "", limit: int = 1000) -> list[Bucket]:
        return await self.read(queries.buckets, account, prefix, after, limit)

    async def current(self, bucket_id: BucketId, key: str) -> ObjectVersion | None:
        return await self.read(queries.current, bucket_id, key)

    async def version(self, bucket_id: BucketId, key: str, version_id: VersionId) -> ObjectVersion | None:
        return await self.read(queries.version, bucket_id, key, version_id)

    async def opened(
        self, bucket_name: str, key: str, limit_slices: int = 4
    ) -> tuple[Bucket | None, ObjectVersion | None, list[LocatedSlice]]:
        return await self.read(queries.opened, bucket_name, key, limit_slices)

    async def slices(
        self, content_id: ContentId, start: int, length: int, limit: int = queries.SLICES_PER_CALL_MAX
    ) -> list[LocatedSlice]:
        return await self.read(queries.slices, content_id, start, length, limit)

    async def list_objects(
        self, bucket_id: BucketId, prefix: str, delimiter: str, after: str, limit: int
    ) -> Page:
        return await self.read(queries.list_objects, bucket_id, prefix, delimiter, after, limit)

    async def list_versions(
        self, bucket_id: BucketId, prefix: str, delimiter: str, key_marker: str, version_marker: VersionId | None,
        limit: int,
    ) -> Page:
        return await self.read(queries.list_versions, bucket_id, prefix, delimiter, key_marker, version_marker, limit)

    async def uploads(
        self, bucket_id: BucketId, prefix: str, delimiter: str, key_marker: str, upload_marker: UploadId | None,
        limit: int,
    ) -> UploadPage:
        return await self.read(queries.uploads, bucket_id, prefix, delimiter, key_marker, upload_marker, limit)

    async def upload(self, bucket_id: BucketId, key: str, upload_id: UploadId) -> Upload | None:
        return await self.read(queries.upload, bucket_id, key, upload_id)

    async def parts(
        self, bucket_id: BucketId, key: str, upload_id: UploadId, after: int = 0, limit: int = 1000
    ) -> list[Part]:
        return await self.read(queries.parts, bucket_id, key, upload_id, after, limit)

    async def object_parts(self, content_id: ContentId, after: int = 0, limit: int = 1000) -> list[Part]:
        return await self.read(queries.object_parts, content_id, after, limit)

    async def part_of(self, content_id: ContentId, number: int) -> Part | None:
        return await self.read(queries.part_of, content_id, number)

    async def nodes(self) -> list[NodeInfo]:
        return await self.read(queries.nodes)

    async def chunk_states(
        self, node: NodeId, copies: list[tuple[Digest, Generation]] | tuple[tuple[Digest, Generation], ...]
    ) -> list[queries.ChunkState]:
        return await self.read(queries.chunk_states, node, copies)

    async def released(self, node: NodeId, after: int = 0, limit: int = 300) -> queries.Released:
        return await self.read(queries.released, node, after, limit)

    async def under_replicated(self, limit: int = 1000, after: bytes = b"") -> list[queries.ShortChunk]:
        return await self.read(queries.under_replicated, limit, after)

    async def usage(self) -> queries.Usage:
        return await self.read(queries.usage)

    async def status(self) -> protocol.Status:
        """Of the member. Raises Unavailable."""
        await self._wait_served(self._serving_wait_s)
        return protocol.status.decode(await self._ask(protocol.STATUS, b""))


_TAKING_OVER = (PutVersion, PutPart, CompleteUpload)


def _continues(command: AnyCommand) -> ContentId | None:
    """The content under construction that the command continues or takes over, if any."""
    if isinstance(command, PutVersion | PutPart):
        return command.content.staged if command.content is not None else None
    if isinstance(command, CompleteUpload):
        return command.staged
    if isinstance(command, StageContent | StageParts):
        return command.into
    return None
