"""Durable PUTs of 4 KiB with 64 under way, against the plain way to keep small objects: one file for each.

The reference writes a file, fsyncs it, renames it and fsyncs the folder, in 64 threads of one process. It checks no
signature, computes no hash and keeps no metadata. A second one spreads its files over 256 folders, which file systems
like better. Rounds of all three take turns.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench import costs, running, syncs
from tests.bench.load import Load, Outcome
from tests.bench.report import Report, median, spread
from tests.bench.signer import Signer
from tests.servers import StaddleProcess

OBJECT_BYTES = 4096
CONCURRENCY = 64
ROUNDS = 5
PUTS_A_ROUND = 20_000
REFERENCE_S = 4.0
SYNCS = 50
RATIO_WANTED = 3.0


def main() -> None:
    report = Report("Small durable PUTs", f"{OBJECT_BYTES} bytes, {CONCURRENCY} at a time, on disk before the answer")
    with running.folder() as where:
        measure(report, where, PUTS_A_ROUND)


def measure(report: Report, where: Path, puts_a_round: int) -> None:
    """On the disk that `where`, an empty folder, is on."""
    rates, plain, spread_out, spent, outcomes, sync = [], [], [], [], [], []
    with running.server(where) as server, Load(server.address, CONCURRENCY) as load:
        run(server, load, 2000, "warm")
        for number in range(ROUNDS):
            sync.append(sync_ms(where))
            plain.append(reference(where / f"files{number}", 1))
            spread_out.append(reference(where / f"folders{number}", 256))
            outcome, each = run(server, load, puts_a_round, f"r{number}")
            rates.append(outcome.rate)
            outcomes.append(outcome)
            spent.append(each)
        with syncs.Counting(server) as counting:
            run(server, load, 3000, "counted")
        synced = counting.counts
    report.table(["", "median (least to greatest of rounds)"], [
        ["PUTs a second", spread(rates)],
        ["reference, files a second in one folder", spread([rate for rate, _ in plain])],
        ["reference, files a second in 256 folders", spread([rate for rate, _ in spread_out])],
        ["reference, CPU µs a file", spread([cpu for _, cpu in plain])],
        ["one fdatasync of this disk, ms", spread(sync)],
        ["wait p50, ms", spread([outcome.wait_ms(0.5) for outcome in outcomes])],
        ["wait p99, ms", spread([outcome.wait_ms(0.99) for outcome in outcomes])],
        ["greatest wait, ms", spread([outcome.wait_max_ms for outcome in outcomes])],
        *costs.rows(spent, "PUT"),
        ["generator CPU, µs a PUT", spread([outcome.client_cpu_s / puts_a_round * 1e6 for outcome in outcomes])],
        *[[f"syncs a PUT, {role}", count / 3000] for role, count in synced.items()],
    ])
    report.target("PUTs against the file-per-object loop, ratio",
                  median([ours / theirs for ours, (theirs, _) in zip(rates, plain, strict=True)]), at_least=RATIO_WANTED)
    report.say(f"ratio to the loop over 256 folders: {median(rates) / median([rate for rate, _ in spread_out]):.2f}")


def run(server: StaddleProcess, load: Load, count: int, name: str) -> tuple[Outcome, dict[str, float]]:
    """So many PUTs of new objects; what was seen, and the CPU cost of each by role."""
    requests = list(puts(running.signer(server), name, count))
    before = costs.cpu_s(server)
    outcome = load.run(requests).all_succeeded()
    return outcome, costs.each(before, costs.cpu_s(server), count)


def puts(signer: Signer, name: str, count: int) -> Iterator[bytes]:
    """Signed with the body's digest, as clients do over http. Each body is new: equal ones would share their space."""
    for number in range(count):
        yield signer.request("PUT", f"/bench/{name}/{number:06}", body=os.urandom(OBJECT_BYTES))


def reference(where: Path, folders: int) -> tuple[float, float]:
    """Files a second, and CPU µs for each, measured by a process of its own."""
    where.mkdir()
    done = subprocess.run([sys.executable, "-c", REFERENCE, str(where), str(REFERENCE_S), str(CONCURRENCY),
                           str(OBJECT_BYTES), str(folders)], capture_output=True, text=True, check=True)
    count, took, cpu = map(float, done.stdout.split())
    return count / took, cpu / count * 1e6


def sync_ms(where: Path) -> float:
    """What one fdatasync of a small append takes on this disk: it tells how much there is to win by sharing them."""
    took = []
    with (where / "sync").open("wb", buffering=0) as file:
        for _ in range(SYNCS):
            file.write(os.urandom(OBJECT_BYTES))
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append((time.perf_counter() - began) * 1000)
    return median(took)


REFERENCE = """
import os, sys, threading, time
where, seconds, threads, size, spread = sys.argv[1], float(sys.argv[2]), *map(int, sys.argv[3:6])
folders = [f"{where}/{number:02x}" for number in range(spread)]
for folder in folders:
    os.mkdir(folder)
counts = [0] * threads
began = time.monotonic()
def work(mine):
    body = os.urandom(size)
    while time.monotonic() - began < seconds:
        folder = folders[(mine * 7 + counts[mine]) % spread]
        name = f"{folder}/{mine}-{counts[mine]}"
        file = os.open(name + ".new", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(file, body)
        os.fsync(file)
        os.close(file)
        os.rename(name + ".new", name)
        holder = os.open(folder, os.O_RDONLY)
        os.fsync(holder)
        os.close(holder)
        counts[mine] += 1
workers = [threading.Thread(target=work, args=(mine,)) for mine in range(threads)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
print(sum(counts), time.monotonic() - began, time.process_time())
"""
