"""RenameObject: an object gets another name in its bucket, in one commit. AWS has it in directory buckets, we in all.

Who renames may do no more than who copies, with all that there is to the object, and deletes: so it needs what those need.
Rights and conditions on what is there are judged by the versions that are then named to the command; if one is another by then,
they are judged again. What a rename does to versions is said in consensus/apply/renaming.py.
"""

import hashlib
import re

import msgspec

from consensus.core.commands import Condition, RenameVersion
from consensus.core.model import Bucket, ObjectVersion
from consensus.core.results import AnyResult, Committed, Moved, NoKey, TokenReused
from gateway.ops.buckets.notification import origin_of
from gateway.ops.context import Context
from gateway.ops.objects.reading import READ_TRIES
from gateway.ops.objects.versions import new_version_id
from gateway.ops.refusals import refusal
from gateway.ops.replies import written_version
from gateway.s3 import conditions, names
from gateway.s3.errors import S3Error
from gateway.s3.policy.context import of_lock, of_new_tags
from gateway.s3.reply import Reply
from gateway.s3.request import S3Request
from gateway.s3.signing.hoisting import effective_headers

SOURCE = "x-amz-rename-source"
TOKEN = "x-amz-client-token"

_TOKEN = re.compile(r"[!-~]{1,64}")


async def rename_object(ctx: Context, request: S3Request) -> Reply:
    """The object named by x-amz-rename-source becomes the one of the request. Nothing is read, nothing is lost."""
    bucket = await ctx.bucket(request)
    given = effective_headers(request)
    source = names.parse_rename_source(given.get(SOURCE), request.bucket)
    if source == request.key:
        raise S3Error("InvalidRequest", "This rename request is illegal because the source and the destination are the same.")
    wanted = conditions.for_rename(given)
    token = given.get(TOKEN, "")
    if TOKEN in given and _TOKEN.fullmatch(token) is None:
        raise S3Error("InvalidArgument", "A client token has 1 to 64 visible ASCII characters.", ArgumentName=TOKEN,
                      ArgumentValue=token)
    fingerprint = _fingerprint(ctx, request, source) if token else b""
    outcome: AnyResult = Moved()
    for _ in range(READ_TRIES):
        version = await ctx.metadata.current(bucket.id, source)
        if version is not None and version.delete_marker:
            version = None
        await _may_take(ctx, request, bucket, source, version)
        known = await ctx.metadata.renamed(bucket.id, token) if token else None
        if known is not None and known.fingerprint == fingerprint:
            return Reply(headers=written_version(known.version_id))
        if known is not None:
            raise refusal(TokenReused(), request)
        if version is None:
            raise await ctx.absent(bucket, request, S3Error("NoSuchKey", Key=source))
        conditions.check_rename_source(given, etag=version.etag, modified_ms=version.modified_ms, now_ms=request.now_ms)
        over = await _destination(ctx, request, bucket) if conditions.has_dates(given) else None
        outcome = await ctx.metadata.commit(RenameVersion(
            bucket=bucket.id, source=source, source_order=version.order, key=request.key, version_id=new_version_id(),
            marker_id=new_version_id(), owner=await ctx.owner_of_new(bucket, {}),
            condition=Condition(if_match=wanted.if_match, if_none_match=wanted.if_none_match), over=over, token=token,
            fingerprint=fingerprint, origin=origin_of(ctx, request, bucket)))
        if isinstance(outcome, NoKey) and wanted.if_match is None:
            outcome = Moved()           # the source has gone since we looked
        if not isinstance(outcome, Moved):
            break
    if not isinstance(outcome, Committed):
        raise refusal(outcome, request)
    return Reply(headers=written_version(outcome.version_id))


async def _may_take(
    ctx: Context, request: S3Request, bucket: Bucket, source: str, version: ObjectVersion | None,
) -> None:
    """What the rename needs beside the right to write the new name. S3Error AccessDenied."""
    if ctx.unlimited_in(bucket):
        return
    reads: tuple[str, ...] = ("s3:GetObject", "s3:DeleteObject")
    if version is None:
        await ctx.require_source(bucket, request, source, None, reads)
        return
    attributes = version.attributes
    tags, lock = attributes.tags, attributes.lock
    await ctx.require_source(bucket, request, source, version, (*reads, "s3:GetObjectTagging") if tags else reads)
    writes = ["s3:PutObjectTagging"] if tags else []
    keys = of_new_tags(tags)
    if attributes.acl is not None:
        writes.append("s3:PutObjectAcl")
    if lock is not None:
        writes += ["s3:PutObjectRetention"] if lock.mode else []
        writes += ["s3:PutObjectLegalHold"] if lock.legal_hold else []
        keys = {**keys, **of_lock(lock.mode, lock.until_ms if lock.mode else None, "ON" if lock.legal_hold else None,
                                  request.now_ms)}
    if writes:
        await ctx.require(bucket, request, tuple(writes), keys=keys)


async def _destination(ctx: Context, request: S3Request, bucket: Bucket) -> int:
    """The order of what is at the new name, under the conditions that have a date in them; 0 if nothing is."""
    there = await ctx.metadata.current(bucket.id, request.key)
    given = effective_headers(request)
    if there is None or there.delete_marker:
        conditions.check_rename_to_nothing(given)
        return 0
    conditions.check_rename_destination(given, etag=there.etag, modified_ms=there.modified_ms, now_ms=request.now_ms)
    return there.order


def _fingerprint(ctx: Context, request: S3Request, source: str) -> bytes:
    """Of all that makes a repeat the same request: who asks for what, under which conditions."""
    given = effective_headers(request)
    said = sorted((name, value) for name, value in given.items()
                  if name.startswith(SOURCE) or name in conditions.RENAME_DESTINATION)
    return hashlib.sha256(msgspec.msgpack.encode((ctx.principal.user_id, source, request.key, said))).digest()
