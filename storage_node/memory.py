"""The chunk store without a disk: for tests of what lies above, and the second opinion on the contract's own tests.

It keeps every promise but durability. `damage_copy` and `full` let a test ask for the unhappy answers.
"""

import asyncio
import secrets
from collections.abc import Iterable, Sequence
from functools import partial

from consensus.core.clock import Clock, SystemClock
from consensus.core.errors import Corrupt, NoSpace
from consensus.core.ids import Digest, Generation
from storage_node.chunk import BLOCK_BYTES, SMALL_BYTES_MAX, block_table, check_blocks
from storage_node.errors import NotHere
from storage_node.index import FILE, NEW, SETTLED, Copy
from storage_node.local import PIECE_BYTES
from storage_node.store import Answer, CompactionState, DiskState, StoreStatistics, settle

Name = tuple[Digest, bytes]


class _Incoming:
    def __init__(self, store: "MemoryStore", generation: bytes) -> None:
        self._store, self._generation = store, generation
        self._data = bytearray()
        self._short = False

    @property
    def size(self) -> int:
        return len(self._data)

    async def write(self, blocks: list[bytes]) -> None:
        self._store.check_room()
        for block in blocks:
            assert not self._short, "a short block ends the chunk"
            assert 0 < len(block) <= BLOCK_BYTES
            self._short = len(block) < BLOCK_BYTES
            self._data += block

    async def finish(self, digest: Digest, table: bytes | None) -> None:
        if table is not None and table != block_table(self._data):
            raise Corrupt(f"chunk {digest.hex()} was changed on its way")
        self._store.keep(digest, self._generation, bytes(self._data))

    async def abort(self) -> None:
        self._data.clear()


class MemoryStore:
    """ChunkStore in a dictionary."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.incarnation = secrets.token_bytes(16)
        self.full = False
        self._clock = clock or SystemClock()
        self._copies: dict[Name, Copy] = {}
        self._bytes: dict[Name, tuple[bytearray, bytes]] = {}
        self._damage: dict[Name, str] = {}
        self._puts = 0
        self.put_asides: list[tuple[Copy, str]] = []
        self.compaction = CompactionState()

    async def start(self) -> None:
        """Nothing to open."""

    async def stop(self) -> None:
        """Nothing to close; the chunks stay for the next `start`."""

    def check_room(self) -> None:
        if self.full:
            raise NoSpace("the memory store is full")

    def keep(self, digest: Digest, generation: bytes, data: bytes) -> None:
        name = digest, generation
        self._puts += 1
        if name not in self._copies or name in self._damage:
            self._damage.pop(name, None)
            self._bytes[name] = bytearray(data), block_table(data)
            known = self._copies.get(name)
            state, due = (known.state, known.due) if known else (NEW, self._clock.now_ms())
            self._copies[name] = Copy(digest, generation, len(data), FILE, 0, state, due)

    def damage_copy(self, digest: Digest, generation: Generation, at: int) -> None:
        """Flip a bit."""
        self._bytes[digest, generation.pack()][0][at] ^= 1

    def put(self, digest: Digest, generation: Generation, data: bytes, table: bytes) -> "asyncio.Future[None]":
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.put_then(digest, generation.pack(), data, table, partial(settle, done))
        return done

    def put_then(self, digest: Digest, generation: bytes, data: bytes, table: bytes, answer: Answer) -> None:
        assert 0 < len(data) <= SMALL_BYTES_MAX
        try:
            self.check_room()
            if table != block_table(data):
                raise Corrupt(f"chunk {digest.hex()} was changed on its way")
        except (NoSpace, Corrupt) as error:
            answer(error)
        else:
            self.keep(digest, generation, data)
            answer(None)

    async def create(self, generation: Generation, room: int = 0) -> _Incoming:
        self.check_room()
        return _Incoming(self, generation.pack())

    async def read(self, digest: Digest, generation: Generation, start: int, length: int) -> bytes:
        name = digest, generation.pack()
        if name not in self._bytes:
            name = next((other for other in self._bytes if other[0] == digest), name)
        if name not in self._bytes:
            raise NotHere(f"no copy of chunk {digest.hex()}")
        data, table = self._bytes[name]
        if not 0 <= start < start + length <= len(data) or length > PIECE_BYTES:
            raise ValueError(f"chunk {digest.hex()} has {len(data)} bytes, not {start} + {length}")
        first, last = start // BLOCK_BYTES, (start + length - 1) // BLOCK_BYTES
        try:
            check_blocks(data[first * BLOCK_BYTES:(last + 1) * BLOCK_BYTES], table[4 * first:4 * last + 4])
        except Corrupt as error:
            self._damage[name] = str(error)
            raise Corrupt(f"chunk {digest.hex()}: {error}") from error
        return bytes(data[start:start + length])

    async def find(self, digest: Digest, generation: Generation) -> Copy | None:
        return self._copies.get((digest, generation.pack()))

    async def find_all(self, names: Sequence[tuple[Digest, Generation]]) -> list[Copy]:
        found = (self._copies.get((digest, generation.pack())) for digest, generation in names)
        return [copy for copy in found if copy is not None]

    async def generations(self, digest: Digest) -> list[Copy]:
        return [copy for copy in self._copies.values() if copy.digest == digest]

    async def inventory(self, after: tuple[bytes, bytes] | None, limit: int) -> list[Copy]:
        return [self._copies[name] for name in sorted(self._copies) if after is None or name > after][:limit]

    async def due(self, now_ms: int, limit: int) -> list[Copy]:
        waiting = [copy for copy in self._copies.values() if copy.state != SETTLED and copy.due <= now_ms]
        return sorted(waiting, key=lambda copy: copy.due)[:limit]

    async def mark(self, marks: Iterable[tuple[Copy, int, int]]) -> None:
        for copy, state, due in marks:
            name = copy.digest, copy.generation
            if name in self._copies:
                self._copies[name] = self._copies[name]._replace(state=state, due=due)

    async def remove(self, copies: list[Copy]) -> None:
        for copy in copies:
            for table in (self._copies, self._bytes, self._damage):
                table.pop((copy.digest, copy.generation), None)

    async def verify(self, copy: Copy) -> bool:
        name = copy.digest, copy.generation
        if name not in self._bytes:
            return False
        data, table = self._bytes[name]
        if block_table(data) != table:
            self._damage[name] = "block checksum does not match"
            return False
        return True

    async def damage_of(self, copies: list[Copy]) -> set[Name]:
        return {(copy.digest, copy.generation) for copy in copies} & self._damage.keys()

    async def damage(
        self, limit: int, after: tuple[bytes, bytes] | None = None
    ) -> list[tuple[Digest, bytes, str]]:
        return [(*name, self._damage[name]) for name in sorted(self._damage) if after is None or name > after][:limit]

    async def note_damage(self, digest: Digest, generation: bytes, reason: str) -> None:
        self._damage.setdefault((digest, generation), reason)

    async def forgive(self, names: list[Name]) -> None:
        for name in names:
            self._damage.pop(name, None)

    async def put_aside(self, copy: Copy, reason: str, what: str) -> None:
        self.put_asides.append((copy, what))

    async def put_away(self, copy: Copy, reason: str, what: str) -> None:
        await self.put_aside(copy, reason, what)
        await self.remove([copy])

    async def unsettled(self, after: tuple[bytes, bytes] | None, limit: int) -> list[Copy]:
        return [copy for copy in await self.inventory(after, 1 << 30) if copy.state != SETTLED][:limit]

    async def check(self) -> None:
        """Memory doesn't go away."""

    def compact(self, dead_percent: int) -> int:
        self.compaction = CompactionState(run=self.compaction.run + 1)
        return self.compaction.run

    @property
    def disk_state(self) -> DiskState:
        return DiskState(writable=not self.full, reason="full" if self.full else "")

    def capacity_bytes(self) -> int:
        return 1 << 30

    async def statistics(self) -> StoreStatistics:
        return StoreStatistics(
            chunks=len(self._copies), chunk_bytes=sum(copy.size for copy in self._copies.values()),
            unsettled=sum(copy.state != SETTLED for copy in self._copies.values()), damaged=len(self._damage),
            puts=self._puts, writable=not self.full, reason=self.disk_state.reason,
        )
