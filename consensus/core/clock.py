"""Wall and monotonic time, passed in wherever time is needed, so that tests and simulation can own it."""

import time
from typing import Protocol


class Clock(Protocol):
    def now_ms(self) -> int:
        """Wall clock, milliseconds since 1970 UTC. For what users see; never for order."""

    def monotonic(self) -> float:
        """Seconds, for deadlines."""


class SteadyClock:
    """Milliseconds since 1970 as they were when this process began, and counted on from there: what is due later is due
    then, wherever the wall clock jumps. All of one process agree."""

    def now_ms(self) -> int:
        return _BEGAN_MS + int((counting_s() - _BEGAN_S) * 1000)

    def monotonic(self) -> float:
        return time.monotonic()


def counting_s() -> float:
    """Seconds that only ever count, a suspended machine's too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


_BEGAN_S, _BEGAN_MS = counting_s(), time.time_ns() // 1_000_000


class SystemClock:
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()
