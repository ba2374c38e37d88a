"""`staddle events`: where events of buckets are sent to."""

from typing import Annotated

import typer

from gateway.admin import values
from gateway.cli import printing
from gateway.cli.commands import FOUND_SOMETHING, Server, Yes, remote

events_app = typer.Typer(
    no_args_is_help=True,
    help="Targets of event notifications. The setting 'webhooks' names them; docs/EVENTS.md tells how buckets use them.")

Target = Annotated[str, typer.Argument(metavar="TARGET", help="Name of the target.")]


@remote(events_app, "list", "ls")
def list_targets(server: Server) -> None:
    """List the targets, what waits for them, and why the last delivery failed. Status 1 if one fails.

    Example: staddle events list
    """
    found = server.get("events/list", values.TargetList).targets

    def people() -> None:
        printing.print_table(
            ("target", "where", "waiting>", "since", "delivered>", "too old>", "dropped>", "damaged>", "trouble"),
            ((each.name, each.url if each.configured else "not in the settings", each.queued,
              printing.moment(each.oldest) if each.oldest else "", each.delivered, each.expired, each.dropped,
              each.damaged or "", each.error)
             for each in found),
            empty="No target is configured: the setting 'webhooks' names them.")
        for each in found:
            if each.configured:
                printing.say(f"{each.name}: {each.arn}")

    server.show(found, people)
    if any(each.error for each in found):
        raise typer.Exit(FOUND_SOMETHING)


@remote(events_app, "test")
def test(server: Server, target: Target) -> None:
    """Send a test event to a target and say whether it was taken.

    Example: staddle events test warehouse
    """
    server.show(server.post("events/test", values.Done, target=target), lambda: printing.say(f"{target} has taken a test event."))


@remote(events_app, "purge")
def purge(server: Server, target: Target, yes: Yes = False) -> None:
    """Give up all events that wait for a target, and forget its counts.

    Example: staddle events purge warehouse
    """
    server.confirm(f"Give up everything that waits for {target}? It is told to nobody then.", yes)
    given_up = server.post("events/purge", values.Purged, target=target)
    server.show(given_up, lambda: printing.say(
        f"The queue of {target} is empty: {given_up.events} event{'s are' if given_up.events != 1 else ' is'} given up."))
