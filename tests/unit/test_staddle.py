"""The embedding face: a real server for the length of a block, on a folder that goes or stays."""

from pathlib import Path

import pytest

import staddle


def test_a_server_serves_boto3_and_its_folder_keeps_what_it_stored(tmp_path: Path) -> None:
    keys = {"access_key": "EMBEDDED", "secret_key": "a/secret+key="}
    with staddle.Server(tmp_path / "kept", **keys) as s3:
        client = s3.client()
        client.create_bucket(Bucket="first")
        client.put_object(Bucket="first", Key="greeting", Body=b"hello")
    with staddle.Server(tmp_path / "kept", **keys) as s3:
        assert s3.client().get_object(Bucket="first", Key="greeting")["Body"].read() == b"hello"


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    server = staddle.Server(tmp_path, settings={"chunk_bytes": "17 parsecs"})
    with pytest.raises(staddle.ServerError, match="chunk_bytes"):
        server.start()
