"""The body and its buffers, without a connection."""

import asyncio

import pytest

from gateway.http.body import NO_BODY, RequestBody, incomplete
from gateway.http.buffers import BufferPool
from gateway.http.limits import Limits
from gateway.s3.errors import S3Error

LIMITS = Limits(buffer_bytes=1000, small_buffer_bytes=100, buffers_max=2)


class Source:
    def __init__(self) -> None:
        self.wanted = 0
        self.taken = 0

    def body_wanted(self) -> None:
        self.wanted += 1

    def body_taken(self) -> None:
        self.taken += 1


def filled(pool: BufferPool, text: bytes) -> tuple[bytearray, int]:
    buffer = pool.take(500, fast=True)
    buffer[: len(text)] = text
    return buffer, len(text)


def test_a_piece_is_released_when_the_next_is_asked_for() -> None:
    async def main() -> None:
        pool = BufferPool(LIMITS)
        body = RequestBody(10, Source(), pool)
        body.fill(*filled(pool, b"first"))
        body.fill(*filled(pool, b"other"))
        body.ended = True
        first = await anext(body)
        assert bytes(first) == b"first"
        assert bytes(await anext(body)) == b"other"
        with pytest.raises(ValueError, match="released"):
            bytes(first)
        assert pool.out == 1
        with pytest.raises(StopAsyncIteration):
            await anext(body)
        assert pool.out == 0

    asyncio.run(main())


def test_a_slice_that_is_kept_stays_good_and_its_buffer_is_not_used_again() -> None:
    async def main() -> None:
        pool = BufferPool(LIMITS)
        body = RequestBody(5, Source(), pool)
        body.fill(*filled(pool, b"first"))
        body.ended = True
        kept = memoryview(await anext(body))[1:3]
        with pytest.raises(StopAsyncIteration):
            await anext(body)
        assert pool.out == 0
        buffer = pool.take(500, fast=True)
        buffer[:5] = b"other"
        assert bytes(kept) == b"ir"

    asyncio.run(main())


def test_a_piece_that_is_being_hashed_keeps_its_buffer() -> None:
    async def main() -> None:
        pool = BufferPool(LIMITS)
        body = RequestBody(5, Source(), pool)
        body.fill(*filled(pool, b"first"))
        body.ended = True
        held = memoryview(await anext(body))          # as a C function holds it while it works on it
        with pytest.raises(StopAsyncIteration):
            await anext(body)
        pool.take(500, fast=True)[:5] = b"other"
        assert bytes(held) == b"first"
        del held                                      # and when it is done, the buffer is used again
        assert bytes(pool.take(500, fast=True)[:5]) == b"first"
        assert pool.made == 2

    asyncio.run(main())


def test_buffers_are_used_again_and_bounded() -> None:
    pool = BufferPool(LIMITS)
    first, second, third = (pool.take(5000, fast=True) for _ in range(3))
    assert [len(buffer) for buffer in (first, second, third)] == [1000, 1000, 100]
    pool.give(third)
    pool.give(first)
    assert pool.take(5000, fast=True) is first
    assert len(pool.take(50, fast=True)) == 100
    assert len(pool.take(5000, fast=False)) == 100


def test_what_came_before_the_end_is_given_out_before_the_error() -> None:
    async def main() -> None:
        body = RequestBody(10, Source(), BufferPool(LIMITS))
        body.feed(b"abc")
        body.fail(incomplete)
        assert await anext(body) == b"abc"
        for _ in range(2):
            with pytest.raises(S3Error, match="IncompleteBody"):
                await anext(body)

    asyncio.run(main())


def test_asking_wakes_the_source_and_pieces_wake_the_reader() -> None:
    async def main() -> None:
        source = Source()
        body = RequestBody(None, source, BufferPool(LIMITS))
        reading = asyncio.create_task(body.read(100))
        await asyncio.sleep(0)
        assert (source.wanted, body.waiting, reading.done()) == (1, True, False)
        body.feed(b"abc")
        body.feed(b"def")
        body.wake()
        await asyncio.sleep(0)
        body.ended = True
        body.wake()
        assert await reading == b"abcdef"

    asyncio.run(main())


def test_no_body_is_empty() -> None:
    async def main() -> None:
        assert NO_BODY.length == 0
        assert await NO_BODY.read(0) == b""
        assert [piece async for piece in NO_BODY] == []

    asyncio.run(main())
