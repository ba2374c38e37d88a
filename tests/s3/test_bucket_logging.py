"""Access logs of buckets: the configuration with its checks, what is recorded, and how it reaches the target bucket."""

import asyncio
import datetime
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
import urllib3
from botocore.client import BaseClient

from consensus.core.clock import SystemClock
from gateway.bucket_log import recorder
from gateway.duties import Duty
from gateway.lifecycle.worker import LifecycleWorker
from gateway.ops.buckets import bucket_logging
from gateway.s3.bucket_log import Logging, Source, object_key
from tests.s3.conftest import THREE
from tests.s3.errors import refused
from tests.s3.in_process import InProcess

LINE = re.compile(
    r'(?P<owner>\S+) (?P<bucket>\S+) \[(?P<time>[^]]+)\] (?P<ip>\S+) (?P<requester>\S+) (?P<id>\S+) (?P<operation>\S+) '
    r'(?P<key>\S+) "(?P<uri>[^"]*)" (?P<status>\S+) (?P<code>\S+) (?P<sent>\S+) (?P<size>\S+) (?P<total>\S+) (?P<turn>\S+) '
    r'"(?P<referer>[^"]*)" "(?P<agent>[^"]*)" (?P<version>\S+) (?P<host_id>\S+) (?P<signature>\S+) '
    r"(?P<cipher>\S+) (?P<auth>\S+) (?P<host>\S+) (?P<tls>\S+) (?P<arn>\S+) (?P<acl>\S+) (?P<region>\S+)")


inside = pytest.mark.skipif(THREE, reason="looks inside the server")


@pytest.fixture
def target(s3: BaseClient, new_bucket_name: Callable[[], str]) -> str:
    """A bucket that takes logs, by its policy."""
    name = new_bucket_name()
    s3.create_bucket(Bucket=name)
    allow(s3, name)
    return name


def allow(s3: BaseClient, name: str, **condition: Any) -> None:
    statement = {"Effect": "Allow", "Principal": {"Service": "logging.s3.amazonaws.com"}, "Action": "s3:PutObject",
                 "Resource": f"arn:aws:s3:::{name}/*", **({"Condition": condition} if condition else {})}
    s3.put_bucket_policy(Bucket=name, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))


def log_to(s3: BaseClient, server: InProcess, bucket: str, target: str, prefix: str = "log/", **more: Any) -> None:
    s3.put_bucket_logging(Bucket=bucket, BucketLoggingStatus={
        "LoggingEnabled": {"TargetBucket": target, "TargetPrefix": prefix, **more}})
    server.run(server.bucket_logs.look())


def delivered(s3: BaseClient, server: InProcess, target: str) -> dict[str, list[re.Match[str]]]:
    """Key to records, of all that lies there after a delivery."""
    server.run(server.bucket_logs.deliver())
    keys = [found["Key"] for found in s3.list_objects_v2(Bucket=target).get("Contents", [])]
    found: dict[str, list[re.Match[str]]] = {}
    for key in keys:
        lines = s3.get_object(Bucket=target, Key=key)["Body"].read().decode("ascii").splitlines()
        matches = [LINE.fullmatch(line) for line in lines]
        assert all(matches), lines
        found[key] = [match for match in matches if match is not None]
    return found


# Configuration


def test_it_is_kept_as_it_was_given(s3: BaseClient, bucket: str, target: str) -> None:
    for enabled in (
        {"TargetBucket": target, "TargetPrefix": ""},
        {"TargetBucket": target, "TargetPrefix": "a/", "TargetObjectKeyFormat": {"SimplePrefix": {}}},
        {"TargetBucket": target, "TargetPrefix": "a/", "TargetObjectKeyFormat": {
            "PartitionedPrefix": {"PartitionDateSource": "EventTime"}}},
    ):
        s3.put_bucket_logging(Bucket=bucket, BucketLoggingStatus={"LoggingEnabled": enabled})
        assert s3.get_bucket_logging(Bucket=bucket)["LoggingEnabled"] == enabled
    s3.put_bucket_logging(Bucket=bucket, BucketLoggingStatus={})
    assert "LoggingEnabled" not in s3.get_bucket_logging(Bucket=bucket)


def test_targets_that_aws_refuses(
    s3: BaseClient, other_s3: BaseClient, bucket: str, new_bucket_name: Callable[[], str],
) -> None:
    def put(name: str, **more: Any) -> None:
        s3.put_bucket_logging(Bucket=bucket, BucketLoggingStatus={
            "LoggingEnabled": {"TargetBucket": name, "TargetPrefix": "", **more}})

    with refused("InvalidTargetBucketForLogging", 400) as said:
        put("bucket-not-there")
    assert (said["Message"], said["TargetBucket"]) == ("The target bucket for logging does not exist", "bucket-not-there")
    foreign, lists = new_bucket_name(), new_bucket_name()
    other_s3.create_bucket(Bucket=foreign)
    with refused("InvalidTargetBucketForLogging", 400) as said:
        put(foreign)
    assert said["Message"] == "The owner for the bucket to be logged and the target bucket must be the same."
    s3.create_bucket(Bucket=lists, ObjectOwnership="ObjectWriter")
    with refused("InvalidTargetBucketForLogging", 400) as said:
        put(lists)
    assert said["Message"] == "You must give the log-delivery group WRITE and READ_ACP permissions to the target bucket"
    s3.put_bucket_acl(Bucket=lists, ACL="log-delivery-write")
    grant = {"Grantee": {"Type": "CanonicalUser", "ID": "other-id", "DisplayName": "O. Ther"}, "Permission": "READ"}
    put(lists, TargetGrants=[grant])
    assert s3.get_bucket_logging(Bucket=bucket)["LoggingEnabled"]["TargetGrants"] == [grant]
    with refused("AccessControlListNotSupported", 400):
        put(bucket, TargetGrants=[grant])
    with refused("MalformedXML", 400):
        put(lists, TargetGrants=[{**grant, "Permission": "READ_ACP"}])


def test_the_target_is_in_the_same_region(
    s3: BaseClient, bucket: str, new_bucket_name: Callable[[], str], monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = new_bucket_name()
    s3.create_bucket(Bucket=target, CreateBucketConfiguration={"LocationConstraint": "default"})
    wanted = {"LoggingEnabled": {"TargetBucket": target, "TargetPrefix": ""}}
    s3.put_bucket_logging(Bucket=bucket, BucketLoggingStatus=wanted)
    if THREE:
        return
    # As of buckets that were made while the server was set to be elsewhere.
    monkeypatch.setattr(bucket_logging, "place_of", lambda made, _: f"at-{made.name}")
    with refused("CrossLocationLoggingProhibitted", 403) as said:
        s3.put_bucket_logging(Bucket=bucket, BucketLoggingStatus=wanted)
    assert said["TargetBucketLocation"] == f"at-{target}"


# Records and their delivery


@inside
def test_what_is_asked_of_a_logged_bucket_reaches_its_target(s3: BaseClient, server: InProcess, bucket: str, target: str) -> None:
    s3.put_object(Bucket=bucket, Key="before", Body=b"not logged yet")
    log_to(s3, server, bucket, target)
    s3.put_object(Bucket=bucket, Key="a b", Body=b"12345")
    s3.get_object(Bucket=bucket, Key="a b")["Body"].read()
    with refused("NoSuchKey", 404):
        s3.get_object(Bucket=bucket, Key="none")
    s3.list_objects_v2(Bucket=target)                        # another bucket, which is not logged
    ((key, records),) = delivered(s3, server, target).items()
    assert re.fullmatch(r"log/\d{4}(-\d\d){5}-[0-9A-F]{16}", key)
    assert s3.head_object(Bucket=target, Key=key)["ContentType"] == "text/plain"
    records = [record for record in records if record["operation"].endswith("OBJECT")]
    assert [(record["operation"], record["key"], record["status"], record["code"]) for record in records] == [
        ("REST.PUT.OBJECT", "a%2520b", "200", "-"), ("REST.GET.OBJECT", "a%2520b", "200", "-"),
        ("REST.GET.OBJECT", "none", "404", "NoSuchKey")]
    got = records[1]
    assert (got["owner"], got["bucket"], got["requester"]) == ("main-id", bucket, "main-id")
    assert (got["uri"], got["sent"], got["size"]) == (f"GET /{bucket}/a%20b HTTP/1.1", "5", "5")
    assert (got["signature"], got["auth"], got["ip"]) == ("SigV4", "AuthHeader", "127.0.0.1")
    assert delivered(s3, server, target).keys() == {key}     # nothing twice, nothing empty


@inside
def test_each_object_of_a_multi_object_delete_is_recorded(s3: BaseClient, server: InProcess, bucket: str, target: str) -> None:
    s3.put_object(Bucket=bucket, Key="a", Body=b"1")
    log_to(s3, server, bucket, target)
    s3.delete_objects(Bucket=bucket, Delete={"Objects": [
        {"Key": "a"}, {"Key": 'b "c'}, {"Key": "d", "VersionId": "x" * 32}, {"Key": "e" * 1025}]})
    (records,) = delivered(s3, server, target).values()
    assert [(record["operation"], record["key"], record["status"], record["code"], record["version"]) for record in records] == [
        ("REST.POST.MULTI_OBJECT_DELETE", "-", "200", "-", "-"), ("BATCH.DELETE.OBJECT", "a", "204", "-", "-"),
        ("BATCH.DELETE.OBJECT", "b%2520%2522c", "204", "-", "-"), ("BATCH.DELETE.OBJECT", "d", "204", "-", "x" * 32),
        ("BATCH.DELETE.OBJECT", "e" * 1025, "400", "KeyTooLongError", "-")]
    assert len({record["id"] for record in records}) == 1


@inside
def test_what_a_lifecycle_does_is_recorded(s3: BaseClient, server: InProcess, bucket: str, target: str) -> None:
    """AWS, "How S3 Lifecycle interacts with other bucket configurations": these operations, of a requester of its own."""
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(Bucket=bucket, Key="old", Body=b"1")
    past = s3.put_object(Bucket=bucket, Key="past", Body=b"1")["VersionId"]
    s3.put_object(Bucket=bucket, Key="past", Body=b"2")
    kept = s3.put_object(Bucket=bucket, Key="moved ", Body=b"1")["VersionId"]
    s3.create_multipart_upload(Bucket=bucket, Key="upload")
    log_to(s3, server, bucket, target)
    ago = {"Date": datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)}
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [
        {"ID": "0", "Status": "Enabled", "Filter": {"Prefix": "old"}, "Expiration": ago},
        {"ID": "1", "Status": "Enabled", "Filter": {"Prefix": "past"}, "NoncurrentVersionExpiration": {"NoncurrentDays": 1}},
        {"ID": "2", "Status": "Enabled", "Filter": {"Prefix": "moved"}, "Transitions": [{**ago, "StorageClass": "DEEP_ARCHIVE"}]},
        {"ID": "3", "Status": "Enabled", "Filter": {"Prefix": "upload"},
         "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1}}]})

    async def carried_out() -> None:
        clock = SystemClock()
        worker = LifecycleWorker(server.metadata, Duty(server.metadata, clock, "lifecycle", "logged"), clock, day_seconds=1,
                                 told=server.bucket_logs.add_of_lifecycle)
        async with asyncio.timeout(20):
            while worker.counts.effects < 4:
                await worker.look()
        await worker.stop()

    server.run(carried_out())
    records = [record for records in delivered(s3, server, target).values() for record in records
               if record["requester"] == "AmazonS3"]
    assert sorted((record["operation"], record["key"], record["version"]) for record in records) == sorted([
        ("S3.CREATE.DELETEMARKER", "old", s3.list_object_versions(Bucket=bucket)["DeleteMarkers"][0]["VersionId"]),
        ("S3.EXPIRE.OBJECT", "past", past), ("S3.TRANSITION_GDA.OBJECT", "moved%2520", kept),
        ("S3.DELETE.UPLOAD", "upload", "-")])
    assert {(record["owner"], record["bucket"], record["ip"], record["uri"], record["status"]) for record in records} == {
        ("main-id", bucket, "-", "-", "-")}


@inside
def test_a_form_is_recorded_as_its_signers(s3: BaseClient, server: InProcess, bucket: str, target: str) -> None:
    """Also when its policy does not allow what it wants; what nobody has signed is nobody's."""
    log_to(s3, server, bucket, target)
    signed = s3.generate_presigned_post(bucket, "key")["fields"]
    for fields in (signed, {**signed, "key": "other"}, {**signed, "signature": "wrong"}, {"key": "k"}):
        urllib3.request("POST", f"{server.endpoint}/{bucket}", fields={**fields, "file": ("f", b"hello")})
    (records,) = delivered(s3, server, target).values()
    assert [(record["operation"], record["status"], record["requester"], record["signature"], record["auth"])
            for record in records] == [
        ("REST.POST.BUCKET", "204", "main-id", "SigV2", "HtmlForm"), ("REST.POST.BUCKET", "403", "main-id", "SigV2", "HtmlForm"),
        ("REST.POST.BUCKET", "403", "-", "-", "-"), ("REST.POST.BUCKET", "403", "-", "-", "-")]


@inside
def test_a_bucket_may_be_its_own_target_and_logging_ends(s3: BaseClient, server: InProcess, bucket: str) -> None:
    allow(s3, bucket)
    log_to(s3, server, bucket, bucket)
    s3.head_bucket(Bucket=bucket)
    (first,) = delivered(s3, server, bucket)
    s3.put_bucket_logging(Bucket=bucket, BucketLoggingStatus={})
    server.run(server.bucket_logs.look())
    second = delivered(s3, server, bucket)                   # what was recorded before is still delivered
    s3.head_bucket(Bucket=bucket)
    assert first in second
    assert delivered(s3, server, bucket).keys() == second.keys()


@inside
def test_only_a_target_that_allows_it_gets_the_log(s3: BaseClient, server: InProcess, bucket: str, target: str) -> None:
    log_to(s3, server, bucket, target)
    for condition in ({"StringEquals": {"aws:SourceAccount": "222222222222"}},
                      {"ArnLike": {"aws:SourceArn": "arn:aws:s3:::another"}}):
        allow(s3, target, **condition)
        s3.head_bucket(Bucket=bucket)
        assert delivered(s3, server, target) == {}
    assert server.bucket_logs.waiting_bytes > 0
    allow(s3, target, ArnLike={"aws:SourceArn": f"arn:aws:s3:::{bucket}"}, StringEquals={"aws:SourceAccount": "111111111111"})
    found = delivered(s3, server, target)
    heads = [record for records in found.values() for record in records if record["operation"] == "REST.HEAD.BUCKET"]
    assert len(heads) == 2


@inside
def test_nobody_fills_the_room_for_the_logs_of_others(
    s3: BaseClient, other_s3: BaseClient, server: InProcess, bucket: str, target: str, new_bucket_name: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A target that takes nothing, and requests without end, cost only their own account records."""
    theirs = new_bucket_name()
    other_s3.create_bucket(Bucket=theirs)
    allow(other_s3, theirs)
    log_to(other_s3, server, theirs, theirs)
    log_to(s3, server, bucket, target)
    s3.delete_bucket_policy(Bucket=target)
    monkeypatch.setattr(recorder, "WAITING_BYTES_MAX", 64_000)
    for _ in range(30):
        with refused("404", 404):
            s3.head_object(Bucket=bucket, Key="k" * 1024)
    server.run(server.bucket_logs.deliver())
    dropped = server.bucket_logs.dropped
    assert server.bucket_logs.waiting_bytes > 64_000
    s3.head_bucket(Bucket=bucket)
    server.run(asyncio.sleep(0))          # an answer is recorded after it is sent
    assert server.bucket_logs.dropped == dropped + 1
    other_s3.head_bucket(Bucket=theirs)
    server.run(asyncio.sleep(0))
    assert server.bucket_logs.dropped == dropped + 1
    ((record, *_),) = delivered(other_s3, server, theirs).values()
    assert record["operation"] == "REST.HEAD.BUCKET"
    allow(s3, target)
    assert delivered(s3, server, target)


@pytest.mark.parametrize(("own", "of_all", "fits"), [
    (0, 0, True), (255, 1023, True), (256, 256, False), (16, 1023, True), (16, 1024, False), (15, 5000, True)])
def test_a_quarter_of_the_room_and_a_little_in_any_case(own: int, of_all: int, fits: bool) -> None:
    assert recorder._fits(own, of_all, 1024) is fits


@inside
def test_names_of_the_events_day(s3: BaseClient, server: InProcess, bucket: str, target: str) -> None:
    log_to(s3, server, bucket, target, "p-", TargetObjectKeyFormat={"PartitionedPrefix": {"PartitionDateSource": "EventTime"}})
    s3.head_bucket(Bucket=bucket)
    (key,) = delivered(s3, server, target)
    assert re.fullmatch(
        rf"p-111111111111/us-east-1/{bucket}/(\d{{4}})/(\d\d)/(\d\d)/\1-\2-\3-00-00-00-[0-9A-F]{{16}}", key)


@inside
def test_grants_are_the_access_list_of_the_log(
    s3: BaseClient, server: InProcess, bucket: str, new_bucket_name: Callable[[], str],
) -> None:
    lists = new_bucket_name()
    s3.create_bucket(Bucket=lists, ObjectOwnership="ObjectWriter")
    s3.put_bucket_acl(Bucket=lists, ACL="log-delivery-write")
    grant = {"Grantee": {"Type": "CanonicalUser", "ID": "other-id", "DisplayName": "O. Ther"}, "Permission": "READ"}
    log_to(s3, server, bucket, lists, TargetGrants=[grant])
    s3.head_bucket(Bucket=bucket)
    (key,) = delivered(s3, server, lists)
    assert grant in s3.get_object_acl(Bucket=lists, Key=key)["Grants"]
    everybody = {"Grantee": {"Type": "Group", "URI": "http://acs.amazonaws.com/groups/global/AllUsers"}, "Permission": "READ"}
    log_to(s3, server, bucket, lists, "public/", TargetGrants=[grant, everybody])
    s3.head_bucket(Bucket=bucket)
    (public,) = [each for each in delivered(s3, server, lists) if each.startswith("public/")]
    shown = s3.get_object_acl(Bucket=lists, Key=public)["Grants"]
    assert grant in shown
    assert everybody not in shown                            # the bucket blocks lists that are for everybody


@pytest.mark.parametrize(("partitioned", "wanted"), [
    (None, "p/2026-02-03-04-05-06-U"), ("", "p/111/eu-west-1/b/2026/02/03/2026-02-03-04-05-06-U"),
    ("DeliveryTime", "p/111/eu-west-1/b/2026/02/03/2026-02-03-04-05-06-U"),
    ("EventTime", "p/111/eu-west-1/b/2026/02/02/2026-02-02-00-00-00-U"),
])
def test_names_of_objects(partitioned: str | None, wanted: str) -> None:
    logging = Logging(bucket="t", prefix="p/", partitioned=partitioned)
    delivered_s = 1_770_091_506
    assert object_key(logging, Source("b", "111", "eu-west-1"), delivered_s=delivered_s, day=delivered_s // 86_400 - 1,
                      unique="U") == wanted
