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


class RepairStatus(msgspec.Struct, frozen=True, kw_only=True):
    """`running`: copies are being made. `waiting`: chunks that lack copies and of which this node is to make one, in the last
    look; `oldest_ms`: how long the one that has waited longest is known here, whoever is to make it. Copies, bytes and
    failures since the start. `seconds_left`: an estimate from the rate of late; 0: nothing is left, or it is not known.
    `trouble`: why it waits."""

    running: bool = False
    waiting: int = 0
    waiting_bytes: int = 0
    oldest_ms: int = 0
    copies: int = 0
    bytes: int = 0
    failed: int = 0
    bytes_per_second: float = 0.0
    seconds_left: float = 0.0
    trouble: str = ""


class RebalanceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """`running`: a pass is under way, `share` of the chunks are looked through (by digest, so it is an even measure), and
    `seconds_left` is an estimate. `copies` and `bytes` of this pass, or of the last one."""

    running: bool = False
    passes: int = 0
    share: float = 0.0
    copies: int = 0
    bytes: int = 0
    started_ms: int = 0
    finished_ms: int = 0
    seconds_left: float = 0.0
    trouble: str = ""


class GivingStatus(msgspec.Struct, frozen=True, kw_only=True):
    """`leaving`: an admin is taking the node out. `waiting`: copies that it is to give back, in the last look. Since the start:
    `given`; `kept`: those that stay because no other could be verified."""

    leaving: bool = False
    waiting: int = 0
    given: int = 0
    given_bytes: int = 0
    kept: int = 0
    trouble: str = ""


class UpkeepStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What is done for the sake of copies on several nodes. New fields have a default."""

    repair: RepairStatus
    rebalance: RebalanceStatus
    giving_back: GivingStatus


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
    upkeep: UpkeepStatus | None = None


class DamageNote(msgspec.Struct, frozen=True, kw_only=True):
    """A copy that was found damaged and has not been dealt with yet."""

    digest: str
    generation: str
    reason: str


class DamageReport(msgspec.Struct, frozen=True, kw_only=True):
    """`open`: to be dealt with. `quarantined`: dealt with, newest first."""

    open: list[DamageNote]
    quarantined: list[PutAside]
