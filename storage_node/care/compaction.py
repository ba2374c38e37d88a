"""Gives back the space of deleted small chunks: segments that are mostly dead are emptied, then unlinked.

What still lives in such a segment is read, verified (CRCs and SHA-256), and appended to the segment being written, by the
same group commit as any put. The rows change their places in the transaction that records the new ones; only when the
index is synced and knows nothing in the old segment does its file go. So a crash at any step leaves every copy in at least
one place, and the work goes on where it was: what has moved is dead here.

Rules:
* only sealed segments are emptied, one at a time: the temporary space is what lives in one of them;
* a damaged record isn't moved. It is left where it is and verified by the store, which tells who must know;
* a copy that was removed or healed while it was on its way isn't moved (`Index.add` looks again);
* clients come first: small batches, and after each a pause that is longer than the batch took;
* readers that know the old place keep it open, or look again (local.py); numbers of segments are never used twice.
"""

import asyncio
import contextlib
import hashlib
import logging
import os
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Executor
from typing import ParamSpec, Protocol, TypeVar

import msgspec

from consensus.core import tasks
from consensus.core.clock import Clock
from consensus.core.errors import ClusterError, NoSpace, Unavailable
from consensus.disk import Disk
from storage_node.chunk import SEGMENT_HEADER_BYTES, block_table, record_bytes
from storage_node.errors import from_os
from storage_node.index import Copy, Index, SegmentRow
from storage_node.index_reader import IndexReader
from storage_node.scan import Found, Gap, read_record, records
from storage_node.segments import Record, Segments, segment_path, unlink_segment
from storage_node.store import CompactionState

log = logging.getLogger("staddle.node")

P = ParamSpec("P")
T = TypeVar("T")

DEAD_PERCENT = 40
"""By default. At a steady state each byte is then copied once or twice in its life, and a third of the space is dead."""

DEAD_PERCENT_SHORT = 5
"""When space is short."""

SHORT_SEGMENTS = 4
"""Space is short when less than so many whole segments are free beyond the reserve."""

LOOK_S = 60.0
"""Space that waits a minute is not missed; looking costs a few rows."""

IDLE_S = 60.0
"""The segment being written is left for compaction when nothing was put for so long."""

BATCH_BYTES = 1 << 20
BATCH_RECORDS = 300
SCAN_RECORDS = 2000
"""Of one step, in bytes read, records moved, and headers looked at: some milliseconds."""

BYTES_PER_S = 32 << 20
"""At the most, unless somebody has asked for it: an eighth of what a slow SSD writes."""

SHARE = 4
"""The pause after a batch, in times of what the batch took: clients have four fifths of the disk. Half as long as the batch
when somebody asked for it."""

PROGRESS_S = 0.1
"""How often a run's progress is asked for by who waits for it."""

Verify = Callable[[Copy], Awaitable[bool]]


class Compactor:
    """One per store. `start` and `stop` with it; works by itself, and at once when asked."""

    def __init__(self, folder: str, disk: Disk, index: Index, segments: Segments, executor: Executor, clock: Clock, *,
                 dead_percent: int, segment_bytes: int, reserve_bytes: int, verify: Verify,
                 takes_writes: Callable[[], bool] = lambda: True) -> None:
        """`verify` reads a copy and sees to it if it is damaged. `takes_writes` says whether it is worth trying."""
        self._takes_writes = takes_writes
        self._folder, self._disk, self._index, self._segments = folder, disk, index, segments
        self._executor, self._clock, self._verify = executor, clock, verify
        self._dead_percent, self._segment_bytes, self._reserve_bytes = dead_percent, segment_bytes, reserve_bytes
        self._kept: dict[int, int] = {}
        """Segments that could not be emptied, with how many chunks lived in them then: no use to try again before."""
        self._asked: int | None = None
        self._wake = asyncio.Event()
        self._puts, self._puts_at = 0, 0.0
        self._task: asyncio.Task[None] | None = None
        self.state = CompactionState()
        self.returned_bytes = 0
        """Since the start."""

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name="compaction")

    async def stop(self) -> None:
        """What has been moved has been moved."""
        await tasks.end(self._task)
        self._task = None

    def ask(self, dead_percent: int) -> int:
        """See ChunkStore.compact."""
        self._asked = dead_percent if self._asked is None else min(dead_percent, self._asked)
        self._wake.set()
        return self.state.run + 1

    # The loop

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._wake.wait()
            self._wake.clear()
            percent, self._asked = self._asked, None
            await self.round(percent)

    async def round(self, asked: int | None = None) -> CompactionState:
        """Empty what is worth it; with `asked`, everything of which so many percent are dead, and without long pauses.
        Never raises for a fault of the disk: that ends the round, and the next one goes on."""
        before = self.state
        begun = CompactionState(running=True, run=before.run + 1, started_ms=self._clock.now_ms())
        try:
            if asked is not None:
                self.state = begun
            returned = await self._leave_idle_segment(asked)
            found = await self._worthwhile(asked)
            if not found and not returned and asked is None:
                return before                         # nothing to tell
            self.state = msgspec.structs.replace(begun, segments=len(found), returned_bytes=returned)
            for row in found:
                await self._empty(row, hurried=asked is not None)
                self._add(done=1)
        except (OSError, sqlite3.Error) as error:
            self._failed(str(from_os(error, "compaction") if isinstance(error, OSError) else error), before)
        except ClusterError as error:
            self._failed(str(error), before)
        finally:
            if self.state.running:
                self.state = msgspec.structs.replace(self.state, running=False, ended_ms=self._clock.now_ms())
        if self.state.done:
            log.info("compaction: %d of %d segments emptied, %d chunks moved, %d bytes given back", self.state.done,
                     self.state.segments, self.state.moved_chunks, self.state.returned_bytes)
        return self.state

    def _failed(self, why: str, before: CompactionState) -> None:
        if why != before.error:
            log.warning("compaction waits: %s", why)
        self.state = msgspec.structs.replace(self.state, error=why)

    def _add(self, *, done: int = 0, chunks: int = 0, moved: int = 0, returned: int = 0, kept: int = 0) -> None:
        state = self.state
        self.state = msgspec.structs.replace(
            state, done=state.done + done, moved_chunks=state.moved_chunks + chunks, moved_bytes=state.moved_bytes + moved,
            returned_bytes=state.returned_bytes + returned, kept_chunks=state.kept_chunks + kept)

    # What is worth it

    async def _worthwhile(self, asked: int | None) -> list[SegmentRow]:
        """Segments to be emptied, most dead first."""
        percent = self._dead_percent if asked is None else asked
        if asked is None and self._free_bytes() < self._reserve_bytes + SHORT_SEGMENTS * self._segment_bytes:
            percent = min(percent, DEAD_PERCENT_SHORT)
        rows = await self._in_thread(self._index.segments)
        self._kept = {row.number: row.live for row in rows if self._kept.get(row.number) == row.live}
        return sorted((row for row in rows if row.sealed and row.number not in self._kept and is_worth_it(row, percent)),
                      key=lambda row: row.used - row.dead)

    async def _leave_idle_segment(self, asked: int | None) -> int:
        """Seal the segment being written when it is mostly dead and nobody writes. The bytes that it gave back, if nothing
        in it lived."""
        puts, now = self._segments.statistics.puts, asyncio.get_running_loop().time()
        if puts != self._puts:
            self._puts, self._puts_at = puts, now
        number, _ = self._segments.current
        if not number or (asked is None and now - self._puts_at < IDLE_S):
            return 0
        percent = self._dead_percent if asked is None else asked
        rows = {row.number: row for row in await self._in_thread(self._index.segments)}
        if number not in rows or not is_worth_it(rows[number], percent):
            return 0
        await self._segments.seal(number)
        left = {row.number for row in await self._in_thread(self._index.segments)}
        returned = rows[number].used if number not in left else 0
        self.returned_bytes += returned
        return returned

    def _free_bytes(self) -> int:
        disk = os.statvfs(self._folder)
        return disk.f_bavail * disk.f_frsize

    # One segment

    async def _empty(self, row: SegmentRow, *, hurried: bool) -> None:
        """Raises OSError, sqlite3.Error, ClusterError: some of it may have moved."""
        loop = asyncio.get_running_loop()
        emptying = _Emptying(self._folder, row)
        try:
            more = True
            while more:
                began, puts = loop.time(), self._segments.statistics.puts
                batch, more = await self._in_thread(emptying.step)
                if batch:
                    await self._move(batch)
                took = loop.time() - began
                if hurried:
                    await asyncio.sleep(took / 2 if self._segments.statistics.puts != puts else 0)
                else:
                    await asyncio.sleep(max(SHARE * took, sum(len(record.data) for record in batch) / BYTES_PER_S))
        except FileNotFoundError:
            log.warning("segment %d has no file any more", row.number)
        finally:
            emptying.close()
        await self._finish(row, emptying.moved_bytes)

    async def _move(self, batch: list[Record]) -> None:
        if not self._takes_writes():
            raise Unavailable("the disk takes no writes")
        size = sum(record_bytes(len(record.data)) for record in batch)
        if self._free_bytes() - size < self._reserve_bytes // 2:
            raise NoSpace("there is no room to move chunks to, only the reserve is left")
        written = await asyncio.gather(*(self._segments.put(record) for record in batch), return_exceptions=True)
        for result in written:
            if isinstance(result, BaseException):
                raise result
        self._add(chunks=len(batch), moved=size)

    async def _finish(self, row: SegmentRow, moved_bytes: int) -> None:
        """Unlink it, if nothing lives in it. What does then could not be moved: it is damaged, or the disk is."""
        left = await self._in_thread(self._index.copies_in, row.number)
        if left:
            for copy in left:
                await self._verify(copy)
            left = await self._in_thread(self._index.copies_in, row.number)
        if left:
            self._kept[row.number] = (await self._in_thread(self._index.recount, row.number))
            self._add(kept=len(left))
            log.warning("segment %d stays, since %d chunks in it could not be moved", row.number, len(left))
            return
        await self._in_thread(self._unlink, row.number)
        returned = max(0, row.used - moved_bytes)
        self.returned_bytes += returned
        self._add(returned=returned)

    def _unlink(self, number: int) -> None:
        # A power cut could bring back rows that point into it, and then nothing would be there.
        self._index.make_durable()
        unlink_segment(self._disk, self._index, self._folder, number)

    async def _in_thread(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        assert not named
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)


def is_worth_it(row: SegmentRow, percent: int) -> bool:
    """At least `percent` of its records' bytes are dead, and something is. A segment in which nothing lives always is."""
    filled = row.used - SEGMENT_HEADER_BYTES
    return row.live <= 0 or (row.dead > 0 and row.dead * 100 >= filled * percent)


class Node(Protocol):
    """What `compact` needs of storage_node.client.NodeClient."""

    async def compact(self, dead_percent: int) -> int: ...

    async def compaction(self) -> CompactionState: ...


async def compact(node: Node, dead_percent: int, progress: Callable[[CompactionState], None]) -> CompactionState:
    """Have a node give back what it can, and wait for the end. Every change is told. A fault of its disk is in the result's
    `error`. Raises Unavailable if the node goes away."""
    run = await node.compact(dead_percent)
    told = None
    while True:
        state = await node.compaction()
        if state.run >= run and state != told:
            progress(state)
            told = state
        if state.run > run or (state.run == run and not state.running):
            return state
        await asyncio.sleep(PROGRESS_S)


class _Emptying:
    """What lives in one segment, read batch by batch. `step` in threads, one call at a time; `close` waits for it, since who
    awaited it may have been cancelled."""

    def __init__(self, folder: str, row: SegmentRow) -> None:
        self._folder, self._row = folder, row
        self._index: IndexReader | None = None
        self._fd = -1
        self._busy, self._closed = threading.Lock(), False
        self._records: Iterator[Found | Gap] = iter(())
        self.moved_bytes = 0

    def step(self) -> tuple[list[Record], bool]:
        """Records to move, and whether there is more. Raises OSError, sqlite3.Error."""
        with self._busy:
            return ([], False) if self._closed else self._step()

    def _step(self) -> tuple[list[Record], bool]:
        if self._index is None:
            self._fd = os.open(segment_path(self._folder, self._row.number), os.O_RDONLY | os.O_CLOEXEC)
            self._index = IndexReader(self._folder)
            self._records = records(self._fd, self._row.home, SEGMENT_HEADER_BYTES)
        batch: list[Record] = []
        size = 0
        for _ in range(SCAN_RECORDS):
            item = next(self._records, None)
            if item is None:
                return batch, False
            if isinstance(item, Gap):
                continue                              # if a chunk was there, the index still knows it in the end
            record = self._record(item)
            if record is not None:
                batch.append(record)
                size += len(record.data)
                self.moved_bytes += record_bytes(len(record.data))
                if size >= BATCH_BYTES or len(batch) >= BATCH_RECORDS:
                    break
        return batch, True

    def _record(self, found: Found) -> Record | None:
        """The chunk, if the index has it in this place and it is good."""
        assert self._index is not None
        header, generation = found.header, found.header.generation.pack()
        row = self._index.find(header.digest, generation)
        if row is None or row[:3] != (header.size, self._row.number, found.place):
            return None
        data, table = read_record(self._fd, found)
        if table != block_table(data) or hashlib.sha256(data).digest() != header.digest:
            return None                               # left for the store's own look
        return Record(header.digest, generation, data, table, 0, (self._row.number, found.place))

    def close(self) -> None:
        with self._busy:
            self._closed = True
            if self._index is not None:
                self._index.close()
            if self._fd >= 0:
                os.close(self._fd)
