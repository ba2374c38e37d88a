"""Nodes and replicas over real sockets: quorums, failures, damage, streams that end early, strangers."""

import asyncio
import os
from pathlib import Path

import pytest

from consensus.core.errors import Corrupt, NoSpace, Refused, Unavailable
from consensus.core.ids import Generation, NodeId, SessionId, digest
from consensus.core.wire import WireClient
from storage_node import client, protocol
from storage_node.chunk import BLOCK_BYTES, SMALL_BYTES_MAX, file_name
from storage_node.client import NodeClient
from storage_node.errors import NotHere
from storage_node.replicas import Policy, Replicas
from storage_node.segments import segment_path
from storage_node.server import NodeLink
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

SIZES = [1, 4096, BLOCK_BYTES, SMALL_BYTES_MAX, SMALL_BYTES_MAX + 1, 3 * BLOCK_BYTES + 5, 5 * (1 << 20) + 12345]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("piece", [1 << 20, 100_001])
def test_what_is_written_is_read_from_here_and_from_afar(size: int, piece: int) -> None:
    async def body(nodes: Nodes) -> None:
        data = os.urandom(size)
        holders = await nodes.write(data, piece=piece)
        [holder] = holders
        assert holder.incarnation == nodes.servers["n1"].store.incarnation
        near = nodes.local()
        for replicas in (nodes.replicas, near):
            assert await everything(replicas, located(data, "n1")) == data
            for start in (0, 1, size // 2, size - 1):
                for length in (1, 100, BLOCK_BYTES + 1):
                    if start + length <= size:
                        part = located(data, "n1", start=start, length=length)
                        assert await everything(replicas, part) == data[start:start + length]
        await near.stop()

    with_nodes(1, body)


def test_a_small_write_that_its_only_node_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(nodes: Nodes) -> None:
        data = os.urandom(4096)
        await nodes.replicas.write(data, digest(data), GENERATION)      # there is a link now
        client_of_node = next(iter(nodes.replicas._clients.values()))
        monkeypatch.setattr(client, "DEADLINE_S", 0.02)
        monkeypatch.setattr(client, "SWEEP_S", 0.01)
        monkeypatch.setattr(NodeLink, "_put", lambda *request: None)
        with pytest.raises(Unavailable, match="did not store"):
            await nodes.replicas.write(data, digest(data), GENERATION)

        async def forgotten() -> bool:
            return not client_of_node._due

        await eventually(forgotten)

    with_nodes(1, body)


def test_a_small_chunk_is_read_at_once_by_a_gateway_on_the_host() -> None:
    async def body(nodes: Nodes) -> None:
        data = os.urandom(4096)
        await nodes.replicas.write(data, digest(data), GENERATION)
        near = nodes.local()
        assert near.read_now(located(data, "n1")) == data
        assert near.read_now(located(data, "n1", start=7, length=9)) == data[7:16]
        assert near.read_now(located(data, "elsewhere")) is None
        assert nodes.replicas.read_now(located(data, "n1")) is None
        assert near.read_now(located(b"unknown", "n1")) is None
        await near.stop()

    with_nodes(1, body)


def test_buffers_may_be_used_again_after_write() -> None:
    async def body(nodes: Nodes) -> None:
        data = os.urandom(6 << 20)
        buffer = bytearray(1 << 20)
        writer = await nodes.replicas.open_writer(GENERATION)
        for start in range(0, len(data), len(buffer)):
            buffer[:] = data[start:start + len(buffer)]
            await writer.write(memoryview(buffer)[:300_000])
            await writer.write(memoryview(buffer)[300_000:])
            buffer[:] = bytes(len(buffer))
        await writer.finish(digest(data))
        assert await everything(nodes.replicas, located(data, "n1")) == data

    with_nodes(1, body)


@pytest.mark.parametrize("size", [5000, SMALL_BYTES_MAX + 5000])
def test_three_copies_two_are_enough_and_the_third_announces_itself(size: int) -> None:
    async def body(nodes: Nodes) -> None:
        data = os.urandom(size)
        holders = await nodes.write(data)
        assert len(holders) >= 2
        nodes.metadata.list_copy(digest(data), GENERATION, *names(holders))
        late = next(iter({"n1", "n2", "n3"} - names(holders)), None)

        async def all_three() -> bool:
            for server in nodes.servers.values():
                server.settler.kick()
            return nodes.metadata.rows[digest(data)][1] == {"n1", "n2", "n3"}

        await eventually(all_three)
        assert late is None or await everything(nodes.replicas, located(data, late)) == data

    with_nodes(3, body)


@pytest.mark.parametrize("size", [5000, SMALL_BYTES_MAX + 5000])
def test_one_node_of_three_down_writes_go_on_two_down_they_do_not(size: int) -> None:
    async def body(nodes: Nodes) -> None:
        await nodes.stop_node("n2")
        data = os.urandom(size)
        assert names(await nodes.write(data)) == {"n1", "n3"}
        await nodes.stop_node("n3")
        with pytest.raises(Unavailable):
            await nodes.write(os.urandom(size))
        await nodes.start_node("n3")
        assert names(await nodes.write(os.urandom(size))) == {"n1", "n3"}, "noticed without being told"

    with_nodes(3, body)


@pytest.mark.parametrize("size", [5000, SMALL_BYTES_MAX + 5000])
@pytest.mark.parametrize("near", [False, True])
def test_a_damaged_copy_is_passed_over_for_a_good_one(size: int, near: bool) -> None:
    async def body(nodes: Nodes) -> None:
        data = os.urandom(size)
        replicas = nodes.local(Policy(replication="all")) if near else Replicas(nodes.metadata, SECRET,
                                                                                policy=Policy(replication="all"))
        writer = await replicas.open_writer(GENERATION)
        await writer.write(data)
        assert names(await writer.finish(digest(data))) == {"n1", "n2"}
        damage(nodes, "n1", data)
        for _ in range(4):                            # whichever is asked first
            assert await everything(replicas, located(data, "n1", "n2")) == data
        assert replicas.read_now(located(data, "n1")) is None
        with pytest.raises(Corrupt):
            await everything(replicas, located(data, "n1"))

        async def remembered() -> bool:
            return len(await nodes.servers["n1"].store.damage(10)) == 1

        await eventually(remembered)
        damage(nodes, "n2", data)
        stream = replicas.read(located(data, "n1", "n2"))
        with pytest.raises(Corrupt):                  # R12: before the first byte
            await anext(stream)
        await replicas.stop()

    with_nodes(2, body)


def test_damage_in_the_middle_ends_the_stream_with_an_error() -> None:
    async def body(nodes: Nodes) -> None:
        data = os.urandom(5 << 20)
        await nodes.write(data)
        damage(nodes, "n1", data, at=3 << 20)
        stream = nodes.replicas.read(located(data, "n1"))
        taken = b""
        while len(taken) < 3 << 20:
            taken += await anext(stream)
        assert taken == data[:3 << 20]
        with pytest.raises(Corrupt):
            await anext(stream)

    with_nodes(1, body)


def damage(nodes: Nodes, name: str, data: bytes, at: int = 100) -> None:
    folder = f"{nodes.folder}/{name}/chunks"
    if len(data) <= SMALL_BYTES_MAX:
        path, at = segment_path(folder, 1), 64 + 96 + at
    else:
        path, at = f"{folder}/{file_name(digest(data), GENERATION.pack())}", 4096 + at
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes((byte[0] ^ 1,)))


@pytest.mark.parametrize("size", [5000, SMALL_BYTES_MAX + 5000])
def test_a_missing_copy_is_passed_over_and_no_copy_is_an_error(size: int) -> None:
    async def body(nodes: Nodes) -> None:
        data = os.urandom(size)
        await nodes.write(data)
        lost = next(iter(nodes.servers))
        store = nodes.servers[lost].store
        await store.remove(await store.generations(digest(data)))
        for _ in range(4):
            assert await everything(nodes.replicas, located(data, "n1", "n2")) == data
        with pytest.raises(Unavailable):
            await everything(nodes.replicas, located(data, lost))
        with pytest.raises(Unavailable):
            await everything(nodes.replicas, located(data, "unknown"))
        assert await everything(nodes.replicas, located(data)) == data, "no node is listed, but one has the bytes"
        with pytest.raises(Corrupt, match="every copy of it has been lost"):
            await everything(nodes.replicas, located(os.urandom(size)))

    with_nodes(2, body)


@pytest.mark.parametrize("size", [5000, SMALL_BYTES_MAX + 5000, 20 << 20])
def test_a_full_disk_is_said_to_be_full_and_is_used_again_once_it_is_not(size: int) -> None:
    async def body(nodes: Nodes) -> None:
        store = nodes.servers["n1"].store
        kept = os.urandom(5000)
        await nodes.write(kept)
        store.health.reserve_bytes, store.health._look_at = 1 << 60, 0.0   # type: ignore[attr-defined]
        with pytest.raises(NoSpace):
            await nodes.write(os.urandom(size))
        assert await everything(nodes.replicas, located(kept, "n1")) == kept
        assert not (await nodes.servers["n1"].store.statistics()).writable
        store.health.reserve_bytes, store.health._look_at = 0, 0.0         # type: ignore[attr-defined]
        data = os.urandom(size)
        await nodes.write(data)
        assert await everything(nodes.replicas, located(data, "n1")) == data
        assert os.listdir(f"{nodes.folder}/n1/chunks/incoming") == []

    with_nodes(1, body)


def test_a_full_disk_of_three_is_not_noticed_by_writers() -> None:
    async def body(nodes: Nodes) -> None:
        store = nodes.servers["n2"].store
        store.health.reserve_bytes, store.health._look_at = 1 << 60, 0.0   # type: ignore[attr-defined]
        for size in (5000, SMALL_BYTES_MAX + 5000, 20 << 20):
            assert names(await nodes.write(os.urandom(size))) == {"n1", "n3"}

    with_nodes(3, body)


def test_a_stream_that_is_given_up_leaves_nothing() -> None:
    async def body(nodes: Nodes) -> None:
        incoming = Path(f"{nodes.folder}/n1/chunks/incoming")

        async def nothing_is_left() -> bool:
            return not list(incoming.iterdir())

        async def something_came() -> bool:
            return any(path.stat().st_size > 1 << 20 for path in incoming.iterdir())

        writer = await nodes.replicas.open_writer(GENERATION)
        await writer.write(bytes(6 << 20))
        await eventually(something_came)
        await writer.abort()
        await eventually(nothing_is_left)

        dying = Replicas(nodes.metadata, SECRET)
        writer = await dying.open_writer(GENERATION)
        await writer.write(bytes(6 << 20))
        await eventually(something_came)
        await dying.stop()                            # its links are lost
        await eventually(nothing_is_left)
        assert await nodes.servers["n1"].store.inventory(None, 10) == []

    with_nodes(1, body)


def test_a_node_that_stops_in_the_middle_of_a_stream_fails_it() -> None:
    async def body(nodes: Nodes) -> None:
        writer = await nodes.replicas.open_writer(GENERATION)
        await writer.write(bytes(2 << 20))
        await nodes.stop_node("n1")
        with pytest.raises(Unavailable):
            await writer.write(bytes(20 << 20))
        await writer.abort()

    with_nodes(1, body)


def test_a_node_of_three_that_stops_in_the_middle_is_left_behind() -> None:
    async def body(nodes: Nodes) -> None:
        data = os.urandom(12 << 20)
        writer = await nodes.replicas.open_writer(GENERATION)
        await writer.write(data[:3 << 20])
        await nodes.stop_node("n3")
        await writer.write(data[3 << 20:])
        assert names(await writer.finish(digest(data))) == {"n1", "n2"}

    with_nodes(3, body)


def test_a_writer_waits_for_a_slow_node_and_memory_stays_bounded() -> None:
    """Promise 8: what a stream has sent and the node has not written yet never exceeds the window."""
    async def body(nodes: Nodes) -> None:
        store = nodes.servers["n1"].store
        gate = asyncio.Event()
        create = store.create

        async def slow_create(generation: Generation, room: int) -> object:
            await gate.wait()
            return await create(generation, room)

        store.create = slow_create  # type: ignore[method-assign, assignment]
        data = os.urandom(16 << 20)
        writer = await nodes.replicas.open_writer(GENERATION)
        sent = 0

        async def send() -> None:
            nonlocal sent
            for start in range(0, len(data), BLOCK_BYTES):
                await writer.write(data[start:start + BLOCK_BYTES])
                sent += BLOCK_BYTES

        sending = asyncio.ensure_future(send())

        async def window_is_full() -> bool:
            return sent >= protocol.WINDOW_BYTES - BLOCK_BYTES

        await eventually(window_is_full)
        for _ in range(200):
            await asyncio.sleep(0)
        assert sent <= protocol.WINDOW_BYTES + SMALL_BYTES_MAX
        gate.set()
        await sending
        await writer.finish(digest(data))
        assert await everything(nodes.replicas, located(data, "n1")) == data

    with_nodes(1, body)


def test_one_stuck_node_of_three_does_not_hold_the_others_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage_node.writing.LAG_S", 0.1)
    monkeypatch.setattr("storage_node.server.STOP_TIMEOUT_S", 0.1)

    async def body(nodes: Nodes) -> None:
        async def never(generation: Generation, room: int) -> object:
            await asyncio.Event().wait()
            raise AssertionError

        nodes.servers["n2"].store.create = never  # type: ignore[method-assign, assignment]
        data = os.urandom(12 << 20)
        assert names(await nodes.write(data)) == {"n1", "n3"}

    with_nodes(3, body)


def test_a_reader_that_stops_early_leaves_no_task_behind() -> None:
    async def body(nodes: Nodes) -> None:
        data = os.urandom(5 << 20)
        await nodes.write(data)
        before = len(asyncio.all_tasks())
        stream = nodes.replicas.read(located(data, "n1"))
        taken = b"".join([await anext(stream) for _ in range(3)])       # and more is on its way
        assert taken == data[:len(taken)]
        await stream.aclose()
        assert len(asyncio.all_tasks()) <= before

    with_nodes(1, body)


def test_a_node_comes_back_with_its_chunks() -> None:
    async def body(nodes: Nodes) -> None:
        data, large = os.urandom(5000), os.urandom(2 << 20)
        await nodes.write(data)
        await nodes.write(large)
        incarnation = nodes.servers["n1"].store.incarnation
        await nodes.stop_node("n1")
        with pytest.raises(Unavailable):
            await everything(nodes.replicas, located(data, "n1"))
        await nodes.start_node("n1")
        assert nodes.servers["n1"].store.incarnation == incarnation
        assert nodes.metadata.log.count("register") == 2
        for body_ in (data, large):
            assert await everything(nodes.replicas, located(body_, "n1")) == body_

    with_nodes(1, body)


def test_the_smaller_requests() -> None:
    async def body(nodes: Nodes) -> None:
        data = os.urandom(5000)
        await nodes.write(data)
        client = NodeClient(nodes.servers["n1"].address, SECRET)
        copy = await client.find(digest(data), GENERATION)
        assert (copy.size, copy.digest) == (5000, digest(data))
        assert await client.inventory(None, 10) == [copy]
        assert await client.inventory((copy.digest, copy.generation), 10) == []
        assert (await client.statistics()).chunks == 1
        await client.report(digest(data), GENERATION)
        with pytest.raises(NotHere):
            await client.find(digest(data), Generation(SessionId(1), 1))
        with pytest.raises(NotHere):
            await client.get(digest(b"unknown"), GENERATION, 0, 1)
        with pytest.raises(Refused):
            await client.get(digest(data), GENERATION, 4999, 2)
        client.close()

    with_nodes(1, body)


@pytest.mark.parametrize(("operation", "payload"), [
    (protocol.PUT, b""), (protocol.PUT, b"x" * 51), (protocol.PUT, b"\xff" * 52), (protocol.PUT, bytes(52)),
    (protocol.BEGIN, b""), (protocol.BEGIN, b"x" * 16), (protocol.GET, b"x"), (protocol.STAT, b""),
    (protocol.INVENTORY, b"\xc1"), (protocol.INVENTORY, b""), (99, b"hello"), (0, b""), (protocol.REPORT, bytes(47)),
    (protocol.BLOCK, b"x"), (protocol.END, b""), (protocol.ABORT, b"junk"),
])
def test_a_malformed_request_costs_its_sender_the_link_at_most(operation: int, payload: bytes) -> None:
    async def body(nodes: Nodes) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        data = os.urandom(5000)
        await nodes.write(data)
        stranger = await nodes.wire("n1")
        answer = stranger.call(operation, payload)
        if operation in (protocol.BLOCK, protocol.END, protocol.ABORT):
            stranger.post(99, stranger.new_request(), b"")     # ignored: the stream may have failed meanwhile
        else:
            try:
                status, _ = await asyncio.wait_for(answer, 5)
                assert status != 0
            except Unavailable:
                assert not stranger.connected
        answer.cancel()
        stranger.close()
        assert await everything(nodes.replicas, located(data, "n1")) == data

    with_nodes(1, body)


@pytest.mark.parametrize("blocks", [[BLOCK_BYTES + 1], [0], [10, 10]])
def test_a_malformed_stream_costs_its_sender_the_link(blocks: list[int]) -> None:
    async def body(nodes: Nodes) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        stranger = await nodes.wire("n1")
        stream = stranger.new_request()
        answer = stranger.answer_to(stream)
        stranger.post(protocol.BEGIN, stream, protocol.BEGIN_BODY.pack(GENERATION.pack(), 0))
        for size in blocks:
            stranger.post(protocol.BLOCK, stream, bytes(size))
        with pytest.raises(Unavailable):
            await asyncio.wait_for(answer, 5)
        assert await nodes.servers["n1"].store.inventory(None, 10) == []

    with_nodes(1, body)


def test_who_does_not_know_the_secret_is_not_heard() -> None:
    async def body(nodes: Nodes) -> None:
        stranger = WireClient(nodes.servers["n1"].address, b"x" * 32)
        with pytest.raises(Refused):
            await stranger.connect()
        other = Replicas(nodes.metadata, b"x" * 32)
        with pytest.raises((Refused, Unavailable)):
            await other.write(b"data", digest(b"data"), GENERATION)
        await other.stop()

    with_nodes(1, body)


def test_many_small_writes_at_once_over_one_connection() -> None:
    async def body(nodes: Nodes) -> None:
        bodies = [os.urandom(100 + number) for number in range(500)]
        await asyncio.gather(*(nodes.replicas.write(data, digest(data), GENERATION) for data in bodies))
        for data in bodies[::25]:
            assert await everything(nodes.replicas, located(data, "n1", "n2", "n3")) == data
        syncs = (await nodes.servers["n1"].store.statistics()).syncs
        assert syncs < len(bodies) / 5, "they share syncs"

    with_nodes(3, body)


def test_the_nodes_are_in_the_map_with_their_disks() -> None:
    async def body(nodes: Nodes) -> None:
        info = nodes.metadata.map[NodeId("n1")]
        assert info.capacity_bytes > 0
        assert info.incarnation == nodes.servers["n1"].store.incarnation
        assert len({node.incarnation for node in nodes.metadata.map.values()}) == 2

    with_nodes(2, body)
