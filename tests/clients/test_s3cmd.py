"""s3cmd: version 1 listings, bucket paths with a slash at the end, file attributes in one long metadata value."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clients.shell import HTTP_ONLY, Shell, same_tree, sha256


def test_big_file_goes_up_and_comes_back_equal(shell: Shell, bucket: str, big_file: Path, tmp_path: Path) -> None:
    shell.run("s3cmd", "mb", f"s3://{bucket}")
    shell.run("s3cmd", "put", big_file, f"s3://{bucket}/big.bin", "--no-progress")
    shell.run("s3cmd", "get", f"s3://{bucket}/big.bin", tmp_path / "back.bin", "--no-progress")
    assert sha256(tmp_path / "back.bin") == sha256(big_file)


@HTTP_ONLY
def test_second_sync_moves_nothing(shell: Shell, bucket: str, few_files: Callable[[int], Path], tmp_path: Path) -> None:
    folder = few_files(100)
    shell.run("s3cmd", "mb", f"s3://{bucket}")
    first = shell.run("s3cmd", "sync", f"{folder}/", f"s3://{bucket}/tree/", "--no-progress")
    assert first.count("upload:") == 100
    assert "upload:" not in shell.run("s3cmd", "sync", f"{folder}/", f"s3://{bucket}/tree/", "--no-progress")
    (tmp_path / "back").mkdir()
    shell.run("s3cmd", "sync", f"s3://{bucket}/tree/", f"{tmp_path / 'back'}/", "--no-progress")
    same_tree(folder, tmp_path / "back")


def test_info_shows_what_was_put(shell: Shell, bucket: str, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("hello\n")
    shell.run("s3cmd", "mb", f"s3://{bucket}")
    shell.run("s3cmd", "put", tmp_path / "note.txt", f"s3://{bucket}/note.txt", "--add-header=x-amz-meta-colour:blue",
              "--mime-type=text/plain")
    info = shell.run("s3cmd", "info", f"s3://{bucket}/note.txt")
    assert "x-amz-meta-colour: blue" in info
    assert hashlib.md5(b"hello\n").hexdigest() in info
    assert "text/plain" in info
    assert "Location:  us-east-1" in shell.run("s3cmd", "info", f"s3://{bucket}")


@HTTP_ONLY
def test_copy_move_list_and_removal(shell: Shell, bucket: str, few_files: Callable[[int], Path]) -> None:
    folder = few_files(20)
    shell.run("s3cmd", "mb", f"s3://{bucket}")
    shell.run("s3cmd", "put", "--recursive", f"{folder}/", f"s3://{bucket}/x/", "--no-progress")
    assert shell.run("s3cmd", "ls", f"s3://{bucket}/x/").count(" DIR ") == 10
    assert shell.run("s3cmd", "ls", "--recursive", f"s3://{bucket}/x/").count("s3://") == 20
    shell.run("s3cmd", "cp", f"s3://{bucket}/x/d3/0003.bin", f"s3://{bucket}/y/copy")
    shell.run("s3cmd", "mv", f"s3://{bucket}/y/copy", f"s3://{bucket}/y/moved")
    assert f"s3://{bucket}/y/moved\n" in shell.run("s3cmd", "ls", f"s3://{bucket}/y/")
    assert str((folder / "d3" / "0003.bin").stat().st_size) in shell.run("s3cmd", "du", f"s3://{bucket}/y/")
    shell.run("s3cmd", "del", f"s3://{bucket}/y/moved")
    shell.run("s3cmd", "del", "--recursive", "--force", f"s3://{bucket}/")
    assert shell.run("s3cmd", "ls", "--recursive", f"s3://{bucket}/") == ""
    shell.run("s3cmd", "rb", f"s3://{bucket}")


@pytest.mark.parametrize("version", ["2", "4"])
def test_both_signature_versions(shell: Shell, bucket: str, tmp_path: Path, version: str) -> None:
    (tmp_path / "note.txt").write_text("signed\n")
    flags = ["--signature-v2"] if version == "2" else []
    shell.run("s3cmd", "mb", f"s3://{bucket}", *flags)
    shell.run("s3cmd", "put", tmp_path / "note.txt", f"s3://{bucket}/a b", *flags)
    shell.run("s3cmd", "get", f"s3://{bucket}/a b", tmp_path / "back", *flags)
    assert (tmp_path / "back").read_text() == "signed\n"
    link = shell.run("s3cmd", "signurl", f"s3://{bucket}/a b", "+60", *flags).strip()
    assert shell.fetch(link.replace("http:", "https:", 1) if shell.target.secure else link) == b"signed\n"


def test_open_multipart_uploads_are_listed_and_aborted(shell: Shell, bucket: str) -> None:
    shell.run("aws", "s3", "mb", f"s3://{bucket}")
    upload = shell.run("aws", "s3api", "create-multipart-upload", "--bucket", bucket, "--key", "half", "--query",
                       "UploadId", "--output", "text").strip()
    assert upload in shell.run("s3cmd", "multipart", f"s3://{bucket}")
    shell.run("s3cmd", "abortmp", f"s3://{bucket}/half", upload)
    assert upload not in shell.run("s3cmd", "multipart", f"s3://{bucket}")
