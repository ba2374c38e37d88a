"""Which nodes should hold a chunk: rendezvous hashing, weighted by capacity, spread over zones. Pure.

Every node gets a score from the key and its own name alone, so a node that comes or goes moves only its own share of
the chunks, and everybody who has the map finds the same order. It is advice: where copies are is recorded in the
metadata.
"""

import hashlib
import math
from collections.abc import Iterable, Sequence

from consensus.core.model import NodeInfo

_HASH_RANGE = 1 << 64


def ranked(key: bytes, nodes: Iterable[NodeInfo]) -> list[NodeInfo]:
    """All of them, best place first; each further one from a zone that is not yet used, as long as there is one.

    A node is first for a share of the keys that is proportional to its capacity (one without a capacity weighs as
    1)."""
    order = sorted(nodes, key=lambda node: (-_score(key, node), node.node))
    if len({node.zone for node in order}) <= 1:
        return order
    spread: list[NodeInfo] = []
    while order:
        zones: set[str] = set()
        later = []
        for node in order:
            if node.zone in zones:
                later.append(node)
            else:
                zones.add(node.zone)
                spread.append(node)
        order = later
    return spread


def _score(key: bytes, node: NodeInfo) -> float:
    # -w / ln(u) with u uniform in (0, 1): the node with the greatest score is node i with probability w_i / sum of w.
    raw = hashlib.blake2b(key, digest_size=8, key=node.node.encode()).digest()
    return max(node.capacity_bytes, 1) / -math.log((int.from_bytes(raw, "big") + 0.5) / _HASH_RANGE)


def copies_wanted(copies: int, nodes: Sequence[NodeInfo]) -> int:
    """As many as the setting says, as far as there are nodes in the map, up or not. Not counted are those that an admin is
    taking out: the others have to do without them soon, and could not else take what they hold."""
    return min(copies, sum(node.asked != "draining" for node in nodes))


def write_quorum(replication: str, wanted: int) -> int:
    """How many durable copies acknowledge a write: `sync` a majority, `async` one, `all` every one."""
    if replication == "async":
        return min(1, wanted)
    return wanted if replication == "all" else wanted // 2 + 1
