"""boto3 1.26, the last before default checksums: what many distributions still ship, and many tools stand upon."""

from tests.clients.shell import Shell


def test_a_whole_job(shell: Shell, bucket: str) -> None:
    assert "boto3 1.26" in shell.program("boto3_any.py", bucket, python="boto3-1.26", BIG_BYTES=str(9 << 20))
