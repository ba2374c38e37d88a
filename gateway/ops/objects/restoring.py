"""RestoreObject: an archived object may be read for so many days, from now on. Whether it had to be: archives.py."""

from collections.abc import Mapping, Sequence

from consensus import queries
from consensus.core.commands import SetRestored
from consensus.core.ids import VersionId
from consensus.core.model import Bucket, ListedObject
from gateway.ops import settings
from gateway.ops.buckets.notification import origin_of
from gateway.ops.context import Context
from gateway.ops.objects import archives
from gateway.ops.objects.reading import changed, find
from gateway.s3 import restore
from gateway.s3.lifecycle.due import ARCHIVES
from gateway.s3.reply import Reply
from gateway.s3.request import S3Request
from gateway.s3.xml.read import SMALL_BYTES_MAX

VERSIONS_PER_LOOK = 100
"""Of a listing, whose restores are read in one look at the metadata."""


async def restore_object(ctx: Context, request: S3Request) -> Reply:
    """202 where it had to be restored, 200 where it was, and now is for as long as asked. It is done at once."""
    _, body = await settings.sent(ctx, request, SMALL_BYTES_MAX)
    wanted = restore.read(body)
    bucket, version, _ = await find(ctx, request)
    storage_class = version.attributes.storage_class
    if storage_class not in ARCHIVES and storage_class not in ctx.settings.archive_classes:
        raise restore.not_archived(storage_class)
    outcome = await ctx.metadata.commit(SetRestored(
        bucket=bucket.id, key=request.key, storage_class=storage_class, until_ms=restore.until(request.now_ms, wanted.days),
        version_id=VersionId(version.version_id) if bucket.versioning else None, origin=origin_of(ctx, request, bucket)))
    changed(request, outcome)            # raises what it was refused with
    return Reply(status=200 if archives.restored(version, request.now_ms) else 202)


async def listed(
    ctx: Context, bucket: Bucket, entries: Sequence[ListedObject], now_ms: int,
) -> Mapping[tuple[str, str], int]:
    """Until when those of a listing are restored that are. Only what was in an archive is looked at."""
    archived = [(entry.key, entry.version_id) for entry in entries if not entry.delete_marker
                and (entry.storage_class in ARCHIVES or entry.storage_class in ctx.settings.archive_classes)]
    found: dict[tuple[str, str], int] = {}
    for start in range(0, len(archived), VERSIONS_PER_LOOK):
        some = archived[start:start + VERSIONS_PER_LOOK]
        untils = await ctx.metadata.read(queries.restored, bucket.id, some)
        found.update((named, until_ms) for named, until_ms in zip(some, untils, strict=True) if until_ms > now_ms)
    return found
