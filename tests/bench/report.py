"""How benchmarks show what they measured: a table of figures, and each target with what was reached.

Figures are medians of rounds that took turns with their reference, so that a busy minute hits both.
"""

import statistics
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

console = Console(soft_wrap=True)


class Report:
    """One benchmark's report, printed line by line as it comes to be."""

    def __init__(self, title: str, about: str) -> None:
        self.missed: list[str] = []
        console.rule(f"[bold]{title}")
        console.print(about, style="dim")

    def say(self, text: str) -> None:
        console.print(text, highlight=False)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """The first column is text, the others are figures."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for number, column in enumerate(columns):
            table.add_column(column, justify="left" if number == 0 else "right")
        for row in rows:
            table.add_row(*[_text(value) for value in row])
        console.print(table)

    def target(self, name: str, value: float, *, at_most: float | None = None, at_least: float | None = None,
               unit: str = "") -> None:
        """Say whether a goal was reached. Exactly one bound is given."""
        bound = at_most if at_most is not None else at_least
        assert bound is not None
        met = value <= bound if at_most is not None else value >= bound
        if not met:
            self.missed.append(name)
        word = "at most" if at_most is not None else "at least"
        mark = "[green]reached[/]" if met else "[red]MISSED[/]"
        console.print(f"{mark}  {name}: [bold]{_text(value)}{unit}[/] ({word} {_text(bound)}{unit})", highlight=False)


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def spread(values: Sequence[float]) -> str:
    """The median with the least and greatest value of the rounds."""
    return f"{_text(statistics.median(values))} ({_text(min(values))} to {_text(max(values))})"


def _text(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
