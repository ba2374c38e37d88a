"""Multipart uploads: begun, filled part by part, aborted, listed. Completing has a file of its own. S3_SEMANTICS §12.

A part is a content of its own, committed when it is whole; Complete only lists parts, so it reads and moves no bytes.
*Checksums*: an upload begun with an algorithm keeps that checksum of each part. One begun without keeps CRC64NVME of
each part, which nobody is shown: the finished object gets the CRC64NVME of the whole, combined from them.
"""

import re

import msgspec

from consensus.core.commands import AbortUpload, CreateUpload, PutPart
from consensus.core.ids import UploadId
from consensus.core.model import Bucket, Part, Upload, UploadPage
from consensus.core.results import Done, PartStored
from gateway.ops.access.acls import of_new_object
from gateway.ops.buckets import lifecycle
from gateway.ops.buckets.listing import url_encoded, whole_number
from gateway.ops.context import ANONYMOUS_ID, Context
from gateway.ops.objects.versions import random_name
from gateway.ops.objects.writing import put_attributes
from gateway.ops.refusals import no_such_upload, refusal
from gateway.ops.replies import checksum_headers, xml
from gateway.ops.uploads.bringing import bring
from gateway.ops.uploads.upload import store
from gateway.s3 import conditions, headers, ranges
from gateway.s3.body import checksums
from gateway.s3.errors import S3Error
from gateway.s3.policy.context import said_of_upload
from gateway.s3.reply import Reply
from gateway.s3.request import S3Request
from gateway.s3.signing.hoisting import effective_headers
from gateway.s3.xml import listings as xml_listings
from gateway.s3.xml import write as xml_write

PARTS_PER_PAGE = 1000
UPLOADS_PER_PAGE = 1000
"""S3's greatest pages."""

_RANDOM_BYTES = 39
_UPLOAD_ID = re.compile(r"[A-Za-z0-9_-]{64}")
"""When it began, in milliseconds as 12 hexadecimal digits, and what nobody can guess: so the order of the ids is that in which
S3 lists the uploads of a key, the earliest first. (Before ids said that, they were random altogether.)"""


async def create_multipart_upload(ctx: Context, request: S3Request) -> Reply:
    """Everything that is said about the object is said now, except the conditions of its creation."""
    bucket = await ctx.bucket(request)
    given = effective_headers(request)
    conditions.refuse_all(given)
    attributes = put_attributes(given, request.now_ms, ctx.settings.storage_classes)
    new = await of_new_object(ctx, bucket, request.key, given)
    if new.acl is not None:
        attributes = msgspec.structs.replace(attributes, acl=new.acl)
    algorithm, kind = checksums.for_upload(given)
    upload_id = UploadId(f"{request.now_ms:012x}{random_name(_RANDOM_BYTES)}")
    initiator = ctx.principal.user_id or ANONYMOUS_ID
    outcome = await ctx.metadata.commit(CreateUpload(
        bucket=bucket.id, key=request.key, upload_id=upload_id, attributes=attributes, owner=new.owner,
        checksum_algorithm=algorithm, checksum_kind=kind, initiator="" if initiator == new.owner else initiator,
        said=said_of_upload(given),
    ))
    if not isinstance(outcome, Done):
        raise refusal(outcome, request)
    shown = [("x-amz-checksum-algorithm", algorithm), ("x-amz-checksum-type", kind)] if algorithm else []
    if bucket.lifecycle:
        shown += await lifecycle.upload_abort(ctx, bucket, request.key, request.now_ms)
    return xml(xml_write.initiate_multipart_upload(bucket=bucket.name, key=request.key, upload_id=upload_id), shown)


async def upload_part(ctx: Context, request: S3Request) -> Reply:
    """Store the body as part `partNumber`, in place of an earlier one of that number."""
    bucket = await ctx.bucket(request)
    number = ranges.parse_part_number(request.query["partNumber"])
    given = effective_headers(request)
    headers.refuse_unsupported(given)
    conditions.refuse_all(given)
    expected = checksums.Expected.from_headers(given)
    upload = await open_upload(ctx, bucket, request)
    await must_be_own(ctx, bucket, upload)
    hasher = expected.part_hasher(upload.checksum_algorithm, upload.checksum_kind)
    stored = await store(ctx, request, hasher, bucket)
    outcome = await bring(
        ctx,
        PutPart(bucket=bucket.id, key=request.key, upload_id=upload.upload_id, number=number, content=stored.content),
        stored.ticket, bucket,
    )
    if not isinstance(outcome, PartStored):
        raise refusal(outcome, request)
    return Reply(headers=[("etag", f'"{stored.content.etag}"'), *checksum_headers(stored.checksum, kind=False)])


async def abort_multipart_upload(ctx: Context, request: S3Request) -> Reply:
    """The upload and its parts are gone; a part that arrives just now is refused by its own commit."""
    bucket = await ctx.bucket(request)
    conditions.refuse_of_abort(effective_headers(request))
    upload = await open_upload(ctx, bucket, request)
    outcome = await ctx.metadata.commit(
        AbortUpload(bucket=bucket.id, key=request.key, upload_id=upload.upload_id)
    )
    if not isinstance(outcome, Done):
        raise refusal(outcome, request)
    return Reply(status=204)


async def list_parts(ctx: Context, request: S3Request) -> Reply:
    """Finished parts, by number."""
    bucket = await ctx.bucket(request)
    limit = whole_number(request.query, "max-parts", default=PARTS_PER_PAGE, most=PARTS_PER_PAGE)
    marker = whole_number(request.query, "part-number-marker", default=0, most=2**31 - 1)
    upload = await open_upload(ctx, bucket, request)
    parts: list[Part] = []
    if limit:
        parts = await ctx.metadata.parts(bucket.id, request.key, upload.upload_id, marker, limit + 1)
    truncated = len(parts) > limit
    parts = parts[:limit]
    if not upload.checksum_algorithm:
        parts = [msgspec.structs.replace(part, checksum=None) for part in parts]
    return xml(xml_listings.list_parts(
        bucket=bucket.name, upload=upload, owner=ctx.owner, parts=parts, marker=marker,
        next_marker=parts[-1].number if parts else 0, max_parts=limit, truncated=truncated,
    ), await lifecycle.upload_abort(ctx, bucket, request.key, upload.initiated_ms))


async def list_multipart_uploads(ctx: Context, request: S3Request) -> Reply:
    """Uploads neither completed nor aborted, by key and when they began, which their ids say. The id's marker counts only
    beside a key's."""
    bucket = await ctx.bucket(request)
    query = request.query
    limit = whole_number(query, "max-uploads", default=UPLOADS_PER_PAGE, most=UPLOADS_PER_PAGE)
    prefix, delimiter, key_marker = query.get("prefix", ""), query.get("delimiter", ""), query.get("key-marker", "")
    id_marker = query.get("upload-id-marker", "")
    encoded = url_encoded(query)
    if key_marker and id_marker and _UPLOAD_ID.fullmatch(id_marker) is None:
        raise S3Error("InvalidArgument", "Invalid uploadId marker", ArgumentName="upload-id-marker",
                      ArgumentValue=id_marker)
    after_id = UploadId(id_marker) if key_marker and id_marker else None
    page = UploadPage((), (), None, None)
    if limit:
        page = await ctx.metadata.uploads(bucket.id, prefix, delimiter, key_marker, after_id, limit)
    next_key, next_id = page.next_key, page.next_upload
    if next_key is None:
        # S3 tells where it stopped also when nothing is left.
        last_upload = page.uploads[-1] if page.uploads else None
        last_prefix = page.common_prefixes[-1] if page.common_prefixes else ""
        if last_upload is not None and last_upload.key >= last_prefix:
            next_key, next_id = last_upload.key, last_upload.upload_id
        else:
            next_key = last_prefix
    return xml(xml_listings.list_multipart_uploads(
        bucket=bucket.name, prefix=prefix, delimiter=delimiter, key_marker=key_marker,
        upload_id_marker=id_marker if key_marker else "",
        next_key_marker=next_key or "", next_upload_id_marker=next_id or "", max_uploads=limit, encoded=encoded,
        truncated=page.next_key is not None, uploads=page.uploads, common_prefixes=page.common_prefixes,
        owner=ctx.owner,
    ))


async def must_be_own(ctx: Context, bucket: Bucket, upload: Upload) -> None:
    """Parts of an object that will be another account's are brought and put together by that account alone (AWS: by who has
    begun the upload). S3Error AccessDenied."""
    if upload.owner not in (bucket.owner, ctx.owner_id or ANONYMOUS_ID) and not (await ctx.rules_of(bucket)).acls_off:
        raise S3Error("AccessDenied")


async def open_upload(ctx: Context, bucket: Bucket, request: S3Request) -> Upload:
    """The upload that the request names. S3Error NoSuchUpload if it never was, was aborted or is complete."""
    upload = await ctx.metadata.upload(bucket.id, request.key, UploadId(request.query["uploadId"]))
    if upload is None or upload.completed_version is not None:
        raise no_such_upload(request)
    return upload
