"""kill -9 of whole machines of three, under load: any one, the leader, or all at once.

A round: clients write through all three gateways, each its own keys; the kill; the gateways of the machines that live are
watched until they serve again; the dead are started as an operating system would; all are ready; the clients stop, and
what they were told is compared with what another gateway shows than the one that told it. Every FSCK_EVERY rounds, and at
the end, all copies come back and fsck finds nothing.
"""

import os
import random
import statistics
import time
from pathlib import Path
from typing import NamedTuple

from tests.servers import NotReady
from tests.talker import Talker
from tests.torture import admin, checker, leftovers, probing, variants
from tests.torture.contents import SIZES
from tests.torture.probing import READ, WRITE, Probes
from tests.torture.report import Report, scratch
from tests.torture.workload import Workload
from tests.trio import Machine, Trio

NODE, LEADER, ALL = "node", "leader", "all"
KINDS = (NODE, LEADER, ALL)
CLIENTS = 6
LOAD_S = (0.6, 2.5)
WATCHED_S = 1.5
"""Gateways that answer again are watched for so long, lest they stop once more."""

SERVING_TIMEOUT_S = 30.0
DOWN_S = (0.0, 2.0)
"""From the time when the others serve again to the start of the dead."""

READY_S_MAX = 10.0
"""Where nobody else uses the machine; what others take of it is not the cluster's time."""

WRITES_BACK_S_MAX, READS_BACK_S_MAX = 5.0, 2.0
"""At the 95th percentile."""

FSCK_EVERY = 10
WHOLE_PATIENCE_S = 120.0
COLLECT_PATIENCE_S = 60.0
LISTED_TRIES = 5
POLL_S = 0.05


class Back(NamedTuple):
    """Seconds from the kill until all gateways of living machines served again, and from their start until all machines
    were ready."""

    writes_s: float
    reads_s: float
    ready_s: float


def run(rounds: int, seed: int, *, kind: str = NODE, quiet: bool = False, parent: Path | None = None,
        largest: int = SIZES[-1][2], until_caught: bool = False, variant: str = "",
        hurried: bool = False) -> Report:
    """`hurried`: sessions end soon and readers get no grace, so that what nobody refers to is deleted at once, on all nodes,
    beside everything else; at the end nothing is left over."""
    report = Report(f"kill -9 of machines ({kind}), {rounds} rounds" + (f", with the variant {variant!r}" if variant else "")
                    + (", with hurried collection" if hurried else ""), seed, quiet=quiet)
    settings = {"read_grace_seconds": "0"} if hurried else {}
    with scratch(report, parent, keep=not variant) as folder, Trio(folder, settings=settings) as trio:
        lives = ("hurried collection", "small files") if hurried else ()
        for machine in trio.machines:
            machine.variables = variants.environment(machine.folder, *filter(None, [variant]), *lives)
        try:
            trio.start()
            Rounds(trio, report, kind, largest).run(rounds, until_caught)
            if hurried and not report.wrong:
                report.violations("collection", _collected(trio, report))
        except NotReady as error:
            report.violations("the machines", [f"do not come back: {error}"])
    return report


class Rounds:
    def __init__(self, trio: Trio, report: Report, kind: str, largest: int) -> None:
        self._trio, self._report, self.kind = trio, report, kind
        self._choose = random.Random(f"kill {kind} {report.seed}")
        self._workload = Workload(trio.machines[0], CLIENTS, report.seed, largest, servers=trio.machines)
        self._workload.make_bucket()
        with Talker(trio.machines[0]) as talker:
            status, answer, _ = talker.ask("PUT", f"/{probing.BUCKET}")
            assert status == 200, answer

    def run(self, rounds: int, until_caught: bool) -> None:
        """Raises NotReady."""
        report, workload, backs = self._report, self._workload, []
        for number in range(1, rounds + 1):
            back, line = self._round()
            backs.append(back)
            last = number == rounds
            wrong = checker.check(workload, everything=last or number % FSCK_EVERY == 0, shift=1 + number % 2)
            wrong += self._listed()
            if back.ready_s > READY_S_MAX * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)):
                wrong.append(f"all were ready only after {back.ready_s:.2f} s")
            if last or number % FSCK_EVERY == 0:
                whole_s, left = self._whole()
                line += f"; copies whole after {whole_s:.1f} s"
                wrong += left
            report.say(f"{number:4} {line}, {len(wrong)} violations")
            report.violations(f"round {number}", wrong)
            if until_caught and report.wrong:
                return
        report.say(f"writes: {dict(workload.outcomes)}, {workload.sent_bytes >> 20} MiB sent; requests: "
                   f"{dict(workload.operations)}; refused: {dict(workload.refusals)}")
        report.say(_figures("all ready", [back.ready_s for back in backs]))
        if self.kind != ALL:
            for name, values, most in (("writes", [back.writes_s for back in backs], WRITES_BACK_S_MAX),
                                       ("reads", [back.reads_s for back in backs], READS_BACK_S_MAX)):
                report.say(_figures(f"{name} through the others again", values))
                if len(values) >= 20 and _share(values, 0.95) > most:
                    report.violations("figures", [f"{name} came back only after {_share(values, 0.95):.2f} s (p95)"])

    def _victims(self) -> list[Machine]:
        if self.kind == ALL:
            return list(self._trio.machines)
        if self.kind == LEADER:
            leader = self._trio.leader()
            assert leader is not None, f"nobody leads:\n{self._trio.logs()}"
            return [leader]
        return [self._choose.choice(self._trio.machines)]

    def _round(self) -> tuple[Back, str]:
        trio, workload, choose = self._trio, self._workload, self._choose
        before = workload.outcomes
        probes = Probes(trio.machines)
        workload.start()
        try:
            probes.start()
            load_s = choose.uniform(*LOAD_S)
            time.sleep(load_s)                        # the moment of the kill is the experiment: not to be awaited
            victims = self._victims()
            was_leader = trio.leader() if self.kind == NODE else None
            living = [machine for machine in trio.machines if machine not in victims]
            killed = time.monotonic()
            if living:
                for machine in victims:
                    machine.kill_all()
            else:
                trio.kill_all()
            backs = {kind: self._await_serving(probes, living, kind, killed) for kind in (WRITE, READ)} if living else {}
            time.sleep(choose.uniform(*DOWN_S))
            started = time.monotonic()
            for machine in victims:
                machine.start(wait=False)
            trio.wait_ready()
            ready_s = time.monotonic() - started
            self._await_serving(probes, trio.machines, WRITE, time.monotonic())
        finally:
            workload.stop()
            probes.stop()
        told = workload.outcomes - before
        counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(told.items()))
        who = " and ".join(machine.name + (" (led)" if machine is was_leader else "") for machine in victims)
        served = "".join(f", {kind}s {back_s:.2f} s" for kind, back_s in backs.items())
        return (Back(backs.get(WRITE, 0.0), backs.get(READ, 0.0), ready_s),
                f"{who}{served}, ready {ready_s:.2f} s; {counts}")

    def _await_serving(self, probes: Probes, machines: list[Machine], kind: str, since: float) -> float:
        """Seconds until all of them serve, seen to stay so for a while. Raises NotReady."""
        while True:
            found = [probes.back_s(machine, kind, since) for machine in machines]
            took = time.monotonic() - since
            if all(back is not None and took > back + WATCHED_S for back in found):
                return max(back for back in found if back is not None)
            if took > SERVING_TIMEOUT_S:
                raise NotReady(f"{kind}s are not served after {took:.1f} s ({found}): {probes.errors[-3:]}\n{self._trio.logs()}")
            time.sleep(POLL_S)

    def _listed(self) -> list[str]:
        """Every copy that metadata lists is there. Repair and collection are at work, and a follower's file may be a moment
        behind: what is wrong must be so at several looks."""
        first, *others = self._trio.machines
        wrong: set[str] = set()
        for number in range(LISTED_TRIES):
            found = set(leftovers.check_listed(first, others))
            wrong = found if not number else wrong & found
            if not wrong:
                return []
            time.sleep(0.5)
        return sorted(wrong)

    def _whole(self) -> tuple[float, list[str]]:
        """Seconds until fsck finds nothing, through any machine; or what it still finds when patience ends."""
        began = time.monotonic()
        machine = self._choose.choice(self._trio.machines)
        while True:
            left = admin.fsck(machine)
            took = time.monotonic() - began
            if not left or took > WHOLE_PATIENCE_S:
                return took, left
            time.sleep(0.5)


def _collected(trio: Trio, report: Report) -> list[str]:
    """Nothing is left over on any node that metadata does not list there, nor anything in the queue."""
    began = time.monotonic()
    done = admin.run(trio.machines[0], "gc/run", now=True)
    wrong = [f"gc run: {error}" for error in done["errors"]]
    while True:
        found = leftovers.look(trio.machines[0], trio.machines[1:])
        if not found.orphans and not found.queued:
            break
        if time.monotonic() - began > COLLECT_PATIENCE_S:
            wrong += [f"chunk {digest.hex()[:12]} on {node} is an orphan" for node, digest, _ in found.orphans]
            wrong += [f"{found.queued} things are still in the metadata's queue"] if found.queued else []
            break
        time.sleep(0.5)
    report.say(f"     collected in {time.monotonic() - began:.1f} s: {len(found.held)} copies held, {len(found.listed)} listed, "
               f"{len(found.orphans)} orphans")
    return wrong + found.wrong


def _share(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _figures(name: str, values: list[float]) -> str:
    return (f"{name}: median {statistics.median(values):.2f} s, p95 {_share(values, 0.95):.2f} s, longest "
            f"{max(values):.2f} s")

