"""The newest boto3 with its default settings: nothing but endpoint, keys and region."""

import io
import os
import urllib.error
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from tests.clients.shell import Shell, Target, sha256


@pytest.fixture
def s3(target: Target) -> Iterator[Any]:
    client = boto3.client(
        "s3", endpoint_url=target.url, aws_access_key_id=target.access_key, aws_secret_access_key=target.secret_key,
        region_name=target.region, verify=str(target.ca) if target.ca else None)
    yield client
    client.close()


@pytest.fixture
def made(s3: Any, bucket: str) -> str:
    """A bucket that is there."""
    s3.create_bucket(Bucket=bucket)
    return bucket


def test_managed_transfer_of_a_big_file(s3: Any, made: str, big_file: Path, tmp_path: Path) -> None:
    s3.upload_file(str(big_file), made, "big", ExtraArgs={"Metadata": {"origin": "a test"}})
    head = s3.head_object(Bucket=made, Key="big")
    assert head["ContentLength"] == big_file.stat().st_size
    assert head["Metadata"] == {"origin": "a test"}
    assert "-" in head["ETag"]
    s3.download_file(made, "big", str(tmp_path / "back"))
    assert sha256(tmp_path / "back") == sha256(big_file)


def test_managed_transfer_of_a_stream(s3: Any, made: str) -> None:
    data = os.urandom((9 << 20) + 17)
    s3.upload_fileobj(io.BytesIO(data), made, "stream")
    back = io.BytesIO()
    s3.download_fileobj(made, "stream", back)
    assert back.getvalue() == data


@pytest.mark.parametrize("size", [0, 1, 4096, 262_144, 1_048_577])
def test_put_and_get_of_odd_sizes(s3: Any, made: str, size: int) -> None:
    data = os.urandom(size)
    put = s3.put_object(Bucket=made, Key=f"size {size}", Body=data)
    got = s3.get_object(Bucket=made, Key=f"size {size}")
    assert got["Body"].read() == data
    assert got["ETag"] == put["ETag"]
    assert "ContentEncoding" not in got           # `aws-chunked` is of the transfer, never of the object
    assert got["ChecksumCRC32"] == put["ChecksumCRC32"]


def test_presigned_links_both_ways(s3: Any, made: str, shell: Shell) -> None:
    """By default boto3 presigns with signature version 2."""
    s3.put_object(Bucket=made, Key="a/ä b+c", Body=b"linked", ContentType="text/plain")
    url = s3.generate_presigned_url("get_object", Params={"Bucket": made, "Key": "a/ä b+c"}, ExpiresIn=60)
    assert shell.fetch(url) == b"linked"
    changed = url.replace("Signature=", "Signature=A")
    with pytest.raises(urllib.error.HTTPError) as refused:
        shell.fetch(changed)
    with refused.value as answer:
        assert answer.code == 403
        assert b"<Code>SignatureDoesNotMatch</Code>" in answer.read()


def test_presigned_link_can_rename_the_download(s3: Any, made: str, shell: Shell) -> None:
    s3.put_object(Bucket=made, Key="k", Body=b"x")
    url = s3.generate_presigned_url("get_object", Params={
        "Bucket": made, "Key": "k", "ResponseContentDisposition": 'attachment; filename="ä.txt"'}, ExpiresIn=60)
    assert shell.fetch(url) == b"x"


def test_copy_keeps_and_replaces_metadata(s3: Any, made: str) -> None:
    s3.put_object(Bucket=made, Key="from", Body=b"bytes", Metadata={"a": "1"}, ContentType="text/plain")
    s3.copy_object(Bucket=made, Key="kept", CopySource={"Bucket": made, "Key": "from"})
    s3.copy_object(Bucket=made, Key="new", CopySource={"Bucket": made, "Key": "from"}, MetadataDirective="REPLACE",
                   Metadata={"b": "2"}, ContentType="text/css")
    kept, new = (s3.head_object(Bucket=made, Key=key) for key in ("kept", "new"))
    assert (kept["Metadata"], kept["ContentType"]) == ({"a": "1"}, "text/plain")
    assert (new["Metadata"], new["ContentType"]) == ({"b": "2"}, "text/css")
    assert kept["ETag"] == new["ETag"]


def test_managed_copy_of_a_big_object(s3: Any, made: str, big_file: Path, tmp_path: Path) -> None:
    s3.upload_file(str(big_file), made, "one")
    s3.copy({"Bucket": made, "Key": "one"}, made, "two")
    s3.delete_object(Bucket=made, Key="one")
    s3.download_file(made, "two", str(tmp_path / "back"))
    assert sha256(tmp_path / "back") == sha256(big_file)


def test_pages_and_bulk_delete(s3: Any, made: str) -> None:
    keys = [f"k/{number:03} ü&" for number in range(25)]
    for key in keys:
        s3.put_object(Bucket=made, Key=key, Body=key.encode())
    for name in ("list_objects_v2", "list_objects"):
        pages = s3.get_paginator(name).paginate(Bucket=made, Prefix="k/", PaginationConfig={"PageSize": 10})
        assert [item["Key"] for page in pages for item in page["Contents"]] == keys
    gone = s3.delete_objects(Bucket=made, Delete={"Objects": [{"Key": key} for key in [*keys, "never there"]]})
    assert sorted(item["Key"] for item in gone["Deleted"]) == sorted([*keys, "never there"])
    assert s3.list_objects_v2(Bucket=made)["KeyCount"] == 0
    s3.delete_bucket(Bucket=made)


def test_conditional_writes(s3: Any, made: str) -> None:
    first = s3.put_object(Bucket=made, Key="k", Body=b"1", IfNoneMatch="*")
    for condition in ({"IfNoneMatch": "*"}, {"IfMatch": '"00000000000000000000000000000000"'}):
        with pytest.raises(ClientError) as refused:
            s3.put_object(Bucket=made, Key="k", Body=b"2", **condition)
        assert refused.value.response["Error"]["Code"] == "PreconditionFailed"
        assert refused.value.response["Error"]["Condition"] in ("If-None-Match", "If-Match")
    s3.put_object(Bucket=made, Key="k", Body=b"3", IfMatch=first["ETag"])
    assert s3.get_object(Bucket=made, Key="k")["Body"].read() == b"3"


def test_ranges_of_a_multipart_object(s3: Any, made: str) -> None:
    data = os.urandom((5 << 20) + 1000)
    upload = s3.create_multipart_upload(Bucket=made, Key="parts", ChecksumAlgorithm="CRC32")["UploadId"]
    parts = []
    for number, piece in enumerate((data[:5 << 20], data[5 << 20:]), 1):
        part = s3.upload_part(Bucket=made, Key="parts", UploadId=upload, PartNumber=number, Body=piece)
        parts.append({"PartNumber": number, "ETag": part["ETag"], "ChecksumCRC32": part["ChecksumCRC32"]})
    s3.complete_multipart_upload(Bucket=made, Key="parts", UploadId=upload, MultipartUpload={"Parts": parts})
    for wanted, expected in (("bytes=0-0", data[:1]), ("bytes=-7", data[-7:]),
                             (f"bytes={(5 << 20) - 3}-{(5 << 20) + 2}", data[(5 << 20) - 3:(5 << 20) + 3])):
        assert s3.get_object(Bucket=made, Key="parts", Range=wanted)["Body"].read() == expected
    second = s3.get_object(Bucket=made, Key="parts", PartNumber=2)
    assert (second["PartsCount"], second["Body"].read()) == (2, data[5 << 20:])
    with pytest.raises(ClientError) as refused:
        s3.get_object(Bucket=made, Key="parts", Range="bytes=99999999-")
    assert refused.value.response["Error"]["Code"] == "InvalidRange"


def test_wrong_secret_and_missing_things(s3: Any, made: str, target: Target) -> None:
    stranger = boto3.client(
        "s3", endpoint_url=target.url, aws_access_key_id=target.access_key, aws_secret_access_key="wrong" * 8,
        region_name=target.region, verify=str(target.ca) if target.ca else None)
    expected = (
        (lambda: stranger.list_objects_v2(Bucket=made), "SignatureDoesNotMatch"),
        (lambda: s3.get_object(Bucket=made, Key="nothing"), "NoSuchKey"),
        (lambda: s3.head_object(Bucket=made, Key="nothing"), "404"),
        (lambda: s3.list_objects_v2(Bucket=made + "-other"), "NoSuchBucket"),
    )
    try:
        for call, code in expected:
            with pytest.raises(ClientError) as refused:
                call()  # type: ignore[no-untyped-call]
            assert refused.value.response["Error"]["Code"] == code
    finally:
        stranger.close()
