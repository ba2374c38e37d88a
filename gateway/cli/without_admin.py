"""Lists, looks and deletes over S3 itself, for users who are no admins: what they may see of their own buckets.

The answers have the form of the admin API's, so commands show them alike; what only a keeper may know (chunks and nodes) is
left out.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from gateway.admin import values
from gateway.cli.connection import Connection
from gateway.cli.keys import CommandError
from gateway.cli.s3 import Place, client, explained, versioned

Value = TypeVar("Value")


def either(admin: Callable[[], Value], user: Callable[[], Value]) -> Value:
    """The admin API's answer, or S3's if this key is not an admin's."""
    try:
        return admin()
    except CommandError as error:
        if error.code != "AccessDenied":
            raise
    return user()


def objects(server: Connection, where: Place, delimiter: str) -> Iterator[values.ObjectList]:
    s3 = client(server)
    asked: dict[str, Any] = {"Bucket": where.bucket, "Prefix": where.key, "Delimiter": delimiter}
    while True:
        with explained(server, where):
            page = s3.list_objects_v2(**asked)
        yield values.ObjectList(
            objects=[values.ObjectEntry(key=entry["Key"], size=entry["Size"], etag=entry["ETag"].strip('"'),
                                        modified=entry["LastModified"].isoformat(), storage_class=entry["StorageClass"])
                     for entry in page.get("Contents", ())],
            prefixes=[each["Prefix"] for each in page.get("CommonPrefixes", ())], next="")
        if not page["IsTruncated"]:
            return
        asked["ContinuationToken"] = page["NextContinuationToken"]


def stat(server: Connection, where: Place, version_id: str) -> values.ObjectStat:
    with explained(server, where):
        head = client(server).head_object(Bucket=where.bucket, Key=where.key, **versioned(version_id))
    return values.ObjectStat(
        bucket=where.bucket, key=where.key, version_id=head.get("VersionId", "null"), latest=not version_id, delete_marker=False,
        size=head["ContentLength"], etag=head["ETag"].strip('"'), modified=head["LastModified"].isoformat(), owner="",
        content_type=head["ContentType"], storage_class=head.get("StorageClass", "STANDARD"), checksum="", headers={},
        metadata=head["Metadata"], part_count=0, parts=[], more_parts=False, chunks=[], more_chunks=False)


def delete(server: Connection, where: Place, version_id: str) -> values.Deleted:
    """S3 does not say whether there was anything."""
    with explained(server, where):
        gone = client(server).delete_object(Bucket=where.bucket, Key=where.key, **versioned(version_id))
    return values.Deleted(existed=True, delete_marker=gone.get("DeleteMarker", False), version_id=gone.get("VersionId", ""))
