"""What gateways do beside serving clients: which of them does it, and how far lifecycles are."""

import itertools

from consensus import queries
from consensus.core.errors import Corrupt
from consensus.lifecycles import LifecycleBucket
from gateway.admin import values
from gateway.admin.context import AdminContext
from gateway.admin.errors import AdminError
from gateway.lifecycle import progress
from gateway.lifecycle.book import KIND
from gateway.s3.times import iso8601


async def list_duties(ctx: AdminContext, asked: values.Nothing) -> values.DutyList:
    """List the duties: work that one gateway does for all others, and which one. A duty is held while there is work."""
    now_ms = ctx.admin.services.clock.now_ms()
    return values.DutyList(duties=[values.DutyInfo(
        name=duty.name, holder=duty.holder, held=duty.expires_ms > now_ms, since=iso8601(duty.since_ms),
        expires=iso8601(duty.expires_ms)) for duty in await ctx.metadata.read(queries.duties)])


async def lifecycle_status(ctx: AdminContext, asked: values.LifecyclePage) -> values.LifecycleList:
    """Show the buckets that have a lifecycle: how far it is carried out, and what the last scan did."""
    if asked.after and not asked.after.isdigit():
        raise AdminError("InvalidArgument", "`after` is what a page gave as `next`.")
    page = await ctx.metadata.read(queries.lifecycle_buckets, int(asked.after or 0), asked.limit + 1)
    shown = [await _info(ctx, bucket) for bucket in itertools.islice(page, asked.limit)]
    return values.LifecycleList(buckets=shown, next=str(page[asked.limit - 1].id) if len(page) > asked.limit else "")


async def _info(ctx: AdminContext, bucket: LifecycleBucket) -> values.LifecycleInfo:
    document = await ctx.metadata.bucket_setting(bucket.id, KIND.name)
    trouble, rules = "", 0
    try:
        rules = 0 if document is None else len(KIND.decode(document).rules)
    except Corrupt as error:
        trouble = str(error)
    known = await progress.load(ctx.metadata, bucket.id)
    if known is None or known.lifecycle != bucket.lifecycle:
        known, state = progress.Progress(lifecycle=bucket.lifecycle, began_ms=0), "waiting"
    else:
        state = "trouble" if known.trouble else "done" if known.ended_ms else "scanning"
    done = known.counts
    return values.LifecycleInfo(
        bucket=bucket.name, rules=rules, state="trouble" if trouble else state, began=_time(known.began_ms),
        ended=_time(known.ended_ms), at=known.at.decode(errors="replace"), looked=done.looked, expired=done.expired,
        removed=done.removed, markers=done.markers, moved=done.moved, aborted=done.aborted, left=done.left,
        trouble=trouble or known.trouble)


def _time(ms: int) -> str:
    return iso8601(ms) if ms else ""
