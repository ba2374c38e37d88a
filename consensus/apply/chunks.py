"""Chunk rows: which generation of a digest is live, where it lies, and how many slices refer to it.

"Names are never used twice" (docs/ARCHITECTURE.md): a commit brings its chunks under its own generation. If the digest
is live already, the commit adds a reference and its generation is passed over for good, unless its copies are more than
those of the row that can be read now, or as many on none of the row's nodes (who did not take these bytes, so they may be
gone and nobody know yet): then the row switches. What was just acknowledged must not hang on disks that are away. A row whose
last reference goes is removed at once. Only the node that holds a copy announces or withdraws it afterwards.
"""

from typing import NamedTuple

from consensus.apply.state import State, Terms
from consensus.core.commands import CHUNKS_PER_COMMAND_MAX, NewChunk
from consensus.core.ids import DIGEST_BYTES, Digest, Generation, SessionId
from consensus.core.model import Slice
from consensus.core.results import ChunkMissing, Malformed, NotDurable, TooFewCopies
from consensus.rows import U32_MAX, chunk_seal, damaged, decode_locations, encode, shortness

Refusal = Malformed | NotDurable | ChunkMissing | TooFewCopies

COPIES_BITS = 4
"""COPIES_MAX fits."""


class ChunkRow(NamedTuple):
    digest: Digest
    generation: Generation
    size: int
    refs: int
    wanted: int
    locations: tuple[int, ...]
    short: int
    copies: int
    mark: int


class Plan(NamedTuple):
    """References to add, already checked. `rows`: the live row of each digest, `new`: what the command brings, `terms`: those
    of the bucket. `looked`: false if the only digest has not been looked up, since the command brings it (`plan`)."""

    counts: dict[Digest, int]
    rows: dict[Digest, ChunkRow]
    new: dict[Digest, tuple[int, tuple[int, ...]]]     # size, valid locations
    bytes: int
    terms: Terms
    looked: bool


def load(state: State, digest: Digest) -> ChunkRow | None:
    row = state.execute(
        "SELECT session, sequence, size, refs, wanted, locations, crc, short, copies, mark FROM chunk WHERE digest = ?",
        (digest,)
    ).fetchone()
    if row is None:
        return None
    session, sequence, size, refs, wanted, locations, crc, short, copies, mark = row
    if crc != chunk_seal(digest, session, sequence, size, locations):
        raise damaged(f"chunk {digest.hex()}")
    return ChunkRow(digest, Generation(session, sequence), size, refs, wanted, decode_locations(locations), short, copies, mark)


def plan(state: State, slices: tuple[Slice, ...], chunks: tuple[NewChunk, ...], terms: Terms) -> Plan | Refusal:
    """Check that these slices may become references. Changes nothing.

    A small object has one chunk, which is new as a rule: that is seen when its row is inserted, which costs nothing more, and
    nothing has been changed by then. Longer ones are looked up here.
    """
    if len(slices) > CHUNKS_PER_COMMAND_MAX or len(chunks) > len(slices):
        return Malformed(reason=f"at most {CHUNKS_PER_COMMAND_MAX} slices, and no chunk without a slice")
    if chunks and not state.session:
        return Malformed(reason="chunks come with a session's command: it is half of their generation")
    new: dict[Digest, tuple[int, tuple[int, ...]]] = {}
    quorum = terms.quorum
    for chunk in chunks:
        if len(chunk.digest) != DIGEST_BYTES or not 0 < chunk.size <= U32_MAX or chunk.digest in new:
            return Malformed(reason="a new chunk has a 32-byte digest, 1 to 2**32-1 bytes, and is named once")
        present = _present(state, chunk)
        if len(present) < quorum:
            return NotDurable(digest=chunk.digest, wanted=quorum, present=len(present))
        new[chunk.digest] = chunk.size, present
    counts: dict[Digest, int] = {}
    rows: dict[Digest, ChunkRow] = {}
    total = 0
    looked = not (len(slices) == 1 and new)
    for digest, start, length in slices:
        brought = new.get(digest)
        if digest in counts:
            counts[digest] += 1
        else:
            if brought is None and len(digest) != DIGEST_BYTES:
                return Malformed(reason="a digest has 32 bytes")
            row = load(state, digest) if looked or brought is None else None
            if row is not None:
                if brought is not None and brought[0] != row.size:
                    return _other_size(row, brought[0])
                rows[digest] = row
                if brought is None and is_too_few(state, row, terms):
                    return TooFewCopies(wanted=terms.quorum)
            elif brought is None:
                return ChunkMissing(digest=digest)
            counts[digest] = 1
        size = brought[0] if brought is not None else rows[digest].size
        if start < 0 or length <= 0 or start + length > size:
            return Malformed(reason="a slice lies inside its chunk and isn't empty")
        total += length
    if not new.keys() <= counts.keys():
        return Malformed(reason="a new chunk is referred to by a slice")
    return Plan(counts, rows, new, total, terms, looked)


def is_too_few(state: State, row: ChunkRow, terms: Terms) -> bool:
    """A reference that comes without bytes acknowledges what is there: that must be as many copies as of bytes that are
    brought, whoever else has been content with fewer."""
    return state.valid(row.locations) < terms.quorum


def any_with_fewer(state: State, quorum: int) -> bool:
    """Whether there is any chunk at all that lacks copies and of which fewer count. As a rule there is none. (While all are
    looked through because nodes have come or gone, what was enough before is enough.)"""
    return state.execute("SELECT 1 FROM chunk WHERE short <> 0 AND short > 0 AND short <= ? LIMIT 1",
                         (quorum,)).fetchone() is not None


def _present(state: State, chunk: NewChunk) -> tuple[int, ...]:
    """The numbers of the holders whose disk is the present one, each once. One that is being taken out is as durable as others,
    and gives nothing back before they have it: gateways send it no chunks any more as soon as they hear of it, and until then
    no write has to fail."""
    numbers: list[int] = []
    for node, incarnation in chunk.holders:
        known = state.nodes.get(node)
        if (known is not None and known[1].incarnation == incarnation and (known[1].counts or known[1].state == "draining")
                and known[0] not in numbers):
            numbers.append(known[0])
    return tuple(numbers)


def _other_size(row: ChunkRow, size: int) -> Malformed:
    return Malformed(reason=f"chunk {row.digest.hex()} has {row.size} bytes, not {size}")


def link(state: State, plan: Plan) -> Malformed | None:
    """Add the planned references. Refused, and nothing changed, if what `plan` did not look up has another size."""
    copies, mark = plan.terms.copies, mark_of(state, plan.terms.copies)
    for digest, count in plan.counts.items():
        row, brought = plan.rows.get(digest), plan.new.get(digest)
        if row is None:
            assert brought is not None
            if _insert(state, digest, brought[0], count, plan.terms, mark, brought[1]):
                state.touch()
                continue
            row = load(state, digest)
            assert row is not None, "inserted unless it is there"
            assert not plan.looked, "nothing else has been changed yet"
            if brought[0] != row.size:
                return _other_size(row, brought[0])
        state.touch()
        if brought is not None and _is_better(state, brought[1], row):
            for number in row.locations:
                state.hint(number, digest, row.generation)
            generation = Generation(SessionId(state.session), state.sequence)
            _update(state, raised(state, row._replace(generation=generation, refs=row.refs + count, locations=brought[1]),
                                  copies, mark))
        elif row.mark < mark or row.copies < copies:
            _update(state, raised(state, row._replace(refs=row.refs + count), copies, mark))
        else:
            state.execute("UPDATE chunk SET refs = refs + ? WHERE digest = ?", (count, digest))
    return None


def _is_better(state: State, brought: tuple[int, ...], row: ChunkRow) -> bool:
    fresh, at_hand = state.valid(brought), state.at_hand(row.locations)
    return fresh > at_hand or (fresh == at_hand and not set(brought).intersection(row.locations))


def mark_of(state: State, copies: int) -> int:
    """As a number that is greater for a later counting, and within one for more copies: see copies.py."""
    return state.counting << COPIES_BITS | copies


def raised(state: State, row: ChunkRow, copies: int, mark: int) -> ChunkRow:
    """Somebody refers to it who wants so many copies."""
    return row._replace(copies=max(row.copies or state.copies, copies), mark=max(row.mark, mark))


def wish(state: State, digest: Digest, copies: int, mark: int) -> None:
    """A content that refers to this chunk is to have so many copies."""
    row = load(state, digest)
    if row is None:
        raise damaged(f"chunk {digest.hex()}: a content names it, and it has no row")
    if row.mark < mark or row.copies < copies:
        state.touch()
        _update(state, raised(state, row, copies, mark))


def _insert(
    state: State, digest: Digest, size: int, refs: int, terms: Terms, mark: int, numbers: tuple[int, ...],
) -> bool:
    """Under the command's generation. False, and nothing changed, if the digest has a row."""
    locations, session, sequence = encode(numbers), state.session, state.sequence
    return state.execute(
        "INSERT INTO chunk (digest, session, sequence, size, refs, wanted, short, locations, crc, copies, mark)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (digest, session, sequence, size, refs, terms.wanted,
         shortness(numbers, state.names, state.uncounted, terms.wanted), locations,
         chunk_seal(digest, session, sequence, size, locations), terms.copies, mark),
    ).rowcount > 0


def _update(state: State, row: ChunkRow) -> None:
    """Write a row anew: its generation, references, wish or locations have changed, or what counts."""
    locations = encode(row.locations)
    session, sequence = row.generation
    wanted = state.wanted(row.copies)
    state.execute(
        "UPDATE chunk SET session = ?, sequence = ?, refs = ?, wanted = ?, short = ?, locations = ?, crc = ?, copies = ?,"
        " mark = ? WHERE digest = ?",
        (session, sequence, row.refs, wanted, shortness(row.locations, state.names, state.uncounted, wanted), locations,
         chunk_seal(row.digest, session, sequence, row.size, locations), row.copies, row.mark, row.digest),
    )


def rewrite(state: State, row: ChunkRow) -> None:
    """Its wish has changed."""
    state.touch()
    _update(state, row)


def unlink(state: State, slices: list[Slice]) -> None:
    """Take one reference for each slice. Rows without references go, and their holders get a hint."""
    counts: dict[Digest, int] = {}
    for digest, _, _ in slices:
        counts[digest] = counts.get(digest, 0) + 1
    for digest, count in counts.items():
        state.touch()
        row = load(state, digest)
        if row is None or row.refs < count:
            raise damaged(f"chunk {digest.hex()}: its references are fewer than the slices that name it")
        if row.refs > count:
            state.execute("UPDATE chunk SET refs = refs - ? WHERE digest = ?", (count, digest))
            continue
        state.execute("DELETE FROM chunk WHERE digest = ?", (digest,))
        for number in row.locations:
            state.hint(number, digest, row.generation)


def announce(state: State, number: int, digest: Digest, generation: Generation) -> bool:
    """The node holds this copy durably. Counts only if the generation is live and the node isn't listed yet, nor being taken
    out."""
    if number in state.uncounted:
        return False
    row = load(state, digest)
    if row is None or row.generation != generation or number in row.locations:
        return False
    state.touch()
    locations = (*(known for known in row.locations if known in state.names), number)
    _update(state, row._replace(locations=locations))
    return True


def withdraw(state: State, number: int, digest: Digest, generation: Generation, lost: bool = False) -> bool:
    """The node gives this copy up, if as many as wanted can be read without it. One that is lost already counts no more,
    whatever is left: a row without a location stays for what refers to it, and the next commit that brings its bytes
    has more valid locations, so the row switches to that one."""
    row = load(state, digest)
    if row is None or row.generation != generation or number not in row.locations:
        return False
    left = tuple(known for known in row.locations if known in state.names and known != number)
    if not lost and state.at_hand(left) < state.wanted(row.copies):
        return False
    state.touch()
    _update(state, row._replace(locations=left))
    return True


def review(state: State, after: bytes, limit: int) -> bytes | None:
    """Look through chunk rows in order of digest, since nodes have come or gone, or count no more: strip locations of disks
    that aren't there, want as many copies as there are now nodes for. Answers where to go on, or None at the end."""
    digests = state.execute(
        "SELECT digest FROM chunk WHERE digest > ? ORDER BY digest LIMIT ?", (after, limit)
    ).fetchall()
    for (digest,) in digests:
        row = load(state, digest)
        assert row is not None
        locations = tuple(number for number in row.locations if number in state.names)
        wanted = state.wanted(row.copies)
        lacking = shortness(locations, state.names, state.uncounted, wanted)
        if locations != row.locations or (wanted, lacking) != (row.wanted, row.short):
            state.touch()
            _update(state, row._replace(locations=locations))
    return digests[-1][0] if len(digests) == limit else None
