"""Collection: what takes space and why, and letting go of it now."""

import asyncio

from consensus.core.errors import ClusterError
from consensus.core.model import NodeInfo
from consensus.garbage import GcReport, Waiting
from gateway.admin.context import AdminContext, Progress
from gateway.admin.values import GcCopy, GcDone, GcNode, GcWaits, ReportGc, RunGc
from gateway.admin.values import GcReport as Report
from gateway.s3.times import iso8601

PAGES_MAX = 1000
"""Pages of 300 copies that a report counts: a few seconds. Beyond, it says that there are more."""

WHY = {
    "upload": "their upload is under way: a commit may still bring them",
    "settling": "listed in the metadata; the node has not asked yet",
    "announced": "their chunk lacks copies: they will count",
    "duplicate": "the same bytes are here in a copy that counts: they go in the next round",
    "unlisted": "nothing refers to them: they wait for readers, then go",
    "grace": "nothing refers to them: they go when readers have had their time",
    "damaged": "found damaged: mended or withdrawn first",
}


async def report_gc(ctx: AdminContext, asked: ReportGc) -> Report:
    """Tell what takes space and is not (or not yet) an object's, and why. Changes nothing."""
    found = await ctx.metadata.gc_report()
    nodes = await asyncio.gather(*(_node(ctx, node, asked.copies) for node in await ctx.nodes()))
    return Report(metadata=_metadata(found), short_chunks=found.short, lost_chunks=found.lost, nodes=list(nodes))


async def run_gc(ctx: AdminContext, asked: RunGc, progress: Progress) -> GcDone:
    """Let go now of everything that may go, and answer when it is done. With `now`, readers that have begun are cut off."""
    grace_s = 0.0 if asked.now else None
    released = await ctx.metadata.housekeep(grace_s=grace_s, progress=lambda units: progress({"released": units}))
    removed = {"copies": 0, "bytes": 0}
    errors: list[str] = []

    async def collect(node: NodeInfo) -> None:
        seen = [0, 0]

        def told(step: object) -> None:
            count, size = getattr(step, "removed", 0), getattr(step, "removed_bytes", 0)
            removed["copies"] += count - seen[0]
            removed["bytes"] += size - seen[1]
            seen[:] = count, size
            progress({"released": released, "removed_copies": removed["copies"], "removed_bytes": removed["bytes"]})

        try:
            await ctx.client(node).gc_run(no_grace=asked.now, progress=told)
        except ClusterError as error:
            errors.append(f"storage node {node.node}: {error}")

    await asyncio.gather(*map(collect, await ctx.nodes()))
    return GcDone(released=released, removed_copies=removed["copies"], removed_bytes=removed["bytes"], errors=errors)


def _metadata(found: GcReport) -> list[GcWaits]:
    waits = (*found.queued, found.lingering, found.held, found.staged, found.uploads)
    return [_waits(each) for each in waits if each.items]


def _waits(waiting: Waiting) -> GcWaits:
    return GcWaits(what=waiting.what, items=waiting.items, bytes=waiting.bytes,
                   since=iso8601(waiting.since_ms) if waiting.since_ms else "")


async def _node(ctx: AdminContext, node: NodeInfo, shown: int) -> GcNode:
    """Copies of one node that do not count, by reason."""
    client = ctx.client(node)
    counts: dict[str, list[int]] = {}
    copies: list[GcCopy] = []
    after, segment_bytes, dead_bytes, more = None, 0, 0, False
    try:
        for _ in range(PAGES_MAX):
            page = await client.gc_report(after)
            segment_bytes, dead_bytes = segment_bytes + page.segment_bytes, dead_bytes + page.dead_bytes
            for copy in page.copies:
                sums = counts.setdefault(copy.reason, [0, 0])
                sums[0] += 1
                sums[1] += copy.size
                if len(copies) < shown:
                    copies.append(GcCopy(digest=copy.digest, generation=copy.generation, size=copy.size, reason=copy.reason,
                                         until=iso8601(copy.until_ms) if copy.until_ms else ""))
            after = page.after
            more = after is not None
            if not more:
                break
    except ClusterError as error:
        return GcNode(node=node.node, error=str(error))
    return GcNode(node=node.node, waits=[
        GcWaits(what=f"{reason}: {WHY.get(reason, '')}", items=count, bytes=size, since="")
        for reason, (count, size) in counts.items()
    ], copies=copies, segment_bytes=segment_bytes, dead_bytes=dead_bytes, more=more)
