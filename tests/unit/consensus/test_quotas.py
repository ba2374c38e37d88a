"""Quotas in the log, case by case: what counts, for whom, and from when on (random histories are in test_model.py)."""

from pathlib import Path

import pytest

from consensus import queries
from consensus.core.commands import (
    AbortUpload,
    CreateBucket,
    CreateUpload,
    DeleteBucket,
    DeleteVersion,
    PutPart,
    SetQuota,
)
from consensus.core.ids import BucketId
from consensus.core.model import Quota
from consensus.core.results import Committed, Done, Malformed, NoBucket, PartStored, QuotaExceeded
from tests.unit.consensus.metadata import PLAIN, Cluster


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


def limit(cluster: Cluster, quota: Quota | None, bucket: int | None = None) -> None:
    command = SetQuota(bucket=None if bucket is None else BucketId(bucket), account="a", quota=quota)
    assert cluster.run(command) == Done()


def test_what_is_there_already_counts_when_a_quota_is_set(cluster: Cluster) -> None:
    one, two = cluster.bucket("one"), cluster.bucket("two")
    cluster.put(one, "k", b"12345")
    limit(cluster, Quota(bytes=8))
    assert cluster.put(two, "k", b"1234") == QuotaExceeded(whose="account", what="bytes")
    assert isinstance(cluster.put(two, "k", b"123"), Committed)
    cluster.reopen()
    assert cluster.put(two, "more", b"1") == QuotaExceeded(whose="account", what="bytes")
    assert cluster.run(DeleteVersion(bucket=one, key="k")).existed
    assert isinstance(cluster.put(two, "more", b"12345"), Committed)
    assert cluster.read(queries.account_holding, "a") == ("a", 2, 2, 8, 0, Quota(None, 8))
    limit(cluster, None)
    assert isinstance(cluster.put(two, "most", bytes(99)), Committed)
    assert cluster.rows("account") == 0
    limit(cluster, Quota(objects=3))
    assert cluster.put(two, "x", b"1") == QuotaExceeded(whose="account", what="objects"), "what came meanwhile counts too"


def test_one_entry_may_set_a_quota_and_run_into_it(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    results = cluster.send(*(cluster.envelope(command) for command in (
        CreateBucket(name="other", account="a", owner="o"), SetQuota(bucket=None, account="a", quota=Quota(objects=0)),
        CreateUpload(bucket=bucket, key="k", upload_id="u", attributes=PLAIN, owner="o"))))  # type: ignore[arg-type]
    assert results[1:] == [Done(), Done()]
    assert cluster.put(bucket, "k", b"1") == QuotaExceeded(whose="account", what="objects")


def test_a_bucket_that_goes_takes_its_parts_along(cluster: Cluster) -> None:
    bucket, other = cluster.bucket(), cluster.bucket("other")
    limit(cluster, Quota(bytes=10))
    at = {"bucket": bucket, "key": "k", "upload_id": "u"}
    assert cluster.run(CreateUpload(**at, attributes=PLAIN, owner="o")) == Done()  # type: ignore[arg-type]
    assert isinstance(cluster.run(PutPart(**at, number=1, content=cluster.content(bytes(9)))), PartStored)  # type: ignore[arg-type]
    assert cluster.put(other, "k", b"12") == QuotaExceeded(whose="account", what="bytes")
    assert cluster.run(DeleteBucket(bucket=bucket)) == Done()
    assert isinstance(cluster.put(other, "k", bytes(10)), Committed)
    cluster.drain()
    cluster.check()
    assert cluster.put(other, "x", b"1") == QuotaExceeded(whose="account", what="bytes"), "they were taken off once"
    assert cluster.run(AbortUpload(**at)) == NoBucket()  # type: ignore[arg-type]


def test_a_quota_that_makes_no_sense(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    for quota in (Quota(), Quota(objects=-1), Quota(bytes=1 << 62)):
        assert isinstance(cluster.run(SetQuota(bucket=bucket, account="", quota=quota)), Malformed)
    assert isinstance(cluster.run(SetQuota(bucket=None, account="", quota=Quota(1, 1))), Malformed)
    assert isinstance(cluster.run(SetQuota(bucket=None, account="x" * 2000, quota=Quota(1, 1))), Malformed)
    assert cluster.run(SetQuota(bucket=BucketId(7), account="", quota=None)) == NoBucket()
