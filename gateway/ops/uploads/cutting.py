"""A stream of buffers becomes chunks on storage nodes, and a list of slices that say which.

Used by every upload too large to be handled in one piece. Buffers come in batches and are free again when `add`
returns; while threads hash a batch the writer sends it, so a stream costs a fixed amount of memory (promise 8). A full
chunk is made durable in the background while the next one is filled.

Chunks go in *pages* of `CHUNKS_PER_PAGE`: one ticket, one command. All pages but the last are staged; the command that
decides takes the staged content over. Until then nothing is visible, and after a failure nothing is owed: the ticket is
given back, so no commit can bring these chunks any more, and the storage nodes collect them (there is no undo).
"""

import asyncio
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from consensus.core.commands import NewChunk, StageContent
from consensus.core.ids import ContentId, Digest, Generation
from consensus.core.model import Bucket, Slice
from consensus.core.results import Staged
from gateway.ops.context import Context
from gateway.ops.refusals import refusal
from gateway.s3.request import S3Request

if TYPE_CHECKING:
    from storage_node.writing import ChunkWriter

CHUNKS_PER_PAGE = 256
"""Below `CHUNKS_PER_COMMAND_MAX`, so that one command always holds a page."""

FINISHING_MAX = 2
"""Chunks of one stream that are being made durable while the next is filled; more would only hold the nodes' memory."""

HASH_THREADS = max(4, (os.cpu_count() or 1) + 2)
"""MD5 and SHA-256 of one stream run side by side; they give up the interpreter's lock, so threads do help."""

_threads = ThreadPoolExecutor(HASH_THREADS, thread_name_prefix="hash")


def in_thread(update: Callable[[memoryview], object], views: list[memoryview]) -> asyncio.Future[None]:
    """Hash large buffers beside the event loop. They must stay as they are until the future is done."""
    return asyncio.get_running_loop().run_in_executor(_threads, _update, update, views)


def _update(update: Callable[[memoryview], object], views: list[memoryview]) -> None:
    for view in views:
        update(view)


class Cut(NamedTuple):
    """What the deciding command needs: the last page, and the pages staged before it."""

    slices: tuple[Slice, ...]
    chunks: tuple[NewChunk, ...]
    staged: ContentId | None
    ticket: Generation | None     # of the last page; None when it brings no chunk


class Cutter:
    """One stream's way into chunks. Call `finish` or `abort`, always.

    With `whole_sha256` the SHA-256 of the stream is computed too: for a stream of one chunk it is the chunk's own, and
    only from the second chunk on are there two to compute. `length` is the stream's, where it is known.
    """

    def __init__(self, ctx: Context, request: S3Request, *, whole_sha256: bool, bucket: Bucket | None = None,
                 length: int | None = None) -> None:
        self._ctx = ctx
        self._request = request
        self._bucket, self._length = bucket, length
        self._writer: ChunkWriter | None = None
        self._whole_wanted = whole_sha256
        self._whole: hashlib._Hash | None = None
        self._sha256 = hashlib.sha256()
        self._filled = self._done = 0
        self._finishing: list[asyncio.Task[NewChunk]] = []
        self._slices: list[Slice] = []
        self._chunks: dict[Digest, NewChunk] = {}
        self._ticket: Generation | None = None
        self._staged: ContentId | None = None

    async def add(self, views: list[memoryview], beside: Callable[[memoryview], object]) -> None:
        """Send and hash the bytes of `views`; `beside` gets the same bytes in a thread at the same time."""
        other = in_thread(beside, views)
        try:
            while views:
                if self._writer is None:
                    await self._open()
                room = self._ctx.settings.chunk_bytes - self._filled
                taken, views = _split(views, room)
                await self._send(taken)
                if self._filled == self._ctx.settings.chunk_bytes:
                    await self._close()
        finally:
            await other

    async def _send(self, views: list[memoryview]) -> None:
        assert self._writer is not None
        hashing = in_thread(self._sha256.update if self._whole is None else self._update_both, views)
        try:
            for view in views:
                await self._writer.write(view)
                self._filled += len(view)
        finally:
            await hashing

    def _update_both(self, view: memoryview) -> None:
        assert self._whole is not None
        self._sha256.update(view)
        self._whole.update(view)

    def sha256_hex(self) -> str:
        """Of the whole stream, after the last `add`."""
        assert self._whole_wanted
        return (self._sha256 if self._whole is None else self._whole).hexdigest()

    async def finish(self) -> Cut:
        """Wait until every chunk is durable. The caller commits with the ticket, or gives it back."""
        if self._writer is not None:
            await self._close()
        await self._settle(0)
        return Cut(
            slices=tuple(self._slices), chunks=tuple(self._chunks.values()), staged=self._staged, ticket=self._ticket
        )

    async def abort(self) -> None:
        """Forget what was sent; the nodes collect it."""
        for task in self._finishing:
            task.cancel()
        await asyncio.gather(*self._finishing, return_exceptions=True)
        self._finishing.clear()
        if self._writer is not None:
            writer, self._writer = self._writer, None
            await writer.abort()
        if self._ticket is not None:
            self._ctx.metadata.release(self._ticket)
            self._ticket = None
        if self._staged is not None:
            self._ctx.metadata.abandon(self._staged)
            self._staged = None

    async def _open(self) -> None:
        if len(self._slices) + len(self._finishing) == CHUNKS_PER_PAGE:
            await self._settle(0)
            await self._stage()
        if self._ticket is None:
            self._ticket = await self._ctx.metadata.reserve(self._staged)
        room = self._ctx.settings.chunk_bytes
        if self._length is not None:
            room = max(min(room, self._length - self._done), 0)
        self._writer = await self._ctx.replicas.open_writer(self._ticket, self._ctx.policy(self._bucket), room)
        if self._whole_wanted and self._filled and self._whole is None:
            self._whole = self._sha256  # the first chunk is done: its hash goes on as that of the whole
        self._sha256 = hashlib.sha256()
        self._filled = 0

    async def _close(self) -> None:
        assert self._writer is not None
        writer, self._writer = self._writer, None
        self._done += self._filled
        digest = Digest(self._sha256.digest())
        self._finishing.append(asyncio.create_task(_durable(writer, digest, self._filled)))
        await self._settle(FINISHING_MAX)

    async def _settle(self, left: int) -> None:
        """Wait for the oldest chunks, in order, until `left` are on their way."""
        while len(self._finishing) > left:
            chunk = await self._finishing[0]
            del self._finishing[0]
            self._slices.append(Slice(chunk.digest, 0, chunk.size))
            self._chunks.setdefault(chunk.digest, chunk)  # a page of equal chunks brings one

    async def _stage(self) -> None:
        command = StageContent(
            slices=tuple(self._slices), chunks=tuple(self._chunks.values()), into=self._staged,
            bucket=None if self._bucket is None else self._bucket.id,
        )
        ticket, self._ticket = self._ticket, None
        outcome = await self._ctx.metadata.commit(command, ticket)
        if not isinstance(outcome, Staged):
            raise refusal(outcome, self._request)
        self._staged = outcome.content
        self._slices.clear()
        self._chunks.clear()


async def _durable(writer: "ChunkWriter", digest: Digest, size: int) -> NewChunk:
    return NewChunk(digest=digest, size=size, holders=await writer.finish(digest))


def _split(views: list[memoryview], room: int) -> tuple[list[memoryview], list[memoryview]]:
    """The first `room` bytes, and the rest."""
    for place, view in enumerate(views):
        if not room:
            return views[:place], views[place:]
        if len(view) > room:
            return [*views[:place], view[:room]], [view[room:], *views[place + 1 :]]
        room -= len(view)
    return views, []
