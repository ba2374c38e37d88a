"""The daily round of an object, in every style of client against every kind of server, and against moto."""

import hashlib
from collections.abc import Callable

import pytest
from botocore.client import BaseClient

from tests.s3.conftest import MIB
from tests.s3.errors import refused

KEYS = [
    "plain", "dir/", "dir/file", "a b+c%2Fd", "ünïcödé/日本", "dots/../up/./x", "/leading", "a//b", "!'()*~;:@&=$,?#[]",
]

BODIES = {
    "empty": b"",
    "small": b"some bytes",
    "chunks": bytes(range(256)) * (4 * 1024 * 3) + b"tail",
}


@pytest.fixture
def any_bucket(any_s3: BaseClient, new_bucket_name: Callable[[], str]) -> str:
    name = new_bucket_name()
    any_s3.create_bucket(Bucket=name)
    return name


@pytest.mark.parametrize("kind", BODIES)
def test_what_is_put_comes_back(any_s3: BaseClient, any_bucket: str, kind: str) -> None:
    body = BODIES[kind]
    etag = f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'
    put = any_s3.put_object(Bucket=any_bucket, Key="key", Body=body, Metadata={"some": "thing"}, ContentType="text/x")
    assert put["ETag"] == etag
    head = any_s3.head_object(Bucket=any_bucket, Key="key")
    assert (head["ContentLength"], head["ETag"], head["ContentType"]) == (len(body), etag, "text/x")
    got = any_s3.get_object(Bucket=any_bucket, Key="key")
    assert got["Body"].read() == body
    assert got["Metadata"] == {"some": "thing"}
    assert got["LastModified"] == head["LastModified"]


def test_keys_are_kept_to_the_byte(any_s3: BaseClient, any_bucket: str) -> None:
    if _is_moto(any_s3):
        pytest.skip("moto's HTTP framework normalises paths")
    for key in KEYS:
        any_s3.put_object(Bucket=any_bucket, Key=key, Body=key.encode())
    listed = [entry["Key"] for entry in any_s3.list_objects_v2(Bucket=any_bucket)["Contents"]]
    assert listed == sorted(KEYS, key=str.encode)
    for key in KEYS:
        assert any_s3.get_object(Bucket=any_bucket, Key=key)["Body"].read() == key.encode()
    answer = any_s3.delete_objects(Bucket=any_bucket, Delete={"Objects": [{"Key": key} for key in KEYS]})
    assert {entry["Key"] for entry in answer["Deleted"]} == set(KEYS)
    assert any_s3.list_objects_v2(Bucket=any_bucket)["KeyCount"] == 0


def test_multipart_round(any_s3: BaseClient, any_bucket: str) -> None:
    parts = [bytes([number]) * (5 * MIB) for number in (1, 2)] + [b"last"]
    upload = any_s3.create_multipart_upload(Bucket=any_bucket, Key="key")["UploadId"]
    etags = [
        any_s3.upload_part(Bucket=any_bucket, Key="key", UploadId=upload, PartNumber=number, Body=part)["ETag"]
        for number, part in enumerate(parts, 1)
    ]
    listed = any_s3.list_parts(Bucket=any_bucket, Key="key", UploadId=upload)["Parts"]
    assert [(part["PartNumber"], part["ETag"], part["Size"]) for part in listed] == [
        (number, etag, len(part)) for number, (etag, part) in enumerate(zip(etags, parts, strict=True), 1)
    ]
    done = any_s3.complete_multipart_upload(
        Bucket=any_bucket, Key="key", UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]},
    )
    digests = b"".join(hashlib.md5(part, usedforsecurity=False).digest() for part in parts)
    assert done["ETag"] == f'"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-3"'
    assert any_s3.get_object(Bucket=any_bucket, Key="key")["Body"].read() == b"".join(parts)
    ranged = any_s3.get_object(Bucket=any_bucket, Key="key", Range=f"bytes={5 * MIB - 2}-{5 * MIB + 1}")
    assert ranged["Body"].read() == b"\x01\x01\x02\x02"


def test_errors_have_their_codes(any_s3: BaseClient, any_bucket: str) -> None:
    with refused("NoSuchKey", 404):
        any_s3.get_object(Bucket=any_bucket, Key="absent")
    with refused("404", 404):
        any_s3.head_object(Bucket=any_bucket, Key="absent")
    with refused("NoSuchBucket", 404):
        any_s3.list_objects_v2(Bucket=f"{any_bucket}-not")
    with refused("NoSuchUpload", 404):
        any_s3.abort_multipart_upload(Bucket=any_bucket, Key="key", UploadId="none")
    any_s3.put_object(Bucket=any_bucket, Key="key", Body=b"x")
    with refused("BucketNotEmpty", 409):
        any_s3.delete_bucket(Bucket=any_bucket)
    with refused("PreconditionFailed", 412):
        any_s3.put_object(Bucket=any_bucket, Key="key", Body=b"y", IfNoneMatch="*")
    with refused("304", 304):
        any_s3.get_object(
            Bucket=any_bucket, Key="key", IfNoneMatch=any_s3.head_object(Bucket=any_bucket, Key="key")["ETag"]
        )
    any_s3.delete_object(Bucket=any_bucket, Key="key")
    any_s3.delete_object(Bucket=any_bucket, Key="key")
    any_s3.delete_bucket(Bucket=any_bucket)


def test_presigned_links_work(any_s3: BaseClient, any_bucket: str) -> None:
    any_s3.put_object(Bucket=any_bucket, Key="a b", Body=b"shared")
    # The link is made by the client and fetched by its own connection pool, as a browser would: without credentials.
    url = any_s3.generate_presigned_url("get_object", Params={"Bucket": any_bucket, "Key": "a b"}, ExpiresIn=60)
    assert _fetch(any_s3, url) == b"shared"


def _fetch(s3: BaseClient, url: str) -> bytes:
    from botocore.awsrequest import AWSRequest

    answer = s3._endpoint.http_session.send(AWSRequest(method="GET", url=url).prepare())
    assert answer.status_code == 200, answer.content
    return bytes(answer.content)


def _is_moto(s3: BaseClient) -> bool:
    return s3.list_buckets()["ResponseMetadata"]["HTTPHeaders"].get("server", "").startswith("Werkzeug")
