"""`python -m tests.sim --seed 7`, `--seeds 40 [--first 1] [--jobs 2]`, `--controls`, `--control NAME`."""

import argparse
import os
import subprocess
import sys
import time

from tests.sim.controls import CONTROLS, SCRIPTS, caught
from tests.sim.simulation import SECONDS, simulated

SHOWN = 6
"""Violations of one seed: the first say most."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.sim", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one, and show the last events if it fails")
    parser.add_argument("--seeds", type=int, default=40, help="run so many")
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of simulated time under faults")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--events", type=int, default=80, help="how many events before the first violation are shown")
    parser.add_argument("--controls", action="store_true", help="broken products, each to be caught")
    parser.add_argument("--control", choices=[control.name for control in CONTROLS], help="this one")
    options = parser.parse_args()
    if options.control is not None:
        return controls(options.control)
    if options.controls:
        return controls() + scripts()
    if options.seed is not None:
        return 0 if one(options.seed, options.seconds, options.events) else 1
    return many(options)


def one(seed: int, seconds: float, events: int) -> bool:
    outcome = simulated(seed, seconds)
    violations = outcome.violations
    told = ", ".join(f"{count} {what}" for what, count in sorted(outcome.counts.items()))
    print(f"seed {seed}: {'FAILED' if violations else 'ok'} hash {outcome.hash} {outcome.took_s:.1f} s: {told}", flush=True)
    if violations:
        if events:
            print("  before the first violation:")
            for event in outcome.events[-events:]:
                print(f"    {event}")
        for violation in violations[:SHOWN]:
            print(f"  {violation if events else violation.partition(chr(10))[0][:200]}")
        if len(violations) > SHOWN:
            print(f"  and {len(violations) - SHOWN} more")
        print(f"  run it again: make sim SEED={seed}" + (f" SECONDS={seconds:g}" if seconds != SECONDS else ""), flush=True)
    return not violations


def scripts() -> int:
    """What the controls go through, with nothing broken."""
    failed = 0
    for script in SCRIPTS:
        violations = simulated(1, script=script).violations
        failed += bool(violations)
        print(f"{script.__name__}, nothing broken: {violations[0][:200] if violations else 'ok'}", flush=True)
    return 1 if failed else 0


def controls(name: str | None = None) -> int:
    missed = 0
    for control in CONTROLS:
        if name not in (None, control.name):
            continue
        found = caught(control)
        missed += found is None
        print(f"{control.name}: " + ("NOT CAUGHT" if found is None else f"seed {found[0]}: {found[1][:150]}"), flush=True)
    return 1 if missed else 0


def many(options: argparse.Namespace) -> int:
    """In `jobs` processes, each with every so-manieth seed: what one seed leaves behind is no other's."""
    began = time.perf_counter()
    if options.jobs == 1:
        failed = [seed for seed in range(options.first, options.first + options.seeds)
                  if not one(seed, options.seconds, 0)]
        print(f"{options.seeds} seeds, {len(failed)} failed{': ' + ', '.join(map(str, failed)) if failed else ''}")
        return 1 if failed else 0
    share, rest = divmod(options.seeds, options.jobs)
    first, running = options.first, []
    for number in range(options.jobs):
        count = share + (number < rest)
        if count:
            running.append(subprocess.Popen([
                sys.executable, "-m", "tests.sim", "--seeds", str(count), "--first", str(first), "--jobs", "1",
                "--seconds", str(options.seconds)]))
        first += count
    went_wrong = sum(process.wait() != 0 for process in running)
    took = time.perf_counter() - began
    print(f"{options.seeds} seeds of {options.seconds:g} simulated seconds in {took:.0f} s: "
          f"{options.seeds / took * 3600:.0f} seeds per hour")
    return 1 if went_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
