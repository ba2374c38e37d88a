"""Bucket policies as clients meet them: who gets in by them, who is kept out, what is refused when it is put."""

import json
from typing import Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.client import BaseClient
from botocore.config import Config

from tests.s3.conftest import OTHER
from tests.s3.errors import refused
from tests.s3.in_process import InProcess


@pytest.fixture(scope="module")
def anonymous(server: InProcess) -> BaseClient:
    return boto3.client("s3", endpoint_url=server.endpoint, region_name="us-east-1",
                        config=Config(signature_version=UNSIGNED, retries={"total_max_attempts": 1}))


@pytest.fixture
def open_bucket(s3: BaseClient, bucket: str) -> str:
    """Nothing blocks public access to it; nobody has any yet."""
    s3.delete_public_access_block(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="key", Body=b"body")
    return bucket


def put(s3: BaseClient, bucket: str, *statements: dict[str, Any]) -> None:
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [*statements]}))


def allow(bucket: str, *actions: str, key: str | None = "*", who: Any = "*", **more: Any) -> dict[str, Any]:
    resource = f"arn:aws:s3:::{bucket}" + ("" if key is None else f"/{key}")
    return {"Effect": "Allow", "Principal": who, "Action": [f"s3:{action}" for action in actions], "Resource": resource, **more}


def deny(bucket: str, *actions: str, **named: Any) -> dict[str, Any]:
    return {**allow(bucket, *actions, **named), "Effect": "Deny"}


OTHERS = {"AWS": f"arn:aws:iam::{OTHER.account}:root"}


def test_a_policy_is_kept_as_it_was_put(s3: BaseClient, bucket: str) -> None:
    with refused("NoSuchBucketPolicy", 404):
        s3.get_bucket_policy(Bucket=bucket)
    text = json.dumps({"Version": "2012-10-17", "Statement": allow(bucket, "GetObject", who=OTHERS)}, indent=3)
    assert s3.put_bucket_policy(Bucket=bucket, Policy=text)["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert s3.get_bucket_policy(Bucket=bucket)["Policy"] == text
    assert s3.get_bucket_policy_status(Bucket=bucket)["PolicyStatus"] == {"IsPublic": False}
    s3.delete_bucket_policy(Bucket=bucket)
    for ask in (s3.get_bucket_policy, s3.get_bucket_policy_status):
        with refused("NoSuchBucketPolicy", 404):
            ask(Bucket=bucket)


def test_everybody_may_read_what_a_policy_gives_to_everybody(
    s3: BaseClient, anonymous: BaseClient, other_s3: BaseClient, open_bucket: str,
) -> None:
    with refused("AccessDenied", 403):
        anonymous.get_object(Bucket=open_bucket, Key="key")
    put(s3, open_bucket, allow(open_bucket, "GetObject", key="k*"))
    assert s3.get_bucket_policy_status(Bucket=open_bucket)["PolicyStatus"] == {"IsPublic": True}
    for someone in (anonymous, other_s3):
        assert someone.get_object(Bucket=open_bucket, Key="key")["Body"].read() == b"body"
        assert someone.head_object(Bucket=open_bucket, Key="key")["ContentLength"] == 4
        for denied in (lambda someone=someone: someone.put_object(Bucket=open_bucket, Key="key", Body=b""),
                       lambda someone=someone: someone.list_objects_v2(Bucket=open_bucket),
                       lambda someone=someone: someone.get_object(Bucket=open_bucket, Key="other"),
                       lambda someone=someone: someone.get_object_tagging(Bucket=open_bucket, Key="key")):
            with refused("AccessDenied", 403):
                denied()
    s3.delete_bucket_policy(Bucket=open_bucket)
    with refused("AccessDenied", 403):
        anonymous.get_object(Bucket=open_bucket, Key="key")


def test_what_is_not_there_shows_only_to_those_who_may_list(s3: BaseClient, anonymous: BaseClient, open_bucket: str) -> None:
    put(s3, open_bucket, allow(open_bucket, "GetObject", "GetObjectVersion"))
    for more in ({}, {"VersionId": "x" * 32}):
        with refused("AccessDenied", 403):
            anonymous.get_object(Bucket=open_bucket, Key="absent", **more)
    put(s3, open_bucket, allow(open_bucket, "GetObject", "GetObjectVersion"), allow(open_bucket, "ListBucket", key=None))
    with refused("NoSuchKey", 404):
        anonymous.get_object(Bucket=open_bucket, Key="absent")
    with refused("NoSuchVersion", 404):
        anonymous.get_object(Bucket=open_bucket, Key="absent", VersionId="x" * 32)
    with refused("InvalidRequest", 400):
        anonymous.get_object(Bucket=open_bucket, Key="key", ResponseContentType="text/html")


def test_another_account(s3: BaseClient, other_s3: BaseClient, anonymous: BaseClient, open_bucket: str) -> None:
    put(s3, open_bucket, allow(open_bucket, "PutObject", "GetObject", "DeleteObject", who=OTHERS))
    other_s3.put_object(Bucket=open_bucket, Key="theirs", Body=b"x")
    listed = s3.list_objects_v2(Bucket=open_bucket, FetchOwner=True)["Contents"]
    assert {entry["Owner"]["ID"] for entry in listed} == {"main-id"}, "the bucket's owner owns everything"
    assert s3.get_object(Bucket=open_bucket, Key="theirs")["Body"].read() == b"x"
    with refused("AccessDenied", 403):
        anonymous.get_object(Bucket=open_bucket, Key="theirs")
    for headers in ({"Tagging": "a=b"}, {"ACL": "private"}):
        with refused("AccessDenied", 403):
            other_s3.put_object(Bucket=open_bucket, Key="theirs", Body=b"y", **headers)
    other_s3.put_object(Bucket=open_bucket, Key="theirs", Body=b"x", ACL="bucket-owner-full-control")
    with refused("AccessDenied", 403):
        other_s3.get_bucket_policy(Bucket=open_bucket)
    upload = other_s3.create_multipart_upload(Bucket=open_bucket, Key="big")["UploadId"]
    initiator = other_s3.list_parts(Bucket=open_bucket, Key="big", UploadId=upload)["Initiator"]["ID"]
    assert initiator == "other-id", "whoever began an upload may look at it and abort it"
    other_s3.abort_multipart_upload(Bucket=open_bucket, Key="big", UploadId=upload)
    with refused("NoSuchUpload", 404):
        other_s3.abort_multipart_upload(Bucket=open_bucket, Key="big", UploadId=upload)
    upload = s3.create_multipart_upload(Bucket=open_bucket, Key="big")["UploadId"]
    for call in (other_s3.abort_multipart_upload, other_s3.list_parts):
        with refused("AccessDenied", 403):
            call(Bucket=open_bucket, Key="big", UploadId=upload)
    s3.abort_multipart_upload(Bucket=open_bucket, Key="big", UploadId=upload)
    other_s3.delete_object(Bucket=open_bucket, Key="theirs")


def test_a_deny_wins_even_against_the_owner_but_the_policy_can_be_removed(s3: BaseClient, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=b"x")
    put(s3, bucket, deny(bucket, "*"), deny(bucket, "*", key=None))
    for call in (lambda: s3.get_object(Bucket=bucket, Key="key"), lambda: s3.list_objects_v2(Bucket=bucket),
                 lambda: s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": []}),
                 lambda: s3.delete_bucket(Bucket=bucket), lambda: s3.get_bucket_policy_status(Bucket=bucket)):
        with refused("AccessDenied", 403):
            call()
    s3.get_bucket_policy(Bucket=bucket)
    s3.delete_bucket_policy(Bucket=bucket)
    s3.get_object(Bucket=bucket, Key="key")


def test_versions_have_actions_of_their_own(s3: BaseClient, anonymous: BaseClient, open_bucket: str) -> None:
    s3.put_bucket_versioning(Bucket=open_bucket, VersioningConfiguration={"Status": "Enabled"})
    version = s3.put_object(Bucket=open_bucket, Key="key", Body=b"new")["VersionId"]
    put(s3, open_bucket, allow(open_bucket, "GetObject", "DeleteObject"))
    anonymous.get_object(Bucket=open_bucket, Key="key")
    for denied in (anonymous.get_object, anonymous.head_object, anonymous.delete_object):
        with refused("403" if denied == anonymous.head_object else "AccessDenied", 403):
            denied(Bucket=open_bucket, Key="key", VersionId=version)
    results = anonymous.delete_objects(Bucket=open_bucket, Delete={"Objects": [
        {"Key": "key", "VersionId": version}, {"Key": "another"}]})
    assert [error["Code"] for error in results["Errors"]] == ["AccessDenied"]
    assert [done["Key"] for done in results["Deleted"]] == ["another"]


def test_copies_need_both_sides(s3: BaseClient, other_s3: BaseClient, open_bucket: str, new_bucket_name: Any) -> None:
    theirs = new_bucket_name()
    other_s3.create_bucket(Bucket=theirs)
    s3.put_object(Bucket=open_bucket, Key="tagged", Body=b"t", Tagging="a=b")
    source = {"Bucket": open_bucket, "Key": "key"}
    with refused("AccessDenied", 403):
        other_s3.copy_object(Bucket=theirs, Key="copy", CopySource=source)
    put(s3, open_bucket, allow(open_bucket, "GetObject", who=OTHERS))
    other_s3.copy_object(Bucket=theirs, Key="copy", CopySource=source)
    with refused("AccessDenied", 403):
        other_s3.copy_object(Bucket=theirs, Key="copy", CopySource={"Bucket": open_bucket, "Key": "tagged"})
    other_s3.copy_object(Bucket=theirs, Key="copy", CopySource={"Bucket": open_bucket, "Key": "tagged"},
                         TaggingDirective="REPLACE")
    with refused("AccessDenied", 403):
        other_s3.copy_object(Bucket=open_bucket, Key="copy", CopySource={"Bucket": theirs, "Key": "copy"})
    with refused("AccessDenied", 403):
        other_s3.copy_object(Bucket=theirs, Key="copy", CopySource={"Bucket": open_bucket, "Key": "absent"})


def test_conditions_on_a_version_are_about_the_one_that_is_read_or_deleted(
    s3: BaseClient, other_s3: BaseClient, open_bucket: str, new_bucket_name: Any,
) -> None:
    """Not about one that the request's address names besides, for nothing."""
    s3.put_bucket_versioning(Bucket=open_bucket, VersioningConfiguration={"Status": "Enabled"})
    given, kept = (s3.put_object(Bucket=open_bucket, Key="key", Body=body)["VersionId"] for body in (b"given", b"kept"))
    put(s3, open_bucket, allow(open_bucket, "GetObjectVersion", "DeleteObject", who=OTHERS,
                               Condition={"StringEquals": {"s3:VersionId": given}}))
    theirs = new_bucket_name()
    other_s3.create_bucket(Bucket=theirs)

    def add(request: Any, **_: Any) -> None:
        request.url += f"{'&' if '?' in request.url else '?'}versionId={given}"

    for also in (False, True):
        if also:
            for name in ("CopyObject", "DeleteObjects"):
                other_s3.meta.events.register_first(f"before-sign.s3.{name}", add)
        other_s3.copy_object(Bucket=theirs, Key="copy", CopySource={"Bucket": open_bucket, "Key": "key", "VersionId": given})
        with refused("AccessDenied", 403):
            other_s3.copy_object(Bucket=theirs, Key="copy", CopySource={"Bucket": open_bucket, "Key": "key", "VersionId": kept})
        assert other_s3.delete_objects(Bucket=open_bucket, Delete={"Objects": [{"Key": "key"}]})["Errors"]
    for name in ("CopyObject", "DeleteObjects"):
        other_s3.meta.events.unregister(f"before-sign.s3.{name}", add)


def test_tags_of_a_header_are_no_tags_of_a_document(s3: BaseClient, other_s3: BaseClient, open_bucket: str) -> None:
    put(s3, open_bucket, allow(open_bucket, "PutObjectTagging", who=OTHERS,
                               Condition={"StringEquals": {"s3:RequestObjectTag/kind": "plain"}}))

    def add(request: Any, **_: Any) -> None:
        request.headers["x-amz-tagging"] = "kind=plain"

    other_s3.meta.events.register_first("before-sign.s3.PutObjectTagging", add)
    other_s3.put_object_tagging(Bucket=open_bucket, Key="key", Tagging={"TagSet": [{"Key": "kind", "Value": "plain"}]})
    with refused("AccessDenied", 403):
        other_s3.put_object_tagging(Bucket=open_bucket, Key="key", Tagging={"TagSet": [{"Key": "other", "Value": "x"}]})
    other_s3.meta.events.unregister("before-sign.s3.PutObjectTagging", add)


def test_conditions_on_tags(s3: BaseClient, anonymous: BaseClient, open_bucket: str) -> None:
    put(s3, open_bucket,
        allow(open_bucket, "GetObject", Condition={"StringEquals": {"s3:ExistingObjectTag/public": "yes"}}),
        allow(open_bucket, "PutObject", "PutObjectTagging", key="in/*",
              Condition={"StringEquals": {"s3:RequestObjectTag/kind": "upload"},
                         "ForAllValues:StringEquals": {"s3:RequestObjectTagKeys": ["kind"]}}))
    with refused("AccessDenied", 403):
        anonymous.get_object(Bucket=open_bucket, Key="key")
    s3.put_object_tagging(Bucket=open_bucket, Key="key", Tagging={"TagSet": [{"Key": "public", "Value": "yes"}]})
    anonymous.get_object(Bucket=open_bucket, Key="key")
    anonymous.put_object(Bucket=open_bucket, Key="in/one", Body=b"", Tagging="kind=upload")
    for tagging in ({}, {"Tagging": "kind=other"}, {"Tagging": "kind=upload&public=yes"}):
        with refused("AccessDenied", 403):
            anonymous.put_object(Bucket=open_bucket, Key="in/one", Body=b"", **tagging)
    wanted = [{"Key": "kind", "Value": "upload"}]
    anonymous.put_object_tagging(Bucket=open_bucket, Key="in/one", Tagging={"TagSet": wanted})
    with refused("AccessDenied", 403):
        anonymous.put_object_tagging(Bucket=open_bucket, Key="in/one",
                                     Tagging={"TagSet": [*wanted, {"Key": "public", "Value": "yes"}]})


@pytest.mark.parametrize(("key", "value", "said"), [
    ("x-amz-acl", "bucket-owner-full-control", {"ACL": "bucket-owner-full-control"}),
    ("x-amz-storage-class", "STANDARD_IA", {"StorageClass": "STANDARD_IA"}),
    ("RequestObjectTag/kind", "upload", {"Tagging": "kind=upload"}),
])
def test_parts_and_their_completion_are_judged_by_what_began_the_upload(
    s3: BaseClient, other_s3: BaseClient, open_bucket: str, key: str, value: str, said: dict[str, str],
) -> None:
    """Nothing but CreateMultipartUpload can say such things, and AWS has one action for all of them."""
    put(s3, open_bucket, allow(open_bucket, "PutObject", "PutObjectAcl", "PutObjectTagging", who=OTHERS),
        deny(open_bucket, "PutObject", Condition={"StringNotEquals": {f"s3:{key}": value}}))
    at = {"Bucket": open_bucket, "Key": "key"}
    with refused("AccessDenied", 403):
        other_s3.create_multipart_upload(**at)
    for client in (s3, other_s3):
        upload = {**at, "UploadId": client.create_multipart_upload(**at, **said)["UploadId"]}
        part = client.upload_part(**upload, PartNumber=1, Body=b"new")
        if client is s3:
            client.upload_part_copy(**upload, PartNumber=2, CopySource={**at})
        with refused("AccessDenied", 403):
            client.upload_part(**{**upload, "UploadId": "another"}, PartNumber=1, Body=b"new")
        for _ in range(2):          # and again, as by a client that has lost the answer
            done = client.complete_multipart_upload(**upload, MultipartUpload={"Parts": [
                {"PartNumber": 1, "ETag": part["ETag"]}]})
        assert s3.head_object(**at)["ETag"] == done["ETag"]
    s3.delete_bucket_policy(Bucket=open_bucket)
    upload = {**at, "UploadId": s3.create_multipart_upload(**at)["UploadId"]}
    put(s3, open_bucket, deny(open_bucket, "PutObject", Condition={"StringNotEquals": {f"s3:{key}": value}}))

    def add(request: Any, **_: Any) -> None:
        for name, text in (("acl", "bucket-owner-full-control"), ("storage-class", "STANDARD_IA"), ("tagging", "kind=upload")):
            request.headers[f"x-amz-{name}"] = text

    s3.meta.events.register_first("before-sign.s3.UploadPart", add)
    with refused("AccessDenied", 403):      # a part cannot say afterwards what the upload was not begun with
        s3.upload_part(**upload, PartNumber=1, Body=b"new")
    s3.meta.events.unregister("before-sign.s3.UploadPart", add)


def test_conditions_on_listings_and_addresses(s3: BaseClient, anonymous: BaseClient, open_bucket: str) -> None:
    put(s3, open_bucket, allow(open_bucket, "ListBucket", key=None, Condition={
        "StringLike": {"s3:prefix": "home/*"}, "NumericLessThanEquals": {"s3:max-keys": 10},
        "IpAddress": {"aws:SourceIp": ["127.0.0.0/8", "::1/128"]}, "Bool": {"aws:SecureTransport": "false"}}))
    anonymous.list_objects_v2(Bucket=open_bucket, Prefix="home/a", MaxKeys=10)
    for asked in ({"Prefix": "home/a"}, {"Prefix": "home", "MaxKeys": 1}, {"MaxKeys": 1}):
        with refused("AccessDenied", 403):
            anonymous.list_objects_v2(Bucket=open_bucket, **asked)


def test_the_public_access_block_stands_above_policies(
    s3: BaseClient, other_s3: BaseClient, anonymous: BaseClient, bucket: str,
) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=b"x")
    with refused("AccessDenied", 403):
        put(s3, bucket, allow(bucket, "GetObject"))
    put(s3, bucket, allow(bucket, "GetObject", who=OTHERS))
    other_s3.get_object(Bucket=bucket, Key="key")
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration={"RestrictPublicBuckets": True})
    put(s3, bucket, allow(bucket, "GetObject"), allow(bucket, "PutObject", who=OTHERS))
    for call in (lambda: anonymous.get_object(Bucket=bucket, Key="key"), lambda: other_s3.get_object(Bucket=bucket, Key="key"),
                 lambda: other_s3.put_object(Bucket=bucket, Key="key", Body=b"")):
        with refused("AccessDenied", 403):
            call()
    s3.get_object(Bucket=bucket, Key="key")
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration={"BlockPublicAcls": True})
    anonymous.get_object(Bucket=bucket, Key="key")
    block = s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
    assert block == {"BlockPublicAcls": True, "IgnorePublicAcls": False, "BlockPublicPolicy": False,
                     "RestrictPublicBuckets": False}
    assert s3.delete_public_access_block(Bucket=bucket)["ResponseMetadata"]["HTTPStatusCode"] == 204
    with refused("NoSuchPublicAccessBlockConfiguration", 404):
        s3.get_public_access_block(Bucket=bucket)


@pytest.mark.parametrize(("document", "message"), [
    ("", None), ("[]", "Policies must be valid JSON and the first byte must be '{'"),
    ("{", "Policies must be valid JSON and the first byte must be '{'"), ("{}", "Missing required field Statement"),
])
def test_what_is_no_policy(s3: BaseClient, bucket: str, document: str, message: str | None) -> None:
    with refused("MalformedPolicy", 400) as said:
        s3.put_bucket_policy(Bucket=bucket, Policy=document)
    if message:
        assert said["Error"]["Message"] == message if "Error" in said else said["Message"] == message


def test_principals_must_be_somebody(s3: BaseClient, bucket: str) -> None:
    for who in ({"AWS": "999999999999"}, {"AWS": f"arn:aws:iam::{OTHER.account}:user/nobody"}, {"CanonicalUser": "none"},
                {"AWS": "arn:aws:iam::*:root"}, "nobody", {}):
        with refused("MalformedPolicy", 400) as said:
            put(s3, bucket, allow(bucket, "GetObject", who=who))
        assert said["Message"] == "Invalid principal in policy"
    for who in ({"AWS": OTHER.account}, {"AWS": [f"arn:aws:iam::{OTHER.account}:user/{OTHER.name}"]},
                {"CanonicalUser": OTHER.user_id}, {"Service": "logging.s3.amazonaws.com"}):
        put(s3, bucket, allow(bucket, "GetObject", who=who))


def test_a_policy_has_a_size(s3: BaseClient, bucket: str) -> None:
    with refused("MalformedPolicy", 400):
        put(s3, bucket, allow(bucket, "GetObject", Sid="x" * (20 << 10), who=OTHERS))
