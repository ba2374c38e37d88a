"""An event as AWS writes it, field by field and in its order."""

import json

import pytest

from consensus.core.events import Event, Origin, QueuedEvent
from gateway.events import record

ORIGIN = Origin(address="10.0.0.1", principal="AWS:user", request_id="C3D13FE58DE4C810", host_id="FMyUVURIY8")


def event(name: str = "ObjectCreated:Put", key: str = "HappyFace.jpg", **more: object) -> QueuedEvent:
    return QueuedEvent(order=(7 << 20) + 2, place=3, event=Event(
        name=name, rule="config", bucket="photos", owner="A3NL1KOZZKExample", at_ms=1_700_000_000_123, key=key,
        **{"region": "", "origin": ORIGIN, **more}))  # type: ignore[arg-type]


def test_a_put() -> None:
    put = event(size=1024, etag="d41d8cd98f00b204e9800998ecf8427e", version_id="096fKKXTRTtl3on89fVO")
    written = record.document(put, "eu-1")
    assert list(json.loads(written)["Records"][0].items()) == list({
        "eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "eu-1", "eventTime": "2023-11-14T22:13:20.123Z",
        "eventName": "ObjectCreated:Put", "userIdentity": {"principalId": "AWS:user"},
        "requestParameters": {"sourceIPAddress": "10.0.0.1"},
        "responseElements": {"x-amz-request-id": "C3D13FE58DE4C810", "x-amz-id-2": "FMyUVURIY8"},
        "s3": {
            "s3SchemaVersion": "1.0", "configurationId": "config",
            "bucket": {"name": "photos", "ownerIdentity": {"principalId": "A3NL1KOZZKExample"}, "arn": "arn:aws:s3:::photos"},
            "object": {"key": "HappyFace.jpg", "size": 1024, "eTag": "d41d8cd98f00b204e9800998ecf8427e",
                       "versionId": "096fKKXTRTtl3on89fVO", "sequencer": "00000000007000020003"},
        },
    }.items())


def test_what_is_gone_has_neither_size_nor_etag_and_the_region_is_the_buckets() -> None:
    one = json.loads(record.document(event("ObjectRemoved:Delete", region="eu-2"), "eu-1"))["Records"][0]
    assert one["s3"]["object"] == {"key": "HappyFace.jpg", "sequencer": "00000000007000020003"}
    assert one["awsRegion"] == "eu-2"


@pytest.mark.parametrize(("key", "written"), [
    ("a b/c", "a+b/c"), ("a+b", "a%2Bb"), ("ü.txt", "%C3%BC.txt"), ("x=1&y=%", "x%3D1%26y%3D%25"), ("~-_.*", "%7E-_.*"),
    ("a\nb\x00", "a%0Ab%00"), ("😀", "%F0%9F%98%80"), ('"</', "%22%3C/"),
])
def test_keys_are_written_as_forms_are(key: str, written: str) -> None:
    assert json.loads(record.document(event(key=key), "r"))["Records"][0]["s3"]["object"]["key"] == written


@pytest.mark.parametrize(("name", "version"), [
    ("ObjectCreated:Copy", "2.1"), ("ObjectRemoved:DeleteMarkerCreated", "2.1"), ("ObjectTagging:Put", "2.3"),
    ("ObjectAcl:Put", "2.3"),
    ("LifecycleExpiration:Delete", "2.3"), ("LifecycleTransition", "2.3"),
])
def test_the_version_depends_on_the_event(name: str, version: str) -> None:
    assert json.loads(record.document(event(name), "r"))["Records"][0]["eventVersion"] == version


def test_nobody_asked_for_what_a_lifecycle_does() -> None:
    moved = event("LifecycleTransition", origin=Origin(), more=(("destinationStorageClass", "GLACIER"),))
    one = json.loads(record.document(moved, "r"))["Records"][0]
    assert one["userIdentity"] == {"principalId": "s3.amazonaws.com"}
    assert one["lifecycleEventData"] == {"transitionEventData": {"destinationStorageClass": "GLACIER"}}


def test_a_restore_tells_from_where_and_for_how_long() -> None:
    done = event("ObjectRestore:Completed", more=(("until_ms", "1700000000000"), ("storage_class", "GLACIER")))
    assert json.loads(record.document(done, "r"))["Records"][0]["glacierEventData"] == {"restoreEventData": {
        "lifecycleRestorationExpiryTime": "2023-11-14T22:13:20.000Z", "lifecycleRestoreStorageClass": "GLACIER"}}


def test_a_test_event_is_of_another_form() -> None:
    assert json.loads(record.document(event("TestEvent", key=""), "r")) == {
        "Service": "Amazon S3", "Event": "s3:TestEvent", "Time": "2023-11-14T22:13:20.123Z", "Bucket": "photos",
        "RequestId": "C3D13FE58DE4C810", "HostId": "FMyUVURIY8"}


def test_sequencers_compare_as_texts() -> None:
    names = [(1 << 20, 0), (1 << 20, 3), ((1 << 20) + 1, 0), (1 << 62, 0)]
    written = [record.sequencer(QueuedEvent(order=order, place=place, event=event().event)) for order, place in names]
    assert written == sorted(written)
    assert len({len(text) for text in written}) == 1
