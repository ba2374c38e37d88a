"""Configurations that are kept and given back: checked as AWS checks them, listed in pages; and who pays for requests."""

import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from botocore.client import BaseClient

from gateway.ops.buckets import stored
from tests.s3.conftest import THREE
from tests.s3.errors import refused

DESTINATION = {"S3BucketDestination": {"Bucket": "arn:aws:s3:::reports", "Format": "CSV", "Prefix": "p"}}
INVENTORY = {
    "Destination": DESTINATION, "IsEnabled": True, "Id": "one", "IncludedObjectVersions": "All",
    "Schedule": {"Frequency": "Daily"}, "Filter": {"Prefix": "a&b/"}, "OptionalFields": ["Size", "ETag"],
}
ANALYTICS = {
    "Id": "one", "Filter": {"And": {"Prefix": "p", "Tags": [{"Key": "k", "Value": "v"}]}},
    "StorageClassAnalysis": {"DataExport": {"OutputSchemaVersion": "V_1", "Destination": DESTINATION}},
}
METRICS = {"Id": "one", "Filter": {"Tag": {"Key": "k", "Value": "v"}}}
TIERING = {
    "Id": "one", "Status": "Enabled",
    "Tierings": [{"Days": 90, "AccessTier": "ARCHIVE_ACCESS"}, {"Days": 180, "AccessTier": "DEEP_ARCHIVE_ACCESS"}],
}
FAMILIES = {"inventory": INVENTORY, "analytics": ANALYTICS, "metrics": METRICS, "intelligent_tiering": TIERING}
NAMES = {"inventory": "Inventory", "analytics": "Analytics", "metrics": "Metrics", "intelligent_tiering": "IntelligentTiering"}


def call(s3: BaseClient, verb: str, family: str, bucket: str, id: str | None = None, wanted: Any = None) -> Any:
    named: dict[str, Any] = {"Bucket": bucket}
    if id is not None:
        named["Id"] = id
    if wanted is not None:
        named[f"{NAMES[family]}Configuration"] = wanted
    return getattr(s3, f"{verb}_bucket_{family}_configuration{'s' if verb == 'list' else ''}")(**named)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_kept_by_id(s3: BaseClient, bucket: str, family: str) -> None:
    wanted, name = FAMILIES[family], f"{NAMES[family]}Configuration"
    listed = f"{name}List"
    assert listed not in call(s3, "list", family, bucket)
    for verb in ("get", "delete"):
        with refused("NoSuchConfiguration", 404) as said:
            call(s3, verb, family, bucket, "one")
        assert said["Message"] == "The specified configuration does not exist."
    call(s3, "put", family, bucket, "one", wanted)
    assert call(s3, "get", family, bucket, "one")[name] == wanted
    call(s3, "put", family, bucket, "a.b-c_D", {**wanted, "Id": "a.b-c_D"})
    page = call(s3, "list", family, bucket)
    assert page[listed] == [{**wanted, "Id": "a.b-c_D"}, wanted]
    assert page["IsTruncated"] is False
    assert call(s3, "delete", family, bucket, "one")["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert [entry["Id"] for entry in call(s3, "list", family, bucket)[listed]] == ["a.b-c_D"]
    with refused("IdMismatch" if family in ("inventory", "metrics") else "MalformedXML", 400):
        call(s3, "put", family, bucket, "two", wanted)
    for id in ("x" * 65, "a b", "a/b"):
        with refused("InvalidConfigurationId", 400):
            call(s3, "put", family, bucket, id, {**wanted, "Id": id})


def test_a_family_is_listed_in_pages(s3: BaseClient, bucket: str) -> None:
    ids = [f"{number:03}" for number in range(103)]
    for id in ids:
        call(s3, "put", "metrics", bucket, id, {"Id": id})
    first = s3.list_bucket_metrics_configurations(Bucket=bucket)
    assert [entry["Id"] for entry in first["MetricsConfigurationList"]] == ids[:100]
    assert first["IsTruncated"] is True
    token = first["NextContinuationToken"]
    second = s3.list_bucket_metrics_configurations(Bucket=bucket, ContinuationToken=token)
    assert [entry["Id"] for entry in second["MetricsConfigurationList"]] == ids[100:]
    assert (second["IsTruncated"], second["ContinuationToken"]) == (False, token)
    with refused("InvalidArgument", 400) as said:
        s3.list_bucket_metrics_configurations(Bucket=bucket, ContinuationToken="x")
    assert said["Message"] == "The continuation token provided is incorrect"


@pytest.mark.skipif(THREE, reason="looks inside the server")
def test_a_family_has_so_many_at_most(s3: BaseClient, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "CONFIGURATIONS_MAX", 2)
    for id in ("a", "b", "a"):
        call(s3, "put", "metrics", bucket, id, {"Id": id})
    with refused("TooManyConfigurations", 400):
        call(s3, "put", "metrics", bucket, "c", {"Id": "c"})
    call(s3, "put", "analytics", bucket, "c", {**ANALYTICS, "Id": "c"})


@pytest.mark.parametrize(("family", "changed", "code"), [
    ("inventory", {"Schedule": {"Frequency": "Monthly"}}, "MalformedXML"),
    ("inventory", {"IncludedObjectVersions": "Some"}, "MalformedXML"),
    ("inventory", {"OptionalFields": ["Colour"]}, "MalformedXML"),
    ("inventory", {"Destination": {"S3BucketDestination": {"Bucket": "reports", "Format": "CSV"}}},
     "InvalidS3DestinationBucket"),
    ("analytics", {"Filter": {}}, "MalformedXML"),
    ("analytics", {"Filter": {"And": {"Prefix": "p"}}}, "MalformedXML"),
    ("metrics", {"Filter": {"Prefix": "p", "Tag": {"Key": "k", "Value": "v"}}}, "MalformedXML"),
    ("intelligent_tiering", {"Tierings": []}, "MalformedXML"),
    ("intelligent_tiering", {"Status": "On"}, "MalformedXML"),
    ("intelligent_tiering", {"Tierings": [{"Days": 89, "AccessTier": "ARCHIVE_ACCESS"}]}, "InvalidArgument"),
    ("intelligent_tiering", {"Tierings": [{"Days": 90, "AccessTier": "ARCHIVE_ACCESS"}] * 2}, "MalformedXML"),
])
def test_what_is_no_configuration_is_refused(s3: BaseClient, bucket: str, family: str, changed: Any, code: str) -> None:
    with refused(code, 400):
        call(s3, "put", family, bucket, "one", {**FAMILIES[family], **changed})
    with refused("NoSuchConfiguration", 404):
        call(s3, "get", family, bucket, "one")


def test_accelerate(s3: BaseClient, bucket: str) -> None:
    def status() -> str | None:
        return s3.get_bucket_accelerate_configuration(Bucket=bucket).get("Status")

    def put(wanted: str, name: str = bucket) -> None:
        s3.put_bucket_accelerate_configuration(Bucket=name, AccelerateConfiguration={"Status": wanted})

    put("Suspended")
    assert status() is None, "it was never enabled"
    for wanted in ("Enabled", "Suspended"):
        put(wanted)
        assert status() == wanted
    with refused("MalformedXML", 400):
        put("On")
    s3.create_bucket(Bucket=f"{bucket}.dot")
    with refused("InvalidRequest", 400) as said:
        put("Enabled", f"{bucket}.dot")
    assert said["Message"] == "S3 Transfer Acceleration is not supported for buckets with periods (.) in their names"


def rule(destination: str, **more: Any) -> dict[str, Any]:
    return {"Role": "arn:aws:iam::111111111111:role/r", "Rules": [
        {"Status": "Disabled", "Prefix": "", "Destination": {"Bucket": f"arn:aws:s3:::{destination}"}, **more}]}


def test_replication_that_is_off_is_kept_and_none_that_is_on(
    s3: BaseClient, bucket: str, new_bucket_name: Callable[[], str],
) -> None:
    other = new_bucket_name()
    s3.create_bucket(Bucket=other)

    def put(wanted: dict[str, Any]) -> None:
        s3.put_bucket_replication(Bucket=bucket, ReplicationConfiguration=wanted)

    def refusal(code: str, wanted: dict[str, Any]) -> str:
        with refused(code, 501 if code == "NotImplemented" else 400) as said:
            put(wanted)
        return str(said["Message"])

    versioned = {"Status": "Enabled"}
    assert refusal("InvalidRequest", rule(other)) == (
        "Versioning must be 'Enabled' on the bucket to apply a replication configuration")
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration=versioned)
    for destination in ("bucket-not-there", other):
        assert refusal("InvalidRequest", rule(destination)) == "Destination bucket must have versioning enabled."
    s3.put_bucket_versioning(Bucket=other, VersioningConfiguration=versioned)
    assert "yet" in refusal("NotImplemented", rule(other, Status="Enabled"))
    refusal("MalformedXML", rule(other, Status="On"))
    refusal("MalformedXML", {"Role": "r", "Rules": []})
    new = {"Filter": {"Prefix": ""}, "Priority": 1, "DeleteMarkerReplication": {"Status": "Disabled"}}
    refusal("MalformedXML", rule(other, **new))
    for name in ("Priority", "DeleteMarkerReplication"):
        assert refusal("InvalidRequest", rule(other, **{name: new[name]})).startswith(f"{name} cannot be used for this version")
    assert refusal("InvalidRequest", rule(other, SourceSelectionCriteria={})) == "SourceSelectionCriteria cannot be empty"
    second = rule(other, **new)
    del second["Rules"][0]["Prefix"]
    refusal("MalformedXML", {**second, "Rules": [
        {name: value for name, value in second["Rules"][0].items() if name not in new}]})
    for lacking in ("DeleteMarkerReplication", "Priority"):
        short = {**second, "Rules": [{name: value for name, value in second["Rules"][0].items() if name != lacking}]}
        assert refusal("InvalidRequest", short).startswith(f"{lacking} must be specified")
    with refused("ReplicationConfigurationNotFoundError", 404):
        s3.get_bucket_replication(Bucket=bucket)
    put(second)
    kept = s3.get_bucket_replication(Bucket=bucket)["ReplicationConfiguration"]
    assert kept["Rules"][0].pop("ID")
    assert kept == second
    s3.delete_bucket_replication(Bucket=bucket)
    with refused("ReplicationConfigurationNotFoundError", 404):
        s3.get_bucket_replication(Bucket=bucket)


def test_other_accounts_must_say_that_they_pay(s3: BaseClient, other_s3: BaseClient, bucket: str) -> None:
    def payer(wanted: str | None = None) -> str:
        if wanted is not None:
            s3.put_bucket_request_payment(Bucket=bucket, RequestPaymentConfiguration={"Payer": wanted})
        return str(s3.get_bucket_request_payment(Bucket=bucket)["Payer"])

    s3.delete_public_access_block(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="key", Body=b"x")
    s3.put_bucket_policy(Bucket=bucket, Policy=(
        '{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": '
        f'["arn:aws:s3:::{bucket}", "arn:aws:s3:::{bucket}/*"]}}}}'))
    assert payer() == "BucketOwner"
    assert "RequestCharged" not in other_s3.get_object(Bucket=bucket, Key="key", RequestPayer="requester")
    with refused("MalformedXML", 400):
        payer("Nobody")
    assert payer("Requester") == "Requester"
    assert "RequestCharged" not in s3.get_object(Bucket=bucket, Key="key"), "the owner pays what others don't"
    for operation, named, status in [
        ("get_object", {"Key": "key"}, "AccessDenied"), ("head_object", {"Key": "key"}, "403"),
        ("put_object", {"Key": "new"}, "AccessDenied"), ("list_objects_v2", {}, "AccessDenied"),
        ("copy_object", {"Key": "new", "CopySource": f"{bucket}/key"}, "AccessDenied"),
    ]:
        with refused(status, 403):
            getattr(other_s3, operation)(Bucket=bucket, **named)
        answer = getattr(other_s3, operation)(Bucket=bucket, RequestPayer="requester", **named)
        assert answer["RequestCharged"] == "requester"
    url = other_s3.generate_presigned_url("get_object", {"Bucket": bucket, "Key": "key", "RequestPayer": "requester"})
    with urllib.request.urlopen(url) as answer:
        assert answer.headers["x-amz-request-charged"] == "requester"
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(urllib.request.Request(
            f"{s3.meta.endpoint_url}/{bucket}/key", headers={"x-amz-request-payer": "requester"}))
    assert payer("BucketOwner") == "BucketOwner"
    assert other_s3.get_object(Bucket=bucket, Key="key")["Body"].read() == b"x"


def test_access_by_attributes_is_off(s3: BaseClient, bucket: str) -> None:
    assert s3.get_bucket_abac(Bucket=bucket)["AbacStatus"] == {"Status": "Disabled"}
    s3.put_bucket_abac(Bucket=bucket, AbacStatus={"Status": "Disabled"})
    with refused("NotImplemented", 501) as said:
        s3.put_bucket_abac(Bucket=bucket, AbacStatus={"Status": "Enabled"})
    assert "PutBucketAbac" in said["Message"]
