"""Prints docs/INTERPLAY.md: `python -m tests.interplay`."""

from pathlib import Path

from tests.interplay.table import page

(Path(__file__).parents[2] / "docs" / "INTERPLAY.md").write_text(page())
