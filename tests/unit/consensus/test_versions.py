"""Buckets and versions of keys: S3's rules for never versioned, Enabled and Suspended; preconditions; copies."""

from typing import Any

import pytest

from consensus import queries
from consensus.core.commands import (
    Condition,
    CreateBucket,
    CreateUpload,
    DeleteBucket,
    DeleteVersion,
    PutVersion,
    SetVersioning,
)
from consensus.core.model import Attributes, Checksum
from consensus.core.results import (
    BucketCreated,
    BucketExists,
    BucketNotEmpty,
    Committed,
    ConditionFailed,
    ContentMissing,
    Deleted,
    Done,
    Malformed,
    NoBucket,
    NoKey,
)
from tests.unit.consensus.metadata import PLAIN, Cluster


def delete(cluster: Cluster, bucket: int, key: str, version: str | None = None, **named: Any) -> Any:
    return cluster.run(DeleteVersion(bucket=bucket, key=key, version_id=version, marker_id=f"m{cluster.index}",  # type: ignore[arg-type]
                                     owner="o", **named))


def history(cluster: Cluster, bucket: int, key: str = "") -> list[str]:
    """Version ids, newest first; markers with a !, the latest with a *."""
    page = cluster.read(queries.list_versions, bucket, key, "", "", None, 1000)
    return [entry.version_id + "!" * entry.delete_marker + "*" * entry.latest for entry in page.objects]


def suspend(cluster: Cluster, bucket: int, status: str = "Suspended") -> None:
    assert cluster.run(SetVersioning(bucket=bucket, status=status)) == Done()  # type: ignore[arg-type]


def counters(cluster: Cluster) -> tuple[int, int]:
    found = cluster.read(queries.bucket_counted, "bucket")
    return found.object_count, found.byte_count


# Buckets

def test_a_bucket_name_is_taken_once(cluster: Cluster) -> None:
    bucket = cluster.bucket("b")
    assert cluster.run(CreateBucket(name="b", account="z", owner="o")) == BucketExists(account="a")
    assert cluster.run(DeleteBucket(bucket=bucket)) == Done()
    assert cluster.run(DeleteBucket(bucket=bucket)) == NoBucket()
    again = cluster.run(CreateBucket(name="b", account="z", owner="o", region="eu"))
    assert isinstance(again, BucketCreated)
    assert again.bucket != bucket, "an id is never used twice"
    found = cluster.read(queries.bucket, "b")
    assert (found.account, found.region, found.created_ms) == ("z", "eu", cluster.now)


def test_a_bucket_with_any_version_or_marker_is_not_deleted(cluster: Cluster) -> None:
    bucket = cluster.bucket(versioning="Enabled")
    cluster.put(bucket, "k", b"x", version="v1")
    assert cluster.run(DeleteBucket(bucket=bucket)) == BucketNotEmpty()
    delete(cluster, bucket, "k")
    delete(cluster, bucket, "k", "v1")
    assert [entry[-2:] for entry in history(cluster, bucket)] == ["!*"]
    assert cluster.run(DeleteBucket(bucket=bucket)) == BucketNotEmpty(), "a marker is left"
    delete(cluster, bucket, "k", history(cluster, bucket)[0][:-2])
    assert cluster.run(DeleteBucket(bucket=bucket)) == Done()


def test_nothing_happens_in_a_deleted_bucket(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    cluster.put(bucket, "k", b"x")
    delete(cluster, bucket, "k")
    cluster.run(DeleteBucket(bucket=bucket))
    assert cluster.put(bucket, "k", b"x") == NoBucket()
    assert delete(cluster, bucket, "k") == NoBucket()
    assert cluster.run(SetVersioning(bucket=bucket, status="Enabled")) == NoBucket()
    assert cluster.run(CreateUpload(bucket=bucket, key="k", upload_id="u", attributes=PLAIN, owner="o")) == NoBucket()
    assert cluster.rows("chunk") == 0


def test_versioning_is_never_unset(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    for status in ("", "enabled", "Off"):
        assert isinstance(cluster.run(SetVersioning(bucket=bucket, status=status)), Malformed)
    suspend(cluster, bucket)
    suspend(cluster, bucket, "Enabled")
    assert cluster.read(queries.bucket, "bucket").versioning == "Enabled"


def test_buckets_are_listed_in_order_by_account_prefix_and_page(cluster: Cluster) -> None:
    for name, account in (("bb", "a"), ("ba", "b"), ("a", "a"), ("bc", "a"), ("c", "a")):
        cluster.run(CreateBucket(name=name, account=account, owner="o"))
    def names(*arguments: Any) -> list[str]:
        return [bucket.name for bucket in cluster.read(queries.buckets, *arguments)]
    assert names(None, "", "", 10) == ["a", "ba", "bb", "bc", "c"]
    assert names("a", "", "", 10) == ["a", "bb", "bc", "c"]
    assert names("a", "b", "", 10) == ["bb", "bc"]
    assert names("a", "b", "bb", 10) == ["bc"]
    assert names(None, "", "ba", 2) == ["bb", "bc"]
    assert names(None, "b", "a", 1) == ["ba"]


# Never versioned

def test_without_versioning_a_put_replaces_and_a_delete_removes(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    first = cluster.put(bucket, "k", b"abc")
    assert first == Committed(version_id=None, order=first.order, modified_ms=cluster.now, etag=first.etag)
    second = cluster.put(bucket, "k", b"x")
    assert second.order > first.order
    assert history(cluster, bucket) == ["null*"]
    assert counters(cluster) == (1, 1)
    assert cluster.rows("content") == cluster.rows("chunk") == 1
    assert delete(cluster, bucket, "k") == Deleted(existed=True)
    assert delete(cluster, bucket, "k") == Deleted(existed=False)
    assert counters(cluster) == (0, 0)
    assert cluster.rows("history") == cluster.rows("content") == 0


def test_without_versioning_the_version_is_called_null(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    cluster.put(bucket, "k", b"x")
    assert delete(cluster, bucket, "k", "other") == Deleted(existed=False, version_id="other")
    assert cluster.read(queries.version, bucket, "k", "null").latest
    assert delete(cluster, bucket, "k", "null") == Deleted(existed=True, version_id="null")
    assert history(cluster, bucket) == []


def test_what_the_client_said_is_kept(cluster: Cluster) -> None:
    attributes = Attributes(content_type="text/x", headers=(("cache-control", "no"),), metadata=(("a", "é\xff"),),
                            tags=(("t", ""),), storage_class="GLACIER")
    checksum = Checksum("CRC32C", "AAAAAA==", "FULL_OBJECT")
    bucket = cluster.bucket()
    cluster.run(PutVersion(bucket=bucket, key="k", version_id="v", attributes=attributes, owner="me",
                           content=cluster.content(b"x", checksum=checksum)))
    found = cluster.read(queries.current, bucket, "k")
    assert (found.attributes, found.checksum, found.owner, found.size) == (attributes, checksum, "me", 1)
    listed = cluster.read(queries.list_objects, bucket, "", "", "", 9).objects[0]
    assert (listed.storage_class, listed.checksum, listed.owner, listed.etag) == ("GLACIER", checksum, "me", found.etag)


# Enabled

def test_with_versioning_nothing_is_replaced(cluster: Cluster) -> None:
    bucket = cluster.bucket(versioning="Enabled")
    assert cluster.put(bucket, "k", b"1", version="v1").version_id == "v1"
    cluster.put(bucket, "k", b"22", version="v2")
    assert history(cluster, bucket) == ["v2*", "v1"]
    assert counters(cluster) == (2, 3)
    old = cluster.read(queries.version, bucket, "k", "v1")
    assert (old.size, old.latest, old.delete_marker) == (1, False, False)
    assert cluster.read(queries.version, bucket, "k", "v9") is None
    assert cluster.read(queries.current, bucket, "k").version_id == "v2"


def test_a_delete_puts_a_marker_even_where_nothing_was(cluster: Cluster) -> None:
    bucket = cluster.bucket(versioning="Enabled")
    result = delete(cluster, bucket, "k")
    assert result == Deleted(existed=False, version_id=result.version_id, delete_marker=True)
    again = delete(cluster, bucket, "k")
    assert history(cluster, bucket) == [again.version_id + "!*", result.version_id + "!"]
    found = cluster.read(queries.current, bucket, "k")
    assert (found.delete_marker, found.latest, found.version_id) == (True, True, again.version_id)
    assert cluster.read(queries.opened, "bucket", "k")[1] == found
    assert cluster.read(queries.list_objects, bucket, "", "", "", 9).objects == ()
    assert counters(cluster) == (0, 0)


def test_removing_the_marker_uncovers_what_was_before(cluster: Cluster) -> None:
    bucket = cluster.bucket(versioning="Enabled")
    cluster.put(bucket, "k", b"1", version="v1")
    marker = delete(cluster, bucket, "k").version_id
    assert delete(cluster, bucket, "k", marker) == Deleted(existed=True, version_id=marker, delete_marker=True)
    assert history(cluster, bucket) == ["v1*"]
    assert cluster.read(queries.current, bucket, "k").version_id == "v1"
    assert counters(cluster) == (1, 1)


def test_removing_the_newest_version_uncovers_the_one_before(cluster: Cluster) -> None:
    bucket = cluster.bucket(versioning="Enabled")
    for number in range(3):
        cluster.put(bucket, "k", bytes([number]), version=f"v{number}")
    assert delete(cluster, bucket, "k", "v2") == Deleted(existed=True, version_id="v2")
    assert history(cluster, bucket) == ["v1*", "v0"]
    delete(cluster, bucket, "k", "v0")
    assert history(cluster, bucket) == ["v1*"]
    delete(cluster, bucket, "k", "v1")
    assert history(cluster, bucket) == []
    assert cluster.rows("chunk") == 0


def test_removing_a_version_under_a_marker_leaves_the_marker_current(cluster: Cluster) -> None:
    bucket = cluster.bucket(versioning="Enabled")
    cluster.put(bucket, "k", b"1", version="v1")
    cluster.put(bucket, "k", b"2", version="v2")
    marker = delete(cluster, bucket, "k").version_id
    delete(cluster, bucket, "k", "v2")
    assert history(cluster, bucket) == [f"{marker}!*", "v1"]
    assert cluster.read(queries.version, bucket, "k", marker).latest
    assert not cluster.read(queries.version, bucket, "k", "v1").latest


def test_what_was_there_before_versioning_keeps_the_name_null(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    cluster.put(bucket, "k", b"0")
    suspend(cluster, bucket, "Enabled")
    cluster.put(bucket, "k", b"1", version="v1")
    assert history(cluster, bucket) == ["v1*", "null"]
    delete(cluster, bucket, "k", "v1")
    assert history(cluster, bucket) == ["null*"]


@pytest.mark.parametrize("version", ["", "null", "v" * 5000])
def test_a_version_in_a_versioned_bucket_has_a_proper_id(cluster: Cluster, version: str) -> None:
    bucket = cluster.bucket(versioning="Enabled")
    command = PutVersion(bucket=bucket, key="k", version_id=version, attributes=PLAIN, owner="o",  # type: ignore[arg-type]
                         content=cluster.content(b"x"))
    assert isinstance(cluster.run(command), Malformed)


# Suspended

def test_suspended_a_put_replaces_the_null_version_only(cluster: Cluster) -> None:
    bucket = cluster.bucket(versioning="Enabled")
    cluster.put(bucket, "k", b"1", version="v1")
    suspend(cluster, bucket)
    assert cluster.put(bucket, "k", b"2").version_id == "null"
    assert cluster.put(bucket, "k", b"3").version_id == "null"
    assert history(cluster, bucket) == ["null*", "v1"]
    suspend(cluster, bucket, "Enabled")
    cluster.put(bucket, "k", b"4", version="v4")
    suspend(cluster, bucket)
    cluster.put(bucket, "k", b"5")
    assert history(cluster, bucket) == ["null*", "v4", "v1"], "the null version that lay in between is gone"
    assert counters(cluster) == (3, 3)


def test_suspended_a_delete_replaces_the_null_version_by_a_null_marker(cluster: Cluster) -> None:
    bucket = cluster.bucket(versioning="Enabled")
    cluster.put(bucket, "k", b"1", version="v1")
    suspend(cluster, bucket)
    assert delete(cluster, bucket, "k") == Deleted(existed=True, version_id="null", delete_marker=True)
    assert history(cluster, bucket) == ["null!*", "v1"]
    assert delete(cluster, bucket, "k") == Deleted(existed=False, version_id="null", delete_marker=True)
    assert history(cluster, bucket) == ["null!*", "v1"], "one null version, the newer marker"
    cluster.put(bucket, "k", b"2")
    assert history(cluster, bucket) == ["null*", "v1"]
    assert delete(cluster, bucket, "k").existed
    assert delete(cluster, bucket, "k", "null") == Deleted(existed=True, version_id="null", delete_marker=True)
    assert history(cluster, bucket) == ["v1*"]
    assert counters(cluster) == (1, 1)


# Preconditions

PRESENT, OTHER, ANY = "e", "x", "*"


@pytest.mark.parametrize("versioning", ["", "Enabled"])
@pytest.mark.parametrize(("match", "none_match", "absent", "present"), [
    (None, ANY, Committed, ConditionFailed(condition="If-None-Match")),
    (PRESENT, None, NoKey(), Committed),
    (OTHER, None, NoKey(), ConditionFailed(condition="If-Match")),
    (ANY, None, NoKey(), Committed),
    (None, PRESENT, Committed, ConditionFailed(condition="If-None-Match")),
    (None, OTHER, Committed, Committed),
    (OTHER, ANY, NoKey(), ConditionFailed(condition="If-Match")),
])
def test_preconditions_of_a_put(
    cluster: Cluster, versioning: str, match: str | None, none_match: str | None, absent: Any, present: Any
) -> None:
    bucket = cluster.bucket(versioning=versioning)
    condition = Condition(if_match=match, if_none_match=none_match)
    def put(key: str) -> Any:
        result = cluster.put(bucket, key, b"new", condition=condition)
        return Committed if isinstance(result, Committed) else result
    assert put("absent") == absent
    cluster.run(PutVersion(bucket=bucket, key="k", version_id="v1", attributes=PLAIN, owner="o",
                           content=cluster.content(b"old", etag="e")))
    assert put("k") == present
    cluster.run(PutVersion(bucket=bucket, key="gone", version_id="v2", attributes=PLAIN, owner="o",
                           content=cluster.content(b"old", etag="e")))
    delete(cluster, bucket, "gone")
    assert put("gone") == absent, "a current delete marker counts as absent"


def test_a_refused_put_leaves_nothing(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    cluster.put(bucket, "k", b"x")
    before = [cluster.rows(table) for table in ("object", "content", "chunk", "queue", "released")]
    cluster.put(bucket, "k", b"new", condition=Condition(if_none_match="*"))
    assert [cluster.rows(table) for table in ("object", "content", "chunk", "queue", "released")] == before


def test_preconditions_of_a_delete_are_judged_against_the_current_version(cluster: Cluster) -> None:
    bucket = cluster.bucket(versioning="Enabled")
    assert delete(cluster, bucket, "k", condition=Condition(if_match="*")) == NoKey()
    etag = cluster.put(bucket, "k", b"1", version="v1").etag
    assert delete(cluster, bucket, "k", condition=Condition(if_match="no")) == ConditionFailed(condition="If-Match")
    assert history(cluster, bucket) == ["v1*"]
    assert delete(cluster, bucket, "k", condition=Condition(if_match=etag)).delete_marker
    assert delete(cluster, bucket, "k", condition=Condition(if_match=etag)) == NoKey()


# Copies

def test_a_copy_shares_the_content(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    put = cluster.put(bucket, "k", b"abc")
    content = cluster.read(queries.current, bucket, "k").content
    copy = cluster.run(PutVersion(bucket=bucket, key="copy", version_id="v", attributes=PLAIN, owner="o",
                                  content_of=content))
    assert (copy.etag, cluster.rows("content"), cluster.chunk_row(b"abc")[2]) == (put.etag, 1, 1)  # type: ignore[index]
    delete(cluster, bucket, "k")
    found = cluster.read(queries.opened, "bucket", "copy")
    assert (found[1].size, len(found[2])) == (3, 1)
    delete(cluster, bucket, "copy")
    assert cluster.rows("content") == cluster.rows("chunk") == 0


def test_a_copy_onto_itself_keeps_the_content(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    cluster.put(bucket, "k", b"abc")
    content = cluster.read(queries.current, bucket, "k").content
    checksum = Checksum("SHA1", "x", "FULL_OBJECT")
    copy = cluster.run(PutVersion(bucket=bucket, key="k", version_id="v", owner="o", content_of=content,
                                  attributes=Attributes(content_type="new"), checksum=checksum))
    assert copy.checksum == checksum
    found = cluster.read(queries.current, bucket, "k")
    assert (found.content, found.attributes.content_type, found.checksum) == (content, "new", checksum)


def test_a_content_that_is_gone_is_not_shared(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    cluster.put(bucket, "k", *(number.to_bytes(2, "big") for number in range(200)))
    content = cluster.read(queries.current, bucket, "k").content
    delete(cluster, bucket, "k")
    assert cluster.rows("content") == 1, "it waits in the queue"
    copy = PutVersion(bucket=bucket, key="c", version_id="v", attributes=PLAIN, owner="o", content_of=content)
    assert cluster.run(copy) == ContentMissing()
    cluster.drain()
    assert cluster.run(copy) == ContentMissing()


def test_a_version_has_one_source_of_bytes(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    assert isinstance(cluster.run(
        PutVersion(bucket=bucket, key="c", version_id="v", attributes=PLAIN, owner="o")), Malformed)
    assert isinstance(cluster.put(bucket, "k", b"x", content_of=1), Malformed)


def test_attributes_have_a_limit(cluster: Cluster) -> None:
    large = Attributes(metadata=(("k", "v" * 70_000),))
    assert isinstance(cluster.run(PutVersion(bucket=cluster.bucket(), key="k", version_id="v", attributes=large,
                                             owner="o", content=cluster.content(b"x"))), Malformed)


def test_opened_tells_a_missing_bucket_from_a_missing_key(cluster: Cluster) -> None:
    assert cluster.read(queries.opened, "bucket", "k") == (None, None, [])
    cluster.bucket()
    bucket, version, slices = cluster.read(queries.opened, "bucket", "k")
    assert (bucket.name, version, slices) == ("bucket", None, [])


def test_opened_gives_the_first_slices_of_longer_objects(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    pieces = [bytes([number]) * 3 for number in range(10)]
    cluster.put(bucket, "k", *pieces)
    _, version, slices = cluster.read(queries.opened, "bucket", "k")
    assert len(slices) == 4
    rest = cluster.read(queries.slices, version.content, 12, 18)
    assert [piece.digest for piece in slices + rest] == [chunk.digest for chunk in map(cluster.chunk, pieces)]
    assert cluster.read(queries.slices, version.content, 30, 1) == []
    assert cluster.read(queries.slices, 12345, 0, 1) == []
