"""A machine without a metadata member says so at the port where others look for one: whoever may begin a cluster waits for
the answers of all its peers, and the list of peers is the same on all machines.
"""

import contextlib
from collections.abc import AsyncIterator

from consensus import protocol
from consensus.core.tls import Tls
from consensus.core.wire import OK, Handler, Link, WireServer
from consensus.forwarding import PASSED_ON
from gateway.cluster.machine import Machine


class _NoMember(Handler):
    def __init__(self, name: str) -> None:
        self._met = protocol.encode(protocol.Met(name=name, incarnation=b"", may_begin=False))

    def frame(self, link: Link, operation: int, status: int, request_id: int, payload: memoryview) -> None:
        if operation & ~PASSED_ON == protocol.MEET:
            link.send(operation, OK, request_id, self._met)
        else:
            link.send(operation, protocol.REFUSED, request_id, b"this machine has no metadata member")

    def lost(self, link: Link) -> None:
        """Nothing is kept of it."""


@contextlib.asynccontextmanager
async def without_member(machine: Machine, secret: bytes, tls: Tls) -> AsyncIterator[None]:
    """Raises OSError when the address is taken or not ours."""
    server = WireServer(machine.listens(), secret, lambda: _NoMember(machine.name), tls=tls)
    await server.start()
    try:
        yield
    finally:
        await server.stop()
