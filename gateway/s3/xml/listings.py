"""Writing listings as XML: plain values in, bytes out. F-strings, because a page of 1,000 keys is on a hot path.

Every key, prefix, marker and name goes through `escape` or, under ``encoding-type=url``, through `listing_encode`
(whose output needs no escaping). What we make ourselves (ETags, version ids, times, checksums) is written as it is.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from gateway.s3.names import listing_encode
from gateway.s3.operations import XMLNS
from gateway.s3.times import iso8601_seconds
from gateway.s3.xml.pieces import (
    HEAD,
    Checksum,
    Owner,
    OwnerOf,
    Part,
    checksum_element,
    document,
    optional,
    owner_element,
    upload_head,
    word,
)
from gateway.s3.xml.text import escape


class ListedObject(Protocol):
    @property
    def key(self) -> str: ...
    @property
    def version_id(self) -> str: ...
    @property
    def modified_ms(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def etag(self) -> str: ...
    @property
    def checksum(self) -> Checksum | None: ...
    @property
    def storage_class(self) -> str: ...
    @property
    def owner(self) -> str: ...
    @property
    def delete_marker(self) -> bool: ...
    @property
    def latest(self) -> bool: ...


Restored = Mapping[tuple[str, str], int]
"""Until when which versions, by key and version id, are restored. Those that are not in it tell nothing about that."""

_NOTHING: Restored = {}


class Attributes(Protocol):
    @property
    def storage_class(self) -> str: ...


class Upload(Protocol):
    @property
    def key(self) -> str: ...
    @property
    def upload_id(self) -> str: ...
    @property
    def initiated_ms(self) -> int: ...
    @property
    def attributes(self) -> Attributes: ...
    @property
    def owner(self) -> str: ...
    @property
    def initiator(self) -> str: ...
    @property
    def checksum_algorithm(self) -> str: ...
    @property
    def checksum_kind(self) -> str: ...


class Bucket(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def created_ms(self) -> int: ...
    @property
    def region(self) -> str: ...


def list_objects_v1(
    *,
    bucket: str,
    prefix: str,
    delimiter: str,
    marker: str,
    max_keys: int,
    encoded: bool,
    objects: Sequence[ListedObject],
    common_prefixes: Sequence[str],
    truncated: bool,
    next_marker: str | None,
    owner: OwnerOf,
    restored: Restored = _NOTHING,
) -> bytes:
    """ListBucketResult, version 1. Give `next_marker` only when there was a delimiter."""
    spell = _spelling(encoded)
    inner = (
        f"<Marker>{spell(marker)}</Marker>{optional('NextMarker', next_marker if truncated else None, spell)}"
        f"<MaxKeys>{max_keys}</MaxKeys>"
    )
    return _listing(bucket, prefix, delimiter, encoded, inner, truncated, objects, common_prefixes, owner, restored)


def list_objects_v2(
    *,
    bucket: str,
    prefix: str,
    delimiter: str,
    start_after: str,
    max_keys: int,
    encoded: bool,
    objects: Sequence[ListedObject],
    common_prefixes: Sequence[str],
    continuation_token: str | None,
    next_token: str | None,
    owner: OwnerOf | None,
    restored: Restored = _NOTHING,
) -> bytes:
    """ListBucketResult, version 2; truncated when there is a `next_token`. `owner` only for fetch-owner=true."""
    spell = _spelling(encoded)
    inner = (
        f"{optional('StartAfter', start_after or None, spell)}"
        f"{optional('ContinuationToken', continuation_token)}{optional('NextContinuationToken', next_token)}"
        f"<KeyCount>{len(objects) + len(common_prefixes)}</KeyCount><MaxKeys>{max_keys}</MaxKeys>"
    )
    truncated = next_token is not None
    return _listing(bucket, prefix, delimiter, encoded, inner, truncated, objects, common_prefixes, owner, restored)


def list_versions(
    *,
    bucket: str,
    prefix: str,
    delimiter: str,
    key_marker: str,
    version_id_marker: str,
    max_keys: int,
    encoded: bool,
    versions: Sequence[ListedObject],
    common_prefixes: Sequence[str],
    truncated: bool,
    next_key_marker: str | None,
    next_version_id_marker: str | None,
    owner: OwnerOf,
    restored: Restored = _NOTHING,
) -> bytes:
    """ListVersionsResult: versions and delete markers in their one order."""
    spell, owners = _spelling(encoded), _Owners(owner)
    entries = [
        f"<{'DeleteMarker' if v.delete_marker else 'Version'}><Key>{key}</Key>"
        f"<VersionId>{v.version_id}</VersionId><IsLatest>{word(v.latest)}</IsLatest>"
        f"<LastModified>{iso8601_seconds(v.modified_ms)}</LastModified>"
        + (
            f"{owners[v.owner]}</DeleteMarker>"
            if v.delete_marker
            else f"<ETag>&quot;{v.etag}&quot;</ETag>{_listed_checksum(v.checksum)}<Size>{v.size}</Size>"
            f"{owners[v.owner]}<StorageClass>{v.storage_class}</StorageClass></Version>"
        )
        for key, v in zip(_spelled([version.key for version in versions], encoded), versions, strict=True)
    ]
    if restored:
        _tell_restored(entries, versions, "</Version>", restored)
    return document(
        "ListVersionsResult",
        f"<Name>{bucket}</Name><Prefix>{spell(prefix)}</Prefix><KeyMarker>{spell(key_marker)}</KeyMarker>"
        f"<VersionIdMarker>{escape(version_id_marker)}</VersionIdMarker>"
        f"{optional('NextKeyMarker', next_key_marker, spell)}"
        f"{optional('NextVersionIdMarker', next_version_id_marker)}<MaxKeys>{max_keys}</MaxKeys>"
        f"{_delimiter(delimiter, encoded)}<IsTruncated>{word(truncated)}</IsTruncated>"
        f"{''.join(entries)}{_common_prefixes(common_prefixes, encoded)}",
    )


def list_buckets(
    *,
    owner: Owner,
    buckets: Iterable[Bucket],
    region: str | None,
    prefix: str = "",
    next_token: str | None = None,
) -> bytes:
    """ListAllMyBucketsResult. `region` is that of all of them, if it is to be shown."""
    where = optional("BucketRegion", region)
    entries = "".join(
        f"<Bucket><Name>{bucket.name}</Name><CreationDate>{iso8601_seconds(bucket.created_ms)}</CreationDate>{where}</Bucket>"
        for bucket in buckets
    )
    return document(
        "ListAllMyBucketsResult",
        f"{owner_element(owner)}<Buckets>{entries}</Buckets>"
        f"{optional('ContinuationToken', next_token)}{optional('Prefix', prefix or None)}",
    )


def list_parts(
    *,
    bucket: str,
    upload: Upload,
    owner: OwnerOf,
    parts: Sequence[Part],
    marker: int,
    next_marker: int,
    max_parts: int,
    truncated: bool,
) -> bytes:
    """ListPartsResult. `next_marker` is always shown: the last part's number, or 0."""
    entries = "".join(
        f"<Part><PartNumber>{part.number}</PartNumber><LastModified>{iso8601_seconds(part.modified_ms)}</LastModified>"
        f"<ETag>&quot;{part.etag}&quot;</ETag><Size>{part.size}</Size>{checksum_element(part.checksum)}</Part>"
        for part in parts
    )
    initiator = owner(upload.initiator or upload.owner)
    return document(
        "ListPartsResult",
        f"{upload_head(bucket, upload.key, upload.upload_id)}{owner_element(initiator, 'Initiator')}"
        f"{owner_element(owner(upload.owner))}"
        f"<StorageClass>{upload.attributes.storage_class}</StorageClass><PartNumberMarker>{marker}</PartNumberMarker>"
        f"<NextPartNumberMarker>{next_marker}</NextPartNumberMarker><MaxParts>{max_parts}</MaxParts>"
        f"<IsTruncated>{word(truncated)}</IsTruncated>{_upload_checksum(upload)}{entries}",
    )


def list_multipart_uploads(
    *,
    bucket: str,
    prefix: str,
    delimiter: str,
    key_marker: str,
    upload_id_marker: str,
    next_key_marker: str,
    next_upload_id_marker: str,
    max_uploads: int,
    encoded: bool,
    truncated: bool,
    uploads: Sequence[Upload],
    common_prefixes: Sequence[str],
    owner: OwnerOf,
) -> bytes:
    """ListMultipartUploadsResult. The next markers are always shown, empty when there is nothing."""
    spell = _spelling(encoded)
    owners, initiators = _Owners(owner), _Owners(owner, "Initiator")
    entries = "".join(
        f"<Upload><Key>{spell(upload.key)}</Key><UploadId>{upload.upload_id}</UploadId>"
        f"{initiators[upload.initiator or upload.owner]}{owners[upload.owner]}"
        f"<StorageClass>{upload.attributes.storage_class}</StorageClass>"
        f"<Initiated>{iso8601_seconds(upload.initiated_ms)}</Initiated>{_upload_checksum(upload)}</Upload>"
        for upload in uploads
    )
    return document(
        "ListMultipartUploadsResult",
        f"<Bucket>{bucket}</Bucket><KeyMarker>{spell(key_marker)}</KeyMarker>"
        f"<UploadIdMarker>{escape(upload_id_marker)}</UploadIdMarker>"
        f"<NextKeyMarker>{spell(next_key_marker)}</NextKeyMarker>"
        f"<NextUploadIdMarker>{escape(next_upload_id_marker)}</NextUploadIdMarker>"
        f"{optional('Prefix', prefix or None, spell)}{_delimiter(delimiter, encoded)}<MaxUploads>{max_uploads}</MaxUploads>"
        f"<IsTruncated>{word(truncated)}</IsTruncated>{entries}{_common_prefixes(common_prefixes, encoded)}",
    )


def _listing(
    bucket: str,
    prefix: str,
    delimiter: str,
    encoded: bool,
    inner: str,
    truncated: bool,
    objects: Sequence[ListedObject],
    common_prefixes: Sequence[str],
    owner: OwnerOf | None,
    restored: Restored,
) -> bytes:
    owners = _Owners(owner)
    # One list, joined once: a page is some 300 KB, and each copy of it costs more than the text of a hundred keys.
    pieces = [
        f"<Contents><Key>{key}</Key><LastModified>{iso8601_seconds(entry.modified_ms)}</LastModified>"
        f"<ETag>&quot;{entry.etag}&quot;</ETag>{_listed_checksum(entry.checksum)}<Size>{entry.size}</Size>"
        f"{owners[entry.owner]}<StorageClass>{entry.storage_class}</StorageClass></Contents>"
        for key, entry in zip(_spelled([entry.key for entry in objects], encoded), objects, strict=True)
    ]
    if restored:
        _tell_restored(pieces, objects, "</Contents>", restored)
    pieces.insert(0, (
        f'{HEAD}<ListBucketResult xmlns="{XMLNS}"><Name>{bucket}</Name><Prefix>{_spelling(encoded)(prefix)}</Prefix>'
        f"{inner}{_delimiter(delimiter, encoded)}<IsTruncated>{word(truncated)}</IsTruncated>"
    ))
    pieces.append(f"{_common_prefixes(common_prefixes, encoded)}</ListBucketResult>")
    return "".join(pieces).encode()


def _tell_restored(pieces: list[str], entries: Sequence[ListedObject], end: str, restored: Restored) -> None:
    """At the end of those that are: few listings ask for it, and the others are written without a look."""
    for place, entry in enumerate(entries):
        until_ms = restored.get((entry.key, entry.version_id))
        if until_ms is not None:
            pieces[place] = (
                f"{pieces[place].removesuffix(end)}<RestoreStatus><IsRestoreInProgress>false</IsRestoreInProgress>"
                f"<RestoreExpiryDate>{iso8601_seconds(until_ms)}</RestoreExpiryDate></RestoreStatus>{end}"
            )


class _Owners(dict[str, str]):
    """Canonical id -> its Owner element, made once a page; nothing at all without a way to find owners."""

    def __init__(self, owner: OwnerOf | None, element: str = "Owner") -> None:
        self._owner = owner
        self._element = element

    def __missing__(self, owner_id: str) -> str:
        text = "" if self._owner is None else owner_element(self._owner(owner_id), self._element)
        self[owner_id] = text
        return text


def _listed_checksum(checksum: Checksum | None) -> str:
    if checksum is None:
        return ""
    return (
        f"<ChecksumAlgorithm>{checksum.algorithm}</ChecksumAlgorithm><ChecksumType>{checksum.kind}</ChecksumType>"
    )


def _common_prefixes(prefixes: Iterable[str], encoded: bool) -> str:
    spell = _spelling(encoded)
    return "".join(f"<CommonPrefixes><Prefix>{spell(prefix)}</Prefix></CommonPrefixes>" for prefix in prefixes)


def _delimiter(delimiter: str, encoded: bool) -> str:
    echoed = optional("Delimiter", delimiter or None, _spelling(encoded))
    return f"{echoed}<EncodingType>url</EncodingType>" if encoded else echoed


_PLAIN_BYTES = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-~/"


def _spelling(encoded: bool) -> Callable[[str], str]:
    return listing_encode if encoded else escape


def _spelled(keys: list[str], encoded: bool) -> list[str]:
    """A page's keys as they are written. Looks over all of them at once: most pages need nothing."""
    every = "".join(keys)
    if encoded:
        plain = every.isascii() and not every.encode().translate(None, _PLAIN_BYTES)
    else:
        plain = escape(every) is every
    return keys if plain else list(map(_spelling(encoded), keys))


def _upload_checksum(upload: Upload) -> str:
    if not upload.checksum_algorithm:
        return ""
    return (
        f"<ChecksumAlgorithm>{upload.checksum_algorithm}</ChecksumAlgorithm>"
        f"<ChecksumType>{upload.checksum_kind}</ChecksumType>"
    )
