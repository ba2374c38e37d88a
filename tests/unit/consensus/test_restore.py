"""Restoring the metadata: nothing happens to what is refused or interrupted, no name comes twice, rows go where the chunks
are, and counters that a recount finds wrong are mended."""

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from consensus import audit, backup, mending, queries, restore
from consensus.core.commands import (
    AbortUpload,
    CreateBucket,
    CreateUpload,
    DeleteVersion,
    KeepBackup,
    NewContent,
    OpenBackup,
    PutPart,
    PutVersion,
    StageContent,
)
from consensus.core.errors import Corrupt, Refused
from consensus.core.ids import Digest, Generation, digest, position
from consensus.core.results import SessionEnded
from consensus.disk import Disk
from consensus.machine import Machine
from tests.unit.consensus.crash import FaultyDisk, Stopped
from tests.unit.consensus.members import QUIET, SECRET, Place, put
from tests.unit.consensus.metadata import PLAIN, Cluster, whole


class Folder:
    """A storage node's chunks, as a list: (bytes, generation)."""

    def __init__(self, node: str, incarnation: bytes, *copies: tuple[bytes, Generation]) -> None:
        self.node, self.incarnation = node, incarnation
        self._copies = sorted((digest(data), generation.pack(), len(data)) for data, generation in copies)

    def greatest_session(self) -> int:
        return max((Generation.unpack(packed).session for _, packed, _ in self._copies), default=0)

    def by_digest(self) -> Iterator[tuple[Digest, bytes, int]]:
        yield from self._copies


def saved(cluster: Cluster, target: Path, name: str = "b", cluster_name: str = "c") -> backup.Descriptor:
    """A backup of this machine in exported form."""
    cluster.run(OpenBackup(name=name))
    made = backup.make(cluster.machine.path, str(cluster.folder), name, cluster=cluster_name, now_ms=5, disk=Disk())
    with target.open("wb") as file:
        while page := backup.read(str(cluster.folder), name, file.tell(), 1 << 20):
            file.write(page)
    return made


def restored(tmp_path: Path, *nodes: Folder, **options: Any) -> restore.Restored:
    return restore.restore(str(tmp_path / "file"), str(tmp_path / "meta"), nodes,  # type: ignore[arg-type]
                           **{"cluster": "c", "now_ms": 7, **options})


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    (tmp_path / "old").mkdir()
    cluster = Cluster(tmp_path / "old")
    yield cluster
    cluster.check()
    cluster.reader.close()
    cluster.machine.close()


def live(cluster: Cluster, data: bytes) -> Generation:
    row = cluster.chunk_row(data)
    assert row is not None
    return Generation(row[0], row[1])


def test_rows_go_where_the_chunks_are(cluster: Cluster, tmp_path: Path) -> None:
    bucket = cluster.bucket()
    for data in (b"as it was", b"another upload", b"gone", b"other size"):
        cluster.put(bucket, data.decode(), data)
    cluster.put(bucket, "copy", b"gone", b"as it was")
    saved(cluster, tmp_path / "file")
    later = Generation(position(77, 0), 3)  # type: ignore[arg-type]
    found = restored(tmp_path, Folder(
        "n1", cluster.nodes["n1"], (b"as it was", live(cluster, b"as it was")), (b"another upload", later),
        (b"other size"[:3], later), (b"unknown", later)))
    assert (found.chunks, found.moved, found.lost, found.missing_count) == (4, 1, 2, 3)
    assert [lost.key for lost in found.missing] == ["copy", "gone", "other size"]
    assert found.problems == []
    machine = Machine(tmp_path / "meta")
    place = queries.chunk_place(machine.db, digest(b"another upload"))
    assert place is not None
    assert (place.generation, place.nodes) == (later, ("n1",))
    assert queries.chunk_states(machine.db, "n1", [(digest(b"another upload"), later)]) == ["listed"]  # type: ignore[arg-type]
    machine.close()


def test_a_node_that_is_not_given_keeps_its_locations(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    cluster = Cluster(tmp_path / "old", nodes=2)
    bucket = cluster.bucket()
    for data in (b"both", b"only there", b"only here"):
        cluster.put(bucket, data.decode(), data)
    generations = {data: live(cluster, data) for data in (b"both", b"only here")}
    saved(cluster, tmp_path / "file")
    found = restored(tmp_path, Folder("n1", b"a new disk", *generations.items()))
    assert (found.absent, found.lost, found.problems) == (["n2"], 0, [])
    machine = Machine(tmp_path / "meta")
    places = {data: queries.chunk_place(machine.db, digest(data)) for data in (b"both", b"only there", b"only here")}
    assert {data: set(place.nodes) for data, place in places.items() if place} == {
        b"both": {"n1", "n2"}, b"only there": {"n2"}, b"only here": {"n1", "n2"}}
    machine.close()
    cluster.reader.close()
    cluster.machine.close()


def test_no_name_comes_twice(cluster: Cluster, tmp_path: Path) -> None:
    bucket = cluster.bucket()
    cluster.put(bucket, "k", b"x")
    made = saved(cluster, tmp_path / "file")
    far = Generation(position(made.index + 5_000_000, 0), 1)  # type: ignore[arg-type]
    found = restored(tmp_path, Folder("n1", cluster.nodes["n1"], (b"x", far)))
    assert found.index >= made.index + 5_000_000 + restore.JUMP
    again = Cluster(tmp_path / "meta")
    assert again.index == found.index + 2, "a registration and a session"
    assert again.session > far.session
    assert again.put(bucket, "k", b"y").order > position(found.index, 0)
    assert again.run(DeleteVersion(bucket=bucket, key="k"), cluster.session) == SessionEnded()
    again.check()
    again.reader.close()
    again.machine.close()


def test_the_old_journal_is_passed_too(tmp_path: Path) -> None:
    """A member that has gone far beyond the backup is replaced: even what only its journal tells is above."""
    async def main() -> tuple[backup.Descriptor, int]:
        place = Place(tmp_path)
        await place.serve()
        client = await place.client()
        bucket = (await client.commit(CreateBucket(name="b", account="a", owner="o"))).bucket  # type: ignore[union-attr]
        made = await client.take_backup("b")
        with (tmp_path / "file").open("wb") as file:
            while page := await client.read_backup("b", file.tell()):
                file.write(page)
        for number in range(50):
            await client.commit(put(bucket, f"k{number}"))
        assert place.server is not None
        last = place.server.status().commit_index
        with pytest.raises(Refused, match="stop it first"):
            restored(tmp_path, replace=True, cluster=None)
        await place.close()
        return made, last

    made, last = asyncio.run(main())
    for name in os.listdir(tmp_path / "meta"):
        if name.startswith("meta."):
            (tmp_path / "meta" / name).unlink()
    with pytest.raises(Refused, match="--replace"):
        restored(tmp_path, cluster=None)
    found = restored(tmp_path, replace=True, cluster=backup.fingerprint(SECRET))
    assert found.index >= last + restore.JUMP > made.index + restore.JUMP
    assert found.old == str(tmp_path / "meta.before-restore-7")
    assert (tmp_path / "meta.before-restore-7" / "journal").is_dir()

    async def serves() -> None:
        place = Place(tmp_path, config=QUIET)
        await place.serve()
        client = await place.client()
        assert [kept.name for kept in await client.list_backups()] == ["b"]
        assert await client.recount() == []
        await client.commit(put((await client.bucket("b")).id, "after"))  # type: ignore[union-attr]
        await place.close()
        assert place.failures == []

    asyncio.run(serves())
    asyncio.run(serves())
    for path in (tmp_path / "meta").glob("meta.*.sqlite*"):      # and the restored file can be lost, too
        path.unlink()
    asyncio.run(serves())


def test_what_sessions_had_begun_goes_and_uploads_stay(cluster: Cluster, tmp_path: Path) -> None:
    bucket = cluster.bucket()
    at: dict[str, Any] = {"bucket": bucket, "key": "k", "upload_id": "u"}
    cluster.run(CreateUpload(**at, attributes=PLAIN, owner="o"))
    cluster.run(PutPart(**at, number=1, content=cluster.content(b"part")))
    cluster.run(StageContent(slices=(whole(b"page"),), chunks=(cluster.chunk(b"page"),)))
    saved(cluster, tmp_path / "file")
    found = restored(tmp_path, Folder("n1", cluster.nodes["n1"], (b"page", live(cluster, b"page"))))
    assert [(lost.key, lost.upload_id, lost.part) for lost in found.missing] == [("k", "u", 1)]
    again = Cluster(tmp_path / "meta")
    again.drain()
    assert again.chunk_row(b"page") is None
    assert again.chunk_row(b"part") is not None
    again.check()
    again.reader.close()
    again.machine.close()


def test_backups_whose_copies_are_there_stay_and_others_go(cluster: Cluster, tmp_path: Path) -> None:
    bucket = cluster.bucket()
    cluster.put(bucket, "a", b"a")
    for name in ("first", "lost"):
        made = saved(cluster, tmp_path / "unused", name)
        cluster.run(KeepBackup(name=name, index=made.index))
    cluster.run(DeleteVersion(bucket=bucket, key="a"))
    saved(cluster, tmp_path / "file")
    shutil.copytree(cluster.folder, tmp_path / "meta")
    backup.remove(str(tmp_path / "meta"), "lost", Disk())
    restored(tmp_path, Folder("n1", cluster.nodes["n1"], (b"a", live(cluster, b"a"))), replace=True)
    again = Cluster(tmp_path / "meta")
    again.drain()
    assert [kept.name for kept in queries.backups(again.db)] == ["first", "b"]
    assert sorted(made.name for made in backup.described(str(tmp_path / "meta"))) == ["b", "first"]
    assert again.chunk_row(b"a") is not None, "the first backup refers to it"
    again.check()
    again.reader.close()
    again.machine.close()


@pytest.mark.parametrize("damage", ["flip", "cut", "longer", "head", "not a backup", "other cluster"])
def test_what_is_no_good_backup_is_refused_and_changes_nothing(cluster: Cluster, tmp_path: Path, damage: str) -> None:
    cluster.bucket()
    saved(cluster, tmp_path / "file", cluster_name="other" if damage == "other cluster" else "c")
    data = bytearray((tmp_path / "file").read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    elif damage == "cut":
        del data[-1]
    elif damage == "longer":
        data += b"x"
    elif damage == "head":
        data[5] ^= 64
    elif damage == "not a backup":
        data = bytearray(b"hello\n" * 100)
    (tmp_path / "file").write_bytes(data)
    with pytest.raises((Refused, Corrupt), match="file"):
        restored(tmp_path)
    assert not (tmp_path / "meta").exists()


def test_a_backup_of_a_newer_staddle_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    cluster.run(OpenBackup(name="b"))
    cluster.db.execute("UPDATE meta SET v = 99 WHERE k = 'schema'")
    backup.make(cluster.machine.path, str(cluster.folder), "b", cluster="c", now_ms=5, disk=Disk())
    with pytest.raises(Refused, match="newer"):
        restore.restore(str(cluster.folder / "backups" / "b.sqlite"), str(tmp_path / "meta"), (), cluster=None, now_ms=7)
    assert not (tmp_path / "meta").exists()
    assert not (tmp_path / "meta.restoring").exists()


def test_a_bare_copy_needs_its_description_beside_it(cluster: Cluster, tmp_path: Path) -> None:
    cluster.bucket()
    made = saved(cluster, tmp_path / "unused")
    copy = cluster.folder / "backups" / "b.sqlite"
    assert restore.restore(str(copy), str(tmp_path / "meta"), (), cluster=None, now_ms=7).backup == made
    shutil.copy(copy, tmp_path / "file")
    shutil.rmtree(tmp_path / "meta")
    with pytest.raises(Refused, match="description"):
        restored(tmp_path)


def test_a_stop_at_any_step_leaves_the_old_metadata_or_the_new(cluster: Cluster, tmp_path: Path) -> None:
    bucket = cluster.bucket()
    cluster.put(bucket, "k", b"x")
    made = saved(cluster, tmp_path / "file")
    states = set()
    for number in range(200):
        root = tmp_path / f"at{number}"
        root.mkdir()
        shutil.copytree(cluster.folder, root / "meta")
        disk = FaultyDisk(str(root))
        disk.stop_at = number
        with suppress(Stopped):
            restore.restore(str(tmp_path / "file"), str(root / "meta"), (), cluster="c", replace=True, now_ms=7, disk=disk)
        meta = root / "meta" if (root / "meta").exists() else root / "meta.before-restore-7"
        machine = Machine(meta)
        states.add((meta.name, machine.applied > restore.JUMP))
        assert audit.recount(machine.db) == []
        machine.close()
        if len(disk.steps) <= number:
            break
        if number % 5 == 0:
            again = restore.restore(str(tmp_path / "file"), str(root / "meta"), (), cluster="c", replace=True, now_ms=8)
            assert again.backup == made
        shutil.rmtree(root)
    assert number > 20
    assert states == {("meta", False), ("meta.before-restore-7", False), ("meta", True)}


@pytest.mark.parametrize("step", ["restore.write", "restore.fsync", "journal.fdatasync", "snapshot.fsync",
                                  "restore.current.fdatasync"])
def test_a_step_that_fails_leaves_all_as_it_was(cluster: Cluster, tmp_path: Path, step: str) -> None:
    cluster.bucket()
    saved(cluster, tmp_path / "file")
    shutil.copytree(cluster.folder, tmp_path / "meta")
    before = sorted(os.listdir(tmp_path / "meta"))
    disk = FaultyDisk(str(tmp_path))
    disk.fail_step = step
    with pytest.raises(OSError, match="injected"):
        restored(tmp_path, replace=True, disk=disk)
    assert sorted(os.listdir(tmp_path / "meta")) == sorted({*before, "lock"})
    assert not (tmp_path / "meta.restoring").exists()


# Counters

BROKEN = [
    "UPDATE bucket SET objects = 9", "UPDATE bucket SET bytes = bytes + 1", "UPDATE content SET refs = refs + 1 WHERE refs = 1",
    "UPDATE content SET refs = 1 WHERE refs = 2", "UPDATE chunk SET refs = refs + 5", "UPDATE chunk SET short = 1 - short",
    "DELETE FROM queue", "INSERT INTO queue (kind, a) SELECT 1, max(id) FROM content WHERE refs > 0",
    "DELETE FROM staged", "DELETE FROM lingering", "DELETE FROM upload",
]


@pytest.mark.parametrize("statement", BROKEN)
def test_counters_are_mended(tmp_path: Path, statement: str) -> None:
    cluster = Cluster(tmp_path, nodes=2)
    bucket = cluster.bucket()
    for number in range(4):
        cluster.put(bucket, f"k{number}", b"%d" % number, b"shared")
    at: dict[str, Any] = {"bucket": bucket, "key": "k", "upload_id": "u"}
    cluster.run(CreateUpload(**at, attributes=PLAIN, owner="o"))
    cluster.run(PutPart(**at, number=1, content=cluster.content(b"part")))
    row = cluster.db.execute("SELECT content FROM object").fetchone()
    cluster.run(PutVersion(bucket=bucket, key="shares", version_id="v", attributes=PLAIN, owner="o", content_of=row[0]))
    cluster.drain()
    page = cluster.run(StageContent(slices=(whole(b"page"),), chunks=(cluster.chunk(b"page"),)))
    content = NewContent(size=8, etag="e", slices=(whole(b"more"),), chunks=(cluster.chunk(b"more"),), staged=page.content)
    cluster.run(PutVersion(bucket=bucket, key="long", version_id="v", attributes=PLAIN, owner="o", content=content))
    cluster.run(DeleteVersion(bucket=bucket, key="long"))
    cluster.run(StageContent(slices=(whole(b"page"),), chunks=(cluster.chunk(b"page"),)))
    cluster.run(CreateUpload(**{**at, "upload_id": "aborted"}, attributes=PLAIN, owner="o"))
    cluster.run(PutPart(**{**at, "upload_id": "aborted"}, number=1, content=cluster.content(b"part")))
    cluster.run(AbortUpload(**{**at, "upload_id": "aborted"}))
    cluster.check()
    cluster.db.execute("BEGIN")
    assert cluster.db.execute(statement).rowcount
    cluster.db.execute("COMMIT")
    assert audit.recount(cluster.db) != []
    cluster.db.execute("BEGIN")
    assert mending.mend(cluster.db) != []
    cluster.db.execute("COMMIT")
    assert audit.recount(cluster.db) == []
    assert mending.mend(cluster.db) == []
    cluster.reopen()
    cluster.drain()
    cluster.check()
    for number in range(4):
        assert cluster.chunk_row(b"%d" % number) is not None
    cluster.reader.close()
    cluster.machine.close()


def test_affected_versions_are_named(cluster: Cluster) -> None:
    bucket = cluster.bucket(versioning="Enabled")
    cluster.put(bucket, "a", b"1", b"2", version="v1")
    cluster.put(bucket, "a", b"3", version="v2")
    cluster.put(bucket, "b", b"2", version="v3")
    with closing(sqlite3.connect(cluster.machine.path)) as db:
        count, found = audit.affected(db, {digest(b"2")})
        assert (count, [(each.key, each.version_id) for each in found]) == (2, [("a", "v1"), ("b", "v3")])
        assert audit.affected(db, {digest(b"2")}, limit=1) == (2, found[:1])
        assert audit.affected(db, set()) == (0, [])
