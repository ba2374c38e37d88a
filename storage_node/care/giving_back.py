"""Copies that are too many, given back by those that rank last: after a rebalance, when a node has come back, when a bucket
wants fewer. And a node that an admin is taking out gives back whatever others have made meanwhile, until it holds nothing.

Only the node itself gives a copy up, and apply refuses where too few would be left; what lies on a node that is down makes no
other copy needless. Before that, copies that stay are read whole and verified by their holders, two of them if two are wanted:
what is listed might be rotten, and this one might be the last good one.
"""

import asyncio
import contextlib
from collections.abc import Sequence

import msgspec

from consensus.core.errors import ClusterError
from consensus.core.ids import NodeId
from consensus.core.model import NodeInfo
from consensus.core.placement import ranked
from storage_node.care.fellows import Fellows
from storage_node.care.fetching import Pace
from storage_node.care.loop import Loop
from storage_node.care.settle import Settler
from storage_node.care.status import GivingStatus
from storage_node.care.telling import NodeMetadata, Unequal

PAGE = 300
AT_ONCE = 8
LOOK_S = 3.0
NEXT_S = 0.05
"""After a round that has given something back there may be more."""

GOOD_MIN = 2
"""Copies that must have been verified where as many are wanted. With one of them lost in the next moment there is another; what
is found rotten is withdrawn by its holder, and then none is too many."""

VERIFIED_S, VERIFIED_BYTES_PER_S = 10.0, 8 << 20
"""How long a holder may take to read its copy: one that hangs must not hold up the others."""


class GivingBack:
    """The loop of one node."""

    def __init__(self, metadata: NodeMetadata, node: NodeId, fellows: Fellows, settler: Settler, pace: Pace, *,
                 look_s: float = LOOK_S) -> None:
        self._metadata, self._node, self._fellows, self._settler = metadata, node, fellows, settler
        self._pace, self._look_s = pace, look_s
        self._loop = Loop("giving back", node, self._turn, pause_s=look_s)
        self._status = GivingStatus()

    def start(self) -> None:
        self._loop.start()

    async def stop(self) -> None:
        await self._loop.stop()

    @property
    def status(self) -> GivingStatus:
        return msgspec.structs.replace(self._status, trouble=self._loop.trouble)

    async def _turn(self) -> float:
        return NEXT_S if await self.round() else self._look_s

    async def round(self) -> int:
        """Once through the chunks that have too many copies. How many were given back. Raises ClusterError."""
        after, given, waiting = (-1 << 31, b""), 0, 0
        while page := await self._metadata.over_replicated(PAGE, after):
            nodes = await self._fellows.look()
            own = [row for row in page if gives_back(self._node, row, nodes)]
            waiting += len(own)
            if own:
                given += await self._give(own, nodes)
            if len(page) < PAGE:
                break
            after = page[-1].place
        info = self._fellows.nodes.get(self._node)
        self._status = msgspec.structs.replace(self._status, leaving=info is not None and info.asked == "draining",
                                              waiting=waiting - given)
        return given

    async def _give(self, rows: Sequence[Unequal], nodes: dict[NodeId, NodeInfo]) -> int:
        room = asyncio.Semaphore(AT_ONCE)

        async def one(row: Unequal) -> Unequal | None:
            async with room:
                return row if await self._others_are_good(row, nodes) else None

        sure = [row for row in await asyncio.gather(*[one(row) for row in rows]) if row is not None]
        given = await self._settler.give_back([(row.digest, row.generation.pack()) for row in sure]) if sure else 0
        self._status = msgspec.structs.replace(
            self.status, given=self._status.given + given, kept=self._status.kept + len(rows) - len(sure),
            given_bytes=self._status.given_bytes + (sum(row.size for row in sure) if given == len(sure) else 0))
        return given

    async def _others_are_good(self, row: Unequal, nodes: dict[NodeId, NodeInfo]) -> bool:
        """Whether holders of enough copies that stay have read them whole just now, and found them good."""
        good = 0
        staying = [name for name in row.nodes if name in nodes and nodes[name].counts and not gives_back(name, row, nodes)]
        for info in self._fellows.sources(staying):
            with contextlib.suppress(ClusterError, TimeoutError):
                began = asyncio.get_running_loop().time()
                async with asyncio.timeout(VERIFIED_S + row.size / VERIFIED_BYTES_PER_S):
                    good += await self._fellows.client(info).report(row.digest, row.generation)
                await self._pace.took(0, asyncio.get_running_loop().time() - began)
                if good >= min(GOOD_MIN, row.wanted):
                    return True
        return False


def gives_back(node: NodeId, row: Unequal, nodes: dict[NodeId, NodeInfo]) -> bool:
    """Whether it is this node that gives its copy back: one whose copies don't count, if as many as wanted do; else those that
    come last in the order of placement, as many as there are too many. On nodes that are down there are none too many."""
    if node not in row.nodes or node not in nodes:
        return False
    holders = [nodes[name] for name in row.nodes if name in nodes]
    counted = [info for info in holders if info.counts]
    at_hand = [info for info in counted if info.state != "down"]
    spare = len(at_hand) - row.wanted
    if spare < 0 or not nodes[node].counts:
        return spare >= 0
    last = [info.node for info in ranked(row.digest, counted)[row.wanted:] if info in at_hand]
    return spare > 0 and node in last[-spare:]
