"""What becomes of a copy: the loop in which a node asks the metadata about the copies that it holds. Code that
deletes: read it twice.

Every copy starts as NEW. At one read index, taken after the copy was stored, the metadata says about each:

* LISTED: it counts. Settled; asked about again only when a hint says that it was released.
* SHORT: its generation is live and has too few copies. It is announced, and asked about again.
* PASSED: it isn't listed, and no commit can bring its generation any more. It goes.
* PENDING: a commit may still bring it. Asked about later.

Rules (an exhaustive model has a counterexample for each one left out):
* only the node itself deletes, by pulling; hints only say what to ask about;
* the read comes after the copy was stored;
* between the read and the delete nothing is announced under that name: one task at a time does both, one after the
  other, and mends what is damaged (mend.py);
* an announcement without an answer blocks the delete of its name, until a new registration has ended the session in
  which it was sent (telling.py);
* before a duplicate goes, the copy that stays is read and verified. If it is rotten, or isn't here although the metadata
  lists it, the fresh bytes are stored under its name; if the live generation is short of copies, likewise, and announced;
* readers that have begun keep what they read for `read_grace_s`. A duplicate may go at once: readers find the other
  copy, for equal digests are equal bytes.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from consensus.core.clock import Clock, SteadyClock
from consensus.core.errors import ClusterError, Unavailable
from consensus.core.ids import Generation, NodeId
from storage_node.care.loop import Loop
from storage_node.care.mend import LISTED, MENDED_AT_ONCE_MAX, PASSED, PENDING, SHORT, Mender, store_again
from storage_node.care.telling import Live, Name, NodeMetadata, Released, Teller
from storage_node.index import CONDEMNED, NEW, SETTLED, Copy
from storage_node.store import ChunkStore

__all__ = ["LISTED", "PASSED", "PENDING", "SHORT", "NodeMetadata", "Released", "Settler", "Step"]

log = logging.getLogger("staddle.node")

PAGE = 300
"""Copies asked about in one read, and announced in one command (CHUNKS_PER_COMMAND_MAX)."""

COLLECTED_PAGE = 100
"""Copies of one step of a collection on demand: for each duplicate the copy that stays is read whole, and somebody waits."""

PENDING_MS = 2_000
"""When to ask again about an upload under way."""

TROUBLE_MS = 60_000
"""When to ask again about a copy that the disk makes trouble with: repair may have come meanwhile."""

ANNOUNCED_MS = 500
"""When to ask again after an announcement: the next round finds it listed."""


class Step(NamedTuple):
    """What one step of a collection on demand has done. `after`: where the next goes on; None: that was all."""

    asked: int
    removed: int
    removed_bytes: int
    after: tuple[bytes, bytes] | None


class Settler:
    """The loop. One per node; `register` is the node's own, to begin a new session when an outcome is unknown.

    `one` is held by whoever asks and acts on the answers; the comparison of inventories takes it too (inventory.py)."""

    def __init__(self, store: ChunkStore, metadata: NodeMetadata, node: NodeId, *,
                 register: Callable[[], Awaitable[None]], clock: Clock | None = None,
                 interval_s: float = 2.0, read_grace_s: float = 3600.0) -> None:
        self._store, self._metadata, self._node = store, metadata, node
        self.teller = Teller(metadata, node, register)
        self.mender = Mender(store, metadata, node, self.teller)
        self.one = asyncio.Lock()
        self._clock = clock or SteadyClock()
        self._interval_s, self._read_grace_ms = interval_s, int(read_grace_s * 1000)
        self._hints_after = 0
        self._loop = Loop("settling", node, self._turn, pause_s=interval_s, level=logging.INFO)
        self.removed = self.removed_bytes = self.announced = 0
        self.coming: set[Name] = set()
        """Copies that are being fetched because they should be here: they don't go before they are announced."""
        self.on_loss: Callable[[], None] = lambda: None
        """Told when copies were withdrawn as lost, so that they can be fetched at once."""

    def start(self) -> None:
        self._loop.start()

    async def stop(self) -> None:
        await self._loop.stop()

    def kick(self) -> None:
        """Ask now."""
        self._loop.kick()

    async def _turn(self) -> float:
        loop = asyncio.get_running_loop()
        started = loop.time()
        async with self.one:
            hints = await self.take_hints()
            more = max(await self.round(), hints) >= PAGE
        async with self.one:
            await self.mend()
        # While there is much to do, a fifth of the time: clients' requests share this loop, and nothing is urgent.
        return min(4 * (loop.time() - started), self._interval_s) if more else self._interval_s

    async def take_hints(self) -> int:
        """Ask again about copies that the metadata has released. A hint that is lost costs space, never data."""
        hints = await self._metadata.released(self._node, self._hints_after, PAGE)
        if hints.copies:
            now = self._clock.now_ms()
            held = await self._store.find_all(hints.copies)
            await self._store.mark([(copy, NEW, now) for copy in held if copy.state == SETTLED])
        self._hints_after = hints.after
        return len(hints.copies)

    def forget_hints(self) -> None:
        """The metadata has another history than before: its hints count anew."""
        self._hints_after = 0

    async def mend(self) -> None:
        """Deal with damage that was noted. Raises ClusterError."""
        await self.teller.settle()
        withdrawn = self.mender.withdrawn
        if await self.mender.round() >= MENDED_AT_ONCE_MAX:
            self.kick()                               # there is more
        if self.mender.withdrawn > withdrawn:
            self.on_loss()

    async def round(self) -> int:
        """Ask about one page of copies and act on the answers. Returns how many. Raises ClusterError: later, then."""
        await self.teller.settle()                    # nothing that was said before can come any more
        copies = await self._store.due(self._clock.now_ms(), PAGE)
        await self._ask(copies, self._read_grace_ms)
        return len(copies)

    async def collect(self, after: tuple[bytes, bytes] | None, *, no_grace: bool = False) -> Step:
        """On demand: ask about one page of whatever isn't settled, due or not. `no_grace`: readers that have begun are not
        waited for. Raises ClusterError."""
        async with self.one:
            if after is None:
                while await self.take_hints() >= PAGE:
                    pass
            await self.teller.settle()
            removed, removed_bytes = self.removed, self.removed_bytes
            copies = await self._store.unsettled(after, COLLECTED_PAGE)
            await self._ask(copies, 0 if no_grace else self._read_grace_ms)
            last = copies[-1][:2] if len(copies) == COLLECTED_PAGE else None
            return Step(len(copies), self.removed - removed, self.removed_bytes - removed_bytes, last)

    async def _ask(self, copies: list[Copy], grace_ms: int) -> None:
        if not copies:
            return
        names = [(copy.digest, Generation.unpack(copy.generation)) for copy in copies]
        states = await self._metadata.chunk_states(self._node, names)
        assert len(states) == len(copies)
        now = self._clock.now_ms()
        by_state: dict[str, list[Copy]] = {LISTED: [], SHORT: [], PASSED: [], PENDING: []}
        for copy, state in zip(copies, states, strict=True):
            by_state[PENDING if state == PASSED and copy[:2] in self.coming else state].append(copy)
        marks = [(copy, SETTLED, 0) for copy in by_state[LISTED]]
        marks += [(copy, copy.state, now + PENDING_MS) for copy in by_state[PENDING]]
        if marks:
            await self._store.mark(marks)
        if by_state[PASSED]:
            await self._let_go(by_state[PASSED], now, grace_ms)   # after the marks
        await self._announce(by_state[SHORT], now)

    async def _announce(self, copies: list[Copy], now: int) -> None:
        """Say that we hold these, as far as they aren't known to be damaged."""
        damaged = await self._store.damage_of(copies) if copies else set()
        if damaged:
            await self._store.mark([(copy, copy.state, now + TROUBLE_MS) for copy in copies if copy[:2] in damaged])
        copies = [copy for copy in copies if copy[:2] not in damaged]
        if not copies:
            return
        self.announced += await self.teller.announce(self._store.incarnation, [copy[:2] for copy in copies])
        later = self._clock.now_ms() + ANNOUNCED_MS
        await self._store.mark([(copy, copy.state, later) for copy in copies])

    async def announce_now(self, names: Sequence[Name]) -> int:
        """Say that we hold these (at most PAGE), which were stored because this is where they should be: listed they may be
        enough already, then another gives one back. How many counted. Raises ClusterError."""
        async with self.one:
            await self.teller.settle()
            copies = await self._store.find_all([(digest, Generation.unpack(generation)) for digest, generation in names])
            before = self.announced
            await self._announce([copy._replace(state=NEW) for copy in copies], self._clock.now_ms())
            return self.announced - before

    async def give_back(self, names: Sequence[Name]) -> int:
        """Ask to be listed no more for these (at most PAGE), and let go of those that aren't, once readers have had their time.
        How many. Raises ClusterError."""
        async with self.one:
            await self.teller.settle()
            copies = await self._store.find_all([(digest, Generation.unpack(generation)) for digest, generation in names])
            # Before it is said: without an answer nobody would ask about them again.
            await self._store.mark([(copy, NEW, 0) for copy in copies])
            return len(await self.teller.give_back([copy[:2] for copy in copies]))

    async def _let_go(self, copies: list[Copy], now: int, grace_ms: int) -> None:
        """Remove what may go now; for the rest, note from when on it may."""
        rows = await self._metadata.live_chunks(self._node, [copy.digest for copy in copies])
        going, waiting = [], []
        for copy, row in zip(copies, rows, strict=True):
            assert copy[:2] not in self.teller.unanswered
            try:
                ready = await self._has_another(copy, row)
            except ClusterError as error:
                # The other copy can't be read or made good now. Perhaps this one is the better: it stays.
                log.warning("chunk %s: its duplicate is kept: %s", copy.digest.hex(), error)
                waiting.append((copy, copy.state, now + TROUBLE_MS))
                continue
            if ready is None:
                waiting.append((copy, copy.state, now + ANNOUNCED_MS))
            elif ready or not grace_ms or (copy.state == CONDEMNED and copy.due <= now):
                going.append(copy)
            elif copy.state != CONDEMNED:
                waiting.append((copy, CONDEMNED, now + grace_ms))
        if waiting:
            await self._store.mark(waiting)
        if going:
            await self._store.remove(going)
            self.removed += len(going)
            self.removed_bytes += sum(copy.size for copy in going)

    async def _has_another(self, copy: Copy, row: Live | None) -> bool | None:
        """Whether the same bytes are here in a copy that counts, and are good there (made so if need be): then this one may
        go at once. False: no other is wanted here, or none of ours is good. None: one is wanted, and now there is one
        that has to be announced first."""
        if row is None or row.generation.pack() == copy.generation or not (row.listed or row.short):
            return False
        listed = await self._store.find(copy.digest, row.generation)
        if listed is not None and await self._store.verify(listed):
            return True if row.listed else None
        if not await self._store.verify(copy):
            return False                              # both are rotten; what is known of it is mended elsewhere
        if listed is None:
            log.warning("chunk %s: a copy that should be here is made from its duplicate", copy.digest.hex())
        else:
            log.warning("chunk %s: a rotten copy is repaired from its duplicate", copy.digest.hex())
            await self._store.put_aside(listed, "found when its duplicate was to go", "repaired")
        await store_again(self._store, copy, row.generation)
        again = await self._store.find(copy.digest, row.generation)
        if again is None or not await self._store.verify(again):
            raise Unavailable("the copy that was made is not good either")
        await self._store.forgive([again[:2]])
        return True if row.listed else None
