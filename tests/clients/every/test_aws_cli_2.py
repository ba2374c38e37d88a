"""The official aws command line 2, and the 2.9 of Debian, which has no default checksums and reads no AWS_ENDPOINT_URL."""

import json
import urllib.error
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clients.shell import Shell, same_tree, sha256

VERSIONS = pytest.mark.parametrize("version", ["aws-2", "aws-2.9"])


@pytest.fixture
def aws(shell: Shell, version: str) -> Callable[..., str]:
    def run(*arguments: str | Path, ok: bool = True) -> str:
        return shell.run(version, "--endpoint-url", shell.target.url, *arguments, ok=ok)

    return run


@VERSIONS
def test_files_up_down_copied_and_synced(
        aws: Callable[..., str], bucket: str, big_file: Path, few_files: Callable[[int], Path], tmp_path: Path) -> None:
    folder = few_files(100)
    aws("s3", "mb", f"s3://{bucket}")
    aws("s3", "cp", big_file, f"s3://{bucket}/big", "--no-progress")
    aws("s3", "cp", f"s3://{bucket}/big", f"s3://{bucket}/copied", "--no-progress")
    aws("s3", "mv", f"s3://{bucket}/copied", f"s3://{bucket}/moved", "--no-progress")
    aws("s3", "cp", f"s3://{bucket}/moved", tmp_path / "back", "--no-progress")
    assert sha256(tmp_path / "back") == sha256(big_file)
    assert aws("s3", "sync", folder, f"s3://{bucket}/tree", "--no-progress").count("upload:") == 100
    assert aws("s3", "sync", folder, f"s3://{bucket}/tree", "--no-progress") == ""
    aws("s3", "sync", f"s3://{bucket}/tree", tmp_path / "tree", "--no-progress")
    same_tree(folder, tmp_path / "tree")
    assert "BucketNotEmpty" in aws("s3", "rb", f"s3://{bucket}", ok=False)
    aws("s3", "rb", f"s3://{bucket}", "--force")
    assert "NoSuchBucket" in aws("s3", "ls", f"s3://{bucket}", ok=False)


@VERSIONS
def test_pipes_links_and_tags(aws: Callable[..., str], shell: Shell, version: str, bucket: str, big_file: Path) -> None:
    aws("s3", "mb", f"s3://{bucket}")
    aws("s3", "cp", big_file, f"s3://{bucket}/a b+ü", "--no-progress", "--metadata", "colour=blue")
    aws("s3api", "put-object-tagging", "--bucket", bucket, "--key", "a b+ü", "--tagging", "TagSet=[{Key=k,Value=v w}]")
    aws("s3", "cp", f"s3://{bucket}/a b+ü", f"s3://{bucket}/copied", "--no-progress")          # in parts, with its tags
    head = json.loads(aws("s3api", "head-object", "--bucket", bucket, "--key", "copied"))
    assert (head["Metadata"], head["ContentLength"]) == ({"colour": "blue"}, big_file.stat().st_size)
    tags = json.loads(aws("s3api", "get-object-tagging", "--bucket", bucket, "--key", "copied"))
    assert tags["TagSet"] == [{"Key": "k", "Value": "v w"}]
    link = aws("s3", "presign", f"s3://{bucket}/a b+ü").strip()
    assert "X-Amz-Signature" in link
    assert shell.fetch(link) == big_file.read_bytes()
    with pytest.raises(urllib.error.HTTPError) as refused:
        shell.fetch(link[:-4] + "0000")
    refused.value.close()
    aws("s3api", "wait", "object-exists", "--bucket", bucket, "--key", "copied")


@pytest.mark.parametrize("version", ["aws-2"])
def test_conditional_writes_and_checksums(aws: Callable[..., str], bucket: str, big_file: Path) -> None:
    aws("s3", "mb", f"s3://{bucket}")
    put = ("s3api", "put-object", "--bucket", bucket, "--key", "k", "--body", big_file)
    stored = json.loads(aws(*put, "--if-none-match", "*", "--checksum-algorithm", "CRC64NVME"))
    assert stored["ChecksumType"] == "FULL_OBJECT"
    assert "PreconditionFailed" in aws(*put, "--if-none-match", "*", ok=False)
    seen = json.loads(aws("s3api", "get-object-attributes", "--bucket", bucket, "--key", "k", "--object-attributes",
                          "Checksum", "ObjectSize"))
    assert (seen["Checksum"]["ChecksumCRC64NVME"], seen["ObjectSize"]) == (
        stored["ChecksumCRC64NVME"], big_file.stat().st_size)
