"""Options that several commands share, and how they become settings."""

import os
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from consensus.core.settings import SettingsError, load
from gateway.config import ROOT_VARIABLES, Config

errors = Console(stderr=True, highlight=False, soft_wrap=True)

ConfigFile = Annotated[Path | None, typer.Option(
    "--config", metavar="FILE", envvar="STADDLE_CONFIG", help="TOML file with settings; docs/CONFIGURATION.md lists them.")]

EX_USAGE = 2


def settings(file: Path | None, overrides: dict[str, Any]) -> Config:
    """The settings in force; ends the command with a sentence that names the wrong one."""
    given = {key: value for key, value in overrides.items() if value is not None}
    try:
        return load(Config, file=file, environ=os.environ, overrides=given, other_variables=ROOT_VARIABLES)
    except SettingsError as error:
        fail(str(error), EX_USAGE)


def fail(sentence: str, status: int) -> NoReturn:
    """Say what is wrong on standard error and end with this status."""
    errors.print(Text.assemble(("staddle:", "bold red"), f" {sentence}"))    # as text: a path may hold [brackets]
    raise typer.Exit(status)
