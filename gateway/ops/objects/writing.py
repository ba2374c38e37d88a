"""Writing and deleting objects. The deciding step is always one command in the log, its conditions inside it."""

import asyncio
import logging
from collections.abc import Collection, Mapping

import msgspec

from consensus.core.commands import Condition, DeleteVersion, PutVersion
from consensus.core.errors import ClusterError, Unavailable
from consensus.core.ids import VersionId
from consensus.core.model import Attributes, Bucket, Lock
from consensus.core.results import Committed, ConditionFailed, Deleted, NoKey, NoObjectLock
from gateway.ops import settings
from gateway.ops.access.acls import of_new_object
from gateway.ops.buckets import lifecycle
from gateway.ops.buckets.notification import origin_of
from gateway.ops.context import Context
from gateway.ops.objects.versions import named_version, new_version_id
from gateway.ops.refusals import refusal
from gateway.ops.replies import checksum_headers, written_version, xml
from gateway.ops.uploads.bringing import bring
from gateway.ops.uploads.upload import parsed, read_body, store
from gateway.s3 import conditions, headers, locks, names
from gateway.s3.body import checksums
from gateway.s3.errors import S3Error
from gateway.s3.reply import DeletedKey, Reply
from gateway.s3.request import S3Request
from gateway.s3.signing.hoisting import effective_headers
from gateway.s3.xml import read as xml_read
from gateway.s3.xml import write as xml_write

log = logging.getLogger("staddle.ops")


async def put_object(ctx: Context, request: S3Request) -> Reply:
    """Store the body as the newest version of the key."""
    bucket = await ctx.bucket(request)
    given = effective_headers(request)
    attributes = put_attributes(given, request.now_ms, ctx.settings.storage_classes)
    new = await of_new_object(ctx, bucket, request.key, given)
    if new.acl is not None:
        attributes = msgspec.structs.replace(attributes, acl=new.acl)
    condition = write_condition(request.headers)
    if condition:
        await _refuse_early(ctx, request, bucket, condition)
    expected = checksums.Expected.from_headers(given)
    if attributes.lock is not None:
        await _may_lock(ctx, request, bucket, expected)
    stored = await store(ctx, request, expected.hasher(), bucket)
    outcome = await bring(
        ctx,
        PutVersion(
            bucket=bucket.id, key=request.key, version_id=new_version_id(), attributes=attributes,
            owner=new.owner, content=stored.content, condition=condition,
            origin=origin_of(ctx, request, bucket),
        ),
        stored.ticket, bucket,
    )
    if not isinstance(outcome, Committed):
        raise refusal(outcome, request)
    reply = Reply(headers=[
        ("etag", f'"{outcome.etag}"'), *checksum_headers(outcome.checksum), *written_version(outcome.version_id)
    ])
    if bucket.lifecycle:
        reply.headers += await lifecycle.expiration(
            ctx, bucket, request.key, outcome.modified_ms, stored.content.size, attributes.tags)
    return reply


async def _may_lock(ctx: Context, request: S3Request, bucket: Bucket, expected: checksums.Expected) -> None:
    """Spare the body of a version that may not be locked. S3Error InvalidRequest."""
    if await settings.OBJECT_LOCK.of(ctx.metadata, bucket.id) is None:
        raise refusal(NoObjectLock(), request)
    if expected.md5 is None and not expected.algorithm:
        raise S3Error("InvalidRequest", "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests "
                      "with Object Lock parameters")


async def _refuse_early(ctx: Context, request: S3Request, bucket: Bucket, condition: Condition) -> None:
    """Spare the body of a write that would be refused now. What is decided is decided by the command, later."""
    version = await ctx.metadata.current(bucket.id, request.key)
    exists = version is not None and not version.delete_marker
    if condition.if_none_match is not None and exists:
        raise refusal(ConditionFailed(condition="If-None-Match"), request)
    if condition.if_match is not None and not exists:
        raise refusal(NoKey(), request)


async def delete_object(ctx: Context, request: S3Request) -> Reply:
    """Remove a version, or put a delete marker in a versioned bucket. Deleting what isn't there succeeds."""
    bucket = await ctx.bucket(request)
    bypass = await _bypass(ctx, request, bucket)
    command = DeleteVersion(
        bucket=bucket.id, key=request.key, version_id=named_version(request.query.get("versionId")),
        marker_id=new_version_id(), owner=await ctx.owner_of_new(bucket, {}),
        condition=Condition(if_match=conditions.for_delete(request.headers)), bypass=bypass,
        origin=origin_of(ctx, request, bucket),
    )
    outcome = await ctx.metadata.commit(command)
    if not isinstance(outcome, Deleted):
        raise refusal(outcome, request)
    reply = Reply(status=204)
    if outcome.delete_marker:
        reply.headers.append(("x-amz-delete-marker", "true"))
    if outcome.version_id is not None:
        reply.headers.append(("x-amz-version-id", outcome.version_id))
    return reply


async def _bypass(ctx: Context, request: S3Request, bucket: Bucket) -> bool:
    """Whether retention in GOVERNANCE mode is to be passed over. S3Error where there is no lock."""
    given = effective_headers(request)
    if locks.BYPASS in given and await settings.OBJECT_LOCK.of(ctx.metadata, bucket.id) is None:
        raise headers.no_lock_to_bypass()
    return locks.bypass(given)


async def delete_objects(ctx: Context, request: S3Request) -> Reply:
    """Up to 1,000 keys. Each is its own command with its own outcome; the status is 200 whatever they are."""
    bucket = await ctx.bucket(request)
    bypass = await _bypass(ctx, request, bucket)
    body = await read_body(ctx, request, xml_read.DELETE_BYTES_MAX, digest_required=True)
    wanted = await parsed(xml_read.delete, body)
    # All at once: the commands travel together in a few log entries.
    results = await asyncio.gather(*(_delete_one(ctx, request, bucket, entry, bypass) for entry in wanted.objects))
    reply = xml(xml_write.delete_result(results, quiet=wanted.quiet))
    reply.deleted = [DeletedKey(each.key, each.version_id or "", each.code if isinstance(each, xml_write.NotDeleted) else "")
                     for each in results]
    return reply


async def _delete_one(
    ctx: Context, request: S3Request, bucket: Bucket, entry: xml_read.ObjectToDelete, bypass: bool
) -> xml_write.Deleted | xml_write.NotDeleted:
    try:
        names.check_key(entry.key)
        if not ctx.unlimited_in(bucket):
            actions = ["s3:DeleteObject" if entry.version_id is None else "s3:DeleteObjectVersion"]
            actions += ["s3:GetObject"] if entry.etag is not None else []
            actions += ["s3:BypassGovernanceRetention"] if bypass else []
            keys = {} if entry.version_id is None else {"s3:versionid": (entry.version_id,)}
            await ctx.require(bucket, request, tuple(actions), key=entry.key, keys=keys)
        if entry.size is not None or entry.last_modified is not None:
            raise S3Error("NotImplemented", "Deleting under a condition on size or time is not implemented.")
        outcome = await ctx.metadata.commit(DeleteVersion(
            bucket=bucket.id, key=entry.key, version_id=_version_of(entry),
            marker_id=new_version_id(), owner=await ctx.owner_of_new(bucket, {}), condition=Condition(if_match=entry.etag),
            bypass=bypass, origin=origin_of(ctx, request, bucket),
        ))
        if not isinstance(outcome, Deleted):
            raise refusal(outcome, request, key=entry.key)
    except S3Error as error:
        return xml_write.NotDeleted(entry.key, error.code, error.message, entry.version_id)
    except ClusterError as error:
        # Says nothing about the other keys. Clients try these again.
        log.warning("DeleteObjects %s: %r: %s", request.id, entry.key, error)
        known = S3Error("SlowDown" if isinstance(error, Unavailable) else "InternalError")
        return xml_write.NotDeleted(entry.key, known.code, known.message, entry.version_id)
    return xml_write.Deleted(
        entry.key, entry.version_id, outcome.delete_marker, outcome.version_id if outcome.delete_marker else None
    )


def _version_of(entry: xml_read.ObjectToDelete) -> VersionId | None:
    """What can't be a version's id is said not to be there, where the list goes on; alone it is a bad argument."""
    try:
        return named_version(entry.version_id)
    except S3Error:
        raise S3Error("NoSuchVersion") from None


def put_attributes(given: Mapping[str, str], now_ms: int, storage_classes: Collection[str] = headers.STORAGE_CLASSES
                   ) -> Attributes:
    """What the request says about the object. S3Error for what S3 refuses, and for what would be silently lost."""
    stored = headers.stored(given, now_ms, storage_classes)
    return Attributes(
        content_type=stored.content_type, headers=stored.headers, metadata=stored.metadata, tags=stored.tags,
        storage_class=stored.storage_class, lock=None if stored.lock is None else Lock(*stored.lock),
    )


def write_condition(given: Mapping[str, str]) -> Condition:
    wanted = conditions.for_write(given)
    return Condition(if_match=wanted.if_match, if_none_match=wanted.if_none_match)
