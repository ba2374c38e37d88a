"""A chunk of any size on its way to its nodes, piece by piece, with bounded memory.

Pieces are cut into blocks; each block's CRC is computed once and travels with the chunk. Up to SMALL_BYTES_MAX they are
kept, for a chunk that ends there goes whole; beyond, every node gets a stream. A node may lag by WINDOW_BYTES, and all
windows look at the same blocks, so a stream holds at most so much.

What becomes of a node that fails or lags behind, so that nobody waits for the slowest disk:

* as long as it has taken nothing, all that it was sent is still in the window, and the next node in the order of
  placement gets it in its place;
* later, the stream goes on without it. If the others are enough for the quorum, it gets the chunk by repair;
* if they are not, but there are other nodes, the stream goes on as well: once the chunk is durable on one node, it is
  copied from there to as many others as the quorum lacks. So no chunk is ever held in memory for a node that may fail.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from awscrt.checksums import crc32c

from consensus.core.errors import ClusterError, Unavailable
from consensus.core.ids import Digest, Generation
from consensus.core.model import Holder, NodeInfo
from storage_node import protocol
from storage_node.chunk import BLOCK_BYTES, SMALL_BYTES_MAX, Buffer, pack_table
from storage_node.client import Upload
from storage_node.errors import combined
from storage_node.local import PIECE_BYTES

if TYPE_CHECKING:
    from storage_node.quorum import Plan
    from storage_node.replicas import Policy, Replicas

log = logging.getLogger("staddle.replicas")

LAG_S = 0.5
"""How long a stream waits, all in all, for nodes that lag behind the quorum."""

LAG_SHARE = 1.0
"""And this part of the time that it takes without: a node that is left behind gets all of the chunk again by repair, which costs
more than waiting for one that is not even half as fast."""

LAG_SUSPECT = 0.1
"""For a node that is suspect, this part of both."""

OPEN_S = 0.25
"""How long the first blocks wait for a node that is being connected to, when the quorum is there."""

STALL_S = 10.0
"""Without any progress of a node that the quorum needs: its disk, its process or the network stands still."""

STALL_S_OTHERS = 2.0
"""The same where other nodes could take its place."""

FINISH_S_OTHERS = 5.0
"""How long the quorum waits for a node that makes a chunk durable, when another could copy it."""

HELD_BYTES_MAX = protocol.WINDOW_BYTES
"""Of a stream's beginning, kept until all its nodes have taken something. No node is sent more before it has."""

COPY_BYTES_PER_S_MIN = 4 << 20
"""A copy from node to node that is slower than this is given up, STALL_S allowed for its beginning and end."""


class _Target(NamedTuple):
    node: NodeInfo
    upload: Upload


class ChunkWriter:
    """Used by one task: each call is awaited before the next. Ends with `finish` or `abort`."""

    def __init__(self, replicas: "Replicas", plan: "Plan", generation: Generation, policy: "Policy", room: int = 0) -> None:
        self._replicas, self._plan, self._generation, self._policy = replicas, plan, generation, policy
        self._chunk_room = room
        self._partial = bytearray()
        self._held: list[Buffer] = []                 # whole blocks that may have to be sent (again)
        self._targets: list[_Target] = []
        self._spare: Iterator[NodeInfo] = iter(plan.places)
        self._spares = len(plan.places)               # how many it has left
        self._failures: list[ClusterError] = []
        self._streaming, self._holding = False, True
        self._began_at = self._waited_s = 0.0
        self._crcs: list[int] = []
        self._loop = asyncio.get_running_loop()
        self.size = 0

    async def write(self, data: Buffer) -> None:
        """Append. The buffer may be used again once this returns. Waits while the nodes are too far behind.

        Raises NoSpace, Unavailable; the writer is finished then."""
        view = memoryview(data)
        self.size += len(view)
        if self._partial:
            missing = BLOCK_BYTES - len(self._partial)
            self._partial += view[:missing]
            view = view[missing:]
            if len(self._partial) < BLOCK_BYTES:
                return
            block, self._partial = bytes(self._partial), bytearray()
            await self._add(block)
        whole = len(view) // BLOCK_BYTES * BLOCK_BYTES
        for start in range(0, whole, BLOCK_BYTES):
            # Blocks wait to be sent: nobody may change them meanwhile, and each is let go by itself.
            await self._add(bytes(view[start:start + BLOCK_BYTES]))
        self._partial += view[whole:]

    async def _add(self, block: Buffer) -> None:
        self._crcs.append(crc32c(block))
        if self._streaming:
            await self._send(block)
            return
        self._held.append(block)
        if self.size > SMALL_BYTES_MAX:
            await self._begin()

    async def finish(self, digest: Digest) -> tuple[Holder, ...]:
        """The holders, once they are enough for the quorum. Raises NoSpace, Unavailable."""
        assert self.size, "an empty chunk has no name worth storing"
        if not self._streaming and self.size <= SMALL_BYTES_MAX:
            data = b"".join((*self._held, self._partial))
            self._held.clear()
            return await self._replicas.write(data, digest, self._generation, self._policy)
        if self._partial:
            block, self._partial = bytes(self._partial), bytearray()
            await self._add(block)
        if not self._streaming:
            await self._begin()
        return await self._collect(digest, pack_table(self._crcs))

    async def abort(self) -> None:
        """Forget it. Never raises."""
        for target in self._targets:
            target.upload.abort()
        self._targets.clear()
        self._held.clear()

    # Opening

    async def _begin(self) -> None:
        """Open the streams and send what was held."""
        self._streaming = True
        self._began_at = self._loop.time()
        blocks, self._held = self._held, []
        await self._open(self._plan.copies)
        for block in blocks:
            await self._send(block)

    async def _open(self, wanted: int) -> None:
        """To as many nodes, if there are; the quorum does not wait long for the others. Raises if it can't be had."""
        opening: dict[asyncio.Future[Upload], NodeInfo] = {}
        until = self._loop.time() + OPEN_S
        try:
            while True:
                while len(self._targets) + len(opening) < wanted and (node := self._next()) is not None:
                    opening[asyncio.ensure_future(self._replicas.client(node).upload(self._generation, self._chunk_room))] = node
                if not opening:
                    break
                enough = len(self._targets) >= self._plan.quorum
                done, _ = await asyncio.wait(opening, timeout=max(until - self._loop.time(), 0.0) if enough else None,
                                             return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    break
                for opened in done:
                    self._opened(opening.pop(opened), opened)
        finally:
            for opened in opening:
                opened.add_done_callback(_unwanted)
                opened.cancel()
        self._check()

    def _next(self) -> NodeInfo | None:
        """The next place that can take a stream."""
        for node in self._spare:
            self._spares -= 1
            if self._replicas.client(node).has_room_for_streams:
                return node
            self._failures.append(Unavailable(f"storage node {node.node} has not taken what it was sent before"))
        return None

    def _opened(self, node: NodeInfo, opened: "asyncio.Future[Upload]") -> None:
        try:
            upload = opened.result()
        except ClusterError as error:
            self._failures.append(error)
            return
        for block in self._held:
            upload.send(block)
        self._targets.append(_Target(node, upload))

    # Sending

    async def _send(self, block: Buffer) -> None:
        await self._room()
        if self._holding:
            # What a node has taken is gone for others; until then it can be replaced.
            if len(self._crcs) * BLOCK_BYTES <= HELD_BYTES_MAX and any(
                    not target.upload.taken_bytes for target in self._targets):
                self._held.append(block)
            else:
                self._holding = False
                self._held.clear()
        for target in self._targets:
            target.upload.send(block)

    async def _room(self) -> None:
        """Wait until every node that is still with us can take a block. Drops those that failed or lag too long."""
        await self._drop_failed()
        while behind := [target for target in self._targets if not target.upload.has_room]:
            await self._wait_for(behind)
            await self._drop_failed()

    async def _wait_for(self, behind: list[_Target]) -> None:
        """Until they have room or have failed; those that keep the others waiting for too long are dropped."""
        waits = {asyncio.ensure_future(target.upload.room()): target for target in behind}
        try:
            while waits:
                enough = len(self._targets) - len(waits) >= self._plan.quorum
                before = self._loop.time()
                if enough:
                    allowed = self._patience_s(before, waits.values())
                else:
                    allowed = STALL_S_OTHERS if self._spares else STALL_S
                done, _ = await asyncio.wait(waits, timeout=allowed, return_when=asyncio.FIRST_COMPLETED)
                if enough:
                    self._waited_s += self._loop.time() - before
                for wait in done:
                    del waits[wait]
                if not done:
                    for target in waits.values():
                        self._replicas.client(target.node).standing.writes.blame(self._loop.time())
                        self._drop(target, Unavailable(f"node {target.node.node} lags behind"))
                    break
        finally:
            for wait in waits:
                wait.cancel()

    def _patience_s(self, now: float, behind: Iterable[_Target]) -> float:
        allowed = LAG_S + LAG_SHARE * (now - self._began_at - self._waited_s)
        if not all(self._replicas.client(target.node).standing.may_write(now) for target in behind):
            allowed *= LAG_SUSPECT
        return max(allowed - self._waited_s, 0.0)

    async def _drop_failed(self) -> None:
        """Leave behind what has failed, and put others in its place if they can still be given everything. Raises when the
        quorum can't be had any more."""
        failed = [target for target in self._targets if target.upload.failed]
        for target in failed:
            self._replicas.client(target.node).standing.writes.blame(self._loop.time())
            self._drop(target, target.upload.error())
        if failed and self._holding and self._spares:
            await self._open(len(self._targets) + len(failed))
        self._check()

    def _check(self) -> None:
        if self._targets and len(self._targets) + self._spares >= self._plan.quorum:
            return
        for target in self._targets:
            target.upload.abort()
        self._targets.clear()
        raise combined(self._failures or [Unavailable("too few storage nodes take this chunk")])

    def _drop(self, target: _Target, error: ClusterError) -> None:
        log.warning("node %s drops out of an upload: %s", target.node.node, error)
        self._failures.append(error)
        if target in self._targets:
            self._targets.remove(target)
            target.upload.abort()

    # Ending

    async def _collect(self, digest: Digest, table: bytes) -> tuple[Holder, ...]:
        """Ends the streams and waits for the quorum. Late nodes go on by themselves."""
        await self._drop_failed()
        ends = {asyncio.ensure_future(target.upload.finish(digest, table)): target.node for target in self._targets}
        self._targets.clear()
        holders: list[Holder] = []
        source: NodeInfo | None = None
        waiting = set(ends)
        try:
            while waiting and len(holders) < self._plan.quorum:
                others = self._spares and (holders or self._holding)
                done, waiting = await asyncio.wait(waiting, timeout=FINISH_S_OTHERS if others else None,
                                                   return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    break
                for end in done:
                    try:
                        holders.append(Holder(ends[end].node, end.result()))
                        source = ends[end]
                        self._replicas.client(source).standing.writes.praise()
                    except ClusterError as error:
                        self._replicas.client(ends[end]).standing.writes.blame(self._loop.time())
                        self._failures.append(error)
        finally:
            for end in waiting:
                self._replicas.in_background(_late(end))
        while len(holders) < self._plan.quorum and (source or self._holding) and (node := self._next()) is not None:
            try:
                holders.append(Holder(node.node, await self._copy(source, node, digest, table)))
            except ClusterError as error:
                log.warning("node %s got no copy of a chunk: %s", node.node, error)
                self._failures.append(error)
        self._held.clear()
        if len(holders) < self._plan.quorum:
            raise combined(self._failures or [Unavailable("too few storage nodes finished this chunk")])
        return tuple(holders)

    async def _copy(self, source: NodeInfo | None, node: NodeInfo, digest: Digest, table: bytes) -> bytes:
        """The chunk, which is durable on `source` or still held here, also to `node`: its incarnation. Raises ClusterError."""
        upload = None
        try:
            async with asyncio.timeout(STALL_S + self.size / COPY_BYTES_PER_S_MIN):
                upload = await self._replicas.client(node).upload(self._generation, self.size)
                async for block in self._blocks(source, digest):
                    await upload.room()
                    if upload.failed:
                        raise upload.error()
                    upload.send(block)
                return await upload.finish(digest, table)
        except TimeoutError:
            raise Unavailable(f"copying a chunk to node {node.node} took too long") from None
        finally:
            if upload is not None:
                upload.abort()                        # does nothing to one that is finished

    async def _blocks(self, source: NodeInfo | None, digest: Digest) -> AsyncIterator[Buffer]:
        if self._holding or source is None:
            for block in self._held:
                yield block
            return
        for start in range(0, self.size, PIECE_BYTES):
            length = min(PIECE_BYTES, self.size - start)
            data = await self._replicas.client(source).get(digest, self._generation, start, length)
            for at in range(0, length, BLOCK_BYTES):
                yield data[at:at + BLOCK_BYTES]


def _unwanted(opened: "asyncio.Future[Upload]") -> None:
    """A stream that came too late."""
    if not opened.cancelled() and opened.exception() is None:
        opened.result().abort()


async def _late(end: "asyncio.Future[bytes]") -> None:
    try:
        await end
    except ClusterError as error:
        log.info("a late node did not store its copy: %s", error)
