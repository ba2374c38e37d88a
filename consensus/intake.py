"""Clients' commands on their way into the log: they queue until the next tick, become one or two entries of it, and each client
is answered when its entry has been carried out.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import msgspec

from consensus import protocol
from consensus.config import MetaConfig
from consensus.core.clock import Clock
from consensus.core.codec import UNDECODABLE, encode_results, version_of_all
from consensus.core.commands import AnyCommand, Envelope
from consensus.core.errors import ClusterError, Refused, Unavailable
from consensus.core.results import AnyResult
from consensus.core.wire import OK, Link
from consensus.raft import RaftNode

log = logging.getLogger("staddle.meta")

ENTRIES_PER_TICK_MAX = 2
"""What queues beyond waits for the next tick, so that answers are never further away than two entries."""

AHEAD_MS_MAX = 2 * 3_600_000
"""Of another machine's clock before the leader's. The log's time never goes back, so one clock that is years ahead would end
the retention of everybody's objects, for good; an hour of difference has to be borne."""

SAY_S = 60.0
"""Between two words about a wrong clock."""


class _Batch(NamedTuple):
    """One client's SUBMIT, waiting for the log."""

    link: Link
    request_id: int
    body: memoryview              # its envelopes, without the array's head
    envelopes: Sequence[Envelope] | None    # what these bytes were decoded to, unless they were changed after that
    commands: int
    version: int                  # of the entry that may hold them


class Intake:
    """`entries` and `commands` count what went into the log."""

    def __init__(self, config: MetaConfig, check: Callable[[Iterable[AnyCommand]], None], clock: Clock | None,
                 said_for_all: Callable[[Sequence[Envelope]], Sequence[Envelope]] | None) -> None:
        """`check` raises for commands that may not be taken now. `clock`: ours, where clients on other machines have other
        ones; None if all of them are here. `said_for_all`: as every member understands it (upgrading.py)."""
        self._config, self._check, self._clock, self._said_for_all = config, check, clock, said_for_all
        self._may_say_at = 0.0
        self.queue: deque[_Batch] = deque()
        self._queued_bytes = 0
        self.entries = self.commands = 0

    def take(self, link: Link, request_id: int, payload: memoryview, heard: dict[int, float]) -> None:
        """Queue a client's commands; `heard` learns which sessions have spoken. Raises Refused, Unavailable, NoSpace."""
        raw = bytes(payload)
        try:
            envelopes = protocol.envelopes.decode(raw)
        except UNDECODABLE as error:
            raise Refused(f"commands that cannot be decoded: {error}") from error
        count = len(envelopes)
        if not 0 < count <= protocol.SUBMIT_COMMANDS_MAX or len(raw) > protocol.ENVELOPE_BYTES_MAX:
            raise Refused(f"{count} commands in {len(raw)} bytes: more than one entry takes")
        if self._queued_bytes > self._config.queue_bytes_max:
            raise Unavailable("too many commands are waiting for the log")
        commands = [envelope.command for envelope in envelopes]
        self._check(commands)
        now = time.monotonic()
        for envelope in envelopes:
            if envelope.session:
                heard[envelope.session] = now
            elif not isinstance(envelope.command, protocol.WITHOUT_SESSION):
                raise Refused(f"{type(envelope.command).__name__} needs a session")
        decoded: Sequence[Envelope] | None = envelopes
        if self._said_for_all is not None and (said := self._said_for_all(envelopes)) is not envelopes:
            envelopes, raw, decoded = tuple(said), protocol.encode(said), None
            commands = [envelope.command for envelope in envelopes]
        if self._clock is not None:
            limit_ms = self._clock.now_ms() + AHEAD_MS_MAX
            if any(envelope.now_ms > limit_ms for envelope in envelopes):
                raw, decoded = self._held_back(link, envelopes, limit_ms, now), None
        version = version_of_all(commands)
        self.queue.append(_Batch(link, request_id, protocol.array_body(raw), decoded, count, version))
        self._queued_bytes += len(raw)

    def _held_back(self, link: Link, envelopes: Sequence[Envelope], limit_ms: int, now: float) -> bytes:
        """The same commands, not later than this. Times order nothing, so that is all it changes."""
        if now > self._may_say_at:
            self._may_say_at = now + SAY_S
            log.error("the clock of %s is hours ahead of this machine's, or this one's is behind: it is not believed",
                      link.peer or "a process of this machine")
        return protocol.encode([msgspec.structs.replace(envelope, now_ms=min(envelope.now_ms, limit_ms))
                                for envelope in envelopes])

    def fill(self, raft: RaftNode) -> None:
        """A tick begins: make entries of what has queued."""
        queue, commands_max, bytes_max = self.queue, self._config.batch_commands_max, self._config.batch_bytes_max
        for _ in range(ENTRIES_PER_TICK_MAX):
            if not queue:
                return
            batches: list[_Batch] = []
            commands = size = 0
            while queue and (not batches or commands + queue[0].commands <= commands_max) and size < bytes_max:
                batch = queue.popleft()
                batches.append(batch)
                commands += batch.commands
                size += len(batch.body)
            self._queued_bytes = max(0, self._queued_bytes - size) if queue else 0
            self.entries += 1
            self.commands += commands
            head = bytes((max(batch.version for batch in batches),)) + protocol.array_head(commands)
            raft.propose(b"".join((head, *[batch.body for batch in batches])), Answers(batches).give, _decoded(batches))
        if queue:
            raft.wake()


def _decoded(batches: Sequence[_Batch]) -> list[Envelope] | None:
    decoded: list[Envelope] = []
    for batch in batches:
        if batch.envelopes is None:
            return None
        decoded += batch.envelopes
    return decoded


class Answers:
    """The clients of one entry, waiting for its results."""

    __slots__ = ("_batches",)

    def __init__(self, batches: list[_Batch]) -> None:
        self._batches = batches

    def give(self, results: list[AnyResult] | None, error: Exception | None) -> None:
        place = 0
        for link, request_id, _, _, count, _ in self._batches:
            if results is None:
                kind = protocol.status_of(error) if isinstance(error, ClusterError) else protocol.UNKNOWN
                link.send(protocol.SUBMIT, kind, request_id, str(error).encode())
            else:
                link.send(protocol.SUBMIT, OK, request_id, encode_results(results[place:place + count]))
                place += count
        assert results is None or place == len(results), "apply answers each command once"
