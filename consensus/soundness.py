"""SQLite's own check of a database file, for the scrub: are pages, trees and indexes what they should be.

Rows carry checksums of their own (`consensus.rows`), so damage is never served; this finds it before somebody asks for the
row. What is found is repaired from the kept snapshots and the journal (the metadata), or by a rebuild from the disk (a
storage node's index). It reads the whole file, and beside a busy writer the write-ahead log grows meanwhile: so seldom.
"""

import contextlib
import os
import sqlite3
import threading
from urllib.parse import quote

FINDINGS_MAX = 20
"""Whoever has more wrong needs no longer list."""

IDLE_PRIORITY = 19


def findings(path: str) -> tuple[str, ...]:
    """What is wrong with the file, in SQLite's words; empty: it is sound. For a thread: it takes a second for each GB, and
    more on a slow disk."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, isolation_level=None)) as db:
            found = [str(row[0]) for row in db.execute(f"PRAGMA quick_check({FINDINGS_MAX})")]
    except sqlite3.DatabaseError as error:
        return (str(error),)
    return () if found == ["ok"] else tuple(found)


def lowest_priority() -> None:
    """Of the calling thread: whoever serves clients goes first."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), IDLE_PRIORITY)
