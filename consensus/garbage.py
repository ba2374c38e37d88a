"""What waits to be released, and why: questions for people who wonder where their space is. Offered by name with those of
queries.py.

On the way from a delete to free space there is: *lingering* (a long content whose readers get time to finish), *held* (a
backup refers to it), *queued* (work that is done in pages), then the storage nodes' own waiting (their GC_REPORT).
*Staged* contents and uploads in progress aren't garbage: they wait for their clients.
"""

import sqlite3
from typing import NamedTuple

from consensus.apply import queue
from consensus.core.ids import BucketId, ContentId, SessionId, UploadId

Database = sqlite3.Connection

COUNTED_MAX = 100_000
"""Rows that one report counts of each kind: some 10 ms. A count of so many means "at least"."""

PAGE_MAX = 1000

PARTS_PER_PAGE = 10_000
"""Parts that one page of uploads counts, so that it stays within a few ms however many parts each has."""

KINDS = {
    queue.CONTENT: "contents of deleted objects and parts", queue.UPLOAD: "parts of finished or aborted uploads",
    queue.BUCKET: "uploads of deleted buckets", queue.SESSION: "leftovers of ended sessions",
    queue.REVIEW: "chunks to be looked through after a change of the nodes",
    queue.HELD: "held contents to be looked through after a change of the backups",
}


class Waiting(NamedTuple):
    """`items` of them (at most COUNTED_MAX are counted) with so many bytes, the oldest since `since_ms` (0: unknown)."""

    what: str
    items: int
    bytes: int
    since_ms: int


class GcReport(NamedTuple):
    """`queued`: by kind, in the order of KINDS, empty kinds left out. `staged`: contents that sessions are building.
    `short`, `lost`: chunks with fewer copies than wanted, and without any. `hints`: told to nodes, not yet forgotten."""

    queued: tuple[Waiting, ...]
    lingering: Waiting
    held: Waiting
    staged: Waiting
    uploads: Waiting
    short: int
    lost: int
    hints: int


class StagedContent(NamedTuple):
    """`owner` of the session that builds it; `upload` is the position of its upload, for a part list, else 0."""

    content: ContentId
    session: SessionId
    owner: str
    bytes: int
    upload: int


class DeadContent(NamedTuple):
    """Without references, and not yet taken apart."""

    content: ContentId
    bytes: int
    since_ms: int


class OpenUpload(NamedTuple):
    """A multipart upload in progress. `bucket` is "" where the bucket is deleted already."""

    order: int
    bucket_id: BucketId
    bucket: str
    key: str
    upload_id: UploadId
    initiated_ms: int
    parts: int
    bytes: int


def gc_report(db: Database) -> GcReport:
    """Totals. Each count stops at COUNTED_MAX."""
    rows = {row[0]: row[1:] for row in db.execute(
        "SELECT q.kind, count(*), coalesce(sum(CASE WHEN q.kind = ? THEN c.size END), 0), min(q.at)"
        " FROM (SELECT kind, a, at FROM queue LIMIT ?) q LEFT JOIN content c ON c.id = q.a GROUP BY q.kind",
        (queue.CONTENT, COUNTED_MAX),
    ).fetchall()}
    short, lost = db.execute(
        "SELECT count(*), coalesce(sum(lost), 0) FROM"
        " (SELECT locations = x'90' AS lost FROM chunk WHERE short <> 0 AND short > 0 LIMIT ?)", (COUNTED_MAX,)
    ).fetchone()
    return GcReport(
        queued=tuple(Waiting(what, *rows[kind]) for kind, what in KINDS.items() if kind in rows),
        lingering=_waiting(db, "long contents whose readers get time to finish", "lingering", "t.at"),
        held=_waiting(db, "contents that a backup refers to", "held"),
        staged=_waiting(db, "contents that requests under way are building", "staged"),
        uploads=_uploads(db), short=short, lost=lost,
        hints=db.execute("SELECT count(*) FROM (SELECT 1 FROM released LIMIT ?)", (COUNTED_MAX,)).fetchone()[0],
    )


def _waiting(db: Database, what: str, table: str, since: str = "NULL") -> Waiting:
    """Of a table that names contents."""
    return Waiting(what, *db.execute(
        "SELECT count(*), coalesce(sum(size), 0), coalesce(min(since), 0) FROM"
        f" (SELECT c.size AS size, {since} AS since FROM {table} t JOIN content c ON c.id = t.content LIMIT ?)",
        (COUNTED_MAX,),
    ).fetchone())


def _uploads(db: Database) -> Waiting:
    count, since = db.execute(
        "SELECT count(*), coalesce(min(initiated), 0) FROM (SELECT initiated FROM upload ORDER BY ord LIMIT ?)",
        (COUNTED_MAX,),
    ).fetchone()
    size = db.execute("SELECT coalesce(sum(size), 0) FROM (SELECT size FROM part LIMIT ?)", (COUNTED_MAX,)).fetchone()[0]
    return Waiting("multipart uploads that are neither completed nor aborted", count, size, since)


def staged_contents(db: Database, after: int = 0, limit: int = PAGE_MAX) -> list[StagedContent]:
    """Under construction, oldest first, from after content `after` on."""
    rows = db.execute(
        "SELECT t.content, t.session, coalesce(s.owner, ''), c.size, t.upload FROM staged t"
        " JOIN content c ON c.id = t.content LEFT JOIN session s ON s.id = t.session"
        " WHERE t.content > ? ORDER BY t.content LIMIT ?",
        (after, min(limit, PAGE_MAX)),
    ).fetchall()
    return [StagedContent(*row) for row in rows]


def lingering_contents(
    db: Database, after_ms: int = 0, after: int = 0, limit: int = PAGE_MAX
) -> list[DeadContent]:
    """Those that lost their last reference first come first; from after (time, content) on."""
    rows = db.execute(
        "SELECT t.content, c.size, t.at FROM lingering t JOIN content c ON c.id = t.content"
        " WHERE (t.at, t.content) > (?, ?) ORDER BY t.at, t.content LIMIT ?",
        (after_ms, after, min(limit, PAGE_MAX)),
    ).fetchall()
    return [DeadContent(*row) for row in rows]


def held_contents(db: Database, after: int = 0, limit: int = PAGE_MAX) -> list[DeadContent]:
    """What backups refer to and nothing else does, in order of content, from after `after` on."""
    rows = db.execute(
        "SELECT t.content, c.size, 0 FROM held t JOIN content c ON c.id = t.content"
        " WHERE t.content > ? ORDER BY t.content LIMIT ?",
        (after, min(limit, PAGE_MAX)),
    ).fetchall()
    return [DeadContent(*row) for row in rows]


def open_uploads(db: Database, after: int = 0, limit: int = 100) -> list[OpenUpload]:
    """Multipart uploads in progress, oldest first, from after order `after` on. Fewer than asked for doesn't mean that it
    was the last page: an empty one does."""
    rows = db.execute(
        "SELECT u.ord, u.bucket, coalesce(b.name, ''), u.key, u.upload_id, u.initiated FROM upload u"
        " LEFT JOIN bucket b ON b.id = u.bucket WHERE u.ord > ? ORDER BY u.ord LIMIT ?",
        (after, min(limit, PAGE_MAX)),
    ).fetchall()
    found: list[OpenUpload] = []
    counted = 0
    for order, bucket_id, bucket, key, upload_id, initiated in rows:
        parts, size = db.execute("SELECT count(*), coalesce(sum(size), 0) FROM part WHERE upload = ?", (order,)).fetchone()
        found.append(OpenUpload(order, bucket_id, bucket, key.decode(), upload_id, initiated, parts, size))
        counted += parts
        if counted >= PARTS_PER_PAGE:
            break
    return found
