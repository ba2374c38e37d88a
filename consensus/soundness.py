"""SQLite's own check of a database file, for the scrub: are pages, trees and indexes what they should be.

Rows carry checksums of their own (`consensus.rows`), so damage is never served; this finds it before somebody asks for the
row. What is found is repaired from the kept snapshots and the journal (the metadata), or by a rebuild from the disk (a
storage node's index). It reads the whole file, and beside a busy writer the write-ahead log grows meanwhile: so seldom.
"""

import asyncio
import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Callable
from urllib.parse import quote

import msgspec

from consensus.core.clock import Clock
from consensus.core.codec import UNDECODABLE
from consensus.disk import Disk, replace_file

log = logging.getLogger("staddle.meta")

NAME = "checked.json"

LOOK_S = 60.0
"""How often to look whether it is time."""

FINDINGS_MAX = 20
"""Whoever has more wrong needs no longer list."""

IDLE_PRIORITY = 19


class Looked(msgspec.Struct, frozen=True, kw_only=True):
    """When the file was last looked over, and what was found."""

    at_ms: int
    findings: tuple[str, ...] = ()


def findings(path: str, opened: Callable[[sqlite3.Connection], None] | None = None) -> tuple[str, ...]:
    """What is wrong with the file, in SQLite's words; empty: it is sound. For a thread: it takes a second for each GB, and
    more on a slow disk. `opened` gets the connection, to interrupt it."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, isolation_level=None,
                                                check_same_thread=False)) as db:
            if opened is not None:
                opened(db)
            found = [str(row[0]) for row in db.execute(f"PRAGMA quick_check({FINDINGS_MAX})")]
    except sqlite3.DatabaseError as error:
        return (str(error),)
    return () if found == ["ok"] else tuple(found)


def lowest_priority() -> None:
    """Of the calling thread: whoever serves clients goes first."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), IDLE_PRIORITY)


class Check:
    """Looks over the metadata's file, once in a while, in a thread of its own. What was found last is in a file beside it, so
    that a restart is no reason to begin again."""

    def __init__(self, folder: str, path: Callable[[], str], *, interval_s: float, clock: Clock, disk: Disk) -> None:
        """`path` is the database in use; 0 seconds: never."""
        self._file, self._path = os.path.join(folder, NAME), path
        self._interval_s, self._clock, self._disk = interval_s, clock, disk
        self.last = self._load()
        self._db: sqlite3.Connection | None = None

    async def run(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            if self._interval_s and abs(self._clock.now_ms() - self.last.at_ms) >= self._interval_s * 1000:
                await self.look()

    async def look(self) -> None:
        """Now. When it is cancelled, the thread ends as well."""
        found: list[tuple[str, ...]] = []

        def work() -> None:
            lowest_priority()
            found.append(findings(self._path(), self._opened))
            with contextlib.suppress(RuntimeError):   # the loop has ended: nobody waits any more
                loop.call_soon_threadsafe(done.set)

        loop, done = asyncio.get_running_loop(), asyncio.Event()
        threading.Thread(target=work, name="soundness", daemon=True).start()
        try:
            await done.wait()
        finally:
            if self._db is not None:
                with contextlib.suppress(sqlite3.ProgrammingError):      # closed: it has ended
                    self._db.interrupt()
                self._db = None
        self.last = Looked(at_ms=self._clock.now_ms(), findings=found[0])
        for finding in found[0]:
            log.error("%s: %s", self._path(), finding)
        with contextlib.suppress(OSError):            # then it is done once more after the next start
            replace_file(self._disk, self._file, msgspec.json.encode(self.last), "soundness.state")

    def _opened(self, db: sqlite3.Connection) -> None:
        self._db = db

    def _load(self) -> Looked:
        with contextlib.suppress(OSError, *UNDECODABLE), open(self._file, "rb") as file:
            return msgspec.json.decode(file.read(), type=Looked)
        return Looked(at_ms=self._clock.now_ms())     # a new folder, or one of before: nothing is known to be wrong
