"""A store checked by its own fsck, for tests: while its server runs, and while it doesn't."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from consensus.client import MetadataClient
from consensus.core.ids import NodeId
from gateway import offline
from gateway.config import Config
from gateway.folders import Folders, chunks_of, cluster_secret
from storage_node.checks import fsck
from storage_node.checks.findings import Report
from storage_node.checks.fsck_nodes import ServingNode
from storage_node.client import NodeClient
from tests.servers import StaddleProcess

Value = TypeVar("Value")


def config_of(server: StaddleProcess) -> Config:
    return Config(data=tuple(server.data), read_grace_seconds=0)


@asynccontextmanager
async def inside(server: StaddleProcess) -> AsyncIterator[tuple[MetadataClient, dict[NodeId, NodeClient]]]:
    """The metadata and the storage nodes of a server that runs, as its gateways see them."""
    folders = Folders(server.data[0])
    secret = cluster_secret(folders.root)
    metadata = MetadataClient(folders.meta_address, secret, str(folders.meta), owner="test")
    await metadata.start()
    clients = {info.node: NodeClient(info.address, secret) for info in await metadata.nodes()}
    try:
        yield metadata, clients
    finally:
        for client in clients.values():
            client.close()
        await metadata.stop()


def with_inside(server: StaddleProcess, work: Callable[[MetadataClient, dict[NodeId, NodeClient]], Awaitable[Value]]) -> Value:
    async def main() -> Value:
        async with inside(server) as (metadata, clients):
            return await work(metadata, clients)

    return asyncio.run(main())


def online(server: StaddleProcess, **options: Any) -> Report:
    """fsck beside the server."""
    async def check(metadata: MetadataClient, clients: dict[NodeId, NodeClient]) -> Report:
        folders = {(data / "node-id").read_text().strip(): str(chunks_of(data)) for data in server.data}
        nodes = [ServingNode(node, client, folders.get(node)) for node, client in clients.items()]
        return await fsck.run(metadata, nodes, **options)

    return with_inside(server, check)


def offline_check(server: StaddleProcess, **options: Any) -> Report:
    """fsck while the server is stopped."""
    return asyncio.run(offline.check(config_of(server), **options))
