"""Multipart uploads: begun, filled part by part, completed or aborted, and listed (S3_SEMANTICS §12).

A part is a content of its own, committed when it is whole; Complete only lists parts, so it reads and moves no bytes.
*Checksums*: an upload begun with an algorithm keeps that checksum of each part. One begun without keeps CRC64NVME of
each part, which nobody is shown, because the object gets the CRC64NVME of the whole, combined from them.
"""

import hashlib
import secrets

from consensus.core.commands import AbortUpload, CreateUpload, PutPart
from consensus.core.ids import UploadId
from consensus.core.model import Bucket, Checksum, Part, Upload
from consensus.core.results import Done, PartStored
from gateway.ops.context import Context
from gateway.ops.listing import url_encoded, whole_number
from gateway.ops.objects import put_attributes
from gateway.ops.refusals import no_such_upload, refusal
from gateway.ops.upload import store
from gateway.s3 import checksums, xml_write
from gateway.s3.credentials import effective_headers
from gateway.s3.errors import S3Error
from gateway.s3.reply import XML, Reply
from gateway.s3.request import S3Request

PART_NUMBER_MAX = 10_000
UPLOAD_ID_BYTES = 48
PARTS_MAX = 1000
UPLOADS_MAX = 1000


async def create_multipart_upload(ctx: Context, request: S3Request) -> Reply:
    """Everything that will be said about the object is said now, except its conditions."""
    bucket = await ctx.bucket(request)
    given = effective_headers(request)
    algorithm, kind = checksums.for_upload(given)
    upload_id = UploadId(secrets.token_urlsafe(UPLOAD_ID_BYTES))
    outcome = await ctx.metadata.commit(CreateUpload(
        bucket=bucket.id, key=request.key, upload_id=upload_id, attributes=put_attributes(given),
        owner=ctx.principal.user_id, checksum_algorithm=algorithm, checksum_kind=kind,
    ))
    if not isinstance(outcome, Done):
        raise refusal(outcome, request)
    reply = _xml(xml_write.initiate_multipart_upload(bucket.name, request.key, upload_id))
    if algorithm:
        reply.headers += [("x-amz-checksum-algorithm", algorithm), ("x-amz-checksum-type", kind)]
    return reply


async def upload_part(ctx: Context, request: S3Request) -> Reply:
    bucket = await ctx.bucket(request)
    number = part_number(request)
    upload = await open_upload(ctx, bucket, request)
    ...
    stored = await store(ctx, request, expected, algorithm)
    outcome = await ctx.metadata.commit(
        PutPart(bucket=bucket.id, key=request.key, upload_id=upload.upload_id, number=number, content=stored.content),
        stored.ticket,
    )
    if not isinstance(outcome, PartStored):
        raise refusal(outcome, request)
    return Reply(headers=[("etag", f'"{stored.content.etag}"'), *stored.echo])


async def abort_multipart_upload(ctx: Context, request: S3Request) -> Reply:
    bucket = await ctx.bucket(request)
    outcome = await ctx.metadata.commit(
        AbortUpload(bucket=bucket.id, key=request.key, upload_id=UploadId(request.query["uploadId"]))
    )
    if not isinstance(outcome, Done):
        raise refusal(outcome, request)
    return Reply(status=204)


async def list_parts(ctx: Context, request: S3Request) -> Reply:
    bucket = await ctx.bucket(request)
    limit = whole_number(request.query, "max-parts", default=PARTS_MAX, most=PARTS_MAX)
    after = whole_number(request.query, "part-number-marker", default=0, most=2**31 - 1)
    upload = await open_upload(ctx, bucket, request)
    parts = await ctx.metadata.parts(bucket.id, request.key, upload.upload_id, after, limit + 1) if limit else []
    ...


def part_number(request: S3Request) -> int:
    """S3Error InvalidArgument unless 1 to 10,000."""
    text = request.query["partNumber"]
    if text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= PART_NUMBER_MAX:
        return int(text)
    raise S3Error("InvalidArgument", "Part number must be an integer between 1 and 10000, inclusive",
                  ArgumentName="partNumber", ArgumentValue=text)


async def open_upload(ctx: Context, bucket: Bucket, request: S3Request) -> Upload:
    """The upload that the request names. S3Error NoSuchUpload if it never was, was aborted or is complete."""
    upload = await ctx.metadata.upload(bucket.id, request.key, UploadId(request.query["uploadId"]))
    if upload is None or upload.completed_version is not None:
        raise no_such_upload(request)
    return upload


def _xml(body: bytes) -> Reply:
    return Reply(headers=[("content-type", XML)], body=body)
