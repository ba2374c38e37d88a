"""What goes wrong, and when: one fault or two at a time, healed again, so that the machines come to rest in between.

A disk is lost or damaged on one machine at a time and only after the one before has been repaired: more is more than
three copies and three members promise to survive. Nor is the only copy of anything hurt: what was acknowledged while there
was one storage node has no other yet, nor has what two machines have given back that were to be emptied.
"""

import asyncio
import random
import sqlite3
from collections.abc import Awaitable, Callable

from consensus import queries
from consensus.core.commands import AnyCommand, AskNode, SetBucketCopies
from consensus.core.errors import ClusterError
from consensus.core.ids import NodeId
from tests.sim.machines import Gateway, Machine
from tests.sim.watching import listed
from tests.sim.workload import PLAIN, Workload
from tests.sim.world import World

Fault = Callable[[], Awaitable[None]]


class Faults:
    """Goes on until it is stopped; then heals everything."""

    def __init__(self, world: World, machines: list[Machine], workload: Workload,
                 newest: Callable[[], sqlite3.Connection | None], *, metadata_can_be_lost: bool) -> None:
        self._workload, self._newest = workload, newest
        self._world, self._machines, self._chance = world, machines, world.chance("faults")
        self._metadata_can_be_lost = metadata_can_be_lost
        self._names = [machine.name for machine in machines]
        self.kinds: dict[str, tuple[int, Fault]] = {
            "kill a process": (20, self._kill_process),
            "kill a machine": (10, self._kill_machine),
            "kill all": (4, self._kill_all),
            "power of one": (8, self._power_of_one),
            "power of all": (4, self._power_of_all),
            "partition": (20, self._partition),
            "resets": (8, self._resets),
            "slow network": (6, self._slow_network),
            "pause": (10, self._pause),
            "slow disk": (6, self._slow_disk),
            "full disk": (5, self._full),
            "read-only disk": (4, self._read_only),
            "clock": (8, self._clock),
            "bit-rot": (6, self._rot),
            "wiped": (4, self._wipe),
            "copies": (5, self._change_copies),
            "drain": (4, self._drain),
        }
        self.rotten_on = ""
        """The machine whose copies may be damaged: no other is hurt until they are repaired."""

    async def run(self, until: float) -> None:
        loop, chance = asyncio.get_running_loop(), self._chance
        while (left := until - loop.time()) > 2:
            await asyncio.sleep(min(left, chance.expovariate(1 / 2.5)))
            if loop.time() < until - 1:
                names = list(self.kinds)
                name = chance.choices(names, [self.kinds[kind][0] for kind in names])[0]
                await self.kinds[name][1]()

    async def heal(self) -> None:
        self._say("everything is healed")
        self._world.network.slow.clear()
        self._world.network.heal()
        for machine in self._machines:
            machine.skew_s = 0.0
            machine.disk.sync_s, machine.store.sync_s = 0.0005, 0.001
            machine.disk.full = machine.disk.read_only = False
            machine.store.full = machine.store.read_only = False
            machine.go_on()
            if not machine.powered:
                machine.start()

    async def undo(self) -> None:
        """What admins have asked for, once the machines serve again."""
        bucket = self._workload.bucket_id(PLAIN)
        if bucket is not None:
            await self._ask(SetBucketCopies(bucket=bucket), insist=True)
        for name in self._names:
            await self._ask(AskNode(node=NodeId(name), asked=""), insist=True)

    async def _ask(self, command: AnyCommand, *, insist: bool = False) -> None:
        """An admin's command, through some gateway."""
        answered = False

        async def commit(gateway: Gateway) -> None:
            nonlocal answered
            try:
                result = await gateway.metadata.commit(command)
                self._world.trace(f"{command} {result}")
                answered = True
            except ClusterError as error:
                self._world.note(f"{type(command).__name__}: {error!r}")

        for _ in range(20 if insist else 1):
            gateway = self._one().gateway
            if gateway is not None and not gateway.process.dead:
                await gateway.process.carry_out(commit(gateway))
            if answered:
                return
            await asyncio.sleep(0.5)

    async def _change_copies(self) -> None:
        bucket, copies = self._workload.bucket_id(PLAIN), self._chance.choice((2, 2, None))
        if bucket is not None :
            self._say(f"{copies} copies of the bucket")
            await self._ask(SetBucketCopies(bucket=bucket, copies=copies))

    async def _drain(self) -> None:
        name, state = self._chance.choice(self._names), self._chance.choice(("draining", "read-only", ""))
        self._say(f"{name} is asked to be {state or 'as it is'}")
        await self._ask(AskNode(node=NodeId(name), asked=state))

    def _say(self, what: str) -> None:
        self._world.note(f"FAULT {what}")

    def _one(self) -> Machine:
        return self._chance.choice(self._machines)

    async def _kill_process(self) -> None:
        machine = self._one()
        role = self._chance.choice(machine.roles)
        self._say(f"kill {machine.name}/{role}")
        machine.kill(role)

    async def _kill_machine(self) -> None:
        machine = self._one()
        self._say(f"kill {machine.name}")
        machine.kill_all()

    async def _kill_all(self) -> None:
        self._say("kill all")
        for machine in self._machines:
            machine.kill_all()

    async def _power_of_one(self) -> None:
        machine = self._one()
        self._say(f"power of {machine.name}")
        machine.lose_power()
        await asyncio.sleep(self._chance.uniform(0.2, 4))
        machine.start()
        self._world.network.flow()

    async def _power_of_all(self) -> None:
        self._say("power of all")
        for machine in self._machines:
            machine.lose_power()
        await asyncio.sleep(self._chance.uniform(0.2, 1))
        for machine in self._machines:
            machine.start()
        self._world.network.flow()

    async def _partition(self) -> None:
        cut = partition(self._names, self._chance)
        self._say(f"partition {sorted(cut)}")
        self._world.network.cut_off(cut)
        self._world.network.flow()
        await asyncio.sleep(self._chance.choice((0.3, 1.0, 3.0, 8.0)) * (0.5 + self._chance.random()))
        self._say("the partition is healed")
        self._world.network.heal()

    async def _resets(self) -> None:
        self._say("connections are reset")
        self._world.network.reset(0.5)

    async def _slow_network(self) -> None:
        machine = self._one()
        self._say(f"slow network of {machine.name}")
        self._world.network.slow[machine.name] = self._chance.choice((0.01, 0.1, 0.6))
        await asyncio.sleep(self._chance.uniform(1, 4))
        self._world.network.slow.pop(machine.name, None)

    async def _pause(self) -> None:
        machine = self._one()
        roles = self._chance.choice((tuple(machine.processes), (self._chance.choice(machine.roles),)))
        seconds = self._chance.choice((0.2, 1.0, 3.0, 8.0))
        self._say(f"pause {machine.name} {'+'.join(roles)} for {seconds} s")
        paused = [machine.processes[role] for role in roles if role in machine.processes]
        for process in paused:
            process.pause()
        await asyncio.sleep(seconds)
        self._say(f"{machine.name} goes on")
        for process in paused:
            process.go_on()

    async def _slow_disk(self) -> None:
        machine = self._one()
        self._say(f"slow disk of {machine.name}")
        machine.disk.sync_s = self._chance.choice((0.02, 0.3))
        machine.store.sync_s = self._chance.choice((0.02, 0.5))
        await asyncio.sleep(self._chance.uniform(1, 4))
        machine.disk.sync_s, machine.store.sync_s = 0.0005, 0.001

    async def _full(self) -> None:
        machine = self._one()
        both = self._chance.random() < 0.4
        self._say(f"full disk of {machine.name}, metadata too: {both}")
        machine.store.full = True
        machine.disk.full = both
        await asyncio.sleep(self._chance.uniform(1, 4))
        machine.store.full = machine.disk.full = False

    async def _read_only(self) -> None:
        machine = self._one()
        self._say(f"read-only disk of {machine.name}")
        machine.store.read_only = True
        await asyncio.sleep(self._chance.uniform(1, 4))
        machine.store.read_only = False

    async def _clock(self) -> None:
        machine = self._one()
        machine.skew_s = self._chance.choice((-90.0, -3.0, 0.0, 3.0, 90.0))
        self._say(f"clock of {machine.name} is wrong by {machine.skew_s} s")

    def _holds_the_last(self, machine: Machine) -> bool:
        """Whether a chunk may have its only copy there. Nobody knows while no member has applied everything."""
        db = self._newest()
        if db is None or len(queries.nodes(db)) < 2:
            return True
        elsewhere = set[tuple[bytes, bytes]]().union(*[listed(db, NodeId(name)) for name in self._names if name != machine.name])
        return not listed(db, NodeId(machine.name)) <= elsewhere

    async def _rot(self) -> None:
        machine = self._one()
        if self.rotten_on not in ("", machine.name) or self._holds_the_last(machine):
            return
        self.rotten_on = machine.name
        self._say(f"bit-rot on {machine.name}: {machine.store.rot(self._chance.choice((1, 5, 1000)))} copies")

    async def _wipe(self) -> None:
        machine = self._one()
        if self.rotten_on or ("meta" in machine.roles and not self._metadata_can_be_lost) or self._holds_the_last(machine):
            return
        self.rotten_on = machine.name
        self._say(f"wiped {machine.name}")
        self._world.count("disks wiped")
        machine.wipe()
        await asyncio.sleep(self._chance.uniform(0.2, 3))
        machine.start()
        self._world.network.flow()


def partition(names: list[str], chance: random.Random) -> set[tuple[str, str]]:
    """Directions that are cut: one machine alone, halves, one-way, a bridge, or any of them."""
    one = chance.choice(names)
    rest = [name for name in names if name != one]
    shape = chance.choice(("alone", "deaf", "dumb", "bridge", "one way", "islands", "any"))
    if shape == "alone":
        return {(one, other) for other in rest} | {(other, one) for other in rest}
    if shape == "deaf":
        return {(other, one) for other in rest}
    if shape == "dumb":
        return {(one, other) for other in rest}
    if shape == "bridge":                              # `one` reaches all, the others reach only it
        return {(here, there) for here in rest for there in rest if here != there}
    if shape == "one way":
        return {(one, chance.choice(rest))}
    pairs = [(here, there) for here in names for there in names if here != there]
    return set(pairs) if shape == "islands" else {pair for pair in pairs if chance.random() < 0.5}
