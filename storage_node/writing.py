"""A chunk of any size on its way to its nodes, piece by piece, with bounded memory.

Pieces are cut into blocks; each block's CRC is computed once and travels with the chunk. Up to SMALL_BYTES_MAX they are
kept, for a chunk that ends there goes whole; beyond, every node gets a stream. A node may lag by WINDOW_BYTES, and all
windows look at the same blocks, so a stream holds at most so much. If one node lags while enough others do not, it is
given up after LAG_S: it gets the chunk by repair, and nobody waits for the slowest disk.
"""

import asyncio
import logging
from typing import TYPE_CHECKING, NamedTuple

from awscrt.checksums import crc32c

from consensus.core.errors import ClusterError, Unavailable
from consensus.core.ids import Digest, Generation
from consensus.core.model import Holder, NodeInfo
from storage_node.chunk import BLOCK_BYTES, SMALL_BYTES_MAX, Buffer, pack_table
from storage_node.client import DEADLINE_S, Upload
from storage_node.errors import combined

if TYPE_CHECKING:
    from storage_node.quorum import Plan
    from storage_node.replicas import Replicas

log = logging.getLogger("staddle.replicas")

LAG_S = 1.0
"""How long a stream waits for a node that lags behind the quorum."""


class _Target(NamedTuple):
    node: NodeInfo
    upload: Upload


class ChunkWriter:
    """Used by one task: each call is awaited before the next. Ends with `finish` or `abort`."""

    def __init__(self, replicas: "Replicas", plan: "Plan", generation: Generation) -> None:
        self._replicas, self._plan, self._generation = replicas, plan, generation
        self._partial = bytearray()
        self._held: list[Buffer] = []                 # whole blocks of a chunk that may still turn out small
        self._targets: list[_Target] = []
        self._failures: list[ClusterError] = []
        self._streaming = False
        self._crcs: list[int] = []
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
            return await self._replicas.write(data, digest, self._generation)
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

    async def _begin(self) -> None:
        """Open the streams and send what was held."""
        places = iter(self._plan.places)
        while len(self._targets) < self._plan.copies and (node := next(places, None)) is not None:
            try:
                self._targets.append(_Target(node, await self._replicas.client(node).upload(self._generation)))
            except ClusterError as error:
                self._failures.append(error)
        self._streaming = True
        held, self._held = self._held, []
        for block in held:
            await self._send(block)

    async def _send(self, block: Buffer) -> None:
        await self._room()
        for target in self._targets:
            target.upload.send(block)

    async def _room(self) -> None:
        """Wait until every node that is still with us can take a block. Drops those that failed or lag too long."""
        self._drop_failed()
        behind = [target for target in self._targets if not target.upload.has_room]
        if not behind:
            return
        waits = {asyncio.ensure_future(target.upload.room()): target for target in behind}
        try:
            while True:
                enough = len(self._targets) - len(waits) >= self._plan.quorum
                done, _ = await asyncio.wait(waits, timeout=LAG_S if enough else DEADLINE_S,
                                             return_when=asyncio.FIRST_COMPLETED)
                for wait in done:
                    del waits[wait]
                self._drop_failed()
                if not waits:
                    return
                if not done:
                    for target in waits.values():
                        self._drop(target, Unavailable(f"node {target.node.node} lags behind"))
                    self._drop_failed()
                    return
        finally:
            for wait in waits:
                wait.cancel()

    def _drop_failed(self) -> None:
        for target in [target for target in self._targets if target.upload.failed]:
            self._drop(target, target.upload.error())
        if len(self._targets) < self._plan.quorum:
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

    async def _collect(self, digest: Digest, table: bytes) -> tuple[Holder, ...]:
        """Ends the streams and waits for the quorum. Late nodes go on by themselves."""
        self._drop_failed()
        ends = {asyncio.ensure_future(target.upload.finish(digest, table)): target for target in self._targets}
        self._targets.clear()
        holders: list[Holder] = []
        waiting = set(ends)
        while waiting and len(holders) < self._plan.quorum:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for end in done:
                try:
                    holders.append(Holder(ends[end].node.node, end.result()))
                except ClusterError as error:
                    self._failures.append(error)
        for end in waiting:
            self._replicas.in_background(_late(end))
        if len(holders) < self._plan.quorum:
            raise combined(self._failures)
        return tuple(holders)


async def _late(end: "asyncio.Future[bytes]") -> None:
    try:
        await end
    except ClusterError as error:
        log.info("a late node did not store its copy: %s", error)
