"""Counters of the metadata made right: what a recount finds wrong and can be worked out from the rows that are not counters.

Only while the member is stopped, and in a group of one: a change beside the log is known to this file alone. Whoever does it
takes a snapshot afterwards, so that going back to one doesn't bring the old counters back. Rows that describe data (versions,
slices, parts) are never touched; what they lack can't be made up.
"""

import sqlite3
from collections import Counter

from consensus.apply import queue
from consensus.rows import decode_locations, unpack_slices

Database = sqlite3.Connection


def mend(db: Database) -> list[str]:
    """Say what was changed, in sentences. The caller begins and ends the transaction. Holds all counts in memory."""
    return [*_buckets(db), *_contents(db), *_chunks(db), *_leftovers(db)]


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
    return found


def _contents(db: Database) -> list[str]:
    """References; and what has none waits to be taken apart, what has some doesn't."""
    counted = Counter(dict(db.execute(
        "SELECT content, count(*) FROM (SELECT content FROM object"
        " UNION ALL SELECT content FROM history WHERE NOT marker UNION ALL SELECT content FROM part"
        " UNION ALL SELECT part_content FROM content_part) GROUP BY content"
    ).fetchall()))
    waiting = {row[0] for row in db.execute(
        "SELECT a FROM queue WHERE kind = ? UNION ALL SELECT content FROM lingering", (queue.CONTENT,))}
    elsewhere = {row[0] for row in db.execute("SELECT content FROM staged UNION ALL SELECT content FROM held")}
    found = []
    for content, refs in db.execute("SELECT id, refs FROM content").fetchall():
        right = counted[content]
        if refs != right:
            db.execute("UPDATE content SET refs = ? WHERE id = ?", (right, content))
            found.append(f"content {content}: {refs} references, now {right}")
        if right and (content in waiting or content in elsewhere):
            db.execute("DELETE FROM queue WHERE kind = ? AND a = ?", (queue.CONTENT, content))
            for table in ("lingering", "staged", "held"):
                db.execute(f"DELETE FROM {table} WHERE content = ?", (content,))
            found.append(f"content {content} is referred to, and waited to be taken apart: not any more")
        elif not right and content not in waiting and content not in elsewhere:
            db.execute("INSERT INTO queue (kind, a) VALUES (?, ?)", (queue.CONTENT, content))
            found.append(f"content {content} is referred to by nothing: it waits to be taken apart now")
    return found


def _chunks(db: Database) -> list[str]:
    counted: Counter[bytes] = Counter()
    for (packed,) in db.execute(
        "SELECT slices FROM content WHERE slices IS NOT NULL UNION ALL SELECT slices FROM piece"
    ):
        counted.update(piece.digest for piece in unpack_slices(packed))
    names = {row[0] for row in db.execute("SELECT number FROM node")}
    found = []
    for digest, refs, wanted, short, locations in db.execute(
        "SELECT digest, refs, wanted, short, locations FROM chunk"
    ).fetchall():
        name, right = digest.hex()[:16], counted[digest]
        if not right:
            db.execute("DELETE FROM chunk WHERE digest = ?", (digest,))
            found.append(f"chunk {name} is referred to by nothing: its row is gone")
            continue
        lacking = len({number for number in decode_locations(locations) if number in names}) < wanted
        if (refs, bool(short)) != (right, lacking):
            db.execute("UPDATE chunk SET refs = ?, short = ? WHERE digest = ?", (right, lacking, digest))
            found.append(f"chunk {name}: {refs} references, now {right}; short {short}, now {int(lacking)}")
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
