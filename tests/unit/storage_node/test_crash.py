"""Promise 1 on one disk: what was acknowledged survives a crash at every step, and a power cut at every step.

The work is small on purpose: it is done once for each of its durable steps, stopped one step later each time. A crash
leaves all that was written; a power cut leaves what was synced, and any part of the rest.
"""

import asyncio
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from consensus.core.errors import Unavailable
from consensus.core.ids import Digest, digest
from storage_node.chunk import SMALL_BYTES_MAX
from storage_node.disk_store import DiskStore
from tests.unit.consensus.crash import Stopped, Unsynced
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

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")

BODIES = [bytes((number,)) * (3000 + 500 * number) for number in range(10)]
LARGE = [os.urandom(SMALL_BYTES_MAX + 10), os.urandom(SMALL_BYTES_MAX + 300_000)]


class Work:
    """Puts and removals, and what was acknowledged of them."""

    def __init__(self) -> None:
        self.acknowledged: dict[Digest, bytes] = {}
        self.leaving: set[Digest] = set()
        self.over = False

    async def run(self, store: DiskStore) -> None:
        await store.start()
        await asyncio.gather(*(self._put(store, data) for data in BODIES[:3]))
        await self._put(store, LARGE[0])
        await self._put(store, BODIES[0])
        await self._remove(store, BODIES[1])
        for data in BODIES[3:8]:                      # a second segment, and a third
            await self._put(store, data)
        await self._put(store, LARGE[1])
        await self._remove(store, LARGE[0])
        for data in BODIES[:5]:                       # nothing is left in the first segment
            await self._remove(store, data)
        await store.stop()
        self.over = True

    async def _put(self, store: DiskStore, data: bytes) -> None:
        name = await put(store, data, GENERATION)
        self.acknowledged[name] = data

    async def _remove(self, store: DiskStore, data: bytes) -> None:
        self.leaving.add(digest(data))
        await store.remove(await store.generations(digest(data)))

    def stop_at(self, disk: StoppingDisk, folder: Path) -> DiskStore:
        """Do it until the disk stops. The store is left as a dead process leaves it."""
        store = open_store(folder, disk)

        async def main() -> None:
            stopped = disk.watch()
            work = asyncio.ensure_future(self.run(store))
            await asyncio.wait((stopped, work), return_when=asyncio.FIRST_COMPLETED)
            kill(store)
            if work.done() and work.exception() is not None and not isinstance(work.exception(), Stopped):
                raise work.exception()
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

        asyncio.run(main())
        store._workers.shutdown()                     # one of them may be about to close the index
        return store

    def check(self, folder: Path) -> None:
        """Everything acknowledged is there, everything there is good, and it goes on from here."""
        async def body(store: DiskStore) -> None:
            for name, data in self.acknowledged.items():
                if name not in self.leaving:
                    assert await get(store, name, len(data), GENERATION) == data
            for copy in await store.inventory(None, 100):
                if copy.digest not in self.leaving:
                    assert await store.verify(copy), copy
            new = os.urandom(5000)
            assert await get(store, await put(store, new, GENERATION), 5000, GENERATION) == new
            assert store._index.damage(10) == []
            for segment in store._index.segments():
                assert segment.live == len(store._index.copies_in(segment.number))

        with_store(folder, body, Unsynced())


def every_step(fast: Path, check) -> Counter[str]:  # type: ignore[no-untyped-def]
    """Returns the names of the steps and how often each was the one to stop at."""
    disk, work, _ = stopped_at(fast, "whole", None)
    assert work.over
    steps = Counter(disk.steps)
    stops: Counter[str] = Counter()
    for step, count in steps.items():
        for occurrence in range(count):
            disk, work, store = stopped_at(fast, f"{step}{occurrence}", (step, occurrence))
            if not work.over:
                stops[step] += 1
                check(sum(stops.values()), disk, work, Path(store.folder))
            if hasattr(store, "_index"):
                store._index.close()
    assert sum(stops.values()) > 0.9 * sum(steps.values())
    return stops


def stopped_at(fast: Path, name: str, step: tuple[str, int] | None) -> tuple[StoppingDisk, Work, DiskStore]:
    folder = fast / name / "chunks"
    folder.parent.mkdir()
    image(fast / "empty" / "chunks", folder)
    disk = StoppingDisk(folder)
    disk.stop_on = step
    work = Work()
    return disk, work, work.stop_at(disk, folder)


@pytest.fixture
def fast() -> Iterator[Path]:
    """A folder in memory where there is one: the disks of these tests keep their own account of what is synced."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        yield Path(folder)


@pytest.fixture
def prepared(fast: Path) -> Path:
    (fast / "empty").mkdir()
    empty(fast / "empty" / "chunks")
    return fast


EXPECTED = {
    "segment.header", "segment.header_fdatasync", "segment.fsync_dir", "segment.allocate", "segment.write",
    "segment.ahead", "segment.fdatasync", "segment.truncate", "segment.unlink", "index.commit", "index.synced", "open",
    "file.write", "file.table", "file.header", "file.fdatasync", "file.rename", "file.fsync_dir", "store.unlink",
}


@pytest.mark.slow
def test_a_crash_at_any_step_loses_nothing_acknowledged(prepared: Path) -> None:
    def check(number: int, disk: StoppingDisk, work: Work, folder: Path) -> None:
        work.check(image(folder, prepared / "after" / "chunks"))

    (prepared / "after").mkdir()
    stops = every_step(prepared, check)
    print(f"\n{sum(stops.values())} steps:", *(f"{step} x{count}" for step, count in sorted(stops.items())), sep="\n  ")
    assert set(stops) >= EXPECTED


@pytest.mark.slow
def test_a_power_cut_at_any_step_loses_nothing_acknowledged(prepared: Path) -> None:
    def check(number: int, disk: StoppingDisk, work: Work, folder: Path) -> None:
        for seed in (2 * number, 2 * number + 1):
            disk.cut_power(seed, prepared / "after")
            work.check(prepared / "after" / "chunks")

    assert set(every_step(prepared, check)) >= EXPECTED


def test_without_syncs_a_power_cut_does_lose_something(prepared: Path) -> None:
    """The control: had the tests above passed with this disk, they would prove nothing."""
    folder = prepared / "broken" / "chunks"
    folder.parent.mkdir()
    image(prepared / "empty" / "chunks", folder)
    disk = StoppingDisk(folder)
    disk.broken_sync = True
    work = Work()
    store = open_store(folder, disk)

    async def main() -> None:
        disk.watch()
        await store.start()
        for data in [*BODIES, LARGE[0]]:
            await work._put(store, data)
        disk.stop_at = 0                              # the cut
        kill(store)

    asyncio.run(main())
    lost = 0
    for seed in range(6):
        disk.cut_power(seed, prepared / "after")
        try:
            work.check(prepared / "after" / "chunks")
        except Exception:
            lost += 1
    assert lost
    store._index.close()


def test_a_crash_while_the_folder_is_made_is_repaired(fast: Path) -> None:
    for number in [*range(8), 100, 250, *range(258, 268)]:
        folder = fast / f"new{number}" / "chunks"
        folder.parent.mkdir()
        disk = StoppingDisk(folder)
        disk.stop_at = number
        work = Work()
        store = work.stop_at(disk, folder)
        for variant in range(3):
            disk.cut_power(variant, fast / "after")
            work.check(fast / "after" / "chunks")
        if hasattr(store, "_index"):
            store._index.close()


@pytest.mark.parametrize("step", ["segment.write", "segment.fdatasync", "segment.header_fdatasync", "segment.fsync_dir",
                                  "segment.header"])
def test_a_failed_step_is_not_acknowledged_and_the_next_put_works(fast: Path, step: str) -> None:
    """R7: the file is given up, not synced again. A power cut afterwards loses nothing acknowledged."""
    folder = fast / "data" / "chunks"
    folder.parent.mkdir()
    empty(folder)
    disk = StoppingDisk(folder)
    work = Work()

    async def body(store: DiskStore) -> None:
        await work._put(store, BODIES[0])
        if "header" in step or "dir" in step:
            for data in BODIES[1:5]:                  # until the segment is full and a new one is due
                await work._put(store, data)
        before = store._segments.current[0]
        disk.fail_step = step
        with pytest.raises(Unavailable, match="injected"):
            await work._put(store, BODIES[7])
        await work._put(store, BODIES[8])
        assert store._segments.current[0] > before, "the segment whose write or sync failed is left for good"
        assert digest(BODIES[7]) not in work.acknowledged
        assert len(os.listdir(folder / "segments")) == len(store._index.segments()), "nothing is left of the attempt"
        for seed in range(6):
            disk.cut_power(seed, fast / "after")
            await asyncio.to_thread(work.check, fast / "after" / "chunks")

    with_store(folder, body, disk)


@pytest.mark.parametrize("step", ["open", "file.write", "file.table", "file.header", "file.fdatasync", "file.rename",
                                  "file.fsync_dir"])
def test_a_failed_step_of_a_file_is_not_acknowledged(fast: Path, step: str) -> None:
    folder = fast / "data" / "chunks"
    folder.parent.mkdir()
    empty(folder)
    disk = StoppingDisk(folder)
    work = Work()

    async def body(store: DiskStore) -> None:
        await work._put(store, LARGE[0])
        disk.fail_step = step
        with pytest.raises(Unavailable, match="injected"):
            await work._put(store, LARGE[1])
        assert os.listdir(folder / "incoming") == []
        assert digest(LARGE[1]) not in work.acknowledged
        await work._put(store, LARGE[1])
        for seed in range(6):
            disk.cut_power(seed, fast / "after")
            await asyncio.to_thread(work.check, fast / "after" / "chunks")

    with_store(folder, body, disk)
