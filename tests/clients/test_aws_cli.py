"""The aws command line: what its users do on a first day."""

import json
import urllib.error
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clients.shell import HTTP_ONLY, Shell, same_tree, sha256


def test_big_file_goes_up_and_comes_back_equal(shell: Shell, bucket: str, big_file: Path, tmp_path: Path) -> None:
    shell.run("aws", "s3", "mb", f"s3://{bucket}")
    shell.run("aws", "s3", "cp", big_file, f"s3://{bucket}/folder/big.bin", "--no-progress")
    shell.run("aws", "s3", "cp", f"s3://{bucket}/folder/big.bin", tmp_path / "back.bin", "--no-progress")
    assert sha256(tmp_path / "back.bin") == sha256(big_file)


@HTTP_ONLY
def test_copy_between_keys_of_a_big_object(shell: Shell, bucket: str, big_file: Path, tmp_path: Path) -> None:
    shell.run("aws", "s3", "mb", f"s3://{bucket}")
    shell.run("aws", "s3", "cp", big_file, f"s3://{bucket}/one", "--no-progress")
    shell.run("aws", "s3", "cp", f"s3://{bucket}/one", f"s3://{bucket}/two", "--no-progress")
    shell.run("aws", "s3", "mv", f"s3://{bucket}/two", f"s3://{bucket}/three", "--no-progress")
    shell.run("aws", "s3", "cp", f"s3://{bucket}/three", tmp_path / "back.bin", "--no-progress")
    assert sha256(tmp_path / "back.bin") == sha256(big_file)


@pytest.mark.slow
@HTTP_ONLY
def test_second_sync_of_a_thousand_files_moves_nothing(
        shell: Shell, bucket: str, many_files: Path, tmp_path: Path) -> None:
    shell.run("aws", "s3", "mb", f"s3://{bucket}")
    first = shell.run("aws", "s3", "sync", many_files, f"s3://{bucket}/tree", "--no-progress")
    assert first.count("upload:") == 1000
    assert shell.run("aws", "s3", "sync", many_files, f"s3://{bucket}/tree", "--no-progress") == ""
    shell.run("aws", "s3", "sync", f"s3://{bucket}/tree", tmp_path / "back", "--no-progress")
    same_tree(many_files, tmp_path / "back")
    assert shell.run("aws", "s3", "sync", f"s3://{bucket}/tree", tmp_path / "back", "--no-progress") == ""


def test_sync_with_delete_removes_what_went(shell: Shell, bucket: str, few_files: Callable[[int], Path]) -> None:
    folder = few_files(20)
    shell.run("aws", "s3", "mb", f"s3://{bucket}")
    shell.run("aws", "s3", "sync", folder, f"s3://{bucket}", "--no-progress")
    (folder / "d3" / "0003.bin").unlink()
    gone = shell.run("aws", "s3", "sync", folder, f"s3://{bucket}", "--no-progress", "--delete")
    assert gone.strip() == f"delete: s3://{bucket}/d3/0003.bin"


def test_presigned_link_works_without_keys(shell: Shell, bucket: str, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("by link\n")
    shell.run("aws", "s3", "mb", f"s3://{bucket}")
    shell.run("aws", "s3", "cp", tmp_path / "note.txt", f"s3://{bucket}/a b+c.txt", "--no-progress")
    url = shell.run("aws", "s3", "presign", f"s3://{bucket}/a b+c.txt").strip()
    assert shell.fetch(url) == b"by link\n"
    with pytest.raises(urllib.error.HTTPError) as refused:
        shell.fetch(url.replace("Signature=", "Signature=A"))
    assert refused.value.code == 403
    refused.value.close()


@HTTP_ONLY
def test_listing_removal_and_empty_bucket(shell: Shell, bucket: str, few_files: Callable[[int], Path]) -> None:
    shell.run("aws", "s3", "mb", f"s3://{bucket}")
    assert f" {bucket}\n" in shell.run("aws", "s3", "ls")
    shell.run("aws", "s3", "cp", few_files(30), f"s3://{bucket}/x", "--recursive", "--no-progress")
    assert shell.run("aws", "s3", "ls", f"s3://{bucket}/x/").count(" PRE d") == 10
    listed = shell.run("aws", "s3", "ls", f"s3://{bucket}/x/", "--recursive", "--summarize")
    assert "Total Objects: 30" in listed
    assert "BucketNotEmpty" in shell.run("aws", "s3", "rb", f"s3://{bucket}", ok=False)
    shell.run("aws", "s3", "rm", f"s3://{bucket}/x", "--recursive")
    assert shell.run("aws", "s3", "ls", f"s3://{bucket}", "--recursive") == ""
    shell.run("aws", "s3", "rb", f"s3://{bucket}")
    assert "NoSuchBucket" in shell.run("aws", "s3", "ls", f"s3://{bucket}", ok=False)


def test_upload_of_unknown_length_from_a_pipe(shell: Shell, bucket: str, big_file: Path) -> None:
    shell.run("aws", "s3", "mb", f"s3://{bucket}")
    shell.script("""
        head -c 20000000 {file} | {aws} s3 cp - {url}
        {aws} s3 cp {url} - | cmp - <(head -c 20000000 {file})
        """, file=big_file, url=f"s3://{bucket}/piped")


def test_api_commands_show_what_was_stored(shell: Shell, bucket: str, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<p>hello</p>")
    shell.run("aws", "s3api", "create-bucket", "--bucket", bucket)
    put = json.loads(shell.run(
        "aws", "s3api", "put-object", "--bucket", bucket, "--key", "page.html", "--body", tmp_path / "page.html",
        "--content-type", "text/html", "--cache-control", "max-age=60", "--metadata", "colour=blue"))
    head = json.loads(shell.run("aws", "s3api", "head-object", "--bucket", bucket, "--key", "page.html"))
    assert (head["ContentType"], head["CacheControl"]) == ("text/html", "max-age=60")
    assert (head["Metadata"], head["ETag"]) == ({"colour": "blue"}, put["ETag"])
    again = shell.run("aws", "s3api", "put-object", "--bucket", bucket, "--key", "page.html", "--body",
                      tmp_path / "page.html", "--if-none-match", "*", ok=False)
    assert "PreconditionFailed" in again
