"""RenameObject through boto3: what stays, what goes, what is refused (docs/RENAME_AND_APPEND.md)."""

import datetime
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.client import BaseClient
from botocore.exceptions import ClientError

from tests.s3.conftest import OTHER

LONG_AGO, SOON = datetime.datetime(2001, 1, 1), datetime.datetime(2100, 1, 1)


def refused(call: Callable[..., Any], **named: Any) -> tuple[int, str]:
    with pytest.raises(ClientError) as caught:
        call(**named)
    answer = caught.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]


def names(s3: BaseClient, bucket: str) -> list[str]:
    return [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]


def test_everything_about_the_object_goes_along(s3: BaseClient, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="old name+%", Body=b"bytes", Metadata={"a": "b"}, ContentType="text/x", CacheControl="no",
                  Tagging="c=d", StorageClass="STANDARD_IA", ChecksumAlgorithm="SHA1")
    before = s3.get_object(Bucket=bucket, Key="old name+%", ChecksumMode="ENABLED")
    answer = s3.rename_object(Bucket=bucket, Key="new/é", RenameSource=f"/{bucket}/old%20name%2B%25")
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert answer["ResponseMetadata"]["HTTPHeaders"]["content-length"] == "0"
    after = s3.get_object(Bucket=bucket, Key="new/é", ChecksumMode="ENABLED")
    assert after["Body"].read() == before["Body"].read() == b"bytes"
    same = ("ETag", "LastModified", "Metadata", "ContentType", "CacheControl", "StorageClass", "ChecksumSHA1", "TagCount")
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    assert s3.get_object_tagging(Bucket=bucket, Key="new/é")["TagSet"] == [{"Key": "c", "Value": "d"}]
    assert names(s3, bucket) == ["new/é"]
    assert refused(s3.get_object, Bucket=bucket, Key="old name+%") == (404, "NoSuchKey")


def test_how_the_source_may_be_named(s3: BaseClient, bucket: str) -> None:
    for source in ("k", f"{bucket}/k", f"/{bucket}/k"):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x")
        s3.rename_object(Bucket=bucket, Key="to", RenameSource=source)
        assert names(s3, bucket) == ["to"]
    s3.put_object(Bucket=bucket, Key="a/k", Body=b"x")
    s3.rename_object(Bucket=bucket, Key="to", RenameSource="a/k")
    assert names(s3, bucket) == ["to"], "a name with a slash is a name"


def test_multipart_objects_keep_their_parts(s3: BaseClient, bucket: str) -> None:
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    part = s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=3, Body=b"part")
    done = s3.complete_multipart_upload(Bucket=bucket, Key="k", UploadId=upload,
                                        MultipartUpload={"Parts": [{"PartNumber": 3, "ETag": part["ETag"]}]})
    s3.rename_object(Bucket=bucket, Key="to", RenameSource="k")
    head = s3.head_object(Bucket=bucket, Key="to", PartNumber=3)
    assert (head["ETag"], head["PartsCount"], head["ContentLength"]) == (done["ETag"], 1, 4)


@pytest.mark.parametrize(("source", "key", "answer"), [
    ("gone", "to", (404, "NoSuchKey")), ("k", "k", (400, "InvalidRequest")), ("/another/k", "to", (400, "InvalidRequest")),
    ("%", "to", (400, "InvalidArgument")), ("/", "to", (400, "InvalidRequest")), ("x" * 1025, "to", (400, "InvalidArgument")),
])
def test_what_cannot_be_renamed(s3: BaseClient, bucket: str, source: str, key: str, answer: tuple[int, str]) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert refused(s3.rename_object, Bucket=bucket, Key=key, RenameSource=source) == answer
    assert names(s3, bucket) == ["k"]


def test_conditions_of_both_sides(s3: BaseClient, bucket: str) -> None:
    def rename(**conditions: Any) -> Any:
        return s3.rename_object(Bucket=bucket, Key="to", RenameSource="k", **conditions)

    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"x")["ETag"]
    there = s3.put_object(Bucket=bucket, Key="to", Body=b"there")["ETag"]
    failing = [{"SourceIfMatch": there}, {"SourceIfNoneMatch": etag}, {"SourceIfNoneMatch": "*"},
               {"SourceIfUnmodifiedSince": LONG_AGO}, {"DestinationIfMatch": etag}, {"DestinationIfNoneMatch": "*"},
               {"DestinationIfNoneMatch": there}, {"DestinationIfUnmodifiedSince": LONG_AGO}]
    for conditions in failing:
        assert refused(rename, **conditions) == (412, "PreconditionFailed"), conditions
    assert names(s3, bucket) == ["k", "to"]
    rename(SourceIfMatch=etag, SourceIfNoneMatch=there, SourceIfModifiedSince=LONG_AGO, DestinationIfMatch=there,
           DestinationIfModifiedSince=LONG_AGO)
    assert s3.get_object(Bucket=bucket, Key="to")["Body"].read() == b"x"
    s3.put_object(Bucket=bucket, Key="k", Body=b"y")
    rename(DestinationIfNoneMatch=there, DestinationIfUnmodifiedSince=SOON)
    s3.delete_object(Bucket=bucket, Key="to")
    s3.put_object(Bucket=bucket, Key="k", Body=b"z")
    assert refused(rename, DestinationIfMatch=etag) == (404, "NoSuchKey")
    assert refused(rename, DestinationIfModifiedSince=LONG_AGO) == (412, "PreconditionFailed")
    rename(DestinationIfUnmodifiedSince=LONG_AGO, DestinationIfNoneMatch="*")
    assert names(s3, bucket) == ["to"]


def test_a_token_makes_a_repeat_harmless(s3: BaseClient, bucket: str) -> None:
    def rename(key: str, token: str = "token") -> Any:
        return s3.rename_object(Bucket=bucket, Key=key, RenameSource="k", ClientToken=token)

    assert refused(rename, key="to") == (404, "NoSuchKey")
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    rename("to")
    rename("to")
    assert refused(rename, key="to", token="other") == (404, "NoSuchKey")
    assert refused(rename, key="elsewhere") == (400, "IdempotencyParameterMismatch")
    s3.put_object(Bucket=bucket, Key="k", Body=b"another")
    rename("to")
    assert names(s3, bucket) == ["k", "to"], "it was done: the new object stays where it is"
    for token in ("", "a b", "x" * 65, "é"):
        if token == "é":
            continue                # boto3 sends no such header
        assert refused(rename, key="to", token=token) == (400, "InvalidArgument"), token


def test_versions_stay_where_they_are_kept(s3: BaseClient, bucket: str) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    old = s3.put_object(Bucket=bucket, Key="k", Body=b"old")["VersionId"]
    new = s3.put_object(Bucket=bucket, Key="k", Body=b"new")["VersionId"]
    there = s3.put_object(Bucket=bucket, Key="to", Body=b"there")["VersionId"]
    moved = s3.rename_object(Bucket=bucket, Key="to", RenameSource="k")["ResponseMetadata"]["HTTPHeaders"]["x-amz-version-id"]
    found = s3.list_object_versions(Bucket=bucket)
    assert [(each["Key"], each["VersionId"], each["IsLatest"]) for each in found["Versions"]] == [
        ("k", new, False), ("k", old, False), ("to", moved, True), ("to", there, False)]
    assert [(each["Key"], each["IsLatest"]) for each in found["DeleteMarkers"]] == [("k", True)]
    assert s3.get_object(Bucket=bucket, Key="to")["Body"].read() == b"new"
    s3.delete_object(Bucket=bucket, Key="k", VersionId=found["DeleteMarkers"][0]["VersionId"])
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"new"
    s3.delete_object(Bucket=bucket, Key="to", VersionId=moved)
    assert s3.get_object(Bucket=bucket, Key="to")["Body"].read() == b"there"
    assert refused(s3.rename_object, Bucket=bucket, Key="x", RenameSource="gone") == (404, "NoSuchKey")


def test_while_versioning_is_suspended_null_versions_go(s3: BaseClient, bucket: str) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    s3.put_object(Bucket=bucket, Key="to", Body=b"there")
    s3.rename_object(Bucket=bucket, Key="to", RenameSource="k")
    found = s3.list_object_versions(Bucket=bucket)
    assert [(each["Key"], each["VersionId"], each["Size"]) for each in found["Versions"]] == [("to", "null", 1)]
    assert [(each["Key"], each["VersionId"]) for each in found["DeleteMarkers"]] == [("k", "null")]


def test_a_lock_goes_along_and_protects_what_it_protected(s3: BaseClient, new_bucket_name: Callable[[], str]) -> None:
    bucket = new_bucket_name()
    s3.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    version = s3.put_object(Bucket=bucket, Key="k", Body=b"x", ObjectLockLegalHoldStatus="ON")["VersionId"]
    s3.rename_object(Bucket=bucket, Key="to", RenameSource="k")
    assert s3.get_object_legal_hold(Bucket=bucket, Key="to")["LegalHold"]["Status"] == "ON"
    moved = s3.head_object(Bucket=bucket, Key="to")["VersionId"]
    for key, each in (("k", version), ("to", moved)):
        assert refused(s3.delete_object, Bucket=bucket, Key=key, VersionId=each) == (403, "AccessDenied")
        s3.put_object_legal_hold(Bucket=bucket, Key=key, VersionId=each, LegalHold={"Status": "OFF"})


def test_of_many_at_once_one_gets_the_object(s3: BaseClient, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")

    def rename(number: int) -> bool:
        try:
            s3.rename_object(Bucket=bucket, Key=f"to-{number}", RenameSource="k")
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchKey":
                raise
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(rename, range(8))) == 1
    assert len(names(s3, bucket)) == 1


def test_who_renames_needs_what_a_copy_and_a_delete_need(s3: BaseClient, other_s3: BaseClient, bucket: str) -> None:
    needed = {"old": {"s3:GetObject", "s3:DeleteObject", "s3:GetObjectTagging"},
              "new": {"s3:RenameObject", "s3:PutObject", "s3:PutObjectTagging"}}

    def allow(of: dict[str, set[str]]) -> None:
        s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Statement": [
            {"Effect": "Allow", "Principal": {"AWS": OTHER.account}, "Action": sorted(actions),
             "Resource": f"arn:aws:s3:::{bucket}/{key}"} for key, actions in of.items()]}))

    s3.put_object(Bucket=bucket, Key="old", Body=b"x", Tagging="a=b")
    asked = {"Bucket": bucket, "Key": "new", "RenameSource": "old"}
    assert refused(other_s3.rename_object, **asked) == (403, "AccessDenied")
    for key, actions in needed.items():
        for action in actions:
            allow({**needed, key: actions - {action}})
            assert refused(other_s3.rename_object, **asked) == (403, "AccessDenied"), f"without {action} on {key}"
    allow(needed)
    assert refused(other_s3.rename_object, **asked, DestinationIfMatch="x") == (403, "AccessDenied"), "it would tell the ETag"
    assert refused(other_s3.rename_object, Bucket=bucket, Key="new", RenameSource="gone") == (403, "AccessDenied")
    other_s3.rename_object(**asked)
    assert names(s3, bucket) == ["new"]
