"""Who delivers: what does not end it."""

import asyncio
from typing import Any

import pytest

from consensus.core.clock import SystemClock
from gateway.duties import Duty
from gateway.events import courier as couriers
from gateway.events.addresses import AllowList
from gateway.events.courier import Courier


class Metadata:
    """Nobody foresaw what it does first."""

    def __init__(self) -> None:
        self.asked, self.again = 0, asyncio.Event()

    async def read(self, *_: Any) -> list[tuple[str, int]]:
        self.asked += 1
        if self.asked == 1:
            raise ZeroDivisionError
        self.again.set()
        return []


def test_a_failure_that_nobody_foresaw_does_not_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(couriers, "BUG_S", 0.01)

    async def work() -> None:
        metadata = Metadata()
        duty = Duty(metadata, SystemClock(), "events", "n1/gateway-1")                     # type: ignore[arg-type]  # a stand-in
        courier = Courier(
            metadata, duty, webhooks={}, allow=AllowList(), region="r", retention_ms=1)    # type: ignore[arg-type]
        courier.start()
        await asyncio.wait_for(metadata.again.wait(), 5)
        await courier.stop()
    asyncio.run(work())
