"""Short runs of `make linear`: ten seconds in which a cable is cut and a machine is killed, and a product that must be
caught. The lies of tests/linear/controls.py are told into each history as well."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.linear.run import runs
from tests.torture import variants
from tests.torture.report import Report
from tests.trio import Loopback, Namespaces, NoNamespaces, Trio

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

SEED = int(os.environ.get("STADDLE_TORTURE_SEED", str(random.randrange(10**6))))
SECONDS = 10.0
CONTROL_SECONDS = 3.0


@pytest.fixture
def network() -> Iterator[Namespaces | Loopback]:
    """With cables where this machine lets us have some."""
    try:
        network: Namespaces | Loopback = Namespaces()
    except NoNamespaces:
        network = Loopback()
    yield network
    network.close()


def test_history_with_a_cut_and_a_kill(tmp_path: Path, network: Namespaces | Loopback) -> None:
    report = Report("linearizability", SEED, quiet=True)
    with Trio(tmp_path, network=network) as trio:
        trio.start()
        total = runs(trio, report, count=1, seconds=SECONDS, partitions=isinstance(network, Namespaces), kills=True)
    assert not report.wrong, "\n".join(report.wrong)
    assert total > 500


def test_control_reads_of_what_a_member_happens_to_have_are_noticed(tmp_path: Path) -> None:
    report = Report("linearizability", SEED, quiet=True)
    with Trio(tmp_path) as trio:
        for machine in trio.machines:
            machine.variables = variants.environment(machine.folder, "reads without an index")
        trio.start()
        runs(trio, report, count=3, seconds=CONTROL_SECONDS, until_caught=True)
    assert any("no order explains" in sentence for sentence in report.wrong)
