"""Each failure is one sentence that says what is wrong and what to do next, with the status that belongs to it."""

import http.server
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.admin.running import Staddle, staddle
from tests.servers import StaddleProcess, serving

__all__ = ["staddle"]

NO_KEYS = {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder without ./data."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", [("user", "list"), ("object", "cat", "s3://b/k")])
def test_no_server(staddle: Staddle, command: tuple[str, ...]) -> None:
    said = staddle.refused(*command, STADDLE_ENDPOINT="http://127.0.0.1:1")
    assert "no server answers at http://127.0.0.1:1" in said
    assert "staddle serve" in said
    assert "--endpoint" in said


def test_a_host_without_an_address(staddle: Staddle) -> None:
    assert "'no-such-host.invalid' has no address" in staddle.refused("user", "list", "--endpoint", "http://no-such-host.invalid")


@pytest.mark.parametrize("endpoint", ["localhost:9000", "ftp://x", "http://", "http://x/path", "http://x?y", "http://[::1", "http://x:y",
                                      "http://x:70000", "http://:9000"])
def test_an_endpoint_that_is_none(staddle: Staddle, endpoint: str) -> None:
    assert "is not an address such as" in staddle.refused("user", "list", "--endpoint", endpoint, status=2)


def test_the_address_that_other_clients_have_is_taken(staddle: Staddle) -> None:
    here = staddle.environment["STADDLE_ENDPOINT"]
    staddle.done("user", "list", STADDLE_ENDPOINT=None, AWS_ENDPOINT_URL=here)
    assert "no server answers at http://127.0.0.1:1" in staddle.refused(
        "user", "list", STADDLE_ENDPOINT=None, AWS_ENDPOINT_URL=here, AWS_ENDPOINT_URL_S3="http://127.0.0.1:1")


def test_no_keys(staddle: Staddle, elsewhere: Path) -> None:
    said = staddle.refused("user", "list", status=2, **NO_KEYS)
    assert "AWS_ACCESS_KEY_ID" in said
    assert "--data DIR" in said
    assert "belong together" in staddle.refused("user", "list", status=2, AWS_SECRET_ACCESS_KEY=None)


def test_data_folders_that_have_no_key(staddle: Staddle, server: StaddleProcess, elsewhere: Path) -> None:
    assert "does not exist" in staddle.refused("user", "list", "--data", "nowhere", status=2)
    assert "is no data folder" in staddle.refused("user", "list", "--data", ".", status=2)
    assert "STADDLE_ROOT_ACCESS_KEY" in staddle.refused("user", "list", "--data", str(server.data[0]), status=2, **NO_KEYS)
    staddle.done("user", "list", "--data", str(server.data[0]))
    (elsewhere / "root-key").write_text("nonsense")
    assert "cannot be read" in staddle.refused("user", "list", "--data", ".")


def test_the_root_key_of_the_folder_is_found(staddle: Staddle, server: StaddleProcess, elsewhere: Path) -> None:
    """With --data, and in ./data without it; a key in the environment comes before ./data."""
    (elsewhere / "data").mkdir()
    wanted = staddle.environment
    (elsewhere / "data" / "root-key").write_text(
        f'access_key = "{wanted["AWS_ACCESS_KEY_ID"]}"\nsecret_key = "{wanted["AWS_SECRET_ACCESS_KEY"]}"\n')
    staddle.done("user", "list", **NO_KEYS)
    staddle.done("user", "list", "--data", "data", AWS_ACCESS_KEY_ID="wrong")
    assert "wrong" in staddle.refused("user", "list", AWS_ACCESS_KEY_ID="wrong")


def test_wrong_keys(staddle: Staddle) -> None:
    said = staddle.refused("user", "list", AWS_ACCESS_KEY_ID="NOSUCHKEY")
    assert f"the server at {staddle.environment['STADDLE_ENDPOINT']} does not know the access key NOSUCHKEY" in said
    said = staddle.refused("user", "list", AWS_SECRET_ACCESS_KEY="wrong secret")
    assert "is not the one of the access key" in said
    assert "AWS_SECRET_ACCESS_KEY" in said
    assert "wrong secret" not in said
    for command in (("cat", "s3://b/k"), ("get", "s3://b/k", "-"), ("cp", "s3://b/k", "s3://b/l")):
        assert "is not the one of the access key" in staddle.refused("object", *command, AWS_SECRET_ACCESS_KEY="wrong")


def test_a_clock_that_is_wrong(staddle: Staddle, monkeypatch: pytest.MonkeyPatch) -> None:
    import datetime

    from botocore import auth

    ahead = datetime.datetime.now(datetime.UTC).replace(tzinfo=None) + datetime.timedelta(minutes=100)
    monkeypatch.setattr(auth, "get_current_datetime", lambda remove_tzinfo=True: ahead)
    monkeypatch.setattr("time.time", lambda: ahead.replace(tzinfo=datetime.UTC).timestamp())
    said = staddle.refused("user", "list")
    assert "clock is 100 minutes ahead of the server's" in said


def test_the_region_is_learnt(staddle: Staddle) -> None:
    staddle.done("user", "list", AWS_REGION="eu-west-1")
    staddle("bucket", "create", "says-region")
    assert "no object" in staddle.refused("object", "cat", "s3://says-region/none", AWS_DEFAULT_REGION="ap-south-1")


@pytest.mark.parametrize("variables", [
    {"AWS_PROFILE": "none"}, {"AWS_DEFAULT_PROFILE": "none"}, {"AWS_CONFIG_FILE": "config"}, {"AWS_MAX_ATTEMPTS": "many"},
    {"http_proxy": "http://127.0.0.1:1", "HTTP_PROXY": "http://127.0.0.1:1", "no_proxy": "", "NO_PROXY": ""},
    {"AWS_USE_FIPS_ENDPOINT": "true"}, {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1"},
], ids=lambda variables: next(iter(variables)))
def test_what_is_meant_for_other_clients_does_not_matter(
    staddle: Staddle, variables: dict[str, str], elsewhere: Path,
) -> None:
    """All that is needed is given; commands that move bytes go where the others go."""
    (elsewhere / "config").write_text("[default]\nmax_attempts = many\ns3 =\n  use_accelerate_endpoint = true\n")
    staddle("bucket", "create", "says-environment")
    staddle.done("user", "list", **variables)
    staddle.done("object", "put", "-", "s3://says-environment/k", input=b"x", **variables)
    assert staddle.done("object", "cat", "s3://says-environment/k", **variables).raw == b"x"


@pytest.mark.parametrize("command", [("user", "list"), ("object", "cat", "s3://b/k")])
@pytest.mark.parametrize("region", ["no region", "-", "a\nb", "\u00e4"])
def test_a_region_that_is_none(staddle: Staddle, command: tuple[str, ...], region: str) -> None:
    assert "AWS_DEFAULT_REGION" in staddle.refused(*command, status=2, AWS_DEFAULT_REGION=region)


@pytest.mark.parametrize(("command", "said"), [
    (("bucket", "stat", "no-such-bucket"), "bucket"), (("bucket", "delete", "no-such-bucket"), "bucket"),
    (("bucket", "create", "No"), "3 to 63 of a-z"), (("bucket", "create", "b-ok", "--user", "nobody"), "staddle user list"),
    (("object", "ls", "s3://no-such-bucket"), "bucket"), (("object", "stat", "s3://says-region/none"), "There is no object"),
    (("object", "rm", "s3://says-region/none"), "there is no object"),
    (("object", "cat", "s3://no-such-bucket/k"), "staddle bucket list"),
    (("object", "cat", "s3://says-region/k", "--version-id", "nonsense"), "version"),
    (("object", "put", "/dev/null", "s3://no-such-bucket/k"), "staddle bucket list"),
    (("object", "verify", "s3://says-region/none"), "There is no object"),
    (("user", "show", "nobody"), "staddle user list"), (("user", "create", "root"), "another name"),
    (("user", "disable", "root"), "DIR/root-key"), (("key", "create", "nobody"), "staddle user list"),
    (("key", "delete", "NOSUCHKEY", "--yes"), "staddle key list"), (("node", "stat", "n0"), "staddle node list"),
    (("backup", "delete", "none", "--yes"), "staddle backup list"), (("backup", "download", "none", "/dev/null"), "backup list"),
    (("backup", "create", "../up"), "name"),
])
def test_what_is_not_there_or_cannot_be(staddle: Staddle, command: tuple[str, ...], said: str) -> None:
    staddle("bucket", "create", "says-region")
    assert said in staddle.refused(*command)


@pytest.mark.parametrize("command", [
    ("object", "ls", "bucket"), ("object", "ls", "s3://"), ("object", "stat", "s3://bucket"), ("object", "rm", "s3://bucket/"),
    ("object", "cat", "key"), ("object", "cp", "here", "there"), ("object", "put", "no-such-file", "s3://b/k"),
    ("object", "rm", "-r", "s3://b/"), ("user", "delete", "x"), ("key", "rotate", "x"), ("user", "change", "x"),
    ("gc", "run", "--now"), ("key", "create", "x", "--secret-file", "no-such-file"),
])
def test_commands_used_wrongly_end_with_status_2(staddle: Staddle, command: tuple[str, ...], elsewhere: Path) -> None:
    assert len(staddle.refused(*command, status=2)) > 20


def test_files_that_cannot_be_written(staddle: Staddle, s3: Any, tmp_path: Path) -> None:
    staddle("bucket", "create", "says-files")
    s3.put_object(Bucket="says-files", Key="k", Body=b"x")
    assert "cannot write" in staddle.refused("object", "get", "s3://says-files/k", str(tmp_path / "no" / "folder"))
    before = staddle.json("backup", "list")
    assert "cannot write" in staddle.refused("backup", "create", "--file", str(tmp_path / "no" / "folder"), status=2)
    assert staddle.json("backup", "list") == before, "found out before it was made"


def test_servers_that_are_something_else(staddle: Staddle) -> None:
    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404)
            self.send_header("content-length", "4")
            self.end_headers()
            self.wfile.write(b"nope")

        def log_message(self, *arguments: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Other) as other:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        try:
            said = staddle.refused("user", "list", "--endpoint", f"http://127.0.0.1:{other.server_port}")
            assert "not as the admin API of a Staddle server" in said
        finally:
            other.shutdown()
            thread.join()
    with hangs_up() as port:
        assert "closed the connection" in staddle.refused("user", "list", "--endpoint", f"http://127.0.0.1:{port}")


@pytest.mark.parametrize("body", [
    b"<html>\n<body>Log in.</body>\n</html>\n", b"{}\n", b"[1]\n", b'{"error": "no"}\n', b'{"result": {}}\n', b"\xff\n", b"",
], ids=["html", "object", "list", "error", "result", "binary", "nothing"])
def test_servers_that_say_yes_to_everything(staddle: Staddle, tmp_path: Path, body: bytes) -> None:
    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", "0")))
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *arguments: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Other) as other:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        try:
            at = ("--endpoint", f"http://127.0.0.1:{other.server_port}")
            for command in (("user", "list"), ("gc", "run"), ("fsck",)):
                assert len(staddle.refused(*command, *at)) > 20
            kept = tmp_path / "kept"
            kept.write_text("kept")
            assert "is not a backup" in staddle.refused("backup", "download", "b", str(kept), *at)
            assert kept.read_text() == "kept"
        finally:
            other.shutdown()
            thread.join()


@pytest.mark.parametrize(("command", "status", "said"), [
    ("user list > /dev/full", 1, "No space left"), ("user list --json > /dev/full", 1, "No space left"),
    ("object cat s3://says-streams/k > /dev/full", 1, "No space left"), ("version > /dev/full", 1, "No space left"),
    ("user list > /dev/full 2> /dev/full", 1, ""), ("user list --no-such 2> /dev/full", None, ""),
    ("user list >&-", 0, ""), ("user list >&- 2>&- <&-", 0, ""), ("object cat s3://says-streams/k >&-", 0, ""),
    ("object put - s3://says-streams/empty <&-", 0, ""), ("user show nobody 2>&-", 1, ""),
    ("key create root --secret-file - <&-", 2, "is empty"), ("user delete d2 <&-", 2, "give --yes"),
    ("object put /proc/version s3://says-streams/v", 1, "cannot read /proc/version"),
    ("object cat s3://says-streams/k | true", 0, ""), ("user list | true", 0, ""),
])
def test_streams_that_are_full_or_closed(staddle: Staddle, s3: Any, command: str, status: int | None, said: str) -> None:
    staddle("bucket", "create", "says-streams")
    s3.put_object(Bucket="says-streams", Key="k", Body=b"line\n" * 100_000)
    environment = os.environ | {name: value for name, value in staddle.environment.items() if value is not None}
    ran = subprocess.run(["/bin/sh", "-c", f'"{sys.executable}" -P -m gateway.cli {command}'], env=environment, text=True,
                         capture_output=True, check=False, timeout=60)
    assert status in (None, ran.returncode), ran
    lines = ran.stderr.splitlines()
    assert len(lines) == bool(said), ran
    assert all(line.startswith("staddle: ") and said in line for line in lines), ran


@contextmanager
def hangs_up() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def hang_up() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                connection.recv(10)
                connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_tls(staddle: Staddle, server: StaddleProcess, tmp_path: Path) -> None:
    for command in (("user", "list"), ("object", "cat", "s3://b/k")):
        assert "does not speak TLS" in staddle.refused(*command, "--endpoint", server.endpoint.replace("http:", "https:"))
    with serving(tmp_path / "tls", tls=True) as secure:
        assert secure.certificate is not None
        trusted = str(secure.certificate.certificate)
        assert "--ca-bundle" in staddle.refused("user", "list", "--endpoint", secure.endpoint)
        staddle.done("user", "list", "--endpoint", secure.endpoint, "--ca-bundle", trusted)
        staddle.done("bucket", "create", "tls", "--endpoint", secure.endpoint, AWS_CA_BUNDLE=trusted)
        staddle.done("object", "put", "-", "s3://tls/k", "--endpoint", secure.endpoint, "--ca-bundle", trusted, input=b"x")
        assert "is not a file" in staddle.refused("user", "list", "--ca-bundle", str(tmp_path / "none"), status=2)
        plain = secure.endpoint.replace("https:", "http:")
        assert "https://" in staddle.refused("user", "list", "--endpoint", plain)


def test_a_name_that_is_no_text(staddle: Staddle) -> None:
    assert "UTF-8" in staddle.refused("object", "stat", os.fsdecode(b"s3://bucket/\xff"), status=2)
