"""A metadata member and its clients in one loop, for tests. The member can be killed."""

import asyncio
import os
from pathlib import Path
from typing import Any

from consensus.client import MetadataClient
from consensus.config import MetaConfig
from consensus.core.commands import NewContent, PutVersion
from consensus.core.ids import BucketId, VersionId
from consensus.core.model import Attributes
from consensus.disk import Disk
from consensus.server import MetaServer
from tests.unit.consensus.crash import Unsynced

SECRET = b"s" * 32
QUIET = MetaConfig(housekeeping_s=3600.0)
"""Housekeeping when the test says so."""


class Place:
    """A folder with a member that comes and goes, and clients of it."""

    def __init__(self, folder: Path, *, disk: Disk | None = None, config: MetaConfig = QUIET) -> None:
        self.meta = folder / "meta"
        self.meta.mkdir(parents=True, exist_ok=True)
        self.address = f"unix:{folder / 'm.sock'}"
        self.disk, self.config = disk or Unsynced(), config
        self.failures: list[BaseException] = []
        self.server: MetaServer | None = None
        self.clients: list[MetadataClient] = []

    async def serve(self) -> MetaServer:
        self.server = MetaServer(str(self.meta), self.address, SECRET, disk=self.disk, config=self.config, copies=1,
                                 on_failure=self.failures.append)
        await self.server.start()
        return self.server

    async def client(self, *, local: bool = True, **options: Any) -> MetadataClient:
        client = MetadataClient(self.address, SECRET, str(self.meta) if local else None, owner="test", **options)
        self.clients.append(client)
        await client.start()
        return client

    async def kill(self) -> None:
        """As kill -9 would: nothing is written, said or closed in order."""
        server, self.server = self.server, None
        assert server is not None
        await server._wire.stop()
        if hasattr(server, "housekeeper"):
            await server.housekeeper.stop()
        if server._raft is not None:
            server._raft._loop = None
        if server._lock >= 0:
            os.close(server._lock)
            server._lock = -1
        await asyncio.sleep(0)                      # the sockets close

    async def close(self) -> None:
        for client in self.clients:
            await client.stop()
        if self.server is not None:
            await self.server.stop()


def put(bucket: BucketId, key: str, etag: str = "e") -> PutVersion:
    """An empty object."""
    return PutVersion(bucket=bucket, key=key, version_id=VersionId(""), attributes=Attributes(), owner="o",
                      content=NewContent(size=0, etag=etag))
