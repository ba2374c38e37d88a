"""Storage nodes, the metadata member and this server: figures for people and programs."""

import asyncio
import platform
from importlib.metadata import version as installed

import msgspec

from consensus.core.errors import ClusterError
from consensus.core.model import NodeInfo
from consensus.core.placement import copies_wanted
from gateway.admin import values
from gateway.admin.context import AdminContext
from gateway.config import without_secrets


async def list_nodes(ctx: AdminContext, asked: values.OneNode) -> values.NodeList:
    """Show the storage nodes: capacity, chunks, bytes, segments, disk errors, and what deduplication saves."""
    nodes = await ctx.nodes(asked.node)
    found = await asyncio.gather(*(_node(ctx, node) for node in nodes))
    logical = (await ctx.metadata.usage()).bytes
    copies = copies_wanted(ctx.admin.config.copies, await ctx.metadata.nodes())
    stored = sum(int(node.statistics.get("chunk_bytes", 0)) for node in found)
    whole = not asked.node and all(not node.error for node in found)
    return values.NodeList(nodes=list(found), copies=copies, logical_bytes=logical, stored_bytes=stored,
                           saved_bytes=max(0, logical * copies - stored) if whole else 0)


async def _node(ctx: AdminContext, node: NodeInfo) -> values.NodeStat:
    statistics: dict[str, int | float | bool | str] = {}
    care: dict[str, object] = {}
    error = ""
    try:
        status = await ctx.client(node).status()
        statistics = status.statistics._asdict()
        care = {name: value for name, value in msgspec.to_builtins(status).items() if name not in ("node", "statistics")}
    except ClusterError as fault:
        error = str(fault)
    return values.NodeStat(
        node=node.node, state=node.state, zone=node.zone, address=node.address, capacity_bytes=node.capacity_bytes,
        error=error, statistics=statistics, care=care)


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
