"""Copies that take space and don't count: each with the reason why it is still here. What `staddle gc --report` tells.

Reasons, as they come one after the other in a copy's life:
  upload     its upload is under way: a commit may still list it
  settling   the metadata lists it, and the node has not asked yet
  announced  its chunk lacks copies: it is announced, and will count
  duplicate  the same bytes are here in a copy that counts: it goes at the next round
  unlisted   nothing lists it, and nothing can: it waits for readers that have begun, then it goes
  grace      the same, and `until_ms` is when it goes
  damaged    it was found damaged: it is mended or withdrawn first
"""

import msgspec

from consensus.core.ids import Generation, NodeId
from storage_node.care.mend import LISTED, PENDING, SHORT
from storage_node.care.telling import Live, NodeMetadata
from storage_node.index import CONDEMNED, Copy
from storage_node.store import ChunkStore

REASONS = ("upload", "settling", "announced", "duplicate", "unlisted", "grace", "damaged")

PAGE_MAX = 300


class WaitingCopy(msgspec.Struct, frozen=True, kw_only=True):
    """`digest` and `generation` in hex, `until_ms` since 1970 (0: no time is set)."""

    digest: str
    generation: str
    size: int
    reason: str
    until_ms: int = 0


class WaitingPage(msgspec.Struct, frozen=True, kw_only=True):
    """`after`: where the next page begins, None at the end. `dead_bytes` of `segment_bytes` in segments belong to no copy
    any more: compaction gives them back."""

    copies: list[WaitingCopy]
    after: tuple[bytes, bytes] | None
    segment_bytes: int = 0
    dead_bytes: int = 0


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """Of all pages: copies and bytes by reason."""

    copies: dict[str, int]
    bytes: dict[str, int]
    segment_bytes: int
    dead_bytes: int


async def waiting_page(store: ChunkStore, metadata: NodeMetadata, node: NodeId, after: tuple[bytes, bytes] | None,
                       limit: int = PAGE_MAX) -> WaitingPage:
    """One page of the copies that aren't settled. Changes nothing. Raises ClusterError."""
    limit = min(limit, PAGE_MAX)
    figures = await store.statistics() if after is None else None
    copies = await store.unsettled(after, limit)
    found: list[WaitingCopy] = []
    if copies:
        states = await metadata.chunk_states(
            node, [(copy.digest, Generation.unpack(copy.generation)) for copy in copies])
        rows = await metadata.live_chunks(node, [copy.digest for copy in copies])
        damaged = await store.damage_of(copies)
        for copy, state, row in zip(copies, states, rows, strict=True):
            reason = "damaged" if copy[:2] in damaged else reason_of(copy, state, row)
            found.append(WaitingCopy(digest=copy.digest.hex(), generation=copy.generation.hex(), size=copy.size,
                                     reason=reason, until_ms=copy.due if reason == "grace" else 0))
    return WaitingPage(copies=found, after=copies[-1][:2] if len(copies) == limit else None,
                       segment_bytes=figures.segment_bytes if figures else 0,
                       dead_bytes=figures.dead_bytes if figures else 0)


def reason_of(copy: Copy, state: str, row: Live | None) -> str:
    if state == PENDING:
        return "upload"
    if state == LISTED:
        return "settling"
    if state == SHORT:
        return "announced"
    if row is not None and row.listed and row.generation.pack() != copy.generation:
        return "duplicate"
    return "grace" if copy.state == CONDEMNED else "unlisted"


def total(pages: list[WaitingPage]) -> Totals:
    copies = dict.fromkeys(REASONS, 0)
    size = dict.fromkeys(REASONS, 0)
    for page in pages:
        for copy in page.copies:
            copies[copy.reason] += 1
            size[copy.reason] += copy.size
    return Totals(copies=copies, bytes=size, segment_bytes=sum(page.segment_bytes for page in pages),
                  dead_bytes=sum(page.dead_bytes for page in pages))
