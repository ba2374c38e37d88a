"""A server of its own for each test: these tests break it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import StaddleProcess


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StaddleProcess]:
    """Not yet started. Whatever the test leaves of it is killed."""
    server = StaddleProcess(tmp_path / "server")
    yield server
    server.kill_all()
