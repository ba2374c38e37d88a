"""The scrub: finds every kind of damage, goes on where it was, keeps to its limit, and is not fooled by a disk that is
gone."""

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from consensus.core.ids import Digest, Generation, SessionId, digest
from consensus.soundness import findings
from storage_node.care.scrub import STATE_NAME, Scrub, ScrubStatus
from storage_node.chunk import BLOCK_BYTES, SMALL_BYTES_MAX, block_table, file_name
from storage_node.disk_store import DiskStore
from storage_node.segments import segment_path
from storage_node.store import Copy
from tests.contract.chunk_store import StoppedClock, put
from tests.unit.consensus.crash import Unsynced
from tests.unit.storage_node.stores import GENERATION, with_store

HOUR_MS = 3_600_000


class Scrubbed:
    """A store and its scrub, with what it has found."""

    def __init__(self, store: DiskStore, clock: StoppedClock, rate: int = 0, interval_s: float = 0.0) -> None:
        self.store, self.kicks, self.busy = store, 0, False
        self.scrub = Scrub(store, clock, bytes_per_second=rate, interval_s=interval_s, busy=lambda: self.busy,
                           on_damage=self._kick)
        self.scrub.start()

    def _kick(self) -> None:
        self.kicks += 1

    async def finished(self, passes: int = 1) -> ScrubStatus:
        async with asyncio.timeout(20):
            while self.scrub.status.passes < passes:
                await asyncio.sleep(0.005)
        return self.scrub.status

    async def whole(self) -> ScrubStatus:
        before = self.scrub.status.passes
        self.scrub.begin(full_speed=True, anew=True)
        return await self.finished(before + 1)

    async def found(self) -> set[Digest]:
        return {name for name, _, _ in await self.store.damage(1000)}


def run(tmp_path: Path, body: Callable[[Scrubbed], Awaitable[None]], segment_bytes: int = 200_000, **options: float) -> None:
    async def inner(store: DiskStore) -> None:
        scrubbed = Scrubbed(store, StoppedClock(), **options)  # type: ignore[arg-type]
        try:
            await body(scrubbed)
        finally:
            await scrubbed.scrub.stop()

    with_store(tmp_path / "chunks", inner, Unsynced(), segment_bytes=segment_bytes)


def path_of(store: DiskStore, copy: Copy) -> str:
    if copy.segment:
        return segment_path(store.folder, copy.segment)
    return f"{store.folder}/{file_name(copy.digest, copy.generation)}"


def overwrite(path: str, at: int, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(data)


async def fill(store: DiskStore, count: int = 60, large: int = 4) -> list[Copy]:
    bodies = [os.urandom(random.Random(number).randrange(1, 30_000)) for number in range(count)]
    bodies += [os.urandom(SMALL_BYTES_MAX + number) for number in range(1, large + 1)]
    bodies.append(os.urandom(3 * BLOCK_BYTES + 5))
    for start in range(0, len(bodies), 10):             # each batch into one segment
        await asyncio.gather(*(put(store, data, GENERATION) for data in bodies[start:start + 10]))
    return await store.inventory(None, 1000)


def test_a_sound_store_is_read_whole_and_nothing_is_found(tmp_path: Path) -> None:
    async def body(here: Scrubbed) -> None:
        copies = await fill(here.store)
        status = await here.whole()
        assert (status.chunks, status.bytes) == (len(copies), sum(copy.size for copy in copies))
        assert (status.damaged, status.errors, status.index_findings) == (0, 0, ())
        assert status.total_bytes == status.bytes
        assert (status.state, status.cursor) == ("off", "")
        assert await here.found() == set()

    run(tmp_path, body)


def damage(store: DiskStore, copy: Copy, kind: str) -> None:
    path, small = path_of(store, copy), bool(copy.segment)
    start = copy.place + 96 if small else 4096
    if kind == "bytes":
        with open(path, "rb") as file:
            file.seek(start + copy.size // 2)
            byte = file.read(1)
        overwrite(path, start + copy.size // 2, bytes((byte[0] ^ 0x10,)))
    elif kind == "header":
        overwrite(path, copy.place + 20, b"\xff\xff")
    elif kind == "magic":
        overwrite(path, copy.place, bytes(96))
    elif kind == "zeroed":
        overwrite(path, start, bytes(min(copy.size, 4096)))
    elif kind == "table":
        overwrite(path, start + copy.size, b"\xff\xee\xdd")
    elif kind == "gone":
        os.unlink(path)
    elif kind == "cut":
        os.truncate(path, start + copy.size // 2)


@pytest.mark.parametrize("kind", ["bytes", "header", "magic", "zeroed", "table"])
def test_every_kind_of_damage_is_found_wherever_it_is(tmp_path: Path, kind: str) -> None:
    async def body(here: Scrubbed) -> None:
        copies = await fill(here.store)
        chance = random.Random(kind)
        hurt = chance.sample(copies, 25)
        for copy in hurt:
            damage(here.store, copy, kind)
        status = await here.whole()
        assert await here.found() == {copy.digest for copy in hurt}
        assert status.damaged == here.kicks == len(hurt)
        assert (await here.whole()).damaged == len(hurt), "what nobody has mended is found again"

    run(tmp_path, body)


@pytest.mark.parametrize("kind", ["gone", "cut"])
@pytest.mark.parametrize("small", [True, False])
def test_lost_and_shortened_files_are_found(tmp_path: Path, kind: str, small: bool) -> None:
    async def body(here: Scrubbed) -> None:
        copies = await fill(here.store)
        victim = sorted((copy for copy in copies if bool(copy.segment) == small and copy.segment < 3),
                        key=lambda copy: copy.place)[2]
        path = path_of(here.store, victim)
        damage(here.store, victim, kind)
        status = await here.whole()
        behind = {copy.digest for copy in copies if path_of(here.store, copy) == path
                  and (kind == "gone" or copy.place >= victim.place)}
        assert await here.found() == behind
        assert status.damaged == len(behind)
        assert status.errors == 0

    run(tmp_path, body)


def test_bytes_with_good_checksums_that_are_not_those_of_their_name_are_found(tmp_path: Path) -> None:
    """What CRCs can't see: the bytes were wrong before they were counted."""
    async def body(here: Scrubbed) -> None:
        data, other = os.urandom(5000), os.urandom(5000)
        lie = digest(data)
        await here.store.put(lie, GENERATION, other, block_table(other))
        await put(here.store, os.urandom(5000), GENERATION)
        await here.whole()
        assert await here.found() == {lie}
        [(_, _, reason)] = await here.store.damage(10)
        assert "not those of its name" in reason

    run(tmp_path, body)


def test_what_was_removed_lies_dead_in_a_segment_and_is_no_damage(tmp_path: Path) -> None:
    async def body(here: Scrubbed) -> None:
        copies = await fill(here.store)
        gone = random.Random(1).sample(copies, 20)
        for copy in gone:
            damage(here.store, copy, "bytes")
        await here.store.remove(gone)
        status = await here.whole()
        assert status.chunks == len(copies) - 20
        assert await here.found() == set()

    run(tmp_path, body)


def test_a_pass_goes_on_where_the_last_start_left_it(tmp_path: Path) -> None:
    read: list[int] = []

    async def first(here: Scrubbed) -> None:
        await fill(here.store)
        here.scrub._rate = 200_000
        here.scrub.begin()
        async with asyncio.timeout(20):
            while here.scrub.status.chunks < 20:
                await asyncio.sleep(0.001)
        assert here.scrub.status.state == "running"
        await here.scrub.stop()
        read.append(here.scrub.status.chunks)

    async def second(here: Scrubbed) -> None:
        assert here.scrub.status.chunks == read[0]
        here.scrub.begin(full_speed=True)
        status = await here.finished()
        assert status.chunks == 65
        assert status.damaged == 0

    run(tmp_path, first, segment_bytes=20_000)
    run(tmp_path, second, segment_bytes=20_000)


def test_a_pass_that_is_begun_anew_reads_everything_again(tmp_path: Path) -> None:
    async def body(here: Scrubbed) -> None:
        await fill(here.store)
        here.scrub._rate = 1_000_000
        here.scrub.begin()
        async with asyncio.timeout(20):
            while here.scrub.status.chunks < 20:
                await asyncio.sleep(0.001)
        assert (await here.whole()).chunks == 65

    run(tmp_path, body, segment_bytes=20_000)


def test_it_keeps_to_its_limit(tmp_path: Path) -> None:
    async def body(here: Scrubbed) -> None:
        copies = await fill(here.store, large=0)
        size = sum(copy.size for copy in copies)
        here.scrub.begin()
        began = asyncio.get_running_loop().time()
        await here.finished()
        took = asyncio.get_running_loop().time() - began
        assert took > 0.9 * size / 4_000_000, f"{size} bytes in {took:.2f} s"

    run(tmp_path, body, rate=4_000_000)


def test_it_gives_way_to_clients_but_not_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage_node.care.scrub.GIVE_WAY_S", 0.3)
    monkeypatch.setattr("storage_node.care.scrub.BUSY_LOOK_S", 0.01)

    async def body(here: Scrubbed) -> None:
        await fill(here.store, count=5, large=1)
        here.busy = True
        here.scrub.begin()
        began = asyncio.get_running_loop().time()
        await here.finished()
        assert asyncio.get_running_loop().time() - began > 0.5

    run(tmp_path, body, rate=1 << 40)


def test_it_comes_by_itself_when_its_time_has_come(tmp_path: Path) -> None:
    async def body(here: Scrubbed) -> None:
        await fill(here.store, count=5, large=0)
        clock = here.scrub._clock
        assert isinstance(clock, StoppedClock)
        assert here.scrub.status.next_ms == clock.ms + 10 * HOUR_MS
        clock.ms += 10 * HOUR_MS - 1
        here.scrub._wake.set()
        await asyncio.sleep(0.05)
        assert here.scrub.status.passes == 0
        clock.ms += 1
        here.scrub._wake.set()
        status = await here.finished()
        assert status.next_ms == clock.ms + 10 * HOUR_MS
        here.scrub.begin()
        here.scrub.halt()
        await asyncio.sleep(0.05)
        assert here.scrub.status.state == "idle"

    run(tmp_path, body, interval_s=36_000.0)


@pytest.mark.parametrize("how", ["reads fail", "the folder is another one"])
def test_a_disk_that_is_gone_is_trouble_and_no_damage(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(here: Scrubbed) -> None:
        copies = await fill(here.store)
        incarnation = Path(here.store.folder) / "incarnation"
        own = incarnation.read_bytes()
        if how == "reads fail":
            def fails(*_: object) -> bytes:
                raise OSError(5, "input/output error")

            monkeypatch.setattr("storage_node.local.os.pread", fails)
        else:
            incarnation.write_bytes(b"0" * 32 + b"\n")
            for copy in copies:
                if os.path.exists(path_of(here.store, copy)):
                    os.rename(path_of(here.store, copy), path_of(here.store, copy) + ".away")
        here.scrub.begin(full_speed=True)
        async with asyncio.timeout(20):
            while here.scrub.status.state != "trouble":
                await asyncio.sleep(0.005)
        assert await here.found() == set()
        monkeypatch.undo()
        incarnation.write_bytes(own)
        for copy in copies:
            if os.path.exists(path_of(here.store, copy) + ".away"):
                os.rename(path_of(here.store, copy) + ".away", path_of(here.store, copy))
        assert (await here.whole()).damaged == 0

    run(tmp_path, body)


def test_one_unreadable_place_does_not_stop_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(here: Scrubbed) -> None:
        copies = await fill(here.store)
        small = [copy for copy in copies if copy.segment == 2]
        bad, rotten = min(small, key=lambda copy: copy.place), max(small, key=lambda copy: copy.place)
        damage(here.store, rotten, "bytes")
        pread = os.pread

        def fails_there(fd: int, length: int, at: int) -> bytes:
            inside = bad.place <= at < bad.place + 96 + bad.size
            if inside and os.readlink(f"/proc/self/fd/{fd}") == path_of(here.store, bad):
                raise OSError(5, "input/output error")
            return pread(fd, length, at)

        monkeypatch.setattr("storage_node.local.os.pread", fails_there)
        status = await here.whole()
        assert status.errors >= 1
        assert await here.found() == {rotten.digest}, "what can't be read isn't called damaged"
        assert status.chunks == len(copies) - 1

    run(tmp_path, body)


def test_copies_that_come_go_and_move_meanwhile_are_no_damage(tmp_path: Path) -> None:
    async def body(here: Scrubbed) -> None:
        copies = await fill(here.store)
        here.scrub._rate = 3_000_000
        here.scrub.begin()
        chance = random.Random(7)
        for number in range(40):
            await put(here.store, b"fresh %d" % number * 100, Generation(SessionId(9), number))
            copy = chance.choice(copies)
            copies.remove(copy)
            await here.store.remove([copy])
            await asyncio.sleep(0.01)
        status = await here.finished()
        assert (status.damaged, status.errors) == (0, 0)
        assert await here.found() == set()

    run(tmp_path, body, segment_bytes=20_000)


def test_what_cannot_be_read_of_the_last_pass_keeps_none_from_beginning(tmp_path: Path) -> None:
    async def inner(store: DiskStore) -> None:
        Path(store.folder, STATE_NAME).write_bytes(b'{"after":["\xff",""]}')
        scrubbed = Scrubbed(store, StoppedClock())
        assert (await scrubbed.whole()).passes == 1
        await scrubbed.scrub.stop()

    with_store(tmp_path / "chunks", inner, Unsynced())


def test_a_damaged_index_is_seen(tmp_path: Path) -> None:
    async def body(here: Scrubbed) -> None:
        await fill(here.store, count=500, large=0)
        here.store.index.checkpoint("TRUNCATE")
        copy = str(tmp_path / "copy.sqlite")
        Path(copy).write_bytes(Path(here.store.index.path).read_bytes())
        assert findings(copy) == ()
        pages = os.stat(copy).st_size // 4096
        for page in range(2, pages):
            overwrite(copy, page * 4096, os.urandom(200))
        assert findings(copy) != ()

    run(tmp_path, body)
