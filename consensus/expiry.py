"""When multipart uploads that nobody finishes are given up: only after a time that the keeper of the store has set, and
only by a clock that can be believed.

An expired upload takes acknowledged parts with it, so a clock that has jumped must not decide. The *offset* is the wall
clock against one that only counts; while it is another than before by more than `JUMP_S`, nothing expires until the new
one has held for `BELIEVED_S`.
"""

import logging

from consensus.core.clock import Clock, counting_s
from consensus.core.commands import ExpireUploads

log = logging.getLogger("staddle.meta")

JUMP_S = 300.0
"""More than slewing and a leap second make of it."""

BELIEVED_S = 24 * 3600.0
"""Whoever has set a clock wrongly has noticed by then."""

PAGE = 100


class Expiry:
    """Asked again and again by the leader's housekeeping."""

    def __init__(self, clock: Clock, after_s: float) -> None:
        """`after_s`: 0 for never."""
        self._clock, self._after_ms = clock, int(after_s * 1000)
        self._offset_s = self._wall_s() - counting_s()
        self._since = 0.0

    def due(self, oldest_ms: int | None) -> ExpireUploads | None:
        """The command to propose, given when the oldest upload was begun; None if there is nothing to do."""
        if not self._after_ms or not self._steady():
            return None
        before = self._clock.now_ms() - self._after_ms
        return ExpireUploads(before_ms=before, limit=PAGE) if oldest_ms is not None and oldest_ms < before else None

    def _steady(self) -> bool:
        counted = counting_s()
        offset = self._wall_s() - counted
        if abs(offset - self._offset_s) > JUMP_S:
            log.warning("the clock has jumped by %.0f s: uploads do not expire for a day", offset - self._offset_s)
            self._offset_s, self._since = offset, counted + BELIEVED_S
        return counted >= self._since

    def _wall_s(self) -> float:
        return self._clock.now_ms() / 1000
