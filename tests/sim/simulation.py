"""One seed from the beginning to the verdict."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from tests.sim import verdict
from tests.sim.faults import Faults
from tests.sim.machines import ROLES, Machine
from tests.sim.watching import Watch
from tests.sim.workload import Workload
from tests.sim.world import World, run

SECONDS = 60.0

Broken = Callable[[World], AbstractContextManager[None]]


def simulate(seed: int, seconds: float = SECONDS, broken: Broken = lambda world: nullcontext()) -> World:
    """The world as it was left: its violations, its hash. `broken` may spoil the product (controls.py)."""

    async def work(world: World) -> None:
        machines = [Machine(world, "m1", ROLES, ()), Machine(world, "m2", ROLES[1:], ("m1",)),
                    Machine(world, "m3", ROLES[1:], ("m1",))]
        workload, watch = Workload(world), Watch(world, machines)
        faults = Faults(world, machines, metadata_can_be_lost=False)
        for machine in machines:
            machine.on_gateway = workload.begin
        watch.install()
        try:
            with broken(world):
                for machine in machines:
                    machine.start()
                watching = asyncio.ensure_future(watch.run())
                await asyncio.sleep(2)
                await faults.run(seconds)
                await faults.heal()
                await verdict.judge(world, machines, workload, watch)
                watching.cancel()
        finally:
            watch.uninstall()

    return run(seed, work)
