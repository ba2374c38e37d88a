"""What a node says about itself, for people and metrics: figures, scrub, settling, damage, comparison of inventories."""

import msgspec

from storage_node.care.inventory import Compared
from storage_node.care.quarantine import PutAside
from storage_node.care.scrub import ScrubStatus
from storage_node.store import CompactionState, DiskState, StoreStatistics


class SettleStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Since the start. `unanswered`: names of copies about which something was said without an answer."""

    announced: int = 0
    removed: int = 0
    removed_bytes: int = 0
    repaired: int = 0
    withdrawn: int = 0
    damaged_removed: int = 0
    unanswered: int = 0


class NodeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """`quarantined`: findings that are remembered, `quarantined_bytes` kept of them. New fields have a default."""

    node: str
    statistics: StoreStatistics
    scrub: ScrubStatus
    settle: SettleStatus
    compared: Compared
    comparing: bool = False
    quarantined: int = 0
    quarantined_bytes: int = 0
    compaction: CompactionState | None = None
    disk: DiskState | None = None


class DamageNote(msgspec.Struct, frozen=True, kw_only=True):
    """A copy that was found damaged and has not been dealt with yet."""

    digest: str
    generation: str
    reason: str


class DamageReport(msgspec.Struct, frozen=True, kw_only=True):
    """`open`: to be dealt with. `quarantined`: dealt with, newest first."""

    open: list[DamageNote]
    quarantined: list[PutAside]
