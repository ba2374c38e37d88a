"""The commit of what an upload has stored.

A chunk must be on a quorum of nodes when it is committed, not only when it was written. While a cluster grows or `copies`
is raised the quorum may rise in between; then the chunks are written once more, from the copies that there are, and the
client notices nothing. The nodes keep those copies for a while although nothing can list them any more (the grace of
readers), and everything is verified as it is read.
"""

import contextlib
import logging

import msgspec

from consensus.core.commands import AppendVersion, NewChunk, NewContent, PutPart, PutVersion
from consensus.core.errors import ClusterError
from consensus.core.ids import Generation
from consensus.core.model import Bucket, LocatedSlice
from consensus.core.results import AnyResult, NotDurable
from gateway.ops.context import Context

log = logging.getLogger("staddle.ops")

AGAIN_BYTES_MAX = 64 << 20
"""The client waits meanwhile, without a byte: what takes longer had better be sent again, as 503 says."""


async def bring(
    ctx: Context, command: PutVersion | PutPart | AppendVersion, ticket: Generation | None, bucket: Bucket | None,
) -> AnyResult:
    """Carry it out. Raises ClusterError as commit does."""
    outcome = await ctx.metadata.commit(command, ticket)
    if type(outcome) is not NotDurable:
        return outcome
    content = command.content
    assert content is not None
    assert ticket is not None, "a content without chunks is durable"
    if content.staged is not None or content.size > AGAIN_BYTES_MAX:
        return outcome
    try:
        content, again = await _stored_again(ctx, content, ticket, bucket)
    except ClusterError as error:
        log.info("a chunk that is on too few nodes could not be stored again: %s", error)
        return outcome
    return await ctx.metadata.commit(msgspec.structs.replace(command, content=content), again)


async def _stored_again(
    ctx: Context, content: NewContent, old: Generation, bucket: Bucket | None
) -> tuple[NewContent, Generation]:
    ticket, chunks = await ctx.metadata.reserve(), None
    try:
        chunks = tuple([await _chunk_again(ctx, chunk, old, ticket, bucket) for chunk in content.chunks])
    finally:
        if chunks is None:
            ctx.metadata.release(ticket)
    return msgspec.structs.replace(content, chunks=chunks), ticket


async def _chunk_again(
    ctx: Context, chunk: NewChunk, old: Generation, ticket: Generation, bucket: Bucket | None
) -> NewChunk:
    here = LocatedSlice(chunk.digest, 0, chunk.size, old, chunk.size, tuple([holder.node for holder in chunk.holders]))
    writer = await ctx.replicas.open_writer(ticket, ctx.policy(bucket), chunk.size)
    try:
        async with contextlib.aclosing(ctx.replicas.read(here)) as pieces:
            async for piece in pieces:
                await writer.write(piece)
        return msgspec.structs.replace(chunk, holders=await writer.finish(chunk.digest))
    except BaseException:
        await writer.abort()
        raise
