"""Members whose frames are lost, late, repeated and out of order, who are cut off, killed and wiped: whatever was acknowledged
stays, there is one leader in a term, and when it is over all have the same."""

import asyncio
import random
from pathlib import Path

import pytest

from consensus.core.errors import ClusterError, Unavailable, UnknownOutcome
from tests.unit.consensus.group.world import Broken, Seat, World

STORM_S = 25.0


async def writer(world: World, name: str, until: float) -> None:
    number = 0
    while world.loop.time() < until:
        leaders = [seat for seat in world.seats.values() if seat.leads] or list(world.seats.values())
        seat = world.chance.choice(leaders)
        number += 1
        if seat.raft is not None:
            try:
                async with asyncio.timeout(2):
                    await world.propose(seat, f"{name}{number}".encode())
            except (Unavailable, UnknownOutcome, TimeoutError):
                pass
        await asyncio.sleep(world.chance.uniform(0.005, 0.05))


async def reader(world: World, until: float) -> None:
    """What was acknowledged before a read begins, it sees."""
    while world.loop.time() < until:
        seat = world.chance.choice(list(world.seats.values()))
        known = max(world.acknowledged, default=0)
        raft = seat.raft
        if raft is not None and raft.members:
            try:
                async with asyncio.timeout(4):
                    index = await raft.read_index()
            except (ClusterError, TimeoutError):
                pass
            else:
                if index < known or (seat.machine.applied < index and seat.raft is raft):
                    raise Broken(f"a read at {seat.name} sees entry {index}, {known} was acknowledged before")
        await asyncio.sleep(world.chance.uniform(0.01, 0.1))


async def trouble(world: World, until: float, kinds: str) -> None:
    chance, net, seats = world.chance, world.net, list(world.seats.values())
    while world.loop.time() < until:
        await asyncio.sleep(chance.uniform(0.2, 2.0))
        seat, kind = chance.choice(seats), chance.choice(kinds)
        if kind == "p":
            net.partition({seat.name for seat in chance.sample(seats, chance.randint(1, len(seats) - 1))})
        elif kind == "o":                                                     # one way only
            net.cut = {(seat.name, other.name) for other in seats if other is not seat}
        elif kind == "b":                                                     # two that reach all but each other
            one, two = chance.sample(seats, 2)
            net.cut = {(one.name, two.name), (two.name, one.name)}
        elif kind == "i":                                                     # hears, and is not heard, or the reverse
            net.cut = {(other.name, seat.name) for other in seats if other is not seat}
        elif kind == "h":
            net.cut = set()
        elif kind == "l":
            net.lose, net.repeat = chance.choice([0.0, 0.02, 0.2]), chance.choice([0.0, 0.1])
            net.delay = chance.choice([(0.0002, 0.002), (0.001, 0.1), (0.001, 0.4)])
        elif kind == "k" and seat.raft is not None:
            seat.kill()
        elif kind == "s" and seat.raft is None:
            seat.start(wanted=world.wanted)
        elif kind == "w" and all(other.raft is not None for other in seats) and seat.raft is not None:
            await wiped(world, seat, until)
        elif kind == "g" and seat.leads and seat.raft is not None:
            await seat.raft.changes.hand_over()
    net.cut, net.lose, net.repeat, net.delay = set(), 0.0, 0.0, (0.0002, 0.002)


async def wiped(world: World, seat: Seat, until: float) -> None:
    """It comes back empty, and is taken in before anybody else is wiped: what two have lost, no majority may have."""
    seat.kill()
    await asyncio.sleep(world.chance.uniform(0.0, 1.0))
    seat.wipe()
    seat.start(wanted=world.wanted)
    world.net.cut, world.net.lose = set(), 0.0
    await world.take_in(seat)
    await world.until(lambda: all(other.raft is None or (
        sum(member.voter for member in other.raft.members) == world.wanted) for other in world.seats.values()), 60)


async def storm(world: World, kinds: str) -> None:
    await world.begin()
    until = world.loop.time() + STORM_S
    async with asyncio.TaskGroup() as tasks:
        for name in "xyz":
            tasks.create_task(writer(world, name, until))
        tasks.create_task(reader(world, until))
        tasks.create_task(reader(world, until))
        tasks.create_task(trouble(world, until, kinds))
    await world.settle()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("names", "kinds"), [("abc", "ppoibhhlkssg"), ("abcde", "ppoibhhlkssg"), ("abc", "plbhw")])
def test_nothing_is_lost_in_a_storm(tmp_path: Path, seed: int, names: str, kinds: str) -> None:
    with World(tmp_path, seed * 31 + len(names) + len(kinds), names) as world:
        world.run(storm(world, kinds))
        assert len(world.acknowledged) > 50, "too little was written to show anything"
        assert len(world.leaders) > 1


def test_the_same_seed_goes_the_same_way(tmp_path: Path) -> None:
    ways = []
    for attempt in ("first", "second"):
        (tmp_path / attempt).mkdir()
        random.seed(5)
        with World(tmp_path / attempt, 5) as world:
            world.run(storm(world, "pohlksg"))
            ways.append((world.net.frames, world.committed, world.leaders, world.loop.time()))
    assert ways[0] == ways[1]
