"""Restore and fsck on folders that are not as they should be: sentences, and nothing touched."""

import asyncio
import os
from pathlib import Path

import pytest

from consensus import backup
from consensus.core.commands import OpenBackup
from consensus.core.errors import Refused
from consensus.disk import Disk
from gateway import offline
from gateway.config import Config
from tests.unit.consensus.metadata import Cluster


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A backup of an empty store."""
    cluster = Cluster(tmp_path / "old")
    cluster.run(OpenBackup(name="b"))
    made = backup.make(cluster.machine.path, str(cluster.folder), "b", cluster="c", now_ms=5, disk=Disk())
    cluster.machine.close()
    path = tmp_path / "file"
    path.write_bytes(made.head() + (tmp_path / "old" / "backups" / "b.sqlite").read_bytes())
    return path


def restore(file: Path, *data: Path, **options: bool) -> offline.RestoreReport:
    return asyncio.run(offline.restore(file, Config(data=data), **options))


def test_metadata_in_another_folder_than_the_first_is_noticed(file: Path, tmp_path: Path) -> None:
    (tmp_path / "two" / "meta").mkdir(parents=True)
    (tmp_path / "two" / "meta" / "CURRENT").write_text("1\n")
    with pytest.raises(Refused, match="give it as the first data folder"):
        restore(file, tmp_path / "one", tmp_path / "two", replace=True)
    assert not (tmp_path / "one").exists()


def test_into_a_new_folder_the_keys_of_users_are_spoken_of(file: Path, tmp_path: Path) -> None:
    done = restore(file, tmp_path / "one")
    assert [note for note in done.notes if "secret" in note] == done.notes != []
    assert done.restored.absent == ["n1"]
    assert set(done.fsck.counts) == {"unreachable"}
    with pytest.raises(Refused, match="another cluster"):
        restore(file, tmp_path / "one", replace=True)


def test_a_file_that_is_no_backup_makes_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(os.urandom(1000))
    with pytest.raises(Refused, match="not a backup"):
        restore(tmp_path / "file", tmp_path / "one")
    assert not (tmp_path / "one").exists()


def test_fsck_of_a_folder_without_a_store(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    with pytest.raises(Refused, match="there is no metadata"):
        asyncio.run(offline.check(Config(data=(tmp_path / "one",))))
    assert os.listdir(tmp_path / "one") == []
