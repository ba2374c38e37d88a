"""`staddle`: the command line. One file per group of commands; each command's help says what it does and gives an example.

serving, running      `staddle serve`
configuring           `staddle config`
commands, connection  what commands that talk to a server have in common; keys.py whose keys they sign with
printing              tables, JSON, progress
"""

from typing import Annotated

import typer

from gateway.cli.backups import backup_app
from gateway.cli.buckets import bucket_app
from gateway.cli.care import gc_app, scrub_app
from gateway.cli.commands import reflowed
from gateway.cli.configuring import config_app
from gateway.cli.nodes import node_app
from gateway.cli.objects import object_app
from gateway.cli.repairing import fsck, restore
from gateway.cli.serving import serve
from gateway.cli.users import key_app, user_app

app = typer.Typer(
    name="staddle", no_args_is_help=True, add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False,
    help="An S3-compatible object store that keeps what it acknowledges.",
)
app.command()(reflowed(serve))
app.command()(fsck)
app.command()(restore)
for name, group in (
    ("user", user_app), ("key", key_app), ("bucket", bucket_app), ("object", object_app), ("node", node_app),
    ("gc", gc_app), ("scrub", scrub_app), ("backup", backup_app), ("config", config_app),
):
    app.add_typer(group, name=name)


@app.command()
def version(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Print the version.

    Example: staddle version
    """
    from importlib.metadata import version as installed

    text = installed("staddle")
    typer.echo(f'{{"version": "{text}"}}' if as_json else text)


def main() -> None:
    app()
