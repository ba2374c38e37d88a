"""Damaged copies put aside: what is kept, what is bounded, and in which order things happen."""

import os
from pathlib import Path

import pytest

from consensus.core.errors import Unavailable
from consensus.core.ids import digest
from consensus.disk import Disk
from storage_node.care.quarantine import QUARANTINE, Quarantine
from storage_node.chunk import SMALL_BYTES_MAX, file_name, record_bytes
from storage_node.disk_store import DiskStore
from storage_node.index import FILE, NEW, Copy
from tests.contract.chunk_store import put
from tests.unit.consensus.crash import Unsynced
from tests.unit.storage_node.stores import GENERATION, with_store
from tests.unit.storage_node.test_scrub import path_of

LARGE = os.urandom(SMALL_BYTES_MAX + 1000)


@pytest.mark.parametrize("text", [b"{", b'{"reason":"\xff"}'])
def test_an_entry_that_cannot_be_read_is_passed_over(tmp_path: Path, text: bytes) -> None:
    quarantine = Quarantine(str(tmp_path), Disk())
    (tmp_path / QUARANTINE).mkdir()
    (tmp_path / QUARANTINE / "a.b.1.json").write_bytes(text)
    assert quarantine.entries(10) == []


@pytest.mark.parametrize("data", [b"x" * 5000, LARGE], ids=["small", "large"])
def test_what_is_put_away_is_kept_for_people_and_here_no_more(tmp_path: Path, data: bytes) -> None:
    async def body(store: DiskStore) -> None:
        name = await put(store, data, GENERATION)
        [copy] = await store.generations(name)
        path = path_of(store, copy)
        with open(path, "rb") as file:
            file.seek(copy.place)
            lay = file.read(record_bytes(copy.size) if copy.segment else -1)
        await store.note_damage(name, copy.generation, "found")
        await store.put_away(copy, "found by a test", "withdrawn")
        assert await store.generations(name) == []
        assert await store.damage(10) == []
        assert copy.segment or not os.path.exists(path)
        [entry] = store.quarantine.entries(10)
        assert (entry.digest, entry.reason, entry.what, entry.size) == (name.hex(), "found by a test", "withdrawn", len(data))
        assert (entry.segment, entry.place) == (copy.segment, copy.place)
        [kept] = [path for path in (tmp_path / "chunks" / "quarantine").iterdir() if path.suffix == ".chunk"]
        assert kept.read_bytes() == lay
        assert store.quarantine.totals() == (1, len(lay))
        await put(store, data, GENERATION)
        assert (await store.generations(name))[0].state == NEW

    with_store(tmp_path / "chunks", body, Unsynced())


def test_a_file_is_gone_for_good_before_its_row_goes(tmp_path: Path) -> None:
    """Else a power cut could bring it back as a chunk that the index has lost, and it would be announced."""
    steps: list[tuple[str, str]] = []

    class Watched(Unsynced):
        __slots__ = ()

        def step(self, step: str, path: str) -> None:
            steps.append((step, path))

        def rename(self, old: str, new: str, step: str) -> None:
            steps.append((step, old))
            super().rename(old, new, step)

        def fsync_dir(self, path: str, step: str) -> None:
            steps.append((step, path))
            super().fsync_dir(path, step)

    async def body(store: DiskStore) -> None:
        name = await put(store, LARGE, GENERATION)
        [copy] = await store.generations(name)
        steps.clear()
        await store.put_away(copy, "found", "withdrawn")
        path = f"{store.folder}/{file_name(name, copy.generation)}"
        order = [steps.index(("quarantine.rename", path)), steps.index(("quarantine.fsync_dir", os.path.dirname(path))),
                 next(at for at, (step, _) in enumerate(steps) if step == "index.commit")]
        assert order == sorted(order)

    with_store(tmp_path / "chunks", body, Watched())


def test_a_sync_that_fails_leaves_the_row(tmp_path: Path) -> None:
    class Failing(Unsynced):
        __slots__ = ()

        def fsync_dir(self, path: str, step: str) -> None:
            if step == "quarantine.fsync_dir":
                raise OSError(5, "input/output error")
            super().fsync_dir(path, step)

    async def body(store: DiskStore) -> None:
        name = await put(store, LARGE, GENERATION)
        [copy] = await store.generations(name)
        await store.note_damage(name, copy.generation, "found")
        with pytest.raises(Unavailable):
            await store.put_away(copy, "found", "withdrawn")
        assert len(await store.generations(name)) == 1
        assert len(await store.damage(10)) == 1, "it is tried again"
        assert not await store.verify(copy)

    with_store(tmp_path / "chunks", body, Failing())


def test_a_file_that_is_gone_already_is_noted_all_the_same(tmp_path: Path) -> None:
    async def body(store: DiskStore) -> None:
        name = await put(store, LARGE, GENERATION)
        [copy] = await store.generations(name)
        os.unlink(path_of(store, copy))
        await store.put_away(copy, "gone", "withdrawn")
        assert await store.generations(name) == []
        [entry] = store.quarantine.entries(10)
        assert (entry.reason, entry.kept) == ("gone", 0)

    with_store(tmp_path / "chunks", body, Unsynced())


def chunk_file(folder: Path, number: int, size: int) -> Copy:
    name, generation = digest(b"%d" % number), bytes(16)
    path = folder / file_name(name, generation)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(bytes(size))
    return Copy(name, generation, size, FILE, 0, NEW, 0)


def test_the_newest_are_kept_up_to_a_limit(tmp_path: Path) -> None:
    quarantine = Quarantine(str(tmp_path), Disk(), bytes_max=10_000, entries_max=7, free_bytes_min=0)
    for number in range(20):
        quarantine.put_aside(chunk_file(tmp_path, number, 3000), f"{number}", "withdrawn", 1000 + number)
    assert [entry.reason for entry in quarantine.entries(100)] == [f"{number}" for number in range(19, 12, -1)]
    assert quarantine.totals() == (7, 9000)
    quarantine.put_aside(chunk_file(tmp_path, 99, 20_000), "too large", "withdrawn", 5000)
    assert quarantine.entries(1)[0].kept == 0
    assert quarantine.totals() == (7, 9000)
    assert not list(tmp_path.glob("??/*")), "the names are gone, kept or not"


def test_with_little_room_nothing_is_kept(tmp_path: Path) -> None:
    quarantine = Quarantine(str(tmp_path), Disk(), free_bytes_min=1 << 60)
    quarantine.put_aside(chunk_file(tmp_path, 1, 3000), "found", "removed", 1000)
    assert quarantine.totals() == (1, 0)
