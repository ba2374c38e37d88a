"""Commands that talk to a running server: what they have in common.

    @remote(app, "create")
    def create(server: Server, name: …) -> None: …

adds --endpoint, --data, --ca-bundle and --json to the command's own options and hands it a `Server`. A failure is one
sentence on standard error and status 1; a command used wrongly ends with status 2; what was looked for and found to be
wrong is status 1 too.
"""

import functools
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer

from gateway.cli import printing
from gateway.cli.connection import DEFAULT_ENDPOINT, Connection
from gateway.cli.keys import CommandError
from gateway.cli.options import fail

FOUND_SOMETHING = 1
STOPPED = 130
"""Of a command that Ctrl-C ended, as shells have it."""

Value = TypeVar("Value")

Endpoint = Annotated[str, typer.Option(
    "--endpoint", metavar="URL", envvar=["STADDLE_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"],
    help="Where the server is. Without it: STADDLE_ENDPOINT, else AWS_ENDPOINT_URL, as other clients have it.",
    rich_help_panel="Server")]
Data = Annotated[Path | None, typer.Option(
    "--data", metavar="DIR", rich_help_panel="Server",
    help="Sign with the root key that the server keeps in this data folder. Without it: AWS_ACCESS_KEY_ID and "
         "AWS_SECRET_ACCESS_KEY, else ./data if it is there.")]
CaBundle = Annotated[Path | None, typer.Option(
    "--ca-bundle", metavar="FILE", envvar="AWS_CA_BUNDLE", rich_help_panel="Server",
    help="PEM file with the authorities to trust for https.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.", rich_help_panel="Server")]

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


class Server(Connection):
    """The server that a command talks to, and how its answer is to be shown."""

    def __init__(self, *, endpoint: str, data: Path | None, ca_bundle: Path | None, as_json: bool) -> None:
        super().__init__(endpoint=endpoint, data=data, ca_bundle=ca_bundle)
        self.as_json = as_json

    def show(self, answer: object, people: Callable[[], None]) -> None:
        """The answer as JSON, or in the form for people."""
        if self.as_json:
            printing.print_json(answer)
        else:
            people()

    def long(self, what: str, path: str, kind: type[Value], **fields: object) -> Value:
        """Long work with a progress bar: its result. Raises CommandError."""
        import msgspec

        with printing.progress(what) as bar:
            for line in self.lines(path, **fields):
                if "result" in line:
                    try:
                        return msgspec.convert(line["result"], kind)
                    except msgspec.ValidationError as error:
                        raise self.not_understood(error) from None
                bar.show(line["progress"])
        raise CommandError("the server ended its answer without a result.")

    def confirm(self, question: str, yes: bool) -> None:
        confirm(question, yes)


def confirm(question: str, yes: bool) -> None:
    """Ask before something that cannot be undone. Raises CommandError unless the answer is yes."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise CommandError(f"{question} Nobody is there to say yes: give --yes.", status=2)
    if not typer.confirm(question, err=True):
        raise CommandError("nothing was done.")


def remote(app: typer.Typer, name: str, *aliases: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command, and give the function back as it is. Aliases work and are not listed."""

    def register(run: Callable[..., None]) -> Callable[..., None]:
        command = with_server(run)
        for place, each in enumerate((name, *aliases)):
            app.command(each, hidden=place > 0)(command)
        return run

    return register


def with_server(run: Callable[..., None]) -> Callable[..., None]:
    """The function as typer wants it: the options that say where the server is in place of `server`."""
    signature = inspect.signature(run)
    own = [parameter for parameter in signature.parameters.values() if parameter.name != "server"]
    added = {"endpoint": (Endpoint, DEFAULT_ENDPOINT), "data": (Data, None), "ca_bundle": (CaBundle, None),
             "as_json": (AsJson, False)}
    parameters = [*own, *(inspect.Parameter(each, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)
                          for each, (kind, default) in added.items())]

    @functools.wraps(run)
    def command(*, endpoint: str, data: Path | None, ca_bundle: Path | None, as_json: bool, **given: Any) -> None:
        try:
            run(server=Server(endpoint=endpoint, data=data, ca_bundle=ca_bundle, as_json=as_json), **given)
        except CommandError as error:
            fail_with(error)
        except KeyboardInterrupt:
            fail("stopped.", STOPPED)

    command.__signature__ = signature.replace(parameters=[  # type: ignore[attr-defined]  # typer reads it
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters])
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return reflowed(command)


def reflowed(run: Callable[..., None]) -> Callable[..., None]:
    """With each paragraph of the docstring on one line: typer breaks lines where the terminal ends, and where we do."""
    run.__doc__ = "\n\n".join(" ".join(paragraph.split()) for paragraph in inspect.cleandoc(run.__doc__ or "").split("\n\n"))
    return run


def fail_with(error: CommandError) -> NoReturn:
    fail(printing.visible(error), error.status)
