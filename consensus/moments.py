"""Read indices for the readers of one process, and the moment that one request reads at.

A *read index* is an entry of the log such that whatever shows at least this entry shows everything that was answered
before the index was asked for (promise 4). In a group of several members every read needs one that was asked for after
the read began. It costs a round of messages, so all who wait at the moment share one request: while requests are under
way, later readers gather for the next.

A *moment* is one request's: its first read asks for an index, the others go on with that one, since they all belong to an
operation that began before. What the request has committed itself must show in what it reads next, so a commit ends the
moment, and the next read asks again. A member that is alone needs neither.
"""

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

from consensus import protocol
from consensus.core.errors import ClusterError, Unavailable
from consensus.core.wire import OK, WireClient
from consensus.link import SLOW_S, MemberLink

ROUNDS_MAX = 2
"""Requests under way at once: the second spares a lone reader the wait for half a round that began just before it came."""

ANSWER_S = 1.5
"""After so long the readers try again, by then perhaps at another member (consensus.link)."""

MOMENT_S = 1.0
"""A moment ends after this time in any case: a download that lasts hours asks for locations again to see new ones."""


class Moment:
    """What one request knows: an index, and when it was asked for (the loop's time)."""

    __slots__ = ("asked", "ends", "index", "over")

    def __init__(self) -> None:
        self.index, self.asked, self.ends, self.over = 0, -MOMENT_S, 0, False

    def end(self) -> None:
        """The next read is to see what is so now; an index that is under way is older."""
        self.asked = -MOMENT_S
        self.ends += 1


_moment: ContextVar[Moment | None] = ContextVar("moment", default=None)
_NOTHING: AbstractContextManager[None] = nullcontext()


@contextmanager
def _one_moment() -> Iterator[None]:
    moment = Moment()
    _moment.set(moment)
    try:
        yield
    finally:
        # No token is kept: a request's first step runs in its connection's context, the rest in a task's copy of it. What
        # was set in the first stays there, and counts for nobody any more.
        moment.over = True
        _moment.set(None)


class Moments:
    """One per process, over its link."""

    def __init__(self, link: MemberLink) -> None:
        self._link = link
        self._waiting: list[asyncio.Future[int]] = []
        self._asked: dict[asyncio.Future[tuple[int, bytes]], WireClient] = {}
        self._is_due = False

    def one(self) -> AbstractContextManager[None]:
        """All reads within, in this task and those it starts, may share one index: for the reads of one request. Free
        while the member is alone."""
        serving = self._link.serving
        return _NOTHING if serving is not None and serving.alone else _one_moment()

    def moved(self) -> None:
        """Another member is to be asked from now on: who waits for the former one need not wait any longer."""
        for answer, wire in list(self._asked.items()):
            if wire is not self._link.wire and not answer.done():
                answer.set_exception(Unavailable("another member is asked"))

    def passed(self) -> None:
        """Something was committed: what is read next must show it."""
        moment = _moment.get()
        if moment is not None:
            moment.end()

    async def index(self) -> int:
        """For a read that begins now. Indices are the log's, so it does not matter which member told it. Raises Unavailable."""
        moment = _moment.get()
        loop = asyncio.get_running_loop()
        asked = loop.time()
        if moment is not None and moment.over:
            moment = None
        if moment is not None and asked - moment.asked < MOMENT_S:
            return moment.index
        ends = 0 if moment is None else moment.ends
        future: asyncio.Future[int] = loop.create_future()
        self._waiting.append(future)
        if not self._is_due and len(self._asked) < ROUNDS_MAX:
            self._is_due = True
            loop.call_soon(self._ask)
        index = await future
        if moment is not None and moment.ends == ends:
            moment.index, moment.asked = index, asked
        return index

    def _ask(self) -> None:
        """One request for all who wait now."""
        self._is_due = False
        waiting, self._waiting = self._waiting, []
        wire = self._link.wire
        if wire is None:
            _fail(waiting, Unavailable("the link to the metadata member was lost"))
            return
        answer = wire.call(protocol.READ_INDEX)
        self._asked[answer] = wire
        limit = asyncio.get_running_loop().call_later(SLOW_S, self._slow, answer)
        answer.add_done_callback(lambda done: self._answered(waiting, limit, done))

    def _slow(self, answer: "asyncio.Future[tuple[int, bytes]]") -> None:
        self._link.doubt()
        asyncio.get_running_loop().call_later(ANSWER_S - SLOW_S, self._late, answer)

    @staticmethod
    def _late(answer: "asyncio.Future[tuple[int, bytes]]") -> None:
        if not answer.done():
            answer.set_exception(Unavailable(f"no read index in {ANSWER_S:g} s"))

    def _answered(self, waiting: "list[asyncio.Future[int]]", limit: asyncio.TimerHandle,
                  answer: "asyncio.Future[tuple[int, bytes]]") -> None:
        limit.cancel()
        self._asked.pop(answer, None)
        if self._waiting and not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._ask)
        if answer.cancelled():
            _fail(waiting, Unavailable("the read index was given up"))
            return
        error = answer.exception()
        if error is not None:
            _fail(waiting, error if isinstance(error, ClusterError) else Unavailable(str(error)))
            return
        code, payload = answer.result()
        if code != OK:
            _fail(waiting, protocol.error_of(code, payload))
            return
        index = protocol.index.decode(payload)
        for future in waiting:
            if not future.done():
                future.set_result(index)


def _fail(waiting: "list[asyncio.Future[int]]", error: ClusterError) -> None:
    for future in waiting:
        if not future.done():
            future.set_exception(error)
