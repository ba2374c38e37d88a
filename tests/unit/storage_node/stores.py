"""What the store's tests share: a disk that may stop in any thread, and stores that are killed rather than stopped."""

import asyncio
import contextlib
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

from consensus.core.ids import Digest, Generation, SessionId
from consensus.disk import Disk
from storage_node.disk_store import DiskStore
from tests.contract.chunk_store import get, put
from tests.unit.consensus.crash import FaultyDisk, Stopped

INDEX_FILES = ("index.sqlite", "index.sqlite-wal")
GENERATION = Generation(SessionId(5 << 20), 3)


class StoppingDisk(FaultyDisk):
    """A FaultyDisk whose stop is noticed by an event loop, in whatever thread it happens; and what is durable of the
    index."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder.parent))
        self._folder = folder
        self._aside = folder.parent.parent / f"{folder.parent.name}.index"
        self.stopped: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.durable_index: dict[str, bytes] = {}
        self.stop_on: tuple[str, int] | None = None
        """Stop at the n-th step (from 0) of a name: threads change the numbers of steps, hardly their names' counts."""

    def watch(self) -> "asyncio.Future[None]":
        self._loop = asyncio.get_running_loop()
        self.stopped = self._loop.create_future()
        return self.stopped

    def _step(self, step: str, path: str) -> None:
        if step == "index.synced":
            found = {name: _read(self._folder / name) for name in INDEX_FILES}
            self.durable_index = {name: data for name, data in found.items() if data is not None}
        if self.stop_on is not None and self.stop_on == (step, self.steps.count(step)):
            self.stop_at = len(self.steps)
        try:
            super()._step(step, path)
        except Stopped:
            if self._loop is not None and self.stopped is not None:
                with contextlib.suppress(RuntimeError):               # the loop has ended: it has noticed before
                    self._loop.call_soon_threadsafe(lambda: self.stopped.done() or self.stopped.set_result(None))
            raise

    def cut_power(self, seed: int, target: Path) -> None:
        """What may be found after a power cut now, in `target`. The index is as it is, as it was last synced, or
        gone."""
        self.power_cut(seed, str(target))
        chunks = target / self._folder.name
        if not chunks.is_dir():
            return
        for name in INDEX_FILES:
            (chunks / name).unlink(missing_ok=True)
        kind = seed % 3
        for name in INDEX_FILES:
            data = _read(self._folder / name) if kind == 0 else self.durable_index.get(name) if kind == 1 else None
            if data is not None:
                (chunks / name).write_bytes(data)


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def open_store(folder: Path, disk: Disk | None = None, segment_bytes: int = 20_000) -> DiskStore:
    return DiskStore(str(folder), disk=disk, segment_bytes=segment_bytes, reserve_bytes=0)


def kill(store: DiskStore) -> None:
    """Let go of what a dead process would not hold. Its threads stay where they are: their disk has stopped."""
    store._release()
    segments = getattr(store, "_segments", None)
    if segments is not None:
        with segments._wake:
            segments._stopping = True
            segments._wake.notify()
    files = getattr(store, "_files", None)
    if files is not None:
        with files._wake:
            files._stopping = True
            files._wake.notify()
    store._workers.shutdown(wait=False)
    index = getattr(store, "_index", None)
    if index is not None:
        index._closed = True
        index._long.set()


def image(folder: Path, target: Path) -> Path:
    """The folder as a killed process leaves it: everything that was written, synced or not."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns("*-shm"))
    return target


def with_store(folder: Path, body: Callable[[DiskStore], Awaitable[None]], disk: Disk | None = None,
               segment_bytes: int = 20_000) -> None:
    async def main() -> None:
        store = open_store(folder, disk, segment_bytes)
        await store.start()
        try:
            await body(store)
        finally:
            await store.stop()

    asyncio.run(main())


def empty(folder: Path) -> None:
    """A folder that has been started and stopped once, so that its 258 folders are no steps of every test."""
    async def nothing(store: DiskStore) -> None:
        assert os.path.isdir(folder)

    with_store(folder, nothing)


__all__ = ["GENERATION", "Digest", "StoppingDisk", "empty", "get", "image", "kill", "open_store", "put",
           "with_store"]
