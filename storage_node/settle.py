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
* between the read and the delete nothing is announced under that name: one task does both, one after the other;
* an announcement without an answer blocks the delete of its name, until a new registration has ended the session in
  which it was sent;
* before a duplicate goes, the copy that stays is read and verified; if it is rotten, the fresh bytes repair it;
* readers that have begun keep what they read for `read_grace_s`. A duplicate may go at once: readers find the other
  copy, for equal digests are equal bytes.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from consensus.core.clock import Clock, SystemClock
from consensus.core.commands import Announce, AnyCommand, RegisterNode
from consensus.core.errors import ClusterError, Unavailable, UnknownOutcome
from consensus.core.ids import Digest, Generation, NodeId
from consensus.core.results import Announced, AnyResult, SessionOpened
from storage_node.chunk import BLOCK_BYTES, SMALL_BYTES_MAX, block_table
from storage_node.index import CONDEMNED, NEW, SETTLED, Copy
from storage_node.local import PIECE_BYTES
from storage_node.store import ChunkStore

log = logging.getLogger("staddle.node")

LISTED, SHORT, PASSED, PENDING = "listed", "short", "passed", "pending"

PAGE = 300
"""Copies asked about in one read, and announced in one command (CHUNKS_PER_COMMAND_MAX)."""

PENDING_MS = 2_000
"""When to ask again about an upload under way."""

TROUBLE_MS = 60_000
"""When to ask again about a copy that the disk makes trouble with: repair may have come meanwhile."""

ANNOUNCED_MS = 500
"""When to ask again after an announcement: the next round finds it listed."""


class Released(Protocol):
    @property
    def copies(self) -> Sequence[tuple[Digest, Generation]]: ...

    @property
    def after(self) -> int: ...


class NodeMetadata(Protocol):
    """What a storage node needs of consensus.client.MetadataClient."""

    async def register(self, command: RegisterNode) -> SessionOpened: ...

    async def commit(self, command: AnyCommand) -> AnyResult: ...

    async def chunk_states(self, node: NodeId, copies: list[tuple[Digest, Generation]]) -> Sequence[str]:
        """LISTED, SHORT, PASSED or PENDING of each, at one read index taken after the call."""

    async def released(self, node: NodeId, after: int = 0, limit: int = PAGE) -> Released:
        """Copies that are listed no more, and from where to go on."""


class Settler:
    """The loop. One per node; `register` is the node's own, to begin a new session when an outcome is unknown."""

    def __init__(self, store: ChunkStore, metadata: NodeMetadata, node: NodeId, *,
                 register: Callable[[], Awaitable[None]], clock: Clock | None = None,
                 interval_s: float = 2.0, read_grace_s: float = 3600.0) -> None:
        self._store, self._metadata, self._node, self._register = store, metadata, node, register
        self._clock = clock or SystemClock()
        self._interval_s, self._read_grace_ms = interval_s, int(read_grace_s * 1000)
        self._unanswered: set[tuple[bytes, bytes]] = set()
        self._hints_after = 0
        self._kicked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.removed = self.announced = 0

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    def kick(self) -> None:
        """Ask now."""
        self._kicked.set()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            started, more = loop.time(), False
            try:
                hints = await self.take_hints()
                more = max(await self.round(), hints) >= PAGE
            except ClusterError as error:
                log.info("node %s: settling waits: %s", self._node, error)
            except Exception:
                log.exception("node %s: settling failed", self._node)
            # While there is much to do, a fifth of the time: clients' requests share this loop, and nothing is urgent.
            pause = min(4 * (loop.time() - started), self._interval_s) if more else self._interval_s
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._kicked.wait()
            self._kicked.clear()

    async def take_hints(self) -> int:
        """Ask again about copies that the metadata has released. A hint that is lost costs space, never data."""
        hints = await self._metadata.released(self._node, self._hints_after, PAGE)
        if hints.copies:
            now = self._clock.now_ms()
            held = await self._store.find_all(hints.copies)
            await self._store.mark([(copy, NEW, now) for copy in held if copy.state == SETTLED])
        self._hints_after = hints.after
        return len(hints.copies)

    async def round(self) -> int:
        """Ask about one page of copies and act on the answers. Returns how many. Raises ClusterError: later, then."""
        if self._unanswered:
            await self._register()                    # ends the session of those announcements: none can come any more
            self._unanswered.clear()
        copies = await self._store.due(self._clock.now_ms(), PAGE)
        if not copies:
            return 0
        names = [(copy.digest, Generation.unpack(copy.generation)) for copy in copies]
        states = await self._metadata.chunk_states(self._node, names)
        assert len(states) == len(copies)
        now = self._clock.now_ms()
        by_state: dict[str, list[Copy]] = {LISTED: [], SHORT: [], PASSED: [], PENDING: []}
        for copy, state in zip(copies, states, strict=True):
            by_state[state].append(copy)
        marks = [(copy, SETTLED, 0) for copy in by_state[LISTED]]
        marks += [(copy, copy.state, now + PENDING_MS) for copy in by_state[PENDING]]
        if marks:
            await self._store.mark(marks)
        await self._let_go(by_state[PASSED], now)     # after the marks: a duplicate goes if a settled copy stays
        await self._announce(by_state[SHORT], now)
        return len(copies)

    async def _announce(self, copies: list[Copy], now: int) -> None:
        """Say that we hold these, as far as they aren't known to be damaged."""
        damaged = await self._store.damage_of(copies) if copies else set()
        if damaged:
            await self._store.mark([(copy, copy.state, now + TROUBLE_MS) for copy in copies if copy[:2] in damaged])
        copies = [copy for copy in copies if copy[:2] not in damaged]
        if not copies:
            return
        names = {copy[:2] for copy in copies}
        command = Announce(node=self._node, incarnation=self._store.incarnation, copies=tuple(
            (copy.digest, Generation.unpack(copy.generation)) for copy in copies))
        self._unanswered |= names
        try:
            result = await self._metadata.commit(command)
        except UnknownOutcome:
            raise                                     # still unanswered: the next round registers anew first
        except Unavailable:
            self._unanswered -= names                 # not done, and never will be
            raise
        if not isinstance(result, Announced):
            raise Unavailable(f"announcement refused: {result}")   # by another session's rules: register anew
        self._unanswered -= names
        self.announced += result.counted
        later = self._clock.now_ms() + ANNOUNCED_MS
        await self._store.mark([(copy, copy.state, later) for copy in copies])

    async def _let_go(self, copies: list[Copy], now: int) -> None:
        """Remove what may go now; for the rest, note from when on it may."""
        going, waiting = [], []
        for copy in copies:
            assert copy[:2] not in self._unanswered
            try:
                another = await self._stays_as_another(copy)
            except ClusterError as error:
                # The other copy can't be read or repaired now. Perhaps this one is the better: it stays.
                log.warning("chunk %s: its duplicate is kept: %s", copy.digest.hex(), error)
                waiting.append((copy, copy.state, now + TROUBLE_MS))
                continue
            if another or not self._read_grace_ms or copy.state == CONDEMNED:
                going.append(copy)
            else:
                waiting.append((copy, CONDEMNED, now + self._read_grace_ms))
        if waiting:
            await self._store.mark(waiting)
        if going:
            await self._store.remove(going)
            self.removed += len(going)

    async def _stays_as_another(self, copy: Copy) -> bool:
        """Whether the same bytes are here in a copy that counts, and are good there (made so if need be)."""
        for other in await self._store.generations(copy.digest):
            if other.state == SETTLED and other.generation != copy.generation:
                if await self._store.verify(other):
                    return True
                if await self._store.verify(copy):
                    log.warning("chunk %s: a rotten copy is repaired from its duplicate", copy.digest.hex())
                    await self._repair(other, copy)
                    return await self._stays_as_another(copy)
        return False

    async def _repair(self, rotten: Copy, fresh: Copy) -> None:
        """Store the fresh bytes under the name of the rotten copy."""
        store = self._store
        generation, source = Generation.unpack(rotten.generation), Generation.unpack(fresh.generation)
        if fresh.size <= SMALL_BYTES_MAX:
            data = await store.read(fresh.digest, source, 0, fresh.size)
            await store.put(fresh.digest, generation, data, block_table(data))
            return
        incoming = await store.create(generation)
        for start in range(0, fresh.size, PIECE_BYTES):
            piece = await store.read(fresh.digest, source, start, min(PIECE_BYTES, fresh.size - start))
            await incoming.write([piece[at:at + BLOCK_BYTES] for at in range(0, len(piece), BLOCK_BYTES)])
        await incoming.finish(fresh.digest, None)
