"""fsck while the server runs: metadata against chunks both ways, and repair of what can be repaired online."""

import msgspec

from gateway.admin.context import AdminContext, Progress
from gateway.admin.values import FsckReport, RunFsck
from gateway.folders import FolderError, chunks_of, node_id
from storage_node.checks import fsck
from storage_node.checks.fsck_nodes import ServingNode


async def run_fsck(ctx: AdminContext, asked: RunFsck, progress: Progress) -> FsckReport:
    """Compare metadata and chunks both ways, count everything again, and check the indexes against the files. What seems wrong
    is looked at again, since copies come and go; only what stays wrong is a finding."""
    local = _local(ctx)
    nodes = [ServingNode(node.node, ctx.client(node), local.get(node.node)) for node in await ctx.nodes()]
    report = await fsck.run(
        ctx.metadata, nodes, verify=asked.verify, deep=asked.deep, repair=asked.repair,
        progress=lambda what, done, of: progress({"what": what, "done": done, "of": of}))
    return msgspec.convert(msgspec.to_builtins(report), FsckReport)


def _local(ctx: AdminContext) -> dict[str, str]:
    """Chunk folders on this machine, by node."""
    found: dict[str, str] = {}
    for folder in ctx.admin.config.data:
        try:
            found[node_id(folder)] = str(chunks_of(folder.absolute()))
        except FolderError:
            continue                     # its node is asked over its socket, or is unreachable: then that is a finding
    return found
