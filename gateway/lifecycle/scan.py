"""One look through a bucket, and the commands that come of it: at a pace that leaves room for clients.

After a page the worker rests several times as long as reading it took, after a command twice as long as that took: when
clients keep the metadata busy, commands take longer, and so do the pauses.
"""

import asyncio
import itertools
from collections.abc import Callable, Sequence

import msgspec

from consensus import queries
from consensus.client import MetadataClient
from consensus.core.clock import Clock
from consensus.core.commands import LIFECYCLE_STEPS_MAX, CarryOutLifecycle, LifecycleStep
from consensus.core.results import CarriedOut, Malformed
from consensus.lifecycles import LifecycleBucket, Looked
from gateway.duties import Duty
from gateway.lifecycle import progress as progresses
from gateway.lifecycle.judging import Judge, Part, parts, wants
from gateway.lifecycle.progress import Counts, Progress
from gateway.ops.objects.versions import new_version_id
from gateway.s3.lifecycle.due import Days
from gateway.s3.lifecycle.rules import Lifecycle

PAGE_ROWS = 250
"""Read without a pause: about a millisecond, while requests of this process wait."""

COMPARED_AT_ONCE = 2_500
"""Versions times rules: each costs about a microsecond. A bucket with a thousand rules is read in short pages."""

STEPS_AT_ONCE = min(25, LIFECYCLE_STEPS_MAX)
"""Carried out without a pause: a few milliseconds, while everybody's writes wait."""

REST = 4.0
"""So many times as long as a page took, the worker rests: it takes at most a fifth of its process."""

COMMIT_REST = 2.0
"""The same after a command, which takes the longer the busier the metadata is: a third of its time at most."""

REST_S_MIN, REST_S_MAX = 0.001, 1.0

TURN_S = 600.0
"""After so long the other buckets have their turn: one of a hundred million objects takes a day to expire."""

_COUNTED = {"expire": "expired", "remove": "removed", "unmark": "markers", "move": "moved", "abort": "aborted"}


Told = Callable[[LifecycleBucket, LifecycleStep, str], None]
"""Is told each step that had an effect, and the id of the version that it was about."""


def nobody(bucket: LifecycleBucket, step: LifecycleStep, version_id: str) -> None:
    """Wants to know."""


class LostDuty(Exception):
    """Another gateway does it now."""


class RulesMoved(Exception):
    """The bucket has other rules, or is gone: it is looked through anew, or no more."""


class TurnOver(Exception):
    """It goes on later, from where it is."""


class Scan:
    """Of one bucket. `counts` are those of this process; `progress` tells of the whole scan, also before."""

    def __init__(self, metadata: MetadataClient, duty: Duty, clock: Clock, bucket: LifecycleBucket, lifecycle: Lifecycle,
                 days: Days, progress: Progress, told: Told = nobody) -> None:
        self._metadata, self._duty, self._clock, self._bucket = metadata, duty, clock, bucket
        self._lifecycle, self._days, self._progress = lifecycle, days, progress
        self._wants = wants(lifecycle, bool(bucket.versioning))
        self._rows = max(2, min(PAGE_ROWS, COMPARED_AT_ONCE // max(1, len(lifecycle.rules))))
        self._told = told
        self._steps: list[LifecycleStep] = []
        self._names: dict[tuple[str, int], str] = {}      # of the versions that they are about
        self._began_at = self._saved_at = clock.monotonic()
        self.counts = Counts()

    async def run(self) -> None:
        """Raises LostDuty, RulesMoved, TurnOver, ClusterError."""
        judge = Judge(self._lifecycle, self._days, self._now_ms(), keeps=self._bucket.versioning == "Enabled")
        every = parts(self._lifecycle)
        while self._progress.part < len(every):
            part = every[self._progress.part]
            if self._wants.versions:
                await self._versions(judge, part)
            if self._wants.uploads:
                await self._uploads(judge, part)
            self._progress.part, self._progress.at = self._progress.part + 1, b""
        await self._carry_out(())

    def _now_ms(self) -> int:
        """The log's time, or ours if that is earlier: whoever of the two is ahead, nothing goes early."""
        return min(self._clock.now_ms(), self._duty.log_now_ms())

    async def _versions(self, judge: Judge, part: Part) -> None:
        start, below = max(part.start, self._progress.at), 0
        rows: list[Looked] = []
        while True:
            began, judge.now_ms = self._clock.monotonic(), self._now_ms()
            page = await self._metadata.read(
                queries.lifecycle_page, self._bucket.id, start, part.end, below, history=self._wants.history,
                tags=self._wants.tags, limit=self._rows)
            more = len(page) == self._rows
            rows += page
            # The last one waits for the next page: what follows a marker tells whether it hides anything.
            judged, rows = (rows[:-1], rows[-1:]) if more else (rows, [])
            found: list[LifecycleStep] = []
            for row, after in itertools.pairwise((*judged, rows[0] if rows else None)):
                step = None if row is None else judge.see(row, None if after is None else after.key)
                if row is not None and step is not None:
                    found.append(step)
                    self._names[row.key, row.order] = row.version_id
            await self._after_page(len(judged), found, self._clock.monotonic() - began)
            if not more:
                return
            start, below = rows[0].key.encode(), rows[0].order
            await self._mark(start)

    async def _uploads(self, judge: Judge, part: Part) -> None:
        after = (part.start, "")
        while True:
            began, judge.now_ms = self._clock.monotonic(), self._now_ms()
            page = await self._metadata.read(queries.lifecycle_uploads, self._bucket.id, after, part.end, limit=self._rows)
            found = [step for upload in page if (step := judge.upload(upload)) is not None]
            await self._after_page(len(page), found, self._clock.monotonic() - began)
            if len(page) < self._rows:
                return
            after = (page[-1].key.encode(), page[-1].upload_id)

    async def _after_page(self, looked: int, found: Sequence[LifecycleStep], took_s: float) -> None:
        self._count("looked", looked)
        await asyncio.sleep(min(REST_S_MAX, max(REST_S_MIN, took_s * REST)))
        if not await self._duty.hold():
            raise LostDuty
        await self._carry_out(found)

    async def _carry_out(self, found: Sequence[LifecycleStep]) -> None:
        """What is left over goes with the next page's; with an empty page, now."""
        self._steps += found
        while self._steps and (not found or len(self._steps) >= STEPS_AT_ONCE):
            steps = tuple(
                msgspec.structs.replace(step, marker_id=new_version_id()) if step.action == "expire" else step
                for step in self._steps[:STEPS_AT_ONCE])
            began = self._clock.monotonic()
            outcome = await self._metadata.commit(
                CarryOutLifecycle(bucket=self._bucket.id, lifecycle=self._bucket.lifecycle, steps=steps))
            assert not isinstance(outcome, Malformed), outcome.reason
            if not isinstance(outcome, CarriedOut) or outcome.moved:
                raise RulesMoved
            del self._steps[:outcome.reached]
            for place, step in enumerate(steps[:outcome.reached]):
                version_id = self._names.pop((step.key, step.order), "")
                if place in outcome.places:
                    self._count(_COUNTED[step.action], 1)
                    self._told(self._bucket, step, version_id)
            self._count("left", outcome.reached - len(outcome.places))
            await asyncio.sleep(min(REST_S_MAX, max(REST_S_MIN, (self._clock.monotonic() - began) * COMMIT_REST)))

    def _count(self, name: str, count: int) -> None:
        for counts in (self.counts, self._progress.counts):
            setattr(counts, name, getattr(counts, name) + count)

    async def _mark(self, at: bytes) -> None:
        """The next page begins with this key. Whoever takes over looks at all its versions again."""
        if self._clock.monotonic() - self._saved_at >= progresses.SAVE_S:
            self._saved_at = self._clock.monotonic()
            await self._carry_out(())
            self._progress.at = at
            saved = await progresses.save(self._metadata, self._bucket.id, self._progress)
            if saved and self._saved_at - self._began_at >= TURN_S:
                raise TurnOver
