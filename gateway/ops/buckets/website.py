"""Website configuration of buckets. What the website endpoint makes of it is in gateway/website/."""

from gateway.bucket_settings import Kind
from gateway.ops import settings
from gateway.ops.context import Context
from gateway.ops.replies import xml
from gateway.s3.reply import Reply
from gateway.s3.request import S3Request
from gateway.s3.website import configuration as website

KIND: Kind[website.Website] = Kind("website", website.Website, "NoSuchWebsiteConfiguration")


async def get_bucket_website(ctx: Context, request: S3Request) -> Reply:
    return xml(website.write(await settings.get(ctx, request, KIND)))


async def put_bucket_website(ctx: Context, request: S3Request) -> Reply:
    bucket, body = await settings.sent(ctx, request, website.BYTES_MAX)
    return await settings.put(ctx, request, bucket, KIND, website.read(body))


async def delete_bucket_website(ctx: Context, request: S3Request) -> Reply:
    return await settings.remove(ctx, request, KIND)
