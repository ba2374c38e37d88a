"""The scrub, the comparison of inventories, compaction and what was found damaged: asked of each storage node."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec

from consensus.core.errors import ClusterError
from consensus.core.model import NodeInfo
from gateway.admin.context import AdminContext, Progress
from gateway.admin.values import (
    Compact,
    CompactReport,
    Damage,
    DamageList,
    NodeCompacted,
    NodeScrub,
    OneNode,
    ScrubReport,
    StartScrub,
)
from gateway.s3.times import iso8601
from storage_node.care.compaction import compact as compact_node
from storage_node.care.scrub import ScrubStatus
from storage_node.client import NodeClient
from storage_node.store import CompactionState

LOOK_S = 0.2
"""How often a node is asked how far it is."""

DAMAGE_MAX = 1000


async def scrub_status(ctx: AdminContext, asked: OneNode) -> ScrubReport:
    """Show how far the scrub is, what it has found, and when it runs next."""
    return ScrubReport(nodes=await _each(ctx, asked.node, lambda client: client.scrub()))


async def start_scrub(ctx: AdminContext, asked: StartScrub) -> ScrubReport:
    """Begin to verify every copy on the disks now, gently or at full speed. One under way begins anew."""
    return ScrubReport(nodes=await _each(
        ctx, asked.node, lambda client: client.scrub("start", full_speed=asked.full_speed)))


async def stop_scrub(ctx: AdminContext, asked: OneNode) -> ScrubReport:
    """Stop a scrub that is under way. The next begins when it is due."""
    return ScrubReport(nodes=await _each(ctx, asked.node, lambda client: client.scrub("stop")))


async def run_scrub(ctx: AdminContext, asked: StartScrub, progress: Progress) -> ScrubReport:
    """Begin a scrub and answer when it is done: what it found."""
    states: dict[str, ScrubStatus] = {}

    async def whole(node: str, client: NodeClient) -> ScrubStatus:
        passes = (await client.scrub()).passes
        status = await client.scrub("start", full_speed=asked.full_speed)
        while status.state == "running" and status.passes == passes:
            states[node] = status
            progress({"bytes": sum(each.bytes for each in states.values()),
                      "of": sum(each.total_bytes for each in states.values()),
                      "chunks": sum(each.chunks for each in states.values()),
                      "damaged": sum(each.damaged for each in states.values())})
            await asyncio.sleep(LOOK_S)
            status = await client.scrub()
        return status

    nodes = await ctx.nodes(asked.node)
    return ScrubReport(nodes=list(await asyncio.gather(*(_ask(ctx, node, partial(whole, node.node)) for node in nodes))))


async def list_damage(ctx: AdminContext, asked: OneNode) -> DamageList:
    """List the copies that were found damaged: those still to be dealt with, then what became of the others."""
    found: list[Damage] = []
    for node in await ctx.nodes(asked.node):
        try:
            report = await ctx.client(node).damage(DAMAGE_MAX)
        except ClusterError:
            continue                                # `node list` says that it does not answer
        found += [Damage(node=node.node, digest=note.digest, generation=note.generation, reason=note.reason, when="", size=0,
                         became="") for note in report.open]
        found += [Damage(node=node.node, digest=aside.digest, generation=aside.generation, reason=aside.reason,
                         when=iso8601(aside.found_ms), size=aside.size, became=aside.what) for aside in report.quarantined]
    return DamageList(copies=found[:DAMAGE_MAX])


async def compact(ctx: AdminContext, asked: Compact, progress: Progress) -> CompactReport:
    """Empty segments of which enough is dead, and give their space back. Answers when it is done."""
    returned: dict[str, int] = {}

    async def one(node: NodeInfo) -> NodeCompacted:
        def told(state: CompactionState) -> None:
            returned[node.node] = state.returned_bytes
            progress({"done": state.done, "of": state.segments, "returned_bytes": sum(returned.values())})

        try:
            state = await compact_node(ctx.client(node), asked.dead_percent, told)
            return NodeCompacted(node=node.node, segments=state.done, moved_bytes=state.moved_bytes,
                                 returned_bytes=state.returned_bytes, kept_chunks=state.kept_chunks, error=state.error)
        except ClusterError as error:
            return NodeCompacted(node=node.node, segments=0, moved_bytes=0, returned_bytes=0, kept_chunks=0, error=str(error))

    return CompactReport(nodes=list(await asyncio.gather(*map(one, await ctx.nodes(asked.node)))))


async def _each(ctx: AdminContext, wanted: str, ask: Callable[[NodeClient], Awaitable[ScrubStatus]]) -> list[NodeScrub]:
    return list(await asyncio.gather(*(_ask(ctx, node, ask) for node in await ctx.nodes(wanted))))


async def _ask(ctx: AdminContext, node: NodeInfo, ask: Callable[[NodeClient], Awaitable[ScrubStatus]]) -> NodeScrub:
    try:
        status = await ask(ctx.client(node))
    except ClusterError as error:
        return NodeScrub(node=node.node, error=str(error))
    given: dict[str, Any] = msgspec.structs.asdict(status)
    times: dict[str, Any] = {name: iso8601(given[f"{name}_ms"]) if given[f"{name}_ms"] else ""
                             for name in ("started", "finished", "next")}
    known = {name: given[name] for name in NodeScrub.__struct_fields__ if name in given}
    return NodeScrub(node=node.node, **times, **known)
