"""Placement: stable, proportional to capacity, spread over zones."""

import hashlib
from collections import Counter

from consensus.core.ids import NodeId
from consensus.core.model import NodeInfo
from consensus.core.placement import copies_wanted, ranked, write_quorum


def node(name: str, zone: str = "", capacity: int = 100) -> NodeInfo:
    return NodeInfo(node=NodeId(name), incarnation=bytes(16), address="unix:/n", zone=zone, capacity_bytes=capacity)


KEYS = [hashlib.sha256(b"%d" % number).digest() for number in range(4000)]


def test_everybody_finds_the_same_order_of_all_nodes() -> None:
    nodes = [node(f"n{number}") for number in range(6)]
    for key in KEYS[:50]:
        order = ranked(key, nodes)
        assert order == ranked(key, reversed(nodes))
        assert {entry.node for entry in order} == {entry.node for entry in nodes}


def test_a_new_node_takes_only_its_own_share() -> None:
    nodes = [node(f"n{number}") for number in range(5)]
    moved = 0
    for key in KEYS:
        before, after = ranked(key, nodes)[0], ranked(key, [*nodes, node("new")])[0]
        moved += before != after
        assert after == before or after.node == "new"
    assert 0.13 < moved / len(KEYS) < 0.20, "a sixth"


def test_shares_are_proportional_to_capacity() -> None:
    nodes = [node("small", capacity=100), node("large", capacity=300)]
    first = Counter(ranked(key, nodes)[0].node for key in KEYS)
    assert 0.72 < first[NodeId("large")] / len(KEYS) < 0.78


def test_nodes_without_a_known_capacity_share_alike() -> None:
    first = Counter(ranked(key, [node("a", capacity=0), node("b", capacity=0)])[0].node for key in KEYS)
    assert 0.45 < first[NodeId("a")] / len(KEYS) < 0.55


def test_copies_go_to_different_zones_first() -> None:
    nodes = [node(f"{zone}{number}", zone) for zone in "abc" for number in range(4)]
    for key in KEYS[:200]:
        order = ranked(key, nodes)
        assert {entry.zone for entry in order[:3]} == {"a", "b", "c"}
        assert {entry.zone for entry in order[3:6]} == {"a", "b", "c"}
        assert len(order) == 12


def test_quorums() -> None:
    nodes = [node(f"n{number}") for number in range(2)]
    assert copies_wanted(3, nodes) == 2
    assert [write_quorum("sync", wanted) for wanted in range(6)] == [1, 1, 2, 2, 3, 3]
    assert [write_quorum("all", wanted) for wanted in range(4)] == [0, 1, 2, 3]
    assert [write_quorum("async", wanted) for wanted in range(4)] == [0, 1, 1, 1]
