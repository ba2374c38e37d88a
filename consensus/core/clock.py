"""Wall and monotonic time, passed in wherever time is needed, so that tests and simulation can own it."""

import time
from typing import Protocol


class Clock(Protocol):
    def now_ms(self) -> int:
        """Wall clock, milliseconds since 1970 UTC. For what users see; never for order."""

    def monotonic(self) -> float:
        """Seconds, for deadlines."""


class SystemClock:
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()
