"""What a start finds: torn ends, damage, lost indices, folders in use. And the rescue of chunks by the page alone."""

import asyncio
import os
import random
import sqlite3
from pathlib import Path

import pytest

from consensus.core.errors import Corrupt, Refused
from consensus.core.ids import Generation, SessionId, digest
from consensus.disk import Disk
from storage_node.chunk import (
    BLOCK_BYTES,
    SMALL_BYTES_MAX,
    block_table,
    encode_header,
    encode_segment_header,
    file_name,
    record_bytes,
)
from storage_node.disk_store import DiskStore
from storage_node.errors import NotHere
from storage_node.index import NEW, SETTLED
from storage_node.segments import segment_path
from tests.unit.consensus.crash import Unsynced
from tests.unit.storage_node import rescue
from tests.unit.storage_node.stores import GENERATION, get, image, kill, open_store, put, with_store

BODIES = [bytes((number,)) * (1000 + number) for number in range(6)]
LARGE = os.urandom(SMALL_BYTES_MAX + 1000)


def crashed(folder: Path, target: Path, bodies: list[bytes], segment_bytes: int = 1 << 20) -> Path:
    """The folder of a store that has stored these chunks, one after the other, and was killed when none was young."""
    async def main() -> None:
        store = open_store(folder, Unsynced(), segment_bytes)
        await store.start()
        for data in bodies:
            await put(store, data, GENERATION)
        await store.inventory(None, 1)
        image(folder, target)
        await store.stop()

    asyncio.run(main())
    return target


def forget_last(folder: Path, count: int) -> None:
    """Roll the index back, as a power cut may: the last chunks are unknown to it."""
    database = sqlite3.connect(folder / "index.sqlite")
    rows = database.execute("SELECT digest, place FROM chunk WHERE segment=1 ORDER BY place DESC LIMIT ?",
                            (count,)).fetchall()
    for name, place in rows:
        database.execute("DELETE FROM chunk WHERE digest=?", (name,))
        database.execute("UPDATE segment SET used=? WHERE number=1", (place,))
    database.commit()
    database.close()


async def everything_is_there(store: DiskStore, bodies: list[bytes]) -> None:
    for data in bodies:
        assert await get(store, digest(data), len(data), GENERATION) == data


def test_acknowledged_chunks_that_the_index_lost_are_found_in_the_tail(tmp_path: Path) -> None:
    folder = crashed(tmp_path / "a", tmp_path / "b", BODIES)
    forget_last(folder, 4)

    async def body(store: DiskStore) -> None:
        assert store.recovered.records == 4
        await everything_is_there(store, BODIES)
        moved = [copy for copy in await store.inventory(None, 10) if copy.segment != 1]
        assert len(moved) == 4, "copied to a segment of which the syncs are known to have succeeded"
        assert all(copy.state == NEW for copy in moved)
        kept = 64 + sum(record_bytes(len(data)) for data in BODIES[:2])
        assert os.path.getsize(segment_path(store.folder, 1)) == kept

    with_store(folder, body, Unsynced())

    async def again(store: DiskStore) -> None:
        assert store.recovered[:3] == (0, 0, 0)
        await everything_is_there(store, BODIES)

    with_store(folder, again, Unsynced())


@pytest.mark.parametrize("cut", [8, 12, 50, 96, 97, 1000, 1100])
def test_a_torn_end_is_dropped_without_a_word(tmp_path: Path, cut: int) -> None:
    folder = crashed(tmp_path / "a", tmp_path / "b", BODIES)
    forget_last(folder, 3)
    os.truncate(segment_path(str(folder), 1), 64 + sum(record_bytes(len(data)) for data in BODIES) - cut)

    async def body(store: DiskStore) -> None:
        assert store.recovered.damaged == 0
        await everything_is_there(store, BODIES[:5])
        with pytest.raises(NotHere):
            await get(store, digest(BODIES[5]), 10, GENERATION)

    with_store(folder, body, Unsynced())


@pytest.mark.parametrize("at", [0, 20, 95, 96, 600])
def test_damage_in_the_middle_of_a_tail_costs_one_record_and_is_reported(tmp_path: Path, at: int) -> None:
    folder = crashed(tmp_path / "a", tmp_path / "b", BODIES)
    forget_last(folder, 4)
    place = 64 + sum(record_bytes(len(data)) for data in BODIES[:3])
    with open(segment_path(str(folder), 1), "r+b") as file:
        file.seek(place + at)
        file.write(b"\xee\xdd")

    async def body(store: DiskStore) -> None:
        assert store.recovered.damaged == 1
        assert store.recovered.records == 3
        await everything_is_there(store, BODIES[:3] + BODIES[4:])
        with pytest.raises(NotHere):
            await get(store, digest(BODIES[3]), 10, GENERATION)

    with_store(folder, body, Unsynced())


def test_a_segment_inside_an_object_is_not_taken_for_records(tmp_path: Path) -> None:
    """Somebody stores a copy of a segment, and the record around it is damaged: its inside must not come alive."""
    folder = crashed(tmp_path / "a", tmp_path / "b", BODIES)
    used = 64 + sum(record_bytes(len(data)) for data in BODIES)
    inside = Path(segment_path(str(folder), 1)).read_bytes()[:used]
    outer = crashed(tmp_path / "c", tmp_path / "d", [BODIES[0], inside, BODIES[1]])
    forget_last(outer, 2)
    with open(segment_path(str(outer), 1), "r+b") as file:
        file.seek(64 + record_bytes(len(BODIES[0])))
        file.write(b"\0\0\0\0")

    async def body(store: DiskStore) -> None:
        assert {copy.digest for copy in await store.inventory(None, 10)} == {digest(BODIES[0]), digest(BODIES[1])}

    with_store(outer, body, Unsynced())


@pytest.mark.parametrize("how", ["gone", "garbage", "empty"])
def test_a_lost_index_is_built_again_from_the_disk(tmp_path: Path, how: str) -> None:
    folder = crashed(tmp_path / "a", tmp_path / "b", [*BODIES, LARGE], segment_bytes=3000)
    for name in os.listdir(folder):
        if name.startswith("index.sqlite"):
            if how == "gone":
                os.unlink(folder / name)
            else:
                (folder / name).write_bytes(b"" if how == "empty" else os.urandom(9000))

    async def body(store: DiskStore) -> None:
        assert store.recovered.records == len(BODIES)
        assert store.recovered.files == 1
        await everything_is_there(store, [*BODIES, LARGE])
        assert await store.damage(10) == []
        assert (await store.statistics()).unsettled == len(BODIES) + 1
        await everything_is_there(store, [*BODIES, LARGE])

    with_store(folder, body, Unsynced())


def test_files_are_compared_with_the_index_after_a_crash(tmp_path: Path) -> None:
    folder = crashed(tmp_path / "a", tmp_path / "b", [LARGE])
    database = sqlite3.connect(folder / "index.sqlite")
    database.execute("UPDATE chunk SET state=?", (SETTLED,))
    gone = Generation(SessionId(9), 9).pack()
    database.execute("INSERT INTO chunk SELECT digest, ?, size, segment, place, ?, due FROM chunk", (gone, SETTLED))
    database.execute("INSERT INTO chunk SELECT digest, zeroblob(16), size, segment, place, ?, due FROM chunk LIMIT 1",
                     (NEW,))
    database.commit()
    database.close()
    (folder / "incoming" / "left behind").write_bytes(b"x")
    (folder / "00" / "no chunk").write_bytes(b"x")

    async def body(store: DiskStore) -> None:
        assert await store.damage(10) == [(digest(LARGE), gone, "its file is missing")]
        assert os.listdir(folder / "incoming") == []
        assert {copy.generation for copy in await store.inventory(None, 10)} == {GENERATION.pack(), gone}
        await everything_is_there(store, [LARGE])

    with_store(folder, body, Unsynced())


def test_after_a_clean_stop_a_start_reads_nothing_again(tmp_path: Path) -> None:
    async def fill(store: DiskStore) -> None:
        for data in [*BODIES, LARGE]:
            await put(store, data, GENERATION)

    async def body(store: DiskStore) -> None:
        assert store.recovered[:3] == (0, 0, 0)
        await everything_is_there(store, [*BODIES, LARGE])

    with_store(tmp_path / "chunks", fill, Unsynced())
    with_store(tmp_path / "chunks", body, Unsynced())


def test_a_folder_serves_one_process(tmp_path: Path) -> None:
    async def body(store: DiskStore) -> None:
        second = open_store(tmp_path / "chunks")
        with pytest.raises(Refused, match="in use"):
            await second.start()

    with_store(tmp_path / "chunks", body, Unsynced())


@pytest.mark.parametrize("content", [None, b"", b"zz\n", b"0123\n"])
def test_a_folder_that_lost_its_incarnation_is_refused(tmp_path: Path, content: bytes | None) -> None:
    """A new one would make the cluster forget every copy here."""
    seen = []

    async def body(store: DiskStore) -> None:
        seen.append(store.incarnation)

    with_store(tmp_path / "chunks", body, Unsynced())
    with_store(tmp_path / "chunks", body, Unsynced())
    assert seen[0] == seen[1]
    path = tmp_path / "chunks" / "incarnation"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Refused, match="incarnation"):
        with_store(tmp_path / "chunks", body, Unsynced())


def test_a_dead_segment_gives_its_space_back(tmp_path: Path) -> None:
    async def body(store: DiskStore) -> None:
        for data in BODIES:
            await put(store, data, GENERATION)
        before = set(os.listdir(f"{store.folder}/segments"))
        for data in BODIES[:3]:
            await store.remove(await store.generations(digest(data)))
        assert set(os.listdir(f"{store.folder}/segments")) < before
        await everything_is_there(store, BODIES[3:])

    with_store(tmp_path / "chunks", body, Unsynced(), segment_bytes=2000)


def test_chunks_are_rescued_by_the_page_alone(tmp_path: Path) -> None:
    bodies = [*BODIES[:3], os.urandom(BLOCK_BYTES + 5), os.urandom(SMALL_BYTES_MAX + 5)]

    async def body(store: DiskStore) -> None:
        for data in bodies:
            await put(store, data, GENERATION)
        # Taken from a running node's folder, after an index that helps nobody.
        found = rescue.everything(image(tmp_path / "chunks", tmp_path / "copy").as_posix())
        assert found == {(digest(data), GENERATION.pack()): data for data in bodies}

    with_store(tmp_path / "chunks", body, Unsynced())


def test_a_rescue_by_the_page_alone_finds_all_that_the_index_knew(tmp_path: Path) -> None:
    """After a longer life: overlapping generations, deletions, restarts, a damaged copy put away. Without its index."""
    folder, chance = tmp_path / "chunks", random.Random(3)
    bodies: dict[tuple[bytes, bytes], bytes] = {}
    live: set[tuple[bytes, bytes]] = set()

    async def some_life(store: DiskStore) -> None:
        for number in range(40):
            generation = Generation(SessionId(chance.randrange(1, 4)), number)
            data = chance.choice([*BODIES, os.urandom(chance.randrange(1, 20_000))]) if number != 7 else LARGE
            name = await put(store, data, generation)
            bodies[name, generation.pack()] = data
        copies = await store.inventory(None, 1000)
        await store.remove(chance.sample(copies, 10))
        [hurt] = chance.sample(await store.inventory(None, 1000), 1)
        await store.put_away(hurt, "a test", "removed")
        live.clear()
        live.update(copy[:2] for copy in await store.inventory(None, 1000))

    for _ in range(3):
        with_store(folder, some_life, Unsynced())
    for name in ("index.sqlite", "index.sqlite-wal", "index.sqlite-shm"):
        (folder / name).unlink(missing_ok=True)
    found = rescue.everything(str(folder))
    assert live <= found.keys()
    assert all(bodies[name] == data for name, data in found.items())

    async def rebuilt(store: DiskStore) -> None:
        copies = {copy[:2] for copy in await store.inventory(None, 1000)}
        assert copies == found.keys(), "the product's own rebuild finds the same"

    with_store(folder, rebuilt, Unsynced())


def test_a_rescue_leaves_damaged_chunks_out(tmp_path: Path) -> None:
    async def body(store: DiskStore) -> None:
        for data in [*BODIES, LARGE]:
            await put(store, data, GENERATION)
        with open(segment_path(store.folder, 1), "r+b") as file:
            file.seek(64 + 96 + 10)
            file.write(b"!")
        with open(f"{store.folder}/{file_name(digest(LARGE), GENERATION.pack())}", "r+b") as file:
            file.seek(5000)
            file.write(b"damage")
        found = rescue.everything(store.folder)
        assert set(found.values()) == set(BODIES[1:])

    with_store(tmp_path / "chunks", body, Unsynced())


def test_a_crash_during_recovery_is_recovered_from(tmp_path: Path) -> None:
    """The index is gone and the start is killed at its first commits: the next one has everything again."""
    folder = crashed(tmp_path / "a", tmp_path / "b", [*BODIES, LARGE], segment_bytes=3000)
    for name in ("index.sqlite", "index.sqlite-wal"):
        (folder / name).unlink(missing_ok=True)

    class Failing(Disk):
        __slots__ = ("left",)

        def step(self, step: str, path: str) -> None:
            self.left -= 1
            if not self.left:
                raise OSError(5, "stopped")

    for left in range(1, 9):
        here = image(folder, tmp_path / "here")
        disk = Failing()
        disk.left = left
        store = open_store(here, disk)

        async def start(store: DiskStore = store) -> None:
            try:
                await store.start()
            except OSError:
                return
            await store.stop()

        asyncio.run(start())
        kill(store)

        async def body(store: DiskStore) -> None:
            await everything_is_there(store, [*BODIES, LARGE])
            for copy in await store.inventory(None, 100):
                assert await store.verify(copy)

        with_store(here, body, Unsynced())


@pytest.mark.parametrize("newest", ["the good one", "another one"])
def test_of_two_places_of_a_chunk_the_good_one_counts_when_the_index_is_lost(tmp_path: Path, newest: str) -> None:
    """A tail was copied, the power failed while it was cut, and the index is gone: what is left of the tail is found first,
    with a good header and bytes that never reached the disk."""
    data, generation = os.urandom(5000), GENERATION.pack()
    folder = tmp_path / "chunks"

    async def nothing(store: DiskStore) -> None:
        await put(store, b"something else", GENERATION)

    with_store(folder, nothing, Unsynced())
    for name in ("index.sqlite", "index.sqlite-wal", "index.sqlite-shm"):
        (folder / name).unlink(missing_ok=True)
    incarnation = bytes.fromhex((folder / "incarnation").read_text().strip())
    for number, body in ((2, bytes(5000)), (3, data), (4, None)):
        if number == 4 and newest == "the good one":
            continue
        home = os.urandom(8)
        raw = encode_segment_header(home, incarnation, number)
        if body is not None:
            table = block_table(data)
            raw += encode_header(digest(data), generation, len(data), table, home, 64) + body + table
        Path(segment_path(str(folder), number)).write_bytes(raw)

    async def body_(store: DiskStore) -> None:
        assert await get(store, digest(data), len(data), GENERATION) == data
        [copy] = await store.generations(digest(data))
        assert await store.verify(copy)
        assert await store.damage(10) == []

    with_store(folder, body_, Unsynced())


def test_reads_of_a_chunk_that_never_was_say_so(tmp_path: Path) -> None:
    async def body(store: DiskStore) -> None:
        with pytest.raises(NotHere):
            await store.read(digest(b"nothing"), GENERATION, 0, 1)
        with pytest.raises((Corrupt, NotHere)):
            await store.read(digest(b""), GENERATION, 0, 1)

    with_store(tmp_path / "chunks", body, Unsynced())
