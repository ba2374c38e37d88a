"""Metrics of a whole machine: what was done is what is counted, whichever worker is asked; nothing secret, nothing unbounded."""

import asyncio
import http.client
import os
import re
import signal
import socket
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import boto3
import msgspec
import pytest
import uvloop
from botocore.config import Config as BotoConfig
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from consensus.core.errors import Unavailable
from gateway import peers as peers_module
from gateway.config import Config
from gateway.lifecycle.progress import Counts
from gateway.metrics import families
from gateway.metrics.counters import BOUNDS_S, STATUSES, Counters, Figures
from gateway.metrics.processes import figures_of, listener_of
from gateway.peers import Peers, PeerServer
from gateway.s3.errors import CODES
from gateway.s3.operations import OPERATION
from tests.processes import read
from tests.servers import ACCESS_KEY, REGION, SECRET_KEY, StaddleProcess, free_port, serving
from tests.signing import Keys, sign_request

TOKEN = "a-token-for-prometheus"
SECRET = b"p" * 32
BUCKET = "a-bucket-with-a-name"
KEY = "a-key-that-is-nobodys-business"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StaddleProcess]:
    settings = {"workers": "3", "metrics_token": TOKEN, "metrics_listen": f"127.0.0.1:{free_port()}"}
    with serving(tmp_path_factory.mktemp("metrics"), settings=settings) as running:
        yield running


def scrape(server: StaddleProcess, headers: dict[str, str], path: str = "/-/metrics") -> tuple[int, str, str]:
    """Status, content type, text; over a new connection, so any worker may answer."""
    connection = server.connect()
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers.get("content-type", ""), answer.read().decode()
    finally:
        connection.close()


def values(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in parse_text(text) for sample in family.samples}


def total(text: str, name: str, **labels: str) -> float:
    """Over all workers."""
    return sum(value for (found, given), value in values(text).items()
               if found == name and labels.items() <= dict(given).items())


def bearer(token: str = TOKEN) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def test_counters_are_what_was_done_whichever_worker_is_asked(server: StaddleProcess) -> None:
    def client() -> Any:
        return boto3.client("s3", endpoint_url=server.endpoint, region_name=REGION, aws_access_key_id=ACCESS_KEY,
                            aws_secret_access_key=SECRET_KEY, config=BotoConfig(retries={"total_max_attempts": 1}))

    clients = [client() for _ in range(4)]         # each its own connection, so several workers have a part
    clients[0].create_bucket(Bucket=BUCKET)
    for number in range(100):
        clients[number % 4].put_object(Bucket=BUCKET, Key=f"{KEY}/{number}", Body=b"x" * 1000)
    for number in range(50):
        assert len(clients[number % 4].get_object(Bucket=BUCKET, Key=f"{KEY}/{number}")["Body"].read()) == 1000
    for number in range(3):
        with pytest.raises(clients[0].exceptions.NoSuchKey):
            clients[number].get_object(Bucket=BUCKET, Key="none")
    stranger = boto3.client("s3", endpoint_url=server.endpoint, region_name=REGION, aws_access_key_id=ACCESS_KEY,
                            aws_secret_access_key="wrong", config=BotoConfig(retries={"total_max_attempts": 1}))
    with pytest.raises(stranger.exceptions.ClientError, match="SignatureDoesNotMatch"):
        stranger.list_buckets()

    pages = [scrape(server, bearer())[2] for _ in range(6)]
    for text in pages:
        assert total(text, "staddle_requests_total", operation="PutObject", status="2xx") == 100
        assert total(text, "staddle_requests_total", operation="GetObject", status="2xx") == 50
        assert total(text, "staddle_requests_total", operation="GetObject", status="4xx") == 3
        assert total(text, "staddle_errors_total", code="NoSuchKey") == 3
        assert total(text, "staddle_authentication_failures_total") == 1
        assert total(text, "staddle_requests_total", operation="none", status="4xx") == 1
        assert total(text, "staddle_request_seconds_count", group="write") == 100
        assert total(text, "staddle_request_seconds_bucket", group="write", le="+Inf") == 100
        assert total(text, "staddle_received_bytes_total") >= 100 * 1000
        assert total(text, "staddle_sent_bytes_total") >= 50 * 1000
        assert total(text, "staddle_commit_seconds_count") >= 101, "sessions are commands too"
        assert total(text, "staddle_objects") == 100
        assert total(text, "staddle_object_bytes") == 100 * 1000
        assert total(text, "staddle_node_puts_total") == 100
        assert {dict(labels)["source"]: value for (name, labels), value in values(text).items() if name == "staddle_up"}.keys() \
            >= {"metadata", "gateway-1", "gateway-2", "gateway-3"}
        assert total(text, "staddle_up") == 5
        assert total(text, "staddle_metadata_fsyncs_total") > 0
        assert total(text, "staddle_process_resident_memory_bytes", process="meta") > 10 << 20
    sums = [sum(value for (name, _), value in values(text).items() if name.endswith(("_total", "_count"))) for text in pages]
    assert sums == sorted(sums), "counters ran backwards from one worker's page to another's"


def test_no_label_can_be_chosen_by_a_client_and_no_secret_shows(server: StaddleProcess) -> None:
    connection = server.connect()
    connection.request("PATCHY", f"/{BUCKET}-x?secret={SECRET_KEY}", headers={"user-agent": SECRET_KEY})
    connection.getresponse().read()
    connection.close()
    _, _, text = scrape(server, bearer())
    secret = (server.data[0] / "secret").read_text().strip()
    for hidden in (BUCKET, KEY, SECRET_KEY, ACCESS_KEY, TOKEN, secret):
        assert hidden not in text
    allowed = {
        "worker": re.compile(r"gateway-[123]"), "operation": set(OPERATION) | {"none"}, "status": set(STATUSES),
        "code": set(CODES), "group": re.compile(r"[a-z]+"), "le": {*map(str, BOUNDS_S), "+Inf"},
        "node": re.compile(r"n[0-9a-f]{8}"), "process": re.compile(r"(meta|node|gateway)(-\d+)?"),
        "duty": {"lifecycle", "events", "logging"}, "result": {"done", "trouble"},
        "what": {"lingering", "held", "staged", "uploads", *Counts.__struct_fields__},
        "state": {"off", "idle", "running", "trouble"},
        "source": re.compile(r"metadata|gateway-\d|node n[0-9a-f]{8}"), "version": re.compile(r"[0-9.]+"),
    }
    for (name, labels), _ in values(text).items():
        for label, value in labels:
            known = allowed[label]
            assert known.fullmatch(value) if isinstance(known, re.Pattern) else value in known, (name, label, value)


def test_each_name_follows_the_conventions_and_is_in_the_table(server: StaddleProcess) -> None:
    _, content_type, text = scrape(server, bearer())
    assert content_type.startswith("text/plain")
    known = {family.name: family for family in families.every_family()}
    for family in parse_text(text):
        row = known[family.name]
        assert family.type == row.kind
        assert family.documentation == row.about
        assert re.fullmatch(r"staddle_[a-z][a-z0-9_]*", family.name)
        assert not re.search(r"_(ms|kb|mb|milliseconds)\b", family.name), "base units are seconds and bytes"
    _, content_type, text = scrape(server, bearer() | {"accept": "application/openmetrics-text; version=1.0.0"})
    assert content_type.startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")
    assert {family.name for family in parse_openmetrics(text)} <= set(known)


def test_only_an_admin_or_the_token_reads_metrics(server: StaddleProcess) -> None:
    for headers in ({}, bearer("wrong-token-but-long"), bearer(TOKEN[:-1]), bearer(TOKEN + "x"), bearer(""),
                    {"authorization": f"Basic {TOKEN}"}, {"authorization": TOKEN}, {"authorization": "Bearer \xff"},
                    sign(server, Keys(access_key=ACCESS_KEY, secret_key="wrong")),
                    sign(server, Keys(access_key="NOBODY", secret_key=SECRET_KEY))):
        status, _, text = scrape(server, headers)
        assert status == 403, headers
        assert "staddle_" not in text
    assert scrape(server, bearer())[0] == 200
    assert scrape(server, sign(server, Keys(access_key=ACCESS_KEY, secret_key=SECRET_KEY)))[0] == 200


def sign(server: StaddleProcess, keys: Keys) -> dict[str, str]:
    return sign_request("GET", f"{server.endpoint}/-/metrics", {}, keys=keys, now_s=time.time(), payload="UNSIGNED-PAYLOAD")


def test_an_identity_that_is_no_admin_is_refused(tmp_path: Path) -> None:
    """Also: without the setting there is no token that opens, not even an empty one."""
    file = tmp_path / "staddle.toml"
    file.write_text('[[identity]]\nname = "u"\naccount = "1"\nuser_id = "u"\naccess_key = "USER"\nsecret_key = "user/secret"\n')
    with serving(tmp_path / "server", extra=("--config", str(file)), settings={"workers": "1"}) as server:
        status, _, text = scrape(server, sign(server, Keys(access_key="USER", secret_key="user/secret")))
        assert (status, "not an admin" in text) == (403, True)
        for token in ("", "None", "none"):
            assert scrape(server, bearer(token))[0] == 403


def test_the_open_listener_has_the_page_and_nothing_else(server: StaddleProcess) -> None:
    host, port = server._settings["metrics_listen"].split(":")

    def get(path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(host, int(port), timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    for path in ("/metrics", "/-/metrics"):
        status, text = get(path)
        assert status == 200
        assert b"staddle_up" in text
    for path in ("/", f"/{BUCKET}", "/-/health/ready", "/-/admin/user/list"):
        assert get(path)[0] == 404


def test_a_worker_that_is_stopped_or_dead_does_not_silence_the_others(server: StaddleProcess) -> None:
    pids = server.roles()["gateway"]
    victim = pids[0]
    os.kill(victim, signal.SIGSTOP)
    try:
        text = next(page for page in (one_page(server) for _ in range(12)) if page is not None)
        assert total(text, "staddle_up") == 4
    finally:
        os.kill(victim, signal.SIGCONT)
    os.kill(victim, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while True:
        text = one_page(server)
        if text is not None and total(text, "staddle_up") == 5 and read(victim) is None:
            break
        assert time.monotonic() < deadline, "the worker did not come back"


def one_page(server: StaddleProcess) -> str | None:
    """None if the connection went to a worker that does not answer."""
    connection = http.client.HTTPConnection(*server.address, timeout=2.5)      # more than a peer gets
    try:
        connection.request("GET", "/-/metrics", headers=bearer())
        return connection.getresponse().read().decode()
    except OSError:
        return None
    finally:
        connection.close()


# The workers, for each other


class Worker:
    def __init__(self, run: Path, number: int) -> None:
        self.reloads = 0
        self.fails = False
        self.server = PeerServer(f"unix:{run}/gateway-{number}.sock", SECRET, figures=self.figures, reload=self.reload)
        self.number = number

    def figures(self) -> bytes:
        return msgspec.msgpack.encode(self.number)

    async def reload(self) -> None:
        if self.fails:
            raise Unavailable("the metadata member does not answer")
        self.reloads += 1


def test_reload_reaches_every_worker_and_passes_over_dead_ones(tmp_path: Path) -> None:
    async def main() -> None:
        workers.extend(Worker(tmp_path, number) for number in (1, 2, 3))
        for worker in workers:
            await worker.server.start()
        peers = Peers(tmp_path, SECRET)
        await peers.reload()
        assert [worker.reloads for worker in workers] == [1, 1, 1]
        await workers[1].server.stop()                                   # its socket file stays, as after kill -9
        assert (tmp_path / "gateway-2.sock").exists()
        await peers.reload()
        assert [worker.reloads for worker in workers] == [2, 1, 2]
        assert {name: msgspec.msgpack.decode(raw) for name, raw in (await peers.figures()).items()} \
            == {"gateway-1": 1, "gateway-3": 3}
        workers[2].fails = True
        with pytest.raises(Unavailable, match=r"gateway-3 \(the metadata member does not answer\)"):
            await peers.reload()
        assert workers[0].reloads == 3, "one that fails must not keep the others from it"

    workers: list[Worker] = []
    uvloop.run(stopping(main(), workers))


async def stopping(work: Coroutine[None, None, None], workers: list[Worker]) -> None:
    """uvloop waits for what still listens, whatever has gone wrong."""
    try:
        await work
    finally:
        for worker in workers:
            await worker.server.stop()


def test_a_worker_that_is_stuck_is_not_taken_for_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what was revoked would go on being valid there, and nobody would know."""
    monkeypatch.setattr(peers_module, "RELOAD_TIMEOUT_S", 0.2)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as deaf:
        deaf.bind(str(tmp_path / "gateway-1.sock"))
        deaf.listen(0)
        for run in (asyncio.run, uvloop.run, uvloop.run, asyncio.run):   # what has come before fills its backlog
            with pytest.raises(Unavailable, match="gateway-1"):
                run(Peers(tmp_path, SECRET).reload())
    asyncio.run(Peers(tmp_path, SECRET, ["gateway-1", "gateway-2"]).reload())


def test_a_stranger_is_not_answered(tmp_path: Path) -> None:
    async def main() -> None:
        worker = Worker(tmp_path, 1)
        await worker.server.start()
        stranger = Peers(tmp_path, b"x" * 32)
        assert await stranger.figures() == {}
        with pytest.raises(Unavailable):
            await stranger.reload()
        assert worker.reloads == 0
        await worker.server.stop()

    asyncio.run(main())


# Parts


def test_latencies_fall_into_the_bucket_that_bounds_them() -> None:
    counters = Counters()
    for seconds in (0.0, 0.0005, 0.00050001, 60.0, 61.0):
        counters.served("GetObject", 200, seconds, 1, 2)
    figures = counters.figures()
    latency = figures.latency["read"].counts
    assert (latency[0], latency[1], latency[-2], latency[-1]) == (2, 1, 1, 1)
    assert (figures.received_bytes, figures.sent_bytes) == (5, 10)


@pytest.mark.parametrize(("status", "shown"), [
    (200, "2xx"), (304, "3xx"), (404, "4xx"), (503, "5xx"), (499, "gone"), (0, "gone")])
def test_every_status_has_its_class(status: int, shown: str) -> None:
    counters = Counters()
    counters.served("PutObject", status, 0.1, 0, 0)
    assert dict(zip(STATUSES, counters.figures().requests["PutObject"], strict=True))[shown] == 1


def test_figures_survive_the_wire_between_workers() -> None:
    counters = Counters()
    counters.served("", 403, 0.1, 0, 0)
    counters.refused("AccessDenied", unauthenticated=True)
    figures = counters.figures(in_flight=3)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(figures), type=Figures) == figures


def test_the_system_tells_of_a_process_what_is_true() -> None:
    mine = figures_of(os.getpid())
    assert mine is not None
    assert mine.resident_bytes > 10 << 20
    assert 0 < time.time() - mine.started_s < 86_400
    assert figures_of(2**22 + 1) is None
    assert listener_of("unix:/nowhere/at-all.sock") is None


@pytest.mark.parametrize(("setting", "value"), [
    ("metrics_token", "short"), ("metrics_token", "with a blank in it, long"), ("metrics_listen", "127.0.0.1:0"),
    ("metrics_listen", "9000")])
def test_settings_that_would_be_unsafe_or_useless_are_refused(setting: str, value: str) -> None:
    with pytest.raises(ValueError, match=setting):
        Config(**{setting: value})
