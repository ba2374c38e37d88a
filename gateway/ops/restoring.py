"""RestoreObject: an archived object may be read for so many days, from now on. Whether it had to be: gateway/ops/archives.py."""

from consensus.core.commands import SetRestored
from consensus.core.ids import VersionId
from gateway.ops import archives, settings
from gateway.ops.context import Context
from gateway.ops.notification import origin_of
from gateway.ops.reading import changed, find
from gateway.s3 import restore
from gateway.s3.reply import Reply
from gateway.s3.request import S3Request
from gateway.s3.xml_read import SMALL_BYTES_MAX


async def restore_object(ctx: Context, request: S3Request) -> Reply:
    """202 where it had to be restored, 200 where it was, and now is for as long as asked. It is done at once."""
    _, body = await settings.sent(ctx, request, SMALL_BYTES_MAX)
    wanted = restore.read(body)
    bucket, version, _ = await find(ctx, request)
    storage_class = version.attributes.storage_class
    if storage_class not in restore.ARCHIVES and storage_class not in ctx.settings.archive_classes:
        raise restore.not_archived(storage_class)
    outcome = await ctx.metadata.commit(SetRestored(
        bucket=bucket.id, key=request.key, storage_class=storage_class, until_ms=restore.until(request.now_ms, wanted.days),
        version_id=VersionId(version.version_id) if bucket.versioning else None, origin=origin_of(ctx, request, bucket)))
    changed(request, outcome)            # raises what it was refused with
    return Reply(status=200 if archives.restored(version, request.now_ms) else 202)
