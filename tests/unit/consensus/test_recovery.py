"""Damaged metadata comes back by itself: from a snapshot and the journal, or from the journal alone, whenever it shows."""

import asyncio
import random
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from consensus import audit, queries, recovery, snapshot
from consensus.apply import buckets
from consensus.config import MetaConfig
from consensus.core.commands import CreateBucket, DeleteVersion, NewContent, PutVersion
from consensus.core.errors import ClusterError, Corrupt, Refused
from consensus.core.model import Attributes
from consensus.core.results import BucketCreated, Committed
from consensus.server import MetaServer
from tests.unit.consensus.members import Place, put

pytestmark = pytest.mark.anyio

OBJECTS = 60
CONFIG = MetaConfig(housekeeping_s=3600.0, segment_bytes=20_000)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    place = Place(tmp_path, config=CONFIG)
    yield place
    await place.close()


async def fill(place: Place, snapshots: int) -> dict[str, Any]:
    """A bucket with objects, some overwritten and some deleted; so many snapshots in between. Then killed; what is in it."""
    server = await place.serve()
    client = await place.client()
    created = await client.commit(CreateBucket(name="b", account="a", owner="o"))
    assert isinstance(created, BucketCreated)
    for group in range(3):
        for number in range(OBJECTS):
            attributes = Attributes(metadata=(("m", "x" * (number * 37 % 900)),))
            command = PutVersion(bucket=created.bucket, key=f"{number:03}-{'k' * number}", version_id="",  # type: ignore[arg-type]
                                 attributes=attributes, owner="o", content=NewContent(size=0, etag=f"{group}-{number}"))
            assert isinstance(await client.commit(command), Committed)
        await client.commit(DeleteVersion(bucket=created.bucket, key=f"{group:03}-{'k' * group}"))
        if group < snapshots:
            await server.housekeeper.take_snapshot()
    await client.stop()
    wanted = contents(server)
    await die(place)
    return wanted


async def die(place: Place) -> None:
    """As the process would: SQLite's locks go with it. What was committed is in the file, where it can be damaged."""
    assert place.server is not None
    machine = place.server._machine
    await place.kill()
    machine.close()


def contents(server: MetaServer) -> dict[str, Any]:
    """Everything but what each start adds: sessions, and how far the log is."""
    db = server._machine.db
    tables = ("bucket", "object", "history", "content", "chunk")
    return {table: db.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in tables}


async def read_all(place: Place) -> None:
    """As clients do. Raises Corrupt."""
    client = await place.client()
    try:
        bucket = await client.bucket("b")
        assert bucket is not None
        for listed in (await client.list_objects(bucket.id, "", "", "", 1000)).objects:
            await client.opened("b", listed.key)
        assert await client.recount() == []             # and what no read has come by
    finally:
        await client.stop()


async def brought_back(place: Place) -> int:
    """Serve, read everything, and start again as the supervisor would where the member has ended for damage. How often."""
    for starts in range(4):
        await place.serve()
        try:
            await read_all(place)
        except Corrupt:
            async with asyncio.timeout(5):
                while not place.failures:
                    await asyncio.sleep(0.001)
        if not place.failures:
            return starts
        place.failures.clear()
        await die(place)
    raise AssertionError("it is damaged again and again")


def zero_page(path: Path, chance: random.Random) -> None:
    overwrite(path, chance, bytes(4096))


def random_page(path: Path, chance: random.Random) -> None:
    overwrite(path, chance, chance.randbytes(4096))


def overwrite(path: Path, chance: random.Random, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(4096 * chance.randrange(path.stat().st_size // 4096))
        file.write(data)


def truncate(path: Path, chance: random.Random) -> None:
    with path.open("r+b") as file:
        file.truncate(chance.randrange(path.stat().st_size))


def delete(path: Path, chance: random.Random) -> None:
    path.unlink()


def rubbish(path: Path, chance: random.Random) -> None:
    path.write_bytes(chance.randbytes(chance.randrange(10_000)))


@pytest.mark.parametrize("snapshots", [0, 2])
@pytest.mark.parametrize("damage", [zero_page, random_page, truncate, delete, rubbish])
async def test_a_damaged_file_comes_back(
    tmp_path: Path, place: Place, snapshots: int, damage: Callable[[Path, random.Random], None]
) -> None:
    wanted = await fill(place, snapshots)
    whole = tmp_path / "whole"
    shutil.copytree(place.meta, whole)
    came_back = 0
    for seed in range(1 if damage is delete else 4):
        shutil.rmtree(place.meta)
        shutil.copytree(whole, place.meta)
        path, _ = snapshot.current_file(str(place.meta), place.disk)
        for suffix in ("-wal", "-shm"):
            Path(path + suffix).unlink(missing_ok=True)
        damage(Path(path), random.Random(seed))
        await brought_back(place)
        assert place.server is not None
        assert contents(place.server) == wanted, f"seed {seed}"
        came_back += place.server.serving.generation > 1 or damage is delete
        await die(place)
    assert came_back, "the damage was noticed at least once"


@pytest.mark.parametrize("text", [b"", b"rubbish\n", b"\xff\xfe", b"77\n", None])
async def test_a_damaged_current_costs_nothing(place: Place, text: bytes | None) -> None:
    wanted = await fill(place, 2)
    current = place.meta / "CURRENT"
    if text is None:
        current.unlink()
    else:
        current.write_bytes(text)
    server = await place.serve()
    assert contents(server) == wanted


async def test_a_damaged_descriptor_is_no_snapshot(place: Place) -> None:
    wanted = await fill(place, 2)
    newest = snapshot.listed(str(place.meta))[-1]
    Path(newest.path).with_suffix(".json").write_bytes(b"{")
    Path(snapshot.current_file(str(place.meta), place.disk)[0]).unlink()
    server = await place.serve()
    assert contents(server) == wanted


# Damage that shows in apply

def break_row(place: Place) -> None:
    """The content that key 010 names loses its last reference in the row: whoever takes it next meets damage."""
    path, _ = snapshot.current_file(str(place.meta), place.disk)
    db = sqlite3.connect(path, isolation_level=None)
    assert db.execute("UPDATE content SET refs = 0 WHERE id = (SELECT content FROM object WHERE substr(key, 1, 3) ="
                      " CAST('010' AS BLOB))").rowcount == 1
    db.close()


@pytest.mark.parametrize("snapshots", [0, 2])
async def test_damage_met_by_a_running_member(place: Place, snapshots: int) -> None:
    """The entry is in the journal, its outcome unknown to the client; the next start brings it into effect."""
    await fill(place, snapshots)
    break_row(place)
    server = await place.serve()
    client = await place.client(deadline_s=0.3)
    bucket = await client.bucket("b")
    assert bucket is not None
    with pytest.raises(ClusterError):
        await client.commit(put(bucket.id, "010-" + "k" * 10))
    assert [type(error) for error in place.failures] == [Corrupt]
    place.failures.clear()
    await die(place)
    server = await place.serve()
    assert server.serving.generation == 2
    assert await brought_back_object(place, "010-" + "k" * 10) == "e"
    assert audit.recount(server._machine.db) == []


async def brought_back_object(place: Place, key: str) -> str:
    client = await place.client()
    _, version, _ = await client.opened("b", key)
    await client.stop()
    assert version is not None
    return version.etag


async def test_damage_met_while_the_journal_is_replayed(place: Place) -> None:
    """SQLite is behind the journal and damaged where the rest of it goes."""
    wanted = await fill(place, 1)
    taken = snapshot.listed(str(place.meta))[0]
    path, _ = snapshot.current_file(str(place.meta), place.disk)
    for suffix in ("-wal", "-shm"):
        Path(path + suffix).unlink(missing_ok=True)
    shutil.copy(taken.path, path)
    break_row(place)
    server = await place.serve()
    assert server.serving.generation == 2
    assert contents(server) == wanted


async def test_a_snapshot_of_damaged_metadata_is_passed_over_too(place: Place) -> None:
    await fill(place, 1)
    break_row(place)
    server = await place.serve()
    await server.housekeeper.take_snapshot()
    client = await place.client(deadline_s=0.3)
    bucket = await client.bucket("b")
    assert bucket is not None
    with pytest.raises(ClusterError):
        await client.commit(put(bucket.id, "010-" + "k" * 10))
    await die(place)
    place.failures.clear()
    server = await place.serve()
    assert server.serving.generation == 3, "the newest snapshot, then the older one"
    assert audit.recount(server._machine.db) == []


@pytest.mark.parametrize("text", [b"{", b'{"generation":1,"why":"\xff","at_ms":[1]}'])
def test_a_mark_that_cannot_be_read_keeps_nobody_from_starting(tmp_path: Path, text: bytes) -> None:
    (tmp_path / recovery.MARK).write_bytes(text)
    assert recovery.read_mark(str(tmp_path)) is None


async def test_an_entry_that_nothing_can_apply_is_a_refusal(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(place, 2)
    await place.serve()
    client = await place.client(deadline_s=0.3)
    monkeypatch.setattr(buckets, "STATUSES", None)              # a bug of ours, in one kind of command
    with pytest.raises(ClusterError):
        await client.commit(CreateBucket(name="c", account="a", owner="o", versioning="Enabled"))
    await die(place)
    assert [type(error) for error in place.failures] == [TypeError]
    assert recovery.read_mark(str(place.meta)) is None, "no damage, as far as that goes"
    with pytest.raises(Refused, match=r"cannot be applied.*TypeError"):
        await place.serve()
    monkeypatch.undo()
    await place.serve()
    assert await client.bucket("c") is not None, "with the bug repaired, everything is there"


async def test_a_disk_that_fails_is_no_reason_to_go_back(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(place, 2)

    def fails(*_: object) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_READ
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("consensus.machine.open_database", fails)
        with pytest.raises(ClusterError, match="disk I/O error"):
            await place.serve()
    server = await place.serve()
    assert server.serving.generation == 1


async def test_rebuilds_without_end_are_refused(place: Place) -> None:
    await fill(place, 2)
    now = (await place.serve())._clock.now_ms()
    await die(place)
    for number in range(3):
        _, generation = snapshot.current_file(str(place.meta), place.disk)
        recovery.distrust(str(place.meta), generation, "a test says so", place.disk, now + number)
        if number < 2:
            server = await place.serve()
            assert server.serving.generation == generation + 1
            await die(place)
    with pytest.raises(Refused, match="a test says so"):
        await place.serve()
    (place.meta / recovery.MARK).unlink()
    await place.serve()


# Damage that a read meets

@pytest.mark.parametrize("local", [True, False])
async def test_damage_met_by_a_reader_is_mended(place: Place, local: bool) -> None:
    wanted = await fill(place, 2)
    path, _ = snapshot.current_file(str(place.meta), place.disk)
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("UPDATE object SET size = 7 WHERE substr(key, 1, 3) = CAST('010' AS BLOB)")
    db.close()
    await place.serve()
    client = await place.client(local=local)
    assert await client.read(queries.opened, "b", "011-" + "k" * 11)
    with pytest.raises(Corrupt):
        await client.opened("b", "010-" + "k" * 10)
    async with asyncio.timeout(5):
        while not place.failures:
            await asyncio.sleep(0.001)
    place.failures.clear()
    await die(place)
    server = await place.serve()
    assert server.serving.generation == 2
    assert contents(server) == wanted
    assert (await client.opened("b", "010-" + "k" * 10))[1] is not None


async def test_damage_that_stays_stops_nobody_twice(place: Place) -> None:
    """Every state has it, so a rebuild does not help: the others are served."""
    await fill(place, 0)
    server = await place.serve()
    _, generation = snapshot.current_file(str(place.meta), place.disk)
    recovery.distrust(str(place.meta), generation - 1, "an earlier one", place.disk, server._clock.now_ms())
    server._machine.db.execute("UPDATE object SET size = 7 WHERE substr(key, 1, 3) = CAST('010' AS BLOB)")
    client = await place.client()
    with pytest.raises(Corrupt):
        await client.opened("b", "010-" + "k" * 10)
    assert await client.opened("b", "011-" + "k" * 11)
    assert (await client.status()).generation == 1
    assert not place.failures


async def test_damage_that_a_snapshot_meets_is_not_put_off(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies of a damaged file would take the place of good ones."""
    wanted = await fill(place, 2)
    server = await place.serve()

    def damaged(*_: object) -> None:
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(snapshot, "make", damaged)
        await server.housekeeper._repeat(0.0, server.housekeeper.take_snapshot)
    assert [type(error) for error in place.failures] == [sqlite3.DatabaseError]
    place.failures.clear()
    await die(place)
    server = await place.serve()
    assert server.serving.generation == 2
    assert contents(server) == wanted


async def test_a_false_alarm_changes_nothing(place: Place) -> None:
    await fill(place, 0)
    await place.serve()
    client = await place.client()
    client._tell_damage(queries.bucket, ("b",), {})
    await asyncio.gather(*client._telling)
    client._may_tell_at = 0.0
    client._tell_damage(audit.recount, (), {"limit": 1})          # no query
    await asyncio.gather(*client._telling, return_exceptions=True)
    assert (await client.status()).generation == 1
    assert not place.failures
