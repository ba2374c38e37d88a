"""Entries to the others, in place of the library's own sending: it would pickle large entries, and push without end.

What is queued leaves at once, in messages of at most about a mebibyte. While more than a window is unacknowledged by one
member, it gets only heartbeats; the next acknowledgement brings it more. One whose next entry has left our memory is told
that it is behind, and fetches a snapshot (catching_up.py).
"""

from collections import deque
from collections.abc import Callable

from pysyncobj.node import Node

from consensus.group.core import Core
from consensus.group.messages import Append, Appended, Behind, Message
from consensus.journal import Journal

MESSAGE_BYTES = 1 << 20
"""A message is closed by the entry that fills it, so one entry more than this is the most that is sent at once."""

WINDOW_BYTES = 8 << 20
"""Unacknowledged by one member: far more than a network holds, far less than memory that a slow one may cost us. On a new
link, and after a step back, it begins with one message and doubles: what is sent in vain to a member that is slow, or
elsewhere in its log, would make it slower."""


class Progress:
    """What is under way to one member."""

    __slots__ = ("back_at", "back_to", "flights", "flying", "told_commit", "window")

    def __init__(self) -> None:
        self.flights: deque[tuple[int, int]] = deque()          # (last entry of a message, its bytes)
        self.flying = 0
        self.window = MESSAGE_BYTES
        self.told_commit = 0
        self.back_to, self.back_at = 0, -1.0                    # where we have gone back to lately, as it has asked

    def clear(self) -> None:
        self.flights.clear()
        self.flying = 0
        self.window = MESSAGE_BYTES
        self.told_commit = 0

    def acknowledged(self, index: int) -> None:
        while self.flights and self.flights[0][0] <= index:
            self.flying -= self.flights.popleft()[1]
            self.window = min(2 * self.window, WINDOW_BYTES)


class Replication:
    """The leader's side. `send` puts a message into the post."""

    def __init__(self, core: Core, journal: Journal, now: Callable[[], float], beat_s: float,
                 send: Callable[[str, Message], None]) -> None:
        self._core, self._journal, self._now, self._beat_s, self._send = core, journal, now, beat_s, send
        self._progress: dict[str, Progress] = {}
        self._term = -1
        self.sent_to = 0
        """Up to this entry, the log has been offered to the others."""

    def of(self, name: str) -> Progress:
        progress = self._progress.get(name)
        if progress is None:
            progress = self._progress[name] = Progress()
        return progress

    def forget(self, name: str) -> None:
        """It is another member from now on, or none."""
        self._progress.pop(name, None)

    def connected(self, node: Node) -> None:
        """A new link: what was under way on the old one may be lost."""
        core = self._core
        self.of(node.id).clear()
        if core.leads and node in core.next_index:
            known = core.match_index[node]
            core.next_index[node] = known + 1 if known else self._journal.last_index + 1
            self.send_to(node, beat=True)

    def send_all(self) -> None:
        """New entries to everybody; and heartbeats, if they are due."""
        core, now = self._core, self._now()
        if core.term != self._term:                             # we lead from now on
            self._term = core.term
            self._progress.clear()
            core.beat_at = now
        beat = now >= core.beat_at
        if beat:
            core.beat_at = now + self._beat_s
        for nodes in (core.voters, core.learners):
            for node in nodes:
                if node in core.connected:
                    self.send_to(node, beat=beat)
        self.sent_to = self._journal.last_index

    def send_to(self, node: Node, *, beat: bool) -> None:
        core, journal, name = self._core, self._journal, node.id
        progress = self.of(name)
        first, last, following = journal.first_index, journal.last_index, core.next_index[node]
        if following <= first:
            if beat:
                self._send(name, Behind(core.term, first))
            return
        sent = False
        while following <= last and progress.flying < progress.window:
            place, size, entries = following - first, 0, []
            while place < len(journal) and size < MESSAGE_BYTES:
                command, _, term = journal[place]
                entries.append((term, command))
                size += len(command)
                place += 1
            self._append(name, following - 1, first, entries)
            following += len(entries)
            progress.flights.append((following - 1, size))
            progress.flying += size
            sent = True
        core.next_index[node] = following
        if not sent and beat:
            self._append(name, following - 1, first, [])

    def tell_commit(self, node: Node) -> None:
        """Somebody there waits for what is committed here."""
        core = self._core
        if core.leads and node in core.connected and self.of(node.id).told_commit < core.commit:
            self.send_to(node, beat=True)

    def _append(self, name: str, previous: int, first: int, entries: list[tuple[int, bytes]]) -> None:
        core, place = self._core, previous - first
        progress = self.of(name)
        progress.told_commit = core.commit
        self._send(name, Append(core.term, core.commit, previous, self._journal[place][2], entries))

    def goes_back(self, node: Node, following: int) -> bool:
        """The member lacks what comes before what it was sent. Each message that was under way brings the same answer, so
        only one that goes further back counts at once: else every answer would bring another message, without end."""
        progress, now = self.of(node.id), self._now()
        if now - progress.back_at < self._beat_s and following >= progress.back_to:
            return False
        progress.back_to, progress.back_at = following, now
        return True

    def acknowledged(self, node: Node, answer: Appended) -> None:
        """Already told to the library, for whom this is an acknowledgement of the present term."""
        core, progress = self._core, self.of(node.id)
        if answer.success:
            progress.acknowledged(answer.next - 1)
        if answer.reset:
            progress.clear()
        if core.next_index[node] <= self._journal.last_index:
            self.send_to(node, beat=answer.reset)
