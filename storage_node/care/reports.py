"""What the node says about itself through the log: that its disk takes no chunks, and that it is there again.

Each process of a cluster sees for itself whether a node answers; only what lasts is in the log. A disk that is full or
read-only is said at once, so that nobody sends chunks there; that it takes them again is said when it has done so for a
while, since a disk near its reserve goes to and fro. A node that others have declared down says that it isn't.
"""

import asyncio
import logging
from collections.abc import Callable

from consensus.core.commands import SetNodeState
from consensus.core.ids import NodeId
from storage_node.care.fellows import Fellows
from storage_node.care.loop import Loop
from storage_node.care.telling import NodeMetadata
from storage_node.store import DiskState

log = logging.getLogger("staddle.node")

LOOK_S = 1.0
WELL_S = 5.0
"""So long a disk must have taken chunks before the log says so."""


class Reports:
    """The loop of one node. `disk` tells the state of its disk."""

    def __init__(self, metadata: NodeMetadata, node: NodeId, fellows: Fellows, disk: Callable[[], DiskState], *,
                 look_s: float = LOOK_S, well_s: float = WELL_S) -> None:
        self._metadata, self._node, self._fellows, self._disk = metadata, node, fellows, disk
        self._look_s, self._well_s = look_s, well_s
        self._well_since: float | None = None
        self._loop = Loop("telling its state", node, self._turn, pause_s=look_s, level=logging.INFO)

    def start(self) -> None:
        self._loop.start()

    async def stop(self) -> None:
        await self._loop.stop()

    async def _turn(self) -> float:
        await self.round()
        return self._look_s

    async def round(self) -> None:
        """Tell the log if it is wrong. Raises ClusterError."""
        now, state = asyncio.get_running_loop().time(), self._disk()
        known = (await self._fellows.look()).get(self._node)
        if known is None or len(self._fellows.nodes) < 2:
            return                                    # with nobody else to go to, clients had better hear it from the disk
        if not state.writable:
            self._well_since = None
            actual = "full" if state.reason == "full" else "read-only"
        else:
            if self._well_since is None:
                self._well_since = now
            actual = "up"
            if known.said in ("full", "read-only") and now - self._well_since < self._well_s:
                return
        if actual != known.said:
            log.log(logging.INFO if actual == "up" else logging.WARNING, "node %s is %s now", self._node, actual)
            await self._metadata.commit(SetNodeState(node=self._node, state=actual))
