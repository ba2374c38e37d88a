"""The other storage nodes, as this one sees them: which there are, where a copy may be had, and links to them."""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Protocol

from consensus.core.ids import NodeId
from consensus.core.model import NodeInfo
from storage_node.client import NodeClient

BELIEVED_S = 1.0
"""How long the list of nodes is used without a further look."""

Dial = Callable[[str], NodeClient]
"""A client for the node at this address."""


class NodeList(Protocol):
    async def nodes(self) -> Sequence[NodeInfo]: ...


class Fellows:
    """One per node. `nodes` has the node itself too."""

    def __init__(self, metadata: NodeList, node: NodeId, dial: Dial) -> None:
        self._metadata, self.own, self._dial = metadata, node, dial
        self.nodes: dict[NodeId, NodeInfo] = {}
        self._clients: dict[NodeId, NodeClient] = {}
        self._looked_at = float("-inf")

    async def look(self) -> dict[NodeId, NodeInfo]:
        """The nodes as they are now, or were a moment ago. Raises ClusterError."""
        now = asyncio.get_running_loop().time()
        if now - self._looked_at > BELIEVED_S:
            self.nodes = {info.node: info for info in await self._metadata.nodes()}
            self._looked_at = now
            for gone in self._clients.keys() - self.nodes.keys():
                self._clients.pop(gone).close()
        return self.nodes

    def sources(self, names: Sequence[NodeId]) -> list[NodeInfo]:
        """Those of these nodes that may be asked for a copy, the likeliest first. One that is down may have come back."""
        others = [self.nodes[name] for name in names if name != self.own and name in self.nodes]
        random.shuffle(others)                        # so that many that ask don't all ask the same one
        return sorted(others, key=lambda info: info.state == "down")

    def client(self, info: NodeInfo) -> NodeClient:
        client = self._clients.get(info.node)
        if client is None or client.address != info.address:
            if client is not None:
                client.close()
            client = self._clients[info.node] = self._dial(info.address)
        return client

    def close(self) -> None:
        for client in self._clients.values():
            client.close()
        self._clients.clear()
