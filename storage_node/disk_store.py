"""The chunk store on a disk: one data folder, put together from segments, files, index and reader.

One process at a time has the folder (flock). Starting makes what is missing, recovers what a crash left behind, and
opens the writers; stopping leaves a mark that spares the next start the recovery.
"""

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import secrets
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from consensus.core.clock import Clock, SteadyClock
from consensus.core.errors import Corrupt, NoSpace, Refused, Unavailable
from consensus.core.ids import Digest, Generation
from consensus.disk import Disk, make_folder, replace_file
from storage_node.care.compaction import DEAD_PERCENT, Compactor
from storage_node.care.examine import examine
from storage_node.care.quarantine import Quarantine
from storage_node.chunk import SMALL_BYTES_MAX, block_table, file_name
from storage_node.disk_health import DiskHealth
from storage_node.errors import NotHere
from storage_node.files import INCOMING, Files, IncomingFile
from storage_node.index import INDEX_NAME, Copy, Index
from storage_node.local import PIECE_BYTES, LocalReader
from storage_node.recovery import Recovered, recover
from storage_node.segments import SEGMENT_BYTES, SEGMENTS, Record, Segments, remove_segment
from storage_node.store import Answer, CompactionState, DiskState, StoreStatistics, settle

log = logging.getLogger("staddle.node")

P = ParamSpec("P")
T = TypeVar("T")

RESERVE_BYTES = 64 << 20
"""Kept free by refusing new chunks, so that deletions, the index and the metadata's journal can go on on a full
disk."""

GRACE_MS_MAX = 7 * 86_400_000
"""The longest that a copy may be kept for readers (gateway/config.py)."""

WORKERS = 8
"""Threads for streams and reads: they wait for the disk, hardly for the processor."""


class _Incoming:
    """IncomingFile with the store's clock, and the room that is kept for it."""

    def __init__(self, store: "DiskStore", file: IncomingFile, room: int) -> None:
        self._store, self._file, self._room = store, file, room
        store.promised_bytes += room

    def __del__(self) -> None:
        self._let_go(self._room)

    def _let_go(self, count: int) -> None:
        count = min(count, self._room)
        self._room -= count
        self._store.promised_bytes -= count

    @property
    def size(self) -> int:
        return self._file.size

    async def write(self, blocks: list[bytes]) -> None:
        try:
            self._store.health.check()
        except (NoSpace, Unavailable):
            await self._file.abort()
            raise
        self._let_go(sum(map(len, blocks)))           # from here on the disk says how much is taken
        await self._file.write(blocks)

    async def finish(self, digest: Digest, table: bytes | None) -> None:
        self._let_go(self._room)
        await self._file.finish(digest, table, self._store.clock.now_ms())

    async def abort(self) -> None:
        self._let_go(self._room)
        await self._file.abort()


class DiskStore:
    """ChunkStore in `folder` (the `chunks` folder of a data folder, made if it isn't there)."""

    def __init__(self, folder: str, *, disk: Disk | None = None, clock: Clock | None = None,
                 segment_bytes: int = SEGMENT_BYTES, reserve_bytes: int = RESERVE_BYTES,
                 compact_dead_percent: int = DEAD_PERCENT) -> None:
        self.folder = os.path.abspath(folder)
        self.disk, self.clock = disk or Disk(), clock or SteadyClock()
        self._segment_bytes, self._reserve_bytes = segment_bytes, reserve_bytes
        self._compact_dead_percent = compact_dead_percent
        self.quarantine = Quarantine(self.folder, self.disk)
        self.incarnation = b""
        self.promised_bytes = 0                       # of large chunks under way, as far as they aren't written yet
        self.recovered = Recovered(0, 0, 0)
        self._lock = -1
        self._unlinked: set[str] = set()              # folders from which names have gone, maybe not yet durably

    # Life

    async def start(self) -> None:
        """Raises Refused (another process has the folder, or it has lost its incarnation), OSError, NoSpace,
        Unavailable."""
        self._workers = ThreadPoolExecutor(WORKERS, "chunks")
        try:
            await self._run(self._open)
        except BaseException:
            self._workers.shutdown(wait=False)
            self._release()
            raise
        self._reader = LocalReader(self.folder)
        self.health.start()
        self._segments.start()
        self._files.start()
        self.compactor = Compactor(self.folder, self.disk, self._index, self._segments, self._workers, self.clock,
                                   dead_percent=self._compact_dead_percent, segment_bytes=self._segment_bytes,
                                   reserve_bytes=self._reserve_bytes, verify=self.verify,
                                   takes_writes=lambda: self.disk_state.reason in ("", "full"))
        self.compactor.start()

    def _open(self) -> None:
        folder, disk = self.folder, self.disk
        os.makedirs(os.path.dirname(folder), exist_ok=True)
        make_folder(disk, folder, "store.mkdir")
        self._take_lock()
        self.incarnation = self._read_incarnation()
        self._make_folders()
        self._index = self._open_index()
        try:
            self.health = DiskHealth(folder, disk, self.clock, self._reserve_bytes, self._index.make_durable)
            self._segments = Segments(folder, disk, self._index, self.incarnation, self._segment_bytes,
                                      self.health.failed)
            self._files = Files(folder, disk, self._index, self._workers, self.health.failed)
            if not self._index.clean:                 # an earlier life has unlinked, and nobody knows where
                self._unlinked.update(f"{folder}/{byte:02x}" for byte in range(256))
            self.recovered = recover(folder, disk, self._index, self._segments)
            now = self.clock.now_ms()
            self._index.bring_forward(now, now + GRACE_MS_MAX)
        except BaseException:
            self._index.close()
            raise

    def _take_lock(self) -> None:
        self._lock = os.open(f"{self.folder}/lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(f"{self.folder} is in use by another process") from None

    def _release(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _read_incarnation(self) -> bytes:
        path = f"{self.folder}/incarnation"
        try:
            with open(path, "rb") as file:
                incarnation = bytes.fromhex(file.read().decode("ascii").strip())
            if len(incarnation) == 16:
                return incarnation
        except FileNotFoundError:
            # Made before anything else, so chunks without it mean that somebody took it away. A new one would be a lie:
            # the cluster would forget every copy that is here.
            if not os.path.exists(f"{self.folder}/{INDEX_NAME}") and not os.path.isdir(f"{self.folder}/{SEGMENTS}"):
                incarnation = secrets.token_bytes(16)
                replace_file(self.disk, path, incarnation.hex().encode() + b"\n", "store.incarnation")
                return incarnation
        except ValueError:
            pass
        raise Refused(f"{path} is missing or damaged, but the folder holds chunks: write it anew as the "
                      "cluster's list of nodes shows it")

    def _make_folders(self) -> None:
        made = False
        for name in (*(f"{byte:02x}" for byte in range(256)), INCOMING, SEGMENTS):
            try:
                self.disk.mkdir(f"{self.folder}/{name}", "store.mkdir")
                made = True
            except FileExistsError:
                continue
        if made:
            self.disk.fsync_dir(self.folder, "store.fsync_dir")

    def _open_index(self) -> Index:
        try:
            return Index(self.folder, self.disk)
        except Corrupt as error:
            aside = f"{self.folder}/{INDEX_NAME}.damaged-{self.clock.now_ms()}"
            log.error("%s; it is kept as %s and built again from the disk", error, aside)
            for end in ("-wal", "-shm", ""):
                if os.path.exists(f"{self.folder}/{INDEX_NAME}{end}"):
                    self.disk.rename(f"{self.folder}/{INDEX_NAME}{end}", aside + end, "store.index_aside")
            return Index(self.folder, self.disk)

    async def stop(self) -> None:
        await self.compactor.stop()
        await self._segments.stop()
        await self._files.stop()
        await self.health.stop()
        self._reader.close()
        await self._run(self._close)
        self._workers.shutdown()
        self._release()

    def _close(self) -> None:
        """The next start believes the mark and looks for no files that the index doesn't have. So names that are gone
        must not come back with a power cut."""
        try:
            for folder in sorted(self._unlinked):
                self.disk.fsync_dir(folder, "store.unlink_fsync_dir")
            self._index.set_clean(True)
        except (OSError, NoSpace, Unavailable):
            log.warning("%s: no mark of a clean stop, the next start will recover", self.folder, exc_info=True)
        self._index.close()

    async def _run(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        assert not named
        return await asyncio.get_running_loop().run_in_executor(self._workers, function, *arguments)

    # Writing

    def put(self, digest: Digest, generation: Generation, data: bytes, table: bytes) -> "asyncio.Future[None]":
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.put_then(digest, generation.pack(), data, table, partial(settle, stored))
        return stored

    def put_then(self, digest: Digest, generation: bytes, data: bytes, table: bytes, answer: Answer) -> None:
        assert 0 < len(data) <= SMALL_BYTES_MAX
        try:
            self.health.check()
            if table != block_table(data):
                raise Corrupt(f"chunk {digest.hex()} was changed on its way")
            self._segments.add(Record(digest, generation, data, table, self.clock.now_ms()), answer)
        except (Corrupt, NoSpace, Unavailable) as error:
            answer(error)

    async def create(self, generation: Generation, room: int = 0) -> _Incoming:
        self.health.check()
        self.health.check_room(self.promised_bytes + room)
        return _Incoming(self, await self._files.create(generation.pack()), room)

    # Reading

    async def read(self, digest: Digest, generation: Generation, start: int, length: int) -> bytes:
        packed = generation.pack()
        try:
            data = self._reader.read_now(digest, packed, start, length)
            if data is not None and len(data) == length:
                return data
            located = self._reader.locate(digest, packed)
            if not 0 <= start < start + length <= located.size or length > PIECE_BYTES:
                raise ValueError(f"chunk {digest.hex()} has {located.size} bytes, not {start} + {length}")
            return await self._reader.read(located, start, length, self._workers)
        except (Corrupt, NotHere) as error:
            if isinstance(error, Corrupt):
                await self._remember(digest, packed, str(error))
            for other in self._reader.others(digest, packed):
                with contextlib.suppress(Corrupt, NotHere):
                    if start + length <= other.size:
                        return await self._reader.read(other, start, length, self._workers)
            raise

    async def _remember(self, digest: Digest, generation: bytes, reason: str) -> None:
        log.error("%s", reason)
        try:
            await self._run(self._index.damaged, digest, generation, reason, self.clock.now_ms())
        except (NoSpace, Unavailable):
            log.warning("could not note the damage", exc_info=True)

    async def find(self, digest: Digest, generation: Generation) -> Copy | None:
        return await self._run(self._index.find, digest, generation.pack())

    async def find_all(self, names: Sequence[tuple[Digest, Generation]]) -> list[Copy]:
        return await self._run(self._index.find_all, [(digest, generation.pack()) for digest, generation in names])

    async def generations(self, digest: Digest) -> list[Copy]:
        return await self._run(self._index.generations, digest)

    async def inventory(self, after: tuple[bytes, bytes] | None, limit: int) -> list[Copy]:
        return await self._run(self._index.page, after, limit)

    # Keeping house

    async def due(self, now_ms: int, limit: int) -> list[Copy]:
        return await self._run(self._index.due, now_ms, limit)

    async def mark(self, marks: Iterable[tuple[Copy, int, int]]) -> None:
        await self._run(self._index.mark, [(state, due, copy.digest, copy.generation) for copy, state, due in marks])

    async def remove(self, copies: list[Copy]) -> None:
        for copy in copies:
            self._reader.forget(copy.digest, copy.generation)
        await self._run(self._remove, copies)

    def _remove(self, copies: list[Copy]) -> None:
        """Files first, then rows: a crash between leaves a row without a file, which is asked about and removed
        again."""
        gone = []
        for copy in copies:
            try:
                if not copy.segment:
                    path = f"{self.folder}/{file_name(copy.digest, copy.generation)}"
                    self._unlinked.add(os.path.dirname(path))
                    self.disk.unlink(path, "store.unlink")
            except FileNotFoundError:
                log.debug("chunk %s was gone already", copy.digest.hex())
            except OSError as error:
                log.warning("chunk %s could not be removed, it will be tried again: %s", copy.digest.hex(), error)
                self.health.failed(error)
                if error.errno == errno.EROFS:        # the others fare no better, and there may be thousands
                    break
                continue
            gone.append(copy)
        for number in self._index.remove(gone):
            remove_segment(self.disk, self._index, self.folder, number)

    async def verify(self, copy: Copy) -> bool:
        while True:
            reason = await self._run(examine, self.folder, copy)
            if reason is None:
                return True
            now = await self._run(self._index.find, copy.digest, copy.generation)
            if now is None:
                return False                          # it was removed meanwhile: no damage
            if now[:5] == copy[:5]:
                break
            copy = now                                # it has moved meanwhile
        await self.note_damage(copy.digest, copy.generation, reason)
        return False

    async def damage_of(self, copies: list[Copy]) -> set[tuple[Digest, bytes]]:
        return await self._run(self._index.damage_of, [(copy.digest, copy.generation) for copy in copies])

    async def damage(
        self, limit: int, after: tuple[bytes, bytes] | None = None
    ) -> list[tuple[Digest, bytes, str]]:
        return await self._run(self._index.damage, limit, after)

    async def note_damage(self, digest: Digest, generation: bytes, reason: str) -> None:
        self._reader.forget(digest, generation)       # what is open may be another file by now
        await self._remember(digest, generation, reason)

    async def forgive(self, names: list[tuple[Digest, bytes]]) -> None:
        await self._run(self._index.forgive, names)

    async def put_aside(self, copy: Copy, reason: str, what: str) -> None:
        self._reader.forget(copy.digest, copy.generation)
        await self._run(self.quarantine.put_aside, copy, reason, what, self.clock.now_ms())

    async def put_away(self, copy: Copy, reason: str, what: str) -> None:
        await self.put_aside(copy, reason, what)
        for number in await self._run(self._index.remove, [copy]):
            await self._run(remove_segment, self.disk, self._index, self.folder, number)

    async def unsettled(self, after: tuple[bytes, bytes] | None, limit: int) -> list[Copy]:
        return await self._run(self._index.unsettled, after, limit)

    @property
    def index(self) -> Index:
        """For whoever keeps house beside: scrub.py."""
        return self._index

    @property
    def puts(self) -> int:
        """Small chunks written since the start."""
        return self._segments.statistics.puts

    async def check(self) -> None:
        await self._run(self._check)

    def _check(self) -> None:
        try:
            with open(f"{self.folder}/incarnation", "rb") as file:
                same = bytes.fromhex(file.read().decode("ascii").strip()) == self.incarnation
            os.listdir(f"{self.folder}/{SEGMENTS}")
            os.listdir(f"{self.folder}/00")
        except (OSError, ValueError) as error:
            raise Unavailable(f"{self.folder} can't be read: {error}") from error
        if not same:
            raise Unavailable(f"{self.folder} is another disk than at the start")

    def compact(self, dead_percent: int) -> int:
        return self.compactor.ask(dead_percent)

    @property
    def compaction(self) -> CompactionState:
        return self.compactor.state

    @property
    def disk_state(self) -> DiskState:
        self.health.look()
        return self.health.state

    def capacity_bytes(self) -> int:
        disk = os.statvfs(self.folder)
        return disk.f_blocks * disk.f_frsize

    async def statistics(self) -> StoreStatistics:
        totals = await self._run(self._index.totals)
        disk = os.statvfs(self.folder)
        figures = self._segments.statistics
        self.health.look()
        state = self.health.state
        return StoreStatistics(
            capacity_bytes=disk.f_blocks * disk.f_frsize, free_bytes=disk.f_bavail * disk.f_frsize,
            chunks=totals.chunks, chunk_bytes=totals.byte_count, unsettled=totals.unsettled, damaged=totals.damaged,
            segments=totals.segments, segment_bytes=totals.segment_bytes, dead_bytes=totals.dead_bytes,
            puts=figures.puts, put_bytes=figures.byte_count, files_finished=self._files.finished, syncs=figures.syncs,
            sync_s=figures.sync_s, longest_sync_s=figures.longest_sync_s, disk_errors=state.errors,
            writable=state.writable, reason=state.reason, moves=figures.moves,
            returned_bytes=self.compactor.returned_bytes, allocated_ahead_bytes=self._segments.allocated_ahead,
        )
