"""What whoever carries out lifecycles asks: which buckets have one, and page by page what is in them, as the rules look at it.

Parts of consensus.queries. Pages come in the order of listings, older versions after newer ones, so that of each version it
is known what came after it: a version is *noncurrent* since then.
"""

import sqlite3
from typing import Any

from consensus.core.ids import BucketId, UploadId, VersionId
from consensus.core.model import Pairs, Value
from consensus.rows import decode_attributes

Database = sqlite3.Connection

ROWS_MAX = 1000


class LifecycleBucket(Value, frozen=True, kw_only=True):
    """A bucket with a lifecycle, and the two settings that its owner's rules and the state of the last look are kept in."""

    id: BucketId
    name: str
    lifecycle: int
    versioning: str


class Looked(Value, frozen=True, kw_only=True):
    """A version or delete marker. `tags` only where they were asked for."""

    key: str
    order: int
    version_id: VersionId
    modified_ms: int
    size: int
    storage_class: str
    current: bool                 # its row is the current object's: a marker never is, newest or not
    marker: bool
    tags: Pairs = ()
    seal: int = 0                 # of its row: another one once its tags are


class LookedUpload(Value, frozen=True, kw_only=True):
    key: str
    upload_id: UploadId
    order: int
    initiated_ms: int


def lifecycle_buckets(db: Database, after: int = 0, limit: int = ROWS_MAX) -> list[LifecycleBucket]:
    """In the order in which they were made."""
    rows = db.execute("SELECT id, name, lifecycle, versioning FROM bucket WHERE lifecycle <> 0 AND id > ? ORDER BY id LIMIT ?",
                      (after, min(limit, ROWS_MAX))).fetchall()
    return [LifecycleBucket(id=row[0], name=row[1], lifecycle=row[2], versioning=row[3]) for row in rows]


def log_time(db: Database) -> int:
    """The log's time as of the last entry: never ahead of what its leader believes."""
    row = db.execute("SELECT v FROM meta WHERE k = 'now'").fetchone()
    return 0 if row is None else int(row[0])


def lifecycle_page(
    db: Database, bucket: BucketId, start: bytes, end: bytes, below: int, *, history: bool, tags: bool, limit: int = ROWS_MAX,
) -> list[Looked]:
    """Versions of keys from `start` on and before `end`; of `start` itself only those that are older than `below` (0: all)."""
    limit = min(limit, ROWS_MAX)
    columns = f"key, ord, version_id, modified, size, storage_class{', attributes' if tags else ', NULL'}, crc"
    found: list[tuple[Any, ...]] = []
    if below:
        found = db.execute(
            f"SELECT {columns}, 0, marker FROM history WHERE bucket = ? AND key = ? AND ord < ? ORDER BY ord DESC LIMIT ?",
            (bucket, start, below, limit)).fetchall() if history else []
        start += b"\0"
    if len(found) < limit:
        within = "WHERE bucket = :bucket AND key >= :start AND key < :end"
        rows = f"SELECT {columns}, 1, 0 FROM object {within}"
        if history:
            rows += f" UNION ALL SELECT {columns}, 0, marker FROM history {within}"
        found += db.execute(f"{rows} ORDER BY 1, 2 DESC LIMIT :limit",
                            {"bucket": bucket, "start": start, "end": end, "limit": limit - len(found)}).fetchall()
    return [Looked(key=row[0].decode(), order=row[1], version_id=row[2], modified_ms=row[3], size=row[4], storage_class=row[5],
                   tags=decode_attributes(row[6]).tags if tags and not row[9] else (), seal=row[7], current=bool(row[8]),
                   marker=bool(row[9])) for row in found]


def lifecycle_uploads(
    db: Database, bucket: BucketId, after: tuple[bytes, str], end: bytes, limit: int = ROWS_MAX,
) -> list[LookedUpload]:
    """Uploads in progress after (key, upload id), of keys before `end`."""
    rows = db.execute(
        "SELECT key, upload_id, ord, initiated FROM upload WHERE bucket = ? AND (key, upload_id) > (?, ?) AND key < ?"
        " ORDER BY key, upload_id LIMIT ?", (bucket, *after, end, min(limit, ROWS_MAX))).fetchall()
    return [LookedUpload(key=row[0].decode(), upload_id=row[1], order=row[2], initiated_ms=row[3]) for row in rows]
