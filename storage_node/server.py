"""A storage node: one data folder, served over `core.wire` to gateways and other nodes (protocol.py).

Starting takes the folder, listens, registers with the metadata (which ends the sessions of this node's earlier lives), and
only then keeps house (settle.py): what nodes say about copies comes from one life at a time, but copies may be stored and read
before. Small puts and reads are answered without a task; streams and slow reads have one.
"""

import asyncio
import logging
import os
import struct
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING

import msgspec

from consensus.core.codec import UNDECODABLE
from consensus.core.commands import RegisterNode
from consensus.core.errors import ClusterError, Refused, Unavailable
from consensus.core.ids import Digest, Generation, NodeId
from consensus.core.wire import OK, Link, WireServer
from storage_node import protocol
from storage_node.care import care, upkeep
from storage_node.care.care import Care
from storage_node.care.compaction import DEAD_PERCENT
from storage_node.care.settle import NodeMetadata, Settler
from storage_node.care.upkeep import Upkeep
from storage_node.chunk import BLOCK_BYTES, SMALL_BYTES_MAX, block_count
from storage_node.client import NodeClient
from storage_node.disk_store import DiskStore
from storage_node.errors import NotHere
from storage_node.index import Copy
from storage_node.store import ChunkStore, IncomingChunk

if TYPE_CHECKING:                                 # a machine that is alone loads nothing of it
    from consensus.core.tls import Tls

log = logging.getLogger("staddle.node")

TASKS_MAX = 2048
"""Slow requests under way, streams included; more are refused (promise 8)."""

STOP_TIMEOUT_S = 5.0
"""How long a stop waits for requests that hang on a disk."""

BLOCKS_AT_ONCE = 8
"""Of a stream, in one write: 2 MiB."""


class NodeServer:
    """The role. `data` is the data folder; its chunks lie in `data/chunks`."""

    def __init__(self, *, data: str, node: NodeId, address: str, secret: bytes, metadata: NodeMetadata, zone: str = "",
                 store: ChunkStore | None = None, settle_interval_s: float = 2.0, read_grace_s: float = 3600.0,
                 scrub_bytes_per_second: int = care.SCRUB_BYTES_PER_SECOND,
                 scrub_interval_s: float = care.SCRUB_INTERVAL_S,
                 compact_dead_percent: int = DEAD_PERCENT, repair_bytes_per_second: int = upkeep.REPAIR_BYTES_PER_SECOND,
                 tls: "Tls | None" = None, listen: Sequence[str] = ()) -> None:
        """`address` is registered: where others find it. `listen`: where it listens, if not just there; addresses of the
        network need `tls`."""
        self.node, self.address, self.zone = node, address, zone
        self.data = data
        self.store: ChunkStore = store or DiskStore(os.path.join(data, "chunks"),
                                                    compact_dead_percent=compact_dead_percent)
        self._metadata = metadata
        self._wire = WireServer((listen or (address,))[0], secret, self._handler, also=listen[1:], tls=tls)
        self._tasks: set[asyncio.Task[None]] = set()
        self._scrub_bytes_per_second, self._scrub_interval_s = scrub_bytes_per_second, scrub_interval_s
        self.care: Care | None = None
        self._strange = False
        self.settler = Settler(self.store, metadata, node, register=self._register, interval_s=settle_interval_s,
                               read_grace_s=read_grace_s)
        folder, disk = (self.store.folder, self.store.disk) if isinstance(self.store, DiskStore) else (None, None)
        self.upkeep = Upkeep(node, self.store, metadata, self.settler, dial=lambda address: NodeClient(address, secret, tls=tls),
                             busy=self._busy(), bytes_per_second=repair_bytes_per_second,
                             folder=folder, disk=disk)

    async def start(self) -> None:
        """Raises Refused (the folder is taken or was tampered with), OSError, ClusterError."""
        await self.store.start()
        try:
            await self.upkeep.prepare()
            await self._wire.start()                  # once it is registered others count on it, and come
            await self._register()
        except BaseException:
            await self._wire.stop()
            await self.store.stop()
            raise
        self.settler.start()
        self.upkeep.start()
        if isinstance(self.store, DiskStore):
            self.care = Care(self.node, self.store, self._metadata, self.settler, self.upkeep, busy=self._busy(),
                             scrub_bytes_per_second=self._scrub_bytes_per_second, scrub_interval_s=self._scrub_interval_s)
            if self._strange and await self.store.inventory(None, 1):
                self.care.comparison.want()
            self._strange = False
            self.care.start()
        log.info("storage node %s serves %s on %s", self.node, self.data, self.address)

    async def _register(self) -> None:
        """One that the metadata does not know with this disk (it was removed, or another disk was in its place meanwhile) may
        hold copies that are listed no more and that nobody asks about: the inventories are compared then."""
        known = any(info.node == self.node and info.incarnation == self.store.incarnation
                    for info in await self._metadata.nodes())
        await self._metadata.register(RegisterNode(
            node=self.node, incarnation=self.store.incarnation, address=self.address, zone=self.zone,
            capacity_bytes=self.store.capacity_bytes()))
        self._strange = self._strange or not known
        if self._strange and self.care is not None:
            self._strange = False
            self.care.comparison.want()

    async def stop(self) -> None:
        """What has been received is written first; who waits gets his answer or loses the link."""
        if self.care is not None:
            await self.care.stop()
        await self.upkeep.stop()
        await self.settler.stop()
        await self._wire.stop()
        if self._tasks:
            _, stuck = await asyncio.wait(self._tasks, timeout=STOP_TIMEOUT_S)
            for task in stuck:
                task.cancel()
        await self.store.stop()

    def _busy(self) -> Callable[[], bool]:
        """Tells whether clients are being served, or have been since its last look."""
        seen = 0

        def busy() -> bool:
            nonlocal seen
            before, seen = seen, self.store.puts if isinstance(self.store, DiskStore) else 0
            return bool(self._tasks) or seen != before

        return busy

    def _handler(self) -> "NodeLink":
        return NodeLink(self)


class NodeLink:
    """What one gateway asks over one connection."""

    def __init__(self, server: NodeServer) -> None:
        self._server = server
        self._store, self._settler, self._tasks = server.store, server.settler, server._tasks
        self._streams: dict[int, _Stream] = {}

    def frame(self, link: Link, operation: int, status: int, request_id: int, payload: memoryview) -> None:
        if operation == protocol.PUT:
            self._put(link, request_id, payload)
        elif operation == protocol.BLOCK:
            stream = self._streams.get(request_id)
            if stream is not None:                    # else it has failed, and the sender doesn't know yet
                stream.add(bytes(payload))
        elif operation == protocol.END:
            stream = self._streams.get(request_id)
            if stream is not None:
                stream.end(Digest(bytes(payload[:32])), bytes(payload[32:]))
        elif operation == protocol.ABORT:
            stream = self._streams.pop(request_id, None)
            if stream is not None:
                stream.abort()
        elif len(self._tasks) >= TASKS_MAX:
            _refuse(link, operation, request_id, Unavailable("too many requests at once"))
        elif operation == protocol.BEGIN:
            if request_id in self._streams or len(payload) != protocol.BEGIN_BODY.size:
                raise Refused("malformed BEGIN")
            generation, room = protocol.BEGIN_BODY.unpack(payload)
            stream = self._streams[request_id] = _Stream(link, request_id, self._store, Generation.unpack(generation), room)
            self._run(self._receive(stream))
        else:
            self._run(self._answer(link, operation, request_id, bytes(payload)))

    def lost(self, link: Link) -> None:
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.abort()

    def _run(self, coroutine: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _put(self, link: Link, request_id: int, payload: memoryview) -> None:
        digest, generation, size = protocol.PUT_HEAD.unpack_from(payload)
        start = protocol.PUT_HEAD.size + 4 * block_count(size)
        if len(payload) != start + size or not 0 < size <= SMALL_BYTES_MAX:
            raise Refused("malformed PUT")

        def answer(error: ClusterError | None) -> None:
            if error is None:
                link.send(protocol.PUT, OK, request_id, self._store.incarnation)
            else:
                _refuse(link, protocol.PUT, request_id, error)

        self._store.put_then(digest, generation, bytes(payload[start:]), bytes(payload[protocol.PUT_HEAD.size:start]), answer)

    async def _receive(self, stream: "_Stream") -> None:
        try:
            await stream.run()
        finally:
            self._streams.pop(stream.id, None)

    async def _answer(self, link: Link, operation: int, request_id: int, payload: bytes) -> None:
        try:
            answer = await self._do(operation, payload)
        except (ClusterError, ValueError, struct.error, *UNDECODABLE) as error:
            _refuse(link, operation, request_id, error)
        else:
            link.send(operation, OK, request_id, answer)

    async def _do(self, operation: int, payload: bytes) -> bytes:
        store = self._store
        if operation == protocol.GET:
            digest, generation, start, length = protocol.GET_HEAD.unpack(payload)
            return await store.read(Digest(digest), Generation.unpack(generation), start, length)
        if operation == protocol.INVENTORY:
            after, limit = _inventory.decode(payload)
            return msgspec.msgpack.encode(await store.inventory(after, min(limit, protocol.INVENTORY_PAGE_MAX)))
        if operation == protocol.STATISTICS:
            return msgspec.msgpack.encode(await store.statistics())
        if operation == protocol.KICK:
            self._settler.kick()
            return b""
        if operation == protocol.DISK:
            return msgspec.msgpack.encode(store.disk_state)
        if operation == protocol.COMPACT:
            run = store.compact(min(payload[0], 100)) if payload else store.compaction.run
            return msgspec.msgpack.encode((run, store.compaction))
        if operation in care.OPERATIONS:
            if self._server.care is None:
                raise Unavailable("this storage node starts, and does not take care of its copies yet")
            return await self._server.care.answer(operation, payload)
        if operation not in (protocol.STAT, protocol.REPORT):
            raise Refused(f"no operation {operation}")
        digest, generation = protocol.NAME.unpack(payload)
        copy = await store.find(Digest(digest), Generation.unpack(generation))
        if operation == protocol.REPORT:
            return bytes((await self._is_good(Digest(digest), generation, copy),))
        if copy is None:
            raise NotHere(f"no copy of chunk {digest.hex()}")
        return msgspec.msgpack.encode(copy)

    async def _is_good(self, digest: Digest, generation: bytes, copy: Copy | None) -> bool:
        """A reader has met damage, or nothing, where it was told to read: look, and have it mended."""
        store = self._store
        if copy is None:
            await store.note_damage(digest, generation, "a reader did not find it here")
        elif not await store.damage_of([copy]) and await store.verify(copy):     # many may meet the same damage
            return True
        self._settler.kick()
        return False


class _Stream:
    """A large chunk that is being received: blocks queue here while the disk works."""

    def __init__(self, link: Link, request_id: int, store: ChunkStore, generation: Generation, room: int) -> None:
        self._link, self.id, self._store, self._generation, self._room = link, request_id, store, generation, room
        self._blocks: deque[bytes] = deque()
        self._queued = 0
        self._more = asyncio.Event()
        self._name: tuple[Digest, bytes] | None = None
        self._short = self._aborted = False

    def add(self, block: bytes) -> None:
        self._queued += len(block)
        if self._short or self._name is not None or not block or len(block) > BLOCK_BYTES:
            raise Refused("malformed stream")         # ends the link
        if self._queued > 2 * protocol.WINDOW_BYTES:
            raise Refused("the sender does not keep to its window")
        self._short = len(block) < BLOCK_BYTES
        self._blocks.append(block)
        self._more.set()

    def end(self, digest: Digest, table: bytes) -> None:
        self._name = digest, table
        self._more.set()

    def abort(self) -> None:
        self._aborted = True
        self._more.set()

    async def run(self) -> None:
        incoming: IncomingChunk | None = None
        try:
            incoming = await self._store.create(self._generation, self._room)
            while not self._aborted:
                if self._blocks:
                    await self._write(incoming)
                elif self._name is not None:
                    await incoming.finish(*self._name)
                    self._link.send(protocol.END, OK, self.id, self._store.incarnation)
                    return
                else:
                    self._more.clear()
                    await self._more.wait()
            await incoming.abort()
        except ClusterError as error:
            _refuse(self._link, protocol.END, self.id, error)

    async def _write(self, incoming: IncomingChunk) -> None:
        count = min(len(self._blocks), BLOCKS_AT_ONCE)
        blocks = [self._blocks.popleft() for _ in range(count)]
        await incoming.write(blocks)
        self._queued -= sum(map(len, blocks))
        self._link.send(protocol.TAKEN, OK, 0, protocol.TAKEN_BODY.pack(self.id, incoming.size))


def _refuse(link: Link, operation: int, request_id: int, error: BaseException) -> None:
    status = protocol.status_of(error) if isinstance(error, ClusterError) else protocol.REFUSED
    link.send(operation, status, request_id, str(error).encode())


_inventory = msgspec.msgpack.Decoder(tuple[tuple[bytes, bytes] | None, int])
