"""Buckets: names, owners, regions, listing, removal (S3_SEMANTICS §6)."""

from collections.abc import Callable

import pytest
from botocore.client import BaseClient

from tests.s3.errors import refused


def test_a_new_bucket_answers(s3: BaseClient, bucket: str) -> None:
    head = s3.head_bucket(Bucket=bucket)
    assert head["BucketRegion"] == "us-east-1"
    assert head["BucketArn"] == f"arn:aws:s3:::{bucket}"
    assert head["AccessPointAlias"] is False
    assert s3.get_bucket_location(Bucket=bucket).get("LocationConstraint") is None


def test_create_says_where(s3: BaseClient, new_bucket_name: Callable[[], str]) -> None:
    name = new_bucket_name()
    assert s3.create_bucket(Bucket=name)["Location"] == f"/{name}"


def test_a_bucket_of_ones_own_is_not_made_twice(s3: BaseClient, bucket: str) -> None:
    with refused("BucketAlreadyOwnedByYou", 409) as said:
        s3.create_bucket(Bucket=bucket)
    assert said["BucketName"] == bucket


def test_a_bucket_of_somebody_else_is_taken(other_s3: BaseClient, bucket: str) -> None:
    with refused("BucketAlreadyExists", 409):
        other_s3.create_bucket(Bucket=bucket)


@pytest.mark.parametrize("name", ["Upper", "under_score", "192.168.1.1", "a..b", "xn--x", "x-s3alias", "-a"])
def test_bad_names_are_refused(s3: BaseClient, name: str) -> None:
    client = _without_validation(s3)
    with refused("InvalidBucketName", 400) as said:
        client.create_bucket(Bucket=name)
    assert said["BucketName"] == name


@pytest.mark.parametrize(
    ("constraint", "code"),
    [("eu-west-1", "IllegalLocationConstraintException"), ("nowhere", "InvalidLocationConstraint")],
)
def test_other_regions_are_refused(
    s3: BaseClient, new_bucket_name: Callable[[], str], constraint: str, code: str
) -> None:
    with refused(code, 400):
        s3.create_bucket(
            Bucket=new_bucket_name(), CreateBucketConfiguration={"LocationConstraint": constraint}
        )


def test_an_old_tool_s_default_region_is_told_again(s3: BaseClient, new_bucket_name: Callable[[], str]) -> None:
    name = new_bucket_name()
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "default"})
    assert s3.get_bucket_location(Bucket=name)["LocationConstraint"] == "default"
    assert s3.head_bucket(Bucket=name)["BucketRegion"] == "us-east-1"


def test_a_bucket_is_made_with_tags(s3: BaseClient, new_bucket_name: Callable[[], str]) -> None:
    name, tags = new_bucket_name(), [{"Key": "a", "Value": "b"}, {"Key": "c", "Value": ""}]
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"Tags": tags})
    assert s3.get_bucket_tagging(Bucket=name)["TagSet"] == tags


def test_an_unsupported_wish_is_not_dropped(s3: BaseClient, new_bucket_name: Callable[[], str]) -> None:
    name = new_bucket_name()
    with refused("InvalidBucketAclWithObjectOwnership", 400):
        s3.create_bucket(Bucket=name, ACL="public-read")
    with refused("404", 404):
        s3.head_bucket(Bucket=name)


def test_deleting(s3: BaseClient, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=b"")
    with refused("BucketNotEmpty", 409):
        s3.delete_bucket(Bucket=bucket)
    s3.delete_object(Bucket=bucket, Key="key")
    s3.create_multipart_upload(Bucket=bucket, Key="never completed")
    assert s3.delete_bucket(Bucket=bucket)["ResponseMetadata"]["HTTPStatusCode"] == 204
    with refused("NoSuchBucket", 404):
        s3.delete_bucket(Bucket=bucket)
    s3.create_bucket(Bucket=bucket)
    assert s3.list_multipart_uploads(Bucket=bucket).get("Uploads") is None


def test_listing_buckets_in_pages(s3: BaseClient, new_bucket_name: Callable[[], str]) -> None:
    stem = new_bucket_name()
    names = [f"{stem}-{number}" for number in range(5)]
    for name in names:
        s3.create_bucket(Bucket=name)
    whole = s3.list_buckets(Prefix=stem)
    assert [entry["Name"] for entry in whole["Buckets"]] == names
    assert (whole["Owner"]["ID"], whole["Owner"]["DisplayName"]) == ("main-id", "M. Ain")
    assert whole["Prefix"] == stem
    assert "ContinuationToken" not in whole
    found: list[str] = []
    page = s3.list_buckets(Prefix=stem, MaxBuckets=2)
    while True:
        assert len(page["Buckets"]) <= 2
        found += [entry["Name"] for entry in page["Buckets"]]
        if "ContinuationToken" not in page:
            break
        page = s3.list_buckets(Prefix=stem, MaxBuckets=2, ContinuationToken=page["ContinuationToken"])
    assert found == names
    assert {entry["BucketRegion"] for entry in whole["Buckets"]} == {"us-east-1"}
    assert not any("BucketRegion" in entry for entry in s3.list_buckets()["Buckets"]), "S3 tells it to those who ask for a part"
    assert len(s3.list_buckets(Prefix=stem, BucketRegion="us-east-1")["Buckets"]) == 5


def test_listing_shows_ones_own_only(other_s3: BaseClient, bucket: str) -> None:
    assert bucket not in [entry["Name"] for entry in other_s3.list_buckets().get("Buckets", [])]


def test_other_accounts_are_kept_out(s3: BaseClient, other_s3: BaseClient, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=b"secret")
    for call, status in [
        (lambda: other_s3.get_object(Bucket=bucket, Key="key"), "AccessDenied"),
        (lambda: other_s3.put_object(Bucket=bucket, Key="key", Body=b""), "AccessDenied"),
        (lambda: other_s3.delete_object(Bucket=bucket, Key="key"), "AccessDenied"),
        (lambda: other_s3.list_objects_v2(Bucket=bucket), "AccessDenied"),
        (lambda: other_s3.delete_bucket(Bucket=bucket), "AccessDenied"),
        (lambda: other_s3.create_multipart_upload(Bucket=bucket, Key="key"), "AccessDenied"),
        (lambda: other_s3.get_bucket_acl(Bucket=bucket), "AccessDenied"),
        (lambda: other_s3.put_bucket_policy(Bucket=bucket, Policy="{}"), "AccessDenied"),
        (lambda: other_s3.head_bucket(Bucket=bucket), "403"),
        (lambda: other_s3.head_object(Bucket=bucket, Key="key"), "403"),
    ]:
        with refused(status, 403):
            call()
    (error,) = other_s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "key"}]})["Errors"]
    assert error["Code"] == "AccessDenied", "judged key by key"
    with refused("403", 403) as said:
        other_s3.head_bucket(Bucket=bucket)
    assert said["Headers"]["x-amz-bucket-region"] == "us-east-1"
    assert s3.get_object(Bucket=bucket, Key="key")["Body"].read() == b"secret"


def test_anonymous_callers_are_denied(server: object, bucket: str) -> None:
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    anonymous = boto3.client(
        "s3", endpoint_url=server.endpoint, region_name="us-east-1",  # type: ignore[attr-defined]
        config=Config(signature_version=UNSIGNED, retries={"total_max_attempts": 1}),
    )
    with refused("AccessDenied", 403):
        anonymous.list_objects_v2(Bucket=bucket)
    with refused("AccessDenied", 403):
        anonymous.put_object(Bucket=bucket, Key="key", Body=b"x")
    with refused("AccessDenied", 403):
        anonymous.list_buckets()
    with refused("AccessDenied", 403):
        anonymous.create_bucket(Bucket="anonymous-bucket")
    with refused("NoSuchBucket", 404):
        anonymous.get_object(Bucket="bucket-not-there", Key="key")


def test_the_expected_owner_must_be_right(s3: BaseClient, bucket: str) -> None:
    s3.list_objects_v2(Bucket=bucket, ExpectedBucketOwner="111111111111")
    with refused("AccessDenied", 403):
        s3.list_objects_v2(Bucket=bucket, ExpectedBucketOwner="222222222222")
    with refused("InvalidBucketOwnerAWSAccountID", 400):
        s3.list_objects_v2(Bucket=bucket, ExpectedBucketOwner="main")
    with refused("AccessDenied", 403):
        s3.put_object(Bucket=bucket, Key="key", Body=b"", ExpectedBucketOwner="222222222222")
    with refused("AccessDenied", 403):
        s3.get_object(Bucket=bucket, Key="key", ExpectedBucketOwner="222222222222")


def _without_validation(s3: BaseClient) -> BaseClient:
    """botocore would refuse such names itself."""
    from botocore.handlers import validate_bucket_name

    from tests.s3.conftest import client

    made = client(s3.meta.endpoint_url)
    made.meta.events.unregister("before-parameter-build.s3", validate_bucket_name)
    return made
