"""Tags of an object's version, and of a bucket: shown, replaced, removed (S3_SEMANTICS §16)."""

from consensus.core.commands import SetTags
from consensus.core.model import Pairs
from consensus.core.results import Changed, IsMarker
from gateway.ops import settings
from gateway.ops.context import Context
from gateway.ops.reading import find, is_marker
from gateway.ops.refusals import refusal
from gateway.ops.replies import read_version, xml
from gateway.ops.versions import parse_version_id
from gateway.s3 import tags, xml_read, xml_write
from gateway.s3.reply import Reply
from gateway.s3.request import S3Request


async def get_object_tagging(ctx: Context, request: S3Request) -> Reply:
    """The tags, in the order in which they were given; none is an empty set."""
    bucket, version, _ = await find(ctx, request)
    return xml(xml_write.tagging(version.attributes.tags), read_version(bucket, version.version_id))


async def put_object_tagging(ctx: Context, request: S3Request) -> Reply:
    """The given tags take the place of all that were there. ETag and Last-Modified stay."""
    wanted = xml_read.tagging(await settings.body(ctx, request, xml_read.SMALL_BYTES_MAX))
    tags.check(wanted, tags.OBJECT_TAGS_MAX)
    return await _set(ctx, request, wanted, 200)


async def delete_object_tagging(ctx: Context, request: S3Request) -> Reply:
    """Succeeds also where there were none."""
    return await _set(ctx, request, (), 204)


async def _set(ctx: Context, request: S3Request, wanted: Pairs, status: int) -> Reply:
    bucket = await ctx.bucket(request)
    named = request.query.get("versionId")
    version_id = None if named is None else parse_version_id(named)
    outcome = await ctx.metadata.commit(
        SetTags(bucket=bucket.id, key=request.key, tags=wanted, version_id=version_id))
    if isinstance(outcome, IsMarker):
        raise is_marker(request, outcome.version_id, outcome.modified_ms, named=True)
    if not isinstance(outcome, Changed):
        raise refusal(outcome, request)
    return Reply(status=status, headers=[] if outcome.version_id is None else [("x-amz-version-id", outcome.version_id)])


async def get_bucket_tagging(ctx: Context, request: S3Request) -> Reply:
    found: Pairs = await settings.get(ctx, request, settings.TAGS)
    return xml(xml_write.tagging(found))


async def put_bucket_tagging(ctx: Context, request: S3Request) -> Reply:
    wanted = xml_read.tagging(await settings.body(ctx, request, xml_read.SMALL_BYTES_MAX))
    tags.check(wanted, tags.BUCKET_TAGS_MAX)
    return await settings.put(ctx, request, settings.TAGS, wanted, 204)


async def delete_bucket_tagging(ctx: Context, request: S3Request) -> Reply:
    return await settings.put(ctx, request, settings.TAGS, None, 204)
