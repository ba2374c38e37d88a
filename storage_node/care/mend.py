"""What becomes of damage. Whoever meets it (a read, a report, the scrub, a start) only notes it; here it is dealt with.

A copy that was noted is read once more, whole, from the disk:
* it is good: the note is forgotten;
* it can't be read: that is trouble with the disk, not damage. The note stays and is looked at later; when that happens
  many times in a row, or the folder isn't the one that was started, nothing at all is concluded;
* it is damaged, and good bytes of the same digest are here under another generation: they are stored under its name;
* it is damaged, and nothing else is here: if the metadata lists it, it is withdrawn through the log (to list it would be
  a lie), and only then put away. A row without a location is healed by whoever brings its bytes again;
* it is damaged, and a commit may still bring it: it waits, for that commit would list it.

The same holds for copies that should be here and aren't: they have a note and no row in the index.
"""

import asyncio
import logging
from typing import NamedTuple

from consensus.core.errors import ClusterError, Unavailable
from consensus.core.ids import Digest, Generation, NodeId
from storage_node.care.telling import Name, NodeMetadata, Teller
from storage_node.chunk import BLOCK_BYTES, SMALL_BYTES_MAX, block_table
from storage_node.index import NEW, Copy
from storage_node.local import PIECE_BYTES
from storage_node.store import ChunkStore

log = logging.getLogger("staddle.node")

LISTED, SHORT, PASSED, PENDING = "listed", "short", "passed", "pending"

MENDED_AT_ONCE_MAX = 100
"""Of one round: each is read whole, and others wait for the round's end."""

NOTES_PAGE = 1000

TROUBLE_S = 60.0
"""When to look again at a copy that the disk makes trouble with, or that a commit may still bring."""

TROUBLES_IN_A_ROW_MAX = 8
"""So many copies one after the other that can't be read: the disk is ill or gone, and says nothing about its copies."""


class _Note(NamedTuple):
    name: Name
    reason: str
    copy: Copy | None


class Mender:
    """Used by the one task that also announces and deletes (settle.py), so none of its steps come between others'."""

    def __init__(self, store: ChunkStore, metadata: NodeMetadata, node: NodeId, teller: Teller) -> None:
        self._store, self._metadata, self._node, self._teller = store, metadata, node, teller
        self._later: dict[Name, float] = {}
        """When to look again, of notes that are put off."""
        self.repaired = self.withdrawn = self.removed = 0

    async def round(self) -> int:
        """Deal with some of what was noted. Returns how many were looked at. Raises ClusterError: later, then."""
        notes = await self._due()
        if not notes:
            return 0
        await self._store.check()
        held = {copy[:2]: copy for copy in await self._store.find_all(
            [(digest, Generation.unpack(generation)) for (digest, generation), _ in notes])}
        bad = await self._still_bad([_Note(name, reason, held.get(name)) for name, reason in notes])
        if bad:
            await self._deal_with(bad)
        return len(notes)

    async def _due(self) -> list[tuple[Name, str]]:
        now = asyncio.get_running_loop().time()
        self._later = {name: at for name, at in self._later.items() if at > now}
        found: list[tuple[Name, str]] = []
        after: Name | None = None
        while page := await self._store.damage(NOTES_PAGE, after):
            found += [((digest, generation), reason) for digest, generation, reason in page
                      if (digest, generation) not in self._later]
            if len(found) >= MENDED_AT_ONCE_MAX:
                break
            after = page[-1][:2]
        return found[:MENDED_AT_ONCE_MAX]

    def _put_off(self, name: Name) -> None:
        self._later[name] = asyncio.get_running_loop().time() + TROUBLE_S

    async def _still_bad(self, notes: list[_Note]) -> list[_Note]:
        bad, good = [], []
        troubles = 0
        for note in notes:
            try:
                if note.copy is None or not await self._store.verify(note.copy):
                    bad.append(note)
                else:
                    good.append(note.name)
                troubles = 0
            except ClusterError as error:
                log.warning("%s; it is not given up for that", error)
                self._put_off(note.name)
                troubles += 1
                if troubles >= TROUBLES_IN_A_ROW_MAX:
                    raise Unavailable(f"the disk can't be read, nothing is withdrawn: {error}") from error
        if good:
            await self._store.forgive(good)
        return bad

    async def _deal_with(self, bad: list[_Note]) -> None:
        states = await self._metadata.chunk_states(
            self._node, [(digest, Generation.unpack(generation)) for (digest, generation), _, _ in bad])
        lost: dict[Name, _Note] = {}
        for note, state in zip(bad, states, strict=True):
            try:
                if state == PENDING:
                    self._put_off(note.name)
                elif state in (LISTED, SHORT) and await self._repaired(note):
                    self.repaired += 1
                elif state == LISTED:
                    lost[note.name] = note
                else:
                    await self._put_away(note, "removed")
                    self.removed += 1
            except ClusterError as error:
                log.warning("chunk %s can't be mended now: %s", note.name[0].hex(), error)
                self._put_off(note.name)
        if lost:
            # Settled it is no more, whatever comes of this: fresh bytes may come under its name meanwhile, and forgive it.
            await self._store.mark([(note.copy, NEW, 0) for note in lost.values() if note.copy is not None])
            for name in await self._teller.withdraw_lost(list(lost)):
                self.withdrawn += 1
                await self._put_away(lost[name], "withdrawn")

    async def _repaired(self, note: _Note) -> bool:
        """Good bytes of the same digest are here: they take the place of the bad ones."""
        fresh = await good_copy(self._store, note.name[0], Generation.unpack(note.name[1]))
        if fresh is None:
            return False
        if note.copy is not None:
            await self._store.put_aside(note.copy, note.reason, "repaired")
        await store_again(self._store, fresh, Generation.unpack(note.name[1]))
        await self._store.forgive([note.name])
        return True

    async def _put_away(self, note: _Note, what: str) -> None:
        assert note.name not in self._teller.unanswered
        if note.copy is None:
            log.log(logging.ERROR if what == "withdrawn" else logging.INFO, "chunk %s, generation %s: %s; %s",
                    note.name[0].hex(), note.name[1].hex(), note.reason, what)
            await self._store.forgive([note.name])
        else:
            await self._store.put_away(note.copy, note.reason, what)
            # It may have moved just now; then its row is still here, and says that it counts.
            left = await self._store.find(note.name[0], Generation.unpack(note.name[1]))
            if left is not None:
                await self._store.mark([(left, NEW, 0)])


async def good_copy(store: ChunkStore, digest: Digest, besides: Generation) -> Copy | None:
    """A copy of these bytes under another generation that is good. Raises ClusterError when that can't be told."""
    packed = besides.pack()
    for other in await store.generations(digest):
        if other.generation != packed and await store.verify(other):
            return other
    return None


async def store_again(store: ChunkStore, fresh: Copy, generation: Generation) -> None:
    """Store the bytes of a good copy under another generation of their digest too. Raises ClusterError."""
    source = Generation.unpack(fresh.generation)
    if fresh.size <= SMALL_BYTES_MAX:
        data = await store.read(fresh.digest, source, 0, fresh.size)
        await store.put(fresh.digest, generation, data, block_table(data))
        return
    incoming = await store.create(generation)
    try:
        for start in range(0, fresh.size, PIECE_BYTES):
            piece = await store.read(fresh.digest, source, start, min(PIECE_BYTES, fresh.size - start))
            await incoming.write([piece[at:at + BLOCK_BYTES] for at in range(0, len(piece), BLOCK_BYTES)])
    except BaseException:
        await incoming.abort()
        raise
    await incoming.finish(fresh.digest, None)
