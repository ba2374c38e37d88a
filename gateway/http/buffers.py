"""Receive buffers, used again and again: fresh memory costs more to touch than the bytes cost to receive.

A buffer that somebody still looks at (an exported view) is not taken back: it is left to its holder and the garbage
collector. So a view kept too long costs memory, never wrong bytes.
"""

from collections import deque

from gateway.http.limits import Limits


class BufferPool:
    """Buffers of `buffer_bytes`, at most `buffers_max` of them; beyond that small ones: nobody waits for another."""

    def __init__(self, limits: Limits) -> None:
        self._large = limits.buffer_bytes
        self._small = limits.small_buffer_bytes
        self._max = limits.buffers_max
        self.fast_rate_min = limits.fast_rate_min
        self._free: deque[bytearray] = deque()
        self.out = 0
        """Large buffers that are with somebody now."""

    def take(self, wanted: int, *, fast: bool) -> bytearray:
        """A buffer for `wanted` more bytes; it may be smaller. `fast`: they come quickly enough for a large one."""
        if wanted <= self._small or not fast:
            return bytearray(self._small)
        if self._free:
            self.out += 1
            return self._free.pop()
        if self.out < self._max:
            self.out += 1
            return bytearray(self._large)
        return bytearray(self._small)

    def give(self, buffer: bytearray) -> None:
        """Back into the pool, unless a view of it is still held."""
        if len(buffer) != self._large:
            return
        self.out -= 1
        try:
            # A bytearray refuses to change its size while a view exists; this asks without moving anything.
            buffer.pop()
            buffer.append(0)
        except BufferError:
            return
        self._free.append(buffer)
