"""Buckets: made, found, listed, removed. Names are one space for all accounts, as on S3."""

import re
from collections.abc import Mapping

from consensus.core.commands import CreateBucket, DeleteBucket
from consensus.core.model import Bucket
from consensus.core.results import BucketCreated, BucketExists, BucketNotEmpty, Done
from gateway.bucket_access import ACL, OWNERSHIP
from gateway.ops import settings, tokens
from gateway.ops.access import acls
from gateway.ops.buckets.listing import parsed_number
from gateway.ops.context import Context
from gateway.ops.refusals import refusal
from gateway.ops.replies import xml
from gateway.ops.uploads.upload import read_body
from gateway.s3 import headers, names, tags
from gateway.s3.errors import S3Error
from gateway.s3.policy.actions import needed
from gateway.s3.reply import XML, Reply
from gateway.s3.request import S3Request
from gateway.s3.signing.hoisting import effective_headers
from gateway.s3.xml import listings as xml_listings
from gateway.s3.xml import read as xml_read
from gateway.s3.xml import write as xml_write

BUCKETS_PER_PAGE = 1000
"""Buckets read in one look at the metadata while all are listed."""

BUCKETS_MAX = 10_000
"""The greatest max-buckets. Also where an answer without a limit stops and gives a token."""


_REGION = re.compile(r"EU|[a-z]{2}(-[a-z]+)+-[0-9]")
"""What could be a region: AWS tells an unknown one from one that is somewhere else."""

DEFAULT = "default"
"""A location constraint that older tools give for "wherever you are": kept and told again, as Ceph does."""

_IRELAND = "EU", "eu-west-1"
"""The old name of a region, which S3 still takes and tells."""


def place_of(bucket: Bucket, here: str) -> str:
    """The region that a bucket is in, whatever it was called when the bucket was made."""
    if bucket.region in ("", DEFAULT) or (bucket.region, here) == _IRELAND:
        return here
    return bucket.region


_PARAMETERS = ("max-buckets", "prefix", "bucket-region", "continuation-token")
"""Of ListBuckets. AWS says where the buckets are to those who use any of them."""


async def create_bucket(ctx: Context, request: S3Request) -> Reply:
    """S3_SEMANTICS §6. An existing bucket is 409 also to its owner, as in every region of AWS but the oldest."""
    if ctx.principal.anonymous:
        raise S3Error("AccessDenied")
    names.check_bucket_name(request.bucket)
    given = effective_headers(request)
    headers.refuse_unsupported_bucket(given)
    body = await read_body(ctx, request, xml_read.SMALL_BYTES_MAX)
    constraint, new_tags = xml_read.create_bucket(body) if body else xml_read.NewBucket()
    tags.check(new_tags, tags.BUCKET_TAGS_MAX)
    await ctx.may(request, needed(ctx.operation, request.query, given),
                  {"s3:locationconstraint": (constraint,)} if constraint else None)
    if new_tags:
        await ctx.may(request, ("s3:PutBucketTagging",))
    ownership, acl = acls.of_new_bucket(ctx, given)
    if constraint not in ("", DEFAULT, ctx.settings.region) and (constraint, ctx.settings.region) != _IRELAND:
        if not _REGION.fullmatch(constraint):
            raise S3Error("InvalidLocationConstraint", LocationConstraint=constraint)
        raise S3Error(
            "IllegalLocationConstraintException",
            f"The {constraint} location constraint is incompatible for the region specific endpoint this request was "
            "sent to.",
        )
    command = CreateBucket(
        name=request.bucket, account=ctx.principal.account, owner=ctx.owner_id, region=constraint,
        object_lock=_yes_or_no(given, "x-amz-bucket-object-lock-enabled"),
        settings=tuple(settings.documents((OWNERSHIP, ownership), (ACL, acl), (settings.TAGS, new_tags or None))),
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


def _yes_or_no(given: Mapping[str, str], name: str) -> bool:
    """Whoever asks for a lock must not get a bucket without one because of a slip of the pen."""
    value = given.get(name, "false").lower()
    if value not in ("true", "false"):
        raise S3Error("InvalidArgument", f"Invalid {name} header: {given[name]}", ArgumentName=name, ArgumentValue=given[name])
    return value == "true"


async def head_bucket(ctx: Context, request: S3Request) -> Reply:
    bucket = await ctx.bucket(request)
    return Reply(headers=[
        ("x-amz-bucket-region", ctx.settings.region),
        ("x-amz-access-point-alias", "false"),
        ("x-amz-bucket-arn", _arn(bucket.name)),
        ("content-type", XML),
    ])


async def delete_bucket(ctx: Context, request: S3Request) -> Reply:
    """Refused while any version or delete marker is left; uploads that were not completed vanish with it."""
    bucket = await ctx.bucket(request)
    outcome = await ctx.metadata.commit(DeleteBucket(bucket=bucket.id))
    if isinstance(outcome, BucketNotEmpty) and bucket.versioning:
        raise S3Error("BucketNotEmpty", "The bucket you tried to delete is not empty. You must delete all versions in the "
                      "bucket.", BucketName=bucket.name)
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
    limit = _limit(query.get("max-buckets"))
    prefix = query.get("prefix", "")
    region = query.get("bucket-region")
    if region not in (None, ctx.settings.region):
        raise S3Error("InvalidArgument", "Requests with bucket-region specified must be made to the corresponding regional "
                      "endpoint" if _REGION.fullmatch(region or "") else f"Argument value {region} is not a valid AWS Region",
                      ArgumentName="bucket-region")
    token = query.get("continuation-token")
    after = tokens.parse(token) if token is not None else ""
    found: list[Bucket] = []
    more = True
    while more and len(found) <= limit:
        page = await ctx.metadata.buckets(ctx.principal.account, prefix, after, BUCKETS_PER_PAGE)
        more = len(page) == BUCKETS_PER_PAGE
        after = page[-1].name if page else after
        found += page
    next_token = None
    if len(found) > limit:
        del found[limit:]
        next_token = tokens.make(found[-1].name)
    return xml(xml_listings.list_buckets(
        owner=ctx.owner(ctx.owner_id), buckets=found, prefix=prefix, next_token=next_token,
        region=ctx.settings.region if any(name in query for name in _PARAMETERS) else None,
    ))


def _limit(text: str | None) -> int:
    if not text:
        return BUCKETS_MAX
    number = parsed_number(text)
    if number is None or not 1 <= number <= BUCKETS_MAX:
        raise S3Error("InvalidArgument", f"Argument max-buckets must be an integer between 1 and {BUCKETS_MAX}",
                      ArgumentName="max-buckets", ArgumentValue=text)
    return number


def _arn(bucket: str) -> str:
    return f"arn:aws:s3:::{bucket}"
