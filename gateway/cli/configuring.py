"""`staddle config`: what settings there are, and which are in force."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from gateway.admin.values import ConfigInForce
from gateway.cli import printing
from gateway.cli.commands import Server, remote
from gateway.cli.options import ConfigFile, settings
from gateway.config import described, without_secrets

config_app = typer.Typer(no_args_is_help=True, help="Show the settings.")


@remote(config_app, "running")
def running(server: Server) -> None:
    """Print the settings that the running server has. Secrets are masked.

    Example: staddle config running
    """
    found = server.get("config/show", ConfigInForce)
    server.show(found, lambda: _print(found.settings))


@config_app.command("show")
def show(config: ConfigFile = None, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Print the settings that a server would start with here, from the file and the environment. Secrets are masked.

    Example: staddle config show --config staddle.toml
    """
    in_force = settings(config, {})
    values = without_secrets(in_force)
    if as_json:
        printing.print_json(values)
        return
    _print(values)


def _print(values: Mapping[str, Any]) -> None:
    defaults = {setting.name: setting.default for setting in described()}
    printing.print_table(("setting", "value", "default"), (
        (name, f"{len(value)} in the file" if name in ("identity", "webhooks") else _text(value), defaults.get(name, ""))
        for name, value in values.items()), empty="")


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else "none" if value is None else str(value)
