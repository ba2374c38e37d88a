"""Work that no command may do at once, in pages: taking dead contents, uploads, buckets and sessions apart.

The leader proposes `Drain` while the queue isn't empty. Each takes the oldest items and does what its limit allows.
One unit of the limit is one row looked at for its own sake (a slice's chunk, a part, an upload, a result); it writes at
most three rows, so `UNITS_MAX` units stay within a command's row limit.
"""

from consensus.apply import backups, chunks, contents, copies, multipart, queue
from consensus.apply.state import State
from consensus.core.commands import Drain
from consensus.core.results import AnyResult, Drained
from consensus.rows import INLINE, PIECES, SLICE_BYTES, content_seal, piece_seal, unpack_slices

UNITS_MAX = 300

COMPLETED_KEPT_MS = 24 * 3_600_000
"""Repeats of a Complete are answered for a day: longer than any client retries."""

RENAMED_KEPT_MS = 24 * 3_600_000
"""Likewise repeats of a rename with a token."""

HINTS_KEPT_MS = 24 * 3_600_000
"""A node that is away for longer compares its whole inventory when it is back; it needs no hints for that."""


def drain(state: State, command: Drain) -> AnyResult:
    left = min(max(command.limit, 1), UNITS_MAX)
    released = 0
    left -= _end_lingering(state, command.grace_ms, left)
    while left > 0:
        row = state.execute("SELECT id, kind, a, b FROM queue ORDER BY id LIMIT 1").fetchone()
        if row is None:
            break
        id, kind, a, b = row
        if kind == queue.REVIEW:
            used, done = _review(state, id, b, left)
        elif kind == queue.HELD:
            used, done = _held(state, id, b, left)
        elif kind in _COPIES:
            used, done = _COPIES[kind](state, id, a, b, left)
        else:
            used, done = _WORK[kind](state, a, left)
        released += used
        left -= max(used, 1)
        if done:
            state.touch()
            state.execute("DELETE FROM queue WHERE id = ?", (id,))
    if left > 0:
        released += _forget_old(state, left)
    return Drained(released=released, more=has_work(state, state.now, command.grace_ms))


def has_work(state: State, now_ms: int, grace_ms: int) -> bool:
    """Whether a Drain at this time would find anything to do."""
    if state.execute("SELECT 1 FROM queue LIMIT 1").fetchone():
        return True
    for oldest, kept in (("SELECT modified FROM completed ORDER BY ord LIMIT 1", COMPLETED_KEPT_MS),
                         ("SELECT at FROM renamed ORDER BY ord LIMIT 1", RENAMED_KEPT_MS),
                         ("SELECT at FROM released ORDER BY id LIMIT 1", HINTS_KEPT_MS),
                         ("SELECT at FROM lingering ORDER BY at LIMIT 1", grace_ms)):
        row = state.execute(oldest).fetchone()
        if row is not None and row[0] <= now_ms - kept:
            return True
    return False


def _end_lingering(state: State, grace_ms: int, room: int) -> int:
    """Contents that have waited long enough go to the queue: how many."""
    rows = state.execute("SELECT at, content FROM lingering ORDER BY at, content LIMIT ?", (room,)).fetchall()
    due = [row for row in rows if row[0] <= state.now - grace_ms]
    state.executemany("DELETE FROM lingering WHERE at = ? AND content = ?", due)
    state.touch(len(due))
    for _, content in due:
        state.enqueue(queue.CONTENT, content)
    return len(due)


def _forget_old(state: State, room: int) -> int:
    """Rows that are kept for a time only. Their positions rise with time, so the oldest come first."""
    rows = state.execute("SELECT ord, modified FROM completed ORDER BY ord LIMIT ?", (room,)).fetchall()
    old = [(order,) for order, modified in rows if modified <= state.now - COMPLETED_KEPT_MS]
    state.executemany("DELETE FROM completed WHERE ord = ?", old)
    rows = state.execute("SELECT ord, at FROM renamed ORDER BY ord LIMIT ?", (room - len(old),)).fetchall()
    renames = [(order,) for order, at in rows if at <= state.now - RENAMED_KEPT_MS]
    state.executemany("DELETE FROM renamed WHERE ord = ?", renames)
    old += renames
    rows = state.execute("SELECT node, id, at FROM released ORDER BY id, node LIMIT ?", (room - len(old),)).fetchall()
    hints = [(node, id) for node, id, at in rows if at <= state.now - HINTS_KEPT_MS]
    state.executemany("DELETE FROM released WHERE node = ? AND id = ?", hints)
    state.touch(len(old) + len(hints))
    return len(old) + len(hints)


# Each does at most `room` units of one item: (units used, whether the item is finished).

def _content(state: State, id: int, room: int) -> tuple[int, bool]:
    row = state.execute("SELECT refs, kind, size, etag, parts, slices FROM content WHERE id = ?", (id,)).fetchone()
    assert row is not None
    assert row[0] == 0, "only contents without references are in the queue"
    _, kind, size, etag, parts, slices = row
    if kind == INLINE:
        used, rest = _drop_slices(state, slices, room)
        if rest:
            state.touch()
            state.execute("UPDATE content SET slices = ?, crc = ? WHERE id = ?",
                          (rest, content_seal(id, kind, size, etag, parts, rest), id))
            return used, False
    elif kind == PIECES:
        used = _pieces(state, id, room)
    else:
        used = _content_parts(state, id, room)
    if kind != INLINE and used >= room:
        return used, False      # whether anything is left shows the next time
    state.touch()
    state.execute("DELETE FROM content WHERE id = ?", (id,))
    return used + 1, True


def _drop_slices(state: State, packed: bytes, room: int) -> tuple[int, bytes]:
    """Drop up to `room` slices from the end: (how many, what is left)."""
    keep = max(0, len(packed) // SLICE_BYTES - room) * SLICE_BYTES
    dropped = unpack_slices(packed[keep:])
    chunks.unlink(state, dropped)
    return len(dropped), packed[:keep]


def _pieces(state: State, content: int, room: int) -> int:
    used = 0
    while used < room:
        row = state.execute(
            "SELECT start, slices FROM piece WHERE content = ? ORDER BY start DESC LIMIT 1", (content,)
        ).fetchone()
        if row is None:
            break
        start, packed = row
        dropped, rest = _drop_slices(state, packed, room - used)
        used += dropped
        state.touch()
        if rest:
            state.execute("UPDATE piece SET slices = ?, crc = ? WHERE content = ? AND start = ?",
                          (rest, piece_seal(content, start, rest), content, start))
        else:
            state.execute("DELETE FROM piece WHERE content = ? AND start = ?", (content, start))
    return used


def _content_parts(state: State, content: int, room: int) -> int:
    return _release_parts(state, "content_part", "content", "part_content", content, room)


def _release_parts(state: State, table: str, owner: str, content: str, id: int, room: int) -> int:
    """Part rows from the last on, each with its reference to a content, which may go with it."""
    used = 0
    while used < room:
        row = state.execute(
            f"SELECT number, {content} FROM {table} WHERE {owner} = ? ORDER BY number DESC LIMIT 1", (id,)
        ).fetchone()
        if row is None:
            break
        state.touch()
        state.execute(f"DELETE FROM {table} WHERE {owner} = ? AND number = ?", (id, row[0]))
        used += 1 + contents.release(state, row[1], room=min(contents.DROPPED_AT_ONCE_MAX, room - used - 1))
    return used


def _upload(state: State, order: int, room: int) -> tuple[int, bool]:
    used = _release_parts(state, "part", "upload", "content", order, room)
    return used, used < room


def _bucket(state: State, bucket: int, room: int) -> tuple[int, bool]:
    rows = state.execute("SELECT key, upload_id, ord FROM upload WHERE bucket = ? LIMIT ?", (bucket, room)).fetchall()
    for key, upload_id, order in rows:
        multipart.remove_upload(state, bucket, key, upload_id, order)
    used = len(rows)
    if used < room:
        gone = state.execute(
            "DELETE FROM bucket_setting WHERE bucket = ? AND name IN"
            " (SELECT name FROM bucket_setting WHERE bucket = ? ORDER BY name LIMIT ?)", (bucket, bucket, room - used)).rowcount
        state.touch(gone)
        used += gone
    return used, used < room


def _session(state: State, session: int, room: int) -> tuple[int, bool]:
    used = state.execute(
        "DELETE FROM result WHERE session = ? AND sequence IN"
        " (SELECT sequence FROM result WHERE session = ? ORDER BY sequence LIMIT ?)",
        (session, session, room),
    ).rowcount
    state.touch(used)
    rows = state.execute("SELECT content FROM staged WHERE session = ? LIMIT ?", (session, room - used)).fetchall()
    for (content,) in rows:
        state.touch()
        state.execute("DELETE FROM staged WHERE content = ?", (content,))
        state.enqueue(queue.CONTENT, content)
    used += len(rows)
    return used, used < room


def _review(state: State, id: int, after: bytes, room: int) -> tuple[int, bool]:
    rest = chunks.review(state, after, room)
    if rest is not None:
        state.touch()
        state.execute("UPDATE queue SET b = ? WHERE id = ?", (rest, id))
    return room, rest is None


def _held(state: State, id: int, after: bytes, room: int) -> tuple[int, bool]:
    used, rest = backups.review(state, after, room)
    if rest is not None:
        state.touch()
        state.execute("UPDATE queue SET b = ? WHERE id = ?", (rest, id))
    return used, rest is None


_COPIES = {queue.RAISE: copies.raise_bucket, queue.MARK: copies.mark_content, queue.COUNT: copies.count}

_WORK = {queue.CONTENT: _content, queue.UPLOAD: _upload, queue.BUCKET: _bucket, queue.SESSION: _session}
