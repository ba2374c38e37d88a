"""Nodes with the real metadata: what a commit lists stays, what nothing can list any more goes, through restarts."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from consensus.client import MetadataClient
from consensus.core.commands import CreateBucket, DeleteVersion, Drain, NewChunk, NewContent, PutVersion
from consensus.core.ids import BucketId, Digest, Generation, NodeId, VersionId, digest
from consensus.core.model import Attributes, Holder, Slice
from consensus.core.results import BucketCreated, Committed, Deleted
from consensus.server import MetaServer
from storage_node.chunk import SMALL_BYTES_MAX
from storage_node.replicas import Replicas
from storage_node.server import NodeServer
from tests.unit.consensus.crash import Unsynced
from tests.unit.storage_node.cluster import SECRET, eventually, everything
from tests.unit.storage_node.stores import open_store


class Machine:
    """One host: a metadata member, nodes, and a gateway's clients, in one loop."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count
        self.address = f"unix:{folder}/meta.sock"
        self.nodes: dict[str, NodeServer] = {}
        self.node_clients: dict[str, MetadataClient] = {}

    async def start(self) -> None:
        (self.folder / "meta").mkdir()
        self.meta = MetaServer(str(self.folder / "meta"), self.address, SECRET)
        await self.meta.start()
        for number in range(1, self.count + 1):
            await self.start_node(f"n{number}")
        self.metadata = await self.client("gateway")
        self.replicas = Replicas(self.metadata, SECRET)
        await self.replicas.start()
        created = await self.metadata.commit(CreateBucket(name="bucket", account="1", owner="1"))
        assert isinstance(created, BucketCreated)
        self.bucket: BucketId = created.bucket

    async def client(self, owner: str) -> MetadataClient:
        client = MetadataClient(self.address, SECRET, str(self.folder / "meta"), owner=owner)
        await client.start()
        return client

    async def start_node(self, name: str) -> None:
        client = await self.client(name)
        store = open_store(self.folder / name / "chunks", Unsynced(), segment_bytes=1 << 20)
        node = NodeServer(data=str(self.folder / name), node=NodeId(name), address=f"unix:{self.folder}/{name}.sock",
                          secret=SECRET, metadata=client, store=store, settle_interval_s=0.02, read_grace_s=0)
        await node.start()
        self.nodes[name], self.node_clients[name] = node, client

    async def stop_node(self, name: str) -> None:
        await self.nodes.pop(name).stop()
        await self.node_clients.pop(name).stop()

    async def stop(self) -> None:
        await self.replicas.stop()
        for name in list(self.nodes):
            await self.stop_node(name)
        await self.metadata.stop()
        await self.meta.stop()

    async def upload(self, data: bytes) -> tuple[Generation, tuple[Holder, ...]]:
        ticket = await self.metadata.reserve()
        if len(data) <= SMALL_BYTES_MAX:
            return ticket, await self.replicas.write(data, digest(data), ticket)
        writer = await self.replicas.open_writer(ticket)
        await writer.write(data)
        return ticket, await writer.finish(digest(data))

    async def put(self, key: str, data: bytes) -> None:
        ticket, holders = await self.upload(data)
        content = NewContent(size=len(data), etag="e", slices=(Slice(digest(data), 0, len(data)),),
                             chunks=(NewChunk(digest=digest(data), size=len(data), holders=holders),))
        result = await self.metadata.commit(PutVersion(bucket=self.bucket, key=key, version_id=VersionId("v"),
                                                       attributes=Attributes(), owner="1", content=content), ticket)
        assert isinstance(result, Committed), result

    async def delete(self, key: str) -> None:
        assert isinstance(await self.metadata.commit(DeleteVersion(bucket=self.bucket, key=key)), Deleted)

    async def get(self, key: str) -> bytes:
        bucket, version, slices = await self.metadata.opened("bucket", key)
        assert bucket is not None
        assert version is not None
        return b"".join([await everything(self.replicas, part) for part in slices])

    async def copies(self, name: str) -> list[Digest]:
        return [copy.digest for copy in await self.nodes[name].store.inventory(None, 1000)]

    async def holds(self, name: str, *bodies: bytes) -> None:
        """Wait until the node has exactly these, each once, all settled."""
        wanted = sorted(digest(data) for data in bodies)

        async def so() -> bool:
            # The mark passes with the next command, whatever it is.
            await self.metadata.commit(Drain(limit=1))
            copies = await self.nodes[name].store.inventory(None, 1000)
            return [copy.digest for copy in copies] == wanted and all(copy.state == 1 for copy in copies)

        await eventually(so)


def run(tmp_path: Path, count: int, body: Callable[[Machine], Awaitable[None]]) -> None:
    async def main() -> None:
        machine = Machine(tmp_path, count)
        await machine.start()
        try:
            await body(machine)
        finally:
            await machine.stop()

    asyncio.run(main())


@pytest.mark.parametrize("size", [5000, SMALL_BYTES_MAX + 5000])
def test_equal_objects_take_the_space_of_one_and_the_last_delete_frees_it(tmp_path: Path, size: int) -> None:
    async def body(machine: Machine) -> None:
        data, other = os.urandom(size), os.urandom(size)
        await machine.put("other", other)
        for key in ("a", "b", "c"):
            await machine.put(key, data)
        await machine.holds("n1", data, other)
        await machine.delete("a")
        await machine.delete("b")
        await machine.holds("n1", data, other)
        assert await machine.get("c") == data
        await machine.put("c", other)
        await machine.holds("n1", other)
        assert await machine.get("c") == await machine.get("other") == other

    run(tmp_path, 1, body)


@pytest.mark.parametrize("size", [5000, SMALL_BYTES_MAX + 5000])
def test_an_upload_that_is_given_up_goes(tmp_path: Path, size: int) -> None:
    async def body(machine: Machine) -> None:
        data, abandoned = os.urandom(size), os.urandom(size)
        ticket, _ = await machine.upload(abandoned)
        await machine.put("a", data)
        await asyncio.sleep(0.2)                      # rounds pass; nothing may happen to either
        assert set(await machine.copies("n1")) == {digest(data), digest(abandoned)}
        machine.metadata.release(ticket)
        machine.nodes["n1"].settler._clock = _Later()
        await machine.holds("n1", data)

    run(tmp_path, 1, body)


def test_late_copies_are_listed_in_the_end(tmp_path: Path) -> None:
    async def body(machine: Machine) -> None:
        bodies = [os.urandom(5000 + number) for number in range(20)]
        await asyncio.gather(*(machine.put(f"{number}", data) for number, data in enumerate(bodies)))
        for name in machine.nodes:
            await machine.holds(name, *bodies)
        for number, data in enumerate(bodies):
            _, _, [part] = await machine.metadata.opened("bucket", f"{number}")
            assert set(part.nodes) == {"n1", "n2", "n3"}
            assert await machine.get(f"{number}") == data

    run(tmp_path, 3, body)


def test_a_node_that_was_away_catches_up_with_what_it_holds(tmp_path: Path) -> None:
    async def body(machine: Machine) -> None:
        first, second = os.urandom(5000), os.urandom(5001)
        await machine.put("first", first)
        await machine.holds("n3", first)
        await machine.stop_node("n3")
        await machine.put("second", second)
        await machine.delete("first")
        await machine.start_node("n3")
        await machine.holds("n3")
        assert await machine.get("second") == second

    run(tmp_path, 3, body)


class _Later:
    """A clock a minute ahead, so that what waits for its next question has waited."""

    def now_ms(self) -> int:
        import time

        return time.time_ns() // 1_000_000 + 60_000

    def monotonic(self) -> float:
        return 0.0
