"""The S3 server access log: AWS's fields in AWS's order, nothing forged, nothing secret, nothing lost when the file is moved."""

import asyncio
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import unquote

import boto3
import pytest
from botocore.client import BaseClient
from botocore.config import Config
from hypothesis import example, given, strategies

from consensus.core.errors import Unavailable
from gateway.auth import Mechanism
from gateway.folders import ROOT_USER_ID
from gateway.http import server_log
from gateway.http.server_log import LINES_MAX, ServerLog
from gateway.s3.reply import Reply
from tests.servers import ACCESS_KEY, REGION, SECRET_KEY, StaddleProcess, serving

LINE = re.compile(
    r'(?P<owner>\S+) (?P<bucket>\S+) \[(?P<time>[^]]+)\] (?P<remote>\S+) (?P<requester>\S+) (?P<id>\S+) (?P<operation>\S+) '
    r'(?P<key>\S+) "(?P<uri>[^"]*)" (?P<status>\d{3}|-) (?P<code>\S+) (?P<sent>\d+|-) (?P<size>\d+|-) (?P<total>\d+|-) '
    r'(?P<turn>\d+|-) "(?P<referer>[^"]*)" "(?P<agent>[^"]*)" (?P<version>\S+) (?P<host_id>\S+) (?P<signature>SigV2|SigV4|-) '
    r'(?P<cipher>\S+) (?P<auth>AuthHeader|QueryString|-) (?P<host>\S+) (?P<tls>TLSv1\.[23]|-) - - -')
"""As programs that read AWS's logs split them."""

PATIENCE_S = 10.0


def entries(path: Path) -> list[dict[str, str]]:
    text = path.read_text("ascii") if path.exists() else ""
    found = []
    for line in text.splitlines():
        match = LINE.fullmatch(line)
        assert match is not None, line
        found.append(match.groupdict())
    assert not text or text.endswith("\n")
    return found


def wait(path: Path, wanted: Callable[[dict[str, str]], bool], count: int = 1) -> list[dict[str, str]]:
    deadline = time.monotonic() + PATIENCE_S
    while len(found := [entry for entry in entries(path) if wanted(entry)]) < count:
        assert time.monotonic() < deadline, path.read_text() if path.exists() else "no log"
        time.sleep(0.02)
    return found


# A whole server


class Logged(StaddleProcess):
    @property
    def file(self) -> Path:
        return self.folder / "access.log"

    def client(self, **options: Any) -> BaseClient:
        assert self.certificate is not None
        return boto3.client("s3", endpoint_url=self.endpoint, region_name=REGION, aws_access_key_id=ACCESS_KEY,
                            aws_secret_access_key=SECRET_KEY, verify=str(self.certificate.certificate),
                            config=Config(retries={"total_max_attempts": 1}, **options))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logged]:
    folder = tmp_path_factory.mktemp("logged")
    running = Logged(folder, tls=True, settings={"workers": "2", "access_log": str(folder / "access.log")})
    running.start()
    try:
        running.client().create_bucket(Bucket="logged")
        yield running
    finally:
        running.stop()


def test_each_field_is_what_happened(server: Logged) -> None:
    s3 = server.client(user_agent="agent \"of\" mine")
    s3.put_object(Bucket="logged", Key="folder/a key", Body=b"x" * 5000)
    answer = s3.get_object(Bucket="logged", Key="folder/a key", Range="bytes=0-99")
    answer["Body"].read()
    with pytest.raises(s3.exceptions.NoSuchKey):
        s3.get_object(Bucket="logged", Key="none")
    with pytest.raises(s3.exceptions.NoSuchBucket):
        s3.list_objects_v2(Bucket="not-there")
    s3.head_object(Bucket="logged", Key="folder/a key")
    s3.delete_objects(Bucket="logged", Delete={"Objects": [{"Key": "folder/a key"}]})
    (put,) = wait(server.file, lambda entry: entry["operation"] == "REST.PUT.OBJECT")
    assert (put["owner"], put["requester"]) == (ROOT_USER_ID, ROOT_USER_ID)
    assert (put["bucket"], put["key"], put["uri"]) == ("logged", "folder/a%2520key", "PUT /logged/folder/a%20key HTTP/1.1")
    assert (put["status"], put["code"], put["sent"], put["size"]) == ("200", "-", "-", "5000")
    assert (put["signature"], put["auth"], put["remote"]) == ("SigV4", "AuthHeader", "127.0.0.1")
    assert (put["host"], put["tls"]) == (f"127.0.0.1:{server.port}", "TLSv1.3")
    assert put["cipher"].startswith("TLS_")
    assert put["agent"].startswith("agent %22of%22 mine")
    assert 0 <= int(put["turn"]) <= int(put["total"]) + 1
    assert abs(time.time() - time.mktime(time.strptime(put["time"], "%d/%b/%Y:%H:%M:%S +0000")) + time.timezone) < 60
    (got,) = wait(server.file, lambda entry: entry["status"] == "206")
    assert (got["operation"], got["sent"], got["size"]) == ("REST.GET.OBJECT", "100", "5000")
    assert got["id"] == answer["ResponseMetadata"]["RequestId"]
    assert got["host_id"] == answer["ResponseMetadata"]["HostId"]
    (none,) = wait(server.file, lambda entry: entry["code"] == "NoSuchKey")
    assert (none["status"], none["size"]) == ("404", "-")
    assert int(none["sent"]) > 100
    (elsewhere,) = wait(server.file, lambda entry: entry["code"] == "NoSuchBucket")
    assert (elsewhere["owner"], elsewhere["bucket"], elsewhere["operation"]) == ("-", "not-there", "REST.GET.BUCKET")
    (head,) = wait(server.file, lambda entry: entry["operation"] == "REST.HEAD.OBJECT")
    assert (head["sent"], head["size"]) == ("-", "5000")
    wait(server.file, lambda entry: entry["operation"] == "REST.POST.MULTI_OBJECT_DELETE")


@pytest.mark.parametrize("version", ["s3v4", "s3"])
def test_a_presigned_link_is_logged_without_its_signature(server: Logged, version: str) -> None:
    link = server.client(signature_version=version).generate_presigned_url(
        "get_object", {"Bucket": "logged", "Key": f"presigned-{version}"})
    signature = re.search(r"Signature=([^&]+)", link)[1]  # type: ignore[index]
    target = link.removeprefix(server.endpoint)
    for spelt in (target, target.replace("Signature=", "Sign%61ture=")):
        connection = server.connect()
        connection.request("GET", spelt, headers={"referer": link})
        connection.getresponse().read()
        connection.close()
    found = wait(server.file, lambda entry: entry["key"] == f"presigned-{version}", 2)
    assert {entry["auth"] for entry in found} == {"QueryString"}
    assert {entry["signature"] for entry in found} == {"SigV4" if version == "s3v4" else "SigV2"}
    for hidden in (signature, unquote(signature), SECRET_KEY):
        assert hidden not in server.file.read_text()
    assert all("=***" in entry["uri"] and "=***" in entry["referer"] for entry in found)


@pytest.mark.parametrize("key", ["two\nlines", 'a " quote', "back\\slash", "per%0Acent", "ünïcode 中", "- - [x] \"", "\x7f\x01",
                                 "a+b&c=d"])
def test_a_key_cannot_forge_a_line_and_can_be_decoded(server: Logged, key: str) -> None:
    before = len(entries(server.file))
    server.client().put_object(Bucket="logged", Key=key, Body=b"x")
    (entry,) = wait(server.file, lambda entry: unquote(unquote(entry["key"])) == key)
    assert entry["operation"] == "REST.PUT.OBJECT"
    assert len(entries(server.file)) <= before + 3


def test_headers_cannot_forge_a_field(server: Logged) -> None:
    connection = server.connect()
    connection.putrequest("GET", "/logged/forger?a=\"b\"&Signature")
    connection.putheader("user-agent", 'x" 200 - "\xff\ttab')
    connection.putheader("referer", "Signature=abcdef&\"")
    connection.endheaders()
    connection.getresponse().read()
    connection.close()
    found = wait(server.file, lambda entry: "forger" in entry["uri"])
    assert found[0]["requester"] == "-"
    assert found[0]["uri"] == "GET /logged/forger?a=%22b%22&Signature HTTP/1.1"
    assert "abcdef" not in found[0]["referer"]


def test_a_moved_log_goes_on_in_a_new_file_and_no_line_is_lost(server: Logged) -> None:
    """Moved while requests come; at the end with SIGHUP, as logrotate does."""
    s3 = server.client()
    moved = [server.folder / f"moved-{number}" for number in range(3)]
    for number in range(30):
        s3.put_object(Bucket="logged", Key=f"rotated-{number}", Body=b"x")
        if number % 10 == 9:
            wait(server.file, lambda entry, last=number: entry["key"] == f"rotated-{last}")  # type: ignore[misc]
            server.file.rename(moved[number // 10])
            os.kill(server.pid, signal.SIGHUP)
    s3.put_object(Bucket="logged", Key="rotated-30", Body=b"x")
    wait(server.file, lambda entry: entry["key"] == "rotated-30")
    keys = [entry["key"] for path in (*moved, server.file) for entry in entries(path) if entry["key"].startswith("rotated")]
    assert sorted(keys) == sorted(f"rotated-{number}" for number in range(31))
    assert server.running
    assert len(server.roles()["gateway"]) == 2


def test_a_log_that_cannot_be_written_is_said_at_the_start(tmp_path: Path) -> None:
    server = StaddleProcess(tmp_path, settings={"access_log": str(tmp_path / "no" / "such" / "folder.log"), "workers": "1"})
    server.start(wait=False)
    assert server.wait_ended() == 78
    assert "setting 'access_log'" in server.log()


def test_a_log_that_is_lost_later_does_not_keep_a_worker_from_coming_back(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    with serving(tmp_path / "server", settings={"access_log": str(folder / "log"), "workers": "1"}) as server:
        (folder / "log").unlink()
        folder.rmdir()
        killed = server.kill("gateway")
        deadline = time.monotonic() + PATIENCE_S * 2
        while server.roles()["gateway"] in ([killed], []) or not server.ready():
            assert server.running, server.log()
            assert time.monotonic() < deadline, server.log()
            time.sleep(0.02)
        assert "setting 'access_log'" in server.log()


def test_a_closed_terminal_ends_a_server_without_access_log(tmp_path: Path) -> None:
    with serving(tmp_path, settings={"workers": "1"}) as server:
        os.kill(server.pid, signal.SIGHUP)
        assert server.wait_ended() == -signal.SIGHUP


texts = strategies.text(strategies.characters(codec="latin-1"), max_size=40)
raw = strategies.binary(max_size=40)


@given(method=strategies.sampled_from(["GET", "PUT", "M-SEARCH"]), target=raw, query=raw, agent=texts, referer=texts, host=texts,
       key=strategies.text(max_size=20), bucket=texts, user=strategies.text(max_size=20), version=strategies.text(max_size=10),
       length=texts)
@example(method="GET", target=b"/b/k\n", query=b'"', agent='"\r\n', referer="\x85\xa0", host=" ", key="\u2028", bucket="",
         user="\n- -", version='"', length="7\n")
def test_whatever_clients_send_is_one_line_of_so_many_fields(
    method: str, target: bytes, query: bytes, agent: str, referer: str, host: str, key: str, bucket: str, user: str, version: str,
    length: str,
) -> None:
    headers = {"host": host, "user-agent": agent, "referer": referer, "content-length": length}
    asked = SimpleNamespace(bucket=bucket, key=key, query={"versionId": version})
    who = SimpleNamespace(mechanism=Mechanism.V4_QUERY, user_id=user)
    rest = server_log.fields(exchange(target, headers=headers, method=method, query=query), "ID", cast(Any, asked),
                             cast(Any, who), "PutObject", 200, "", Reply(), 1.0, 1.5)
    line = f"- {server_log.one_field(bucket)} [06/Feb/2019:00:00:38 +0000] {rest}"
    assert line.isascii()
    assert line.isprintable() or line[:-1].isprintable()
    assert LINE.fullmatch(line[:-1]) is not None, line
    assert line.endswith("\n")


# The file itself


def exchange(target: bytes = b"/b/k", **given: Any) -> Any:
    return SimpleNamespace(**{
        "headers": {"host": "h"}, "remote": "192.0.2.3", "method": "GET", "target": target, "query": b"", "http_10": False,
        "sent": 3, "answered_at": 1.001, "request_body": None, "cipher": ("", ""), **given})


def add(log: ServerLog, target: bytes = b"/b/k", **given: Any) -> None:
    log.add(exchange(target, **given), "ID", request=None, who=None, operation="GetObject", status=200, code="",
            reply=Reply(body=b"abc"), began=1.0, ended=1.002, now_ms=1_549_411_238_000)


async def nobody(bucket: str) -> str:
    raise Unavailable("the metadata member does not answer")


def test_a_line_is_exactly_this(tmp_path: Path) -> None:
    async def main() -> None:
        log = ServerLog(tmp_path / "log", nobody)
        add(log)
        await log.stop()

    asyncio.run(main())
    assert (tmp_path / "log").read_text() == (
        '- - [06/Feb/2019:00:00:38 +0000] 192.0.2.3 - ID REST.GET.SERVICE - "GET /b/k HTTP/1.1" 200 - 3 3 2 1 "-" "-" - '
        f"{server_log.HOST_ID} - - - h - - - -\n")


def test_a_half_line_of_a_killed_worker_stays_a_line_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("half a li")

    async def main() -> None:
        log = ServerLog(tmp_path / "log", nobody)
        log.open()
        add(log)
        await log.stop()

    asyncio.run(main())
    first, second = (tmp_path / "log").read_text().splitlines()
    assert first == "half a li"
    assert LINE.fullmatch(second)


def test_a_batch_that_does_not_fit_is_dropped_whole_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, left = os.write, [0]

    def short_write(fd: int, data: bytes) -> int:
        return write(fd, data[:left[0]]) if left[0] >= 0 else write(fd, data)

    async def main() -> None:
        log = ServerLog(tmp_path / "log", nobody)
        add(log, b"/b/first")
        await log.stop()
        monkeypatch.setattr(server_log.os, "write", short_write)
        left[0] = 70
        add(log, b"/b/lost-1")
        add(log, b"/b/lost-2")
        await log.stop()
        assert log.dropped == 2
        left[0] = -1
        add(log, b"/b/last")
        await log.stop()

    asyncio.run(main())
    assert [entry["uri"] for entry in entries(tmp_path / "log")] == ["GET /b/first HTTP/1.1", "GET /b/last HTTP/1.1"]


def test_while_the_disk_hangs_lines_wait_up_to_a_limit(tmp_path: Path) -> None:
    async def main() -> None:
        log = ServerLog(tmp_path / "log", nobody)
        for _ in range(LINES_MAX + 5):
            add(log)
        assert log.dropped == 5
        await log.stop()

    asyncio.run(main())
    assert len((tmp_path / "log").read_text().splitlines()) == LINES_MAX


def test_a_pipe_is_no_log(tmp_path: Path) -> None:
    """It would hang, or end with its reader."""
    os.mkfifo(tmp_path / "log")
    reader = os.open(tmp_path / "log", os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(OSError, match="not a regular file"):
        ServerLog(tmp_path / "log", nobody).open()
    os.close(reader)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        with pytest.raises(OSError):  # noqa: PT011 - which one is the system's choice
            ServerLog(tmp_path / "socket", nobody).open()
