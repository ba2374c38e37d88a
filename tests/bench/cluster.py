"""Three machines on this one: durable PUTs of 4 KiB with 64 under way, spread over the three gateways. Everything runs here
(three metadata members, three storage nodes, three gateways and the generator), so the processors are what is measured:
each object is written three times, and each command to three journals.
"""

import argparse
import os
from collections.abc import Iterator

from tests.bench import costs, running
from tests.bench.load import Load, Outcome
from tests.bench.report import Report, median, spread
from tests.bench.signer import Signer
from tests.servers import ACCESS_KEY, REGION, SECRET_KEY
from tests.trio import Trio

OBJECT_BYTES = 4096
CONCURRENCY = 64
ROUNDS = 3
PUTS_A_ROUND = 6000
RATE_WANTED = 1000.0


def main(rounds: int = ROUNDS, count: int = PUTS_A_ROUND) -> None:
    report = Report("A cluster of three", f"{OBJECT_BYTES} bytes, {CONCURRENCY} at a time, on disk on a quorum before the answer")
    puts, gets, spent, read = [], [], [], []
    with running.folder() as where, Trio(where) as trio:
        trio.start()
        host = f"{trio.machines[0].host}:{trio.machines[0].port}"
        signer = Signer(host=host, access_key=ACCESS_KEY, secret_key=SECRET_KEY, region=REGION)
        with Load(trio.addresses[0], CONCURRENCY, *trio.addresses[1:]) as load:
            load.run([signer.request("PUT", "/bench")]).all_succeeded()
            load.run(requests(signer, "PUT", "warm", 1000)).all_succeeded()
            for number in range(rounds):
                outcome, each = measured(trio, load, signer, "PUT", f"r{number}", count)
                puts.append(outcome)
                spent.append(each)
                outcome, each = measured(trio, load, signer, "GET", f"r{number}", count)
                gets.append(outcome)
                read.append(each)
    report.table(["", "median (least to greatest of rounds)"], [
        *rows("PUT", puts, count), *costs.rows(spent, "PUT"), *rows("GET", gets, count), *costs.rows(read, "GET")])
    report.target("PUTs a second", median([outcome.rate for outcome in puts]), at_least=RATE_WANTED)


def rows(what: str, outcomes: list[Outcome], count: int) -> list[list[object]]:
    return [
        [f"{what}s a second", spread([outcome.rate for outcome in outcomes])],
        [f"{what} wait p50, ms", spread([outcome.wait_ms(0.5) for outcome in outcomes])],
        [f"{what} wait p99, ms", spread([outcome.wait_ms(0.99) for outcome in outcomes])],
        [f"generator CPU, µs a {what}", spread([outcome.client_cpu_s / count * 1e6 for outcome in outcomes])],
    ]


def measured(trio: Trio, load: Load, signer: Signer, method: str, name: str, count: int) -> tuple[Outcome, dict[str, float]]:
    """So many requests; and the CPU cost of each by role, of all machines together."""
    wanted = list(requests(signer, method, name, count))
    before = spent_so_far(trio)
    outcome = load.run(wanted).all_succeeded()
    return outcome, costs.each(before, spent_so_far(trio), count)


def spent_so_far(trio: Trio) -> dict[str, float]:
    total: dict[str, float] = {}
    for machine in trio.machines:
        for role, seconds in costs.cpu_s(machine).items():
            total[role] = total.get(role, 0.0) + seconds
    return total


def requests(signer: Signer, method: str, name: str, count: int) -> Iterator[bytes]:
    for number in range(count):
        yield signer.request(method, f"/bench/{name}/{number:06}", body=os.urandom(OBJECT_BYTES) if method == "PUT" else b"")


if __name__ == "__main__":
    asked = argparse.ArgumentParser(prog="tests.bench.cluster")
    asked.add_argument("--rounds", type=int, default=ROUNDS)
    asked.add_argument("--puts", type=int, default=PUTS_A_ROUND)
    options = asked.parse_args()
    main(options.rounds, options.puts)
