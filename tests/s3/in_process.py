"""A whole server in one thread: metadata, storage nodes and gateway in one event loop, over real sockets.

The same roles as `staddle serve` runs in processes, so what is tested here is the product, only quicker to start.
"""

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Self, TypeVar

from consensus.client import MetadataClient
from consensus.core.clock import SystemClock
from consensus.core.ids import NodeId
from consensus.server import MetaServer
from gateway.auth import Settings as AuthSettings
from gateway.bucket_log.recorder import BucketLogs
from gateway.http.app import build
from gateway.http.server import GatewayServer
from gateway.identities import Identity, IdentityStore
from gateway.ops import HANDLERS
from gateway.ops.context import Services, Settings
from storage_node.replicas import Policy, Replicas
from storage_node.server import NodeServer

SECRET = b"s" * 32
START_TIMEOUT_S = 30.0

T = TypeVar("T")


class InProcess:
    """Starts in a thread of its own; `endpoint` is where it listens."""

    def __init__(
        self, folder: Path, identities: list[Identity], *, settings: Settings, nodes: int = 1,
        domains: tuple[str, ...] = (), stock: bool = False,
    ) -> None:
        self._folder, self._identities, self._settings = folder, identities, settings
        self._node_count, self._domains, self._stock = nodes, domains, stock
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="staddle")
        self.port = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something in the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(START_TIMEOUT_S)

    def __enter__(self) -> Self:
        self._thread.start()
        self.run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.run(self._stop())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def _start(self) -> None:
        meta = self._folder / "meta"
        run = self._folder / "run"
        meta.mkdir()
        run.mkdir()
        address = f"unix:{run / 'meta.sock'}"
        self._meta = MetaServer(str(meta), address, SECRET)
        await self._meta.start()
        self._clients: list[MetadataClient] = []
        self._nodes: list[NodeServer] = []
        local: dict[NodeId, str] = {}
        for number in range(1, self._node_count + 1):
            data = self._folder / f"data{number}"
            data.mkdir()
            name = NodeId(f"n{number}")
            client = await self._client(address, str(meta), f"node {number}")
            node = NodeServer(
                data=str(data), node=name, address=f"unix:{run / f'{name}.sock'}", secret=SECRET, metadata=client
            )
            await node.start()
            self._nodes.append(node)
            local[name] = str(data / "chunks")
        self.metadata = await self._client(address, str(meta), "gateway")
        self.replicas = Replicas(self.metadata, SECRET, local=local, policy=Policy())
        await self.replicas.start()
        services = Services(
            metadata=self.metadata, replicas=self.replicas, clock=SystemClock(), settings=self._settings,
            identities=IdentityStore(self._identities),
        )

        self.bucket_logs = BucketLogs(services, self._folder / "bucket-logs" / "gateway-1", deliver_s=3600)
        await self.bucket_logs.start()

        async def ready() -> str:
            return "" if self.metadata.serving else "the metadata does not answer"

        application = build(
            services, HANDLERS, auth=AuthSettings(region=self._settings.region), ready=ready, domains=self._domains,
            website_domains=("s3-website.localhost",), website_hosts=("example.org",),
            bucket_logs=self.bucket_logs,
        )
        self._gateway = GatewayServer(application, stock=self._stock)
        await self._gateway.start()
        self.port = self._gateway.port

    async def _client(self, address: str, meta: str, owner: str) -> MetadataClient:
        client = MetadataClient(address, SECRET, meta, owner=owner)
        await client.start()
        self._clients.append(client)
        return client

    async def _stop(self) -> None:
        await self._gateway.stop()
        await self.bucket_logs.stop()
        await self.replicas.stop()
        for node in self._nodes:
            await node.stop()
        for client in self._clients:
            await client.stop()
        await self._meta.stop()
