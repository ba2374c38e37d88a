"""Listings in S3's order, whose cost depends on what they return and not on what lies between.

Nouns: a *common prefix* is a key's part up to and including the first delimiter after the prefix; all keys under it are
one entry. Instead of reading them, a listing seeks to the first key that sorts after all of them (`_past`). Keys are
UTF-8, so no byte of a key is 0xFF, and raising the last byte of a text gives a bound above all that begins with it.
"""

import sqlite3
from collections.abc import Iterator
from typing import Any

from consensus.core.ids import BucketId, UploadId, VersionId
from consensus.core.model import ListedObject, Page, Upload, UploadPage
from consensus.rows import decode_attributes, decode_checksum

Database = sqlite3.Connection

_END = b"\xff"
"""Above every key."""

_SHOWN = "key, version_id, ord, modified, size, etag, checksum, storage_class, owner"

_PLAIN = f"SELECT {_SHOWN} FROM object WHERE bucket = ? AND key >= ? AND key < ? ORDER BY key LIMIT ?"

_GROUPED = """
WITH RECURSIVE walk (key) AS (
    SELECT (SELECT key FROM object WHERE bucket = :bucket AND key >= :start AND key < :end ORDER BY key LIMIT 1)
    UNION ALL
    SELECT (SELECT o.key FROM object o WHERE o.bucket = :bucket AND o.key < :end AND o.key >=
        CASE instr(substr(walk.key, :behind), :delimiter)
        WHEN 0 THEN CAST(walk.key || x'00' AS BLOB)
        ELSE CAST(substr(walk.key, 1, :length + instr(substr(walk.key, :behind), :delimiter) + :most) || :past AS BLOB)
        END
        ORDER BY o.key LIMIT 1)
    FROM walk WHERE walk.key IS NOT NULL LIMIT :limit
)
SELECT CASE instr(substr(w.key, :behind), :delimiter) WHEN 0 THEN NULL
       ELSE substr(w.key, 1, :length + instr(substr(w.key, :behind), :delimiter) + :most + 1) END,
       w.key, o.version_id, o.ord, o.modified, o.size, o.etag, o.checksum, o.storage_class, o.owner
FROM walk w LEFT JOIN object o ON o.bucket = :bucket AND o.key = w.key AND instr(substr(w.key, :behind), :delimiter) = 0
WHERE w.key IS NOT NULL
"""
"""One step of `walk` for each entry: the next key, or the first past the common prefix that the last one is under."""

_VERSIONS = f"""
SELECT {_SHOWN}, 0 AS marker FROM object WHERE bucket = :bucket AND key >= :start AND key < :end
UNION ALL
SELECT {_SHOWN}, marker FROM history WHERE bucket = :bucket AND key >= :start AND key < :end
ORDER BY 1, 3 DESC LIMIT :limit
"""


def _past(text: bytes) -> bytes:
    """The least byte string above everything that begins with `text`."""
    return text[:-1] + bytes((text[-1] + 1,)) if text else _END


def _common_prefix(key: bytes, prefix: bytes, delimiter: bytes) -> bytes | None:
    """The common prefix that a key (beginning with `prefix`) is under, if any."""
    at = key.find(delimiter, len(prefix)) if delimiter else -1
    return None if at < 0 else key[:at + len(delimiter)]


def _begin(prefix: bytes, delimiter: bytes, after: bytes) -> bytes:
    """The least key that a page may begin with: after `after`, and after the whole common prefix that it is in."""
    if after < prefix:
        return prefix
    if not after:
        return b""
    if after.startswith(prefix):
        common = _common_prefix(after, prefix, delimiter)
        if common is not None:
            return _past(common)
    return after + b"\0"


def list_objects(
    db: Database, bucket_id: BucketId, prefix: str, delimiter: str, after: str, limit: int
) -> Page:
    """Current objects whose keys begin with `prefix`, from after `after` on: at most `limit` entries."""
    raw, cut, marker = prefix.encode(), delimiter.encode(), after.encode()
    start, end = _begin(raw, cut, marker), _past(raw)
    if start >= end or limit <= 0:
        return Page((), (), None)
    if cut:
        return _page_grouped(db, bucket_id, raw, cut, start, end, limit)
    rows = db.execute(_PLAIN, (bucket_id, start, end, limit + 1)).fetchall()
    objects = tuple([_listed(row) for row in rows[:limit]])
    return Page(objects, (), objects[-1].key if len(rows) > limit else None)


def _page_grouped(
    db: Database, bucket_id: int, prefix: bytes, delimiter: bytes, start: bytes, end: bytes, limit: int
) -> Page:
    rows = db.execute(_GROUPED, {
        "bucket": bucket_id, "start": start, "end": end, "delimiter": delimiter, "behind": len(prefix) + 1,
        # A common prefix is length + instr + most + 1 bytes long: substr counts from 1 as instr does.
        "length": len(prefix), "most": len(delimiter) - 2, "past": _past(delimiter[-1:]), "limit": limit + 1,
    }).fetchall()
    objects, prefixes, last = [], [], None
    for row in rows[:limit]:
        if row[0] is None:
            last = _listed(row[1:])
            objects.append(last)
        else:
            prefixes.append(row[0].decode())
    more = len(rows) > limit
    final = rows[limit - 1] if more else None
    return Page(tuple(objects), tuple(prefixes), (final[0] or final[1]).decode() if final else None)


def _listed(row: tuple[Any, ...], marker: bool = False, latest: bool = True) -> ListedObject:
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
    raw, cut, marker = prefix.encode(), delimiter.encode(), key_marker.encode()
    start, end = _begin(raw, cut, marker), _past(raw)
    if limit <= 0:
        return Page((), (), None)
    entries: Iterator[tuple[bytes | None, tuple[Any, ...]]]
    below = None
    if version_marker and marker.startswith(raw) and not _common_prefix(marker, raw, cut):
        below = _order_of(db, bucket_id, marker, version_marker)
        start = marker
    entries = _version_entries(db, bucket_id, raw, cut, start, end, limit + 1, marker, below)
    objects: list[ListedObject] = []
    prefixes: list[str] = []
    last: tuple[str, VersionId | None] | None = None
    for common, row in entries:
        if len(objects) + len(prefixes) == limit:
            assert last is not None
            return Page(tuple(objects), tuple(prefixes), *last)
        if common is not None:
            prefixes.append(common.decode())
            last = prefixes[-1], None
        else:
            objects.append(_listed(row[:9], bool(row[9]), row[10]))
            last = objects[-1].key, objects[-1].version_id
    return Page(tuple(objects), tuple(prefixes), None)


def _order_of(db: Database, bucket_id: int, key: bytes, version_id: VersionId) -> int | None:
    row = db.execute(
        "SELECT ord FROM object WHERE bucket = ?1 AND key = ?2 AND version_id = ?3"
        " UNION ALL SELECT ord FROM history WHERE bucket = ?1 AND key = ?2 AND version_id = ?3",
        (bucket_id, key, version_id),
    ).fetchone()
    return None if row is None else row[0]


def _version_entries(
    db: Database, bucket_id: int, prefix: bytes, delimiter: bytes, start: bytes, end: bytes, limit: int, marker: bytes,
    below: int | None,
) -> Iterator[tuple[bytes | None, tuple[Any, ...]]]:
    """(common prefix, row) in order, at most `limit`; rows end in whether they are their key's latest.

    `below`: of the key `marker`, only versions older than this order.
    """
    left, previous = limit, None
    if below is not None:
        previous = marker
        for row in _older(db, bucket_id, marker, below, left):
            yield None, (*row, False)
            left -= 1
        start = marker + b"\0"
    while left > 0 and start < end:
        jump = None
        rows = db.execute(_VERSIONS, {"bucket": bucket_id, "start": start, "end": end, "limit": left}).fetchall() \
            if not delimiter else _until_common(db, bucket_id, prefix, delimiter, start, end, left)
        for row in rows:
            common = _common_prefix(row[0], prefix, delimiter)
            if common is not None:
                yield common, ()
                left -= 1
                jump = _past(common)
                break
            yield None, (*row, row[0] != previous)
            previous = row[0]
            left -= 1
        if jump is None:
            return
        start = jump


def _until_common(
    db: Database, bucket_id: int, prefix: bytes, delimiter: bytes, start: bytes, end: bytes, limit: int
) -> list[tuple[Any, ...]]:
    """Rows up to the first that is under a common prefix, it included. SQLite merges lazily: nothing more is read."""
    cursor = db.execute(_VERSIONS, {"bucket": bucket_id, "start": start, "end": end, "limit": limit})
    rows = []
    for row in cursor:
        rows.append(row)
        if _common_prefix(row[0], prefix, delimiter) is not None:
            break
    cursor.close()      # a half-read cursor would pin the transaction's snapshot
    return rows


def _older(db: Database, bucket_id: int, key: bytes, below: int, limit: int) -> list[tuple[Any, ...]]:
    return db.execute(
        f"SELECT {_SHOWN}, marker FROM history WHERE bucket = ? AND key = ? AND ord < ? ORDER BY ord DESC LIMIT ?",
        (bucket_id, key, below, limit),
    ).fetchall()


# Uploads

_UPLOADS = (
    "SELECT key, upload_id, initiated, ord, attributes, owner, algorithm, kind FROM upload"
    " WHERE bucket = ? AND (key, upload_id) > (?, ?) AND key < ? ORDER BY key, upload_id LIMIT ?"
)


def list_uploads(
    db: Database, bucket_id: BucketId, prefix: str, delimiter: str, key_marker: str, upload_marker: UploadId | None,
    limit: int,
) -> UploadPage:
    """Uploads in progress, by key and then by upload id (ids are random, so this is a fixed order, and pages join).

    With a key marker alone, only greater keys; with both, also that key's uploads with greater ids.
    """
    raw, cut, marker = prefix.encode(), delimiter.encode(), key_marker.encode()
    end = _past(raw)
    start, id = _begin(raw, cut, marker), ""
    if marker and upload_marker and marker.startswith(raw) and not _common_prefix(marker, raw, cut):
        start, id = marker, upload_marker
    found: list[Upload] = []
    prefixes: list[str] = []
    last: tuple[str, UploadId | None] | None = None
    while start < end and limit > 0:
        jump = None
        cursor = db.execute(_UPLOADS, (bucket_id, start, id, end, limit + 1 - len(found) - len(prefixes)))
        for row in cursor:
            if len(found) + len(prefixes) == limit:
                cursor.close()
                assert last is not None
                return UploadPage(tuple(found), tuple(prefixes), *last)
            common = _common_prefix(row[0], raw, cut)
            if common is not None:
                prefixes.append(common.decode())
                last = prefixes[-1], None
                jump = _past(common)
                break
            found.append(_upload(bucket_id, row))
            last = found[-1].key, found[-1].upload_id
        cursor.close()
        if jump is None:
            break
        start, id = jump, ""
    return UploadPage(tuple(found), tuple(prefixes), None, None)


def _upload(bucket_id: BucketId, row: tuple[Any, ...]) -> Upload:
    key, upload_id, initiated, order, attributes, owner, algorithm, kind = row
    return Upload(bucket=bucket_id, key=key.decode(), upload_id=upload_id, initiated_ms=initiated, order=order,
                  attributes=decode_attributes(attributes), owner=owner, checksum_algorithm=algorithm,
                  checksum_kind=kind)
