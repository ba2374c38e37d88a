"""Copies that are lost: withdrawn whatever is left, and healed by whoever has the bytes again."""

from pathlib import Path
from typing import Any

import pytest

from consensus import holdings, queries
from consensus.core.commands import Announce, Withdraw
from consensus.core.ids import Generation, NodeId, digest
from consensus.core.results import Announced, Committed, Malformed, Withdrawn
from tests.unit.consensus.metadata import Cluster
from tests.unit.consensus.test_chunks import generation, located, put

N1 = NodeId("n1")


@pytest.fixture
def one(tmp_path: Path) -> Any:
    return Cluster(tmp_path)


def lose(cluster: Cluster, data: bytes, of: Generation, node: str = "n1", session: int | None = None) -> Any:
    return cluster.run(Withdraw(node=node, copies=((digest(data), of),), damaged=True),
                       cluster.node_sessions[node] if session is None else session)


def test_the_last_copy_may_be_lost_and_the_row_stays_short(one: Cluster) -> None:
    bucket = one.bucket()
    put(one, bucket, "k", b"data")
    first = generation(one, b"data")
    assert lose(one, b"data", first) == Withdrawn(places=(0,))
    assert one.chunk_row(b"data") == (*first, 1, 1)
    assert located(one, b"data") == set()
    assert one.read(queries.under_replicated) == [holdings.ShortChunk(digest(b"data"), first, 4, (), 1, (1, digest(b"data")))]
    assert one.read(queries.chunk_states, N1, [(digest(b"data"), first)]) == ["short"]
    one.check()
    assert lose(one, b"data", first) == Withdrawn(places=()), "a second time it changes nothing"


def test_bytes_that_come_again_heal_a_row_that_has_lost_its_copies(one: Cluster) -> None:
    bucket = one.bucket()
    put(one, bucket, "k", b"data")
    first = generation(one, b"data")
    lose(one, b"data", first)
    assert isinstance(put(one, bucket, "other", b"data"), Committed)
    second = generation(one, b"data")
    assert second != first, "the row has switched to the newcomer"
    assert one.chunk_row(b"data") == (*second, 2, 0)
    assert located(one, b"data") == {"n1"}
    one.check()
    assert lose(one, b"data", first) == Withdrawn(places=()), "a late withdrawal of the old copy hurts nobody"
    assert located(one, b"data") == {"n1"}


def test_a_good_copy_of_the_live_generation_heals_it_as_well(one: Cluster) -> None:
    bucket = one.bucket()
    put(one, bucket, "k", b"data")
    first = generation(one, b"data")
    lose(one, b"data", first)
    announced = one.run(Announce(node="n1", incarnation=one.nodes["n1"], copies=((digest(b"data"), first),)),
                        one.node_sessions["n1"])
    assert announced == Announced(counted=1)
    assert one.chunk_row(b"data") == (*first, 1, 0)
    one.check()


def test_only_the_node_itself_says_what_it_has_lost(one: Cluster) -> None:
    bucket = one.bucket()
    put(one, bucket, "k", b"data")
    first = generation(one, b"data")
    assert isinstance(lose(one, b"data", first, session=one.session), Malformed)
    earlier = one.node_sessions["n1"]
    one.register("n1", one.nodes["n1"])
    assert not isinstance(lose(one, b"data", first, session=earlier), Withdrawn), "that session has ended"
    assert located(one, b"data") == {"n1"}


def test_others_keep_their_place_when_one_copy_is_lost(tmp_path: Path) -> None:
    three = Cluster(tmp_path, nodes=3)
    bucket = three.bucket()
    put(three, bucket, "k", b"data")
    first = generation(three, b"data")
    lose(three, b"data", first, "n2")
    assert located(three, b"data") == {"n1", "n3"}
    assert three.chunk_row(b"data") == (*first, 1, 1)
    put(three, bucket, "l", b"data", "n1", "n2")
    assert generation(three, b"data") == first, "two copies are not more than two"
    three.check()


def test_a_deleted_object_takes_its_lost_chunk_with_it(one: Cluster) -> None:
    bucket = one.bucket()
    put(one, bucket, "k", b"data")
    lose(one, b"data", generation(one, b"data"))
    put(one, bucket, "k", b"other")
    one.drain()
    assert one.chunk_row(b"data") is None
    one.check()


def test_a_node_asks_what_is_live_and_what_it_is_listed_for(tmp_path: Path) -> None:
    three = Cluster(tmp_path, nodes=3)
    bucket = three.bucket()
    bodies = [b"%d" % number for number in range(10)]
    for number, data in enumerate(bodies):
        put(three, bucket, f"{number}", data, *(("n1", "n2") if number % 2 else ("n2", "n3")))
    live = three.read(queries.live_chunks, N1, [digest(bodies[1]), digest(bodies[2]), digest(b"nothing")])
    assert live == [holdings.LiveChunk(generation(three, bodies[1]), 1, True, True),
                    holdings.LiveChunk(generation(three, bodies[2]), 1, False, True), None]
    found: list[tuple[Any, Generation]] = []
    after: bytes | None = b""
    pages = 0
    while after is not None:
        page = three.read(queries.listed_on, N1, after, 3)
        found += page.copies
        after, pages = page.after, pages + 1
    assert pages == 4
    assert found == sorted((digest(data), generation(three, data)) for data in bodies[1::2])
    assert three.read(queries.listed_on, NodeId("n9")).copies == ()


def test_the_lineage_is_the_applied_index_and_the_mark_of_a_restore(one: Cluster) -> None:
    assert one.read(queries.lineage) == (one.index, "")
    one.db.execute("INSERT INTO meta VALUES ('restored', 'backup of tuesday')")
    assert one.read(queries.lineage)[1] == "backup of tuesday"
