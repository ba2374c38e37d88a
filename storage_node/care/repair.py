"""Copies that are lacking, made by those that should have them. The index of short rows in the metadata is the only queue: it
holds what was acknowledged at fewer copies than are wanted, what has lost some, and what lies on nodes that leave.

There is no planner. Every node goes through the queue, the chunks with the fewest copies left first, and makes those copies
for which it comes next in the order of placement among the nodes that are up and don't have one. So the work is shared
without a word. When whoever comes next does nothing (its disk hangs, say), the one after it does after a while: two that
make the same copy cost some bytes, no more, since what is too many is given back (giving_back.py).
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from consensus.core.ids import Digest, NodeId
from consensus.core.model import NodeInfo
from consensus.core.placement import ranked
from storage_node.care.fellows import Fellows
from storage_node.care.fetching import BATCH, Fetcher, Wanted, fetch_and_announce
from storage_node.care.loop import Loop
from storage_node.care.settle import Settler
from storage_node.care.status import RepairStatus
from storage_node.care.telling import NodeMetadata, Unequal

PAGE = 300
"""Rows of one look, and at most so many copies in one announcement."""

SEEN_MAX = 100 * PAGE
"""Rows of which is remembered since when they lack copies: 4 MB. Those further behind are looked at when it is their turn."""

PATIENCE_S = 30.0
"""How long the next in the order is waited for before the one after it does the work; twice as long for the one after that."""

QUEUE_BYTES_PER_S, ROW_BYTES = 8 << 20, 64 << 10
"""Patience begins when the row's turn should have come, if the queue before it moves so slowly; each row costs something beside
its bytes. After the loss of a disk the queue takes hours: if it began at once, soon everybody would fetch everything."""

FRESH_S = 5.0
"""A row that lacks copies for less long is left alone: it was acknowledged at the quorum, and the late ones are on their way
or about to be announced by those that have them."""

FRESH_LAST_S = 1.0
"""The same for a row with one copy, which the next lost disk would lose: written while there was one node, or with asynchronous
copies. One that is on its way all the same is fetched twice."""

LOOK_S = 2.0
SHARE = 0.25
"""Of the time, at most, goes into looking through a queue in which nothing is this node's."""


class _Seen(NamedTuple):
    """Since when a row is known to lack copies, and when it should have been its turn."""

    since: float
    turn: float


class Repair:
    """The loop of one node. `takes_chunks`: whether its disk does."""

    def __init__(self, metadata: NodeMetadata, node: NodeId, fellows: Fellows, fetcher: Fetcher, settler: Settler, *,
                 takes_chunks: Callable[[], bool], look_s: float = LOOK_S, patience_s: float = PATIENCE_S,
                 fresh_s: float = FRESH_S) -> None:
        self._metadata, self._node, self._fellows = metadata, node, fellows
        self._fetcher, self._settler, self._takes_chunks = fetcher, settler, takes_chunks
        self._look_s, self._patience_s, self._fresh_s = look_s, patience_s, fresh_s
        self._seen: dict[Digest, _Seen] = {}
        """Rows of the queue, as far as they were in it at the last look."""
        self._loop = Loop("repair", node, self._turn, pause_s=look_s)
        self._status = RepairStatus()
        self._rate = 0.0
        self.copies = 0

    def start(self) -> None:
        self._loop.start()

    async def stop(self) -> None:
        await self._loop.stop()

    def kick(self) -> None:
        """Something was lost: look now."""
        self._loop.kick()

    @property
    def status(self) -> RepairStatus:
        fetcher = self._fetcher
        left = self._status.waiting_bytes / self._rate if self._rate else 0.0
        return msgspec.structs.replace(self._status, copies=self.copies, bytes=fetcher.fetched_bytes, failed=fetcher.failed,
                                       bytes_per_second=self._rate, seconds_left=left, trouble=self._loop.trouble)

    async def _turn(self) -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            made = await self.round()
        finally:
            self._status = msgspec.structs.replace(self._status, running=False)
        return self._look_s if not made else min(self._look_s, (loop.time() - began) * (1 / SHARE - 1))

    async def round(self) -> int:
        """Once through the queue. How many copies were made. Raises ClusterError: later, then."""
        after, made, waiting, waiting_bytes = (0, b""), 0, 0, 0
        seen: dict[Digest, _Seen] = {}
        now, ahead = asyncio.get_running_loop().time(), 0
        while page := await self._metadata.under_replicated(PAGE, after):
            nodes = list((await self._fellows.look()).values())
            own = []
            for row in page:
                known = self._seen.get(row.digest) or _Seen(now, now + ahead / QUEUE_BYTES_PER_S)
                ahead += row.size + ROW_BYTES
                if len(seen) < SEEN_MAX:
                    seen[row.digest] = known
                fresh_s = self._fresh_s if len(row.nodes) > 1 else min(self._fresh_s, FRESH_LAST_S)
                if now - known.since >= fresh_s and self._takes_chunks() and is_next(
                        self._node, row, nodes, max(0.0, now - known.turn), self._patience_s):
                    own.append(row)
            waiting, waiting_bytes = waiting + len(own), waiting_bytes + sum(row.size for row in own)
            if own:
                self._status = msgspec.structs.replace(
                    self._status, running=True, waiting=waiting - made, waiting_bytes=waiting_bytes)
            made += await self._make(own)
            if len(page) < PAGE:
                break
            after = page[-1].place
            await asyncio.sleep(0)
        self._seen = seen
        self._status = msgspec.structs.replace(
            self._status, running=False, waiting=max(0, waiting - made), waiting_bytes=waiting_bytes if waiting > made else 0,
            oldest_ms=int((now - min((row.since for row in seen.values()), default=now)) * 1000))
        return made

    async def _make(self, rows: Sequence[Unequal]) -> int:
        loop, made = asyncio.get_running_loop(), 0
        for at in range(0, len(rows), BATCH):
            began = loop.time()
            done = await fetch_and_announce(self._fetcher, self._settler, [
                Wanted(row.digest, row.generation, row.size, row.nodes) for row in rows[at:at + BATCH]])
            made += len(done)
            self.copies += len(done)
            if done:
                rate = sum(row.size for row in done) / max(loop.time() - began, 1e-3)
                self._rate = rate if not self._rate else 0.8 * self._rate + 0.2 * rate
        return made


def is_next(node: NodeId, row: Unequal, nodes: Sequence[NodeInfo], known_s: float, patience_s: float) -> bool:
    """Whether this node is among the next in the order of placement that should make a copy: as many as are lacking, and one
    more for each time that the others' patience has passed. Who holds one already isn't asked, nor who takes no chunks."""
    if node in row.nodes:
        return False
    by_name = {info.node: info for info in nodes}
    counted = sum(by_name[name].counts for name in row.nodes if name in by_name)
    holders = [by_name[name] for name in row.nodes if name in by_name and by_name[name].counts]
    free = [info for info in nodes if info.node not in row.nodes and info.takes_chunks]
    order = placed_beside(row.digest, holders, free)
    lacking = row.wanted - counted + int(known_s / patience_s)
    return any(info.node == node for info in order[:max(0, lacking)])


def placed_beside(digest: Digest, holders: Sequence[NodeInfo], free: Sequence[NodeInfo]) -> list[NodeInfo]:
    """`free` in the order of placement, those first that are in a zone in which nobody holds a copy yet."""
    used = {info.zone for info in holders}
    order = ranked(digest, free)
    return [info for info in order if info.zone not in used] + [info for info in order if info.zone in used]
