"""The disk of a storage node: the chunk store in memory, which takes its time, survives kills, and can be ill."""

import asyncio
import random
from collections.abc import Callable

from consensus.core.clock import SteadyClock
from consensus.core.errors import Corrupt, NoSpace, Unavailable
from consensus.core.ids import Digest
from storage_node.chunk import block_table
from storage_node.index import NEW, Copy
from storage_node.memory import MemoryStore, Name
from storage_node.store import Answer

SYNC_S = 0.001


class VirtualStore(MemoryStore):
    """One per disk; it outlives the node's processes. `on_remove` hears of every copy that goes."""

    def __init__(self, chance: random.Random, on_remove: Callable[[list[Copy]], None]) -> None:
        super().__init__(SteadyClock())
        self._chance, self._on_remove = chance, on_remove
        self.sync_s = SYNC_S
        self.read_only = self.lies = False
        self.damaged_by_faults: set[Name] = set()
        self._writing: dict[Name, bytes] = {}
        self._unsynced: list[Name] = []
        self._just_removed: list[tuple[Copy, tuple[bytearray, bytes]]] = []

    # What the product calls

    def check_room(self) -> None:
        super().check_room()
        if self.read_only:
            raise Unavailable("the disk is read-only")

    def put_then(self, digest: Digest, generation: bytes, data: bytes, table: bytes, answer: Answer) -> None:
        try:
            self.check_room()
            if table != block_table(data):
                raise Corrupt(f"chunk {digest.hex()} was changed on its way")
        except (NoSpace, Corrupt, Unavailable) as error:
            answer(error)
            return
        name = (digest, generation)
        self._writing[name] = data

        def synced() -> None:
            self._writing.pop(name, None)
            self.keep(digest, generation, data)
            if self.lies:
                self._unsynced.append(name)
            answer(None)

        asyncio.get_running_loop().call_later(self.sync_s * (0.5 + self._chance.random()), synced)

    def keep(self, digest: Digest, generation: bytes, data: bytes) -> None:
        super().keep(digest, generation, data)
        self.damaged_by_faults.discard((digest, generation))

    async def remove(self, copies: list[Copy]) -> None:
        self._on_remove(copies)
        for copy in copies:
            name = copy.digest, copy.generation
            if name in self._bytes:
                self._just_removed.append((copy, self._bytes[name]))
        del self._just_removed[:-20]
        await super().remove(copies)

    async def put_away(self, copy: Copy, reason: str, what: str) -> None:
        self._on_remove([copy])
        await self.put_aside(copy, reason, what)
        await MemoryStore.remove(self, [copy])

    # What faults do and checks ask

    def lose_power(self) -> None:
        """What was not synced is lost; what has just been removed may be there again; what was settled may be forgotten."""
        self.killed()
        for name in self._unsynced:
            for table in (self._copies, self._bytes, self._damage):
                table.pop(name, None)
        for copy, content in self._just_removed:
            name = copy.digest, copy.generation
            if self._chance.random() < 0.3 and name not in self._copies and content[0]:
                self._copies[name], self._bytes[name] = copy._replace(state=NEW, due=0), content
        for name, copy in list(self._copies.items()):
            if self._chance.random() < 0.1:
                self._copies[name] = copy._replace(state=NEW, due=0)
        self._unsynced, self._just_removed = [], []

    def killed(self) -> None:
        """The process is gone: what it was writing may be there, whole, though nobody was told."""
        writing, self._writing = self._writing, {}
        for (digest, generation), data in writing.items():
            if self._chance.random() < 0.5:
                self.keep(digest, generation, data)

    def rot(self, count: int) -> int:
        """Flip a bit in some copies. How many."""
        names = sorted(name for name in self._copies if name not in self.damaged_by_faults and self._bytes[name][0])
        chosen = self._chance.sample(names, min(count, len(names)))
        for digest, generation in chosen:
            self.damaged_by_faults.add((digest, generation))
            data = self._bytes[digest, generation][0]
            data[self._chance.randrange(len(data))] ^= 1 << self._chance.randrange(8)
        return len(chosen)

    def whole(self, digest: Digest, generation: bytes) -> bool:
        """Whether good bytes are here under exactly this name."""
        found = self._bytes.get((digest, generation))
        return found is not None and block_table(found[0]) == found[1]

    @property
    def names(self) -> list[Name]:
        return sorted(self._copies)
