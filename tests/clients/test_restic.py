"""restic: a backup program that needs strict read-after-write and list-after-delete, and streams signed chunks."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clients.shell import Shell, random_file, same_tree


@pytest.mark.slow
def test_backup_check_restore_and_prune(
        shell: Shell, bucket: str, few_files: Callable[[int], Path], tmp_path: Path) -> None:
    folder = few_files(200)
    random_file(folder / "large.bin", 40 << 20)
    repository = {"RESTIC_REPOSITORY": f"s3:{shell.target.url}/{bucket}/backups"}

    def restic(*arguments: str | Path, ok: bool = True) -> str:
        return shell.run("restic", *arguments, ok=ok, environment=repository)

    restic("init")
    assert "already" in restic("init", ok=False)
    restic("backup", folder)
    os.truncate(folder / "large.bin", 20 << 20)
    restic("backup", folder)
    assert restic("snapshots", "--compact").count("\n") >= 4
    restic("check", "--read-data")
    restic("restore", "latest", "--target", tmp_path / "back")
    same_tree(folder, tmp_path / "back" / folder.relative_to("/"))
    restic("forget", "--keep-last", "1", "--prune")
    restic("check", "--read-data")
    assert restic("list", "locks") == ""
