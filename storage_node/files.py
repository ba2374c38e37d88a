"""Large chunks, each in a file of its own, streamed through a file in `incoming/`.

The order is the whole point: bytes and table, header, fdatasync; then the name (rename), the folder's fsync; then the
index; then the answer. Streams write and sync in worker threads, each for itself; names are given by one thread,
which takes all files that are ready at once, so that many uploads share the syncs of their folders.

Rules:
* a failed write or sync gives the file up: it is unlinked and never synced again;
* nothing in `incoming/` is ever read; it is emptied at every start;
* write-back is begun while the stream runs, so that the sync at the end is short and few pages are dirty.
"""

import asyncio
import contextlib
import ctypes
import logging
import os
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, NamedTuple, ParamSpec, TypeVar

from awscrt.checksums import crc32c

from consensus.core.errors import ClusterError, Corrupt, Unavailable
from consensus.core.ids import Digest
from consensus.disk import Disk
from storage_node.chunk import (
    BLOCK_BYTES,
    CHUNK_BYTES_MAX,
    FILE_DATA_START,
    encode_header,
    file_name,
    pack_table,
)
from storage_node.errors import from_os
from storage_node.index import FILE, Index, Row

log = logging.getLogger("staddle.node")

P = ParamSpec("P")
T = TypeVar("T")

INCOMING = "incoming"
WRITE_BACK_BYTES = 8 << 20
"""Write-back is begun for each stretch of this size, and waited for one stretch later: at most 16 MiB of a stream are
dirty."""

_NEW = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC
_WAIT_BEFORE, _START, _WAIT_AFTER = 1, 2, 4

_sync_file_range: Any = None
with contextlib.suppress(AttributeError, OSError):    # another libc or system: the sync at the end does it all
    _sync_file_range = ctypes.CDLL(None, use_errno=True).sync_file_range
    _sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


class Named(NamedTuple):
    """A file that is durable under its temporary name."""

    path: str
    digest: Digest
    generation: bytes
    size: int
    due: int
    answer: "asyncio.Future[None]"


class IncomingFile:
    """One large chunk on its way. Used by one task: each call is awaited before the next. Ends with `finish` or
    `abort`."""

    def __init__(self, files: "Files", generation: bytes) -> None:
        self._files, self._generation = files, generation
        self._path = f"{files.folder}/{INCOMING}/{generation.hex()}.{secrets.token_hex(8)}"
        self._fd = -1
        self._crcs: list[int] = []
        self._short = False
        self.size = 0
        self._run = asyncio.get_running_loop().run_in_executor

    async def open(self) -> None:
        await self._step("creating a chunk file", self._open)

    def _open(self) -> None:
        self._fd = self._files.disk.open(self._path, _NEW)
        os.lseek(self._fd, FILE_DATA_START, os.SEEK_SET)      # the header comes last, when digest and size are known

    async def write(self, blocks: list[bytes]) -> None:
        """Append blocks of BLOCK_BYTES; only the chunk's very last one may be shorter. Raises NoSpace, Unavailable."""
        await self._step("writing a chunk file", self._write, blocks)

    def _write(self, blocks: list[bytes]) -> None:
        disk, size = self._files.disk, self.size
        for block in blocks:
            assert not self._short, "a short block ends the chunk"
            assert 0 < len(block) <= BLOCK_BYTES
            self._short = len(block) < BLOCK_BYTES
            self._crcs.append(crc32c(block))
            size += len(block)
        assert size <= CHUNK_BYTES_MAX
        disk.writev(self._fd, blocks, "file.write")
        if size // WRITE_BACK_BYTES != self.size // WRITE_BACK_BYTES:
            self._write_back(size // WRITE_BACK_BYTES)
        self.size = size

    def _write_back(self, stretches: int) -> None:
        """An error that the kernel reports here is reported only once: it must count as the failed sync that it is."""
        if _sync_file_range is None:
            return
        start = FILE_DATA_START + (stretches - 1) * WRITE_BACK_BYTES
        before = max(0, start - WRITE_BACK_BYTES)
        if _sync_file_range(self._fd, before, start - before, _WAIT_BEFORE | _START | _WAIT_AFTER) \
                or _sync_file_range(self._fd, start, WRITE_BACK_BYTES, _START):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    async def finish(self, digest: Digest, table: bytes | None, due: int) -> None:
        """Durable and in the index on return. `table` is the sender's own, computed on the buffers that it hashed.

        Raises Corrupt if the tables differ, NoSpace, Unavailable. The file is gone then."""
        answer = await self._step("finishing a chunk file", self._finish, digest, table, due)
        await answer

    def _finish(self, digest: Digest, table: bytes | None, due: int) -> "asyncio.Future[None]":
        disk, own = self._files.disk, pack_table(self._crcs)
        if table is not None and table != own:
            raise Corrupt(f"chunk {digest.hex()} was changed on its way")
        header = encode_header(digest, self._generation, self.size, own, data_start=FILE_DATA_START)
        disk.pwrite(self._fd, own, FILE_DATA_START + self.size, "file.table")
        disk.pwrite(self._fd, header + bytes(FILE_DATA_START - len(header)), 0, "file.header")
        disk.fdatasync(self._fd, "file.fdatasync")
        fd, self._fd = self._fd, -1
        disk.close(fd)
        return self._files.give_name(self._path, digest, self._generation, self.size, due)

    async def abort(self) -> None:
        """Forget it. Never fails: what is left is removed at the next start."""
        await self._run(self._files.executor, self._discard)

    def _discard(self) -> None:
        with contextlib.suppress(OSError):
            if self._fd >= 0:
                fd, self._fd = self._fd, -1
                self._files.disk.close(fd)
                self._files.disk.unlink(self._path, "file.discard")

    async def _step(self, doing: str, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        assert not named
        try:
            return await self._run(self._files.executor, function, *arguments)
        except OSError as error:
            self._files.on_failure(error)
            await self.abort()
            raise from_os(error, doing) from error
        except BaseException:
            await self.abort()
            raise


class Files:
    """Where large chunks arrive. One thread gives them their names."""

    def __init__(self, folder: str, disk: Disk, index: Index, executor: Executor,
                 on_failure: Callable[[OSError | ClusterError], None] = lambda error: None) -> None:
        """`on_failure` is told, in any thread, that the disk has failed a write."""
        self.on_failure = on_failure
        self.folder, self.disk, self.executor = folder, disk, executor
        self._index = index
        self._wake = threading.Condition()
        self._queue: list[Named] = []
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.finished = 0

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="files", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Files that have been synced get their names first."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
            self._thread = None

    async def create(self, generation: bytes) -> IncomingFile:
        """Raises NoSpace, Unavailable."""
        incoming = IncomingFile(self, generation)
        await incoming.open()
        return incoming

    def give_name(self, path: str, digest: Digest, generation: bytes, size: int, due: int) -> "asyncio.Future[None]":
        assert self._loop is not None
        answer: asyncio.Future[None] = self._loop.create_future()
        with self._wake:
            if self._stopping:
                raise Unavailable("the node is stopping")
            self._queue.append(Named(path, digest, generation, size, due, answer))
            self._wake.notify()
        return answer

    # The thread

    def _run(self) -> None:
        try:
            self._give_names()
        except Exception:
            # A mistake of ours, and who waits would wait for ever. A dead process is started again and recovers.
            log.critical("the naming of chunk files has failed", exc_info=True)
            os._exit(70)

    def _give_names(self) -> None:
        while True:
            with self._wake:
                while not self._queue and not self._stopping:
                    self._wake.wait()
                batch, self._queue = self._queue, []
            if not batch:
                return
            failed: dict[int, ClusterError] = {}
            good = self._rename(batch, failed)
            try:
                if good:
                    self._index.add([Row(named.digest, named.generation, named.size, FILE, 0, named.due)
                                     for named in good])
            except ClusterError as error:
                self.on_failure(error)
                failed.update((id(named), error) for named in good)
            self.finished += len(batch) - len(failed)
            assert self._loop is not None
            with contextlib.suppress(RuntimeError):   # the loop was closed: nobody waits any more
                self._loop.call_soon_threadsafe(_answer, batch, failed)

    def _rename(self, batch: list[Named], failed: dict[int, ClusterError]) -> list[Named]:
        """Those whose names are durable."""
        folders: dict[str, list[Named]] = {}
        for named in batch:
            path = f"{self.folder}/{file_name(named.digest, named.generation)}"
            try:
                self.disk.rename(named.path, path, "file.rename")
            except OSError as failure:
                failed[id(named)] = from_os(failure, f"naming chunk {named.digest.hex()}")
                with contextlib.suppress(OSError):
                    self.disk.unlink(named.path, "file.discard")
            else:
                folders.setdefault(os.path.dirname(path), []).append(named)
        good = []
        for folder, named_here in folders.items():
            try:
                self.disk.fsync_dir(folder, "file.fsync_dir")
            except OSError as failure:
                # The file stays under its name: an earlier, acknowledged put of the same copy may have been there.
                # If it wasn't, recovery finds it and nobody lists it.
                failed.update((id(named), from_os(failure, f"naming chunk {named.digest.hex()}"))
                              for named in named_here)
            else:
                good += named_here
        for error in failed.values():
            log.error("%s", error)
            self.on_failure(error)
        return good


def _answer(batch: list[Named], failed: dict[int, ClusterError]) -> None:
    for named in batch:
        if not named.answer.done():
            error = failed.get(id(named))
            if error is None:
                named.answer.set_result(None)
            else:
                named.answer.set_exception(error)


