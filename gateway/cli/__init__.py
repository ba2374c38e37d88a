"""`staddle`: the command line. One file per group of commands; each command's help says what it does and gives an example.

serving, running      `staddle serve`
lending               `staddle run`
configuring           `staddle config`
commands, connection  what commands that talk to a server have in common; keys.py whose keys they sign with
printing, files       tables, JSON, progress; files that are written whole or not at all
"""

import os
import sys
from contextlib import suppress
from typing import Annotated, NoReturn

import typer

from gateway.cli.access import explain, policy_app
from gateway.cli.backups import backup_app
from gateway.cli.buckets import bucket_app
from gateway.cli.care import gc_app, scrub_app
from gateway.cli.cluster import cluster_app, init, join
from gateway.cli.commands import reflowed, with_server
from gateway.cli.configuring import config_app
from gateway.cli.events import events_app
from gateway.cli.lending import NO_INTERSPERSED, run
from gateway.cli.nodes import node_app
from gateway.cli.objects import object_app
from gateway.cli.options import fail
from gateway.cli.printing import visible
from gateway.cli.quotas import quota_app, usage
from gateway.cli.repairing import fsck, restore
from gateway.cli.serving import serve
from gateway.cli.users import key_app, user_app

app = typer.Typer(
    name="staddle", no_args_is_help=True, add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False,
)
app.command()(reflowed(serve))
app.command()(reflowed(init))
app.command()(reflowed(join))
app.command(context_settings=NO_INTERSPERSED)(reflowed(run))
app.command()(fsck)
app.command()(with_server(explain))
app.command()(restore)
app.command()(with_server(usage))
for name, group in (
    ("user", user_app), ("key", key_app), ("bucket", bucket_app), ("object", object_app), ("node", node_app),
    ("cluster", cluster_app), ("events", events_app), ("quota", quota_app),
    ("gc", gc_app), ("scrub", scrub_app), ("backup", backup_app), ("config", config_app),
):
    app.add_typer(group, name=name)
user_app.add_typer(policy_app, name="policy")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(_version())
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option(
        "--version", is_eager=True, callback=_print_version, help="Print the version.")] = False,
) -> None:
    """An S3-compatible object store that keeps what it acknowledges."""


@app.command()
def version(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Print the version.

    Example: staddle version
    """
    typer.echo(f'{{"version": "{_version()}"}}' if as_json else _version())


def _version() -> str:
    from importlib.metadata import version as installed

    return installed("staddle")


def main() -> None:
    """What the system refuses is a sentence, here for all commands: a full disk under standard output, above all."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:          # whoever started this has closed it
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - open until the end, as they are
    try:
        try:
            app()
        finally:
            sys.stdout.flush()                  # Python itself would do it when nobody listens any more
    except BrokenPipeError:                     # whoever reads has enough
        _give_up(1)
    except OSError as error:
        where = error.filename or "standard input or output"
        with suppress(OSError, typer.Exit):     # standard error may be what is full
            fail(visible(f"{where}: {error.strerror or error}."), 1)
        _give_up(1)


def _give_up(status: int) -> NoReturn:
    """Without what is still to be written: Python would try it once more, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(status)
