"""Prints the pages of docs/ that come from the code; tests/test_tree.py fails when a committed page differs.

    python -m gateway.docs           write them
    python -m gateway.docs --check   say which differ, with status 1
"""

import sys
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup

from gateway.admin import document
from gateway.cli import app
from gateway.config import described
from gateway.metrics import families
from gateway.ops import HANDLERS, never
from gateway.ops.buckets import stored
from gateway.s3.operations import BEYOND_MODEL, OPERATIONS, Operation

NOTE = "<!-- Printed from the code by `make docs`; edit the code, not this page. -->\n"


def pages() -> dict[str, str]:
    """File name in docs/ to its text."""
    return {
        "CONFIGURATION.md": configuration(), "S3_COVERAGE.md": coverage(), "CLI.md": command_line(),
        "METRICS.md": families.documentation(NOTE), "ADMIN_API.md": document.documentation(NOTE),
    }


def configuration() -> str:
    lines = [
        "# Configuration", NOTE,
        "Settings come from a TOML file (`staddle serve --config FILE` or `STADDLE_CONFIG`), from the environment as",
        "`STADDLE_<SETTING>` in capitals, and from the command line; later ones win. A key that does not exist is an error that",
        "names it. In the environment, lists are separated by commas. Sizes are bytes or text such as `64MiB`.", "",
        "| setting | value | default | |", "|---|---|---|---|",
    ]
    lines += [f"| `{setting.name}` | {setting.kind} | {setting.default} | {setting.about} |" for setting in described()]
    lines += [
        "", "The root key is no setting: it is made at the first start and kept in `DIR/root-key` (mode 0600), or given by",
        "`STADDLE_ROOT_ACCESS_KEY` and `STADDLE_ROOT_SECRET_KEY`. Nor is the secret of a cluster: it is made with the first",
        "machine, or `STADDLE_CLUSTER_SECRET` gives the same to all machines (64 hex digits, or another text of at least 32",
        "characters).", "", "## Example", "", "```toml", EXAMPLE.strip(), "```", "",
    ]
    return "\n".join(lines)


EXAMPLE = """
data = ["/disk1/staddle", "/disk2/staddle"]
listen = "0.0.0.0:9000"
domains = ["s3.example.com"]
tls_cert = "/etc/staddle/cert.pem"
tls_key = "/etc/staddle/key.pem"

[[identity]]
name = "backup"
account = "111122223333"
user_id = "backup-canonical-id"
display_name = "Backup"
access_key = "BACKUPKEY"
secret_key = "change+me/please="
"""


def coverage() -> str:
    done = sum(_implemented(operation) or bool(operation.same_as) for operation in OPERATIONS)
    lines = [
        "# S3 coverage", NOTE,
        f"All {len(OPERATIONS)} operations of S3's service model have a row; {done} are implemented, those of configurations",
        "that are kept (*see below*) among them. The others give the answer that S3 gives where the feature was never",
        "configured, or `501 NotImplemented` with the operation's name.", "",
        "| operation | request | action | answer |", "|---|---|---|---|",
    ]
    for operation in sorted((*OPERATIONS, *BEYOND_MODEL), key=lambda operation: operation.name):
        where = {"service": "/", "bucket": "/bucket", "object": "/bucket/key"}[operation.scope]
        query = "?" + "&".join(operation.query) if operation.query else ""
        headers = "".join(f", `{header}`" for header in operation.headers)
        request = f"`{operation.method} {where}{query}`{headers}"
        lines.append(f"| {operation.name} | {request} | `{operation.action or '-'}` | {_answer(operation)} |")
    lines += ["", "What comes of configurations that are kept, or would be:", "", "| configuration | |", "|---|---|"]
    lines += [f"| {name} | {note} |" for name, note in sorted(stored.NOTES.items())]
    return "\n".join([*lines, ""])


def _implemented(operation: Operation) -> bool:
    return HANDLERS[operation.name] is not never.answer


def _answer(operation: Operation) -> str:
    if operation.same_as:
        return f"as {operation.same_as}"
    if operation.name in stored.HANDLERS:
        return "see below"
    if _implemented(operation):
        return "implemented"
    if operation.never is None:
        return "`501 NotImplemented`"
    return f"{operation.never.status} {operation.never.code or 'as never configured'}"


def command_line() -> str:
    whole = typer.main.get_command(app)
    assert isinstance(whole, TyperGroup)
    user = whole.commands["user"]
    assert isinstance(user, TyperGroup)
    common = [option for option in _options(user.commands["list"]) if _of_server(option)]
    return "\n".join([
        "# Command line", NOTE,
        "Commands that talk to a server take these options besides their own. They sign with an admin's key and end with",
        "status 0 when all is well, 1 when something is wrong or was found to be, 2 when they were used wrongly.", "",
        *_table(common), *_command(whole, "staddle"),
    ])


def _command(command: object, name: str) -> list[str]:
    assert isinstance(command, TyperCommand | TyperGroup)
    arguments = "".join(_argument(parameter) for parameter in command.params if isinstance(parameter, TyperArgument))
    lines = [f"## `{name}{arguments}`", "", (command.help or "").strip(), ""]
    lines += _table([option for option in _options(command) if not _of_server(option)])
    if isinstance(command, TyperGroup):
        for child, inner in sorted(command.commands.items()):
            if not inner.hidden:
                lines += _command(inner, f"{name} {child}")
    return lines


def _argument(argument: TyperArgument) -> str:
    name = argument.metavar or (argument.name or "").upper()
    return f" {name}" if argument.required else f" [{name}]"


def _options(command: Any) -> list[Any]:
    return [parameter for parameter in command.params if parameter.param_type_name == "option" and parameter.name != "help"]


def _of_server(option: Any) -> bool:
    return getattr(option, "rich_help_panel", None) == "Server"


def _table(options: list[Any]) -> list[str]:
    if not options:
        return []
    rows = [f"| `{', '.join((*option.opts, *option.secondary_opts))}` | {getattr(option, 'help', '') or ''} |"
            for option in options]
    return ["| option | |", "|---|---|", *rows, ""]


def main() -> int:
    folder = Path(__file__).parent.parent / "docs"
    differing = [name for name, text in pages().items()
                 if not (folder / name).exists() or (folder / name).read_text() != text]
    if "--check" in sys.argv:
        for name in differing:
            sys.stderr.write(f"docs/{name} is not what the code prints: run `make docs`\n")
        return 1 if differing else 0
    for name in differing:
        (folder / name).write_text(pages()[name])
    return 0


if __name__ == "__main__":
    sys.exit(main())
