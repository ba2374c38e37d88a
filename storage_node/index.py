"""What is where on this disk: an SQLite file with a row for each stored copy. Written by one process, read by several.

Rules:
* a row is added only after its bytes are on the disk, and before anybody is told (segments.py, files.py);
* rows of small chunks begin in a table of their own (young.py). All methods but those that say `young` see one table: they
  bring its rows into `chunk` first;
* nothing here is the only truth: rows lost in a power cut are found again from the files (recovery.py), so commits
  need no sync of their own (WAL, synchronous=NORMAL);
* readers in other processes see a row as soon as its put is acknowledged, so a put's commit comes before its answer.

A copy's `state`: NEW (nobody has said yet that it counts), SETTLED (metadata lists it), CONDEMNED (no longer listed;
kept for a while for readers that have begun). `due` is when to ask about it again, in ms since 1970; SETTLED rows
have none.
"""

import logging
import os
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from consensus.core.binding import bind_quickly
from consensus.core.errors import Corrupt, NoSpace, Unavailable
from consensus.core.ids import Digest
from consensus.disk import Disk
from storage_node.chunk import SEGMENT_HEADER_BYTES, record_bytes
from storage_node.young import Name, Young
from storage_node.young import Row as Row

log = logging.getLogger("staddle.node")

INDEX_NAME = "index.sqlite"
INDEX_VERSION = 1
NEW, SETTLED, CONDEMNED = range(3)
FILE = 0
"""The segment number of a chunk in a file of its own."""

CHECKPOINT_PAGES = 4096
"""About so many pages (16 MiB) in the write-ahead log, and it is folded into the database: readers slow down with its
length. Each row of a random digest dirties a page of its own, each transaction a few more."""

_SCHEMA = """
CREATE TABLE chunk(
    digest BLOB NOT NULL, generation BLOB NOT NULL, size INTEGER NOT NULL, segment INTEGER NOT NULL,
    place INTEGER NOT NULL, state INTEGER NOT NULL, due INTEGER NOT NULL,
    PRIMARY KEY(digest, generation)) WITHOUT ROWID;
CREATE INDEX chunk_due ON chunk(due) WHERE state <> 1;
CREATE TABLE segment(
    number INTEGER PRIMARY KEY, home BLOB NOT NULL, sealed INTEGER NOT NULL, used INTEGER NOT NULL,
    dead INTEGER NOT NULL, live INTEGER NOT NULL);
CREATE TABLE damage(
    digest BLOB NOT NULL, generation BLOB NOT NULL, reason TEXT NOT NULL, found INTEGER NOT NULL,
    PRIMARY KEY(digest, generation)) WITHOUT ROWID;
CREATE TABLE state(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""

FIND = "SELECT size, segment, place, state FROM chunk WHERE digest=? AND generation=?"
_MOVE = "UPDATE chunk SET segment=?, place=? WHERE digest=? AND generation=? AND segment=? AND place=?"
_GROW = "UPDATE segment SET used=?, live=live+? WHERE number=?"
_ADD = "INSERT OR IGNORE INTO chunk VALUES(?,?,?,?,?,?,?)"


class Copy(NamedTuple):
    """A copy as the index knows it."""

    digest: Digest
    generation: bytes
    size: int
    segment: int
    place: int
    state: int
    due: int


class Move(NamedTuple):
    """A copy that has been written once more, elsewhere: `row` is its new place, the others say where it was."""

    row: Row
    segment: int
    place: int


class SegmentRow(NamedTuple):
    number: int
    home: bytes
    sealed: bool
    used: int
    dead: int
    live: int


class Totals(NamedTuple):
    chunks: int
    byte_count: int
    unsettled: int
    damaged: int
    segments: int
    segment_bytes: int
    dead_bytes: int


class Index:
    """The one writer. Methods may be called from any thread; each is one transaction."""

    def __init__(self, folder: str, disk: Disk) -> None:
        """Opens or creates. Raises Corrupt if the file is none of ours or damaged."""
        self.path = os.path.join(folder, INDEX_NAME)
        self._disk = disk
        self._lock = threading.Lock()
        self._pages = 0
        self._long = threading.Event()
        self._closed = False
        self._damaged = True
        """Whether there may be rows of damage."""
        bind_quickly()
        try:
            self._db = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None, cached_statements=64)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute("PRAGMA wal_autocheckpoint=0")
            self._db.execute("PRAGMA cache_size=-65536")
            self._db.execute("PRAGMA busy_timeout=10000")
            if not self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                # Not clean: an index that is new where there are chunks has lost its file.
                self._db.executescript(f"BEGIN;{_SCHEMA}INSERT INTO state VALUES('version',{INDEX_VERSION}),"
                                       "('clean',0);COMMIT")
            version = self._db.execute("SELECT value FROM state WHERE name='version'").fetchone()
        except sqlite3.DatabaseError as error:
            raise Corrupt(f"{self.path}: {error}") from error
        if version is None or version[0] != INDEX_VERSION:
            raise Corrupt(f"{self.path}: tables of version {version and version[0]}, not {INDEX_VERSION}")
        self._young = Young()
        try:
            with self._transaction(young=True) as db:
                self._young.load(db)
            self.damage(1)
            self.segments()
        except Unavailable as error:
            self._db.close()
            if getattr(error.__cause__, "sqlite_errorname", "").startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
                raise Corrupt(str(error)) from error
            raise
        self._keeper = threading.Thread(target=self._keep_short, name="index-checkpoint", daemon=True)
        self._keeper.start()

    @contextmanager
    def _transaction(self, *, durable: bool = False, young: bool = False) -> Iterator[sqlite3.Connection]:
        """Raises NoSpace or Unavailable when SQLite can't write; then nothing of it happened. With `durable`, it and all
        before it survive a power cut."""
        with self._lock:
            before = self._db.total_changes
            try:
                if durable:
                    self._db.execute("PRAGMA synchronous=FULL")
                self._db.execute("BEGIN IMMEDIATE")
                if not young and self._young:
                    self._bring_in(self._db, self._young.first(len(self._young)), {})
                yield self._db
                self._disk.step("index.commit", self.path)
                self._db.execute("COMMIT")
                self._young.committed()
                self._pages += self._db.total_changes - before + 3
                if self._pages > CHECKPOINT_PAGES:
                    self._long.set()
            except sqlite3.Error as error:
                self._rollback()
                if getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":
                    raise NoSpace(f"{self.path}: {error}") from error
                raise Unavailable(f"{self.path}: {error}") from error
            except BaseException:
                self._rollback()
                raise
            finally:
                if durable:
                    self._db.execute("PRAGMA synchronous=NORMAL")

    def _bring_in(self, db: sqlite3.Connection, rows: list[Row], marks: Mapping[Name, tuple[int, int]]) -> bool:
        """The first rows that are young, with the (state, due) that they have got meanwhile. Whether none was in `chunk`."""
        if not rows:
            return True
        # In their order, or each would look for its page from the root.
        added = db.executemany(_ADD, sorted([(*row[:5], *marks.get(row[:2], (NEW, row.due))) for row in rows])).rowcount
        lives = Counter([row.segment for row in rows])
        for number, end in {row.segment: row.place + record_bytes(row.size) for row in rows}.items():
            db.execute(_GROW, (end, lives[number], number))
        if added != len(rows):
            for row in rows:
                self._again(db, row)
        self._young.drop(db, rows)
        return added == len(rows)

    def _settle_young(self) -> None:
        """Raises NoSpace, Unavailable."""
        if self._young:
            with self._transaction():
                pass

    @contextmanager
    def _reading(self, *, young: bool = False) -> Iterator[sqlite3.Connection]:
        """Raises Unavailable when SQLite can't read, NoSpace."""
        if not young:
            self._settle_young()
        with self._lock:
            try:
                yield self._db
            except sqlite3.Error as error:
                raise Unavailable(f"{self.path}: {error}") from error

    @contextmanager
    def _beside(self) -> Iterator[sqlite3.Connection]:
        """A connection for a long read. Raises Unavailable, NoSpace."""
        self._settle_young()
        try:
            db = sqlite3.connect(self.path, isolation_level=None)
            try:
                yield db
            finally:
                db.close()
        except sqlite3.Error as error:
            raise Unavailable(f"{self.path}: {error}") from error

    def _rollback(self) -> None:
        self._young.undone()
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    # Copies

    def add(self, rows: list[Row], segment: int = FILE, used: int = 0, moves: Sequence[Move] = ()) -> None:
        """Record copies that are durable; `used` is the new durable end of `segment`. A name that is there already
        keeps its first place, unless that one is damaged; the other place counts as dead. Of `moves`, those take effect
        whose copy is still where it was."""
        if segment and rows and not moves and self._young.takes(rows) and not self._damaged:        # which it might heal
            with self._transaction(young=True) as db:
                self._young.add(db, rows)
            return
        with self._transaction() as db:
            added = db.executemany(_ADD, [(*row[:5], NEW, row.due) for row in rows]).rowcount if rows else 0
            if segment:
                db.execute(_GROW, (used, len(rows) + len(moves), segment))
            for row, old_segment, old_place in moves:
                moved = db.execute(_MOVE, (row.segment, row.place, *row[:2], old_segment, old_place)).rowcount
                self._died(db, old_segment if moved else row.segment, row.size)
            if added != len(rows):
                for row in rows:
                    self._again(db, row)

    def _again(self, db: sqlite3.Connection, row: Row) -> None:
        size, segment, place, _ = db.execute(FIND, row[:2]).fetchone()
        if (segment, place) == (row.segment, row.place) and segment != FILE:
            return
        healed = db.execute("DELETE FROM damage WHERE digest=? AND generation=?", row[:2]).rowcount
        fresh = healed or row.segment == FILE
        if fresh:
            db.execute("UPDATE chunk SET size=?, segment=?, place=? WHERE digest=? AND generation=?",
                       (row.size, row.segment, row.place, *row[:2]))
        self._died(db, *((segment, size) if fresh else (row.segment, row.size)))

    def _died(self, db: sqlite3.Connection, number: int, size: int) -> None:
        if number != FILE:
            db.execute("UPDATE segment SET dead=dead+?, live=live-1 WHERE number=?", (record_bytes(size), number))

    def find(self, digest: Digest, generation: bytes) -> Copy | None:
        with self._reading(young=(digest, generation) not in self._young) as db:
            row = db.execute("SELECT * FROM chunk WHERE digest=? AND generation=?",
                                   (digest, generation)).fetchone()
        return Copy(*row) if row else None

    def find_all(self, names: list[tuple[Digest, bytes]]) -> list[Copy]:
        """Those that are here."""
        with self._reading(young=not any(name in self._young for name in names)) as db:
            rows = (db.execute("SELECT * FROM chunk WHERE digest=? AND generation=?", name).fetchone() for name in names)
            return [Copy(*row) for row in rows if row is not None]

    def generations(self, digest: Digest) -> list[Copy]:
        """All copies of these bytes."""
        with self._reading() as db:
            return [Copy(*row) for row in db.execute("SELECT * FROM chunk WHERE digest=?", (digest,))]

    def page(self, after: tuple[bytes, bytes] | None, limit: int) -> list[Copy]:
        """Copies in the order of (digest, generation)."""
        with self._reading() as db:
            return [Copy(*row) for row in db.execute(
                "SELECT * FROM chunk WHERE (digest, generation) > (?,?) ORDER BY digest, generation LIMIT ?",
                (*(after or (b"", b"")), limit))]

    def due(self, now_ms: int, limit: int) -> list[Copy]:
        """Copies that aren't settled and whose time to be asked about has come, longest waiting first."""
        with self._reading(young=True) as db:
            copies = [Copy(*row) for row in db.execute(
                "SELECT * FROM chunk WHERE state <> 1 AND due <= ? ORDER BY due LIMIT ?", (now_ms, limit))]
            return copies + [Copy(*row[:5], NEW, row.due) for row in self._young.first(limit - len(copies))
                             if row.due <= now_ms]

    def unsettled(self, after: tuple[bytes, bytes] | None, limit: int) -> list[Copy]:
        """Copies that aren't settled, in the order of (digest, generation), on a connection of its own."""
        with self._beside() as db:
            return [Copy(*row) for row in db.execute(
                "SELECT * FROM chunk WHERE state <> 1 AND (digest, generation) > (?,?)"
                " ORDER BY digest, generation LIMIT ?", (*(after or (b"", b"")), limit))]

    def files_after(self, after: tuple[bytes, bytes] | None, limit: int) -> list[Copy]:
        """Large chunks in the order of (digest, generation), on a connection of its own."""
        with self._beside() as db:
            return [Copy(*row) for row in db.execute(
                "SELECT * FROM chunk WHERE segment = 0 AND (digest, generation) > (?,?)"
                " ORDER BY digest, generation LIMIT ?", (*(after or (b"", b"")), limit))]

    def bring_forward(self, new_ms: int, condemned_ms: int) -> None:
        """Nothing is due later than this: a clock that was ahead when it was noted, and isn't any more, must not delay it."""
        with self._transaction() as db:
            for state, latest in ((NEW, new_ms), (CONDEMNED, condemned_ms)):
                db.execute("UPDATE chunk SET due=? WHERE state=? AND state<>1 AND due>?", (latest, state, latest))

    def mark(self, copies: Iterable[tuple[int, int, bytes, bytes]]) -> None:
        """Set (state, due) of (digest, generation)."""
        marks = {(digest, generation): (state, due) for state, due, digest, generation in copies}
        with self._transaction(young=True) as db:
            rows = self._young.until(marks)
            if self._bring_in(db, rows, marks):       # then they are marked
                for row in rows:
                    marks.pop(row[:2], None)
            db.executemany("UPDATE chunk SET state=?, due=? WHERE digest=? AND generation=?",
                           [(*mark, *name) for name, mark in marks.items()])

    def remove(self, copies: list[Copy]) -> list[int]:
        """Forget copies; files are unlinked before. Returns the segments in which nothing seems to live any more."""
        touched = set()
        with self._transaction() as db:
            for copy in copies:
                gone = db.execute("DELETE FROM chunk WHERE digest=? AND generation=? AND segment=? AND place=?",
                                  (copy.digest, copy.generation, copy.segment, copy.place)).rowcount
                db.execute("DELETE FROM damage WHERE digest=? AND generation=?", copy[:2])
                if gone and copy.segment != FILE:
                    self._died(db, copy.segment, copy.size)
                    touched.add(copy.segment)
            return [number for number in sorted(touched) if self._seems_dead(db, number)]

    def _seems_dead(self, db: sqlite3.Connection, number: int) -> bool:
        row = db.execute("SELECT sealed, live FROM segment WHERE number=?", (number,)).fetchone()
        return row is not None and bool(row[0]) and row[1] <= 0

    def recount(self, number: int) -> int:
        """Chunks that live in this sealed segment. A counter alone must not decide what is deleted, so the table is
        walked (an index of it would double the cost of every put), on a connection of its own: nobody waits. No chunk
        can come to a sealed segment meanwhile."""
        with self._beside() as db:
            count: int = db.execute("SELECT count(*) FROM chunk WHERE segment=?", (number,)).fetchone()[0]
        with self._transaction() as db:
            db.execute("UPDATE segment SET live=? WHERE number=?", (count, number))
        return count

    # Damage

    def damaged(self, digest: Digest, generation: bytes, reason: str, now_ms: int) -> None:
        with self._transaction() as db:
            db.execute("INSERT OR IGNORE INTO damage VALUES(?,?,?,?)", (digest, generation, reason, now_ms))
            self._damaged = True

    def damage_of(self, names: list[tuple[Digest, bytes]]) -> set[tuple[Digest, bytes]]:
        with self._reading(young=True) as db:
            if db.execute("SELECT 1 FROM damage LIMIT 1").fetchone() is None:
                return set()
            return {name for name in names
                    if db.execute("SELECT 1 FROM damage WHERE digest=? AND generation=?", name).fetchone()}

    def damage(self, limit: int, after: tuple[bytes, bytes] | None = None) -> list[tuple[Digest, bytes, str]]:
        with self._reading(young=True) as db:
            found = db.execute(
                "SELECT digest, generation, reason FROM damage WHERE (digest, generation) > (?,?)"
                " ORDER BY digest, generation LIMIT ?", (*(after or (b"", b"")), limit)).fetchall()
            if after is None:
                self._damaged = bool(found)
            return found

    def forgive(self, names: list[tuple[Digest, bytes]]) -> None:
        """These are good after all, or have been dealt with."""
        with self._transaction() as db:
            db.executemany("DELETE FROM damage WHERE digest=? AND generation=?", names)

    # Segments

    def segments(self) -> list[SegmentRow]:
        with self._reading() as db:
            return [SegmentRow(number, home, bool(sealed), used, dead, live) for number, home, sealed, used, dead, live
                    in db.execute("SELECT * FROM segment ORDER BY number")]

    def open_segment(self, number: int, home: bytes) -> None:
        with self._transaction() as db:
            db.execute("INSERT OR IGNORE INTO segment VALUES(?,?,0,?,0,0)", (number, home, SEGMENT_HEADER_BYTES))
            db.execute("INSERT INTO state VALUES('next_segment',?) ON CONFLICT DO UPDATE SET value=excluded.value",
                       (number + 1,))

    def next_segment(self) -> int:
        """Larger than any number used, also of segments that are gone: readers in other processes remember them."""
        with self._reading() as db:
            row = db.execute("SELECT max(value) FROM (SELECT value FROM state WHERE name='next_segment' UNION ALL "
                             "SELECT number + 1 FROM segment UNION ALL SELECT 1)").fetchone()
        number: int = row[0]
        return number

    def seal_segment(self, number: int) -> bool:
        """True if nothing seems to live in it."""
        with self._transaction() as db:
            db.execute("UPDATE segment SET sealed=1 WHERE number=?", (number,))
            return self._seems_dead(db, number)

    def drop_segment(self, number: int) -> None:
        """Its file is gone, and nothing in it lives."""
        with self._transaction() as db:
            db.execute("DELETE FROM segment WHERE number=?", (number,))

    def copies_in(self, number: int) -> list[Copy]:
        """Walks the table, on a connection of its own: nobody waits."""
        with self._beside() as db:
            return [Copy(*row) for row in db.execute(
                "SELECT * FROM chunk WHERE segment=? AND segment <> 0 ORDER BY place", (number,))]

    def files(self, first_byte: int) -> list[Copy]:
        """Large chunks whose digest begins with this byte."""
        low = bytes((first_byte,))
        high = bytes((first_byte + 1,)) if first_byte < 255 else b"\xff" * 33
        with self._reading() as db:
            return [Copy(*row) for row in db.execute(
                "SELECT * FROM chunk WHERE digest >= ? AND digest < ? AND segment = 0", (low, high))]

    # The whole

    def totals(self) -> Totals:
        """Walks the table, on a connection of its own: nobody waits."""
        with self._beside() as db:
            chunks, byte_count, unsettled = db.execute(
                "SELECT count(*), coalesce(sum(size),0), coalesce(sum(state<>1),0) FROM chunk").fetchone()
            damaged = db.execute("SELECT count(*) FROM damage").fetchone()[0]
            segments, used, dead = db.execute(
                "SELECT count(*), coalesce(sum(used),0), coalesce(sum(dead),0) FROM segment").fetchone()
        return Totals(chunks, byte_count, unsettled, damaged, segments, used, dead)

    @property
    def clean(self) -> bool:
        with self._reading() as db:
            return bool(db.execute("SELECT value FROM state WHERE name='clean'").fetchone()[0])

    def set_clean(self, clean: bool) -> None:
        """Durable on return: a node that believed a stale mark would skip the tails of its segments."""
        with self._transaction(durable=True) as db:
            db.execute("UPDATE state SET value=? WHERE name='clean'", (clean,))
        self._disk.step("index.synced", self.path)

    def make_durable(self) -> None:
        """What has been committed until now survives a power cut."""
        with self._transaction(durable=True) as db:
            # A change that changes nothing would be no commit, and nothing would be synced.
            db.execute("INSERT INTO state VALUES('synced',1) ON CONFLICT DO UPDATE SET value=value+1")
        self._disk.step("index.synced", self.path)

    def _keep_short(self) -> None:
        """The thread that folds the write-ahead log into the database. Slow (it syncs); readers and the writer go
        on."""
        while True:
            self._long.wait()
            if self._closed:
                return
            self._long.clear()
            self._pages = 0
            try:
                self.checkpoint()
            except sqlite3.Error:
                log.warning("%s: checkpoint failed, it will be tried again", self.path, exc_info=True)

    def checkpoint(self, mode: str = "PASSIVE") -> None:
        db = sqlite3.connect(self.path, isolation_level=None)
        try:
            self._disk.step("index.checkpoint", self.path)
            db.execute(f"PRAGMA wal_checkpoint({mode})")
        finally:
            db.close()

    def close(self) -> None:
        self._closed = True
        self._long.set()
        self._keeper.join()
        with self._lock:
            self._db.close()
