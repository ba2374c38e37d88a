"""Contents: the bytes of objects and parts as lists of slices, immutable once something refers to them; but one in pages may
grow at its end while one version alone refers to it (`extend`), since who reads it knows where it ended.

A content is *under construction* while a session builds it in pages (it has a `staged` row and no references), *live*
while it has references, and *dead* in the queue after that. Versions, parts and composite contents refer to contents;
only contents refer to chunks.
"""

from typing import NamedTuple

from consensus.apply import backups, buckets, chunks, copies, queue
from consensus.apply.chunks import Plan, Refusal
from consensus.apply.state import State, Terms, count_fits, text_fits, texts_fit
from consensus.core.commands import NewContent, StageContent
from consensus.core.ids import ContentId
from consensus.core.model import Checksum, Slice
from consensus.core.results import AnyResult, Malformed, NoBucket, Staged, TooFewCopies
from consensus.rows import (
    INLINE,
    INLINE_SLICES_MAX,
    PARTS,
    PIECES,
    SLICE_BYTES,
    content_seal,
    damaged,
    encode_checksum,
    pack_slices,
    piece_seal,
    unpack_slices,
)

DROPPED_AT_ONCE_MAX = 50
"""Slices of a dead content that its last command drops itself; longer ones wait for Drain. Leaves the command far below
its row limit even together with the most that it may bring."""

LOOKED_AT_MAX = 300
"""Slices of a shared content, and pages of them: as many as a command brings."""

SLICES_AT_A_LOOK = 256
"""A reader has looked up all slices of a content of so many before it begins (queries.SLICES_PER_CALL_MAX); it comes back
for the rest of a longer one."""


class Prepared(NamedTuple):
    """A new content, checked and ready to be stored."""

    size: int
    etag: str
    checksum: Checksum | None
    slices: tuple[Slice, ...]
    plan: Plan
    staged: ContentId | None
    staged_size: int


def prepare(state: State, content: NewContent, terms: Terms) -> Prepared | Refusal:
    """Check a new content in a bucket with these terms. Changes nothing."""
    if not count_fits(content.size) or not text_fits(content.etag) or (content.checksum and not texts_fit(*content.checksum)):
        return Malformed(reason="a content has a size of at most 2**61 and a short ETag and checksum")
    staged_size = 0
    if content.staged is not None:
        known = under_construction(state, content.staged, PIECES)
        if known is None:
            return Malformed(reason="that content is not this session's to take over")
        staged_size = known
    plan = chunks.plan(state, content.slices, content.chunks, terms)
    if not isinstance(plan, Plan):
        return plan
    if staged_size + plan.bytes != content.size:
        return Malformed(reason=f"the slices make {staged_size + plan.bytes} bytes, not {content.size}")
    return Prepared(content.size, content.etag, content.checksum, content.slices, plan, content.staged, staged_size)


def store(state: State, new: Prepared, *, in_pages: bool = False) -> ContentId | Malformed:
    """Write a prepared content, with one reference: its caller's. `in_pages`: however short it is, since it will grow. Changes
    nothing if it is refused after all (`chunks.link`)."""
    refusal = chunks.link(state, new.plan)
    if refusal is not None:
        return refusal
    checksum = encode_checksum(new.checksum)
    if new.staged is not None:
        if new.slices:
            add_piece(state, new.staged, new.staged_size, new.slices)
        finish(state, new.staged, PIECES, new.size, new.etag, checksum, 0)
        copies.refer(state, new.staged, new.plan.terms)
        return new.staged
    content = ContentId(state.position)
    inline = len(new.slices) <= INLINE_SLICES_MAX and not in_pages
    if not inline:
        add_piece(state, content, 0, new.slices)
    insert(state, content, INLINE if inline else PIECES, 1, new.size, new.etag, checksum,
           pack_slices(new.slices) if inline else None, copies=new.plan.terms.copies)
    return content


def insert(
    state: State, content: ContentId, kind: int, refs: int, size: int, etag: str = "", checksum: bytes | None = None,
    slices: bytes | None = None, *, copies: int, mark: int | None = None,
) -> None:
    """`copies` and `mark`: what its chunks have been told (copies.py)."""
    state.touch()
    state.execute(
        "INSERT INTO content (id, refs, kind, size, etag, checksum, parts, slices, crc, copies, mark)"
        " VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?)",
        (content, refs, kind, size, etag, checksum, slices, content_seal(content, kind, size, etag, 0, slices), copies,
         chunks.mark_of(state, copies) if mark is None else mark),
    )


def add_piece(state: State, content: ContentId, start: int, slices: tuple[Slice, ...]) -> None:
    packed = pack_slices(slices)
    state.touch()
    state.execute("INSERT INTO piece (content, start, slices, crc) VALUES (?, ?, ?, ?)",
                  (content, start, packed, piece_seal(content, start, packed)))


def under_construction(state: State, content: ContentId, kind: int) -> int | None:
    """Its size so far, if the command's session is building this content and it is of this kind."""
    row = state.execute(
        "SELECT c.size FROM staged s JOIN content c ON c.id = s.content"
        " WHERE s.content = ? AND s.session = ? AND c.kind = ?",
        (content if count_fits(content) else 0, state.session, kind),
    ).fetchone()
    return None if row is None else row[0]


def finish(
    state: State, content: ContentId, kind: int, size: int, etag: str, checksum: bytes | None, parts: int
) -> None:
    """A content under construction is complete and taken over, with one reference."""
    state.touch(2)
    state.execute("DELETE FROM staged WHERE content = ?", (content,))
    state.execute("UPDATE content SET refs = 1, size = ?, etag = ?, checksum = ?, parts = ?, crc = ? WHERE id = ?",
                  (size, etag, checksum, parts, content_seal(content, kind, size, etag, parts, None), content))


def grow(state: State, content: ContentId, kind: int, size: int, told: tuple[int, int], parts: int = 0) -> None:
    """A content under construction has got another page, whose chunks have been told so much about copies."""
    state.touch()
    state.execute("UPDATE content SET size = ?, parts = ?, crc = ?, copies = min(copies, ?), mark = min(mark, ?) WHERE id = ?",
                  (size, parts, content_seal(content, kind, size, "", parts, None), told[0], told[1], content))


def slices_in_pages(state: State, content: ContentId, most: int) -> list[Slice] | None:
    """All slices of a content that has no parts, if they are at most so many."""
    row = state.execute("SELECT kind, slices FROM content WHERE id = ?", (content,)).fetchone()
    if row is None or row[0] == PARTS:
        return None
    pages = [row[1]] if row[0] == INLINE else [page for (page,) in state.execute(
        "SELECT slices FROM piece WHERE content = ? ORDER BY start LIMIT ?", (content, most + 1)).fetchall()]
    if sum(map(len, pages)) > most * SLICE_BYTES:
        return None
    return [piece for page in pages for piece in unpack_slices(page or b"")]


def extend(state: State, content: ContentId, size: int, new: Prepared) -> Malformed | None:
    """A content in pages, `size` bytes long, gets another page, and a second reference: its caller's, who gives the first one
    back. Readers that have begun know where it ended when they did. As `store`, it may be refused."""
    refusal = chunks.link(state, new.plan)
    if refusal is not None:
        return refusal
    add_piece(state, content, size, new.slices)
    told = new.plan.terms.copies
    state.touch()
    state.execute(
        "UPDATE content SET refs = refs + 1, size = ?, etag = ?, checksum = ?, crc = ?, copies = min(copies, ?),"
        " mark = min(mark, ?) WHERE id = ?",
        (size + new.size, new.etag, encode_checksum(new.checksum),
         content_seal(content, PIECES, size + new.size, new.etag, 0, None), told, chunks.mark_of(state, told), content))
    copies.refer(state, content, new.plan.terms)
    return None


def abandon(state: State, content: ContentId | None) -> None:
    """The command that was to take this content over is refused. Nobody else will name it, so it goes."""
    if content is None or not count_fits(content):
        return
    gone = state.execute("DELETE FROM staged WHERE content = ? AND session = ?", (content, state.session)).rowcount
    if gone:
        state.touch()
        state.enqueue(queue.CONTENT, content)


def stage_content(state: State, command: StageContent) -> AnyResult:
    start = 0
    if command.into is not None:
        known = under_construction(state, command.into, PIECES)
        if known is None:
            return Malformed(reason="that content is not this session's to continue")
        start = known
    if not command.slices:
        return Malformed(reason="a page has at least one slice")
    terms = state.default
    if command.bucket is not None:
        bucket = buckets.find(state, command.bucket)
        if bucket is None:
            return NoBucket()
        terms = state.terms_of(bucket)
    plan = chunks.plan(state, command.slices, command.chunks, terms)
    if not isinstance(plan, Plan):
        return plan
    if not count_fits(start + plan.bytes):
        return Malformed(reason="a content is at most 2**61 bytes")
    refusal = chunks.link(state, plan)
    if refusal is not None:
        return refusal
    content = command.into
    if content is None:
        content = ContentId(state.position)
        insert(state, content, PIECES, 0, plan.bytes, copies=terms.copies)
        state.touch()
        state.execute("INSERT INTO staged (content, session, upload, revision, last) VALUES (?, ?, 0, 0, 0)",
                      (content, state.session))
    else:
        grow(state, content, PIECES, start + plan.bytes, (terms.copies, chunks.mark_of(state, terms.copies)))
    add_piece(state, content, start, command.slices)
    return Staged(content=content)


# References

def share(state: State, content: ContentId, terms: Terms) -> bool | TooFewCopies:
    """Add a reference, of a bucket with these terms, to a live content. False if it is gone, dead or under construction."""
    if not count_fits(content):
        return False
    row = state.execute("SELECT kind, slices, copies FROM content WHERE id = ? AND refs > 0", (content,)).fetchone()
    if row is None:
        return False
    # Whether that is so is seen at once as a rule: all of it is wanted in as many copies, and nothing lacks so many.
    if (terms.copies > (row[2] or state.copies) or (terms.quorum > 1 and chunks.any_with_fewer(state, terms.quorum))) and (
            _is_too_few(state, content, row[0], row[1], terms)):
        return TooFewCopies(wanted=terms.quorum)
    state.touch()
    state.execute("UPDATE content SET refs = refs + 1 WHERE id = ?", (content,))
    copies.refer(state, content, terms)
    return True


def _is_too_few(state: State, content: int, kind: int, packed: bytes | None, terms: Terms) -> bool:
    """Whether a chunk of it has fewer copies than a write with these terms needs: it may have been acknowledged by a bucket
    that is content with fewer, or its copies are on their way. One that is too long to look at may have."""
    if kind == INLINE:
        pages = [packed or b""]
    elif kind == PIECES:
        pages = [page for (page,) in state.execute("SELECT slices FROM piece WHERE content = ? LIMIT ?",
                                                   (content, LOOKED_AT_MAX + 1)).fetchall()]
    else:
        found = state.execute("SELECT c.slices FROM content_part p JOIN content c ON c.id = p.part_content WHERE p.content = ?"
                              " LIMIT ?", (content, LOOKED_AT_MAX + 1)).fetchall()
        if any(page is None for (page,) in found):
            return True
        pages = [page for (page,) in found]
    if sum(map(len, pages)) > LOOKED_AT_MAX * SLICE_BYTES:
        return True
    rows = [chunks.load(state, digest) for digest in {piece.digest for page in pages for piece in unpack_slices(page)}]
    return any(row is None or chunks.is_too_few(state, row, terms) for row in rows)


def release(state: State, content: int, room: int = DROPPED_AT_ONCE_MAX, *, of_version: bool = False) -> int:
    """Take a reference. The last one drops up to `room` slices at once, else the content waits in the queue; or, if it
    was a version's (only those are read by clients) and is long, until its readers have had time to finish. One that a
    backup refers to is held as it is.

    Answers how many slices it dropped.
    """
    row = state.execute(
        "SELECT refs, kind, size, etag, parts, slices, crc FROM content WHERE id = ?", (content,)
    ).fetchone()
    if row is None or row[0] < 1:
        raise damaged(f"content {content}: it has no reference left to take")
    refs, kind, size, etag, parts, slices, crc = row
    state.touch()
    if refs > 1:
        state.execute("UPDATE content SET refs = refs - 1 WHERE id = ?", (content,))
        return 0
    if crc != content_seal(content, kind, size, etag, parts, slices):
        raise damaged(f"content {content}")
    if content <= state.pinned:
        state.execute("UPDATE content SET refs = 0 WHERE id = ?", (content,))
        backups.hold(state, content)
        return 0
    if kind != INLINE or len(slices) > room * SLICE_BYTES:
        state.execute("UPDATE content SET refs = 0 WHERE id = ?", (content,))
        if of_version and _is_long(state, content, kind, parts):
            state.touch()
            state.execute("INSERT INTO lingering (at, content) VALUES (?, ?)", (state.now, content))
        else:
            state.enqueue(queue.CONTENT, content)
        return 0
    state.execute("DELETE FROM content WHERE id = ?", (content,))
    if slices:
        chunks.unlink(state, unpack_slices(slices))
    return len(slices) // SLICE_BYTES


def _is_long(state: State, content: int, kind: int, parts: int) -> bool:
    """Whether it has more slices than a reader looks up at once. Looks at a few rows only, so it may say so of one that
    has just as many."""
    if kind == INLINE:
        return False
    if kind == PIECES:
        rows = state.execute("SELECT length(slices) FROM piece WHERE content = ? LIMIT 2", (content,)).fetchall()
        return len(rows) > 1 or sum(row[0] for row in rows) > SLICES_AT_A_LOOK * SLICE_BYTES
    if parts > SLICES_AT_A_LOOK:
        return True
    rows = state.execute(
        "SELECT length(c.slices) FROM content_part p JOIN content c ON c.id = p.part_content WHERE p.content = ?",
        (content,),
    ).fetchall()
    return (any(row[0] is None for row in rows)       # its slices are in pieces: there are many
            or sum(row[0] for row in rows) > SLICES_AT_A_LOOK * SLICE_BYTES)
