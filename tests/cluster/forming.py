"""Machines that are killed and wiped while they form a cluster: at the end there must be exactly one, with all of them in it.

    make forming ROUNDS=20 SEED=1
"""

import argparse
import contextlib
import random
import shutil
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

from tests.servers import NotReady
from tests.trio import Machine, Trio

KILLS_MAX = 5
READY_S = 60.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.forming", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=None)
    asked = parser.parse_args()
    seed = random.randrange(1 << 32) if asked.seed is None else asked.seed
    print(f"seed {seed}")
    failed, waited = 0, []
    for number in range(asked.rounds):
        with tempfile.TemporaryDirectory(prefix="staddle-forming-") as folder, Trio(Path(folder)) as trio:
            said = disturb(trio, random.Random(f"{seed} {number}"))
            try:
                waited.append(trio.wait_ready(timeout_s=READY_S))
                clusters = {members_of(machine) for machine in trio}
                wrong = "" if len(clusters) == 1 and clusters != {()} else f"clusters: {clusters}"
            except NotReady as error:
                wrong = str(error)
        failed += bool(wrong)
        result = f"WRONG: {wrong}" if wrong else f"one cluster after {waited[-1]:.1f} s"
        print(f"{number + 1:4} {'; '.join(said)}: {result}", flush=True)
    waited.sort()
    print(f"{asked.rounds - failed} of {asked.rounds} rounds ended with one cluster; ready after a last kill: median "
          f"{waited[len(waited) // 2]:.1f} s, longest {waited[-1]:.1f} s" if waited else "no round succeeded")
    return 1 if failed else 0


def disturb(trio: Trio, chance: random.Random) -> list[str]:
    """All start, and some are killed meanwhile. One may come back with nothing; of two, a majority could be lost for good, and
    then nothing must go on. What was done."""
    said = []
    wiped: Machine | None = None
    began = time.monotonic()
    trio.start(wait=False)
    for _ in range(chance.randint(1, KILLS_MAX)):
        time.sleep(chance.uniform(0.1, 2.5))                  # when it hits is what the round is about
        machine = chance.choice(trio.machines)
        machine.kill_all()
        said.append(f"{time.monotonic() - began:.1f} s {machine.name} killed")
        if wiped in (None, machine) and chance.random() < 0.4:
            wiped = machine
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(machine.data[0])
            said[-1] += " and wiped"
        time.sleep(chance.uniform(0.0, 1.0))
        machine.start(wait=False)
    return said


def members_of(machine: Machine) -> tuple[tuple[str, str], ...]:
    """Name and incarnation of each member that a machine's metadata knows."""
    meta = machine.data[0] / "meta"
    path = meta / f"meta.{(meta / 'CURRENT').read_text().strip()}.sqlite"
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        return tuple(db.execute("SELECT name, hex(incarnation) FROM member ORDER BY name"))


if __name__ == "__main__":
    sys.exit(main())
