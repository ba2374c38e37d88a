"""Members of a cluster serve together, lose each other and come back; their clients notice nothing but time."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from consensus import backup, link, protocol, restore
from consensus.client import MetadataClient
from consensus.config import MetaConfig
from consensus.core.commands import CreateBucket, RegisterNode
from consensus.core.errors import NoSpace, Refused
from consensus.core.ids import BucketId, NodeId
from consensus.core.results import BucketExists, Committed
from consensus.intake import AHEAD_MS_MAX
from consensus.server import MetaServer
from tests.unit.consensus.members import QUIET, SECRET, put
from tests.unit.consensus.trio import Trio, bucket

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio+uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return ("asyncio", {"use_uvloop": True})


@pytest.fixture
async def make_trio(tmp_path: Path) -> AsyncIterator[Callable[..., Trio]]:
    trios: list[Trio] = []

    def make(**options: object) -> Trio:
        trios.append(Trio(tmp_path, **options))  # type: ignore[arg-type]
        return trios[-1]

    yield make
    for trio in trios:
        await trio.close()


@pytest.fixture
async def trio(make_trio: Callable[..., Trio]) -> Trio:
    return make_trio()


def at_home(client: MetadataClient) -> bool:
    """It reads the file on its own host."""
    return client.file is not None


async def keys(client: MetadataClient, bucket: BucketId) -> list[str]:
    return [entry.key for entry in (await client.list_objects(bucket, "", "", "", 1000)).objects]


async def test_what_one_gateway_has_done_all_others_see_at_once(trio: Trio) -> None:
    await trio.serve()
    await trio.led()
    clients = [await trio.client(name) for name in trio.names] + [await trio.client(None)]
    made = await bucket(clients[0], "shared")
    for number in range(12):
        writer, *readers = (*clients[number % 4:], *clients[:number % 4])
        assert isinstance(await writer.commit(put(made, f"{number:02}")), Committed)
        for found in await asyncio.gather(*(keys(reader, made) for reader in readers)):
            assert found == [f"{place:02}" for place in range(number + 1)]
    assert isinstance(await clients[2].commit(CreateBucket(name="shared", account="a", owner="o")), BucketExists)


async def test_machines_that_start_at_once_begin_one_cluster(make_trio: Callable[..., Trio]) -> None:
    trio = make_trio(begins=("m1", "m2", "m3"))
    await trio.serve()
    await trio.led()
    assert all(len(server.status().members) == 3 for server in trio.servers.values())
    assert len({server.status().leader for server in trio.servers.values()}) == 1


async def test_an_empty_machine_begins_nothing_while_others_are_still_starting(make_trio: Callable[..., Trio],
                                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    """All were told that they may begin. One has lost its disk; the others have the cluster and have not looked yet."""
    trio = make_trio(begins=("m1", "m2", "m3"))
    await trio.serve()
    leader = await trio.led()
    made = await bucket(await trio.client(leader), "b")
    for name in trio.names:
        await trio.kill(name)
    trio.wipe("m1")
    opened, may_open = MetaServer._replay, asyncio.Event()

    async def replay(server: MetaServer) -> None:
        if server._name != "m1":
            await may_open.wait()
        await opened(server)

    monkeypatch.setattr(MetaServer, "_replay", replay)
    starting = asyncio.create_task(trio.serve())
    await asyncio.sleep(1.0)
    assert not trio.servers["m1"]._ready
    may_open.set()
    await starting
    await trio.led()
    assert await keys(await trio.client("m1"), made) == []


async def test_a_name_that_is_at_work_is_not_given_to_another_machine(make_trio: Callable[..., Trio], tmp_path: Path) -> None:
    trio = make_trio()
    await trio.serve()
    await trio.led()
    double = Trio(tmp_path / "double", names=("m2",))
    server = double.make("m2", peers=(trio.address("m1"),))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.0):
            await server.start()
    assert len(trio.servers[trio.leader].status().members) == 3
    assert await trio.led()


@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_the_leader_goes_and_another_one_serves(trio: Trio, how: str) -> None:
    await trio.serve()
    leader = await trio.led()
    others = [name for name in trio.names if name != leader]
    clients = [await trio.client(name) for name in others]
    made = await bucket(clients[0], "b")
    done: list[str] = []
    slowest, going = 0.0, True

    async def write(number: int) -> None:
        nonlocal slowest
        place = 0
        while going:
            began = time.monotonic()
            key = f"{number}/{place:04}"
            assert isinstance(await clients[number].commit(put(made, key)), Committed)
            done.append(key)
            slowest, place = max(slowest, time.monotonic() - began), place + 1

    writers = [asyncio.create_task(write(number)) for number in (0, 1)]
    await asyncio.sleep(0.2)
    await (trio.kill(leader) if how == "kill" else trio.stop(leader))
    await trio.led()
    await asyncio.sleep(0.2)
    going = False
    await asyncio.gather(*writers)
    assert sorted(done) == await keys(clients[0], made) == await keys(clients[1], made)
    assert slowest < (3.0 if how == "kill" else 1.0)
    await trio.serve(leader)
    late = await trio.client(leader)
    assert await keys(late, made) == sorted(done)


async def test_a_client_whose_member_is_gone_goes_to_another_and_back(trio: Trio) -> None:
    await trio.serve()
    leader = await trio.led()
    home = next(name for name in trio.names if name != leader)
    client = await trio.client(home)
    made = await bucket(client, "b")
    assert at_home(client)
    await trio.kill(home)
    assert isinstance(await client.commit(put(made, "elsewhere")), Committed)
    assert await keys(client, made) == ["elsewhere"]
    assert not at_home(client), "the file here is nobody's to vouch for"
    await trio.serve(home)
    while not at_home(client):
        await asyncio.sleep(0.02)
    assert await keys(client, made) == ["elsewhere"]


async def test_a_member_that_is_slow_is_passed_over_while_it_is(trio: Trio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "AVOID_S", 0.3)
    await trio.serve()
    leader = await trio.led()
    home = next(name for name in trio.names if name != leader)
    client = await trio.client(home)
    made = await bucket(client, "b")
    slow, quick = True, trio.servers[home].read_index

    async def read_index() -> bytes:
        if slow:
            await asyncio.sleep(1.2)
        return await quick()

    trio.servers[home].read_index = read_index  # type: ignore[method-assign]
    assert await keys(client, made) == []
    assert not at_home(client), "another member is asked"
    for _ in range(10):
        began = time.monotonic()
        assert await keys(client, made) == []
        assert time.monotonic() - began < link.SLOW_S
    slow = False
    while not at_home(client):
        await asyncio.sleep(0.02)
    assert await keys(client, made) == []


async def test_a_member_that_lost_its_folder_comes_back_as_another_one(trio: Trio) -> None:
    await trio.serve()
    leader = await trio.led()
    lost = next(name for name in trio.names if name != leader)
    client = await trio.client(leader)
    made = await bucket(client, "b")
    before = next(m for m in trio.servers[leader]._raft.members if m.name == lost)  # type: ignore[union-attr]
    await trio.kill(lost)
    trio.wipe(lost)
    await client.commit(put(made, "meanwhile"))
    await trio.serve(lost)
    await trio.led()
    after = next(m for m in trio.servers[leader]._raft.members if m.name == lost)  # type: ignore[union-attr]
    assert after.voter
    assert after.incarnation != before.incarnation
    assert await keys(await trio.client(lost), made) == ["meanwhile"]


@pytest.mark.parametrize("what", ["journal", "rot", "sqlite", "incarnation"])
async def test_a_member_whose_state_is_damaged_begins_anew_from_the_others(trio: Trio, what: str) -> None:
    await trio.serve()
    leader = await trio.led()
    lost = next(name for name in trio.names if name != leader)
    client = await trio.client(leader)
    made = await bucket(client, "b")
    for number in range(20):
        await client.commit(put(made, f"{number:02}"))
    await trio.kill(lost)
    segments = sorted((trio.meta(lost) / "journal").glob("*.log"))
    if what == "incarnation":
        (trio.meta(lost) / "incarnation").unlink()
    elif what == "journal":
        for segment in segments:
            segment.unlink()
    elif what == "rot":
        raw = bytearray(segments[-1].read_bytes())
        raw[len(raw.rstrip(b"\0")) // 2] ^= 0xFF         # behind it are zeros, written ahead
        segments[-1].write_bytes(raw)
    else:
        for path in trio.meta(lost).glob("meta.*.sqlite*"):
            path.unlink()
    await trio.serve(lost)
    await trio.led()
    assert len(await keys(await trio.client(lost), made)) == 20
    assert trio.failures[lost] == []


async def test_damage_everywhere_is_no_reason_to_forget_everything(trio: Trio) -> None:
    """Nobody begins anew before somebody else serves."""
    await trio.serve()
    await trio.led()
    await bucket(await trio.client("m1"), "b")
    for name in trio.names:
        await trio.kill(name)
        segment = sorted((trio.meta(name) / "journal").glob("*.log"))[-1]
        raw = bytearray(segment.read_bytes())
        raw[len(raw.rstrip(b"\0")) // 2] ^= 0xFF         # behind it are zeros, written ahead
        segment.write_bytes(raw)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.5):
            await trio.serve()
    trio.servers.clear()
    for name in trio.names:
        assert list((trio.meta(name) / "journal").glob("*.log"))


async def test_a_machine_that_comes_back_at_another_address_says_so(trio: Trio, monkeypatch: pytest.MonkeyPatch) -> None:
    await trio.serve()
    leader = await trio.led()
    gone, address = next(name for name in trio.names if name != leader), trio.address
    await trio.kill(gone)
    monkeypatch.setattr(trio, "address", lambda name: f"unix:{trio.folder / name}/new.sock" if name == gone else address(name))
    await trio.serve(gone)
    await trio.led()
    members = {member.name: member for member in trio.servers[leader]._raft.members}  # type: ignore[union-attr]
    assert members[gone].address == trio.address(gone)
    assert members[gone].voter


async def test_a_clock_that_is_years_ahead_does_not_take_everybody_with_it(trio: Trio) -> None:
    """The log's time never goes back: retention would be over for all objects, and for good."""
    await trio.serve()
    leader = await trio.led()

    class Ahead:
        def now_ms(self) -> int:
            return int((time.time() + 10 * 365 * 86400) * 1000)

        def monotonic(self) -> float:
            return time.monotonic()

    wrong = await trio.client(next(name for name in trio.names if name != leader), clock=Ahead())
    await bucket(wrong, "b")
    assert trio.servers[leader]._machine.state.now <= (time.time() + 1) * 1000 + AHEAD_MS_MAX


async def test_alone_a_member_of_a_cluster_goes_no_way_of_its_own(trio: Trio) -> None:
    await trio.serve()
    await trio.led()
    await trio.stop("m2")
    alone = MetaServer(str(trio.meta("m2")), trio.address("m2"), SECRET, config=QUIET)
    with pytest.raises(Refused, match="m1, m2, m3"):
        await alone.start()


async def test_a_backup_is_readable_through_all_members(trio: Trio) -> None:
    await trio.serve()
    leader = await trio.led()
    follower = next(name for name in trio.names if name != leader)
    clients = {name: await trio.client(name) for name in trio.names}
    await bucket(clients[follower], "b")
    made = await clients[follower].take_backup("monday")
    first = {name: await client.read_backup("monday", 0, 4096) for name, client in clients.items()}
    assert len(set(first.values())) == 1
    for client in clients.values():
        (kept,) = await client.list_backups()
        assert kept.file == made
    await clients[follower].drop_backup("monday")
    assert await clients[leader].list_backups() == []


async def test_a_backup_of_a_cluster_begins_a_new_one_that_the_others_join(trio: Trio, tmp_path: Path) -> None:
    await trio.serve()
    await trio.led()
    client = await trio.client("m2")
    made = await bucket(client, "b")
    await client.commit(put(made, "kept"))
    await client.take_backup("b1")
    (tmp_path / "saved").write_bytes(await client.read_backup("b1", 0))
    await client.commit(put(made, "lost"))
    for client in trio.clients:
        await client.stop()
    for name in trio.names:
        await trio.kill(name)
        if name != "m1":
            trio.wipe(name)
    restore.restore(str(tmp_path / "saved"), str(trio.meta("m1")), [], cluster=backup.fingerprint(SECRET), replace=True,
                    now_ms=1)
    await trio.serve()
    await trio.led()
    for name in trio.names:
        assert await keys(await trio.client(name), made) == ["kept"]


async def test_a_machine_that_was_alone_becomes_the_first_of_a_cluster(make_trio: Callable[..., Trio]) -> None:
    trio = make_trio(begins=())
    trio.meta("m1").mkdir(parents=True)
    alone = MetaServer(str(trio.meta("m1")), trio.address("m1"), SECRET, config=QUIET, copies=1)
    await alone.start()
    client = MetadataClient(trio.address("m1"), SECRET, str(trio.meta("m1")))
    await client.start()
    made = await bucket(client, "old")
    await client.commit(put(made, "first"))
    await client.stop()
    await alone.stop()
    await trio.serve()
    await trio.led()
    clients = [await trio.client(name) for name in trio.names]
    await clients[2].commit(put(made, "second"))
    for client in clients:
        assert await keys(client, made) == ["first", "second"]


class FullRoom:
    """As consensus.room.Room of a full disk."""

    refusing = "full"

    def check(self, command: object) -> None:
        raise NoSpace("only 1 MiB is free")

    def check_own(self) -> None:
        """There is still enough for that."""


async def test_a_leader_whose_disk_is_full_lets_another_one_lead(trio: Trio) -> None:
    await trio.serve()
    full = await trio.led()
    client = await trio.client(full)
    made = await bucket(client, "b")
    trio.servers[full]._room = FullRoom()  # type: ignore[assignment]
    began = time.monotonic()
    assert isinstance(await client.commit(put(made, "k")), Committed), "taken by the next leader, while the client waited"
    assert time.monotonic() - began < 2.0
    assert trio.leader != full
    for server in trio.servers.values():
        server._room = FullRoom()  # type: ignore[assignment]
    with pytest.raises(NoSpace):
        await client.commit(put(made, "k2"))


async def test_storage_nodes_that_are_silent_are_down_until_they_speak(make_trio: Callable[..., Trio]) -> None:
    trio = make_trio(config=MetaConfig(housekeeping_s=0.05, down_after_s=0.4, lost_after_s=1.0, session_silence_s=60.0))
    await trio.serve()
    await trio.led()
    looker, *nodes = [await trio.client(name) for name in trio.names]
    for number, node in enumerate(nodes):
        await node.register(RegisterNode(node=NodeId(f"n{number}"), incarnation=b"i" * 16, address="", capacity_bytes=1))

    async def until(*states: str) -> None:
        async with asyncio.timeout(10):
            while tuple(info.state for info in await looker.nodes()) != states:
                await looker.commit(put(made, "k"))
                await asyncio.sleep(0.02)

    made = await bucket(looker, "b")
    await until("down", "down")
    async with asyncio.timeout(10):
        while (await looker.nodes())[1].state != "up":
            await nodes[1]._link.ask(protocol.PING, protocol.encode(list(nodes[1]._commits._sessions)))
    async with asyncio.timeout(10):
        while any(info.counts for info in await looker.nodes()):
            await asyncio.sleep(0.02)


async def test_a_node_that_comes_late_was_not_silent_before(trio: Trio) -> None:
    await trio.serve()
    house = trio.servers[await trio.led()].housekeeper
    nodes = [await trio.client(name) for name in trio.names]
    for number, node in enumerate(nodes):
        house._led_since -= 100.0
        await node.register(RegisterNode(node=NodeId(f"n{number}"), incarnation=b"i" * 16, address="", capacity_bytes=1))
        await house.keep_nodes()
    assert {info.state for info in await nodes[0].nodes()} == {"up"}
