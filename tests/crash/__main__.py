"""`make crash`: the whole matrix. Every step of a first life and of second lives, every kind of fault, and the controls."""

import logging
import sys
import time
from collections import Counter

from tests.crash.faults import FAULTS
from tests.crash.matrix import NEEDED, SECOND_LIVES, caught, life_after, table, violations_in_parallel
from tests.crash.record import everything, record
from tests.crash.script import whole_life


def main() -> int:
    logging.disable(logging.CRITICAL)                 # recoveries say a lot
    began = time.monotonic()
    first = record(whole_life, everything)
    print(table(first))
    recordings = [("a first life", first)]
    for number in range(len(SECOND_LIVES)):
        start, recording = life_after(first, number, everything)
        recordings.append((f"a second life after {start.kind} at step {start.number}", recording))
    failed = bool(missing := NEEDED - {step for step, _, _ in first.steps})
    if missing:
        print("steps that should be there and are not:", ", ".join(sorted(missing)))
    runs = 0
    for name, recording in recordings:
        wrong = violations_in_parallel(recording.taken)
        kinds = Counter(taken.kind for taken in recording.taken)
        runs += len(recording.taken)
        print(f"{name}: {len(recording.steps)} steps, {len(recording.taken)} restarts "
              f"({', '.join(f'{count} {kind}' for kind, count in kinds.items())}), {len(wrong)} violations", flush=True)
        for violation in wrong:
            print(violation)
        failed |= bool(wrong)
    for name in FAULTS:
        violation = caught(name)
        print(f"control, {name}: {'NOT CAUGHT' if violation is None else f'caught. {violation}'}", flush=True)
        failed |= violation is None
    print(f"{runs} restarts in {time.monotonic() - began:.0f} s: {'FAILED' if failed else 'nothing was lost'}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
