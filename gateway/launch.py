"""What a process of Staddle is told at its start, and what a role is. Light: the supervisor and the command line need no
more, and each process then imports only what its own role needs.

A *role* is an object with `start` and `stop`: the metadata member, a storage node, a gateway worker. A *launch* is all that
a process needs to know to be one.
"""

from typing import Literal, Protocol

import msgspec

from gateway.cluster.machine import Machine
from gateway.config import Config
from gateway.folders import Folders
from gateway.identities import Identity

EX_CONFIG = 78
"""sysexits.h: something is set up wrongly; starting again would not help."""

EX_RESTART = 75
"""sysexits.h: try again. A metadata member that has put another state in its folder ends with it, to begin on that
(consensus.endings.EXIT_RESTART)."""


class Role(Protocol):
    async def start(self) -> None:
        """Raises Refused when it can never work as it is set up, ClusterError or OSError otherwise."""

    async def stop(self) -> None:
        """Finish what is under way, then let go of everything. Called once."""


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """All that a process needs to know. It travels through a pipe: it holds secrets."""

    role: Literal["meta", "node", "gateway"]
    number: int
    config: Config
    folders: str
    secret: str                   # hex
    root: Identity
    host: str
    port: int
    restarted: bool = False       # it has been ready before: what is beside the store must not keep it from coming back
    alone: bool = False           # the machine's only gateway, in a process with all other roles (gateway/single.py)
    machine: Machine | None = None    # in a cluster

    @property
    def name(self) -> str:
        return self.role if self.role == "meta" else f"{self.role}-{self.number}"


def launches(config: Config, folders: Folders, secret: bytes, root: Identity, host: str, port: int,
             machine: Machine | None = None) -> list[Launch]:
    """The processes of this machine, as far as its roles go: one metadata member, a node for each data folder, the gateway
    workers."""
    def launch(role: Literal["meta", "node", "gateway"], number: int) -> Launch:
        return Launch(role=role, number=number, config=config, folders=str(folders.root), secret=secret.hex(), root=root,
                      host=host, port=port, machine=machine)

    every = [launch("meta", 1), *(launch("node", number) for number in range(1, len(config.data) + 1)),
             *(launch("gateway", number) for number in range(1, config.gateway_workers + 1))]
    return [one for one in every if one.role in config.roles]
