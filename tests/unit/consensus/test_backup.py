"""Backups: what one refers to is held until it is dropped, its copy is whole and readable in pages, and one that was not
finished leaves nothing."""

import asyncio
import contextlib
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from consensus import audit, backup
from consensus.core.commands import (
    AbortUpload,
    CreateUpload,
    DeleteVersion,
    DropBackup,
    EndSession,
    KeepBackup,
    OpenBackup,
    PutPart,
)
from consensus.core.errors import NoSpace, Refused, Unavailable
from consensus.core.results import BackupExists, Done, Malformed, NoBackup
from consensus.disk import Disk
from tests.unit.consensus.crash import FaultyDisk, Stopped, Unsynced
from tests.unit.consensus.members import Place, put
from tests.unit.consensus.metadata import PLAIN, Cluster


def keep(cluster: Cluster, name: str) -> int:
    """A kept backup whose copy ends with the entry of its opening."""
    assert cluster.run(OpenBackup(name=name)) == Done()
    index = cluster.index
    assert cluster.run(KeepBackup(name=name, index=index)) == Done()
    return index


def delete(cluster: Cluster, bucket: int, key: str) -> None:
    cluster.run(DeleteVersion(bucket=bucket, key=key))  # type: ignore[arg-type]
    cluster.drain()


# What is held

def test_what_a_backup_refers_to_stays_until_it_is_dropped(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    cluster.put(bucket, "k", b"old")
    keep(cluster, "b")
    cluster.put(bucket, "k", b"new")
    cluster.drain()
    assert cluster.chunk_row(b"old") is not None
    cluster.check()
    cluster.reopen()
    assert cluster.run(DropBackup(name="b")) == Done()
    cluster.drain()
    assert cluster.chunk_row(b"old") is None
    assert cluster.rows("held") == 0


def test_what_came_after_a_backup_is_not_held(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    keep(cluster, "b")
    cluster.put(bucket, "k", b"new")
    delete(cluster, bucket, "k")
    assert cluster.chunk_row(b"new") is None


def test_an_open_backup_holds_all_and_a_kept_one_only_its_own(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    cluster.put(bucket, "before", b"before")
    cluster.run(OpenBackup(name="b"))
    index = cluster.index
    cluster.put(bucket, "after", b"after")
    delete(cluster, bucket, "after")
    delete(cluster, bucket, "before")
    assert cluster.chunk_row(b"before") is not None
    assert cluster.chunk_row(b"after") is not None
    cluster.run(KeepBackup(name="b", index=index))
    cluster.drain()
    assert cluster.chunk_row(b"before") is not None
    assert cluster.chunk_row(b"after") is None


def test_a_later_backup_does_not_keep_what_was_dead_before_it(cluster: Cluster) -> None:
    """Else, with a backup each day and the last seven kept, nothing would ever go."""
    bucket = cluster.bucket()
    cluster.put(bucket, "k", b"x")
    keep(cluster, "first")
    delete(cluster, bucket, "k")
    keep(cluster, "second")
    assert cluster.chunk_row(b"x") is not None
    cluster.run(DropBackup(name="first"))
    cluster.drain()
    assert cluster.chunk_row(b"x") is None


def test_each_of_two_backups_keeps_what_it_refers_to(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    cluster.put(bucket, "a", b"a")
    keep(cluster, "first")
    cluster.put(bucket, "b", b"b")
    keep(cluster, "second")
    delete(cluster, bucket, "a")
    delete(cluster, bucket, "b")
    cluster.run(DropBackup(name="second"))
    cluster.drain()
    assert cluster.chunk_row(b"a") is not None
    assert cluster.chunk_row(b"b") is None


def test_parts_of_an_upload_are_held(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    at: dict[str, Any] = {"bucket": bucket, "key": "k", "upload_id": "u"}
    cluster.run(CreateUpload(**at, attributes=PLAIN, owner="o"))
    cluster.run(PutPart(**at, number=1, content=cluster.content(b"part")))
    keep(cluster, "b")
    cluster.run(AbortUpload(**at))
    cluster.drain()
    assert cluster.chunk_row(b"part") is not None
    cluster.run(DropBackup(name="b"))
    cluster.drain()
    assert cluster.chunk_row(b"part") is None


def test_many_held_contents_go_in_pages(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    for number in range(50):
        cluster.put(bucket, f"k{number}", b"%d" % number)
    keep(cluster, "b")
    for number in range(50):
        cluster.run(DeleteVersion(bucket=bucket, key=f"k{number}"))
    assert cluster.rows("held") == 50
    cluster.run(DropBackup(name="b"))
    assert cluster.drain(limit=7) > 10
    assert cluster.rows("held") == cluster.rows("chunk") == cluster.rows("content") == 0


def test_a_session_takes_its_open_backups_with_it_and_no_kept_one(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    cluster.put(bucket, "k", b"x")
    keep(cluster, "kept")
    cluster.run(OpenBackup(name="open"))
    cluster.put(bucket, "k", b"y")
    cluster.put(bucket, "k", b"z")
    cluster.run(EndSession(session=cluster.session), 0)
    cluster.session = cluster.open_session()
    cluster.drain()
    assert [row[0] for row in cluster.db.execute("SELECT name FROM backup")] == ["kept"]
    assert cluster.chunk_row(b"x") is not None
    assert cluster.chunk_row(b"y") is None


def test_whoever_fails_takes_nobody_elses_backup_along(cluster: Cluster) -> None:
    keep(cluster, "theirs")
    assert cluster.run(DropBackup(name="theirs", own=True)) == NoBackup()
    assert cluster.run(OpenBackup(name="mine")) == Done()
    assert cluster.run(DropBackup(name="mine", own=True)) == Done()
    assert [row[0] for row in cluster.db.execute("SELECT name FROM backup")] == ["theirs"]


def test_what_is_refused(cluster: Cluster) -> None:
    for name in ("", ".hidden", "a/b", "x" * 65, "é"):
        assert isinstance(cluster.run(OpenBackup(name=name)), Malformed)
    assert isinstance(cluster.run(OpenBackup(name="b"), 0), Malformed)
    assert cluster.run(KeepBackup(name="b", index=1)) == NoBackup()
    assert cluster.run(DropBackup(name="b")) == NoBackup()
    cluster.run(OpenBackup(name="b"))
    index = cluster.index
    assert cluster.run(OpenBackup(name="b")) == BackupExists()
    other = cluster.open_session()
    assert cluster.run(KeepBackup(name="b", index=index), other) == NoBackup()
    assert isinstance(cluster.run(KeepBackup(name="b", index=index - 1)), Malformed)
    assert isinstance(cluster.run(KeepBackup(name="b", index=index + 100)), Malformed)
    assert cluster.run(KeepBackup(name="b", index=index)) == Done()
    assert cluster.run(KeepBackup(name="b", index=index)) == Done()
    assert isinstance(cluster.run(KeepBackup(name="b", index=index + 1)), Malformed)


# Copies

def make(cluster: Cluster, name: str, disk: Disk) -> backup.Descriptor:
    return backup.make(cluster.machine.path, str(cluster.folder), name, cluster="c", now_ms=5, disk=disk)


def test_a_copy_is_whole_and_reads_in_pages_as_one_file(cluster: Cluster) -> None:
    cluster.bucket()
    made, folder = make(cluster, "b", Disk()), str(cluster.folder)
    assert made.index == cluster.index
    assert [*backup.described(folder)] == [made]
    exported = b""
    while page := backup.read(folder, "b", len(exported), 1000):
        exported += page
    head, _, copy = exported.partition(b"\n")
    assert backup.read_descriptor(head, "x") == made
    assert len(copy) == made.size
    assert copy == (cluster.folder / "backups" / "b.sqlite").read_bytes()


def test_a_stop_at_any_step_leaves_a_whole_copy_or_none(cluster: Cluster) -> None:
    folder = str(cluster.folder)
    for number in range(100):
        disk = FaultyDisk(folder)
        disk.stop_at = number
        with contextlib.suppress(Stopped):
            make(cluster, "b", disk)
        for found in backup.described(folder):
            with sqlite3.connect(os.path.join(folder, "backups", "b.sqlite")) as db:
                assert audit.recount(db) == []
            db.close()
            assert found.index == cluster.index
        backup.tidy(folder, set(), Disk())
        assert not os.path.isdir(os.path.join(folder, "backups")) or os.listdir(os.path.join(folder, "backups")) == []
        if len(disk.steps) <= number:
            break
    assert number > 6


@pytest.mark.parametrize("step", ["backup.fsync", "backup.rename", "backup.fsync_dir", "backup.descriptor.fdatasync"])
def test_a_step_that_fails_is_an_error_and_leaves_nothing(cluster: Cluster, step: str) -> None:
    disk = FaultyDisk(str(cluster.folder))
    disk.fail_step = step
    with pytest.raises(Unavailable, match="backup b could not be made"):
        make(cluster, "b", disk)
    assert os.listdir(cluster.folder / "backups") == []


# With a member

def serving(tmp_path: Path, body: Any, disk: Disk | None = None) -> None:
    async def main() -> None:
        place = Place(tmp_path, disk=disk)
        try:
            await place.serve()
            client = await place.client()
            await body(place, client, await make_bucket(client))
        finally:
            await place.close()
        assert place.failures == []

    asyncio.run(main())


async def make_bucket(client: Any) -> int:
    from consensus.core.commands import CreateBucket

    return (await client.commit(CreateBucket(name="b", account="a", owner="o"))).bucket


def test_a_backup_is_taken_listed_read_and_dropped(tmp_path: Path) -> None:
    async def body(place: Place, client: Any, bucket: int) -> None:
        await client.commit(put(bucket, "k"))  # type: ignore[arg-type]
        told: list[tuple[int, int]] = []
        made = await client.take_backup("one", lambda *figures: told.append(figures))
        assert told[-1] == (made.size, made.size)
        (listed,) = await client.list_backups()
        assert (listed.name, listed.index, listed.file) == ("one", made.index, made)
        assert (await client.read_backup("one", 0, 10)) == made.head()[:10]
        assert (await client.read_backup("one", len(made.head()), 15)) == b"SQLite format 3"
        assert await client.recount() == []
        with pytest.raises(Refused, match="already"):
            await client.take_backup("one")
        with pytest.raises(Refused, match="begins with"):
            await client.take_backup("../one")
        assert len(await client.list_backups()) == 1
        assert await client.drop_backup("one")
        assert not await client.drop_backup("one")
        assert await client.list_backups() == []
        assert os.listdir(place.meta / "backups") == []
        with pytest.raises(Refused):
            await client.read_backup("one", 0)

    serving(tmp_path, body)


def test_a_backup_that_fails_is_not_there(tmp_path: Path) -> None:
    class Full(Unsynced):
        def rename(self, old: str, new: str, step: str) -> None:
            if step == "backup.rename":
                raise OSError(28, "No space left on device")
            super().rename(old, new, step)

    async def body(place: Place, client: Any, bucket: int) -> None:
        with pytest.raises(NoSpace, match="backup one"):
            await client.take_backup("one")
        assert await client.list_backups() == []
        assert os.listdir(place.meta / "backups") == []

    serving(tmp_path, body, Full())


def test_a_client_that_goes_in_the_middle_leaves_no_backup(tmp_path: Path) -> None:
    async def body(place: Place, client: Any, bucket: int) -> None:
        other = await place.client()
        taking = asyncio.ensure_future(other.take_backup("one"))
        while not await client.list_backups():
            await asyncio.sleep(0)
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)
        await other.stop()
        place.clients.remove(other)
        assert await client.list_backups() == []
        await client.take_backup("one")

    serving(tmp_path, body)


def test_a_member_that_starts_again_in_the_middle_makes_the_copy_anew(tmp_path: Path) -> None:
    class Slow(Unsynced):
        def __init__(self) -> None:
            self.begun = 0

        def step(self, step: str, path: str) -> None:
            if step == "backup.vacuum":
                self.begun += 1
                time.sleep(0.2)

    slow = Slow()

    async def body(place: Place, client: Any, bucket: int) -> None:
        taking = asyncio.ensure_future(client.take_backup("one"))
        while not slow.begun:
            await asyncio.sleep(0.01)
        await place.kill()
        await asyncio.sleep(0.3)                 # the thread of the dead process ends: ours is one process
        await place.serve()
        made = await taking
        assert [(kept.name, kept.file) for kept in await client.list_backups()] == [("one", made)]
        assert slow.begun == 2

    serving(tmp_path, body, slow)
