"""Care of one node's copies, as people and other processes ask for it: scrub, collection, damage, comparison, status.

The work itself is done by settle.py, mend.py, scrub.py and inventory.py; here they are put together, started and
stopped, and their operations answered (protocol.py).
"""

import asyncio
from collections.abc import Callable

import msgspec

from consensus.core.clock import Clock, SteadyClock
from consensus.core.errors import Refused
from consensus.core.ids import NodeId
from storage_node import protocol
from storage_node.care.inventory import Compared, Comparison
from storage_node.care.scrub import Scrub, ScrubStatus
from storage_node.care.settle import Settler
from storage_node.care.status import DamageNote, DamageReport, NodeStatus, SettleStatus
from storage_node.care.telling import NodeMetadata
from storage_node.care.upkeep import Upkeep
from storage_node.care.waiting import waiting_page
from storage_node.disk_store import DiskStore

SCRUB_BYTES_PER_SECOND = 20 << 20
"""An eighth of a slow disk, a hundredth of a core: 1 TB takes 14 hours."""

SCRUB_INTERVAL_S = 14 * 24 * 3600.0
"""Sectors go bad slowly; a 4 TB disk is read in 2.5 days, which leaves room before the next pass, and the disk is not
worn by it. RAID and file systems are usually scrubbed every one to four weeks."""

DAMAGE_SHOWN_MAX = 1000

OPERATIONS = frozenset({protocol.SCRUB, protocol.DAMAGE, protocol.GC_REPORT, protocol.GC_RUN, protocol.STATUS,
                        protocol.COMPARE})


class Care:
    """One per node, made when its store has started. `busy`: whether clients are being served."""

    def __init__(self, node: NodeId, store: DiskStore, metadata: NodeMetadata, settler: Settler, upkeep: Upkeep, *,
                 busy: Callable[[], bool], scrub_bytes_per_second: int = SCRUB_BYTES_PER_SECOND,
                 scrub_interval_s: float = SCRUB_INTERVAL_S, clock: Clock | None = None) -> None:
        clock = clock or SteadyClock()
        self._node, self._store, self._metadata, self._settler, self._upkeep = node, store, metadata, settler, upkeep
        self.scrub = Scrub(store, clock, bytes_per_second=scrub_bytes_per_second, interval_s=scrub_interval_s,
                           busy=busy, on_damage=settler.kick)
        self.comparison = Comparison(store, metadata, node, clock, folder=store.folder, disk=store.disk,
                                     was_clean=store.recovered.clean, changed=settler.forget_hints, kick=settler.kick)
        self._comparing: asyncio.Task[Compared] | None = None

    def start(self) -> None:
        self.scrub.start()
        self.comparison.start()

    async def stop(self) -> None:
        if self._comparing is not None:
            self._comparing.cancel()
            await asyncio.gather(self._comparing, return_exceptions=True)
        await self.comparison.stop()
        await self.scrub.stop()

    async def answer(self, operation: int, payload: bytes) -> bytes:
        """One of OPERATIONS. Raises ClusterError, what decoding raises (UNDECODABLE)."""
        encode = msgspec.msgpack.encode
        if operation == protocol.SCRUB:
            return encode(self._scrub(*_scrub.decode(payload)))
        if operation == protocol.STATUS:
            return encode(await self.status())
        if operation == protocol.DAMAGE:
            return encode(await self._damage(min(_damage.decode(payload), DAMAGE_SHOWN_MAX)))
        if operation == protocol.GC_REPORT:
            after, limit = _report.decode(payload)
            return encode(await waiting_page(self._store, self._metadata, self._node, after, limit))
        if operation == protocol.GC_RUN:
            after, no_grace = _run.decode(payload)
            if after is None:
                async with self._settler.one:
                    await self._settler.mend()
            return encode(await self._settler.collect(after, no_grace=no_grace))
        assert operation == protocol.COMPARE
        return encode(self._compare(_compare.decode(payload)))

    def _scrub(self, action: str, full_speed: bool, anew: bool) -> ScrubStatus:
        if action == "start":
            self.scrub.begin(full_speed=full_speed, anew=anew)
        elif action == "stop":
            self.scrub.halt()
        elif action != "status":
            raise Refused(f"a scrub can be asked to start, to stop, or for its status, not {action!r}")
        return self.scrub.status

    def _compare(self, begin: bool) -> tuple[bool, Compared]:
        """Whether one is under way, and the last one."""
        if begin and (self._comparing is None or self._comparing.done()):
            self._comparing = asyncio.get_running_loop().create_task(self.comparison.run(gently=False))
        running = self.comparison.running or (self._comparing is not None and not self._comparing.done())
        return running, self.comparison.last

    async def _damage(self, limit: int) -> DamageReport:
        found = await self._store.damage(limit)
        entries = await asyncio.to_thread(self._store.quarantine.entries, limit)
        return DamageReport(open=[DamageNote(digest=digest.hex(), generation=generation.hex(), reason=reason)
                                  for digest, generation, reason in found], quarantined=entries)

    async def status(self) -> NodeStatus:
        settler, mender = self._settler, self._settler.mender
        quarantined, kept = await asyncio.to_thread(self._store.quarantine.totals)
        return NodeStatus(
            node=self._node, statistics=await self._store.statistics(), scrub=self.scrub.status,
            settle=SettleStatus(announced=settler.announced, removed=settler.removed, removed_bytes=settler.removed_bytes,
                                repaired=mender.repaired, withdrawn=mender.withdrawn, damaged_removed=mender.removed,
                                unanswered=len(settler.teller.unanswered)),
            compared=self.comparison.last, comparing=self.comparison.running, quarantined=quarantined,
            quarantined_bytes=kept, compaction=self._store.compaction, disk=self._store.disk_state,
            upkeep=self._upkeep.status)


_scrub = msgspec.msgpack.Decoder(tuple[str, bool, bool])
_damage = msgspec.msgpack.Decoder(int)
_report = msgspec.msgpack.Decoder(tuple[tuple[bytes, bytes] | None, int])
_run = msgspec.msgpack.Decoder(tuple[tuple[bytes, bytes] | None, bool])
_compare = msgspec.msgpack.Decoder(bool)
