"""Buckets and what is set for them, read. Parts of consensus.queries."""

import sqlite3
from typing import Any

from consensus.core.ids import BucketId
from consensus.core.model import Bucket, Quota
from consensus.tables import columns_of

Database = sqlite3.Connection

BUCKET_COLUMNS = (
    "id, name, account, owner, created, region, versioning, objects, bytes, copies, replication, access, lifecycle,"
    " uploading, objects_max, bytes_max, events"
)

BUCKETS_KNOWN_MAX = 4096
"""Kept with one connection; 2 MB."""


class KnowingBuckets(sqlite3.Connection):
    """A connection that keeps what rows of `bucket` stand for: each request needs one, and they hardly change. Number of
    changes and bucket, by id."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.buckets: dict[BucketId, tuple[int, Bucket]] = {}


def bucket(db: Database, name: str) -> Bucket | None:
    """Its counters may be as old as its last other change: `bucket_counted` has them."""
    if isinstance(db, KnowingBuckets):
        row = db.execute("SELECT id, changed FROM bucket WHERE name = ?", (name,)).fetchone()
        if row is None:
            return None
        known = db.buckets.get(row[0])
        if known is not None and known[0] == row[1]:
            return known[1]
    return bucket_counted(db, name)


def bucket_counted(db: Database, name: str) -> Bucket | None:
    row = db.execute(f"SELECT {BUCKET_COLUMNS}, changed FROM bucket WHERE name = ?", (name,)).fetchone()
    if row is None:
        return None
    found = _bucket(row)
    if isinstance(db, KnowingBuckets):
        if len(db.buckets) >= BUCKETS_KNOWN_MAX:
            db.buckets.clear()
        db.buckets[found.id] = row[-1], found
    return found


def bucket_setting(db: Database, bucket_id: BucketId, name: str) -> bytes | None:
    """What was set for the bucket under that name."""
    row = db.execute(
        "SELECT document FROM bucket_setting WHERE bucket = ? AND name = ?", (bucket_id, name)).fetchone()
    return None if row is None else row[0]


def bucket_settings(db: Database, bucket_id: BucketId, beginning: str) -> tuple[int, list[tuple[str, bytes]]]:
    """The bucket's `access`, and its settings whose names (ASCII) begin so: what moves it and what it stands for."""
    row = db.execute("SELECT access FROM bucket WHERE id = ?", (bucket_id,)).fetchone()
    found = db.execute("SELECT name, document FROM bucket_setting WHERE bucket = ? AND name >= ? AND name < ?",
                       (bucket_id, beginning, beginning + "\x7f")).fetchall()
    return (0 if row is None else row[0]), found


def settings_page(
    db: Database, bucket_id: BucketId, beginning: str, after: str, limit: int,
) -> list[tuple[str, bytes]]:
    """The bucket's settings whose names (ASCII) begin so and come after `after`, in order of name."""
    return db.execute(
        "SELECT name, document FROM bucket_setting WHERE bucket = ? AND name >= ? AND name > ? AND name < ?"
        " ORDER BY name LIMIT ?", (bucket_id, beginning, after, beginning + "\x7f", limit)).fetchall()


def settings_named(db: Database, name: str, after: BucketId, limit: int) -> list[tuple[Bucket, bytes]]:
    """Buckets that have such a setting, of all accounts, in order of their ids; and the setting."""
    rows = db.execute(
        f"SELECT {columns_of('b', BUCKET_COLUMNS)}, s.document FROM bucket_setting AS s JOIN bucket AS b ON b.id = s.bucket"
        " WHERE s.name = ? AND s.bucket > ? ORDER BY s.bucket LIMIT ?", (name, after, limit)).fetchall()
    return [(_bucket(row[:-1]), row[-1]) for row in rows]


def buckets(db: Database, account: str | None, prefix: str = "", after: str = "", limit: int = 1000) -> list[Bucket]:
    """In order of name; of one account, or of all."""
    # Names are ASCII, so no name sorts above prefix + U+10FFFF.
    bounds = (max(prefix, after), after, prefix + "\U0010ffff", limit)
    where = "name >= ? AND name > ? AND name < ? ORDER BY name LIMIT ?"
    if account is None:
        rows = db.execute(f"SELECT {BUCKET_COLUMNS} FROM bucket WHERE {where}", bounds)
    else:
        rows = db.execute(f"SELECT {BUCKET_COLUMNS} FROM bucket WHERE account = ? AND {where}", (account, *bounds))
    return [_bucket(row) for row in rows.fetchall()]


def _bucket(row: tuple[Any, ...]) -> Bucket:
    return Bucket(id=row[0], name=row[1], account=row[2], owner=row[3], created_ms=row[4], region=row[5],
                  versioning=row[6], object_count=row[7], byte_count=row[8], copies=row[9], replication=row[10],
                  access=row[11], lifecycle=row[12], upload_bytes=row[13],
                  quota=None if row[14] is None and row[15] is None else Quota(row[14], row[15]), events=row[16] != 0)
