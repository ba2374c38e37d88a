"""Tags of an object's version, and of a bucket: shown, replaced, removed (S3_SEMANTICS §16)."""

from consensus.core.commands import SetTags
from consensus.core.model import Bucket, Pairs
from gateway.ops import settings
from gateway.ops.buckets.notification import origin_of
from gateway.ops.context import Context
from gateway.ops.objects.reading import changed, find
from gateway.ops.objects.versions import named_version
from gateway.ops.replies import read_version, xml
from gateway.s3 import tags
from gateway.s3.errors import S3Error
from gateway.s3.policy.actions import needed
from gateway.s3.policy.context import of_new_tags
from gateway.s3.reply import Reply
from gateway.s3.request import S3Request
from gateway.s3.xml import read as xml_read
from gateway.s3.xml import write as xml_write


async def get_object_tagging(ctx: Context, request: S3Request) -> Reply:
    """The tags, in the order in which they were given; none is an empty set. Of a key that isn't there AWS says here, and
    nowhere else, the bucket too."""
    try:
        bucket, version, _ = await find(ctx, request, marker_refused=True)
    except S3Error as error:
        if error.code == "NoSuchKey":
            raise S3Error("NoSuchKey", headers=error.headers, Key=f"{request.bucket}/{request.key}") from None
        raise
    return xml(xml_write.tagging(version.attributes.tags), read_version(bucket, version.version_id))


async def put_object_tagging(ctx: Context, request: S3Request) -> Reply:
    """The given tags take the place of all that were there. ETag and Last-Modified stay."""
    bucket, body = await settings.sent(ctx, request, xml_read.SMALL_BYTES_MAX)
    wanted = xml_read.tagging(body)
    tags.check(wanted, tags.OBJECT_TAGS_MAX)
    await ctx.require(bucket, request, needed(ctx.operation, request.query, {}), keys=of_new_tags(wanted))
    return await _set(ctx, request, bucket, wanted, 200)


async def delete_object_tagging(ctx: Context, request: S3Request) -> Reply:
    """Succeeds also where there were none."""
    return await _set(ctx, request, await ctx.bucket(request), (), 204)


async def _set(ctx: Context, request: S3Request, bucket: Bucket, wanted: Pairs, status: int) -> Reply:
    version_id = named_version(request.query.get("versionId"))
    outcome = await ctx.metadata.commit(
        SetTags(bucket=bucket.id, key=request.key, tags=wanted, version_id=version_id,
                origin=origin_of(ctx, request, bucket, "ObjectTagging:Delete" if status == 204 else "ObjectTagging:Put")))
    return changed(request, outcome, status)


async def get_bucket_tagging(ctx: Context, request: S3Request) -> Reply:
    found: Pairs = await settings.get(ctx, request, settings.TAGS)
    return xml(xml_write.tagging(found))


async def put_bucket_tagging(ctx: Context, request: S3Request) -> Reply:
    """A bucket with an empty set of tags is one without, which says so with an error."""
    bucket, body = await settings.sent(ctx, request, xml_read.SMALL_BYTES_MAX, digest_required=True)
    wanted = xml_read.tagging(body)
    tags.check(wanted, tags.BUCKET_TAGS_MAX)
    return await settings.put(ctx, request, bucket, settings.TAGS, wanted or None, 204)


async def delete_bucket_tagging(ctx: Context, request: S3Request) -> Reply:
    return await settings.remove(ctx, request, settings.TAGS)
