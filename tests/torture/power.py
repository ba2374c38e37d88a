"""Power cuts under load: all processes at once, and the folder keeps only what was synced (or that, torn).

A round: load; the cut, at a random moment or right after an acknowledgement; often more cuts while the server starts,
each at a random step of what starting writes; then it must be ready in time and hold what its clients were told. Rounds
go on with the same folder. Now and then, and at the end, what nobody refers to is collected by a hurried server, and
then nothing may be left over.
"""

import os
import random
import time
from collections import Counter
from pathlib import Path

from tests import fsck
from tests.servers import NotReady, StaddleProcess
from tests.torture import checker, leftovers, variants
from tests.torture.contents import SIZES
from tests.torture.report import Report, scratch
from tests.torture.shim.image import Disk
from tests.torture.shim.power import Switch
from tests.torture.workload import Workload

LOST, TORN = "lost", "torn"
CLIENTS = 4
READY_S_MAX = 5.0
"""On a machine that has nothing else to do; proportionally more while others want its processors."""

LOAD_S = (0.2, 2.5)
ACKNOWLEDGEMENTS = (1, 150)
"""A cut right after one: which, counted from the beginning of the load. The time of the load bounds it too."""

AT_ACKNOWLEDGEMENT = 0.7
"""The share of cuts at an acknowledgement. Between two of them there is more to tear, right behind one more to lose."""

STARTS_CUT = 0.4
"""The chance that a start is cut too, and then the next one."""

ROUNDS_A_FIRST_START = 5
"""One cut of a first start for so many rounds."""

SYNC_DELAYS_S = (0.0, 0.0, 0.001, 0.005)
"""What a sync takes, by start. Nothing is written in its time that it covers."""

LIVES: tuple[tuple[str, ...], ...] = ((), ("small files",), ("small files", "hurried collection"))
"""What a server is like, by start: as it is, or so that segments, checkpoints and snapshots change often and deletions
follow at once."""

COLLECT_EVERY = 15
COLLECT_PATIENCE_S = 60.0
NO_GRACE = {"STADDLE_READ_GRACE_SECONDS": "0"}


class Rounds:
    """Rounds on one folder: what is the same whatever breaks in them. `form`: LOST or TORN."""

    lives = LIVES

    def __init__(self, switch: Switch, report: Report, form: str, variant: str, largest: int) -> None:
        self.switch, self.server, self.report, self._form = switch, switch.server, report, form
        self.choose = random.Random(f"{type(self).__name__} {form} {report.seed}")
        self._variant = tuple(filter(None, [variant]))
        self.workload = Workload(self.server, CLIENTS, report.seed, largest)
        self._ready_s: list[float] = []
        self.cuts = 0

    def round(self) -> str:
        """Load, what breaks, and a cut. Returns what happened, in a few words."""
        raise NotImplementedError

    def run(self, rounds: int, collect: bool, until_caught: bool) -> None:
        """With `until_caught` it ends at the first violation. Raises NotReady."""
        report = self.report
        self.first_start(rounds)
        for number in range(1, rounds + 1):
            line = self.round()
            ready_s = self.start()
            wrong = checker.check(self.workload, everything=number == rounds or number % 10 == 0)
            if not (wrong and until_caught):          # fsck looks several times at what is wrong
                wrong += leftovers.check_listed(self.server)
                wrong += [f"fsck: {finding.text}" for finding in fsck.online(self.server).findings
                          if finding.severity != "note"]
            if not self._variant and ready_s > READY_S_MAX * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)):
                wrong.append(f"ready only after {ready_s:.2f} s")
            report.say(f"{number:4} {line}; ready {ready_s:.2f} s, {len(wrong)} violations")
            report.violations(f"round {number}", wrong)
            if until_caught and report.wrong:
                return
            if collect and (number % COLLECT_EVERY == 0 or number == rounds):
                self._collect(number)
        ready = sorted(self._ready_s)
        report.say(f"{self.cuts} cuts; writes: {dict(self.workload.outcomes)}, {self.workload.sent_bytes >> 20} MiB sent")
        report.say(f"refused: {dict(self.workload.refusals)}")
        report.say(f"ready again: median {ready[len(ready) // 2]:.2f} s, longest {ready[-1]:.2f} s")

    def first_start(self, rounds: int) -> None:
        """Of an empty folder. Raises NotReady."""
        self.switch.on()                              # unbroken: what a variant's very first start leaves out is too plain
        self.workload.make_bucket()
        if self._variant:
            self.server.stop()
            self.start()

    def start(self) -> float:
        """Seconds until the server is ready. Raises NotReady."""
        self.switch.sync_delay_s = self.choose.choice(SYNC_DELAYS_S)
        variables = self._variables(*self._variant, *self.choose.choice(self.lives))
        began = time.monotonic()
        self.switch.on(variables)
        self._ready_s.append(time.monotonic() - began)
        return self._ready_s[-1]

    def _variables(self, *names: str) -> dict[str, str]:
        return variants.environment(self.server.folder, *names) | (NO_GRACE if "hurried collection" in names else {})

    def cut(self, position: int | None = None) -> Disk:
        chance = random.Random(self.choose.randrange(1 << 30)) if self._form == TORN else None
        self.cuts += 1
        return self.switch.off(chance, position)

    def _collect(self, number: int) -> None:
        """By a server whose collection does not wait."""
        report, server = self.report, self.server
        server.stop()
        self.switch.on(self._variables("hurried collection"))
        began = time.monotonic()
        wrong = leftovers.await_collected(server, COLLECT_PATIENCE_S)
        report.say(f"     collected in {time.monotonic() - began:.1f} s, {len(wrong)} violations")
        report.violations(f"collection after round {number}", wrong)
        server.stop()
        self.start()
        report.violations(f"after the collection of round {number}", checker.check(self.workload, everything=True))


class PowerCuts(Rounds):
    def first_start(self, rounds: int) -> None:
        """Cut as well, at random places, in long runs."""
        cuts = 0 if self._variant else rounds // ROUNDS_A_FIRST_START
        for _ in range(cuts):
            self.start()
            self._cut_start()
        super().first_start(rounds)
        if cuts:
            self.report.say(f"     {cuts} first starts cut")

    def round(self) -> str:
        workload, choose, cut = self.workload, self.choose, self.switch.cut
        before = workload.outcomes
        self.switch.wire(workload)
        if choose.random() < AT_ACKNOWLEDGEMENT:
            cut.arm(choose.randint(*ACKNOWLEDGEMENTS))
        began, load_s = time.monotonic(), choose.uniform(*LOAD_S)
        workload.start()
        cut.came.wait(load_s)
        disk = self.cut()
        took = time.monotonic() - began
        workload.stop()
        starts = self._cut_starts()
        return (f"{told(workload, before)}; cut after {took:.2f} s, {disk.dirty_bytes >> 10} KiB not synced"
                + (f", {starts} starts cut" if starts else ""))

    def _cut_starts(self) -> int:
        """Each at a random place of all that the start wrote."""
        cuts = 0
        while self.choose.random() < STARTS_CUT:
            self.start()
            self._cut_start()
            cuts += 1
        return cuts

    def _cut_start(self) -> None:
        """Of all that has been written since the server was started, the cut leaves a part."""
        self.cut(self.choose.choice([record.position for record in self.switch.log.records()]))


def told(workload: Workload, before: Counter[str]) -> str:
    """What the clients were told since."""
    return ", ".join(f"{count} {outcome}" for outcome, count in sorted((workload.outcomes - before).items()))


def run(rounds: int, seed: int | str, *, form: str, variant: str = "", collect: bool = True, quiet: bool = False,
        parent: Path | None = None, largest: int = SIZES[-1][2], until_caught: bool = False) -> Report:
    title = f"power cuts, {form}, {rounds} rounds" + (f", with the variant {variant!r}" if variant else "")
    return play(PowerCuts, title, rounds, seed, form=form, variant=variant, collect=collect, quiet=quiet, parent=parent,
                largest=largest, until_caught=until_caught)


def play(kind: type[Rounds], title: str, rounds: int, seed: int | str, *, form: str, variant: str, collect: bool,
         quiet: bool, parent: Path | None, largest: int, until_caught: bool) -> Report:
    """Rounds of a kind in a folder of their own."""
    report = Report(title, seed, quiet=quiet)
    with scratch(report, parent) as folder:
        server = StaddleProcess(folder / "server")
        switch = Switch(server)
        try:
            kind(switch, report, form, variant, largest).run(rounds, collect, until_caught)
        except NotReady as error:
            report.violations("the server", [f"does not come back: {error}"])
        finally:
            server.kill_all()
            switch.close()
    return report
