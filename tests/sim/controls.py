"""Broken products, each to be caught: a checker that cannot fail proves nothing.

Each control leaves out one rule that a promise rests on, and names the promise of which a violation must be found within
`SEEDS_MAX` seeds.
"""

import asyncio
import contextlib
import functools
import hashlib
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import msgspec

from consensus import joining, queries
from consensus.apply import appending, attributes, renaming
from consensus.commits import Commits
from consensus.core.commands import DeleteVersion
from consensus.core.errors import Unavailable, UnknownOutcome
from consensus.core.wire import WireClient
from consensus.group.probes import Probes
from consensus.machine import Machine as StateMachine
from consensus.protocol import Met
from consensus.raft import RaftNode
from storage_node import memory
from storage_node.care.repair import Repair
from storage_node.care.settle import Settler
from tests.sim.machines import NODE_PORT, SECRET, Machine
from tests.sim.network import Identity
from tests.sim.simulation import Script, simulated
from tests.sim.world import World

SEEDS_MAX = 6
SECONDS = 20.0
NO_OPERATION = 9999

HONEST_S = 4.0
"""The cluster has formed by then, and clients are at work."""

Spoil = Callable[[World], AbstractContextManager[None]]


class Control(NamedTuple):
    """`found` must match a violation."""

    name: str
    spoil: Spoil
    found: str
    script: Script | None = None


@contextlib.contextmanager
def replaced(*places: tuple[Any, str, Any]) -> Iterator[None]:
    kept = [(where, name, where.__dict__.get(name)) for where, name, _ in places]
    for where, name, stand_in in places:
        setattr(where, name, stand_in)
    try:
        yield
    finally:
        for where, name, real in kept:
            if real is None:
                delattr(where, name)
            else:
                setattr(where, name, real)


@contextlib.contextmanager
def disks_lie(world: World) -> Iterator[None]:
    """Metadata is acknowledged before it is on a disk. Not from the first: members that find nothing at all wait for somebody who
    does, and nobody can read what is lost."""

    def lie() -> None:
        for each in world.machines.values():
            each.disk.lies = True

    world.loop.call_later(HONEST_S, lie)
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


def listed_goes(world: World) -> AbstractContextManager[None]:
    """A node deletes copies that count, now and then."""
    real, chance = queries.chunk_states, world.chance("control")

    @functools.wraps(real)
    def careless(*arguments: Any) -> Any:
        return ["passed" if state == "listed" and chance.random() < 0.1 else state for state in real(*arguments)]

    return replaced((queries, "chunk_states", careless))


def nothing_is_repaired(world: World) -> AbstractContextManager[None]:
    async def idle(repair: Repair) -> int:
        return 0

    return replaced((Repair, "round", idle))


def nothing_is_collected(world: World) -> AbstractContextManager[None]:
    async def idle(settler: Settler) -> int:
        return 0

    return replaced((Settler, "round", idle))


def blocks_are_not_checked(world: World) -> AbstractContextManager[None]:
    """Bytes leave as the disk gives them."""
    return replaced((memory, "check_blocks", lambda data, table: None))


def results_are_forgotten(world: World) -> AbstractContextManager[None]:
    """A command that is repeated is carried out again."""
    real = StateMachine._apply_one

    def forgetful(self: StateMachine, envelope: Any, position: int) -> Any:
        session = self.sessions.open.get(envelope.session)
        if session is not None and session.results.pop(envelope.sequence, None) is not None:
            if envelope.sequence in session.fresh:
                session.fresh.remove(envelope.sequence)
            else:
                self.db.execute("DELETE FROM result WHERE session = ? AND sequence = ?", (session.id, envelope.sequence))
        return real(self, envelope, position)

    return replaced((StateMachine, "_apply_one", forgetful))


def unknown_is_called_not_done(world: World) -> AbstractContextManager[None]:
    real = Commits._fail

    def sure(self: Commits, pending: Any, error: Exception) -> None:
        real(self, pending, Unavailable(str(error)) if isinstance(error, UnknownOutcome) else error)  # type: ignore[arg-type]

    return replaced((Commits, "_fail", sure))


def clocks_decide(world: World) -> AbstractContextManager[None]:
    """What is applied depends on who applies it."""
    real = StateMachine._apply_one

    def timely(self: StateMachine, envelope: Any, position: int) -> Any:
        self.state.now = max(self.state.now, int(time.time() * 1000))
        return real(self, envelope, position)

    return replaced((StateMachine, "_apply_one", timely))


def the_old_name_stays(world: World) -> AbstractContextManager[None]:
    """A rename is no more than a copy."""

    def elsewhere(**named: Any) -> Any:
        return DeleteVersion(**{**named, "key": "nowhere"})

    return replaced((renaming, "DeleteVersion", elsewhere))


def appends_go_anywhere(world: World) -> AbstractContextManager[None]:
    """An append is put to whatever is there by the time, and leaves the name of what it was meant for."""
    real = appending._append

    def careless(state: Any, command: Any) -> Any:
        row = attributes.find_row(state, command.bucket, command.key.encode(), None)
        if row is not None and not row.marker:
            command = msgspec.structs.replace(command, base=row.columns[0], offset=row.columns[4])
        return real(state, command)

    return replaced((appending, "_append", careless))


def votes_are_given_twice(world: World) -> AbstractContextManager[None]:
    """A member forgets for whom it has voted."""
    return replaced((RaftNode, "_SyncObj__votedForNodeId", property(lambda node: None, lambda node, value: None)))


def reads_are_stale(world: World) -> AbstractContextManager[None]:
    """A member answers reads from what it has, and asks nobody."""

    async def own(probes: Probes) -> int:
        return max(1, probes._applied())

    return replaced((Probes, "read_index", own))


def a_wiped_member_votes(world: World) -> AbstractContextManager[None]:
    """One that comes back empty passes for the one that it was."""

    def always_the_same(folder: str, disk: Any, *, fresh: bool) -> bytes:
        return hashlib.sha256(folder.encode()).digest()[:16]

    ask_in = joining.Joiner._ask_in

    async def at_once(joiner: joining.Joiner, peer: str) -> Any:
        met = await joiner._meet(peer)
        if isinstance(met, Met) and any(member.name == joiner._name for member in met.members):
            return met.members
        return await ask_in(joiner, peer)

    return replaced((joining, "incarnation", always_the_same), (joining.Joiner, "_ask_in", at_once))


async def lagging_and_wiped(world: World, machines: dict[str, Machine]) -> None:
    """One of three lags, one is wiped, and the third, which has everything, is away: nothing may be decided."""
    network = world.network
    for _ in range(3):
        leader = next((name for name, machine in machines.items() if machine.meta is not None and machine.meta.leads), "m1")
        behind, wiped = (name for name in machines if name != leader)
        network.cut_off({(behind, other) for other in machines} | {(other, behind) for other in machines})
        await asyncio.sleep(3)
        machines[leader].lose_power()
        machines[wiped].wipe()
        network.heal()
        machines[wiped].start()
        await asyncio.sleep(5)
        machines[leader].start()
        network.flow()
        await asyncio.sleep(6)


async def without_power(world: World, machines: dict[str, Machine]) -> None:
    """All machines lose their power, twice."""
    for _ in range(2):
        await asyncio.sleep(5)
        for machine in machines.values():
            machine.lose_power()
        await asyncio.sleep(0.5)
        for machine in machines.values():
            machine.start()
    await asyncio.sleep(4)


async def cut_links(world: World, machines: dict[str, Machine]) -> None:
    """Answers are lost again and again, for as long as clients wait, and for longer."""
    chance, network = world.chance("control"), world.network
    for _ in range(3):
        await asyncio.sleep(1)
        for _ in range(25):
            network.reset(0.2)
            await asyncio.sleep(0.15 * chance.random())
        one = chance.choice(list(machines))
        network.cut_off({(other, one) for other in machines if other != one})
        await asyncio.sleep(6)
        network.heal()


async def leaders_go(world: World, machines: dict[str, Machine]) -> None:
    """The leader is killed again and again, and the others ask for votes while others' questions are on their way."""
    world.network.slow = dict.fromkeys(machines, 0.15)
    for _ in range(12):
        await asyncio.sleep(1.2)
        for machine in machines.values():
            if machine.meta is not None and machine.meta.leads:
                machine.kill("meta")


async def wrong_clocks(world: World, machines: dict[str, Machine]) -> None:
    for machine, skew_s in zip(machines.values(), (0.0, 90.0, -90.0), strict=True):
        machine.skew_s = skew_s
    await asyncio.sleep(6)


async def rotten(world: World, machines: dict[str, Machine]) -> None:
    """Half of one disk's copies are damaged, twice."""
    for _ in range(2):
        await asyncio.sleep(3)
        machines["m2"].store.rot(len(machines["m2"].store.names) // 2)
    await asyncio.sleep(6)


async def flooded(world: World, machines: dict[str, Machine]) -> None:
    """Somebody sends and sends to a process that stands still."""
    gateway = machines["m1"].gateway
    assert gateway is not None
    wire = WireClient(f"m2:{NODE_PORT}", SECRET, tls=Identity("m1/gateway-1"))  # type: ignore[arg-type]
    await gateway.process.carry_out(wire.connect())
    machines["m2"].processes["node"].pause()
    for number in range(80):
        wire.post(NO_OPERATION, number + 1, bytes(1 << 20))
    await asyncio.sleep(3)
    machines["m2"].processes["node"].go_on()


def nothing_is_broken(world: World) -> AbstractContextManager[None]:
    return contextlib.nullcontext()


CONTROLS = (
    Control("metadata that was acknowledged is not on a disk", disks_lie, "promise 1|promise 4|promise 5|not start",
            without_power),
    Control("chunks that were acknowledged are not on a disk", nodes_lie, "promise 3", without_power),
    Control("a copy that a commit may still bring is deleted", pending_goes, "promise 3"),
    Control("copies that count are deleted", listed_goes, "promise 3"),
    Control("nothing is collected", nothing_is_collected, "leak"),
    Control("nothing is repaired", nothing_is_repaired, "repair"),
    Control("blocks are not checked", blocks_are_not_checked, "promise 2", rotten),
    Control("results are forgotten", results_are_forgotten, "promise 4|promise 5", cut_links),
    Control("an unknown outcome is called not done", unknown_is_called_not_done, "promise 4|promise 6", cut_links),
    Control("equal logs, different metadata", clocks_decide, "promise 5", wrong_clocks),
    Control("a rename leaves the old name", the_old_name_stays, "promise 4: no order"),
    Control("an append goes to whatever is there", appends_go_anywhere, "promise 4: no order|promise 2"),
    Control("votes are given twice", votes_are_given_twice, "both lead in term", leaders_go),
    Control("reads are stale", reads_are_stale, "promise 4: no order", cut_links),
    Control("a wiped member votes", a_wiped_member_votes, "promise 1|promise 4|promise 5", lagging_and_wiped),
    Control("a sender never waits", nothing_is_broken, "promise 8", flooded),
)

SCRIPTS = (without_power, cut_links, leaders_go, lagging_and_wiped, rotten, wrong_clocks)
"""Those that the product must survive."""


def caught(control: Control) -> tuple[int, str] | None:
    """The seed that finds it, and what it says."""
    for seed in range(1, 1 + SEEDS_MAX):
        for violation in simulated(seed, SECONDS, control.spoil, 3, control.script).violations:
            if re.search(control.found, violation):
                return seed, violation
    return None
