"""Versioning of a bucket: its state, and the listing of all versions and delete markers (S3_SEMANTICS §14)."""

from consensus.core.commands import SetVersioning
from consensus.core.model import Page
from consensus.core.results import Done, WrongBucketState
from gateway.bucket_settings import Kind
from gateway.ops import settings
from gateway.ops.buckets.listing import KEYS_MAX, url_encoded, whole_number
from gateway.ops.context import Context
from gateway.ops.objects import restoring
from gateway.ops.objects.versions import parse_version_id
from gateway.ops.refusals import refusal
from gateway.ops.replies import xml
from gateway.s3 import restore
from gateway.s3.errors import S3Error
from gateway.s3.reply import Reply
from gateway.s3.request import S3Request
from gateway.s3.signing.hoisting import effective_headers
from gateway.s3.xml import listings as xml_listings
from gateway.s3.xml import read as xml_read
from gateway.s3.xml import write as xml_write

_EMPTY = Page((), (), None)


MFA_DELETE: Kind[str] = Kind("mfa-delete", str, "NoSuchKey")
"""That somebody has said that deleting asks for no device: AWS shows this element only then, and tools compare what they have
set with what is shown."""


async def get_bucket_versioning(ctx: Context, request: S3Request) -> Reply:
    """An empty document where it was never set."""
    bucket = await ctx.bucket(request)
    mfa_delete = None
    if bucket.versioning:
        mfa_delete = await MFA_DELETE.of(ctx.metadata, bucket.id)
    return xml(xml_write.versioning_configuration(bucket.versioning, mfa_delete))


async def put_bucket_versioning(ctx: Context, request: S3Request) -> Reply:
    """Enabled or Suspended; there is no way back to "never set"."""
    bucket, body = await settings.sent(ctx, request, xml_read.SMALL_BYTES_MAX)
    wanted = xml_read.versioning_configuration(body)
    if wanted.mfa_delete == "Enabled":
        raise S3Error("NotImplemented", "Staddle has no MFA devices, so MFA delete cannot be enabled.")
    outcome = await ctx.metadata.commit(SetVersioning(bucket=bucket.id, status=wanted.status))
    if isinstance(outcome, WrongBucketState):
        raise S3Error("InvalidBucketState", "An Object Lock configuration is present on this bucket, so the versioning state "
                      "cannot be changed.")
    if not isinstance(outcome, Done):
        raise refusal(outcome, request)
    if wanted.mfa_delete is not None and await MFA_DELETE.of(ctx.metadata, bucket.id) is None:
        return await settings.put(ctx, request, bucket, MFA_DELETE, wanted.mfa_delete)
    return Reply()


async def list_object_versions(ctx: Context, request: S3Request) -> Reply:
    """Keys ascending, within a key the newest first. Each version and each marker counts as one entry."""
    bucket = await ctx.bucket(request)
    query = request.query
    limit = whole_number(query, "max-keys", default=KEYS_MAX, most=KEYS_MAX)
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    key_marker, version_marker = query.get("key-marker", ""), query.get("version-id-marker")
    encoded = url_encoded(query)
    if version_marker is not None:
        if not key_marker:
            raise S3Error("InvalidArgument", "A version-id marker cannot be specified without a key marker.",
                          ArgumentName="version-id-marker", ArgumentValue=version_marker)
        if not version_marker:
            raise S3Error("InvalidArgument", "A version-id marker cannot be empty.",
                          ArgumentName="version-id-marker", ArgumentValue="")
    after = None if version_marker is None else parse_version_id(version_marker, "version-id-marker")
    tells = restore.is_listed(effective_headers(request))
    page = _EMPTY
    if limit:
        page = await ctx.metadata.list_versions(bucket.id, prefix, delimiter, key_marker, after, limit)
    restored = await restoring.listed(ctx, bucket, page.objects, request.now_ms) if tells else {}
    return xml(xml_listings.list_versions(
        bucket=bucket.name, prefix=prefix, delimiter=delimiter, key_marker=key_marker,
        version_id_marker=version_marker or "", max_keys=limit, encoded=encoded, versions=page.objects,
        common_prefixes=page.common_prefixes, truncated=page.next_after is not None, next_key_marker=page.next_after,
        next_version_id_marker=page.next_version, owner=await ctx.owner_in(bucket), restored=restored,
    ))
