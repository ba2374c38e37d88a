"""`staddle config`: what settings there are, and which are in force."""

from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from gateway.cli.options import ConfigFile, settings
from gateway.config import described, without_secrets

config_app = typer.Typer(no_args_is_help=True, help="Show the settings.")


@config_app.command("show")
def show(config: ConfigFile = None, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Print the settings in force, from the file and the environment. Secret keys are left out."""
    in_force = settings(config, {})
    values = without_secrets(in_force)
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(values), indent=2).decode())
        return
    table = Table("setting", "value", "default")
    for setting in described():
        value = values[setting.name]
        shown = f"{len(value)} in the file" if setting.name == "identity" else _text(value)
        table.add_row(setting.name, shown, setting.default)
    Console().print(table)


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
