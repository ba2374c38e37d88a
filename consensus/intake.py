"""Clients' commands on their way into the log: they queue until the next tick, become one or two entries of it, and each client
is answered when its entry has been carried out.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from consensus import protocol
from consensus.config import MetaConfig
from consensus.core.codec import ENTRY_VERSION, UNDECODABLE, encode_results
from consensus.core.commands import AnyCommand
from consensus.core.errors import ClusterError, Refused, Unavailable
from consensus.core.results import AnyResult
from consensus.core.wire import OK, Link
from consensus.raft import RaftNode

ENTRIES_PER_TICK_MAX = 2
"""What queues beyond waits for the next tick, so that answers are never further away than two entries."""


class _Batch(NamedTuple):
    """One client's SUBMIT, waiting for the log."""

    link: Link
    request_id: int
    body: memoryview              # its envelopes, without the array's head
    commands: int


class Intake:
    """`entries` and `commands` count what went into the log."""

    def __init__(self, config: MetaConfig, check: Callable[[AnyCommand], None]) -> None:
        """`check` raises for a command that may not be taken now."""
        self._config, self._check = config, check
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
        now = time.monotonic()
        for envelope in envelopes:
            self._check(envelope.command)
            if envelope.session:
                heard[envelope.session] = now
            elif not isinstance(envelope.command, protocol.WITHOUT_SESSION):
                raise Refused(f"{type(envelope.command).__name__} needs a session")
        self.queue.append(_Batch(link, request_id, protocol.array_body(raw), count))
        self._queued_bytes += len(raw)

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
            head = bytes((ENTRY_VERSION,)) + protocol.array_head(commands)
            raft.propose(b"".join((head, *[batch.body for batch in batches])), Answers(batches).give)
        if queue:
            raft.wake()


class Answers:
    """The clients of one entry, waiting for its results."""

    __slots__ = ("_batches",)

    def __init__(self, batches: list[_Batch]) -> None:
        self._batches = batches

    def give(self, results: list[AnyResult] | None, error: Exception | None) -> None:
        place = 0
        for link, request_id, _, count in self._batches:
            if results is None:
                kind = protocol.status_of(error) if isinstance(error, ClusterError) else protocol.UNKNOWN
                link.send(protocol.SUBMIT, kind, request_id, str(error).encode())
            else:
                link.send(protocol.SUBMIT, OK, request_id, encode_results(results[place:place + count]))
                place += count
        assert results is None or place == len(results), "apply answers each command once"
