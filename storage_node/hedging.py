"""One piece from the first of several nodes that has it: the next is asked when one fails, or takes much longer than it
usually does.

Asking a second one (a *hedge*) costs a disk and a network something, and when everything is slow it makes matters worse.
So hedges are a small part of all reads; when they are used up, a reader waits until a node is as good as silent.
"""

import asyncio
from collections.abc import Callable, Coroutine

from consensus.core import tasks
from consensus.core.errors import ClusterError
from consensus.core.ids import NodeId
from storage_node.standing import SUSPECT_S_MIN

HEDGE_S_MIN = 0.02
"""A seek, or a sync of somebody else on the same disk, takes half of it."""

HEDGE_TIMES = 3
"""Of the node's median."""

HEDGE_S_MAX = 1.0
"""A node that takes longer than a third of this is not worth more patience."""

HEDGE_SHARE = 0.05
"""Of reads."""

HEDGES_AT_ONCE = 50.0
"""When a node stops, all who were reading from it need one."""


class Hedges:
    """What is left of them in this process."""

    __slots__ = ("_left", "made")

    def __init__(self) -> None:
        self._left = HEDGES_AT_ONCE
        self.made = 0

    def read(self) -> None:
        self._left = min(HEDGES_AT_ONCE, self._left + HEDGE_SHARE)

    def take(self) -> bool:
        if self._left < 1:
            return False
        self._left -= 1
        self.made += 1
        return True


def patience_s(median_s: float) -> float:
    return min(max(HEDGE_S_MIN, HEDGE_TIMES * median_s), HEDGE_S_MAX)


async def first_good(sources: list[NodeId], fetch: Callable[[NodeId], Coroutine[None, None, bytes]],
                     patience: Callable[[NodeId], float], hedges: Hedges,
                     failed: Callable[[NodeId, ClusterError], None]) -> bytes | None:
    """The bytes from whoever has them first; None if all `sources` have failed. They are kept in order for the next piece:
    those that failed are dropped, and who was overtaken comes later."""
    hedges.read()
    waiting, running = list(sources), dict[asyncio.Task[bytes], NodeId]()
    hasty = True
    try:
        while waiting or running:
            if not running:
                node = waiting.pop(0)
                running[asyncio.ensure_future(fetch(node))] = node
            limit = None
            if waiting:
                limit = patience(node) if hasty else max(SUSPECT_S_MIN, patience(node))
            done, _ = await asyncio.wait(running, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                if hasty and not hedges.take():
                    hasty = False
                    continue
                hasty = True
                node = waiting.pop(0)
                running[asyncio.ensure_future(fetch(node))] = node
            for task in done:
                ended = running.pop(task)
                error = task.exception()
                if error is None:
                    if ended in sources and sources[0] != ended:
                        sources.remove(ended)
                        sources.insert(0, ended)
                    return task.result()
                if not isinstance(error, ClusterError):
                    raise error
                if ended in sources:
                    sources.remove(ended)
                failed(ended, error)
        return None
    finally:
        for task in running:
            task.cancel()
            task.add_done_callback(tasks.seen)
