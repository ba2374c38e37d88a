"""What the connections of one server have in common: limits, buffers, a coarse clock, and one timer for all deadlines."""

import asyncio
from typing import Protocol

from gateway.http.buffers import BufferPool
from gateway.http.limits import Limits


class Watched(Protocol):
    loop: asyncio.AbstractEventLoop

    def tick(self, now: float) -> None:
        """Once a sweep: end what takes too long."""


class Shared:
    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.pool = BufferPool(limits)
        self.now = 0.0
        """The loop's time at the last sweep: free of charge, and exact enough for deadlines of seconds."""
        self.accepted = 0
        """Connections so far."""
        self.malformed = 0
        """Requests so far that were answered without being one: what HTTP or our limits do not take."""
        self._watched: set[Watched] = set()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, connection: Watched) -> None:
        self._watched.add(connection)
        self.accepted += 1
        if self._timer is None:
            loop = connection.loop
            self.now = loop.time()
            self._timer = loop.call_later(self.limits.sweep_s, self._sweep, loop)

    def forget(self, connection: Watched) -> None:
        self._watched.discard(connection)
        if not self._watched and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(self.limits.sweep_s, self._sweep, loop)
        self.now = loop.time()
        for connection in list(self._watched):
            connection.tick(self.now)
