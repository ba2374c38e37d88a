"""Quotas of buckets and accounts: set, looked at, taken away. What they mean is said in consensus/apply/quotas.py."""

from consensus.accounts import Holding
from consensus.core import commands
from consensus.core.model import Bucket, Quota
from consensus.core.results import NoBucket
from gateway.admin.context import AdminContext
from gateway.admin.errors import AdminError, no_bucket
from gateway.admin.users import owner_of
from gateway.admin.values import Held, ListQuotas, OneHolder, QuotaList, SetQuota


async def set_quota(ctx: AdminContext, asked: SetQuota) -> Held:
    """Set the most objects and bytes that a bucket, or all buckets of an account, may hold. What is there already stays."""
    if asked.objects is None and asked.bytes is None:
        raise AdminError("InvalidArgument", "Give objects, bytes or both; quota/remove takes a quota away.")
    return await _set(ctx, asked, Quota(asked.objects, asked.bytes))


async def remove_quota(ctx: AdminContext, asked: OneHolder) -> Held:
    """Take the quota of a bucket or an account away."""
    return await _set(ctx, asked, None)


async def get_quota(ctx: AdminContext, asked: OneHolder) -> Held:
    """Show what a bucket or an account holds and may hold; the account of whoever asks, if none is named."""
    if not (asked.bucket or asked.account or asked.user):
        return _held("account", await ctx.metadata.account_holding(ctx.principal.account))
    if asked.bucket:
        await _account(ctx, asked)
        return _of_bucket(await ctx.bucket(asked.bucket))
    return _held("account", await ctx.metadata.account_holding(await _account(ctx, asked)))


async def list_quotas(ctx: AdminContext, asked: ListQuotas) -> QuotaList:
    """List the buckets, or the accounts, that have a quota, and what they hold of it."""
    if asked.of not in ("bucket", "account"):
        raise AdminError("InvalidArgument", "of is bucket or account.")
    ask = ctx.metadata.limited_buckets if asked.of == "bucket" else ctx.metadata.limited_accounts
    found = await ask(asked.after, asked.limit)
    return QuotaList(quotas=[_held(asked.of, each) for each in found],
                     next=found[-1].name if len(found) == asked.limit else "")


async def _set(ctx: AdminContext, asked: OneHolder | SetQuota, quota: Quota | None) -> Held:
    account = await _account(ctx, asked)
    bucket = await ctx.bucket(asked.bucket) if asked.bucket else None
    outcome = await ctx.commit(commands.SetQuota(bucket=None if bucket is None else bucket.id, account=account, quota=quota))
    if isinstance(outcome, NoBucket):
        raise no_bucket(asked.bucket)
    if bucket is not None:
        return _of_bucket(await ctx.bucket(asked.bucket))
    return _held("account", await ctx.metadata.account_holding(account))


async def _account(ctx: AdminContext, asked: OneHolder | SetQuota) -> str:
    """The account that is meant; "" if it is a bucket. Raises AdminError."""
    if sum(map(bool, (asked.bucket, asked.account, asked.user))) != 1:
        raise AdminError("InvalidArgument", "Give one of bucket, account and user.")
    return (await owner_of(ctx, asked.user)).account if asked.user else asked.account


def _of_bucket(bucket: Bucket) -> Held:
    return _held("bucket", Holding(bucket.name, 1, bucket.object_count, bucket.byte_count, bucket.upload_bytes, bucket.quota))


def _held(kind: str, held: Holding) -> Held:
    most = held.quota or Quota()
    return Held(kind=kind, name=held.name, objects=held.objects, bytes=held.bytes, upload_bytes=held.upload_bytes,
                objects_max=most.objects, bytes_max=most.bytes)
