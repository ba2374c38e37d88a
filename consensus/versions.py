"""Versions, and what of their bytes is where, read. Parts of consensus.queries."""

import sqlite3
from typing import Any, NamedTuple

from consensus import slices as located_slices
from consensus.buckets import KnowingBuckets, bucket
from consensus.core.errors import Corrupt
from consensus.core.ids import BucketId, ContentId, VersionId
from consensus.core.model import Bucket, LocatedSlice, ObjectVersion
from consensus.rows import (
    INLINE,
    PARTS,
    SLICE_BYTES,
    content_seal,
    damaged,
    decode_attributes,
    decode_checksum,
    unpack_slice,
    version_seal,
)
from consensus.slices import node_names
from consensus.tables import VERSION_COLUMNS, columns_of

Database = sqlite3.Connection

SLICES_PER_CALL_MAX = 256
"""One call stays near a millisecond; who wants more calls again."""

_OBJECT = f"SELECT {VERSION_COLUMNS} FROM object WHERE bucket = ? AND key = ?"


def current(db: Database, bucket_id: BucketId, key: str) -> ObjectVersion | None:
    """The newest version of a key. A delete marker is answered as such; None: there never was one, or all are gone."""
    raw = key.encode()
    row = db.execute(_OBJECT, (bucket_id, raw)).fetchone()
    if row is not None:
        return _version(key, raw, row)
    return _newest_marker(db, bucket_id, key, raw)


def _newest_marker(db: Database, bucket_id: BucketId, key: str, raw: bytes) -> ObjectVersion | None:
    row = db.execute(
        f"SELECT {VERSION_COLUMNS} FROM history WHERE bucket = ? AND key = ? ORDER BY ord DESC LIMIT 1",
        (bucket_id, raw),
    ).fetchone()
    return None if row is None else _version(key, raw, row)


def version(db: Database, bucket_id: BucketId, key: str, version_id: VersionId) -> ObjectVersion | None:
    raw = key.encode()
    newest = db.execute(_OBJECT, (bucket_id, raw)).fetchone()
    if newest is not None and newest[1] == version_id:
        return _version(key, raw, newest)
    row = db.execute(
        f"SELECT {VERSION_COLUMNS} FROM history WHERE bucket = ? AND key = ? AND version_id = ?"
        " ORDER BY ord DESC LIMIT 1",
        (bucket_id, raw, version_id),
    ).fetchone()
    if row is None:
        return None
    latest = newest is None and not db.execute(
        "SELECT 1 FROM history WHERE bucket = ? AND key = ? AND ord > ? LIMIT 1", (bucket_id, raw, row[0])
    ).fetchone()
    return _version(key, raw, row, latest)


def _version(key: str, raw: bytes, row: tuple[Any, ...], latest: bool = True) -> ObjectVersion:
    order, version_id, modified, content, size, etag, checksum, part_count, _, owner, attributes, crc = row
    if crc != version_seal(
        raw, order, version_id, modified, content, size, etag, checksum, part_count, owner, attributes
    ):
        raise damaged(f"version {version_id} of key {key!r}")
    return ObjectVersion(
        key=key, version_id=version_id, order=order, modified_ms=modified, delete_marker=not content, latest=latest,
        content=content, size=size, etag=etag, checksum=decode_checksum(checksum), part_count=part_count,
        attributes=decode_attributes(attributes), owner=owner,
    )


_OPENED = f"""
SELECT {columns_of("o", VERSION_COLUMNS)},
       c.kind, c.size, c.etag, c.parts, c.slices, c.crc,
       k.digest, k.session, k.sequence, k.size, k.locations, k.crc,
       (SELECT v FROM meta WHERE k = 'nodes'),
       b.id, b.changed
FROM bucket b LEFT JOIN object o ON o.bucket = b.id AND o.key = ?2 LEFT JOIN content c ON c.id = o.content
     LEFT JOIN chunk k ON k.digest = substr(c.slices, 1, 32)
WHERE b.name = ?1
"""
"""A bucket's state, the current object of a key, its content and its first chunk: all that a small GET needs, at once."""


def opened_at_once(
    db: Database, bucket_name: str, key: str
) -> tuple[Bucket | None, ObjectVersion | None, list[LocatedSlice]] | None:
    """What `opened` answers, if one statement can tell it: for small objects of buckets that this connection knows. None: ask
    `opened`."""
    raw = key.encode()
    row = db.execute(_OPENED, (bucket_name, raw)).fetchone()
    if row is None:
        return None, None, []
    version: ObjectVersion | None = None
    located: list[LocatedSlice] = []
    if row[0] is not None:
        version = _version(key, raw, row[:12])
        kind, size, etag, part_count, packed, crc = row[12:18]
        if kind is None or crc != content_seal(version.content, kind, size, etag, part_count, packed):
            raise damaged(f"content {version.content}")
        if kind == INLINE and len(packed) == SLICE_BYTES:      # the usual small object
            located = [located_slices.locate(unpack_slice(packed), row[18:24], node_names(row[24]))]
        elif size:
            return None
    known = db.buckets.get(row[25]) if isinstance(db, KnowingBuckets) else None
    if known is None or known[0] != row[26] or (version is None and known[1].versioning):
        return None
    return known[1], version, located


def opened(
    db: Database, bucket_name: str, key: str, limit_slices: int = 4
) -> tuple[Bucket | None, ObjectVersion | None, list[LocatedSlice]]:
    """The bucket, the key's current version (or delete marker), and its first slices."""
    found = opened_at_once(db, bucket_name, key)
    if found is not None:
        return found
    within = bucket(db, bucket_name)
    assert within is not None
    version = current(db, within.id, key)
    if version is None or not version.size:
        return within, version, []
    return within, version, slices(db, version.content, 0, version.size, limit_slices)


# Contents

def slices(
    db: Database, content_id: ContentId, start: int, length: int, limit: int = SLICES_PER_CALL_MAX
) -> list[LocatedSlice]:
    """The slices of `length` bytes from `start`, cut to that range, at most `limit` (256) of them: the caller goes on
    after what it got. Empty: the content is gone, or ends before `start`."""
    found: list[LocatedSlice] = []
    names = node_names(db.execute("SELECT v FROM meta WHERE k = 'nodes'").fetchone())
    try:
        located_slices.collect(db, content_id, start, start + length, min(limit, SLICES_PER_CALL_MAX), names, found)
    except Corrupt:
        row = db.execute("SELECT refs FROM content WHERE id = ?", (content_id,)).fetchone()
        if row is not None and row[0]:
            raise
        return []                     # it is being taken apart, from its end: no damage, it is as good as gone
    return found


class Shape(NamedTuple):
    """How long a content's list of slices is, parts counted as very many; and whether it may grow: it is in pages, and one
    version alone refers to it."""

    slices: int
    grows: bool


LONG = 1 << 30


def shape(db: Database, content_id: ContentId) -> Shape:
    """Looks at a few rows only: a list of more than `SLICES_PER_CALL_MAX` pages is long, whatever is in them."""
    row = db.execute("SELECT refs, kind, length(slices) FROM content WHERE id = ?", (content_id,)).fetchone()
    if row is None or row[1] == PARTS:
        return Shape(LONG, False)
    if row[1] == INLINE:
        return Shape(row[2] // SLICE_BYTES, False)
    pages = db.execute("SELECT length(slices) FROM piece WHERE content = ? LIMIT ?",
                       (content_id, SLICES_PER_CALL_MAX)).fetchall()
    many = len(pages) == SLICES_PER_CALL_MAX
    return Shape(LONG if many else sum(page for (page,) in pages) // SLICE_BYTES, row[0] == 1)


def restored(db: Database, bucket_id: BucketId, named: list[tuple[str, VersionId]]) -> list[int]:
    """Until when these versions, by key and version id, are restored from an archive, one answer each in their order; 0 for one
    that never was, or is not there."""
    found = [version(db, bucket_id, key, version_id) for key, version_id in named]
    return [0 if each is None else each.attributes.restored_ms for each in found]


class RenamedBefore(NamedTuple):
    fingerprint: bytes
    version_id: VersionId | None


def renamed(db: Database, bucket_id: BucketId, token: str) -> RenamedBefore | None:
    """The rename that came with this token of a client's, within a day."""
    row = db.execute("SELECT fingerprint, version_id FROM renamed WHERE bucket = ? AND token = ?", (bucket_id, token)).fetchone()
    return None if row is None else RenamedBefore(*row)
