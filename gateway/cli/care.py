"""`staddle gc` and `staddle scrub`: what takes space, what is damaged, and doing something about it now."""

from typing import Annotated

import typer

from gateway.admin import values
from gateway.cli import printing
from gateway.cli.commands import (
    FOUND_SOMETHING,
    AsJson,
    CaBundle,
    Data,
    Endpoint,
    Server,
    Yes,
    reflowed,
    remote,
    with_server,
)
from gateway.cli.connection import DEFAULT_ENDPOINT

gc_app = typer.Typer()
scrub_app = typer.Typer(no_args_is_help=True, help="The scrub: every copy on the disks is read and compared with its name.")

COPIES_NAMED = 20

Node = Annotated[str, typer.Option("--node", metavar="NODE", help="This storage node only. (default: all)")]
Full = Annotated[bool, typer.Option("--full-speed", help="As fast as the disks go, whether or not clients wait.")]


@gc_app.callback(invoke_without_command=True)
@reflowed
def gc(
    context: typer.Context,
    report: Annotated[bool, typer.Option("--report", help="The same as `staddle gc report`.")] = False,
    endpoint: Endpoint = DEFAULT_ENDPOINT, data: Data = None, ca_bundle: CaBundle = None, as_json: AsJson = False,
) -> None:
    """Collection: what takes space and why; letting go of it now.

    Deleted objects give their space back by themselves, once no reader or commit can need them any more: small ones when
    their segment is compacted, large ones an hour after the delete (`read_grace_seconds`).
    """
    if context.invoked_subcommand is None:
        if report:
            with_server(report_gc)(endpoint=endpoint, data=data, ca_bundle=ca_bundle, as_json=as_json)
        else:
            typer.echo(context.get_help())


@remote(gc_app, "report")
def report_gc(
    server: Server,
    copies: Annotated[int, typer.Option("--copies", metavar="N", help="Name so many copies of each node.", min=0, max=1000)]
    = COPIES_NAMED,
) -> None:
    """Tell what takes space on the disks without being an object's, and why it is still there. Changes nothing.

    Example: staddle gc report
    """
    found = server.get("gc/report", values.GcReport, copies=copies)

    def people() -> None:
        rows = [*(("metadata", each) for each in found.metadata),
                *((node.node, each) for node in found.nodes for each in node.waits)]
        printing.print_table(
            ("where", "count>", "size>", "since", "what and why"),
            ((where, each.items, printing.size(each.bytes), printing.moment(each.since), each.what) for where, each in rows),
            empty="Nothing waits: every copy on the disks is an object's.")
        named = [(node.node, copy) for node in found.nodes for copy in node.copies]
        if named:
            printing.print_table(("node", "copy", "size>", "why", "until"), (
                (node, copy.digest, printing.size(copy.size), copy.reason, printing.moment(copy.until)) for node, copy in named),
                empty="")
        for node in found.nodes:
            if node.error:
                printing.say(f"Storage node {node.node} does not answer: {node.error}")
            elif node.dead_bytes:
                printing.say(f"Segments of {node.node}: {printing.size(node.dead_bytes)} of {printing.size(node.segment_bytes)} "
                             "are dead; compaction gives them back (`staddle node compact`).")
            if node.more:
                printing.say(f"There are more copies on {node.node} than were counted.")
        if found.lost_chunks or found.short_chunks:
            printing.say(f"{found.short_chunks} chunk(s) lack copies, {found.lost_chunks} of them have none left: "
                         "`staddle fsck` tells which objects they belong to.")

    server.show(found, people)


@remote(gc_app, "run")
def run_gc(
    server: Server,
    now: Annotated[bool, typer.Option("--now", help="Do not wait for readers that have begun: they are cut off.")] = False,
    yes: Yes = False,
) -> None:
    """Collect now what would be collected in time.

    Example: staddle gc run
    """
    if now:
        server.confirm("Downloads of deleted objects that are under way will be cut off. Go on?", yes)
    done = server.long("collecting", "gc/run", values.GcDone, now=now)

    def people() -> None:
        printing.say(f"{done.released} released in the metadata; {done.removed_copies} copies with "
                     f"{printing.size(done.removed_bytes)} removed from the disks.")
        for error in done.errors:
            printing.say(f"NOT collected: {error}")

    server.show(done, people)
    if done.errors:
        raise typer.Exit(FOUND_SOMETHING)


@remote(scrub_app, "status")
def scrub_status(server: Server, node: Node = "") -> None:
    """Show how far the scrub is, what it found, and when it runs next. Status 1 if the last pass found damage.

    Example: staddle scrub status
    """
    _show(server, server.get("scrub/status", values.ScrubReport, node=node))


@remote(scrub_app, "start")
def start_scrub(
    server: Server, node: Node = "", full_speed: Full = False,
    wait: Annotated[bool, typer.Option("--wait", help="Until it is done; status 1 if damage was found.")] = False,
) -> None:
    """Verify every copy on the disks now. Without --full-speed it gives way to clients.

    Example: staddle scrub start --wait --full-speed
    """
    if wait:
        _show(server, server.long("scrubbing", "scrub/run", values.ScrubReport, node=node, full_speed=full_speed))
        return
    begun = server.post("scrub/start", values.ScrubReport, node=node, full_speed=full_speed)
    server.show(begun, lambda: printing.say("The scrub has begun; `staddle scrub status` shows how far it is."))


@remote(scrub_app, "stop")
def stop_scrub(server: Server, node: Node = "") -> None:
    """Stop a scrub that is under way.

    Example: staddle scrub stop
    """
    stopped = server.post("scrub/stop", values.ScrubReport, node=node)
    server.show(stopped, lambda: printing.say("The scrub is stopped. The next one begins when it is due."))


def _show(server: Server, report: values.ScrubReport) -> None:
    def people() -> None:
        printing.print_table(
            ("node", "state", "read>", "of>", "chunks>", "damaged>", "unreadable>", "finished", "next"),
            ((node.node, f"does not answer: {node.error}" if node.error else node.state, printing.size(node.bytes),
              printing.size(node.total_bytes), node.chunks, node.damaged, node.errors, printing.moment(node.finished),
              printing.moment(node.next)) for node in report.nodes),
            empty="There are no storage nodes.")
        for node in report.nodes:
            if node.trouble:
                printing.say(f"{node.node} has trouble reading its disk: {node.trouble}")
            for finding in node.index_findings:
                printing.say(f"The index of {node.node} is damaged ({finding}). Stop the server and delete its index.sqlite: "
                             "it is made again from the chunks.")
        if any(node.damaged for node in report.nodes):
            printing.say("Damage was found: `staddle node damage` lists it, `staddle fsck` tells which objects it concerns.")

    server.show(report, people)
    if any(node.damaged or node.errors or node.index_findings or node.error for node in report.nodes):
        raise typer.Exit(FOUND_SOMETHING)
