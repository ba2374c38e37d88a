"""GET and HEAD of an object. Finding a version, describing it in headers, and giving out its bytes.

*Found*: a version, its bucket, and the first of its slices, read in one look at the metadata.
A small body (`INLINE_BYTES_MAX`) is read before the status is chosen, so damage is an error and not a torn answer, and
from this host's own disk without a thread or a task. A large one is streamed in verified pieces; its first piece is
awaited before the status for the same reason. What fails later cuts the connection short of its Content-Length.
"""

from collections.abc import AsyncIterator
from typing import NamedTuple

from consensus.core.errors import Corrupt, Unavailable
from consensus.core.ids import NULL_VERSION, ContentId, VersionId
from consensus.core.model import Bucket, Checksum, LocatedSlice, ObjectVersion
from gateway.ops.context import Context
from gateway.s3 import conditions, headers, ranges, times
from gateway.s3.errors import S3Error
from gateway.s3.reply import Reply
from gateway.s3.request import S3Request

INLINE_BYTES_MAX = 256 << 10
"""Bodies up to this are read whole before the answer: one block of a stored chunk, so at most two blocks are verified."""

READ_TRIES = 3
"""A chunk that is gone between the look at the metadata and the read means that the version was replaced meanwhile: look
again. More often than this, somebody does nothing but replace it."""


class Found(NamedTuple):
    bucket: Bucket
    version: ObjectVersion
    slices: list[LocatedSlice]    # from the start of the content, as far as one look gives


async def find(ctx: Context, request: S3Request) -> Found:
    """The version that the request names, never a delete marker. Raises S3Error as S3_SEMANTICS §8 wants."""
    wanted = request.query.get("versionId")
    if wanted is None:
        bucket, version, slices = await ctx.metadata.opened(request.bucket, request.key)
        bucket = ctx.admit(bucket, request)
    else:
        bucket = await ctx.bucket(request)
        version = await ctx.metadata.version(bucket.id, request.key, parse_version_id(wanted))
        slices = []
        if version is None:
            raise S3Error("NoSuchVersion", Key=request.key, VersionId=wanted)
    if version is None:
        raise S3Error("NoSuchKey", Key=request.key)
    if version.delete_marker:
        marker = [("x-amz-delete-marker", "true"), ("x-amz-version-id", version.version_id)]
        if wanted is None:
            raise S3Error("NoSuchKey", headers=tuple(marker), Key=request.key)
        marker += [("allow", "DELETE"), ("last-modified", times.http_date(version.modified_ms))]
        raise S3Error("MethodNotAllowed", headers=tuple(marker), Method=request.method, ResourceType="DeleteMarker")
    return Found(bucket, version, slices)
