"""What a member that doesn't lead does with what only the leader can answer: passes it on, and the answer back.

Frames are passed on as they come, without a look inside; what gathers in one turn of the loop leaves in one write. Each is
passed on once at most: the leader is asked with PASSED_ON in the operation, and whoever is asked so and doesn't lead
(any more) refuses, so that two members that each take the other for the leader don't send a frame to and fro.

What was sent to a leader over a link that is lost may have been carried out: that is an unknown outcome, and the client,
which repeats it in the same session, gets the first result. What was not sent is Unavailable; and so is what does no harm
when it is asked again without a session.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from consensus import protocol
from consensus.core.errors import ClusterError, Unavailable
from consensus.core.wire import Link, WireClient

if TYPE_CHECKING:
    from consensus.core.tls import Tls

log = logging.getLogger("staddle.meta")

PASSED_ON = 0x100
"""Added to the operation of what a member passes on."""

REPEATABLE = frozenset({protocol.PING, protocol.HOUSEKEEP, protocol.BACKUP_TAKE})

CONNECT_S = 1.0
"""Less than an election may take: by then there may be another leader."""

RECONNECT_S = 0.05
WAITING_BYTES_MAX = 16 << 20
"""Of frames that wait for the link (promise 8): 16 of the largest, or some 10,000 of the usual ones."""


class _Frame(NamedTuple):
    operation: int
    payload: bytes
    answer: Callable[[int, bytes], None]


Leader = tuple[str, str]
"""Name, HOST:PORT."""


class Forwarder:
    """One per member. `leader` tells who leads, if that is another member and known."""

    def __init__(self, secret: bytes, tls: "Tls | None", leader: Callable[[], Leader | None]) -> None:
        self._secret, self._tls, self._leader = secret, tls, leader
        self._wire: WireClient | None = None
        self._to: Leader | None = None
        self._waiting: deque[_Frame] = deque()
        self._waiting_bytes = 0
        self._connecting: asyncio.Task[None] | None = None

    def changed(self) -> None:
        """Who leads may have changed. What the former one has not answered is answered as unknown."""
        leader = self._leader()
        if leader == self._to:
            return
        self._to = leader
        self._drop()
        if leader is None:
            self._refuse("no leader is known")
        else:
            self._connect(leader)

    async def stop(self) -> None:
        self._to = None
        self._drop()
        self._refuse("the metadata member stops")
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)

    def relay(self, link: Link, operation: int, request_id: int, payload: bytes) -> None:
        """Have the leader answer a client's frame."""
        self._pass_on(operation, payload, lambda status, answer: link.send(operation, status, request_id, answer))

    async def ask(self, operation: int, payload: bytes) -> bytes:
        """Ask the leader on our own account. Raises ClusterError."""
        future: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self._pass_on(operation, payload, lambda status, answer: None if future.done() else future.set_result((status, answer)))
        status, answer = await future
        if status:
            raise protocol.error_of(status, answer)
        return answer

    def _pass_on(self, operation: int, payload: bytes, answer: Callable[[int, bytes], None]) -> None:
        wire = self._wire
        if wire is not None and wire.connected:
            self._send(wire, _Frame(operation, payload, answer))
            return
        if self._to is None:
            self.changed()
        if self._to is None:
            answer(protocol.UNAVAILABLE, b"no leader is known")
        elif self._waiting_bytes + len(payload) > WAITING_BYTES_MAX:
            answer(protocol.UNAVAILABLE, b"too much waits for the leader")
        else:
            self._waiting.append(_Frame(operation, payload, answer))
            self._waiting_bytes += len(payload)

    @staticmethod
    def _send(wire: WireClient, frame: _Frame) -> None:
        def answered(done: "asyncio.Future[tuple[int, bytes]]") -> None:
            if done.cancelled() or done.exception() is not None:
                frame.answer(protocol.UNAVAILABLE if frame.operation in REPEATABLE else protocol.UNKNOWN,
                             b"the link to the leader was lost before it answered")
            else:
                frame.answer(*done.result())

        wire.call(frame.operation | PASSED_ON, frame.payload).add_done_callback(answered)

    def _connect(self, leader: Leader) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
        self._connecting = asyncio.get_running_loop().create_task(self._reach(leader), name="link to the leader")

    def _client(self, leader: Leader) -> WireClient:
        wire = WireClient(leader[1], self._secret, on_lost=lambda: self._lost(leader, wire), tls=self._tls)
        return wire

    async def _reach(self, leader: Leader) -> None:
        """A link to this leader, as long as it is the one. What waits goes over it, or is refused."""
        while self._to == leader:
            wire = self._client(leader)
            try:
                await wire.connect(CONNECT_S)
            except ClusterError as error:
                wire.close()
                self._refuse(f"the leader {leader[0]} cannot be reached: {error}")
                await asyncio.sleep(RECONNECT_S)
                continue
            except asyncio.CancelledError:
                wire.close()
                raise
            self._wire = wire
            waiting, self._waiting, self._waiting_bytes = self._waiting, deque(), 0
            for frame in waiting:
                self._send(wire, frame)
            return

    def _lost(self, leader: Leader, wire: WireClient) -> None:
        if wire is self._wire:
            self._wire = None
            if self._to == leader:
                self._connect(leader)

    def _drop(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()

    def _refuse(self, why: str) -> None:
        waiting, self._waiting, self._waiting_bytes = self._waiting, deque(), 0
        for frame in waiting:
            with contextlib.suppress(ClusterError):
                frame.answer(protocol.UNAVAILABLE, why.encode())


async def call_member(address: str, secret: bytes, tls: "Tls | None", operation: int, payload: bytes, *,
                      connect_s: float = CONNECT_S, answer_s: float) -> bytes:
    """One question to the member at an address, over a link of its own. Raises ClusterError."""
    wire = WireClient(address, secret, tls=tls)
    try:
        await wire.connect(connect_s)
        async with asyncio.timeout(answer_s):
            status, answer = await wire.call(operation, payload)
    except TimeoutError:
        raise Unavailable(f"no answer from {address} in {answer_s:g} s") from None
    finally:
        wire.close()
    if status:
        raise protocol.error_of(status, answer)
    return answer
