"""PutObject with x-amz-write-offset-bytes: bytes after those that an object has. AWS has it in directory buckets, we in all.

The offset must be the object's size; 0 makes an object that isn't there, as any PutObject would. An append changes bytes, size,
ETag, checksum and time. All else stays as the object has it: metadata and the like that the request says are passed over (clients
send the same each time), tags, access list and lock are refused. Where versions are kept, it makes a new one.
*ETag*: the MD5 of the MD5s of what was there and of what came, and the number of parts, as a multipart upload's: no byte of what
was there is read. *Checksum*: a CRC of the whole object goes on as one; an object with another checksum has none from then on,
since none can be told without reading all of it. CopyObject starts the count of appends anew.
"""

import hashlib
from collections.abc import Awaitable, Mapping

import msgspec

from consensus.core.commands import CHUNKS_PER_COMMAND_MAX, AppendVersion, Condition, NewContent
from consensus.core.errors import ClusterError
from consensus.core.model import Bucket, Checksum, ObjectVersion
from consensus.core.results import AnyResult, Committed, ConditionConflict, ConditionFailed, Moved, NoKey, WrongOffset
from gateway.ops.access.acls import of_new_object
from gateway.ops.buckets import lifecycle
from gateway.ops.buckets.notification import origin_of
from gateway.ops.context import Context
from gateway.ops.objects import writing
from gateway.ops.objects.copying import reference
from gateway.ops.objects.versions import new_version_id
from gateway.ops.refusals import refusal
from gateway.ops.replies import checksum_headers, written_version
from gateway.ops.uploads.bringing import bring
from gateway.ops.uploads.upload import Stored, store
from gateway.s3.body import checksums
from gateway.s3.errors import S3Error
from gateway.s3.headers import WRITE_OFFSET
from gateway.s3.reply import Reply
from gateway.s3.request import S3Request
from gateway.s3.signing.hoisting import effective_headers

PARTS_MAX = 10_000
"""AWS's limit: of appends, and of the parts that the object was made of before."""

SLICES_AT_ONCE = CHUNKS_PER_COMMAND_MAX
"""Of what was there and of what came together: more are listed in pages, before the command that decides."""

DIGITS_MAX = 18


def put_object(ctx: Context, request: S3Request) -> Awaitable[Reply]:
    """PutObject: an append, if the request says where."""
    put = append_object if WRITE_OFFSET in effective_headers(request) else writing.put_object
    return put(ctx, request)


async def append_object(ctx: Context, request: S3Request) -> Reply:
    """Store the body after the last byte of the object."""
    bucket = await ctx.bucket(request)
    given = effective_headers(request)
    offset = _parsed(given[WRITE_OFFSET])
    writing.put_attributes({name: value for name, value in given.items() if name != WRITE_OFFSET}, request.now_ms,
                           ctx.settings.storage_classes)       # what is wrong is refused, though nothing of it counts
    condition = writing.write_condition(request.headers)
    expected = checksums.Expected.from_headers(given)
    base = await _base(ctx, request, bucket, offset, condition)
    if base is None:
        return await _create(ctx, request, bucket, condition)
    await _refuse_more(ctx, bucket, request.key, given)
    crc = _crc_of(base)
    stored = await store(ctx, request, expected.hasher(crc) if crc else expected.hasher(), bucket)
    size = offset + stored.content.size
    owed = True
    outcome: AnyResult = Moved()
    try:
        base = await _base(ctx, request, bucket, offset, condition)
        if base is not None and _crc_of(base) == crc:
            if stored.content.size:
                command = await _command(ctx, request, bucket, base, stored, condition)
                owed = False
                outcome = await bring(ctx, command, stored.ticket, bucket)
            else:
                outcome = Committed(version_id=base.version_id if bucket.versioning else None, order=base.order,
                                    modified_ms=base.modified_ms, etag=base.etag, checksum=base.checksum)
    finally:
        if owed:
            _give_back(ctx, stored)
    if isinstance(outcome, Moved):
        raise await _overtaken(ctx, request, bucket, offset, condition)
    if not isinstance(outcome, Committed):
        raise refusal(outcome, request)
    assert base is not None
    reply = Reply(headers=[
        ("etag", f'"{outcome.etag}"'), *checksum_headers(outcome.checksum), ("x-amz-object-size", str(size)),
        *written_version(outcome.version_id)])
    if bucket.lifecycle:
        reply.headers += await lifecycle.expiration(
            ctx, bucket, request.key, outcome.modified_ms, size, base.attributes.tags)
    return reply


async def _overtaken(
    ctx: Context, request: S3Request, bucket: Bucket, offset: int, condition: Condition,
) -> S3Error | ClusterError:
    """Somebody else has written meanwhile. Raises S3Error where what is there now refuses the append by itself."""
    await _base(ctx, request, bucket, offset, condition)
    return refusal(ConditionConflict(condition=WRITE_OFFSET), request)


async def _create(ctx: Context, request: S3Request, bucket: Bucket, condition: Condition) -> Reply:
    """Nothing is there: as any PutObject, as long as nothing is there."""
    plain = msgspec.structs.replace(
        request, query={name: value for name, value in request.query.items() if name.lower() != WRITE_OFFSET},
        headers={**{name: value for name, value in request.headers.items() if name != WRITE_OFFSET}, "if-none-match": "*"})
    try:
        return await writing.put_object(ctx, plain)
    except S3Error as error:
        if error.code == "PreconditionFailed" and condition.if_none_match is None:
            raise await _overtaken(ctx, request, bucket, 0, condition) from None
        raise


async def _refuse_more(ctx: Context, bucket: Bucket, key: str, given: Mapping[str, str]) -> None:
    """What else the request asks for would be dropped, and is not what clients send with every request. S3Error
    AccessControlListNotSupported as for any PutObject, NotImplemented."""
    new = await of_new_object(ctx, bucket, key, given)
    for name, value in given.items():
        if name == "x-amz-tagging" or name.startswith("x-amz-object-lock-") or (new.acl is not None and (
                name.startswith("x-amz-grant-") or (name == "x-amz-acl" and value != "private"))):
            raise S3Error("NotImplemented", Header=name,
                          additionalMessage="An append changes nothing of an object but its bytes.")


def _give_back(ctx: Context, stored: Stored) -> None:
    if stored.ticket is not None:
        ctx.metadata.release(stored.ticket)
    if stored.content.staged is not None:
        ctx.metadata.abandon(stored.content.staged)


def _parsed(text: str) -> int:
    digits = text.strip()
    if not digits.isascii() or not digits.isdecimal() or len(digits) > DIGITS_MAX:
        raise S3Error("InvalidArgument", "The write offset must be a non-negative integer.", ArgumentName=WRITE_OFFSET,
                      ArgumentValue=text)
    return int(digits)


async def _base(
    ctx: Context, request: S3Request, bucket: Bucket, offset: int, condition: Condition,
) -> ObjectVersion | None:
    """What is appended to; None where there is nothing, and the offset says so. S3Error for what would be refused."""
    base = await ctx.metadata.current(bucket.id, request.key)
    if base is None or base.delete_marker:
        if condition.if_match is not None:
            raise refusal(NoKey(), request)
        if offset:
            raise refusal(WrongOffset(size=0), request)
        return None
    if base.owner != await ctx.owner_of_new(bucket, effective_headers(request)) and not (await ctx.rules_of(bucket)).acls_off:
        # Whoever may write may replace it, and then owns it; what it says in its owner's name, only that one changes.
        raise S3Error("AccessDenied")
    if condition.if_match is not None and condition.if_match not in ("*", base.etag):
        raise refusal(ConditionFailed(condition="If-Match"), request)
    if condition.if_none_match is not None and condition.if_none_match in ("*", base.etag):
        raise refusal(ConditionFailed(condition="If-None-Match"), request)
    if base.size != offset:
        raise refusal(WrongOffset(size=base.size), request)
    if _parts_of(base) >= PARTS_MAX:
        raise S3Error("TooManyParts")
    return base


def _parts_of(version: ObjectVersion) -> int:
    return version.attributes.appended or max(version.part_count, 1)


def _crc_of(version: ObjectVersion) -> str:
    """The algorithm by which the whole object's checksum can go on; "" if it has none such."""
    known = version.checksum
    if known is None or known.kind != checksums.FULL_OBJECT or checksums.ALGORITHMS[known.algorithm].combine is None:
        return ""
    return known.algorithm


async def _command(
    ctx: Context, request: S3Request, bucket: Bucket, base: ObjectVersion, stored: Stored, condition: Condition,
) -> AppendVersion:
    new, parts = stored.content, _parts_of(base) + 1
    content = msgspec.structs.replace(new, etag=_etag(base, new.etag, parts), checksum=_checksum(base, new))
    if new.staged is not None:
        raise S3Error("EntityTooLarge", "What is appended at once is in more chunks than one append can bring.")
    whole = await _is_long(ctx, bucket, base, len(new.slices))
    if whole:
        assert stored.ticket is not None, "what is appended has bytes"
        before = await reference(ctx, request, bucket, base, 0, base.size, "", before=stored.ticket)
        content = msgspec.structs.replace(content, size=base.size + new.size, staged=before.staged)
    return AppendVersion(
        bucket=bucket.id, key=request.key, version_id=new_version_id(), base=base.order, offset=base.size, content=content,
        appended=parts, whole=whole, condition=condition, origin=origin_of(ctx, request, bucket))


async def _is_long(ctx: Context, bucket: Bucket, base: ObjectVersion, more: int) -> bool:
    """Whether the slices of what was there must be listed anew, and are too many for one command."""
    stays = bucket.versioning == "Enabled" or (bucket.versioning == "Suspended" and base.version_id != "null")
    shape = await ctx.metadata.shape(base.content)
    return shape.slices + more > SLICES_AT_ONCE and (stays or not shape.grows)


def _etag(base: ObjectVersion, md5: str, parts: int) -> str:
    both = bytes.fromhex(base.etag.partition("-")[0] + md5)
    return f"{hashlib.md5(both, usedforsecurity=False).hexdigest()}-{parts}"


def _checksum(base: ObjectVersion, new: NewContent) -> Checksum | None:
    if not _crc_of(base):
        return None
    assert base.checksum is not None
    assert new.checksum is not None
    assert base.checksum.algorithm == new.checksum.algorithm
    return Checksum(*checksums.of_parts(
        base.checksum.algorithm, checksums.FULL_OBJECT,
        ((base.checksum.value, base.size), (new.checksum.value, new.size))))
