"""`staddle node`: storage nodes (one for each data folder) and the metadata member."""

from typing import Annotated

import typer

from gateway.admin import values
from gateway.cli import printing
from gateway.cli.commands import FOUND_SOMETHING, Server, Yes, remote
from gateway.cli.draining import concerns

node_app = typer.Typer(no_args_is_help=True, help="Storage nodes, one for each data folder, and the metadata.")

Node = Annotated[str, typer.Argument(metavar="NODE", help="Name of the storage node.")]


@remote(node_app, "list", "ls")
def list_nodes(server: Server) -> None:
    """List the storage nodes, and say what deduplication saves.

    Example: staddle node list
    """
    found = server.get("node/list", values.NodeList)

    def people() -> None:
        printing.print_table(
            ("node", "zone", "state", "capacity>", "free>", "chunks>", "stored>", "to fetch>", "damaged>", "disk errors>"),
            (_row(node) for node in found.nodes), empty="No storage node has registered yet. The server's log may tell why.")
        saved = f"; deduplication and copies by reference save {printing.size(found.saved_bytes)}" if found.saved_bytes else ""
        printing.say(f"Objects: {printing.size(found.logical_bytes)}; stored: {printing.size(found.stored_bytes)} in "
                     f"{found.copies} cop{'y' if found.copies == 1 else 'ies'}{saved}.")
        if found.short:
            left = ", ".join(f"{count} with {copies} left" for copies, count in found.short.items())
            printing.say(f"Chunks that lack copies: {left}; {printing.size(found.short_bytes)}, the oldest for "
                         f"{found.oldest_seconds:.0f} s.")
        if found.over:
            printing.say(f"Chunks with more copies than wanted: {found.over}. They are given back.")

    server.show(found, people)


@remote(node_app, "stat")
def stat(
    server: Server, node: Annotated[str, typer.Argument(metavar="NODE", help="(default: all)", show_default=False)] = "",
) -> None:
    """Show all figures of a storage node.

    Example: staddle node stat
    """
    found = server.get("node/list", values.NodeList, node=node)

    def people() -> None:
        for each in found.nodes:
            plain = {name: value for name, value in each.care.items() if not isinstance(value, list | dict)}
            figures = {**each.statistics, **plain}
            printing.print_fields([
                ("Node", each.node), ("State", each.state), ("Zone", each.zone), ("Address", each.address), ("Error", each.error),
                *((name.replace("_", " "), _figure(name, value)) for name, value in figures.items())])

    server.show(found, people)


@remote(node_app, "drain")
def drain(server: Server, node: Node, yes: Yes = False) -> None:
    """Take a storage node out: others make its copies, it gives its own back. Reads and writes go on.

    Asks first if the nodes that are left keep fewer copies or all in one zone, or lack the space.

    Example: staddle node drain disk2-3f9a
    """
    if not yes and (less := concerns(server.get("node/list", values.NodeList), node)):
        server.confirm(" ".join([*less, f"Drain {node} all the same?"]), yes)
    server.show(server.post("node/drain", values.Done, node=node), lambda: printing.say(
        f"{node} is draining. When `staddle node list` shows nothing left on it: staddle node remove {node}"))


@remote(node_app, "undrain")
def undrain(server: Server, node: Node) -> None:
    """Let a storage node that was draining stay.

    Example: staddle node undrain disk2-3f9a
    """
    server.show(server.post("node/undrain", values.Done, node=node), lambda: printing.say(f"{node} stays."))


@remote(node_app, "read-only")
def read_only(
    server: Server, node: Node,
    off: Annotated[bool, typer.Option("--off", help="It takes chunks again.")] = False,
) -> None:
    """Send no new chunks to a storage node. What it holds stays, and is read.

    Example: staddle node read-only disk2-3f9a
    """
    server.show(server.post("node/read-only", values.Done, node=node, on=not off), lambda: printing.say(
        f"{node} takes chunks again." if off else f"{node} takes no new chunks."))


@remote(node_app, "remove", "rm")
def remove(
    server: Server, node: Node,
    force: Annotated[bool, typer.Option("--force", help="One that is down: give up what only it holds.")] = False,
) -> None:
    """Forget a storage node that has been drained.

    Example: staddle node remove disk2-3f9a
    """
    server.show(server.post("node/remove", values.Done, node=node, force=force), lambda: printing.say(
        f"{node} is no more. Should it start again, it is a new node."))


@remote(node_app, "metadata", "meta")
def metadata(server: Server) -> None:
    """Show the metadata member: its log, its journal, and what waits in it.

    Example: staddle node metadata
    """
    found = server.get("meta/status", values.MetadataStatus)
    server.show(found, lambda: printing.print_fields([
        ("Role", found.role), ("Leader", found.leader), ("Term", found.term), ("Applied", found.applied_index),
        ("Committed", found.commit_index), ("Snapshot at", found.snapshot_index), ("Sessions", found.sessions),
        ("Journal", f"{printing.size(found.journal_bytes)} in {found.journal_segments} file(s)"),
        ("Syncs", f"{found.syncs} in {found.sync_seconds:.1f} s"), ("Commands", f"{found.commands} in {found.entries} entries"),
        ("Waiting to be released", found.queued), ("Chunks short of copies", found.short_chunks)]))


@remote(node_app, "damage")
def damage(
    server: Server, node: Annotated[str, typer.Argument(metavar="NODE", help="(default: all)", show_default=False)] = "",
) -> None:
    """List copies that were found damaged, and what became of them. Status 1 if any is still to be dealt with.

    Example: staddle node damage
    """
    found = server.get("node/damage", values.DamageList, node=node)
    server.show(found, lambda: printing.print_table(
        ("node", "copy", "found", "size>", "what became of it", "what was wrong"),
        ((each.node, each.digest, printing.moment(each.when), printing.size(each.size) if each.size else "",
          each.became or "still there", each.reason) for each in found.copies),
        empty="No damage has been found. A scrub looks at everything: `staddle scrub start`."))
    if any(not each.became for each in found.copies):
        raise typer.Exit(FOUND_SOMETHING)


@remote(node_app, "compact")
def compact(
    server: Server, node: Annotated[str, typer.Argument(metavar="NODE", help="(default: all)", show_default=False)] = "",
    dead_percent: Annotated[int, typer.Option(
        "--dead-percent", metavar="N", min=0, max=100, help="Segments of which at least so much is dead.")] = 0,
) -> None:
    """Give the space of deleted small objects back now: segments with dead bytes are emptied. Writes go on meanwhile.

    Example: staddle node compact
    """
    done = server.long("compacting", "node/compact", values.CompactReport, node=node, dead_percent=dead_percent)
    server.show(done, lambda: printing.print_table(
        ("node", "segments>", "moved>", "given back>", "damaged, kept>", "error"),
        ((each.node, each.segments, printing.size(each.moved_bytes), printing.size(each.returned_bytes), each.kept_chunks,
          each.error) for each in done.nodes), empty="There are no storage nodes."))
    if any(each.error for each in done.nodes):
        raise typer.Exit(FOUND_SOMETHING)


def _row(node: values.NodeStat) -> tuple[object, ...]:
    given = node.statistics
    if node.error:
        return node.node, node.zone, f"{node.state}, does not answer: {node.error}", "", "", "", "", "", "", ""
    state = node.state if node.state != "up" or given.get("writable", True) else "not writable"
    if node.asked and node.asked != node.state:
        state += f", {node.asked}"
    if node.state == "draining" or node.to_give_back:
        state += f", {node.to_give_back} to give back"
    if node.share < 1:
        state += f", rebalanced to {100 * node.share:.0f} %"
    fetching = str(node.to_fetch)
    if node.to_fetch:
        fetching += f" ({printing.size(node.to_fetch_bytes)}" + (f", {node.seconds_left:.0f} s)" if node.seconds_left else ")")
    return (node.node, node.zone, state, printing.size(_number(given, "capacity_bytes")),
            printing.size(_number(given, "free_bytes")), given.get("chunks", ""),
            printing.size(_number(given, "chunk_bytes")), fetching, given.get("damaged", ""), given.get("disk_errors", ""))


def _number(given: dict[str, int | float | bool | str], name: str) -> float:
    value = given.get(name, 0)
    return value if isinstance(value, int | float) else 0


def _figure(name: str, value: object) -> str:
    if isinstance(value, bool):
        return printing.yes(value)
    if isinstance(value, int | float) and "bytes" in name:
        return f"{printing.size(value)} ({value:,})"
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
