"""Access lists of buckets and objects: put, shown, and what writes say about those of their objects (S3_SEMANTICS §17).

Where the bucket's owner owns everything, lists are off: no other is taken than the ones that say just that, and the one
that we show, since tools write back what they have read after a copy.
"""

from collections.abc import Mapping
from typing import NamedTuple

from consensus.core.commands import SetAcl
from consensus.core.model import Bucket, ObjectVersion, Pairs
from gateway.bucket_access import ACL, ENFORCED, Rules
from gateway.ops import settings
from gateway.ops.buckets.notification import origin_of
from gateway.ops.context import Context
from gateway.ops.objects.reading import changed, find
from gateway.ops.objects.versions import named_version
from gateway.ops.replies import read_version, xml
from gateway.ops.uploads.upload import read_body
from gateway.s3 import acl
from gateway.s3.errors import S3Error
from gateway.s3.reply import Reply
from gateway.s3.request import S3Request
from gateway.s3.signing.hoisting import effective_headers
from gateway.s3.xml.read import SMALL_BYTES_MAX


async def get_bucket_acl(ctx: Context, request: S3Request) -> Reply:
    bucket = await ctx.bucket(request)
    rules = await ctx.rules_of(bucket)
    return xml(acl.write(None if rules.acls_off else rules.acl, bucket.owner, ctx.owner))


async def put_bucket_acl(ctx: Context, request: S3Request) -> Reply:
    bucket = await ctx.bucket(request)
    rules = await ctx.rules_of(bucket)
    wanted = await _wanted(ctx, request, bucket, rules, bucket.owner, of_bucket=True)
    if rules.acls_off:
        return Reply()
    return await settings.put(ctx, request, bucket, ACL, wanted)


async def get_object_acl(ctx: Context, request: S3Request) -> Reply:
    bucket, version, _ = await find(ctx, request)
    rules = await ctx.rules_of(bucket)
    shown = acl.write(None if rules.acls_off else version.attributes.acl, _owner(ctx, bucket, rules, version), ctx.owner)
    return xml(shown, read_version(bucket, version.version_id))


async def put_object_acl(ctx: Context, request: S3Request) -> Reply:
    bucket, version, _ = await find(ctx, request)
    rules = await ctx.rules_of(bucket)
    wanted = await _wanted(ctx, request, bucket, rules, _owner(ctx, bucket, rules, version))
    if rules.acls_off:
        return Reply()
    return changed(request, await ctx.metadata.commit(SetAcl(
        bucket=bucket.id, key=request.key, acl=wanted, version_id=named_version(request.query.get("versionId")),
        origin=origin_of(ctx, request, bucket))))


def _owner(ctx: Context, bucket: Bucket, rules: Rules, version: ObjectVersion) -> str:
    """Whose the object is: the bucket owner's, where that one owns everything, whoever wrote it."""
    return bucket.owner if rules.acls_off else version.owner


async def _wanted(
    ctx: Context, request: S3Request, bucket: Bucket, rules: Rules, owner: str, *, of_bucket: bool = False,
) -> Pairs:
    """The list that the request gives: by headers or as a document."""
    given = effective_headers(request)
    body = await read_body(ctx, request, SMALL_BYTES_MAX)
    if acl.in_headers(given):
        if body:
            raise S3Error("UnexpectedContent")
        _refuse_grants(rules, given)
        wanted = acl.from_headers(given, owner, ctx.people, bucket_owner=bucket.owner, of_bucket=of_bucket)
        assert wanted is not None
        if rules.acls_off and given.get("x-amz-acl") != "bucket-owner-full-control":
            raise S3Error("AccessControlListNotSupported")
    elif not body:
        if rules.acls_off:
            raise S3Error("AccessControlListNotSupported")
        raise S3Error("MissingSecurityHeader", MissingHeaderName="x-amz-acl")
    else:
        wanted = acl.read(body, owner, ctx.people)
        if rules.acls_off and wanted != acl.owned_by(owner):
            raise S3Error("AccessControlListNotSupported")
    _refuse_public(ctx, bucket, request.key, rules, wanted)
    return wanted


def _refuse_grants(rules: Rules, given: Mapping[str, str]) -> None:
    """Where lists are off, nobody is asked who the grantees are."""
    if rules.acls_off and "x-amz-acl" not in given:
        raise S3Error("AccessControlListNotSupported")


def _refuse_public(ctx: Context, bucket: Bucket, key: str, rules: Rules, wanted: Pairs | None) -> None:
    if acl.is_public(wanted) and rules.blocked.block_acls:
        raise ctx.blocked(bucket, key, "public access control lists (ACLs) are prevented by the BlockPublicAcls")


class New(NamedTuple):
    """Of a new object: its owner, and its list (None: the owner alone)."""

    owner: str
    acl: Pairs | None


async def of_new_object(ctx: Context, bucket: Bucket, key: str, given: Mapping[str, str]) -> New:
    """What a write's headers say. S3Error for a list that the bucket doesn't take."""
    owner = await ctx.owner_of_new(bucket, given)
    if not acl.in_headers(given):
        return New(owner, None)
    rules = await ctx.rules_of(bucket)
    _refuse_grants(rules, given)
    wanted = acl.from_headers(given, owner, ctx.people, bucket_owner=bucket.owner)
    if rules.acls_off:
        if given.get("x-amz-acl") not in acl.SAYS_NOTHING:
            raise S3Error("AccessControlListNotSupported")
        return New(owner, None)
    _refuse_public(ctx, bucket, key, rules, wanted)
    return New(owner, None if wanted == acl.owned_by(owner) else wanted)


def of_new_bucket(ctx: Context, given: Mapping[str, str]) -> tuple[str | None, Pairs | None]:
    """(ownership, list) that CreateBucket's headers ask for; None: nothing. S3Error for two that contradict each other."""
    ownership = given.get("x-amz-object-ownership")
    if not acl.in_headers(given):
        return ownership, None
    owner = ctx.owner_id
    wanted = acl.from_headers(given, owner, ctx.people, bucket_owner=owner, of_bucket=True)
    if wanted == acl.owned_by(owner):
        return ownership, None
    rules = ctx.default_rules
    if (rules.ownership if ownership is None else ownership) == ENFORCED:
        raise S3Error("InvalidBucketAclWithObjectOwnership")
    if acl.is_public(wanted) and rules.blocked.block_acls:
        raise S3Error("InvalidBucketAclWithBlockPublicAccessError")
    return ownership, wanted
