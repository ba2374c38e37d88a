"""Large bodies go round the HTTP parser: the transport fills our own buffers (DATAPATH §4: an eighth of the CPU).

While a body with a known length is received, the transport's protocol is a `RawReceiver`. It asks for exactly the
bytes that are left, never one of the next request, and gives the transport back to the connection at the end. Reading
stops when `buffers_ahead` buffers wait for the reader.
"""

import asyncio
import time
from collections.abc import Callable

from gateway.http.body import RequestBody, incomplete
from gateway.http.buffers import BufferPool


class RawReceiver(asyncio.BufferedProtocol):
    """`done` is called, with reading paused, when the last byte is in."""

    __slots__ = (
        "_ahead", "_began", "_body", "_buffer", "_connection", "_done", "_fast", "_left", "_pool", "_transport",
        "_used", "paused",
    )

    def __init__(
        self, transport: asyncio.Transport, connection: asyncio.Protocol, body: RequestBody, pool: BufferPool,
        ahead: int, done: Callable[[], None],
    ) -> None:
        assert body.length is not None
        self._transport = transport
        self._connection = connection
        self._body = body
        self._pool = pool
        self._ahead = ahead
        self._done = done
        self._left = body.length - body.received
        self._buffer: bytearray | None = None
        self._used = 0
        self._fast = False
        self._began = 0.0
        self.paused = True

    def go(self) -> None:
        """The reader waits, or has taken a buffer: read on if there is room."""
        if self.paused and self._left and self._body.filled_count < self._ahead:
            self.paused = False
            self._transport.resume_reading()

    def get_buffer(self, sizehint: int) -> memoryview:
        buffer = self._buffer
        if buffer is None:
            buffer = self._buffer = self._pool.take(self._left, fast=self._fast)
            self._used = 0
            self._began = time.monotonic()
        return memoryview(buffer)[self._used : self._used + self._left]

    def buffer_updated(self, nbytes: int) -> None:
        body, buffer = self._body, self._buffer
        assert buffer is not None
        assert nbytes <= self._left
        self._used += nbytes
        self._left -= nbytes
        body.received += nbytes
        if self._used < len(buffer) and self._left:
            return
        body.fill(buffer, self._used)
        self._buffer = None
        self._fast = self._used >= (time.monotonic() - self._began) * self._pool.fast_rate_min
        if not self._left:
            body.ended = True
            body.ended_at = time.perf_counter()
            self._pause()
            self._done()
        elif body.filled_count >= self._ahead:
            self._pause()
        body.wake()

    def stop(self) -> None:
        """Nobody wants the rest. Reading is paused."""
        self._pause()
        if self._buffer is not None:
            self._pool.give(self._buffer)
            self._buffer = None

    def eof_received(self) -> bool:
        self._hand_over()
        self._body.fail(incomplete)
        return bool(self._connection.eof_received())

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._buffer is not None:
            self._pool.give(self._buffer)
            self._buffer = None
        self._connection.connection_lost(exc)

    def _pause(self) -> None:
        if not self.paused:
            self.paused = True
            self._transport.pause_reading()

    def _hand_over(self) -> None:
        """What came before the end is the reader's, even if no buffer got full."""
        if self._buffer is not None and self._used:
            self._body.fill(self._buffer, self._used)
            self._buffer = None
