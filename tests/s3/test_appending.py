"""PutObject with x-amz-write-offset-bytes through boto3 (docs/RENAME_AND_APPEND.md)."""

import base64
import hashlib
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.client import BaseClient
from botocore.exceptions import ClientError

from consensus import queries
from consensus.core.model import Checksum, ObjectVersion
from gateway.ops.objects import appending
from tests.s3.conftest import MIB, THREE

inside = pytest.mark.skipif(THREE, reason="looks inside the server")


def refused(call: Callable[..., Any], **named: Any) -> tuple[int, str]:
    with pytest.raises(ClientError) as caught:
        call(**named)
    answer = caught.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]


def read(s3: BaseClient, bucket: str, key: str = "k", **named: Any) -> bytes:
    body: bytes = s3.get_object(Bucket=bucket, Key=key, **named)["Body"].read()
    return body


def crc32(data: bytes) -> str:
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()


def test_bytes_come_after_those_that_are_there(s3: BaseClient, bucket: str) -> None:
    first = s3.put_object(Bucket=bucket, Key="k", Body=b"hello", WriteOffsetBytes=0, Metadata={"a": "b"}, Tagging="c=d",
                          ChecksumAlgorithm="CRC32")
    assert first["ETag"] == f'"{hashlib.md5(b"hello").hexdigest()}"'
    assert "Size" not in first, "nothing was appended to"
    answer = s3.put_object(Bucket=bucket, Key="k", Body=b" world", WriteOffsetBytes=5, ChecksumAlgorithm="CRC32",
                           Metadata={"not": "kept"}, ContentType="text/ignored")
    both = hashlib.md5(hashlib.md5(b"hello").digest() + hashlib.md5(b" world").digest()).hexdigest()
    assert (answer["ETag"], answer["Size"]) == (f'"{both}-2"', 11)
    assert (answer["ChecksumCRC32"], answer["ChecksumType"]) == (crc32(b"hello world"), "FULL_OBJECT")
    found = s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert found["Body"].read() == b"hello world"
    assert (found["ETag"], found["Metadata"], found["TagCount"], found["ContentType"]) == (
        answer["ETag"], {"a": "b"}, 1, first.get("ContentType", "binary/octet-stream"))
    assert found["ChecksumCRC32"] == crc32(b"hello world")
    assert read(s3, bucket, Range="bytes=4-6") == b"o w"
    listed = s3.list_objects_v2(Bucket=bucket)["Contents"][0]
    assert (listed["Size"], listed["ETag"]) == (11, answer["ETag"])


def test_an_offset_that_is_not_the_end(s3: BaseClient, bucket: str) -> None:
    def append(offset: Any, key: str = "k", **named: Any) -> Any:
        return s3.put_object(Bucket=bucket, Key=key, Body=b"x", WriteOffsetBytes=offset, **named)

    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"12345")["ETag"]
    for offset in (0, 4, 6):
        assert refused(append, offset=offset) == (400, "InvalidWriteOffset")
    assert refused(append, offset=1, key="gone") == (400, "InvalidWriteOffset")
    assert refused(append, offset=-1) == (400, "InvalidArgument")
    assert refused(append, offset=5, IfMatch='"other"') == (412, "PreconditionFailed")
    assert refused(append, offset=5, IfNoneMatch="*") == (412, "PreconditionFailed")
    assert refused(append, offset=0, key="gone", IfMatch=etag) == (404, "NoSuchKey")
    assert read(s3, bucket) == b"12345"
    append(5, IfMatch=etag)
    append(0, key="new", IfNoneMatch="*")
    assert read(s3, bucket) == b"12345x"
    with pytest.raises(ClientError, match="offset value that you specified does not match the current object size"):
        append(5)


@pytest.mark.parametrize(("named", "answer"), [
    ({"Tagging": "a=b"}, (501, "NotImplemented")), ({"ObjectLockLegalHoldStatus": "ON"}, (501, "NotImplemented")),
    ({"ACL": "public-read"}, (400, "AccessControlListNotSupported")), ({"StorageClass": "NONE"}, (400, "InvalidStorageClass")),
])
def test_what_an_append_would_lose_is_refused(
    s3: BaseClient, bucket: str, named: dict[str, str], answer: tuple[int, str],
) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"one")
    assert refused(s3.put_object, Bucket=bucket, Key="k", Body=b"x", WriteOffsetBytes=3, **named) == answer
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", WriteOffsetBytes=3, ACL="bucket-owner-full-control", Metadata={"a": "b"})


@inside
def test_many_appends_streamed_and_short(s3: BaseClient, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than are read in one look, or listed anew in one command."""
    monkeypatch.setattr(queries, "SLICES_PER_CALL_MAX", 16)
    monkeypatch.setattr(appending, "SLICES_AT_ONCE", 12)
    whole = b""
    for number in range(36):
        if number == 20:
            assert read(s3, bucket) == whole
        piece = bytes([number % 251]) * (1 if number != 27 else MIB + MIB // 2)
        s3.put_object(Bucket=bucket, Key="k", Body=piece, WriteOffsetBytes=len(whole))
        whole += piece
    assert read(s3, bucket) == whole
    assert read(s3, bucket, Range=f"bytes={MIB}-") == whole[MIB:]
    assert s3.head_object(Bucket=bucket, Key="k")["ETag"].endswith('-36"')
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/k")
    assert s3.put_object(Bucket=bucket, Key="copy", Body=b"!", WriteOffsetBytes=len(whole))["ETag"].endswith('-2"')
    assert s3.put_object(Bucket=bucket, Key="k", Body=b"?", WriteOffsetBytes=len(whole))["ETag"].endswith('-37"')
    assert (read(s3, bucket, "copy"), read(s3, bucket)) == (whole + b"!", whole + b"?"), "each has its own end"
    s3.delete_object(Bucket=bucket, Key="k")
    s3.put_object(Bucket=bucket, Key="copy", Body=b"!", WriteOffsetBytes=len(whole) + 1)
    assert read(s3, bucket, "copy") == whole + b"!!"


def test_where_versions_are_kept_an_append_is_a_new_one(s3: BaseClient, bucket: str) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    wanted = {}
    whole = b""
    for number in range(4):
        piece = b"%d" % number * 3
        answer = s3.put_object(Bucket=bucket, Key="k", Body=piece, WriteOffsetBytes=len(whole))
        whole += piece
        wanted[answer["VersionId"]] = whole
    for version, body in wanted.items():
        assert read(s3, bucket, VersionId=version) == body
    s3.delete_object(Bucket=bucket, Key="k")
    assert refused(s3.put_object, Bucket=bucket, Key="k", Body=b"x", WriteOffsetBytes=len(whole)) == (400, "InvalidWriteOffset")
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", WriteOffsetBytes=0)
    assert read(s3, bucket) == b"x"


@inside
def test_long_ones_where_versions_are_kept(s3: BaseClient, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slices of what was there come in pages of their own."""
    monkeypatch.setattr(appending, "SLICES_AT_ONCE", 3)
    s3.put_object(Bucket=bucket, Key="k", Body=b"0" * 10)
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    for number in range(8):
        s3.put_object(Bucket=bucket, Key="k", Body=b"%d" % number, WriteOffsetBytes=10 + number)
    sizes = [each["Size"] for each in s3.list_object_versions(Bucket=bucket)["Versions"]]
    assert sizes == list(range(18, 9, -1))
    assert read(s3, bucket) == b"0" * 10 + b"01234567"


def test_a_multipart_object_is_appended_to(s3: BaseClient, bucket: str) -> None:
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k", ChecksumAlgorithm="CRC32", ChecksumType="COMPOSITE")["UploadId"]
    parts = []
    for number, body in ((1, b"a" * (5 * MIB)), (2, b"b")):
        answer = s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=number, Body=body, ChecksumAlgorithm="CRC32")
        parts.append({"PartNumber": number, "ETag": answer["ETag"], "ChecksumCRC32": answer["ChecksumCRC32"]})
    s3.complete_multipart_upload(Bucket=bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": parts})
    answer = s3.put_object(Bucket=bucket, Key="k", Body=b"tail", WriteOffsetBytes=5 * MIB + 1)
    assert answer["ETag"].endswith('-3"'), "its two parts count"
    assert "ChecksumType" not in answer, "a composite checksum cannot go on"
    assert read(s3, bucket, Range=f"bytes={5 * MIB - 1}-") == b"abtail"
    assert s3.put_object(Bucket=bucket, Key="k", Body=b"!", WriteOffsetBytes=5 * MIB + 5)["ETag"].endswith('-4"')
    assert read(s3, bucket, Range=f"bytes={5 * MIB}-") == b"btail!"


@pytest.mark.parametrize("algorithm", ["CRC32C", "CRC64NVME", "SHA1", "SHA256"])
def test_checksums_that_can_go_on_do(s3: BaseClient, bucket: str, algorithm: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"one", ChecksumAlgorithm=algorithm)
    answer = s3.put_object(Bucket=bucket, Key="k", Body=b"two", WriteOffsetBytes=3, ChecksumAlgorithm="SHA256")
    found = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    whole = s3.put_object(Bucket=bucket, Key="whole", Body=b"onetwo", ChecksumAlgorithm=algorithm)
    name = f"Checksum{algorithm}"
    goes_on = algorithm.startswith("CRC")
    assert answer.get(name) == found.get(name) == (whole[name] if goes_on else None)


def test_a_body_that_is_not_what_was_said_changes_nothing(s3: BaseClient, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"one")
    assert refused(s3.put_object, Bucket=bucket, Key="k", Body=b"two", WriteOffsetBytes=3,
                   ContentMD5=base64.b64encode(bytes(16)).decode()) == (400, "BadDigest")
    answer = s3.put_object(Bucket=bucket, Key="k", Body=b"", WriteOffsetBytes=3)
    assert (answer["Size"], answer["ETag"]) == (3, f'"{hashlib.md5(b"one").hexdigest()}"'), "nothing came, nothing changes"
    s3.put_object(Bucket=bucket, Key="k", Body=b"two", WriteOffsetBytes=3)
    assert read(s3, bucket) == b"onetwo"


def test_of_two_at_the_same_place_one_is_refused(s3: BaseClient, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"")

    def append(number: int) -> int:
        """Until it is in; how often it was refused."""
        for tries in range(100):
            size = s3.head_object(Bucket=bucket, Key="k")["ContentLength"]
            try:
                s3.put_object(Bucket=bucket, Key="k", Body=b"%d;" % number, WriteOffsetBytes=size)
            except ClientError as error:
                if error.response["Error"]["Code"] != "InvalidWriteOffset":
                    raise
            else:
                return tries
        raise AssertionError("never in")

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(append, range(12)))
    assert sorted(read(s3, bucket).split(b";")) == sorted([b"", *(b"%d" % number for number in range(12))])


def test_ten_thousand_parts_are_the_most() -> None:
    version = ObjectVersion(key="k", version_id="null", order=1, modified_ms=0, part_count=7)  # type: ignore[arg-type]
    assert appending._parts_of(version) == 7
    assert appending.PARTS_MAX == 10_000


def test_only_sums_of_the_whole_can_go_on() -> None:
    def crc_of(checksum: Checksum | None) -> str:
        return appending._crc_of(ObjectVersion(key="k", version_id="null", order=1, modified_ms=0, checksum=checksum))  # type: ignore[arg-type]

    assert crc_of(Checksum("CRC32", "AAAAAA==", "FULL_OBJECT")) == "CRC32"
    assert crc_of(Checksum("CRC32", "AAAAAA==-2", "COMPOSITE")) == crc_of(Checksum("SHA1", "x", "FULL_OBJECT")) == ""
    assert crc_of(None) == ""


@inside
def test_the_limit_of_parts(s3: BaseClient, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appending, "PARTS_MAX", 3)
    for offset in range(3):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", WriteOffsetBytes=offset)
    assert refused(s3.put_object, Bucket=bucket, Key="k", Body=b"x", WriteOffsetBytes=3) == (400, "TooManyParts")
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/k")
    s3.put_object(Bucket=bucket, Key="copy", Body=b"x", WriteOffsetBytes=3)
    assert read(s3, bucket, "copy") == b"xxxx"


def test_nobody_appends_to_what_another_account_owns(
    s3: BaseClient, other_s3: BaseClient, new_bucket_name: Callable[[], str],
) -> None:
    """Where access lists are on: who may write may replace an object, and it is his then, but not speak in its owner's name."""
    bucket = new_bucket_name()
    s3.create_bucket(Bucket=bucket, ObjectOwnership="ObjectWriter")
    s3.put_bucket_acl(Bucket=bucket, GrantFullControl="id=main-id", GrantWrite="id=other-id")
    s3.put_object(Bucket=bucket, Key="ours", Body=b"abc")
    other_s3.put_object(Bucket=bucket, Key="theirs", Body=b"abc", WriteOffsetBytes=0)
    for who, key in ((other_s3, "ours"), (s3, "theirs")):
        for offset in (3, 2):
            assert refused(who.put_object, Bucket=bucket, Key=key, Body=b"d", WriteOffsetBytes=offset) == (403, "AccessDenied")
    for who, key in ((s3, "ours"), (other_s3, "theirs")):
        who.put_object(Bucket=bucket, Key=key, Body=b"d", WriteOffsetBytes=3)
        assert read(who, bucket, key) == b"abcd"
