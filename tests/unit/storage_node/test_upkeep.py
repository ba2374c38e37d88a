"""Copies on several nodes, with the real metadata: what is lacking is made, what is too many goes; nodes come and leave."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from consensus import audit, queries
from consensus.core.commands import AskNode, Drain, RemoveNode, SetBucketCopies, SetNodeState
from consensus.core.ids import Digest, Generation, NodeId, SessionId, digest
from consensus.core.model import NodeInfo
from consensus.core.placement import ranked
from consensus.core.results import Done, NodeInUse
from storage_node.care.fellows import Fellows
from storage_node.care.repair import Repair
from storage_node.care.telling import Unequal
from storage_node.chunk import FILE_DATA_START, HEADER_BYTES, SMALL_BYTES_MAX, file_name
from storage_node.client import NodeClient
from storage_node.index import Copy
from storage_node.segments import segment_path
from tests.unit.storage_node.cluster import eventually
from tests.unit.storage_node.test_shares import Row
from tests.unit.storage_node.test_with_metadata import Machine, run

LARGE = os.urandom(SMALL_BYTES_MAX + 300_000)


async def begin(machine: Machine, keys: int) -> dict[str, bytes]:
    """Objects, one of them large."""
    bodies = {f"k{number}": os.urandom(1000) for number in range(keys)} | {"large": LARGE}
    await asyncio.gather(*[machine.put(key, data) for key, data in bodies.items()])
    return bodies


async def places(machine: Machine) -> dict[bytes, tuple[tuple[NodeId, ...], int]]:
    return {row.digest: (row.nodes, row.wanted) for row in await machine.metadata.chunk_places()}


async def settled(machine: Machine, copies: int, nodes: set[str] | None = None) -> None:
    """Wait until each chunk has just so many copies, on these nodes."""
    async def so() -> bool:
        await machine.metadata.commit(Drain(limit=300))
        found = await places(machine)
        return all(len(set(where)) == copies and (nodes is None or nodes >= set(where)) for where, _ in found.values())

    await eventually(so, 20.0)
    assert audit.recount(machine.meta._machine.db) == []


async def readable(machine: Machine, bodies: dict[str, bytes]) -> None:
    for key, data in bodies.items():
        assert await machine.get(key) == data


def hurry(machine: Machine) -> None:
    """The loops look at once."""
    for server in machine.nodes.values():
        upkeep = server.upkeep
        upkeep.repair._look_s = upkeep.giving_back._look_s = upkeep.rebalance._look_s = 0.02
        upkeep.rebalance._settled_s = upkeep.repair._fresh_s = 0.0
        upkeep.repair.kick()


def test_a_wiped_disk_is_filled_again(tmp_path: Path) -> None:
    async def body(machine: Machine) -> None:
        bodies = await begin(machine, 20)
        await settled(machine, 3)
        await machine.stop_node("n2")
        (tmp_path / "n2").rename(tmp_path / "wiped")
        await machine.start_node("n2")
        hurry(machine)
        await readable(machine, bodies)
        await settled(machine, 3)
        await machine.holds("n2", *bodies.values())
        assert machine.nodes["n2"].upkeep.status.repair.copies == len(bodies)
        assert machine.nodes["n1"].upkeep.status.repair.copies == 0, "nobody else has made any"

    run(tmp_path, 3, body)


def test_copies_of_a_bucket_from_three_to_two_and_back(tmp_path: Path) -> None:
    async def body(machine: Machine) -> None:
        hurry(machine)
        bodies = await begin(machine, 10)
        await settled(machine, 3)
        assert await machine.metadata.commit(SetBucketCopies(bucket=machine.bucket, copies=2)) == Done()
        await settled(machine, 2)
        held = [set(await machine.copies(name)) for name in machine.nodes]
        await readable(machine, bodies)
        assert await machine.metadata.commit(SetBucketCopies(bucket=machine.bucket, copies=None)) == Done()
        await settled(machine, 3)
        await readable(machine, bodies)
        assert len(held) == 3

    run(tmp_path, 3, body)


def test_a_new_node_takes_its_share_and_a_drained_one_leaves(tmp_path: Path) -> None:
    async def body(machine: Machine) -> None:
        bodies = await begin(machine, 60)
        await settled(machine, 3)
        await machine.metadata.commit(SetBucketCopies(bucket=machine.bucket, copies=2))
        await settled(machine, 2)
        before = await places(machine)
        await machine.start_node("n4")
        hurry(machine)

        async def balanced() -> bool:
            return machine.nodes["n4"].upkeep.status.rebalance.passes == 1

        await eventually(balanced)
        await settled(machine, 2)
        after = await places(machine)
        moved = [chunk for chunk in after if set(after[chunk][0]) != set(before[chunk][0])]
        assert all("n4" in after[chunk][0] for chunk in moved), "nothing moves but to the new node"
        assert len(bodies) * 0.25 < len(moved) < len(bodies) * 0.75, "two of four nodes hold each chunk: half of them come"

        assert await machine.metadata.commit(RemoveNode(node=NodeId("n1"))) == NodeInUse(reason="it is not draining")
        assert await machine.metadata.commit(AskNode(node=NodeId("n1"), asked="draining")) == Done()
        await settled(machine, 2, {"n2", "n3", "n4"})

        async def removed() -> bool:
            return await machine.metadata.commit(RemoveNode(node=NodeId("n1"))) == Done()

        await eventually(removed)
        await machine.stop_node("n1")
        await settled(machine, 2, {"n2", "n3", "n4"})
        await readable(machine, bodies)

    run(tmp_path, 3, body)


def test_what_lies_on_a_lost_node_is_made_anew_and_given_back(tmp_path: Path) -> None:
    async def body(machine: Machine) -> None:
        bodies = await begin(machine, 20)
        await settled(machine, 3)
        await machine.stop_node("n4")
        hurry(machine)
        assert await machine.metadata.commit(SetNodeState(node=NodeId("n4"), state="lost")) == Done()
        assert [info.counts for info in await machine.metadata.nodes()] == [True] * 4, "it must have been down before"
        for state in ("down", "lost"):
            assert await machine.metadata.commit(SetNodeState(node=NodeId("n4"), state=state)) == Done()

        async def made() -> bool:
            await machine.metadata.commit(Drain(limit=300))
            return not await machine.metadata.under_replicated() and not machine.meta._machine.has_work(0)

        await eventually(made, 20.0)
        await readable(machine, bodies)
        await machine.start_node("n4")
        hurry(machine)
        await settled(machine, 3)
        await readable(machine, bodies)

    run(tmp_path, 4, body)


def test_a_node_that_was_removed_and_comes_back_says_what_it_holds(tmp_path: Path) -> None:
    """Nobody lists its copies any more, and nobody asks about them: it looks for itself. What is lacking it announces, what is
    not wanted goes."""
    async def body(machine: Machine) -> None:
        bodies = await begin(machine, 10)
        await settled(machine, 2)
        await machine.stop_node("n2")
        for state in ("down", "lost"):
            await machine.metadata.commit(SetNodeState(node=NodeId("n2"), state=state))
        assert await machine.metadata.commit(RemoveNode(node=NodeId("n2"), force=True)) == Done()
        gone = bodies.pop("k0")
        await machine.delete("k0")
        await settled(machine, 1)
        await machine.start_node("n2")
        node = machine.nodes["n2"]
        node.settler._read_grace_ms = 3_600_000       # until all rows are looked through they seem to lack nothing
        hurry(machine)
        await settled(machine, 2)
        assert node.upkeep.repair._fetcher.fetched == 0, "all of it was here"
        assert digest(gone) in await machine.copies("n2")

        async def unsettled() -> bool:
            return [copy.digest for copy in await node.store.unsettled(None, 100)] == [digest(gone)]

        await eventually(unsettled)
        await node.settler.collect(None, no_grace=True)
        await machine.holds("n2", *bodies.values())

    run(tmp_path, 2, body)


def test_nobody_loses_patience_with_a_long_queue(tmp_path: Path) -> None:
    """Whoever comes next has not reached the rows at the end yet: that is no reason to make its copies as well."""
    class Rows:
        rows = [Row(Digest(digest(b"%d" % number)), Generation(SessionId(1), 1), 1000, (NodeId("n1"),), 2, (2, b"%d" % number))
                for number in range(200)]
        nodes_ = [NodeInfo(node=NodeId(f"n{number}"), incarnation=b"i", address="a", zone=str(number)) for number in range(1, 5)]

        async def under_replicated(self, limit: int, after: object) -> list[Row]:
            return self.rows

        async def nodes(self) -> list[NodeInfo]:
            return self.nodes_

    class Repairing(Repair):
        async def _make(self, rows: Sequence[Unequal]) -> int:
            made.update(row.digest for row in rows)
            return 0

    made: set[bytes] = set()

    async def main() -> None:
        metadata: Any = Rows()
        fellows = Fellows(metadata, NodeId("n2"), lambda address: NodeClient(address, b""))
        nothing: Any = None
        repair = Repairing(metadata, NodeId("n2"), fellows, nothing, nothing, takes_chunks=lambda: True, patience_s=0.01,
                           fresh_s=0.0)
        await repair.round()
        own = len(made)
        assert 30 < own < 110, "a third of them"
        await asyncio.sleep(0.1)
        await repair.round()
        assert own < len(made) < own + 40, "and those at the head, whose turn has come and gone"

    asyncio.run(main())


def test_rot_is_withdrawn_and_fetched_from_another_node(tmp_path: Path) -> None:
    async def body(machine: Machine) -> None:
        hurry(machine)
        bodies = await begin(machine, 10)
        await settled(machine, 3)
        node = machine.nodes["n1"]
        for data in bodies.values():
            copy = (await node.store.generations(digest(data)))[0]
            spoil(tmp_path / "n1" / "chunks", copy)
        assert node.care is not None
        node.care.scrub.begin(full_speed=True)

        async def healed() -> bool:
            status = await node.care.status()  # type: ignore[union-attr]
            return status.settle.withdrawn >= len(bodies) and not await machine.metadata.under_replicated()

        await eventually(healed, 20.0)
        await settled(machine, 3)
        await readable(machine, bodies)
        for data in bodies.values():
            [copy] = await node.store.generations(digest(data))
            assert await node.store.verify(copy)

    run(tmp_path, 3, body)


def test_the_last_good_copy_is_not_given_back(tmp_path: Path) -> None:
    """The bucket wants one copy now, and one of the two is rotten, which nobody knows."""
    async def body(machine: Machine) -> None:
        data = os.urandom(5000)
        await machine.put("k", data)
        await settled(machine, 2)
        for name in machine.nodes:
            other = "n2" if name == "n1" else "n1"
            row = next(iter(await machine.metadata.read(queries.chunk_places)))
            assert set(row.nodes) == {"n1", "n2"}
            copy = (await machine.nodes[other].store.generations(digest(data)))[0]
            spoil(tmp_path / other / "chunks", copy)
            break
        hurry(machine)
        await machine.metadata.commit(SetBucketCopies(bucket=machine.bucket, copies=1))

        async def rid_of_it() -> bool:
            await machine.metadata.commit(Drain(limit=300))
            found = await places(machine)
            return found[digest(data)][0] == ("n1",)

        if machine.nodes["n1"].upkeep.status.giving_back.given:
            pytest.fail("given back before anything was known")
        await eventually(rid_of_it)
        assert await machine.get("k") == data

    run(tmp_path, 2, body)


def test_a_copy_is_kept_while_one_of_the_two_that_would_stay_is_rotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who would give back asks the good one first, and is not content with it."""
    monkeypatch.setattr("storage_node.care.fellows.random.shuffle", lambda others: None)

    async def body(machine: Machine) -> None:
        data = os.urandom(5000)
        await machine.put("k", data)
        await settled(machine, 3)
        order = [info.node for info in ranked(digest(data), await machine.metadata.nodes())]
        staying = [node for node in machine.nodes if node in order[:2]]
        rotten = staying[1]
        spoil(tmp_path / rotten / "chunks", (await machine.nodes[rotten].store.generations(digest(data)))[0])
        hurry(machine)
        await machine.metadata.commit(SetBucketCopies(bucket=machine.bucket, copies=2))
        await settled(machine, 2, {staying[0], order[2]})

        async def looked() -> bool:
            return machine.nodes[order[2]].upkeep.giving_back.status.kept > 0

        await eventually(looked)
        assert await machine.get("k") == data

    run(tmp_path, 3, body)


def test_a_full_disk_is_said_and_the_node_returns_by_itself(tmp_path: Path) -> None:
    async def body(machine: Machine) -> None:
        node = machine.nodes["n2"]
        node.upkeep.reports._look_s, node.upkeep.reports._well_s = 0.01, 0.2
        health = node.store.health  # type: ignore[attr-defined]
        reserve, health.reserve_bytes = health.reserve_bytes, 1 << 60
        health.look()

        async def is_(state: str) -> bool:
            return [info.state for info in await machine.metadata.nodes()] == ["up", state]

        await eventually(lambda: is_("full"))
        health.reserve_bytes = reserve
        health.look()
        await eventually(lambda: is_("up"))
        for state in ("down", "lost"):
            await machine.metadata.commit(SetNodeState(node=NodeId("n2"), state=state))
        await eventually(lambda: is_("up"))
        await machine.metadata.commit(AskNode(node=NodeId("n2"), asked="read-only"))
        assert await is_("read-only")
        await asyncio.sleep(0.1)
        assert await is_("read-only"), "an admin's wish stays"

    run(tmp_path, 2, body)


def spoil(folder: Path, copy: Copy) -> None:
    """Other bytes in the middle of a copy."""
    path = segment_path(str(folder), copy.segment) if copy.segment else f"{folder}/{file_name(copy.digest, copy.generation)}"
    start = copy.place + HEADER_BYTES if copy.segment else FILE_DATA_START
    with open(path, "r+b") as file:
        file.seek(start + copy.size // 2)
        found = file.read(1)
        file.seek(start + copy.size // 2)
        file.write(bytes([found[0] ^ 0xFF]))
