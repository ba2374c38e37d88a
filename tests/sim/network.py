"""Virtual connections: byte streams between processes, with what networks do to them.

Bytes arrive in order, or the connection is lost: it is TCP that the product speaks. A direction between two machines can
be *cut*: what is sent waits, as in a sender's buffer, and goes on when it is healed; after `GIVEN_UP_S` both kernels give
the connection up. Cutting is by direction, so a partition may have any shape: one-way, bridge, islands. A process that
ends has its connections reset at once; a machine without power says nothing, and its peers find out by themselves.
Duplicates and reordering exist only between connections: an old one may still deliver while a new one is in use.
"""

import asyncio
import collections
import contextvars
import random
import zlib
from collections.abc import Callable
from typing import Any

from tests.sim.clock import CURRENT, Process, VirtualLoop

GIVEN_UP_S = 10.5
"""As the sockets of core.wire are set: nothing acknowledged, or no probe answered, for so long."""

LOCAL_S = 0.00005
"""Between processes of one machine."""


class Identity:
    """In place of core.tls.Tls: who a process is, without the arithmetic. The network believes it."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def server(self) -> "Identity":
        return self

    client = server

    def renew_if_due(self) -> None:
        """Nothing ends here."""


class Listener:
    """What create_server gives back."""

    def __init__(self, network: "Network", address: str, factory: Callable[[], Any], process: Process,
                 identity: Identity | None) -> None:
        self._network, self.address, self.factory, self.process, self.identity = network, address, factory, process, identity
        self.sockets: tuple[Any, ...] = ()

    def close(self) -> None:
        if self._network.listeners.get(self.address) is self:
            del self._network.listeners[self.address]

    async def wait_closed(self) -> None:
        pass

    def is_serving(self) -> bool:
        return self._network.listeners.get(self.address) is self


class Pipe:
    """One direction of a connection."""

    __slots__ = ("_network", "_source", "_target", "bytes", "last_at", "waiting")

    def __init__(self, network: "Network", source: "Connection", target: "Connection") -> None:
        self._network, self._source, self._target = network, source, target
        self.last_at = 0.0
        self.bytes = 0
        self.waiting: collections.deque[bytes | None] = collections.deque()
        """On its way; None is the end of the stream."""

    def send(self, data: bytes | None) -> None:
        loop = self._network.loop
        self.waiting.append(data)
        self.bytes += len(data or b"")
        self.last_at = max(self.last_at, loop.time() + self._network.delay(self._source, self._target))
        loop.call_at(self.last_at, self._arrive, context=self._network.nobody)

    def _arrive(self) -> None:
        """The packet is there, if nothing is in the way. Its process takes it when it runs."""
        if not self._network.is_cut(self._source, self._target):
            self._target.process.call_soon(self._deliver)

    def flow(self) -> None:
        """The way is free again."""
        for _ in self.waiting:
            self._arrive()

    def _deliver(self) -> None:
        target, source = self._target, self._source
        if not self.waiting or target.lost:
            return
        data = self.waiting.popleft()
        if data is None:
            target.lose(None)
            return
        self.bytes -= len(data)
        if source.writing_paused and self.bytes <= source.low_water:
            source.process.call_soon(source.resume)
        self._network.note(source, target, data)
        target.take(data)


class Connection(asyncio.Transport):
    """One end."""

    def __init__(self, network: "Network", process: Process, protocol: Any, address: str) -> None:
        super().__init__()
        self._network, self.process, self.protocol, self.address = network, process, protocol, address
        self.machine = process.machine
        self.lost = self.closing = self.writing_paused = self._reading_paused = False
        self._unread: list[bytes] = []
        self.high_water, self.low_water = 64 << 10, 16 << 10
        self.peer_name: str | None = None
        self.out: Pipe
        self.other: Connection

    # For the protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if self.peer_name is not None and name == "ssl_object":
            return self
        if self.peer_name is not None and name == "peercert":
            return {"subject": ((("commonName", self.peer_name),),)}
        if name == "peername":
            return ("simulated", 1)
        return default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high_water = 64 << 10 if high is None else high
        self.low_water = self.high_water // 4 if low is None else low

    def get_write_buffer_size(self) -> int:
        return self.out.bytes

    def write(self, data: Any) -> None:
        if self.lost or self.closing or self.process.dead:
            return
        self.out.send(bytes(data))
        if self.out.bytes > self.high_water and not self.writing_paused:
            self.writing_paused = True
            self.protocol.pause_writing()

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def resume(self) -> None:
        if self.writing_paused and not self.lost:
            self.writing_paused = False
            self.protocol.resume_writing()

    def pause_reading(self) -> None:
        self._reading_paused = True

    def resume_reading(self) -> None:
        self._reading_paused = False
        unread, self._unread = self._unread, []
        for data in unread:
            self.take(data)

    def is_closing(self) -> bool:
        return self.closing or self.lost

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        """What was written still goes out, as a kernel would send it, then the end."""
        if not self.closing and not self.lost:
            self.closing = True
            if not self.process.dead:
                self.out.send(None)
            self.process.call_soon(self.lose, None)

    # For the network

    def take(self, data: bytes) -> None:
        if self.closing or self.lost:
            return
        if self._reading_paused:
            self._unread.append(data)
            return
        protocol = self.protocol
        if not isinstance(protocol, asyncio.BufferedProtocol):
            protocol.data_received(data)
            return
        view = memoryview(data)
        while view and not self.closing:
            buffer = memoryview(protocol.get_buffer(-1))
            count = min(len(buffer), len(view))
            buffer[:count] = view[:count]
            protocol.buffer_updated(count)
            view = view[count:]

    def lose(self, error: Exception | None) -> None:
        if not self.lost:
            self.lost = True
            self._network.connections.discard(self)
            if not self.process.dead:
                self.protocol.connection_lost(error)
            if not self.other.lost and error is not None:
                if self._network.is_cut(self, self.other):
                    self._network.found_out_later(self.other)
                else:
                    self.other.process.call_soon(self.other.lose, error)

    def __hash__(self) -> int:
        return self.number

    number = 0


class Network:
    """All connections of a simulation."""

    def __init__(self, loop: VirtualLoop, chance: random.Random, trace: Callable[[str], None]) -> None:
        self.loop, self._chance, self._trace = loop, chance, trace
        self.nobody = contextvars.Context()
        self.listeners: dict[str, Listener] = {}
        self.connections: set[Connection] = set()
        self.cut: set[tuple[str, str]] = set()
        """Directions between machines in which nothing arrives."""
        self.slow: dict[str, float] = {}
        """Machines whose packets take so much longer."""
        self._opening: list[Callable[[], None]] = []
        self._numbers = 0
        self.bytes = 0
        self.on_data: Callable[[Connection, Connection, bytes], None] = lambda source, target, data: None

    # What faults do

    def cut_off(self, directions: set[tuple[str, str]]) -> None:
        self.cut = set(directions)
        self.loop.call_later(GIVEN_UP_S, self._give_up, frozenset(directions), context=self.nobody)

    def heal(self) -> None:
        self.cut_off(set())
        self.flow()

    def flow(self) -> None:
        """Whatever waited goes on, as far as its way is free."""
        for connection in sorted(self.connections, key=lambda connection: connection.number):
            connection.out.flow()
        opening, self._opening = self._opening, []
        for attempt in opening:
            attempt()

    def _give_up(self, directions: frozenset[tuple[str, str]]) -> None:
        """Kernels end connections that have been cut for too long."""
        for connection in sorted(self.connections, key=lambda connection: connection.number):
            way = (connection.machine.name, connection.other.machine.name)
            if way in directions and way in self.cut:
                for end in (connection, connection.other):
                    end.process.call_soon(end.lose, ConnectionResetError("nothing was acknowledged"))

    def reset(self, share: float) -> None:
        """Some connections between machines are lost, for no reason."""
        for connection in sorted(self.connections, key=lambda connection: connection.number):
            if connection.machine is not connection.other.machine and self._chance.random() < share:
                connection.process.call_soon(connection.lose, ConnectionResetError("reset"))

    def ended(self, process: Process, *, silently: bool) -> None:
        """The process is gone. `silently`: with its machine, so its peers have to find out."""
        for listener in [listener for listener in self.listeners.values() if listener.process is process]:
            listener.close()
        for connection in sorted(self.connections, key=lambda connection: connection.number):
            if connection.process is process:
                connection.lost = True
                self.connections.discard(connection)
                if not silently:
                    connection.out.send(None)
                if silently or self.is_cut(connection, connection.other):
                    self.found_out_later(connection.other)

    def found_out_later(self, connection: Connection) -> None:
        """The other end is gone, and what says so doesn't arrive: kernels notice that nobody answers."""
        self.loop.call_later(GIVEN_UP_S, self._found_out, connection, context=self.nobody)

    def _found_out(self, connection: Connection) -> None:
        connection.process.call_soon(connection.lose, ConnectionResetError("the other side is gone"))

    # What connections ask

    def is_cut(self, source: Connection, target: Connection) -> bool:
        return bool(self.cut) and (source.machine.name, target.machine.name) in self.cut

    def delay(self, source: Connection, target: Connection) -> float:
        if source.machine is target.machine:
            return LOCAL_S
        chance = self._chance.random()
        delay = 0.0003 + 0.0007 * chance if chance < 0.99 else 0.001 + 0.05 * self._chance.random()
        return delay + max(self.slow.get(source.machine.name, 0.0), self.slow.get(target.machine.name, 0.0)) * chance

    def note(self, source: Connection, target: Connection, data: bytes) -> None:
        self.bytes += len(data)
        self._trace(f"{source.process.name}>{target.process.name} {len(data)} {zlib.crc32(data):08x}")
        self.on_data(source, target, data)

    # The loop's side

    def listen(self, factory: Callable[[], Any], address: str, identity: Identity | None) -> Listener:
        process = CURRENT.get()
        assert process is not None, "who listens is a process"
        if address.startswith("unix:"):
            with open(address[5:], "wb"):
                pass                                   # WireServer sets its mode
        elif address in self.listeners:
            raise OSError(98, f"address in use: {address}")
        listener = self.listeners[address] = Listener(self, address, factory, process, identity)
        return listener

    async def connect(self, factory: Callable[[], Any], address: str,
                      identity: Identity | None) -> tuple[Connection, Any]:
        process = CURRENT.get()
        assert process is not None, "who connects is a process"
        machine = process.machine if address.startswith("unix:") else process.machine.world.machine_at(address)
        made: asyncio.Future[Listener] = self.loop.create_future()
        local = machine is process.machine

        def attempt() -> None:
            if made.done():
                return
            here, there = process.machine.name, machine.name
            if not local and ((here, there) in self.cut or (there, here) in self.cut or not machine.powered):
                self._opening.append(attempt)         # tried again by the kernel; the caller has his own patience
                return
            listener = self.listeners.get(address)
            if listener is None:
                made.set_exception(ConnectionRefusedError(f"nobody listens at {address}"))
            else:
                made.set_result(listener)

        delay = LOCAL_S if local else 0.0006 + 0.001 * self._chance.random()
        self.loop.call_later(delay, attempt, context=process.context)
        listener = await made
        ends = []
        for owner, protocol in ((process, factory()), (listener.process, None)):
            self._numbers += 1
            end = Connection(self, owner, protocol, address)
            end.number = self._numbers
            ends.append(end)
            self.connections.add(end)
        client, server = ends
        client.other, server.other = server, client
        client.out, server.out = Pipe(self, client, server), Pipe(self, server, client)
        if identity is not None:
            assert listener.identity is not None
            client.peer_name, server.peer_name = listener.identity.name, identity.name
        listener.process.call_soon(self._accept, listener, server)
        client.protocol.connection_made(client)
        return client, client.protocol

    def _accept(self, listener: Listener, connection: Connection) -> None:
        if connection.lost:
            return
        connection.protocol = listener.factory()
        connection.protocol.connection_made(connection)
