"""The worker with a clock of its own: when it looks, how it goes on where it was, and what does not stop it."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from consensus import queries
from consensus.core.commands import LIFECYCLE, AnyCommand, CarryOutLifecycle, SetBucketSetting
from consensus.core.errors import NoSpace
from consensus.core.ids import BucketId
from consensus.core.results import AnyResult
from gateway.duties import Duty
from gateway.lifecycle import progress, scan
from gateway.lifecycle.worker import SCANS_A_DAY, LifecycleWorker
from gateway.s3.headers import STORAGE_CLASSES
from gateway.s3.lifecycle.read import read
from tests.unit.consensus.metadata import Cluster

DAY_S = 86_400
RULES = read(b"<LifecycleConfiguration><Rule><ID>r</ID><Status>Enabled</Status><Filter/><Expiration><Days>1</Days></Expiration>"
             b"</Rule></LifecycleConfiguration>", None, STORAGE_CLASSES, lambda: "none is made")


class World:
    """The metadata as a client sees it, and the clock. `before` is called with each command before it is carried out."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.before: Callable[[AnyCommand], None] = lambda command: None
        self.carried = 0

    async def commit(self, command: AnyCommand) -> AnyResult:
        self.before(command)
        self.carried += isinstance(command, CarryOutLifecycle)
        result: AnyResult = self.cluster.run(command)
        return result

    async def read(self, query: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        return self.cluster.read(query, *arguments, **named)

    async def bucket_setting(self, bucket: BucketId, name: str) -> bytes | None:
        found: bytes | None = self.cluster.read(queries.bucket_setting, bucket, name)
        return found

    def now_ms(self) -> int:
        return self.cluster.now

    def monotonic(self) -> float:
        return self.cluster.now / 1000

    def passes(self, seconds: float) -> None:
        self.cluster.now += int(seconds * 1000)

    # A store

    def bucket(self, name: str, document: bytes | None = None, objects: int = 0) -> BucketId:
        made = self.cluster.bucket(name)
        self.rules(made, msgspec.msgpack.encode(RULES) if document is None else document)
        for number in range(objects):
            self.cluster.put(made, f"{number:03}", b"x")
        return made

    def rules(self, bucket: BucketId, document: bytes) -> None:
        self.cluster.run(SetBucketSetting(bucket=bucket, name=LIFECYCLE, document=document))

    def left(self, bucket: BucketId) -> int:
        return len(self.cluster.read(queries.list_objects, bucket, "", "", "", 1000).objects)

    def worker(self, machine: str = "n1") -> LifecycleWorker:
        duty = Duty(self, self, "lifecycle", f"{machine}/gateway-1")                           # type: ignore[arg-type]
        return LifecycleWorker(self, duty, self, day_seconds=DAY_S)                            # type: ignore[arg-type]


@pytest.fixture
def world(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(scan, "PAGE_ROWS", 10)
    monkeypatch.setattr(scan, "STEPS_AT_ONCE", 4)
    monkeypatch.setattr(scan, "REST_S_MAX", 0.0)
    monkeypatch.setattr(scan, "REST_S_MIN", 0.0)
    return World(Cluster(tmp_path))


def look(worker: LifecycleWorker) -> None:
    asyncio.run(worker.look())


def test_a_bucket_is_looked_through_at_once_four_times_a_day_and_when_its_rules_change(world: World) -> None:
    bucket, worker = world.bucket("b", objects=3), world.worker()
    seen = []
    for seconds in (0, 60, DAY_S / SCANS_A_DAY, 60):
        world.passes(seconds)
        look(worker)
        seen.append(worker.scans)
    assert seen == [1, 1, 2, 2]
    world.rules(bucket, msgspec.msgpack.encode(RULES))
    look(worker)
    assert (worker.scans, world.left(bucket)) == (3, 3)
    world.passes(2 * DAY_S)
    look(worker)
    assert world.left(bucket) == 0
    assert worker.counts.expired == 3


def test_who_takes_over_knows_what_was_done_and_an_idle_store_writes_nothing(world: World) -> None:
    world.bucket("b", objects=3)
    first, second = world.worker("n1"), world.worker("n2")
    for worker in (first, first, second, second):           # the second look of each lets the duty go
        look(worker)
    assert (first.scans, second.scans) == (1, 0)
    index = world.cluster.index
    for _ in range(10):
        world.passes(10)
        look(first)
        look(second)
    assert world.cluster.index == index


def test_a_scan_that_is_broken_off_goes_on_where_it_was_written_down(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SAVE_S", 0.0)
    bucket, first = world.bucket("b", objects=45), world.worker("n1")
    world.passes(2 * DAY_S)

    def power_cut(command: AnyCommand) -> None:
        if world.left(bucket) <= 15:
            raise KeyboardInterrupt

    world.before = power_cut
    with pytest.raises(KeyboardInterrupt):
        look(first)
    world.before, left = lambda command: None, world.left(bucket)
    world.passes(60)
    second = world.worker("n2")
    look(second)
    assert world.left(bucket) == 0
    assert 0 < left <= second.counts.looked < 30, "not all of it again"
    known = asyncio.run(progress.load(world, bucket))       # type: ignore[arg-type]
    assert known is not None
    assert known.ended_ms
    assert 30 <= known.counts.expired <= 45, "what the first did after it wrote is not in its figures"


def test_a_long_bucket_lets_others_have_their_turn(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SAVE_S", 0.0)
    monkeypatch.setattr(scan, "TURN_S", 0.0)
    large, small, worker = world.bucket("a", objects=35), world.bucket("b", objects=1), world.worker()
    world.passes(2 * DAY_S)
    look(worker)
    assert 0 < world.left(large) < 35
    assert world.left(small) == 0
    for _ in range(4):
        look(worker)
    assert world.left(large) == 0


def test_a_full_metadata_disk_does_not_stop_what_makes_room(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then nothing new may be written, and how far it is would be."""
    monkeypatch.setattr(progress, "SAVE_S", 0.0)
    monkeypatch.setattr(scan, "TURN_S", 0.0)
    large, small, worker = world.bucket("a", objects=35), world.bucket("b", objects=1), world.worker()
    world.passes(2 * DAY_S)

    def full(command: AnyCommand) -> None:
        if isinstance(command, SetBucketSetting):
            raise NoSpace("only 40 MiB are free")

    world.before = full
    look(worker)
    assert (world.left(large), world.left(small)) == (0, 0)


def test_requests_have_their_turn_while_many_buckets_are_asked_about(world: World) -> None:
    """Reading does not suspend by itself, and of most buckets there is nothing else to do."""
    for number in range(30):
        world.bucket(f"b{number}")
    look(world.worker("n1"))
    second, turns = world.worker("n2"), 0

    async def work() -> None:
        nonlocal turns
        looking = asyncio.create_task(second.look())
        while not looking.done():
            turns += 1
            await asyncio.sleep(0)
        await looking
    world.passes(60)
    asyncio.run(work())
    assert second.scans == 0
    assert turns > 30


@pytest.mark.parametrize("document", [b"what?", msgspec.msgpack.encode(RULES).replace(b"\xa1r", b"\xa1\xff")])
def test_rules_that_cannot_be_read_stop_one_bucket_and_no_other(world: World, document: bytes) -> None:
    broken, good, worker = world.bucket("a", document), world.bucket("b", objects=1), world.worker()
    world.passes(2 * DAY_S)
    look(worker)
    assert world.left(good) == 0
    known = asyncio.run(progress.load(world, broken))       # type: ignore[arg-type]
    assert known is not None
    assert "cannot be read" in known.trouble
    assert worker.figures()["troubles"] == 1
    look(worker)
    assert worker.figures()["troubles"] == 1, "it is left alone for a while"
    world.rules(broken, msgspec.msgpack.encode(RULES))
    look(worker)
    assert worker.scans == 2


def test_rules_that_change_during_a_scan_end_it(world: World) -> None:
    bucket, worker = world.bucket("b", objects=30), world.worker()
    world.passes(2 * DAY_S)
    kept = msgspec.msgpack.encode(msgspec.structs.replace(RULES, rules=(msgspec.structs.replace(RULES.rules[0], enabled=False),)))

    def other_rules(command: AnyCommand) -> None:
        if isinstance(command, CarryOutLifecycle) and world.carried == 3:
            world.rules(bucket, kept)

    world.before = other_rules
    look(worker)
    assert world.left(bucket) == 30 - 3 * 4
    world.before = lambda command: None
    look(worker)
    assert world.left(bucket) == 30 - 3 * 4
    assert worker.scans == 1


def test_a_gateway_whose_clock_is_ahead_expires_nothing_early(world: World) -> None:
    bucket, worker = world.bucket("b", objects=1), world.worker()
    real = world.now_ms
    world.now_ms = lambda: real() + 10 * DAY_S * 1000       # type: ignore[method-assign]
    look(worker)
    assert world.left(bucket) == 1
