"""`staddle`: the command line. One file per group of commands; each command's help says what it does and gives an example."""

import typer

from gateway.cli.configuring import config_app
from gateway.cli.serving import serve

app = typer.Typer(
    name="staddle", no_args_is_help=True, add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False,
    help="An S3-compatible object store that keeps what it acknowledges.",
)
app.command()(serve)
app.add_typer(config_app, name="config")


@app.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as installed

    typer.echo(installed("staddle"))


def main() -> None:
    app()
