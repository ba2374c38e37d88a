"""The link of a client to its metadata member: kept up, and what the member says of itself.

The member *serves* from its answer to WATCH until the link is lost. Whoever reads its file or counts on its word asks
`serving` first.
"""

import asyncio
import contextlib
from collections.abc import Callable

from consensus import protocol
from consensus.core.errors import ClusterError, Unavailable
from consensus.core.wire import OK, WireClient

RECONNECT_S_MIN, RECONNECT_S_MAX = 0.02, 0.5
"""Pauses between attempts to reach the member: a restart is noticed at once, a long absence costs little."""


class MemberLink:
    """Reconnects for ever between `start` and `stop`."""

    def __init__(self, address: str, secret: bytes, on_up: Callable[[], None]) -> None:
        """`on_up` is called each time the member has said that it serves."""
        self._address, self._secret, self._on_up = address, secret, on_up
        self.wire: WireClient | None = None
        self.serving: protocol.Serving | None = None
        self._served, self._lost = asyncio.Event(), asyncio.Event()
        self._why_not: ClusterError = Unavailable(f"the metadata member at {address} has not answered yet")
        self._keeper: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._keeper = asyncio.get_running_loop().create_task(self._keep(), name="link to the metadata member")

    async def stop(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        await asyncio.sleep(0)                           # the socket is closed in the loop's next turn

    async def wait(self, timeout_s: float) -> protocol.Serving:
        """Until the member serves. Raises what kept it from serving last: Unavailable, Refused."""
        if self.serving is None:
            try:
                async with asyncio.timeout(timeout_s):
                    while self.serving is None:
                        await self._served.wait()
            except TimeoutError:
                raise self._why_not from None
        return self.serving

    async def ask(self, operation: int, payload: bytes) -> bytes:
        """Call once. Raises what the answer's status stands for, or LinkLost."""
        wire = self.wire
        if wire is None:
            raise self._why_not
        code, answer = await wire.call(operation, payload)
        if code != OK:
            raise protocol.error_of(code, answer)
        return answer

    async def _keep(self) -> None:
        pause = RECONNECT_S_MIN
        while True:
            self._lost.clear()
            wire = WireClient(self._address, self._secret, on_push=self._pushed, on_lost=self._on_lost)
            try:
                await wire.connect()
                code, payload = await wire.call(protocol.WATCH)
                if code != OK:
                    raise protocol.error_of(code, payload)
            except ClusterError as error:
                wire.close()
                self._why_not = error
                await asyncio.sleep(pause)
                pause = min(pause * 2, RECONNECT_S_MAX)
                continue
            except asyncio.CancelledError:
                wire.close()
                raise
            pause = RECONNECT_S_MIN
            self.wire, self.serving = wire, protocol.serving.decode(payload)
            self._served.set()
            self._on_up()
            try:
                await self._lost.wait()
            finally:
                wire.close()

    def _on_lost(self) -> None:
        self.wire = self.serving = None
        self._why_not = Unavailable("the link to the metadata member was lost")
        self._served.clear()
        self._lost.set()

    def _pushed(self, operation: int, payload: bytes) -> None:
        if operation == protocol.WATCH and self.serving is not None:
            self.serving = protocol.serving.decode(payload)
