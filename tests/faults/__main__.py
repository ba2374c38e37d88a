"""`make faults ROUNDS=n SEED=s`: each case of full and read-only disks, n rounds of each."""

import os
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.mounts import Refused
from tests.faults.rounds import CASES, Rounds

ROUNDS = int(os.environ.get("ROUNDS", "10"))
SEED = int(os.environ.get("SEED", str(random.randrange(10**6))))


def main() -> int:
    only = " ".join(sys.argv[1:])
    failed = 0
    for case in CASES:
        if only not in case.name:
            continue
        with tempfile.TemporaryDirectory(prefix="staddle-faults-") as folder:
            try:
                rounds = Rounds(case, Path(folder), SEED)
            except Refused as error:
                print(f"{case.name}: left out, since {error}")
                continue
            try:
                done = []
                began = time.monotonic()
                for number in range(ROUNDS):
                    try:
                        done.append(rounds.round())
                    except AssertionError as error:
                        print(f"{case.name}, round {number}, seed {SEED}: {error}", flush=True)
                        failed += 1
                        if not rounds.server.running:
                            break
                if done:
                    noticed = [round.noticed_s for round in done if round.noticed_s is not None]
                    print(f"{case.name}: {len(done)} of {ROUNDS} rounds in {time.monotonic() - began:.0f} s, seed {SEED}; "
                          f"{dict(rounds.workload.outcomes)}; {sum(round.reads for round in done)} reads, 0 failed, the longest "
                          f"{max(round.longest_read_s for round in done):.2f} s; noticed after "
                          f"{max(noticed, default=0):.2f} s ({', '.join(sorted({round.reason for round in done}))}); writes "
                          f"accepted again after {max(round.back_s for round in done):.2f} s at most", flush=True)
                    for text, count in rounds.refusals.most_common(4):
                        print(f"    {count} x {text}")
            finally:
                rounds.close()
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
