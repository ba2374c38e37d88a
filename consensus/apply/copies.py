"""How many copies are wanted of each chunk: the most that any bucket wants that refers to it.

A chunk's row says it as `copies`; its `wanted` is that, as far as there are nodes. Only contents refer to chunks, and versions
and parts to contents, so a content says too of how many copies at least each of its chunks is wanted (`copies`). Rules:
* what comes to refer to a chunk raises its wish in the same command, or (a long content) queues that (`refer`);
* a bucket that wants more raises what is in it already, in pages (RAISE, and MARK for each long content);
* one that wants fewer may share its chunks with others, and a chunk doesn't know who refers to it. So they are counted anew
  (COUNT): everything that is referred to is *marked* with the number of this counting and the most copies met so far, then
  contents and afterwards chunks are lowered to their marks. What comes meanwhile marks as well. Lowering begins only when
  all that was to be marked is: the queue is worked off in order, and COUNT goes to its end between these steps.

A mark is one number, 16 * counting + copies: the greater of two is the later counting's, or the one for more copies.
"""

from typing import Any

import msgspec

from consensus.apply import chunks, queue
from consensus.apply.chunks import COPIES_BITS, mark_of
from consensus.apply.state import State, Terms
from consensus.rows import INLINE, PIECES, damaged, encode, unpack_slices

COPIES_MASK = (1 << COPIES_BITS) - 1

_Place = tuple[Any, ...]

_OBJECTS, _HISTORY, _PARTS, _STAGED, _CONTENTS, _CHUNKS = range(6)
"""Where a counting is. A RAISE ends after the parts."""

_FIRST: dict[int, _Place] = {_OBJECTS: (0, b""), _HISTORY: (0, b"", 0), _PARTS: (0, 0), _STAGED: (0,), _CONTENTS: (0,),
                             _CHUNKS: (b"",)}

_decode_walk = msgspec.msgpack.Decoder(tuple[int, tuple[int | bytes, ...]]).decode
_decode_mark = msgspec.msgpack.Decoder(tuple[int, int]).decode


def begin_raise(state: State, bucket: int) -> None:
    """The bucket wants as many copies as before, or more."""
    state.enqueue(queue.RAISE, bucket, encode((_OBJECTS, (bucket, b""))))


def begin_count(state: State) -> None:
    """Somebody wants fewer than before, or the setting of all has changed."""
    state.counting += 1
    state.set_meta("counting", state.counting)
    state.touch()
    state.execute("DELETE FROM queue WHERE kind = ?", (queue.COUNT,))      # at most one: this one starts over
    state.enqueue(queue.COUNT, state.counting, encode((_OBJECTS, _FIRST[_OBJECTS])))


# References

def refer(state: State, content: int, terms: Terms) -> int:
    """A version or part of a bucket with these terms refers to this content: its chunks are wished for accordingly. Answers how
    many chunk rows it looked at."""
    return _tell(state, content, mark_of(state, terms.copies))


def _tell(state: State, content: int, mark: int) -> int:
    row = state.execute("SELECT kind, slices, copies, mark FROM content WHERE id = ?", (content,)).fetchone()
    if row is None:
        raise damaged(f"content {content}: it is referred to, and has no row")
    kind, packed, copies, known = row
    wished = mark & COPIES_MASK
    if known >= mark and copies >= wished:
        return 0
    state.touch()
    if kind != INLINE:
        state.execute("UPDATE content SET mark = max(mark, ?) WHERE id = ?", (mark, content))
        state.enqueue(queue.MARK, content, encode((mark, 0)))
        return 0
    digests = {slice.digest: None for slice in unpack_slices(packed)}
    for digest in digests:
        chunks.wish(state, digest, wished, mark)
    state.execute("UPDATE content SET mark = max(mark, ?), copies = max(copies, ?) WHERE id = ?", (mark, wished, content))
    return len(digests)


# Work of the queue: (units used, whether the item is done)

def raise_bucket(state: State, id: int, bucket: int, b: bytes, room: int) -> tuple[int, bool]:
    phase, place = _decode_walk(b)
    return _walk(state, id, phase, place, room, bucket)


def count(state: State, id: int, number: int, b: bytes, room: int) -> tuple[int, bool]:
    assert number == state.counting, "a later counting takes the place of an earlier one"
    phase, place = _decode_walk(b)
    if phase < _CONTENTS:
        return _walk(state, id, phase, place, room, None)
    lower = _lower_contents if phase == _CONTENTS else _lower_chunks
    used, rest = lower(state, place[0], room)
    if rest is not None:
        _put_off(state, id, phase, (rest,))
        return used, False
    if phase == _CONTENTS:
        state.enqueue(queue.COUNT, number, encode((_CHUNKS, _FIRST[_CHUNKS])))
    return used, True


def mark_content(state: State, id: int, content: int, b: bytes, room: int) -> tuple[int, bool]:
    """Wish for copies of the chunks of a long content."""
    mark, place = _decode_mark(b)
    row = state.execute("SELECT kind, refs FROM content WHERE id = ?", (content,)).fetchone()
    under_way = row is not None and not row[1] and state.execute(
        "SELECT 1 FROM staged WHERE content = ?", (content,)).fetchone() is not None
    if row is None or not (row[1] or under_way):
        return 1, True                                # it has died meanwhile
    wished = mark & COPIES_MASK
    used, after = 1, place
    if row[0] == PIECES:
        found = state.execute("SELECT start, slices FROM piece WHERE content = ? AND start >= ? ORDER BY start LIMIT 1",
                              (content, place)).fetchone()
        if found is not None:
            digests = {slice.digest: None for slice in unpack_slices(found[1])}
            for digest in digests:
                chunks.wish(state, digest, wished, mark)
            used, after = len(digests) + 1, found[0] + 1
        more = found is not None
    else:
        rows = state.execute("SELECT number, part_content FROM content_part WHERE content = ? AND number > ? ORDER BY number"
                             " LIMIT ?", (content, place, room)).fetchall()
        for number, part in rows:
            used, after = used + 1 + _tell(state, part, mark), number
            if used >= room:
                break
        more = bool(rows)
    state.touch()
    if more:
        state.execute("UPDATE queue SET b = ? WHERE id = ?", (encode((mark, after)), id))
        return used, False
    state.execute("UPDATE content SET copies = max(copies, ?) WHERE id = ?", (wished, content))
    return used, True


def _put_off(state: State, id: int, phase: int, place: _Place) -> None:
    state.touch()
    state.execute("UPDATE queue SET b = ? WHERE id = ?", (encode((phase, place)), id))


def _walk(state: State, id: int, phase: int, place: _Place, room: int, bucket: int | None) -> tuple[int, bool]:
    """Tell every content that something in this bucket (None: any) refers to. One step stays in one phase."""
    rows = _page(state, phase, place, room, bucket)
    used = 0
    for within, content, at in rows:
        used, place = used + 1, at
        if content:
            used += _tell(state, content, _mark_for(state, within, content))
        if used >= room:
            break
    else:
        if len(rows) < room:
            return max(used, 1), _next_phase(state, id, phase, bucket)
    _put_off(state, id, phase, place)
    return used, False


def _next_phase(state: State, id: int, phase: int, bucket: int | None) -> bool:
    if phase + 1 < (_CONTENTS if bucket is None else _STAGED):
        _put_off(state, id, phase + 1, _FIRST[phase + 1] if bucket is None or phase + 1 == _PARTS else (bucket, b"", 0))
        return False
    if bucket is None:
        state.enqueue(queue.COUNT, state.counting, encode((_CONTENTS, _FIRST[_CONTENTS])))
    return True


def _mark_for(state: State, bucket: int | None, content: int) -> int:
    if bucket is None:                                # staged: as many as it was begun with
        copies = state.execute("SELECT copies FROM content WHERE id = ?", (content,)).fetchone()[0]
        return mark_of(state, copies or state.copies)
    row = state.execute("SELECT copies FROM bucket WHERE id = ?", (bucket,)).fetchone()
    return mark_of(state, (row and row[0]) or state.copies)


def _page(state: State, phase: int, place: _Place, room: int, only: int | None) -> list[tuple[int | None, int, _Place]]:
    """(bucket, content or 0, place) of what comes after `place`."""
    last = only if only is not None else (1 << 62)
    if phase == _OBJECTS:
        rows = state.execute(
            "SELECT bucket, key, content FROM object WHERE (bucket, key) > (?, ?) AND bucket <= ? ORDER BY bucket, key LIMIT ?",
            (*place, last, room)).fetchall()
        return [(bucket, content, (bucket, key)) for bucket, key, content in rows]
    if phase == _HISTORY:
        # Newest first within a key. The rest of the key at hand first, then what follows it.
        bucket, key, order = place
        found = state.execute(
            "SELECT bucket, key, content, ord FROM history WHERE bucket = ? AND key = ? AND ord < ? ORDER BY ord DESC LIMIT ?",
            (bucket, key, order, room)).fetchall()
        if len(found) < room:
            found += state.execute(
                "SELECT bucket, key, content, ord FROM history WHERE (bucket, key) > (?, ?) AND bucket <= ?"
                " ORDER BY bucket, key, ord DESC LIMIT ?", (bucket, key, last, room - len(found))).fetchall()
        return [(bucket, content, (bucket, key, order)) for bucket, key, content, order in found]
    if phase == _PARTS:
        rows = state.execute("SELECT p.upload, p.number, p.content, u.bucket FROM part p LEFT JOIN upload u ON u.ord = p.upload"
                             " WHERE (p.upload, p.number) > (?, ?) ORDER BY p.upload, p.number LIMIT ?",
                             (*place, room)).fetchall()
        return [(bucket, content if bucket is not None and only in (None, bucket) else 0, (upload, number))
                for upload, number, content, bucket in rows]
    rows = state.execute("SELECT content FROM staged WHERE content > ? ORDER BY content LIMIT ?", (*place, room)).fetchall()
    return [(None, content, (content,)) for (content,) in rows]


def _lower_contents(state: State, after: Any, room: int) -> tuple[int, Any]:
    rows = state.execute("SELECT id, copies, mark FROM content WHERE id > ? ORDER BY id LIMIT ?", (after, room)).fetchall()
    for id, copies, mark in rows:
        met = mark & COPIES_MASK
        if mark >> COPIES_BITS == state.counting and met < (copies or state.copies):
            state.touch()
            state.execute("UPDATE content SET copies = ? WHERE id = ?", (met, id))
    return max(len(rows), 1), rows[-1][0] if len(rows) == room else None


def _lower_chunks(state: State, after: Any, room: int) -> tuple[int, Any]:
    digests = state.execute("SELECT digest FROM chunk WHERE digest > ? ORDER BY digest LIMIT ?", (after, room)).fetchall()
    for (digest,) in digests:
        row = chunks.load(state, digest)
        assert row is not None
        met = row.mark & COPIES_MASK
        copies = met if row.mark >> COPIES_BITS == state.counting else row.copies
        if copies != row.copies or state.wanted(copies) != row.wanted:
            chunks.rewrite(state, row._replace(copies=copies))
    return max(len(digests), 1), digests[-1][0] if len(digests) == room else None
