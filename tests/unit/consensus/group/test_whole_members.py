"""Whole members, SQLite and all, that are behind the others' memory of the log."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from consensus import server
from consensus.client import MetadataClient
from consensus.core.ids import BucketId
from consensus.core.results import Committed
from tests.unit.consensus.members import put
from tests.unit.consensus.trio import Trio, bucket

pytestmark = pytest.mark.anyio

KEYS = 200


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def trio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Trio]:
    monkeypatch.setattr(server, "KEEP_BYTES", 2000)
    trio = Trio(tmp_path)
    yield trio
    await trio.close()


async def write(client: MetadataClient, made: BucketId, start: int) -> None:
    for number in range(start, start + KEYS):
        assert isinstance(await client.commit(put(made, f"{number:04}")), Committed)


def rows(trio: Trio, name: str) -> list[tuple[object, ...]]:
    return sorted(trio.servers[name]._machine.db.execute("SELECT key, ord FROM object"))


async def test_one_that_was_away_comes_back_by_a_snapshot(trio: Trio) -> None:
    await trio.serve()
    leader = await trio.led()
    away = next(name for name in trio.names if name != leader)
    client = await trio.client(leader)
    made = await bucket(client, "b")
    await trio.kill(away)
    await write(client, made, 0)
    before = trio.servers[leader]._journal.first_index
    assert before > 50, "it has forgotten what the other one lacks"
    await asyncio.gather(trio.serve(away), write(client, made, KEYS))
    assert trio.restarts == [away]
    await trio.led()
    await trio.servers[away].read_index()
    assert len(rows(trio, away)) == 2 * KEYS
    assert rows(trio, away) == rows(trio, leader)


async def test_one_that_joins_a_store_that_was_long_alone(trio: Trio) -> None:
    """Its log begins long after the first entry."""
    trio.names = ("m1",)
    await trio.serve()
    client = await trio.client("m1")
    made = await bucket(client, "b")
    await write(client, made, 0)
    trio.names = ("m1", "m2", "m3")
    await asyncio.gather(trio.serve("m2"), trio.serve("m3"), write(client, made, KEYS))
    await trio.led()
    assert set(trio.restarts) == {"m2", "m3"}
    await trio.kill("m1")
    await trio.led()
    late = await trio.client("m2")
    assert isinstance(await late.commit(put(made, "without the first")), Committed)
    for name in ("m2", "m3"):
        await trio.servers[name].read_index()
        assert len(rows(trio, name)) == 2 * KEYS + 1
