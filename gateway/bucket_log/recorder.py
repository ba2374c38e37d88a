"""The access logs of buckets in one gateway worker: which buckets are logged, what is recorded, when it is delivered.

* Which buckets are logged is looked up every few seconds, so a change counts everywhere soon, as on AWS, and no request asks
  for it. The worker that took the change knows at once.
* Records wait in memory for a moment, then in the spool, synced; then they are delivered, every `deliver_s` or when a batch is
  full. What the target does not take is tried again for a day.
* Nothing here makes a request wait or fail.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from consensus.core.commands import LifecycleStep
from consensus.core.errors import ClusterError, Corrupt
from consensus.core.ids import BucketId
from consensus.lifecycles import LifecycleBucket
from gateway.auth import Principal
from gateway.bucket_log.delivery import NotTaken, deliver
from gateway.bucket_log.lifecycle import of_lifecycle
from gateway.bucket_log.spool import Batch, Spool
from gateway.http.server_log import one_field, records, time_of
from gateway.ops.buckets.bucket_logging import KIND
from gateway.ops.context import Services
from gateway.s3.bucket_log import DAY_S, EVENT_TIME, Logging, Source
from gateway.s3.reply import Reply
from gateway.s3.request import S3Request

if TYPE_CHECKING:
    from gateway.http.asgi import AsgiExchange
    from gateway.http.exchange import Exchange

log = logging.getLogger("staddle.bucket_logs")

LOOK_S = 5.0
BUCKETS_PER_PAGE = 1000

FLUSH_S = 1.0
"""Records wait so long in memory: a crash may lose them, and each flush is a sync for each bucket."""

PENDING_BYTES_MAX = 16 << 20
"""Of records in memory, while the disk is slow. More are dropped."""

WAITING_BYTES_MAX = 256 << 20
"""Of one worker's records on disk. More are dropped, so that a target that takes nothing does not fill the disk."""

KEPT_MS = 86_400_000
"""How long a batch is offered to a target that does not take it."""

SHARE, LITTLE = 4, 64
"""One account's records take up to a quarter of that room: a target that takes nothing, or a flood of requests, is its own
matter. And a 64th is for each account, whatever others have taken, so nobody can fill the room to hide from another's log."""

STOP_S = 5.0
"""How long the object that is being delivered may take when the worker stops. Then it is delivered by the next one, under the
same name."""

COMPLAIN_S = 600.0
"""The same complaint is made once in so long."""


class Logged(NamedTuple):
    logging: Logging
    source: Source
    owner: str


class BucketLogs:
    """`logged` by name of the bucket: whoever serves requests looks into it, and calls `add` for those that are there."""

    def __init__(
        self, services: Services, folder: Path, *, deliver_s: float, inherited: Iterable[Path] = (),
    ) -> None:
        """`inherited`: folders of workers that there are no more."""
        self._services, self._deliver_s, self._inherited = services, deliver_s, tuple(inherited)
        self._spool = Spool(folder)
        self._spool_lock = asyncio.Lock()
        self._deliver_lock = asyncio.Lock()
        self._look_lock = asyncio.Lock()
        self._flush_lock = asyncio.Lock()
        self._stopping = False
        self._delivering: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._pending: dict[tuple[Logged, int], list[str]] = {}      # by day
        self._pending_bytes = 0
        self._pending_of: dict[str, int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._full = asyncio.Event()
        self._complained: dict[str, float] = {}
        self._second, self._time = 0, ""
        self.logged: dict[str, Logged] = {}
        self.records = self.delivered = self.dropped = 0
        """Records so far, objects that were delivered, and records that were not kept or not delivered."""

    @property
    def waiting_bytes(self) -> int:
        return self._spool.waiting_bytes + self._pending_bytes

    async def start(self) -> None:
        """Raises OSError for a folder that cannot be used."""
        self._stopping = False
        await asyncio.to_thread(self._spool.start, self._services.clock.now_ms(), self._inherited)
        self._watching = self._do(self._watch())
        self._delivering = self._do(self._deliver_often())

    async def stop(self) -> None:
        """What is not delivered stays in the spool."""
        self._stopping = True
        self._full.set()
        if self._timer is not None:
            self._timer.cancel()
        if self._watching is not None:
            self._watching.cancel()
        if self._delivering is not None:
            await asyncio.wait([self._delivering], timeout=STOP_S)
            self._delivering.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._flush()

    def _do(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a task of the access logs of buckets has failed", exc_info=task.exception())

    # Which buckets are logged

    async def _watch(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Know what is logged now. While the metadata does not answer, what was known before goes on."""
        async with self._look_lock:      # or one that began before a change could end after one that has seen it
            await self._look()

    async def _look(self) -> None:
        found: dict[str, Logged] = {}
        after, more = BucketId(0), True
        try:
            while more:
                page = await self._services.metadata.settings_named(KIND.name, after, BUCKETS_PER_PAGE)
                for bucket, document in page:
                    with contextlib.suppress(Corrupt):        # whoever asks for the setting is told
                        region = bucket.region or self._services.settings.region
                        source = Source(bucket.name, bucket.account, region)
                        found[bucket.name] = Logged(KIND.decode(document), source, bucket.owner)
                    after = bucket.id
                more = len(page) == BUCKETS_PER_PAGE
        except ClusterError:
            return
        self.logged = found

    def look_soon(self) -> None:
        """A bucket's logging was changed through this worker."""
        self._do(self.look())

    # Records

    def add(
        self, exchange: "Exchange | AsgiExchange", request_id: str, *, request: S3Request, who: Principal | None,
        operation: str, status: int, code: str, reply: Reply | None, began: float, ended: float, now_ms: int, site: str = "",
    ) -> None:
        """A request about a logged bucket has been answered or given up."""
        self._keep(self.logged[request.bucket], now_ms, lambda: records(
            exchange, request_id, request, who, operation, status, code, reply, began, ended, site=site))

    def add_of_lifecycle(self, bucket: LifecycleBucket, step: LifecycleStep, version_id: str) -> None:
        """A step of a bucket's lifecycle is carried out. Nobody asked for it."""
        logged = self.logged.get(bucket.name)
        if logged is not None:
            self._keep(logged, self._services.clock.now_ms(), lambda: [of_lifecycle(bucket, step, version_id)])

    def _keep(self, logged: Logged, now_ms: int, lines_of: Callable[[], list[str]]) -> None:
        """Unless there is no room; then the lines, without their beginnings, are not asked for."""
        account = logged.source.account
        spool, pending_of = self._spool, self._pending_of.get(account, 0)
        if not (_fits(pending_of, self._pending_bytes, PENDING_BYTES_MAX)
                and _fits(spool.waiting_of.get(account, 0), spool.waiting_bytes, WAITING_BYTES_MAX)):
            self._drop(1, "too much waits for its delivery")
            return
        second = now_ms // 1000
        if second != self._second:
            self._second, self._time = second, time_of(second)
        beginning = f"{one_field(logged.owner)} {one_field(logged.source.bucket)} [{self._time}] "
        lines = [beginning + rest for rest in lines_of()]
        day = second // DAY_S if logged.logging.partitioned == EVENT_TIME else 0
        self._pending.setdefault((logged, day), []).extend(lines)
        size = sum(map(len, lines))
        self._pending_bytes += size
        self._pending_of[account] = pending_of + size
        self.records += len(lines)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self._begin)

    def _begin(self) -> None:
        self._timer = None
        self._do(self._flush())

    async def _flush(self) -> None:
        """All that waits in memory goes to the spool, also what is on its way there."""
        async with self._flush_lock:
            pending, self._pending = self._pending, {}
            for (logged, day), lines in pending.items():
                text = "".join(lines).encode("ascii")
                try:
                    async with self._spool_lock:
                        await asyncio.to_thread(self._spool.append, logged.source.bucket, day, logged.logging, logged.source,
                                                text, self._services.clock.now_ms())
                except OSError as error:
                    self._drop(len(lines), f"the spool cannot be written: {error.strerror or error}")
                finally:
                    self._pending_bytes -= len(text)
                    self._pending_of[logged.source.account] -= len(text)
        if self._spool.full:
            self._full.set()

    # Delivery

    async def _deliver_often(self) -> None:
        while not self._stopping:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._deliver_s):
                    await self._full.wait()
            self._full.clear()
            if not self._stopping:
                await self.deliver()

    async def deliver(self) -> int:
        """Deliver all that was recorded. The number of objects."""
        await self._flush()
        done = 0
        async with self._deliver_lock:
            now_ms = self._services.clock.now_ms()
            try:
                async with self._spool_lock:
                    await asyncio.to_thread(self._spool.close_all, now_ms)
                    batches = await asyncio.to_thread(lambda: list(self._spool.batches()))
                for batch in batches:
                    if self._stopping:
                        break
                    done += await self._deliver_one(batch, now_ms)
            except OSError as error:
                self._complain(f"the spool of access logs cannot be used: {error}")
        self.delivered += done
        return done

    async def _deliver_one(self, batch: Batch, now_ms: int) -> bool:
        """Raises OSError."""
        try:
            heading, text = await asyncio.to_thread(self._spool.read, batch)
        except Corrupt as error:
            await self._give_up(batch, 0, str(error))
            return False
        if text:
            try:
                await deliver(self._services, heading, text, batch.unique)
            except NotTaken as error:
                why = f"the log of bucket {heading.source.bucket} was not delivered to {heading.logging.bucket}: {error}"
                if now_ms - batch.made_ms < KEPT_MS:
                    self._complain(why)
                else:
                    await self._give_up(batch, text.count(b"\n"), why, heading.source.account)
                return False
        await self._remove(batch, heading.source.account)
        return bool(text)

    async def _remove(self, batch: Batch, account: str) -> None:
        async with self._spool_lock:
            await asyncio.to_thread(self._spool.remove, batch, account)

    async def _give_up(self, batch: Batch, records: int, why: str, account: str = "") -> None:
        self._drop(records, why)
        await self._remove(batch, account)

    def _drop(self, records: int, why: str) -> None:
        self.dropped += records
        self._complain(f"{why}; records are dropped")

    def _complain(self, sentence: str) -> None:
        now = time.monotonic()
        if now - self._complained.get(sentence, -COMPLAIN_S) >= COMPLAIN_S:
            if len(self._complained) > BUCKETS_PER_PAGE:
                self._complained.clear()
            self._complained[sentence] = now
            log.warning("%s", sentence)


def _fits(own: int, of_all: int, room: int) -> bool:
    """Whether an account that has `own` bytes in a room may have more there."""
    return own < room // LITTLE or (own < room // SHARE and of_all < room)
