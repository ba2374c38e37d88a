"""GET and HEAD of an object. Finding a version, describing it in headers, and giving out its bytes.

*Found*: a version, its bucket, and the first of its slices, read in one look at the metadata.
A small body (`INLINE_BYTES_MAX`) is read before the status is chosen, so damage is an error and not a torn answer, and
from this host's own disk without a thread or a task. A large one is streamed in verified pieces; its first piece is
awaited before the status for the same reason. What fails later cuts the connection short of its Content-Length.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import NamedTuple

import msgspec

from consensus.core.errors import ClusterError, Corrupt
from consensus.core.ids import ContentId, VersionId
from consensus.core.model import Attributes, Bucket, Checksum, LocatedSlice, ObjectVersion
from consensus.core.results import AnyResult, Changed, IsMarker
from gateway.authorization import decide
from gateway.ops.buckets import lifecycle
from gateway.ops.context import Context
from gateway.ops.objects import archives
from gateway.ops.objects.versions import parse_version_id
from gateway.ops.refusals import refusal
from gateway.ops.replies import checksum_headers, read_version
from gateway.s3 import conditions, headers, ranges, times
from gateway.s3.body import checksums
from gateway.s3.errors import S3Error
from gateway.s3.reply import Reply
from gateway.s3.request import S3Request
from gateway.s3.signing.hoisting import effective_headers

INLINE_BYTES_MAX = 256 << 10
"""Bodies up to this are read whole before the answer: the size of a stored chunk's block, so two are verified."""

READ_TRIES = 3
"""A chunk that is gone between the look at the metadata and the read means that the version was replaced meanwhile:
look again. More often than this, somebody does nothing but replace it."""


class Found(NamedTuple):
    bucket: Bucket
    version: ObjectVersion
    slices: list[LocatedSlice]    # from the start of the content, as far as one look gives


async def find(ctx: Context, request: S3Request, *, marker_refused: bool = False) -> Found:
    """The version that the request names, never a delete marker. Raises S3Error as S3_SEMANTICS §8 wants: `marker_refused`
    where a marker that is the current version is no other than one that is named."""
    headers.refuse_unsupported_read(effective_headers(request))
    wanted = request.query.get("versionId")
    if wanted is None:
        bucket, version, slices = await ctx.metadata.opened(request.bucket, request.key)
        bucket = await ctx.admit(bucket, request, version, looked=True)
    else:
        bucket = await ctx.metadata.bucket(request.bucket)
        version, slices = None, []
        if bucket is not None:
            version = await ctx.metadata.version(bucket.id, request.key, VersionId(wanted))
        bucket = await ctx.admit(bucket, request, version, looked=True)
        if version is None:
            named = parse_version_id(wanted)
            raise await ctx.absent(bucket, request, S3Error("NoSuchVersion", Key=request.key, VersionId=named))
    if version is None:
        raise await ctx.absent(bucket, request, S3Error("NoSuchKey", Key=request.key))
    if version.delete_marker:
        named_or_changed = wanted is not None or marker_refused or request.method not in ("GET", "HEAD")
        marker = is_marker(request, version.version_id, version.modified_ms, named=named_or_changed)
        raise marker if wanted is not None else await ctx.absent(bucket, request, marker)
    return Found(bucket, version, slices)


def is_marker(request: S3Request, version_id: VersionId, modified_ms: int, *, named: bool) -> S3Error:
    """A delete marker hides the key from those who ask for it, and can only be deleted by those who name it."""
    marker = [("x-amz-delete-marker", "true"), ("x-amz-version-id", version_id)]
    if not named:
        return S3Error("NoSuchKey", headers=tuple(marker), Key=request.key)
    marker += [("allow", "DELETE"), ("last-modified", times.http_date(modified_ms))]
    return S3Error("MethodNotAllowed", headers=tuple(marker), Method=request.method, ResourceType="DeleteMarker")


def changed(request: S3Request, outcome: AnyResult, status: int = 200) -> Reply:
    """The answer after a version's tags or lock were to be changed. Raises S3Error, ClusterError for a refusal."""
    if isinstance(outcome, IsMarker):
        raise is_marker(request, outcome.version_id, outcome.modified_ms, named=True)
    if not isinstance(outcome, Changed):
        raise refusal(outcome, request)
    return Reply(status=status, headers=[] if outcome.version_id is None else [("x-amz-version-id", outcome.version_id)])



class Span(NamedTuple):
    """Which bytes are given out, and how that is said."""

    start: int
    length: int
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    checksum: Checksum | None = None      # of exactly these bytes


async def get_object(ctx: Context, request: S3Request) -> Reply:
    """The object, or a part of it: verified bytes or an error, never wrong ones (promise 2)."""
    tries = READ_TRIES
    while True:
        found = await find(ctx, request)
        if found.version.attributes.storage_class != "STANDARD":
            archives.must_be_readable(ctx, found.version, request.now_ms)
        reply, span = await describe(ctx, request, found)
        if span is None or not span.length:
            return reply
        try:
            reply.body = await open_body(ctx, found.version.content, found.slices, span.start, span.length)
        except ClusterError:
            tries -= 1
            if not tries or not await _replaced(ctx, request, found):
                raise
        else:
            reply.length = span.length
            return reply


async def head_object(ctx: Context, request: S3Request) -> Reply:
    """What GET would say, without the body: Range and partNumber included."""
    found = await find(ctx, request)
    reply, span = await describe(ctx, request, found)
    reply.length = span.length if span is not None else None
    return reply


async def describe(ctx: Context, request: S3Request, found: Found) -> tuple[Reply, Span | None]:
    """Status and headers; the span is None for 304. Conditions come before the range (RFC 9110 §13.2.2)."""
    bucket, version, _ = found
    tags = [
        ("etag", f'"{version.etag}"'), ("last-modified", times.http_date(version.modified_ms)),
        *read_version(bucket, version.version_id),
    ]
    if conditions.not_modified(
        request.headers, etag=version.etag, modified_ms=version.modified_ms, now_ms=request.now_ms
    ):
        return Reply(status=304, headers=tags), None
    span = await _span(ctx, request, version)
    shown = version.attributes
    if shown.lock is not None or shown.tags:
        shown = await _shown(ctx, request, bucket, version)
    reply = Reply(status=span.status, headers=[
        ("accept-ranges", "bytes"), *tags,
        *headers.given_back(shown, request.query, anonymous=ctx.principal.anonymous, now_ms=request.now_ms), *span.headers,
    ])
    if bucket.lifecycle and version.latest:
        reply.headers += await lifecycle.expiration(
            ctx, bucket, version.key, version.modified_ms, version.size, version.attributes.tags)
    if span.checksum is not None and checksums.mode_enabled(effective_headers(request)):
        reply.headers += checksum_headers(span.checksum)
    return reply, span


async def _shown(ctx: Context, request: S3Request, bucket: Bucket, version: ObjectVersion) -> Attributes:
    """What of the attributes the caller may see: the lock and the number of tags are told to those who may read them."""
    attributes = version.attributes
    if ctx.unlimited_in(bucket):
        return attributes
    case = ctx.about(await ctx.case(bucket, request), version)
    versioned = "Version" if "versionId" in request.query else ""
    if attributes.tags and not decide(case, f"s3:GetObject{versioned}Tagging").allowed:
        attributes = msgspec.structs.replace(attributes, tags=())
    lock = attributes.lock
    if lock is not None:
        if not decide(case, "s3:GetObjectRetention").allowed:
            lock = lock._replace(mode="", until_ms=0)
        if not decide(case, "s3:GetObjectLegalHold").allowed:
            lock = lock._replace(legal_hold=False)
            attributes = msgspec.structs.replace(attributes, hold_off=False)
        attributes = msgspec.structs.replace(attributes, lock=lock)
    return attributes


async def _span(ctx: Context, request: S3Request, version: ObjectVersion) -> Span:
    number = request.query.get("partNumber")
    if number is not None:
        return await _part_span(ctx, request, version, number)
    wanted = request.headers.get("range")
    if wanted is not None and (known := request.headers.get("if-range")) is not None and not conditions.range_holds(
            known, etag=version.etag, modified_ms=version.modified_ms):
        wanted = None
    chosen = None if wanted is None else ranges.parse(wanted, version.size)
    if chosen is None:
        return Span(0, version.size, checksum=version.checksum)
    return Span(
        chosen.start, chosen.length, 206, (("content-range", ranges.content_range(chosen, version.size)),)
    )


async def _part_span(ctx: Context, request: S3Request, version: ObjectVersion, text: str) -> Span:
    number = ranges.wanted_part(text, request.headers.get("range"), ranges.PARTS_MAX)
    assert number is not None
    said: list[tuple[str, str]] = []
    if version.part_count:
        part = await ctx.metadata.part_of(version.content, number)
        if part is None:
            raise _no_part(number, version.part_count)
        chosen, checksum = ranges.Span(part.start, part.size), part.checksum
        if checksum is not None and version.checksum is not None:
            checksum = checksum._replace(kind=version.checksum.kind)
        said.append(("x-amz-mp-parts-count", str(version.part_count)))
    else:
        chosen, checksum = ranges.Span(0, version.size), version.checksum
        if number != 1:
            raise _no_part(number, 1)
    if version.size:
        said.append(("content-range", ranges.content_range(chosen, version.size)))
    return Span(chosen.start, chosen.length, 206, tuple(said), checksum)


def _no_part(number: int, total: int) -> S3Error:
    return S3Error("InvalidPartNumber", PartNumberRequested=number, ActualPartCount=total)


async def open_body(
    ctx: Context, content: ContentId, slices: list[LocatedSlice], start: int, length: int
) -> bytes | AsyncIterator[bytes]:
    """`length` bytes of a content from `start`. Raises ClusterError here for what is wrong with the first of them.

    `slices` are those that an earlier look has given, from the start of the content; more are read as needed.
    """
    if length > INLINE_BYTES_MAX:
        stream = stream_body(ctx, content, slices, start, length)
        return _after_first(await anext(stream), stream)
    pieces: list[bytes] = []
    for part in await _covering(ctx, content, slices, start, length):
        piece = ctx.replicas.read_now(part)
        pieces.append(b"".join([piece async for piece in ctx.replicas.read(part)]) if piece is None else piece)
    body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    if len(body) != length:
        if not 0 < len(body) < length:
            raise Corrupt(f"content {content} gave {len(body)} bytes of {length} from {start}")
        rest = stream_body(ctx, content, [], start + len(body), length - len(body))    # many short slices: it was appended to
        body += b"".join([piece async for piece in rest])
    return body


async def stream_body(
    ctx: Context, content: ContentId, slices: list[LocatedSlice], start: int, length: int
) -> AsyncGenerator[bytes]:
    """The same in verified pieces of at most 1 MiB, however large."""
    while length:
        given = 0
        for part in await _covering(ctx, content, slices, start, length):
            async for piece in ctx.replicas.read(part):
                yield piece
                given += len(piece)
        if not given or given > length:
            raise Corrupt(f"content {content} gave {given} bytes of {length} from {start}")
        start, length, slices = start + given, length - given, []


async def _covering(
    ctx: Context, content: ContentId, slices: list[LocatedSlice], start: int, length: int
) -> list[LocatedSlice]:
    """Slices trimmed to begin at `start`, as many as one look gives and none beyond `length`.

    Whoever begins to read knows all that one look gives: should the object be deleted meanwhile, the metadata keeps only
    contents for a while that are longer than that (`contents.SLICES_AT_A_LOOK`), and storage nodes keep the chunks.
    """
    end = sum([part.length for part in slices])
    if start == 0 and length == end:
        return slices                 # the usual GET: all of a small object
    if start + length > end:
        return await ctx.metadata.slices(content, start, length)
    covering: list[LocatedSlice] = []
    at = 0
    for part in slices:
        skip = max(0, start - at)
        left = start + length - at
        at += part.length
        if left <= 0:
            break
        if skip < part.length:
            covering.append(part._replace(start=part.start + skip, length=min(part.length, left) - skip))
    return covering


async def _after_first(first: bytes, rest: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    try:
        yield first
        del first             # a slow reader would keep it in memory to the end
        async for piece in rest:
            yield piece
    finally:
        await rest.aclose()  # a client that goes away must not leave a read open


async def _replaced(ctx: Context, request: S3Request, found: Found) -> bool:
    """Whether the key names other bytes by now: then those that failed to come may rightly be gone."""
    again = await find(ctx, request)
    return again.version.content != found.version.content
