"""A storage node as a role."""

from consensus.client import MetadataClient
from gateway.config import Config
from gateway.folders import Folders, node_id
from storage_node.server import NodeServer


class StorageRole:
    """A storage node and its link to the metadata."""

    def __init__(self, folders: Folders, config: Config, number: int, secret: bytes) -> None:
        data = config.data[number - 1]
        node = node_id(data)
        self._metadata = MetadataClient(folders.meta_address, secret, str(folders.meta), owner=f"node {node}")
        self._node = NodeServer(data=str(data.absolute()), node=node, address=folders.node_address(number), secret=secret,
                                metadata=self._metadata, read_grace_s=config.read_grace_seconds,
                                compact_dead_percent=config.compact_dead_percent,
                                scrub_bytes_per_second=config.scrub_bytes_per_second,
                                scrub_interval_s=config.scrub_interval_hours * 3600.0)

    async def start(self) -> None:
        await self._metadata.start()
        await self._node.start()

    async def stop(self) -> None:
        await self._node.stop()
        await self._metadata.stop()
