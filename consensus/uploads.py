"""Multipart uploads and their parts, also those of objects that were made of parts, read. Parts of consensus.queries."""

import sqlite3
from typing import Any

from consensus.core.ids import NULL_VERSION, BucketId, ContentId, UploadId
from consensus.core.model import Part, Upload
from consensus.rows import damaged, decode_attributes, decode_checksum, decode_pairs, part_seal

Database = sqlite3.Connection


def upload(db: Database, bucket_id: BucketId, key: str, upload_id: UploadId) -> Upload | None:
    """An upload in progress, or one that was completed within the last day."""
    at = (bucket_id, key.encode(), upload_id)
    named = "WHERE bucket = ? AND key = ? AND upload_id = ?"
    row = db.execute(
        f"SELECT initiated, ord, attributes, owner, algorithm, kind, NULL, '', NULL, initiator, said FROM upload {named}", at
    ).fetchone()
    done = row is None
    if done:
        row = db.execute(
            "SELECT initiated, ord, attributes, owner, algorithm, kind, version_id, etag, checksum, '', said"
            f" FROM completed {named}",
            at,
        ).fetchone()
        if row is None:
            return None
    return Upload(
        bucket=bucket_id, key=key, upload_id=upload_id, initiated_ms=row[0], order=row[1],
        attributes=decode_attributes(row[2]), owner=row[3], checksum_algorithm=row[4], checksum_kind=row[5],
        completed_version=(row[6] or NULL_VERSION) if done else None, completed_etag=row[7],
        completed_checksum=decode_checksum(row[8]), initiator=row[9], said=decode_pairs(row[10]),
    )


def parts(
    db: Database, bucket_id: BucketId, key: str, upload_id: UploadId, after: int = 0, limit: int = 1000
) -> list[Part]:
    """The finished parts of an upload in progress, from the one after number `after`."""
    row = db.execute("SELECT ord FROM upload WHERE bucket = ? AND key = ? AND upload_id = ?",
                     (bucket_id, key.encode(), upload_id)).fetchone()
    if row is None:
        return []
    rows = db.execute(
        "SELECT number, content, size, etag, modified, checksum, crc, 0 FROM part WHERE upload = ? AND number > ?"
        " ORDER BY number LIMIT ?",
        (row[0], after, limit),
    ).fetchall()
    return [_part(row[0], found) for found in rows]


def object_parts(db: Database, content_id: ContentId, after: int = 0, limit: int = 1000) -> list[Part]:
    """The parts of a completed object, from the one after number `after`. Empty if it wasn't made by multipart."""
    rows = db.execute(
        f"SELECT {_CONTENT_PART} FROM content_part WHERE content = ? AND number > ? ORDER BY number LIMIT ?",
        (content_id, after, limit),
    ).fetchall()
    return [_part(content_id, row) for row in rows]


def part_of(db: Database, content_id: ContentId, number: int) -> Part | None:
    """The part with that number, as it was uploaded, of a completed object."""
    row = db.execute(f"SELECT {_CONTENT_PART} FROM content_part WHERE content = ? AND number = ?",
                     (content_id, number)).fetchone()
    return None if row is None else _part(content_id, row)


_CONTENT_PART = "number, part_content, size, etag, modified, checksum, crc, start"


def _part(owner: int, row: tuple[Any, ...]) -> Part:
    number, content, size, etag, modified, checksum, crc, start = row
    if crc != part_seal(owner, number, content, size, etag, checksum):
        raise damaged(f"part {number} of {owner}")
    return Part(number=number, size=size, etag=etag, modified_ms=modified, content=content,
                checksum=decode_checksum(checksum), start=start)
