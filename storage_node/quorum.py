"""A small chunk on its way to its nodes: sent whole to all that should hold it, done at the quorum.

A node that fails is replaced by the next one in the order of placement. Nodes that answer after the quorum are not waited
for: they announce their copies themselves.
"""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from consensus.core.errors import ClusterError, Unavailable
from consensus.core.model import Holder, NodeInfo
from consensus.core.wire import OK
from storage_node import protocol
from storage_node.client import DEADLINE_S, NodeClient, checked
from storage_node.errors import combined

ClientOf = Callable[[NodeInfo], NodeClient]


class Plan(NamedTuple):
    """Where a chunk should go: `places` in order of preference, the first `copies` of them wanted."""

    places: list[NodeInfo]
    copies: int
    quorum: int


async def to_one(places: list[NodeInfo], client_of: ClientOf, request: bytes) -> tuple[Holder, ...]:
    """No copies to wait for: without a task. The common case on one disk."""
    failures: list[ClusterError] = []
    for node in places:
        client = client_of(node)
        answer = client.put_now(request)
        # asyncio.timeout costs five times as much as a bare timer.
        timer = answer and asyncio.get_running_loop().call_later(DEADLINE_S, _overdue, answer)
        try:
            status, incarnation = await (client.put(request) if answer is None else answer)
        except ClusterError as error:
            failures.append(error)
        else:
            if status == OK:
                return (Holder(node.node, incarnation),)
            failures.append(protocol.error_of(status, incarnation))
        finally:
            if timer is not None:
                timer.cancel()
    raise combined(failures)


def _overdue(answer: "asyncio.Future[tuple[int, bytes]]") -> None:
    if not answer.done():
        answer.set_exception(Unavailable("a node did not store a chunk in time"))


class Quorum:
    """One small chunk, sent to several nodes at once."""

    def __init__(self, plan: Plan, client_of: ClientOf, request: bytes) -> None:
        self._plan, self._client_of, self._request = plan, client_of, request
        self._places = iter(plan.places)
        self._holders: list[Holder] = []
        self._failures: list[ClusterError] = []
        self._open = 0
        self._enough: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> tuple[Holder, ...]:
        for _ in range(self._plan.copies):
            self._send()
        try:
            async with asyncio.timeout(DEADLINE_S):
                await self._enough
        except TimeoutError:
            raise Unavailable(f"{len(self._holders)} of {self._plan.quorum} nodes stored a chunk in time") from None
        return tuple(self._holders)

    def _send(self) -> None:
        """To the next node in the order of placement, if there is one."""
        node = next(self._places, None)
        if node is None:
            return
        self._open += 1
        client = self._client_of(node)
        answer: asyncio.Future[tuple[int, bytes]] | None = client.put_now(self._request)
        if answer is None:
            answer = asyncio.ensure_future(client.put(self._request))
        answer.add_done_callback(lambda answer: self._answered(node, answer))

    def _answered(self, node: NodeInfo, answer: "asyncio.Future[tuple[int, bytes]]") -> None:
        self._open -= 1
        try:
            incarnation = checked(*answer.result())
        except ClusterError as error:
            self._failures.append(error)
            if not self._enough.done():
                self._send()
        except asyncio.CancelledError:
            self._failures.append(Unavailable("stopped"))
        else:
            self._holders.append(Holder(node.node, incarnation))
        if self._enough.done():
            return
        if len(self._holders) >= self._plan.quorum:
            self._enough.set_result(None)
        elif len(self._holders) + self._open < self._plan.quorum:
            self._enough.set_exception(combined(self._failures))
