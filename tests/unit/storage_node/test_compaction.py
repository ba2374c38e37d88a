"""Compaction: the space of deleted small chunks comes back, what lives is never out of reach, and no step may lose it."""

import asyncio
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from consensus.core.errors import ClusterError
from consensus.core.ids import Digest, NodeId, digest
from storage_node.care.compaction import _Emptying
from storage_node.care.compaction import compact as compact_node
from storage_node.chunk import HEADER_BYTES, record_bytes
from storage_node.disk_store import DiskStore
from storage_node.index import SETTLED
from storage_node.local import LocalReader
from storage_node.segments import segment_path
from storage_node.store import CompactionState
from tests.unit.consensus.crash import Stopped, Unsynced
from tests.unit.storage_node.cluster import Nodes, with_nodes
from tests.unit.storage_node.stores import (
    GENERATION,
    StoppingDisk,
    empty,
    get,
    image,
    kill,
    open_store,
    put,
    with_store,
)
from tests.unit.storage_node.test_damage import flip

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")

BODIES = [os.urandom(3000 + number) for number in range(60)]
"""Some six to a segment of 20,000 bytes."""


async def fill(store: DiskStore, bodies: list[bytes] = BODIES) -> None:
    for data in bodies:
        await put(store, data, GENERATION)
    await store.mark([(copy, SETTLED, 0) for copy in await store.inventory(None, 1000)])


async def remove(store: DiskStore, bodies: list[bytes]) -> None:
    for data in bodies:
        await store.remove(await store.generations(digest(data)))


async def compact(store: DiskStore, percent: int = 0) -> CompactionState:
    return await store.compactor.round(percent)


def segment_files(store: DiskStore) -> list[str]:
    return sorted(os.listdir(f"{store.folder}/segments"))


async def consistent(store: DiskStore, living: list[bytes]) -> None:
    """Every living copy reads right and is still settled; the counters of segments say what is there."""
    for data in living:
        assert await get(store, digest(data), len(data), GENERATION) == data
    copies = await store.inventory(None, 1000)
    assert {copy.digest for copy in copies} == {digest(data) for data in living}
    assert all(copy.state == SETTLED for copy in copies)
    for row in store._index.segments():
        here = store._index.copies_in(row.number)
        assert row.live == len(here)
        assert row.used - row.dead - 64 == sum(record_bytes(copy.size) for copy in here)


def test_the_space_of_the_dead_comes_back(tmp_path: Path) -> None:
    async def body(store: DiskStore) -> None:
        await fill(store)
        before = segment_files(store)
        living = BODIES[::10]
        await remove(store, [data for data in BODIES if data not in living])
        used = sum(row.used for row in store._index.segments())
        state = await compact(store)
        await consistent(store, living)
        assert not state.running
        assert not state.error
        assert state.done == state.segments > 3
        assert state.moved_chunks == len(living)
        assert set(segment_files(store)).isdisjoint(before), "all that was there was mostly dead"
        assert len(segment_files(store)) <= 2
        assert state.returned_bytes == used - state.moved_bytes > 5 * state.moved_bytes
        assert (await compact(store)).segments == 0, "nothing is moved twice"

    with_store(tmp_path / "chunks", body, Unsynced())


def test_a_threshold_is_kept(tmp_path: Path) -> None:
    async def body(store: DiskStore) -> None:
        await fill(store, BODIES[:12])
        await remove(store, BODIES[:2])                 # a third of the first segment
        number = int(segment_files(store)[0][:-4], 16)
        assert (await compact(store, 40)).segments == 0
        assert os.path.exists(segment_path(store.folder, number))
        assert (await compact(store, 20)).done == 1
        assert not os.path.exists(segment_path(store.folder, number))
        await consistent(store, BODIES[2:12])

    with_store(tmp_path / "chunks", body, Unsynced())


def test_when_everything_is_deleted_nothing_is_left(tmp_path: Path) -> None:
    """Also not the segment that was being written, nor what was allocated ahead in it."""
    async def body(store: DiskStore) -> None:
        await fill(store, BODIES[:9])
        assert store._segments.allocated_ahead > 0
        await remove(store, BODIES[:9])
        await compact(store)
        assert segment_files(store) == []
        assert store._index.segments() == []
        assert store._segments.allocated_ahead == 0
        await fill(store, BODIES[9:11])
        await consistent(store, BODIES[9:11])

    with_store(tmp_path / "chunks", body, Unsynced())


def test_numbers_are_never_used_twice(tmp_path: Path) -> None:
    """Readers in other processes remember a segment by its number, over a restart of the node too."""
    used: list[str] = []

    async def body(store: DiskStore) -> None:
        await fill(store, BODIES[:3])
        used.extend(segment_files(store))
        await remove(store, BODIES[:3])
        await compact(store)

    for _ in range(3):
        with_store(tmp_path / "chunks", body, Unsynced())
    assert len(set(used)) == len(used) == 3


@pytest.mark.parametrize("at", [10, HEADER_BYTES + 100])
def test_a_damaged_record_stays_and_is_reported(tmp_path: Path, at: int) -> None:
    """In its header, which then isn't found by a scan, or in its bytes."""
    async def body(store: DiskStore) -> None:
        await fill(store, BODIES[:6])
        victim = (await store.generations(digest(BODIES[3])))[0]
        flip(Path(segment_path(store.folder, victim.segment)), victim.place + at)
        await remove(store, BODIES[:2])
        state = await compact(store)
        assert state.kept_chunks == 1
        assert [name[0] for name in await store.damage(10)] == [digest(BODIES[3])]
        assert (await store.generations(digest(BODIES[3])))[0] == victim, "the damaged bytes stay where they were"
        assert (await compact(store)).segments == 0, "it isn't tried again while nothing has changed"
        for data in (BODIES[2], *BODIES[4:6]):
            moved = (await store.generations(digest(data)))[0]
            assert moved.segment != victim.segment
            assert await get(store, digest(data), len(data), GENERATION) == data
        await remove(store, [BODIES[3]])
        assert not os.path.exists(segment_path(store.folder, victim.segment)), "its last chunk has gone"

    with_store(tmp_path / "chunks", body, Unsynced())


def test_a_copy_that_goes_while_it_is_moved_stays_gone(tmp_path: Path) -> None:
    async def body(store: DiskStore) -> None:
        await fill(store, BODIES[:8])
        row = store._index.segments()[0]
        emptying = _Emptying(store.folder, row)
        batch, _ = emptying.step()
        emptying.close()
        await remove(store, BODIES[:1])
        await asyncio.gather(*(store._segments.put(record) for record in batch))
        assert await store.generations(digest(BODIES[0])) == []
        await consistent(store, BODIES[1:8])

    with_store(tmp_path / "chunks", body, Unsynced())


def test_a_copy_that_is_healed_while_it_is_moved_keeps_its_new_place(tmp_path: Path) -> None:
    async def body(store: DiskStore) -> None:
        await fill(store, BODIES[:8])
        emptying = _Emptying(store.folder, store._index.segments()[0])
        batch, _ = emptying.step()
        emptying.close()
        copy = (await store.generations(digest(BODIES[0])))[0]
        store._index.damaged(*copy[:2], "a test", 0)
        await put(store, BODIES[0], GENERATION)
        healed = (await store.generations(digest(BODIES[0])))[0]
        assert healed.segment != copy.segment or healed.place != copy.place
        await asyncio.gather(*(store._segments.put(record) for record in batch))
        assert (await store.generations(digest(BODIES[0])))[0] == healed
        await consistent(store, BODIES[:8])

    with_store(tmp_path / "chunks", body, Unsynced())


def test_a_copy_that_is_settled_while_it_moves_stays_settled_and_old_places_remove_nothing(tmp_path: Path) -> None:
    async def body(store: DiskStore) -> None:
        await fill(store, BODIES[:8])
        old = (await store.generations(digest(BODIES[5])))[0]
        await remove(store, BODIES[:4])
        await compact(store)
        await store.remove([old])                       # as the metadata was asked about it: it is asked again
        await consistent(store, BODIES[4:8])

    with_store(tmp_path / "chunks", body, Unsynced())


def test_readers_never_miss_what_moves(tmp_path: Path) -> None:
    """Two readers, as a gateway's and the node's own, at full speed, by both ways of reading, over several moves."""
    async def body(store: DiskStore) -> None:
        await fill(store)
        living = list(BODIES[::6])
        reader = LocalReader(store.folder)
        reads = 0
        for data in living:                             # its places are remembered, its files open
            assert reader.read_now(digest(data), GENERATION.pack(), 0, len(data)) == data

        async def hammer() -> None:
            nonlocal reads
            while True:
                for data in list(living):
                    name = digest(data)
                    now = reader.read_now(name, GENERATION.pack(), 0, len(data))
                    assert now in (None, data)
                    located = reader.locate(name, GENERATION.pack())
                    await asyncio.sleep(0)              # others may move it now
                    assert await reader.read(located, 5, 100) == data[5:105]
                    assert await store.verify((await store.generations(name))[0])
                    assert await get(store, name, len(data), GENERATION) == data
                    reads += 1

        hammering = [asyncio.create_task(hammer()) for _ in range(3)]
        await remove(store, [data for data in BODIES if data not in living])
        moves = 0
        for number in range(10):
            moves += (await compact(store)).moved_chunks
            more = [os.urandom(4000 + number) for _ in range(20)]
            await fill(store, more)                     # so that there is more to move
            living += more[::5]
            await remove(store, [data for data in more if data not in living])
        for task in hammering:
            assert not task.done(), task.result()
            task.cancel()
        await asyncio.gather(*hammering, return_exceptions=True)
        reader.close()
        assert await store.damage(10) == []
        assert reads > 50
        assert moves > 40

    with_store(tmp_path / "chunks", body, Unsynced())


def test_a_reader_whose_place_is_stale_looks_again(tmp_path: Path) -> None:
    """With and without the old file open; and an open file without a name is let go of, though it is read all the time."""
    async def body(store: DiskStore) -> None:
        await fill(store, BODIES[:8])
        data = BODIES[5]
        reader = LocalReader(store.folder)

        def read_now() -> bytes | None:
            return reader.read_now(digest(data), GENERATION.pack(), 0, len(data))

        assert read_now() == data
        located = reader.locate(digest(data), GENERATION.pack())
        old = (located.segment, b"", b"")
        await remove(store, BODIES[:4])
        await compact(store)
        assert not os.path.exists(segment_path(store.folder, located.segment))
        assert old in reader._open
        assert read_now() == data, "from the file that it has open"
        reader._sweep()
        assert old not in reader._open, "its space would not come back"
        assert read_now() == data
        reader._places[digest(data) + GENERATION.pack()] = (located.size, located.segment, located.place, 0)
        assert read_now() == data, "a stale place without a file behind it"
        assert await reader.read(located, 0, len(data)) == data
        reader.close()

    with_store(tmp_path / "chunks", body, Unsynced())


def test_puts_go_on_meanwhile(tmp_path: Path) -> None:
    async def body(store: DiskStore) -> None:
        await fill(store)
        await remove(store, BODIES[::2])
        new = [os.urandom(2000 + number) for number in range(100)]
        _, *names = await asyncio.gather(compact(store), *(put(store, data, GENERATION) for data in new))
        assert len(names) == 100
        await store.mark([(copy, SETTLED, 0) for copy in await store.inventory(None, 1000)])
        await consistent(store, BODIES[1::2] + new)

    with_store(tmp_path / "chunks", body, Unsynced())


def test_a_failing_disk_ends_a_round_and_the_next_goes_on(tmp_path: Path) -> None:
    class Failing(Unsynced):
        failing = False

        def writev(self, fd, buffers, step):  # type: ignore[no-untyped-def]
            if self.failing:
                raise OSError(5, "injected")
            super().writev(fd, buffers, step)

    disk = Failing()

    async def body(store: DiskStore) -> None:
        await fill(store)
        await remove(store, BODIES[::2])
        disk.failing = True
        state = await compact(store)
        assert "injected" in state.error
        assert not state.running
        disk.failing = False
        assert not (await compact(store)).error
        await consistent(store, BODIES[1::2])

    with_store(tmp_path / "chunks", body, disk)


def test_asking_wakes_it(tmp_path: Path) -> None:
    async def body(store: DiskStore) -> None:
        await fill(store)
        await remove(store, BODIES[::2])
        run = store.compact(10)
        async with asyncio.timeout(10):
            while store.compaction.run < run or store.compaction.running:
                await asyncio.sleep(0.005)
        assert store.compaction.done > 3
        await consistent(store, BODIES[1::2])

    with_store(tmp_path / "chunks", body, Unsynced())


def test_a_node_is_asked_over_its_socket_and_tells_how_it_goes() -> None:
    async def body(nodes: Nodes) -> None:
        bodies = [os.urandom(60_000) for _ in range(60)]
        for data in bodies:
            await nodes.write(data)
        store = nodes.servers["n1"].store
        await remove(store, bodies[1:])  # type: ignore[arg-type]
        told: list[CompactionState] = []
        client = nodes.replicas.client(nodes.metadata.map[NodeId("n1")])
        state = await compact_node(client, 10, told.append)
        assert state == told[-1]
        assert not state.error
        assert state.moved_chunks == 1
        assert (await client.compaction()) == state
        assert await get(store, digest(bodies[0]), 60_000) == bodies[0]

    with_nodes(1, body)


# Crashes

LIVING = BODIES[1:9:3]


async def compaction_work(store: DiskStore, acknowledged: dict[Digest, bytes]) -> None:
    """From a folder in which the dead are dead: one segment is emptied while a put comes, then the rest goes."""
    await store.start()
    acknowledged.update({digest(data): data for data in LIVING})
    emptying = asyncio.ensure_future(compact(store))
    name = await put(store, BODIES[20], GENERATION)
    acknowledged[name] = BODIES[20]
    await emptying
    await remove(store, [LIVING[0]])
    acknowledged.pop(digest(LIVING[0]))
    await compact(store)
    await store.stop()


@pytest.fixture
def half_dead(fast: Path) -> Path:
    """Nine chunks, of which three live."""
    async def body(store: DiskStore) -> None:
        await fill(store, BODIES[:9])
        await remove(store, [data for data in BODIES[:9] if data not in LIVING])

    (fast / "half").mkdir()
    empty(fast / "half" / "chunks")
    with_store(fast / "half" / "chunks", body, Unsynced())
    (fast / "after").mkdir()
    return fast


@pytest.fixture
def fast(tmp_path: Path) -> Iterator[Path]:
    folder = Path(f"/dev/shm/compaction-{os.getpid()}") if os.access("/dev/shm", os.W_OK) else tmp_path
    folder.mkdir(exist_ok=True)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def stopped_at(fast: Path, step: tuple[str, int] | None) -> tuple[StoppingDisk, dict[Digest, bytes], DiskStore, bool]:
    folder = fast / ("{}{}".format(*step) if step else "whole") / "chunks"
    folder.parent.mkdir()
    image(fast / "half" / "chunks", folder)
    disk = StoppingDisk(folder)
    disk.stop_on = step
    store = open_store(folder, disk)
    acknowledged: dict[Digest, bytes] = {}

    async def main() -> bool:
        stopped = disk.watch()
        work = asyncio.ensure_future(compaction_work(store, acknowledged))
        await asyncio.wait((stopped, work), return_when=asyncio.FIRST_COMPLETED)
        kill(store)
        over = work.done() and work.exception() is None
        if work.done() and not isinstance(work.exception(), Stopped | ClusterError | None):
            raise work.exception()  # type: ignore[misc]
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        return over

    over = asyncio.run(main())
    store._workers.shutdown()                           # one of them may be about to close the index
    return disk, acknowledged, store, over


def check(folder: Path, acknowledged: dict[Digest, bytes]) -> None:
    async def body(store: DiskStore) -> None:
        assert store._index.damage(10) == []
        for again in range(2):
            for name, data in acknowledged.items():
                assert await get(store, name, len(data), GENERATION) == data
            for copy in await store.inventory(None, 100):
                assert await store.verify(copy), copy
            for row in store._index.segments():
                assert row.live == len(store._index.copies_in(row.number))
            if not again:
                assert not (await compact(store)).error

    with_store(folder, body, Unsynced())


STEPS = {"segment.write", "segment.fdatasync", "index.commit", "index.synced", "segment.unlink",
         "segment.unlink_fsync_dir", "segment.truncate", "segment.header_fdatasync"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["crash", "power cut"])
def test_no_step_of_compaction_may_lose_a_chunk(half_dead: Path, kind: str) -> None:
    whole, _, store, over = stopped_at(half_dead, None)
    assert over
    assert set(whole.steps) >= STEPS
    steps = [(step, number) for step in sorted(set(whole.steps)) for number in range(whole.steps.count(step))]
    stops = 0
    for step in steps:
        disk, acknowledged, store, over = stopped_at(half_dead, step)
        stops += not over
        if kind == "crash":
            check(image(Path(store.folder), half_dead / "after" / "chunks"), acknowledged)
        else:
            for seed in range(2):
                disk.cut_power(seed, half_dead / "after")
                check(half_dead / "after" / "chunks", acknowledged)
        if hasattr(store, "_index"):
            store._index.close()
    print(f"\n{kind}: {stops} stops of {len(steps)} steps")
    assert stops > 0.8 * len(steps)
    assert threading.active_count() < 1000
