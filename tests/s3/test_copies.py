"""How many copies a bucket wants, seen from S3 on three storage nodes: written, acknowledged, copied into and refused."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from botocore.client import BaseClient
from botocore.exceptions import ClientError

from consensus.core.commands import SetBucketCopies
from consensus.core.results import Done
from tests.s3.conftest import MAIN, MIB, OTHER, SETTINGS, client
from tests.s3.in_process import InProcess

SIZES = [4096, 3 * MIB]
"""As a record of a segment, and as streams."""

Make = Callable[[str, int | None, str | None], str]


@pytest.fixture
def three(tmp_path: Path) -> Iterator[InProcess]:
    with InProcess(tmp_path, [MAIN, OTHER], settings=SETTINGS, nodes=3) as running:
        yield running


@pytest.fixture
def s3(three: InProcess) -> BaseClient:
    return client(three.endpoint)


@pytest.fixture
def bucket(three: InProcess, s3: BaseClient) -> Make:
    def make(name: str, copies: int | None, replication: str | None) -> str:
        s3.create_bucket(Bucket=name)
        three.run(say(three, name, copies, replication))
        return name

    return make


async def say(three: InProcess, name: str, copies: int | None, replication: str | None) -> None:
    bucket = await three.metadata.bucket(name)
    assert bucket is not None
    command = SetBucketCopies(bucket=bucket.id, copies=copies, replication=replication)
    assert await three.metadata.commit(command) == Done()


def holders(three: InProcess, bucket: str, key: str) -> list[int]:
    """How many nodes are listed for each chunk of the object."""
    async def look() -> list[int]:
        _, version, _ = await three.metadata.opened(bucket, key)
        assert version is not None
        return [len(part.nodes) for part in await three.metadata.slices(version.content, 0, version.size)]

    return three.run(look())


@pytest.mark.parametrize("size", SIZES)
def test_a_bucket_gets_the_copies_that_it_wants(three: InProcess, s3: BaseClient, bucket: Make, size: int) -> None:
    for name, copies, replication, least in [("one", 1, None, 1), ("two", 2, None, 2), ("all", 3, "all", 3)]:
        s3.put_object(Bucket=bucket(name, copies, replication), Key="k", Body=(body := os.urandom(size)))
        assert min(holders(three, name, "k")) >= least
        assert max(holders(three, name, "k")) <= copies
        assert s3.get_object(Bucket=name, Key="k")["Body"].read() == body


@pytest.mark.parametrize("size", SIZES)
def test_a_copy_into_a_bucket_that_wants_more_brings_the_bytes(
        three: InProcess, s3: BaseClient, bucket: Make, size: int) -> None:
    bucket("few", 1, None)
    bucket("many", 3, "all")
    body = os.urandom(size)
    put = s3.put_object(Bucket="few", Key="k", Body=body, ContentType="text/x", Metadata={"a": "b"}, ChecksumAlgorithm="CRC32")
    assert set(holders(three, "few", "k")) == {1}
    copied = s3.copy_object(Bucket="many", Key="copy", CopySource="few/k")
    assert set(holders(three, "many", "copy")) == {3}
    found = s3.get_object(Bucket="many", Key="copy", ChecksumMode="ENABLED")
    assert found["Body"].read() == body
    assert (found["ETag"], found["ContentType"], found["Metadata"], found["ChecksumCRC32"]) == (
        put["ETag"], "text/x", {"a": "b"}, put["ChecksumCRC32"])
    assert copied["CopyObjectResult"]["ETag"] == put["ETag"]


def test_a_long_copy_into_a_bucket_that_wants_more_keeps_its_etag(three: InProcess, s3: BaseClient, bucket: Make) -> None:
    bucket("few", 1, None)
    bucket("many", 3, "all")
    upload = s3.create_multipart_upload(Bucket="few", Key="k")["UploadId"]
    bodies = [os.urandom(5 * MIB), os.urandom(100)]
    parts = [{"PartNumber": number, "ETag": s3.upload_part(
        Bucket="few", Key="k", UploadId=upload, PartNumber=number, Body=part)["ETag"]} for number, part in enumerate(bodies, 1)]
    made = s3.complete_multipart_upload(Bucket="few", Key="k", UploadId=upload, MultipartUpload={"Parts": parts})
    assert s3.copy_object(Bucket="many", Key="k", CopySource="few/k")["CopyObjectResult"]["ETag"] == made["ETag"]
    assert s3.get_object(Bucket="many", Key="k")["Body"].read() == b"".join(bodies)
    assert set(holders(three, "many", "k")) == {3}


@pytest.mark.parametrize("size", SIZES)
def test_a_part_that_is_copied_into_a_bucket_that_wants_more_brings_the_bytes(
        three: InProcess, s3: BaseClient, bucket: Make, size: int) -> None:
    bucket("few", 1, None)
    bucket("many", 3, "all")
    body = os.urandom(size)
    s3.put_object(Bucket="few", Key="k", Body=body)
    upload = s3.create_multipart_upload(Bucket="many", Key="k")["UploadId"]
    part = s3.upload_part_copy(Bucket="many", Key="k", UploadId=upload, PartNumber=1, CopySource="few/k",
                               CopySourceRange=f"bytes=10-{size - 11}")
    s3.complete_multipart_upload(Bucket="many", Key="k", UploadId=upload, MultipartUpload={
        "Parts": [{"PartNumber": 1, "ETag": part["CopyPartResult"]["ETag"]}]})
    assert s3.get_object(Bucket="many", Key="k")["Body"].read() == body[10:-10]
    assert set(holders(three, "many", "k")) == {3}


@pytest.mark.parametrize("size", SIZES)
def test_with_two_nodes_of_three_gone_only_an_asynchronous_bucket_takes_writes(
        three: InProcess, s3: BaseClient, bucket: Make, size: int) -> None:
    bucket("async", None, "async")
    bucket("sync", None, "sync")
    bucket("single", 1, None)
    while len(three._nodes) > 1:
        three.run(three._nodes.pop().stop())
    body = os.urandom(size)
    for name in ("async", "single"):
        s3.put_object(Bucket=name, Key="k", Body=body)
        assert s3.get_object(Bucket=name, Key="k")["Body"].read() == body
    with pytest.raises(ClientError) as refused:
        s3.put_object(Bucket="sync", Key="k", Body=body)
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    assert refused.value.response["Error"]["Code"] == "ServiceUnavailable"
    with pytest.raises(ClientError, match="404"):
        s3.head_object(Bucket="sync", Key="k")
