"""Chunks across nodes: written to all that should hold them, acknowledged at the quorum; read from the nearest good
copy.

Writes go to n nodes at once, n as many as the setting says and there are. At the quorum the holders so far are given
back; a late node announces its copy itself (settle.py). A node that fails is replaced by the next one in the order of
placement, as long as nothing but the request has to be sent again; a stream goes on without it while the quorum
holds.

Reads prefer this host's folders, then the other holders. Every byte is verified by whoever read it from a disk. A
copy that is damaged, gone or unreachable is passed over for the next; when none is left, the error is raised: before
the first byte, or in the middle, but never in place of the right bytes.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

from consensus.core.errors import ClusterError, Corrupt, NoSpace, Unavailable
from consensus.core.ids import Digest, Generation, NodeId
from consensus.core.model import Holder, LocatedSlice, NodeInfo
from consensus.core.placement import copies_wanted, ranked, write_quorum
from storage_node.chunk import SMALL_BYTES_MAX, Buffer, block_table
from storage_node.client import NodeClient, put_request
from storage_node.errors import NotHere, combined
from storage_node.local import LocalReader
from storage_node.pacing import Ahead, paced
from storage_node.quorum import Plan, Quorum, to_one
from storage_node.writing import ChunkWriter

if TYPE_CHECKING:                                 # a machine that is alone loads nothing of it
    from consensus.core.tls import Tls

log = logging.getLogger("staddle.replicas")

NODES_BELIEVED_S = 0.2
"""How long the list of nodes is believed: asking costs some 30 µs. A node that is gone is noticed by its connection long
before; one that has just come raises the quorum, and a write that did not know of it is refused as not durable: then we
look again."""


NODE_ANSWERS_S = 2.0
"""Longer to say whether it can write, and a node is as good as gone."""


class NodeList(Protocol):
    """What this needs of consensus.client.MetadataClient."""

    async def nodes(self) -> Sequence[NodeInfo]: ...

    @property
    def not_durable(self) -> int:
        """How many commits were refused for want of copies: our list of nodes was too old then."""


class Policy(NamedTuple):
    """As the machine counts: see `core.placement`."""

    copies: int = 3
    replication: str = "sync"     # sync | async | all


class Replicas:
    """One per process and event loop. `local` names the `chunks` folders of nodes on this host."""

    def __init__(self, metadata: NodeList, secret: bytes, *, local: Mapping[NodeId, str] | None = None,
                 policy: Policy | None = None, tls: "Tls | None" = None,
                 sockets: Mapping[NodeId, str] | None = None) -> None:
        """`sockets` are the addresses (unix:) of this host's nodes for its own processes; others are reached with `tls`."""
        self._metadata, self._secret, self._policy = metadata, secret, policy or Policy()
        self._tls, self._sockets = tls, dict(sockets or {})
        self._local = {node: LocalReader(folder) for node, folder in (local or {}).items()}
        self._clients: dict[NodeId, NodeClient] = {}
        self._map: list[NodeInfo] = []
        self._map_until = 0.0
        self._refused = 0
        self._ahead = Ahead()
        self._background: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Nothing to do: connections are made when they are needed. A role has a start."""

    async def stop(self) -> None:
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        for client in self._clients.values():
            client.close()
        self._clients.clear()
        for reader in self._local.values():
            reader.close()

    # The map

    async def _plan(self, key: bytes) -> Plan:
        """Raises Unavailable when fewer nodes are up than the quorum needs."""
        now = time.monotonic()
        if now >= self._map_until or self._metadata.not_durable != self._refused:
            await self._look(now)
        nodes, wanted, quorum, up = self._counted()
        if not quorum or len(up) < quorum:
            await self._look(now)                     # nothing is refused for a list that is old
            nodes, wanted, quorum, up = self._counted()
        if not quorum or len(up) < quorum:
            raise Unavailable(f"{len(up)} of {len(nodes)} storage nodes take chunks, {quorum or 1} are needed")
        return Plan(up if len(up) == 1 else ranked(key, up), wanted, quorum)

    async def _look(self, now: float) -> None:
        self._refused = self._metadata.not_durable
        self._map = list(await self._metadata.nodes())
        self._map_until = now + NODES_BELIEVED_S

    def _counted(self) -> tuple[list[NodeInfo], int, int, list[NodeInfo]]:
        """The nodes; how many copies are wanted, and how many at once; the nodes that take chunks."""
        nodes = self._map
        wanted = copies_wanted(self._policy.copies, nodes)
        return nodes, wanted, write_quorum(self._policy.replication, wanted), [node for node in nodes if node.state == "up"]

    def look_again(self) -> None:
        """The list of nodes has changed."""
        self._map_until = 0.0

    def client(self, node: NodeInfo) -> NodeClient:
        client, address = self._clients.get(node.node), self._sockets.get(node.node, node.address)
        if client is None or client.address != address:
            if client is not None:
                client.close()
            client = self._clients[node.node] = NodeClient(address, self._secret, tls=self._tls)
        return client

    async def reach_quorum(self) -> None:
        """Whether a write could succeed now, as far as the nodes say. Raises NoSpace, Unavailable: with the reason in words
        for people who may not know more."""
        plan = await self._plan(b"")
        asked = await asyncio.gather(*[self._disk_of(node) for node in plan.places])
        refusals = [refusal for refusal in asked if refusal is not None]
        if len(asked) - len(refusals) < plan.quorum:
            raise combined(refusals)

    async def _disk_of(self, node: NodeInfo) -> ClusterError | None:
        """Why this node takes no chunks."""
        try:
            async with asyncio.timeout(NODE_ANSWERS_S):
                state = await self.client(node).disk()
        except (ClusterError, TimeoutError):
            return Unavailable(f"storage node {node.node} does not answer")
        if state.writable:
            return None
        kind = NoSpace if state.reason == "full" else Unavailable
        return kind(f"storage node {node.node} is {state.reason}")

    # Writing

    async def write(self, data: Buffer, digest: Digest, generation: Generation) -> tuple[Holder, ...]:
        """Store a chunk of 1 to SMALL_BYTES_MAX bytes whole. Returns the holders once they are enough for the quorum.

        Raises NoSpace, Unavailable."""
        if len(data) > SMALL_BYTES_MAX:
            writer = await self.open_writer(generation)
            await writer.write(data)
            return await writer.finish(digest)
        plan = await self._plan(digest)
        request = put_request(digest, generation, data, block_table(data))
        if plan.copies == 1:
            return await to_one(plan.places, self.client, request)
        return await Quorum(plan, self.client, request).run()

    async def open_writer(self, generation: Generation) -> ChunkWriter:
        """For a chunk of any size, piece by piece. Raises Unavailable."""
        plan = await self._plan(generation.pack())
        return ChunkWriter(self, plan, generation)

    # Reading

    def read_now(self, part: LocatedSlice) -> bytes | None:
        """Verified bytes from a folder on this host, if that takes no waiting; else None, and `read` finds out why."""
        local = self._local
        for node in part.nodes:
            reader = local.get(node)
            if reader is not None:
                try:
                    data = reader.read_now(part.digest, part.generation.pack(), part.start, part.length)
                except Corrupt as error:
                    self._report(node, part, error)
                    return None
                return data if data is not None and len(data) == part.length else None
        return None

    async def read(self, part: LocatedSlice) -> AsyncGenerator[bytes]:
        """The slice in verified pieces of at most 1 MiB, the next one on its way while a quick taker uses one.

        Raises Corrupt (every copy is damaged or gone), Unavailable; before the first piece or in the middle."""
        sources = self._sources(part) or await self._everybody()
        fetch = partial(self._fetch, part, sources)
        async with contextlib.aclosing(paced(fetch, part.start, part.start + part.length, self._ahead)) as pieces:
            async for piece in pieces:
                yield piece

    def _sources(self, part: LocatedSlice) -> list[NodeId]:
        """This host's nodes first, the others in any order."""
        here = [node for node in part.nodes if node in self._local]
        there = [node for node in part.nodes if node not in self._local]
        random.shuffle(there)
        return here + there

    async def _everybody(self) -> list[NodeId]:
        """For a chunk that has lost all its copies: a node may still hold the bytes, from another upload."""
        nodes = [node.node for node in await self._metadata.nodes()]
        return [node for node in nodes if node in self._local] + [node for node in nodes if node not in self._local]

    async def _fetch(self, part: LocatedSlice, sources: list[NodeId], start: int, length: int) -> bytes:
        """One piece, from the first of `sources` that has it. One that fails is dropped from the list."""
        failures: list[ClusterError] = []
        while sources:
            node = sources[0]
            try:
                return await self._fetch_from(node, part, start, length)
            except ClusterError as error:
                log.warning("chunk %s on node %s: %s", part.digest.hex(), node, error)
                failures.append(error)
                if isinstance(error, Corrupt | NotHere) and node in part.nodes:
                    self._report(node, part, error)
                if sources and sources[0] == node:
                    del sources[0]
        if not failures:
            raise Unavailable(f"chunk {part.digest.hex()}: no node that holds it is known")
        if not part.nodes and all(isinstance(failure, NotHere) for failure in failures):
            raise Corrupt(f"chunk {part.digest.hex()}: every copy of it has been lost")
        raise combined(failures)

    async def _fetch_from(self, node: NodeId, part: LocatedSlice, start: int, length: int) -> bytes:
        reader = self._local.get(node)
        if reader is not None:
            try:
                located = reader.locate(part.digest, part.generation.pack())
                if start + length > located.size:
                    raise Corrupt(f"chunk {part.digest.hex()} has {located.size} bytes instead of {part.chunk_size}")
                return await reader.read(located, start, length)
            except (Corrupt, NotHere) as error:
                data = await self._from_another(reader, part, start, length)
                if data is None:
                    raise
                self._report(node, part, error)
                return data
            except Unavailable as error:
                log.info("node %s: not readable from here, asking it: %s", node, error)
        client = self._clients.get(node) or self.client(await self._node(node))
        return await client.get(part.digest, part.generation, start, length)

    @staticmethod
    async def _from_another(reader: LocalReader, part: LocatedSlice, start: int, length: int) -> bytes | None:
        """The same bytes from another upload's copy in the same folder: by their name they are equal."""
        for other in reader.others(part.digest, part.generation.pack()):
            with contextlib.suppress(ClusterError):
                if start + length <= other.size:
                    return await reader.read(other, start, length)
        return None

    async def _node(self, name: NodeId) -> NodeInfo:
        for node in await self._metadata.nodes():
            if node.node == name:
                return node
        raise Unavailable(f"node {name} is not known")

    def _report(self, node: NodeId, part: LocatedSlice, error: Corrupt | NotHere) -> None:
        """Tell the node about its damaged or missing copy; nobody waits for that."""
        log.error("node %s: %s", node, error)

        async def report() -> None:
            with contextlib.suppress(ClusterError):
                client = self._clients.get(node) or self.client(await self._node(node))
                await client.report(part.digest, part.generation)

        self.in_background(report())

    def in_background(self, work: Awaitable[None]) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
