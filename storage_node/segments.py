"""Small chunks, appended to segment files with group commit.

One thread writes. Whatever has queued while it synced is the next batch: one write, one fdatasync, one transaction of
the index, then all waiters are woken by one call into their event loop. So a put costs a fraction of a sync.

Rules:
* a segment is written by one thread, at its end only; what lies before `used` (in the index) is durable and never
  changes;
* after a failed write or sync the segment is sealed at its last good end and never synced again: a second sync would
  succeed over lost pages. The next batch goes to a new segment, so a disk that recovers is used again unaided;
* a segment found unsealed after an unclean stop is recovery.py's to judge.
"""

import asyncio
import contextlib
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from consensus.core.errors import Busy, ClusterError, Unavailable
from consensus.core.ids import Digest
from consensus.disk import CREATE, IOV_MAX, Disk
from storage_node.chunk import (
    HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    Buffer,
    encode_header,
    encode_segment_header,
    record_bytes,
)
from storage_node.errors import from_os
from storage_node.index import Index, Move, Row
from storage_node.store import Answer, settle

log = logging.getLogger("staddle.node")

SEGMENTS = "segments"
SEGMENT_BYTES = 128 << 20
"""A new segment is begun beyond this. Large enough that creating one (two syncs) is rare, small enough to compact one
at a time; and after an unclean stop at most so much is read again."""

ALLOCATE_BYTES = 16 << 20
"""A segment's space is allocated in such steps ahead of its end, so that it lies together. Sealing gives the rest back."""

AHEAD_BATCH_BYTES_MAX = 512 << 10
"""Behind batches up to this size zeros are written ahead (Disk.write_ahead): every byte is written twice then, which is
nothing beside the flush that it saves. Of larger batches the bytes are what takes the time."""

BATCH_BYTES_MAX = 8 << 20
"""Of one sync: bounds how long the first put of a batch waits for the last one's bytes."""

BATCH_RECORDS_MAX = (IOV_MAX - 1) // 3
"""Three buffers a record in one writev."""

QUEUE_BYTES_MAX = 64 << 20
"""Bodies waiting for the disk (promise 8). A put beyond is refused, and its gateway tells the client to slow down."""

_PAD = bytes(8)


class Record(NamedTuple):
    """A chunk to be appended. `due` as in the index; `origin` is the segment and place that it moves away from."""

    digest: Digest
    generation: bytes
    data: Buffer
    table: bytes
    due: int
    origin: tuple[int, int] | None = None


QUEUE_S_MAX = 2.0
"""A put that would stand behind one that has waited for so long is refused: however slow the disk is, who gets in is
answered within seconds."""


GATHER_SHARE, GATHER_S_MAX = 0.5, 0.01
"""Who has been answered soon comes with the next put, and a sync costs the same for one as for all: before a sync the writer
waits for as many as came before, at most this part of what a sync takes, and never longer than this. (A commit delay, as
databases call it.)"""

GATHER_SYNC_S_MIN = 0.001
"""Where a sync takes less there is nothing to win."""

GATHER_RECORDS_MIN = 8
"""Few writers are not waited for: what each would lose is more than all would win."""


class Waiting(NamedTuple):
    record: Record
    answer: Answer
    since: float


class SegmentStatistics:
    """Counted since the start; read without a lock, so slightly out of step with each other."""

    __slots__ = ("byte_count", "failures", "last_sync_s", "longest_sync_s", "moves", "puts", "sync_s", "syncs")

    def __init__(self) -> None:
        self.puts = self.byte_count = self.moves = self.syncs = self.failures = 0
        self.sync_s = self.last_sync_s = self.longest_sync_s = 0.0


def segment_path(folder: str, number: int) -> str:
    return f"{folder}/{SEGMENTS}/{number:010x}.seg"


class Segments:
    """The writer. `put` from one event loop; the rest happens in its thread."""

    def __init__(self, folder: str, disk: Disk, index: Index, incarnation: bytes, segment_bytes: int = SEGMENT_BYTES,
                 on_failure: Callable[[OSError | ClusterError], None] = lambda error: None) -> None:
        """`on_failure` is told in the writer's thread that a batch could not be written."""
        self._folder, self._disk, self._index, self._incarnation = folder, disk, index, incarnation
        self._segment_bytes, self._on_failure = segment_bytes, on_failure
        self._lock = threading.Lock()                 # that of `_wake`, taken without a call in Python
        self._wake = threading.Condition(self._lock)
        self._queue: list[Waiting] = []
        self._queued_bytes = 0
        self._wanted = 1                              # the writer is woken when so many are queued
        self._batch_sizes = (0, 0)                    # records in the last two batches
        self._stopping = self._in_trouble = False
        self._fd = -1
        self._number = 0
        self._home = b""
        self._end = self._allocated = self._zeros_end = 0
        self._next_number = index.next_segment()
        self._unsealed: dict[int, int] = {}           # segments that a failing disk did not let us seal, and their ends
        self._to_seal: list[tuple[int, asyncio.Future[None]]] = []
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.statistics = SegmentStatistics()

    @property
    def current(self) -> tuple[int, int]:
        """Number and end of the segment being written; (0, 0) when there is none."""
        return self._number, self._end

    def skip_to(self, number: int) -> None:
        """Numbers below have been used, whether or not the index knows."""
        self._next_number = max(self._next_number, number)

    @property
    def allocated_ahead(self) -> int:
        """Bytes that the segment being written takes on the disk beyond its end: at most ALLOCATE_BYTES."""
        return max(0, self._allocated - self._end) if self._number else 0

    def seal(self, number: int) -> "asyncio.Future[None]":
        """Leave this segment before the next batch, if it is the one being written: so that it can be compacted."""
        assert self._loop is not None
        left: asyncio.Future[None] = self._loop.create_future()
        with self._wake:
            self._to_seal.append((number, left))
            self._wake.notify()
        return left

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="segments", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Write what is queued, then seal the segment: an open one is the sign of an unclean stop."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
            self._thread = None
        with self._wake:
            left, self._queue = self._queue, []
        _answer(left, Unavailable("the node is stopping"))

    def put(self, record: Record) -> "asyncio.Future[None]":
        """As `add`, to be awaited."""
        assert self._loop is not None
        stored: asyncio.Future[None] = self._loop.create_future()
        try:
            self.add(record, partial(settle, stored))
        except ClusterError as error:
            stored.set_exception(error)
        return stored

    def add(self, record: Record, answer: Answer) -> None:
        """The record's data must not change until the answer, which comes once it is durable and in the index. NoSpace,
        Unavailable. Raises Unavailable, Busy: then no answer comes."""
        now = time.monotonic()
        with self._lock:
            if self._stopping:
                raise Unavailable("the node is stopping")
            queue = self._queue
            if self._queued_bytes > QUEUE_BYTES_MAX or (queue and now - queue[0].since > QUEUE_S_MAX):
                raise Busy("the disk can't keep up")
            queue.append(Waiting(record, answer, now))
            self._queued_bytes += len(record.data)
            if len(queue) == self._wanted:
                self._wake.notify()

    # The thread

    def _run(self) -> None:
        try:
            self._write_batches()
        except Exception:
            # A mistake of ours, and who waits would wait for ever. A dead process is started again and recovers.
            log.critical("the segment writer has failed", exc_info=True)
            os._exit(70)

    def _write_batches(self) -> None:
        while (batch := self._take()) is not None:
            if not batch:
                self._seal_as_told()
                continue
            error: ClusterError | None = None
            try:
                self.write([waiting.record for waiting in batch])
            except OSError as failure:
                self._on_failure(failure)
                error = from_os(failure, f"writing {len(batch)} chunks to segment {self._number}")
            except ClusterError as failure:
                self._on_failure(failure)             # the index could not be written
                error = failure
            if error is not None:
                self._note(error)
                self._seal()
            elif self._in_trouble:
                self._in_trouble = False
                log.warning("%s: chunks are written again", self._folder)
                self._seal_rest()
            assert self._loop is not None
            try:
                self._loop.call_soon_threadsafe(_answer, batch, error)
            except RuntimeError:                      # the loop was closed: nobody waits any more
                break
        self._seal()

    def _seal_as_told(self) -> None:
        with self._wake:
            told, self._to_seal = self._to_seal, []
        if any(number == self._number for number, _ in told):
            self._seal()
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):       # the loop was closed
            for _, left in told:
                self._loop.call_soon_threadsafe(_done, left)

    def _note(self, error: ClusterError) -> None:
        """Once: a full disk refuses a thousand puts a second."""
        self.statistics.failures += 1
        if not self._in_trouble:
            log.error("%s", error)
        self._in_trouble = True

    def _take(self) -> list[Waiting] | None:
        """The next batch; empty when the segment is to be left, None when the writer stops."""
        with self._wake:
            while not self._to_seal and not self._queue:
                if self._stopping:
                    return None
                self._wake.wait()
            self._gather()
            if self._to_seal:
                return []
            size = count = 0
            for waiting in self._queue[:BATCH_RECORDS_MAX]:
                size += len(waiting.record.data)
                if count and size > BATCH_BYTES_MAX:
                    size -= len(waiting.record.data)
                    break
                count += 1
            batch, self._queue = self._queue[:count], self._queue[count:]
            self._queued_bytes -= size
            self._batch_sizes = self._batch_sizes[1], count
            return batch

    def _gather(self) -> None:
        """Let a batch become as large as the last ones were, for a while."""
        sync_s, wanted = self.statistics.last_sync_s, max(self._batch_sizes)
        if sync_s < GATHER_SYNC_S_MIN or wanted < GATHER_RECORDS_MIN:
            return
        until = time.monotonic() + min(sync_s * GATHER_SHARE, GATHER_S_MAX)
        self._wanted = wanted
        while len(self._queue) < wanted and not self._to_seal and not self._stopping:
            if (left := until - time.monotonic()) <= 0:
                break
            self._wake.wait(left)
        self._wanted = 1

    def write(self, batch: list[Record]) -> None:
        """Append at most BATCH_RECORDS_MAX records and sync them. The thread's own step; recovery uses it before
        `start`.

        Raises OSError, NoSpace, Unavailable."""
        if self._fd < 0 or self._end >= self._segment_bytes:
            self._seal()
            self._open()
        buffers: list[Buffer] = []
        rows, moves = [], []
        place, number, home = self._end, self._number, self._home
        for digest, generation, data, table, due, origin in batch:
            size = len(data)
            buffers.append(encode_header(digest, generation, size, table, home, place))
            buffers.append(data)
            buffers.append(table + _PAD[:-(HEADER_BYTES + size + len(table)) % 8])
            row = Row(digest, generation, size, number, place, due)
            if origin is None:
                rows.append(row)
            else:
                moves.append(Move(row, *origin))
            place += record_bytes(size)
        if place > self._allocated:
            self._allocate(place)
        self._disk.writev(self._fd, buffers, "segment.write")
        if place > self._zeros_end and place - self._end <= AHEAD_BATCH_BYTES_MAX:
            self._zeros_end = self._disk.write_ahead(self._fd, place, self._allocated, "segment.ahead")
        started = time.perf_counter()
        self._disk.fdatasync(self._fd, "segment.fdatasync")
        took = time.perf_counter() - started
        # The bytes are durable from here on, the end moves even if the index then fails: nothing is ever overwritten.
        self._end = place
        self._index.add(rows, number, place, moves)
        figures = self.statistics
        figures.puts += len(rows)
        figures.moves += len(moves)
        figures.byte_count += sum(row.size for row in rows)
        figures.syncs += 1
        figures.sync_s += took
        figures.last_sync_s = took
        figures.longest_sync_s = max(figures.longest_sync_s, took)

    def _allocate(self, end: int) -> None:
        """Space for writes up to `end` and some more; a mere help, so a disk that can't or won't is not an error."""
        self._disk.step("segment.allocate", segment_path(self._folder, self._number))
        size = max(end, min(self._allocated + ALLOCATE_BYTES, self._segment_bytes)) - self._allocated
        with contextlib.suppress(OSError):
            os.posix_fallocate(self._fd, self._allocated, size)
            self._allocated += size

    def _open(self) -> None:
        """A new segment: its header synced, its name synced, then its row."""
        number, home = self._next_number, secrets.token_bytes(8)
        self._next_number += 1                       # never used twice, also when this fails half-way
        path = segment_path(self._folder, number)
        fd = self._disk.open(path, CREATE)
        try:
            self._disk.write(fd, encode_segment_header(home, self._incarnation, number), "segment.header")
            self._disk.fdatasync(fd, "segment.header_fdatasync")
            self._disk.fsync_dir(os.path.dirname(path), "segment.fsync_dir")
            self._index.open_segment(number, home)
        except (OSError, ClusterError):
            self._disk.close(fd)
            with contextlib.suppress(OSError):        # a full disk would collect one for each attempt
                self._disk.unlink(path, "segment.discard")
            raise
        self._fd, self._number, self._home = fd, number, home
        self._end = self._allocated = self._zeros_end = SEGMENT_HEADER_BYTES

    def _seal(self) -> None:
        """Cut the segment at its last good end and leave it for good. After an error nothing half-written may ever be
        taken for a chunk; otherwise what was allocated ahead is given back."""
        if self._fd < 0:
            return
        fd, number, end = self._fd, self._number, self._end
        self._fd, self._number, self._end = -1, 0, 0
        self._cut(fd, number, end)

    def _seal_rest(self) -> None:
        """The disk has recovered: seal what it did not let us seal, or its space would not come back before a restart."""
        unsealed, self._unsealed = self._unsealed, {}
        for number, end in unsealed.items():
            try:
                fd = self._disk.open(segment_path(self._folder, number), os.O_RDWR | os.O_CLOEXEC)
            except OSError as error:
                self._unsealed[number] = end
                log.warning("segment %d could not be sealed: %s", number, error)
            else:
                self._cut(fd, number, end)

    def _cut(self, fd: int, number: int, end: int) -> None:
        """Closes `fd`. While it isn't sealed, a start reads its tail once more."""
        try:
            try:
                self._disk.truncate(fd, end, "segment.truncate")
            finally:
                self._disk.close(fd)
            if self._index.seal_segment(number):
                remove_segment(self._disk, self._index, self._folder, number)
        except (OSError, ClusterError) as error:
            self._unsealed[number] = end
            log.warning("segment %d could not be sealed at %d: %s", number, end, error)


def _answer(batch: list[Waiting], error: ClusterError | None) -> None:
    for waiting in batch:
        try:
            waiting.answer(error)
        except Exception:                             # the others wait too
            log.exception("an answer could not be given")


def _done(answer: "asyncio.Future[None]") -> None:
    if not answer.done():
        answer.set_result(None)


def remove_segment(disk: Disk, index: Index, folder: str, number: int) -> None:
    """Give back a sealed segment in which nothing lives. Its name is gone for good before its row goes: a file that came
    back without a row would be read as if the index had lost it."""
    if left := index.recount(number):
        log.error("segment %d was counted dead, but %d chunks live in it", number, left)
        return
    unlink_segment(disk, index, folder, number)


def unlink_segment(disk: Disk, index: Index, folder: str, number: int) -> None:
    """The caller has made sure that nothing lives in it. Raises OSError, NoSpace, Unavailable."""
    try:
        disk.unlink(segment_path(folder, number), "segment.unlink")
    except FileNotFoundError:
        log.debug("segment %d was gone already", number)
    disk.fsync_dir(f"{folder}/{SEGMENTS}", "segment.unlink_fsync_dir")
    index.drop_segment(number)


