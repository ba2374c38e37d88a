"""What this process thinks of one storage node: how long it takes, and whether to count on it now.

A *suspect* node has kept us waiting much longer than it usually does, could not be reached, or has just refused. It is
asked last, and looked at beside the requests until it answers again. This is one process's own view: two may differ, and
it never gets into the log. Writing and reading are judged apart, for a disk may do one and not the other.

Nothing here waits or asks for the time by itself: `now` is the event loop's.
"""

FIRST_S = 0.005
"""Believed of a node before it has answered: about a sync of a disk."""

STEP = 1.125
"""The median goes up or down by so much with each answer: a node that becomes ten times slower is known as such after
twenty answers, and a single slow one changes next to nothing."""

SUSPECT_S_MIN = 0.5
"""A busy machine keeps everybody waiting for half as long now and then; suspecting it for that only makes more work."""

SUSPECT_TIMES = 20
"""A node that has answered nothing for so many times its median is suspect."""

BLAMED_S, BLAMED_S_MAX = 2.0, 16.0
"""A node that has refused, or held a stream up, is asked last for so long; then requests find out whether it is better. Twice
as long each time that it isn't."""


FORGOTTEN_S = 10.0
"""Without being asked. Nodes that others were preferred to get a chance again: how else would they be found to be better?"""


class Pace:
    """One kind of request: how long it takes, and how long nothing has come back."""

    __slots__ = ("_blame_s", "_blamed_until", "_heard_at", "_open", "median_s")

    def __init__(self) -> None:
        self.median_s = FIRST_S
        self._open = 0
        self._heard_at = self._blamed_until = 0.0
        self._blame_s = BLAMED_S

    def asked(self, now: float) -> None:
        """A request is on its way. Ends with `answered` or `given_up`."""
        if not self._open:
            self._heard_at = now
        self._open += 1

    def answered(self, asked_at: float, now: float) -> None:
        """The node has done what it was asked to."""
        self._open -= 1
        self._heard_at = now
        self._blame_s = BLAMED_S
        self.took(now - asked_at)

    def given_up(self) -> None:
        """An answer that says nothing of the node's pace: a refusal, or one that nobody waits for."""
        self._open -= 1

    def expected_s(self, now: float) -> float:
        """How long it may take, as far as that is known."""
        return self.median_s if self._open or now - self._heard_at < FORGOTTEN_S else min(self.median_s, FIRST_S)

    def took(self, seconds: float) -> None:
        self.median_s *= STEP if seconds > self.median_s else 1 / STEP

    def blame(self, now: float) -> None:
        if now >= self._blamed_until:                 # many requests meet the same trouble
            self._blamed_until = now + self._blame_s
            self._blame_s = min(2 * self._blame_s, BLAMED_S_MAX)

    def praise(self) -> None:
        """It has taken all of a stream."""
        self._blame_s = BLAMED_S

    @property
    def open(self) -> int:
        """Requests without an answer."""
        return self._open

    def silent_s(self, now: float) -> float:
        """How long requests have been waiting without any being answered."""
        return now - self._heard_at if self._open else 0.0

    def suspect(self, now: float) -> bool:
        return now < self._blamed_until or (
            self._open > 0 and now - self._heard_at > max(SUSPECT_S_MIN, SUSPECT_TIMES * self.median_s))


class Standing:
    """One node. `reachable` is its link's word."""

    __slots__ = ("reachable", "reads", "writes")

    def __init__(self) -> None:
        self.writes, self.reads = Pace(), Pace()
        self.reachable = True

    def may_write(self, now: float) -> bool:
        """Whether to count on it for a copy."""
        return self.reachable and not self.writes.suspect(now)

    def may_read(self, now: float) -> bool:
        return self.reachable and not self.reads.suspect(now)
