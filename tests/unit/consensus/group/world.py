"""A group of members without sockets and without time: real RaftNodes and journals, a post that loses, delays, repeats and
reorders frames by seed, and a loop that jumps to the next timer. What must hold is checked while it runs.
"""

import asyncio
import random
import selectors
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from consensus.config import MetaConfig
from consensus.core.errors import Unavailable, UnknownOutcome
from consensus.core.model import Member
from consensus.core.results import AnyResult, Drained
from consensus.group import members as configurations
from consensus.group.group import Group
from consensus.group.messages import ANSWERS, Appended, Message, Voted, decode, encode
from consensus.group.post import Receive
from consensus.group.timing import Timing
from consensus.journal import Journal
from consensus.raft import RaftNode
from tests.unit.consensus.crash import Unsynced


class _Jumping(selectors.DefaultSelector):
    """Instead of waiting, time goes on."""

    moment = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("nothing will ever happen again")
        self.moment += max(timeout, 0.0)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.moment

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> "asyncio.Future[Any]":  # type: ignore[override]
        future: asyncio.Future[Any] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


class Net:
    """What happens to frames."""

    def __init__(self, loop: VirtualLoop, chance: random.Random) -> None:
        self.loop, self.chance = loop, chance
        self.posts: dict[str, FakePost] = {}
        self.cut: set[tuple[str, str]] = set()                   # (from, to)
        self.lose = self.repeat = 0.0
        self.delay: tuple[float, float] = (0.0002, 0.002)
        self.on_frame: Callable[[str, str, Message], bool] | None = None
        """Sees each frame that would arrive; True drops it."""
        self.frames = 0

    def carry(self, source: str, target: str, operation: int, payload: bytes) -> None:
        if (source, target) in self.cut or self.chance.random() < self.lose:
            return
        for _ in range(2 if self.chance.random() < self.repeat else 1):
            self.loop.call_later(self.chance.uniform(*self.delay), self._arrive, source, target, operation, payload)

    def _arrive(self, source: str, target: str, operation: int, payload: bytes) -> None:
        post = self.posts.get(target)
        if post is None or post.stopped or (source, target) in self.cut:
            return
        if self.on_frame is not None and self.on_frame(source, target, decode(operation, payload)):
            return
        self.frames += 1
        post.receive(source, operation, payload)

    def reachable(self, source: str, target: str) -> bool:
        post = self.posts.get(target)
        return post is not None and not post.stopped and not {(source, target), (target, source)} & self.cut

    def partition(self, group: set[str]) -> None:
        others = set(self.posts) - group
        self.cut = {(a, b) for a in group for b in others} | {(b, a) for a in group for b in others}

    def inject(self, source: str, target: str, message: Message) -> None:
        """A frame from nowhere."""
        self.posts[target].receive(source, *encode(message))


class FakePost:
    def __init__(self, name: str, net: Net) -> None:
        self.name, self.net = name, net
        self.linked: set[str] = set()
        self.addresses: Mapping[str, str] = {}
        self.stopped = False
        self.redialled: list[str] = []
        self.on_answer: Callable[[Message], None] | None = None

    def start(self, receive: Receive, connected: Callable[[str], None], lost: Callable[[str], None]) -> None:
        self.receive, self.connected, self.lost = receive, connected, lost
        self.net.posts[self.name] = self
        self.net.loop.call_soon(self._dial)

    def keep(self, addresses: Mapping[str, str]) -> None:
        self.addresses = dict(addresses)
        for name in self.linked - addresses.keys():
            self.linked.discard(name)
            self.net.loop.call_soon(self.lost, name)

    def _dial(self) -> None:
        if self.stopped:
            return
        for name in self.addresses:
            if name not in self.linked and self.net.reachable(self.name, name):
                self.linked.add(name)
                self.connected(name)
            elif name in self.linked and self.name_is_down(name):
                self.linked.discard(name)
                self.lost(name)
        self.net.loop.call_later(self.net.chance.uniform(0.05, 0.2), self._dial)

    def name_is_down(self, name: str) -> bool:
        post = self.net.posts.get(name)
        return post is None or post.stopped

    def send(self, name: str, operation: int, payload: bytes) -> None:
        assert operation not in ANSWERS
        if name in self.linked or name not in self.addresses:       # who has dialled us is dialled too
            self.net.carry(self.name, name, operation, payload)

    def answer(self, name: str, operation: int, payload: bytes) -> None:
        assert operation in ANSWERS
        if self.on_answer is not None:
            self.on_answer(decode(operation, payload))
        self.net.carry(self.name, name, operation, payload)

    def redial(self, name: str) -> None:
        self.redialled.append(name)
        if name in self.linked:
            self.linked.discard(name)
            self.net.loop.call_soon(self.lost, name)

    async def stop(self) -> None:
        self.stopped = True


class Broken(AssertionError):
    """A promise does not hold."""


class Ledger:
    """A state machine in memory that survives restarts, as SQLite does; and everybody's committed entries."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.applied = self.applied_term = 0
        self.entries: dict[int, bytes] = {}
        self.members: configurations.Members = ()
        self._open: dict[int, bytes] = {}
        self._members: configurations.Members | None = None

    def apply(self, entry: bytes, index: int) -> list[AnyResult]:
        if index <= self.applied or (self._open and index <= max(self._open)):
            raise Broken(f"entry {index} is applied twice")
        self._open[index] = entry
        self.world.committed_is(index, entry)
        return [Drained(released=index, more=False)]

    def configure(self, members: configurations.Members, index: int) -> None:
        self._members = members
        self.world.committed_is(index, configurations.encode(members))

    def commit(self, applied: int, term: int) -> None:
        if applied < self.applied:
            raise Broken("the applied index goes backwards")
        self.entries.update(self._open)
        if self._members is not None:
            self.members, self._members = self._members, None
        self._open = {}
        self.applied, self.applied_term = applied, term


class Seat:
    """A member's folder, and its process if there is one."""

    def __init__(self, world: "World", name: str) -> None:
        self.world, self.name, self.lives = world, name, 0
        self.incarnation = b""
        self.raft: RaftNode | None = None
        self.disk: Any = Unsynced()
        self.wipe()

    def wipe(self) -> None:
        """An empty folder."""
        assert self.raft is None
        self.lives += 1
        self.incarnation = f"{self.name}.{self.lives}".encode()
        self.folder = self.world.root / f"{self.name}.{self.lives}"
        self.folder.mkdir()
        self.machine = Ledger(self.world)

    @property
    def member(self) -> Member:
        return Member(name=self.name, address=f"{self.name}:1", incarnation=self.incarnation)

    def start(self, *, birth: bool = False, wanted: int = 3) -> None:
        world = self.world
        assert self.raft is None
        self.machine._open, self.machine._members = {}, None
        self.journal = Journal(str(self.folder / "journal"), self.disk, MetaConfig(segment_bytes=4000),
                               applied=self.machine.applied, applied_term=self.machine.applied_term, keep_bytes=world.keep_bytes)
        self.post = FakePost(self.name, world.net)
        self.group = Group(name=self.name, address=f"{self.name}:1", incarnation=self.incarnation, post=self.post,
                           configured=self.machine.members, birth=birth, voters_wanted=wanted, timing=world.timing,
                           now=world.loop.time, chance=world.chance.random)
        self.post.on_answer = self._is_durable
        self.raft = raft = world.make_node(self)
        raft.on_change(lambda: world.leads(self))
        raft.start()

    def _is_durable(self, answer: Message) -> None:
        """What others may count must survive a power cut here."""
        if isinstance(answer, Appended) and answer.success and self.journal.dirty:
            self.world.failures.append(Broken(f"{self.name} acknowledges what it may yet lose"))
        if isinstance(answer, Voted) and answer.granted and not answer.trial and self.journal.dirty:
            self.world.failures.append(Broken(f"{self.name} gives a vote that it may yet forget"))

    def kill(self) -> None:
        """kill -9: what was not synced is gone."""
        raft = self.raft
        assert raft is not None
        raft.failed = True
        raft._loop = None
        if self.group._timer is not None:
            self.group._timer.cancel()
        self.post.stopped = True
        self.journal._pending.clear()
        self.journal.close()
        self.raft = None

    @property
    def leads(self) -> bool:
        return self.raft is not None and self.raft.leads


class World:
    """See the module."""

    def __init__(self, root: Path, seed: int, names: str = "abc", *, wanted: int | None = None) -> None:
        self.root, self.chance = root, random.Random(seed)
        self.loop = VirtualLoop()
        self.net = Net(self.loop, self.chance)
        self.timing = Timing()
        self.keep_bytes = 1 << 20
        self.leaders: dict[int, str] = {}
        self.committed: dict[int, bytes] = {}
        self.acknowledged: dict[int, bytes] = {}
        self.unknown = 0
        self.failures: list[BaseException] = []
        self.make_node: Callable[[Seat], RaftNode] = self._node
        self.seats = {name: Seat(self, name) for name in names}
        self.wanted = wanted if wanted is not None else len(names)
        self._said = 0

    def _node(self, seat: Seat) -> RaftNode:
        return RaftNode(seat.name, seat.journal, seat.machine, self.failures.append, group=seat.group)

    def __enter__(self) -> "World":
        return self

    def __exit__(self, *error: object) -> None:
        for seat in self.seats.values():
            if seat.raft is not None:
                seat.kill()
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self.loop.close()

    # What must hold

    def committed_is(self, index: int, entry: bytes) -> None:
        if self.committed.setdefault(index, entry) != entry:
            raise Broken(f"entry {index} is committed twice: {self.committed[index]!r}, {entry!r}")

    def leads(self, seat: Seat) -> None:
        if seat.leads:
            assert seat.raft is not None
            if self.leaders.setdefault(seat.raft.term, seat.name) != seat.name:
                raise Broken(f"two leaders in term {seat.raft.term}: {self.leaders[seat.raft.term]}, {seat.name}")

    def check(self) -> None:
        """At rest: nobody failed, and everybody has everything that was acknowledged."""
        for failure in self.failures:
            raise failure
        for index, entry in self.acknowledged.items():
            if self.committed.get(index) != entry:
                raise Broken(f"acknowledged entry {index} is lost")
        for seat in self.seats.values():
            if seat.raft is not None and seat.machine.entries != \
                    {index: entry for index, entry in self.committed.items() if entry[:1] != b"\x04"}:
                raise Broken(f"{seat.name} differs")

    # What happens

    def run(self, coroutine: Any) -> Any:
        asyncio.set_event_loop(self.loop)
        return self.loop.run_until_complete(coroutine)

    async def begin(self) -> None:
        """The first gives birth, the others are taken in."""
        first, *others = self.seats.values()
        first.start(birth=True, wanted=self.wanted)
        for seat in others:
            seat.start(wanted=self.wanted)
            await self.take_in(seat)
        await self.until(lambda: all(
            seat.raft is not None and sum(member.voter for member in seat.raft.members) == self.wanted
            for seat in self.seats.values()))

    async def take_in(self, seat: Seat) -> None:
        """As a joiner does: ask whoever leads, until it is done."""
        while True:
            leader = await self.leader()
            try:
                assert leader.raft is not None
                await leader.raft.changes.add(seat.member)
                return
            except (Unavailable, UnknownOutcome):
                await asyncio.sleep(0.1)

    async def until(self, condition: Callable[[], bool], within_s: float = 30.0) -> None:
        end = self.loop.time() + within_s
        while not condition():
            for failure in self.failures:
                raise failure
            if self.loop.time() > end:
                raise Broken(f"not within {within_s} s: {self.state()}")
            await asyncio.sleep(0.01)

    def state(self) -> str:
        return "; ".join(f"{seat.name}: {seat.raft.status() if seat.raft else 'down'}" for seat in self.seats.values())

    async def leader(self, within_s: float = 30.0) -> Seat:
        """Who leads in the newest term, and is known to a majority."""
        def found() -> list[Seat]:
            leading = [seat for seat in self.seats.values() if seat.leads]
            return [seat for seat in leading if seat.raft is not None and sum(
                other.raft is not None and other.raft.leader == seat.name and other.raft.term == seat.raft.term
                for other in self.seats.values()) >= configurations.majority(seat.raft.members)]
        await self.until(lambda: bool(found()), within_s)
        return max(found(), key=lambda seat: seat.raft.term if seat.raft else 0)

    def propose(self, seat: Seat, text: bytes) -> "asyncio.Future[int]":
        """The entry's index, once it is acknowledged."""
        future: asyncio.Future[int] = self.loop.create_future()
        assert seat.raft is not None

        def answer(results: list[AnyResult] | None, error: Exception | None) -> None:
            if future.done():
                return
            if error is not None:
                self.unknown += isinstance(error, UnknownOutcome)
                future.set_exception(error)
                return
            assert results is not None
            (drained,) = results
            assert isinstance(drained, Drained)
            if self.committed.get(drained.released) != text:
                self.failures.append(Broken(f"{text!r} is acknowledged, but entry {drained.released} is another"))
            self.acknowledged[drained.released] = text
            future.set_result(drained.released)

        seat.raft.propose(text, answer)
        return future

    async def write(self, text: bytes) -> int:
        """Through whoever leads; tried until it is acknowledged."""
        while True:
            leader = await self.leader()
            try:
                async with asyncio.timeout(5):
                    return await self.propose(leader, text)
            except (Unavailable, UnknownOutcome, TimeoutError):
                await asyncio.sleep(0.05)

    async def settle(self) -> None:
        """No more faults: everybody comes to have everything."""
        self.net.cut, self.net.lose, self.net.repeat = set(), 0.0, 0.0
        for seat in self.seats.values():
            if seat.raft is None:
                seat.start(wanted=self.wanted)
        last = await self.write(f"last {self._said}".encode())
        self._said += 1
        await self.until(lambda: all(seat.machine.applied >= last for seat in self.seats.values()))
        self.check()
