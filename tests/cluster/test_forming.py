"""One machine becomes three with tokens, serves as one store, and is restarted machine by machine without a failed request."""

import contextlib
import itertools
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import boto3
import pytest
from botocore.config import Config as BotoConfig
from botocore.exceptions import ClientError, EndpointConnectionError

from consensus.core.tls import Tls
from gateway.cluster.tokens import parse_token
from tests.servers import REGION
from tests.trio import CLUSTER_PORT, Machine, Trio

pytestmark = pytest.mark.slow
CLIENTS = 4


class Founder(Trio):
    """Machines that know nothing of each other but what a token tells, and make their keys themselves."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, count=0, secret="")
        self.own = [Own(self, number) for number in range(3)]
        self.machines += self.own
        self.tokens: list[str] = []

    def peers_of(self, machine: Machine) -> list[Machine]:
        return []

    def form(self) -> Self:
        """The first machine begins, has an object, and lets the others in."""
        first, *others = self.own
        assert first.staddle("init", "--data", str(first.data[0])).returncode == 0
        first.start()
        store = first.client()
        store.create_bucket(Bucket="before")
        store.put_object(Bucket="before", Key="k", Body=b"written by one machine")
        self.tokens = [first.asked("cluster", "token")["token"] for _ in others]
        for machine, token in zip(others, self.tokens, strict=True):
            done = machine.staddle("join", token, "--data", str(machine.data[0]), "--prepare-only")
            assert done.returncode == 0, done.stderr
            machine.start(wait=False)
        self.wait_ready()
        return self


class Own(Machine):
    def environment(self) -> dict[str, str]:
        return {name: value for name, value in super().environment().items() if not name.startswith("STADDLE_ROOT_")}

    def staddle(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """The command line on this machine."""
        return subprocess.run([sys.executable, "-P", "-m", "gateway.cli", *words], env=self.environment(), cwd=self.folder,
                              capture_output=True, text=True, timeout=60, check=False)

    def asked(self, *words: str) -> Any:
        done = self.staddle(*words, "--json", "--endpoint", self.endpoint, "--data", str(self.data[0]))
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def client(self, access_key: str = "", secret_key: str = "") -> Any:
        root = tomllib.loads((self.data[0] / "root-key").read_text())
        return boto3.client(
            "s3", endpoint_url=self.endpoint, aws_access_key_id=access_key or root["access_key"],
            aws_secret_access_key=secret_key or root["secret_key"], region_name=REGION,
            config=BotoConfig(retries={"mode": "standard"}, connect_timeout=2))


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Founder]:
    with Founder(tmp_path_factory.mktemp("forming")) as trio:
        yield trio.form()


def test_machines_join_with_a_token_that_is_good_once(trio: Founder) -> None:
    (first, second, third), tokens = trio.own, trio.tokens
    stranger = first.staddle("join", tokens[0], "--data", str(trio.folder / "stranger"), "--name", "n9", "--prepare-only",
                             "--cluster-listen", "127.0.0.1:20999")
    assert stranger.returncode == 1
    assert "this token has been used" in stranger.stderr
    listed = {token["id"]: token["used_by"] for token in first.asked("cluster", "tokens")}
    assert listed == {parse_token(tokens[0]).id.hex(): "n2", parse_token(tokens[1]).id.hex(): "n3"}
    for machine in (second, third):
        assert machine.client().get_object(Bucket="before", Key="k")["Body"].read() == b"written by one machine"
    until(lambda: all(member["voter"] for member in third.asked("cluster", "status")["members"]))
    assert {member["name"] for member in third.asked("cluster", "status")["members"]} == {"n1", "n2", "n3"}


@pytest.mark.parametrize("port", [0, 1, 100, 101], ids=["meta", "node", "door", "gateway"])
def test_strangers_get_nothing_at_any_port(trio: Founder, port: int) -> None:
    """With TLS and no certificate, or one of another cluster. The door shows its authority's to whoever comes, and no more."""
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    own.check_hostname, own.verify_mode = False, ssl.CERT_NONE
    other = Tls(b"x" * 32, "n1/meta").client
    other.verify_mode = ssl.CERT_NONE
    first = trio.own[0]
    for context in (own, other):
        got = b""
        with contextlib.suppress(OSError), socket.create_connection((first.host, CLUSTER_PORT + port), timeout=20) as plain, \
                context.wrap_socket(plain) as sock:
            sock.sendall(b"\0" * 4096)
            while piece := sock.recv(65536):
                got += piece
        assert (b"staddle cluster" in got) == (port == 100 and context is own)
        secrets = [(first.data[0] / name).read_text().strip() for name in ("secret", "root-key")]
        assert not [secret for secret in secrets if secret.encode() in got]
        assert len(got) < 1000


def test_a_change_of_users_is_in_force_on_all_machines_when_it_is_answered(trio: Founder) -> None:
    first, _, third = trio.own
    key = first.asked("user", "create", "carol")["key"]
    carol = third.client(key["access_key"], key["secret_key"])
    carol.list_buckets()
    first.asked("key", "disable", key["access_key"])
    with pytest.raises(ClientError, match="InvalidAccessKeyId"):
        carol.list_buckets()


def test_a_rolling_restart_fails_no_request(trio: Founder) -> None:
    """Clients do what a load balancer does: where nobody listens, they go to the next machine."""
    stopping, failed, done = threading.Event(), [], itertools.count()
    clients = [machine.client() for machine in trio.own]
    clients[0].create_bucket(Bucket="rolling")

    def call(number: int, act: Callable[[Any], Any]) -> Any:
        for client in itertools.islice(itertools.cycle(clients), number % 3, None):
            try:
                return act(client)
            except EndpointConnectionError:
                continue

    def work(number: int) -> None:
        for count in itertools.count():
            if stopping.is_set():
                return
            key, body = f"{number}/{count % 20}", f"{number} {count}".encode() * 50
            try:
                call(number + count, lambda client: client.put_object(Bucket="rolling", Key=key, Body=body))  # noqa: B023
                read = call(number + count + 1, lambda client: client.get_object(Bucket="rolling", Key=key)["Body"].read())  # noqa: B023
                assert read == body
            except Exception as error:
                failed.append((time.monotonic() - began, number, count, repr(error)))
            next(done)

    began = time.monotonic()
    threads = [threading.Thread(target=work, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        for machine in trio.own:
            machine.stop()
            machine.start()
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
    assert not failed, (failed[:5], trio.logs(15))
    assert next(done) > 50


def until(holds: Callable[[], bool], timeout_s: float = 20.0) -> None:
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.1)
