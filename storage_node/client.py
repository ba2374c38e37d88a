"""One storage node, seen from a gateway or another node: small requests on one connection, streams and large reads on
others.

Connections are made when they are first needed and again after a loss; who asks while the node is away gets
Unavailable at once rather than waiting, for another node may do. Nothing is retried here. A host that answers nothing (its
power is off, its packets are dropped) costs whoever tries first CONNECT_TIMEOUT_S; for a while after that nobody is made to
wait for it (`standing` says so, and `probe` finds out when it is back).
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from consensus.core import tasks
from consensus.core.errors import ClusterError, Unavailable
from consensus.core.ids import Digest, Generation
from consensus.core.wire import OK, WireClient
from storage_node import protocol
from storage_node.care.inventory import Compared
from storage_node.care.scrub import ScrubStatus
from storage_node.care.settle import Step
from storage_node.care.status import DamageReport, NodeStatus
from storage_node.care.waiting import WaitingPage
from storage_node.chunk import BLOCK_BYTES, Buffer
from storage_node.index import Copy
from storage_node.standing import Standing
from storage_node.store import CompactionState, DiskState, StoreStatistics

if TYPE_CHECKING:                                 # a machine that is alone loads nothing of it
    from consensus.core.tls import Tls

BULK_LINKS = 3
"""Streams share them, so one slow stream holds up a third of the others at worst."""

DEADLINE_S = 30.0
"""Of a request: a disk that takes longer is as good as gone, and the client's own patience is 60 s."""

SWEEP_S = 0.5
"""How often it is looked at for small writes: a timer for each of them would cost more than all else about it."""

LONG_DEADLINE_S = 300.0
"""Of work that reads whole chunks, a page of them at once."""

BULK_FROM_BYTES = 64 << 10
"""Answers at least this long come over a bulk connection."""

LINK_BYTES_MAX = 16 << 20
"""Of all streams of a link on their way: hundreds at once share it, down to a block for each."""

UNSENT_BYTES_MAX = 8 << 20
"""Small chunks that wait in our memory for a node to take them; more are not sent to it. It takes what it can in a moment,
so beyond two or three seconds of a busy gateway's writes it is stopped or cut off."""

UNANSWERED_MAX = 4096
"""Writes that a node has taken and not answered. Its disk's queue is far shorter."""

CONNECT_TIMEOUT_S = 1.0
"""Two round trips, three with TLS, and the handshake's reckoning: over any network that a cluster spans, a tenth of it."""

REFUSED_TRIES = 3
REFUSE_S_MIN, REFUSE_S_MAX = 0.05, 2.0
"""Pauses between attempts to connect. The first few that are refused at once are tried again at once: a node that starts
again should be used as soon as it serves. One that answers nothing is not tried again by requests for a while."""

PROBE_TIMEOUT_S = 1.0

HANGING_S = 10.0
"""A node that has taken requests and answers nothing for so long loses its links, and what waits on them is let go."""

_copies = msgspec.msgpack.Decoder(list[Copy])
_compaction = msgspec.msgpack.Decoder(tuple[int, CompactionState])
_disk = msgspec.msgpack.Decoder(DiskState)
_copy = msgspec.msgpack.Decoder(Copy)
_statistics = msgspec.msgpack.Decoder(StoreStatistics)
_status = msgspec.msgpack.Decoder(NodeStatus)
_scrub = msgspec.msgpack.Decoder(ScrubStatus)
_damage = msgspec.msgpack.Decoder(DamageReport)
_waiting = msgspec.msgpack.Decoder(WaitingPage)
_step = msgspec.msgpack.Decoder(Step)
_compared = msgspec.msgpack.Decoder(tuple[bool, Compared])


class _Connection:
    """A link that comes back: made on demand, by one caller for all that wait."""

    def __init__(self, address: str, secret: bytes, tls: "Tls | None", standing: Standing) -> None:
        self._address, self._secret, self._tls, self._standing = address, secret, tls, standing
        self._wire: WireClient | None = None
        self._connecting: asyncio.Task[WireClient] | None = None
        self._failed, self._not_before, self._why = 0, 0.0, ""
        self.streams: dict[int, Upload] = {}

    @property
    def now(self) -> WireClient | None:
        """The link, if there is one."""
        wire = self._wire
        return wire if wire is not None and wire.connected else None

    async def get(self, *, at_once: bool = True) -> WireClient:
        """Raises Unavailable, Refused. `at_once`: rather than pausing after attempts that failed, fail again."""
        if (wire := self.now) is not None:
            return wire
        loop = asyncio.get_running_loop()
        if self._connecting is None:
            if at_once and loop.time() < self._not_before:
                raise Unavailable(self._why)
            self._connecting = loop.create_task(self._connect())
            self._connecting.add_done_callback(tasks.seen)             # whoever waited may have gone
        connecting = self._connecting
        try:
            return await asyncio.shield(connecting)
        except asyncio.CancelledError:
            if connecting.cancelled() and (task := asyncio.current_task()) is not None and not task.cancelling():
                raise Unavailable(f"connecting to {self._address} was given up") from None     # and we were not
            raise
        finally:
            if self._connecting is not None and self._connecting.done():
                self._connecting = None

    async def _connect(self) -> WireClient:
        loop = asyncio.get_running_loop()
        wire = WireClient(self._address, self._secret, self._pushed, self._lost, tls=self._tls)
        began = loop.time()
        try:
            await wire.connect(CONNECT_TIMEOUT_S)
        except ClusterError as error:
            now = loop.time()
            self._standing.reachable = False
            # What answers nothing is not waited for twice.
            self._failed += 1 if now - began < CONNECT_TIMEOUT_S / 2 else REFUSED_TRIES
            if self._failed >= REFUSED_TRIES:
                pause = REFUSE_S_MIN * 2 ** min(self._failed - REFUSED_TRIES, 10)
                self._not_before, self._why = now + min(pause, REFUSE_S_MAX), str(error)
            raise
        self._failed, self._not_before = 0, 0.0
        self._standing.reachable = True
        self._wire = wire
        return wire

    def _pushed(self, operation: int, payload: bytes) -> None:
        if operation == protocol.TAKEN:
            stream, taken = protocol.TAKEN_BODY.unpack(payload)
            upload = self.streams.get(stream)
            if upload is not None:
                upload.taken(taken)

    def _lost(self) -> None:
        self._standing.reachable = False
        for upload in list(self.streams.values()):
            upload.wake()

    def close(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
        if self._wire is not None:
            self._wire.close()


class Upload:
    """A large chunk on its way to one node. `send` never waits; who sends asks `room` first."""

    def __init__(self, connection: _Connection, wire: WireClient, generation: Generation, room: int) -> None:
        self._connection, self._wire = connection, wire
        self.id = wire.new_request()
        self._answer = wire.answer_to(self.id)
        self._answer.add_done_callback(lambda answer: self.wake())
        self._sent = self._taken = 0
        self._moved = asyncio.Event()
        connection.streams[self.id] = self
        wire.post(protocol.BEGIN, self.id, protocol.BEGIN_BODY.pack(generation.pack(), room))

    @property
    def has_room(self) -> bool:
        window = min(protocol.WINDOW_BYTES, LINK_BYTES_MAX // max(1, len(self._connection.streams)))
        return self._sent - self._taken < max(window, BLOCK_BYTES) or self._answer.done()

    @property
    def failed(self) -> bool:
        return self._answer.done()

    @property
    def taken_bytes(self) -> int:
        """What the node has written of it."""
        return self._taken

    def taken(self, count: int) -> None:
        self._taken = count
        self._moved.set()

    def wake(self) -> None:
        self._moved.set()

    async def room(self) -> None:
        """Returns when another block may be sent, or the stream has failed."""
        while not self.has_room:
            self._moved.clear()
            await self._moved.wait()

    def send(self, block: Buffer) -> None:
        """One block; it must never change (it may be on its way for a while)."""
        self._sent += len(block)
        self._wire.post(protocol.BLOCK, self.id, block)

    async def finish(self, digest: Digest, table: bytes) -> bytes:
        """The node's incarnation, once the chunk is durable. Raises NoSpace, Corrupt, Unavailable."""
        if not self.failed:
            self._wire.post(protocol.END, self.id, digest + table)
        try:
            async with asyncio.timeout(DEADLINE_S):
                return checked(*await asyncio.shield(self._answer))
        except TimeoutError:
            raise Unavailable("the node did not finish a chunk in time") from None
        finally:
            self.close()

    def error(self) -> ClusterError:
        """Why it failed."""
        try:
            checked(*self._answer.result())
        except ClusterError as error:
            return error
        return Unavailable("the stream ended early")

    def abort(self) -> None:
        if not self.failed:
            self._wire.post(protocol.ABORT, self.id)
        self.close()

    def close(self) -> None:
        self._connection.streams.pop(self.id, None)
        self._wire.forget(self.id)
        if not self._answer.done():
            self._answer.cancel()
        elif not self._answer.cancelled():
            self._answer.exception()                  # seen


class NodeClient:
    """Answers are values or the errors of core.errors and NotHere."""

    def __init__(self, address: str, secret: bytes, *, tls: "Tls | None" = None, standing: Standing | None = None) -> None:
        self.address = address
        self.standing = standing or Standing()
        self._small = _Connection(address, secret, tls, self.standing)
        self._bulk = [_Connection(address, secret, tls, self.standing) for _ in range(BULK_LINKS)]
        self._next_bulk = self._connecting_bytes = 0
        self._due: list[tuple[float, asyncio.Future[tuple[int, bytes]]]] = []
        """Deadlines of small writes, and their answers."""

    def close(self) -> None:
        for connection in (self._small, *self._bulk):
            connection.close()

    @property
    def has_room(self) -> bool:
        """Whether another small chunk may be sent: what the node has not taken yet is in our memory."""
        wire = self._small.now
        unsent = self._connecting_bytes if wire is None else wire.unsent_bytes
        return self.standing.writes.open < UNANSWERED_MAX and unsent < UNSENT_BYTES_MAX

    @property
    def has_room_for_streams(self) -> bool:
        return any(bulk.now is None or bulk.now.unsent_bytes < LINK_BYTES_MAX for bulk in self._bulk)

    async def probe(self) -> bool:
        """Whether the node answers; lets go of links on which it has not answered for HANGING_S. Never raises."""
        now = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                wire = await self._small.get(at_once=False)
                checked(*await wire.call(protocol.DISK, b""))
        except (ClusterError, TimeoutError):
            if max(self.standing.writes.silent_s(now), self.standing.reads.silent_s(now)) > HANGING_S:
                self.close()
            return False
        self.standing.reachable = True
        return True

    def put_now(self, request: bytes) -> "asyncio.Future[tuple[int, bytes]] | None":
        """Send a PUT made by `put_request` over the connection that there is; None if there is none."""
        wire = self._small.now
        return wire.call(protocol.PUT, request) if wire is not None else None

    def put_in_time(self, request: bytes) -> "asyncio.Future[tuple[int, bytes]] | None":
        """The same; its answer is Unavailable if none comes before the deadline."""
        answer = self.put_now(request)
        if answer is not None:
            loop = answer.get_loop()
            if not self._due:
                loop.call_later(SWEEP_S, self._sweep)
            self._due.append((loop.time() + DEADLINE_S, answer))
        return answer

    def _sweep(self) -> None:
        now, self._due = asyncio.get_running_loop().time(), [due for due in self._due if not due[1].done()]
        for deadline, answer in self._due:
            if deadline < now:
                answer.set_exception(Unavailable(f"{self.address} did not store a chunk in {DEADLINE_S:g} s"))
        if self._due:
            asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    async def put(self, request: bytes) -> tuple[int, bytes]:
        """The same, connecting first. Status and payload, for `checked`. Raises Unavailable, Refused."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                size = len(request)
                self._connecting_bytes += size
                try:
                    wire = await self._small.get()
                finally:
                    self._connecting_bytes -= size
                answer = wire.call(protocol.PUT, request)
                del request                           # the node may take long to answer
                return await answer
        except TimeoutError:
            raise Unavailable(f"{self.address} did not answer in {DEADLINE_S:g} s") from None

    async def upload(self, generation: Generation, room: int = 0) -> Upload:
        """Begin a large chunk. The node refuses it at once if it has no `room` for so many bytes. Raises Unavailable, Refused."""
        connection = self._bulk_connection()
        return Upload(connection, await connection.get(), generation, room)

    async def get(self, digest: Digest, generation: Generation, start: int, length: int) -> bytes:
        """At most 1 MiB, verified by the node. Raises NotHere, Corrupt, Unavailable."""
        request = protocol.GET_HEAD.pack(digest, generation.pack(), start, length)
        connection = self._small if length < BULK_FROM_BYTES else self._bulk_connection()
        data = await self._ask(connection, protocol.GET, request)
        if len(data) != length:
            raise Unavailable(f"{self.address} answered {len(data)} bytes instead of {length}")
        return data

    async def find(self, digest: Digest, generation: Generation) -> Copy:
        """Raises NotHere, Unavailable."""
        return _copy.decode(await self._ask(self._small, protocol.STAT, protocol.name_of(digest, generation)))

    async def inventory(self, after: tuple[bytes, bytes] | None, limit: int) -> list[Copy]:
        request = msgspec.msgpack.encode((after, limit))
        return _copies.decode(await self._ask(self._bulk_connection(), protocol.INVENTORY, request))

    async def statistics(self) -> StoreStatistics:
        return _statistics.decode(await self._ask(self._small, protocol.STATISTICS, b""))

    async def report(self, digest: Digest, generation: Generation) -> bool:
        """This copy looked damaged, or wasn't there: the node looks for itself, reads all of it, and has it mended. True if
        it is good."""
        return await self._ask_long(protocol.REPORT, protocol.name_of(digest, generation)) == b"\x01"

    async def kick(self) -> None:
        await self._ask(self._small, protocol.KICK, b"")

    async def disk(self) -> DiskState:
        """Whether it can write."""
        return _disk.decode(await self._ask(self._small, protocol.DISK, b""))

    async def compact(self, dead_percent: int) -> int:
        """Begin to compact segments of which so much is dead. The number of the run."""
        return _compaction.decode(await self._ask(self._small, protocol.COMPACT, bytes((dead_percent,))))[0]

    async def compaction(self) -> CompactionState:
        """The run that is under way, or the last one."""
        return _compaction.decode(await self._ask(self._small, protocol.COMPACT, b""))[1]

    # Care: see storage_node.care.care

    async def status(self) -> NodeStatus:
        return _status.decode(await self._ask(self._bulk_connection(), protocol.STATUS, b""))

    async def scrub(self, action: str = "status", *, full_speed: bool = False, anew: bool = True) -> ScrubStatus:
        """`action`: start | stop | status. A start begins a pass now; `anew` also when one is under way. Whoever waits for
        it asks for the status until `passes` has grown."""
        request = msgspec.msgpack.encode((action, full_speed, anew))
        return _scrub.decode(await self._ask(self._small, protocol.SCRUB, request))

    async def damage(self, limit: int = 1000) -> DamageReport:
        """What was found damaged: still to be dealt with, and dealt with."""
        return _damage.decode(await self._ask(self._bulk_connection(), protocol.DAMAGE, msgspec.msgpack.encode(limit)))

    async def gc_report(self, after: tuple[bytes, bytes] | None = None, limit: int = 300) -> WaitingPage:
        """Copies that take space and don't count, and why they are here. Changes nothing. Go on with `after` of the answer,
        until that is None; `waiting.total` adds up."""
        request = msgspec.msgpack.encode((after, limit))
        return _waiting.decode(await self._ask(self._bulk_connection(), protocol.GC_REPORT, request))

    async def gc_step(self, after: tuple[bytes, bytes] | None = None, *, no_grace: bool = False) -> Step:
        """Ask about one page of them now, and let go of what may go. `no_grace`: don't wait for readers that have begun."""
        request = msgspec.msgpack.encode((after, no_grace))
        return _step.decode(await self._ask_long(protocol.GC_RUN, request))

    async def gc_run(self, *, no_grace: bool = False, progress: Callable[[Step], None] | None = None) -> Step:
        """Step by step to the end. `progress` gets the sum so far; the last sum is the answer."""
        done = Step(0, 0, 0, None)
        while True:
            step = await self.gc_step(done.after, no_grace=no_grace)
            done = Step(done.asked + step.asked, done.removed + step.removed, done.removed_bytes + step.removed_bytes,
                        step.after)
            if progress is not None:
                progress(done)
            if done.after is None:
                return done

    async def compare(self, *, begin: bool = False) -> tuple[bool, Compared]:
        """Whether a comparison of the inventory with the metadata is under way (`begin`: from now on), and the last one."""
        return _compared.decode(await self._ask(self._small, protocol.COMPARE, msgspec.msgpack.encode(begin)))

    async def _ask_long(self, operation: int, request: bytes) -> bytes:
        """Of work that may read many whole chunks."""
        wire = await self._bulk_connection().get()
        try:
            async with asyncio.timeout(LONG_DEADLINE_S):
                return checked(*await wire.call(operation, request))
        except TimeoutError:
            raise Unavailable(f"{self.address} did not answer in {LONG_DEADLINE_S:g} s") from None

    def _bulk_connection(self) -> _Connection:
        """The one with the fewest streams, else the next."""
        self._next_bulk = (self._next_bulk + 1) % BULK_LINKS
        rotated = self._bulk[self._next_bulk:] + self._bulk[:self._next_bulk]
        return min(rotated, key=lambda connection: len(connection.streams))

    async def _ask(self, connection: _Connection, operation: int, request: bytes) -> bytes:
        wire = await connection.get()
        try:
            async with asyncio.timeout(DEADLINE_S):
                return checked(*await wire.call(operation, request))
        except TimeoutError:
            raise Unavailable(f"{self.address} did not answer in {DEADLINE_S:g} s") from None


def put_request(digest: Digest, generation: Generation, data: Buffer, table: bytes) -> bytes:
    return b"".join((protocol.PUT_HEAD.pack(digest, generation.pack(), len(data)), table, data))


def checked(status: int, payload: bytes) -> bytes:
    if status != OK:
        raise protocol.error_of(status, payload)
    return payload

