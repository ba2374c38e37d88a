"""The share of the data that belongs to this node, fetched when nodes have come, gone or grown.

When the map of nodes has changed, a node goes once through all chunks, and makes itself a copy of each for which it is among
the first places now and was not before; it is announced, then there is one too many, and the holder that ranks last gives
its copy back (giving_back.py). So a node that is new, or has grown, moves its own share, and what lies elsewhere than placement
says for other reasons (it was full, or large chunks are placed before their digest is known) stays where it is.

The pass is resumable: where it is, and from which map to which, lies in `rebalance.json` of the chunks folder. What lacks
copies is left to the repair.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Sequence

import msgspec

from consensus.core.clock import Clock
from consensus.core.codec import UNDECODABLE
from consensus.core.ids import NodeId
from consensus.core.model import NodeInfo
from consensus.core.placement import ranked
from consensus.disk import Disk, replace_file
from storage_node.care.fellows import Fellows
from storage_node.care.fetching import BATCH, Fetcher, Wanted, fetch_and_announce
from storage_node.care.loop import Loop
from storage_node.care.settle import Settler
from storage_node.care.status import RebalanceStatus
from storage_node.care.telling import NodeMetadata, Place

log = logging.getLogger("staddle.node")

STATE_NAME = "rebalance.json"

PAGE = 500
SHARE = 0.25
"""Of the time, at most, goes into looking through rows in which nothing is this node's."""

LOOK_S = 5.0
SETTLED_S = 5.0
"""A map must have stayed as it is for so long: nodes often come several at a time."""

SAVE_S = 5.0

FREE_SHARE_MIN = 0.05
"""A node with less of its disk free fetches nothing for the sake of balance."""


Shape = list[tuple[str, str, int]]
"""What placement goes by: name, zone and capacity of each node whose copies count, in order of name."""


class _Pass(msgspec.Struct, kw_only=True):
    """What is written down. `done`: the map of the last pass that came to its end (None: the present one, as soon as it is
    known); `map`: that of the one under way, or None; `after`: the last digest that was looked at, in hex."""

    version: int = 1
    done: Shape | None = None
    map: Shape | None = None
    after: str = ""
    passes: int = 0
    copies: int = 0
    bytes: int = 0
    started_ms: int = 0
    finished_ms: int = 0


class Rebalance:
    """The loop of one node. `folder` None: nothing is written down (tests in memory)."""

    def __init__(self, metadata: NodeMetadata, node: NodeId, fellows: Fellows, fetcher: Fetcher, settler: Settler, *,
                 clock: Clock, folder: str | None, disk: Disk, takes_chunks: Callable[[], bool],
                 free_share: Callable[[], float], look_s: float = LOOK_S, settled_s: float = SETTLED_S) -> None:
        self._metadata, self._node, self._fellows, self._fetcher, self._settler = metadata, node, fellows, fetcher, settler
        self._clock, self._disk = clock, disk
        self._path = None if folder is None else f"{folder}/{STATE_NAME}"
        self._takes_chunks, self._free_share = takes_chunks, free_share
        self._look_s, self._settled_s = look_s, settled_s
        self._pass = _Pass()
        self._since = self._saved_at = 0.0
        self._changed: tuple[Shape, float] = ([], 0.0)
        self._began_at = 0.0
        self._loop = Loop("rebalancing", node, self._turn, pause_s=look_s)

    async def prepare(self, *, empty: bool) -> None:
        """Before the node is registered. `empty`: there is nothing here, so that all of its share is still to come; else, if
        nothing is written down, the store is older than this file, and lies well as it is."""
        found = self._load()
        if found is None:
            self._pass = _Pass(done=[] if empty else None)
            await self._save()
        else:
            self._pass = found

    def start(self) -> None:
        self._loop.start()

    async def stop(self) -> None:
        await self._loop.stop()

    @property
    def status(self) -> RebalanceStatus:
        now, running = self._pass, self._pass.map is not None
        share = int.from_bytes(bytes.fromhex(now.after)[:4].ljust(4, b"\0"), "big") / (1 << 32) if running else 0.0
        left = 0.0
        if running and self._since and share > self._began_at:
            left = (asyncio.get_running_loop().time() - self._since) * (1 - share) / (share - self._began_at)
        return RebalanceStatus(running=running, passes=now.passes, share=share, copies=now.copies, bytes=now.bytes,
                               started_ms=now.started_ms, finished_ms=now.finished_ms, seconds_left=left,
                               trouble=self._loop.trouble)

    async def _turn(self) -> float:
        await self.round()
        return self._look_s

    async def round(self) -> bool:
        """If the map has changed: once through all chunks, or on from where it was. Whether a pass came to its end. Raises
        ClusterError."""
        loop, now = asyncio.get_running_loop(), self._pass
        shape = shape_of((await self._fellows.look()).values())
        if now.done is None or shape == now.done:
            if now.map is not None or now.done is None:
                now.done, now.map, now.after = shape, None, ""
                await self._save()
            return False
        if shape != self._changed[0]:
            self._changed = shape, loop.time()
        if loop.time() - self._changed[1] < self._settled_s:
            return False
        if now.map != shape:
            self._pass = now = _Pass(done=now.done, map=shape, passes=now.passes, started_ms=self._clock.now_ms())
            await self._save()
        old, new = nodes_of(now.done or []), nodes_of(shape)
        self._since, self._began_at = loop.time(), self.status.share
        after: bytes = bytes.fromhex(now.after)
        while page := await self._metadata.chunk_places(after, PAGE):
            began = loop.time()
            if shape_of((await self._fellows.look()).values()) != shape:
                return False                          # another map: begin anew
            if self._takes_chunks() and self._free_share() > FREE_SHARE_MIN:
                await self._make([row for row in page if belongs_here(self._node, row, old, new)])
            after = page[-1].digest
            now.after = after.hex()
            if loop.time() - self._saved_at > SAVE_S:
                await self._save()
            if len(page) < PAGE:
                break
            await asyncio.sleep((loop.time() - began) * (1 / SHARE - 1))
        now.done, now.map, now.after = shape, None, ""
        now.passes += 1
        now.finished_ms = self._clock.now_ms()
        await self._save()
        if now.copies:
            log.info("node %s: rebalanced: %d copies, %d bytes", self._node, now.copies, now.bytes)
        return True

    async def _make(self, rows: Sequence[Place]) -> None:
        for at in range(0, len(rows), BATCH):
            done = await fetch_and_announce(self._fetcher, self._settler, [
                Wanted(row.digest, row.generation, row.size, row.nodes) for row in rows[at:at + BATCH]])
            self._pass.copies += len(done)
            self._pass.bytes += sum(row.size for row in done)

    def _load(self) -> _Pass | None:
        if self._path is not None:
            with contextlib.suppress(OSError, *UNDECODABLE), open(self._path, "rb") as file:
                found = _pass.decode(file.read())
                if found.version == 1:
                    return found
        return None

    async def _save(self) -> None:
        self._saved_at = asyncio.get_running_loop().time()
        if self._path is None:
            return
        try:
            await asyncio.to_thread(replace_file, self._disk, self._path, msgspec.json.encode(self._pass), "rebalance.state")
        except OSError as error:                      # a restart repeats more then
            log.info("the rebalancing's place could not be written down: %s", error)


def shape_of(nodes: Iterable[NodeInfo]) -> Shape:
    return sorted((info.node, info.zone, info.capacity_bytes) for info in nodes if info.counts)


def nodes_of(shape: Shape) -> list[NodeInfo]:
    return [NodeInfo(node=NodeId(node), incarnation=b"", address="", zone=zone, capacity_bytes=capacity)
            for node, zone, capacity in shape]


def belongs_here(node: NodeId, row: Place, old: Sequence[NodeInfo], new: Sequence[NodeInfo]) -> bool:
    """Whether this node is among the first places of a chunk in the new map and was not in the old one. Not if it has a copy,
    nor if the chunk lacks copies."""
    counted = {info.node for info in new}
    if node in row.nodes or sum(name in counted for name in row.nodes) < row.wanted:
        return False
    return _is_among(node, row, new) and not _is_among(node, row, old)


def _is_among(node: NodeId, row: Place, nodes: Sequence[NodeInfo]) -> bool:
    return any(info.node == node for info in ranked(row.digest, nodes)[:row.wanted])


_pass = msgspec.json.Decoder(_Pass)
