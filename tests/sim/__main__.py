"""`python -m tests.sim --seed 7`, `--seeds 40 [--first 1] [--jobs 2]`, `--controls`."""

import argparse
import os
import subprocess
import sys
import time

from tests.sim.simulation import SECONDS, simulate


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.sim", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one, and show the last events if it fails")
    parser.add_argument("--seeds", type=int, default=40, help="run so many")
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of simulated time under faults")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--events", type=int, default=80, help="how many of the last events are shown")
    options = parser.parse_args()
    if options.seed is not None:
        return 0 if one(options.seed, options.seconds, options.events) else 1
    return many(options)


def one(seed: int, seconds: float, events: int) -> bool:
    began = time.perf_counter()
    world = simulate(seed, seconds)
    took = time.perf_counter() - began
    told = ", ".join(f"{count} {what}" for what, count in sorted(world.counts.items()))
    print(f"seed {seed}: {'FAILED' if world.violations else 'ok'} hash {world.hash} {took:.1f} s "
          f"{world.loop.calls} calls, {world.network.bytes >> 10} KiB: {told}", flush=True)
    if world.violations:
        if events:
            print(f"  the last {events} events:")
            for event in list(world.events)[-events:]:
                print(f"    {event}")
        for violation in world.violations:
            print(f"  {violation}")
        print(f"  run it again: make sim SEED={seed}" + (f" SECONDS={seconds:g}" if seconds != SECONDS else ""), flush=True)
    return not world.violations


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
    failed = sum(process.wait() != 0 for process in running)
    took = time.perf_counter() - began
    print(f"{options.seeds} seeds of {options.seconds:g} simulated seconds in {took:.0f} s: "
          f"{options.seeds / took * 3600:.0f} seeds per hour")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
