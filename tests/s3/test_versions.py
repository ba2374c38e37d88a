"""Versions: switched on and off, read, listed, deleted and copied by version id (S3_SEMANTICS §8, §10, §14)."""

from collections.abc import Callable
from typing import Any

import pytest
from botocore.client import BaseClient

from tests.s3.errors import refused

Switch = Callable[[str], None]


@pytest.fixture
def switch(s3: BaseClient, bucket: str) -> Switch:
    def to(status: str) -> None:
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": status})
        assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == status

    return to


def test_versioning_is_never_set_until_somebody_does(s3: BaseClient, bucket: str) -> None:
    assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="key", Body=b"x")
    (version,) = s3.list_object_versions(Bucket=bucket)["Versions"]
    assert (version["VersionId"], version["IsLatest"], version["Size"]) == ("null", True, 1)


@pytest.mark.parametrize(("configuration", "code"), [
    ({}, "IllegalVersioningConfigurationException"), ({"Status": "enabled"}, "MalformedXML"),
    ({"Status": "Enabled", "MFADelete": "Enabled"}, "NotImplemented"),
])
def test_wrong_versioning_is_refused(
    s3: BaseClient, bucket: str, configuration: dict[str, str], code: str,
) -> None:
    with refused(code, 501 if code == "NotImplemented" else 400):
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration=configuration)
    assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)


def test_that_deleting_asks_for_no_device_is_shown_to_who_has_said_it(s3: BaseClient, bucket: str) -> None:
    for status, given, shown in (("Enabled", {}, None), ("Enabled", {"MFADelete": "Disabled"}, "Disabled"),
                                 ("Suspended", {}, "Disabled"), ("Suspended", {"MFADelete": "Disabled"}, "Disabled")):
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": status, **given})
        found = s3.get_bucket_versioning(Bucket=bucket)
        assert (found["Status"], found.get("MFADelete")) == (status, shown)


def test_versions_are_listed_newest_first_page_by_page(s3: BaseClient, bucket: str, switch: Switch) -> None:
    s3.put_object(Bucket=bucket, Key="b", Body=b"before")
    switch("Enabled")
    expected: list[tuple[str, str, bool, bool]] = [("b", "null", False, False)]
    for body in (b"1", b"2"):
        expected.insert(0, ("b", s3.put_object(Bucket=bucket, Key="b", Body=body)["VersionId"], False, False))
    expected.insert(0, ("b", s3.delete_object(Bucket=bucket, Key="b")["VersionId"], True, True))
    for key in ("a", "c/1", "c/2"):
        expected.append((key, s3.put_object(Bucket=bucket, Key=key, Body=b"x")["VersionId"], False, True))
    expected.sort(key=lambda entry: entry[0])
    for size in (1, 2, 3, 1000):
        found: list[tuple[str, str, bool, bool]] = []
        marker: dict[str, Any] = {}
        while True:
            page = s3.list_object_versions(Bucket=bucket, MaxKeys=size, **marker)
            entries = [(v, False) for v in page.get("Versions", ())] + [(v, True) for v in page.get("DeleteMarkers", ())]
            assert len(entries) <= size
            here = [(v["Key"], v["VersionId"], gone, v["IsLatest"]) for v, gone in entries]
            found += sorted(here, key=expected.index)
            if not page["IsTruncated"]:
                break
            marker = {"KeyMarker": page["NextKeyMarker"]}
            if "NextVersionIdMarker" in page:
                marker["VersionIdMarker"] = page["NextVersionIdMarker"]
        assert found == expected
    grouped = s3.list_object_versions(Bucket=bucket, Delimiter="/", Prefix="c")
    assert [entry["Prefix"] for entry in grouped["CommonPrefixes"]] == ["c/"]
    assert "Versions" not in grouped
    after = s3.list_object_versions(Bucket=bucket, KeyMarker="b")
    assert [version["Key"] for version in after["Versions"]] == ["c/1", "c/2"]
    with refused("InvalidArgument", 400):
        s3.list_object_versions(Bucket=bucket, VersionIdMarker=expected[0][1])
    with refused("InvalidArgument", 400):
        s3.list_object_versions(Bucket=bucket, KeyMarker="b", VersionIdMarker="no such form")


def test_every_put_makes_a_version(s3: BaseClient, bucket: str, switch: Switch) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=b"before")
    switch("Enabled")
    ids = [s3.put_object(Bucket=bucket, Key="key", Body=b"%d" % number)["VersionId"] for number in range(3)]
    assert len(set(ids)) == 3
    got = s3.get_object(Bucket=bucket, Key="key")
    assert (got["Body"].read(), got["VersionId"]) == (b"2", ids[2])
    for number, version in enumerate(ids):
        got = s3.get_object(Bucket=bucket, Key="key", VersionId=version)
        assert (got["Body"].read(), got["VersionId"]) == (b"%d" % number, version)
    assert s3.get_object(Bucket=bucket, Key="key", VersionId="null")["Body"].read() == b"before"
    assert len(s3.list_objects_v2(Bucket=bucket)["Contents"]) == 1


def test_a_delete_marker_hides_and_uncovers(s3: BaseClient, bucket: str, switch: Switch) -> None:
    switch("Enabled")
    version = s3.put_object(Bucket=bucket, Key="key", Body=b"x")["VersionId"]
    deleted = s3.delete_object(Bucket=bucket, Key="key")
    assert deleted["DeleteMarker"] is True
    marker = deleted["VersionId"]
    with refused("NoSuchKey", 404) as said:
        s3.get_object(Bucket=bucket, Key="key")
    assert said["Headers"]["x-amz-delete-marker"] == "true"
    assert said["Headers"]["x-amz-version-id"] == marker
    with refused("404", 404) as said:
        s3.head_object(Bucket=bucket, Key="key")
    assert said["Headers"]["x-amz-delete-marker"] == "true"
    with refused("MethodNotAllowed", 405) as said:
        s3.get_object(Bucket=bucket, Key="key", VersionId=marker)
    assert (said["Headers"]["allow"], said["Headers"]["x-amz-delete-marker"]) == ("DELETE", "true")
    assert "last-modified" in said["Headers"]
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)
    with refused("BucketNotEmpty", 409):
        s3.delete_bucket(Bucket=bucket)
    with refused("NoSuchKey", 404):
        s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/key")
    with refused("InvalidRequest", 400):
        s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/key?versionId={marker}")
    s3.put_object(Bucket=bucket, Key="other", Body=b"", IfNoneMatch="*")
    removed = s3.delete_object(Bucket=bucket, Key="key", VersionId=marker)
    assert (removed["DeleteMarker"], removed["VersionId"]) == (True, marker)
    assert s3.get_object(Bucket=bucket, Key="key")["VersionId"] == version


def test_a_marker_for_a_key_that_never_was(s3: BaseClient, bucket: str, switch: Switch) -> None:
    switch("Enabled")
    assert s3.delete_object(Bucket=bucket, Key="never")["DeleteMarker"] is True
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "also never"}]})
    (entry,) = answer["Deleted"]
    assert entry["DeleteMarker"] is True
    assert entry["DeleteMarkerVersionId"]
    again = s3.delete_objects(
        Bucket=bucket, Delete={"Objects": [{"Key": "also never", "VersionId": entry["DeleteMarkerVersionId"]}]}
    )
    assert again["Deleted"] == [{
        "Key": "also never", "VersionId": entry["DeleteMarkerVersionId"], "DeleteMarker": True,
        "DeleteMarkerVersionId": entry["DeleteMarkerVersionId"],
    }]


def test_a_version_is_removed_for_good(s3: BaseClient, bucket: str, switch: Switch) -> None:
    switch("Enabled")
    first, second = (s3.put_object(Bucket=bucket, Key="key", Body=b"%d" % number)["VersionId"] for number in range(2))
    removed = s3.delete_object(Bucket=bucket, Key="key", VersionId=second)
    assert removed["VersionId"] == second
    assert "DeleteMarker" not in removed
    assert s3.get_object(Bucket=bucket, Key="key")["VersionId"] == first
    with refused("NoSuchVersion", 404):
        s3.get_object(Bucket=bucket, Key="key", VersionId=second)
    s3.delete_object(Bucket=bucket, Key="key", VersionId=second)


def test_suspended(s3: BaseClient, bucket: str, switch: Switch) -> None:
    switch("Enabled")
    kept = s3.put_object(Bucket=bucket, Key="key", Body=b"kept")["VersionId"]
    switch("Suspended")
    for body in (b"null 1", b"null 2"):
        assert "VersionId" not in s3.put_object(Bucket=bucket, Key="key", Body=body)
    got = s3.get_object(Bucket=bucket, Key="key")
    assert (got["Body"].read(), got["VersionId"]) == (b"null 2", "null")
    deleted = s3.delete_object(Bucket=bucket, Key="key")
    assert (deleted["DeleteMarker"], deleted["VersionId"]) == (True, "null")
    with refused("NoSuchKey", 404):
        s3.get_object(Bucket=bucket, Key="key")
    with refused("MethodNotAllowed", 405):
        s3.get_object(Bucket=bucket, Key="key", VersionId="null")
    assert s3.get_object(Bucket=bucket, Key="key", VersionId=kept)["Body"].read() == b"kept"


def test_an_older_version_is_copied_back(s3: BaseClient, bucket: str, switch: Switch) -> None:
    switch("Enabled")
    first, _ = (s3.put_object(Bucket=bucket, Key="key", Body=b"%d" % number)["VersionId"] for number in range(2))
    answer = s3.copy_object(Bucket=bucket, Key="key", CopySource=f"{bucket}/key?versionId={first}")
    assert answer["CopySourceVersionId"] == first
    assert answer["VersionId"] not in ("null", first)
    assert s3.get_object(Bucket=bucket, Key="key")["Body"].read() == b"0"


def test_a_marker_counts_as_absent_for_conditions(s3: BaseClient, bucket: str, switch: Switch) -> None:
    switch("Enabled")
    etag = s3.put_object(Bucket=bucket, Key="key", Body=b"x")["ETag"]
    s3.delete_object(Bucket=bucket, Key="key")
    with refused("NoSuchKey", 404):
        s3.put_object(Bucket=bucket, Key="key", Body=b"y", IfMatch=etag)
    s3.put_object(Bucket=bucket, Key="key", Body=b"y", IfNoneMatch="*")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="mp")["UploadId"]
    part = s3.upload_part(Bucket=bucket, Key="mp", UploadId=upload, PartNumber=1, Body=b"x")["ETag"]
    done = s3.complete_multipart_upload(
        Bucket=bucket, Key="mp", UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part}]}
    )
    assert done["VersionId"] == s3.head_object(Bucket=bucket, Key="mp")["VersionId"]
