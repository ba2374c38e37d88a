"""The public access block of a bucket: four switches against access for everybody, whatever lists and policies say.

Removing it is remembered too: a bucket without one isn't a bucket that never had one, where this server's default holds.
"""

from gateway.bucket_access import BLOCK, Block
from gateway.ops import settings
from gateway.ops.context import Context
from gateway.ops.replies import xml
from gateway.s3.errors import S3Error
from gateway.s3.reply import Reply
from gateway.s3.request import S3Request
from gateway.s3.xml import read as xml_read
from gateway.s3.xml import write as xml_write


async def put_public_access_block(ctx: Context, request: S3Request) -> Reply:
    bucket, body = await settings.sent(ctx, request, xml_read.SMALL_BYTES_MAX)
    return await settings.put(ctx, request, bucket, BLOCK, tuple(Block(*xml_read.public_access_block(body))))


async def get_public_access_block(ctx: Context, request: S3Request) -> Reply:
    bucket = await ctx.bucket(request)
    block = (await ctx.rules_of(bucket)).block
    if block is None:
        raise S3Error(BLOCK.missing, BucketName=bucket.name)
    return xml(xml_write.public_access_block(block))


async def delete_public_access_block(ctx: Context, request: S3Request) -> Reply:
    return await settings.put(ctx, request, await ctx.bucket(request), BLOCK, (), 204)
