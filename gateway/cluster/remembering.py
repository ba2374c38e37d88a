"""The members' addresses in the data folder, so that a restart finds them whatever the settings say: those who were in the
cluster when the settings were written may have left it."""

import asyncio
import logging

from consensus import queries
from consensus.client import MetadataClient
from consensus.core import tasks
from consensus.core.errors import ClusterError
from gateway.cluster.machine import Machine, remember_peers
from gateway.folders import FolderError, Folders
from gateway.launch import Launch

log = logging.getLogger("staddle.cluster")

LOOK_S = 30.0
"""Members change once in months; whoever restarts in the half minute after knows most of the others."""


class PeersKeeper:
    """Works from `start` to `stop`."""

    def __init__(self, metadata: MetadataClient, folders: Folders, machine: Machine) -> None:
        self._metadata, self._folders, self._machine = metadata, folders, machine
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._keep(), name="peers")

    async def stop(self) -> None:
        await tasks.end(self._task)

    async def _keep(self) -> None:
        while True:
            try:
                await self.look()
            except (ClusterError, FolderError, OSError) as error:
                log.info("the members' addresses were not remembered: %s", error)
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Raises ClusterError, FolderError, OSError."""
        members = await self._metadata.read(queries.members)
        others = tuple(sorted(member.address for member in members if member.address not in ("", self._machine.address())))
        await asyncio.to_thread(remember_peers, self._folders, others)


def peers_keeper(launch: Launch, metadata: MetadataClient, folders: Folders) -> PeersKeeper | None:
    """One process of a machine does it: the first gateway, or the first storage node where there is none."""
    role = "gateway" if "gateway" in launch.config.roles else "node"
    if launch.machine is None or launch.role != role or launch.number != 1:
        return None
    return PeersKeeper(metadata, folders, launch.machine)
