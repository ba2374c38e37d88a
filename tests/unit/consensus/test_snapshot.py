"""Snapshots: taken while writers go on, verified, and installed as a new generation beside the old file."""

import os
from pathlib import Path

import pytest

from consensus import audit, queries, snapshot
from consensus.core.errors import Corrupt
from consensus.disk import Disk
from consensus.machine import Machine
from tests.unit.consensus.metadata import Cluster


def make(cluster: Cluster) -> snapshot.Snapshot:
    return snapshot.make(cluster.machine.path, str(cluster.folder), Disk())


def test_a_snapshot_holds_what_was_committed(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    cluster.put(bucket, "k", b"x")
    taken = make(cluster)
    assert (taken.index, taken.term) == (cluster.index, 1)
    assert snapshot.listed(str(cluster.folder)) == [taken]
    snapshot.verify(taken)
    cluster.put(bucket, "later", b"y")
    snapshot.verify(taken)


def test_two_are_kept(cluster: Cluster) -> None:
    taken = []
    for number in range(4):
        cluster.bucket(f"b{number}")
        taken.append(make(cluster))
    assert snapshot.listed(str(cluster.folder)) == taken[-2:]
    assert sorted(os.listdir(cluster.folder / "snapshots")) == sorted(
        f"{one.index}.{kind}" for one in taken[-2:] for kind in ("json", "sqlite"))


def test_a_snapshot_of_the_same_index_replaces_its_like(cluster: Cluster) -> None:
    assert make(cluster) == make(cluster)
    snapshot.verify(snapshot.listed(str(cluster.folder))[0])


def test_an_installed_snapshot_is_the_machine_it_was_taken_of(cluster: Cluster, tmp_path: Path) -> None:
    bucket = cluster.bucket(versioning="Enabled")
    for number in range(50):
        cluster.put(bucket, f"k{number % 9}", bytes([number]))
    taken, wanted = make(cluster), audit.logical_hash(cluster.db)
    folder = tmp_path / "other"
    Machine(folder).close()
    old = snapshot.current_file(str(folder), Disk())
    path = snapshot.install(taken, str(folder), Disk())
    machine = Machine(folder)
    assert (machine.path, machine.generation) == (path, old[1] + 1)
    assert (machine.applied, machine.applied_term) == (taken.index, taken.term)
    assert audit.logical_hash(machine.db) == wanted
    assert queries.header(machine.db) == (taken.index, old[1] + 1)
    assert os.path.exists(old[0]), "readers have the old file open"
    snapshot.remove_old(str(folder), Disk())
    assert not os.path.exists(old[0])
    for index, entry in enumerate(cluster.entries[:3], taken.index + 1):
        machine.apply(entry, index)
    machine.commit(taken.index + 3, 1)
    machine.close()


def test_a_reader_notices_another_generation(cluster: Cluster, tmp_path: Path) -> None:
    cluster.bucket()
    taken = make(cluster)
    assert cluster.read(queries.header)[1] == 1
    cluster.machine.close()
    snapshot.install(taken, str(cluster.folder), Disk())
    cluster.machine = Machine(cluster.folder)
    assert cluster.machine.generation == 2
    assert cluster.read(queries.header) == (cluster.index, 2)


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_a_damaged_snapshot_is_not_installed(cluster: Cluster, damage: str) -> None:
    cluster.bucket()
    taken = make(cluster)
    data = bytearray(Path(taken.path).read_bytes())
    data[len(data) // 2] ^= 1
    if damage == "gone":
        os.unlink(taken.path)
    else:
        Path(taken.path).write_bytes(data if damage == "flip" else data[:-1])
    with pytest.raises(Corrupt):
        snapshot.install(taken, str(cluster.folder), Disk())
    assert snapshot.current_file(str(cluster.folder), Disk())[1] == 1


class StopsAt(Disk):
    """The program ends just before its step number `last`."""

    def __init__(self, last: int) -> None:
        self.left, self.steps = last, []
        for name in ("write", "fsync", "fdatasync", "fsync_dir", "rename", "unlink"):
            setattr(self, name, self._counted(name, getattr(super(), name)))

    def _counted(self, name: str, real):  # type: ignore[no-untyped-def]  # any method of Disk
        def step(*arguments):  # type: ignore[no-untyped-def]
            self.steps.append(arguments[-1] if name != "write" else arguments[2])
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
            return real(*arguments)
        return step


def test_a_stop_at_any_step_leaves_whole_snapshots_and_one_file_in_use(cluster: Cluster) -> None:
    folder = str(cluster.folder)
    for number in range(3):
        cluster.bucket(f"b{number}")
        make(cluster)
    wanted = audit.logical_hash(cluster.db)
    for last in range(1000):
        disk = StopsAt(last)
        cluster.bucket(f"more{last}")
        cluster.machine.close()
        try:
            taken = snapshot.make(cluster.machine.path, folder, disk)
            snapshot.install(taken, folder, disk)
            finished = True
        except KeyboardInterrupt:
            finished = False
        kept = snapshot.listed(folder)
        assert len(kept) >= snapshot.KEPT
        for one in kept:
            snapshot.verify(one)
        cluster.machine = Machine(cluster.folder)
        assert cluster.machine.applied == cluster.index
        assert audit.recount(cluster.db) == []
        if finished:
            break
    assert last > 10
    print(disk.steps)
    assert audit.logical_hash(cluster.db) != wanted
