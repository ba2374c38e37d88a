"""What happens to three machines while clients record: each kind comes every few seconds and is over before the next.

partitions  cables are cut: one machine alone, one direction only, the leader from the rest, one machine between two
kills       kill -9 of a whole machine, the leader's more often than not; it is started again after a moment
pauses      the leader stands still for ten seconds, and then goes on as if nothing had been
clocks      one machine's wall clock jumps by up to 90 s forwards or backwards
flapping    for seconds, cables are cut and joined in random directions several times a second
stutters    for seconds, one machine after the other stands still for a moment
roles       kill -9 of single processes: a metadata member, a storage node, a gateway; their supervisor starts them again
wipes       a machine is killed and its disk emptied; the next comes when all copies are back
members     a machine's metadata member is removed from the cluster for good, its disk emptied, and it joins anew: with four
            machines three of them vote, so the fourth takes its place meanwhile
"""

import asyncio
import itertools
import random
import time
from collections.abc import Callable

from tests.talker import NotSent, Unanswered
from tests.torture import admin
from tests.torture.cluster_disks import lacking
from tests.trio import Machine, Trio

EVERY_S = 8.0
QUIET_S_MIN = 1.0
"""Between two, for all to come back."""

CUT_S = (2.0, 6.0)
DOWN_S = (0.2, 2.0)
PAUSE_S = 10.0
SKEW_S = 90
WHOLE_PATIENCE_S = 90.0
LEADER = 0.7
"""The share of kills that hit the leader."""

Say = Callable[[str], None]


class Disturbance:
    """`done` tells what happened when, for the report."""

    def __init__(self, trio: Trio, seed: int | str, *, partitions: bool = False, kills: bool = False, pauses: bool = False,
                 clocks: bool = False, wipes: bool = False, members: bool = False, flapping: bool = False, stutters: bool = False,
                 roles: bool = False) -> None:
        self._trio, self._choose = trio, random.Random(f"disturbing {seed}")
        self._kinds = [kind for kind, wanted in ((self._partition, partitions), (self._kill, kills), (self._pause, pauses),
                                                 (self._wipe, wipes), (self._remove, members), (self._flap, flapping),
                                                 (self._stutter, stutters), (self._kill_roles, roles)) if wanted]
        self._clocks = clocks
        self._began = time.monotonic()
        self.done: list[str] = []
        self.failed: list[str] = []

    async def run(self, seconds: float) -> None:
        """Ends with everything whole again."""
        self._began = time.monotonic()
        end = self._began + seconds
        await asyncio.sleep(QUIET_S_MIN)
        try:
            while (left := end - time.monotonic()) > 0:
                if self._clocks:
                    self._skew()
                began = time.monotonic()
                if self._kinds:
                    await self._choose.choice(self._kinds)(max(0.5, left))
                until = max(began + EVERY_S, time.monotonic() + QUIET_S_MIN)
                await asyncio.sleep(max(0.0, min(until, end) - time.monotonic()))
        finally:
            await self.mend()

    async def mend(self) -> None:
        trio = self._trio
        trio.heal()
        for machine in trio.machines:
            machine.unpause()
            if machine.clock is not None:
                machine.clock.set(0)
            if not machine.running:
                machine.start(wait=False)

    def _say(self, text: str) -> None:
        self.done.append(f"{time.monotonic() - self._began:.1f} s {text}")

    async def _partition(self, left_s: float) -> None:
        trio, choose = self._trio, self._choose
        numbers = list(range(len(trio.machines)))
        one, *others = choose.sample(numbers, len(numbers))
        leader = await asyncio.to_thread(trio.leader)
        shapes = {
            "alone": {*itertools.product([one], others), *itertools.product(others, [one])},
            "hears nothing": set(itertools.product(others, [one])),
            "is not heard": set(itertools.product([one], others)),
            "between the others": set(itertools.permutations(others, 2)),
        }
        if leader is not None:
            rest = [number for number in numbers if number != leader.number]
            shapes["leader alone"] = {*itertools.product([leader.number], rest), *itertools.product(rest, [leader.number])}
            shapes["leader hears nothing"] = set(itertools.product(rest, [leader.number]))
        shape = choose.choice(sorted(shapes))
        for_s = min(left_s, choose.uniform(*CUT_S))
        self._say(f"{f'n{one + 1} ' if 'leader' not in shape else ''}{shape} for {for_s:.1f} s")
        trio.network.cut(shapes[shape])
        await asyncio.sleep(for_s)
        trio.heal()

    async def _victim(self) -> Machine:
        leader = await asyncio.to_thread(self._trio.leader)
        if leader is not None and self._choose.random() < LEADER:
            return leader
        return self._choose.choice(self._trio.running)

    async def _kill(self, left_s: float) -> None:
        machine = await self._victim()
        for_s = min(left_s, self._choose.uniform(*DOWN_S))
        self._say(f"{machine.name} killed for {for_s:.1f} s")
        await asyncio.to_thread(machine.kill_all)
        await asyncio.sleep(for_s)
        machine.start(wait=False)                     # from this thread, which stays: its end would end the machine

    async def _pause(self, left_s: float) -> None:
        machine = await asyncio.to_thread(self._trio.leader) or self._choose.choice(self._trio.running)
        for_s = min(left_s, PAUSE_S)
        self._say(f"{machine.name} paused for {for_s:.1f} s")
        machine.pause()
        await asyncio.sleep(for_s)
        machine.unpause()

    async def _flap(self, left_s: float) -> None:
        self._say("cables flap")
        pairs = list(itertools.permutations(range(len(self._trio.machines)), 2))
        end = time.monotonic() + min(left_s, CUT_S[1])
        while time.monotonic() < end:
            self._trio.network.cut({pair for pair in pairs if self._choose.random() < 0.35})
            await asyncio.sleep(self._choose.uniform(0.05, 1.0))
        self._trio.heal()

    async def _stutter(self, left_s: float) -> None:
        self._say("machines stutter")
        end = time.monotonic() + min(left_s, CUT_S[1])
        while time.monotonic() < end:
            machine = self._choose.choice(self._trio.running)
            machine.pause()
            await asyncio.sleep(self._choose.uniform(0.1, 1.5))
            machine.unpause()

    async def _kill_roles(self, left_s: float) -> None:
        del left_s
        machine, role = self._choose.choice(self._trio.running), self._choose.choice(("meta", "meta", "node", "gateway"))
        if machine.roles()[role]:
            self._say(f"{machine.name}'s {role} killed")
            machine.kill(role)

    async def _wipe(self, left_s: float) -> None:
        del left_s
        await self._renew(await self._victim())

    async def _remove(self, left_s: float) -> None:
        del left_s
        machine = await self._victim()
        through = self._choose.choice([other for other in self._trio.running if other is not machine])
        try:
            await asyncio.to_thread(admin.post, through, "cluster/remove", name=machine.name)
        except (AssertionError, Unanswered, NotSent) as error:
            self._say(f"{machine.name} not removed: {error}")
            return
        self._say(f"{machine.name} removed through {through.name}")
        await self._renew(machine)

    async def _renew(self, machine: Machine) -> None:
        """An empty disk, and then time to fill it: two at once may lose what was on two."""
        self._say(f"{machine.name} wiped")
        await asyncio.to_thread(machine.kill_all)
        machine.wipe()
        machine.start(wait=False)
        began = time.monotonic()
        short: frozenset[bytes] | None = None
        while True:
            before, short = short, await asyncio.to_thread(lacking, self._trio)
            # What is being written lacks copies too, but not for long.
            if before is not None and short is not None and not before & short and machine.ready():
                break
            if time.monotonic() - began > WHOLE_PATIENCE_S:
                self.failed.append(f"copies are not back {WHOLE_PATIENCE_S:g} s after {machine.name} was wiped")
                return
            await asyncio.sleep(1.0)
        self._say(f"all copies are back after {time.monotonic() - began:.1f} s")

    def _skew(self) -> None:
        owner = next(machine for machine in self._trio.machines if machine.clock is not None)
        assert owner.clock is not None
        ahead_s = self._choose.choice((-SKEW_S, SKEW_S, self._choose.randint(-SKEW_S, SKEW_S)))
        self._say(f"{owner.name}'s clock {ahead_s:+} s")
        owner.clock.set(ahead_s)
