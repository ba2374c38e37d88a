"""Chunks across nodes: written to all that should hold them, acknowledged at the quorum; read from the nearest good
copy.

Writes go to n nodes at once, n as many as the policy says (the bucket's, else the setting) and there are. At the quorum
the holders so far are given back; a late node announces its copy itself (settle.py). A node that fails or keeps the
quorum waiting is replaced by the next one in the order of placement (quorum.py, writing.py).

Reads prefer this host's folders, then the quickest of the other holders; when one takes long, the next is asked too
(hedging.py). Every byte is verified by whoever read it from a disk. A copy that is damaged, gone or unreachable is passed
over for the next; when none is left, the metadata is asked where copies are by now; and only then the error is raised:
before the first byte, or in the middle, but never in place of the right bytes.

A node that this process suspects (standing.py) is asked last, for writing and for reading, and is looked at beside the
requests until it answers again.
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
from storage_node.hedging import Hedges, first_good, patience_s
from storage_node.local import LocalReader
from storage_node.pacing import Ahead, paced
from storage_node.quorum import Plan, Quorum, to_one
from storage_node.standing import Standing
from storage_node.writing import ChunkWriter

if TYPE_CHECKING:                                 # a machine that is alone loads nothing of it
    from consensus.core.tls import Tls

log = logging.getLogger("staddle.replicas")

NODES_BELIEVED_S = 0.2
"""How long the list of nodes is believed without a further look. A node that is gone is noticed by its connection long
before; one that has just come raises the quorum, and a write that did not know of it is refused as not durable: then we
look again."""

NODES_STALE_S = 2.0
"""A list that is older is not used before another has come: one that is younger is, while we look beside the requests."""

NODE_ANSWERS_S = 2.0
"""Longer to say whether it can write, and a node is as good as gone."""

PROBE_S_MIN, PROBE_S_MAX = 0.1, 1.0
"""Between two looks at a node that is suspect."""

LOCAL_SHARE = 0.25
"""This host's folders are preferred until they take four times as long as another node."""


class NodeList(Protocol):
    """What this needs of consensus.client.MetadataClient."""

    async def nodes(self) -> Sequence[NodeInfo]: ...

    async def located(self, digest: Digest) -> tuple[Generation, tuple[NodeId, ...]] | None:
        """Where the live copies of a chunk are now."""

    @property
    def not_durable(self) -> int:
        """How many commits were refused for want of copies: our list of nodes was too old then."""


class Policy(NamedTuple):
    """As the machine counts: see `core.placement`."""

    copies: int = 3
    replication: str = "sync"     # sync | async | all


class _Counted(NamedTuple):
    """What a list of nodes means for a policy."""

    up: list[NodeInfo]            # that take chunks
    wanted: int
    quorum: int
    enough: bool
    only: Plan | None             # if there is only one place


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
        self._counted: dict[Policy, _Counted] = {}
        self._map_until = 0.0
        self._looked_at, self._looking = -NODES_STALE_S, False
        self._refused = 0
        self._standings: dict[NodeId, Standing] = {}
        self._probing: set[NodeId] = set()
        self._streams = 0
        self._hedges = Hedges()
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

    @property
    def policy(self) -> Policy:
        """Where a bucket has none of its own."""
        return self._policy

    # The map

    async def _plan(self, key: bytes, policy: Policy) -> Plan:
        """Raises Unavailable when fewer nodes are up than the quorum needs."""
        if not self._is_new(policy):
            few = len(self._map) < policy.copies
            if few or self._metadata.not_durable != self._refused or time.monotonic() - self._looked_at > NODES_STALE_S:
                await self._look()
            elif not self._looking:
                self._looking = True
                self.in_background(self._look_beside())
        counted = self._counted.get(policy) or self._count(policy)
        if not counted.enough:
            await self._look()                        # nothing is refused for a list that is old
            counted = self._count(policy)
            if not counted.enough:
                raise Unavailable(f"{len(counted.up)} of {len(self._map)} storage nodes take chunks, "
                                  f"{counted.quorum or 1} are needed")
        return counted.only or Plan(self._in_order(key, counted.up), counted.wanted, counted.quorum)

    def _is_new(self, policy: Policy) -> bool:
        """Whether the list of nodes may be used without a look. Another node raises the quorum as long as there are fewer than
        copies, and in a cluster one may come at any time."""
        return (time.monotonic() < self._map_until and self._metadata.not_durable == self._refused
                and (self._tls is None or len(self._map) >= policy.copies))

    async def _look(self) -> None:
        refused = self._metadata.not_durable
        nodes = list(await self._metadata.nodes())
        self._map, self._refused, self._looked_at = nodes, refused, time.monotonic()
        self._counted.clear()
        self._map_until = self._looked_at + NODES_BELIEVED_S

    async def _look_beside(self) -> None:
        try:
            await self._look()
        except ClusterError as error:
            log.info("the list of storage nodes is %.1f s old: %s", time.monotonic() - self._looked_at, error)
        finally:
            self._looking = False

    def _count(self, policy: Policy) -> "_Counted":
        wanted = copies_wanted(policy.copies, self._map)
        quorum = write_quorum(policy.replication, wanted)
        up = [node for node in self._map if node.state == "up"]
        counted = self._counted[policy] = _Counted(
            up, wanted, quorum, 0 < quorum <= len(up), Plan(up, wanted, quorum) if 0 < quorum <= len(up) == 1 else None)
        return counted

    def _in_order(self, key: bytes, nodes: list[NodeInfo]) -> list[NodeInfo]:
        """By placement, those that are suspect last."""
        now = asyncio.get_running_loop().time()
        good = [node for node in nodes if self.standing(node.node).may_write(now)]
        if len(good) == len(nodes):
            return ranked(key, nodes)
        doubtful = [node for node in nodes if node not in good]
        for node in doubtful:
            self._look_after(node.node)
        return ranked(key, good) + ranked(key, doubtful)

    def look_again(self) -> None:
        """The list of nodes has changed."""
        self._map_until, self._looked_at = 0.0, -NODES_STALE_S

    def standing(self, node: NodeId) -> Standing:
        """What we think of it."""
        standing = self._standings.get(node)
        if standing is None:
            standing = self._standings[node] = Standing()
        return standing

    def client(self, node: NodeInfo) -> NodeClient:
        client, address = self._clients.get(node.node), self._sockets.get(node.node, node.address)
        if client is None or client.address != address:
            if client is not None:
                client.close()
            client = self._clients[node.node] = NodeClient(address, self._secret, tls=self._tls,
                                                           standing=self.standing(node.node))
        return client

    async def _client(self, name: NodeId) -> NodeClient:
        """Raises Unavailable for a node that nobody knows."""
        for fresh in (False, True):
            if fresh or time.monotonic() - self._looked_at > NODES_STALE_S:
                await self._look()
            for node in self._map:
                if node.node == name:
                    return self.client(node)
        raise Unavailable(f"node {name} is not known")

    def _look_after(self, node: NodeId) -> None:
        if node not in self._probing:
            self._probing.add(node)
            self.in_background(self._probe(node))

    async def _probe(self, node: NodeId) -> None:
        """Until it is as good as others, or not there any more."""
        loop, standing, pause = asyncio.get_running_loop(), self.standing(node), PROBE_S_MIN
        try:
            while not (standing.may_write(loop.time()) and standing.may_read(loop.time())):
                await asyncio.sleep(pause)
                pause = min(pause * 2, PROBE_S_MAX)
                await (await self._client(node)).probe()
        except ClusterError as error:
            log.info("node %s is looked at no more: %s", node, error)
        finally:
            self._probing.discard(node)

    async def reach_quorum(self) -> None:
        """Whether a write could succeed now, as far as the nodes say. Raises NoSpace, Unavailable: with the reason in words
        for people who may not know more."""
        plan = await self._plan(b"", self._policy)
        asked = [asyncio.ensure_future(self._disk_of(node)) for node in plan.places]
        refusals: list[ClusterError] = []
        try:
            for answer in asyncio.as_completed(asked):
                refusal = await answer
                if refusal is not None:
                    refusals.append(refusal)
                elif sum(task.done() and task.result() is None for task in asked) >= plan.quorum:
                    return                            # the others may take their time
        finally:
            for task in asked:
                task.cancel()
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

    async def write(self, data: Buffer, digest: Digest, generation: Generation,
                    policy: Policy | None = None) -> tuple[Holder, ...]:
        """Store a chunk of 1 to SMALL_BYTES_MAX bytes whole. Returns the holders once they are enough for the quorum.

        Raises NoSpace, Unavailable."""
        if len(data) > SMALL_BYTES_MAX:
            writer = await self.open_writer(generation, policy)
            await writer.write(data)
            return await writer.finish(digest)
        policy = policy or self._policy
        counted = self._counted.get(policy)
        plan = counted.only if counted is not None and self._is_new(policy) else None    # no coroutine for what is known
        plan = plan or await self._plan(digest, policy)
        request = put_request(digest, generation, data, block_table(data))
        if len(plan.places) == 1:
            (node,) = plan.places
            return await to_one(node, self.client(node), request)
        return await Quorum(plan, self.client, request).run()

    async def open_writer(self, generation: Generation, policy: Policy | None = None, room: int = 0) -> ChunkWriter:
        """For a chunk of any size, piece by piece; `room` for as many bytes as it may become. Raises Unavailable."""
        policy = policy or self._policy
        # Its digest is not known yet, and the chunks of one upload share a generation: they are to be spread.
        self._streams += 1
        plan = await self._plan(generation.pack() + self._streams.to_bytes(8, "big"), policy)
        return ChunkWriter(self, plan, generation, policy, room)

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
        reading = _Reading(part, self._by_pace(part.nodes) if part.nodes else await self._everybody())
        fetch = partial(self._fetch, reading)
        async with contextlib.aclosing(paced(fetch, part.start, part.start + part.length, self._ahead)) as pieces:
            async for piece in pieces:
                yield piece

    def _by_pace(self, nodes: Sequence[NodeId]) -> list[NodeId]:
        """The quickest first, this host's preferred; equally quick ones in any order."""
        if len(nodes) == 1:
            return list(nodes)
        now, keys = asyncio.get_running_loop().time(), dict[NodeId, tuple[bool, float]]()
        for node in nodes:
            standing = self.standing(node)
            here = node in self._local
            doubtful = standing.reads.suspect(now) if here else not standing.may_read(now)
            if doubtful:
                self._look_after(node)
            keys[node] = doubtful, standing.reads.expected_s(now) * (LOCAL_SHARE if here else random.uniform(0.75, 1.25))
        return sorted(nodes, key=lambda node: keys[node])

    async def _everybody(self) -> list[NodeId]:
        """For a chunk that has lost all its copies: a node may still hold the bytes, from another upload."""
        await self._look()
        return self._by_pace([node.node for node in self._map])

    async def _fetch(self, reading: "_Reading", start: int, length: int) -> bytes:
        """One piece, from the first source that has it."""
        data = await self._from_sources(reading, start, length)
        if data is None and await self._moved(reading):
            data = await self._from_sources(reading, start, length)
        if data is not None:
            return data
        part, failures = reading.part, reading.failures
        if not failures:
            raise Unavailable(f"chunk {part.digest.hex()}: no node that holds it is known")
        if not part.nodes and all(isinstance(failure, NotHere) for failure in failures):
            raise Corrupt(f"chunk {part.digest.hex()}: every copy of it has been lost")
        raise combined(failures)

    async def _from_sources(self, reading: "_Reading", start: int, length: int) -> bytes | None:
        part, sources = reading.part, reading.sources

        def failed(node: NodeId, error: ClusterError) -> None:
            log.warning("chunk %s on node %s: %s", part.digest.hex(), node, error)
            reading.failures.append(error)
            if isinstance(error, Corrupt | NotHere) and node in part.nodes:
                self._report(node, part, error)

        if len(sources) > 1:
            now = asyncio.get_running_loop().time()
            return await first_good(
                sources, lambda node: self._timed(node, part, start, length),
                lambda node: patience_s(self.standing(node).reads.expected_s(now)), self._hedges, failed)
        for node in list(sources):
            try:
                return await self._fetch_from(node, part, start, length)
            except ClusterError as error:
                failed(node, error)
                sources.clear()
        return None

    async def _timed(self, node: NodeId, part: LocatedSlice, start: int, length: int) -> bytes:
        loop, pace = asyncio.get_running_loop(), self.standing(node).reads
        asked_at = loop.time()
        pace.asked(asked_at)
        try:
            data = await self._fetch_from(node, part, start, length)
        except asyncio.CancelledError:                # overtaken: it would have taken longer still
            pace.given_up()
            pace.took(max(loop.time() - asked_at, pace.median_s))
            raise
        except BaseException:
            pace.given_up()
            raise
        pace.answered(asked_at, loop.time())
        return data

    async def _moved(self, reading: "_Reading") -> bool:
        """Whether there are other copies than those that were known when the reading began. Raises Unavailable, Corrupt."""
        part = reading.part
        found = await self._metadata.located(part.digest)
        if found is None or (part.generation, set(part.nodes)) == (found[0], set(found[1])):
            return False
        generation, nodes = found
        reading.part = part._replace(generation=generation, nodes=nodes)
        reading.sources[:] = self._by_pace(nodes) if nodes else await self._everybody()
        return True

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
        client = self._clients.get(node) or await self._client(node)
        return await client.get(part.digest, part.generation, start, length)

    @staticmethod
    async def _from_another(reader: LocalReader, part: LocatedSlice, start: int, length: int) -> bytes | None:
        """The same bytes from another upload's copy in the same folder: by their name they are equal."""
        for other in reader.others(part.digest, part.generation.pack()):
            with contextlib.suppress(ClusterError):
                if start + length <= other.size:
                    return await reader.read(other, start, length)
        return None

    def _report(self, node: NodeId, part: LocatedSlice, error: Corrupt | NotHere) -> None:
        """Tell the node about its damaged or missing copy; nobody waits for that."""
        log.error("node %s: %s", node, error)

        async def report() -> None:
            with contextlib.suppress(ClusterError):
                if isinstance(error, NotHere):        # it may have given its copy back rightly since
                    found = await self._metadata.located(part.digest)
                    if found is None or found[0] != part.generation or node not in found[1]:
                        return
                client = self._clients.get(node) or await self._client(node)
                await client.report(part.digest, part.generation)

        self.in_background(report())

    def in_background(self, work: Awaitable[None]) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


class _Reading:
    """A slice that is being read: where from, and what went wrong."""

    __slots__ = ("failures", "part", "sources")

    def __init__(self, part: LocatedSlice, sources: list[NodeId]) -> None:
        self.part, self.sources = part, sources
        self.failures: list[ClusterError] = []
