"""rclone with provider Other: version 1 listings, unsigned payloads, its own multipart, times kept in metadata."""

from pathlib import Path

import pytest

from tests.clients.shell import HTTP_ONLY, Shell, random_file, same_tree, sha256

NOTHING = "There was nothing to transfer"


def sync(shell: Shell, source: Path | str, target: Path | str) -> str:
    """What rclone says of a sync."""
    log = shell.home / "rclone.log"
    log.unlink(missing_ok=True)
    shell.run("rclone", "sync", source, target, "-v", "--log-file", log)
    return log.read_text()


@pytest.mark.slow
@HTTP_ONLY
def test_copy_check_and_second_sync_of_a_thousand_files(
        shell: Shell, bucket: str, many_files: Path, tmp_path: Path) -> None:
    remote = f"staddle:{bucket}/tree"
    shell.run("rclone", "mkdir", f"staddle:{bucket}")
    shell.run("rclone", "copy", many_files, remote)
    shell.run("rclone", "check", many_files, remote)
    assert NOTHING in sync(shell, many_files, remote)
    assert NOTHING not in sync(shell, remote, tmp_path / "back")
    same_tree(many_files, tmp_path / "back")
    assert NOTHING in sync(shell, remote, tmp_path / "back")


@pytest.mark.parametrize("flags", [(), ("--s3-upload-cutoff", "16M", "--s3-chunk-size", "8M")], ids=["single", "parts"])
def test_big_file_keeps_its_bytes_time_and_hash(
        shell: Shell, bucket: str, big_file: Path, tmp_path: Path, flags: tuple[str, ...]) -> None:
    remote, back = f"staddle:{bucket}/big", tmp_path / "back"
    shell.run("rclone", "copyto", big_file, remote, *flags)
    assert shell.run("rclone", "md5sum", remote).split()[0] == shell.run("rclone", "md5sum", big_file).split()[0]
    shell.run("rclone", "copyto", remote, back)
    assert sha256(back) == sha256(big_file)
    assert back.stat().st_mtime == pytest.approx(big_file.stat().st_mtime, abs=1e-3)


def test_changed_time_is_set_without_moving_bytes(shell: Shell, bucket: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    random_file(source / "file", 5000)
    sync(shell, source, f"staddle:{bucket}")
    (source / "file").touch()
    assert "Updated modification time" in sync(shell, source, f"staddle:{bucket}")
    assert NOTHING in sync(shell, source, f"staddle:{bucket}")


def test_odd_names_come_back_unchanged(shell: Shell, bucket: str, tmp_path: Path) -> None:
    source = tmp_path / "odd"
    source.mkdir()
    for name in (" leading", "trailing ", "new\nline", "quote\"'", "back\\slash", "%2F", "+plus", "ünï", "tab\t"):
        random_file(source / name, 10)
    shell.run("rclone", "copy", source, f"staddle:{bucket}/odd")
    shell.run("rclone", "copy", f"staddle:{bucket}/odd", tmp_path / "back")
    same_tree(source, tmp_path / "back")


@HTTP_ONLY
def test_link_move_delete_and_purge(shell: Shell, bucket: str, many_files: Path) -> None:
    shell.run("rclone", "copy", many_files / "d7", f"staddle:{bucket}/a")
    link = shell.run("rclone", "link", f"staddle:{bucket}/a/0007.bin").strip()
    assert shell.fetch(link) == (many_files / "d7" / "0007.bin").read_bytes()
    shell.run("rclone", "move", f"staddle:{bucket}/a", f"staddle:{bucket}/b")
    assert shell.run("rclone", "lsf", "-R", "--files-only", f"staddle:{bucket}").count("b/") == 100
    shell.run("rclone", "deletefile", f"staddle:{bucket}/b/0007.bin")
    assert shell.run("rclone", "lsf", f"staddle:{bucket}/b").count("\n") == 99
    shell.run("rclone", "cleanup", f"staddle:{bucket}")
    shell.run("rclone", "purge", f"staddle:{bucket}")
    assert bucket not in shell.run("rclone", "lsd", "staddle:")
