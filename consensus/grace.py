"""How long something has waited, by time that only counts: so that a clock that jumps cuts no reader short.

What lingers carries the log's own time, which follows the wall clocks of whoever sends commands (and never runs backwards).
The leader notes now and then which log time it is; what is older than the log time of a note that is old enough, by a clock
that only counts, has waited long enough, wherever the wall clock has been meanwhile. A leader that has just begun knows no
old note: what lingers waits a little longer then.
"""

from collections import deque
from collections.abc import Callable

from consensus.core.clock import counting_s

NOTES_MAX = 1000
"""Of one grace: the precision is a thousandth of it."""

NEVER_MS = 1 << 50


class Grace:
    def __init__(self, grace_s: float, counting: Callable[[], float] = counting_s) -> None:
        self._grace_s, self._counting = grace_s, counting
        self._notes: deque[tuple[float, int]] = deque()
        """When, and which log time it was; oldest first."""
        self._stuck = False

    def note(self, log_ms: int, wall_ms: int) -> None:
        """It is `log_ms` now. To be called every few seconds."""
        now = self._counting()
        # Behind log time the wall clock moves nothing: what comes now carries the same time as what came long ago.
        self._stuck = wall_ms < log_ms
        if not self._notes or now - self._notes[-1][0] >= self._grace_s / NOTES_MAX:
            self._notes.append((now, log_ms))
        while len(self._notes) > 1 and self._notes[1][0] <= now - self._grace_s:
            self._notes.popleft()

    def before_ms(self, log_ms: int) -> int:
        """What lingers must be this much older than `log_ms`, the log time at which it is asked."""
        if not self._grace_s:
            return 0
        if not self._notes or self._notes[0][0] > self._counting() - self._grace_s:
            return NEVER_MS
        return log_ms - self._notes[0][1] + int(self._stuck)
