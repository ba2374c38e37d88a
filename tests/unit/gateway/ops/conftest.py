"""These tests wait for nothing but each other."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
