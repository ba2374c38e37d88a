"""One seed from the beginning to the verdict.

Each seed has a process of its own, which is gone when it ends: what is left of killed processes is never collected, for
that would run their `finally`, close files that are others' by now, and depend on the collector's mood.
"""

import asyncio
import gc
import json
import os
import time
import traceback
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

from tests.sim import verdict
from tests.sim.faults import Faults
from tests.sim.machines import ROLES, Machine
from tests.sim.watching import Watch
from tests.sim.workload import Workload
from tests.sim.world import World, run

SECONDS = 60.0

ENDS_S = 240.0
"""After the faults: longer than any verdict takes."""

Broken = Callable[[World], AbstractContextManager[None]]

Script = Callable[[World, dict[str, Machine]], Awaitable[None]]
"""Faults of a certain order, in place of those that chance brings."""


class Outcome(NamedTuple):
    """What is left of a simulation."""

    seed: int
    hash: str
    violations: list[str]
    events: list[str]
    """Before the first violation; the last ones if there is none."""
    counts: dict[str, int]
    took_s: float
    """Of a processor."""


def simulated(seed: int, seconds: float = SECONDS, broken: "Broken" = lambda world: nullcontext(),
              members: int | None = None, script: "Script | None" = None) -> Outcome:
    """In a process of its own. `broken` may spoil the product (controls.py)."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reading)
            gc.disable()
            began = time.process_time()
            world = simulate(seed, seconds, broken, members, script)
            outcome = Outcome(seed, world.hash, world.violations, world.before_first or list(world.events), world.counts,
                              time.process_time() - began)
            with open(writing, "w") as file:
                json.dump(outcome, file)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(writing)
    with open(reading) as file:
        told = file.read()
    os.waitpid(child, 0)
    if not told:
        raise RuntimeError(f"the simulation of seed {seed} has ended without a word")
    return Outcome(*json.loads(told))


NAMES = ("m1", "m2", "m3")


def laid_out(world: World, members: int) -> list[Machine]:
    """Three machines, each with a storage node and a gateway; the first ones with a metadata member."""
    having = NAMES[:members]
    return [Machine(world, name, ROLES if name in having else ROLES[1:], tuple(other for other in having if other != name))
            for name in NAMES]


def members_of(seed: int) -> int:
    """Most seeds have three metadata members."""
    return 1 if seed % 8 == 0 else 3


def simulate(seed: int, seconds: float = SECONDS, broken: Broken = lambda world: nullcontext(),
             members: int | None = None, script: Script | None = None) -> World:
    """The world as it was left."""

    members = members or members_of(seed)

    async def work(world: World) -> None:
        machines = laid_out(world, members)
        world.loop.ends_at = seconds + ENDS_S
        workload, watch = Workload(world), Watch(world, machines)
        faults = Faults(world, machines, workload, watch.newest, metadata_can_be_lost=members > 1)
        for machine in machines:
            machine.on_gateway = workload.begin
        watch.install()
        try:
            with broken(world):
                for machine in machines:
                    machine.start()
                watching = asyncio.ensure_future(watch.run())
                await asyncio.sleep(2)
                if script is None:
                    await asyncio.gather(*[faults.run(seconds) for _ in range(1 + seed % 2)])       # with odd seeds, two at once
                else:
                    await script(world, world.machines)
                await faults.heal()
                await verdict.judge(world, machines, workload, watch, faults.undo)
                watching.cancel()
        finally:
            watch.uninstall()

    return run(seed, work)
