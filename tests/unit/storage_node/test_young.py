"""Copies that the index's table has not got yet: found by everybody, settled at once, and there after a kill."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from consensus.core.errors import Unavailable
from consensus.core.ids import Digest, digest
from consensus.disk import Disk
from storage_node.chunk import record_bytes
from storage_node.disk_store import DiskStore
from storage_node.index import INDEX_NAME, NEW, SETTLED, Index, Row
from storage_node.index_reader import IndexReader
from storage_node.young import YOUNG_MAX
from tests.contract.chunk_store import get, put
from tests.unit.consensus.crash import Unsynced
from tests.unit.storage_node.stores import GENERATION, image, open_store, with_store

BODIES = [bytes((number,)) * (500 + number) for number in range(9)]
PACKED = GENERATION.pack()


def rows(count: int, first: int = 0) -> list[Row]:
    """Records of a hundred bytes each in segment 1, as if one stood beside the other."""
    each = record_bytes(100)
    return [Row(digest(number.to_bytes(4, "big")), PACKED, 100, 1, 64 + each * number, 5)
            for number in range(first, first + count)]


def end_of(added: list[Row]) -> int:
    return added[-1].place + record_bytes(100)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    index = Index(str(tmp_path), Disk())
    index.open_segment(1, bytes(8))
    yield index
    index.close()


def count(folder: Path, table: str) -> int:
    with closing(sqlite3.connect(folder / INDEX_NAME)) as db:
        found: int = db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        return found


def used(folder: Path) -> tuple[int, int]:
    with closing(sqlite3.connect(folder / INDEX_NAME)) as db:
        found: tuple[int, int] = db.execute("SELECT used, live FROM segment").fetchone()
        return found


def test_a_copy_comes_into_the_table_with_the_state_that_it_has_got(tmp_path: Path, index: Index) -> None:
    added = rows(10)
    index.add(added[:6], 1, end_of(added[:6]))
    index.add(added[6:], 1, end_of(added))
    assert (count(tmp_path, "young"), count(tmp_path, "chunk")) == (2, 0)
    due = index.due(5, 100)
    assert [(copy.digest, copy.state, copy.due) for copy in due] == [(row.digest, NEW, 5) for row in added]
    assert index.due(4, 100) == []
    assert index.due(5, 3) == due[:3]
    index.mark([(SETTLED, 0, *due[4][:2]), (NEW, 9, *due[2][:2])])
    assert (count(tmp_path, "young"), count(tmp_path, "chunk")) == (2, 5), "those before it have come along"
    assert used(tmp_path) == (added[5].place, 5)
    assert {copy.digest for copy in index.due(5, 100)} == {row.digest for place, row in enumerate(added) if place not in (2, 4)}
    assert {copy.digest: copy.state for copy in index.page(None, 100)} == \
        {row.digest: SETTLED if place == 4 else NEW for place, row in enumerate(added)}
    assert used(tmp_path) == (end_of(added), 10)
    index.mark([(SETTLED, 0, *added[9][:2])])
    assert index.find(*added[9][:2])[5] == SETTLED  # type: ignore[index]


LOOKS: list[Callable[[Index], object]] = [
    lambda index: index.generations(rows(1)[0].digest),
    lambda index: index.unsettled(None, 10),
    lambda index: index.copies_in(1),
    lambda index: [index.find(*rows(1)[0][:2])],
    lambda index: index.find_all([rows(1)[0][:2]]),
    lambda index: index.page(None, 10),
]


@pytest.mark.parametrize("look", LOOKS)
def test_whoever_looks_finds_it(index: Index, look: Callable[[Index], object]) -> None:
    (row,) = rows(1)
    index.add([row], 1, end_of([row]))
    assert look(index) == [(*row[:5], NEW, 5)]
    index.remove(index.page(None, 10))
    assert look(index) in ([], [None])


def test_counts_know_of_it(index: Index) -> None:
    added = rows(3)
    index.add(added, 1, end_of(added))
    assert index.totals()[:3] == (3, 300, 3)
    index.add(rows(1, 3), 1, end_of(rows(1, 3)))
    assert not index.seal_segment(1)
    (segment,) = index.segments()
    assert (segment.used, segment.live, segment.dead) == (end_of(rows(1, 3)), 4, 0)


def test_a_name_that_comes_again_keeps_its_first_place(tmp_path: Path, index: Index) -> None:
    first, again = rows(1)[0], rows(1, 7)[0]._replace(digest=rows(1)[0].digest)
    index.add([first], 1, end_of([first]))
    index.add([again], 1, end_of([again]))
    (copy,) = index.page(None, 10)
    assert copy.place == first.place
    index.add([again._replace(place=again.place + 4096)], 1, end_of([again]) + 4096)
    assert index.page(None, 10) == [copy]
    assert used(tmp_path) == (end_of([again]) + 4096, 1)
    assert index.segments()[0].dead == 2 * record_bytes(100)


def test_a_name_that_comes_twice_at_once_takes_no_other_away(tmp_path: Path, index: Index) -> None:
    """It was marked as if all up to its second place were in the table, so what lay between was found by nobody."""
    first, between = rows(2)
    again = rows(1, 2)[0]._replace(digest=first.digest)
    index.add([first, between, again], 1, end_of([again]))
    index.mark([(SETTLED, 0, *first[:2])])
    with closing(IndexReader(str(tmp_path))) as reader:
        assert reader.find(*between[:2]) == (*between[2:5], NEW)
        assert reader.find(*first[:2]) == (*first[2:5], SETTLED)
    assert [(segment.live, segment.dead) for segment in index.segments()] == [(2, record_bytes(100))]


def test_what_cannot_be_committed_has_not_come(tmp_path: Path) -> None:
    class Failing(Disk):
        fails = False

        def step(self, step: str, path: str) -> None:
            if self.fails:
                raise sqlite3.OperationalError("disk I/O error")

    disk = Failing()
    with closing(Index(str(tmp_path), disk)) as index:
        index.open_segment(1, bytes(8))
        index.add(rows(2), 1, end_of(rows(2)))
        disk.fails = True
        for attempt in (lambda: index.add(rows(1, 2), 1, end_of(rows(1, 2))), lambda: index.page(None, 9),
                        lambda: index.mark([(SETTLED, 0, *rows(1)[0][:2])])):
            with pytest.raises(Unavailable):
                attempt()
        assert len(index.due(5, 10)) == 2
        disk.fails = False
        index.add(rows(1, 2), 1, end_of(rows(3)))
        assert len(index.page(None, 9)) == 3
        assert used(tmp_path) == (end_of(rows(3)), 3)


def test_they_are_not_left_to_become_too_many(tmp_path: Path, index: Index) -> None:
    for first in range(0, YOUNG_MAX + 300, 300):
        index.add(rows(300, first), 1, end_of(rows(300, first)))
    assert count(tmp_path, "chunk") >= 300


def test_who_reads_beside_finds_each_at_once_and_for_ever(tmp_path: Path, index: Index) -> None:
    """While others bring them in as they are added."""
    stop = threading.Event()

    def bring_in() -> None:
        while not stop.is_set():
            index.mark([(SETTLED, 0, *copy[:2]) for copy in index.due(5, 3)])

    other = threading.Thread(target=bring_in)
    other.start()
    try:
        with closing(IndexReader(str(tmp_path))) as reader:
            for number in range(300):
                (row,) = added = rows(1, number)
                index.add(added, 1, end_of(added))
                assert reader.find(*row[:2])[:3] == row[2:5]  # type: ignore[index]
                assert reader.others(row.digest) == [row[1:5]]
            assert reader.find(Digest(bytes(32)), PACKED) is None
            for row in rows(300):
                assert reader.find(*row[:2])[:3] == row[2:5]  # type: ignore[index]
    finally:
        stop.set()
        other.join()
    assert index.totals().chunks == 300
    assert used(tmp_path) == (end_of(rows(300)), 300)


def test_what_comes_into_the_table_between_two_looks_is_found(tmp_path: Path, index: Index,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    def late(reader: IndexReader) -> None:
        index.page(None, 1)
        look(reader)

    look = IndexReader._look_at_young
    monkeypatch.setattr(IndexReader, "_look_at_young", late)
    (row,) = added = rows(1)
    index.add(added, 1, end_of(added))
    with closing(IndexReader(str(tmp_path))) as reader:
        assert reader.find(*row[:2])[:3] == row[2:5]  # type: ignore[index]


def killed(folder: Path, target: Path) -> Path:
    """The folder of a store that was killed when it had stored nine chunks, of which the first three were asked about."""
    async def main() -> None:
        store = open_store(folder, Unsynced(), 1 << 20)
        await store.start()
        for data in BODIES[:3]:
            await put(store, data, GENERATION)
        await store.mark([(copy, SETTLED, 0) for copy in await store.due(store.clock.now_ms(), 9)])
        for data in BODIES[3:]:
            await put(store, data, GENERATION)
        image(folder, target)
        await store.stop()

    asyncio.run(main())
    return target


async def all_nine(store: DiskStore) -> None:
    for data in BODIES:
        assert await get(store, digest(data), len(data), GENERATION) == data
    assert [copy.state for copy in await store.inventory(None, 99)].count(SETTLED) == 3
    assert len(await store.inventory(None, 99)) == 9


def test_after_a_kill_nothing_is_read_again(tmp_path: Path) -> None:
    folder = killed(tmp_path / "a", tmp_path / "b")
    assert count(folder, "young") == 6

    async def body(store: DiskStore) -> None:
        assert store.recovered.records == 0
        await all_nine(store)

    with_store(folder, body, Unsynced())


def test_a_staddle_that_knows_no_young_copies_finds_them_in_the_tail(tmp_path: Path) -> None:
    """And what it has left of them in the table is no news to one that does."""
    folder = killed(tmp_path / "a", tmp_path / "b")
    with closing(sqlite3.connect(folder / INDEX_NAME, isolation_level=None)) as db:
        young = db.execute("SELECT * FROM young").fetchall()
        db.execute("DELETE FROM young")

    async def older(store: DiskStore) -> None:
        assert store.recovered.records == 6
        await all_nine(store)

    with_store(folder, older, Unsynced())
    with closing(sqlite3.connect(folder / INDEX_NAME, isolation_level=None)) as db:
        db.executemany("INSERT INTO young VALUES(?,?)", young)
        segments = db.execute("SELECT * FROM segment").fetchall()

    async def newer(store: DiskStore) -> None:
        assert store.recovered.records == 0
        await all_nine(store)
        assert store.index.segments()[:len(segments)] == segments

    with_store(folder, newer, Unsynced())


@pytest.mark.parametrize("copies", ["substr(copies,1,40)",                                # no whole copy
                                    "substr(copies,1,55)||x'09'||substr(copies,57)",       # no such segment
                                    "substr(copies,1,60)||x'04'||substr(copies,62)"])      # far behind
def test_damaged_ones_are_found_in_the_tail(tmp_path: Path, copies: str) -> None:
    """The node did not start, or took the place where one was said to be for the end of the segment."""
    folder = killed(tmp_path / "a", tmp_path / "b")
    with closing(sqlite3.connect(folder / INDEX_NAME, isolation_level=None)) as db:
        last = db.execute("SELECT last FROM young ORDER BY last LIMIT 1 OFFSET 2").fetchone()
        db.execute(f"UPDATE young SET copies=CAST({copies} AS BLOB) WHERE last=?", last)

    async def body(store: DiskStore) -> None:
        assert store.recovered.records == 4
        await all_nine(store)

    with_store(folder, body, Unsynced())
    assert count(folder, "young") == 0


@pytest.mark.parametrize("table", ["young", "segment"])
def test_an_index_whose_tables_are_damaged_is_built_again(tmp_path: Path, table: str) -> None:
    """As one that is no database at all; the node did not start before somebody moved the file away."""
    folder = killed(tmp_path / "a", tmp_path / "b")
    with closing(sqlite3.connect(folder / INDEX_NAME, isolation_level=None)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        page, size = db.execute("SELECT rootpage, (SELECT page_size FROM pragma_page_size) FROM sqlite_master WHERE name=?",
                                (table,)).fetchone()
    with open(folder / INDEX_NAME, "r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\x77" * size)

    async def body(store: DiskStore) -> None:
        assert store.recovered.records == len(BODIES)
        for data in BODIES:
            assert await get(store, digest(data), len(data), GENERATION) == data

    with_store(folder, body, Unsynced())
    assert len(list(folder.glob(f"{INDEX_NAME}.damaged-*"))) == 1
