"""Scrub, compaction and the collection of what nothing refers to."""

from typing import Annotated

import msgspec

from gateway.admin.values.common import PAGE, Answer, Request, about


class StartScrub(Request, frozen=True, kw_only=True):
    node: Annotated[str, about("This storage node only; empty for all.")] = ""
    full_speed: Annotated[bool, about("As fast as the disk goes, whether or not clients wait.")] = False


class NodeScrub(Answer, frozen=True, kw_only=True):
    """`state`: off, idle, running, or trouble (the disk cannot be read; `trouble` says why). Counts are of the pass under
    way or of the last one. `errors`: copies that could not be read; `index_findings`: what is wrong with the node's index.
    `error`: the node did not answer."""

    node: str
    state: str = ""
    passes: int = 0
    started: str = ""
    finished: str = ""
    next: str = ""
    chunks: int = 0
    bytes: int = 0
    total_bytes: int = 0
    damaged: int = 0
    errors: int = 0
    bytes_per_second: float = 0.0
    full_speed: bool = False
    trouble: str = ""
    index_findings: list[str] = []
    error: str = ""


class ScrubReport(Answer, frozen=True, kw_only=True):
    nodes: list[NodeScrub]


class Compact(Request, frozen=True, kw_only=True):
    node: Annotated[str, about("This storage node only; empty for all.")] = ""
    dead_percent: Annotated[int, msgspec.Meta(
        ge=0, le=100, description="Empty segments of which at least so much is dead. 0: all with any dead bytes.")] = 0


class NodeCompacted(Answer, frozen=True, kw_only=True):
    """`kept_chunks`: damaged ones that were not moved; their segments stay until they are mended."""

    node: str
    segments: int
    moved_bytes: int
    returned_bytes: int
    kept_chunks: int
    error: str


class CompactReport(Answer, frozen=True, kw_only=True):
    nodes: list[NodeCompacted]


class ReportGc(Request, frozen=True, kw_only=True):
    copies: Annotated[int, msgspec.Meta(ge=0, le=PAGE, description="Copies that are named, for each node.")] = 100


class GcWaits(Answer, frozen=True, kw_only=True):
    """`items` of the kind that `what` names, with so many bytes; the oldest since `since`."""

    what: str
    items: int
    bytes: int
    since: str


class GcCopy(Answer, frozen=True, kw_only=True):
    digest: str
    generation: str
    size: int
    reason: str
    until: str


class GcNode(Answer, frozen=True, kw_only=True):
    """Copies on a node that do not count, by reason. `dead_bytes` of `segment_bytes` wait for compaction. `more`: there are
    too many to count all."""

    node: str
    waits: list[GcWaits] = []
    copies: list[GcCopy] = []
    segment_bytes: int = 0
    dead_bytes: int = 0
    more: bool = False
    error: str = ""


class GcReport(Answer, frozen=True, kw_only=True):
    """`metadata`: what waits there before nodes may let go. `short_chunks` lack copies, `lost_chunks` have none left."""

    metadata: list[GcWaits]
    short_chunks: int
    lost_chunks: int
    nodes: list[GcNode]


class RunGc(Request, frozen=True, kw_only=True):
    now: Annotated[bool, about("Do not wait for readers that have begun: they may be cut off.")] = False


class GcDone(Answer, frozen=True, kw_only=True):
    """`released`: rows that the metadata let go of. Copies and bytes are those that went from the disks; bytes in segments
    come back by compaction. `errors`: nodes that could not be asked."""

    released: int
    removed_copies: int
    removed_bytes: int
    errors: list[str]
