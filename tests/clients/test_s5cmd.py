"""s5cmd (the first AWS SDK for Go): many requests at once, Content-MD5, version 2 listings without an encoding."""

from collections.abc import Callable
from pathlib import Path

from tests.clients.shell import HTTP_ONLY, Shell, same_tree, sha256


def test_big_file_goes_up_and_comes_back_equal(shell: Shell, bucket: str, big_file: Path, tmp_path: Path) -> None:
    shell.run("s5cmd", "mb", f"s3://{bucket}")
    shell.run("s5cmd", "cp", "--part-size", "8", big_file, f"s3://{bucket}/big.bin")
    shell.run("s5cmd", "cp", f"s3://{bucket}/big.bin", tmp_path / "back.bin")
    assert sha256(tmp_path / "back.bin") == sha256(big_file)


@HTTP_ONLY
def test_second_sync_of_a_thousand_files_moves_nothing(
        shell: Shell, bucket: str, many_files: Path, tmp_path: Path) -> None:
    shell.run("s5cmd", "mb", f"s3://{bucket}")
    first = shell.run("s5cmd", "sync", f"{many_files}/", f"s3://{bucket}/tree/")
    assert first.count("cp ") == 1000
    assert shell.run("s5cmd", "sync", f"{many_files}/", f"s3://{bucket}/tree/") == ""
    shell.run("s5cmd", "sync", f"s3://{bucket}/tree/*", f"{tmp_path / 'back'}/")
    same_tree(many_files, tmp_path / "back")


@HTTP_ONLY
def test_list_copy_move_and_removal(shell: Shell, bucket: str, few_files: Callable[[int], Path]) -> None:
    folder = few_files(30)
    shell.run("s5cmd", "mb", f"s3://{bucket}")
    shell.run("s5cmd", "cp", f"{folder}/", f"s3://{bucket}/x/")
    assert shell.run("s5cmd", "ls", f"s3://{bucket}/x/").count("DIR") == 10
    assert shell.run("s5cmd", "ls", f"s3://{bucket}/x/*").count(".bin") == 30
    shell.run("s5cmd", "cp", f"s3://{bucket}/x/d3/*", f"s3://{bucket}/y/")
    shell.run("s5cmd", "mv", f"s3://{bucket}/y/0003.bin", f"s3://{bucket}/z/moved")
    assert "moved" in shell.run("s5cmd", "ls", f"s3://{bucket}/z/")
    assert "0003.bin" not in shell.run("s5cmd", "ls", f"s3://{bucket}/y/")
    shell.run("s5cmd", "rm", f"s3://{bucket}/*")
    assert "no object found" in shell.run("s5cmd", "ls", f"s3://{bucket}/*", ok=False)
    shell.run("s5cmd", "rb", f"s3://{bucket}")


def test_cat_pipe_and_presign(shell: Shell, bucket: str, big_file: Path) -> None:
    shell.run("s5cmd", "mb", f"s3://{bucket}")
    shell.script("head -c 12000000 {file} | {s5cmd} pipe {url}; {s5cmd} cat {url} | cmp - <(head -c 12000000 {file})",
                 file=big_file, url=f"s3://{bucket}/piped")
    link = shell.run("s5cmd", "presign", f"s3://{bucket}/piped").strip()
    assert len(shell.fetch(link)) == 12_000_000
