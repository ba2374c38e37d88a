"""A bucket's lifecycle: set, shown, taken away; and what answers about objects and uploads say of it (S3_SEMANTICS §21).

It is carried out elsewhere (gateway/lifecycle/). What is said here is in real days, and of current versions only.
"""

import msgspec

from consensus.core.model import Bucket, Pairs
from gateway.lifecycle.book import KIND
from gateway.ops import settings
from gateway.ops.context import Context
from gateway.ops.replies import Headers, xml
from gateway.ops.uploads.upload import parsed
from gateway.s3.errors import S3Error
from gateway.s3.lifecycle import due as lifecycle_due
from gateway.s3.lifecycle import read as lifecycle_read
from gateway.s3.lifecycle.due import Version
from gateway.s3.lifecycle.rules import BYTES_MAX, MINIMUM_HEADER, write
from gateway.s3.reply import Reply
from gateway.s3.request import S3Request
from gateway.s3.signing.hoisting import effective_headers
from gateway.s3.times import DAY_MS


async def put_bucket_lifecycle_configuration(ctx: Context, request: S3Request) -> Reply:
    """The given rules take the place of all that were there."""
    bucket, body = await settings.sent(ctx, request, BYTES_MAX, digest_required=True)
    minimum = effective_headers(request).get(MINIMUM_HEADER)
    wanted = await parsed(lambda raw: lifecycle_read.read(
        raw, minimum, ctx.settings.storage_classes, settings.new_rule_id, minima=ctx.settings.lifecycle_day_ms == DAY_MS), body)
    if len(msgspec.msgpack.encode(wanted)) > BYTES_MAX:
        raise S3Error("MaxMessageLengthExceeded", MaxMessageLengthBytes=BYTES_MAX)
    reply = await settings.put(ctx, request, bucket, KIND, wanted)
    reply.headers.append((MINIMUM_HEADER, wanted.minimum))
    return reply


async def get_bucket_lifecycle_configuration(ctx: Context, request: S3Request) -> Reply:
    found = await settings.get(ctx, request, KIND)
    return xml(write(found), [(MINIMUM_HEADER, found.minimum)])


async def delete_bucket_lifecycle(ctx: Context, request: S3Request) -> Reply:
    return await settings.remove(ctx, request, KIND)


# What answers about objects say

async def expiration(ctx: Context, bucket: Bucket, key: str, modified_ms: int, size: int, tags: Pairs) -> Headers:
    """x-amz-expiration of a current version, if a rule will make it expire."""
    lifecycle = await ctx.lifecycles.of(ctx.metadata, bucket) if bucket.lifecycle else None
    if lifecycle is None:
        return []
    due = lifecycle_due.expiration(lifecycle, Version(key, modified_ms, size, tags))
    return [] if due is None else [lifecycle_due.expiration_header(due)]


async def upload_abort(ctx: Context, bucket: Bucket, key: str, initiated_ms: int) -> Headers:
    """x-amz-abort-date and x-amz-abort-rule-id of an upload that a rule will abort."""
    lifecycle = await ctx.lifecycles.of(ctx.metadata, bucket) if bucket.lifecycle else None
    if lifecycle is None:
        return []
    due = lifecycle_due.abort(lifecycle, key, initiated_ms)
    return [] if due is None else lifecycle_due.abort_headers(due)
