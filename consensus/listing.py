"""Listings in S3's order, whose cost depends on what they return and not on what lies between.

Nouns: an *entry* is a key (of an object, a version, an upload) or a *common prefix*: a key's part up to and including the
first delimiter after the prefix, one entry for all keys under it. A listing reads rows in order until it comes to a key
under a common prefix; then it *leaps* from each common prefix to the first key that sorts after all of it, in one
statement, until it comes to a plain key again. Keys are UTF-8, so no byte of a key is 0xFF, and raising the last byte of
a text gives a bound above all that begins with it.
"""

import sqlite3
from collections.abc import Iterator
from typing import Any, NamedTuple

from consensus.core.ids import BucketId, UploadId, VersionId
from consensus.core.model import ListedObject, Page, Upload, UploadPage
from consensus.rows import decode_attributes, decode_checksum

Database = sqlite3.Connection
Row = tuple[Any, ...]

_END = b"\xff"
"""Above every key."""

_SHOWN = "key, version_id, ord, modified, size, etag, checksum, storage_class, owner"


class _Kind(NamedTuple):
    """How one kind of listing reads."""

    rows: str       # in order, from :start to before :end; the first column is the key
    leap: str       # :key, then the first key past the common prefix that the last one is under, and so on


def _kind(rows: str, *tables: str) -> _Kind:
    past = "CAST(substr(walk.key, 1, :cut + instr(substr(walk.key, :behind), :delimiter)) || :past AS BLOB)"
    following = [
        f"coalesce((SELECT key FROM {table} WHERE bucket = :bucket AND key >= {past} AND key < :end"
        " ORDER BY key LIMIT 1), x'ff')"
        for table in tables
    ]
    nearest = following[0] if len(following) == 1 else f"min({', '.join(following)})"
    return _Kind(rows, f"""
        WITH RECURSIVE walk (key) AS (
            SELECT :key
            UNION ALL
            SELECT {nearest} FROM walk WHERE instr(substr(walk.key, :behind), :delimiter) > 0 LIMIT :limit
        )
        SELECT key FROM walk""")


_RANGE = "WHERE bucket = :bucket AND key >= :start AND key < :end"

_OBJECTS = _kind(f"SELECT {_SHOWN} FROM object {_RANGE} ORDER BY key LIMIT :limit", "object")

_VERSIONS = _kind(
    f"SELECT {_SHOWN}, 0 FROM object {_RANGE} UNION ALL SELECT {_SHOWN}, marker FROM history {_RANGE}"
    " ORDER BY 1, 3 DESC LIMIT :limit",       # SQLite merges the two, reading no further than it is asked to
    "object", "history",
)

_UPLOADS = _kind(
    "SELECT key, upload_id, initiated, ord, attributes, owner, algorithm, kind, initiator FROM upload"
    f" {_RANGE} ORDER BY key, upload_id LIMIT :limit",
    "upload",
)


def _past(text: bytes) -> bytes:
    """The least byte string above everything that begins with `text`."""
    return text[:-1] + bytes((text[-1] + 1,)) if text else _END


class _Range(NamedTuple):
    """What a listing is over. Keys begin with `prefix`; an empty `delimiter` groups nothing."""

    bucket: int
    prefix: bytes
    delimiter: bytes

    def common_prefix(self, key: bytes) -> bytes | None:
        """The common prefix that a key (beginning with `prefix`) is under, if any."""
        at = key.find(self.delimiter, len(self.prefix)) if self.delimiter else -1
        return None if at < 0 else key[:at + len(self.delimiter)]

    def begin(self, after: bytes) -> bytes:
        """The least key that a page may begin with: after `after`, and after the whole common prefix that it is in."""
        if after < self.prefix or not after:
            return self.prefix
        if after.startswith(self.prefix):
            common = self.common_prefix(after)
            if common is not None:
                return _past(common)
        return after + b"\0"

    def entries(self, db: Database, kind: _Kind, start: bytes, limit: int) -> Iterator[tuple[bytes | None, Row]]:
        """(common prefix, ()) or (None, row), in order from `start` on: `limit` of them, or all there are."""
        end, delimiter, behind = _past(self.prefix), self.delimiter, len(self.prefix)
        while start < end and limit > 0:
            key = b""
            cursor = db.execute(kind.rows, {"bucket": self.bucket, "start": start, "end": end, "limit": limit})
            rows = cursor.fetchall() if not delimiter else []
            if delimiter:
                for row in cursor:
                    if row[0].find(delimiter, behind) >= 0:
                        key = row[0]
                        break
                    rows.append(row)
                cursor.close()      # a half-read cursor would pin the transaction's snapshot
            for row in rows:
                yield None, row
            limit -= len(rows)
            if not key:
                return
            leaps = db.execute(kind.leap, {
                "bucket": self.bucket, "key": key, "end": end, "delimiter": delimiter, "behind": behind + 1,
                # All of a common prefix but its last byte, counted as SQLite does, and that byte raised by one.
                "cut": behind + len(delimiter) - 2, "past": _past(delimiter[-1:]), "limit": limit + 1,
            }).fetchall()
            for (start,) in leaps:
                common = self.common_prefix(start) if start != _END else None
                if common is None:
                    break           # a plain key, or the end
                yield common, ()
                limit -= 1


# Objects

def list_objects(
    db: Database, bucket_id: BucketId, prefix: str, delimiter: str, after: str, limit: int
) -> Page:
    """Current objects whose keys begin with `prefix`, from after `after` on: at most `limit` entries."""
    over = _Range(bucket_id, prefix.encode(), delimiter.encode())
    objects: list[ListedObject] = []
    prefixes: list[str] = []
    last = ""
    if limit > 0:
        for common, row in over.entries(db, _OBJECTS, over.begin(after.encode()), limit + 1):
            if len(objects) + len(prefixes) == limit:
                return Page(tuple(objects), tuple(prefixes), last)
            if common is None:
                objects.append(_listed(row))
                last = objects[-1].key
            else:
                last = common.decode()
                prefixes.append(last)
    return Page(tuple(objects), tuple(prefixes), None)


def _listed(row: Row, marker: bool = False, latest: bool = True) -> ListedObject:
    key, version_id, order, modified, size, etag, checksum, storage_class, owner = row
    return ListedObject(key.decode(), version_id, order, modified, size, etag, decode_checksum(checksum), storage_class,
                        owner, marker, latest)


# Versions

def list_versions(
    db: Database, bucket_id: BucketId, prefix: str, delimiter: str, key_marker: str, version_marker: VersionId | None,
    limit: int,
) -> Page:
    """All versions and delete markers: keys ascending, newest first within a key.

    With a version marker, the rest of the key comes first. If that version has been deleted meanwhile, the key is begun
    again: who deletes page by page must not miss the older ones.
    """
    over, marker = _Range(bucket_id, prefix.encode(), delimiter.encode()), key_marker.encode()
    older: list[Row] = []
    start, previous = over.begin(marker), b""
    if version_marker and marker.startswith(over.prefix) and over.common_prefix(marker) is None:
        below = _order_of(db, bucket_id, marker, version_marker)
        if below is None:
            start = marker
        else:
            older, previous = _older(db, bucket_id, marker, below, limit + 1), marker
    objects: list[ListedObject] = []
    prefixes: list[str] = []
    last: tuple[str, VersionId | None] = "", None
    if limit > 0:
        for common, row in _after(older, over.entries(db, _VERSIONS, start, limit + 1)):
            if len(objects) + len(prefixes) == limit:
                return Page(tuple(objects), tuple(prefixes), *last)
            if common is None:
                objects.append(_listed(row[:9], bool(row[9]), row[0] != previous))
                previous, last = row[0], (objects[-1].key, objects[-1].version_id)
            else:
                prefixes.append(common.decode())
                last = prefixes[-1], None
    return Page(tuple(objects), tuple(prefixes), None)


def _after(
    first: list[Row], entries: Iterator[tuple[bytes | None, Row]]
) -> Iterator[tuple[bytes | None, Row]]:
    for row in first:
        yield None, row
    yield from entries


def _order_of(db: Database, bucket_id: int, key: bytes, version_id: VersionId) -> int | None:
    row = db.execute(
        "SELECT ord FROM object WHERE bucket = ?1 AND key = ?2 AND version_id = ?3"
        " UNION ALL SELECT ord FROM history WHERE bucket = ?1 AND key = ?2 AND version_id = ?3",
        (bucket_id, key, version_id),
    ).fetchone()
    return None if row is None else row[0]


def _older(db: Database, bucket_id: int, key: bytes, below: int, limit: int) -> list[Row]:
    """Versions of a key that are older than `below`: never its object row, which is the newest."""
    return db.execute(
        f"SELECT {_SHOWN}, marker FROM history WHERE bucket = ? AND key = ? AND ord < ? ORDER BY ord DESC LIMIT ?",
        (bucket_id, key, below, limit),
    ).fetchall()


# Uploads

def uploads(
    db: Database, bucket_id: BucketId, prefix: str, delimiter: str, key_marker: str, upload_marker: UploadId | None,
    limit: int,
) -> UploadPage:
    """Uploads in progress, by key and then by upload id (a fixed order, so pages join).

    With a key marker alone, only greater keys; with both, also that key's uploads with greater ids.
    """
    over, marker = _Range(bucket_id, prefix.encode(), delimiter.encode()), key_marker.encode()
    rest: list[Row] = []
    if marker and upload_marker and marker.startswith(over.prefix) and over.common_prefix(marker) is None:
        rest = db.execute(
            "SELECT key, upload_id, initiated, ord, attributes, owner, algorithm, kind, initiator FROM upload"
            " WHERE bucket = ? AND key = ? AND upload_id > ? ORDER BY upload_id LIMIT ?",
            (bucket_id, marker, upload_marker, limit + 1),
        ).fetchall()
    uploads: list[Upload] = []
    prefixes: list[str] = []
    last: tuple[str, UploadId | None] = "", None
    if limit > 0:
        for common, row in _after(rest, over.entries(db, _UPLOADS, over.begin(marker), limit + 1)):
            if len(uploads) + len(prefixes) == limit:
                return UploadPage(tuple(uploads), tuple(prefixes), *last)
            if common is None:
                uploads.append(_upload(bucket_id, row))
                last = uploads[-1].key, uploads[-1].upload_id
            else:
                prefixes.append(common.decode())
                last = prefixes[-1], None
    return UploadPage(tuple(uploads), tuple(prefixes), None, None)


def _upload(bucket_id: BucketId, row: Row) -> Upload:
    key, upload_id, initiated, order, attributes, owner, algorithm, kind, initiator = row
    return Upload(bucket=bucket_id, key=key.decode(), upload_id=upload_id, initiated_ms=initiated, order=order,
                  attributes=decode_attributes(attributes), owner=owner, checksum_algorithm=algorithm,
                  checksum_kind=kind, initiator=initiator)
