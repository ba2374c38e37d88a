"""The loops of a node that look beyond it: repair, rebalancing, giving back, and what it says about its own state. Put together,
started and stopped here; each is in a file of its own. They share the links to the other nodes, and one pace.
"""

import os
from collections.abc import Callable

from consensus.core.clock import Clock, SteadyClock
from consensus.core.ids import NodeId
from consensus.disk import Disk
from storage_node.care.fellows import Dial, Fellows
from storage_node.care.fetching import Fetcher, Pace
from storage_node.care.giving_back import GivingBack
from storage_node.care.rebalance import Rebalance
from storage_node.care.repair import Repair
from storage_node.care.reports import Reports
from storage_node.care.settle import Settler
from storage_node.care.status import UpkeepStatus
from storage_node.care.telling import NodeMetadata
from storage_node.store import ChunkStore

REPAIR_BYTES_PER_SECOND = 64 << 20
"""Half of a gigabit network, a third of a slow disk: 1 TB in 4.5 hours."""


class Upkeep:
    """One per node. `folder`: where the rebalancing writes down its place; None for nowhere."""

    def __init__(self, node: NodeId, store: ChunkStore, metadata: NodeMetadata, settler: Settler, *, dial: Dial,
                 busy: Callable[[], bool], bytes_per_second: int = REPAIR_BYTES_PER_SECOND, folder: str | None = None,
                 disk: Disk | None = None, clock: Clock | None = None) -> None:
        self._store, self._settler, self._folder = store, settler, folder
        self._fellows = Fellows(metadata, node, dial)
        pace = Pace(bytes_per_second, busy)
        fetcher = Fetcher(store, self._fellows, pace)
        self.repair = Repair(metadata, node, self._fellows, fetcher, settler, takes_chunks=self._takes_chunks)
        self.rebalance = Rebalance(metadata, node, self._fellows, fetcher, settler, clock=clock or SteadyClock(),
                                   folder=folder, disk=disk or Disk(), takes_chunks=self._takes_chunks,
                                   free_share=self._free_share)
        self.giving_back = GivingBack(metadata, node, self._fellows, settler, pace)
        self.reports = Reports(metadata, node, self._fellows, lambda: store.disk_state)

    async def prepare(self) -> None:
        """Before the node is registered: from then on it gets chunks."""
        await self.rebalance.prepare(empty=not await self._store.inventory(None, 1))

    def start(self) -> None:
        self._settler.on_loss = self.repair.kick
        for loop in (self.repair, self.rebalance, self.giving_back, self.reports):
            loop.start()

    async def stop(self) -> None:
        for loop in (self.reports, self.giving_back, self.rebalance, self.repair):
            await loop.stop()
        self._fellows.close()

    @property
    def status(self) -> UpkeepStatus:
        return UpkeepStatus(repair=self.repair.status, rebalance=self.rebalance.status, giving_back=self.giving_back.status)

    def _takes_chunks(self) -> bool:
        own = self._fellows.nodes.get(self._fellows.own)
        return self._store.disk_state.writable and own is not None and own.takes_chunks

    def _free_share(self) -> float:
        if self._folder is None:
            return 1.0
        disk = os.statvfs(self._folder)
        return disk.f_bavail / max(disk.f_blocks, 1)
