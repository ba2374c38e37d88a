"""Reading a member's SQLite file from another process (or the same): one short transaction for each read.

Rules:
* every read is one transaction that begins with `queries.header` and is fetched to its end inside `run`: a half-read
  cursor would pin its snapshot for every later query on the connection;
* a query of one statement (`queries.ALONE`) is a transaction without more words, and goes without them: BEGIN, header
  and COMMIT cost as much as finding a bucket. The file's generation never changes, so it is checked at opening too;
* the file is opened read-only and only while the member serves: without a living writer nobody has recovered its WAL;
* another generation is another file.

A member that is alone needs no read index (`run`): it answers a write after SQLite holds it, so a transaction that begins
after a request arrived shows every write that was answered before it. In a cluster another member may have answered, so
there every read has an index that the file must have reached, and begins with the header that tells (`run_at`;
docs/decisions/0009).
"""

import os
import sqlite3
from collections.abc import Callable, Container
from types import FunctionType, ModuleType
from typing import Concatenate, ParamSpec, TypeVar, get_type_hints
from urllib.parse import quote

from consensus.core.binding import bind_quickly
from consensus.core.errors import ClusterError, Corrupt, Unavailable

Asked = ParamSpec("Asked")
Value = TypeVar("Value")

MMAP_BYTES = 1 << 30
"""Pages are read from the page cache without a system call; more than this is read the ordinary way."""

CACHE_KIB = 16 << 10
"""SQLite's own cache in each reading process: inner pages of the trees; the rest comes through mmap."""

PASSING = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}
"""Primary codes of what passes by itself while the writer recovers or checkpoints."""


class Behind(Unavailable):
    """The file does not hold what was answered elsewhere already. It will."""


def passes(error: sqlite3.Error) -> bool:
    """Whether it is worth trying again within BUSY_WAIT_S."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in PASSING


def failure(error: sqlite3.Error) -> ClusterError:
    """What a read that SQLite could not carry out means to its caller."""
    damaged = getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    return Corrupt(f"the metadata file is damaged: {error}") if damaged else Unavailable(f"metadata: {error}")


class Reader:
    """Reads of one file by one thread."""

    def __init__(self, folder: str, header: Callable[[sqlite3.Connection], tuple[int, int]],
                 alone: Container[Callable[..., object]] = (), factory: type[sqlite3.Connection] = sqlite3.Connection) -> None:
        """`folder` is the member's (…/meta); `header` is queries.header, `alone` is queries.ALONE, `factory` is
        queries.KnowingBuckets."""
        self._folder, self._header, self._alone, self._factory = folder, header, alone, factory
        self._db: sqlite3.Connection | None = None
        self._generation = -1

    def run(self, generation: int, query: Callable[Concatenate[sqlite3.Connection, Asked], Value],
            *arguments: Asked.args, **named: Asked.kwargs) -> Value:
        """The query's value at one moment. Raises sqlite3.Error (see `passes`), or what the query raises."""
        db = self._db
        if db is None or generation != self._generation:
            db = self._open(generation)
        if query in self._alone:
            return query(db, *arguments, **named)
        execute = db.execute
        execute("BEGIN")
        try:
            self._check(db, generation)
            return query(db, *arguments, **named)
        finally:
            execute("COMMIT")

    def run_at(self, index: int, generation: int, query: Callable[Concatenate[sqlite3.Connection, Asked], Value],
               *arguments: Asked.args, **named: Asked.kwargs) -> Value:
        """The same, of a file that holds the entry `index`. Raises Unavailable if it doesn't (yet), and as `run` does."""
        db = self._db
        if db is None or generation != self._generation:
            db = self._open(generation)
        execute = db.execute
        execute("BEGIN")
        try:
            applied = self._check(db, generation)
            if applied < index:
                raise Behind(f"the metadata file ends at entry {applied}, {index} is needed")
            return query(db, *arguments, **named)
        finally:
            execute("COMMIT")

    def path_of(self, generation: int) -> str:
        return os.path.abspath(os.path.join(self._folder, f"meta.{generation}.sqlite"))

    def _open(self, generation: int) -> sqlite3.Connection:
        self.close()
        path = self.path_of(generation)
        bind_quickly()
        db = sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, isolation_level=None, cached_statements=256,
                             factory=self._factory)
        try:
            for name, value in (("query_only", 1), ("mmap_size", MMAP_BYTES), ("cache_size", -CACHE_KIB)):
                db.execute(f"PRAGMA {name}={value}")
            self._check(db, generation)
        except BaseException:
            db.close()
            raise
        self._db, self._generation = db, generation
        return db

    def _check(self, db: sqlite3.Connection, generation: int) -> int:
        applied, found = self._header(db)
        if found != generation:
            raise Unavailable(f"the metadata file is of generation {found}, the member serves {generation}")
        return applied

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None


def query_named(module: ModuleType, name: str) -> FunctionType:
    """A public function of queries.py that reads. Raises LookupError for any other name: names come from a socket."""
    function = vars(module).get(name)
    if name.startswith("_") or not isinstance(function, FunctionType) or not _reads(function):
        raise LookupError(f"there is no query {name!r}")
    return function


def _reads(function: FunctionType) -> bool:
    """Whether it takes a connection first."""
    return next(iter(get_type_hints(function).values()), None) is sqlite3.Connection
