"""What every ChunkStore must do, as tests. A store's test file gives `make`, a function that builds an empty one."""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable

import pytest

from consensus.core.clock import Clock
from consensus.core.errors import ClusterError, Corrupt
from consensus.core.ids import Digest, Generation, SessionId, digest
from storage_node.chunk import BLOCK_BYTES, SMALL_BYTES_MAX, block_table
from storage_node.errors import NotHere
from storage_node.local import PIECE_BYTES
from storage_node.store import CONDEMNED, NEW, SETTLED, ChunkStore, Copy

Make = Callable[[Clock], ChunkStore]

ONE = Generation(SessionId(1 << 40), 7)
TWO = Generation(SessionId(1 << 41), 0)


class StoppedClock:
    """Time stands still unless a test moves it."""

    def __init__(self) -> None:
        self.ms = 1_700_000_000_000

    def now_ms(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.ms / 1000


async def put(store: ChunkStore, data: bytes, generation: Generation = ONE) -> Digest:
    """By the way that suits its size."""
    name = digest(data)
    if len(data) <= SMALL_BYTES_MAX:
        await store.put(name, generation, data, block_table(data))
        return name
    incoming = await store.create(generation)
    for start in range(0, len(data), BLOCK_BYTES):
        await incoming.write([data[start:start + BLOCK_BYTES]])
    assert incoming.size == len(data)
    await incoming.finish(name, block_table(data))
    return name


async def get(store: ChunkStore, name: Digest, size: int, generation: Generation = ONE) -> bytes:
    pieces = [await store.read(name, generation, start, min(PIECE_BYTES, size - start))
              for start in range(0, size, PIECE_BYTES)]
    return b"".join(pieces)


SIZES = [1, 4096, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, SMALL_BYTES_MAX, SMALL_BYTES_MAX + 1,
         3 * PIECE_BYTES + 12345]


class ChunkStoreContract:
    """Subclass it in a test file with a `make` fixture."""

    def run(self, make: Make, body: Callable[[ChunkStore, StoppedClock], Awaitable[None]]) -> None:
        async def main() -> None:
            clock = StoppedClock()
            store = make(clock)
            await store.start()
            try:
                await body(store, clock)
            finally:
                await store.stop()

        asyncio.run(main())

    @pytest.mark.parametrize("size", SIZES)
    def test_what_was_put_is_read(self, make: Make, size: int) -> None:
        async def body(store: ChunkStore, clock: StoppedClock) -> None:
            data = os.urandom(size)
            name = await put(store, data)
            assert await get(store, name, size) == data

        self.run(make, body)

    @pytest.mark.parametrize("size", [BLOCK_BYTES // 2, 3 * BLOCK_BYTES + 77, 9 * BLOCK_BYTES + 77])
    def test_any_range_is_read(self, make: Make, size: int) -> None:
        async def body(store: ChunkStore, clock: StoppedClock) -> None:
            data = os.urandom(size)
            name = await put(store, data)
            near = (edge + more for edge in range(0, size, BLOCK_BYTES) for more in (-1, 0, 1))
            edges = sorted({0, 1, size - 1, *near})
            for start in edges:
                for end in (start + 1, start + 100, start + BLOCK_BYTES, start + PIECE_BYTES, size):
                    if 0 <= start < end <= size and end - start <= PIECE_BYTES:
                        assert await store.read(name, ONE, start, end - start) == data[start:end], (start, end)

        self.run(make, body)

    @pytest.mark.parametrize(("start", "length"), [(0, 101), (100, 1), (50, 51), (-1, 2), (0, 0)])
    def test_a_range_outside_the_chunk_is_refused(self, make: Make, start: int, length: int) -> None:
        async def body(store: ChunkStore, clock: StoppedClock) -> None:
            name = await put(store, b"x" * 100)
            with pytest.raises(ValueError, match="100 bytes"):
                await store.read(name, ONE, start, length)

        self.run(make, body)

    @pytest.mark.parametrize("size", [5000, SMALL_BYTES_MAX + 5000])
    def test_a_second_put_changes_nothing(self, make: Make, size: int) -> None:
        async def body(store: ChunkStore, clock: StoppedClock) -> None:
            data = os.urandom(size)
            name = await put(store, data)
            await store.mark([(copy, SETTLED, 0) for copy in await store.generations(name)])
            before = await store.inventory(None, 10)
            assert await put(store, data) == name
            assert await store.inventory(None, 10) == before
            assert await get(store, name, size) == data

        self.run(make, body)

    def test_many_puts_at_once_are_all_there(self, make: Make) -> None:
        async def body(store: ChunkStore, clock: StoppedClock) -> None:
            bodies = [os.urandom(100 + 40 * number) for number in range(300)]
            bodies += [os.urandom(SMALL_BYTES_MAX + number) for number in range(1, 5)]
            names = await asyncio.gather(*(put(store, data) for data in bodies))
            for name, data in zip(names, bodies, strict=True):
                assert await get(store, name, len(data)) == data
            assert len(await store.inventory(None, 1000)) == len(bodies)

        self.run(make, body)

    def test_a_missing_chunk_is_not_here(self, make: Make) -> None:
        async def body(store: ChunkStore, clock: StoppedClock) -> None:
            await put(store, b"something")
            with pytest.raises(NotHere):
                await store.read(digest(b"another"), ONE, 0, 1)
            assert await store.find(digest(b"another"), ONE) is None

        self.run(make, body)

    @pytest.mark.parametrize("size", [5000, SMALL_BYTES_MAX + 5000])
    def test_another_generation_of_the_same_bytes_is_read(self, make: Make, size: int) -> None:
        async def body(store: ChunkStore, clock: StoppedClock) -> None:
            data = os.urandom(size)
            name = await put(store, data, TWO)
            assert await get(store, name, size, ONE) == data
            assert await store.find(name, ONE) is None

        self.run(make, body)

    def test_every_put_is_answered_whatever_the_others_do_with_theirs(self, make: Make) -> None:
        async def body(store: ChunkStore, clock: StoppedClock) -> None:
            loop, answers = asyncio.get_running_loop(), list[asyncio.Future[ClusterError | None]]()
            for number in range(6):
                data = bytes((number,)) * 4096
                answer: asyncio.Future[ClusterError | None] = loop.create_future()
                if number == 1:
                    answer.set_result(None)           # a second answer raises InvalidStateError where it is given
                answers.append(answer)
                with contextlib.suppress(asyncio.InvalidStateError):
                    store.put_then(digest(data), ONE.pack(), data, block_table(data if number != 4 else b"x" + data[1:]),
                                   answer.set_result)
            async with asyncio.timeout(10):
                given = await asyncio.gather(*answers)
            assert [type(error) for error in given] == [type(None)] * 4 + [Corrupt, type(None)]
            assert len(await store.inventory(None, 10)) == 5

        self.run(make, body)

    def test_a_table_that_does_not_fit_is_corrupt(self, make: Make) -> None:
        async def body(store: ChunkStore, clock: StoppedClock) -> None:
            data = bytes(2 * BLOCK_BYTES)
            with pytest.raises(Corrupt):
                await store.put(digest(data), ONE, data, block_table(b"x" + data[1:]))
            incoming = await store.create(ONE)
            await incoming.write([bytes(BLOCK_BYTES), bytes(BLOCK_BYTES)])
            with pytest.raises(Corrupt):
                await incoming.finish(digest(data), block_table(b"x" + data[1:]))
            assert await store.inventory(None, 10) == []

        self.run(make, body)

    def test_an_aborted_chunk_leaves_nothing(self, make: Make) -> None:
        async def body(store: ChunkStore, clock: StoppedClock) -> None:
            incoming = await store.create(ONE)
            await incoming.write([bytes(BLOCK_BYTES)])
            await incoming.abort()
            assert await store.inventory(None, 10) == []

        self.run(make, body)

    def test_the_inventory_comes_in_order_and_in_pages(self, make: Make) -> None:
        async def body(store: ChunkStore, clock: StoppedClock) -> None:
            bodies = [b"%d" % number for number in range(25)]
            for data in bodies:
                await put(store, data, ONE)
                await put(store, data, TWO)
            seen: list[Copy] = []
            while page := await store.inventory(seen[-1][:2] if seen else None, 7):
                seen += page
            names = sorted((digest(data), generation.pack()) for data in bodies for generation in (ONE, TWO))
            assert [copy[:2] for copy in seen] == names

        self.run(make, body)

    def test_a_copy_is_new_and_due_until_it_is_marked(self, make: Make) -> None:
        async def body(store: ChunkStore, clock: StoppedClock) -> None:
            first = await put(store, b"first")
            clock.ms += 10
            second = await put(store, b"second")
            due = await store.due(clock.ms, 10)
            assert [(copy.digest, copy.state) for copy in due] == [(first, NEW), (second, NEW)]
            assert [copy.digest for copy in await store.due(clock.ms - 1, 10)] == [first]
            await store.mark([(due[0], SETTLED, 0), (due[1], CONDEMNED, clock.ms + 5)])
            assert await store.due(clock.ms, 10) == []
            assert [(copy.digest, copy.state) for copy in await store.due(clock.ms + 5, 10)] == [(second, CONDEMNED)]
            found = await store.find(first, ONE)
            assert found is not None
            assert found.state == SETTLED

        self.run(make, body)

    @pytest.mark.parametrize("size", [5000, SMALL_BYTES_MAX + 5000])
    def test_a_removed_copy_is_gone_and_others_stay(self, make: Make, size: int) -> None:
        async def body(store: ChunkStore, clock: StoppedClock) -> None:
            kept, gone = os.urandom(size), os.urandom(size)
            await put(store, kept)
            name = await put(store, gone)
            await store.remove(await store.generations(name))
            with pytest.raises(NotHere):
                await store.read(name, ONE, 0, 10)
            assert await get(store, digest(kept), size) == kept
            await put(store, gone)
            assert await get(store, name, size) == gone

        self.run(make, body)

    @pytest.mark.parametrize("size", [5000, SMALL_BYTES_MAX + 5000])
    def test_a_copy_can_be_removed_twice(self, make: Make, size: int) -> None:
        async def body(store: ChunkStore, clock: StoppedClock) -> None:
            copies = await store.generations(await put(store, os.urandom(size)))
            await store.remove(copies)
            await store.remove(copies)
            assert await store.inventory(None, 10) == []

        self.run(make, body)

    def test_a_good_copy_verifies(self, make: Make) -> None:
        async def body(store: ChunkStore, clock: StoppedClock) -> None:
            await put(store, os.urandom(5000))
            await put(store, os.urandom(SMALL_BYTES_MAX + 5000))
            for copy in await store.inventory(None, 10):
                assert await store.verify(copy)
            assert await store.damage(10) == []

        self.run(make, body)

    def test_statistics_count(self, make: Make) -> None:
        async def body(store: ChunkStore, clock: StoppedClock) -> None:
            await put(store, bytes(5000))
            await put(store, bytes(SMALL_BYTES_MAX + 5000))
            figures = await store.statistics()
            assert figures.chunks == 2
            assert figures.chunk_bytes == 10_000 + SMALL_BYTES_MAX
            assert figures.unsettled == 2
            assert figures.writable

        self.run(make, body)
