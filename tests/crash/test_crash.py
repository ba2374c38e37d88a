"""Promises 1, 3 and 6, of the whole server: a crash or a power cut at any durable step loses nothing that was answered.

Here are a third of the steps with one kind of fault each; `make crash` does all, with every kind. STADDLE_CRASH_SEED
chooses another third and other kinds. `pytest -s` prints the table of steps.
"""

import os

import pytest

from tests.crash.faults import FAULTS
from tests.crash.matrix import NEEDED, caught, life_after, table, violations
from tests.crash.record import a_third, record
from tests.crash.script import whole_life

SEED = int(os.environ.get("STADDLE_CRASH_SEED", "0"))

pytestmark = pytest.mark.slow


def test_a_fault_at_any_step_loses_nothing_that_was_answered() -> None:
    recording = record(whole_life, a_third(SEED))
    print("\n" + table(recording))
    assert {step for step, _, _ in recording.steps} >= NEEDED
    for violation in violations(recording.taken):
        pytest.fail(f"STADDLE_CRASH_SEED={SEED}: {violation}")


def test_a_second_life_loses_nothing_of_the_first() -> None:
    """What a recovery does is steps too, and a fault may come between them."""
    first = record(whole_life, a_third(SEED))
    start, recording = life_after(first, SEED, a_third(SEED))
    for violation in violations(recording.taken):
        pytest.fail(f"STADDLE_CRASH_SEED={SEED}: after {start.kind} at step {start.number}: {violation}")


@pytest.mark.parametrize("fault", list(FAULTS))
def test_control(fault: str) -> None:
    """Without these the tests above would prove nothing."""
    violation = caught(fault)
    assert violation is not None, f"nobody noticed that {fault}"
    print(f"\n{violation}")
