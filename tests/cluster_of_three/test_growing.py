"""From one machine to three while it serves, with nothing but `staddle join` on the new ones; then any one may be lost."""

import json
import os
import random
import time
from pathlib import Path

import pytest

from tests.cluster_of_three.conftest import await_copies
from tests.torture import admin, checker
from tests.torture.workload import Workload
from tests.trio import Trio

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

SEED = int(os.environ.get("STADDLE_TORTURE_SEED", str(random.randrange(10**6))))
LARGEST = 256 << 10


def test_from_one_machine_to_three_under_load(tmp_path: Path) -> None:
    with Trio(tmp_path, count=1, secret="") as trio:
        first = trio.machines[0]
        trio.start()
        workload = Workload(first, 3, SEED, LARGEST)
        workload.make_bucket()
        workload.start()
        try:
            for _ in range(2):
                token = str(admin.post(first, "cluster/token", hours=1)["token"])
                trio.add(token=token).start(wait=False)
                trio.wait_ready()
        finally:
            workload.stop()
        assert workload.outcomes["refused"] == 0, dict(workload.refusals)
        assert workload.outcomes["unknown"] == 0
        await_voters(trio, 3)
        await_copies(trio, 3, within_s=60)
        assert checker.check(workload, everything=True) == []
        victim = trio.machines[SEED % 3]
        living = [machine for machine in trio.machines if machine is not victim]
        victim.kill_all()
        workload.servers = [living[0]] * 3
        living[0].wait_ready()
        assert checker.check(workload, everything=True) == []


def await_voters(trio: Trio, count: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        members = admin.get(trio.machines[0], "cluster/status")["members"]
        if sum(member["voter"] for member in members) == count:
            return
        assert time.monotonic() < deadline, json.dumps(members)
        time.sleep(0.1)
