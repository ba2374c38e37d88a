"""Three metadata members and their clients in one loop, over unix sockets. Members can be killed, started again and wiped."""

import asyncio
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from consensus.client import MetadataClient
from consensus.config import MetaConfig
from consensus.core.commands import CreateBucket
from consensus.core.ids import BucketId
from consensus.core.results import BucketCreated
from consensus.disk import Disk
from consensus.group.timing import Timing
from consensus.joining import ClusterSettings
from consensus.server import MetaServer
from tests.unit.consensus.crash import Unsynced
from tests.unit.consensus.members import QUIET, SECRET

TIMING = Timing(heartbeat_s=0.03, election_min_s=0.15, election_max_s=0.3)
"""Quick: everything is in one process."""

PATIENCE_S = 20.0
"""Nothing takes so long, on however busy a machine."""

NAMES = ("m1", "m2", "m3")


class Trio:
    """Members by name; `begins`: which of them may begin the cluster."""

    def __init__(self, folder: Path, *, config: MetaConfig = QUIET, begins: tuple[str, ...] = ("m1",),
                 names: tuple[str, ...] = NAMES, make_disk: Callable[[], Disk] = Unsynced) -> None:
        self.folder, self.config, self.begins, self.names, self.make_disk = folder, config, begins, names, make_disk
        self.servers: dict[str, MetaServer] = {}
        self.clients: list[MetadataClient] = []
        self.failures: dict[str, list[BaseException]] = {name: [] for name in names}
        self.restarts: list[str] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._starting: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()

    def meta(self, name: str) -> Path:
        return self.folder / name / "meta"

    def address(self, name: str) -> str:
        return f"unix:{self.folder / name / 'm.sock'}"

    def make(self, name: str, peers: tuple[str, ...] | None = None, **options: Any) -> MetaServer:
        self.meta(name).mkdir(parents=True, exist_ok=True)
        if peers is None:
            peers = tuple(self.address(other) for other in self.names if other != name)
        settings = ClusterSettings(address=self.address(name), peers=peers, begins=name in self.begins, timing=TIMING)
        return MetaServer(
            str(self.meta(name)), self.address(name), SECRET, name=name, cluster=settings, disk=self.make_disk(),
            config=self.config, copies=1, on_failure=self.failures[name].append,
            on_restart=lambda: self._restart_soon(name), **options)

    async def serve(self, *names: str) -> None:
        """All named (or all) at once. They serve on return."""
        async def one(name: str) -> None:
            while True:
                self.servers[name] = self.make(name)
                self._starting[name] = starting = asyncio.create_task(self.servers[name].start())
                try:
                    await starting
                    return
                except asyncio.CancelledError:
                    if name not in self._again:
                        starting.cancel()
                        raise
                self._again.discard(name)                # it has fetched a snapshot before it served
                self.restarts.append(name)

        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*(one(name) for name in names or self.names))

    def _restart_soon(self, name: str) -> None:
        """As the supervisor does when a member has fetched a snapshot."""
        if not self._starting[name].done():
            self._again.add(name)
            self._starting[name].cancel()
            return

        async def restart() -> None:
            await self.kill(name)
            await self.serve(name)
            self.restarts.append(name)

        task = asyncio.get_running_loop().create_task(restart())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def client(self, name: str | None, *, local: bool = True, **options: Any) -> MetadataClient:
        """With a member of that name on its host; None: on a host without one."""
        others = tuple(self.address(other) for other in self.names if other != name)
        client = MetadataClient(None if name is None else self.address(name), SECRET,
                                str(self.meta(name)) if local and name is not None else None, owner="test", others=others,
                                **options)
        self.clients.append(client)
        await client.start()
        return client

    @property
    def leader(self) -> str:
        (name,) = (name for name, server in self.servers.items() if server.leads)
        return name

    async def led(self) -> str:
        """The leader, once there is one that all living members know, and all living are voters."""
        until = time.monotonic() + PATIENCE_S
        while True:
            assert time.monotonic() < until, [(server.leads, server._raft) for server in self.servers.values()]
            told = {server._raft.leader for server in self.servers.values() if server._raft is not None}
            if len(told) == 1 and (name := next(iter(told))) is not None and name in self.servers and self.servers[name].leads:
                members = self.servers[name]._raft.members  # type: ignore[union-attr]
                if all(member.voter for member in members if member.name in self.servers) and len(members) >= len(self.servers):
                    return name
            await asyncio.sleep(0.01)

    async def kill(self, name: str) -> None:
        """As kill -9 would: nothing is written, said or closed in order."""
        server = self.servers.pop(name)
        await server._wire.stop()
        assert server._membership is not None
        await server._membership.forwarder.stop()
        if server._leading is not None:
            await server._leading.stop()
        if hasattr(server, "housekeeper"):
            await server.housekeeper.stop()
        raft = server._raft
        if raft is not None:
            raft._loop = None
            await raft.close()
        if server._lock >= 0:
            os.close(server._lock)
            server._lock = -1
        await asyncio.sleep(0)                      # the sockets close

    async def stop(self, name: str) -> None:
        await self.servers.pop(name).stop()

    def wipe(self, name: str) -> None:
        shutil.rmtree(self.meta(name))

    async def close(self) -> None:
        for client in self.clients:
            await client.stop()
        for name in list(self.servers):
            await self.stop(name)


async def bucket(client: MetadataClient, name: str) -> BucketId:
    created = await client.commit(CreateBucket(name=name, account="a", owner="o"))
    assert isinstance(created, BucketCreated)
    return created.bucket
