"""What several operations say in the same way: documents, checksums, version ids."""

from consensus.core.ids import NULL_VERSION, VersionId
from consensus.core.model import Bucket, Checksum
from gateway.s3 import names
from gateway.s3.body import checksums
from gateway.s3.reply import XML, Reply
from gateway.s3.request import S3Request

Headers = list[tuple[str, str]]


def xml(body: bytes, headers: Headers | None = None) -> Reply:
    return Reply(headers=[("content-type", XML), *(headers or ())], body=body)


def object_url(request: S3Request) -> str:
    """Where the object of the request is, as the client addressed it. The key is in one piece: AWS encodes its slashes too."""
    path = names.uri_encode(request.key.encode())
    place = path if request.host_style else f"{request.bucket}/{path}"
    return f"{'https' if request.secure else 'http'}://{request.headers.get('host', '')}/{place}"


def checksum_headers(checksum: Checksum | None, *, kind: bool = True) -> Headers:
    """`kind`: with x-amz-checksum-type, which parts don't have."""
    if checksum is None:
        return []
    headers = checksums.response_headers(checksums.Checksum(*checksum))
    return headers if kind else headers[:1]


def written_version(version_id: VersionId | None) -> Headers:
    """After a write: no version id in a bucket never versioned, and none while versioning is suspended (recorded)."""
    return [] if version_id is None or version_id == NULL_VERSION else [("x-amz-version-id", version_id)]


def read_version(bucket: Bucket, version_id: VersionId) -> Headers:
    """On a read: "null" too, once the bucket was ever versioned."""
    return [("x-amz-version-id", version_id)] if bucket.versioning else []
