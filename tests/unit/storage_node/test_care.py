"""Care of a node's copies with the real metadata and real files: damage to its end, collection, comparison, status."""

import asyncio
import os
import random
from pathlib import Path

import pytest

from consensus import audit
from consensus.core.commands import Drain
from consensus.core.errors import ClusterError, Corrupt
from consensus.core.ids import Generation, digest
from storage_node.care.waiting import total
from storage_node.chunk import SMALL_BYTES_MAX
from storage_node.client import NodeClient
from storage_node.disk_store import DiskStore
from storage_node.index import Copy
from tests.unit.storage_node.cluster import SECRET, eventually
from tests.unit.storage_node.test_scrub import damage, path_of
from tests.unit.storage_node.test_with_metadata import Machine, run

SIZES = pytest.mark.parametrize("size", [5000, SMALL_BYTES_MAX + 5000])


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uploads under way are asked about again at once."""
    monkeypatch.setattr("storage_node.care.settle.PENDING_MS", 50)


def client_of(machine: Machine, name: str = "n1") -> NodeClient:
    return NodeClient(machine.nodes[name].address, SECRET)


def store_of(machine: Machine, name: str = "n1") -> DiskStore:
    store = machine.nodes[name].store
    assert isinstance(store, DiskStore)
    return store


async def copy_of(machine: Machine, data: bytes, name: str = "n1") -> Copy:
    [copy] = await store_of(machine, name).generations(digest(data))
    return copy


async def scrubbed(client: NodeClient) -> None:
    before = (await client.scrub("start", full_speed=True)).passes
    await eventually(lambda: _passed(client, before))


async def _passed(client: NodeClient, before: int) -> bool:
    return (await client.scrub()).passes > before


async def nothing_is_damaged(client: NodeClient) -> bool:
    return not (await client.damage()).open


def check(machine: Machine) -> None:
    assert audit.recount(machine.meta._machine.db) == []


@pytest.mark.parametrize(("size", "kind"), [
    (5000, "bytes"), (5000, "header"), (SMALL_BYTES_MAX + 5000, "bytes"), (SMALL_BYTES_MAX + 5000, "gone")])
def test_damage_followed_by_a_put_of_the_same_content_reads_right(tmp_path: Path, size: int, kind: str) -> None:
    """At once, and after everybody has found out, and after a restart."""
    async def body(machine: Machine) -> None:
        data = os.urandom(size)
        await machine.put("first", data)
        await machine.holds("n1", data)
        damage(store_of(machine), await copy_of(machine, data), kind)
        await machine.put("second", data)
        assert await machine.get("second") == data
        assert await machine.get("first") == data, "equal digests are equal bytes"
        client = client_of(machine)
        await scrubbed(client)
        await eventually(lambda: nothing_is_damaged(client))
        await machine.holds("n1", data)
        for key in ("first", "second"):
            assert await machine.get(key) == data
        await machine.stop_node("n1")
        await machine.start_node("n1")
        assert await machine.get("first") == data
        check(machine)
        client.close()

    run(tmp_path, 1, body)


@SIZES
def test_damage_that_is_found_first_is_withdrawn_put_aside_and_healed_by_the_next_put(tmp_path: Path, size: int) -> None:
    async def body(machine: Machine) -> None:
        data, other = os.urandom(size), os.urandom(size)
        await machine.put("first", data)
        await machine.put("other", other)
        await machine.holds("n1", data, other)
        damage(store_of(machine), await copy_of(machine, data), "bytes")
        client = client_of(machine)
        with pytest.raises(Corrupt):
            await machine.get("first")                  # the reader reports it
        await machine.holds("n1", other)
        with pytest.raises(ClusterError):
            await machine.get("first")
        report = await client.damage()
        assert report.open == []
        [kept] = report.quarantined
        assert (kept.digest, kept.what, kept.size) == (digest(data).hex(), "withdrawn", size)
        assert kept.kept >= size
        status = await client.status()
        assert (status.quarantined, status.quarantined_bytes, status.settle.withdrawn) == (1, kept.kept, 1)
        [short] = await machine.metadata.under_replicated()
        assert (short.digest, short.nodes) == (digest(data), ())
        check(machine)
        await machine.put("second", data)
        await machine.holds("n1", data, other)
        assert await machine.get("first") == data
        assert await machine.metadata.under_replicated() == []
        check(machine)
        client.close()

    run(tmp_path, 1, body)


def test_of_several_nodes_the_damaged_one_is_passed_over_and_withdrawn(tmp_path: Path) -> None:
    async def body(machine: Machine) -> None:
        data = os.urandom(5000)
        await machine.put("k", data)
        for name in machine.nodes:
            await machine.holds(name, data)
        damage(store_of(machine, "n2"), await copy_of(machine, data, "n2"), "bytes")
        client = client_of(machine, "n2")
        await scrubbed(client)
        await machine.holds("n2")
        for _ in range(5):
            assert await machine.get("k") == data
        _, _, [part] = await machine.metadata.opened("bucket", "k")
        assert set(part.nodes) == {"n1", "n3"}
        check(machine)
        client.close()

    run(tmp_path, 3, body)


def test_all_of_many_damages_are_found_and_no_wrong_byte_is_read(tmp_path: Path) -> None:
    async def body(machine: Machine) -> None:
        chance = random.Random(5)
        bodies = [os.urandom(chance.choice((700, 5000, 300_000))) for _ in range(60)] + [
            os.urandom(SMALL_BYTES_MAX + number) for number in range(1, 4)]
        for number, data in enumerate(bodies):
            await machine.put(f"{number}", data)
        await machine.holds("n1", *bodies)
        hurt = {number: chance.choice(("bytes", "header", "magic", "zeroed", "table"))
                for number in chance.sample(range(len(bodies)), 30)}
        for number, kind in hurt.items():
            damage(store_of(machine), await copy_of(machine, bodies[number]), kind)
        client = client_of(machine)
        await scrubbed(client)
        assert (await client.scrub()).damaged == len(hurt)
        await eventually(lambda: nothing_is_damaged(client))
        for number, data in enumerate(bodies):
            if number in hurt:
                with pytest.raises(ClusterError):
                    await machine.get(f"{number}")
            else:
                assert await machine.get(f"{number}") == data
        lost = {short.digest for short in await machine.metadata.under_replicated()}
        assert lost == {digest(bodies[number]) for number in hurt}
        for number in hurt:
            await machine.put(f"again {number}", bodies[number])
        for number, data in enumerate(bodies):
            assert await machine.get(f"{number}") == data
        check(machine)
        client.close()

    run(tmp_path, 1, body)


def test_the_last_delete_of_equal_objects_frees_their_space_by_a_collection(tmp_path: Path) -> None:
    async def body(machine: Machine) -> None:
        machine.nodes["n1"].settler._read_grace_ms = 3_600_000
        data = os.urandom(SMALL_BYTES_MAX + 5000)
        for key in ("a", "b"):
            await machine.put(key, data)
        await machine.holds("n1", data)
        path = path_of(store_of(machine), await copy_of(machine, data))
        for key in ("a", "b"):
            await machine.delete(key)
        while (await machine.metadata.commit(Drain())).more:  # type: ignore[union-attr]
            pass
        client = client_of(machine)

        async def waits() -> bool:
            return total([await client.gc_report()]).bytes["grace"] == len(data)

        await eventually(waits)
        assert (await client.gc_run()).removed == 0
        assert os.path.exists(path), "readers that have begun may go on"
        seen = []
        step = await client.gc_run(no_grace=True, progress=seen.append)
        assert (step.removed, step.removed_bytes) == (1, len(data))
        assert seen[-1] == step
        assert not os.path.exists(path)
        assert total([await client.gc_report()]).bytes["grace"] == 0
        client.close()

    run(tmp_path, 1, body)


def test_a_node_that_lost_its_index_finds_everything_again(tmp_path: Path) -> None:
    """Files and segments alone; the metadata says which copies count."""
    async def body(machine: Machine) -> None:
        bodies = [os.urandom(3000 + number) for number in range(30)] + [os.urandom(SMALL_BYTES_MAX + 9)]
        for number, data in enumerate(bodies):
            await machine.put(f"{number}", data)
        for number in range(0, 30, 3):
            await machine.delete(f"{number}")
        await machine.stop_node("n1")
        for name in ("index.sqlite", "index.sqlite-wal", "index.sqlite-shm"):
            (tmp_path / "n1" / "chunks" / name).unlink(missing_ok=True)
        await machine.start_node("n1")
        left = {f"{number}": data for number, data in enumerate(bodies) if number % 3 or number == 30}
        for key, data in left.items():
            assert await machine.get(key) == data
        await machine.holds("n1", *left.values())
        check(machine)

    run(tmp_path, 1, body)


def test_what_vanished_while_the_node_was_down_is_found_by_the_comparison(tmp_path: Path) -> None:
    async def body(machine: Machine) -> None:
        data, other = os.urandom(SMALL_BYTES_MAX + 1), os.urandom(SMALL_BYTES_MAX + 2)
        await machine.put("lost", data)
        await machine.put("kept", other)
        await machine.holds("n1", data, other)
        client = client_of(machine)
        store = store_of(machine)
        copy = await copy_of(machine, data)
        await store.remove([copy])                      # as if rows and files had been lost
        running, _ = await client.compare(begin=True)
        assert running

        async def done() -> bool:
            running, last = await client.compare()
            return not running and last.missing == 1

        await eventually(done)
        await eventually(lambda: nothing_is_damaged(client))
        _, _, [part] = await machine.metadata.opened("bucket", "lost")
        assert part.nodes == ()
        assert await machine.get("kept") == other
        await machine.put("again", data)
        assert await machine.get("lost") == data
        check(machine)
        client.close()

    run(tmp_path, 1, body)


def test_a_node_tells_how_it_is(tmp_path: Path) -> None:
    async def body(machine: Machine) -> None:
        data = os.urandom(5000)
        await machine.put("k", data)
        await machine.holds("n1", data)
        client = client_of(machine)
        status = await client.status()
        assert (status.node, status.statistics.chunks, status.statistics.chunk_bytes) == ("n1", 1, 5000)
        assert (status.scrub.state, status.scrub.passes) == ("idle", 0)
        assert status.scrub.next_ms > 0
        assert await client.report(digest(data), _generation(await copy_of(machine, data)))
        assert (await client.damage()).open == []
        await client.scrub("start")
        await client.scrub("stop")
        with pytest.raises(ClusterError, match="start, to stop"):
            await client.scrub("explode")
        await asyncio.sleep(0)
        client.close()

    run(tmp_path, 1, body)


def _generation(copy: Copy) -> Generation:
    return Generation.unpack(copy.generation)
