"""The embedding face: a real server for the length of a block, on a folder that goes or stays."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

import staddle
from tests import processes
from tests.servers import ACCESS_KEY, ROOT, SECRET_KEY, StaddleProcess

KEYS = {"access_key": ACCESS_KEY, "secret_key": SECRET_KEY}
PATIENCE_S = 20.0


def names(client: object) -> list[str]:
    return [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]  # type: ignore[attr-defined]


def wait_gone(pid: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while (left := processes.read(pid)) is not None and left.state != "Z":
        assert time.monotonic() < deadline, "the server outlived who started it"
        time.sleep(0.05)


def test_a_server_serves_boto3_and_a_given_folder_keeps_data_and_key(tmp_path: Path) -> None:
    """Also when the server was killed: it syncs what it acknowledges, like any other."""
    with staddle.Server(tmp_path / "kept") as s3:
        client = s3.client()
        client.create_bucket(Bucket="first")
        client.put_object(Bucket="first", Key="greeting", Body=b"hello")
        key, endpoint = s3.access_key, s3.endpoint_url
        assert s3._process is not None
        s3._process.kill()
    with pytest.raises(EndpointConnectionError):
        boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id=key,
                     aws_secret_access_key="x").list_buckets()
    with staddle.Server(tmp_path / "kept") as s3:
        assert s3.access_key == key
        assert s3.client().get_object(Bucket="first", Key="greeting")["Body"].read() == b"hello"
        assert [one.name for one in s3.resource().buckets.all()] == ["first"]


def test_it_opens_what_serve_wrote_and_the_other_way_round(tmp_path: Path) -> None:
    """Two data folders, chunks large and small; then back."""
    server = StaddleProcess(tmp_path, data_folders=2)
    server.start()
    s3 = boto3.client("s3", endpoint_url=server.endpoint, region_name="us-east-1", aws_access_key_id=ACCESS_KEY,
                      aws_secret_access_key=SECRET_KEY)
    s3.create_bucket(Bucket="served")
    s3.put_object(Bucket="served", Key="large", Body=b"L" * (3 << 20))
    server.stop()
    with staddle.Server(server.data, **KEYS) as embedded:
        assert embedded.client().get_object(Bucket="served", Key="large")["Body"].read() == b"L" * (3 << 20)
        embedded.client().put_object(Bucket="served", Key="small", Body=b"s")
        with pytest.raises(staddle.ServerError, match="another process uses"):
            staddle.Server(server.data, **KEYS).start()
    server.start()
    try:
        assert s3.get_object(Bucket="served", Key="small")["Body"].read() == b"s"
    finally:
        server.stop()


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    server = staddle.Server(tmp_path, settings={"chunk_bytes": "17 parsecs"})
    with pytest.raises(staddle.ServerError, match="chunk_bytes"):
        server.start()
    with staddle.Server() as other, pytest.raises(staddle.ServerError, match="in use"):
        staddle.Server(port=other.port).start()


def test_a_folder_that_cannot_be_is_a_server_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "no" / "such"):
        with pytest.raises(staddle.ServerError, match="data folder"):
            staddle.Server(folder).start()
    server = staddle.Server(tmp_path / "data").start()
    try:
        with pytest.raises(staddle.ServerError, match="already"):
            server.start()
    finally:
        server.stop()
        server.stop()


def test_reset_leaves_nothing_and_the_server_goes_on() -> None:
    with staddle.Server(settings={"log_level": "info"}) as s3:
        client = s3.client()
        for bucket in ("one", "two"):
            client.create_bucket(Bucket=f"bucket-{bucket}")
            for number in range(5):
                client.put_object(Bucket=f"bucket-{bucket}", Key=f"a key/{number}", Body=b"x")
        client.create_multipart_upload(Bucket="bucket-one", Key="unfinished")
        s3.reset()
        assert names(client) == []
        client.create_bucket(Bucket="bucket-one")
        assert client.list_objects_v2(Bucket="bucket-one")["KeyCount"] == 0
        assert '"level": "info"' in s3.log(), "settings reach the server, and its log can be read"


def test_many_at_once_do_not_meet() -> None:
    servers = [staddle.Server().start() for _ in range(3)]
    try:
        assert len({server.port for server in servers}) == 3
        for number, server in enumerate(servers):
            server.client().create_bucket(Bucket=f"of-server-{number}")
        for number, server in enumerate(servers):
            assert names(server.client()) == [f"of-server-{number}"]
        with pytest.raises(ClientError, match="InvalidAccessKeyId"):
            servers[0].client(aws_access_key_id=servers[1].access_key).list_buckets()
    finally:
        for server in servers:
            server.stop()


@pytest.mark.parametrize("fork", [False, True])
def test_it_ends_with_who_started_it_however_that_ends(tmp_path: Path, fork: bool) -> None:
    """Also when a fork of that process lives on and holds the pipe open."""
    program = f"""
import os, sys, time, staddle
server = staddle.Server().start()
child = os.fork() if {fork} else 1
if child:
    print(server._process.pid, child, server._temporary, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)},
                          cwd=tmp_path) as parent:
        assert parent.stdout is not None
        server, child, folder = parent.stdout.readline().split()
        server, child = int(server), int(child)
        assert Path(folder.decode(), "data", "meta").exists()
        assert processes.read(server) is not None
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        try:
            wait_gone(server)
            assert not Path(folder.decode()).exists(), "a temporary folder goes, whoever ends the server"
        finally:
            if fork:
                os.kill(child, signal.SIGKILL)


def test_a_fork_that_ends_takes_neither_server_nor_folder_with_it() -> None:
    done = subprocess.run([sys.executable, "-c", """
import os, sys, staddle
server = staddle.Server().start()
server.client().create_bucket(Bucket="kept")
if os.fork() == 0:
    sys.exit(0)          # runs what is registered for the end of a program
os.wait()
print([bucket["Name"] for bucket in server.client().list_buckets()["Buckets"]], server._temporary.exists())
"""], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60)
    assert (done.stdout, done.returncode) == ("['kept'] True\n", 0), done.stderr
