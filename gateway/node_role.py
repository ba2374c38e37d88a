"""A storage node as a role."""

from gateway.cluster.reaching import metadata_client, tls_of
from gateway.cluster.remembering import peers_keeper
from gateway.config import Config
from gateway.folders import Folders, node_id
from gateway.launch import Launch
from storage_node.server import NodeServer


class StorageRole:
    """A storage node and its link to the metadata."""

    def __init__(self, folders: Folders, config: Config, launch: Launch, secret: bytes) -> None:
        data, number, machine = config.data[launch.number - 1], launch.number, launch.machine
        node, socket, tls = node_id(data), folders.node_address(number), tls_of(launch)
        self._metadata = metadata_client(launch, f"node {node}", tls)
        listen: tuple[str, ...] = (socket,)
        address, zone = socket, ""
        if machine is not None:
            listen, address, zone = (socket, machine.listens(number)), machine.address(number), machine.zone
        self._peers_keeper = peers_keeper(launch, self._metadata, folders)
        self._node = NodeServer(
            data=str(data.absolute()), node=node, address=address, listen=listen, zone=zone,
            secret=secret, tls=tls, metadata=self._metadata, read_grace_s=config.read_grace_seconds,
            compact_dead_percent=config.compact_dead_percent, scrub_bytes_per_second=config.scrub_bytes_per_second,
            scrub_interval_s=config.scrub_interval_hours * 3600.0, repair_bytes_per_second=config.repair_bytes_per_second)

    async def start(self) -> None:
        await self._metadata.start()
        await self._node.start()
        if self._peers_keeper is not None:
            self._peers_keeper.start()

    async def stop(self) -> None:
        if self._peers_keeper is not None:
            await self._peers_keeper.stop()
        await self._node.stop()
        await self._metadata.stop()
