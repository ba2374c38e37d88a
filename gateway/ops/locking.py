"""Object lock: configuration of a bucket, retention and legal hold of versions (S3_SEMANTICS §15).

What is protected is decided in the log (consensus/apply/locks.py); here it is only said and asked.
"""

from consensus.core.commands import SetLegalHold, SetObjectLock, SetRetention
from consensus.core.model import Bucket, LockDefault
from consensus.core.results import AnyResult, Changed, Done, IsMarker
from gateway.ops import settings
from gateway.ops.context import Context
from gateway.ops.reading import find, is_marker
from gateway.ops.refusals import refusal
from gateway.ops.replies import read_version, xml
from gateway.ops.versions import parse_version_id
from gateway.s3 import locks
from gateway.s3.errors import S3Error
from gateway.s3.hoisting import effective_headers
from gateway.s3.reply import Reply
from gateway.s3.request import S3Request
from gateway.s3.xml_read import SMALL_BYTES_MAX


async def get_object_lock_configuration(ctx: Context, request: S3Request) -> Reply:
    found: LockDefault = await settings.get(ctx, request, settings.OBJECT_LOCK)
    return xml(locks.write_configuration(found.mode, found.days, found.years))


async def put_object_lock_configuration(ctx: Context, request: S3Request) -> Reply:
    wanted = locks.read_configuration(await settings.body(ctx, request, SMALL_BYTES_MAX))
    bucket = await ctx.bucket(request)
    default = LockDefault(mode=wanted.mode, days=wanted.days, years=wanted.years)
    outcome = await ctx.metadata.commit(SetObjectLock(bucket=bucket.id, default=default))
    if not isinstance(outcome, Done):
        raise refusal(outcome, request)
    return Reply()


async def get_object_retention(ctx: Context, request: S3Request) -> Reply:
    bucket, version, _ = await find(ctx, request)
    await _locked_bucket(ctx, bucket)
    lock = version.attributes.lock
    if lock is None or not lock.mode:
        raise S3Error("NoSuchObjectLockConfiguration", Key=request.key)
    return xml(locks.write_retention(lock.mode, lock.until_ms), read_version(bucket, version.version_id))


async def put_object_retention(ctx: Context, request: S3Request) -> Reply:
    wanted = locks.read_retention(await settings.body(ctx, request, SMALL_BYTES_MAX), request.now_ms)
    bucket = await ctx.bucket(request)
    named = request.query.get("versionId")
    return _answer(request, await ctx.metadata.commit(SetRetention(
        bucket=bucket.id, key=request.key, mode=wanted.mode, until_ms=wanted.until_ms,
        version_id=None if named is None else parse_version_id(named), bypass=locks.bypass(effective_headers(request)))))


async def get_object_legal_hold(ctx: Context, request: S3Request) -> Reply:
    bucket, version, _ = await find(ctx, request)
    await _locked_bucket(ctx, bucket)
    lock = version.attributes.lock
    if lock is None:
        raise S3Error("NoSuchObjectLockConfiguration", Key=request.key)
    return xml(locks.write_legal_hold(lock.legal_hold), read_version(bucket, version.version_id))


async def put_object_legal_hold(ctx: Context, request: S3Request) -> Reply:
    on = locks.read_legal_hold(await settings.body(ctx, request, SMALL_BYTES_MAX))
    bucket = await ctx.bucket(request)
    named = request.query.get("versionId")
    return _answer(request, await ctx.metadata.commit(SetLegalHold(
        bucket=bucket.id, key=request.key, on=on, version_id=None if named is None else parse_version_id(named))))


async def _locked_bucket(ctx: Context, bucket: Bucket) -> None:
    if await settings.find(ctx, bucket, settings.OBJECT_LOCK) is None:
        raise S3Error("InvalidRequest", "Bucket is missing Object Lock Configuration")


def _answer(request: S3Request, outcome: AnyResult) -> Reply:
    if isinstance(outcome, IsMarker):
        raise is_marker(request, outcome.version_id, outcome.modified_ms, named=True)
    if not isinstance(outcome, Changed):
        raise refusal(outcome, request)
    return Reply(headers=[] if outcome.version_id is None else [("x-amz-version-id", outcome.version_id)])
