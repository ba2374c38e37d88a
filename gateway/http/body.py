"""The body of a request, pulled by whoever handles it: the connection puts pieces in, an async iterator takes them out.

Two sources feed it. The parser gives `bytes`, which are passed on as they are. The raw receiver (raw.py) gives filled
buffers, which come out as memoryviews: such a piece is released when the next is asked for (use after that raises
ValueError); slices taken from it stay good, since a buffer with views is not used again.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from gateway.http.buffers import BufferPool
from gateway.s3.errors import S3Error

FEED_BYTES_MAX = 256 * 1024
"""Bytes from the parser that may wait for the reader; then the connection stops reading. One read of the transport."""


PIECE_OVERHEAD_BYTES = 64
"""What a piece costs besides its bytes: a sender may cut a body into chunks of one byte."""


class Source(Protocol):
    """What the connection does for a body."""

    def body_wanted(self) -> None:
        """The reader is about to wait: let bytes come (and say 100 Continue)."""

    def body_taken(self) -> None:
        """The reader has made room."""


class RequestBody:
    """Implements gateway.s3.request.Body. `received` counts bytes off the wire after HTTP's chunking."""

    __slots__ = (
        "_failure",
        "_fed",
        "_filled",
        "_hand",
        "_hand_buffer",
        "_pool",
        "_source",
        "_waiter",
        "asked",
        "ended",
        "ended_at",
        "fed_bytes",
        "length",
        "received",
    )

    def __init__(self, length: int | None, source: Source, pool: BufferPool) -> None:
        self.length = length
        self.received = 0
        self.ended = False
        """All of it has come."""
        self.ended_at = 0.0
        """time.perf_counter() of that moment."""
        self.asked = False
        self.fed_bytes = 0
        """Memory of what the parser gave and nobody has taken yet."""
        self._source = source
        self._pool = pool
        self._fed: list[bytes] = []
        self._filled: deque[tuple[bytearray, int]] = deque()
        self._hand: memoryview | None = None
        self._hand_buffer: bytearray | None = None
        self._failure: Callable[[], S3Error] | None = None
        self._waiter: asyncio.Future[None] | None = None

    # For the reader

    def __aiter__(self) -> AsyncIterator[bytes | memoryview]:
        return self

    async def __anext__(self) -> bytes | memoryview:
        self._let_go()
        while True:
            if self._fed:
                piece = self._fed[0] if len(self._fed) == 1 else b"".join(self._fed)
                self._fed.clear()
                self.fed_bytes = 0
                self._source.body_taken()
                return piece
            if self._filled:
                buffer, size = self._filled.popleft()
                self._hand_buffer = buffer
                self._hand = memoryview(buffer)[:size]
                self._source.body_taken()
                return self._hand
            if self._failure is not None:
                raise self._failure()
            if self.ended:
                raise StopAsyncIteration
            await self._wait()

    async def read(self, limit: int) -> bytes:
        """The whole body. Raises S3Error EntityTooLarge above `limit` bytes, IncompleteBody, RequestTimeout."""
        if self.length is not None and self.length > limit:
            raise too_large(self.length, limit)
        if self.ended and len(self._fed) <= 1 and not self._filled and self._failure is None:
            # The usual small request: all of it came in the read that brought the headers.
            self.fed_bytes = 0
            return self._fed.pop() if self._fed else b""
        pieces: list[bytes] = []
        total = 0
        async for piece in self:
            total += len(piece)
            if total > limit:
                raise too_large(total, limit)
            pieces.append(bytes(piece))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _wait(self) -> None:
        assert self._waiter is None, "two readers of one body"
        self.asked = True
        self._waiter = asyncio.get_running_loop().create_future()
        self._source.body_wanted()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _let_go(self) -> None:
        if self._hand is not None and self._hand_buffer is not None:
            with contextlib.suppress(BufferError):      # a hash in a thread is still at it: give() leaves it the buffer
                self._hand.release()
            self._hand = None
            buffer, self._hand_buffer = self._hand_buffer, None
            self._pool.give(buffer)

    # For the connection

    @property
    def waiting(self) -> bool:
        """Somebody waits for bytes now."""
        return self._waiter is not None

    @property
    def filled_count(self) -> int:
        return len(self._filled)

    def feed(self, piece: bytes) -> None:
        self._fed.append(piece)
        size = len(piece)
        self.fed_bytes += size + PIECE_OVERHEAD_BYTES
        self.received += size

    def fill(self, buffer: bytearray, size: int) -> None:
        """A buffer of the pool with `size` bytes in it; it is the body's from now on. `received` counts it already."""
        self._filled.append((buffer, size))

    def fail(self, failure: Callable[[], S3Error]) -> None:
        """No more will come. What has come is still given out; then the reader gets the error."""
        if not self.ended and self._failure is None:
            self._failure = failure
        self.wake()

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self) -> None:
        """The exchange is over: buffers go back, whatever was not read is dropped."""
        self._let_go()
        while self._filled:
            self._pool.give(self._filled.popleft()[0])
        self._fed.clear()
        self.fed_bytes = 0


class _NoBody:
    """Neither Content-Length nor chunks: there is nothing to ask for. One for all requests."""

    length: int | None = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        raise StopAsyncIteration

    async def read(self, limit: int) -> bytes:
        return b""


NO_BODY = _NoBody()


def incomplete() -> S3Error:
    return S3Error("IncompleteBody")


def timed_out() -> S3Error:
    return S3Error("RequestTimeout")


def too_large(size: int, limit: int) -> S3Error:
    return S3Error("EntityTooLarge", ProposedSize=size, MaxSizeAllowed=limit)
