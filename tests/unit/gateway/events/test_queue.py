"""The queue of one target, delivered to a listener that behaves as each test says: order, patience, and nothing lost."""

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from consensus.core.clock import SystemClock
from consensus.core.commands import EventsDone, ReportTarget
from consensus.core.errors import Unavailable
from consensus.core.events import DamagedEvent, Event, QueuedEvent
from consensus.core.results import Done
from gateway.events import queue as delivering
from gateway.events.queue import Rest, TargetQueue
from gateway.events.sending import DeliveryFailed

DAY_MS = 86_400_000


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rests of milliseconds."""
    monkeypatch.setattr(delivering, "REST_S_MIN", 0.001)
    monkeypatch.setattr(delivering, "REST_S_MAX", 0.01)
    monkeypatch.setattr(delivering, "BATCH_S", 0.001)
    monkeypatch.setattr(delivering, "LOOK_S", 0.001)


class Log:
    """The metadata, as far as a queue knows it. `fails` of its next commits are not carried out."""

    def __init__(self, *keys: str, at_ms: int | None = None) -> None:
        self.now_ms = SystemClock().now_ms()
        self.waiting: dict[tuple[int, int], QueuedEvent] = {}
        self.expired: list[str] = []
        self.damaged: list[tuple[int, int]] = []
        self.reports: list[str] = []
        self.fails = 0
        self.page = 500
        for key in keys:
            self.add(key, self.now_ms if at_ms is None else at_ms)

    def add(self, key: str, at_ms: int) -> None:
        order = len(self.waiting) + 1
        self.waiting[order, 0] = QueuedEvent(order=order, place=0, event=Event(
            name="ObjectCreated:Put", rule="r", bucket="b", owner="o", region="", at_ms=at_ms, key=key))

    async def read(self, _: Any, target: str, after: tuple[int, int]) -> list[QueuedEvent]:
        await asyncio.sleep(0)
        return [event for name, event in self.waiting.items() if name > after][:self.page]

    async def commit(self, command: Any) -> Done:
        await asyncio.sleep(0)
        if self.fails:
            self.fails -= 1
            raise Unavailable("no majority")
        if isinstance(command, ReportTarget):
            self.reports.append(command.error)
            return Done()
        assert isinstance(command, EventsDone)
        for name in command.events:
            gone = self.waiting.pop(name, None)
            if command.damaged:
                self.damaged.append(name)
            elif gone is not None and not command.delivered:
                self.expired.append(gone.event.key)
        return Done()


class Listener:
    """`answer` gets the key and how often it came, and raises what it likes."""

    def __init__(self, answer: Callable[[str, int], None] = lambda key, time: None) -> None:
        self._answer = answer
        self.tries: list[str] = []
        self.taken: list[tuple[str, str]] = []        # key, sequencer
        self.at_once = self.most_at_once = 0

    async def send(self, body: bytes) -> None:
        thing = json.loads(body)["Records"][0]["s3"]["object"]
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        self.tries.append(thing["key"])
        self._answer(thing["key"], self.tries.count(thing["key"]))
        self.taken.append((thing["key"], thing["sequencer"]))

    def close(self) -> None:
        pass


def made(log: Log, listener: Listener, held: Callable[[], bool] = lambda: True, connections: int = 4) -> TargetQueue:
    return TargetQueue("hook", listener, log, now_ms=SystemClock().now_ms, connections=connections,  # type: ignore[arg-type]
                       retention_ms=DAY_MS, region="r", held=held)


def deliver(log: Log, listener: Listener, **named: Any) -> TargetQueue:
    queue = made(log, listener, **named)
    asyncio.run(asyncio.wait_for(queue.run(), 20))
    return queue


def in_order(listener: Listener) -> bool:
    """Whether each key's events came in the order of the log, repeats aside."""
    last: dict[str, str] = {}
    for key, sequencer in listener.taken:
        if sequencer < last.get(key, ""):
            return False
        last[key] = sequencer
    return True


def failing(*, of_event: bool, until: int = 3, only: str = "") -> Callable[[str, int], None]:
    def answer(key: str, time: int) -> None:
        if key.startswith(only) and time < until:
            raise DeliveryFailed("it answers 500", of_event=of_event)
    return answer


def test_everything_is_delivered_once_in_the_order_of_each_key() -> None:
    log, listener = Log(*(f"k{number % 7}" for number in range(1200))), Listener()
    deliver(log, listener)
    assert not log.waiting
    assert len(listener.taken) == len(set(listener.taken)) == 1200
    assert in_order(listener)
    assert listener.most_at_once == 4


def test_one_connection_is_one_at_once() -> None:
    log, listener = Log(*map(str, range(20))), Listener()
    deliver(log, listener, connections=1)
    assert listener.most_at_once == 1


def test_a_target_that_is_down_is_tried_with_one_event_until_it_is_back() -> None:
    down = iter([True] * 6)

    def answer(key: str, time: int) -> None:
        if next(down, False):
            raise DeliveryFailed("not reached")

    log, listener = Log(*(f"k{number}" for number in range(50))), Listener(answer)
    queue = deliver(log, listener)
    assert not log.waiting
    assert queue.failures == 6
    assert len(listener.tries) == 56, "while it was down nothing but one event at a time was tried"
    assert log.reports == ["not reached"]


@pytest.mark.parametrize("of_event", [True, False])
def test_order_is_kept_through_failures(of_event: bool) -> None:
    log = Log(*(f"k{number % 5}" for number in range(120)))
    log.page = 20
    tries: Iterator[int] = iter(range(10_000))

    def answer(key: str, time: int) -> None:
        if next(tries) % 9 == 4:
            raise DeliveryFailed("it answers 500", of_event=of_event)

    listener = Listener(answer)
    deliver(log, listener)
    assert not log.waiting
    assert len(set(listener.taken)) == 120
    assert in_order(listener)


def test_an_event_that_is_refused_holds_up_its_key_and_nobody_else() -> None:
    log = Log("bad", *(f"k{number}" for number in range(100)), "bad")
    log.page = 30
    listener = Listener(failing(of_event=True, until=5, only="bad"))
    deliver(log, listener)
    assert not log.waiting
    assert listener.taken[-2:] == [("bad", listener.taken[-2][1]), ("bad", listener.taken[-1][1])]
    assert in_order(listener)
    assert log.reports == [], "the target lives"


def test_a_target_that_refuses_every_event_is_left_in_peace() -> None:
    log, listener = Log(*(f"k{number:03}" for number in range(200))), Listener(failing(of_event=True, until=2))
    held = iter([True] * 12)
    queue = made(log, listener, lambda: next(held, False))
    asyncio.run(asyncio.wait_for(queue.run(), 20))
    assert len(listener.tries) < 30
    assert log.reports == ["it answers 500"]
    assert len(log.waiting) + len(listener.taken) == 200


def test_what_is_too_old_is_given_up() -> None:
    log = Log("old", at_ms=SystemClock().now_ms() - DAY_MS - 1)
    log.add("new", log.now_ms)
    listener = Listener()
    deliver(log, listener)
    assert (log.expired, listener.tries) == (["old"], ["new"])
    assert not log.waiting


def test_what_cannot_be_read_is_put_aside_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    log, listener = Log(*(f"k{number % 3}" for number in range(9))), Listener()
    log.waiting[4, 0] = DamagedEvent(order=4, place=0, raw=b"rot")  # type: ignore[assignment]
    log.page = 2
    deliver(log, listener)
    assert (len(listener.taken), log.damaged, log.waiting) == (8, [(4, 0)], {})
    assert in_order(listener)
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert b"rot".hex() in said

    alone = Log()
    alone.waiting[1, 0] = DamagedEvent(order=1, place=0, raw=b"")  # type: ignore[assignment]
    deliver(alone, Listener())
    assert alone.damaged == [(1, 0)]


def test_an_event_that_nobody_takes_grows_old() -> None:
    log = Log("bad", at_ms=SystemClock().now_ms() - DAY_MS + 50)
    deliver(log, Listener(failing(of_event=True, until=10**9)))
    assert log.expired == ["bad"]


def test_what_could_not_be_said_is_delivered_again() -> None:
    log, listener = Log(*map(str, range(10))), Listener()
    log.fails = 2
    queue = made(log, listener)

    async def work() -> None:
        for _ in range(5):
            try:
                await queue.run()
            except Unavailable:
                continue
    asyncio.run(asyncio.wait_for(work(), 20))
    assert not log.waiting
    assert {key for key, _ in listener.taken} == set(map(str, range(10)))


def test_what_could_not_be_said_is_said_first() -> None:
    """Else an earlier event of a key would come once more after a later one."""
    log, listener = Log("a", "b"), Listener()
    log.fails = 2
    queue = made(log, listener)

    async def work() -> None:
        with pytest.raises(Unavailable):
            await queue.run()
        log.add("a", log.now_ms)
        await queue.run()
    asyncio.run(asyncio.wait_for(work(), 20))
    assert not log.waiting
    assert in_order(listener)
    assert [key for key, _ in listener.taken] == ["a", "b", "a"]


def test_it_ends_when_the_duty_is_anothers() -> None:
    log, listener = Log(*map(str, range(1000))), Listener()
    held = iter([True] * 20)
    deliver(log, listener, held=lambda: next(held, False))
    assert len(listener.taken) < 25
    assert len(log.waiting) == 1000 - len(listener.taken), "what was delivered is said"


def test_cancelled_it_still_says_what_was_delivered() -> None:
    log, listener = Log(*map(str, range(1000))), Listener()

    async def work() -> None:
        running = asyncio.create_task(made(log, listener).run())
        while len(listener.taken) < 100:
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    asyncio.run(asyncio.wait_for(work(), 20))
    assert len(log.waiting) == 1000 - len(set(listener.taken))


def test_rests_grow_and_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivering, "REST_S_MIN", 1.0)
    monkeypatch.setattr(delivering, "REST_S_MAX", 300.0)
    least, most = Rest(lambda: 0.0), Rest(lambda: 0.999999)
    shortest = [least.failed() for _ in range(12)]
    longest = [most.failed() for _ in range(12)]
    assert shortest == [0.5, 1, 2, 4, 8, 16, 32, 64, 128, 150, 150, 150]
    assert all(long < 2 * short + 0.001 for short, long in zip(shortest, longest, strict=True))
    most.succeeded()
    assert most.failed() < 1
    for _ in range(5000):
        assert most.failed() <= 300


def test_keys_that_wait_cost_no_time_while_they_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """All events belong to keys that were refused: each walk through the queue is followed by a pause."""
    monkeypatch.setattr(delivering, "REST_S_MIN", 0.02)
    monkeypatch.setattr(delivering, "REST_S_MAX", 0.02)
    monkeypatch.setattr(delivering, "LOOK_S", 0.02)
    log, listener = Log(*(f"k{number}" for number in range(20))), Listener(failing(of_event=True, until=10**9))

    async def work() -> float:
        queue = made(log, listener)
        began = asyncio.get_running_loop().time()
        for _ in range(10):
            assert await queue._walk()
        return asyncio.get_running_loop().time() - began
    assert asyncio.run(work()) > 0.05, "ten walks, with a pause of 10 to 20 ms after each"


def test_keys_whose_events_are_gone_are_forgotten() -> None:
    """An admin has given them up, or a full queue has dropped them."""
    log, listener = Log("gone", "left"), Listener(failing(of_event=True, until=3))
    queue = made(log, listener)

    async def work() -> None:
        running = asyncio.create_task(queue.run())
        while not listener.tries.count("gone"):
            await asyncio.sleep(0)
        log.waiting = {name: event for name, event in log.waiting.items() if event.event.key != "gone"}
        await running
    asyncio.run(asyncio.wait_for(work(), 20))
    assert not log.waiting
    assert not queue._keys
