"""Storage nodes on real sockets in one event loop, with the fake metadata."""

import asyncio
import contextlib
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from consensus.core.ids import Digest, Generation, NodeId, SessionId, digest
from consensus.core.model import Holder, LocatedSlice
from consensus.core.wire import WireClient
from storage_node.replicas import Policy, Replicas
from storage_node.server import NodeServer
from tests.unit.consensus.crash import Unsynced
from tests.unit.storage_node.fakes import FakeMetadata
from tests.unit.storage_node.stores import open_store

SECRET = b"s" * 32
GENERATION = Generation(SessionId(5 << 20), 3)


class Nodes:
    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count
        self.metadata = FakeMetadata(wanted=count)
        self.metadata.low[GENERATION.session] = 0
        self.servers: dict[str, NodeServer] = {}
        self.replicas = Replicas(self.metadata, SECRET)

    async def start(self) -> None:
        for number in range(1, self.count + 1):
            await self.start_node(f"n{number}")
        await self.replicas.start()

    async def start_node(self, name: str) -> None:
        store = open_store(self.folder / name / "chunks", Unsynced(), segment_bytes=1 << 20)
        server = NodeServer(data=str(self.folder / name), node=NodeId(name), address=f"unix:{self.folder}/{name}.sock",
                            secret=SECRET, metadata=self.metadata, store=store, settle_interval_s=3600, read_grace_s=0)
        await server.start()
        self.servers[name] = server

    async def stop_node(self, name: str) -> None:
        await self.servers.pop(name).stop()

    async def stop(self) -> None:
        await self.replicas.stop()
        for name in list(self.servers):
            await self.stop_node(name)

    def local(self, policy: Policy | None = None) -> Replicas:
        """A gateway on the nodes' host."""
        return Replicas(self.metadata, SECRET, policy=policy,
                        local={NodeId(name): f"{self.folder}/{name}/chunks" for name in self.servers})

    async def write(self, data: bytes, *, piece: int = 1 << 20,
                    generation: Generation = GENERATION) -> tuple[Holder, ...]:
        """As a stream."""
        writer = await self.replicas.open_writer(generation)
        for start in range(0, len(data), piece):
            await writer.write(data[start:start + piece])
        return await writer.finish(digest(data))

    async def wire(self, name: str) -> WireClient:
        client = WireClient(self.servers[name].address, SECRET)
        await client.connect()
        return client


def located(data: bytes, *nodes: str, start: int = 0, length: int | None = None,
            generation: Generation = GENERATION) -> LocatedSlice:
    return LocatedSlice(digest(data), start, len(data) - start if length is None else length, generation, len(data),
                        tuple(NodeId(node) for node in nodes))


def names(holders: tuple[Holder, ...]) -> set[str]:
    return {holder.node for holder in holders}


async def everything(replicas: Replicas, part: LocatedSlice) -> bytes:
    return b"".join([piece async for piece in replicas.read(part)])


async def eventually(condition: Callable[[], Awaitable[bool]], timeout_s: float = 8.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not await condition():
            await asyncio.sleep(0.005)


def with_nodes(count: int, body: Callable[[Nodes], Awaitable[None]]) -> None:
    async def main(folder: Path) -> None:
        nodes = Nodes(folder, count)
        await nodes.start()
        try:
            await body(nodes)
        finally:
            await nodes.stop()

    with tempfile.TemporaryDirectory() as folder, contextlib.closing(asyncio.new_event_loop()) as loop:
        loop.run_until_complete(main(Path(folder)))
        loop.run_until_complete(loop.shutdown_default_executor())


__all__ = ["GENERATION", "SECRET", "Digest", "Nodes", "eventually", "everything", "located", "names", "with_nodes"]
