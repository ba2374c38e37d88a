"""Logging configuration of buckets. What is recorded and delivered is in gateway/bucket_log/."""

from consensus.core.model import Bucket
from gateway.bucket_settings import Kind
from gateway.ops import settings
from gateway.ops.buckets.bucket import place_of
from gateway.ops.context import Context
from gateway.ops.replies import xml
from gateway.s3 import acl, bucket_log
from gateway.s3.bucket_log import Logging
from gateway.s3.errors import S3Error
from gateway.s3.policy.evaluation import Policy
from gateway.s3.reply import Reply
from gateway.s3.request import S3Request
from gateway.s3.xml.read import SMALL_BYTES_MAX

KIND: Kind[Logging] = Kind("logging", Logging, "")
"""A bucket without one says so with an empty document, so there is no code for it."""

_NEEDED = frozenset({"WRITE", "READ_ACP"})


async def get_bucket_logging(ctx: Context, request: S3Request) -> Reply:
    bucket = await ctx.bucket(request)
    found = await KIND.of(ctx.metadata, bucket.id)
    return xml(bucket_log.write(found, ctx.owner))


async def put_bucket_logging(ctx: Context, request: S3Request) -> Reply:
    bucket, body = await settings.sent(ctx, request, SMALL_BYTES_MAX)
    wanted = bucket_log.read(body, ctx.people)
    if wanted is not None:
        await _check_target(ctx, bucket, wanted)
    return await settings.put(ctx, request, bucket, KIND, wanted)


async def _check_target(ctx: Context, bucket: Bucket, wanted: Logging) -> None:
    """As far as AWS looks when logging is set. Where the target's owner owns everything it does not look at the policy: what
    may not be delivered then, is not (gateway/bucket_log/permission.py)."""
    target = await ctx.metadata.bucket(wanted.bucket)
    if target is None:
        raise S3Error("InvalidTargetBucketForLogging", TargetBucket=wanted.bucket)
    if target.account != bucket.account:
        raise S3Error("InvalidTargetBucketForLogging", "The owner for the bucket to be logged and the target bucket must be the "
                      "same.", TargetBucket=target.name)
    here = ctx.settings.region
    if place_of(target, here) != place_of(bucket, here):
        raise S3Error("CrossLocationLoggingProhibitted", "Cross S3 location logging not allowed. ",
                      TargetBucketLocation=place_of(target, here))
    rules = await ctx.rules_of(target)
    if rules.acls_off:
        if wanted.grants:
            raise S3Error("AccessControlListNotSupported")
        return
    granted = {permission for grantee, permission in rules.acl or () if grantee == acl.LOG_DELIVERY}
    if acl.FULL_CONTROL not in granted and not granted >= _NEEDED and not _by_policy(rules.policy):
        raise S3Error("InvalidTargetBucketForLogging", "You must give the log-delivery group WRITE and READ_ACP permissions to "
                      "the target bucket", TargetBucket=target.name)


def _by_policy(policy: Policy | None) -> bool:
    """Whether a statement speaks of the deliverer of logs: under what conditions is looked at when something is delivered."""
    return policy is not None and any(
        statement.allows and statement.principals is not None and bucket_log.SERVICE in statement.principals.services
        for statement in policy.statements)
