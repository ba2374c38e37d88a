"""Lifecycles through S3: set, shown, taken away, told of in answers, and carried out (S3_SEMANTICS §21).

A lifecycle's day lasts a second here. The worker is driven by the tests, so nothing happens between two looks.
"""

import asyncio
import base64
import datetime
import hashlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.client import BaseClient
from botocore.credentials import Credentials

from consensus import queries
from consensus.core.clock import SystemClock
from consensus.core.model import ObjectVersion
from gateway.duties import Duty
from gateway.lifecycle.book import KIND
from gateway.lifecycle.progress import Counts, Progress
from gateway.lifecycle.scan import Scan
from gateway.lifecycle.worker import LifecycleWorker
from gateway.ops.context import Context
from gateway.ops.objects import archives
from gateway.s3.lifecycle.due import DAY_MS, Days
from tests.s3.conftest import THREE
from tests.s3.errors import refused
from tests.s3.in_process import InProcess
from tests.servers import ACCESS_KEY, REGION, SECRET_KEY

MIB = 1 << 20
UTC = datetime.UTC

Rule = dict[str, Any]

LONG_AGO = {"Date": datetime.datetime(2020, 1, 1, tzinfo=UTC)}
"""What expires so is due at once."""


def rule(name: str = "rule", prefix: str = "", **actions: Any) -> Rule:
    return {"ID": name, "Status": "Enabled", "Filter": {"Prefix": prefix}, **actions}


def set_rules(s3: BaseClient, bucket: str, *rules: Rule, **named: Any) -> dict[str, Any]:
    answer: dict[str, Any] = s3.put_bucket_lifecycle_configuration(
        Bucket=bucket, LifecycleConfiguration={"Rules": list(rules)}, **named)
    return answer


def midnight_after(days: int) -> datetime.datetime:
    """When what is made now is so many days old, rounded up."""
    due = datetime.datetime.now(UTC) + datetime.timedelta(days=days)
    return datetime.datetime.combine(due.date() + datetime.timedelta(days=1), datetime.time(), UTC)


@pytest.fixture
def send(s3: BaseClient) -> Callable[..., Any]:
    """A signed request as it is, without the checksums that boto3 adds."""
    def sent(method: str, target: str, body: bytes, headers: dict[str, str] | None = None) -> Any:
        unsigned = {"x-amz-content-sha256": hashlib.sha256(body).hexdigest(), **(headers or {})}
        request = AWSRequest(method=method, url=s3.meta.endpoint_url + target, headers=unsigned, data=body)
        S3SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), "s3", REGION).add_auth(request)
        return s3._endpoint.http_session.send(request.prepare())

    return sent


# The configuration

def test_a_configuration_is_kept_shown_and_taken_away(s3: BaseClient, bucket: str) -> None:
    rules = [
        rule("all", Expiration={"Days": 30}, NoncurrentVersionExpiration={"NoncurrentDays": 3, "NewerNoncurrentVersions": 2},
             AbortIncompleteMultipartUpload={"DaysAfterInitiation": 7}),
        {**rule("tagged", Expiration={"Date": datetime.datetime(2040, 1, 1, tzinfo=UTC)}), "Status": "Disabled", "Filter": {
            "And": {"Prefix": "a&b/", "Tags": [{"Key": "k", "Value": "v"}], "ObjectSizeGreaterThan": 5}}},
        rule("cold", "cold/", Transitions=[{"Days": 30, "StorageClass": "STANDARD_IA"}, {"Days": 90, "StorageClass": "GLACIER"}]),
    ]
    for _ in range(2):
        with refused("NoSuchLifecycleConfiguration", 404) as said:
            s3.get_bucket_lifecycle_configuration(Bucket=bucket)
        assert said["BucketName"] == bucket
        assert said["Message"] == "The lifecycle configuration does not exist"
        answer = set_rules(s3, bucket, *rules)
        assert answer["TransitionDefaultMinimumObjectSize"] == "all_storage_classes_128K"
        shown = s3.get_bucket_lifecycle_configuration(Bucket=bucket)
        assert shown["Rules"] == rules
        assert shown["TransitionDefaultMinimumObjectSize"] == "all_storage_classes_128K"
        for _ in range(2):
            assert s3.delete_bucket_lifecycle(Bucket=bucket)["ResponseMetadata"]["HTTPStatusCode"] == 204


def test_the_old_names_are_the_same_operations(s3: BaseClient, bucket: str) -> None:
    old = {"Rules": [{"ID": "old", "Prefix": "logs/", "Status": "Enabled", "Expiration": {"Days": 1}}]}
    s3.put_bucket_lifecycle(Bucket=bucket, LifecycleConfiguration=old)
    assert s3.get_bucket_lifecycle(Bucket=bucket)["Rules"] == old["Rules"]
    assert s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"] == old["Rules"]


def test_an_id_is_given_to_a_rule_without_one_and_the_minimum_is_kept(s3: BaseClient, bucket: str) -> None:
    set_rules(s3, bucket, {"Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}},
              TransitionDefaultMinimumObjectSize="varies_by_storage_class")
    shown = s3.get_bucket_lifecycle_configuration(Bucket=bucket)
    assert len(shown["Rules"][0]["ID"]) == 48
    assert shown["TransitionDefaultMinimumObjectSize"] == "varies_by_storage_class"


@pytest.mark.parametrize(("changed", "code", "message"), [
    ({"Expiration": {"Days": 0}}, "InvalidArgument", "'Days' for Expiration action must be a positive integer"),
    ({"Status": "on"}, "MalformedXML",
     "The XML you provided was not well-formed or did not validate against our published schema"),
    ({"Expiration": {"Date": datetime.datetime(2040, 1, 1, 1, tzinfo=UTC)}}, "InvalidArgument", "'Date' must be at midnight GMT"),
    ({"Transitions": [{"Days": 1, "StorageClass": "STANDARD_IA"}]}, "InvalidArgument",
     "'Days' in Transition action must be greater than or equal to 30 for storageClass 'STANDARD_IA'"),
])
def test_what_is_refused_changes_nothing(s3: BaseClient, bucket: str, changed: Rule, code: str, message: str) -> None:
    set_rules(s3, bucket, rule("kept", Expiration={"Days": 9}))
    wrong = {**rule("new", Expiration={"Days": 60}), **changed}
    with refused(code, 400) as said:
        set_rules(s3, bucket, wrong)
    assert said["Message"] == message
    assert [each["ID"] for each in s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]] == ["kept"]


def test_a_body_that_nothing_vouches_for_is_refused(s3: BaseClient, bucket: str, send: Callable[..., Any]) -> None:
    body = (b"<LifecycleConfiguration><Rule><Status>Enabled</Status><Filter/><Expiration><Days>1</Days></Expiration></Rule>"
            b"</LifecycleConfiguration>")
    answer = send("PUT", f"/{bucket}?lifecycle", body)
    assert answer.status_code == 400
    assert b"<Code>InvalidRequest</Code><Message>Missing required header for this request: Content-MD5" in answer.content
    md5 = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
    assert send("PUT", f"/{bucket}?lifecycle", body, {"content-md5": md5}).status_code == 200


def test_another_account_learns_nothing(s3: BaseClient, other_s3: BaseClient, bucket: str) -> None:
    set_rules(s3, bucket, rule(Expiration={"Days": 1}))
    for call in (lambda: other_s3.get_bucket_lifecycle_configuration(Bucket=bucket),
                 lambda: set_rules(other_s3, bucket, rule(Expiration={"Days": 2})),
                 lambda: other_s3.delete_bucket_lifecycle(Bucket=bucket)):
        with refused("AccessDenied", 403):
            call()


# What answers say

def test_answers_say_when_an_object_expires(s3: BaseClient, bucket: str) -> None:
    set_rules(s3, bucket, rule("two days", "a/", Expiration={"Days": 2}), rule("later", "", Expiration={"Days": 9}),
              {**rule("tag", Expiration={"Days": 1}), "Filter": {"Tag": {"Key": "k", "Value": "v"}}})

    def said(days: int, name: str) -> str:
        return f'expiry-date="{midnight_after(days):%a, %d %b %Y} 00:00:00 GMT", rule-id="{name}"'

    assert s3.put_object(Bucket=bucket, Key="a/1", Body=b"x")["Expiration"] == said(2, "two%20days")
    for read in (s3.get_object, s3.head_object):
        assert read(Bucket=bucket, Key="a/1")["Expiration"] == said(2, "two%20days")
    assert s3.put_object(Bucket=bucket, Key="b", Body=b"x", Tagging="k=v")["Expiration"] == said(1, "tag")
    copied = s3.copy_object(Bucket=bucket, Key="c", CopySource=f"{bucket}/a/1")
    assert copied["Expiration"] == said(9, "later")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="a/m")["UploadId"]
    part = s3.upload_part(Bucket=bucket, Key="a/m", UploadId=upload, PartNumber=1, Body=b"x")
    done = s3.complete_multipart_upload(Bucket=bucket, Key="a/m", UploadId=upload, MultipartUpload={
        "Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]})
    assert done["Expiration"] == said(2, "two%20days")


def test_noncurrent_versions_and_buckets_without_rules_say_nothing(s3: BaseClient, bucket: str) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    old = s3.put_object(Bucket=bucket, Key="k", Body=b"1")
    assert "Expiration" not in old
    s3.put_object(Bucket=bucket, Key="k", Body=b"2")
    set_rules(s3, bucket, rule(Expiration={"Days": 2}))
    assert "Expiration" in s3.head_object(Bucket=bucket, Key="k")
    assert "Expiration" not in s3.head_object(Bucket=bucket, Key="k", VersionId=old["VersionId"])
    s3.delete_bucket_lifecycle(Bucket=bucket)
    assert "Expiration" not in s3.head_object(Bucket=bucket, Key="k")


def test_answers_say_when_an_upload_is_aborted(s3: BaseClient, bucket: str) -> None:
    set_rules(s3, bucket, rule("parts", "a/", AbortIncompleteMultipartUpload={"DaysAfterInitiation": 3}))
    begun = s3.create_multipart_upload(Bucket=bucket, Key="a/1")
    listed = s3.list_parts(Bucket=bucket, Key="a/1", UploadId=begun["UploadId"])
    for answer in (begun, listed):
        assert (answer["AbortDate"], answer["AbortRuleId"]) == (midnight_after(3), "parts")
    assert "AbortDate" not in s3.create_multipart_upload(Bucket=bucket, Key="b")


# Storage classes

@pytest.mark.parametrize("storage_class", ["STANDARD", "STANDARD_IA", "GLACIER", "DEEP_ARCHIVE"])
def test_a_storage_class_is_a_label_that_everything_shows(s3: BaseClient, bucket: str, storage_class: str) -> None:
    shown = None if storage_class == "STANDARD" else storage_class
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", StorageClass=storage_class)
    got = s3.get_object(Bucket=bucket, Key="k")
    assert (got["Body"].read(), got.get("StorageClass")) == (b"x", shown)
    assert s3.head_object(Bucket=bucket, Key="k").get("StorageClass") == shown
    assert s3.list_objects_v2(Bucket=bucket)["Contents"][0]["StorageClass"] == storage_class
    assert s3.list_object_versions(Bucket=bucket)["Versions"][0]["StorageClass"] == storage_class
    attributes = s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=["StorageClass"])
    assert attributes["StorageClass"] == storage_class
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/k")
    assert "StorageClass" not in s3.head_object(Bucket=bucket, Key="copy"), "a copy is STANDARD unless it says otherwise"
    upload = s3.create_multipart_upload(Bucket=bucket, Key="m", StorageClass=storage_class)["UploadId"]
    assert s3.list_parts(Bucket=bucket, Key="m", UploadId=upload)["StorageClass"] == storage_class
    assert s3.list_multipart_uploads(Bucket=bucket)["Uploads"][0]["StorageClass"] == storage_class


def test_an_unknown_storage_class_is_refused_everywhere(s3: BaseClient, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    for call in (lambda: s3.put_object(Bucket=bucket, Key="n", Body=b"x", StorageClass="COLD"),
                 lambda: s3.copy_object(Bucket=bucket, Key="n", CopySource=f"{bucket}/k", StorageClass="COLD"),
                 lambda: s3.create_multipart_upload(Bucket=bucket, Key="n", StorageClass="COLD")):
        with refused("InvalidStorageClass", 400) as said:
            call()
        assert (said["Message"], said["StorageClassRequested"]) == ("The storage class you specified is not valid", "COLD")


def test_what_is_in_an_archive_is_read_at_once_and_may_be_restored(s3: BaseClient, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", StorageClass="GLACIER")
    s3.put_object(Bucket=bucket, Key="plain", Body=b"x")
    assert "Restore" not in s3.head_object(Bucket=bucket, Key="k")
    wanted = {"Days": 2, "GlacierJobParameters": {"Tier": "Bulk"}}
    for status in (202, 200):
        answer = s3.restore_object(Bucket=bucket, Key="k", RestoreRequest=wanted)
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == status
        assert s3.get_object(Bucket=bucket, Key="k")["Restore"] == (
            f'ongoing-request="false", expiry-date="{midnight_after(2):%a, %d %b %Y} 00:00:00 GMT"')
    with refused("InvalidObjectState", 403) as said:
        s3.restore_object(Bucket=bucket, Key="plain", RestoreRequest=wanted)
    assert said["StorageClass"] == "STANDARD"
    for wrong, code in (({"Days": 0}, "InvalidArgument"), ({"Days": 1, "Tier": "Soon"}, "MalformedXML"), ({}, "MalformedXML"),
                        ({"Days": 1, "Type": "SELECT"}, "NotImplemented")):
        with refused(code, 501 if code == "NotImplemented" else 400):
            s3.restore_object(Bucket=bucket, Key="k", RestoreRequest=wrong)
    with refused("NoSuchKey", 404):
        s3.restore_object(Bucket=bucket, Key="other", RestoreRequest=wanted)


def test_a_listing_tells_of_restores_to_whoever_asks_for_them(s3: BaseClient, bucket: str) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    for key in ("a", "b", "b"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x", StorageClass="GLACIER")
        if key == "b":
            s3.restore_object(Bucket=bucket, Key="b", RestoreRequest={"Days": 2})
    s3.delete_object(Bucket=bucket, Key="c")
    wanted = {"Bucket": bucket, "OptionalObjectAttributes": ["RestoreStatus"]}
    status = {"IsRestoreInProgress": False, "RestoreExpiryDate": midnight_after(2)}
    for entries in (s3.list_objects(**wanted)["Contents"], s3.list_objects_v2(**wanted)["Contents"]):
        assert [entry.get("RestoreStatus") for entry in entries] == [None, status]
    versions = s3.list_object_versions(**wanted)
    assert [entry.get("RestoreStatus") for entry in versions["Versions"]] == [None, status, status]
    assert "RestoreStatus" not in s3.list_objects_v2(Bucket=bucket)["Contents"][1]


def test_an_archive_that_the_settings_name_is_read_after_a_restore(
    s3: BaseClient, bucket: str, server: InProcess, monkeypatch: pytest.MonkeyPatch,
) -> None:
    if THREE:
        pytest.skip("changes a setting of the server")
    monkeypatch.setattr(archives, "_archived", _as_if_glacier_were_named)
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", StorageClass="GLACIER")
    s3.head_object(Bucket=bucket, Key="k")
    with refused("InvalidObjectState", 403) as said:
        s3.get_object(Bucket=bucket, Key="k")
    assert (said["Message"], said["StorageClass"]) == ("The operation is not valid for the object's storage class", "GLACIER")
    with refused("ObjectNotInActiveTierError", 403):
        s3.copy_object(Bucket=bucket, Key="c", CopySource=f"{bucket}/k")
    s3.restore_object(Bucket=bucket, Key="k", RestoreRequest={"Days": 1})
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"
    s3.copy_object(Bucket=bucket, Key="c", CopySource=f"{bucket}/k")


def _as_if_glacier_were_named(ctx: Context, version: ObjectVersion, now_ms: int) -> bool:
    return version.attributes.storage_class == "GLACIER" and not archives.restored(version, now_ms)


# Carried out

@pytest.fixture(scope="module")
def worker(server: InProcess) -> Iterator[Callable[[Callable[[], bool]], None]]:
    """Looks through all buckets until what is wanted is so."""
    if THREE:
        pytest.skip("looks inside the server")

    async def made() -> LifecycleWorker:
        clock = SystemClock()
        return LifecycleWorker(server.metadata, Duty(server.metadata, clock, "lifecycle", "test"), clock, day_seconds=1)

    looking = server.run(made())

    def look_until(wanted: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not wanted():
            assert time.monotonic() < deadline, looking.figures()
            server.run(looking.look())

    yield look_until
    server.run(looking.stop())


def keys(s3: BaseClient, bucket: str) -> list[str]:
    return [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]


def versions(s3: BaseClient, bucket: str) -> list[tuple[str, str]]:
    """(key, version or marker), each newest first."""
    page = s3.list_object_versions(Bucket=bucket)
    found = [(each["Key"], each["LastModified"], "version") for each in page.get("Versions", [])]
    found += [(each["Key"], each["LastModified"], "marker") for each in page.get("DeleteMarkers", [])]
    return [(key, kind) for key, _, kind in sorted(found, key=lambda each: each[1], reverse=True)]


def test_objects_expire_that_a_rule_is_about_and_no_others(
    s3: BaseClient, bucket: str, worker: Callable[[Callable[[], bool]], None],
) -> None:
    for key, tags in (("a/1", ""), ("a/2", ""), ("b/1", ""), ("c", "k=v"), ("d", "k=w")):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x", Tagging=tags)
    s3.put_object(Bucket=bucket, Key="large", Body=b"x" * 100)
    set_rules(s3, bucket, rule("a", "a/", Expiration=LONG_AGO),
              {**rule("off", "b/", Expiration=LONG_AGO), "Status": "Disabled"},
              {**rule("tag", Expiration=LONG_AGO), "Filter": {"Tag": {"Key": "k", "Value": "v"}}},
              {**rule("size", Expiration=LONG_AGO), "Filter": {"ObjectSizeGreaterThan": 50}})
    worker(lambda: keys(s3, bucket) == ["b/1", "d"])


def test_a_versioned_bucket_keeps_what_expires_behind_a_marker_until_that_is_old_too(
    s3: BaseClient, bucket: str, worker: Callable[[Callable[[], bool]], None],
) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    for body in (b"1", b"2"):
        s3.put_object(Bucket=bucket, Key="k", Body=body)
    set_rules(s3, bucket, rule(Expiration={"Days": 1}))
    worker(lambda: versions(s3, bucket) == [("k", "marker"), ("k", "version"), ("k", "version")])
    set_rules(s3, bucket, rule(Expiration={"Days": 1}, NoncurrentVersionExpiration={
        "NoncurrentDays": 1, "NewerNoncurrentVersions": 1}))
    worker(lambda: versions(s3, bucket) == [("k", "marker"), ("k", "version")])
    set_rules(s3, bucket, rule(NoncurrentVersionExpiration={"NoncurrentDays": 1},
                               Expiration={"ExpiredObjectDeleteMarker": True}))
    worker(lambda: versions(s3, bucket) == [])


def test_retention_outlasts_every_rule(s3: BaseClient, new_bucket_name: Callable[[], str],
                                       worker: Callable[[Callable[[], bool]], None]) -> None:
    bucket = new_bucket_name()
    s3.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    until = datetime.datetime.now(UTC) + datetime.timedelta(days=1)
    kept = s3.put_object(Bucket=bucket, Key="k", Body=b"1", ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=until)
    s3.put_object(Bucket=bucket, Key="k", Body=b"2")
    s3.put_object(Bucket=bucket, Key="k", Body=b"3")
    set_rules(s3, bucket, rule(NoncurrentVersionExpiration={"NoncurrentDays": 1}))
    worker(lambda: len(versions(s3, bucket)) == 2)
    assert s3.get_object(Bucket=bucket, Key="k", VersionId=kept["VersionId"])["Body"].read() == b"1"


def test_uploads_are_aborted_and_labels_change(
    s3: BaseClient, bucket: str, worker: Callable[[Callable[[], bool]], None],
) -> None:
    body = b"x" * 10
    before = s3.put_object(Bucket=bucket, Key="cold/1", Body=body)
    s3.put_object(Bucket=bucket, Key="warm", Body=body)
    s3.create_multipart_upload(Bucket=bucket, Key="cold/m")
    s3.create_multipart_upload(Bucket=bucket, Key="warm/m")
    set_rules(s3, bucket, rule("cold", "cold/", Transitions=[{"Days": 0, "StorageClass": "GLACIER"},
                                                             {"Days": 90, "StorageClass": "DEEP_ARCHIVE"}],
                               AbortIncompleteMultipartUpload={"DaysAfterInitiation": 1}))
    worker(lambda: [entry["StorageClass"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["GLACIER", "STANDARD"]
           and [upload["Key"] for upload in s3.list_multipart_uploads(Bucket=bucket)["Uploads"]] == ["warm/m"])
    after = s3.get_object(Bucket=bucket, Key="cold/1")
    assert (after["ETag"], after["StorageClass"], after["Body"].read()) == (before["ETag"], "GLACIER", body)


def test_a_long_bucket_is_looked_through_in_pages(
    s3: BaseClient, bucket: str, worker: Callable[[Callable[[], bool]], None], monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.lifecycle.scan.PAGE_ROWS", 3)
    monkeypatch.setattr("gateway.lifecycle.scan.STEPS_AT_ONCE", 4)
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    for _ in range(4):
        for key in "abc":
            s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    set_rules(s3, bucket, rule(NoncurrentVersionExpiration={"NoncurrentDays": 1, "NewerNoncurrentVersions": 1}))
    worker(lambda: sorted(versions(s3, bucket)) == [(key, "version") for key in "aabbcc"])


def test_two_who_believe_that_they_hold_the_duty_do_no_harm(s3: BaseClient, bucket: str, server: InProcess) -> None:
    """One was stopped for longer than its lease, and goes on where it was beside the other."""
    if THREE:
        pytest.skip("looks inside the server")
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    for number in range(30):
        s3.put_object(Bucket=bucket, Key=f"{number:02}", Body=b"")
    set_rules(s3, bucket, rule(Expiration=LONG_AGO))

    async def both() -> list[Counts]:
        clock = SystemClock()
        found = next(each for each in await server.metadata.read(queries.lifecycle_buckets) if each.name == bucket)
        document = await server.metadata.bucket_setting(found.id, "lifecycle")
        assert document is not None
        scans = [Scan(server.metadata, AlwaysHeld(server.metadata, clock, "lifecycle", name), clock, found, KIND.decode(document),
                      Days(1_000), Progress(lifecycle=found.lifecycle, began_ms=0)) for name in ("stopped", "other")]
        await asyncio.gather(*(scan.run() for scan in scans))
        return [scan.counts for scan in scans]

    counts = server.run(both())
    assert sum(each.expired for each in counts) == 30
    assert sorted(versions(s3, bucket)) == [(f"{number:02}", kind) for number in range(30) for kind in ("marker", "version")]


class AlwaysHeld(Duty):
    """As a process sees it that does not know yet."""

    async def hold(self) -> bool:
        return True

    def log_now_ms(self) -> int:
        return self._clock.now_ms()


def test_days_are_those_of_the_setting() -> None:
    """What this file relies on: AWS's day is the default."""
    from gateway.config import Config
    from gateway.ops.context import Settings

    assert Config().lifecycle_day_seconds * 1000 == Settings().lifecycle_day_ms == DAY_MS
