"""Object lock: configuration of a bucket, retention and legal hold of versions (S3_SEMANTICS §15).

What is protected is decided in the log (consensus/apply/locks.py); here it is only said and asked.
"""

from consensus.core.commands import SetLegalHold, SetObjectLock, SetRetention
from consensus.core.model import Bucket, LockDefault
from consensus.core.results import Done, WrongBucketState
from gateway.ops import settings
from gateway.ops.buckets.notification import origin_of
from gateway.ops.context import Context
from gateway.ops.objects.reading import changed, find
from gateway.ops.objects.versions import named_version
from gateway.ops.refusals import refusal
from gateway.ops.replies import read_version, xml
from gateway.s3 import locks
from gateway.s3.errors import S3Error
from gateway.s3.policy.actions import needed
from gateway.s3.policy.context import of_lock
from gateway.s3.reply import Reply
from gateway.s3.request import S3Request
from gateway.s3.signing.hoisting import effective_headers
from gateway.s3.xml.read import SMALL_BYTES_MAX


async def get_object_lock_configuration(ctx: Context, request: S3Request) -> Reply:
    found: LockDefault = await settings.get(ctx, request, settings.OBJECT_LOCK)
    return xml(locks.write_configuration(found.mode, found.days, found.years))


async def put_object_lock_configuration(ctx: Context, request: S3Request) -> Reply:
    bucket, body = await settings.sent(ctx, request, SMALL_BYTES_MAX)
    wanted = locks.read_configuration(body)
    default = LockDefault(mode=wanted.mode, days=wanted.days, years=wanted.years)
    outcome = await ctx.metadata.commit(SetObjectLock(bucket=bucket.id, default=default))
    if isinstance(outcome, WrongBucketState):
        raise S3Error("InvalidBucketState", "Versioning must be 'Enabled' on the bucket to apply a Object Lock configuration")
    if not isinstance(outcome, Done):
        raise refusal(outcome, request)
    return Reply()


async def get_object_retention(ctx: Context, request: S3Request) -> Reply:
    bucket, version, _ = await find(ctx, request)
    await _locked_bucket(ctx, bucket)
    lock = version.attributes.lock
    if lock is None or not lock.mode:
        raise S3Error("NoSuchObjectLockConfiguration")
    return xml(locks.write_retention(lock.mode, lock.until_ms), read_version(bucket, version.version_id))


async def put_object_retention(ctx: Context, request: S3Request) -> Reply:
    bucket, body = await settings.sent(ctx, request, SMALL_BYTES_MAX, empty="MalformedXML")
    wanted = locks.read_retention(body, request.now_ms)
    keys = of_lock(wanted.mode, wanted.until_ms or None, None, request.now_ms)
    await ctx.require(bucket, request, needed(ctx.operation, request.query, effective_headers(request)), keys=keys)
    return changed(request, await ctx.metadata.commit(SetRetention(
        bucket=bucket.id, key=request.key, mode=wanted.mode, until_ms=wanted.until_ms,
        version_id=named_version(request.query.get("versionId")), bypass=locks.bypass(effective_headers(request)),
        origin=origin_of(ctx, request, bucket))))


async def get_object_legal_hold(ctx: Context, request: S3Request) -> Reply:
    bucket, version, _ = await find(ctx, request)
    await _locked_bucket(ctx, bucket)
    lock = version.attributes.lock
    if lock is None or (lock.mode and not lock.legal_hold and not version.attributes.hold_off):
        raise S3Error("NoSuchObjectLockConfiguration")      # what has a retention was never said to be held
    return xml(locks.write_legal_hold(lock.legal_hold), read_version(bucket, version.version_id))


async def put_object_legal_hold(ctx: Context, request: S3Request) -> Reply:
    bucket, body = await settings.sent(ctx, request, SMALL_BYTES_MAX, empty="MalformedXML")
    on = locks.read_legal_hold(body)
    keys = of_lock(None, None, "ON" if on else "OFF", request.now_ms)
    await ctx.require(bucket, request, needed(ctx.operation, request.query, {}), keys=keys)
    return changed(request, await ctx.metadata.commit(SetLegalHold(
        bucket=bucket.id, key=request.key, on=on, version_id=named_version(request.query.get("versionId")), remembered=True)))


async def _locked_bucket(ctx: Context, bucket: Bucket) -> None:
    if await settings.OBJECT_LOCK.of(ctx.metadata, bucket.id) is None:
        raise S3Error("InvalidRequest", "Bucket is missing Object Lock Configuration")
