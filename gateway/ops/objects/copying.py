"""CopyObject and UploadPartCopy. Bytes that stay the same don't move: the copy refers to what is there.

A whole object shares the source's content; a part gets a content of its own whose slices are the source's. Only what
nobody knows yet is read: the MD5 and the checksum of a range, or of an object whose copy is to carry another checksum.

What a reference names may go while we look at it. The command says so (ContentMissing, ChunkMissing), and the source is
looked at again. Where the bucket wants more copies of everything than the source has (TooFewCopies), a reference would
promise what isn't so: then the bytes are stored again, as an upload's.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import NamedTuple

import msgspec

from consensus.core.commands import NewContent, PutPart, PutVersion, StageContent
from consensus.core.errors import ClusterError, Corrupt, Unavailable
from consensus.core.ids import ContentId, Generation
from consensus.core.model import Attributes, Bucket, Checksum, LocatedSlice, ObjectVersion, Slice
from consensus.core.results import AnyResult, ChunkMissing, Committed, ContentMissing, PartStored, Staged, TooFewCopies
from gateway.ops.access.acls import of_new_object
from gateway.ops.buckets import lifecycle
from gateway.ops.buckets.notification import origin_of
from gateway.ops.context import Context
from gateway.ops.objects import archives
from gateway.ops.objects.reading import READ_TRIES, stream_body
from gateway.ops.objects.versions import new_version_id, parse_version_id
from gateway.ops.objects.writing import put_attributes, write_condition
from gateway.ops.refusals import refusal
from gateway.ops.replies import written_version, xml
from gateway.ops.uploads.bringing import bring
from gateway.ops.uploads.cutting import Cutter, in_thread
from gateway.ops.uploads.multipart import must_be_own, open_upload
from gateway.s3 import conditions, headers, names, ranges
from gateway.s3.body import checksums
from gateway.s3.errors import S3Error
from gateway.s3.policy.actions import needed_of_source
from gateway.s3.policy.context import of_new_tags
from gateway.s3.reply import Reply
from gateway.s3.request import S3Request
from gateway.s3.signing.hoisting import effective_headers
from gateway.s3.xml import write as xml_write

_CHANGES = ("x-amz-storage-class", headers.REDIRECT, "x-amz-checksum-algorithm")
"""What a copy of an object onto itself may be for, besides metadata, tags and a lock."""


class Source(NamedTuple):
    bucket: Bucket
    version: ObjectVersion


async def copy_object(ctx: Context, request: S3Request) -> Reply:
    """The source's content under another key, bucket, or other attributes. S3_SEMANTICS §11."""
    bucket = await ctx.bucket(request)
    _refuse_body(request)
    given = effective_headers(request)
    replace_metadata = headers.replaces(given, "metadata")
    replace_tags = headers.replaces(given, "tagging")
    asked = put_attributes(given, request.now_ms, ctx.settings.storage_classes)
    new = await of_new_object(ctx, bucket, request.key, given)
    if new.acl is not None:
        asked = msgspec.structs.replace(asked, acl=new.acl)
    condition = write_condition(given)
    named = given.get("x-amz-checksum-algorithm")
    algorithm = None if named is None else checksums.parse_algorithm(named)
    changes = replace_metadata or replace_tags or asked.lock is not None or any(name in given for name in _CHANGES)
    for _ in range(READ_TRIES):
        source = await find_source(ctx, request)
        version = source.version
        if ctx.settings.copy_bytes_max is not None and version.size > ctx.settings.copy_bytes_max:
            raise S3Error("InvalidRequest", "The specified copy source is larger than the maximum allowable size for a "
                          f"copy source: {ctx.settings.copy_bytes_max}")
        attributes = _merged(version.attributes, asked, replace_metadata, replace_tags)
        if not replace_tags and attributes.tags:
            await ctx.require(bucket, request, ("s3:PutObjectTagging",), keys=of_new_tags(attributes.tags))
        if not changes and _is_itself(bucket, request, source):
            raise S3Error(
                "InvalidRequest",
                "This copy request is illegal because it is trying to copy an object to itself without changing the "
                "object's metadata, storage class, website redirect location or encryption attributes.",
            )
        checksum = await _copied_checksum(ctx, version, algorithm)
        command = PutVersion(
            bucket=bucket.id, key=request.key, version_id=new_version_id(), attributes=attributes,
            owner=new.owner, content_of=version.content, content_size=version.size, condition=condition, checksum=checksum,
            origin=origin_of(ctx, request, bucket, "ObjectCreated:Copy"),
        )
        outcome = await ctx.metadata.commit(command)
        if isinstance(outcome, TooFewCopies):
            try:
                content, ticket = await _by_value(ctx, request, bucket, version, 0, version.size)
            except ClusterError:
                if not await _is_gone(ctx, request, version):
                    raise
                outcome = ContentMissing()
                continue
            content = msgspec.structs.replace(content, etag=version.etag, checksum=checksum or version.checksum)
            command = msgspec.structs.replace(command, content=content, content_of=None, content_size=None, checksum=None)
            outcome = await bring(ctx, command, ticket, bucket)
        if not isinstance(outcome, ContentMissing):
            break
    if not isinstance(outcome, Committed):
        raise refusal(outcome, request)
    body = xml_write.copy_object(etag=outcome.etag, modified_ms=outcome.modified_ms, checksum=outcome.checksum)
    said = [*_source_version(source), *written_version(outcome.version_id)]
    if bucket.lifecycle:
        said += await lifecycle.expiration(ctx, bucket, request.key, outcome.modified_ms, version.size, attributes.tags)
    return xml(body, said)


def _refuse_body(request: S3Request) -> None:
    """Whoever sends one meant something else than a copy."""
    if request.body.length:
        raise S3Error("InvalidRequest", "The request included a body. Requests of this type must not include a non-empty body.")


async def upload_part_copy(ctx: Context, request: S3Request) -> Reply:
    """A range of an object as a part: read once for its MD5 and checksum, stored by reference. S3_SEMANTICS §12."""
    bucket = await ctx.bucket(request)
    _refuse_body(request)
    number = ranges.parse_part_number(request.query["partNumber"])
    given = effective_headers(request)
    headers.refuse_unsupported(given)
    wanted_range = given.get("x-amz-copy-source-range")
    upload = await open_upload(ctx, bucket, request)
    await must_be_own(ctx, bucket, upload)
    outcome: AnyResult = ContentMissing()
    for _ in range(READ_TRIES):
        source = await find_source(ctx, request)
        version = source.version
        start, length = 0, version.size
        if wanted_range is not None:
            start, length = ranges.parse_copy(wanted_range, version.size)
        if length > ctx.settings.single_put_bytes_max:
            raise S3Error("EntityTooLarge", ProposedSize=length, MaxSizeAllowed=ctx.settings.single_put_bytes_max)
        algorithm = upload.checksum_algorithm or checksums.DEFAULT
        ticket: Generation | None = None
        try:
            if isinstance(outcome, TooFewCopies):
                hasher = checksums.Expected().hasher(algorithm)
                content, ticket = await _by_value(ctx, request, bucket, version, start, length, hasher)
            else:
                content = await reference(ctx, request, bucket, version, start, length, algorithm)
        except _TooFew:
            outcome = TooFewCopies(wanted=0)
            continue
        except ClusterError:
            if not await _is_gone(ctx, request, version):
                raise
            continue  # deleted or replaced while it was read
        outcome = await bring(ctx, PutPart(
            bucket=bucket.id, key=request.key, upload_id=upload.upload_id, number=number, content=content
        ), ticket, bucket)
        if isinstance(outcome, TooFewCopies):
            continue
        if not isinstance(outcome, ContentMissing | ChunkMissing):
            break
    if not isinstance(outcome, PartStored):
        raise refusal(outcome, request)
    checksum = content.checksum if upload.checksum_algorithm else None
    body = xml_write.copy_part(etag=content.etag, modified_ms=outcome.modified_ms, checksum=checksum)
    return xml(body, _source_version(source))


async def find_source(ctx: Context, request: S3Request) -> Source:
    """What x-amz-copy-source names, readable and under the conditions of the request."""
    given = effective_headers(request)
    named = names.parse_copy_source(given["x-amz-copy-source"])
    bucket = await ctx.source_bucket(named.bucket, request)
    if named.version_id is None:
        version = await ctx.metadata.current(bucket.id, named.key)
    else:
        version = await ctx.metadata.version(bucket.id, named.key, parse_version_id(named.version_id))
    tags = (ctx.operation.name == "CopyObject" and version is not None and bool(version.attributes.tags)
            and not headers.replaces(given, "tagging"))
    actions = needed_of_source(versioned=named.version_id is not None, tags=tags)
    await ctx.require_source(bucket, request, named.key, version, actions, named.version_id)
    if named.version_id is None:
        if version is None or version.delete_marker:
            raise await ctx.absent(bucket, request, S3Error("NoSuchKey", Key=named.key))
    else:
        if version is None:
            raise await ctx.absent(bucket, request, S3Error("NoSuchVersion", Key=named.key, VersionId=named.version_id))
        if version.delete_marker:
            raise S3Error("InvalidRequest", "The source of a copy request may not specifically refer to a delete "
                          "marker by version id.")
    conditions.check_copy_source(
        given, etag=version.etag, modified_ms=version.modified_ms, now_ms=request.now_ms
    )
    archives.must_be_copyable(ctx, version, request.now_ms)
    return Source(bucket, version)


def _source_version(source: Source) -> list[tuple[str, str]]:
    if not source.bucket.versioning:
        return []
    return [("x-amz-copy-source-version-id", source.version.version_id)]


def _merged(source: Attributes, asked: Attributes, replace_metadata: bool, replace_tags: bool) -> Attributes:
    """COPY and REPLACE take all of one side, nothing is merged; storage class and redirect are always as asked."""
    base = asked if replace_metadata else source
    kept = tuple(pair for pair in base.headers if pair[0] != headers.REDIRECT)
    redirect = tuple(pair for pair in asked.headers if pair[0] == headers.REDIRECT)
    return Attributes(
        content_type=base.content_type, headers=kept + redirect, metadata=base.metadata,
        tags=asked.tags if replace_tags else source.tags, storage_class=asked.storage_class, lock=asked.lock, acl=asked.acl,
    )


def _is_itself(bucket: Bucket, request: S3Request, source: Source) -> bool:
    """Whether the object would be copied onto itself: S3 takes that for a mistake where the request names nothing to change,
    and for no mistake where what it names is so already."""
    version = source.version
    return source.bucket.id == bucket.id and version.key == request.key and version.latest


async def _copied_checksum(ctx: Context, version: ObjectVersion, algorithm: str | None) -> Checksum | None:
    """The copy's own checksum where it isn't the source's. A composite one stays with its ETag (the parts are kept)."""
    known = version.checksum
    if algorithm is None or (known is not None and known.algorithm == algorithm and known.kind == "FULL_OBJECT"):
        return None
    hasher = checksums.Expected().hasher(algorithm)
    await _hash(stream_body(ctx, version.content, [], 0, version.size), hasher)
    return Checksum(*hasher.finish().checksum)


async def _is_gone(ctx: Context, request: S3Request, version: ObjectVersion) -> bool:
    """Whether the source is another one by now."""
    return (await find_source(ctx, request)).version.content != version.content


class _TooFew(Unavailable):
    """TooFewCopies, of a page."""


async def _by_value(
    ctx: Context, request: S3Request, bucket: Bucket, version: ObjectVersion, start: int, length: int,
    hasher: checksums.Hasher | None = None,
) -> tuple[NewContent, Generation | None]:
    """The bytes, stored again with as many copies as the bucket wants. ETag and checksum are the hasher's, if there is one."""
    cutter = Cutter(ctx, request, whole_sha256=False, bucket=bucket, length=length)
    complete = False
    try:
        async for piece in stream_body(ctx, version.content, [], start, length):
            await cutter.add([memoryview(piece)], _nothing if hasher is None else hasher.update)
        cut = await cutter.finish()
        complete = True
    finally:
        if not complete:
            await cutter.abort()
    content = NewContent(size=length, etag="", slices=cut.slices, chunks=cut.chunks, staged=cut.staged)
    if hasher is not None:
        digests = hasher.finish()
        content = msgspec.structs.replace(content, etag=digests.md5, checksum=Checksum(*digests.checksum))
    return content, cut.ticket


def _nothing(view: memoryview) -> None:
    """What the bytes hash to is known."""


async def reference(
    ctx: Context, request: S3Request, bucket: Bucket, version: ObjectVersion, start: int, length: int, algorithm: str,
    *, before: Generation | None = None,
) -> NewContent:
    """`length` bytes of the version as a content that brings no chunks. Long lists of slices are staged in pages; all of them,
    in the session of that ticket, if the slices of its command are to follow, and then nothing is read (append)."""
    known = version.checksum
    if before is not None:
        hasher = None
    elif length == version.size and not version.part_count and known is not None and known.algorithm == algorithm:
        hasher = None  # all that a read would tell is known
    else:
        hasher = checksums.Expected().hasher(algorithm)
    staged: ContentId | None = None
    page: tuple[Slice, ...] = ()
    at, end = start, start + length
    complete = False
    try:
        while at < end:
            if page:
                staged = await _stage(ctx, request, bucket, page, staged, before)
            located = await ctx.metadata.slices(version.content, at, end - at)
            page = tuple([Slice(part.digest, part.start, part.length) for part in located])
            if not page:
                raise Corrupt(f"content {version.content} of {version.key!r} has no bytes at {at}")
            if hasher is not None:
                await _hash(_bytes_of(ctx, located), hasher)
            at += sum([part.length for part in page])
        if before is not None:
            staged, page = await _stage(ctx, request, bucket, page, staged, before), ()
        complete = True
    finally:
        if not complete and staged is not None:
            ctx.metadata.abandon(staged)
    if hasher is None:
        return NewContent(size=length, etag=version.etag, slices=page, staged=staged, checksum=known)
    digests = hasher.finish()
    return NewContent(
        size=length, etag=digests.md5, slices=page, staged=staged, checksum=Checksum(*digests.checksum)
    )


async def _stage(
    ctx: Context, request: S3Request, bucket: Bucket, page: tuple[Slice, ...], into: ContentId | None,
    before: Generation | None,
) -> ContentId:
    ticket = None if before is None or into is not None else ctx.metadata.reserve_beside(before)
    outcome = await ctx.metadata.commit(StageContent(slices=page, into=into, bucket=bucket.id), ticket)
    if isinstance(outcome, TooFewCopies):
        raise _TooFew(f"the source of {request.key!r} has fewer copies than this bucket wants")
    if isinstance(outcome, ChunkMissing):
        raise Unavailable(f"the source of {request.key!r} went away while it was copied")
    if not isinstance(outcome, Staged):
        raise refusal(outcome, request)
    return outcome.content


async def _bytes_of(ctx: Context, slices: list[LocatedSlice]) -> AsyncIterator[bytes]:
    for part in slices:
        async for piece in ctx.replicas.read(part):
            yield piece


async def _hash(pieces: AsyncIterator[bytes], hasher: checksums.Hasher) -> None:
    """Hash one piece in a thread while the next is read."""
    under_way: asyncio.Future[None] | None = None
    async for piece in pieces:
        if under_way is not None:
            await under_way
        under_way = in_thread(hasher.update, [memoryview(piece)])
    if under_way is not None:
        await under_way
