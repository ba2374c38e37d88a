"""A stream of pieces at the pace of whoever takes them: nothing is read ahead for a slow one.

Hundreds of readers may stand still in the middle of an object, each with the piece that it was given. So pieces are
small. A taker that comes back quickly has more read for it at once, and the next of that ahead: a read is a way through a
thread or to another node. The first quick ones also get all of a read as one piece, which costs a quarter less than four;
the others have it cut.

What can pile up is limited for all streams together: what waits, which is dropped when its taker stops, to be read again
should it go on (`AHEAD_BYTES_MAX`), and the large pieces in takers' hands, which only they can let go (`LARGE_BYTES_MAX`).
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine

from consensus.core import tasks
from storage_node.chunk import BLOCK_BYTES
from storage_node.local import PIECE_BYTES as READ_BYTES

PIECE_BYTES = BLOCK_BYTES
"""What is verified together. A stalled reader's connection holds one, sometimes two."""

LARGE_BYTES_MAX = 16 << 20
"""Stalled readers may hold on to so much; then quick ones pay for the cutting."""

AHEAD_BYTES_MAX = 48 << 20
"""Of all streams of a process, twice READ_BYTES for one. Beyond 24 quick ones, it is the processors that they wait for."""

QUICK_S = 0.1
"""A taker that is back so soon takes 2.5 MiB/s or more. Below, reading is never what it waits for."""

DROP_S = 1.0
"""What was read ahead waits so long. Shorter, and a taker with a stutter would have everything read twice."""

Fetch = Callable[[int, int], Coroutine[None, None, bytes]]
"""Start and length (at most READ_BYTES) to verified bytes."""


class Ahead:
    """What the streams of a process have waiting, and large pieces in hand, in bytes."""

    __slots__ = ("large", "size")

    def __init__(self) -> None:
        self.size = 0
        self.large = 0


async def paced(fetch: Fetch, start: int, end: int, ahead: Ahead) -> AsyncGenerator[bytes]:
    """The bytes from `start` to `end` in order, in pieces of at most READ_BYTES. Raises what `fetch` raises."""
    loop = asyncio.get_running_loop()
    waiting = _Waiting(fetch, start, end, ahead)
    quick = False
    try:
        while waiting.at < end:
            data = await waiting.take(quick=quick)
            timer = loop.call_later(DROP_S, waiting.drop) if waiting.reserved else None
            given = loop.time()
            yield data
            del data                                  # the next one may take a while
            if timer is not None:
                timer.cancel()
            quick = loop.time() - given < QUICK_S
            waiting.taken()
    finally:
        waiting.taken()
        task = waiting.drop()
        if task is not None:
            await asyncio.wait((task,))


class _Waiting:
    """What one stream has read, or is reading, that was not taken yet."""

    __slots__ = ("_ahead", "_end", "_fetch", "_large", "_next", "_rest", "at", "reserved")

    def __init__(self, fetch: Fetch, start: int, end: int, ahead: Ahead) -> None:
        self._fetch, self._end, self._ahead = fetch, end, ahead
        self.at = start
        """Where the next piece to take begins."""
        self.reserved = 0
        """Bytes of `ahead` that are ours."""
        self._large = 0                               # bytes of a large piece in the taker's hand
        self._rest = memoryview(b"")                  # from `at` on
        self._next: asyncio.Task[bytes] | None = None     # what comes behind it

    async def take(self, *, quick: bool) -> bytes:
        """The next piece; for a quick taker more is read than that. Not called at the end."""
        if not self._rest:
            if not quick or not self._reserve():
                self.drop()
                return await self._one()
            data = await self._read()
            behind = self.at + len(data)
            if behind < self._end:
                self._next = asyncio.ensure_future(self._fetch(behind, _length(behind, self._end, READ_BYTES)))
            if self._ahead.large + len(data) <= LARGE_BYTES_MAX:
                self._large = len(data)
                self._ahead.large += self._large
                self.at = behind
                return data
            self._rest = memoryview(data)
        length = _length(self.at, self._end, PIECE_BYTES)
        piece, self._rest = bytes(self._rest[:length]), self._rest[length:]
        self.at += length
        return piece

    def taken(self) -> None:
        """The taker has let go of its piece."""
        self._ahead.large -= self._large
        self._large = 0

    async def _one(self) -> bytes:
        length = _length(self.at, self._end, PIECE_BYTES)
        data = await self._fetch(self.at, length)
        self.at += length
        return data

    async def _read(self) -> bytes:
        task = self._next
        if task is None:
            return await self._fetch(self.at, _length(self.at, self._end, READ_BYTES))
        data = await task                             # left where it is meanwhile: `drop` cancels it
        self._next = None
        return data

    def _reserve(self) -> bool:
        if not self.reserved and self._ahead.size + 2 * READ_BYTES <= AHEAD_BYTES_MAX:
            self.reserved = 2 * READ_BYTES
            self._ahead.size += self.reserved
        return self.reserved > 0

    def drop(self) -> "asyncio.Task[bytes] | None":
        """Give up what waits. Returns a task that may need a moment to end."""
        self._ahead.size -= self.reserved
        self.reserved = 0
        self._rest = memoryview(b"")
        task, self._next = self._next, None
        if task is not None:
            task.cancel()
            task.add_done_callback(tasks.seen)
        return task


def _length(at: int, end: int, unit: int) -> int:
    """From `at` to the next multiple of `unit`, or to the end: so every block is read once."""
    return min(end, (at // unit + 1) * unit) - at
