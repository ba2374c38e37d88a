"""Options of the whole suite."""

import pytest

from tests.clients import install


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
