"""One disk of three is slow, full or read-only, or its storage node stands still: what clients of all three gateways notice.

Rounds of the same small load: healthy, then with the fault, then after it. Writes and reads must go on, at most three times
slower in the slowest hundredth than before, and the node must be used again by itself.
"""

import argparse
import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

from tests.bench import running
from tests.bench.cluster import requests
from tests.bench.load import Load, Outcome
from tests.bench.report import Report
from tests.bench.signer import Signer
from tests.faults.mounts import MIB, Refused, Tmpfs
from tests.servers import ACCESS_KEY, REGION, SECRET_KEY, role_of
from tests.torture.shim.log import Op, Rule, ShimLog
from tests.trio import Machine, Trio

CONNECTIONS = 12
COUNT = 1500
SLOW_S = 0.02
SLOWER_MAX = 3.0
CASES = ("slow", "full", "read-only", "stopped")


def main(count: int = COUNT, cases: Sequence[str] = CASES) -> None:
    report = Report("One bad disk of three", f"{CONNECTIONS} connections over three gateways, 4 KiB, {count} requests")
    lines: list[list[object]] = []
    worst: dict[str, float] = {}
    try:
        with running.folder() as trial:
            Tmpfs(trial / "disk").close()
    except Refused as error:
        report.say(f"left out, since {error}")
        return
    with running.folder() as where, Trio(where) as trio:
        bad = trio.machines[1]
        with Tmpfs(where / "disk") as disk:
            bad.data[0] = disk.path / "data"
            bad.data[0].mkdir()
            shim = ShimLog(bad.data[0], real_sync=True)
            bad.variables |= shim.environment
            trio.start()
            faults: dict[str, Callable[[], AbstractContextManager[None]]] = {
                "slow": lambda: slow(shim), "full": lambda: full(disk), "read-only": lambda: read_only(disk),
                "stopped": lambda: stopped(bad)}
            rounds = Rounds(trio, count)
            rounds.run("warm")
            for case in cases:
                before = rounds.run(f"{case}-before")
                with faults[case]():
                    during = rounds.run(f"{case}-during")
                returned = rounds.until_used_again(bad, case)
                for what in ("PUT", "GET"):
                    worst[f"{what} with one disk {case}"] = during[what].wait_ms(0.99) / before[what].wait_ms(0.99)
                    lines.append([f"{what}, {case}", *[f"{outcome[what].wait_ms(0.5):.1f} / {outcome[what].wait_ms(0.99):.1f} / "
                                                       f"{outcome[what].wait_max_ms:.0f}" for outcome in (before, during)],
                                  dict(during[what].statuses), f"{returned:.1f}"])
            trio.kill_all()
            shim.close()
    report.table(["", "p50 / p99 / max before, ms", "during", "answers", "used again after s"], lines)
    for name, ratio in worst.items():
        report.target(f"{name}: p99 against healthy", ratio, at_most=SLOWER_MAX)


class Rounds:
    def __init__(self, trio: Trio, count: int) -> None:
        self._trio, self._count = trio, count
        first = trio.machines[0]
        self._signer = Signer(host="{}:{}".format(*first.address), access_key=ACCESS_KEY, secret_key=SECRET_KEY, region=REGION)
        with Load(first.address, 1) as load:
            load.run([self._signer.request("PUT", "/bench")]).all_succeeded()

    def run(self, name: str) -> dict[str, Outcome]:
        with Load(self._trio.addresses[0], CONNECTIONS, *self._trio.addresses[1:]) as load:
            return {method: load.run(list(requests(self._signer, method, name, self._count))) for method in ("PUT", "GET")}

    def until_used_again(self, machine: Machine, name: str) -> float:
        """Seconds until the machine is ready, and takes writes through its own gateway."""
        began = time.monotonic()
        while not machine.ready():
            assert time.monotonic() - began < 60, machine.log()
            time.sleep(0.05)
        with Load(machine.address, 1) as load:
            load.run([self._signer.request("PUT", f"/bench/{name}-again", body=b"x")]).all_succeeded()
        return time.monotonic() - began


@contextlib.contextmanager
def slow(shim: ShimLog) -> Iterator[None]:
    number = shim.add(Rule(pattern="*", ops=Op.SYNC | Op.WRITE | Op.NAME, error=0, count=None, delay_s=SLOW_S))
    yield
    shim.remove(number)


@contextlib.contextmanager
def full(disk: Tmpfs) -> Iterator[None]:
    disk.full(MIB)
    yield
    disk.roomy()


@contextlib.contextmanager
def read_only(disk: Tmpfs) -> Iterator[None]:
    disk.read_only()
    yield
    disk.writable()


@contextlib.contextmanager
def stopped(machine: Machine) -> Iterator[None]:
    pids = [process.pid for process in machine.processes() if (role_of(process) or "").startswith("node")]
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    yield
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


if __name__ == "__main__":
    asked = argparse.ArgumentParser(prog="tests.bench.one_bad_disk")
    asked.add_argument("--count", type=int, default=COUNT, help="requests of each kind in a round")
    asked.add_argument("cases", nargs="*", default=CASES)
    options = asked.parse_args()
    main(options.count, options.cases)
