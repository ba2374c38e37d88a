"""The node's whole inventory compared with the metadata, both ways. What hints and rounds may have missed is found here.

* What is here and settled, but isn't listed, is asked about anew: settle.py lets it go, or announces it.
* What is listed for this node, but isn't here, is noted as damage: mend.py makes it from another copy here, or withdraws
  it once the disk has been looked at.

It runs once a day (hints live so long: consensus/apply/drain.py), after a start that was not clean, after an absence
longer than that, when the metadata didn't know this disk, and when it has another history than before (restored from a
backup). It is gentle: a page, then a pause.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import msgspec

from consensus.core.clock import Clock
from consensus.core.codec import UNDECODABLE
from consensus.core.ids import Generation, NodeId
from consensus.disk import Disk, replace_file
from storage_node.care.loop import Loop
from storage_node.care.mend import LISTED
from storage_node.care.telling import NodeMetadata
from storage_node.index import NEW, SETTLED
from storage_node.store import ChunkStore

log = logging.getLogger("staddle.node")

Page = TypeVar("Page")

STATE_NAME = "compared.json"

PAGE = 300
LISTED_PAGE = 1000
"""Rows of the metadata that one question reads: some 5 ms of the reader's own thread."""

EVERY_MS = 24 * 3_600_000

LOOK_S = 30.0
"""How often to look whether it is time, and whether the metadata is still the same."""

SHARE = 0.2
"""At most this share of the time: clients' requests share this loop."""


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """The last comparison. `unlisted`: settled copies here that no row lists; `missing`: listed ones that aren't here."""

    version: int = 1
    finished_ms: int = 0
    applied: int = 0
    restored: str = ""
    copies: int = 0
    unlisted: int = 0
    missing: int = 0


class Comparison:
    """The loop. `changed` is told when the metadata turns out to have another history."""

    def __init__(self, store: ChunkStore, metadata: NodeMetadata, node: NodeId, clock: Clock, *, folder: str,
                 disk: Disk, was_clean: bool, changed: Callable[[], None], kick: Callable[[], None]) -> None:
        self._store, self._metadata, self._node, self._clock = store, metadata, node, clock
        self._path, self._disk = f"{folder}/{STATE_NAME}", disk
        self._changed, self._kick = changed, kick
        self.last = self._load()
        self._due = not was_clean
        self.running = False
        self._applied, self._restored = self.last.applied, self.last.restored
        self._loop = Loop("the comparison of inventories", node, self._turn, pause_s=LOOK_S, level=logging.INFO)
        self._one = asyncio.Lock()

    def start(self) -> None:
        self._loop.start()

    async def stop(self) -> None:
        await self._loop.stop()

    async def _turn(self) -> float:
        if await self.is_due():
            await self.run()
        return LOOK_S

    def want(self) -> None:
        """It is due at the next look."""
        self._due = True

    async def is_due(self) -> bool:
        """Raises ClusterError when the metadata can't be asked."""
        applied, restored = await self._metadata.lineage()
        if applied < self._applied or restored != self._restored:
            log.warning("node %s: the metadata has another history than before", self._node)
            self._changed()
            self._due = True
        self._applied, self._restored = applied, restored
        now, last = self._clock.now_ms(), self.last.finished_ms
        return self._due or not last or abs(now - last) >= EVERY_MS      # a clock that was set back must not stop it

    async def run(self, *, gently: bool = True) -> Compared:
        """Raises ClusterError: then nothing was concluded beyond what has been marked already."""
        async with self._one:
            self.running = True
            try:
                applied, restored = await self._metadata.lineage()
                copies, unlisted = await self._what_is_here(gently)
                missing = await self._what_is_listed(gently)
            finally:
                self.running = False
        self.last = Compared(finished_ms=self._clock.now_ms(), applied=applied, restored=restored, copies=copies,
                             unlisted=unlisted, missing=missing)
        self._due = False
        level = logging.WARNING if unlisted or missing else logging.INFO
        log.log(level, "node %s: inventories compared: %d copies, %d not listed, %d missing", self._node, copies, unlisted,
                missing)
        await asyncio.to_thread(self._save)
        if unlisted or missing:
            self._kick()
        return self.last

    async def _what_is_here(self, gently: bool) -> tuple[int, int]:
        count = unlisted = 0
        after: tuple[bytes, bytes] | None = None
        while page := await self._paced(partial(self._store.inventory, after, PAGE), gently):
            count += len(page)
            settled = [copy for copy in page if copy.state == SETTLED]
            if settled:
                states = await self._metadata.chunk_states(
                    self._node, [(copy.digest, Generation.unpack(copy.generation)) for copy in settled])
                strange = [copy for copy, state in zip(settled, states, strict=True) if state != LISTED]
                if strange:
                    unlisted += len(strange)
                    now = self._clock.now_ms()
                    await self._store.mark([(copy, NEW, now) for copy in strange])
            after = page[-1][:2]
        return count, unlisted

    async def _what_is_listed(self, gently: bool) -> int:
        missing = 0
        after: bytes | None = b""
        while after is not None:
            page = await self._paced(partial(self._metadata.listed_on, self._node, after, LISTED_PAGE), gently)
            # The look at the disk comes after the read: what is listed can't have gone before it.
            here = {copy[:2] for copy in await self._store.find_all(page.copies)} if page.copies else set()
            for digest, generation in page.copies:
                if (digest, generation.pack()) not in here:
                    missing += 1
                    await self._store.note_damage(digest, generation.pack(), "the metadata lists it here, but it isn't")
            after = page.after
        return missing

    @staticmethod
    async def _paced(ask: Callable[[], Awaitable[Page]], gently: bool) -> Page:
        loop = asyncio.get_running_loop()
        began = loop.time()
        page = await ask()
        if gently:
            await asyncio.sleep((loop.time() - began) * (1 / SHARE - 1))
        return page

    def _load(self) -> Compared:
        with contextlib.suppress(OSError, *UNDECODABLE):
            with open(self._path, "rb") as file:
                found = _compared.decode(file.read())
            if found.version == 1:
                return found
        return Compared()

    def _save(self) -> None:
        try:
            replace_file(self._disk, self._path, msgspec.json.encode(self.last), "inventory.state")
        except OSError as error:                      # then it is done once more after the next start
            log.info("the comparison could not be written down: %s", error)


_compared = msgspec.json.Decoder(Compared)

