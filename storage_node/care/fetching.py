"""A chunk fetched from another node, verified whole, and stored here under the name that is live.

Nothing is announced here: what was stored may be gone again before anybody asks (settle.py). Rules:
* the bytes are compared with the digest before they are stored, whatever the other node says of them;
* bytes that are here already, under another generation, are not fetched;
* a holder whose copy is damaged or missing is told so, and the next one is asked;
* gently: at most so many bytes a second, and while clients are served the greater share of the time is theirs.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

from consensus.core.errors import ClusterError, Corrupt, NoSpace, Unavailable
from consensus.core.ids import Digest, Generation, NodeId
from consensus.core.model import NodeInfo
from storage_node.care.fellows import Fellows
from storage_node.care.mend import good_copy, store_again
from storage_node.care.settle import Settler
from storage_node.chunk import BLOCK_BYTES, SMALL_BYTES_MAX, block_table
from storage_node.errors import NotHere, combined
from storage_node.local import PIECE_BYTES
from storage_node.store import ChunkStore

log = logging.getLogger("staddle.node")

BATCH = 32
AT_ONCE = 8
"""Copies that are fetched before they are announced, and so many of them at the same time: enough to share syncs, and little
enough to hold in memory."""

BUSY_SHARE = 0.5
"""Of the time, while clients are being served."""

PAUSE_S_MAX = 0.5
"""Of one pause, so that the work goes on however slow a piece was."""


class Wanted(NamedTuple):
    """A copy that should be here: `holders` have it."""

    digest: Digest
    generation: Generation
    size: int
    holders: tuple[NodeId, ...]


class Pace:
    """So many bytes a second at most (0: as many as there are), shared by all that work for other reasons than clients'."""

    def __init__(self, bytes_per_second: int, busy: Callable[[], bool]) -> None:
        self._rate, self._busy = bytes_per_second, busy
        self._allowed_at = 0.0

    async def took(self, size: int, seconds: float) -> None:
        """A piece was moved, and took so long: pause accordingly."""
        now = asyncio.get_running_loop().time()
        if self._rate:
            self._allowed_at = max(self._allowed_at, now) + size / self._rate
        pause = max(0.0, self._allowed_at - now)
        if self._busy():
            pause = max(pause, min(seconds * (1 / BUSY_SHARE - 1), PAUSE_S_MAX))
        await asyncio.sleep(pause)


class Fetcher:
    """One per node. Counts since the start."""

    def __init__(self, store: ChunkStore, fellows: Fellows, pace: Pace) -> None:
        self._store, self._fellows, self._pace = store, fellows, pace
        self.fetched = self.fetched_bytes = self.failed = 0

    async def fetch(self, wanted: Wanted) -> None:
        """On return the bytes are here, durably and verified. Raises ClusterError; NoSpace and Unavailable of this node's own
        disk too."""
        copy = await self._store.find(wanted.digest, wanted.generation)
        if copy is not None:
            if await self._store.verify(copy):
                return
            raise Unavailable(f"chunk {wanted.digest.hex()}: the copy that is here is damaged, and has to go first")
        here = await good_copy(self._store, wanted.digest, wanted.generation)
        if here is not None:
            await store_again(self._store, here, wanted.generation)
            return
        failures: list[ClusterError] = []
        for info in self._fellows.sources(wanted.holders):
            try:
                await self._from(info, wanted)
            except (Corrupt, NotHere) as error:
                failures.append(error)
                log.warning("chunk %s on node %s: %s", wanted.digest.hex(), info.node, error)
                await self._tell(info, wanted)
            except NoSpace:
                raise
            except ClusterError as error:
                failures.append(error)
            else:
                self.fetched += 1
                self.fetched_bytes += wanted.size
                return
        self.failed += 1
        raise combined(failures) if failures else Unavailable(f"chunk {wanted.digest.hex()}: nobody else holds it")

    async def _from(self, info: NodeInfo, wanted: Wanted) -> None:
        if wanted.size > SMALL_BYTES_MAX:
            await self._stream(info, wanted)
            return
        began = asyncio.get_running_loop().time()
        data = await self._fellows.client(info).get(wanted.digest, wanted.generation, 0, wanted.size)
        if hashlib.sha256(data).digest() != wanted.digest:
            raise Corrupt("what the node sent are not the bytes of the chunk")
        await self._store.put(wanted.digest, wanted.generation, data, block_table(data))
        await self._pace.took(wanted.size, asyncio.get_running_loop().time() - began)

    async def _stream(self, info: NodeInfo, wanted: Wanted) -> None:
        """Piece by piece, the next one on its way while this one is written."""
        loop, client, sha = asyncio.get_running_loop(), self._fellows.client(info), hashlib.sha256()
        incoming = await self._store.create(wanted.generation)

        def ask(start: int) -> asyncio.Task[bytes]:
            return loop.create_task(client.get(wanted.digest, wanted.generation, start,
                                               min(PIECE_BYTES, wanted.size - start)))

        following: asyncio.Task[bytes] | None = None
        try:
            for start in range(0, wanted.size, PIECE_BYTES):
                began = loop.time()
                piece = await (following or ask(start))
                following = ask(start + PIECE_BYTES) if start + PIECE_BYTES < wanted.size else None
                await loop.run_in_executor(None, sha.update, piece)
                await incoming.write([piece[at:at + BLOCK_BYTES] for at in range(0, len(piece), BLOCK_BYTES)])
                await self._pace.took(len(piece), loop.time() - began)
            if sha.digest() != wanted.digest:
                raise Corrupt("what the node sent are not the bytes of the chunk")
        except BaseException:
            if following is not None:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
            await incoming.abort()
            raise
        await incoming.finish(wanted.digest, None)

    async def _tell(self, info: NodeInfo, wanted: Wanted) -> None:
        """The holder looks for itself, and mends or withdraws its copy."""
        try:
            await self._fellows.client(info).report(wanted.digest, wanted.generation)
        except ClusterError as error:
            log.info("node %s could not be told of its copy: %s", info.node, error)


async def fetch_and_announce(fetcher: Fetcher, settler: Settler, page: Sequence[Wanted]) -> list[Wanted]:
    """Make these copies, and say so: those that are here now. Raises ClusterError when the disk takes no more, or the metadata
    can't be told."""
    made: list[Wanted] = []
    for at in range(0, len(page), BATCH):
        batch = page[at:at + BATCH]
        names = [(wanted.digest, wanted.generation.pack()) for wanted in batch]
        settler.coming.update(names)
        try:
            done, stopped = await _all_of(fetcher, batch)
            if done:
                # The settler may have asked meanwhile, and have announced some of them itself.
                await settler.announce_now([(wanted.digest, wanted.generation.pack()) for wanted in done])
                made += done
            if stopped is not None:
                raise stopped
        finally:
            settler.coming.difference_update(names)
    return made


async def _all_of(fetcher: Fetcher, page: Sequence[Wanted]) -> tuple[list[Wanted], ClusterError | None]:
    """Those that are here now, and why the disk took no more, if it did."""
    done: list[Wanted] = []
    stopped: list[ClusterError] = []
    room = asyncio.Semaphore(AT_ONCE)

    async def one(wanted: Wanted) -> None:
        async with room:
            if stopped:
                return
            try:
                await fetcher.fetch(wanted)
                done.append(wanted)
            except NoSpace as error:
                stopped.append(error)
            except ClusterError as error:
                log.info("chunk %s can't be fetched now: %s", wanted.digest.hex(), error)

    await asyncio.gather(*[one(wanted) for wanted in page])
    return done, stopped[0] if stopped else None
