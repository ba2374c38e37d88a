"""What `staddle node drain` asks about before it does it."""

import pytest

from gateway.admin import values
from gateway.cli.draining import concerns


def node(name: str, *, zone: str = "", holds: int = 10, free: int = 100, asked: str = "", counts: bool = True,
         state: str = "up") -> values.NodeStat:
    return values.NodeStat(
        node=name, state=state, zone=zone, address=f"{name}:1", capacity_bytes=0, error="", care={}, asked=asked,
        counts=counts and asked != "draining", statistics={"chunk_bytes": holds, "free_bytes": free})


def said(copies: int, *nodes: values.NodeStat) -> str:
    """Of the first of them."""
    return " ".join(concerns(values.NodeList(
        nodes=list(nodes), copies=copies, logical_bytes=0, stored_bytes=0, saved_bytes=0), nodes[0].node))


A, B, C, D = (node(name, zone=f"zone-{name}") for name in "abcd")


def test_nothing_is_asked_where_the_others_keep_all_of_it() -> None:
    assert said(3, A, B, C, D) == ""
    assert said(1, node("a"), node("b")) == ""
    assert concerns(values.NodeList(nodes=[A], copies=1, logical_bytes=0, stored_bytes=0, saved_bytes=0), "none") == []
    assert said(2, node("a", asked="draining"), B, C) == "", "it has been asked before"


@pytest.mark.parametrize("others", [(B, C), (B, C, node("d", asked="draining")), (B, C, node("d", counts=False))])
def test_fewer_nodes_than_copies(others: tuple[values.NodeStat, ...]) -> None:
    assert said(3, A, *others) == "2 storage nodes will be left, so of 3 copies of each chunk 2 will be kept."


def test_the_last_one() -> None:
    assert "writes will be refused" in said(1, A)
    assert "writes will be refused" in said(1, A, node("b", asked="draining"))


def test_all_in_one_zone_that_were_not() -> None:
    both = (node("b", zone="rack"), node("c", zone="rack"))
    assert said(2, A, *both) == (
        "All storage nodes that will be left are in one zone (rack): what fails together there takes all copies with it.")
    assert said(2, node("a", zone="rack"), *both) == "", "no more than before"
    assert said(1, A, *both) == "", "one copy is in one zone anyway"


def test_space_on_those_that_take_chunks() -> None:
    big = node("a", holds=150)
    assert said(1, big, node("b"), node("c")) == ""
    for other in (node("c", free=0), node("c", state="full"), node("c", state="down")):
        assert said(1, big, node("b"), other).startswith("It holds 150 B, and the others have 100 B free")
    assert said(2, big, node("b", free=0)) == (
        "1 storage node will be left, so of 2 copies of each chunk 1 will be kept."), "it has everything already"
