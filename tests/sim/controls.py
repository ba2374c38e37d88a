"""Broken products, each to be caught: a checker that cannot fail proves nothing.

Each control leaves out one rule that a promise rests on, and names the promise of which a violation must be found within
`SEEDS_MAX` seeds.
"""

import contextlib
import functools
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from consensus import machine, queries
from consensus.commits import Commits
from consensus.core.errors import Unavailable, UnknownOutcome
from storage_node import memory
from storage_node.care.settle import Settler
from tests.sim.simulation import simulated
from tests.sim.world import World

SEEDS_MAX = 8

Spoil = Callable[[World], AbstractContextManager[None]]


class Control(NamedTuple):
    """`found` must match a violation."""

    name: str
    spoil: Spoil
    found: str
    members: int = 3


@contextlib.contextmanager
def replaced(*places: tuple[Any, str, Any]) -> Iterator[None]:
    kept = [(where, name, where.__dict__[name]) for where, name, _ in places]
    for where, name, stand_in in places:
        setattr(where, name, stand_in)
    try:
        yield
    finally:
        for where, name, real in kept:
            setattr(where, name, real)


@contextlib.contextmanager
def disks_lie(world: World) -> Iterator[None]:
    """Metadata is acknowledged before it is on a disk."""
    for each in world.machines.values():
        each.disk.lies = True
    yield


@contextlib.contextmanager
def nodes_lie(world: World) -> Iterator[None]:
    """Chunks are acknowledged before they are on a disk."""
    for each in world.machines.values():
        each.store.lies = True
    yield


def pending_goes(world: World) -> AbstractContextManager[None]:
    """A node deletes what a commit may still bring."""
    real = queries.chunk_states

    @functools.wraps(real)
    def hasty(*arguments: Any) -> Any:
        return ["passed" if state == "pending" else state for state in real(*arguments)]

    return replaced((queries, "chunk_states", hasty))


def short_goes(world: World) -> AbstractContextManager[None]:
    """A node deletes copies of live chunks in place of announcing them."""

    async def remove(settler: Settler, copies: Any, now: int) -> None:
        await settler._store.remove(copies)

    return replaced((Settler, "_announce", remove))


def nothing_is_collected(world: World) -> AbstractContextManager[None]:
    async def idle(settler: Settler) -> int:
        return 0

    return replaced((Settler, "round", idle))


def blocks_are_not_checked(world: World) -> AbstractContextManager[None]:
    """Bytes leave as the disk gives them."""
    return replaced((memory, "check_blocks", lambda data, table: None))


def results_are_forgotten(world: World) -> AbstractContextManager[None]:
    """A command that is repeated is carried out again."""
    real = machine.Machine._apply_one

    def forgetful(self: machine.Machine, envelope: Any, position: int) -> Any:
        session = self.sessions.open.get(envelope.session)
        if session is not None:
            session.results.clear()
        return real(self, envelope, position)

    return replaced((machine.Machine, "_apply_one", forgetful))


def unknown_is_called_not_done(world: World) -> AbstractContextManager[None]:
    real = Commits._fail

    def sure(self: Commits, pending: Any, error: Exception) -> None:
        real(self, pending, Unavailable(str(error)) if isinstance(error, UnknownOutcome) else error)  # type: ignore[arg-type]

    return replaced((Commits, "_fail", sure))


def clocks_decide(world: World) -> AbstractContextManager[None]:
    """What is applied depends on who applies it."""
    real = machine.Machine._apply_one

    def timely(self: machine.Machine, envelope: Any, position: int) -> Any:
        self.state.now = max(self.state.now, int(time.time() * 1000))
        return real(self, envelope, position)

    return replaced((machine.Machine, "_apply_one", timely))


CONTROLS = (
    Control("metadata that was acknowledged is not on a disk", disks_lie, "promise 1|promise 4|promise 5", 1),
    Control("chunks that were acknowledged are not on a disk", nodes_lie, "promise 3", 1),
    Control("a copy that a commit may still bring is deleted", pending_goes, "promise 3", 1),
    Control("copies that count are deleted", short_goes, "promise 3", 1),
    Control("nothing is collected", nothing_is_collected, "leak", 1),
    Control("blocks are not checked", blocks_are_not_checked, "promise 2", 1),
    Control("results are forgotten", results_are_forgotten, "promise 4|promise 5", 1),
    Control("an unknown outcome is called not done", unknown_is_called_not_done, "promise 4|promise 6", 1),
    Control("equal logs, different metadata", clocks_decide, "promise 5"),
)


def caught(control: Control, first: int = 1) -> tuple[int, str] | None:
    """The seed that finds it, and what it says."""
    for seed in range(first, first + SEEDS_MAX):
        for violation in simulated(seed, 40.0, control.spoil, control.members).violations:
            if re.search(control.found, violation):
                return seed, violation
    return None
