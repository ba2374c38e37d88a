"""CopyObject and UploadPartCopy (S3_SEMANTICS §11, §12)."""

import hashlib
from collections.abc import Callable

import pytest
from botocore.client import BaseClient

from tests.s3.conftest import MIB
from tests.s3.errors import refused

BODY = bytes(range(256)) * (4096 * 12) + b"tail"
"""12 chunks of 1 MiB, and a little more."""


def md5(body: bytes) -> str:
    return f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'


@pytest.fixture
def source(s3: BaseClient, bucket: str) -> str:
    s3.put_object(
        Bucket=bucket, Key="source", Body=BODY, Metadata={"m": "1"}, ContentType="a/b", CacheControl="no-store",
        Tagging="t=1", StorageClass="STANDARD_IA", WebsiteRedirectLocation="/x",
    )
    return f"{bucket}/source"


def test_a_copy_has_all_but_class_and_redirect(s3: BaseClient, bucket: str, source: str) -> None:
    answer = s3.copy_object(Bucket=bucket, Key="copy", CopySource=source)["CopyObjectResult"]
    assert answer["ETag"] == md5(BODY)
    assert answer["ChecksumCRC32"]
    got = s3.get_object(Bucket=bucket, Key="copy")
    assert got["Body"].read() == BODY
    assert (got["Metadata"], got["ContentType"], got["CacheControl"]) == ({"m": "1"}, "a/b", "no-store")
    assert got["LastModified"] == answer["LastModified"].replace(microsecond=0)
    headers = got["ResponseMetadata"]["HTTPHeaders"]
    assert headers["x-amz-tagging-count"] == "1"
    assert "x-amz-storage-class" not in headers
    assert "x-amz-website-redirect-location" not in headers


def test_replacing_takes_nothing_from_the_source(s3: BaseClient, bucket: str, source: str) -> None:
    s3.copy_object(
        Bucket=bucket, Key="copy", CopySource=source, MetadataDirective="REPLACE", Metadata={"n": "2"},
        TaggingDirective="REPLACE",
    )
    head = s3.head_object(Bucket=bucket, Key="copy")
    assert (head["Metadata"], head["ContentType"]) == ({"n": "2"}, "binary/octet-stream")
    assert "CacheControl" not in head
    assert "x-amz-tagging-count" not in head["ResponseMetadata"]["HTTPHeaders"]


def test_a_copy_outlives_its_source(s3: BaseClient, bucket: str, source: str) -> None:
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=source)
    s3.put_object(Bucket=bucket, Key="source", Body=b"other")
    assert s3.get_object(Bucket=bucket, Key="copy")["Body"].read() == BODY
    s3.delete_object(Bucket=bucket, Key="source")
    assert s3.get_object(Bucket=bucket, Key="copy")["Body"].read() == BODY


def test_onto_itself(s3: BaseClient, bucket: str, source: str) -> None:
    s3.copy_object(Bucket=bucket, Key="plain", CopySource=source)
    with refused("InvalidRequest", 400):
        s3.copy_object(Bucket=bucket, Key="plain", CopySource=f"{bucket}/plain")
    s3.copy_object(
        Bucket=bucket, Key="plain", CopySource=f"{bucket}/plain", MetadataDirective="REPLACE", Metadata={"mtime": "5"}
    )
    got = s3.get_object(Bucket=bucket, Key="plain")
    assert (got["Metadata"], got["Body"].read()) == ({"mtime": "5"}, BODY)
    s3.copy_object(Bucket=bucket, Key="plain", CopySource=f"{bucket}/plain", StorageClass="STANDARD_IA")
    assert s3.head_object(Bucket=bucket, Key="plain")["StorageClass"] == "STANDARD_IA"
    s3.copy_object(Bucket=bucket, Key="plain", CopySource=f"{bucket}/plain", StorageClass="STANDARD_IA")
    with refused("InvalidRequest", 400):        # which would be STANDARD: what isn't asked for is no change
        s3.copy_object(Bucket=bucket, Key="plain", CopySource=f"{bucket}/plain")
    assert s3.head_object(Bucket=bucket, Key="plain")["StorageClass"] == "STANDARD_IA"


@pytest.mark.parametrize("key", ["a b", "a+b", "a%2Fb", "ü/日本", "q?versionId=x", "//x"])
def test_odd_source_keys(s3: BaseClient, bucket: str, key: str) -> None:
    s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": key})
    assert s3.get_object(Bucket=bucket, Key="copy")["Body"].read() == key.encode()


def test_another_checksum_is_computed(s3: BaseClient, bucket: str, source: str) -> None:
    answer = s3.copy_object(Bucket=bucket, Key="copy", CopySource=source, ChecksumAlgorithm="SHA256")
    import base64

    wanted = base64.b64encode(hashlib.sha256(BODY).digest()).decode()
    assert answer["CopyObjectResult"]["ChecksumSHA256"] == wanted
    head = s3.head_object(Bucket=bucket, Key="copy", ChecksumMode="ENABLED")
    assert (head["ChecksumSHA256"], head["ChecksumType"]) == (wanted, "FULL_OBJECT")


def test_source_conditions_are_all_412(s3: BaseClient, bucket: str, source: str) -> None:
    for conditions, name in [
        ({"CopySourceIfMatch": '"x"'}, "x-amz-copy-source-If-Match"),
        ({"CopySourceIfNoneMatch": md5(BODY)}, "x-amz-copy-source-If-None-Match"),
    ]:
        with refused("PreconditionFailed", 412) as said:
            s3.copy_object(Bucket=bucket, Key="copy", CopySource=source, **conditions)
        assert said["Condition"] == name
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=source, CopySourceIfMatch=md5(BODY))


def test_destination_conditions(s3: BaseClient, bucket: str, source: str) -> None:
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=source, IfNoneMatch="*")
    with refused("PreconditionFailed", 412):
        s3.copy_object(Bucket=bucket, Key="copy", CopySource=source, IfNoneMatch="*")
    with refused("PreconditionFailed", 412):
        s3.copy_object(Bucket=bucket, Key="copy", CopySource=source, IfMatch='"x"')


def test_sources_that_are_not_there(
    s3: BaseClient, other_s3: BaseClient, bucket: str, source: str, new_bucket_name: Callable[[], str]
) -> None:
    with refused("NoSuchKey", 404) as said:
        s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/absent")
    assert said["Key"] == "absent"
    with refused("NoSuchBucket", 404):
        s3.copy_object(Bucket=bucket, Key="copy", CopySource="bucket-not-there/key")
    with refused("NoSuchVersion", 404):
        s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{source}?versionId={'A' * 32}")
    with refused("InvalidArgument", 400):
        s3.copy_object(Bucket=bucket, Key="copy", CopySource="no slash")
    with refused("InvalidArgument", 400):
        s3.copy_object(Bucket=bucket, Key="copy", CopySource=source, MetadataDirective="MAYBE")
    theirs = new_bucket_name()
    other_s3.create_bucket(Bucket=theirs)
    with refused("AccessDenied", 403):
        other_s3.copy_object(Bucket=theirs, Key="copy", CopySource=source)
    with refused("AccessDenied", 403):
        s3.copy_object(Bucket=theirs, Key="copy", CopySource=source)
    with refused("AccessDenied", 403):
        s3.copy_object(Bucket=bucket, Key="copy", CopySource=source, ExpectedSourceBucketOwner="222222222222")


@pytest.mark.parametrize("algorithm", [None, "CRC32", "SHA256"])
def test_parts_are_copied_by_range(s3: BaseClient, bucket: str, source: str, algorithm: str | None) -> None:
    named = {"ChecksumAlgorithm": algorithm} if algorithm else {}
    upload = s3.create_multipart_upload(Bucket=bucket, Key="copy", **named)["UploadId"]
    ends = [(3, 6 * MIB + 10), (MIB, 6 * MIB - 1), (0, len(BODY) - 1)]
    parts = []
    for number, (first, last) in enumerate(ends, 1):
        answer = s3.upload_part_copy(
            Bucket=bucket, Key="copy", UploadId=upload, PartNumber=number, CopySource=source,
            **({"CopySourceRange": f"bytes={first}-{last}"} if number < 3 else {}),
        )["CopyPartResult"]
        assert answer["ETag"] == md5(BODY[first : last + 1])
        checksum = {f"Checksum{algorithm}": answer[f"Checksum{algorithm}"]} if algorithm else {}
        parts.append({"PartNumber": number, "ETag": answer["ETag"], **checksum})
    s3.delete_object(Bucket=bucket, Key="source")
    s3.complete_multipart_upload(Bucket=bucket, Key="copy", UploadId=upload, MultipartUpload={"Parts": parts})
    wanted = b"".join(BODY[first : last + 1] for first, last in ends)
    assert s3.get_object(Bucket=bucket, Key="copy")["Body"].read() == wanted
    assert s3.get_object(Bucket=bucket, Key="copy", PartNumber=2)["Body"].read() == BODY[MIB : 6 * MIB]


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        (f"bytes=0-{len(BODY)}", "InvalidArgument"), (f"bytes={len(BODY)}-{len(BODY) + 5}", "InvalidRequest"),
        ("bytes=5-", "InvalidArgument"), ("bytes=-5", "InvalidArgument"), ("0-5", "InvalidArgument"),
    ],
)
def test_ranges_of_parts_are_never_clamped(s3: BaseClient, bucket: str, source: str, wanted: str, code: str) -> None:
    upload = s3.create_multipart_upload(Bucket=bucket, Key="copy")["UploadId"]
    with refused(code, 400):
        s3.upload_part_copy(
            Bucket=bucket, Key="copy", UploadId=upload, PartNumber=1, CopySource=source, CopySourceRange=wanted
        )


def test_copying_a_multipart_object_keeps_its_etag_and_parts(s3: BaseClient, bucket: str) -> None:
    upload = s3.create_multipart_upload(Bucket=bucket, Key="source")["UploadId"]
    etag = s3.upload_part(Bucket=bucket, Key="source", UploadId=upload, PartNumber=1, Body=BODY)["ETag"]
    done = s3.complete_multipart_upload(
        Bucket=bucket, Key="source", UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]}
    )
    answer = s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/source")["CopyObjectResult"]
    assert answer["ETag"] == done["ETag"]
    s3.delete_object(Bucket=bucket, Key="source")
    assert s3.get_object(Bucket=bucket, Key="copy")["Body"].read() == BODY
