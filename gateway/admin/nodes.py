"""Storage nodes, the metadata member and this server: figures for people and programs."""

import asyncio
import platform
from importlib.metadata import version as installed

import msgspec

from consensus.core import commands
from consensus.core.errors import ClusterError
from consensus.core.ids import NodeId
from consensus.core.model import NodeInfo
from consensus.core.placement import copies_wanted
from consensus.core.results import NodeInUse, NoNode
from gateway.admin import values
from gateway.admin.context import AdminContext
from gateway.admin.errors import AdminError
from gateway.config import without_secrets
from gateway.s3.times import iso8601

PATIENCE_S = 5.0
"""With one node: a list of nodes is most wanted when one of them hangs."""


async def list_nodes(ctx: AdminContext, asked: values.OneNode) -> values.NodeList:
    """Show the storage nodes: state, capacity, chunks, bytes, disk errors, what they have still to fetch; which chunks lack
    copies; and what deduplication saves."""
    nodes = await ctx.nodes(asked.node)
    found = await asyncio.gather(*(_node(ctx, node) for node in nodes))
    unequal = await ctx.metadata.unequal()
    logical = (await ctx.metadata.usage()).bytes
    copies = copies_wanted(ctx.admin.config.copies, await ctx.metadata.nodes())
    stored = sum(int(node.statistics.get("chunk_bytes", 0)) for node in found)
    whole = not asked.node and all(not node.error for node in found) and not unequal.short
    return values.NodeList(nodes=list(found), copies=copies, logical_bytes=logical, stored_bytes=stored,
                           saved_bytes=max(0, logical * copies - stored) if whole else 0,
                           short={str(left): count for left, count in sorted(unequal.short.items())},
                           short_bytes=unequal.short_bytes, over=unequal.over,
                           oldest_seconds=max((_oldest_s(node) for node in found), default=0.0) if unequal.short else 0.0)


def _oldest_s(node: values.NodeStat) -> float:
    upkeep = node.care.get("upkeep")
    return upkeep["repair"]["oldest_ms"] / 1000 if isinstance(upkeep, dict) else 0.0


async def _node(ctx: AdminContext, node: NodeInfo) -> values.NodeStat:
    statistics: dict[str, int | float | bool | str] = {}
    care: dict[str, object] = {}
    error = ""
    upkeep = None
    try:
        async with asyncio.timeout(PATIENCE_S):
            status = await ctx.client(node).status()
        upkeep = status.upkeep
        statistics = status.statistics._asdict()
        care = {name: value for name, value in msgspec.to_builtins(status).items() if name not in ("node", "statistics")}
    except (ClusterError, TimeoutError) as fault:
        error = str(fault) or f"no answer in {PATIENCE_S:g} s"
    stat = values.NodeStat(
        node=node.node, state=node.state, zone=node.zone, address=node.address, capacity_bytes=node.capacity_bytes,
        error=error, statistics=statistics, care=care, since=iso8601(node.since_ms) if node.since_ms else "",
        asked=node.asked, counts=node.counts)
    if upkeep is None:
        return stat
    repair, rebalance = upkeep.repair, upkeep.rebalance
    return msgspec.structs.replace(
        stat, to_fetch=repair.waiting, to_fetch_bytes=repair.waiting_bytes, to_give_back=upkeep.giving_back.waiting,
        share=rebalance.share if rebalance.running else 1.0, seconds_left=max(repair.seconds_left, rebalance.seconds_left))


async def drain_node(ctx: AdminContext, asked: values.AskNode) -> values.Done:
    """Take a storage node out: its copies count no more, so others make them, and it gives its own back. When it lists nothing
    it may be removed. Reads and writes go on meanwhile."""
    return await _ask(ctx, asked.node, "draining")


async def undrain_node(ctx: AdminContext, asked: values.AskNode) -> values.Done:
    """Let a storage node that was draining stay."""
    return await _ask(ctx, asked.node, "")


async def set_read_only(ctx: AdminContext, asked: values.ReadOnlyNode) -> values.Done:
    """Send no new chunks to a storage node; what it holds is read and counted on as before."""
    return await _ask(ctx, asked.node, "read-only" if asked.on else "")


async def _ask(ctx: AdminContext, node: str, wish: str) -> values.Done:
    if isinstance(await ctx.commit(commands.AskNode(node=NodeId(node), asked=wish)), NoNode):
        raise _no_such(node)
    return values.Done()


async def remove_node(ctx: AdminContext, asked: values.RemoveNode) -> values.Done:
    """Forget a storage node that has been drained; or, with `force`, one that is down, with all that only it holds."""
    match await ctx.commit(commands.RemoveNode(node=NodeId(asked.node), force=asked.force)):
        case NoNode():
            raise _no_such(asked.node)
        case NodeInUse(reason=reason):
            raise AdminError("NodeInUse", f"Storage node {asked.node!r} can't be removed: {reason}.")
        case _:
            return values.Done()


def _no_such(node: str) -> AdminError:
    return AdminError("NoSuchNode", f"There is no storage node {node!r}; `staddle node list` shows them.")


async def metadata_status(ctx: AdminContext, asked: values.Nothing) -> values.MetadataStatus:
    """Show the metadata member: its log, its journal, and what waits in it."""
    status, usage = await ctx.metadata.status(), await ctx.metadata.usage()
    given = msgspec.structs.asdict(status)
    known = {name: given[name] for name in values.MetadataStatus.__struct_fields__ if name in given}
    return values.MetadataStatus(**known, queued=usage.queued, short_chunks=usage.short)


async def version(ctx: AdminContext, asked: values.Nothing) -> values.Version:
    """Which version serves."""
    return values.Version(version=installed("staddle"), python=platform.python_version(), region=ctx.admin.config.region)


async def config_in_force(ctx: AdminContext, asked: values.Nothing) -> values.ConfigInForce:
    """Show the settings that the server runs with. Secrets are masked."""
    return values.ConfigInForce(settings=without_secrets(ctx.admin.config))
