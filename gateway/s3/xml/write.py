"""Writing S3's answers as XML, all but the listings (xml/listings.py): plain values in, bytes out.

Every key and name goes through `escape`. What we make ourselves (ETags, version ids, times, checksums) is written as it
is. ETags are stored without quotes and written with them, except by GetObjectAttributes.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gateway.s3.times import iso8601_seconds
from gateway.s3.xml.pieces import (
    BLOCK_FIELDS,
    HEAD,
    Checksum,
    Part,
    checksum_element,
    checksum_type,
    document,
    echoed_key,
    optional,
    upload_head,
    word,
)
from gateway.s3.xml.text import escape, escape_readable


class Deleted(NamedTuple):
    """One success of DeleteObjects: `version_id` as asked for; `marker_id` of the marker that was made or removed."""

    key: str
    version_id: str | None = None
    delete_marker: bool = False
    marker_id: str | None = None


class NotDeleted(NamedTuple):
    """One failure of DeleteObjects."""

    key: str
    code: str
    message: str
    version_id: str | None = None


def location(region: str) -> bytes:
    """LocationConstraint; empty for us-east-1, which the caller passes as ""."""
    return document("LocationConstraint", escape(region))


def versioning_configuration(status: str, mfa_delete: str | None = None) -> bytes:
    """`status` Enabled, Suspended, or "" when never set."""
    return document("VersioningConfiguration", optional("Status", status or None) + optional("MfaDelete", mfa_delete))


def tagging(tags: Iterable[tuple[str, str]]) -> bytes:
    """Tags in their order; none is an empty set."""
    inner = "".join(f"<Tag><Key>{escape(key)}</Key><Value>{escape(value)}</Value></Tag>" for key, value in tags)
    return document("Tagging", f"<TagSet>{inner}</TagSet>")


def policy_status(public: bool) -> bytes:
    """PolicyStatus."""
    return document("PolicyStatus", f"<IsPublic>{word(public)}</IsPublic>")


def public_access_block(switches: Iterable[bool]) -> bytes:
    """PublicAccessBlockConfiguration, the four switches in the order of the schema."""
    inner = "".join(f"<{name}>{word(on)}</{name}>" for name, on in zip(BLOCK_FIELDS, switches, strict=True))
    return document("PublicAccessBlockConfiguration", inner)


def ownership_controls(mode: str) -> bytes:
    """OwnershipControls with its one rule."""
    return document("OwnershipControls", f"<Rule><ObjectOwnership>{mode}</ObjectOwnership></Rule>")


def copy_object(*, etag: str, modified_ms: int, checksum: Checksum | None) -> bytes:
    """CopyObjectResult."""
    return document(
        "CopyObjectResult",
        f"<LastModified>{iso8601_seconds(modified_ms)}</LastModified><ETag>&quot;{etag}&quot;</ETag>"
        f"{checksum_element(checksum)}{checksum_type(checksum)}",
    )


def delete_result(results: Iterable[Deleted | NotDeleted], *, quiet: bool) -> bytes:
    """DeleteResult; `quiet` leaves out the successes."""
    entries = []
    for result in results:
        version = optional("VersionId", result.version_id)
        if isinstance(result, NotDeleted):
            entries.append(
                f"<Error><Key>{escape(result.key)}</Key>{version}<Code>{result.code}</Code>"
                f"<Message>{escape(result.message)}</Message></Error>"
            )
        elif not quiet:
            marker = "<DeleteMarker>true</DeleteMarker>" if result.delete_marker else ""
            entries.append(
                f"<Deleted><Key>{escape(result.key)}</Key>{version}{marker}"
                f"{optional('DeleteMarkerVersionId', result.marker_id)}</Deleted>"
            )
    return document("DeleteResult", "".join(entries))


class ObjectParts(NamedTuple):
    """The page of parts in GetObjectAttributes. `parts` is None when only their number is shown."""

    total: int
    parts: Sequence[Part] | None = None
    marker: int = 0
    next_marker: int = 0
    max_parts: int = 1000
    truncated: bool = False


def object_attributes(
    *,
    etag: str | None = None,
    checksum: Checksum | None = None,
    object_parts: ObjectParts | None = None,
    storage_class: str | None = None,
    size: int | None = None,
) -> bytes:
    """GetObjectAttributesResponse with what was asked for. The ETag is bare, a composite checksum has no ``-N``."""
    shown = ""
    if checksum is not None:
        shown = f"<Checksum>{checksum_element(checksum, bare=True)}{checksum_type(checksum)}</Checksum>"
    parts = ""
    if object_parts is not None:
        parts = f"<ObjectParts><PartsCount>{object_parts.total}</PartsCount>"
        if object_parts.parts is not None:
            parts += (
                f"<PartNumberMarker>{object_parts.marker}</PartNumberMarker>"
                f"<NextPartNumberMarker>{object_parts.next_marker}</NextPartNumberMarker>"
                f"<MaxParts>{object_parts.max_parts}</MaxParts>"
                f"<IsTruncated>{word(object_parts.truncated)}</IsTruncated>"
            ) + "".join(
                f"<Part><PartNumber>{part.number}</PartNumber><Size>{part.size}</Size>{checksum_element(part.checksum)}</Part>"
                for part in object_parts.parts
            )
        parts += "</ObjectParts>"
    return document(
        "GetObjectAttributesResponse",
        f"{optional('ETag', etag)}{shown}{parts}{optional('StorageClass', storage_class)}"
        f"{optional('ObjectSize', None if size is None else str(size))}",
    )


def initiate_multipart_upload(*, bucket: str, key: str, upload_id: str) -> bytes:
    """InitiateMultipartUploadResult."""
    return document("InitiateMultipartUploadResult", upload_head(bucket, key, upload_id))


def copy_part(*, etag: str, modified_ms: int, checksum: Checksum | None) -> bytes:
    """CopyPartResult."""
    return document(
        "CopyPartResult",
        f"<LastModified>{iso8601_seconds(modified_ms)}</LastModified><ETag>&quot;{etag}&quot;</ETag>{checksum_element(checksum)}",
    )


def post_response(*, url: str, bucket: str, key: str, etag: str) -> bytes:
    """PostResponse, for success_action_status 201: the one document of S3 that has no namespace besides errors."""
    return (f"{HEAD}<PostResponse><Location>{escape_readable(url)}</Location><Bucket>{bucket}</Bucket>{echoed_key(key)}"
            f"<ETag>&quot;{etag}&quot;</ETag></PostResponse>").encode()


def complete_multipart_upload(*, url: str, bucket: str, key: str, etag: str, checksum: Checksum | None) -> bytes:
    """CompleteMultipartUploadResult; `url` is the object's address."""
    return document(
        "CompleteMultipartUploadResult",
        f"<Location>{escape_readable(url)}</Location><Bucket>{bucket}</Bucket>{echoed_key(key)}"
        f"<ETag>&quot;{etag}&quot;</ETag>{checksum_element(checksum)}{checksum_type(checksum)}",
    )
