"""From a range of a content to the slices that hold it, and from a slice to the nodes that hold its chunk now.

Inline and paged slices are cut to the range; a composite content goes through those of its parts that it touches.
So a range of a 5 TiB object reads its own rows only.
"""

import sqlite3
from functools import lru_cache
from typing import Any

from consensus.core.errors import Corrupt
from consensus.core.ids import Generation, NodeId
from consensus.core.model import LocatedSlice
from consensus.rows import (
    INLINE,
    PARTS,
    chunk_seal,
    content_seal,
    damaged,
    decode_locations,
    decode_nodes,
    part_seal,
    piece_seal,
    unpack_slices,
)

Database = sqlite3.Connection


def collect(
    db: Database, content_id: int, start: int, end: int, limit: int, names: dict[int, NodeId], found: list[LocatedSlice]
) -> None:
    row = db.execute("SELECT kind, size, etag, parts, slices, crc FROM content WHERE id = ?", (content_id,)).fetchone()
    if row is None:
        return
    kind, size, etag, part_count, packed, crc = row
    if crc != content_seal(content_id, kind, size, etag, part_count, packed):
        raise damaged(f"content {content_id}")
    end = min(end, size)
    if kind == INLINE:
        _cut(db, packed, 0, start, end, limit, names, found)
    elif kind == PARTS:
        _collect_parts(db, content_id, start, end, limit, names, found)
    else:
        _collect_pieces(db, content_id, start, end, limit, names, found)


def _collect_pieces(
    db: Database, content_id: int, start: int, end: int, limit: int, names: dict[int, NodeId], found: list[LocatedSlice]
) -> None:
    at = start
    while at < end and len(found) < limit:
        row = db.execute(
            "SELECT start, slices, crc FROM piece WHERE content = ? AND start <= ? ORDER BY start DESC LIMIT 1",
            (content_id, at),
        ).fetchone()
        if row is None or row[2] != piece_seal(content_id, row[0], row[1]):
            raise damaged(f"piece of content {content_id} at {at}")
        last = _cut(db, row[1], row[0], at, end, limit, names, found)
        if last <= at:
            raise damaged(f"piece of content {content_id} at {at}: it ends before the next begins")
        at = last


def _collect_parts(
    db: Database, content_id: int, start: int, end: int, limit: int, names: dict[int, NodeId], found: list[LocatedSlice]
) -> None:
    at = start
    while at < end and len(found) < limit:
        # The greatest start at or before `at` whose part isn't empty: empty parts share their start with the next.
        row = db.execute(
            "SELECT number, start, part_content, size, etag, checksum, crc FROM content_part"
            " WHERE content = ? AND start <= ? ORDER BY start DESC, number DESC LIMIT 1",
            (content_id, at),
        ).fetchone()
        if row is None or row[6] != part_seal(content_id, row[0], row[2], row[3], row[4], row[5]):
            raise damaged(f"part of content {content_id} at {at}")
        part_start, part_end = row[1], row[1] + row[3]
        if part_end <= at:
            raise damaged(f"part {row[0]} of content {content_id}: it ends before the next begins")
        before = len(found)
        collect(db, row[2], at - part_start, min(end, part_end) - part_start, limit, names, found)
        if len(found) == before:
            raise Corrupt(f"content {row[2]}, part {row[0]} of content {content_id}, is missing")
        if len(found) >= limit:
            return
        at = part_end


def _cut(
    db: Database, packed: bytes, at: int, start: int, end: int, limit: int, names: dict[int, NodeId],
    found: list[LocatedSlice],
) -> int:
    """Add those packed slices (the first begins at `at`) that lie in start..end, cut to it. Answers where it ends."""
    for piece in unpack_slices(packed):
        after = at + piece.length
        if after > start:
            if at >= end or len(found) >= limit:
                break
            low, high = max(start, at), min(end, after)
            cut = piece._replace(start=piece.start + low - at, length=high - low)
            row = db.execute(
                "SELECT digest, session, sequence, size, locations, crc FROM chunk WHERE digest = ?", (piece.digest,)
            ).fetchone()
            found.append(locate(cut, row or (None,), names))
        at = after
    return at


def locate(piece: Any, row: tuple[Any, ...], names: dict[int, NodeId]) -> LocatedSlice:
    digest = row[0]
    if digest is None:
        raise Corrupt(f"chunk {piece.digest.hex()} is referred to, but has no row")
    _, session, sequence, size, locations, crc = row
    if crc != chunk_seal(digest, session, sequence, size, locations):
        raise damaged(f"chunk {digest.hex()}")
    return LocatedSlice(digest, piece.start, piece.length, Generation(session, sequence), size,
                        tuple([names[number] for number in decode_locations(locations) if number in names]))


@lru_cache(maxsize=64)
def _decode_names(raw: bytes) -> dict[int, NodeId]:
    return dict(decode_nodes(raw))


def node_names(raw: Any) -> dict[int, NodeId]:
    """Node numbers that count, from the meta row 'nodes'. The blob itself is the cache's key, so it is never stale."""
    if isinstance(raw, tuple):
        raw = raw[0]
    return _decode_names(raw) if raw is not None else {}
