"""The link of a client to a metadata member: kept up, and what the member says of itself.

A member *serves* from its answer to WATCH until the link is lost. Whoever reads its file or counts on its word asks
`serving` first.

*Home* is the member on this host, if there is one. In a group, when home has not served for a second (it is starting, its
disk hangs, it knows no leader), the link goes to the next of the others and back as soon as home serves again. A member
that hangs is noticed because each is asked again, twice a second, whether it serves; a member that is alone is not: its
clients die with it anyway. One that is far slower than another (its disk is) is passed over for some seconds, too.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from consensus import protocol
from consensus.core.errors import ClusterError, Unavailable
from consensus.core.wire import HANDSHAKE_TIMEOUT_S, OK, WireClient

if TYPE_CHECKING:
    from consensus.core.tls import Tls

RECONNECT_S_MIN, RECONNECT_S_MAX = 0.02, 0.5
"""Pauses between attempts to reach the member: a restart is noticed at once, a long absence costs little."""

HOME_S = 1.0
"""How long home may not serve until another member is asked: a restart of home takes about as long."""

ASK_AGAIN_S = 0.5
"""How often a member of a group is asked whether it still serves; and how often home is tried while we are elsewhere."""

ANSWER_S = 1.0
"""A member of a group that does not answer that for so long hangs. Its commands are sent to another one, where they have
their effect once, so a wrong guess costs only time."""

SLOW_S = 0.3
"""A read index that takes longer raises doubts about the member: usually it takes a millisecond."""

SLOWER = 3.0
"""How many times as long as another's it may take. Often the others have the same reason: an election, a busy machine."""

AVOID_S = 5.0
"""How long a slow home is left alone."""

CONNECT_S = 1.5
"""For a link to a member on another machine, TLS and its first answer included."""

LINGER_S = 5.0
"""A link that we have left for home may still answer what was asked over it."""


class MemberLink:
    """Reconnects for ever between `start` and `stop`."""

    def __init__(self, address: str | None, secret: bytes, on_up: Callable[[], None], *, others: Sequence[str] = (),
                 tls: "Tls | None" = None) -> None:
        """`address` is home, None if no member is on this host; `others` are where members may be found (HOST:PORT).
        `on_up` is called each time a member has said that it serves."""
        assert address or others, "a client needs somebody to ask"
        self._home, self._others, self._secret, self._on_up, self._tls = address, tuple(others), secret, on_up, tls
        self._known = self._others
        self._place = random.randrange(max(1, len(self._others)))
        """Clients without a member of their own spread over all of them."""
        self.wire: WireClient | None = None
        self.serving: protocol.Serving | None = None
        self.at_home = False
        self._home_is = ""
        """Where other machines reach our own member: no way round it."""
        self._home_from = 0.0
        self._doubted = False
        self._served, self._stirred = asyncio.Event(), asyncio.Event()
        self._why_not: ClusterError = Unavailable(f"no metadata member has answered yet ({address or 'on other machines'})")
        self._keeper: asyncio.Task[None] | None = None
        self._lingering: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._keeper = self._loop.create_task(self._keep(), name="link to the metadata member")

    async def stop(self) -> None:
        tasks = [*self._lingering, *([] if self._keeper is None else [self._keeper])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
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

    def doubt(self) -> None:
        """The member here takes long to give a read index."""
        if self.at_home and not self._doubted:
            self._doubted = True
            self._stirred.set()

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
        pause, left = RECONNECT_S_MIN, self._loop.time()
        while True:
            for address in self._candidates(self._loop.time() - left):
                found = await self._reach(address)
                if found is not None:
                    break
            else:
                await asyncio.sleep(pause)
                pause = min(pause * 2, RECONNECT_S_MAX)
                continue
            pause = RECONNECT_S_MIN
            hangs = await self._use(*found, home=address == self._home)
            left = self._loop.time() - (HOME_S if hangs else 0.0)

    def _candidates(self, absent_s: float) -> list[str]:
        """Whom to try next. Another member each time, so that a dead one costs one attempt; home is tried from there too."""
        other = None if self._home is not None and absent_s < HOME_S else self._next_other()
        return [address for address in (other, self._home) if address is not None]

    def _next_other(self) -> str | None:
        others = [address for address in dict.fromkeys((*self._known, *self._others))
                  if address not in (self._home, self._home_is)]
        self._place += 1
        return others[self._place % len(others)] if others else None

    async def _reach(self, address: str) -> tuple[WireClient, protocol.Serving] | None:
        """A link to a member that serves. None, and the reason in `_why_not`, if it doesn't."""
        wire = WireClient(address, self._secret, on_push=lambda operation, payload: self._pushed(wire, operation, payload),
                          on_lost=lambda: self._on_lost(wire), tls=self._tls)
        try:
            async with asyncio.timeout(self._patience_s(address)):
                await wire.connect()
                serving = await _watch(wire)
            if not serving.led:
                raise Unavailable(f"the metadata member at {address} knows no leader: more than half of the members must run and "
                                  "reach each other")
        except (ClusterError, TimeoutError) as error:
            wire.close()
            self._why_not = error if isinstance(error, ClusterError) else Unavailable(f"no answer from {address} in time")
            return None
        except asyncio.CancelledError:
            wire.close()
            raise
        return wire, serving

    def _patience_s(self, address: str) -> float:
        if not self._others and not self._known:
            return HANDSHAKE_TIMEOUT_S * 2               # there is nobody else
        return ANSWER_S if address == self._home else CONNECT_S

    async def _use(self, wire: WireClient, serving: protocol.Serving, home: bool) -> bool:
        """Serve by this link until it is lost. True if it was given up, since the member hangs or knows no leader."""
        try:
            self._take(wire, serving, home)
            led_at = self._loop.time()
            while True:
                await self._stirred_within(None if serving.alone else ASK_AGAIN_S)
                if self._doubted and self.wire is not None:
                    self._doubted = False
                    if (better := await self._quicker(wire)) is not None:
                        self._linger(wire)
                        wire, serving = better
                        self._take(wire, serving, False)
                if self.wire is None:
                    return False
                try:
                    async with asyncio.timeout(ANSWER_S):
                        self._hear(await _watch(wire))
                except (ClusterError, TimeoutError):
                    return wire.connected
                now = self._loop.time()
                led_at = now if self.serving is not None and self.serving.led else led_at
                if now - led_at > HOME_S:
                    return True
                if not self.at_home and self._home is not None and (better := await self._quick_home(self._home)) is not None:
                    self._linger(wire)
                    wire, serving = better
                    self._take(wire, serving, True)
        finally:
            self.wire = self.serving = None
            self._served.clear()
            wire.close()

    async def _quicker(self, wire: WireClient) -> tuple[WireClient, protocol.Serving] | None:
        """Another member that is far quicker just now than the one at the end of `wire`."""
        other = self._next_other()
        found = None if other is None else await self._reach(other)
        if found is None:
            return None
        took_s = await self._index_s(found[0], ANSWER_S)
        if took_s is None or await self._index_s(wire, max(SLOW_S, SLOWER * took_s)) is not None:
            found[0].close()
            return None
        self._home_from = self._loop.time() + AVOID_S
        return found

    async def _quick_home(self, home: str) -> tuple[WireClient, protocol.Serving] | None:
        if self._loop.time() < self._home_from or (found := await self._reach(home)) is None:
            return None
        if await self._index_s(found[0], SLOW_S) is None:
            found[0].close()
            self._home_from = self._loop.time() + AVOID_S
            return None
        return found

    async def _index_s(self, wire: WireClient, limit_s: float) -> float | None:
        """How long a read index takes there. None if none comes in this time."""
        began = self._loop.time()
        with contextlib.suppress(ClusterError, TimeoutError):
            async with asyncio.timeout(limit_s):
                status, _ = await wire.call(protocol.READ_INDEX)
            if status == OK:
                return self._loop.time() - began
        return None

    def _take(self, wire: WireClient, serving: protocol.Serving, home: bool) -> None:
        self._stirred.clear()
        self.wire, self.at_home = wire, home
        self._hear(serving)
        if home:
            self._home_is = serving.address
        if not wire.connected:
            self._on_lost(wire)
        if self.serving is not None:
            self._served.set()
            self._on_up()

    def _hear(self, serving: protocol.Serving) -> None:
        self.serving = serving
        if serving.members:
            self._known = serving.members

    async def _stirred_within(self, seconds: float | None) -> None:
        """Until the link is lost or in doubt, or so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stirred.wait()
        self._stirred.clear()

    def _linger(self, wire: WireClient) -> None:
        """What was asked over it may still be answered."""

        async def close_later() -> None:
            try:
                await asyncio.sleep(LINGER_S)
            finally:
                wire.close()

        task = self._loop.create_task(close_later())
        self._lingering.add(task)
        task.add_done_callback(self._lingering.discard)

    def _on_lost(self, wire: WireClient) -> None:
        if wire is not self.wire:
            return
        self.wire = self.serving = None
        self._why_not = Unavailable("the link to the metadata member was lost")
        self._served.clear()
        self._stirred.set()

    def _pushed(self, wire: WireClient, operation: int, payload: bytes) -> None:
        if operation == protocol.WATCH and wire is self.wire and self.serving is not None:
            self._hear(protocol.serving.decode(payload))


async def _watch(wire: WireClient) -> protocol.Serving:
    """Raises ClusterError."""
    code, payload = await wire.call(protocol.WATCH)
    if code != OK:
        raise protocol.error_of(code, payload)
    return protocol.serving.decode(payload)
