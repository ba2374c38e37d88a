"""Power cuts under load: all processes at once, and the folder keeps only what was synced (or that, torn).

A round: load; the cut, at a random moment or right after an acknowledgement; often more cuts while the server starts,
each at a random step of what starting writes; then it must be ready in time and hold what its clients were told. Rounds
go on with the same folder. Now and then, and at the end, what nobody refers to is collected by a hurried server, and
then nothing may be left over.
"""

import random
import time
from pathlib import Path

from tests.servers import NotReady, StaddleProcess
from tests.torture import checker, leftovers, variants
from tests.torture.contents import SIZES
from tests.torture.report import Report, scratch
from tests.torture.shim.power import Switch
from tests.torture.workload import Workload

LOST, TORN = "lost", "torn"
CLIENTS = 4
READY_S_MAX = 5.0
LOAD_S = (0.2, 2.5)
ACKNOWLEDGEMENTS = (1, 150)
"""A cut right after one: which, counted from the beginning of the load. The time of the load bounds it too."""

AT_ACKNOWLEDGEMENT = 0.7
"""The share of cuts at an acknowledgement. Between two of them there is more to tear, right behind one more to lose."""

STARTS_CUT = 0.4
"""The chance that a start is cut too, and then the next one."""

SYNC_DELAYS_S = (0.0, 0.0, 0.001, 0.005)
"""What a sync takes, by round: nothing is written in its time that it covers."""

COLLECT_EVERY = 15
COLLECT_PATIENCE_S = 60.0


def run(rounds: int, seed: int | str, *, form: str, variant: str = "", collect: bool = True, quiet: bool = False,
        parent: Path | None = None, largest: int = SIZES[-1][2], until_caught: bool = False) -> Report:
    """`form`: LOST or TORN. With `until_caught` it ends at the first violation."""
    report = Report(f"power cuts, {form}, {rounds} rounds" + (f", with the variant {variant!r}" if variant else ""), seed,
                    quiet=quiet)
    with scratch(report, parent) as folder:
        server = StaddleProcess(folder / "server")
        switch = Switch(server)
        try:
            _Run(switch, report, random.Random(f"power {form} {seed}"), form, variant, largest).run(
                rounds, collect, until_caught)
        except NotReady as error:
            report.violations("the server", [f"does not start: {error}"])
        finally:
            server.kill_all()
            switch.close()
    return report


class _Run:
    def __init__(self, switch: Switch, report: Report, choose: random.Random, form: str, variant: str,
                 largest: int) -> None:
        self._switch, self._report, self._choose, self._form = switch, report, choose, form
        self._server = switch.server
        self._variables = variants.environment(self._server.folder, *filter(None, [variant]))
        self._workload = Workload(self._server, CLIENTS, report.seed, largest)
        self._ready_s: list[float] = []
        self._cuts = 0

    def run(self, rounds: int, collect: bool, until_caught: bool) -> None:
        switch, report = self._switch, self._report
        switch.on(variables=self._variables)
        self._workload.make_bucket()
        for number in range(1, rounds + 1):
            line = self._load_and_cut()
            line += self._cut_starts()
            ready_s = self._start()
            wrong = checker.check(self._workload, everything=number == rounds or number % 10 == 0)
            wrong += leftovers.check_listed(self._server)
            if ready_s > READY_S_MAX:
                wrong.append(f"ready only after {ready_s:.2f} s")
            report.say(f"{number:4} {line}; ready {ready_s:.2f} s, {len(wrong)} violations")
            report.violations(f"round {number}", wrong)
            if until_caught and report.wrong:
                return
            if collect and (number % COLLECT_EVERY == 0 or number == rounds):
                self._collect(number)
        ready = sorted(self._ready_s)
        report.say(f"{self._cuts} cuts; writes: {dict(self._workload.outcomes)}, {self._workload.sent_bytes >> 20} MiB sent")
        report.say(f"refused: {dict(self._workload.refusals)}")
        report.say(f"ready again: median {ready[len(ready) // 2]:.2f} s, longest {ready[-1]:.2f} s")

    def _chance(self) -> random.Random | None:
        return random.Random(self._choose.randrange(1 << 30)) if self._form == TORN else None

    def _load_and_cut(self) -> str:
        switch, workload, choose = self._switch, self._workload, self._choose
        before = workload.outcomes
        switch.wire(workload)
        if choose.random() < AT_ACKNOWLEDGEMENT:
            switch.cut.arm(choose.randint(*ACKNOWLEDGEMENTS))
        load_s = choose.uniform(*LOAD_S)
        began = time.monotonic()
        workload.start()
        switch.cut.came.wait(load_s)
        disk = switch.off(self._chance())
        took = time.monotonic() - began
        workload.stop()
        self._cuts += 1
        told = workload.outcomes - before
        counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(told.items()))
        return f"{counts}; cut after {took:.2f} s, {disk.dirty_bytes >> 10} KiB not synced"

    def _cut_starts(self) -> str:
        """Each at a random place of all that the start wrote."""
        cuts = 0
        while self._choose.random() < STARTS_CUT:
            self._start()
            log = self._switch.log
            positions = [record.position for record in log.records()]
            self._switch.off(self._chance(), position=self._choose.choice(positions))
            cuts += 1
        self._cuts += cuts
        return f", {cuts} starts cut" if cuts else ""

    def _start(self) -> float:
        """Seconds until the server is ready. Raises NotReady."""
        self._switch.sync_delay_s = self._choose.choice(SYNC_DELAYS_S)
        began = time.monotonic()
        self._switch.on()
        self._ready_s.append(time.monotonic() - began)
        return self._ready_s[-1]

    def _collect(self, number: int) -> None:
        """By a server whose collection does not wait."""
        report, server = self._report, self._server
        server.stop()
        self._switch.on(variables=variants.environment(server.folder, "hurried collection"))
        began = time.monotonic()
        wrong = leftovers.await_collected(server, COLLECT_PATIENCE_S)
        report.say(f"     collected in {time.monotonic() - began:.1f} s, {len(wrong)} violations")
        report.violations(f"collection after round {number}", wrong)
        server.stop()
        self._switch.on(variables=self._variables)
        report.violations(f"after the collection of round {number}", checker.check(self._workload, everything=True))
