"""Runs benchmarks: `python -m tests.bench` all of them, `python -m tests.bench puts gets` these. Each prints a report.

A benchmark is a module of this folder with a function `main`. They need a quiet machine; the ratios to a reference that
is measured in the same minute are worth more than the figures.
"""

import importlib
import pkgutil
import sys
from pathlib import Path

from tests.bench.report import console


def names() -> list[str]:
    """All benchmarks. Read from the files' text: importing all of them only to list them would be slow."""
    folder = Path(__file__).parent
    return sorted(module.name for module in pkgutil.iter_modules([str(folder)])
                  if module.name != "__main__" and "\ndef main()" in (folder / f"{module.name}.py").read_text())


def main(wanted: list[str]) -> int:
    known = names()
    if unknown := [name for name in wanted if name not in known]:
        print(f"unknown: {', '.join(unknown)}. There are: {', '.join(known)}")
        return 2
    failed = []
    for name in wanted or known:
        try:
            importlib.import_module(f"tests.bench.{name}").main()
        except Exception:
            console.print_exception()
            failed.append(name)
    if failed:
        console.print(f"[red]failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
