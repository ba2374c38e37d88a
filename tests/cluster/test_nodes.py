"""Several data folders on one machine are several storage nodes: one may die, hang or lose its disk."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import StaddleProcess
from tests.torture.checker import check
from tests.torture.workload import Workload

OUTAGE_S = 3.0
LARGEST = 1_500_000
"""Bytes: into segments as well as into files of their own."""


@pytest.fixture
def three(tmp_path: Path) -> Iterator[StaddleProcess]:
    """A server with three data folders: three copies, of which two make a write durable."""
    server = StaddleProcess(tmp_path / "server", data_folders=3)
    yield server
    server.kill_all()


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["dead", "hanging"])
def test_writes_and_reads_go_on_with_two_of_three(three: StaddleProcess, how: signal.Signals) -> None:
    three.start()
    clients = Workload(three, 4, 1, LARGEST)
    clients.make_bucket()
    clients.start()
    time.sleep(1.0)                     # something to read, before anything breaks
    victim = three.kill("node", how)
    before = clients.outcomes
    time.sleep(OUTAGE_S)                # the outage is the experiment
    during = clients.outcomes - before
    if how == signal.SIGSTOP:
        os.kill(victim, signal.SIGCONT)
    three.wait_ready()
    clients.stop()
    assert check(clients, everything=True) == []
    # Only from the outage on: in the first second a gateway may not know all three nodes yet, and then refuses.
    assert clients.outcomes["refused"] == before["refused"], (dict(clients.outcomes), clients.refusals)
    assert clients.outcomes["unknown"] == 0
    assert during["acknowledged"] > 20, "writes did not go on while one node of three was away"


@pytest.mark.slow
def test_everything_is_readable_after_one_disk_of_three_was_lost(three: StaddleProcess) -> None:
    three.start()
    clients = Workload(three, 2, 2, LARGEST)
    clients.make_bucket()
    clients.start()
    while clients.outcomes["acknowledged"] < 150:
        time.sleep(0.01)
    clients.stop()
    three.stop()
    shutil.rmtree(three.data[2])
    three.start()
    assert check(clients, everything=True) == []
    clients.start()
    acknowledged = clients.outcomes["acknowledged"]
    while clients.outcomes["acknowledged"] < acknowledged + 50:
        time.sleep(0.01)
    clients.stop()
    assert check(clients, everything=True) == []
