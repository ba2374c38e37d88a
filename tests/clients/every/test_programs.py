"""Libraries, each in a program as its users would write it: `programs/`. They check their own bytes."""

import pytest

from tests.clients.shell import Shell


@pytest.mark.parametrize("program", [
    "boto3_any", "minio_py", "fsspec_s3fs", "pyarrow_fs", "polars_frames", "duckdb_httpfs", "obstore_rust", "opendal_rust",
    "smart_open_files", "django_files", "delta_lake", "mountpoint_crt",
])
def test_a_python_program(shell: Shell, bucket: str, program: str) -> None:
    shell.program(f"{program}.py", bucket, python="many")


def test_boto3_1_26(shell: Shell, bucket: str) -> None:
    shell.program("boto3_any.py", bucket, python="boto3-1.26")


@pytest.mark.parametrize("program", ["aws_sdk_js", "minio_js"])
def test_a_node_program(shell: Shell, bucket: str, program: str) -> None:
    shell.program(f"{program}.mjs", bucket, python="node")
