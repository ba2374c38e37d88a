"""What is known about an object without its bytes: GetObjectAttributes."""

from gateway.ops.buckets.listing import parsed_number, whole_number
from gateway.ops.context import Context
from gateway.ops.objects.reading import Found, find
from gateway.ops.replies import read_version, xml
from gateway.s3 import conditions, times
from gateway.s3.body import checksums
from gateway.s3.errors import S3Error
from gateway.s3.reply import Reply
from gateway.s3.request import S3Request
from gateway.s3.signing.hoisting import effective_headers
from gateway.s3.xml import write as xml_write

ATTRIBUTES = frozenset({"ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"})
PARTS_PER_PAGE = 1000


async def get_object_attributes(ctx: Context, request: S3Request) -> Reply:
    """The attributes that x-amz-object-attributes names (S3_SEMANTICS §4, §8)."""
    found = await find(ctx, request)
    bucket, version, _ = found
    wanted = _wanted(request)
    if conditions.not_modified(
        request.headers, etag=version.etag, modified_ms=version.modified_ms, now_ms=request.now_ms
    ):
        raise S3Error("NotModified")
    body = xml_write.object_attributes(
        etag=version.etag if "ETag" in wanted else None,
        checksum=version.checksum if "Checksum" in wanted else None,
        object_parts=await _parts(ctx, request, found) if "ObjectParts" in wanted and version.part_count else None,
        storage_class=version.attributes.storage_class if "StorageClass" in wanted else None,
        size=version.size if "ObjectSize" in wanted else None,
    )
    return xml(body, [
        ("last-modified", times.http_date(version.modified_ms)), *read_version(bucket, version.version_id)
    ])


def _wanted(request: S3Request) -> frozenset[str]:
    names = [name.strip() for name in effective_headers(request).get("x-amz-object-attributes", "").split(",") if name.strip()]
    if not names:
        raise S3Error(
            "InvalidRequest", "The x-amz-object-attributes header specifying the attributes to be retrieved is either "
            "missing or empty",
        )
    for name in names:
        if name not in ATTRIBUTES:
            raise S3Error("InvalidArgument", "Invalid attribute name specified.",
                          ArgumentName="x-amz-object-attributes", ArgumentValue=name)
    return frozenset(names)


async def _parts(ctx: Context, request: S3Request, found: Found) -> xml_write.ObjectParts:
    """Parts are listed only where each has a checksum of its own that counts: COMPOSITE (recorded)."""
    version = found.version
    if version.checksum is None or version.checksum.kind != checksums.COMPOSITE:
        return xml_write.ObjectParts(version.part_count)
    given = effective_headers(request)
    limits = {name: given.get(f"x-amz-{name}", "") for name in ("max-parts", "part-number-marker")}
    wanted = parsed_number(limits["max-parts"])      # what is no number is no wish, on AWS
    limit = PARTS_PER_PAGE if wanted is None or wanted < 0 else min(wanted, PARTS_PER_PAGE)
    marker = whole_number(limits, "part-number-marker", default=0, most=2**31 - 1)
    parts = await ctx.metadata.object_parts(version.content, marker, limit + 1) if limit else []
    page = parts[:limit]
    return xml_write.ObjectParts(
        version.part_count, page, marker, page[-1].number if page else 0, limit, len(parts) > limit
    )
