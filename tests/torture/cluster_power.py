"""Power cuts of three machines at the same moment, under load: each keeps only what was synced (or that, torn).

A round: load through all three gateways; the cut, at a random moment or right after an acknowledgement; all start again,
are ready, and what clients were told before the cut is there, read through another gateway than the one that told it.
"""

import os
import random
import time
from pathlib import Path
from typing import NamedTuple

from tests.servers import NotReady
from tests.torture import admin, checker, variants
from tests.torture.contents import SIZES
from tests.torture.power import ACKNOWLEDGEMENTS, AT_ACKNOWLEDGEMENT, LOAD_S, SYNC_DELAYS_S, told
from tests.torture.report import Report, scratch
from tests.torture.shim.log import ShimLog
from tests.torture.shim.power import Cut, CutTalker, Switch
from tests.torture.workload import Workload
from tests.trio import Trio

CLIENTS = 6
READY_S_MAX = 10.0
TORN = 0.5
"""The share of cuts that tear what was not synced."""

FSCK_EVERY = 10
WHOLE_PATIENCE_S = 120.0


class Logs(NamedTuple):
    """Of all machines, as if one: what anybody was told before a position is before it in each."""

    logs: tuple[ShimLog, ...]

    @property
    def position(self) -> tuple[int, ...]:
        return tuple(log.position for log in self.logs)


class Grid:
    """The power of all machines."""

    def __init__(self, trio: Trio, choose: random.Random, variant: str) -> None:
        self._trio, self._choose, self._variant = trio, choose, variant
        self._switches = [Switch(machine) for machine in trio.machines]
        self.cut: Cut | None = None

    def on(self) -> float:
        """Seconds until all are ready. Raises NotReady."""
        for machine, switch in zip(self._trio.machines, self._switches, strict=True):
            switch.sync_delay_s = self._choose.choice(SYNC_DELAYS_S)
            lives = self._choose.choice((("small files",), ()))
            switch.begin(variants.environment(machine.folder, *filter(None, [self._variant]), *lives))
        self.cut = Cut(Logs(tuple(switch.log for switch in self._switches)))  # type: ignore[arg-type]
        began = time.monotonic()
        self._trio.start()
        return time.monotonic() - began

    def wire(self, workload: Workload) -> None:
        """The workload's clients hear nothing after the cut."""
        assert self.cut is not None
        for number, client in enumerate(workload.clients):
            client.talker.close()
            client.talker = CutTalker(workload.servers[number % len(workload.servers)], self.cut)

    def off(self) -> int:
        """How many bytes had not been synced anywhere."""
        assert self.cut is not None
        positions = self.cut.now()
        self._trio.kill_all()
        dirty = 0
        for switch, position in zip(self._switches, positions, strict=True):  # type: ignore[call-overload]
            torn = random.Random(self._choose.randrange(1 << 30)) if self._choose.random() < TORN else None
            dirty += switch.off(torn, position).dirty_bytes
        return dirty

    def close(self) -> None:
        for switch in self._switches:
            switch.close()


def run(rounds: int, seed: int, *, quiet: bool = False, parent: Path | None = None, largest: int = SIZES[-1][2],
        until_caught: bool = False, variant: str = "") -> Report:
    report = Report(f"power cuts of all machines, {rounds} rounds" + (f", with the variant {variant!r}" if variant else ""),
                    seed, quiet=quiet)
    with scratch(report, parent, keep=not variant) as folder, Trio(folder) as trio:
        grid = Grid(trio, random.Random(f"grid {seed}"), variant)
        try:
            _run(trio, grid, report, rounds, largest, until_caught)
        except NotReady as error:
            report.violations("the machines", [f"do not come back: {error}"])
        finally:
            trio.kill_all()
            grid.close()
    return report


def _run(trio: Trio, grid: Grid, report: Report, rounds: int, largest: int, until_caught: bool) -> None:
    choose = random.Random(f"cuts {report.seed}")
    workload = Workload(trio.machines[0], CLIENTS, report.seed, largest, servers=trio.machines)
    grid.on()
    workload.make_bucket()
    ready: list[float] = []
    for number in range(1, rounds + 1):
        before = workload.outcomes
        grid.wire(workload)
        assert grid.cut is not None
        if choose.random() < AT_ACKNOWLEDGEMENT:
            grid.cut.arm(choose.randint(*ACKNOWLEDGEMENTS))
        began = time.monotonic()
        workload.start()
        grid.cut.came.wait(choose.uniform(*LOAD_S))
        took = time.monotonic() - began
        dirty = grid.off()
        workload.stop()
        ready.append(grid.on())
        last = number == rounds
        wrong = checker.check(workload, everything=last or number % FSCK_EVERY == 0, shift=1 + number % 2)
        if last or number % FSCK_EVERY == 0:
            wrong += _whole(trio)
        if ready[-1] > READY_S_MAX * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)):
            wrong.append(f"all were ready only after {ready[-1]:.2f} s")
        report.say(f"{number:4} {told(workload, before)}; cut after {took:.2f} s, {dirty >> 10} KiB not synced; all ready "
                   f"{ready[-1]:.2f} s, {len(wrong)} violations")
        report.violations(f"round {number}", wrong)
        if until_caught and report.wrong:
            return
    report.say(f"writes: {dict(workload.outcomes)}, {workload.sent_bytes >> 20} MiB sent; refused: {dict(workload.refusals)}; "
               f"all ready: median {sorted(ready)[len(ready) // 2]:.2f} s, longest {max(ready):.2f} s")


def _whole(trio: Trio) -> list[str]:
    """What fsck still finds when patience ends."""
    deadline = time.monotonic() + WHOLE_PATIENCE_S
    while left := admin.fsck(trio.machines[0]):
        if time.monotonic() > deadline:
            return left
        time.sleep(0.5)
    return []
