"""A body that a quota has no room for, refused before it is read. What is decided is decided by the command, later.

Looked up only where it pays: in a bucket with a quota, and for bodies that are more than a few buffers. What the write would
replace counts no more, so the look is a second one where the first says that there is no room.
"""

from consensus.core.ids import UploadId
from consensus.core.model import Bucket
from consensus.core.results import QuotaExceeded
from gateway.ops.context import Context
from gateway.ops.refusals import refusal
from gateway.s3.headers import WRITE_OFFSET
from gateway.s3.request import S3Request
from gateway.s3.signing.hoisting import effective_headers


async def refuse_early(ctx: Context, request: S3Request, bucket: Bucket, length: int) -> None:
    """S3Error QuotaExceeded where `length` bytes more have no room, whatever they replace."""
    rooms = await ctx.metadata.quota_room(bucket.id)
    if all(length <= room for _, room in rooms):
        return
    more = length - await _replaced(ctx, request, bucket)
    for whose, room in rooms:
        if more > max(room, 0):
            raise refusal(QuotaExceeded(whose=whose, what="bytes"), request)


async def _replaced(ctx: Context, request: S3Request, bucket: Bucket) -> int:
    """How many bytes might go in return, at most."""
    if "uploadId" in request.query:
        number = int(request.query["partNumber"])
        parts = await ctx.metadata.parts(bucket.id, request.key, UploadId(request.query["uploadId"]), number - 1, 1)
        return parts[0].size if parts and parts[0].number == number else 0
    if bucket.versioning == "Enabled" or WRITE_OFFSET in effective_headers(request):
        return 0
    version = await ctx.metadata.current(bucket.id, request.key)
    return 0 if version is None else version.size
