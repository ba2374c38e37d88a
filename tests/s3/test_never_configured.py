"""What a bucket answers about things that were never set, and what is said about operations that are not there."""

from typing import Any

import pytest
from botocore.client import BaseClient

from gateway.ops.context import Settings
from tests.s3.conftest import MAIN, client
from tests.s3.errors import refused
from tests.s3.in_process import InProcess

NEVER = [
    ("get_bucket_tagging", "NoSuchTagSet"), ("get_bucket_policy", "NoSuchBucketPolicy"),
    ("get_bucket_policy_status", "NoSuchBucketPolicy"), ("get_bucket_cors", "NoSuchCORSConfiguration"),
    ("get_bucket_lifecycle_configuration", "NoSuchLifecycleConfiguration"),
    ("get_bucket_website", "NoSuchWebsiteConfiguration"),
    ("get_bucket_replication", "ReplicationConfigurationNotFoundError"),
    ("get_object_lock_configuration", "ObjectLockConfigurationNotFoundError"),
]

EMPTY = [
    ("get_bucket_versioning", {}), ("get_bucket_logging", {}), ("get_bucket_notification_configuration", {}),
    ("get_bucket_accelerate_configuration", {}), ("get_bucket_request_payment", {"Payer": "BucketOwner"}),
]

GONE = [
    "delete_bucket_tagging", "delete_bucket_policy", "delete_bucket_cors", "delete_bucket_lifecycle",
    "delete_bucket_website", "delete_bucket_replication", "delete_bucket_encryption",
]


@pytest.mark.parametrize(("operation", "code"), NEVER)
def test_not_found(s3: BaseClient, bucket: str, operation: str, code: str) -> None:
    with refused(code, 404):
        getattr(s3, operation)(Bucket=bucket)


@pytest.mark.parametrize(("operation", "wanted"), EMPTY)
def test_empty(s3: BaseClient, bucket: str, operation: str, wanted: dict[str, Any]) -> None:
    answer = getattr(s3, operation)(Bucket=bucket)
    del answer["ResponseMetadata"]
    assert answer == wanted


@pytest.mark.parametrize("operation", GONE)
def test_removing_it_succeeds_and_removes_nothing_else(s3: BaseClient, bucket: str, operation: str) -> None:
    assert getattr(s3, operation)(Bucket=bucket)["ResponseMetadata"]["HTTPStatusCode"] == 204
    s3.head_bucket(Bucket=bucket)


def test_the_owner_has_full_control(s3: BaseClient, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=b"")
    for acl in (s3.get_bucket_acl(Bucket=bucket), s3.get_object_acl(Bucket=bucket, Key="key")):
        assert acl["Owner"] == {"ID": "main-id", "DisplayName": "M. Ain"}
        (grant,) = acl["Grants"]
        assert (grant["Permission"], grant["Grantee"]["ID"]) == ("FULL_CONTROL", "main-id")
    with refused("NoSuchKey", 404):
        s3.get_object_acl(Bucket=bucket, Key="absent")


def test_lists_of_configurations_are_empty(s3: BaseClient, bucket: str) -> None:
    assert "InventoryConfigurationList" not in s3.list_bucket_inventory_configurations(Bucket=bucket)
    with refused("NoSuchConfiguration", 404):
        s3.get_bucket_metrics_configuration(Bucket=bucket, Id="x")


def test_defaults_of_today(tmp_path: Any) -> None:
    with InProcess(tmp_path, [MAIN], settings=Settings(default_encryption=True)) as server:
        s3 = client(server.endpoint)
        s3.create_bucket(Bucket="bucket")
        _check_defaults_of_today(s3, "bucket")


def _check_defaults_of_today(s3: BaseClient, bucket: str) -> None:
    rule = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"][0]
    assert rule["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
    ownership = s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"]["Rules"]
    assert ownership == [{"ObjectOwnership": "BucketOwnerEnforced"}]
    assert all(s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"].values())


def test_classic_defaults(tmp_path: Any) -> None:
    classic = Settings(object_ownership="ObjectWriter", block_public_access=False, default_encryption=False)
    with InProcess(tmp_path, [MAIN], settings=classic) as server:
        s3 = client(server.endpoint)
        s3.create_bucket(Bucket="bucket")
        for operation, code in [
            ("get_bucket_encryption", "ServerSideEncryptionConfigurationNotFoundError"),
            ("get_bucket_ownership_controls", "OwnershipControlsNotFoundError"),
            ("get_public_access_block", "NoSuchPublicAccessBlockConfiguration"),
        ]:
            with refused(code, 404):
                getattr(s3, operation)(Bucket="bucket")


def test_what_is_not_there_says_its_name(s3: BaseClient, bucket: str) -> None:
    with refused("NotImplemented", 501) as said:
        s3.get_object_torrent(Bucket=bucket, Key="key")
    assert "GetObjectTorrent" in said["Message"]
    with refused("NoSuchBucket", 404):
        s3.get_bucket_abac(Bucket="bucket-not-there")


def test_access_lists_are_off(s3: BaseClient, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=b"x")
    for acl, code in (("private", "AccessControlListNotSupported"), ("public-read", "AccessControlListNotSupported")):
        with refused(code, 400):
            s3.put_bucket_acl(Bucket=bucket, ACL=acl)
        with refused(code, 400):
            s3.put_object_acl(Bucket=bucket, Key="key", ACL=acl)
    s3.put_object_acl(Bucket=bucket, Key="key", ACL="bucket-owner-full-control")
    shown = s3.get_object_acl(Bucket=bucket, Key="key")
    policy = {"Owner": shown["Owner"], "Grants": shown["Grants"]}
    s3.put_object_acl(Bucket=bucket, Key="key", AccessControlPolicy=policy)
    everyone = {"Grantee": {"Type": "Group", "URI": "http://acs.amazonaws.com/groups/global/AllUsers"}, "Permission": "READ"}
    for grants in ([*shown["Grants"], everyone], [everyone], []):
        with refused("AccessControlListNotSupported", 400):
            s3.put_object_acl(Bucket=bucket, Key="key", AccessControlPolicy={**policy, "Grants": grants})
    with refused("NoSuchKey", 404):
        s3.put_object_acl(Bucket=bucket, Key="other", ACL="bucket-owner-full-control")
