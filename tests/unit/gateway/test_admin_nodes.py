"""What the list of storage nodes says that deduplication saves."""

import asyncio
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import pytest

from consensus.holdings import Unequal
from gateway.admin import values
from gateway.admin.nodes import list_nodes


@pytest.mark.parametrize(("short", "saved"), [({}, 1000), ({1: 5}, 0)])
def test_copies_that_are_lacking_are_not_saved(short: dict[int, int], saved: int) -> None:
    metadata = SimpleNamespace(unequal=AsyncMock(return_value=Unequal(short, 0, 0)),
                               usage=AsyncMock(return_value=SimpleNamespace(bytes=500)),
                               nodes=AsyncMock(return_value=[SimpleNamespace(asked="")] * 2))
    ctx: Any = SimpleNamespace(nodes=AsyncMock(return_value=[]), metadata=metadata,
                               admin=SimpleNamespace(config=SimpleNamespace(copies=2)))
    assert asyncio.run(list_nodes(ctx, values.OneNode())).saved_bytes == saved
