"""One simulation: the loop, the network, the machines; and what stands in for the real world while it runs.

`Simulation.run` replaces clocks, randomness, and the opening of files and databases in the whole process until it ends,
so nothing else may run beside it (the tests start it in a process of its own). Everything random comes from the seed.
"""

import asyncio
import contextlib
import hashlib
import itertools
import logging
import os
import random
import secrets
import shutil
import sqlite3
import tempfile
import time
import zlib
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pysyncobj.node
import pysyncobj.syncobj

from consensus import commits
from consensus.core import clock as product_clock
from consensus.core.wire import Link
from tests.sim.clock import CURRENT, Process, VirtualLoop
from tests.sim.disk import Files
from tests.sim.network import Network

BEGAN_S = 1_800_000_000
"""The wall clock at the simulation's beginning."""

EVENTS_KEPT = 400
"""Of the events before a failure, so many are shown."""


class Violation(AssertionError):
    """A promise is broken."""


class Exited(BaseException):
    """In a process that has ended itself: nothing of it goes on."""


class World:
    """What everything in a simulation shares."""

    def __init__(self, seed: int, folder: str) -> None:
        self.seed, self.folder = seed, folder
        self.loop = VirtualLoop()
        self.files = Files()
        self._trace = hashlib.sha256()
        self._chances: dict[str, random.Random] = {}
        self.network = Network(self.loop, self.chance("network"), self.trace)
        self.loop.network = self.network
        self.events: deque[str] = deque(maxlen=EVENTS_KEPT)
        self.violations: list[str] = []
        self.before_first: list[str] = []
        """The events before the first violation, and it."""
        self.machines: dict[str, Any] = {}
        self.counts: dict[str, int] = {}
        self.processes: list[Process] = []
        """All that ever were: what is left of a dead one must not be collected while others run."""

    def chance(self, what: str) -> random.Random:
        """A source of its own for each purpose, so that one more question in one place changes nothing elsewhere."""
        if what not in self._chances:
            self._chances[what] = random.Random(zlib.crc32(f"{self.seed} {what}".encode()))
        return self._chances[what]

    def trace(self, event: str) -> None:
        """Part of the hash."""
        self._trace.update(f"{self.loop._now:.6f} {event}\n".encode())

    @property
    def hash(self) -> str:
        return self._trace.hexdigest()[:16]

    def note(self, event: str) -> None:
        """Worth showing when something fails."""
        self.trace(event)
        self.events.append(f"{self.loop._now:9.4f} {event}")

    def count(self, what: str, by: int = 1) -> None:
        self.counts[what] = self.counts.get(what, 0) + by

    def violation(self, what: str) -> None:
        if what not in self.violations:
            self.note(f"VIOLATION {what}")
            if not self.violations:
                self.before_first = list(self.events)
            self.violations.append(what)

    def exit(self, status: int) -> None:
        """A process ends itself at once."""
        process = CURRENT.get()
        assert process is not None
        self.note(f"{process.name} exits with status {status}")
        process.kill()
        raise Exited

    def machine_at(self, address: str) -> Any:
        return self.machines[address.rsplit(":", 1)[0]]


class _Log(logging.Handler):
    """What the product says goes to the events."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.INFO)
        self._world = world
        self._said: deque[str] = deque(maxlen=12)

    def emit(self, record: logging.LogRecord) -> None:
        process = CURRENT.get()
        if process is None or not process.dead:
            text = record.getMessage()
            if record.exc_info and record.exc_info[1] is not None:
                text += f" [{record.exc_info[1]!r}]"
            said = f"{process.name if process else '-'}: {text}"
            if said not in self._said:                     # again and again: once in a while is enough
                self._world.events.append(f"{self._world.loop._now:9.4f} {said}")
            self._said.append(said)
            if record.levelno >= logging.ERROR and record.exc_info and record.name != "asyncio":
                self._world.violation(f"{process.name if process else '-'} logged a traceback: {text}")


def run(seed: int, work: Callable[[World], Coroutine[Any, Any, None]]) -> World:
    """Carry out one simulation; what it found is in the world that is returned."""
    base = "/dev/shm" if os.path.isdir("/dev/shm") else None
    folder = tempfile.mkdtemp(prefix="sim-", dir=base)
    kept = random.getstate()
    world = World(seed, folder)
    try:
        with _in_place(world):
            task = world.loop.create_task(work(world))
            task.add_done_callback(lambda task: world.loop.stop())
            try:
                world.loop.run_forever()
                task.result()
            except AssertionError as error:
                world.violation(f"{type(error).__name__}: {error}")
            for failure in world.loop.failures:
                world.violation(f"unhandled: {failure}")
    finally:
        random.setstate(kept)
        for machine in world.machines.values():
            machine.forget()
        shutil.rmtree(folder, ignore_errors=True)
    return world


@contextlib.contextmanager
def _in_place(world: World) -> Iterator[None]:
    """The real world is out of sight."""
    loop, chance, files = world.loop, world.chance("product"), world.files
    random.seed(world.seed)

    def monotonic() -> float:
        return 1000.0 + loop.time()

    def wall() -> float:
        process = CURRENT.get()
        return BEGAN_S + loop.time() + (process.machine.skew_s if process is not None else 0.0)

    numbers = itertools.count()
    places: list[tuple[Any, str, Any]] = [
        (Link, "__hash__", lambda link: link.__dict__.setdefault("_number", next(numbers))),
        (time, "monotonic", monotonic), (time, "perf_counter", monotonic), (time, "time", wall),
        (time, "time_ns", lambda: int(wall() * 1e9)), (time, "clock_gettime", lambda which: monotonic()),
        (time, "monotonic_ns", lambda: int(monotonic() * 1e9)),
        (product_clock, "_BEGAN_S", 1000.0), (product_clock, "_BEGAN_MS", BEGAN_S * 1000),
        (pysyncobj.syncobj, "monotonicTime", monotonic),
        (pysyncobj.node.Node, "__hash__", lambda node: zlib.crc32(str(node.id).encode())),
        (commits._Pending, "__hash__", lambda pending: hash((pending.session.id, pending.sequence))),
        (os, "urandom", chance.randbytes), (random, "_urandom", chance.randbytes),
        (os, "_exit", world.exit), (os, "open", files.open), (os, "close", files.close), (sqlite3, "connect", files.connect),
        (asyncio, "to_thread", _at_once), (secrets, "token_bytes", lambda count=32: chance.randbytes(count)),
    ]
    kept = [(where, name, getattr(where, name)) for where, name, _ in places]
    level, handler = logging.root.level, _Log(world)
    handlers, logging.root.handlers = logging.root.handlers, [handler]
    logging.root.setLevel(logging.INFO)
    for where, name, stand_in in places:
        setattr(where, name, stand_in)
    try:
        yield
    finally:
        for where, name, real in kept:
            setattr(where, name, real)
        logging.root.handlers = handlers
        logging.root.setLevel(level)


async def _at_once(function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Any:
    return function(*arguments, **named)
