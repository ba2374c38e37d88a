"""Promise 2, R11, R12: damaged bytes are never handed out, wherever the damage is, and the copy is reported."""

import asyncio
import os
import random
from pathlib import Path

import pytest

from consensus.core.errors import Corrupt
from consensus.core.ids import digest
from storage_node.chunk import BLOCK_BYTES, SMALL_BYTES_MAX, file_name, record_bytes
from storage_node.disk_store import DiskStore
from storage_node.errors import NotHere
from storage_node.local import LocalReader
from storage_node.segments import segment_path
from tests.unit.consensus.crash import Unsynced
from tests.unit.storage_node.stores import GENERATION, get, put, with_store

SMALL = os.urandom(5000)
MIDDLE = os.urandom(3 * BLOCK_BYTES + 77)
LARGE = os.urandom(SMALL_BYTES_MAX + 5 * BLOCK_BYTES)


def flip(path: Path, at: int, bit: int = 0) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes((byte[0] ^ 1 << bit,)))


async def read_whole(store: DiskStore, data: bytes) -> bytes:
    return await get(store, digest(data), len(data), GENERATION)


@pytest.mark.parametrize("seed", range(4))
def test_no_flipped_bit_is_ever_handed_out(tmp_path: Path, seed: int) -> None:
    """Each byte of the files may be the damaged one: header, gap, bytes, table, and what belongs to another chunk."""
    chance = random.Random(seed)

    async def body(store: DiskStore) -> None:
        for data in (SMALL, MIDDLE, LARGE):
            await put(store, data, GENERATION)
        segment = Path(segment_path(store.folder, 1))
        file = Path(store.folder) / file_name(digest(LARGE), GENERATION.pack())
        corrupt = 0
        for _ in range(60):
            path = chance.choice((segment, file))
            end = path.stat().st_size if path == file else sum(record_bytes(len(data)) for data in (SMALL, MIDDLE))
            at = chance.randrange(end)
            bit = chance.randrange(8)
            flip(path, at, bit)
            if seed % 2:
                store._reader._open.clear()           # a file's header and table are checked when it is opened
            for data in (SMALL, MIDDLE, LARGE):
                try:
                    assert await read_whole(store, data) == data
                except Corrupt:
                    corrupt += 1
            flip(path, at, bit)
        assert corrupt > 20
        for data in (SMALL, MIDDLE, LARGE):
            assert await read_whole(store, data) == data

    with_store(tmp_path / "chunks", body, Unsynced(), segment_bytes=1 << 30)


@pytest.mark.parametrize("data", [SMALL, MIDDLE, LARGE], ids=["small", "middle", "large"])
def test_damage_is_remembered_and_a_new_put_repairs_it(tmp_path: Path, data: bytes) -> None:
    async def body(store: DiskStore) -> None:
        name = await put(store, data, GENERATION)
        [copy] = await store.generations(name)
        path = Path(segment_path(store.folder, copy.segment)) if copy.segment else \
            Path(store.folder) / file_name(name, GENERATION.pack())
        flip(path, copy.place + (96 if copy.segment else 4096) + len(data) // 2)
        with pytest.raises(Corrupt):
            await read_whole(store, data)
        assert [damaged[:2] for damaged in await store.damage(10)] == [(name, GENERATION.pack())]
        assert not await store.verify(copy)
        assert (await store.statistics()).damaged == 1
        await put(store, data, GENERATION)
        assert await read_whole(store, data) == data
        assert await store.damage(10) == []

    with_store(tmp_path / "chunks", body, Unsynced(), segment_bytes=1 << 30)


@pytest.mark.parametrize("data", [SMALL, MIDDLE, LARGE], ids=["small", "middle", "large"])
@pytest.mark.parametrize("kept", [0, 100, 3000])
def test_a_truncated_file_is_damage(tmp_path: Path, data: bytes, kept: int) -> None:
    async def body(store: DiskStore) -> None:
        name = await put(store, data, GENERATION)
        [copy] = await store.generations(name)
        path = segment_path(store.folder, copy.segment) if copy.segment else \
            f"{store.folder}/{file_name(name, GENERATION.pack())}"
        os.truncate(path, kept)
        with pytest.raises(Corrupt):
            await read_whole(store, data)

    with_store(tmp_path / "chunks", body, Unsynced(), segment_bytes=1 << 30)


def test_a_valid_chunk_in_the_wrong_place_is_not_taken_for_another(tmp_path: Path) -> None:
    """A misdirected write, or an index that is behind: the bytes are sound, but they are not the ones asked for."""
    other = os.urandom(5000)

    async def body(store: DiskStore) -> None:
        await put(store, SMALL, GENERATION)
        await put(store, other, GENERATION)
        [copy], [wrong] = await store.generations(digest(SMALL)), await store.generations(digest(other))
        store._index._db.execute("UPDATE chunk SET place=? WHERE digest=?", (wrong.place, copy.digest))
        with pytest.raises(Corrupt, match="another one is in its place"):
            await read_whole(store, SMALL)

    with_store(tmp_path / "chunks", body, Unsynced())


def test_a_file_of_another_chunk_under_this_name_is_not_taken(tmp_path: Path) -> None:
    other = os.urandom(len(LARGE))

    async def body(store: DiskStore) -> None:
        for data in (LARGE, other):
            await put(store, data, GENERATION)
        os.replace(f"{store.folder}/{file_name(digest(other), GENERATION.pack())}",
                   f"{store.folder}/{file_name(digest(LARGE), GENERATION.pack())}")
        with pytest.raises(Corrupt, match="another one is in its place"):
            await read_whole(store, LARGE)
        with pytest.raises(NotHere):
            await read_whole(store, other)

    with_store(tmp_path / "chunks", body, Unsynced())


def test_a_reader_in_another_process_never_gives_damaged_bytes(tmp_path: Path) -> None:
    async def body(store: DiskStore) -> None:
        await put(store, SMALL, GENERATION)
        await put(store, LARGE, GENERATION)
        reader = LocalReader(store.folder)
        packed = GENERATION.pack()
        assert reader.read_now(digest(SMALL), packed, 10, 100) == SMALL[10:110]
        assert reader.read_now(digest(LARGE), packed, 10, 100) is None, "the file isn't open yet"
        located = reader.locate(digest(LARGE), packed)
        assert await reader.read(located, 10, 100) == LARGE[10:110]
        assert reader.read_now(digest(LARGE), packed, 10, 100) == LARGE[10:110]
        flip(Path(segment_path(store.folder, 1)), 64 + 96 + 2000)
        flip(Path(store.folder) / file_name(digest(LARGE), packed), 4096 + 2000)
        for data in (SMALL, LARGE):
            with pytest.raises(Corrupt):
                reader.read_now(digest(data), packed, 10, 100)
            with pytest.raises(Corrupt):
                await reader.read(reader.locate(digest(data), packed), 10, 100)
        other_block = await reader.read(located, BLOCK_BYTES, 100)
        assert other_block == LARGE[BLOCK_BYTES:BLOCK_BYTES + 100]
        reader.close()

    with_store(tmp_path / "chunks", body, Unsynced())


def test_a_remembered_place_is_not_believed_when_a_fresh_copy_has_healed_it(tmp_path: Path) -> None:
    async def body(store: DiskStore) -> None:
        name, packed = await put(store, SMALL, GENERATION), GENERATION.pack()
        reader = LocalReader(store.folder)
        assert reader.read_now(name, packed, 0, len(SMALL)) == SMALL
        assert reader._places
        flip(Path(segment_path(store.folder, 1)), 64 + 96 + 2000)
        with pytest.raises(Corrupt):
            await read_whole(store, SMALL)            # so the damage is known, and the next copy takes the place
        await put(store, SMALL, GENERATION)
        assert reader.read_now(name, packed, 0, len(SMALL)) == SMALL
        reader.close()

    with_store(tmp_path / "chunks", body, Unsynced())


def test_a_reader_remembers_no_more_places_than_it_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage_node.local.PLACES_MAX", 3)

    async def body(store: DiskStore) -> None:
        reader = LocalReader(store.folder)
        for number in range(8):
            data = b"%d" % number * 100
            name = await put(store, data, GENERATION)
            for _ in range(2):
                assert reader.read_now(name, GENERATION.pack(), 0, len(data)) == data
            assert 0 < len(reader._places) <= 3
        reader.close()

    with_store(tmp_path / "chunks", body, Unsynced())


def test_a_reader_sees_each_put_as_soon_as_it_is_acknowledged(tmp_path: Path) -> None:
    async def body(store: DiskStore) -> None:
        reader = LocalReader(store.folder)
        for number in range(200):
            data = b"%d" % number * 100
            name = await put(store, data, GENERATION)
            assert reader.read_now(name, GENERATION.pack(), 0, len(data)) == data
        reader.close()

    with_store(tmp_path / "chunks", body, Unsynced())


def test_files_that_nobody_reads_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An open file keeps the space of a chunk that has been removed."""
    monkeypatch.setattr("storage_node.local.IDLE_S", 0.01)

    async def body(store: DiskStore) -> None:
        await put(store, SMALL, GENERATION)
        await put(store, LARGE, GENERATION)
        assert await read_whole(store, LARGE) == LARGE
        assert await read_whole(store, SMALL) == SMALL
        assert len(store._reader._open) == 2
        async with asyncio.timeout(5):
            while store._reader._open:
                await asyncio.sleep(0.01)
        assert await read_whole(store, LARGE) == LARGE

    with_store(tmp_path / "chunks", body, Unsynced())


def test_reads_at_once_from_many_files_keep_few_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage_node.local.OPEN_FILES_MAX", 5)
    bodies = [bytes((number,)) * (SMALL_BYTES_MAX + 1) for number in range(12)]

    async def body(store: DiskStore) -> None:
        for data in bodies:
            await put(store, data, GENERATION)
        await read_whole(store, bodies[0])            # opens the index
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            await asyncio.gather(*(read_whole(store, data) for data in bodies))
        assert len(os.listdir("/proc/self/fd")) <= before + 6

    with_store(tmp_path / "chunks", body, Unsynced())
