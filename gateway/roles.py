"""The roles of one machine as objects with `start` and `stop`, and the process that runs one of them.

`launches` says which processes a machine needs; `build` makes the role of a launch; `main` is such a process: it reads its
launch from standard input, starts the role, says `ready`, and stops at SIGTERM or when standard input ends.
"""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from typing import Literal, Protocol

import msgspec

from consensus.client import MetadataClient
from consensus.core import logs
from consensus.core.clock import SystemClock
from consensus.core.errors import ClusterError, Refused
from gateway.config import Config, Size
from gateway.folders import Folders
from gateway.identities import Identity

log = logging.getLogger("staddle.roles")

EX_CONFIG = 78
"""sysexits.h: something is set up wrongly; starting again would not help."""

LISTEN_BACKLOG = 1024


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

    @property
    def name(self) -> str:
        return self.role if self.role == "meta" else f"{self.role}-{self.number}"


def launches(config: Config, folders: Folders, secret: bytes, root: Identity, host: str, port: int) -> list[Launch]:
    """The processes of this machine: one metadata member, a node for each data folder, the gateway workers."""
    def launch(role: Literal["meta", "node", "gateway"], number: int) -> Launch:
        return Launch(role=role, number=number, config=config, folders=str(folders.root), secret=secret.hex(), root=root,
                      host=host, port=port)

    return [launch("meta", 1), *(launch("node", number) for number in range(1, len(config.data) + 1)),
            *(launch("gateway", number) for number in range(1, config.gateway_workers + 1))]
