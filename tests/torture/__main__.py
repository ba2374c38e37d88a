"""`make torture`, `make torture-model`, `make torture-damage`: the long runs, from the command line.

    python -m tests.torture kill --rounds 100 --seed 1 [--variant "acknowledged before commit"]
"""

import argparse
import logging
import random
import sys
from collections.abc import Callable

from tests.torture import (
    cluster,
    cluster_disks,
    cluster_power,
    controls,
    damage,
    events,
    fsyncfail,
    kill,
    model,
    power,
    variants,
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    runs = parser.add_subparsers(dest="run", required=True)
    _kill(runs.add_parser("kill", help=kill.__doc__))
    _damage(runs.add_parser("damage", help=damage.__doc__))
    _model(runs.add_parser("model", help=model.__doc__))
    _power(runs.add_parser("power", help=power.__doc__))
    _failed_syncs(runs.add_parser("failed-syncs", help=fsyncfail.__doc__))
    _cluster(runs.add_parser("cluster", help=cluster.__doc__))
    _disks(runs.add_parser("cluster-disks", help=cluster_disks.__doc__))
    _controls(runs.add_parser("controls", help=controls.__doc__))
    _events(runs.add_parser("events", help=events.__doc__))
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)                 # what runs in this process says a lot about damage
    start: Callable[[argparse.Namespace], int] = arguments.start
    return start(arguments)


def _seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6), help="repeats a run's choices")


def _kill(parser: argparse.ArgumentParser) -> None:
    _seed(parser)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--variant", default="", choices=["", *variants.BROKEN])
    parser.add_argument("--disks", type=int, default=1, help="data folders, so storage nodes")
    parser.add_argument("--workers", type=int, default=1, help="gateway processes")
    parser.add_argument("--rot", action="store_true", help="damage copies on the last of several disks all the time")
    parser.add_argument("--until-caught", action="store_true", help="end at the first violation")

    def start(given: argparse.Namespace) -> int:
        report = kill.run(given.rounds, given.seed, variant=given.variant, until_caught=given.until_caught,
                          disks=given.disks, workers=given.workers, rot=given.rot)
        return report.end(f"{given.rounds} rounds")

    parser.set_defaults(start=start)


def _damage(parser: argparse.ArgumentParser) -> None:
    _seed(parser)
    parser.add_argument("--chunks", type=int, default=1000)
    parser.add_argument("--variant", default="", choices=["", *variants.BROKEN])

    def start(given: argparse.Namespace) -> int:
        return damage.run(given.chunks, given.seed, variant=given.variant).end("everything was read four times and more")

    parser.set_defaults(start=start)


def _model(parser: argparse.ArgumentParser) -> None:
    _seed(parser)
    parser.add_argument("--operations", type=int, default=100_000)

    def start(given: argparse.Namespace) -> int:
        return model.run(given.operations, given.seed).end("everything equal, nothing left over on the disk")

    parser.set_defaults(start=start)


def _events(parser: argparse.ArgumentParser) -> None:
    _seed(parser)
    parser.add_argument("--seconds", type=float, default=60)

    def start(given: argparse.Namespace) -> int:
        return events.run(given.seconds, given.seed).end(f"{given.seconds:.0f} s of kills")

    parser.set_defaults(start=start)


def _power(parser: argparse.ArgumentParser) -> None:
    _seed(parser)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--form", choices=[power.LOST, power.TORN])
    parser.add_argument("--variant", default="", choices=["", *variants.BROKEN])
    parser.add_argument("--until-caught", action="store_true", help="end at the first violation")

    def start(given: argparse.Namespace) -> int:
        failed = 0
        for form in [given.form] if given.form else [power.LOST, power.TORN]:
            report = power.run(given.rounds, given.seed, form=form, variant=given.variant, until_caught=given.until_caught,
                               collect=not given.variant)
            failed |= report.end(f"{given.rounds} rounds")
        return failed

    parser.set_defaults(start=start)


def _failed_syncs(parser: argparse.ArgumentParser) -> None:
    _seed(parser)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--variant", default="", choices=["", *variants.BROKEN])
    parser.add_argument("--until-caught", action="store_true", help="end at the first violation")

    def start(given: argparse.Namespace) -> int:
        report = fsyncfail.run(given.rounds, given.seed, variant=given.variant, until_caught=given.until_caught,
                               collect=not given.variant)
        return report.end(f"{given.rounds} rounds")

    parser.set_defaults(start=start)


def _cluster(parser: argparse.ArgumentParser) -> None:
    _seed(parser)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--kind", default=cluster.NODE, choices=[*cluster.KINDS, "power"])
    parser.add_argument("--hurried", action="store_true", help="collection deletes at once what nobody refers to")
    parser.add_argument("--variant", default="", choices=["", *variants.BROKEN], help="a product that breaks a rule")
    parser.add_argument("--until-caught", action="store_true", help="end at the first violation")

    def start(given: argparse.Namespace) -> int:
        if given.kind == "power":
            report = cluster_power.run(given.rounds, given.seed, variant=given.variant, until_caught=given.until_caught)
        else:
            report = cluster.run(given.rounds, given.seed, kind=given.kind, variant=given.variant,
                                 until_caught=given.until_caught, hurried=given.hurried)
        return report.end(f"{given.rounds} rounds")

    parser.set_defaults(start=start)


def _disks(parser: argparse.ArgumentParser) -> None:
    _seed(parser)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--fault", choices=["wiped", "rotten"], default="wiped")

    def start(given: argparse.Namespace) -> int:
        run = cluster_disks.wiped if given.fault == "wiped" else cluster_disks.rotten
        return run(given.count, given.seed).end("everything is whole again")

    parser.set_defaults(start=start)


def _controls(parser: argparse.ArgumentParser) -> None:
    _seed(parser)
    parser.add_argument("--seeds", type=int, default=controls.SEEDS)

    def start(given: argparse.Namespace) -> int:
        return controls.run(given.seed, given.seeds).end("each variant is to be caught for every seed")

    parser.set_defaults(start=start)


if __name__ == "__main__":
    sys.exit(main())
