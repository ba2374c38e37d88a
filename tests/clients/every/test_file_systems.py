"""File systems on top of the store: JuiceFS (its own check of a storage, copies, a mount) and s3fs-fuse."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.clients.shell import Running, Shell, same_tree, sha256

NEEDS_FUSE = pytest.mark.skipif(not os.access("/dev/fuse", os.W_OK), reason="there is no /dev/fuse to mount with")


@contextlib.contextmanager
def mounted(mount: Running, at: Path) -> Iterator[Path]:
    with mount:
        mount.wait_until(lambda: os.path.ismount(at))
        try:
            yield at
        finally:
            subprocess.run(["umount", str(at)], check=False)


def use(folder: Path, big_file: Path, small: Path) -> None:
    """What people do in a folder."""
    shutil.copy(big_file, folder / "big.bin")
    assert sha256(folder / "big.bin") == sha256(big_file)
    shutil.copytree(small, folder / "tree")
    same_tree(small, folder / "tree")
    with (folder / "note.txt").open("w") as file:
        file.write("one\n")
    with (folder / "note.txt").open("a") as file:
        file.write("two\n")
    assert (folder / "note.txt").read_text() == "one\ntwo\n"
    (folder / "note.txt").rename(folder / "renamed.txt")
    os.utime(folder / "renamed.txt", (1_000_000_000, 1_000_000_000))
    (folder / "renamed.txt").chmod(0o640)
    status = (folder / "renamed.txt").stat()
    assert (status.st_mtime, status.st_mode & 0o777) == (1_000_000_000, 0o640)
    assert not (folder / "note.txt").exists()
    seen = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))      # JuiceFS shows its own
    assert seen == ["big.bin", "renamed.txt", "tree"]
    shutil.rmtree(folder / "tree")
    assert not (folder / "tree").exists()
    (folder / "empty").mkdir()
    (folder / "empty").rmdir()


@NEEDS_FUSE
def test_s3fs_fuse(shell: Shell, bucket: str, big_file: Path, few_files: Callable[[int], Path], tmp_path: Path) -> None:
    shell.run("aws", "s3", "mb", f"s3://{bucket}")
    keys, at = tmp_path / "keys", tmp_path / "mount"
    keys.write_text(f"{shell.target.access_key}:{shell.target.secret_key}")
    keys.chmod(0o600)
    at.mkdir()
    arguments = (bucket, at, "-f", "-o", f"url={shell.target.url}", "-o", "use_path_request_style", "-o",
                 f"passwd_file={keys}", "-o", "multipart_size=10")
    trust = {"CURL_CA_BUNDLE": str(shell.target.ca)} if shell.target.ca else {}
    with mounted(shell.start("s3fs", *arguments, environment=trust), at):
        use(at, big_file, few_files(40))
    with mounted(shell.start("s3fs", *arguments, environment=trust), at):          # nothing but what the store holds
        assert (at / "renamed.txt").read_text() == "one\ntwo\n"
        assert sha256(at / "big.bin") == sha256(big_file)


def juicefs(shell: Shell, bucket: str, tmp_path: Path) -> str:
    """A new JuiceFS; the address of its metadata."""
    metadata = f"sqlite3://{tmp_path / 'juice.db'}"
    shell.run("juicefs", "format", "--storage", "s3", "--bucket", f"{shell.target.url}/{bucket}", "--access-key",
              shell.target.access_key, "--secret-key", shell.target.secret_key, metadata, "files")
    return metadata


def test_what_juicefs_checks_of_a_storage(shell: Shell, bucket: str) -> None:
    """`objbench` tries each call that JuiceFS makes, and says what does not do as it should. For a range past the end it
    would like an empty answer; S3's is 416."""
    shell.run("aws", "s3", "mb", f"s3://{bucket}")
    said = shell.run(
        "juicefs", "objbench", "--storage", "s3", "--access-key", shell.target.access_key, "--secret-key",
        shell.target.secret_key, "--big-object-size", "8M", "--small-objects", "5", f"{shell.target.url}/{bucket}")
    rows = [[cell.strip() for cell in line.split("|")] for line in said.splitlines() if line.count("|") == 4]
    outcomes = {test: outcome for _, category, test, outcome, _ in rows if category in ("basic", "sync")}
    assert outcomes.pop("get partial object").startswith("failed to get object with the offset out of r")
    assert len(outcomes) >= 15, said
    assert set(outcomes.values()) <= {"pass", "not support"}, said


@NEEDS_FUSE
def test_juicefs_mounted(
        shell: Shell, bucket: str, big_file: Path, few_files: Callable[[int], Path], tmp_path: Path) -> None:
    metadata, at = juicefs(shell, bucket, tmp_path), tmp_path / "mount"
    at.mkdir()
    for cache in ("first", "second"):                          # the second time nothing is read but what the store holds
        command = ("mount", metadata, at, "--cache-dir", tmp_path / cache, "--log", tmp_path / f"{cache}.log")
        with mounted(shell.start("juicefs", *command), at):
            if cache == "first":
                use(at, big_file, few_files(40))
            assert (at / "renamed.txt").read_text() == "one\ntwo\n"
            assert sha256(at / "big.bin") == sha256(big_file)
    shell.run("juicefs", "fsck", metadata)
    shell.run("juicefs", "gc", metadata, "--delete")


def test_juicefs_sync(shell: Shell, bucket: str, few_files: Callable[[int], Path], tmp_path: Path) -> None:
    folder = few_files(100)
    shell.run("aws", "s3", "mb", f"s3://{bucket}")
    scheme, _, where = shell.target.url.partition("://")
    keys = f"{quote(shell.target.access_key, safe='')}:{quote(shell.target.secret_key, safe='')}"
    remote = f"{'s3' if scheme == 'https' else 'minio'}://{keys}@{where}/{bucket}/tree/"     # minio: always http
    shell.run("juicefs", "sync", f"{folder}/", remote)
    shell.run("juicefs", "sync", "--check-all", f"{folder}/", remote)
    shell.run("juicefs", "sync", remote, f"{tmp_path / 'back'}/")
    same_tree(folder, tmp_path / "back")
