"""Small copies that have just been written, before the index's table `chunk` has them.

A row of `chunk` lies where its digest sorts: each one dirties a page, and once more when its state changes. So what a
batch brings goes to the end of a table of its own first, as one row, and comes into `chunk` with many others at once: as a
rule when the settler says what the metadata thinks of it, and then it is written there only once.

Rules:
* a copy is in `young` before its put is answered, and leaves it only after it has come into `chunk`, or with that: who finds
  it in neither looks into `chunk` once more (index_reader.py);
* they come into `chunk` in the order in which they were written, and only then a segment's `used` covers them. So a Staddle
  that doesn't know this table finds them in the segment's tail, as after a power cut;
* a place is never used twice, so who reads beside the writer asks for places beyond those that he has seen.
"""

import logging
import sqlite3
import struct
from collections.abc import Collection, Iterator
from itertools import islice, pairwise
from typing import NamedTuple

from consensus.core.ids import Digest
from storage_node.chunk import record_bytes

log = logging.getLogger("staddle.node")

YOUNG_MAX = 4096
"""More are brought into `chunk` whether or not anybody has asked about them: bounds memory, and how much of a segment an
older Staddle reads again."""

SCHEMA = "CREATE TABLE IF NOT EXISTS young(last INTEGER PRIMARY KEY, copies BLOB NOT NULL)"
"""A row for each batch. `last`: where its last copy is, number of the segment times 2 to the power of 32 plus the place."""

_ADD = "INSERT INTO young VALUES(?,?)"
_DROP = "DELETE FROM young WHERE last<=?"
_DROP_FROM = "DELETE FROM young WHERE last>=?"
_STALE = """DELETE FROM young WHERE NOT EXISTS
    (SELECT 1 FROM segment WHERE number=last>>32 AND NOT sealed AND used<=last&0xffffffff)"""

_COPY = struct.Struct(">32s16sIIQQ")
Name = tuple[bytes, bytes]


class Row(NamedTuple):
    """A copy that has just become durable."""

    digest: Digest
    generation: bytes
    size: int
    segment: int
    place: int
    due: int


def beyond(db: sqlite3.Connection, seen: int) -> Iterator[tuple[int, list[Row]]]:
    """What was added after this row: `last` and copies of each. Some may be in `chunk` by now."""
    for last, copies in db.execute("SELECT last, copies FROM young WHERE last>? ORDER BY last", (seen,)).fetchall():
        yield last, [Row._make(copy) for copy in _COPY.iter_unpack(copies)] if len(copies) % _COPY.size == 0 else []


class Young:
    """The table as its writer knows it, in memory. index.py calls this within its lock and its transactions, and says how
    they have ended."""

    def __init__(self) -> None:
        self._rows: dict[Name, Row] = {}
        self._added: list[Row] = []
        self._gone: list[Row] = []

    def load(self, db: sqlite3.Connection) -> None:
        """What a life that was killed has left; but not what a Staddle that doesn't know this table has found since. From one
        that is damaged on, they are left to recovery.py, which reads the tails of their segments."""
        db.execute(SCHEMA)
        db.execute(_STALE)
        used = dict(db.execute("SELECT number, used FROM segment").fetchall())
        for last, rows in beyond(db, 0):
            if not _makes_sense(last, rows):
                log.error("what the index says of the newest copies in segment %d is damaged: its tail is read", last >> 32)
                db.execute(_DROP_FROM, (last,))
                break
            self._rows |= {row[:2]: row for row in rows if row.place >= used[row.segment]}

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, name: Name) -> bool:
        return name in self._rows

    def takes(self, rows: list[Row]) -> bool:
        """Whether these may be added: there are not too many, and no name comes twice, among them neither (a put that is sent
        again when its link broke). Else rows would not be in the order of their places, on which `drop` relies."""
        names = {row[:2] for row in rows}
        return len(names) == len(rows) and len(rows) + len(self._rows) <= YOUNG_MAX and self._rows.keys().isdisjoint(names)

    def add(self, db: sqlite3.Connection, rows: list[Row]) -> None:
        self._added = rows
        pack = _COPY.pack
        db.execute(_ADD, (_last(rows), b"".join([pack(*row) for row in rows])))

    def first(self, limit: int) -> list[Row]:
        return list(islice(self._rows.values(), limit))

    def until(self, names: Collection[Name]) -> list[Row]:
        """All up to the last of these names; none if none is young."""
        left = sum(name in self._rows for name in names)
        rows: list[Row] = []
        for row in self._rows.values():
            if not left:
                break
            rows.append(row)
            left -= row[:2] in names
        return rows

    def drop(self, db: sqlite3.Connection, rows: list[Row]) -> None:
        """These, the first ones, have come into `chunk`."""
        self._gone = rows
        db.execute(_DROP, (_last(rows),))

    def committed(self) -> None:
        for row in self._gone:
            del self._rows[row[:2]]
        for row in self._added:
            self._rows[row[:2]] = row
        self._added, self._gone = [], []

    def undone(self) -> None:
        self._added, self._gone = [], []


def _makes_sense(last: int, rows: list[Row]) -> bool:
    """A wrong place would let `used` cover what is in no table."""
    return (bool(rows) and _last(rows) == last and all(row.segment == last >> 32 for row in rows)
            and all(row.place + record_bytes(row.size) <= after.place for row, after in pairwise(rows)))


def _last(rows: list[Row]) -> int:
    return rows[-1].segment << 32 | rows[-1].place
