"""A long content that is deleted while a client reads it: the reader comes back for the rest of its slices."""

from typing import Any

import pytest

from consensus import queries
from consensus.core.commands import (
    CompleteUpload,
    CreateUpload,
    DeleteVersion,
    Drain,
    ListedPart,
    NewContent,
    PutPart,
    PutVersion,
    StageContent,
)
from consensus.core.results import Committed, Drained
from tests.unit.consensus.metadata import PLAIN, Cluster, whole

GRACE_MS = 3_600_000
DATA = b"again and again"


def put(cluster: Cluster, bucket: int, slices: int, pages: int = 1) -> int:
    """A key whose content has so many slices, all of one chunk. Its content."""
    staged = None
    chunks = (cluster.chunk(DATA),)
    for _ in range(pages - 1):
        staged = cluster.run(StageContent(slices=(whole(DATA),) * 200, chunks=chunks, into=staged)).content
        chunks = ()
    content = NewContent(size=len(DATA) * (slices + 200 * (pages - 1)), etag="e", slices=(whole(DATA),) * slices,
                         chunks=chunks, staged=staged)
    result = cluster.run(PutVersion(bucket=bucket, key="k", version_id="v", attributes=PLAIN, owner="o",  # type: ignore[arg-type]
                                    content=content))
    assert isinstance(result, Committed)
    return current(cluster, bucket)


def current(cluster: Cluster, bucket: int) -> int:
    version = cluster.read(queries.current, bucket, "k")
    return version.content


def drain(cluster: Cluster) -> None:
    for _ in range(100):
        if not cluster.run(Drain(grace_ms=GRACE_MS), 0).more:
            return
    raise AssertionError("the queue does not get shorter")


@pytest.mark.parametrize(("slices", "pages"), [(300, 1), (257, 1), (1, 3)])
def test_it_is_left_alone_for_the_grace(cluster: Cluster, slices: int, pages: int) -> None:
    bucket = cluster.bucket()
    content = put(cluster, bucket, slices, pages)
    everything = cluster.read(queries.slices, content, 0, 1 << 40)
    cluster.run(DeleteVersion(bucket=bucket, key="k"))
    drain(cluster)
    cluster.check()
    assert cluster.read(queries.slices, content, 0, 1 << 40) == everything
    assert not cluster.machine.has_work(cluster.now, GRACE_MS), "nothing to do: no Drain after Drain"
    cluster.now += GRACE_MS
    assert cluster.machine.has_work(cluster.now, GRACE_MS)
    drain(cluster)
    cluster.check()
    assert cluster.rows("content") == cluster.rows("chunk") == cluster.rows("lingering") == cluster.rows("piece") == 0


@pytest.mark.parametrize("slices", [256, 65, 64, 1])
def test_one_that_a_reader_knows_whole_goes_at_once(cluster: Cluster, slices: int) -> None:
    bucket = cluster.bucket()
    content = put(cluster, bucket, slices)
    assert len(cluster.read(queries.slices, content, 0, 1 << 40)) == slices
    cluster.run(DeleteVersion(bucket=bucket, key="k"))
    drain(cluster)
    assert cluster.rows("content") == cluster.rows("chunk") == 0


def test_whoever_asks_for_it_gets_the_space_at_once(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    put(cluster, bucket, 300)
    cluster.run(DeleteVersion(bucket=bucket, key="k"))
    assert isinstance(cluster.run(Drain(), 0), Drained)
    cluster.drain()
    assert cluster.rows("content") == 0


@pytest.mark.parametrize(("parts", "slices", "long"), [(3, 1, False), (256, 1, False), (257, 1, True), (4, 64, False),
                                                       (5, 60, True), (2, 65, True)])
def test_an_object_of_parts(cluster: Cluster, parts: int, slices: int, long: bool) -> None:
    bucket = cluster.bucket()
    at: Any = {"bucket": bucket, "key": "k", "upload_id": "u"}
    cluster.run(CreateUpload(**at, attributes=PLAIN, owner="o"))
    size = len(DATA) * slices
    part = NewContent(size=size, etag="e", slices=(whole(DATA),) * slices, chunks=(cluster.chunk(DATA),))
    cluster.send(*(cluster.envelope(PutPart(**at, number=number, content=part)) for number in range(1, parts + 1)))
    listed = tuple(ListedPart(number=part.number, content=part.content)
                   for part in cluster.read(queries.parts, bucket, "k", "u"))
    cluster.run(CompleteUpload(**at, version_id="v", etag="e", size=size * parts, parts=listed))
    content = current(cluster, bucket)
    cluster.run(DeleteVersion(bucket=bucket, key="k"))
    drain(cluster)
    assert (cluster.rows("content"), cluster.rows("lingering")) == ((parts + 1, 1) if long else (0, 0))
    assert bool(cluster.read(queries.slices, content, 0, 1 << 40)) == long
    cluster.now += GRACE_MS
    drain(cluster)
    assert cluster.rows("content") == cluster.rows("content_part") == 0, "its parts do not wait once more"


@pytest.mark.parametrize("parts", [0, 5])
def test_one_that_is_half_taken_apart_is_gone_and_no_damage(cluster: Cluster, parts: int) -> None:
    """Whoever is told of damage makes all metadata anew: it must not be said of what goes in order."""
    bucket = cluster.bucket()
    if parts:
        at: Any = {"bucket": bucket, "key": "k", "upload_id": "u"}
        cluster.run(CreateUpload(**at, attributes=PLAIN, owner="o"))
        size = len(DATA) * 60
        part = NewContent(size=size, etag="e", slices=(whole(DATA),) * 60, chunks=(cluster.chunk(DATA),))
        cluster.send(*(cluster.envelope(PutPart(**at, number=number, content=part)) for number in range(1, parts + 1)))
        listed = tuple(ListedPart(number=part.number, content=part.content)
                       for part in cluster.read(queries.parts, bucket, "k", "u"))
        cluster.run(CompleteUpload(**at, version_id="v", etag="e", size=size * parts, parts=listed))
        cluster.drain()
        content, size = current(cluster, bucket), size * parts
    else:
        content, size = put(cluster, bucket, 100, pages=3), 500 * len(DATA)
    cluster.run(DeleteVersion(bucket=bucket, key="k"))
    seen = set()
    for _ in range(1000):
        seen.add((bool(cluster.read(queries.slices, content, 0, 1)), bool(cluster.read(queries.slices, content, size - 1, 1))))
        if not cluster.run(Drain(limit=2 if parts else 30), 0).more:
            break
    assert {(True, True), (True, False)} == seen - {(False, False)}
    assert cluster.read(queries.slices, content, 0, 1) == []
