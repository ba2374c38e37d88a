"""What the rows of the metadata amount to, counted anew into temporary tables: references to contents, references to chunks.

Temporary tables belong to the connection and spill to the disk, so memory stays bounded however large the metadata is. Callers
read them joined with the rows that hold the same counts.

    temp.counted (content, n)           versions, parts and composites that refer to a content
    temp.sliced (digest, n, size)       slices that name a chunk, and how far the farthest of them reaches
    temp.waiting (content)              contents that wait to be taken apart
"""

import sqlite3
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from consensus.apply import queue
from consensus.core.ids import Digest
from consensus.rows import unpack_slices

Database = sqlite3.Connection
Row = TypeVar("Row")

DIGESTS_AT_ONCE = 100_000
"""Counted in memory before they go into the table: some 20 MB."""

CACHE_KIB = 64 << 10
"""Of the temporary tables."""

_TABLES = (
    "counted (content INTEGER PRIMARY KEY, n INTEGER NOT NULL)",
    "sliced (digest BLOB PRIMARY KEY, n INTEGER NOT NULL, size INTEGER NOT NULL) WITHOUT ROWID",
    "waiting (content INTEGER PRIMARY KEY)",
)


EVENTS = """
SELECT t.name, t.queued, coalesce(e.n, 0) FROM event_target t
  LEFT JOIN (SELECT target, count(*) AS n FROM event GROUP BY target) e ON e.target = t.name
UNION ALL SELECT target, 0, count(*) FROM event WHERE target NOT IN (SELECT name FROM event_target) GROUP BY target
"""
"""Target, events that are said to wait for it, and how many do."""

ROWS_AT_A_TIME = 64
"""After so many rows (about a millisecond of Python), other threads of the process get their turn."""

REST_S = 0.00005


def gently(rows: Iterable[Row]) -> Iterator[Row]:
    """These rows, with a rest now and then: a thread that counts for minutes must not make the loop beside it wait 5 ms for each
    of its turns, as the interpreter would."""
    for place, row in enumerate(rows):
        if not place % ROWS_AT_A_TIME:
            time.sleep(REST_S)
        yield row


def references(db: Database) -> None:
    """Fill temp.counted and temp.waiting."""
    _begin(db)
    db.execute(
        "INSERT INTO temp.counted SELECT content, count(*) FROM (SELECT content FROM object"
        " UNION ALL SELECT content FROM history WHERE NOT marker UNION ALL SELECT content FROM part"
        " UNION ALL SELECT part_content FROM content_part) GROUP BY content ORDER BY content"
    )
    db.execute("INSERT OR IGNORE INTO temp.waiting SELECT a FROM queue WHERE kind = ? UNION ALL SELECT content FROM lingering",
               (queue.CONTENT,))


def slices(db: Database) -> None:
    """Fill temp.sliced."""
    _begin(db)
    found: dict[Digest, tuple[int, int]] = {}
    for (packed,) in gently(db.execute(
        "SELECT slices FROM content WHERE slices IS NOT NULL UNION ALL SELECT slices FROM piece"
    )):
        for digest, start, length in unpack_slices(packed):
            count, size = found.get(digest, (0, 0))
            found[digest] = count + 1, max(size, start + length)
        if len(found) >= DIGESTS_AT_ONCE:
            _add(db, found)
    _add(db, found)


def _add(db: Database, found: dict[Digest, tuple[int, int]]) -> None:
    db.executemany(
        "INSERT INTO temp.sliced VALUES (?, ?, ?) ON CONFLICT (digest) DO UPDATE SET n = n + excluded.n,"
        " size = max(size, excluded.size)", [(digest, *figures) for digest, figures in sorted(found.items())])
    found.clear()


def _begin(db: Database) -> None:
    db.execute(f"PRAGMA temp.cache_size = -{CACHE_KIB}")
    for table in _TABLES:
        db.execute(f"CREATE TEMP TABLE IF NOT EXISTS {table}")


def clear(db: Database) -> None:
    """Forget what an earlier count on this connection has left."""
    _begin(db)
    for table in _TABLES:
        db.execute(f"DELETE FROM temp.{table.split()[0]}")
