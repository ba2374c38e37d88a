"""DELETE of one and of many (S3_SEMANTICS §10)."""

from typing import Any

import pytest
from botocore.client import BaseClient

from tests.s3.conftest import client
from tests.s3.errors import refused
from tests.s3.in_process import InProcess


def test_deleting_what_is_not_there_succeeds(s3: BaseClient, bucket: str) -> None:
    answer = s3.delete_object(Bucket=bucket, Key="absent")
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert "DeleteMarker" not in answer
    assert "VersionId" not in answer


def test_neighbours_stay(s3: BaseClient, bucket: str) -> None:
    for key in ("a", "a/", "a/b"):
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    s3.delete_object(Bucket=bucket, Key="a/")
    with refused("404", 404):
        s3.head_object(Bucket=bucket, Key="a/")
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["a", "a/b"]
    s3.delete_object(Bucket=bucket, Key="a/b")
    assert "CommonPrefixes" not in s3.list_objects_v2(Bucket=bucket, Delimiter="/")


def test_conditional_delete(s3: BaseClient, bucket: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="key", Body=b"x")["ETag"]
    with refused("PreconditionFailed", 412) as said:
        s3.delete_object(Bucket=bucket, Key="key", IfMatch='"other"')
    assert said["Condition"] == "If-Match"
    s3.delete_object(Bucket=bucket, Key="key", IfMatch=etag)
    with refused("NoSuchKey", 404):
        s3.delete_object(Bucket=bucket, Key="key", IfMatch="*")
    s3.put_object(Bucket=bucket, Key="key", Body=b"x")
    s3.delete_object(Bucket=bucket, Key="key", IfMatch="*")
    with refused("404", 404):
        s3.head_object(Bucket=bucket, Key="key")


def test_an_unlockable_object_has_no_lock_to_bypass(s3: BaseClient, bucket: str) -> None:
    with refused("InvalidArgument", 400):
        s3.delete_object(Bucket=bucket, Key="key", BypassGovernanceRetention=True)


def test_many_at_once(s3: BaseClient, bucket: str) -> None:
    keys = [f"key-{number:04}" for number in range(999)] + ["with <&> \" 'ü\ttab"]
    for key in keys[:5] + keys[-1:]:
        s3.put_object(Bucket=bucket, Key=key, Body=b"")
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys]})
    assert [entry["Key"] for entry in answer["Deleted"]] == keys
    assert "Errors" not in answer
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_each_key_has_its_own_outcome(s3: BaseClient, bucket: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="right", Body=b"x")["ETag"]
    s3.put_object(Bucket=bucket, Key="wrong", Body=b"x")
    wanted: list[dict[str, Any]] = [
        {"Key": "right", "ETag": etag}, {"Key": "wrong", "ETag": '"other"'}, {"Key": "absent", "ETag": etag},
        {"Key": "k" * 1025}, {"Key": "plain"}, {"Key": "version", "VersionId": "no id of ours"},
    ]
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": wanted})
    assert [entry["Key"] for entry in answer["Deleted"]] == ["right", "plain"]
    assert [(entry["Key"][:9], entry["Code"]) for entry in answer["Errors"]] == [
        ("wrong", "PreconditionFailed"), ("absent", "NoSuchKey"), ("kkkkkkkkk", "KeyTooLongError"),
        ("version", "NoSuchVersion"),
    ]
    assert answer["Errors"][3]["VersionId"] == "no id of ours"


def test_quiet_shows_errors_only(s3: BaseClient, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=b"x")
    answer = s3.delete_objects(
        Bucket=bucket, Delete={"Objects": [{"Key": "key", "ETag": '"x"'}, {"Key": "b"}], "Quiet": True}
    )
    assert "Deleted" not in answer
    assert [entry["Key"] for entry in answer["Errors"]] == ["key"]


def test_more_than_a_thousand_are_refused(s3: BaseClient, bucket: str) -> None:
    with refused("MalformedXML", 400):
        s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": f"{number}"} for number in range(1001)]})


@pytest.mark.parametrize("kept", ["content-md5", "x-amz-checksum-crc32", None])
def test_a_digest_must_come_along(server: InProcess, bucket: str, kept: str | None) -> None:
    s3 = client(server.endpoint)
    digests = ("content-md5", "x-amz-checksum-crc32", "x-amz-sdk-checksum-algorithm")

    def strip(request: Any, **_: Any) -> None:
        import base64
        import hashlib

        if kept != "x-amz-checksum-crc32":
            for name in digests:
                del request.headers[name]
        if kept == "content-md5":
            body = request.body.encode() if isinstance(request.body, str) else request.body
            request.headers[kept] = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()

    s3.meta.events.register("before-sign.s3.DeleteObjects", strip)
    delete = {"Objects": [{"Key": "key"}]}
    if kept is None:
        with refused("InvalidRequest", 400):
            s3.delete_objects(Bucket=bucket, Delete=delete)
    else:
        assert s3.delete_objects(Bucket=bucket, Delete=delete)["Deleted"] == [{"Key": "key"}]
