"""Chunks: generations, locations, references; who may announce and withdraw; what a node is told about its copies.

Test by test the rules of "Names are never used twice" in docs/ARCHITECTURE.md, as far as apply decides them.
"""

from typing import Any

import pytest

from consensus import queries
from consensus.core.commands import (
    Announce,
    DeleteVersion,
    EndSession,
    NewChunk,
    NewContent,
    PutVersion,
    SetNodeState,
    StageContent,
    Withdraw,
)
from consensus.core.ids import Generation, NodeId, digest
from consensus.core.model import Holder, Slice
from consensus.core.results import (
    Announced,
    ChunkMissing,
    Committed,
    Done,
    Malformed,
    NotDurable,
    SequencePassed,
    SessionEnded,
    Staged,
    Withdrawn,
)
from tests.unit.consensus.metadata import PLAIN, Cluster, whole


def put(cluster: Cluster, bucket: int, key: str, data: bytes, *nodes: str, **named: Any) -> Any:
    """One chunk, held by these nodes."""
    content = NewContent(size=len(data), etag="e", slices=(whole(data),), chunks=(cluster.chunk(data, *nodes),))
    return cluster.run(
        PutVersion(bucket=bucket, key=key, version_id="v", attributes=PLAIN, owner="o", content=content), **named
    )


def refer(cluster: Cluster, bucket: int, key: str, *slices: Slice) -> Any:
    """A content of slices only: it brings no chunk."""
    content = NewContent(size=sum(piece.length for piece in slices), etag="e", slices=slices)
    return cluster.run(PutVersion(bucket=bucket, key=key, version_id="v", attributes=PLAIN, owner="o", content=content))


def generation(cluster: Cluster, data: bytes) -> Generation:
    row = cluster.chunk_row(data)
    assert row is not None
    return Generation(row[0], row[1])


def located(cluster: Cluster, data: bytes) -> set[str]:
    row = cluster.db.execute("SELECT id FROM content").fetchone()
    return {node for piece in cluster.read(queries.slices, row[0], 0, 1 << 40) if piece.digest == digest(data)
            for node in piece.nodes}


def state(cluster: Cluster, node: str, data: bytes, of: Generation) -> str:
    return cluster.read(queries.chunk_states, node, [(digest(data), of)])[0]


def announce(cluster: Cluster, node: str, data: bytes, of: Generation, session: int | None = None) -> Any:
    command = Announce(node=node, incarnation=cluster.nodes[node], copies=((digest(data), of),))
    return cluster.run(command, cluster.node_sessions[node] if session is None else session)


def withdraw(cluster: Cluster, node: str, data: bytes, of: Generation) -> Any:
    return cluster.run(Withdraw(node=node, copies=((digest(data), of),)), cluster.node_sessions[node])


# Bringing chunks

@pytest.mark.parametrize(("copies", "nodes", "replication", "quorum"), [
    (3, 3, "sync", 2), (3, 2, "sync", 2), (3, 1, "sync", 1), (1, 3, "sync", 1), (3, 3, "async", 1), (3, 3, "all", 3),
    (3, 4, "sync", 2), (5, 5, "sync", 3), (3, 2, "all", 2),
])
def test_fewer_present_copies_than_the_quorum_are_refused(
    tmp_path: Any, copies: int, nodes: int, replication: str, quorum: int
) -> None:
    cluster = Cluster(tmp_path, nodes, copies=copies, replication=replication)
    bucket = cluster.bucket()
    names = list(cluster.nodes)
    if quorum > 1:
        few = put(cluster, bucket, "k", b"x", *names[:quorum - 1])
        assert few == NotDurable(digest=digest(b"x"), wanted=quorum, present=quorum - 1)
    assert cluster.rows("chunk") == cluster.rows("content") == 0, "a refused command leaves nothing"
    assert isinstance(put(cluster, bucket, "k", b"x", *names[:quorum]), Committed)
    row = cluster.chunk_row(b"x")
    assert row is not None
    assert row[3] == (quorum < min(copies, nodes)), "what lacks copies is in the queue of repair"
    cluster.check()


def test_a_chunk_comes_under_the_generation_of_the_command_that_brings_it(cluster: Cluster) -> None:
    put(cluster, cluster.bucket(), "k", b"x", sequence=41)
    assert generation(cluster, b"x") == (cluster.session, 41)


def test_holders_of_another_incarnation_unknown_or_named_twice_do_not_count(three: Cluster) -> None:
    chunk = NewChunk(digest=digest(b"x"), size=1, holders=(
        *three.holders("n1"), *three.holders("n1"), Holder("n2", b"lost disk"), Holder("n9", b"who")))
    content = NewContent(size=1, etag="e", slices=(whole(b"x"),), chunks=(chunk,))
    result = three.run(PutVersion(bucket=three.bucket(), key="k", version_id="v", attributes=PLAIN, owner="o",
                                  content=content))
    assert result == NotDurable(digest=digest(b"x"), wanted=2, present=1)


def test_without_nodes_nothing_is_durable(tmp_path: Any) -> None:
    cluster = Cluster(tmp_path, nodes=0)
    assert isinstance(put(cluster, cluster.bucket(), "k", b"x"), NotDurable)


def test_session_zero_brings_no_chunks(cluster: Cluster) -> None:
    assert isinstance(put(cluster, cluster.bucket(), "k", b"x", session=0), Malformed)


@pytest.mark.parametrize("more", [(), (b"y",)], ids=["alone", "among others"])
def test_a_digest_of_another_size_is_refused_and_nothing_changes(cluster: Cluster, more: tuple[bytes, ...]) -> None:
    bucket = cluster.bucket()
    put(cluster, bucket, "a", b"x")
    before = cluster.db.execute("SELECT * FROM chunk").fetchall()
    wrong = NewChunk(digest=digest(b"x"), size=2, holders=cluster.holders())
    content = NewContent(size=2 + len(more), etag="e", slices=(*map(whole, more), Slice(digest(b"x"), 0, 2)),
                         chunks=(*[cluster.chunk(data) for data in more], wrong))
    result = cluster.run(PutVersion(bucket=bucket, key="b", version_id="v", attributes=PLAIN, owner="o", content=content))
    assert isinstance(result, Malformed)
    assert cluster.db.execute("SELECT * FROM chunk").fetchall() == before
    assert cluster.rows("object") == cluster.rows("content") == 1
    cluster.check()


def test_a_live_digest_gets_a_reference_and_the_newcomer_is_passed_over_for_good(three: Cluster) -> None:
    bucket = three.bucket()
    put(three, bucket, "a", b"x", "n1", "n2")
    first = generation(three, b"x")
    put(three, bucket, "b", b"x", "n2", "n3", sequence=70)
    second = Generation(three.session, 70)
    assert generation(three, b"x") == first
    assert three.chunk_row(b"x")[2] == 2  # type: ignore[index]
    assert located(three, b"x") == {"n1", "n2"}
    three.run(DeleteVersion(bucket=bucket, key="none"), low=71)
    assert state(three, "n3", b"x", second) == "passed"
    assert announce(three, "n3", b"x", second) == Announced(counted=0)
    three.run(DeleteVersion(bucket=bucket, key="a"))
    assert generation(three, b"x") == first, "also when its first reference goes"


@pytest.mark.parametrize(("there", "down", "brought", "switches"), [
    (("n1",), (), ("n2",), True),                     # n1 did not take them: perhaps it is gone
    (("n1",), (), ("n1",), False),
    (("n1", "n2"), (), ("n2", "n3"), False),
    (("n1", "n2"), (), ("n3",), False),
    (("n1", "n2"), ("n1", "n2"), ("n3",), True),
    (("n1", "n2", "n3"), ("n1", "n2", "n3"), ("n4", "n5"), True),
    (("n1", "n2", "n3"), ("n1", "n2"), ("n3", "n4"), True),
    (("n1", "n2", "n3"), ("n1",), ("n2", "n3"), False),
])
def test_what_was_just_acknowledged_does_not_hang_on_nodes_that_are_away(
    tmp_path: Any, there: tuple[str, ...], down: tuple[str, ...], brought: tuple[str, ...], switches: bool
) -> None:
    """The same bytes again, while those that hold them can't be reached: who has just written them can read them."""
    cluster = Cluster(tmp_path, nodes=5, replication="async")
    bucket = cluster.bucket()
    put(cluster, bucket, "a", b"x", *there)
    for node in down:
        assert cluster.run(SetNodeState(node=NodeId(node), state="down")) == Done()
    put(cluster, bucket, "b", b"x", *brought)
    assert located(cluster, b"x") == set(brought if switches else there)
    cluster.check()


def test_the_row_switches_to_a_newcomer_with_more_valid_locations(three: Cluster) -> None:
    bucket = three.bucket()
    put(three, bucket, "a", b"x", "n1", "n2")
    first = generation(three, b"x")
    put(three, bucket, "b", b"x", "n1", "n2", "n3")
    second = generation(three, b"x")
    assert second != first
    assert located(three, b"x") == {"n1", "n2", "n3"}
    assert three.chunk_row(b"x")[2:] == (2, 0)  # type: ignore[index]
    assert state(three, "n1", b"x", second) == "listed"
    for node in ("n1", "n2"):
        assert three.read(queries.released, node).copies == ((digest(b"x"), first),), "a hint to who holds the old one"
    assert three.read(queries.released, "n3").copies == ()


def test_the_row_switches_also_when_its_own_locations_are_on_lost_disks(three: Cluster) -> None:
    bucket = three.bucket()
    put(three, bucket, "a", b"x", "n1", "n2")
    three.register("n1", b"another disk")
    put(three, bucket, "b", b"x", "n2", "n3", sequence=90)
    assert generation(three, b"x") == (three.session, 90)


def test_a_chunk_is_counted_once_for_each_slice(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    cluster.put(bucket, "k", b"x", b"y", b"x")
    assert cluster.chunk_row(b"x")[2] == 2  # type: ignore[index]
    cluster.run(DeleteVersion(bucket=bucket, key="k"))
    assert cluster.rows("chunk") == 0


def test_a_slice_without_its_chunk_must_be_live(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    assert refer(cluster, bucket, "copy", whole(b"x")) == ChunkMissing(digest=digest(b"x"))
    cluster.put(bucket, "k", b"xyz")
    assert isinstance(refer(cluster, bucket, "copy", Slice(digest(b"xyz"), 1, 2)), Committed)
    cluster.run(DeleteVersion(bucket=bucket, key="k"))
    assert cluster.chunk_row(b"xyz") is not None, "the copy still refers to it"
    cluster.run(DeleteVersion(bucket=bucket, key="copy"))
    assert isinstance(refer(cluster, bucket, "copy", whole(b"xyz")), ChunkMissing)


@pytest.mark.parametrize(("start", "length"), [(0, 4), (3, 1), (-1, 2), (0, 0), (0, -1), (1 << 40, 1)])
def test_a_slice_lies_inside_its_chunk(cluster: Cluster, start: int, length: int) -> None:
    bucket = cluster.bucket()
    cluster.put(bucket, "k", b"xyz")
    assert isinstance(refer(cluster, bucket, "copy", Slice(digest(b"xyz"), start, length)), Malformed)


def test_a_chunk_that_no_slice_names_or_of_another_size_is_refused(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    cluster.put(bucket, "k", b"xyz")
    for content in (
        NewContent(size=3, etag="e", slices=(whole(b"xyz"),), chunks=(cluster.chunk(b"b"),)),
        NewContent(size=2, etag="e", slices=(whole(b"a"),) * 2, chunks=(cluster.chunk(b"a"), cluster.chunk(b"a"))),
        NewContent(size=3, etag="e", slices=(whole(b"xyz"),),
                   chunks=(NewChunk(digest=digest(b"xyz"), size=4, holders=cluster.holders()),)),
        NewContent(size=9, etag="e", slices=(whole(b"abc"),), chunks=(cluster.chunk(b"abc"),)),
    ):
        command = PutVersion(bucket=bucket, key="n", version_id="v", attributes=PLAIN, owner="o", content=content)
        assert isinstance(cluster.run(command), Malformed)
    assert cluster.rows("chunk") == 1


def test_overwriting_with_the_same_bytes_never_drops_the_chunk(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    cluster.put(bucket, "k", b"x")
    first = generation(cluster, b"x")
    cluster.put(bucket, "k", b"x")
    assert generation(cluster, b"x") == first
    assert cluster.chunk_row(b"x")[2] == 1  # type: ignore[index]
    assert cluster.rows("content") == 1


def test_a_row_without_references_goes_at_once_and_its_holders_get_a_hint(three: Cluster) -> None:
    bucket = three.bucket()
    three.put(bucket, "k", b"x", b"y")
    of = generation(three, b"x")
    three.run(DeleteVersion(bucket=bucket, key="k"))
    assert three.rows("chunk") == 0
    hints = three.read(queries.released, "n2")
    assert set(hints.copies) == {(digest(b"x"), of), (digest(b"y"), of)}
    assert three.read(queries.released, "n2", hints.after).copies == ()


def test_a_digest_comes_back_under_another_generation(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    cluster.put(bucket, "k", b"x")
    first = generation(cluster, b"x")
    cluster.run(DeleteVersion(bucket=bucket, key="k"))
    cluster.put(bucket, "k", b"x")
    assert generation(cluster, b"x") != first
    assert state(cluster, "n1", b"x", first) == "passed", "its commit was carried out, whatever the mark is"
    cluster.run(DeleteVersion(bucket=bucket, key="none"), low=first.sequence + 1)
    assert state(cluster, "n1", b"x", first) == "passed"


def test_a_copy_is_passed_as_soon_as_its_commit_was_carried_out_and_no_repeat_brings_it(cluster: Cluster) -> None:
    """Whose owner is idle since has not told its mark yet."""
    bucket = cluster.bucket()
    of = Generation(cluster.session, 50)
    assert state(cluster, "n1", b"x", of) == "pending"
    result = put(cluster, bucket, "k", b"x", sequence=50, low=0)
    assert isinstance(result, Committed)
    assert state(cluster, "n1", b"x", of) == "listed"
    cluster.run(DeleteVersion(bucket=bucket, key="k"), sequence=51, low=0)
    assert state(cluster, "n1", b"x", of) == "passed"
    assert state(cluster, "n1", b"x", Generation(cluster.session, 49)) == "pending", "a ticket that is still open"
    assert put(cluster, bucket, "k", b"x", sequence=50, low=0) == result
    assert cluster.rows("chunk") == 0
    assert state(cluster, "n1", b"x", of) == "passed"


# What a node is told

def test_a_copy_that_no_commit_brought_is_pending_until_its_mark_has_passed_or_its_session_has_ended(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    low, high = Generation(cluster.session, 50), Generation(cluster.session, 51)
    assert state(cluster, "n1", b"x", low) == state(cluster, "n1", b"x", high) == "pending"
    cluster.run(DeleteVersion(bucket=bucket, key="none"), sequence=60, low=51)
    assert (state(cluster, "n1", b"x", low), state(cluster, "n1", b"x", high)) == ("passed", "pending")
    cluster.run(EndSession(session=cluster.session), 0)
    assert state(cluster, "n1", b"x", high) == "passed"
    assert state(cluster, "n1", b"x", Generation(999, 1)) == "passed", "a session that is not known counts as ended"


def test_what_is_passed_can_be_brought_by_no_commit(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    cluster.run(DeleteVersion(bucket=bucket, key="none"), sequence=60, low=55)
    assert put(cluster, bucket, "k", b"x", sequence=54) == SequencePassed()
    old = cluster.session
    cluster.run(EndSession(session=old), 0)
    assert put(cluster, bucket, "k", b"x", session=old, sequence=70) == SessionEnded()


def test_a_node_that_is_not_known_gives_up_no_copy_that_is_needed(three: Cluster) -> None:
    put(three, three.bucket(), "k", b"x", "n1", "n2")
    of = generation(three, b"x")
    three.run(EndSession(session=three.session), 0)
    assert state(three, "n9", b"x", of) == "pending"
    assert state(three, "n3", b"x", of) == "short"


def test_a_copy_of_a_live_generation_is_listed_short_or_too_many(three: Cluster) -> None:
    put(three, three.bucket(), "k", b"x", "n1", "n2")
    of = generation(three, b"x")
    assert [state(three, node, b"x", of) for node in ("n1", "n2", "n3")] == ["listed", "listed", "short"]
    assert announce(three, "n3", b"x", of) == Announced(counted=1)
    assert state(three, "n3", b"x", of) == "listed"
    assert announce(three, "n3", b"x", of) == Announced(counted=0), "it is listed already"
    assert three.chunk_row(b"x")[3] == 0  # type: ignore[index]
    three.register("n4", b"disk4")
    assert state(three, "n4", b"x", of) == "passed", "enough others, and what brought it was carried out: it may go"


# Who may announce and withdraw

def test_only_the_node_itself_announces_and_only_in_its_present_session(three: Cluster) -> None:
    put(three, three.bucket(), "k", b"x", "n1", "n2")
    of = generation(three, b"x")
    assert isinstance(announce(three, "n3", b"x", of, session=three.session), Malformed), "not a gateway"
    assert isinstance(announce(three, "n3", b"x", of, session=three.node_sessions["n1"]), Malformed), "not another node"
    assert isinstance(announce(three, "n3", b"x", of, session=0), Malformed)
    old = three.node_sessions["n3"]
    three.register("n3", three.nodes["n3"])
    assert announce(three, "n3", b"x", of, session=old) == SessionEnded(), "nor what it sent before a restart"
    assert located(three, b"x") == {"n1", "n2"}
    assert announce(three, "n3", b"x", of) == Announced(counted=1)


def test_an_announcement_of_another_generation_does_not_count(three: Cluster) -> None:
    put(three, three.bucket(), "k", b"x", "n1", "n2")
    of = generation(three, b"x")
    assert announce(three, "n3", b"x", Generation(of.session, of.sequence + 1)) == Announced(counted=0)
    assert announce(three, "n3", b"none", of) == Announced(counted=0)


def test_an_announcement_of_another_disk_is_refused(three: Cluster) -> None:
    put(three, three.bucket(), "k", b"x", "n1", "n2")
    session = three.register("n3", b"new disk")
    stale = Announce(node="n3", incarnation=b"old", copies=((digest(b"x"), generation(three, b"x")),))
    assert isinstance(three.run(stale, session), Malformed)


def test_a_repeated_announcement_has_no_second_effect(three: Cluster) -> None:
    """Else it could arrive again after the node has withdrawn and deleted its copy."""
    put(three, three.bucket(), "k", b"x", "n1", "n2", "n3")
    of = generation(three, b"x")
    three.register("n4", b"disk4")
    first = three.envelope(Announce(node="n4", incarnation=b"disk4", copies=((digest(b"x"), of),)),
                           three.node_sessions["n4"])
    assert three.send(first) == [Announced(counted=1)]
    assert withdraw(three, "n4", b"x", of) == Withdrawn(places=(0,))
    assert three.send(first) == [Announced(counted=1)]
    assert located(three, b"x") == {"n1", "n2", "n3"}


def test_a_withdrawal_is_refused_where_too_few_would_be_left(three: Cluster) -> None:
    put(three, three.bucket(), "k", b"x", "n1", "n2", "n3")
    of = generation(three, b"x")
    assert withdraw(three, "n1", b"x", of) == Withdrawn(places=())
    three.register("n4", b"disk4")
    announce(three, "n4", b"x", of)
    assert withdraw(three, "n1", b"x", of) == Withdrawn(places=(0,))
    assert withdraw(three, "n2", b"x", of) == Withdrawn(places=())
    assert located(three, b"x") == {"n2", "n3", "n4"}


def test_locations_on_lost_disks_do_not_count_for_a_withdrawal(three: Cluster) -> None:
    put(three, three.bucket(), "k", b"x", "n1", "n2", "n3")
    of = generation(three, b"x")
    three.register("n4", b"disk4")
    announce(three, "n4", b"x", of)
    three.register("n1", b"another disk")
    assert withdraw(three, "n4", b"x", of) == Withdrawn(places=())


# Nodes

def test_another_incarnation_makes_the_old_locations_worthless_at_once(three: Cluster) -> None:
    put(three, three.bucket(), "k", b"x", "n1", "n2", "n3")
    of = generation(three, b"x")
    three.register("n1", b"another disk")
    assert located(three, b"x") == {"n2", "n3"}
    assert state(three, "n1", b"x", of) == "short"
    three.drain(limit=1)
    assert [short.nodes for short in three.read(queries.under_replicated)] == [("n2", "n3")]
    assert announce(three, "n1", b"x", of) == Announced(counted=1)
    assert located(three, b"x") == {"n1", "n2", "n3"}


def test_the_same_incarnation_keeps_its_locations(three: Cluster) -> None:
    put(three, three.bucket(), "k", b"x", "n1", "n2", "n3")
    three.register("n1", three.nodes["n1"])
    assert located(three, b"x") == {"n1", "n2", "n3"}
    assert len(three.read(queries.nodes)) == 3


def test_more_nodes_make_more_copies_wanted(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    for number in range(500):
        cluster.put(bucket, f"k{number}", number.to_bytes(2, "big"))
    assert cluster.read(queries.under_replicated) == []
    cluster.register("n2", b"disk2")
    assert cluster.drain() >= 2, "in pages"
    assert len(cluster.read(queries.under_replicated, 1000)) == 500
    short = cluster.read(queries.under_replicated, 1)[0]
    assert (short.nodes, short.wanted, short.size) == (("n1",), 2, 2)


@pytest.mark.parametrize("node", ["", "N1", "a" * 33, "n_1"])
def test_a_node_has_a_proper_name(cluster: Cluster, node: str) -> None:
    from consensus.core.commands import RegisterNode

    assert isinstance(cluster.run(RegisterNode(node=node, incarnation=b"i", address="a"), 0), Malformed)


# Staged contents

def stage(cluster: Cluster, *pieces: bytes, into: int | None = None, session: int | None = None) -> Any:
    return cluster.run(StageContent(slices=tuple(map(whole, pieces)), into=into,
                                    chunks=tuple(cluster.chunk(piece) for piece in dict.fromkeys(pieces))), session)


def test_a_long_content_comes_in_pages_and_the_last_command_decides(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    pieces = [number.to_bytes(2, "big") for number in range(700)]
    staged = stage(cluster, *pieces[:300])
    assert isinstance(staged, Staged)
    assert stage(cluster, *pieces[300:600], into=staged.content) == staged
    assert cluster.read(queries.current, bucket, "k") is None
    content = NewContent(size=1400, etag="e", slices=tuple(map(whole, pieces[600:])), staged=staged.content,
                         chunks=tuple(map(cluster.chunk, pieces[600:])))
    command = PutVersion(bucket=bucket, key="k", version_id="v", attributes=PLAIN, owner="o", content=content)
    assert isinstance(cluster.run(command), Committed)
    assert cluster.rows("staged") == 0
    found = []
    while len(found) < 700:
        page = cluster.read(queries.slices, staged.content, 2 * len(found), 1400 - 2 * len(found))
        assert 0 < len(page) <= 256
        found += page
    assert [piece.digest for piece in found] == [digest(piece) for piece in pieces]
    cut = cluster.read(queries.slices, staged.content, 599, 4)
    assert [(piece.digest, piece.start, piece.length) for piece in cut] == [
        (digest(pieces[299]), 1, 1), (digest(pieces[300]), 0, 2), (digest(pieces[301]), 0, 1)]
    cluster.run(DeleteVersion(bucket=bucket, key="k"))
    assert cluster.rows("chunk") == 700, "a long content isn't taken apart by the command that drops it"
    assert cluster.drain() >= 3
    assert cluster.rows("chunk") == cluster.rows("piece") == cluster.rows("content") == 0


def test_only_its_own_session_continues_or_takes_over_a_staged_content(cluster: Cluster) -> None:
    bucket, other = cluster.bucket(), cluster.open_session()
    staged = stage(cluster, b"x").content
    assert isinstance(stage(cluster, b"y", into=staged, session=other), Malformed)
    content = NewContent(size=1, etag="e", staged=staged)
    command = PutVersion(bucket=bucket, key="k", version_id="v", attributes=PLAIN, owner="o", content=content)
    assert isinstance(cluster.run(command, other), Malformed)
    assert isinstance(cluster.run(command), Committed)
    assert isinstance(cluster.run(command), Malformed), "it is taken once"


def test_the_end_of_its_session_releases_a_staged_content(cluster: Cluster) -> None:
    stage(cluster, b"x", b"y")
    cluster.run(EndSession(session=cluster.session), 0)
    cluster.drain(limit=1)
    assert cluster.rows("chunk") == cluster.rows("staged") == cluster.rows("content") == 0


def test_a_refused_command_releases_the_content_that_it_was_to_take_over(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    staged = stage(cluster, b"x").content
    content = NewContent(size=77, etag="e", staged=staged)
    command = PutVersion(bucket=bucket, key="k", version_id="v", attributes=PLAIN, owner="o", content=content)
    assert isinstance(cluster.run(command), Malformed)
    cluster.drain()
    assert cluster.rows("chunk") == 0
