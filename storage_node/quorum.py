"""A small chunk on its way to its nodes: sent whole to all that should hold it, done at the quorum.

A node that fails is replaced by the next one in the order of placement, and when the quorum keeps us waiting for longer
than its nodes usually take, the next one is asked as well. Nodes that answer after the quorum are not waited for: they
announce their copies themselves. What is on its way to a node that takes nothing is bounded: it is not sent more
(`NodeClient.has_room`).

The quorum itself waits a little for the others, if they are usually as quick: a copy that the commit lists need not be
announced by a command of its own, and nobody takes it for lacking meanwhile.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from consensus.core.errors import ClusterError, Unavailable
from consensus.core.ids import NodeId
from consensus.core.model import Holder, NodeInfo
from storage_node.client import DEADLINE_S, NodeClient, checked
from storage_node.errors import combined

ClientOf = Callable[[NodeInfo], NodeClient]

PATIENCE_S_MIN = 0.05
"""Before one more node is asked than copies are wanted: twenty syncs of a healthy disk."""

PATIENCE_TIMES = 8
"""Of the usual time. The extra copy costs a disk's work and is withdrawn later, so one request in some hundred may."""

GIVE_UP_S_MIN = 5.0
"""A node refuses what would wait in its queue for more than 2 s (QUEUE_S_MAX in segments.py), so its silence for longer
is a disk, a process or a network that stands still."""

GIVE_UP_TIMES = 100
"""Where everything takes long, by the usual time."""


OTHERS_SHARE, OTHERS_S_MAX = 0.5, 0.02
"""How much longer than the quorum took the other copies are waited for."""


class Plan(NamedTuple):
    """Where a chunk should go: `places` in order of preference, the first `copies` of them wanted."""

    places: list[NodeInfo]
    copies: int
    quorum: int


async def to_one(node: NodeInfo, client: NodeClient, request: bytes) -> tuple[Holder, ...]:
    """No copies to wait for, and no other node to ask: without a task. The common case on one disk."""
    answer = client.put_in_time(request)
    try:
        incarnation = checked(*await (client.put(request) if answer is None else answer))
    except ClusterError as error:
        raise combined([error]) from error
    return (Holder(node.node, incarnation),)


def usual_s(clients: Sequence[NodeClient], quorum: int) -> float:
    """How long the fastest `quorum` of them take for a small chunk."""
    return sorted(client.standing.writes.median_s for client in clients)[min(quorum, len(clients)) - 1]


class Quorum:
    """One small chunk, sent to several nodes at once."""

    def __init__(self, plan: Plan, client_of: ClientOf, request: bytes) -> None:
        self._plan, self._client_of, self._request = plan, client_of, request
        self._places = iter(plan.places)
        self._holders: list[Holder] = []
        self._failures: list[ClusterError] = []
        self._open: dict[NodeId, NodeClient] = {}
        self._loop = asyncio.get_running_loop()
        self._enough: asyncio.Future[None] = self._loop.create_future()
        self._began_at = self._patience_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._for_others: asyncio.TimerHandle | None = None

    async def run(self) -> tuple[Holder, ...]:
        """The holders once there are enough. Raises NoSpace, Unavailable."""
        plan = self._plan
        usual = usual_s([self._client_of(node) for node in plan.places[:plan.copies]], plan.quorum)
        self._patience_s = max(PATIENCE_S_MIN, PATIENCE_TIMES * usual)
        self._began_at = self._loop.time()
        until = self._began_at + min(DEADLINE_S, max(GIVE_UP_S_MIN, GIVE_UP_TIMES * usual))
        for _ in range(plan.copies):
            self._send()
        self._check()
        self._timer = self._loop.call_later(self._patience_s, self._waited, until)
        try:
            await self._enough
        finally:
            self._timer.cancel()
            if self._for_others is not None:
                self._for_others.cancel()
            self._places = iter(())
            self._request = b""                       # late nodes may hold up this object, but not the chunk
        return tuple(self._holders)

    def _waited(self, until: float) -> None:
        """The quorum takes long: ask one more, or give up."""
        if self._enough.done():
            return
        now = self._loop.time()
        if now >= until:
            text = f"{len(self._holders)} of {self._plan.quorum} nodes stored a chunk in time"
            self._enough.set_exception(combined([*self._failures, Unavailable(text)]))
            return
        self._send()
        self._timer = self._loop.call_later(min(self._patience_s, max(until - now, 0.001)), self._waited, until)

    def _send(self) -> None:
        """To the next node in the order of placement that takes it, if there is one."""
        for node in self._places:
            client = self._client_of(node)
            if not client.has_room:
                self._failures.append(Unavailable(f"storage node {node.node} has not taken what it was sent before"))
                continue
            self._open[node.node] = client
            now = self._loop.time()
            client.standing.writes.asked(now)
            answer: asyncio.Future[tuple[int, bytes]] | None = client.put_now(self._request)
            if answer is None:
                answer = asyncio.ensure_future(client.put(self._request))
            answer.add_done_callback(partial(self._answered, node, client, now))
            return

    def _answered(self, node: NodeInfo, client: NodeClient, asked_at: float,
                  answer: "asyncio.Future[tuple[int, bytes]]") -> None:
        del self._open[node.node]
        pace, now = client.standing.writes, self._loop.time()
        try:
            incarnation = checked(*answer.result())
        except ClusterError as error:
            pace.given_up()
            pace.blame(now)
            self._failures.append(error)
            if not self._enough.done():
                self._send()
        except asyncio.CancelledError:
            pace.given_up()
            self._failures.append(Unavailable("stopped"))
        else:
            pace.answered(asked_at, now)
            self._holders.append(Holder(node.node, incarnation))
        self._check()

    def _check(self) -> None:
        if self._enough.done():
            return
        if len(self._holders) >= self._plan.quorum:
            if not self._open or len(self._holders) >= self._plan.copies:
                self._enough.set_result(None)
            elif self._for_others is None:
                self._wait_for_others()
        elif len(self._holders) + len(self._open) < self._plan.quorum:
            self._enough.set_exception(combined(self._failures or [Unavailable("too few storage nodes take this chunk")]))

    def _wait_for_others(self) -> None:
        now = self._loop.time()
        took = now - self._began_at
        if any(client.standing.writes.median_s < 2 * took and client.standing.may_write(now) for client in self._open.values()):
            self._for_others = self._loop.call_later(min(OTHERS_SHARE * took, OTHERS_S_MAX), self._waited_for_others)
        else:
            self._enough.set_result(None)

    def _waited_for_others(self) -> None:
        if not self._enough.done():
            self._enough.set_result(None)
