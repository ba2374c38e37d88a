"""GetObjectAttributes and GetObjectTagging: what is known without the bytes (S3_SEMANTICS §4, §8, §16)."""

import pytest
from botocore.client import BaseClient

from tests.s3.conftest import MIB, client
from tests.s3.errors import refused
from tests.s3.in_process import InProcess

ALL = ["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"]


def test_of_a_simple_object(s3: BaseClient, bucket: str) -> None:
    put = s3.put_object(Bucket=bucket, Key="key", Body=b"hello")
    answer = s3.get_object_attributes(Bucket=bucket, Key="key", ObjectAttributes=ALL)
    assert answer["ETag"] == put["ETag"].strip('"')
    assert answer["Checksum"] == {"ChecksumCRC32": put["ChecksumCRC32"], "ChecksumType": "FULL_OBJECT"}
    assert (answer["ObjectSize"], answer["StorageClass"]) == (5, "STANDARD")
    assert "ObjectParts" not in answer
    assert answer["LastModified"] == s3.head_object(Bucket=bucket, Key="key")["LastModified"]
    only = s3.get_object_attributes(Bucket=bucket, Key="key", ObjectAttributes=["ObjectSize"])
    assert "ETag" not in only


@pytest.mark.parametrize("algorithm", [None, "SHA256"])
def test_of_a_multipart_object(server: InProcess, bucket: str, algorithm: str | None) -> None:
    s3 = client(server.endpoint, style="when-required")
    said = {"ChecksumAlgorithm": algorithm} if algorithm else {}
    upload = s3.create_multipart_upload(Bucket=bucket, Key="key", **said)["UploadId"]
    parts = []
    for number, body in enumerate([b"p" * (5 * MIB), b"last"], 1):
        part = s3.upload_part(Bucket=bucket, Key="key", UploadId=upload, PartNumber=number, Body=body, **said)
        kept = {name: part[name] for name in ("ETag", "ChecksumSHA256") if name in part}
        parts.append({"PartNumber": number, **kept})
    done = s3.complete_multipart_upload(
        Bucket=bucket, Key="key", UploadId=upload, MultipartUpload={"Parts": parts}
    )
    answer = s3.get_object_attributes(Bucket=bucket, Key="key", ObjectAttributes=ALL)
    assert answer["ETag"] == done["ETag"].strip('"')
    assert answer["ObjectParts"]["TotalPartsCount"] == 2
    if algorithm is None:
        assert "Parts" not in answer["ObjectParts"]
        return
    assert answer["Checksum"]["ChecksumSHA256"] == done["ChecksumSHA256"].removesuffix("-2")
    listed = answer["ObjectParts"]["Parts"]
    assert [(part["PartNumber"], part["Size"]) for part in listed] == [(1, 5 * MIB), (2, 4)]
    assert [part["ChecksumSHA256"] for part in listed] == [part["ChecksumSHA256"] for part in parts]
    page = s3.get_object_attributes(Bucket=bucket, Key="key", ObjectAttributes=["ObjectParts"], MaxParts=1)
    assert (page["ObjectParts"]["IsTruncated"], page["ObjectParts"]["NextPartNumberMarker"]) == (True, 1)


def test_what_may_be_asked(s3: BaseClient, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=b"")
    with refused("InvalidArgument", 400):
        s3.get_object_attributes(Bucket=bucket, Key="key", ObjectAttributes=["Colour"])
    with refused("InvalidRequest", 400):
        s3.get_object_attributes(Bucket=bucket, Key="key", ObjectAttributes=[])
    with refused("NoSuchKey", 404):
        s3.get_object_attributes(Bucket=bucket, Key="absent", ObjectAttributes=["ETag"])


def test_tags(s3: BaseClient, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=b"", Tagging="a%20b=c%2Bd&e=")
    assert s3.get_object_tagging(Bucket=bucket, Key="key")["TagSet"] == [
        {"Key": "a b", "Value": "c+d"}, {"Key": "e", "Value": ""}
    ]
    s3.put_object(Bucket=bucket, Key="untagged", Body=b"")
    assert s3.get_object_tagging(Bucket=bucket, Key="untagged")["TagSet"] == []
    with refused("NoSuchKey", 404):
        s3.get_object_tagging(Bucket=bucket, Key="absent")
