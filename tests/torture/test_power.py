"""Short runs of `make torture-power` and `make torture-syncs`; `make torture-controls` is what shows that they would
notice, and one of its products is tried here."""

import os
import random
import time
from pathlib import Path

import pytest

from tests.servers import StaddleProcess
from tests.torture import fsyncfail, power, variants
from tests.torture.shim import whole
from tests.torture.shim.log import compiler
from tests.torture.shim.power import Switch
from tests.torture.workload import Workload

pytestmark = [
    pytest.mark.slow, pytest.mark.timeout(120),
    pytest.mark.skipif(compiler() is None, reason="the shim is written in C, and there is no compiler"),
]

SEED = int(os.environ.get("STADDLE_TORTURE_SEED", str(random.randrange(10**6))))
LARGEST = 8 << 20
ACKNOWLEDGED = 150


def test_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(power, "STARTS_CUT", 0.0)     # that is for the long runs
    report = power.run(1, SEED, form=(power.LOST, power.TORN)[SEED % 2], collect=False, parent=tmp_path, largest=LARGEST)
    assert not report.wrong, report.wrong


def test_failed_sync(tmp_path: Path) -> None:
    report = fsyncfail.run(1, SEED, collect=False, parent=tmp_path, largest=LARGEST)
    assert not report.wrong, report.wrong


def test_nothing_goes_past_the_shim(tmp_path: Path) -> None:
    """The folder of a whole server under load, from its first start to its end, follows byte for byte from the log."""
    server = StaddleProcess(tmp_path / "server")
    switch = Switch(server)
    switch.on(variants.environment(server.folder, "small files"), keep_data=True)
    try:
        workload = Workload(server, 3, SEED, LARGEST)
        workload.make_bucket()
        workload.start()
        while workload.outcomes["acknowledged"] < ACKNOWLEDGED:
            time.sleep(0.01)
        workload.stop()
        server.stop()
        assert whole.told(switch.log, switch.before) == whole.real(switch.root)
    finally:
        server.kill_all()
        switch.close()


def test_control_bytes_that_are_never_synced_are_noticed(tmp_path: Path) -> None:
    report = power.run(10, SEED, form=power.LOST, variant="no fsync", collect=False, parent=tmp_path, largest=LARGEST,
                       until_caught=True)
    assert report.wrong
