"""Counters of the metadata made right: what a recount finds wrong and can be worked out from the rows that are not counters.

Only while the member is stopped, and in a group of one: a change beside the log is known to this file alone. Whoever does it
takes a snapshot afterwards, so that going back to one doesn't bring the old counters back. Rows that describe data (versions,
slices, parts) are never touched; what they lack can't be made up.
"""

import sqlite3

from consensus import tally
from consensus.apply import queue
from consensus.rows import UNCOUNTED, decode_locations, shortness

Database = sqlite3.Connection


def mend(db: Database) -> list[str]:
    """Say what was changed, in sentences. The caller begins and ends the transaction."""
    tally.clear(db)
    return [*_buckets(db), *_contents(db), *_chunks(db), *_leftovers(db), *_events(db)]


def _buckets(db: Database) -> list[str]:
    found = []
    rows = db.execute(
        "SELECT b.id, b.name, b.objects, b.bytes, coalesce(v.objects, 0), coalesce(v.bytes, 0) FROM bucket b LEFT JOIN"
        " (SELECT bucket, count(*) objects, sum(size) bytes FROM (SELECT bucket, size FROM object UNION ALL"
        " SELECT bucket, size FROM history WHERE NOT marker) GROUP BY bucket) v ON v.bucket = b.id"
    ).fetchall()
    for id, name, objects, size, counted, counted_size in rows:
        if (objects, size) != (counted, counted_size):
            db.execute("UPDATE bucket SET objects = ?, bytes = ? WHERE id = ?", (counted, counted_size, id))
            found.append(f"bucket {name}: {objects} objects of {size} bytes, now {counted} of {counted_size}")
    return found + _parts(db)


def _parts(db: Database) -> list[str]:
    """Bytes of uploads, from their parts; then those of buckets, from their uploads."""
    found = []
    for upload, order, size, counted in db.execute(
        "SELECT u.upload_id, u.ord, u.bytes, coalesce(sum(p.size), 0) AS n FROM upload u LEFT JOIN part p ON p.upload = u.ord"
        " GROUP BY u.ord HAVING n != u.bytes"
    ).fetchall():
        db.execute("UPDATE upload SET bytes = ? WHERE ord = ?", (counted, order))
        found.append(f"upload {upload}: {size} bytes of parts, now {counted}")
    for id, name, size, counted in db.execute(
        "SELECT b.id, b.name, b.uploading, coalesce(sum(u.bytes), 0) AS n FROM bucket b LEFT JOIN upload u ON u.bucket = b.id"
        " GROUP BY b.id HAVING n != b.uploading"
    ).fetchall():
        db.execute("UPDATE bucket SET uploading = ? WHERE id = ?", (counted, id))
        found.append(f"bucket {name}: {size} bytes of parts, now {counted}")
    return found


def _contents(db: Database) -> list[str]:
    """References; and what has none waits to be taken apart, what has some doesn't."""
    tally.references(db)
    found = []
    for content, refs, right, waiting, elsewhere in db.execute(
        "SELECT * FROM (SELECT c.id, c.refs, coalesce(k.n, 0) AS n, w.content IS NOT NULL AS waiting,"
        " (s.content IS NOT NULL) + (h.content IS NOT NULL) AS elsewhere FROM content c"
        " LEFT JOIN temp.counted k ON k.content = c.id LEFT JOIN temp.waiting w ON w.content = c.id"
        " LEFT JOIN staged s ON s.content = c.id LEFT JOIN held h ON h.content = c.id)"
        " WHERE refs != n OR (n > 0) = (waiting + elsewhere > 0)"
    ).fetchall():
        if refs != right:
            db.execute("UPDATE content SET refs = ? WHERE id = ?", (right, content))
            found.append(f"content {content}: {refs} references, now {right}")
        if right and (waiting or elsewhere):
            db.execute("DELETE FROM queue WHERE kind = ? AND a = ?", (queue.CONTENT, content))
            for table in ("lingering", "staged", "held"):
                db.execute(f"DELETE FROM {table} WHERE content = ?", (content,))
            found.append(f"content {content} is referred to, and waited to be taken apart: not any more")
        elif not right and not waiting and not elsewhere:
            db.execute("INSERT INTO queue (kind, a) VALUES (?, ?)", (queue.CONTENT, content))
            found.append(f"content {content} is referred to by nothing: it waits to be taken apart now")
    return found


def _chunks(db: Database) -> list[str]:
    tally.slices(db)
    names = {row[0] for row in db.execute("SELECT number FROM node")}
    uncounted = {row[0] for row in db.execute(UNCOUNTED)}
    changes: list[tuple[int, int, bytes]] = []
    gone: list[tuple[bytes]] = []
    found = []
    for digest, refs, wanted, short, locations, right in db.execute(
        "SELECT c.digest, c.refs, c.wanted, c.short, c.locations, coalesce(k.n, 0) FROM chunk c"
        " LEFT JOIN temp.sliced k ON k.digest = c.digest"
    ):
        name = digest.hex()[:16]
        lacking = shortness(set(decode_locations(locations)), names, uncounted, wanted)
        if not right:
            gone.append((digest,))
            found.append(f"chunk {name} is referred to by nothing: its row is gone")
        elif (refs, short) != (right, lacking):
            changes.append((right, lacking, digest))
            found.append(f"chunk {name}: {refs} references, now {right}; short {short}, now {lacking}")
    db.executemany("DELETE FROM chunk WHERE digest = ?", gone)
    db.executemany("UPDATE chunk SET refs = ?, short = ? WHERE digest = ?", changes)
    return found


def _leftovers(db: Database) -> list[str]:
    """What has lost its owner waits to be taken apart."""
    waiting = set(db.execute("SELECT kind, a FROM queue").fetchall())
    found = []
    for kind, table, column, owners, id in queue.OWNED:
        for (owner,) in db.execute(
            f"SELECT DISTINCT {column} FROM {table} WHERE {column} NOT IN (SELECT {id} FROM {owners})"
        ).fetchall():
            if (kind, owner) not in waiting:
                db.execute("INSERT INTO queue (kind, a) VALUES (?, ?)", (kind, owner))
                found.append(f"{table} of {owners} {owner}, which is gone: it waits to be taken apart now")
    return found


def _events(db: Database) -> list[str]:
    found = []
    for target, said, counted in db.execute(tally.EVENTS).fetchall():
        if said != counted:
            db.execute("INSERT INTO event_target (name, queued) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET queued = ?2",
                       (target, counted))
            found.append(f"target {target}: {said} events, now {counted}")
    return found
