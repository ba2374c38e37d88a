"""A copy of the metadata as it was, made into one that fits what is here now: sessions ended, nodes numbered, and each chunk's
row sent to where its bytes are. The work on rows of a restore (consensus.restore); nobody else has the file yet.
"""

import secrets
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from heapq import merge
from itertools import groupby
from operator import itemgetter
from typing import Protocol

import msgspec
import peewee

from consensus import audit
from consensus.apply import queue
from consensus.backup import Descriptor
from consensus.core.errors import Refused
from consensus.core.ids import Digest, Generation, NodeId
from consensus.rows import UNCOUNTED, chunk_seal, decode_locations, encode, shortness
from consensus.tables import open_database

PROBLEMS_MAX = 1000
ROWS_AT_ONCE = 1000

Progress = Callable[[str, int, int], None]
"""What is being done, how much of it is done, and of how much (0: not known)."""


class Copies(Protocol):
    """The chunk index of a storage node's folder, which nobody else has open."""

    node: NodeId
    incarnation: bytes

    def greatest_session(self) -> int:
        """Of all generations that are here; 0 if there are none."""

    def by_digest(self) -> Iterator[tuple[Digest, bytes, int]]:
        """(digest, packed generation, size) of every copy that isn't known to be damaged, in this order."""


class Fitted(msgspec.Struct, frozen=True, kw_only=True):
    """`chunks` rows; `moved`: those found, but under another generation or elsewhere; `lost`: those without any.
    `problems`: what does not fit in the metadata itself. `missing`: what has lost bytes, at most audit.AFFECTED_MAX of
    `missing_count`. `absent`: storage nodes that the metadata knows and that were not given. `kept`: backups that stay."""

    chunks: int
    moved: int
    lost: int
    missing_count: int
    missing: list[audit.Affected]
    absent: list[NodeId]
    problems: list[str]
    kept: list[str]


class Fitting:
    """A copy of the metadata as it was, made into one that fits what is here now. Nobody else has the file yet."""

    def __init__(self, path: str, descriptor: Descriptor, nodes: Sequence[Copies], progress: Progress) -> None:
        self._descriptor, self._nodes, self._progress = descriptor, nodes, progress
        try:
            self._database = open_database(path)      # brings an older schema up to date
        except ValueError as error:                   # a newer one
            raise Refused(f"{error}: restore it with the Staddle that made it, or a newer one") from error
        except peewee.PeeweeException as error:
            raise OSError(f"SQLite cannot write {path}: {error}") from error
        self._db: sqlite3.Connection = self._database.connection()  # type: ignore[no-untyped-call]  # peewee
        self._names: dict[int, NodeId] = {}
        self._absent: dict[int, NodeId] = {}
        self._kept: list[str] = []

    def close(self) -> None:
        self._database.close()

    def carry_out(self, index: int, term: int, files: Iterator[Descriptor]) -> Fitted:
        db = self._db
        db.execute("PRAGMA synchronous = FULL")
        db.execute("BEGIN IMMEDIATE")
        self._end_sessions()
        self._leave_the_cluster()
        self._keep_backups({made.name: made for made in files})
        self._number_nodes()
        chunks, moved, lost = self._locate()
        db.executemany("INSERT OR REPLACE INTO meta (k, v) VALUES (?, ?)", [
            ("applied", index), ("term", term), ("restored", secrets.token_hex(8))])
        db.execute("COMMIT")
        self._progress("counting", 0, 0)
        problems = audit.recount(db, PROBLEMS_MAX)
        missing_count, missing = audit.affected(db, lost)
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return Fitted(chunks=chunks, moved=moved, lost=len(lost), missing_count=missing_count, missing=missing,
                      absent=sorted(self._absent.values()), problems=problems, kept=self._kept)

    def _end_sessions(self) -> None:
        """As at the end of each: what they left goes in pages."""
        self._db.execute("INSERT INTO queue (kind, a) SELECT ?, id FROM session", (queue.SESSION,))
        self._db.execute("DELETE FROM session")
        self._db.execute("DELETE FROM released")     # nodes compare their inventories after a restore

    def _leave_the_cluster(self) -> None:
        """The members of the lost life have a log that this one is no part of: it begins as one member, and they join anew."""
        self._db.execute("DELETE FROM member")
        self._db.execute("DELETE FROM join_token")
        self._db.execute("DELETE FROM duty")         # the gateways that had them are of the lost life too

    def _keep_backups(self, files: dict[str, Descriptor]) -> None:
        """A backup stays if its copy is still there: what it refers to is in this one too. That holds for this one itself."""
        db, own = self._db, self._descriptor
        db.execute("UPDATE backup SET idx = ?, session = NULL WHERE name = ? AND idx IS NULL", (own.index, own.name))
        for name, index in db.execute("SELECT name, idx FROM backup").fetchall():
            made = files.get(name)
            if index is not None and made is not None and made.index == index:
                self._kept.append(name)
            else:
                db.execute("DELETE FROM backup WHERE name = ?", (name,))
        db.execute("DELETE FROM queue WHERE kind = ?", (queue.HELD,))
        db.execute("INSERT INTO queue (kind, a, b) VALUES (?, 0, ?)", (queue.HELD, bytes(8)))

    def _number_nodes(self) -> None:
        """As at their registration: a disk that the metadata doesn't know gets a number of its own."""
        db = self._db
        known = {id: (number, incarnation) for number, id, incarnation in
                 db.execute("SELECT number, id, incarnation FROM node").fetchall()}
        found = db.execute("SELECT v FROM meta WHERE k = 'next_node'").fetchone()
        following = found[0] if found else 1
        for node in self._nodes:
            number, incarnation = known.pop(node.node, (0, b""))
            if incarnation != node.incarnation:
                db.execute("DELETE FROM node WHERE number = ?", (number,))
                number, following = following, following + 1
                db.execute("INSERT INTO node (number, id, incarnation, address, zone, capacity, state)"
                           " VALUES (?, ?, ?, '', '', 0, 'up')", (number, node.node, node.incarnation))
            self._names[number] = node.node
        self._absent = {number: id for id, (number, _) in known.items()}
        every = tuple(sorted({**self._names, **self._absent}.items()))
        db.executemany("INSERT OR REPLACE INTO meta (k, v) VALUES (?, ?)",
                       [("next_node", following), ("nodes", encode(every))])
        db.execute("DELETE FROM queue WHERE kind = ?", (queue.REVIEW,))
        db.execute("INSERT INTO queue (kind, a, b) VALUES (?, 0, ?)", (queue.REVIEW, b""))

    def _locate(self) -> tuple[int, int, set[bytes]]:
        """Give each chunk row the copies that there are. Answers how many rows there are, how many have another generation
        or other locations now (and any), and the digests that have no location."""
        numbers = {id: number for number, id in self._names.items()}
        names = {**self._names, **self._absent}
        uncounted = {number for (number,) in self._db.execute(UNCOUNTED)}
        here = groupby(merge(*[_with_number(node, numbers[node.node]) for node in self._nodes]), key=itemgetter(0))
        at = next(here, None)
        total = self._db.execute("SELECT count(*) FROM chunk").fetchone()[0]
        chunks = moved = 0
        lost: set[bytes] = set()
        after = b""
        while rows := self._db.execute(
            "SELECT digest, session, sequence, size, wanted, short, locations FROM chunk WHERE digest > ? ORDER BY digest"
            " LIMIT ?", (after, ROWS_AT_ONCE)
        ).fetchall():
            changed = []
            for digest, session, sequence, size, wanted, short, packed in rows:
                while at is not None and at[0] < digest:
                    at = next(here, None)
                copies = [copy[1:3] for copy in at[1] if copy[3] == size] if at is not None and at[0] == digest else []
                generation, locations = self._choose(Generation(session, sequence), decode_locations(packed), copies)
                lacking = shortness(locations, names, uncounted, wanted)
                if not locations:
                    lost.add(digest)
                if (*generation, encode(locations), lacking) != (session, sequence, packed, short):
                    raw = encode(locations)
                    changed.append((*generation, lacking, raw, chunk_seal(digest, *generation, size, raw), digest))
            self._db.executemany("UPDATE chunk SET session = ?, sequence = ?, short = ?, locations = ?, crc = ? WHERE digest = ?",
                                 changed)
            moved += sum(row[-1] not in lost for row in changed)
            chunks, after = chunks + len(rows), rows[-1][0]
            self._progress("finding chunks", chunks, total)
        return chunks, moved, lost

    def _choose(self, live: Generation, known: tuple[int, ...], copies: list[tuple[bytes, int]]
                ) -> tuple[Generation, tuple[int, ...]]:
        """The generation with the most copies here, the live one if it has as many; and who holds it."""
        absent = tuple(number for number in known if number in self._absent)
        held: dict[bytes, list[int]] = {}
        for generation, number in copies:
            held.setdefault(generation, []).append(number)
        packed = live.pack()
        if not held:
            return live, absent
        best = max(held, key=lambda generation: (len(held[generation]), generation == packed, generation))
        if best == packed or len(held.get(packed, ())) + len(absent) >= len(held[best]):
            return live, (*sorted(held.get(packed, ())), *absent)
        return Generation.unpack(best), tuple(sorted(held[best]))


def _with_number(node: Copies, number: int) -> Iterator[tuple[bytes, bytes, int, int]]:
    for digest, generation, size in node.by_digest():
        yield digest, generation, number, size
