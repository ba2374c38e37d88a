"""What the metadata's tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.consensus.metadata import Cluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """One node, and everything in it must fit together when the test ends."""
    cluster = Cluster(tmp_path)
    yield cluster
    cluster.check()
    cluster.reader.close()
    cluster.machine.close()


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Cluster]:
    """Three nodes n1, n2, n3; three copies wanted, two are the quorum."""
    cluster = Cluster(tmp_path, nodes=3)
    yield cluster
    cluster.check()
    cluster.reader.close()
    cluster.machine.close()
