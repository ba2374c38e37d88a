"""A client's sessions: which sequences are given out, which are answered, and the mark below which all are.

A *ticket* is one sequence of one session; it is open from `take` until `answer`. The machine forgets results below the
mark, and storage nodes delete chunks of tickets that the mark has passed, so a ticket is answered only when its command
can no longer come: it has an outcome, or it was given up and will never be sent again.
"""

from consensus.core.ids import ContentId, SessionId


class Session:
    """One session as its owner sees it."""

    __slots__ = ("_answered", "ended", "id", "low", "next", "said", "staged", "telling")

    def __init__(self, id: SessionId) -> None:
        self.id = id
        self.low = self.next = 1
        self.said = 1
        """The mark as a command has told it last."""
        self.telling = 0
        """The last sequence that was taken only to tell the mark."""
        self._answered: set[int] = set()
        self.staged: set[ContentId] = set()
        """Contents under construction: they would be released with the session."""
        self.ended = False
        """By the member, or by us: it takes no more commands."""

    @property
    def spread(self) -> int:
        """How far the next ticket is from the mark: what the machine may have to keep."""
        return self.next - self.low

    @property
    def idle(self) -> bool:
        """No ticket is open."""
        return self.low == self.next

    @property
    def unsaid(self) -> bool:
        """The mark has passed commands that nobody has been told of. Not so when it has only passed the one that told of
        all before it; one that was sent while older tickets were open did not tell of those."""
        return self.low > self.said and not self.low - 1 == self.said == self.telling

    def take(self) -> int:
        """The next sequence; open until it is answered."""
        self.next += 1
        return self.next - 1

    def answer(self, sequence: int) -> None:
        """The ticket is done with. Moves the mark past all that are."""
        answered = self._answered
        if sequence != self.low:
            if sequence > self.low:
                answered.add(sequence)
            return
        self.low += 1
        while self.low in answered:
            answered.remove(self.low)
            self.low += 1
