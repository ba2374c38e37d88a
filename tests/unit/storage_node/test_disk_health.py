"""Faults of a node's disk: writes are refused while it can't take them, reads go on, and it comes back by itself."""

import asyncio
import errno
import os
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from consensus.core.errors import Busy, ClusterError, NoSpace, Unavailable
from consensus.core.ids import digest
from storage_node import disk_health, segments
from storage_node.chunk import SMALL_BYTES_MAX, block_table
from storage_node.disk_store import DiskStore
from storage_node.index import CONDEMNED, NEW
from tests.unit.consensus.crash import Unsynced
from tests.unit.storage_node.stores import GENERATION, get, put, with_store

SMALL = [os.urandom(3000 + number) for number in range(30)]
LARGE = os.urandom(SMALL_BYTES_MAX + 300_000)
BACK_S = 10.0
"""What is promised."""

PROBE_S = 0.1


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_health, "PROBE_S", PROBE_S)


class Ill(Unsynced):
    """Fails as it is told: `fault` is the errno of everything that changes the disk."""

    fault: int | None = None
    delay_s = 0.0
    once: str | None = None

    def _hurt(self, step: str) -> None:
        time.sleep(self.delay_s)
        if step == self.once:
            self.once = None
            raise OSError(errno.EIO, "injected")
        if self.fault is not None:
            raise OSError(self.fault, os.strerror(self.fault))

    def open(self, path, flags, mode=0o600):  # type: ignore[no-untyped-def]
        self._hurt("open")
        return super().open(path, flags, mode)

    def write(self, fd, data, step):  # type: ignore[no-untyped-def]
        self._hurt(step)
        super().write(fd, data, step)

    def writev(self, fd, buffers, step):  # type: ignore[no-untyped-def]
        self._hurt(step)
        super().writev(fd, buffers, step)

    def pwrite(self, fd, data, offset, step):  # type: ignore[no-untyped-def]
        self._hurt(step)
        super().pwrite(fd, data, offset, step)

    def truncate(self, fd, length, step):  # type: ignore[no-untyped-def]
        self._hurt(step)
        super().truncate(fd, length, step)

    def fdatasync(self, fd, step):  # type: ignore[no-untyped-def]
        self._hurt(step)

    def fsync_dir(self, path, step):  # type: ignore[no-untyped-def]
        self._hurt(step)

    def rename(self, old, new, step):  # type: ignore[no-untyped-def]
        self._hurt(step)
        super().rename(old, new, step)

    def unlink(self, path, step):  # type: ignore[no-untyped-def]
        self._hurt(step)
        super().unlink(path, step)


def with_ill_store(folder: Path, body: Callable[[DiskStore, Ill], Awaitable[None]]) -> None:
    disk = Ill()
    with_store(folder / "chunks", lambda store: body(store, disk), disk)


async def until(condition: Callable[[], bool], timeout_s: float = BACK_S) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("data", [SMALL[1], LARGE], ids=["small", "large"])
@pytest.mark.parametrize(("code", "reason", "kind"), [
    (errno.EIO, "failing", Unavailable), (errno.EROFS, "read-only", Unavailable), (errno.ENOSPC, "full", NoSpace),
    (errno.EDQUOT, "full", NoSpace)])
def test_writes_are_refused_reads_go_on_and_it_is_back_by_itself(
        tmp_path: Path, data: bytes, code: int, reason: str, kind: type[ClusterError]) -> None:
    async def body(store: DiskStore, disk: Ill) -> None:
        await put(store, SMALL[0], GENERATION)
        disk.fault = code
        with pytest.raises(kind):
            await put(store, data, GENERATION)
        await until(lambda: not store.disk_state.writable)
        assert store.disk_state.reason == reason
        assert store.disk_state.errors > 0
        assert (await store.statistics()).reason == reason
        opens: list[str] = []
        disk.open = lambda path, *rest: opens.append(path)  # type: ignore[method-assign,assignment,return-value]
        with pytest.raises(kind):
            await put(store, data, GENERATION)
        assert all(path.endswith("probe") for path in opens), "the disk isn't tried with clients' writes"
        del disk.open
        assert await get(store, digest(SMALL[0]), len(SMALL[0]), GENERATION) == SMALL[0]
        disk.fault = None
        await until(lambda: store.disk_state.writable)
        await put(store, data, GENERATION)
        assert await get(store, digest(data), len(data), GENERATION) == data
        assert not os.path.exists(f"{store.folder}/probe")

    with_ill_store(tmp_path, body)


def test_one_failed_sync_is_that_segments_alone(tmp_path: Path) -> None:
    async def body(store: DiskStore, disk: Ill) -> None:
        await put(store, SMALL[0], GENERATION)
        disk.once = "segment.fdatasync"
        with pytest.raises(Unavailable, match="injected"):
            await put(store, SMALL[1], GENERATION)
        for data in SMALL[2:10]:
            await put(store, data, GENERATION)
            assert store.disk_state.writable
        assert store.disk_state.errors_failing == 1

    with_ill_store(tmp_path, body)


def test_a_segment_that_could_not_be_sealed_is_sealed_later(tmp_path: Path) -> None:
    async def body(store: DiskStore, disk: Ill) -> None:
        for data in SMALL[:3]:
            await put(store, data, GENERATION)
        disk.fault = errno.EIO
        with pytest.raises(Unavailable):
            await put(store, SMALL[4], GENERATION)
        await until(lambda: not store.disk_state.writable)
        assert not store._index.segments()[0].sealed
        disk.fault = None
        await until(lambda: store.disk_state.writable)
        await put(store, SMALL[4], GENERATION)
        await until(lambda: store._index.segments()[0].sealed)
        for data in (*SMALL[:3], SMALL[4]):
            assert await get(store, digest(data), len(data), GENERATION) == data
        await store.remove([copy for data in SMALL[:3] for copy in await store.generations(digest(data))])
        assert len(os.listdir(f"{store.folder}/segments")) == 1

    with_ill_store(tmp_path, body)


def test_deletes_that_a_read_only_disk_refuses_are_done_later(tmp_path: Path) -> None:
    async def body(store: DiskStore, disk: Ill) -> None:
        await put(store, LARGE, GENERATION)
        copies = await store.generations(digest(LARGE))
        disk.fault = errno.EROFS
        await store.remove(copies)
        assert await store.generations(digest(LARGE)) == copies
        assert await get(store, digest(LARGE), len(LARGE), GENERATION) == LARGE
        disk.fault = None
        await store.remove(copies)
        assert await store.generations(digest(LARGE)) == []

    with_ill_store(tmp_path, body)


@pytest.mark.parametrize(("change", "reason", "kind"), [
    ({"f_flag": os.ST_RDONLY}, "read-only", Unavailable), ({"f_bavail": 0}, "full", NoSpace)])
def test_space_and_mode_are_seen_without_a_write(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, int], reason: str,
        kind: type[ClusterError]) -> None:
    async def body(store: DiskStore, disk: Ill) -> None:
        real = os.statvfs
        values = {name: getattr(real(store.folder), name) for name in ("f_flag", "f_bavail", "f_frsize", "f_blocks")}
        monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(**values | change))
        assert store.disk_state.reason == reason
        with pytest.raises(kind):
            await put(store, SMALL[0], GENERATION)
        monkeypatch.setattr(os, "statvfs", real)
        began = time.monotonic()
        await until(lambda: store.health.state.writable)
        assert time.monotonic() - began < 10 * PROBE_S, "nobody had to ask"
        await put(store, SMALL[0], GENERATION)

    with_ill_store(tmp_path, body)


def test_nobody_waits_long_behind_a_disk_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "QUEUE_S_MAX", 0.2)
    go_on, hangs = threading.Event(), threading.Event()

    async def body(store: DiskStore, disk: Ill) -> None:
        await put(store, SMALL[0], GENERATION)
        real = disk.fdatasync
        disk.fdatasync = lambda fd, step: (hangs.set(), go_on.wait(10), real(fd, step))  # type: ignore[method-assign,assignment]
        first = asyncio.ensure_future(put(store, SMALL[1], GENERATION))
        await until(hangs.is_set)
        second = asyncio.ensure_future(put(store, SMALL[2], GENERATION))
        await until(lambda: len(store._segments._queue) == 1)
        refused = False
        for data in SMALL[3:] * 100:
            began = time.monotonic()
            answer = store.put(digest(data), GENERATION, data, block_table(data))
            if answer.done():
                with pytest.raises(Busy):
                    await answer
                assert time.monotonic() - began < 0.1
                refused = True
                break
            await asyncio.sleep(0.01)
        assert refused
        assert await get(store, digest(SMALL[0]), len(SMALL[0]), GENERATION) == SMALL[0]
        go_on.set()
        await asyncio.gather(first, second)
        await put(store, SMALL[0], GENERATION)

    with_ill_store(tmp_path, body)


@pytest.mark.slow
def test_a_slow_disk_answers_within_seconds(tmp_path: Path) -> None:
    """20 ms for each operation, more puts than it takes: each is stored or refused in less than 5 s."""
    async def body(store: DiskStore, disk: Ill) -> None:
        disk.delay_s = 0.02
        waits: list[float] = []
        refused = 0

        async def one(data: bytes) -> None:
            nonlocal refused
            began = time.monotonic()
            try:
                await put(store, data, GENERATION)
            except Busy:
                refused += 1
            waits.append(time.monotonic() - began)

        bodies = [os.urandom(50_000) for _ in range(1500)]
        await asyncio.gather(*(one(data) for data in bodies), *(one(LARGE[:-number]) for number in range(1, 17)))
        print(f"\nlongest {max(waits):.2f} s, {refused} of {len(waits)} refused")
        assert max(waits) < 5.0
        disk.delay_s = 0.0

    with_ill_store(tmp_path, body)


def test_what_was_due_in_a_time_that_never_came_is_due_now(tmp_path: Path) -> None:
    """The clock was ahead when a copy was noted, and was set back while the node was stopped."""
    month = 30 * 86_400_000

    async def before(store: DiskStore) -> None:
        names = [await put(store, data, GENERATION) for data in SMALL[:2]]
        now = store.clock.now_ms()
        new, condemned = [(await store.generations(name))[0] for name in names]
        await store.mark([(new, NEW, now + month), (condemned, CONDEMNED, now + month)])

    async def after(store: DiskStore) -> None:
        now = store.clock.now_ms()
        assert [copy.digest for copy in await store.due(now + 1, 10)] == [digest(SMALL[0])]
        assert len(await store.due(now + 7 * 86_400_000 + 1, 10)) == 2

    with_store(tmp_path / "chunks", before, Ill())
    with_store(tmp_path / "chunks", after, Ill())
