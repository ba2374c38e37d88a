"""Which copies storage nodes hold, and what they ask about them. Offered by name with those of queries.py.

A *live* row says which generation of a digest counts and where it lies. Copies of nodes that are leaving or lost may be read,
and don't count. Code that deletes bytes goes by `chunk_states`: read it twice.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from consensus.core.codec import UNDECODABLE
from consensus.core.ids import Digest, Generation, NodeId
from consensus.core.model import NodeInfo
from consensus.rows import COPY_BYTES, NODE_COLUMNS, UNCOUNTED, chunk_seal, damaged, decode_locations, node_info
from consensus.slices import node_names

Database = sqlite3.Connection
ChunkState = Literal["listed", "short", "passed", "pending"]


class Released(NamedTuple):
    """Copies that a node holds and that were listed no more at some moment. `after` is where the next call goes on."""

    copies: tuple[tuple[Digest, Generation], ...]
    after: int


class ShortChunk(NamedTuple):
    """A chunk that lacks copies, or has too many. `nodes`: all that may be read, also of nodes that are leaving. `place`: where
    a listing goes on after it."""

    digest: Digest
    generation: Generation
    size: int
    nodes: tuple[NodeId, ...]
    wanted: int
    place: tuple[int, bytes]


class LiveChunk(NamedTuple):
    """The live row of a digest, as one node asks about it: whether that node is listed, whether copies are wanted."""

    generation: Generation
    size: int
    listed: bool
    short: bool


class ListedCopies(NamedTuple):
    """Copies for which a node is listed. `after` is where the next call goes on; None: there is no more."""

    copies: tuple[tuple[Digest, Generation], ...]
    after: bytes | None


class ChunkPlace(NamedTuple):
    """A chunk's row: what is live under this digest, and which nodes are said to hold it."""

    digest: Digest
    generation: Generation
    size: int
    nodes: tuple[NodeId, ...]
    wanted: int


class Unequal(NamedTuple):
    """How many chunks lack copies, by how many are left that count, and their bytes; how many have too many. Counted up to a
    limit each."""

    short: dict[int, int]
    short_bytes: int
    over: int


def nodes(db: Database) -> list[NodeInfo]:
    return [node_info(row) for row in db.execute(f"SELECT {NODE_COLUMNS} FROM node ORDER BY id").fetchall()]


def chunk_states(
    db: Database, node: NodeId, copies: Sequence[tuple[Digest, Generation]]
) -> list[ChunkState]:
    """What a node is to do about copies that it stored before this read. In their order, one each:

    listed   it is counted on for this copy: keep it
    short    the generation is live, lacks copies and doesn't list this node: announce it
    passed   not listed, and no commit can bring the generation any more (it has been carried out, the mark has passed it,
             or its session has ended): it may go
    pending  a commit may still bring it: ask again later
    """
    names = _names(db)
    uncounted = _uncounted(db)
    own = {number for number, name in names.items() if name == node}
    lows: dict[int, int | None] = {}
    answers: list[ChunkState] = []
    # One statement for all, and what locations mean is worked out once for each kind: every small PUT is asked about here.
    live = {row[0]: row for row in db.execute(
        "SELECT digest, session, sequence, size, locations, crc, wanted FROM chunk"
        f" WHERE digest IN ({','.join('?' * len(copies))})", [digest for digest, _ in copies])}
    meanings: dict[bytes, tuple[bool, int]] = {}
    for digest, (session, sequence) in copies:
        row = live.get(digest)
        if row is not None:
            if row[5] != chunk_seal(*row[:5]):
                raise damaged(f"chunk {digest.hex()}")
            if row[1] == session and row[2] == sequence:
                meaning = meanings.get(row[4])
                if meaning is None:
                    valid = [number for number in decode_locations(row[4]) if number in names]
                    counted = sum(number not in uncounted for number in valid)
                    meaning = meanings[row[4]] = not own.isdisjoint(valid), counted
                if meaning[0]:
                    answers.append("listed")
                    continue
                if meaning[1] < row[6]:
                    # A node that isn't known can't announce yet, and one that is being taken out isn't to.
                    answers.append("short" if own - uncounted else "pending")
                    continue
        if session not in lows:
            low = db.execute("SELECT low FROM session WHERE id = ?", (session,)).fetchone()
            lows[session] = None if low is None else low[0]
        mark = lows[session]
        over = mark is None or sequence < mark or _has_result(db, session, sequence)
        answers.append("passed" if over else "pending")
    return answers


def _has_result(db: Database, session: int, sequence: int) -> bool:
    """Whether the sequence was carried out already: its repeats change nothing, so it brings no chunk any more. An owner
    that has become idle tells its mark only half a second later: until then its last uploads would seem to be under way."""
    found = db.execute("SELECT 1 FROM result WHERE session = ? AND sequence = ?", (session, sequence)).fetchone()
    return found is not None


def located(db: Database, digest: Digest) -> tuple[Generation, tuple[NodeId, ...]] | None:
    """The live generation of a chunk and who holds it now: for a reader to whom all places it knew have failed."""
    row = db.execute("SELECT session, sequence, size, locations, crc FROM chunk WHERE digest = ?", (digest,)).fetchone()
    if row is None:
        return None
    session, sequence, size, locations, crc = row
    if crc != chunk_seal(digest, session, sequence, size, locations):
        raise damaged(f"chunk {digest.hex()}")
    names = _names(db)
    return Generation(session, sequence), tuple(names[number] for number in decode_locations(locations) if number in names)


def live_chunks(
    db: Database, node: NodeId, digests: Sequence[Digest]
) -> list[LiveChunk | None]:
    """What is live under these digests, one answer each in their order; None where nothing is."""
    names = _names(db)
    uncounted = _uncounted(db)
    answers: list[LiveChunk | None] = []
    for digest in digests:
        row = db.execute(
            "SELECT session, sequence, size, wanted, locations, crc FROM chunk WHERE digest = ?", (digest,)
        ).fetchone()
        if row is None:
            answers.append(None)
            continue
        session, sequence, size, wanted, locations, crc = row
        if crc != chunk_seal(digest, session, sequence, size, locations):
            raise damaged(f"chunk {digest.hex()}")
        valid = [number for number in decode_locations(locations) if number in names]
        listed = any(names[number] == node for number in valid)
        lacking = sum(number not in uncounted for number in valid) < wanted
        answers.append(LiveChunk(Generation(session, sequence), size, listed, lacking))
    return answers


def listed_on(db: Database, node: NodeId, after: bytes = b"", limit: int = 1000) -> ListedCopies:
    """The copies that this node is listed for, in order of digest, among the `limit` rows that follow `after`: so a page
    may be empty and yet not the last."""
    names = _names(db)
    own = {number for number, name in names.items() if name == node}
    rows = db.execute(
        "SELECT digest, session, sequence, size, locations, crc FROM chunk WHERE digest > ? ORDER BY digest LIMIT ?",
        (after, limit),
    ).fetchall()
    copies = []
    for digest, session, sequence, size, locations, crc in rows:
        if crc != chunk_seal(digest, session, sequence, size, locations):
            raise damaged(f"chunk {digest.hex()}")
        if own.intersection(decode_locations(locations)):
            copies.append((digest, Generation(session, sequence)))
    return ListedCopies(tuple(copies), rows[-1][0] if len(rows) == limit else None)


def released(db: Database, node: NodeId, after: int = 0, limit: int = 300) -> Released:
    """Hints for this node, from after `after` on: about `limit`, more only if one command left more. A node remembers
    how far it got; hints older than a day are gone, and it compares its whole inventory instead."""
    number = db.execute("SELECT number FROM node WHERE id = ?", (node,)).fetchone()
    copies: list[tuple[Digest, Generation]] = []
    if number is not None:
        for id, packed in db.execute(
            "SELECT id, copies FROM released WHERE node = ? AND id > ? ORDER BY id LIMIT ?", (number[0], after, limit)
        ).fetchall():
            if len(copies) >= limit:
                break
            copies += [(Digest(packed[at:at + 32]), Generation.unpack(packed[at + 32:at + COPY_BYTES]))
                       for at in range(0, len(packed), COPY_BYTES)]
            after = id
    return Released(tuple(copies), after)


def under_replicated(db: Database, limit: int = 1000, after: tuple[int, bytes] = (0, b"")) -> list[ShortChunk]:
    """Live chunks of which fewer copies count than are wanted: the queue of replication and repair. Those with the fewest
    left come first; go on with `place` of the last one."""
    return _unequal(db, "short > 0 AND (short, digest) > (?, ?)", after, limit)


def over_replicated(db: Database, limit: int = 1000, after: tuple[int, bytes] = (-1 << 31, b"")) -> list[ShortChunk]:
    """Those of which there are more copies than are wanted, so that somebody may give one back."""
    return _unequal(db, "short < 0 AND (short, digest) > (?, ?)", after, limit)


def _unequal(db: Database, where: str, after: tuple[int, bytes], limit: int) -> list[ShortChunk]:
    names = _names(db)
    rows = db.execute(
        f"SELECT digest, session, sequence, size, locations, wanted, short FROM chunk WHERE short <> 0 AND {where}"
        " ORDER BY short, digest LIMIT ?", (*after, limit)).fetchall()
    return [
        ShortChunk(row[0], Generation(row[1], row[2]), row[3],
                   tuple(names[number] for number in decode_locations(row[4]) if number in names), row[5], (row[6], row[0]))
        for row in rows
    ]


def unequal(db: Database, limit: int = 100_000) -> Unequal:
    rows = db.execute("SELECT short - 1, count(*), sum(size) FROM (SELECT short, size FROM chunk WHERE short <> 0 AND short > 0"
                      " LIMIT ?) GROUP BY short", (limit,)).fetchall()
    over = db.execute("SELECT count(*) FROM (SELECT 1 FROM chunk WHERE short <> 0 AND short < 0 LIMIT ?)", (limit,)).fetchone()[0]
    return Unequal({left: count for left, count, _ in rows}, sum(row[2] for row in rows), over)


_PLACE = "SELECT digest, session, sequence, size, locations, wanted FROM chunk"


def chunk_places(db: Database, after: bytes = b"", limit: int = 1000) -> list[ChunkPlace]:
    """Chunk rows in order of digest, from after `after` on. Seals are not looked at: whoever compares wants all rows."""
    names = _names(db)
    rows = db.execute(f"{_PLACE} WHERE digest > ? ORDER BY digest LIMIT ?", (after, limit)).fetchall()
    return [_place(row, names) for row in rows]


def chunk_place(db: Database, digest: Digest) -> ChunkPlace | None:
    row = db.execute(f"{_PLACE} WHERE digest = ?", (digest,)).fetchone()
    return None if row is None else _place(row, _names(db))


def _place(row: tuple[Any, ...], names: Mapping[int, NodeId]) -> ChunkPlace:
    digest, session, sequence, size, locations, wanted = row
    try:
        numbers = decode_locations(locations)
    except UNDECODABLE:         # the row is damaged, and tells of no place
        numbers = ()
    return ChunkPlace(digest, Generation(session, sequence), size,
                      tuple(names[number] for number in numbers if number in names), wanted)


def _names(db: Database) -> Mapping[int, NodeId]:
    return node_names(db.execute("SELECT v FROM meta WHERE k = 'nodes'").fetchone())


def _uncounted(db: Database) -> frozenset[int]:
    """Numbers of nodes that are leaving or lost."""
    return frozenset(number for (number,) in db.execute(UNCOUNTED).fetchall())
