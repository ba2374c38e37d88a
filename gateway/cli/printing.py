"""How commands show what they found: tables and fields for people, JSON for programs, progress on standard error.

Names come from clients and may hold anything, so control characters are shown as escapes (a key must not be able to
steer a terminal) and brackets are no markup.
"""

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import typer
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

WIDTH_PIPED = 4000
"""Columns when nobody looks: a row of a table is a line, whatever reads it."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def visible(text: object) -> str:
    """Without what would steer a terminal."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def size(count: int | float) -> str:
    """``1.5 MiB``."""
    value, unit = float(count), 0
    while abs(value) >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{count} B" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def moment(time: str) -> str:
    """An ISO 8601 time in UTC, to the second."""
    return time[:19].replace("T", " ") if time else ""


def yes(flag: bool) -> str:
    return "yes" if flag else "no"


def print_json(value: Any) -> None:
    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """A row is a line; where the terminal is too narrow for that, a row is a block of lines rather than broken words.
    Columns whose name ends with ``>`` are right-aligned. `empty` is said when there is nothing."""
    names = [column.rstrip(">") for column in columns]
    cells = [[Text(visible(cell)) for cell in row] for row in rows]
    if not cells:
        typer.echo(empty)
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for name, column in zip(names, columns, strict=True):
        table.add_column(name, justify="right" if column.endswith(">") else "left", no_wrap=True)
    for row in cells:
        table.add_row(*row)
    console = _console()
    if Measurement.get(console, console.options.update(width=WIDTH_PIPED), table).maximum <= console.width:
        console.print(table)
        return
    for row in cells:
        _print_block(console, zip(names, row, strict=True))
        console.print()


def print_fields(fields: Iterable[tuple[str, object]]) -> None:
    """Names and values, one a line; those without a value are left out."""
    _print_block(_console(), ((name, Text(visible(value))) for name, value in fields if value not in ("", None)))


def _print_block(console: Console, fields: Iterable[tuple[str, Text]]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields:
        if value.plain:
            table.add_row(name, value)
    console.print(table)


def say(sentence: str) -> None:
    typer.echo(visible(sentence))


def document(text: str) -> None:
    """A text of several lines, such as JSON that somebody wrote, as it is."""
    typer.echo("".join(visible(piece) if piece not in "\n\t" else piece for piece in re.split(r"([\n\t])", text.rstrip("\n"))))


def _console() -> Console:
    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=WIDTH_PIPED)


class Bar:
    """Progress of one piece of work, on standard error and only if that is a terminal."""

    def __init__(self, progress: Progress, what: str) -> None:
        self._progress = progress
        self._task = progress.add_task(what, total=None, note="")

    def show(self, done: dict[str, Any]) -> None:
        """`done` is what the server says: `what` it does, `bytes` or `done` of `of`, and anything else as a note."""
        at, total = done.get("bytes", done.get("done")), done.get("of")
        note = ", ".join(f"{name.replace('_', ' ')} {_short(name, value)}" for name, value in done.items()
                         if name not in ("of", "what", "done") and (name != "bytes" or not total))
        self._progress.update(self._task, completed=at, total=total or None, note=visible(note))
        if "what" in done:
            self._progress.update(self._task, description=visible(done["what"]))

    def advance(self, count: int) -> None:
        self._progress.advance(self._task, count)

    def total(self, count: int) -> None:
        self._progress.update(self._task, total=count)


def _short(name: str, value: object) -> str:
    return size(value) if "bytes" in name and isinstance(value, int | float) else str(value)


@contextmanager
def progress(what: str) -> Iterator[Bar]:
    console = Console(stderr=True, highlight=False)
    with Progress(SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(),
                  TextColumn("{task.fields[note]}", markup=False), TimeElapsedColumn(), console=console,
                  transient=True, disable=not console.is_terminal) as bars:
        yield Bar(bars, visible(what))
