"""When to ask for votes, when to give one, and which are counted. The election itself is the library's.

* *Loyalty*: whoever has heard a leader within 0.9 of the least election timeout, or was started within that time, gives no
  vote, and its term stays. A leader whom a majority has acknowledged as lately is loyal to itself.
* *Trial*: before a member raises its term it asks whether it would be elected. So one that was cut off, and comes back,
  finds its leader, instead of deposing it with a term that it has raised alone.
* A vote counts once, in its term, from a voter of the asker's configuration with the incarnation that is named there. Who
  gives one does not look at its own configuration, which may be older than the asker's: a member that has just become a
  voter may not know it yet, and be needed.
"""

import math
from collections.abc import Callable

from pysyncobj.node import Node

from consensus.group.core import CANDIDATE, Core
from consensus.group.members import Members, find, majority, voters
from consensus.group.messages import AskVote, Message, Voted
from consensus.group.timing import Timing
from consensus.journal import Journal

NEVER = math.inf

LOST = 0.2
"""Of the least election timeout: whoever has lost its link to the leader waits only this and the random part."""

LOYAL = 0.9
"""Of the least election timeout: who waits longer for a leader asks for votes itself."""


class Elections:
    """See the module."""

    def __init__(self, name: str, incarnation: bytes, core: Core, journal: Journal, timing: Timing,
                 now: Callable[[], float], send: Callable[[str, Message], None],
                 answer: Callable[[str, Message], None]) -> None:
        self._name, self._incarnation, self._core, self._journal, self._timing = name, incarnation, core, journal, timing
        self._now, self._send, self._answer = now, send, answer
        self.members: Members = ()
        self._loyal_s = LOYAL * timing.election_min_s
        self._began = now()
        self._heard_at = -math.inf
        self._trial: tuple[int, set[str]] | None = None       # the term we would stand in, and who would vote for us
        self._may_stand = self._handed = False
        self._counted: tuple[int, set[str]] = (0, set())
        self._gave = False

    # Our own part

    @property
    def is_voter(self) -> bool:
        ours = find(self.members, self._name)
        return ours is not None and ours.voter and ours.incarnation == self._incarnation

    @property
    def led(self) -> bool:
        """A majority is there: we lead it, or have heard lately who does."""
        return self._core.leads or self._now() - self._heard_at < self._timing.fallback_s

    def heard_leader(self) -> None:
        self._heard_at = self._now()
        self._trial, self._may_stand, self._handed = None, False, False

    def lost_link(self) -> None:
        """To the leader. If its process has ended, everybody has lost his, and nobody need wait any longer; else the others
        are loyal, and our trial comes to nothing."""
        core, timing = self._core, self._timing
        self._heard_at = -math.inf
        if self.is_voter:
            shorter = self._now() + core.election_timeout() - (1 - LOST) * timing.election_min_s
            core.election_deadline = min(core.election_deadline, shorter)

    def before_tick(self) -> None:
        """Let the library ask for votes in this tick only if it would be elected."""
        core, now = self._core, self._now()
        if core.leads:
            return
        if not self.is_voter:
            core.election_deadline = NEVER
        elif core.election_deadline == NEVER:
            core.election_deadline = now + core.election_timeout()
        elif core.election_deadline < now and not self._may_stand and majority(self.members) > 1:
            core.election_deadline = now + core.election_timeout()
            self._try()
        elif core.election_deadline < now:
            self._may_stand = False

    def stand(self) -> None:
        """The leader stops and asks us to be elected."""
        if self.is_voter and not self._core.leads:
            self._may_stand = self._handed = True
            self._core.election_deadline = 0.0

    def _try(self) -> None:
        term = self._core.term + 1
        self._trial, self._handed = (term, {self._name}), False
        self._ask(term, trial=True)

    def _ask(self, term: int, *, trial: bool) -> None:
        last, last_term = self._journal.last_index, self._journal.last_term
        for member in voters(self.members):
            if member.name != self._name:
                self._send(member.name, AskVote(term, last, last_term, trial, self._handed))

    def asked_by_library(self, name: str) -> None:
        """It has raised its term (durably) and asks `name` for its vote."""
        self._send(name, AskVote(self._core.term, self._journal.last_index, self._journal.last_term, False, self._handed))

    # Asked

    @property
    def _loyal(self) -> bool:
        core, now = self._core, self._now()
        if now - self._began < self._loyal_s or now - self._heard_at < self._loyal_s:
            return True
        if not core.leads:
            return False
        lately = sum(1 for node in core.voters if now - core.responded[node] < self._loyal_s)
        return lately + 1 >= majority(self.members)

    def asked(self, sender: Node, ask: AskVote) -> None:
        loyal = self._loyal and not ask.handed
        own_term = self._core.term
        if ask.trial:
            granted = not loyal and ask.term > own_term and \
                (ask.last_term, ask.last) >= (self._journal.last_term, self._journal.last_index)
        elif loyal:
            granted = False
        else:
            self._gave = False
            self._core.give(sender, {"type": "request_vote", "term": ask.term, "last_log_index": ask.last,
                                     "last_log_term": ask.last_term})
            granted = self._gave
        self._answer(sender.id, Voted(ask.term, self._core.term, self._incarnation, ask.trial, granted))

    def given_by_library(self) -> None:
        """It has given its vote to who is just asking; it is durable."""
        self._gave = True

    # Answered

    def answered(self, sender: Node, vote: Voted) -> None:
        core = self._core
        if vote.own_term > core.term:
            core.adopt(vote.own_term)
            self._trial, self._may_stand = None, False
            return
        if not vote.granted or not counts(self.members, sender.id, vote.incarnation):
            return
        if vote.trial:
            trial = self._trial
            if trial is None or core.leads or vote.term != trial[0] or vote.term != core.term + 1:
                return
            trial[1].add(sender.id)
            if len(trial[1]) >= majority(self.members):
                self._trial, self._may_stand = None, True
                core.election_deadline = 0.0
            return
        if core.state != CANDIDATE or vote.term != core.term:
            return
        if self._counted[0] != vote.term:
            self._counted = (vote.term, set())
        if sender.id not in self._counted[1]:                 # the library only counts messages
            self._counted[1].add(sender.id)
            core.give(sender, {"type": "response_vote", "term": vote.term})


def counts(members: Members, name: str, incarnation: bytes) -> bool:
    """Whether what this sender says is a voter's word."""
    member = find(members, name)
    return member is not None and member.voter and member.incarnation == incarnation


