"""Who makes a copy, who takes one over, who gives one back: pure functions of a chunk's row and the map of nodes, which every
node works out for itself. Taken together they must come out right."""

import hashlib
import random
from typing import NamedTuple

import pytest

from consensus.core.ids import Digest, Generation, NodeId, SessionId
from consensus.core.model import NodeInfo
from storage_node.care.giving_back import gives_back
from storage_node.care.rebalance import belongs_here
from storage_node.care.repair import is_next

GENERATION = Generation(SessionId(1), 1)


class Row(NamedTuple):
    digest: Digest
    generation: Generation
    size: int
    nodes: tuple[NodeId, ...]
    wanted: int
    place: tuple[int, bytes] = (0, b"")


def node(name: str, zone: str = "", **more: object) -> NodeInfo:
    return NodeInfo(node=NodeId(name), incarnation=b"i", address="a", zone=zone or name, capacity_bytes=1000,
                    **more)  # type: ignore[arg-type]


def row(number: int, wanted: int, *nodes: str) -> Row:
    return Row(Digest(hashlib.sha256(number.to_bytes(4, "big")).digest()), GENERATION, 10,
               tuple(NodeId(name) for name in nodes), wanted)


def some_map(chance: random.Random) -> list[NodeInfo]:
    states = ("up", "up", "up", "down", "full", "draining", "read-only")
    nodes = []
    for number in range(chance.randrange(2, 8)):
        state = chance.choice(states)
        nodes.append(node(f"n{number}", f"z{chance.randrange(4)}", state=state,
                          counts=state != "draining" and not (state == "down" and chance.random() < 0.5)))
    return nodes


@pytest.mark.parametrize("seed", range(200))
def test_as_many_make_copies_as_are_lacking_and_nobody_gives_too_many_back(seed: int) -> None:
    chance = random.Random(seed)
    nodes = some_map(chance)
    by_name = {info.node: info for info in nodes}
    holders = chance.sample(nodes, chance.randrange(0, len(nodes) + 1))
    chunk = row(seed, chance.randrange(1, 5), *[info.node for info in holders])
    counted = [info for info in holders if info.counts]
    free = [info for info in nodes if info.state == "up" and info not in holders]

    makers = [info for info in nodes if is_next(info.node, chunk, nodes, 0.0, 30.0)]
    assert len(makers) == max(0, min(chunk.wanted - len(counted), len(free)))
    assert all(info in free for info in makers)
    used = {info.zone for info in counted}
    unused = {info.zone for info in free} - used
    assert len({info.zone for info in makers} - used) == min(len(makers), len(unused)), "zones without a copy come first"

    givers = [info for info in nodes if gives_back(info.node, chunk, by_name)]
    staying = [info for info in counted if info not in givers]
    assert all(info in holders for info in givers)
    at_hand = sum(info.state != "down" for info in counted)
    if givers:
        assert sum(info.state != "down" for info in staying) >= chunk.wanted, "what is down makes nothing needless"
    if at_hand == len(counted):
        assert len(staying) == min(len(counted), chunk.wanted)
    if at_hand >= chunk.wanted:
        assert all(info in givers for info in holders if not info.counts), "those that leave give all back"
    else:
        assert not givers


def test_the_next_in_the_order_does_it_when_nobody_else_has() -> None:
    nodes = [node(f"n{number}") for number in range(5)]
    chunk = row(1, 2, "n0")
    others = [info for info in nodes if info.node != "n0"]
    for waited_s, count in ((0.0, 1), (29.0, 1), (31.0, 2), (61.0, 3), (1e6, 4)):
        assert sum(is_next(info.node, chunk, nodes, waited_s, 30.0) for info in others) == count
    assert not is_next(NodeId("n0"), chunk, nodes, 1e6, 30.0)


def test_a_new_node_takes_its_share_and_nobody_else_anything() -> None:
    old = [node(f"n{number}") for number in range(3)]
    new = [*old, node("n3")]
    taken = 0
    for number in range(2000):
        chunk = row(number, 2, *[info.node for info in random.Random(number).sample(old, 2)])
        taken += belongs_here(NodeId("n3"), chunk, old, new)
        assert not any(belongs_here(info.node, chunk, old, new) for info in old), "wherever it was put"
    assert 900 < taken < 1100, "of two copies on four nodes each node holds half of the chunks"
    assert not belongs_here(NodeId("n3"), row(1, 2, "n0"), old, new), "what lacks copies is left to repair"
    assert not belongs_here(NodeId("n3"), row(1, 2, "n0", "n3"), old, new)


def test_a_node_that_has_grown_takes_the_difference() -> None:
    old = [node(f"n{number}") for number in range(4)]
    grown = [old[0], old[1], old[2], NodeInfo(node=NodeId("n3"), incarnation=b"i", address="a", zone="n3", capacity_bytes=3000)]
    first = [info.node for info in old[:3]]
    taken = [number for number in range(2000) if belongs_here(NodeId("n3"), row(number, 1, first[number % 3]), old, grown)]
    assert 400 < len(taken) < 600, "its part of the first places grows from a quarter to a half"
