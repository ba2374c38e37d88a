"""One round each of a full and of a read-only disk; `make faults` has more of them, and more kinds."""

from pathlib import Path

import pytest

from tests.faults.mounts import Refused
from tests.faults.rounds import CASES, Rounds
from tests.torture.shim.log import compiler

CASE = {case.name: case for case in CASES}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["one full disk for all", "all read-only, open files too"])
def test_nothing_is_lost_no_read_fails_and_writes_come_back_unaided(tmp_path: Path, name: str) -> None:
    if "open files" in name and compiler() is None:
        pytest.skip("the shim needs a C compiler")
    try:
        rounds = Rounds(CASE[name], tmp_path / "server", seed=1)
    except Refused as error:
        pytest.skip(f"nothing can be mounted here: {error}")
    try:
        print(f"\n{name}: {rounds.round()}")
    finally:
        rounds.close()
