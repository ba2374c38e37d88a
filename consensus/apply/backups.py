"""Backups: kept copies of the metadata, each of which pins what it refers to.

A backup is *open* while its copy is made, in the session that asked for it, with which it ends; *kept* from then on.

What is pinned: contents are immutable, their ids are positions in the log, and only contents refer to chunks. A copy that
holds the log up to position `p` refers to the contents that were born at or before `p` and died after it. So a content
that dies while the newest kept backup may refer to it is not queued to be taken apart but *held*, with the position of
its death; its chunk rows keep their references, and nodes keep the copies that those list. (The live generation of a chunk may
change meanwhile: equal digests are equal bytes, and a restore goes by digests.) An open backup's copy may be taken at
any moment after its opening, so it pins all that dies after that.

When a backup is kept or dropped, what no other one refers to goes on to the queue, in pages (`review`).
"""

import re
from bisect import bisect_left

from consensus.apply import queue
from consensus.apply.state import State
from consensus.core.commands import DropBackup, KeepBackup, OpenBackup
from consensus.core.ids import POSITION_BITS
from consensus.core.results import AnyResult, BackupExists, Done, Malformed, NoBackup
from consensus.rows import I63_MAX

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""A name is a file's name too."""

BACKUPS_MAX = 300
"""Nobody keeps more; a listing of them is one page, and all that one session has open go with it in one command."""

_ID_BYTES = 8


def last_position(index: int) -> int:
    """Of the commands up to and including log entry `index`."""
    return ((index + 1) << POSITION_BITS) - 1


def open_backup(state: State, command: OpenBackup) -> AnyResult:
    if not NAME.fullmatch(command.name):
        return Malformed(reason="the name of a backup is 1 to 64 of A-Z a-z 0-9 . _ - and begins with a letter or digit")
    if not state.session:
        return Malformed(reason="a backup is opened in a session, with which it ends")
    if state.execute("SELECT 1 FROM backup WHERE name = ?", (command.name,)).fetchone():
        return BackupExists()
    if state.execute("SELECT count(*) FROM backup").fetchone()[0] >= BACKUPS_MAX:
        return Malformed(reason=f"there are at most {BACKUPS_MAX} backups")
    state.touch()
    state.execute("INSERT INTO backup (name, ord, created, idx, session) VALUES (?, ?, ?, NULL, ?)",
                  (command.name, state.position, state.now, state.session))
    state.pinned = I63_MAX
    return Done()


def keep_backup(state: State, command: KeepBackup) -> AnyResult:
    row = state.execute("SELECT ord, idx, session FROM backup WHERE name = ?", (command.name,)).fetchone()
    if row is None or (row[1] is None and row[2] != state.session):
        return NoBackup()
    order, known, _ = row
    if known is not None:
        return Done() if known == command.index else Malformed(reason=f"that backup is kept, up to entry {known}")
    if not order >> POSITION_BITS <= command.index <= state.position >> POSITION_BITS:
        return Malformed(reason="a copy holds the log up to an entry between the opening of its backup and now")
    state.touch()
    state.execute("UPDATE backup SET idx = ?, session = NULL WHERE name = ?", (command.index, command.name))
    _begin_review(state)
    return Done()


def drop_backup(state: State, command: DropBackup) -> AnyResult:
    state.touch()
    only, session = (" AND idx IS NULL AND session = ?", (state.session,)) if command.own else ("", ())
    if not state.execute(f"DELETE FROM backup WHERE name = ?{only}", (command.name, *session)).rowcount:
        return NoBackup()
    _begin_review(state)
    return Done()


def drop_open(state: State, session: int) -> None:
    """A session has ended: the backups that it had not finished are given up."""
    if state.pinned != I63_MAX:
        return                        # none is open
    gone = state.execute("DELETE FROM backup WHERE session = ? AND idx IS NULL", (session,)).rowcount
    if gone:
        state.touch(gone)
        _begin_review(state)


# Pins

def load_pin(state: State) -> None:
    """The greatest id of a content that is held when it dies."""
    count, kept, open = state.execute("SELECT count(*), max(idx), sum(idx IS NULL) FROM backup").fetchone()
    state.pinned = 0 if not count else I63_MAX if open else last_position(kept)


def hold(state: State, content: int) -> None:
    """Its last reference has gone, and a backup refers to it."""
    state.touch()
    state.execute("INSERT INTO held (content, died) VALUES (?, ?)", (content, state.position))


def _begin_review(state: State) -> None:
    """Backups have changed: look through all held contents, from the first on."""
    load_pin(state)
    state.touch(2)
    state.execute("DELETE FROM queue WHERE kind = ?", (queue.HELD,))        # at most one: this one starts over
    if state.execute("SELECT 1 FROM held LIMIT 1").fetchone():
        state.enqueue(queue.HELD, 0, bytes(_ID_BYTES))


class Needs:
    """Which contents the backups of the moment refer to."""

    def __init__(self, rows: list[tuple[int, int | None]]) -> None:
        """`rows`: position of its opening, and log index of its copy, of each backup."""
        self._kept = sorted(last_position(index) for _, index in rows if index is not None)
        self._opened = min((order for order, index in rows if index is None), default=I63_MAX)

    def __call__(self, born: int, died: int) -> bool:
        place = bisect_left(self._kept, born)
        return died > self._opened or (place < len(self._kept) and self._kept[place] < died)


def review(state: State, after: bytes, room: int) -> tuple[int, bytes | None]:
    """Look at `room` held contents; those that no backup refers to go to the queue. Answers how many were looked at, and
    where to go on, or None at the end."""
    needed = Needs(state.execute("SELECT ord, idx FROM backup").fetchall())
    rows = state.execute("SELECT content, died FROM held WHERE content > ? ORDER BY content LIMIT ?",
                         (int.from_bytes(after, "big"), room)).fetchall()
    for content, died in rows:
        if not needed(content, died):
            state.touch()
            state.execute("DELETE FROM held WHERE content = ?", (content,))
            state.enqueue(queue.CONTENT, content)
    return len(rows), rows[-1][0].to_bytes(_ID_BYTES, "big") if len(rows) == room else None
