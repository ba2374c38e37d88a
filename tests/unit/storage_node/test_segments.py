"""Small chunks are written over zeros that lie there already, so that a sync has nothing to do but write them."""

import errno
import os
from pathlib import Path

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
