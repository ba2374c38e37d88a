"""The first start of a new server: its key is shown once and kept, and identities from a file work as they are."""

import re
import stat
from pathlib import Path

import boto3
from botocore.exceptions import ClientError

from tests.servers import StaddleProcess


class WithoutKey(StaddleProcess):
    """A server that is given no root key."""

    def environment(self) -> dict[str, str]:
        return {name: value for name, value in super().environment().items() if not name.startswith("STADDLE_ROOT_")}


def buckets(server: StaddleProcess, access_key: str, secret_key: str) -> list[str]:
    client = boto3.client("s3", endpoint_url=server.endpoint, aws_access_key_id=access_key,
                          aws_secret_access_key=secret_key, region_name="us-east-1")
    try:
        return [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]
    except ClientError as error:
        return [error.response["Error"]["Code"]]
    finally:
        client.close()


def test_root_key_is_made_shown_once_and_kept_for_its_owner_only(tmp_path: Path) -> None:
    server = WithoutKey(tmp_path / "server")
    try:
        server.start()
        shown = server.log_path.read_text()
        access = re.search(r"Access key\s+(\S+)", shown)
        secret = re.search(r"Secret key\s+(\S+)", shown)
        assert access
        assert secret
        assert server.endpoint in shown
        assert buckets(server, access[1], secret[1]) == []
        assert buckets(server, access[1], secret[1][:-1] + "~") == ["SignatureDoesNotMatch"]
        assert buckets(server, "minioadmin", "minioadmin") == ["InvalidAccessKeyId"]
        for name in ("root-key", "secret"):
            assert stat.S_IMODE((server.data[0] / name).stat().st_mode) == 0o600
        server.stop()
        server.start()
        assert server.log_path.read_text().count(secret[1]) == shown.count(secret[1])
        assert buckets(server, access[1], secret[1]) == []
    finally:
        server.kill_all()


def test_identities_from_a_file_bear_odd_values(tmp_path: Path) -> None:
    (tmp_path / "staddle.toml").write_text('''
        region = "us-east-1"
        [[identity]]
        name = "ünï \\"quoted\\" name"
        account = "testacct"
        user_id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
        display_name = "M. Tester & Söhne"
        email = "odd+address@example.org"
        access_key = "key/with+odd=characters"
        secret_key = "a secret/with spaces+and=more & ümlaut"

        [[identity]]
        name = "another"
        account = "0"
        user_id = "56789abcdef0123456789abcdef0123456789abcdef0123456789abcdef01234"
        access_key = "AKIDANOTHER"
        secret_key = "short"
    ''')
    server = StaddleProcess(tmp_path / "server", extra=("--config", str(tmp_path / "staddle.toml")))
    try:
        server.start()
        keys = ("key/with+odd=characters", "a secret/with spaces+and=more & ümlaut")
        client = boto3.client("s3", endpoint_url=server.endpoint, aws_access_key_id=keys[0],
                              aws_secret_access_key=keys[1], region_name="us-east-1")
        client.create_bucket(Bucket="of-the-first")
        client.close()
        assert buckets(server, *keys) == ["of-the-first"]
        assert buckets(server, "AKIDANOTHER", "short") == []
        server.stop()
        assert keys[1] not in server.log_path.read_text()
    finally:
        server.kill_all()
