"""Several data folders on one machine are several storage nodes: one may die, hang or lose its disk."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.history import Clients, make_bucket
from tests.servers import StaddleProcess

OUTAGE_S = 3.0


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
    make_bucket(three)
    clients = Clients(three, 4, 1)
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
    assert clients.check() == []
    # Only from the outage on: in the first second a gateway may not know all three nodes yet, and then refuses.
    refusals = [client.refusals.most_common(3) for client in clients.clients]
    assert clients.outcomes["refused"] == before["refused"], (dict(clients.outcomes), refusals)
    assert clients.outcomes["unknown"] == 0
    assert during["acknowledged"] > 20, "writes did not go on while one node of three was away"


@pytest.mark.slow
def test_everything_is_readable_after_one_disk_of_three_was_lost(three: StaddleProcess) -> None:
    three.start()
    make_bucket(three)
    clients = Clients(three, 2, 2)
    clients.start()
    while clients.outcomes["acknowledged"] < 150:
        time.sleep(0.01)
    clients.stop()
    three.stop()
    shutil.rmtree(three.data[2])
    three.start()
    assert clients.check() == []
    clients.start()
    acknowledged = clients.outcomes["acknowledged"]
    while clients.outcomes["acknowledged"] < acknowledged + 50:
        time.sleep(0.01)
    clients.stop()
    assert clients.check() == []
