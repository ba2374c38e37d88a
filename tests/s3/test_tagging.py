"""Tags of objects: set with the object, replaced, removed, by version; what S3 refuses (S3_SEMANTICS §16)."""

import pytest
from botocore.client import BaseClient

from tests.s3.errors import refused


def tag_set(**tags: str) -> dict[str, list[dict[str, str]]]:
    return {"TagSet": [{"Key": key, "Value": value} for key, value in tags.items()]}


def test_tags_come_go_and_leave_the_object_alone(s3: BaseClient, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=b"x", Tagging="a=1&b=2")
    before = s3.head_object(Bucket=bucket, Key="key")
    assert s3.get_object_tagging(Bucket=bucket, Key="key")["TagSet"] == tag_set(a="1", b="2")["TagSet"]
    s3.put_object_tagging(Bucket=bucket, Key="key", Tagging=tag_set(c="größer"))
    assert s3.get_object_tagging(Bucket=bucket, Key="key")["TagSet"] == tag_set(c="größer")["TagSet"]
    after = s3.get_object(Bucket=bucket, Key="key")
    assert after["TagCount"] == 1
    assert (after["ETag"], after["LastModified"], after["Body"].read()) == (before["ETag"], before["LastModified"], b"x")
    for _ in range(2):
        assert s3.delete_object_tagging(Bucket=bucket, Key="key")["ResponseMetadata"]["HTTPStatusCode"] == 204
        assert s3.get_object_tagging(Bucket=bucket, Key="key")["TagSet"] == []


def test_tags_belong_to_a_version(s3: BaseClient, bucket: str) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    old, new = (s3.put_object(Bucket=bucket, Key="key", Body=body)["VersionId"] for body in (b"1", b"2"))
    assert s3.put_object_tagging(Bucket=bucket, Key="key", VersionId=old, Tagging=tag_set(v="old"))["VersionId"] == old
    assert s3.put_object_tagging(Bucket=bucket, Key="key", Tagging=tag_set(v="new"))["VersionId"] == new
    for version, value in ((old, "old"), (new, "new")):
        assert s3.get_object_tagging(Bucket=bucket, Key="key", VersionId=version)["TagSet"] == tag_set(v=value)["TagSet"]
    assert s3.get_object(Bucket=bucket, Key="key", VersionId=old)["Body"].read() == b"1"
    marker = s3.delete_object(Bucket=bucket, Key="key")["VersionId"]
    for named in ({}, {"VersionId": marker}):
        with refused("MethodNotAllowed", 405):
            s3.put_object_tagging(Bucket=bucket, Key="key", Tagging=tag_set(a="1"), **named)
    with refused("NoSuchVersion", 404):
        s3.put_object_tagging(Bucket=bucket, Key="key", VersionId=old[::-1], Tagging=tag_set(a="1"))
    with refused("NoSuchKey", 404):
        s3.put_object_tagging(Bucket=bucket, Key="other", Tagging=tag_set(a="1"))


@pytest.mark.parametrize(("tags", "code"), [
    ({str(number): "x" for number in range(11)}, "BadRequest"), ({"k" * 129: "v"}, "InvalidTag"),
    ({"k": "v" * 257}, "InvalidTag"), ({"aws:k": "v"}, "InvalidTag"), ({"k": "<>"}, "InvalidTag"),
    ({**{str(number): "x" for number in range(10)}, "k": "<>"}, "InvalidTag"),
])
def test_tags_that_s3_does_not_allow(s3: BaseClient, bucket: str, tags: dict[str, str], code: str) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=b"x", Tagging="kept=1")
    with refused(code, 400):
        s3.put_object_tagging(Bucket=bucket, Key="key", Tagging=tag_set(**tags))
    assert s3.get_object_tagging(Bucket=bucket, Key="key")["TagSet"] == tag_set(kept="1")["TagSet"]


def test_a_key_twice_is_refused(s3: BaseClient, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=b"x")
    with refused("InvalidTag", 400):
        s3.put_object_tagging(Bucket=bucket, Key="key", Tagging={"TagSet": tag_set(a="1")["TagSet"] * 2})
