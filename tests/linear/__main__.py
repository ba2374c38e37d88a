"""`make linear`: linearizability through three gateways, from the command line.

    python -m tests.linear --runs 10 --seconds 60 [--partitions] [--kills] [--pauses] [--clocks] [--wipes]
    python -m tests.linear --machines 4 --members
"""

import argparse
import random
import sys

from tests.linear.clients import CLIENTS
from tests.linear.run import runs
from tests.servers import NotReady
from tests.torture import variants
from tests.torture.report import Report, scratch
from tests.trio import Loopback, Namespaces, Trio

OPERATIONS_A_SECOND = 10_000 / 60
"""Fewer say too little; a run that was disturbed need not reach it."""

KINDS = ("partitions", "kills", "pauses", "clocks", "wipes", "members", "flapping", "stutters", "roles")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.linear", description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--machines", type=int, default=3)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    for kind in KINDS:
        parser.add_argument(f"--{kind}", action="store_true")
    parser.add_argument("--variant", default="", choices=["", *variants.BROKEN], help="a product that breaks a rule")
    parser.add_argument("--until-caught", action="store_true", help="end at the first violation")
    given = parser.parse_args()
    kinds = {kind: getattr(given, kind) for kind in KINDS}
    with_kinds = ", ".join(kind for kind, wanted in kinds.items() if wanted) or "nothing"
    report = Report(f"linearizability, {given.runs} runs of {given.seconds:g} s with {with_kinds}"
                    + (f", with the variant {given.variant!r}" if given.variant else ""), given.seed)
    total = 0
    with scratch(report, keep=not given.variant) as folder:
        network = Namespaces() if given.partitions or given.flapping else Loopback()
        with Trio(folder, count=given.machines, network=network) as trio:
            if given.variant:
                for machine in trio.machines:
                    machine.variables = variants.environment(machine.folder, given.variant)
            if given.clocks:
                trio.machines[-1].own_clock()
            try:
                trio.start()
                total = runs(trio, report, count=given.runs, seconds=given.seconds, until_caught=given.until_caught,
                             clients=given.clients,
                             operations_min=0 if any(kinds.values()) else int(OPERATIONS_A_SECOND * given.seconds), **kinds)
            except NotReady as error:
                report.violations("the machines", [f"do not come back: {error}"])
    return report.end(f"{total} operations in {given.runs} runs")


if __name__ == "__main__":
    sys.exit(main())
