"""How small chunks come to the disk: over zeros that lie there already, so that a sync has nothing to do but write them, and in
batches."""

import asyncio
import errno
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import pytest

from consensus.core.ids import digest
from consensus.disk import Buffer
from storage_node import segments
from storage_node.disk_store import DiskStore
from tests.unit.consensus.crash import Unsynced
from tests.unit.storage_node.stores import GENERATION, get, put, with_store

BODIES = [os.urandom(3000) for _ in range(20)]


class Ahead(Unsynced):
    """Remembers where zeros were written; refuses to write them if there is no room."""

    ahead_bytes = 16_000

    def __init__(self, *, room: bool = True) -> None:
        self.room = room
        self.zeros: list[tuple[int, int]] = []

    def pwrite(self, fd: int, data: Buffer, offset: int, step: str) -> None:
        if step == "segment.ahead":
            if not self.room:
                raise OSError(errno.ENOSPC, "no room")
            self.zeros.append((offset, offset + len(data)))
        super().pwrite(fd, data, offset, step)


async def fill(store: DiskStore) -> None:
    for data in BODIES:
        await put(store, data, GENERATION)
    for data in BODIES:
        assert await get(store, digest(data), len(data), GENERATION) == data


def test_zeros_lie_ahead_and_are_used_up_before_more_are_written(tmp_path: Path) -> None:
    disk = Ahead()

    async def body(store: DiskStore) -> None:
        await fill(store)
        assert store._segments.current[0] == 1
        assert len(disk.zeros) <= 5, "some five chunks fit into what is written ahead at once"
        assert disk.zeros[-1][1] >= store._segments.current[1]
        for (_, end), (start, _) in zip(disk.zeros, disk.zeros[1:], strict=False):
            assert end - 3200 < start - 3200 <= end, "the chunk that no longer fitted lies between"

    with_store(tmp_path / "chunks", body, disk, 1 << 20)


def test_behind_large_batches_no_zeros_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "AHEAD_BATCH_BYTES_MAX", 2000)
    disk = Ahead()
    with_store(tmp_path / "chunks", fill, disk, 1 << 20)
    assert disk.zeros == []


def test_a_disk_without_room_for_zeros_still_takes_chunks(tmp_path: Path) -> None:
    with_store(tmp_path / "chunks", fill, Ahead(room=False), 1 << 20)
    with_store(tmp_path / "chunks", fill, Unsynced(), 1 << 20)


class Slow(Unsynced):
    """Each sync takes 20 ms; remembers how many records each wrote."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def writev(self, fd: int, buffers: Sequence[Buffer], step: str) -> None:
        self.batches.append(len(buffers) // 3)
        super().writev(fd, buffers, step)

    def fdatasync(self, fd: int, step: str) -> None:
        time.sleep(0.02)


def test_where_syncs_are_slow_a_batch_waits_for_who_came_with_the_last_one(tmp_path: Path) -> None:
    """Twelve writers, each with its next chunk as soon as it has the answer to the last, not all at the same moment."""
    disk = Slow()
    bodies = [os.urandom(100) for _ in range(12 * 20)]

    async def writer(store: DiskStore, mine: list[bytes], late_s: float) -> None:
        for data in mine:
            await put(store, data, GENERATION)
            await asyncio.sleep(late_s)               # what a writer does between two chunks

    async def body(store: DiskStore) -> None:
        await asyncio.gather(*(writer(store, bodies[number::12], number * 0.0004) for number in range(12)))

    with_store(tmp_path / "chunks", body, disk, 1 << 20)
    assert sum(disk.batches) == len(bodies)
    assert median(disk.batches[2:-1]) == 12, disk.batches


def test_few_writers_wait_for_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    class Condition(threading.Condition):
        def wait(self, timeout: float | None = None) -> bool:
            if timeout is not None and threading.current_thread().name == "segments":
                waits.append(timeout)
            return super().wait(timeout)

    monkeypatch.setattr(segments.threading, "Condition", Condition)
    disk = Slow()

    async def body(store: DiskStore) -> None:
        for data in BODIES[:10]:
            await put(store, data, GENERATION)

    with_store(tmp_path / "chunks", body, disk, 1 << 20)
    assert disk.batches == [1] * 10
    assert waits == []
