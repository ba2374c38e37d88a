"""The queue of one target, delivered: in order for each key, at least once, until there is nothing left.

A *page* of what waits longest is cut into *chains*, one for each key, and as many chains are under way as the webhook may
have connections. A chain ends with its first failure: what comes later for that key waits for it. Which events are done goes
into the log in batches; what was delivered and not yet said is delivered again after a crash.

A *failure* makes its key wait, longer each time, and nobody else. Several without a success between are the *target's*: it is
given a rest, longer each time too and never the same for two gateways; afterwards one event is tried, and only if it gets
through, all others. What is older than `retention` is given up, and counted.
"""

import asyncio
import contextlib
import logging
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from consensus import queries
from consensus.core.commands import EventsDone, ReportTarget
from consensus.core.errors import ClusterError
from consensus.core.events import ERROR_CHARACTERS_MAX, DamagedEvent, QueuedEvent
from gateway.events.record import document
from gateway.events.sending import DeliveryFailed, Nowhere, Sender

if TYPE_CHECKING:
    from consensus.client import MetadataClient

log = logging.getLogger("staddle.events")

REST_S_MIN, REST_S_MAX = 0.05, 300.0
"""After the first failure in a row, and the longest. A target that fails now and then, one server of several for instance, is
hardly held up; one that comes back waits five minutes at most for what it missed."""

LOOK_S = 0.5
"""While all that is left waits for its next try: how soon something new is seen."""

BATCH = 200
BATCH_S = 0.2
"""Events that are said to be done with one command, and how long the first of them waits for that."""

WAITING_KEYS_MAX = 1000
"""Keys whose event was refused and is tried again. More of them: the target itself has something the matter."""

IN_A_ROW_MAX = 8
OF_TARGET_WEIGH = 2
"""Events that fail without one success between, where one that was not even refused counts twice: then it is the target."""

WALK_SHARE = 10
"""A walk through a queue in which everything waits is followed by a pause of so many times its length."""

RAW_SHOWN_MAX = 1024
"""Bytes of one that is damaged, for the log: all of it, as a rule."""

STOP_S = 2.0
"""For saying what was delivered, when it ends."""

SAY_S, SAY_S_MIN = 60.0, 5.0
"""Why a target fails is written into the log so often, and not much later when it changes."""

Value = TypeVar("Value")

Name = tuple[int, int]
Key = tuple[str, str]
HEAD: Name = (0, -1)


class Waiting(NamedTuple):
    """A key whose oldest event was refused: tried again at `until`, by the loop's time."""

    rest: "Rest"
    until: float


class Rest:
    """How long to wait before the next try: doubling, and a part of it left to chance."""

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        self._chance, self.failures = chance, 0

    def failed(self) -> float:
        """Seconds until the next try."""
        self.failures += 1
        longest: float = min(REST_S_MAX, REST_S_MIN * 2.0 ** min(self.failures - 1, 16))
        return longest * (0.5 + self._chance() / 2)

    def succeeded(self) -> None:
        self.failures = 0

    def choice(self, among: Sequence[Value]) -> Value:
        return among[int(self._chance() * len(among))]


class TargetQueue:
    """`held` says whether delivering is still ours, `now_ms` the log's time, by which events have theirs. `failures` counts tries
    that came to nothing, for metrics."""

    def __init__(
        self, target: str, sender: Sender | Nowhere, metadata: "MetadataClient", *, now_ms: Callable[[], int],
        connections: int, retention_ms: int, region: str, held: Callable[[], bool],
    ) -> None:
        self._target, self._sender, self._metadata, self._now_ms = target, sender, metadata, now_ms
        self._connections, self._retention_ms, self._region, self._held = connections, retention_ms, region, held
        self._rest = Rest()
        self._keys: dict[Key, Waiting] = {}
        self._met: set[Key] = set()           # those of them that this walk from the head has met: later ones come after
        self._in_a_row = 0                    # failures, weighed
        self._delivered = 0
        self._done: list[Name] = []
        self._saying: asyncio.Task[None] | None = None
        self._said, self._say_at = "", float("-inf")
        self.failures = 0

    async def run(self) -> None:
        """Until nothing waits, or delivering is not ours any more. Raises ClusterError."""
        try:
            await self._say_done()        # of the run before, should it have ended without: it must not come after later ones
            while self._held() and await self._walk():
                pass
        finally:
            await self._end()

    def close(self) -> None:
        self._sender.close()

    async def _walk(self) -> bool:
        """Once from the head of the queue to its end, or to a failure. Whether something is left, as far as is known."""
        began, delivered = asyncio.get_running_loop().time(), self._delivered
        after = HEAD
        self._met.clear()
        while self._held():
            page = await self._metadata.read(queries.queued_events, self._target, after)
            if not page:
                break
            await asyncio.sleep(0)        # reading does not suspend by itself: requests have their turn between two pages
            after = (page[-1].order, page[-1].place)
            chains = self._chains(await self._without_old(await self._without_damaged(page)))
            trying = self._rest.failures > 0 and len(chains) > 0
            failure = await self._deliver(chains)
            await self._say_done()
            if failure is not None:
                await self._have_a_rest(failure)
                return True
            if trying:
                return True           # the others of this page were left out: from the head again
        self._keys = {key: waiting for key, waiting in self._keys.items() if key in self._met}    # events of others are gone
        if self._keys:
            now = asyncio.get_running_loop().time()
            earliest = min(waiting.until for waiting in self._keys.values()) - now
            fruitless = (now - began) * WALK_SHARE if self._delivered == delivered else 0.0
            await asyncio.sleep(max(min(LOOK_S, earliest), fruitless))
        return after != HEAD

    async def _without_damaged(self, page: Sequence[QueuedEvent | DamagedEvent]) -> list[QueuedEvent]:
        """What cannot be read is put aside: out of the queue, into the log and a count, so that all others go on."""
        damaged = [queued for queued in page if isinstance(queued, DamagedEvent)]
        for start in range(0, len(damaged), BATCH):
            batch = damaged[start:start + BATCH]
            for queued in batch:
                log.error("target %s: event %d.%d cannot be read and is given up: %s", self._target, queued.order, queued.place,
                          queued.raw[:RAW_SHOWN_MAX].hex())
            names = tuple((queued.order, queued.place) for queued in batch)
            await self._metadata.commit(EventsDone(target=self._target, events=names, delivered=False, damaged=True))
        return [queued for queued in page if isinstance(queued, QueuedEvent)]

    async def _without_old(self, page: Sequence[QueuedEvent]) -> list[QueuedEvent]:
        oldest = self._now_ms() - self._retention_ms
        old = [queued for queued in page if queued.event.at_ms < oldest]
        for start in range(0, len(old), BATCH):
            names = tuple((queued.order, queued.place) for queued in old[start:start + BATCH])
            await self._metadata.commit(EventsDone(target=self._target, events=names, delivered=False))
        if old:
            log.warning("target %s: %d events are too old and given up", self._target, len(old))
            for queued in old:
                self._keys.pop(_key(queued), None)
        return [queued for queued in page if queued.event.at_ms >= oldest]

    def _chains(self, page: Sequence[QueuedEvent]) -> deque[list[QueuedEvent]]:
        """By key, without those that wait. After a failure: one event only, any, since the first may be the trouble."""
        now = asyncio.get_running_loop().time()
        chains: dict[Key, list[QueuedEvent]] = {}
        for queued in page:
            key = _key(queued)
            waiting = self._keys.get(key)
            if waiting is not None and key not in chains:
                if key in self._met or waiting.until > now:
                    self._met.add(key)
                    continue
                self._met.add(key)
            chains.setdefault(key, []).append(queued)
        found = list(chains.values())
        return deque([self._rest.choice(found)[:1]] if self._rest.failures and found else found)

    async def _deliver(self, chains: deque[list[QueuedEvent]]) -> str | None:
        """All chains, some at once. Why the target failed, if it did: then the others are left for later."""
        failure: list[str] = []

        async def work() -> None:
            while chains and not failure and self._held():
                for queued in chains.popleft():
                    try:
                        await self._sender.send(document(queued, self._region))
                    except DeliveryFailed as error:
                        self._failed(queued, error, failure)
                        break
                    self._taken(queued)
                    if failure:
                        return

        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._connections, len(chains))):
                group.create_task(work())
        return failure[0] if failure else None

    def _taken(self, queued: QueuedEvent) -> None:
        self._delivered += 1
        self._rest.succeeded()
        self._in_a_row = 0
        self._keys.pop(_key(queued), None)
        self._done.append((queued.order, queued.place))
        if self._saying is None:
            self._saying = asyncio.create_task(self._say_soon())

    def _failed(self, queued: QueuedEvent, error: DeliveryFailed, failure: list[str]) -> None:
        self.failures += 1
        key, now = _key(queued), asyncio.get_running_loop().time()
        waiting = self._keys.get(key)
        self._in_a_row += 1 if error.of_event else OF_TARGET_WEIGH
        self._met.add(key)
        if waiting is not None or len(self._keys) < WAITING_KEYS_MAX:
            rest = Rest() if waiting is None else waiting.rest
            self._keys[key] = Waiting(rest, now + rest.failed())
        else:
            failure.append(str(error))
        if self._in_a_row >= IN_A_ROW_MAX or (self._rest.failures and not error.of_event):
            failure.append(str(error))
        log.debug("target %s: %s for an event of bucket %s", self._target, error, queued.event.bucket)

    async def _have_a_rest(self, failure: str) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._say_at or (failure != self._said and now >= self._say_at - SAY_S + SAY_S_MIN):
            log.warning("target %s: %s; tried again later", self._target, failure)
            self._said, self._say_at = failure, now + SAY_S
            await self._metadata.commit(ReportTarget(target=self._target, error=failure[:ERROR_CHARACTERS_MAX]))
        await asyncio.sleep(self._rest.failed())

    # What is done, into the log

    async def _say_soon(self) -> None:
        """While others are delivered. A commit that fails is made up for at the end of the page."""
        try:
            while self._done:
                if len(self._done) < BATCH:
                    await asyncio.sleep(BATCH_S)
                await self._say_batch()
        except ClusterError as error:
            log.warning("target %s: that events are delivered could not be said: %s", self._target, error)
        finally:
            self._saying = None

    async def _say_done(self) -> None:
        """Everything: the next page must not hold it again."""
        if self._saying is not None:
            await self._saying
        while self._done:
            await self._say_batch()

    async def _say_batch(self) -> None:
        """What could not be said is said later, before anything else is delivered."""
        batch = tuple(self._done[:BATCH])
        await self._metadata.commit(EventsDone(target=self._target, events=batch))
        del self._done[:len(batch)]
        self._said = ""

    async def _end(self) -> None:
        """However it ends: what was delivered need not come again."""
        if self._saying is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_S):
                    await self._saying


def _key(queued: QueuedEvent) -> Key:
    return queued.event.bucket, queued.event.key
