"""Object lock through boto3: what is protected stays, whoever asks; what may be changed can be (S3_SEMANTICS §15)."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from botocore.client import BaseClient

from tests.s3.errors import refused

_numbers = itertools.count()


def after(**more: float) -> datetime:
    return (datetime.now(UTC) + timedelta(**more)).replace(microsecond=0)


@pytest.fixture
def locked(s3: BaseClient) -> str:
    name = f"locked-{next(_numbers)}"
    s3.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    return name


def test_a_locked_bucket_is_versioned_for_good(s3: BaseClient, locked: str) -> None:
    assert s3.get_bucket_versioning(Bucket=locked)["Status"] == "Enabled"
    with refused("InvalidBucketState", 409):
        s3.put_bucket_versioning(Bucket=locked, VersioningConfiguration={"Status": "Suspended"})
    s3.put_bucket_versioning(Bucket=locked, VersioningConfiguration={"Status": "Enabled"})
    assert s3.get_object_lock_configuration(Bucket=locked)["ObjectLockConfiguration"] == {"ObjectLockEnabled": "Enabled"}


def test_an_unversioned_bucket_cannot_be_locked(s3: BaseClient, bucket: str) -> None:
    configuration = {"ObjectLockEnabled": "Enabled"}
    with refused("InvalidBucketState", 409):
        s3.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration=configuration)
    with refused("InvalidRequest", 400):
        s3.put_object(Bucket=bucket, Key="key", Body=b"x", ObjectLockLegalHoldStatus="ON")
    with refused("InvalidRequest", 400):
        s3.create_multipart_upload(Bucket=bucket, Key="key", ObjectLockLegalHoldStatus="ON")
    s3.put_object(Bucket=bucket, Key="key", Body=b"x")
    with refused("InvalidRequest", 400):
        s3.get_object_retention(Bucket=bucket, Key="key")
    with refused("InvalidRequest", 400):
        s3.put_object_legal_hold(Bucket=bucket, Key="key", LegalHold={"Status": "ON"})
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration=configuration)
    s3.put_object(Bucket=bucket, Key="key", Body=b"x", ObjectLockLegalHoldStatus="ON")


def test_compliance_yields_to_nobody(s3: BaseClient, locked: str) -> None:
    until = after(hours=1)
    version = s3.put_object(Bucket=locked, Key="key", Body=b"x", ObjectLockMode="COMPLIANCE",
                            ObjectLockRetainUntilDate=until)["VersionId"]
    head = s3.head_object(Bucket=locked, Key="key")
    assert (head["ObjectLockMode"], head["ObjectLockRetainUntilDate"]) == ("COMPLIANCE", until)
    for bypass in ({}, {"BypassGovernanceRetention": True}):
        with refused("AccessDenied", 403):
            s3.delete_object(Bucket=locked, Key="key", VersionId=version, **bypass)
        (failed,) = s3.delete_objects(
            Bucket=locked, Delete={"Objects": [{"Key": "key", "VersionId": version}]}, **bypass)["Errors"]
        assert failed["Code"] == "AccessDenied"
        for retention in ({"Mode": "COMPLIANCE", "RetainUntilDate": until - timedelta(minutes=1)},
                          {"Mode": "GOVERNANCE", "RetainUntilDate": until + timedelta(hours=1)}, {}):
            with refused("AccessDenied", 403):
                s3.put_object_retention(Bucket=locked, Key="key", VersionId=version, Retention=retention, **bypass)
    longer = until + timedelta(hours=1)
    s3.put_object_retention(Bucket=locked, Key="key", Retention={"Mode": "COMPLIANCE", "RetainUntilDate": longer})
    assert s3.get_object_retention(Bucket=locked, Key="key")["Retention"]["RetainUntilDate"] == longer
    assert s3.get_object(Bucket=locked, Key="key", VersionId=version)["Body"].read() == b"x"
    # Markers and newer versions are no harm to it.
    s3.put_object(Bucket=locked, Key="key", Body=b"newer")
    marker = s3.delete_object(Bucket=locked, Key="key")["VersionId"]
    s3.delete_object(Bucket=locked, Key="key", VersionId=marker)
    with refused("BucketNotEmpty", 409):
        s3.delete_bucket(Bucket=locked)
    assert s3.get_object(Bucket=locked, Key="key", VersionId=version)["Body"].read() == b"x"


def test_governance_yields_to_those_who_say_so(s3: BaseClient, locked: str) -> None:
    until = after(hours=1)
    version = s3.put_object(Bucket=locked, Key="key", Body=b"x", ObjectLockMode="GOVERNANCE",
                            ObjectLockRetainUntilDate=until)["VersionId"]
    shorter = {"Mode": "GOVERNANCE", "RetainUntilDate": after(minutes=1)}
    with refused("AccessDenied", 403):
        s3.put_object_retention(Bucket=locked, Key="key", Retention=shorter)
    with refused("AccessDenied", 403):
        s3.delete_object(Bucket=locked, Key="key", VersionId=version)
    s3.put_object_retention(Bucket=locked, Key="key", Retention=shorter, BypassGovernanceRetention=True)
    s3.delete_object(Bucket=locked, Key="key", VersionId=version, BypassGovernanceRetention=True)
    with refused("NoSuchVersion", 404):
        s3.get_object(Bucket=locked, Key="key", VersionId=version)


def test_a_legal_hold_has_no_end_of_its_own(s3: BaseClient, locked: str) -> None:
    version = s3.put_object(Bucket=locked, Key="key", Body=b"x")["VersionId"]
    with refused("NoSuchObjectLockConfiguration", 404):
        s3.get_object_legal_hold(Bucket=locked, Key="key")
    s3.put_object_legal_hold(Bucket=locked, Key="key", LegalHold={"Status": "ON"})
    assert s3.get_object_legal_hold(Bucket=locked, Key="key")["LegalHold"]["Status"] == "ON"
    assert s3.head_object(Bucket=locked, Key="key")["ObjectLockLegalHoldStatus"] == "ON"
    with refused("AccessDenied", 403):
        s3.delete_object(Bucket=locked, Key="key", VersionId=version, BypassGovernanceRetention=True)
    s3.put_object_legal_hold(Bucket=locked, Key="key", LegalHold={"Status": "OFF"})
    with refused("NoSuchObjectLockConfiguration", 404):
        s3.get_object_retention(Bucket=locked, Key="key")
    s3.delete_object(Bucket=locked, Key="key", VersionId=version)


def test_a_hold_that_was_never_set_is_not_one_that_is_off(s3: BaseClient, locked: str) -> None:
    key = {"Bucket": locked, "Key": "key"}
    s3.put_object(**key, Body=b"x", ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=after(hours=1))
    with refused("NoSuchObjectLockConfiguration", 404):
        s3.get_object_legal_hold(**key)
    assert "ObjectLockLegalHoldStatus" not in s3.head_object(**key)
    for status in ("OFF", "ON", "OFF"):
        s3.put_object_legal_hold(**key, LegalHold={"Status": status})
        assert s3.get_object_legal_hold(**key)["LegalHold"]["Status"] == status
        head = s3.head_object(**key)
        assert (head["ObjectLockLegalHoldStatus"], head["ObjectLockMode"]) == (status, "GOVERNANCE")
    s3.put_object_retention(**key, Retention={"Mode": "GOVERNANCE", "RetainUntilDate": after(hours=2)})
    assert s3.get_object_legal_hold(**key)["LegalHold"]["Status"] == "OFF", "a retention says nothing of it"


def test_new_versions_get_the_default(s3: BaseClient, locked: str) -> None:
    s3.put_object_lock_configuration(Bucket=locked, ObjectLockConfiguration={
        "ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 2}}})
    s3.put_object(Bucket=locked, Key="plain", Body=b"x")
    upload = s3.create_multipart_upload(Bucket=locked, Key="parts")["UploadId"]
    part = s3.upload_part(Bucket=locked, Key="parts", UploadId=upload, PartNumber=1, Body=b"x")
    s3.complete_multipart_upload(Bucket=locked, Key="parts", UploadId=upload, MultipartUpload={
        "Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]})
    s3.copy_object(Bucket=locked, Key="copy", CopySource=f"{locked}/plain")
    for key in ("plain", "parts", "copy"):
        retention = s3.get_object_retention(Bucket=locked, Key=key)["Retention"]
        assert retention["Mode"] == "GOVERNANCE"
        assert after(days=1, hours=23) < retention["RetainUntilDate"] < after(days=2, hours=1)
    own = after(hours=1)
    s3.put_object(Bucket=locked, Key="own", Body=b"x", ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=own)
    assert s3.get_object_retention(Bucket=locked, Key="own")["Retention"] == {"Mode": "COMPLIANCE", "RetainUntilDate": own}


def test_an_end_that_has_come_frees(s3: BaseClient, locked: str) -> None:
    version = s3.put_object(Bucket=locked, Key="key", Body=b"x", ObjectLockMode="COMPLIANCE",
                            ObjectLockRetainUntilDate=datetime.now(UTC) + timedelta(seconds=1))["VersionId"]
    deadline = datetime.now(UTC) + timedelta(seconds=10)
    entry = {"Objects": [{"Key": "key", "VersionId": version}]}
    while failed := s3.delete_objects(Bucket=locked, Delete=entry).get("Errors"):
        assert failed[0]["Code"] == "AccessDenied"
        assert datetime.now(UTC) < deadline
    with refused("NoSuchVersion", 404):
        s3.get_object(Bucket=locked, Key="key", VersionId=version)
