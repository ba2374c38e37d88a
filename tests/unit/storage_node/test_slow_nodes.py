"""Nodes that are slow, silent, full or away beside good ones: nobody waits for them, what is held for them is bounded, and
they are used again when they answer."""

import asyncio
import errno
import os
import socket
import time
from collections.abc import Callable

import pytest

from consensus.core.errors import ClusterError, NoSpace, Unavailable
from consensus.core.ids import Generation, NodeId, digest
from consensus.core.model import NodeInfo
from storage_node import hedging
from storage_node.chunk import SMALL_BYTES_MAX
from storage_node.client import NodeClient
from storage_node.hedging import Hedges, first_good
from storage_node.replicas import Policy, Replicas
from storage_node.standing import Pace
from tests.unit.consensus.crash import Unsynced
from tests.unit.storage_node.cluster import (
    GENERATION,
    SECRET,
    Nodes,
    eventually,
    everything,
    located,
    names,
    with_nodes,
)

LARGE = SMALL_BYTES_MAX + 5000
READS = 80
BLOCKING = 30.0
"""Far longer than any test may take: whoever waits for it fails."""


@pytest.fixture(autouse=True)
def stops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage_node.server.STOP_TIMEOUT_S", 0.05)


class Held:
    """A node whose disk does nothing until it is let go."""

    def __init__(self, nodes: Nodes, name: str) -> None:
        self.gate = asyncio.Event()
        self.writes = self.reads = 0
        self._waiting: list[asyncio.Future[None]] = []
        store = nodes.servers[name].store
        put, create, read = store.put_then, store.create, store.read

        def held_put(*given: object) -> None:
            self.writes += 1
            self._waiting.append(asyncio.ensure_future(self._after(lambda: put(*given))))  # type: ignore[arg-type]

        async def held_create(generation: Generation, room: int) -> object:
            self.writes += 1
            await self.gate.wait()
            return await create(generation, room)

        async def held_read(*given: object) -> bytes:
            self.reads += 1
            await self.gate.wait()
            return await read(*given)  # type: ignore[arg-type]

        store.put_then, store.create, store.read = held_put, held_create, held_read  # type: ignore[method-assign, assignment]

    async def _after(self, work: Callable[[], None]) -> None:
        await self.gate.wait()
        work()


async def write(nodes: Nodes, size: int, number: int, policy: Policy | None = None) -> tuple[bytes, set[str]]:
    """Under a generation of its own."""
    data, generation = os.urandom(size), Generation(GENERATION.session, number)
    writer = await nodes.replicas.open_writer(generation, policy)
    for start in range(0, size, 1 << 20):
        await writer.write(data[start:start + (1 << 20)])
    return data, names(await writer.finish(digest(data)))


async def on(nodes: Nodes, data: bytes, number: int = GENERATION.sequence) -> set[str]:
    """Which nodes hold it."""
    generation = Generation(GENERATION.session, number)
    return {name for name, server in nodes.servers.items() if await server.store.find(digest(data), generation) is not None}


def test_a_node_that_answers_nothing_is_not_waited_for_and_gets_its_copies_later() -> None:
    async def body(nodes: Nodes) -> None:
        held = Held(nodes, "n2")
        began = time.monotonic()
        written = [await write(nodes, size, number) for number, size in enumerate([5000, LARGE, 5000, LARGE])]
        assert time.monotonic() - began < BLOCKING / 10
        assert all(holders == {"n1", "n3"} for _, holders in written)
        held.gate.set()

        async def all_have_it() -> bool:
            return [await on(nodes, data, number) for number, (data, _) in enumerate(written)] == [{"n1", "n2", "n3"}] * 4

        await eventually(all_have_it)

    with_nodes(3, body)


def test_what_waits_for_a_silent_node_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage_node.client.UNANSWERED_MAX", 10)

    async def body(nodes: Nodes) -> None:
        held = Held(nodes, "n2")
        written = [await write(nodes, 5000, number) for number in range(30)]
        assert all(holders == {"n1", "n3"} for _, holders in written)
        await nodes.replicas.client(nodes.metadata.map[NodeId("n2")]).disk()       # all that came before has arrived
        assert held.writes == 10
        held.gate.set()

        async def used_again() -> bool:
            await write(nodes, 5000, 100 + held.writes)
            return held.writes > 10

        await eventually(used_again)

    with_nodes(3, body)


def test_bytes_that_a_node_does_not_take_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a process that was stopped: its socket's buffer is full, and the rest is in our memory."""
    monkeypatch.setattr("storage_node.client.UNSENT_BYTES_MAX", 1 << 20)

    async def body(nodes: Nodes) -> None:
        await write(nodes, 5000, 0)
        client = nodes.replicas.client(nodes.metadata.map[NodeId("n2")])
        [link] = nodes.servers["n2"]._wire._links
        assert link._transport is not None
        link._transport.pause_reading()
        for number in range(1, 60):
            await write(nodes, 100_000, number)
        wire = client._small.now
        assert wire is not None
        assert 0 < wire.unsent_bytes < 1_200_000
        assert not client.has_room
        link._transport.resume_reading()

    with_nodes(3, body)


@pytest.mark.parametrize("size", [5000, LARGE])
def test_when_the_quorum_takes_long_another_node_is_asked(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr("storage_node.writing.STALL_S_OTHERS", 0.2)
    monkeypatch.setattr("storage_node.writing.FINISH_S_OTHERS", 0.2)

    async def body(nodes: Nodes) -> None:
        first = Held(nodes, "n1")
        second = Held(nodes, "n2")
        began = time.monotonic()
        for number in range(6):
            data, holders = await write(nodes, size, number)
            assert holders == {"n3", "n4"}
            assert await on(nodes, data, number) == holders
        assert time.monotonic() - began < BLOCKING / 5
        assert first.writes + second.writes < 12, "they are suspects by now, and asked last"
        first.gate.set()
        second.gate.set()

    with_nodes(4, body)


def test_asking_one_more_goes_by_the_time_that_it_usually_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything takes 60 ms: no node gets a copy that is not wanted."""
    async def body(nodes: Nodes) -> None:
        def slow(put: Callable[..., None]) -> Callable[..., None]:
            return lambda *given: asyncio.get_running_loop().call_later(0.06, put, *given) and None

        for server in nodes.servers.values():
            server.store.put_then = slow(server.store.put_then)  # type: ignore[method-assign]
        for node in nodes.metadata.map:
            nodes.replicas.standing(node).writes.median_s = 0.06
        copies = 0
        for number in range(10):
            data, _ = await write(nodes, 5000, number)
            await asyncio.sleep(0.07)
            copies += len(await on(nodes, data, number))
        assert copies == 30

    monkeypatch.setattr("storage_node.quorum.PATIENCE_S_MIN", 0.05)
    with_nodes(4, body)


@pytest.mark.parametrize("size", [5000, LARGE, 8 << 20])
def test_a_full_node_is_replaced_before_it_has_taken_anything(size: int) -> None:
    """With one copy there is nobody to copy from: what was sent is sent to the next node."""
    async def body(nodes: Nodes) -> None:
        for name in ("n1", "n2"):
            store = nodes.servers[name].store
            store.health.reserve_bytes, store.health._look_at = 1 << 60, 0.0   # type: ignore[attr-defined]
        for number in range(4):
            data, holders = await write(nodes, size, number, Policy(copies=1))
            assert holders == {"n3"}
            assert await everything(nodes.replicas, located(data, "n3", generation=Generation(GENERATION.session, number))) \
                == data
        for name in ("n1", "n2", "n3"):
            store = nodes.servers[name].store
            store.health.reserve_bytes, store.health._look_at = 1 << 60, 0.0   # type: ignore[attr-defined]
        with pytest.raises(NoSpace):
            await write(nodes, size, 10, Policy(copies=1))

    with_nodes(3, body)


def test_a_node_without_room_for_all_of_a_large_chunk_refuses_it_at_its_beginning() -> None:
    """In the middle, with one copy, it would be too late: nobody has its beginning any more."""
    async def body(nodes: Nodes) -> None:
        health = nodes.servers["n1"].store.health      # type: ignore[attr-defined]
        health.free_bytes = lambda: health.reserve_bytes + (64 << 20)
        data, generations = os.urandom(2 << 20), [Generation(GENERATION.session, number) for number in range(8)]
        for generation in generations:
            writer = await nodes.replicas.open_writer(generation, Policy(copies=1), 1 << 30)
            await writer.write(data)
            assert names(await writer.finish(digest(data))) == {"n2"}
        first = await nodes.servers["n1"].store.create(GENERATION, 40 << 20)
        with pytest.raises(NoSpace):
            await nodes.servers["n1"].store.create(GENERATION, 40 << 20)
        await first.abort()
        await (await nodes.servers["n1"].store.create(GENERATION, 40 << 20)).abort()

    with_nodes(2, body)


class FailingSyncs(Unsynced):
    def fdatasync(self, fd: int, step: str) -> None:
        raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("moment", ["in the middle", "at the end"])
def test_a_stream_that_loses_a_node_it_needs_is_copied_to_another(moment: str) -> None:
    async def body(nodes: Nodes) -> None:
        data = os.urandom(12 << 20)
        writer = await nodes.replicas.open_writer(GENERATION, Policy(copies=2))
        await writer.write(data[:10 << 20])
        lost, kept = (target.node.node for target in writer._targets)
        if moment == "in the middle":
            await nodes.stop_node(lost)
            await writer.write(data[10 << 20:])
        else:
            await writer.write(data[10 << 20:])
            nodes.servers[lost].store._files.disk = FailingSyncs()  # type: ignore[attr-defined]
        holders = names(await writer.finish(digest(data)))
        assert kept in holders
        assert len(holders) == 2
        assert lost not in holders
        for name in holders:
            assert await everything(nodes.replicas, located(data, name)) == data

    with_nodes(3, body)


def test_a_stream_that_loses_all_its_nodes_fails() -> None:
    async def body(nodes: Nodes) -> None:
        writer = await nodes.replicas.open_writer(GENERATION, Policy(copies=1))
        await writer.write(bytes(10 << 20))
        [target] = writer._targets

        async def something_was_taken() -> bool:
            return target.upload.taken_bytes > 0

        await eventually(something_was_taken)
        await nodes.stop_node(target.node.node)

        async def rest() -> None:
            await writer.write(bytes(10 << 20))
            await writer.finish(digest(bytes(20 << 20)))

        with pytest.raises(Unavailable):
            await rest()
        await writer.abort()

    with_nodes(2, body)


def test_one_copy_at_once_is_enough_for_an_asynchronous_write() -> None:
    async def body(nodes: Nodes) -> None:
        await nodes.stop_node("n1")
        await nodes.stop_node("n3")
        for number, size in enumerate([5000, LARGE, 6 << 20]):
            assert (await write(nodes, size, number, Policy(replication="async")))[1] == {"n2"}
            with pytest.raises(Unavailable):
                await write(nodes, size, number, Policy(replication="sync"))

    with_nodes(3, body)


def test_a_node_that_has_just_come_raises_the_quorum_of_the_next_write() -> None:
    async def body(nodes: Nodes) -> None:
        assert (await write(nodes, 5000, 0))[1] == {"n1"}
        await nodes.start_node("n2")
        nodes.replicas._map_until = 0.0               # a little later
        assert (await write(nodes, 5000, 1))[1] == {"n1", "n2"}
        await nodes.start_node("n3")
        nodes.replicas._map_until = 0.0
        assert len((await write(nodes, LARGE, 2))[1]) >= 2

    with_nodes(1, body)


# Reading

@pytest.mark.parametrize("size", [5000, 5 << 20])
def test_a_reader_asks_another_node_when_one_takes_long(size: int) -> None:
    async def body(nodes: Nodes) -> None:
        data, holders = await write(nodes, size, GENERATION.sequence, Policy(replication="all"))
        held = Held(nodes, "n1")
        began = time.monotonic()
        for _ in range(10):
            assert await everything(nodes.replicas, located(data, *sorted(holders))) == data
        assert time.monotonic() - began < 2.0
        assert held.reads < 10, "it is asked last by now"
        held.gate.set()

    with_nodes(3, body)


def test_a_folder_of_this_host_that_hangs_is_read_around(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(nodes: Nodes) -> None:
        data, _ = await write(nodes, LARGE, GENERATION.sequence, Policy(replication="all"))
        near = Replicas(nodes.metadata, SECRET, local={NodeId("n1"): f"{nodes.folder}/n1/chunks"})
        gate = asyncio.Event()

        async def hangs(*given: object) -> bytes:
            await gate.wait()
            raise AssertionError

        near._local[NodeId("n1")].read = hangs  # type: ignore[method-assign, assignment]
        assert await everything(near, located(data, "n1", "n2")) == data
        await near.stop()

    with_nodes(2, body)


def test_hedges_are_few_and_come_back() -> None:
    async def body() -> None:
        hedges, asked = Hedges(), list[NodeId]()
        slow, quick = NodeId("slow"), NodeId("quick")

        async def fetch(node: NodeId) -> bytes:
            asked.append(node)
            await asyncio.sleep(0.02 if node == slow else 0)
            return b"x"

        for _ in range(READS):
            await first_good([slow, quick], fetch, lambda node: 0.001, hedges, lambda node, error: None)
        assert asked.count(quick) <= hedging.HEDGES_AT_ONCE + READS * hedging.HEDGE_SHARE + 1
        assert asked.count(quick) >= hedging.HEDGES_AT_ONCE

    asyncio.run(body())


def test_the_quicker_source_is_kept_for_the_next_piece_and_a_failed_one_is_dropped() -> None:
    async def body() -> None:
        sources, failed = [NodeId("slow"), NodeId("bad"), NodeId("good")], list[NodeId]()

        async def fetch(node: NodeId) -> bytes:
            if node == "slow":
                await asyncio.sleep(BLOCKING)
            if node == "bad":
                raise Unavailable("down")
            return node.encode()

        def told(node: NodeId, error: ClusterError) -> None:
            failed.append(node)

        assert await first_good(sources, fetch, lambda node: 0.001, Hedges(), told) == b"good"
        assert (sources, failed) == (["good", "slow"], ["bad"])
        assert await first_good([NodeId("bad")], fetch, lambda node: 0.001, Hedges(), told) is None

    asyncio.run(body())


def test_copies_that_have_moved_meanwhile_are_found() -> None:
    async def body(nodes: Nodes) -> None:
        data, _ = await write(nodes, 5000, 7, Policy(copies=1))
        [holder] = await on(nodes, data, 7)
        others = sorted(nodes.servers.keys() - {holder})
        nodes.metadata.rows[digest(data)] = Generation(GENERATION.session, 7), {NodeId(holder)}
        old = located(data, *others, generation=Generation(GENERATION.session, 6))
        assert await everything(nodes.replicas, old) == data
        lists = [await server.store.damage(10) for server in nodes.servers.values()]
        assert lists == [[], [], []], "nothing is damaged where nothing is listed"

    with_nodes(3, body)


# Links

def answers_nothing(address: str) -> socket.socket:
    """Connections are made by the kernel, and that is all."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(address.removeprefix("unix:"))
    server.listen(100)
    return server


def test_a_host_that_answers_nothing_costs_the_first_request_a_second_and_the_next_ones_nothing(
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage_node.client.CONNECT_TIMEOUT_S", 0.3)

    async def body(nodes: Nodes) -> None:
        address = f"unix:{nodes.folder}/dead.sock"
        server = answers_nothing(address)
        client = NodeClient(address, SECRET)
        data = os.urandom(100)
        with pytest.raises(Unavailable):
            await client.get(digest(data), GENERATION, 0, 100)
        assert not client.standing.may_read(time.monotonic())
        began = time.monotonic()
        for _ in range(100):
            with pytest.raises(Unavailable):
                await client.get(digest(data), GENERATION, 0, 100)
        assert time.monotonic() - began < 0.2
        assert not await client.probe()
        server.close()
        os.unlink(f"{nodes.folder}/dead.sock")
        os.link(f"{nodes.folder}/n1.sock", f"{nodes.folder}/dead.sock")
        assert await client.probe()
        assert client.standing.may_read(time.monotonic())
        await client.disk()
        client.close()

    with_nodes(1, body)


def test_a_dead_host_in_the_map_does_not_hold_up_reads_and_writes() -> None:
    async def body(nodes: Nodes) -> None:
        server = answers_nothing(f"unix:{nodes.folder}/dead.sock")
        nodes.metadata.map[NodeId("dead")] = NodeInfo(
            node=NodeId("dead"), incarnation=bytes(16), address=f"unix:{nodes.folder}/dead.sock", capacity_bytes=1 << 50)
        nodes.replicas.look_again()
        for number, size in enumerate([5000, LARGE, 5000, LARGE, 5000]):
            began = time.monotonic()
            data, holders = await write(nodes, size, number)
            assert holders == {"n1", "n2"}
            generation = Generation(GENERATION.session, number)
            assert await everything(nodes.replicas, located(data, "dead", "n1", generation=generation)) == data
            assert time.monotonic() - began < 0.9, "a second is what connecting may take"
        server.close()

    with_nodes(2, body)


def test_whoever_waits_for_a_link_that_is_given_up_is_told_so_and_not_cancelled() -> None:
    async def body(nodes: Nodes) -> None:
        server = answers_nothing(f"unix:{nodes.folder}/dead.sock")
        client = NodeClient(f"unix:{nodes.folder}/dead.sock", SECRET)
        asking = asyncio.ensure_future(client.disk())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        client.close()
        with pytest.raises(Unavailable):
            await asking
        server.close()

    with_nodes(1, body)


def test_a_link_that_hangs_is_let_go_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage_node.client.HANGING_S", 0.1)
    monkeypatch.setattr("storage_node.client.PROBE_TIMEOUT_S", 0.1)

    async def body(nodes: Nodes) -> None:
        await write(nodes, 5000, 0)
        [link] = nodes.servers["n2"]._wire._links
        assert link._transport is not None
        link._transport.pause_reading()               # a process that was stopped
        await write(nodes, 5000, 1)
        standing = nodes.replicas.standing(NodeId("n2"))
        assert standing.writes.open >= 1
        client = nodes.replicas.client(nodes.metadata.map[NodeId("n2")])

        async def let_go() -> bool:
            await client.probe()
            return standing.writes.open == 0

        await eventually(let_go)

    with_nodes(3, body)


# What a process thinks of a node

def test_the_median_follows_what_a_node_does() -> None:
    pace, now = Pace(), 0.0
    for number in range(400):
        took = 0.001 if number % 10 else 1.0          # one in ten is slow: not the median's business
        pace.asked(now)
        pace.answered(now, now + took)
        now += took
    assert 0.0005 < pace.median_s < 0.003
    for _ in range(100):
        pace.took(0.1)
    assert 0.05 < pace.median_s < 0.2


def test_a_node_that_was_not_asked_for_a_while_gets_a_chance_again() -> None:
    pace = Pace()
    pace.asked(100.0)
    for _ in range(60):
        pace.took(1.0)
    pace.given_up()
    assert pace.expected_s(101.0) > 0.5
    assert pace.expected_s(120.0) < 0.01
    pace.asked(120.0)
    pace.given_up()
    assert pace.expected_s(121.0) > 0.5, "one more bad answer is enough"


def test_silence_makes_suspect_and_an_answer_ends_it() -> None:
    pace = Pace()
    pace.asked(10.0)
    pace.asked(10.1)
    assert not pace.suspect(10.2)
    assert pace.suspect(12.0)
    pace.answered(10.1, 12.1)
    assert not pace.suspect(12.2)
    assert pace.suspect(13.2), "the other one has no answer yet"
    pace.given_up()
    assert not pace.suspect(20.0)
    pace.blame(20.0)
    assert pace.suspect(20.1)
    pace.blame(20.2)
    assert not pace.suspect(23.0)
    pace.blame(23.0)
    assert pace.suspect(26.0), "longer each time"
    assert not pace.suspect(28.0)
    pace.asked(28.0)
    pace.answered(28.0, 28.1)
    pace.blame(29.0)
    assert not pace.suspect(31.1), "but not after it was good"

