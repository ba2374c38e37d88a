"""Pieces at the taker's pace: the right bytes, nothing kept for one that stands still, everything given back."""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Awaitable, Callable

import pytest

from consensus.core.errors import Corrupt
from storage_node import pacing
from storage_node.local import PIECE_BYTES as READ_BYTES
from storage_node.pacing import AHEAD_BYTES_MAX, LARGE_BYTES_MAX, PIECE_BYTES, Ahead, paced

DATA = os.urandom(9 * READ_BYTES + 12_345)


class Disk:
    def __init__(self, bad_from: int | None = None) -> None:
        self.reads: list[tuple[int, int]] = []
        self.bad_from = bad_from

    async def fetch(self, start: int, length: int) -> bytes:
        self.reads.append((start, length))
        await asyncio.sleep(0)
        if self.bad_from is not None and start + length > self.bad_from:
            raise Corrupt("damaged")
        return DATA[start:start + length]


def run(body: Callable[[], Awaitable[None]]) -> None:
    async def all_of_it() -> None:
        async with asyncio.timeout(10):
            await body()

    asyncio.run(all_of_it())


@pytest.mark.parametrize(("start", "end"), [
    (0, 1), (0, PIECE_BYTES), (5, PIECE_BYTES + 5), (PIECE_BYTES - 1, READ_BYTES + 1), (3 * PIECE_BYTES + 7, len(DATA))])
@pytest.mark.parametrize("large", [0, pacing.LARGE_BYTES_MAX])
def test_all_bytes_come_in_order_and_every_block_is_read_once(
        start: int, end: int, large: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "LARGE_BYTES_MAX", large)

    async def body() -> None:
        disk, ahead = Disk(), Ahead()
        pieces = [piece async for piece in paced(disk.fetch, start, end, ahead)]
        assert b"".join(pieces) == DATA[start:end]
        assert max(map(len, pieces)) <= (READ_BYTES if large else PIECE_BYTES)
        assert max(length for _, length in disk.reads) <= READ_BYTES
        assert [at for at, _ in disk.reads[1:]] == [at + length for at, length in disk.reads[:-1]]
        assert not [at for at, _ in disk.reads[1:] if at % PIECE_BYTES]
        assert (ahead.size, ahead.large) == (0, 0)

    run(body)


def test_a_slow_taker_has_nothing_read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "QUICK_S", 0.0)

    async def body() -> None:
        disk, ahead = Disk(), Ahead()
        taken = 0
        async for piece in paced(disk.fetch, 0, len(DATA), ahead):
            taken += len(piece)
            assert sum(length for _, length in disk.reads) == taken
            assert (ahead.size, ahead.large) == (0, 0)
        assert taken == len(DATA)

    run(body)


def test_what_waits_for_a_taker_that_stops_is_dropped_and_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "DROP_S", 0.02)

    async def body() -> None:
        disk, ahead = Disk(), Ahead()
        stream = paced(disk.fetch, 0, len(DATA), ahead)
        taken = b"".join([await anext(stream) for _ in range(3)])
        assert ahead.size == 2 * READ_BYTES
        while ahead.size:                             # until the clock has dropped it
            await asyncio.sleep(0.005)
        assert taken + b"".join([piece async for piece in stream]) == DATA
        assert sum(length for _, length in disk.reads) > len(DATA)

    run(body)


def test_all_streams_together_keep_to_the_limit_and_give_it_back() -> None:
    async def body() -> None:
        disk, ahead = Disk(), Ahead()
        async with contextlib.AsyncExitStack() as streams:
            opened: list[AsyncGenerator[bytes]] = []
            for _ in range(AHEAD_BYTES_MAX // READ_BYTES):
                opened.append(await streams.enter_async_context(
                    contextlib.aclosing(paced(disk.fetch, 0, len(DATA), ahead))))
            for stream in opened:
                taken = b"".join([await anext(stream) for _ in range(3)])
                assert taken == DATA[:len(taken)]
            assert ahead.size == AHEAD_BYTES_MAX
            assert ahead.large == LARGE_BYTES_MAX
        assert (ahead.size, ahead.large) == (0, 0)
        assert len(asyncio.all_tasks()) == 1

    run(body)


def test_an_error_comes_in_its_place() -> None:
    async def body() -> None:
        disk, ahead = Disk(bad_from=3 * READ_BYTES), Ahead()
        stream = paced(disk.fetch, 0, len(DATA), ahead)
        taken = b""
        while len(taken) < 3 * READ_BYTES:
            taken += await anext(stream)
        assert taken == DATA[:3 * READ_BYTES]
        with pytest.raises(Corrupt):
            await anext(stream)
        assert (ahead.size, ahead.large) == (0, 0)

    run(body)
