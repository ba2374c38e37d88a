"""No command writes more than its thousand rows, whatever it is made to do: the largest of each kind, at its worst.

`State.end` asserts the limit; here each command is driven to where it writes the most.
"""

from pathlib import Path
from typing import Any

import pytest

from consensus import queries
from consensus.apply.buckets import FAMILIES_MAX, FAMILY_MAX, SETTINGS_MAX
from consensus.apply.state import HINTED_NODES_MAX
from consensus.core.commands import (
    CHUNKS_PER_COMMAND_MAX,
    PARTS_PER_PAGE_MAX,
    ROWS_PER_COMMAND_MAX,
    AbortUpload,
    Announce,
    CompleteUpload,
    CreateUpload,
    DeleteBucket,
    DeleteVersion,
    EndSession,
    ListedPart,
    NewContent,
    PutPart,
    PutVersion,
    SetBucketSetting,
    SetVersioning,
    StageContent,
    StageParts,
    Withdraw,
)
from consensus.core.ids import Generation, digest
from consensus.core.results import Announced, Committed, Done, Malformed, PartStored, Staged, Withdrawn
from tests.unit.consensus.metadata import PLAIN, Cluster, whole

PIECES = [number.to_bytes(2, "big") for number in range(CHUNKS_PER_COMMAND_MAX)]


def touched(cluster: Cluster) -> int:
    """Rows that the last command wrote."""
    assert cluster.machine.state.touched <= ROWS_PER_COMMAND_MAX
    return cluster.machine.state.touched


def put(cluster: Cluster, bucket: int, key: str, pieces: list[bytes], *nodes: str, version: str = "v") -> Any:
    content = NewContent(size=sum(map(len, pieces)), etag="e", slices=tuple(map(whole, pieces)),
                         chunks=tuple(cluster.chunk(piece, *nodes) for piece in pieces))
    return cluster.run(PutVersion(bucket=bucket, key=key, version_id=version, attributes=PLAIN, owner="o",
                                  content=content))


@pytest.fixture
def many(tmp_path: Path) -> Cluster:
    """A hundred nodes: more than one command leaves hints for."""
    return Cluster(tmp_path, nodes=100, replication="async", copies=100)


def test_a_put_that_switches_all_its_chunks_and_replaces_a_null_version(many: Cluster) -> None:
    names = sorted(many.nodes)
    bucket = many.bucket(versioning="Enabled")
    old = [bytes([number]) * 3 for number in range(50)]
    assert isinstance(put(many, bucket, "other", PIECES, *names[:60]), Committed)
    many.run(SetVersioning(bucket=bucket, status="Suspended"))
    put(many, bucket, "k", old, *names[60:])
    many.run(SetVersioning(bucket=bucket, status="Enabled"))
    put(many, bucket, "k", [b"current"], version="v2")
    many.run(SetVersioning(bucket=bucket, status="Suspended"))
    assert isinstance(put(many, bucket, "k", PIECES, *names), Committed)
    rows = touched(many)
    assert rows >= CHUNKS_PER_COMMAND_MAX + 50 + HINTED_NODES_MAX
    many.check()


def test_one_slice_more_is_refused(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    assert isinstance(put(cluster, bucket, "k", [*PIECES, b"one more"]), Malformed)
    assert isinstance(cluster.run(StageContent(slices=(whole(b"x"),) * 301, chunks=(cluster.chunk(b"x"),))), Malformed)


@pytest.mark.parametrize("pieces", [1, 50, 70])
def test_multipart_at_its_largest(cluster: Cluster, pieces: int) -> None:
    """400 parts in each page; parts of few slices go with their part, longer ones queue up one by one."""
    bucket = cluster.bucket()
    at: Any = {"bucket": bucket, "key": "k", "upload_id": "u"}
    cluster.run(CreateUpload(**at, attributes=PLAIN, owner="o"))
    assert isinstance(cluster.run(PutPart(**at, number=1, content=cluster.content(*PIECES[:pieces]))), PartStored)
    count = 2 * PARTS_PER_PAGE_MAX
    copies = NewContent(size=2 * pieces, etag="e", slices=tuple(map(whole, PIECES[:pieces])))
    cluster.send(*(cluster.envelope(PutPart(**at, number=number, content=copies)) for number in range(2, count + 1)))
    parts = tuple(ListedPart(number=part.number, content=part.content)
                  for part in cluster.read(queries.parts, bucket, "k", "u", 0, count))
    staged = cluster.run(StageParts(**at, parts=parts[:PARTS_PER_PAGE_MAX]))
    assert isinstance(staged, Staged)
    assert touched(cluster) > 2 * PARTS_PER_PAGE_MAX
    result = cluster.run(CompleteUpload(**at, version_id="v", etag="e", size=2 * pieces * count, staged=staged.content,
                                        parts=parts[PARTS_PER_PAGE_MAX:]))
    assert isinstance(result, Committed)
    assert touched(cluster) > 2 * PARTS_PER_PAGE_MAX
    cluster.run(DeleteVersion(bucket=bucket, key="k"))
    drained(cluster)
    assert cluster.rows("content") == cluster.rows("chunk") == 0


def drained(cluster: Cluster) -> None:
    """Drain step by step, each within the limit."""
    from consensus.core.commands import Drain

    for _ in range(5000):
        result = cluster.run(Drain(limit=10_000), 0)
        touched(cluster)
        if not result.more:
            return
    raise AssertionError("the queue does not get shorter")


def test_a_session_that_ends_with_all_that_a_session_may_have(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    for number in range(400):
        cluster.run(StageContent(slices=(whole(b"x"),), chunks=(cluster.chunk(b"x"),) if not number else ()))
    command = DeleteVersion(bucket=bucket, key="none")
    cluster.send(*(cluster.envelope(command) for _ in range(3000)))
    assert cluster.run(EndSession(session=cluster.session), 0) == Done()
    assert touched(cluster) <= 3
    drained(cluster)
    assert cluster.rows("result") == cluster.rows("staged") == cluster.rows("chunk") == 0


def test_a_page_of_announcements_and_of_withdrawals(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, nodes=2, copies=1)
    put(cluster, cluster.bucket(), "k", PIECES, "n1")
    of = Generation(*cluster.chunk_row(PIECES[0])[:2])  # type: ignore[index]
    copies = tuple((digest(piece), of) for piece in PIECES)
    session = cluster.node_sessions["n2"]
    announce = Announce(node="n2", incarnation=cluster.nodes["n2"], copies=copies)  # type: ignore[arg-type]
    assert cluster.run(announce, session) == Announced(counted=300)
    assert touched(cluster) == 300
    assert len(cluster.run(Withdraw(node="n2", copies=copies), session).places) == 300  # type: ignore[arg-type]
    assert cluster.run(Withdraw(node="n2", copies=copies), session) == Withdrawn(places=())  # type: ignore[arg-type]
    more = Withdraw(node="n2", copies=(*copies, copies[0]))  # type: ignore[arg-type]
    assert isinstance(cluster.run(more, session), Malformed)


def test_an_aborted_upload_of_many_long_parts_is_drained_in_pages(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    at: Any = {"bucket": bucket, "key": "k", "upload_id": "u"}
    cluster.run(CreateUpload(**at, attributes=PLAIN, owner="o"))
    for number in range(1, 4):
        cluster.run(PutPart(**at, number=number, content=cluster.content(*PIECES)))
    assert cluster.run(AbortUpload(**at)) == Done()
    drained(cluster)
    assert cluster.rows("chunk") == cluster.rows("piece") == 0


def test_settings_of_a_bucket_are_bounded_and_go_with_it_in_pages(cluster: Cluster) -> None:
    bucket, other = cluster.bucket(), cluster.bucket("other")

    def keep(name: str, document: bytes | None = b"x") -> Any:
        return cluster.run(SetBucketSetting(bucket=bucket, name=name, document=document))

    for number in range(SETTINGS_MAX):
        assert keep(f"kind{number}") == Done()
    assert isinstance(keep("kind"), Malformed)
    for number in range(FAMILY_MAX):
        assert keep(f"family/{number}") == Done()
    assert isinstance(keep("family/x"), Malformed)
    assert keep("family/0") == Done(), "one that is there may be replaced"
    assert keep("family/0", None) == keep("family/x") == Done(), "and one that went makes room"
    for number in range(1, FAMILIES_MAX):
        assert keep(f"family{number}/a") == Done()
    assert isinstance(keep("families/a"), Malformed)
    assert keep("family1/b") == Done()
    cluster.run(SetBucketSetting(bucket=other, name="family/x", document=b"x"))
    assert cluster.run(DeleteBucket(bucket=bucket)) == Done()
    assert touched(cluster) <= SETTINGS_MAX + 10
    cluster.check()
    assert cluster.drain() > 3
    assert cluster.rows("bucket_setting") == 1, "the other bucket's"
    cluster.check()
