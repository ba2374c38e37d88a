"""Carries out lifecycles: one gateway of all, whichever holds the duty, looks through bucket after bucket.

Each bucket is looked through four times in a lifecycle's day, at once when its rules have changed, and from where it was left
when the worker of another machine was lost. Between pages the worker rests for longer than it worked, and after a command for
as long as that took: when clients keep the metadata busy, commands take longer, and so do the pauses.

The time is the log's: a gateway whose clock is wrong expires nothing early, and the log checks each step once more.
"""

import asyncio
import logging
from collections.abc import AsyncIterator

from consensus import queries
from consensus.client import MetadataClient
from consensus.core import tasks
from consensus.core.clock import Clock
from consensus.core.errors import ClusterError, Corrupt
from consensus.lifecycles import LifecycleBucket
from gateway.duties import Duty
from gateway.lifecycle import progress as progresses
from gateway.lifecycle.book import KIND
from gateway.lifecycle.progress import Counts, Progress
from gateway.lifecycle.scan import LostDuty, RulesMoved, Scan, Told, TurnOver, nobody
from gateway.s3.lifecycle.due import Days

log = logging.getLogger("staddle.lifecycle")

DUTY = "lifecycle"

SCANS_A_DAY = 4
"""What is due at midnight goes in the six hours after, and a scan that was missed is not missed for a day."""

LOOK_S_MAX = 10.0
"""How soon new rules are noticed."""

TROUBLE_S = 30.0
BUCKET_TROUBLE_S = 600.0
"""How long all is left alone after a failure that nobody foresaw, and a bucket whose rules or rows cannot be read."""


class LifecycleWorker:
    """Works from `start` to `stop`."""

    def __init__(self, metadata: MetadataClient, duty: Duty, clock: Clock, *, day_seconds: int, told: Told = nobody) -> None:
        self._metadata, self._duty, self._clock, self._told = metadata, duty, clock, told
        self._days = Days(day_seconds * 1000)
        self._interval_ms = day_seconds * 1000 // SCANS_A_DAY
        self._look_s = min(LOOK_S_MAX, day_seconds / SCANS_A_DAY / 2)
        self._task: asyncio.Task[None] | None = None
        self._rested: dict[int, tuple[int, int]] = {}        # bucket -> its rules, when it may be looked through again
        self.counts = Counts()
        self.scans = 0
        self.troubles = 0

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._work(), name="lifecycle")

    async def stop(self) -> None:
        await tasks.end(self._task)
        await self._duty.release()

    def figures(self) -> dict[str, int]:
        return {**{name: getattr(self.counts, name) for name in self.counts.__struct_fields__},
                "scans": self.scans, "troubles": self.troubles}

    async def _work(self) -> None:
        while True:
            try:
                await self.look()
            except ClusterError as error:
                self.troubles += 1
                log.warning("lifecycles rest for a moment: %s", error)
            except LostDuty:
                log.info("another gateway carries out lifecycles now")
            except Exception:                               # a bug of ours must neither end it in silence nor make it spin
                self.troubles += 1
                log.exception("the carrying out of lifecycles failed, and is tried again in %d s", TROUBLE_S)
                await asyncio.sleep(TROUBLE_S)
            await asyncio.sleep(self._look_s)

    async def look(self) -> None:
        """Look through the buckets whose turn it is. Raises ClusterError, LostDuty."""
        due = [bucket async for bucket in _all_buckets(self._metadata) if self._is_due(bucket)]
        if not due:
            if self._days.real:                             # else the next look finds work again
                await self._duty.release()
            return
        for bucket in due:
            await asyncio.sleep(0)              # reading does not suspend by itself: requests have their turn
            if not await self._duty.hold():
                return
            await self._bucket(bucket)

    def _is_due(self, bucket: LifecycleBucket) -> bool:
        """As far as this process remembers: what others have done, their progress tells."""
        lifecycle, at_ms = self._rested.get(bucket.id, (0, 0))
        return lifecycle != bucket.lifecycle or at_ms <= self._clock.now_ms()

    async def _bucket(self, bucket: LifecycleBucket) -> None:
        document = await self._metadata.bucket_setting(bucket.id, KIND.name)
        if document is None:
            return
        known = await progresses.load(self._metadata, bucket.id)
        now_ms = self._clock.now_ms()
        if known is not None and known.lifecycle == bucket.lifecycle and known.ended_ms + self._interval_ms > now_ms:
            self._rest(bucket, known.ended_ms + self._interval_ms)      # another gateway has, before us
            return
        saved_ms = 0 if known is None or known.lifecycle != bucket.lifecycle else known.ended_ms
        if known is None or known.lifecycle != bucket.lifecycle or known.ended_ms:
            known = Progress(lifecycle=bucket.lifecycle, began_ms=now_ms)
        known.trouble = ""
        scanning: Scan | None = None
        try:
            scanning = Scan(self._metadata, self._duty, self._clock, bucket, KIND.decode(document), self._days, known, self._told)
            await scanning.run()
        except (RulesMoved, TurnOver):
            return
        except Corrupt as error:
            self.troubles += 1
            known.trouble = str(error)
            log.error("the lifecycle of %s stops: %s", bucket.name, error)
            self._rest(bucket, now_ms + int(BUCKET_TROUBLE_S * 1000))
            await progresses.save(self._metadata, bucket.id, known)
            return
        finally:
            if scanning is not None:
                self.counts.add(scanning.counts)
        self.scans += 1
        known.ended_ms = self._clock.now_ms()
        self._rest(bucket, known.began_ms + self._interval_ms)
        if known.ended_ms - saved_ms >= progresses.SAVE_S * 1000:
            await progresses.save(self._metadata, bucket.id, known)
        if scanning.counts.effects:
            log.info("lifecycle of %s: %s", bucket.name, scanning.counts.told())

    def _rest(self, bucket: LifecycleBucket, until_ms: int) -> None:
        if len(self._rested) > 100_000:                     # of buckets long gone: then all are asked about once more
            self._rested.clear()
        self._rested[bucket.id] = (bucket.lifecycle, until_ms)


async def _all_buckets(metadata: MetadataClient) -> AsyncIterator[LifecycleBucket]:
    """Those that have a lifecycle."""
    after = 0
    while page := await metadata.read(queries.lifecycle_buckets, after):
        for bucket in page:
            yield bucket
        after = page[-1].id
        await asyncio.sleep(0)
