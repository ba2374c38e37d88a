"""Buckets of all accounts: list, create for a user, look, delete, add up."""

from consensus.core import commands
from consensus.core.model import Bucket, Quota
from consensus.core.results import BucketCreated, BucketExists, BucketNotEmpty, NoBucket
from gateway.admin.context import AdminContext
from gateway.admin.errors import no_bucket
from gateway.admin.users import Owner, owner_of
from gateway.admin.values import (
    AccountUsage,
    BucketInfo,
    BucketList,
    BucketStat,
    CreateBucket,
    Done,
    ListBuckets,
    Nothing,
    OneBucket,
    SetBucket,
    Usage,
)
from gateway.s3 import names
from gateway.s3.errors import S3Error
from gateway.s3.times import iso8601

UPLOADS_COUNTED_MAX = 1000


async def list_buckets(ctx: AdminContext, asked: ListBuckets) -> BucketList:
    """List buckets by name, of one account or of all."""
    found = await ctx.metadata.buckets(asked.account or None, asked.prefix, asked.after, asked.limit)
    return BucketList(buckets=[_info(bucket) for bucket in found],
                      next=found[-1].name if len(found) == asked.limit else "")


async def create_bucket(ctx: AdminContext, asked: CreateBucket) -> BucketInfo:
    """Create a bucket, for a user or for whoever asks."""
    names.check_bucket_name(asked.name)
    owner = await owner_of(ctx, asked.user) if asked.user else Owner(ctx.principal.account, ctx.principal.user_id)
    outcome = await ctx.commit(commands.CreateBucket(
        name=asked.name, account=owner.account, owner=owner.user_id, copies=asked.copies or None,
        replication=asked.replication or None))
    if isinstance(outcome, BucketExists):
        raise S3Error("BucketAlreadyExists", f"There is a bucket {asked.name!r} already, of account {outcome.account}.")
    assert isinstance(outcome, BucketCreated), outcome
    return _info(await ctx.bucket(asked.name))


async def set_bucket(ctx: AdminContext, asked: SetBucket) -> BucketInfo:
    """Set how many copies a bucket wants, and when a write to it is acknowledged. What is in it follows by itself."""
    bucket = await ctx.bucket(asked.name)
    outcome = await ctx.commit(commands.SetBucketCopies(
        bucket=bucket.id, copies=bucket.copies if asked.copies is None else asked.copies or None,
        replication=bucket.replication if asked.replication is None else asked.replication or None))
    if isinstance(outcome, NoBucket):
        raise no_bucket(asked.name)
    return _info(await ctx.bucket(asked.name))


async def stat_bucket(ctx: AdminContext, asked: OneBucket) -> BucketStat:
    """Show one bucket."""
    bucket = await ctx.bucket(asked.name)
    uploads = await ctx.metadata.uploads(bucket.id, "", "", "", None, UPLOADS_COUNTED_MAX)
    return BucketStat(bucket=_info(bucket), uploads=len(uploads.uploads))


async def delete_bucket(ctx: AdminContext, asked: OneBucket) -> Done:
    """Delete an empty bucket. Uploads that were not completed vanish with it."""
    bucket = await ctx.bucket(asked.name)
    match await ctx.commit(commands.DeleteBucket(bucket=bucket.id)):
        case BucketNotEmpty():
            raise S3Error("BucketNotEmpty", f"The bucket {asked.name!r} holds objects, older versions or delete markers.")
        case NoBucket():
            raise no_bucket(asked.name)
        case _:
            return Done()


async def usage(ctx: AdminContext, asked: Nothing) -> Usage:
    """Add up buckets, objects and bytes, for each account and in all."""
    accounts: list[AccountUsage] = []
    while page := await ctx.metadata.holding_accounts(accounts[-1].account if accounts else ""):
        for held in page:
            most = held.quota or Quota()
            accounts.append(AccountUsage(
                account=held.name, buckets=held.buckets, objects=held.objects, bytes=held.bytes,
                upload_bytes=held.upload_bytes, objects_max=most.objects, bytes_max=most.bytes))
    total = await ctx.metadata.usage()
    return Usage(buckets=total.buckets, objects=total.objects, bytes=total.bytes, accounts=accounts)


def _info(bucket: Bucket) -> BucketInfo:
    return BucketInfo(
        name=bucket.name, account=bucket.account, owner=bucket.owner, created=iso8601(bucket.created_ms),
        region=bucket.region, versioning=bucket.versioning, objects=bucket.object_count, bytes=bucket.byte_count,
        copies=bucket.copies, replication=bucket.replication,
    )
