"""What waits to be released, told truly; housekeeping on demand; uploads that expire."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from consensus import expiry, garbage, queries
from consensus.config import MetaConfig
from consensus.core.commands import (
    CreateBucket,
    CreateUpload,
    DeleteBucket,
    DeleteVersion,
    DropBackup,
    EndSession,
    ExpireUploads,
    KeepBackup,
    NewContent,
    OpenBackup,
    PutPart,
    PutVersion,
    StageContent,
)
from consensus.core.results import BucketCreated, Done, Drained, NoUpload, Staged
from consensus.expiry import Expiry
from tests.unit.consensus.members import Place, put
from tests.unit.consensus.metadata import PLAIN, Cluster, whole

PIECES = [bytes([number]) * 3 for number in range(70)]


def report(cluster: Cluster) -> garbage.GcReport:
    return cluster.read(queries.gc_report)


def begin(cluster: Cluster, bucket: int, upload_id: str, parts: int = 0) -> dict[str, Any]:
    at = {"bucket": bucket, "key": "k", "upload_id": upload_id}
    assert cluster.run(CreateUpload(**at, attributes=PLAIN, owner="o")) == Done()  # type: ignore[arg-type]
    for number in range(1, parts + 1):
        cluster.run(PutPart(**at, number=number, content=cluster.content(b"part")))  # type: ignore[arg-type]
    return at


def test_nothing_waits_in_an_orderly_store(cluster: Cluster) -> None:
    cluster.put(cluster.bucket(), "k", b"x")
    cluster.drain()
    found = report(cluster)
    assert found.queued == ()
    for waiting in (found.lingering, found.held, found.staged, found.uploads):
        assert (waiting.items, waiting.bytes, waiting.since_ms) == (0, 0, 0)
    assert (found.short, found.lost, found.hints) == (0, 0, 0)


def test_everything_that_waits_is_named(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    cluster.put(bucket, "k", *PIECES)
    cluster.put(bucket, "held", b"held by a backup")
    assert cluster.run(OpenBackup(name="before")) == Done()
    assert cluster.run(KeepBackup(name="before", index=cluster.index)) == Done()
    cluster.run(DeleteVersion(bucket=bucket, key="held"))
    cluster.put(bucket, "long", *PIECES)
    cluster.run(DeleteVersion(bucket=bucket, key="long"))
    deleted = cluster.now
    staged = cluster.run(StageContent(slices=(whole(b"page"),), chunks=(cluster.chunk(b"page"),)))
    assert isinstance(staged, Staged)
    begin(cluster, bucket, "u1", parts=2)
    begun = cluster.now - 2
    other = cluster.bucket("other")
    begin(cluster, other, "u2")
    cluster.run(DeleteBucket(bucket=other))
    cluster.run(EndSession(session=cluster.open_session()), 0)
    found = report(cluster)
    assert {waiting.what.split()[0]: (waiting.items, waiting.bytes) for waiting in found.queued} == {
        "contents": (1, 210), "uploads": (1, 0), "leftovers": (1, 0), "chunks": (1, 0)}
    assert next(waiting for waiting in found.queued if waiting.bytes).since_ms == deleted
    assert (found.held.items, found.held.bytes) == (1, 16)
    assert (found.staged.items, found.staged.bytes) == (1, 4)
    assert found.uploads == garbage.Waiting(found.uploads.what, 2, 8, begun)
    assert cluster.read(queries.held_contents)[0].bytes == 16
    assert cluster.read(queries.staged_contents) == [(staged.content, cluster.session, "test", 4, 0)]
    uploads = cluster.read(queries.open_uploads)
    assert [(upload.bucket, upload.key, upload.upload_id, upload.parts, upload.bytes) for upload in uploads] == [
        ("bucket", "k", "u1", 2, 8), ("", "k", "u2", 0, 0)]
    assert cluster.read(queries.open_uploads, uploads[0].order) == uploads[1:]
    assert cluster.run(DropBackup(name="before")) == Done()
    cluster.drain()
    assert (report(cluster).queued, report(cluster).held.items) == ((), 0)


def test_chunks_without_enough_copies_are_counted(three: Cluster) -> None:
    bucket = three.bucket()
    three.put(bucket, "k", b"three copies")
    data = b"two copies"
    three.run(PutVersion(bucket=bucket, key="s", version_id="v", attributes=PLAIN, owner="o",  # type: ignore[arg-type]
                         content=NewContent(size=len(data), etag="e", slices=(whole(data),),
                                            chunks=(three.chunk(data, "n1", "n2"),))))
    assert (report(three).short, report(three).lost) == (1, 0)


def test_pages_of_uploads_end_where_they_have_counted_enough(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage, "PARTS_PER_PAGE", 3)
    bucket = cluster.bucket()
    for number in range(5):
        begin(cluster, bucket, f"u{number}", parts=2)
    found: list[garbage.OpenUpload] = []
    pages = 0
    while page := cluster.read(queries.open_uploads, found[-1].order if found else 0):
        found += page
        pages += 1
    assert [upload.upload_id for upload in found] == [f"u{number}" for number in range(5)]
    assert pages == 3


# Uploads that expire

def test_the_oldest_expire_in_pages(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    uploads = [begin(cluster, bucket, f"u{number}", parts=1) for number in range(5)]
    begin(cluster, bucket, "last moment")
    before = cluster.now
    begin(cluster, bucket, "young", parts=1)
    assert cluster.run(ExpireUploads(before_ms=before, limit=4), 0) == Drained(released=4, more=True)
    assert cluster.run(PutPart(**uploads[3], number=2, content=cluster.content(b"x"))) == NoUpload()
    assert cluster.run(ExpireUploads(before_ms=before, limit=4), 0) == Drained(released=1, more=False)
    assert cluster.run(ExpireUploads(before_ms=before, limit=4), 0) == Drained(released=0, more=False)
    cluster.drain()
    left = {upload.upload_id for upload in cluster.read(queries.open_uploads)}
    assert left == {"young", "last moment"}, "which is not before itself"
    assert cluster.rows("part") == cluster.rows("content") == 1


def test_no_upload_expires_by_a_clock_that_has_jumped(monkeypatch: pytest.MonkeyPatch) -> None:
    hour, now_s, counted_s = 3600, 1_000_000.0, 50.0

    class Clock:
        def now_ms(self) -> int:
            return int(now_s * 1000)

        def monotonic(self) -> float:
            raise AssertionError("it does not count a suspended machine's time")

    monkeypatch.setattr(expiry, "counting_s", lambda: counted_s)
    never, after = Expiry(Clock(), 0), Expiry(Clock(), 2 * hour)
    assert never.due(0) is None
    assert after.due(None) is None
    oldest = int((now_s - hour) * 1000)
    assert after.due(oldest) is None, "too young"
    now_s += hour + 1
    counted_s += hour + 1
    assert after.due(oldest) == ExpireUploads(before_ms=int((now_s - 2 * hour) * 1000), limit=expiry.PAGE)
    now_s += 1000 * hour
    oldest = int((now_s - 3 * hour) * 1000)
    assert after.due(oldest) is None, "a jump"
    now_s, counted_s = now_s + 23 * hour, counted_s + 23 * hour
    assert after.due(oldest) is None
    now_s, counted_s = now_s + 2 * hour, counted_s + 2 * hour
    assert after.due(oldest) is not None, "the new time has held for a day"
    now_s += 200.0
    assert after.due(oldest) is not None, "slewing is no jump"


# Housekeeping on demand

@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    place = Place(tmp_path, config=MetaConfig(housekeeping_s=3600.0, upload_expire_s=0.001))
    yield place
    await place.close()


@pytest.mark.anyio
async def test_a_client_has_everything_released(place: Place) -> None:
    server = await place.serve()
    client = await place.client()
    for local in (True, False):
        asker = client if local else await place.client(local=False)
        name = f"b{local}"
        created = await client.commit(CreateBucket(name=name, account="a", owner="o"))
        assert isinstance(created, BucketCreated)
        for number in range(600):
            await client.commit(CreateUpload(bucket=created.bucket, key=f"{number}", upload_id="u",  # type: ignore[arg-type]
                                             attributes=PLAIN, owner="o"))
        assert await client.commit(DeleteBucket(bucket=created.bucket)) == Done()
        assert (await asker.gc_report()).queued
        seen: list[int] = []
        assert await asker.housekeep(progress=seen.append) >= 600
        assert seen
        assert (await asker.gc_report()).queued == ()
        assert await asker.open_uploads() == []
    entries = server.status().commit_index
    assert await client.housekeep() == 0
    assert server.status().commit_index <= entries + 1


@pytest.mark.anyio
async def test_the_leader_lets_uploads_expire(place: Place) -> None:
    server = await place.serve()
    client = await place.client()
    created = await client.commit(CreateBucket(name="b", account="a", owner="o"))
    assert isinstance(created, BucketCreated)
    for number in range(expiry.PAGE + 20):
        await client.commit(CreateUpload(bucket=created.bucket, key=f"{number}", upload_id="u",  # type: ignore[arg-type]
                                         attributes=PLAIN, owner="o"))
    await client.commit(put(created.bucket, "time passes"))
    while server.housekeeper._clock.now_ms() <= (await client.open_uploads(0, 1000))[-1].initiated_ms + 1:
        pass
    await server.housekeeper.keep_house()
    assert await client.open_uploads() == []
