"""CompleteMultipartUpload: the list of parts is compared with what is stored, then becomes the object in one command.

The list may hold 10,000 parts and a command only so many, so it goes in pages that stay invisible; the last command
decides. It is refused if a part was replaced since we compared it, and then all is compared again.
What the client sees in which order: the form of the list, unknown parts, their checksums, parts that are too small, the
size and checksum of the whole, conditions. Everything is judged before the status: a 200 means done.
"""

import asyncio
import hashlib
from typing import NamedTuple

from consensus.core.commands import PARTS_PER_PAGE_MAX, CompleteUpload, Condition, ListedPart, StageParts
from consensus.core.ids import ContentId, UploadId, VersionId
from consensus.core.model import Bucket, Checksum, Part, Upload
from consensus.core.results import AnyResult, Committed, PartChanged, Staged
from gateway.ops.buckets import lifecycle
from gateway.ops.buckets.notification import origin_of
from gateway.ops.context import Context
from gateway.ops.objects.versions import new_version_id
from gateway.ops.objects.writing import write_condition
from gateway.ops.refusals import no_such_upload, refusal
from gateway.ops.replies import object_url, written_version, xml
from gateway.ops.uploads.multipart import PARTS_PER_PAGE, must_be_own
from gateway.ops.uploads.upload import parsed, read_body_about_object
from gateway.s3 import ranges
from gateway.s3.body import checksums
from gateway.s3.errors import S3Error
from gateway.s3.reply import Reply
from gateway.s3.request import S3Request
from gateway.s3.signing.hoisting import effective_headers
from gateway.s3.xml import read as xml_read
from gateway.s3.xml import write as xml_write
from gateway.s3.xml.read import CompletePart

COMPARE_TRIES = 3
"""A part that is replaced while its upload is completed is a client's race; more than twice is not worth following."""


class Whole(NamedTuple):
    """What the parts make up together."""

    parts: list[ListedPart]
    size: int
    etag: str
    checksum: Checksum


async def complete_multipart_upload(ctx: Context, request: S3Request) -> Reply:
    """The listed parts become the object. Repeated after a success, it answers the same again."""
    bucket = await ctx.bucket(request)
    condition = write_condition(effective_headers(request))
    body = await read_body_about_object(ctx, request, xml_read.COMPLETE_BYTES_MAX)
    listed = await parsed(xml_read.complete_multipart_upload, body)
    _check_order(listed, request)
    outcome: AnyResult = PartChanged(number=0)
    for _ in range(COMPARE_TRIES):
        upload = await ctx.metadata.upload(bucket.id, request.key, UploadId(request.query["uploadId"]))
        if upload is None:
            raise no_such_upload(request)
        await must_be_own(ctx, bucket, upload)
        if upload.completed_version is not None:
            return _again(request, bucket, upload, listed)
        whole = await _compare(ctx, request, bucket, upload, listed)
        _check_claims(request, upload, whole)
        outcome = await _decide(ctx, request, bucket, upload, whole, condition)
        if not isinstance(outcome, PartChanged):
            break
    if not isinstance(outcome, Committed):
        raise refusal(outcome, request)
    reply = _done(request, bucket, outcome.etag, outcome.checksum, outcome.version_id)
    if bucket.lifecycle and upload is not None:
        reply.headers += await lifecycle.expiration(
            ctx, bucket, request.key, outcome.modified_ms, whole.size, upload.attributes.tags)
    return reply


async def _decide(
    ctx: Context, request: S3Request, bucket: Bucket, upload: Upload, whole: Whole, condition: Condition
) -> AnyResult:
    """All pages but the last are staged; the last goes with the command that decides."""
    pages = [
        tuple(whole.parts[at : at + PARTS_PER_PAGE_MAX]) for at in range(0, len(whole.parts), PARTS_PER_PAGE_MAX)
    ]
    staged: ContentId | None = None
    for page in pages[:-1]:
        outcome = await ctx.metadata.commit(StageParts(
            bucket=bucket.id, key=request.key, upload_id=upload.upload_id, parts=page, into=staged
        ))
        if not isinstance(outcome, Staged):
            if staged is not None:
                ctx.metadata.abandon(staged)
            return outcome
        staged = outcome.content
    return await ctx.metadata.commit(CompleteUpload(
        bucket=bucket.id, key=request.key, upload_id=upload.upload_id, version_id=new_version_id(), etag=whole.etag,
        size=whole.size, parts=pages[-1], staged=staged, checksum=whole.checksum, condition=condition,
        origin=origin_of(ctx, request, bucket),
    ))


def _check_order(listed: tuple[CompletePart, ...], request: S3Request) -> None:
    last = 0
    for part in listed:
        if part.number > ranges.PARTS_MAX:
            ranges.parse_part_number(str(part.number))  # says it
        if part.number <= last:
            raise S3Error("InvalidPartOrder", UploadId=request.query["uploadId"])
        last = part.number


async def _compare(
    ctx: Context, request: S3Request, bucket: Bucket, upload: Upload, listed: tuple[CompletePart, ...]
) -> Whole:
    """S3Error InvalidPart, BadDigest, InvalidRequest, EntityTooSmall for a list that doesn't fit what is stored."""
    stored = await _stored_parts(ctx, request, bucket, upload, listed[-1].number)
    chosen: list[Part] = []
    for part in listed:
        have = stored.get(part.number)
        if have is None or have.etag != part.etag:
            raise S3Error("InvalidPart", UploadId=upload.upload_id, PartNumber=part.number, ETag=part.etag)
        _check_part_checksum(upload, part, have)
        chosen.append(have)
    least = ctx.settings.part_bytes_min
    for have in chosen[:-1]:
        if have.size < least:
            raise S3Error("EntityTooSmall", ProposedSize=have.size, MinSizeAllowed=least, PartNumber=have.number,
                          ETag=have.etag)
    algorithm, kind = upload.checksum_algorithm or checksums.DEFAULT, upload.checksum_kind or checksums.FULL_OBJECT
    values: list[tuple[str, int]] = []
    for have in chosen:
        assert have.checksum is not None
        assert have.checksum.algorithm == algorithm
        values.append((have.checksum.value, have.size))
    return Whole(
        parts=[ListedPart(number=have.number, content=have.content) for have in chosen],
        size=sum([have.size for have in chosen]),
        etag=_etag([have.etag for have in chosen]),
        checksum=Checksum(*checksums.of_parts(algorithm, kind, values)),
    )


async def _stored_parts(
    ctx: Context, request: S3Request, bucket: Bucket, upload: Upload, last: int
) -> dict[int, Part]:
    stored: dict[int, Part] = {}
    after = 0
    while after < last:
        page = await ctx.metadata.parts(bucket.id, request.key, upload.upload_id, after, PARTS_PER_PAGE)
        stored |= {part.number: part for part in page}
        if len(page) < PARTS_PER_PAGE:
            break
        after = page[-1].number
        await asyncio.sleep(0)          # reading does not suspend by itself: others have their turn between two pages
    return stored


def _check_part_checksum(upload: Upload, part: CompletePart, have: Part) -> None:
    algorithm = upload.checksum_algorithm
    given = dict(part.checksums)
    if not algorithm:
        default = given.pop(checksums.DEFAULT, None)
        assert have.checksum is not None
        if given or default not in (None, have.checksum.value):
            # Nothing was promised about checksums when the upload began, so nothing can be compared (recorded), but for
            # the one that UploadPart has answered by itself: the AWS SDK for JavaScript sends it back.
            raise S3Error("InvalidPart", UploadId=upload.upload_id, PartNumber=part.number, ETag=part.etag)
        return
    value = given.pop(algorithm, None)
    if given:
        other = next(iter(given))
        raise _bad_part_checksum(other, part)
    if value is None:
        if upload.checksum_kind == checksums.COMPOSITE:
            raise S3Error("InvalidRequest", f"The upload was created using a {algorithm.lower()} checksum. The "
                          "complete request must include the checksum for each part. It was missing for part "
                          f"{part.number} in the request.")
    elif have.checksum is None or value != have.checksum.value:
        # AWS tells a checksum of the wrong kind from a wrong checksum, which names another part than the one that is there.
        raise S3Error("InvalidPart", UploadId=upload.upload_id, PartNumber=part.number, ETag=part.etag)


def _bad_part_checksum(algorithm: str, part: CompletePart) -> S3Error:
    return S3Error(
        "BadDigest", f"The {algorithm.lower()} you specified for part {part.number} did not match what we received."
    )


def _check_claims(request: S3Request, upload: Upload, whole: Whole) -> None:
    """What the client says about the whole: x-amz-mp-object-size, x-amz-checksum-type, x-amz-checksum-*."""
    given = effective_headers(request)
    kind = given.get("x-amz-checksum-type")
    if kind is not None and checksums.parse_kind(kind) != upload.checksum_kind:
        raise S3Error("InvalidRequest", f"The upload was created using the {upload.checksum_kind or 'null'} checksum "
                      f"mode. The complete request must use the same checksum mode.")
    size = given.get("x-amz-mp-object-size")
    if size is not None and not (size.strip().isascii() and size.strip().isdigit()):
        raise S3Error("InvalidRequest", f"Value for x-amz-mp-object-size header is invalid: '{size}'")
    if size is not None and size.strip() != str(whole.size):
        raise S3Error("InvalidRequest", f"The provided 'x-amz-mp-object-size' header value {size} does not match what "
                      f"was computed: {whole.size}")
    claim = checksums.claimed_object(given)
    if claim is not None and not checksums.matches(claim, checksums.Checksum(*whole.checksum)):
        if claim[0] != whole.checksum.algorithm:
            raise S3Error("InvalidRequest", f"Checksum Type mismatch occurred, expected checksum Type: "
                          f"{whole.checksum.algorithm.lower()}, actual checksum Type: {claim[0].lower()}")
        raise S3Error("BadDigest", f"The {claim[0].lower()} you specified did not match the calculated checksum.")


def _again(request: S3Request, bucket: Bucket, upload: Upload, listed: tuple[CompletePart, ...]) -> Reply:
    """The same list once more: a client that lost the answer. Any other finds no upload."""
    try:
        same = _etag([part.etag for part in listed]) == upload.completed_etag
    except ValueError:
        same = False
    if not same:
        raise no_such_upload(request)
    return _done(request, bucket, upload.completed_etag, upload.completed_checksum, upload.completed_version)


def _done(
    request: S3Request, bucket: Bucket, etag: str, checksum: Checksum | None, version_id: VersionId | None
) -> Reply:
    body = xml_write.complete_multipart_upload(
        url=object_url(request), bucket=bucket.name, key=request.key, etag=etag, checksum=checksum
    )
    return xml(body, written_version(version_id))


def _etag(parts: list[str]) -> str:
    """The MD5 of the parts' MD5s, and their number: S3's rule, also for a single part. ValueError for no hex."""
    return f"{hashlib.md5(bytes.fromhex(''.join(parts)), usedforsecurity=False).hexdigest()}-{len(parts)}"
