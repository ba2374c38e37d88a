"""PUT: conditions, digests, limits, headers that must not be dropped (S3_SEMANTICS §4, §7, §9)."""

import base64
import concurrent.futures
import hashlib
from typing import Any

import pytest
from awscrt import checksums as crt
from botocore.client import BaseClient
from botocore.exceptions import ClientError

from gateway.s3.body.checksums import ALGORITHMS
from tests.s3.conftest import MIB, client
from tests.s3.errors import refused
from tests.s3.in_process import InProcess

BODY = b"x" * 300_000 + b"y" * MIB


def crc64(body: bytes) -> str:
    return base64.b64encode(crt.crc64nvme(body).to_bytes(8, "big")).decode()


def crc32(body: bytes) -> str:
    return base64.b64encode(crt.crc32(body).to_bytes(4, "big")).decode()


@pytest.fixture
def plain(server: InProcess) -> BaseClient:
    """A client that adds no checksums of its own."""
    return client(server.endpoint, style="when-required")


def add_headers(s3: BaseClient, operation: str, headers: dict[str, str]) -> None:
    def add(request: Any, **_: Any) -> None:
        for name, value in headers.items():
            request.headers[name] = value

    s3.meta.events.register(f"before-sign.s3.{operation}", add)


@pytest.mark.parametrize("body", [b"", b"small", BODY])
@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name != "MD5"])     # boto3 computes no MD5
def test_each_checksum_is_stored_and_returned(s3: BaseClient, bucket: str, algorithm: str, body: bytes) -> None:
    put = s3.put_object(Bucket=bucket, Key="key", Body=body, ChecksumAlgorithm=algorithm)
    assert put["ChecksumType"] == "FULL_OBJECT"
    got = s3.get_object(Bucket=bucket, Key="key", ChecksumMode="ENABLED")
    assert got["Body"].read() == body  # boto3 verifies
    assert got[f"Checksum{algorithm}"] == put[f"Checksum{algorithm}"]
    assert got["ChecksumType"] == "FULL_OBJECT"
    (entry,) = s3.list_objects_v2(Bucket=bucket)["Contents"]
    assert (entry["ChecksumAlgorithm"], entry["ChecksumType"]) == ([algorithm], "FULL_OBJECT")


def test_without_a_checksum_crc64nvme_is_computed(plain: BaseClient, bucket: str) -> None:
    put = plain.put_object(Bucket=bucket, Key="key", Body=BODY)
    assert put["ChecksumCRC64NVME"] == crc64(BODY)
    assert "ChecksumCRC64NVME" not in plain.head_object(Bucket=bucket, Key="key")
    assert plain.head_object(Bucket=bucket, Key="key", ChecksumMode="ENABLED")["ChecksumCRC64NVME"] == crc64(BODY)


@pytest.mark.parametrize("body", [b"small", BODY])
def test_a_wrong_digest_stores_nothing(plain: BaseClient, bucket: str, body: bytes) -> None:
    wrong = base64.b64encode(hashlib.md5(b"other", usedforsecurity=False).digest()).decode()
    with refused("BadDigest", 400) as said:
        plain.put_object(Bucket=bucket, Key="key", Body=body, ContentMD5=wrong)
    assert said["ExpectedDigest"] == base64.b64decode(wrong).hex(), "AWS says one in hexadecimal and one in base64"
    with refused("BadDigest", 400):
        plain.put_object(Bucket=bucket, Key="key", Body=body, ChecksumCRC32=crc32(b"other"))
    with refused("InvalidDigest", 400):
        plain.put_object(Bucket=bucket, Key="key", Body=body, ContentMD5="not base64")
    with refused("InvalidRequest", 400):
        plain.put_object(Bucket=bucket, Key="key", Body=body, ChecksumCRC32="AA==")
    with refused("404", 404):
        plain.head_object(Bucket=bucket, Key="key")
    right = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
    plain.put_object(Bucket=bucket, Key="key", Body=body, ContentMD5=right, ChecksumCRC32=crc32(body))


@pytest.mark.parametrize("body", [b"small", BODY])
def test_a_body_that_is_not_the_signed_one_stores_nothing(server: InProcess, bucket: str, body: bytes) -> None:
    s3 = client(server.endpoint, style="when-required")

    def exchange(request: Any, **_: Any) -> None:
        request.body = body[:-1] + b"!"

    s3.meta.events.register("before-send.s3.PutObject", exchange)
    with refused("XAmzContentSHA256Mismatch", 400) as said:
        s3.put_object(Bucket=bucket, Key="key", Body=body)
    assert said["ClientComputedContentSHA256"] == hashlib.sha256(body).hexdigest()
    assert said["S3ComputedContentSHA256"] == hashlib.sha256(body[:-1] + b"!").hexdigest()
    with refused("404", 404):
        s3.head_object(Bucket=bucket, Key="key")


def test_conditional_writes(s3: BaseClient, bucket: str) -> None:
    with refused("NoSuchKey", 404):
        s3.put_object(Bucket=bucket, Key="key", Body=b"1", IfMatch='"etag"')
    first = s3.put_object(Bucket=bucket, Key="key", Body=b"1", IfNoneMatch="*")["ETag"]
    with refused("PreconditionFailed", 412) as said:
        s3.put_object(Bucket=bucket, Key="key", Body=b"2", IfNoneMatch="*")
    assert said["Condition"] == "If-None-Match"
    second = s3.put_object(Bucket=bucket, Key="key", Body=b"2", IfMatch=first)["ETag"]
    with refused("PreconditionFailed", 412) as said:
        s3.put_object(Bucket=bucket, Key="key", Body=b"3", IfMatch=first)
    assert said["Condition"] == "If-Match"
    s3.put_object(Bucket=bucket, Key="key", Body=b"3", IfMatch=second.strip('"'))
    for conditions in [
        {"IfMatch": "*"}, {"IfNoneMatch": second}, {"IfMatch": second, "IfNoneMatch": "*"},
    ]:
        with refused("NotImplemented", 501):
            s3.put_object(Bucket=bucket, Key="key", Body=b"4", **conditions)
    assert s3.get_object(Bucket=bucket, Key="key")["Body"].read() == b"3"


def test_one_of_many_creators_wins(server: InProcess, bucket: str) -> None:
    clients = [client(server.endpoint) for _ in range(8)]

    def create(number: int) -> int:
        try:
            clients[number].put_object(Bucket=bucket, Key="lock", Body=b"%d" % number, IfNoneMatch="*")
        except ClientError as error:
            return int(error.response["ResponseMetadata"]["HTTPStatusCode"])
        return 200

    with concurrent.futures.ThreadPoolExecutor(len(clients)) as threads:
        outcomes = list(threads.map(create, range(len(clients))))
    assert sorted(outcomes) == [200] + [412] * 7
    winner = outcomes.index(200)
    assert clients[0].get_object(Bucket=bucket, Key="lock")["Body"].read() == b"%d" % winner


def test_limits(s3: BaseClient, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k" * 1024, Body=b"")
    with refused("KeyTooLongError", 400) as said:
        s3.put_object(Bucket=bucket, Key="k" * 1025, Body=b"")
    assert (said["Size"], said["MaxSizeAllowed"]) == ("1025", "1024")
    with refused("MetadataTooLarge", 400):
        s3.put_object(Bucket=bucket, Key="key", Body=b"", Metadata={"m": "x" * 2048})


def test_too_large_an_upload_is_refused_before_its_body(plain: BaseClient, bucket: str) -> None:
    size = (5 << 30) + 1

    def announce(request: Any, **_: Any) -> None:
        request.headers["Content-Length"] = str(size)
        request.headers["Expect"] = "100-continue"

    plain.meta.events.register("before-sign.s3.PutObject", announce)
    with refused("EntityTooLarge", 400) as said:
        plain.put_object(Bucket=bucket, Key="key", Body=b"the beginning")
    assert (said["ProposedSize"], said["MaxSizeAllowed"]) == (str(size), str(5 << 30))


@pytest.mark.parametrize(
    ("wish", "code", "status"),
    [
        ({"ServerSideEncryption": "aws:kms"}, "NotImplemented", 501),
        ({"ObjectLockLegalHoldStatus": "ON"}, "InvalidRequest", 400),
        ({"ACL": "public-read"}, "AccessControlListNotSupported", 400),
        ({"GrantRead": "id=x"}, "AccessControlListNotSupported", 400),
        ({"StorageClass": "COLD"}, "InvalidStorageClass", 400),
        ({"WebsiteRedirectLocation": "ftp://x"}, "InvalidRedirectLocation", 400),
        ({"Tagging": "a=1&a=2"}, "InvalidArgument", 400),
    ],
)
def test_wishes_are_not_dropped(
    s3: BaseClient, bucket: str, wish: dict[str, Any], code: str, status: int
) -> None:
    with refused(code, status):
        s3.put_object(Bucket=bucket, Key="key", Body=b"", **wish)
    with refused("404", 404):
        s3.head_object(Bucket=bucket, Key="key")


@pytest.mark.parametrize("acl", ["private", "bucket-owner-full-control"])
def test_harmless_acls_are_accepted(s3: BaseClient, bucket: str, acl: str) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=b"", ACL=acl)


def test_a_missing_bucket_is_told_before_anything(s3: BaseClient) -> None:
    with refused("NoSuchBucket", 404) as said:
        s3.put_object(Bucket="bucket-not-there", Key="key", Body=b"x", StorageClass="COLD")
    assert said["BucketName"] == "bucket-not-there"


def test_aws_chunked_is_not_stored(s3: BaseClient, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=b"x", ContentEncoding="aws-chunked,gzip")
    assert s3.head_object(Bucket=bucket, Key="key")["ContentEncoding"] == "gzip"
    s3.put_object(Bucket=bucket, Key="key", Body=b"x", ContentEncoding="aws-chunked")
    assert "ContentEncoding" not in s3.head_object(Bucket=bucket, Key="key")


def test_equal_chunks_within_one_object(s3: BaseClient, bucket: str) -> None:
    body = b"\0" * (4 * MIB + 7)
    s3.put_object(Bucket=bucket, Key="zeros", Body=body)
    assert s3.get_object(Bucket=bucket, Key="zeros")["Body"].read() == body
    s3.delete_object(Bucket=bucket, Key="zeros")
    s3.put_object(Bucket=bucket, Key="again", Body=body)
    assert s3.get_object(Bucket=bucket, Key="again")["Body"].read() == body
