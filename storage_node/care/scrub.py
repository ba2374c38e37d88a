"""The scrub: every copy is read from the disk, whole, and compared with its name. Gently, again and again.

A pass goes through the segments in order of their numbers, record by record as they lie on the disk (so the disk reads
on and on, and no record twice), then through the large chunks in order of their digests. Segments begun after the pass
are not part of it: what is written is verified when it comes, and compaction verifies what it moves.

* Gentle: at most so many bytes a second, one thread of the lowest priority, and it gives way while clients are served.
  `full_speed` lifts all three.
* Resumable: where it is lies in the file `scrub.json` of the chunks folder, so a restart goes on from there.
* Damage is noted in the index, and the settler is told; mend.py does the rest. Bytes that can't be read are trouble with
  the disk and no damage: they are counted, and after several in a row the pass waits, since a disk that is gone says
  nothing about its copies.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, ParamSpec, TypeVar

import msgspec

from consensus import soundness
from consensus.core import tasks
from consensus.core.clock import Clock
from consensus.core.codec import UNDECODABLE
from consensus.core.errors import ClusterError, Unavailable
from consensus.core.ids import Generation
from consensus.disk import replace_file
from storage_node.care.examine import examination, header_is_good
from storage_node.care.mend import TROUBLES_IN_A_ROW_MAX
from storage_node.chunk import SEGMENT_HEADER_BYTES, record_bytes
from storage_node.disk_store import DiskStore
from storage_node.errors import NotHere, from_os
from storage_node.index import Copy, Index, SegmentRow
from storage_node.local import OpenFile
from storage_node.scan import Gap, records
from storage_node.segments import segment_path

log = logging.getLogger("staddle.node")

P = ParamSpec("P")
T = TypeVar("T")

STATE_NAME = "scrub.json"

PART_BYTES = 1 << 20
"""Of a segment, read in one go by the thread; then the limit is looked at."""

PART_RECORDS = 256

FILES_PAGE = 100

SAVE_S = 10.0
"""How often the place is written down: a restart repeats at most so much."""

GIVE_WAY_S = 1.0
"""At most so long a piece waits for clients: a node that is never idle is scrubbed too, at 1 MiB a second."""

BUSY_LOOK_S = 0.05

LOOK_S = 60.0
"""How often an idle scrub looks whether its time has come: clocks jump."""

TROUBLE_WAIT_S = 600.0
"""How long a pass waits when the disk can't be read."""


class ScrubStatus(msgspec.Struct, frozen=True, kw_only=True):
    """`state`: off | idle | running | trouble. Counts are of the pass under way, or of the last one. Times are ms since
    1970, 0 for never. `index_findings`: what SQLite says about the node's own index; empty is good."""

    state: str
    passes: int = 0
    started_ms: int = 0
    finished_ms: int = 0
    next_ms: int = 0
    chunks: int = 0
    bytes: int = 0
    total_bytes: int = 0
    damaged: int = 0
    errors: int = 0
    bytes_per_second: float = 0.0
    full_speed: bool = False
    cursor: str = ""
    trouble: str = ""
    index_findings: tuple[str, ...] = ()


class _Pass(msgspec.Struct, kw_only=True):
    """What is written down. `segment` and `place`: where the next record is; `after`: the last large chunk that was
    read, in hex."""

    version: int = 1
    running: bool = False
    passes: int = 0
    first_ms: int = 0
    started_ms: int = 0
    finished_ms: int = 0
    stopped_ms: int = 0
    seconds: float = 0.0
    segment: int = 0
    place: int = 0
    last_segment: int = 0
    after: tuple[str, str] | None = None
    chunks: int = 0
    bytes: int = 0
    total_bytes: int = 0
    damaged: int = 0
    errors: int = 0
    index_findings: tuple[str, ...] = ()


class _Part(NamedTuple):
    """What one go through a piece of a segment has found. `place`: where the next record is; `live`: records that count."""

    place: int
    live: int
    bytes: int
    bad: list[tuple[Copy, str]]
    gap: bool
    done: bool


class Scrub:
    """The scrub of one node. `busy`: whether clients are being served; `on_damage`: somebody is to look at it."""

    def __init__(self, store: DiskStore, clock: Clock, *, bytes_per_second: int, interval_s: float,
                 busy: Callable[[], bool], on_damage: Callable[[], None]) -> None:
        self._store, self._clock = store, clock
        self._rate, self._interval_s = bytes_per_second, interval_s
        self._busy, self._on_damage = busy, on_damage
        self._pass = _Pass()
        self._full_speed = False
        self._trouble = ""
        self._troubles = 0
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._quick: ThreadPoolExecutor | None = None
        self._allowed_at = self._saved_at = self._since = 0.0
        self._began_bytes = 0

    # Life

    def start(self) -> None:
        self._pass = self._load()
        self._thread = ThreadPoolExecutor(1, "scrub", initializer=soundness.lowest_priority)
        self._quick = ThreadPoolExecutor(1, "scrub-quick")     # nobody may raise a thread's priority again
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        await tasks.end(self._task)
        self._task = None
        if self._thread is not None:
            if self._pass.running:
                with contextlib.suppress(ClusterError, OSError):
                    await self._in_thread(self._save)
            self._thread.shutdown()
            self._thread = None
        if self._quick is not None:
            self._quick.shutdown()
            self._quick = None

    def begin(self, *, full_speed: bool = False, anew: bool = False) -> None:
        """A pass now; or, if one is under way, that one goes on (`anew`: from the start), at this speed."""
        self._full_speed = full_speed
        if anew or not self._pass.running:
            self._reset()
        self._wake.set()

    def halt(self) -> None:
        """Leave the pass. The next one, after the usual time, begins at the start."""
        self._pass.running = False
        self._pass.stopped_ms = self._clock.now_ms()
        self._wake.set()

    def _reset(self) -> None:
        old = self._pass
        self._pass = _Pass(running=True, passes=old.passes, first_ms=old.first_ms, finished_ms=old.finished_ms,
                           started_ms=self._clock.now_ms())
        self._began_bytes = 0

    @property
    def status(self) -> ScrubStatus:
        now = self._pass
        state = "trouble" if self._trouble else "running" if now.running else "idle" if self._interval_s else "off"
        if now.running and self._since:
            took, done = asyncio.get_running_loop().time() - self._since, now.bytes - self._began_bytes
        else:
            took, done = now.seconds, now.bytes
        cursor = ""
        if now.running:
            cursor = f"chunk {now.after[0]}" if now.after else f"segment {now.segment}, place {now.place}"
        return ScrubStatus(
            state=state, passes=now.passes, started_ms=now.started_ms, finished_ms=now.finished_ms,
            next_ms=self._next_ms() if self._interval_s and not now.running else 0, chunks=now.chunks, bytes=now.bytes,
            total_bytes=now.total_bytes, damaged=now.damaged, errors=now.errors,
            bytes_per_second=done / took if took > 0 else 0.0, full_speed=self._full_speed, cursor=cursor,
            trouble=self._trouble, index_findings=now.index_findings)

    def _next_ms(self) -> int:
        now = self._pass
        return max(now.finished_ms or now.first_ms, now.stopped_ms) + int(self._interval_s * 1000)

    # The place

    def _load(self) -> _Pass:
        path = f"{self._store.folder}/{STATE_NAME}"
        with contextlib.suppress(OSError, *UNDECODABLE):
            with open(path, "rb") as file:
                found = _state.decode(file.read())
            if found.version == 1:
                return found
        return _Pass(first_ms=self._clock.now_ms())

    def _save(self) -> None:
        replace_file(self._store.disk, f"{self._store.folder}/{STATE_NAME}", msgspec.json.encode(self._pass), "scrub.state")

    async def _written_down(self) -> None:
        self._saved_at = asyncio.get_running_loop().time()
        try:
            await self._in_thread(self._save)
        except OSError as error:                      # a full disk: a restart repeats more then
            log.info("the scrub's place could not be written down: %s", error)

    # The loop

    async def _run(self) -> None:
        while True:
            try:
                if not self._pass.running and self._interval_s and self._clock.now_ms() >= self._next_ms():
                    self._reset()
                if self._pass.running:
                    await self._one_pass()
                    continue
                await self._wait(LOOK_S)
            except ClusterError as error:
                self._trouble = str(error)
                log.warning("the scrub waits: %s", error)
                await self._wait(TROUBLE_WAIT_S)
            except Exception:
                log.exception("the scrub has failed; it will be tried again")
                await self._wait(TROUBLE_WAIT_S)

    async def _wait(self, seconds: float) -> None:
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    async def _one_pass(self) -> None:
        loop, now = asyncio.get_running_loop(), self._pass
        self._since, self._began_bytes = loop.time(), now.bytes
        self._allowed_at = self._saved_at = self._since
        self._trouble, self._troubles = "", 0
        if not now.last_segment:
            await self._begin(now)
        for row in await self._in_thread(self._index.segments):
            if now.segment <= row.number <= now.last_segment and now.after is None:
                await self._segment(now, row)
                if self._left(now):
                    return
                now.segment, now.place = row.number + 1, 0
        if await self._files(now):
            now.running = False
            now.passes += 1
            now.finished_ms = self._clock.now_ms()
            now.seconds = loop.time() - self._since
            await self._written_down()
            log.info("scrub finished: %d chunks, %d bytes, %d damaged, %d could not be read", now.chunks, now.bytes,
                     now.damaged, now.errors)

    async def _begin(self, now: _Pass) -> None:
        rows = await self._in_thread(self._index.segments)
        now.last_segment = max([1, *(row.number for row in rows)])
        now.total_bytes = (await self._in_thread(self._index.totals)).byte_count
        now.index_findings = await self._in_thread(soundness.findings, self._index.path)
        for finding in now.index_findings:
            log.error("%s: %s. Moved away while the node is stopped, it is built again from the disk", self._index.path,
                      finding)
        await self._written_down()

    def _left(self, now: _Pass) -> bool:
        """Somebody has stopped this pass or begun another."""
        return now is not self._pass or not now.running

    @property
    def _index(self) -> Index:
        return self._store.index

    async def _segment(self, now: _Pass, row: SegmentRow) -> None:
        start = now.place or SEGMENT_HEADER_BYTES
        whole, live = start == SEGMENT_HEADER_BYTES, 0
        now.segment, now.place = row.number, start
        try:
            opened = await self._in_thread(_open, segment_path(self._store.folder, row.number))
            while now.place < row.used:
                part = await self._in_thread(scan_part, self._store.folder, self._index, row, opened, now.place)
                live += part.live
                whole = whole and not part.gap
                now.chunks += part.live
                now.bytes += part.bytes
                now.place = part.place
                for copy, reason in part.bad:
                    await self._found(now, copy, reason)
                self._troubles = 0
                await self._pace(part.bytes)
                if self._left(now):
                    return
                if part.done:
                    break
        except NotHere:                               # lost; or it was compacted, then nothing is in it any more
            await self._one_by_one(now, row, 0)
            return
        except Unavailable as error:
            self._count_trouble(now, error)
            await self._one_by_one(now, row, now.place)
            return
        expected = next((min(row.live, fresh.live) for fresh in await self._in_thread(self._index.segments)
                         if fresh.number == row.number), 0)
        if not whole or live < expected:
            await self._one_by_one(now, row, row.used)

    async def _one_by_one(self, now: _Pass, row: SegmentRow, place: int) -> None:
        """Of a segment through which one can't read: every copy from `place` on whole, and of those before it, the ones
        whose header isn't there (the others have been read)."""
        copies = await self._in_thread(self._index.copies_in, row.number)
        for copy in await self._in_thread(_unread, self._store.folder, copies, place):
            if self._left(now):
                return
            try:
                await self._examined(now, copy)
            except ClusterError as error:
                self._count_trouble(now, error)

    async def _files(self, now: _Pass) -> bool:
        """True at the end."""
        while True:
            after = None if now.after is None else (bytes.fromhex(now.after[0]), bytes.fromhex(now.after[1]))
            page = await self._in_thread(self._index.files_after, after, FILES_PAGE)
            for copy in page:
                try:
                    await self._examined(now, copy)
                except ClusterError as error:
                    self._count_trouble(now, error)
                if self._left(now):
                    return False
                now.after = copy.digest.hex(), copy.generation.hex()
            if len(page) < FILES_PAGE:
                return True

    async def _examined(self, now: _Pass, copy: Copy) -> None:
        steps = examination(self._store.folder, copy, from_disk=True)
        while True:
            count, end = await self._in_thread(_next, steps)
            if end is not None:
                break
            now.bytes += count
            await self._pace(count)
            if self._left(now):
                return
        now.chunks += 1
        if end.reason is not None:
            await self._found(now, copy, end.reason)
        self._troubles = 0

    async def _found(self, now: _Pass, copy: Copy, reason: str) -> None:
        """Damage, unless the copy has been moved or removed while it was read, or the whole disk has gone."""
        try:
            await self._store.check()
        except Unavailable as error:
            raise _DiskGone(str(error)) from error
        fresh = await self._store.find(copy.digest, Generation.unpack(copy.generation))
        if fresh is None or fresh[:5] != copy[:5]:
            return
        now.damaged += 1
        log.error("scrub: %s", reason)
        await self._store.note_damage(copy.digest, copy.generation, f"scrub: {reason}")
        self._on_damage()

    def _count_trouble(self, now: _Pass, error: ClusterError) -> None:
        if isinstance(error, _DiskGone):
            raise error
        now.errors += 1
        self._troubles += 1
        log.warning("scrub: %s", error)
        if self._troubles >= TROUBLES_IN_A_ROW_MAX:
            raise Unavailable(f"the disk can't be read: {error}") from error

    # Gently

    async def _pace(self, count: int) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() - self._saved_at > SAVE_S:
            await self._written_down()
        if self._full_speed or not self._rate:
            await asyncio.sleep(0)
            return
        self._allowed_at = max(self._allowed_at, loop.time()) + count / self._rate
        await asyncio.sleep(max(0.0, self._allowed_at - loop.time()))
        for _ in range(int(GIVE_WAY_S / BUSY_LOOK_S)):
            if self._full_speed or not self._busy():
                break
            await asyncio.sleep(BUSY_LOOK_S)

    async def _in_thread(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        assert not named
        thread = self._quick if self._full_speed else self._thread
        return await asyncio.get_running_loop().run_in_executor(thread, function, *arguments)


class _DiskGone(Unavailable):
    """What is missing says nothing: the whole folder can't be read, or is another one."""


class _End(NamedTuple):
    reason: str | None


def _next(steps: Generator[int, None, str | None]) -> tuple[int, _End | None]:
    try:
        return next(steps), None
    except StopIteration as end:
        return 0, _End(end.value)


def scan_part(folder: str, index: Index, row: SegmentRow, opened: OpenFile, place: int) -> _Part:
    """Examine the records of a segment from `place` on, about PART_BYTES of them. Raises Unavailable, NoSpace."""
    live = count = seen = 0
    bad: list[tuple[Copy, str]] = []
    gap = False
    fd, start = opened.fd, place
    _drop_cached(fd, start, 2 * PART_BYTES)
    try:
        for item in records(fd, row.home, place):
            if isinstance(item, Gap):
                gap = True
                place = min(item.end, row.used)
            elif item.place >= row.used:
                break
            else:
                header = item.header
                copy = index.find(header.digest, header.generation.pack())
                if copy is not None and (copy.segment, copy.place) == (row.number, item.place):
                    live += 1
                    reason = _whole(folder, copy, opened)
                    if reason is not None:
                        bad.append((copy, reason))
                place = item.place + record_bytes(header.size)
                count += header.size
                seen += 1
            if place - start >= PART_BYTES or seen >= PART_RECORDS:
                return _Part(place, live, count, bad, gap, False)
    except OSError as error:
        raise from_os(error, f"reading segment {row.number}") from error
    finally:
        _drop_cached(fd, start, place - start)
    return _Part(place, live, count, bad, gap, True)


def _whole(folder: str, copy: Copy, opened: OpenFile) -> str | None:
    steps = examination(folder, copy, opened)
    while True:
        _, end = _next(steps)
        if end is not None:
            return end.reason


def _unread(folder: str, copies: list[Copy], place: int) -> list[Copy]:
    """Of copies in one segment those from `place` on, and those before it whose header isn't there."""
    unread: list[Copy] = []
    opened: OpenFile | None = None
    for copy in copies:
        try:
            if copy.place < place:
                opened = opened or _open(segment_path(folder, copy.segment))
                if header_is_good(opened, copy):
                    continue
        except (OSError, ClusterError):
            pass                                      # reading all of it will say what is wrong
        unread.append(copy)
    return unread


def _open(path: str) -> OpenFile:
    """Raises NotHere, Unavailable."""
    try:
        return OpenFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except FileNotFoundError as error:
        raise NotHere(f"{path} is gone") from error
    except OSError as error:
        raise from_os(error, f"opening {path}") from error


def _drop_cached(fd: int, start: int, length: int) -> None:
    """So that the disk is asked, and what clients read stays in memory."""
    with contextlib.suppress(OSError):
        os.posix_fadvise(fd, start, length, os.POSIX_FADV_DONTNEED)


_state = msgspec.json.Decoder(_Pass)


