"""Access logs of buckets, for operators who do not want to wait for the next delivery."""

from gateway.admin.context import AdminContext
from gateway.admin.values import FlushedLogs, Nothing


async def flush_logs(ctx: AdminContext, asked: Nothing) -> FlushedLogs:
    """Deliver at once what was recorded for buckets with logging, on all machines. Says how many objects were written."""
    return FlushedLogs(objects=await ctx.admin.flush_logs())
