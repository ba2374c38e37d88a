"""The one way from a request's body to stored bytes: decode, verify, cut, make durable. Nothing is visible yet.

    body -> aws-chunked decoded, if it is -> MD5, SHA-256, checksums -> chunks on the write quorum -> NewContent, ticket

A small body is read whole, hashed in place and written in one go. A larger one is a pipeline: while one batch of
buffers is hashed in threads and sent to the nodes, the next one arrives; the body is pulled, so a slow disk slows the
sender. Everything that the client said about the body is verified before the caller may commit. If anything fails, the
ticket is given back: then nothing can bring these chunks any more, and the nodes collect them.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple, TypeVar

from consensus.core.commands import NewChunk, NewContent
from consensus.core.ids import Digest, Generation
from consensus.core.model import Bucket, Checksum, Slice
from gateway.ops.buckets import quotas
from gateway.ops.context import Context
from gateway.ops.uploads.cutting import Cutter
from gateway.s3.body import checksums
from gateway.s3.body.checksums import Digests, Hasher
from gateway.s3.body.chunked import FRAGMENT_BYTES, Decoder
from gateway.s3.errors import S3Error
from gateway.s3.request import S3Request
from gateway.s3.signing.hoisting import effective_headers

SMALL_BYTES_MAX = 256 << 10
"""Bodies up to this are handled in one piece: hashing that much takes half a millisecond, less than a stream costs."""

BATCH_BYTES = 256 << 10
"""Buffers are hashed and sent in batches of at least this size: threads pay from there on. A body that comes quickly
comes in larger buffers, and so in larger batches; one that trickles in keeps no more than this waiting."""

T = TypeVar("T")


class Stored(NamedTuple):
    """What the deciding command takes: commit it with the ticket, at once."""

    content: NewContent
    ticket: Generation | None
    checksum: Checksum            # of the client's algorithm: what it is told. The content's may be another one.


async def store(ctx: Context, request: S3Request, hasher: Hasher, bucket: Bucket | None = None) -> Stored:
    """Make the body durable. S3Error for a body that isn't what the client said; ClusterError when it can't be stored.

    The content keeps the checksum that the hasher computes besides the client's, if it does. The copies are as `bucket` says.
    """
    length = body_length(ctx, request)
    if length and bucket is not None and (length > SMALL_BYTES_MAX or bucket.quota is not None):
        await quotas.refuse_early(ctx, request, bucket, length)
    if length is not None and length <= SMALL_BYTES_MAX:
        if ctx.payload.framing is None:
            return await _store_small(ctx, await request.body.read(length), hasher, {}, bucket)
        data, trailers = await _whole_body(ctx, request, length)
        return await _store_small(ctx, data, hasher, trailers, bucket)
    return await _store_stream(ctx, request, hasher, bucket, length)


def body_length(ctx: Context, request: S3Request) -> int | None:
    """Decoded length as announced; None for HTTP chunks of unknown sum. S3Error EntityTooLarge, MissingContentLength.
    """
    framing = ctx.payload.framing
    length = request.body.length if framing is None else framing.decoded_length
    if not length:
        sent = request.headers
        if framing is None and "content-length" not in sent and "transfer-encoding" not in sent:
            raise S3Error("MissingContentLength")  # an empty object is asked for with a length of 0
    elif length > ctx.settings.single_put_bytes_max:
        raise too_large(ctx, length)
    return length


def too_large(ctx: Context, length: int) -> S3Error:
    return S3Error("EntityTooLarge", ProposedSize=length, MaxSizeAllowed=ctx.settings.single_put_bytes_max)


async def read_body(ctx: Context, request: S3Request, limit: int, *, digest_required: bool = False) -> bytes:
    """A document: the whole body, verified. S3Error MaxMessageLengthExceeded above `limit` bytes.

    `digest_required`: without Content-MD5 or a checksum it could not be known what was meant (S3Error InvalidRequest).
    """
    given = effective_headers(request)
    expected = checksums.Expected.from_headers(given)
    if digest_required:
        expected.require()
    body, trailers = await _document(ctx, request, limit)
    if expected.md5 is not None or expected.algorithm:
        hasher = expected.hasher()
        hasher.update(body)
        hasher.finish(trailers)
    return body


async def read_body_about_object(ctx: Context, request: S3Request, limit: int) -> bytes:
    """The same where an x-amz-checksum-* header speaks of the object (CompleteMultipartUpload); Content-MD5 and a
    trailer speak of the body."""
    given = effective_headers(request)
    about_body: dict[str, str] = {name: given[name] for name in ("content-md5", "x-amz-trailer") if name in given}
    expected = checksums.Expected.from_headers(about_body)
    body, trailers = await _document(ctx, request, limit)
    if about_body:
        hasher = expected.hasher()
        hasher.update(body)
        hasher.finish(trailers)
    return body


async def parsed(parse: Callable[[bytes], T], body: bytes) -> T:
    """What `parse` makes of a document: of a long one in a thread, since 10,000 parts take 40 ms to read."""
    if len(body) <= SMALL_BYTES_MAX:
        return parse(body)
    return await asyncio.to_thread(parse, body)


async def _document(ctx: Context, request: S3Request, limit: int) -> tuple[bytes, dict[str, str]]:
    framing = ctx.payload.framing
    length = request.body.length if framing is None else framing.decoded_length
    if length is not None and length > limit:
        raise S3Error("MaxMessageLengthExceeded", MaxMessageLengthBytes=limit)
    body, trailers = await _whole_body(ctx, request, limit)
    if ctx.payload.sha256 is not None:
        ctx.payload.verify_sha256(hashlib.sha256(body).hexdigest())
    return body, trailers


async def _whole_body(ctx: Context, request: S3Request, limit: int) -> tuple[bytes, dict[str, str]]:
    """Decoded, and the trailers. At most `limit` bytes."""
    framing = ctx.payload.framing
    if framing is None:
        return await request.body.read(limit), {}
    decoder = framing.decoder()
    data = bytearray()
    async for piece in request.body:
        for view in decoder.feed(piece):
            data += view
    return bytes(data), decoder.finish()


async def _store_small(
    ctx: Context, data: bytes, hasher: Hasher, trailers: dict[str, str], bucket: Bucket | None
) -> Stored:
    sha256 = hashlib.sha256(data)
    if ctx.payload.sha256 is not None:
        ctx.payload.verify_sha256(sha256.hexdigest())
    hasher.update(data)
    digests = hasher.finish(trailers)
    if not data:
        return Stored(NewContent(size=0, etag=digests.md5, checksum=_kept(digests)), None, Checksum(*digests.checksum))
    digest = Digest(sha256.digest())
    ticket = await ctx.metadata.reserve()
    stored = False
    try:
        holders = await ctx.replicas.write(data, digest, ticket, ctx.policy(bucket))
        stored = True
    finally:
        if not stored:
            ctx.metadata.release(ticket)
    size = len(data)
    content = NewContent(
        size=size, etag=digests.md5, checksum=_kept(digests), slices=(Slice(digest, 0, size),),
        chunks=(NewChunk(digest=digest, size=size, holders=holders),),
    )
    return Stored(content, ticket, Checksum(*digests.checksum))


async def _store_stream(
    ctx: Context, request: S3Request, hasher: Hasher, bucket: Bucket | None, length: int | None
) -> Stored:
    limit = ctx.settings.single_put_bytes_max
    cutter = Cutter(ctx, request, whole_sha256=ctx.payload.sha256 is not None, bucket=bucket, length=length)
    decoder = ctx.payload.framing.decoder() if ctx.payload.framing is not None else None
    size = 0
    under_way: asyncio.Task[None] | None = None
    finished = False
    try:
        async for batch in _batches(request, decoder):
            size += sum(len(view) for view in batch)
            if size > limit:
                raise too_large(ctx, size)
            if under_way is not None:
                await under_way
            under_way = asyncio.create_task(cutter.add(batch, hasher.update))
            del batch             # until the next one has come, which may take a while
        if under_way is not None:
            await under_way
        digests = hasher.finish(decoder.finish() if decoder is not None else {})
        if ctx.payload.sha256 is not None:
            ctx.payload.verify_sha256(cutter.sha256_hex())
        cut = await cutter.finish()
        finished = True
    finally:
        if not finished:
            if under_way is not None:
                under_way.cancel()
                await asyncio.gather(under_way, return_exceptions=True)
            await cutter.abort()
    content = NewContent(
        size=size, etag=digests.md5, checksum=_kept(digests), slices=cut.slices, chunks=cut.chunks, staged=cut.staged
    )
    return Stored(content, cut.ticket, Checksum(*digests.checksum))


def _kept(digests: Digests) -> Checksum:
    return Checksum(*(digests.also[0] if digests.also else digests.checksum))


async def _batches(request: S3Request, decoder: Decoder | None) -> AsyncIterator[list[memoryview]]:
    """The decoded body in lists of buffers of about `BATCH_BYTES`, at most `BATCH_BYTES / FRAGMENT_BYTES` of them long
    ones, and no two short ones in a row."""
    batch: list[memoryview] = []
    fragments = bytearray()
    size = 0
    async for piece in request.body:
        # A view keeps the buffer from being used again while it is hashed and sent.
        for view in [memoryview(piece)[:]] if decoder is None else decoder.feed(piece):
            size += len(view)
            if len(view) < FRAGMENT_BYTES:
                fragments += view
                continue
            if fragments:
                batch.append(memoryview(fragments))
                fragments = bytearray()
            batch.append(view)
        if size >= BATCH_BYTES:
            if fragments:
                batch.append(memoryview(fragments))
            yield batch
            batch, fragments, size = [], bytearray(), 0
    if fragments:
        batch.append(memoryview(fragments))
    if batch:
        yield batch
