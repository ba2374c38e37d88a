"""Receive buffers, used again and again: fresh memory costs more to touch than the bytes cost to receive.

A buffer that somebody still looks at (an exported view: a hash at work in a thread, a frame on its way to a storage node)
is set aside until the last view is gone. So a view kept too long costs memory, never wrong bytes.
"""

from collections import deque

from gateway.http.limits import Limits

LOOKS_MAX = 8
"""How many of the buffers set aside are looked at when one is wanted: the oldest are the likeliest to be free."""


class BufferPool:
    """Buffers of `buffer_bytes`, at most `buffers_max` of them; beyond that small ones: nobody waits for another."""

    def __init__(self, limits: Limits) -> None:
        self._large = limits.buffer_bytes
        self._small = limits.small_buffer_bytes
        self._max = limits.buffers_max
        self.fast_rate_min = limits.fast_rate_min
        self._free: list[bytearray] = []
        self._aside: deque[bytearray] = deque()
        self.made = 0

    @property
    def out(self) -> int:
        """Large buffers that bodies have now."""
        return self.made - len(self._free) - len(self._aside)

    def take(self, wanted: int, *, fast: bool) -> bytearray:
        """A buffer for `wanted` more bytes; it may be smaller. `fast`: they come quickly enough for a large one."""
        if wanted <= self._small or not fast:
            return bytearray(self._small)
        if not self._free:
            self._look_aside()
        if self._free:
            return self._free.pop()
        if self.made < self._max:
            self.made += 1
            return bytearray(self._large)
        return bytearray(self._small)

    def give(self, buffer: bytearray) -> None:
        """Back into the pool, as soon as nobody looks at it any more."""
        if len(buffer) == self._large:
            (self._aside if _is_seen(buffer) else self._free).append(buffer)

    def _look_aside(self) -> None:
        for _ in range(min(LOOKS_MAX, len(self._aside))):
            buffer = self._aside.popleft()
            if not _is_seen(buffer):
                self._free.append(buffer)
                return
            self._aside.append(buffer)


def _is_seen(buffer: bytearray) -> bool:
    """Whether a view of it exists: then a bytearray refuses to change its size. This asks without moving anything."""
    try:
        buffer.pop()
    except BufferError:
        return True
    buffer.append(0)
    return False
