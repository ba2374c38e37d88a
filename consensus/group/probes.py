"""Read indices: an index such that a read which shows at least this entry is linearizable, wherever it is read.

A leader takes its commit index, once an entry of its own term is committed, and asks the voters whether they are still in
its term. If a majority is, no other leader had committed anything before the read began. All who wait at the moment share
one round of such probes; who comes while two rounds are under way waits for the next. A follower asks its leader in the
same way, and then waits until its own SQLite shows the index. No clock takes part in it.
"""

import asyncio
import heapq
from collections.abc import Callable

from consensus.core.errors import Unavailable
from consensus.group.core import Core
from consensus.group.elections import counts
from consensus.group.members import Members, majority, voters
from consensus.group.messages import Message, Probe, Probed, Read, Readable
from consensus.journal import Journal

ROUNDS_MAX = 2
"""Under way at once: the second spares a lone reader half a round that had begun just before it came."""

AGAIN_S = 0.2
"""A round that is not answered by then is begun again: with its link, its frames may have been lost."""

WAIT_S = 3.0
"""Who has no index by then is told that there is none to be had: an election takes less."""

WAITING_MAX = 10_000
"""Readers at one member. Each process shares one request among its own readers, so this is far above what comes."""

Told = Callable[[int], None]
"""Called once with the index, or with 0 if none can be had here."""


class _Round:
    __slots__ = ("began", "index", "said", "term", "told")

    def __init__(self, term: int, index: int, began: float, told: list[Told]) -> None:
        self.term, self.index, self.began, self.told = term, index, began, told
        self.said: set[str] = set()


class Probes:
    """See the module. `applied` is what SQLite shows."""

    def __init__(self, name: str, incarnation: bytes, core: Core, journal: Journal, applied: Callable[[], int],
                 now: Callable[[], float], send: Callable[[str, Message], None], answer: Callable[[str, Message], None],
                 tell_commit: Callable[[str], None]) -> None:
        self._name, self._incarnation, self._core, self._journal, self._applied = name, incarnation, core, journal, applied
        self._now, self._send, self._answer, self._tell_commit = now, send, answer, tell_commit
        self.members: Members = ()
        self._waiting: list[Told] = []                             # for the next round
        self._rounds: dict[int, _Round] = {}
        self._number = int(now() * 1_000_000)
        """Of the last round. Begins with the clock: what the leader still has to answer to an earlier life of ours must not
        be taken for an answer to this one, since its index is older than this life's readers."""
        self._soon = False
        self._unapplied: list[tuple[int, int, asyncio.Future[int]]] = []

    # Readers of this process

    async def read_index(self) -> int:
        """Raises Unavailable."""
        if len(self._waiting) + len(self._unapplied) >= WAITING_MAX:
            raise Unavailable("too many reads are waiting for this member")
        loop = asyncio.get_running_loop()
        until = self._now() + WAIT_S
        while True:
            index = await self._ask(loop, until)
            if index:
                break
            if self._now() >= until:
                raise Unavailable("no majority of the metadata members answers")
            await asyncio.sleep(min(0.02, WAIT_S))                 # none leads, or another than we thought
        if index <= self._applied():
            return index
        shown: asyncio.Future[int] = loop.create_future()
        self._number += 1
        heapq.heappush(self._unapplied, (index, self._number, shown))
        try:
            async with asyncio.timeout(max(0.0, until - self._now())):
                return await shown
        except TimeoutError:
            raise Unavailable("this member is behind the others") from None

    async def _ask(self, loop: asyncio.AbstractEventLoop, until: float) -> int:
        told: asyncio.Future[int] = loop.create_future()
        self.want(lambda index: None if told.done() else told.set_result(index))
        try:
            async with asyncio.timeout(max(0.0, until - self._now())):
                return await told
        except TimeoutError:
            return 0

    # Rounds

    def want(self, told: Told) -> None:
        """Somebody wants an index as of now."""
        self._waiting.append(told)
        if not self._soon:
            self._soon = True
            asyncio.get_running_loop().call_soon(self._begin)

    def wanted_by(self, name: str, read: Read) -> None:
        """A follower asks."""
        if not self._core.leads or len(self._waiting) >= WAITING_MAX:
            self._answer(name, Readable(read.number, 0))
            return

        def told(index: int) -> None:
            if index:
                self._tell_commit(name)
            self._answer(name, Readable(read.number, index))

        self.want(told)

    def _begin(self) -> None:
        """A round for all who wait now, if there may be one."""
        self._soon = False
        core = self._core
        if not self._waiting or len(self._rounds) >= ROUNDS_MAX:
            return
        leader = core.leader
        if leader is None:
            self._give_up()
            return
        if not core.leads:
            number = self._new(_Round(core.term, 0, self._now(), self._take()))
            self._send(leader, Read(number))
            return
        index = core.commit
        if self._journal.term_at(index) != core.term:
            return                                                 # the term's first entry is under way: see `moved`
        if majority(self.members) == 1:
            for told in self._take():
                told(index)
            return
        self._probe(self._new(_Round(core.term, index, self._now(), self._take())))

    def _take(self) -> list[Told]:
        waiting, self._waiting = self._waiting, []
        return waiting

    def _new(self, round: _Round) -> int:
        self._number += 1
        self._rounds[self._number] = round
        return self._number

    def _probe(self, number: int) -> None:
        for member in voters(self.members):
            if member.name != self._name:
                self._send(member.name, Probe(self._core.term, number))

    def probed(self, name: str, probe: Probe) -> None:
        """Asked by who leads, it thinks. Answered in the same term only: `Group` tells an older one of ours."""
        self._answer(name, Probed(probe.term, self._incarnation, probe.number))

    def answered(self, name: str, said: Probed) -> None:
        core, round = self._core, self._rounds.get(said.number)
        if round is None or not core.leads or not round.term == said.term == core.term:
            return
        if counts(self.members, name, said.incarnation):
            round.said.add(name)
            if len(round.said) + 1 >= majority(self.members):
                self._end(said.number, round.index)

    def readable(self, name: str, said: Readable) -> None:
        """The leader has answered. It led when it did, whoever leads now."""
        round = self._rounds.get(said.number)
        if round is not None and round.index == 0:
            self._end(said.number, said.index)

    def _end(self, number: int, index: int) -> None:
        for told in self._rounds.pop(number).told:
            told(index)
        self._begin()

    def _give_up(self) -> None:
        for told in self._take():
            told(0)

    # The world goes on

    def moved(self) -> None:
        """SQLite shows more, the commit index is higher, or another leads."""
        applied, unapplied = self._applied(), self._unapplied
        while unapplied and unapplied[0][0] <= applied:
            shown = heapq.heappop(unapplied)[2]
            if not shown.done():
                shown.set_result(applied)
        if self._waiting:
            self._begin()

    def look(self) -> None:
        """From time to time: rounds whose frames were lost, or whose leader leads no more."""
        core, now = self._core, self._now()
        for number, round in list(self._rounds.items()):
            if round.term != core.term or (round.index > 0) != core.leads or (not round.index and now - round.began > AGAIN_S):
                self._end(number, 0)
            elif now - round.began > AGAIN_S:
                self._probe(number)
        if self._waiting and not core.leads:
            self._begin()
