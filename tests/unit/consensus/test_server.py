"""The member keeps what it answered, answers repeats alike, keeps house, and survives nonsense."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from consensus import housekeeping, protocol, snapshot
from consensus.client import MetadataClient
from consensus.config import MetaConfig
from consensus.core.codec import decode_results
from consensus.core.commands import CreateBucket, DeleteVersion, Drain, Envelope, OpenSession, SetQuota
from consensus.core.errors import Corrupt, NoSpace, NotYet, Refused, Unavailable
from consensus.core.ids import POSITION_BITS, SessionId
from consensus.core.model import Member
from consensus.core.results import BucketCreated, BucketExists, Committed, Deleted
from consensus.core.wire import OK, WireClient
from consensus.journal import JournalFailed
from consensus.room import BRINGING_BYTES, FREEING_BYTES
from consensus.server import MetaServer
from consensus.upgrading import Upgrading
from tests.unit.consensus.crash import FaultyDisk
from tests.unit.consensus.members import SECRET, Place, put

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "asyncio+uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return ("asyncio", {"use_uvloop": request.param.endswith("uvloop")})


@pytest.fixture
async def make_place(tmp_path: Path) -> AsyncIterator[Callable[..., Place]]:
    places: list[Place] = []

    def make(**options: Any) -> Place:
        places.append(Place(tmp_path, **options))
        return places[-1]

    yield make
    for place in places:
        await place.close()


@pytest.fixture
async def place(make_place: Callable[..., Place]) -> Place:
    return make_place()


async def linked(place: Place) -> WireClient:
    wire = WireClient(place.address, SECRET)
    await wire.connect()
    return wire


def envelope(session: int, sequence: int, command: object, low: int = 0) -> Envelope:
    return Envelope(session=SessionId(session), sequence=sequence, low=low, now_ms=1, command=command)  # type: ignore[arg-type]


async def submit(wire: WireClient, *envelopes: Envelope) -> tuple[object, ...]:
    code, payload = await wire.call(protocol.SUBMIT, protocol.encode(envelopes))
    assert code == OK, payload
    return decode_results(payload)


async def test_a_folder_has_one_member(place: Place, make_place: Callable[..., Place]) -> None:
    await place.serve()
    other = make_place()
    with pytest.raises(Refused, match="another process"):
        await other.serve()


async def test_commands_of_many_clients_share_entries_and_each_gets_its_own_answers(place: Place) -> None:
    server = await place.serve()
    clients = [await place.client() for _ in range(4)]
    created = await clients[0].commit(CreateBucket(name="shared", account="a", owner="o"))
    assert isinstance(created, BucketCreated)
    entries = server.status().entries
    outcomes = await asyncio.gather(*(
        client.commit(put(created.bucket, f"{number}/{place}", etag=f"{number}-{place}"))
        for number, client in enumerate(clients) for place in range(50)))
    assert [outcome.etag for outcome in outcomes if isinstance(outcome, Committed)] == [
        f"{number}-{place}" for number in range(4) for place in range(50)]
    assert server.status().entries - entries <= 4
    bucket = await clients[1].bucket_counted("shared")
    assert bucket is not None
    assert bucket.object_count == 200


async def test_everything_answered_is_there_after_kill_and_start(place: Place) -> None:
    await place.serve()
    client = await place.client()
    created = await client.commit(CreateBucket(name="kept", account="a", owner="o"))
    assert isinstance(created, BucketCreated)
    for life in range(4):
        outcomes = await asyncio.gather(*(client.commit(put(created.bucket, f"{life}/{n}")) for n in range(20)))
        assert all(isinstance(outcome, Committed) for outcome in outcomes)
        if life % 2:
            await place.kill()
        else:
            assert place.server is not None
            await place.server.stop()
        await place.serve()
        bucket = await client.bucket_counted("kept")
        assert bucket is not None
        assert bucket.object_count == 20 * (life + 1)
    assert place.failures == []


async def test_a_repeat_gets_the_first_answer(place: Place) -> None:
    await place.serve()
    wire = await linked(place)
    (opened,) = await submit(wire, envelope(0, 0, OpenSession(owner="t")))
    session = opened.session  # type: ignore[attr-defined]
    make = CreateBucket(name="once", account="a", owner="o")
    first = await submit(wire, envelope(session, 1, make, 1), envelope(session, 2, make, 1))
    again = await submit(wire, envelope(session, 2, make, 1), envelope(session, 1, make, 1))
    assert isinstance(first[0], BucketCreated)
    assert isinstance(first[1], BucketExists)
    assert again == (first[1], first[0])
    await place.kill()
    await place.serve()
    wire = await linked(place)
    assert await submit(wire, envelope(session, 1, make, 1)) == (first[0],)


async def test_nonsense_is_refused_and_the_member_goes_on(place: Place) -> None:
    await place.serve()
    wire = await linked(place)
    (opened,) = await submit(wire, envelope(0, 0, OpenSession(owner="t")))
    good = CreateBucket(name="good", account="a", owner="o")
    nonsense = [
        (protocol.SUBMIT, b""), (protocol.SUBMIT, b"\xff\xff"), (protocol.SUBMIT, protocol.encode([])),
        (protocol.SUBMIT, b"\x91" * 100_000 + b"\x01"), (protocol.SUBMIT, protocol.encode([["x"]])),
        (protocol.SUBMIT, protocol.encode([envelope(1, 1, good)]).replace(b"good", b"g\xff\xfed")),
        (protocol.SUBMIT, protocol.encode({"a": 1})),
        (protocol.SUBMIT, protocol.encode([envelope(0, 0, good)])),
        (protocol.SUBMIT, protocol.encode([envelope(0, 0, Drain())])),
        (protocol.SUBMIT, protocol.encode([envelope(1, 1, good)] * 513)),
        (protocol.SUBMIT, protocol.encode([envelope(1, 1, OpenSession(owner="x" * (3 << 20)))])),
        (protocol.PING, b"\x01"), (protocol.QUERY, b""), (protocol.QUERY, protocol.encode(["_bucket"])),
        (protocol.QUERY, protocol.encode(["connect", "/etc/passwd"])), (protocol.QUERY, protocol.encode(["Any"])),
        (protocol.QUERY, protocol.encode(["bucket"])), (protocol.QUERY, protocol.encode(["bucket", 5])),
        (99, b"hello"),
    ]
    for operation, payload in nonsense:
        code, answer = await asyncio.wait_for(wire.call(operation, payload), 5)
        assert code == protocol.REFUSED, (operation, payload[:40], code, answer)
    session = opened.session  # type: ignore[attr-defined]
    (created,) = await submit(wire, envelope(session, 1, good, 1))
    assert isinstance(created, BucketCreated)
    assert place.failures == []


async def test_a_failing_disk_ends_the_member_and_answers_nobody(
    make_place: Callable[..., Place], tmp_path: Path
) -> None:
    disk = FaultyDisk(str(tmp_path))
    place = make_place(disk=disk)
    await place.serve()
    client = await place.client(deadline_s=1.0)
    created = await client.commit(CreateBucket(name="b", account="a", owner="o"))
    assert isinstance(created, BucketCreated)
    disk.fail_step = "journal.fdatasync"
    lost = asyncio.ensure_future(client.commit(put(created.bucket, "lost")))
    while not place.failures:
        await asyncio.sleep(0)
    assert isinstance(place.failures[0], JournalFailed)
    await place.kill()                                         # what on_failure does at once in a real process
    await place.serve()
    assert isinstance(await lost, Committed), "the client asks the next life with the same ticket"


async def test_too_many_waiting_commands_are_sent_away(make_place: Callable[..., Place]) -> None:
    place = make_place(config=MetaConfig(housekeeping_s=3600.0, queue_bytes_max=10_000))
    await place.serve()
    wire = await linked(place)
    make = CreateBucket(name="n" * 50, account="a", owner="o")
    many = protocol.encode([envelope(1, number + 1, make, 1) for number in range(80)])
    codes = [code for code, _ in await asyncio.gather(*(wire.call(protocol.SUBMIT, many) for _ in range(8)))]
    assert OK in codes
    assert protocol.UNAVAILABLE in codes
    assert await wire.call(protocol.SUBMIT, many) != protocol.UNAVAILABLE, "and served again once there is room"


async def test_a_stop_answers_everything_that_was_received(make_place: Callable[..., Place]) -> None:
    place = make_place(config=MetaConfig(housekeeping_s=3600.0, batch_commands_max=10))
    server = await place.serve()
    wire = await linked(place)
    frames = [protocol.encode([envelope(9, number + 1, CreateBucket(name="b", account="a", owner="o"), 1)] * 10)
              for number in range(20)]
    answers = [wire.call(protocol.SUBMIT, frame) for frame in frames]
    while len(server.intake.queue) < len(frames) - 2:
        await asyncio.sleep(0)
    await server.stop()
    place.server = None
    assert {code for code, _ in await asyncio.gather(*answers)} == {OK}


async def test_random_frames_are_answered_and_harm_nothing(place: Place) -> None:
    """Real frames with a few bytes changed, and noise."""
    await place.serve()
    client = await place.client()
    created = await client.commit(CreateBucket(name="b", account="a", owner="o"))
    assert isinstance(created, BucketCreated)
    chance = random.Random(7)
    real = [protocol.encode([envelope(client_session(client), 1000, put(created.bucket, "k"), 1)]),
            protocol.encode([envelope(0, 0, OpenSession(owner="x"))]), protocol.encode(["opened", "b", "k", 4]),
            protocol.encode(["list_objects", int(created.bucket), "", "/", "", 10]), protocol.encode([1, 2, 3])]
    wire = await linked(place)
    for _ in range(400):
        frame = bytearray(chance.choice(real))
        for _ in range(chance.randrange(4)):
            frame[chance.randrange(len(frame))] = chance.randrange(256)
        code, _ = await asyncio.wait_for(wire.call(chance.randint(1, 6), bytes(frame)), 5)
        assert code in (OK, protocol.REFUSED)
    assert place.failures == []
    assert await client.bucket("b") is not None


def client_session(client: MetadataClient) -> int:
    return next(iter(client._commits._sessions))


# Housekeeping

async def test_silent_sessions_end_and_heard_ones_stay(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    server = await place.serve()
    client = await place.client()
    await client.commit(CreateBucket(name="b", account="a", owner="o"))
    wire = await linked(place)
    (silent,) = await submit(wire, envelope(0, 0, OpenSession(owner="silent")))
    await server.housekeeper.end_silent_sessions()
    assert server.status().sessions == 2
    now = time.monotonic()
    monkeypatch.setattr("consensus.housekeeping.time.monotonic", lambda: now + 59)
    code, ended = await wire.call(protocol.PING, protocol.encode(list(client._commits._sessions)))
    assert (code, msgspec.msgpack.decode(ended)) == (OK, [])
    monkeypatch.setattr("consensus.housekeeping.time.monotonic", lambda: now + 61)
    await server.housekeeper.end_silent_sessions()
    assert server.status().sessions == 1
    ids = [silent.session, *client._commits._sessions]  # type: ignore[attr-defined]
    code, ended = await wire.call(protocol.PING, protocol.encode(ids))
    assert msgspec.msgpack.decode(ended) == [silent.session]  # type: ignore[attr-defined]
    later = (server.status().applied_index + 1) << POSITION_BITS
    assert msgspec.msgpack.decode((await wire.call(protocol.PING, protocol.encode([later])))[1]) == [], \
        "one that a new leader has in its log, but has not carried out yet"


async def test_the_queue_is_drained(place: Place) -> None:
    server = await place.serve()
    client = await place.client()
    await client.commit(CreateBucket(name="b", account="a", owner="o"))
    await client.stop()                                       # its session's remains go through the queue
    assert server._machine.has_work(0)
    await server.housekeeper.drain()
    assert not server._machine.has_work(0)
    entries = server.status().commit_index
    await server.housekeeper.drain()
    assert server.status().commit_index == entries, "nothing is proposed when there is nothing to do"


async def test_the_journal_is_trimmed_behind_the_older_of_two_snapshots(make_place: Callable[..., Place]) -> None:
    place = make_place(config=MetaConfig(housekeeping_s=3600.0, segment_bytes=4000))
    server = await place.serve()
    client = await place.client()
    created = await client.commit(CreateBucket(name="b", account="a", owner="o"))
    assert isinstance(created, BucketCreated)

    async def puts(group: int) -> None:
        for number in range(40):
            await client.commit(put(created.bucket, f"{group}/{number}"))

    await puts(0)
    await server.housekeeper.take_snapshot()
    assert server._journal._heads[0].number == 1, "one snapshot is not enough to trim"
    await puts(1)
    await server.housekeeper.take_snapshot()
    older, newer = snapshot.listed(str(place.meta))
    assert server._journal._heads[0].number > 1
    assert server._journal._heads[1].base_index > older.index >= server._journal._heads[0].base_index
    assert newer.index == server.status().applied_index
    await puts(2)
    await client.stop()
    await place.kill()

    # SQLite is lost: the older snapshot and the journal give everything back.
    snapshot.install(older, str(place.meta), place.disk)
    server = await place.serve()
    client = await place.client()
    bucket = await client.bucket_counted("b")
    assert bucket is not None
    assert bucket.object_count == 120
    assert server.serving.generation == 2


async def test_housekeeping_checkpoints_and_snapshots_by_journal_bytes(make_place: Callable[..., Place]) -> None:
    place = make_place(config=MetaConfig(
        housekeeping_s=3600.0, segment_bytes=4000, snapshot_journal_bytes=5000))
    server = await place.serve()
    client = await place.client()
    created = await client.commit(CreateBucket(name="b", account="a", owner="o"))
    assert isinstance(created, BucketCreated)
    for _ in range(200):
        database = Path(server._machine.path).stat().st_size
        due = server._journal.bytes_after(0) >= max(5000, database)
        await server.housekeeper.keep_journal_short()
        assert bool(snapshot.listed(str(place.meta))) == due
        if due:
            break
        await asyncio.gather(*(client.commit(put(created.bucket, f"{number}")) for number in range(50)))
    assert due
    first = snapshot.listed(str(place.meta))
    await server.housekeeper.keep_journal_short()
    assert snapshot.listed(str(place.meta)) == first, "not before as many journal bytes again"


async def test_the_wal_is_kept_short(make_place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "WAL_BYTES", 100_000)
    monkeypatch.setattr(housekeeping, "WAL_BYTES_MAX", 200_000)
    place = make_place()
    server = await place.serve()
    client = await place.client()
    created = await client.commit(CreateBucket(name="b", account="a", owner="o"))
    assert isinstance(created, BucketCreated)
    sizes = []
    for group in range(30):
        await asyncio.gather(*(client.commit(put(created.bucket, f"{group}/{number}")) for number in range(50)))
        sizes.append(server.housekeeper._wal_bytes())
        await server.housekeeper.keep_wal_short()
    assert max(sizes) < 600_000
    assert Path(server._machine.path).stat().st_size > 100_000


# Loss of SQLite, of space

async def filled(place: Place) -> MetaServer:
    """Two snapshots, trimmed segments, and entries after them; then killed."""
    server = await place.serve()
    client = await place.client()
    created = await client.commit(CreateBucket(name="b", account="a", owner="o"))
    assert isinstance(created, BucketCreated)
    for group in range(3):
        for number in range(20):
            await client.commit(put(created.bucket, f"{group}/{number}"))
        if group < 2:
            await server.housekeeper.take_snapshot()
    await client.stop()
    await place.kill()
    return server


def damage(path: Path) -> None:
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    path.write_bytes(b"\0" * 8192)


@pytest.mark.parametrize("how", ["damaged", "missing", "damaged, newer snapshot too"])
async def test_lost_sqlite_comes_back_from_a_snapshot_and_the_journal(
    make_place: Callable[..., Place], how: str
) -> None:
    place = make_place(config=MetaConfig(housekeeping_s=3600.0, segment_bytes=2000))
    path = Path((await filled(place))._machine.path)
    damage(path)
    if how == "missing":
        path.unlink()
    if "newer" in how:
        Path(snapshot.listed(str(place.meta))[-1].path).write_bytes(b"rotten")
    server = await place.serve()
    assert server.serving.generation == 2
    client = await place.client()
    bucket = await client.bucket_counted("b")
    assert bucket is not None
    assert bucket.object_count == 60


async def test_without_a_snapshot_the_journal_gives_everything_back(place: Place) -> None:
    server = await place.serve()
    client = await place.client()
    await client.commit(CreateBucket(name="b", account="a", owner="o"))
    await place.kill()
    path = Path(server._machine.path)
    damage(path)
    await place.serve()
    assert await client.bucket("b") is not None
    await place.kill()
    Path(snapshot.file_of(str(place.meta), 2)).unlink()
    await place.serve()
    assert await client.bucket("b") is not None


async def test_a_damaged_journal_stops_the_member_and_changes_nothing(make_place: Callable[..., Place]) -> None:
    place = make_place(config=MetaConfig(housekeeping_s=3600.0, segment_bytes=2000))
    await filled(place)
    segment = max((place.meta / "journal").glob("*.log"))
    data = bytearray(segment.read_bytes())
    data[150] ^= 1
    segment.write_bytes(data)
    current = (place.meta / "CURRENT").read_bytes()
    for _ in range(2):
        with pytest.raises(Corrupt, match="damaged"):
            await place.serve()
    assert (place.meta / "CURRENT").read_bytes() == current


async def test_a_full_disk_takes_no_data_but_deletes(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    await place.serve()
    client = await place.client()
    created = await client.commit(CreateBucket(name="b", account="a", owner="o"))
    assert isinstance(created, BucketCreated)
    await client.commit(put(created.bucket, "old"))
    clock = time.monotonic()
    monkeypatch.setattr("consensus.room.time.monotonic", lambda: clock)

    def leave(free: int) -> None:
        nonlocal clock
        clock += 10
        monkeypatch.setattr("consensus.room.os.statvfs", lambda folder: SimpleNamespace(f_bavail=free, f_frsize=1, f_flag=0))

    leave(BRINGING_BYTES - 1)
    deleted, *refused = await asyncio.gather(
        client.commit(DeleteVersion(bucket=created.bucket, key="old")),
        *(client.commit(put(created.bucket, f"{number}")) for number in range(5)), return_exceptions=True)
    assert isinstance(deleted, Deleted)
    assert [type(outcome) for outcome in refused] == [NoSpace] * 5
    leave(FREEING_BYTES - 1)
    with pytest.raises(NoSpace):
        await client.commit(DeleteVersion(bucket=created.bucket, key="old"))
    leave(BRINGING_BYTES)
    assert isinstance(await client.commit(put(created.bucket, "new")), Committed)


async def test_a_command_that_waits_for_an_upgrade_takes_no_other_with_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    server = await place.serve()
    client = await place.client()
    created = await client.commit(CreateBucket(name="b", account="a", owner="o"))
    assert isinstance(created, BucketCreated)
    other = Member(name="older", address="nowhere:1", incarnation=b"1")
    raft: Any = SimpleNamespace(members=(other,))
    status: Any = SimpleNamespace(reads=1)
    upgrading = Upgrading("meta-1", raft, lambda address: asyncio.sleep(0, status))
    await upgrading.look()
    monkeypatch.setattr(server.intake, "_said_for_all", upgrading.said_for_all)
    refused, *taken = await asyncio.gather(
        client.commit(SetQuota(bucket=created.bucket, account="", quota=None)),
        *(client.commit(put(created.bucket, f"{number}")) for number in range(5)), return_exceptions=True)
    assert isinstance(refused, NotYet), "and at once: it is not tried again until the deadline"
    assert [type(outcome) for outcome in taken] == [Committed] * 5


# Queries over the wire

async def test_a_query_over_the_wire_gives_what_a_local_one_gives(place: Place) -> None:
    await place.serve()
    local, remote = await place.client(), await place.client(local=False)
    created = await local.commit(CreateBucket(name="b", account="a", owner="o"))
    assert isinstance(created, BucketCreated)
    for number in range(5):
        await local.commit(put(created.bucket, f"k/{number}"))
    bucket = created.bucket
    for query in (
        lambda client: client.bucket("b"), lambda client: client.bucket("none"), lambda client: client.buckets("a"),
        lambda client: client.opened("b", "k/1"), lambda client: client.current(bucket, "k/2"),
        lambda client: client.list_objects(bucket, "", "/", "", 10),
        lambda client: client.list_objects(bucket, "", "", "k/1", 2),
        lambda client: client.list_versions(bucket, "", "", "", None, 10), lambda client: client.nodes(),
        lambda client: client.usage(), lambda client: client.under_replicated(),
        lambda client: client.uploads(bucket, "", "", "", None, 3),
    ):
        assert await query(remote) == await query(local)


async def test_a_stranger_is_not_heard(place: Place) -> None:
    await place.serve()
    with pytest.raises(Refused):
        await WireClient(place.address, b"x" * 32).connect()
    client = MetadataClient(place.address, b"x" * 32, deadline_s=0.3)
    with pytest.raises(Refused):
        await client.start()
    await client.stop()


async def test_nobody_there_is_unavailable(place: Place) -> None:
    with pytest.raises(Unavailable):
        await place.client(deadline_s=0.2)
