"""Versions as far as they exist already: reading, deleting and copying by version id (S3_SEMANTICS §8, §10, §14).

Versioning cannot be switched by a client yet, so the tests switch it in the log.
"""

from collections.abc import Callable

import pytest
from botocore.client import BaseClient

from consensus.core.commands import SetVersioning
from consensus.core.results import Done
from tests.s3.errors import refused
from tests.s3.in_process import InProcess

Switch = Callable[[str], None]


@pytest.fixture
def switch(server: InProcess, bucket: str) -> Switch:
    def to(status: str) -> None:
        async def commit() -> None:
            found = await server.metadata.bucket(bucket)
            assert found is not None
            outcome = await server.metadata.commit(SetVersioning(bucket=found.id, status=status))
            assert isinstance(outcome, Done)

        server.run(commit())

    return to


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
