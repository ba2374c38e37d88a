"""kill -9 at random moments, of one role or of everything, while clients write.

A round: load; the kill; the server is ready again, unaided (after the supervisor or everything was killed, it is started
again as an operating system would); a write gets through; the clients stop; everything is compared. Now and then a
second kill hits the server while it recovers; in every other round its keeper is at work beside the clients: collection,
compaction, scrub and backups are under way when the kill comes. Every COLLECT_EVERY rounds, and at the end, backups are
dropped, what nobody refers to is collected by a hurried server, and then nothing may be left over.
"""

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests import processes
from tests.servers import NotReady, StaddleProcess
from tests.talker import ANSWER_TIMEOUT_S, NotSent, Unanswered
from tests.torture import admin, checker, damage, leftovers, variants
from tests.torture.contents import SIZES
from tests.torture.report import Report, scratch
from tests.torture.workload import Workload

VICTIMS = ("gateway", "node", "meta", "all", "supervisor")
CLIENTS = 4
READY_S_MAX = 5.0
RECOVERY_TIMEOUT_S = 30.0
LOAD_S = (0.6, 2.5)
"""At least so long that one which dies now is not in a crash loop to its supervisor (supervisor.STEADY_S)."""

TWICE = 0.15
"""The chance that a second kill follows, within TWICE_WITHIN_S."""

TWICE_WITHIN_S = 1.0
AFTERWARDS_S = 0.3
COLLECT_EVERY = 25
COLLECT_PATIENCE_S = 60.0
KEEPER_PAUSE_S = 0.05
KEPT = 0.5
"""The share of rounds with a keeper."""

ROTTEN = 20
"""Copies damaged in a round, where that is asked for."""

NO_GRACE = {"STADDLE_READ_GRACE_SECONDS": "0"}
POLL_S = 0.01


def ready_s_max() -> float:
    """READY_S_MAX, where nobody else uses the machine; what others take of it is not the server's time."""
    return READY_S_MAX * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


class Back(NamedTuple):
    """Seconds from the last kill."""

    ready_s: float
    written_s: float
    """Until a write was acknowledged that began when the dead were dead."""


def run(rounds: int, seed: int, *, variant: str = "", victims: tuple[str, ...] = VICTIMS, collect: bool = True,
        quiet: bool = False, parent: Path | None = None, largest: int = SIZES[-1][2], until_caught: bool = False,
        disks: int = 1, workers: int = 1, rot: bool = False) -> Report:
    """With `until_caught` it ends at the first violation. `workers` of the gateway. `rot`: copies on the last disk are
    damaged in each round, which must not matter while others are good."""
    assert not rot or disks > 1
    report = Report(f"kill -9, {rounds} rounds" + (f", with the variant {variant!r}" if variant else ""), seed, quiet=quiet)
    with scratch(report, parent, keep=not variant) as folder:
        server = StaddleProcess(folder / "server", data_folders=disks, settings={"workers": str(workers)})
        try:
            _run(server, report, rounds, seed, variant, victims, collect, largest, until_caught, rot)
        finally:
            server.kill_all()
    return report


def _run(server: StaddleProcess, report: Report, rounds: int, seed: int, variant: str, victims: tuple[str, ...],
         collect: bool, largest: int, until_caught: bool, rot: bool) -> None:
    choose = random.Random(f"kill {seed}")
    broken = variants.environment(server.folder, *filter(None, [variant]))
    server.variables = broken
    server.start()
    workload = Workload(server, CLIENTS, seed, largest)
    workload.make_bucket()
    backs: list[Back] = []
    for number, victim in zip(range(1, rounds + 1), _deck(choose, victims), strict=False):
        try:
            back, line = _round(server, workload, victim, choose, rot)
        except NotReady as error:
            report.violations(f"round {number}, {victim}", [f"not ready again: {error}"])
            return
        backs.append(back)
        wrong = checker.check(workload, everything=number == rounds or number % 10 == 0)
        if not rot:                                   # else what is damaged is known to be
            wrong += leftovers.check_listed(server) + admin.fsck(server)
        if back.ready_s > ready_s_max():
            wrong.append(f"ready only after {back.ready_s:.2f} s")
        report.say(f"{number:4} {victim:10} {line}, {len(wrong)} violations")
        report.violations(f"round {number}, {victim}", wrong)
        if until_caught and report.wrong:
            return
        if collect and not rot and (number % COLLECT_EVERY == 0 or number == rounds):
            report.violations(f"collection after round {number}", _collect(server, report))
            server.variables = broken
            _restart(server)
            report.violations(f"after the collection of round {number}", checker.check(workload, everything=True))
    if rot:
        _await_nodes(server)
        mended = admin.run(server, "fsck/run", verify=True, repair=True)
        report.say(f"fsck --verify --repair: repaired {mended['repaired']}, left {mended['counts']}")
        left = [finding["text"] for finding in mended["findings"] if finding["severity"] != "note"]
        report.violations("fsck after the last round", left)
        report.violations("after the repair", checker.check(workload, everything=True))
    outcomes = dict(workload.outcomes)
    ready = sorted(back.ready_s for back in backs)
    report.say(f"writes: {outcomes}, {workload.sent_bytes >> 20} MiB sent; requests: {dict(workload.operations)}")
    report.say(f"refused: {dict(workload.refusals)}")
    report.say(f"ready again: median {ready[len(ready) // 2]:.2f} s, longest {ready[-1]:.2f} s; a write through: longest "
               f"{max(back.written_s for back in backs):.2f} s")


def _deck(choose: random.Random, victims: tuple[str, ...]) -> Iterator[str]:
    """Each as often as any other, in a random order."""
    while True:
        yield from choose.sample(victims, len(victims))


def _round(server: StaddleProcess, workload: Workload, victim: str, choose: random.Random, rot: bool) -> tuple[Back, str]:
    before = workload.outcomes
    _await_nodes(server)
    workload.start()
    keeper = Keeper(server, choose.randrange(1 << 30)) if choose.random() < KEPT else None
    try:
        load_s = choose.uniform(*LOAD_S)
        rotten = damage.rot(server.data[-1], ROTTEN, choose) if rot else 0
        time.sleep(load_s)                            # the moment of the kill is the experiment: not to be awaited
        killed = time.monotonic()
        pids = kill(server, victim)
        dead = time.monotonic()
        line = f"after {load_s:.2f} s" + (f" with {keeper.work}" if keeper else "") + (f", {rotten} rotten" if rotten else "")
        if choose.random() < TWICE:
            second_s = choose.uniform(0, TWICE_WITHIN_S)
            time.sleep(second_s)
            again = choose.choice(("gateway", "node", "meta"))
            if server.running and (there := server.roles()[again]):
                killed = time.monotonic()
                with contextlib.suppress(ProcessLookupError):     # the one that died just now may have been seen still
                    os.kill(there[0], signal.SIGKILL)
                pids.append(there[0])
                dead = time.monotonic()
                line += f", and {again} {second_s:.2f} s later"
        ready_s = await_ready(server, pids, killed)
        written_s = _await_written(workload, dead)
        time.sleep(AFTERWARDS_S)
    finally:
        workload.stop()
        if keeper is not None:
            keeper.stop()
    told = workload.outcomes - before
    counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(told.items()))
    return Back(ready_s, written_s), f"{line}: ready {ready_s:.2f} s, written {written_s:.2f} s; {counts}"


class Keeper:
    """Asks the server for one kind of care after the other, in a thread, whatever becomes of it."""

    def __init__(self, server: StaddleProcess, seed: int) -> None:
        self._server, self._choose = server, random.Random(seed)
        self._stopping = threading.Event()
        self.work = ""
        self._thread = threading.Thread(target=self._run, daemon=True, name="keeper")
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(ANSWER_TIMEOUT_S + 30)
        assert not self._thread.is_alive(), f"{self.work} has no end"

    def _run(self) -> None:
        number = 0
        while not self._stopping.is_set():
            number += 1
            self.work, fields = self._choose.choice((
                ("gc/run", {"now": False}), ("gc/run", {"now": True}), ("node/compact", {"dead_percent": 1}),
                ("scrub/run", {"full_speed": True}), ("backup/create", {"name": f"b{number}"}),
                ("backup/delete", {"name": f"b{number - 1}"})))
            with contextlib.suppress(NotSent, Unanswered, AssertionError):      # it is the clients' objects that count
                admin.run(self._server, self.work, **fields)
            self._stopping.wait(KEEPER_PAUSE_S)


def kill(server: StaddleProcess, victim: str) -> list[int]:
    """SIGKILL. Returns the ids that must be gone before the server can be called back."""
    if victim == "all":
        pids = [process.pid for process in server.processes()]
        server.kill_all()
        return pids
    if victim == "supervisor":
        pids = [process.pid for process in server.processes()]
        os.kill(server.pid, signal.SIGKILL)
        server.wait_ended()
        return pids
    return [server.kill(victim)]


def await_ready(server: StaddleProcess, gone: list[int], killed: float) -> float:
    """Seconds from `killed` until none of the dead is left and the server says that it is ready. One whose supervisor has
    ended is started again, as often as it takes: children of a killed supervisor may still hold the port. Raises
    NotReady."""
    while True:
        took = time.monotonic() - killed
        if not server.running:
            server.start(wait=False)
        left = [pid for pid in gone if (process := processes.read(pid)) is not None and process.state != "Z"]
        if not left and server.running and all(server.roles().values()) and server.ready():
            return time.monotonic() - killed
        if took > RECOVERY_TIMEOUT_S:
            raise NotReady(f"after {took:.1f} s, of the dead {left} are left:\n{server.log()}")
        time.sleep(POLL_S)


def _await_nodes(server: StaddleProcess) -> None:
    """With several disks the server is ready before all of its nodes are back."""
    deadline = time.monotonic() + RECOVERY_TIMEOUT_S
    while any(node["error"] for node in admin.get(server, "node/list")["nodes"]):
        if time.monotonic() > deadline:
            raise NotReady("a storage node does not come back")
        time.sleep(POLL_S)


def _await_written(workload: Workload, killed: float) -> float:
    deadline = time.monotonic() + RECOVERY_TIMEOUT_S
    while (at := workload.acknowledged_after(killed)) is None:
        if time.monotonic() > deadline:
            raise NotReady(f"no write got through within {RECOVERY_TIMEOUT_S} s after it was ready")
        time.sleep(POLL_S)
    return at - killed


def _collect(server: StaddleProcess, report: Report) -> list[str]:
    """With a server whose collection does not wait."""
    _restart(server, variants.environment(server.folder, "hurried collection") | NO_GRACE)
    began = time.monotonic()
    for backup in admin.get(server, "backup/list")["backups"]:
        admin.post(server, "backup/delete", name=backup["name"])
    done = admin.run(server, "gc/run", now=True)
    wrong = [f"gc run: {error}" for error in done["errors"]]
    wrong += leftovers.await_collected(server, COLLECT_PATIENCE_S)
    wrong += admin.fsck(server, thorough=True)
    found = leftovers.look(server)
    report.say(f"     collected in {time.monotonic() - began:.1f} s: {len(found.held)} copies held, {len(found.listed)} "
               f"listed, {len(found.orphans)} orphans, {len(wrong)} violations")
    return wrong


def _restart(server: StaddleProcess, variables: dict[str, str] | None = None) -> None:
    server.stop()
    if variables is not None:
        server.variables = variables
    server.start()
