"""Object ownership: whose the objects are that others write into a bucket, and so whether access lists count at all."""

from gateway.bucket_access import ENFORCED, OWNERSHIP, PREFERRED, WRITER
from gateway.ops import settings
from gateway.ops.context import Context
from gateway.ops.replies import xml
from gateway.s3 import acl
from gateway.s3.errors import S3Error
from gateway.s3.reply import Reply
from gateway.s3.request import S3Request
from gateway.s3.xml import read as xml_read
from gateway.s3.xml import write as xml_write

MODES = (ENFORCED, PREFERRED, WRITER)


async def put_bucket_ownership_controls(ctx: Context, request: S3Request) -> Reply:
    """Lists can't be turned off while the bucket's own grants something to others: they would lose it silently."""
    bucket, body = await settings.sent(ctx, request, xml_read.SMALL_BYTES_MAX)
    mode = xml_read.ownership_controls(body, MODES)
    if mode == ENFORCED and acl.grants_others((await ctx.rules_of(bucket)).acl, bucket.owner):
        raise S3Error("InvalidBucketAclWithObjectOwnership")
    return await settings.put(ctx, request, bucket, OWNERSHIP, mode)


async def get_bucket_ownership_controls(ctx: Context, request: S3Request) -> Reply:
    bucket = await ctx.bucket(request)
    mode = (await ctx.rules_of(bucket)).ownership
    if not mode:
        raise S3Error(OWNERSHIP.missing, BucketName=bucket.name)
    return xml(xml_write.ownership_controls(mode))


async def delete_bucket_ownership_controls(ctx: Context, request: S3Request) -> Reply:
    """From then on as it was before there was anything to set: objects are their writers'."""
    return await settings.put(ctx, request, await ctx.bucket(request), OWNERSHIP, "", 204)
