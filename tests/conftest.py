"""Options of the whole suite."""

import pytest

from tests.clients import install

LONG_FOLDERS = ("cluster_of_three", "sim", "clients", "torture", "crash", "cluster", "faults", "admin")
"""Where the files are that take longest."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite",
        action="store_true",
        help="write the answers of tests/spec/*.txt anew; the change is then reviewed as a diff",
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tests of a client that is not installed are skipped; say which, where everybody sees it."""
    if missing := install.missing():
        terminalreporter.write_line(f"clients that are not installed, their tests skipped: {', '.join(missing)}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where workers take file after file (make test), the longest come first: at the end no worker is left alone with one, and
    the others wait for nothing. By itself xdist begins with the files that have most tests, which here are the quickest."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: _place(item.nodeid.split("/")[1]))       # the rest stays in order


def _place(folder: str) -> int:
    return LONG_FOLDERS.index(folder) if folder in LONG_FOLDERS else len(LONG_FOLDERS)
