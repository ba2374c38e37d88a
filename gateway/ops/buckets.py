"""Buckets: made, found, listed, removed. Names are one space for all accounts, as on S3."""

import re

from consensus.core.commands import CreateBucket, DeleteBucket
from consensus.core.model import Bucket
from consensus.core.results import BucketCreated, BucketExists, BucketNotEmpty, Done
from gateway.ops import acls, settings, tokens
from gateway.ops import ownership as own
from gateway.ops.context import Context
from gateway.ops.listing import whole_number
from gateway.ops.refusals import refusal
from gateway.ops.replies import xml
from gateway.ops.upload import read_body
from gateway.s3 import headers, names, xml_listings, xml_read, xml_write
from gateway.s3.errors import S3Error
from gateway.s3.hoisting import effective_headers
from gateway.s3.policy_actions import needed
from gateway.s3.reply import XML, Reply
from gateway.s3.request import S3Request

BUCKETS_PER_PAGE = 1000
"""Buckets read in one look at the metadata while all are listed."""

BUCKETS_MAX = 10_000
"""The greatest max-buckets. Also where an answer without a limit stops and gives a token."""


_REGION = re.compile(r"EU|[a-z]{2}(-[a-z]+)+-[0-9]")
"""What could be a region: AWS tells an unknown one from one that is somewhere else."""


async def create_bucket(ctx: Context, request: S3Request) -> Reply:
    """S3_SEMANTICS §6. An existing bucket is 409 also to its owner, as in every region of AWS but the oldest."""
    if ctx.principal.anonymous:
        raise S3Error("AccessDenied")
    names.check_bucket_name(request.bucket)
    given = effective_headers(request)
    headers.refuse_unsupported_bucket(given)
    body = await read_body(ctx, request, xml_read.SMALL_BYTES_MAX)
    constraint = xml_read.create_bucket(body) if body else ""
    await ctx.may(request, needed(ctx.operation, request.query, given),
                  {"s3:locationconstraint": (constraint,)} if constraint else None)
    ownership, acl = acls.of_new_bucket(ctx, given)
    if constraint and constraint != ctx.settings.region:
        if not _REGION.fullmatch(constraint):
            raise S3Error("InvalidLocationConstraint", LocationConstraint=constraint)
        raise S3Error(
            "IllegalLocationConstraintException",
            f"The {constraint} location constraint is incompatible for the region specific endpoint this request was "
            "sent to.",
        )
    command = CreateBucket(
        name=request.bucket, account=ctx.principal.account, owner=ctx.principal.user_id, region=constraint,
        object_lock=given.get("x-amz-bucket-object-lock-enabled", "false").lower() == "true",
        settings=tuple(settings.documents((own.KIND, ownership), (acls.KIND, acl))),
    )
    outcome = await ctx.metadata.commit(command)
    match outcome:
        case BucketCreated():
            host = request.headers.get("host", "")
            location = f"http://{request.bucket}.{host}/" if constraint else f"/{request.bucket}"
            return Reply(headers=[("location", location), ("x-amz-bucket-arn", _arn(request.bucket))])
        case BucketExists(account=account):
            mine = account == ctx.principal.account
            raise S3Error("BucketAlreadyOwnedByYou" if mine else "BucketAlreadyExists", BucketName=request.bucket)
        case _:
            raise refusal(outcome, request)


async def head_bucket(ctx: Context, request: S3Request) -> Reply:
    bucket = await ctx.bucket(request)
    return Reply(headers=[
        ("x-amz-bucket-region", bucket.region or ctx.settings.region),
        ("x-amz-access-point-alias", "false"),
        ("x-amz-bucket-arn", _arn(bucket.name)),
        ("content-type", XML),
    ])


async def delete_bucket(ctx: Context, request: S3Request) -> Reply:
    """Refused while any version or delete marker is left; uploads that were not completed vanish with it."""
    bucket = await ctx.bucket(request)
    outcome = await ctx.metadata.commit(DeleteBucket(bucket=bucket.id))
    if not isinstance(outcome, Done):
        raise refusal(outcome, request)
    return Reply(status=204)


async def get_bucket_location(ctx: Context, request: S3Request) -> Reply:
    """Empty for us-east-1, where S3 began."""
    bucket = await ctx.bucket(request)
    region = bucket.region or ctx.settings.region
    return xml(xml_write.location("" if region == "us-east-1" else region))


async def list_buckets(ctx: Context, request: S3Request) -> Reply:
    """The account's buckets in the order of their names."""
    await ctx.may(request, ("s3:ListAllMyBuckets",))
    query = request.query
    limit = whole_number(query, "max-buckets", default=BUCKETS_MAX, least=1, most=BUCKETS_MAX)
    prefix = query.get("prefix", "")
    if isinstance(outcome, BucketNotEmpty) and bucket.versioning:
        raise S3Error("BucketNotEmpty", "The bucket you tried to delete is not empty. You must delete all versions in the "
                      "bucket.", BucketName=bucket.name)
    region = query.get("bucket-region")
    token = query.get("continuation-token")
    after = tokens.parse(token) if token else ""
    found: list[Bucket] = []
    more = True
    while more and len(found) <= limit:
        page = await ctx.metadata.buckets(ctx.principal.account, prefix, after, BUCKETS_PER_PAGE)
        more = len(page) == BUCKETS_PER_PAGE
        after = page[-1].name if page else after
        found += [bucket for bucket in page if region is None or region == (bucket.region or ctx.settings.region)]
    next_token = None
    if len(found) > limit:
        del found[limit:]
        next_token = tokens.make(found[-1].name)
    return xml(xml_listings.list_buckets(
        owner=ctx.owner(ctx.principal.user_id), buckets=found, default_region=ctx.settings.region, prefix=prefix,
        next_token=next_token,
    ))


def _arn(bucket: str) -> str:
    return f"arn:aws:s3:::{bucket}"
