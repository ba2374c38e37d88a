"""One suite of boto3 tests, and the kinds of server it runs against.

`s3` is a client of the in-process server: where a rule is tested once. `any_s3` is a client in each style of boto3
against each kind of server (one thread, `staddle serve` over http and https) and against moto, the second opinion:
where what matters is that all of them behave alike. Every test gets buckets of its own, so servers live for the whole
session.

With STADDLE_TEST_THREE=1 (`make three`) the server is three machines, and every request goes to the next one; a test
that looks inside the server is left out.
"""

import contextlib
import itertools
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.client import BaseClient
from botocore.config import Config

from gateway.identities import Identity
from gateway.ops.context import Settings
from tests.s3.in_process import InProcess
from tests.servers import ACCESS_KEY, REGION, SECRET_KEY, StaddleProcess
from tests.spread import Spread, take_turns, three

MIB = 1 << 20

MAIN = Identity(
    name="main", account="111111111111", user_id="main-id", display_name="M. Ain", access_key=ACCESS_KEY,
    secret_key=SECRET_KEY,
)
OTHER = Identity(
    name="other", account="222222222222", user_id="other-id", display_name="O. Ther", access_key="OTHERACCESSKEY",
    secret_key="other/secret",
)

SETTINGS = Settings(chunk_bytes=MIB)
"""Small chunks, so that objects of a few MiB have several."""

STYLES: dict[str, dict[str, Any]] = {
    "default": {"s3": {"addressing_style": "path"}},
    "when-required": {
        "s3": {"addressing_style": "path"},
        "request_checksum_calculation": "when_required", "response_checksum_validation": "when_required",
    },
    "virtual": {"s3": {"addressing_style": "virtual"}},
    "presigned-v2": {"s3": {"addressing_style": "path"}, "signature_version": "s3"},
}

KINDS = ("in-process",) if os.environ.get("STADDLE_TEST_THREE") else ("in-process", "stock-http", "http", "https", "moto")

_bucket_numbers = itertools.count(1)


@pytest.fixture(scope="session", autouse=True)
def _loopback_names() -> Iterator[None]:
    """bucket.localhost is this machine; not every resolver knows."""
    resolve = socket.getaddrinfo

    def resolved(host: Any, *rest: Any, **named: Any) -> Any:
        return resolve("127.0.0.1" if isinstance(host, str) and host.endswith("localhost") else host, *rest, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", resolved)
        yield


THREE = bool(os.environ.get("STADDLE_TEST_THREE"))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess | Spread]:
    folder = tmp_path_factory.mktemp("staddle")
    if THREE:
        with three(folder, identities=[MAIN, OTHER], settings={
                "chunk_bytes": str(MIB), "domains": "localhost", "website_domains": "s3-website.localhost",
                "website_hosts": "example.org"}) as spread:
            yield spread
        return
    with InProcess(folder, [MAIN, OTHER], settings=SETTINGS, domains=("localhost",)) as running:
        yield running


class Servers:
    """Starts each kind of server when it is first asked for."""

    def __init__(self, folder: Path, in_process: InProcess | Spread) -> None:
        self._folder, self._in_process = folder, in_process
        self._endpoints: dict[str, tuple[str, Path | None]] = {}
        self.stack = contextlib.ExitStack()

    def endpoint(self, kind: str) -> tuple[str, Path | None]:
        """Address, and the certificate to trust."""
        if kind not in self._endpoints:
            self._endpoints[kind] = self._start(kind)
        return self._endpoints[kind]

    def _start(self, kind: str) -> tuple[str, Path | None]:
        match kind:
            case "in-process":
                return self._in_process.endpoint.replace("127.0.0.1", "localhost"), None
            case "stock-http":
                folder = self._folder / kind
                folder.mkdir()
                stock = self.stack.enter_context(InProcess(
                    folder, [MAIN, OTHER], settings=SETTINGS, domains=("localhost",), stock=True, nodes=2
                ))
                return stock.endpoint.replace("127.0.0.1", "localhost"), None
            case "moto":
                from moto.server import ThreadedMotoServer

                moto = ThreadedMotoServer(port=0, verbose=False)
                moto.start()
                self.stack.callback(moto.stop)
                return f"http://localhost:{moto.get_host_and_port()[1]}", None
            case _:
                process = StaddleProcess(
                    self._folder / kind, tls=kind == "https", settings={"domains": "localhost", "chunk_bytes": str(MIB)}
                )
                self.stack.callback(process.kill_all)
                process.start()
                certificate = process.certificate.certificate if process.certificate is not None else None
                return process.endpoint.replace("127.0.0.1", "localhost"), certificate


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory, server: InProcess | Spread) -> Iterator[Servers]:
    running = Servers(tmp_path_factory.mktemp("kinds"), server)
    with running.stack:
        yield running


def client(
    endpoint: str, identity: Identity = MAIN, *, style: str = "default", certificate: Path | None = None,
    attempts: int = 1, turns: Iterable[tuple[str, int]] = (),
) -> BaseClient:
    """Without retries, so that every error is seen. `turns`: gateways, of which each request goes to the next."""
    made = boto3.client(
        "s3", endpoint_url=endpoint, region_name=REGION, aws_access_key_id=identity.access_key,
        aws_secret_access_key=identity.secret_key, verify=str(certificate) if certificate else None,
        config=Config(retries={"total_max_attempts": attempts}, read_timeout=30, **STYLES[style]),
    )
    return take_turns(made, turns) if turns else made


@pytest.fixture(scope="session")
def s3(server: InProcess | Spread) -> BaseClient:
    return client(server.endpoint, turns=_turns(server))


@pytest.fixture(scope="session")
def other_s3(server: InProcess | Spread) -> BaseClient:
    """Of another account."""
    return client(server.endpoint, OTHER, turns=_turns(server))


def _turns(server: InProcess | Spread) -> list[tuple[str, int]]:
    return server.targets if isinstance(server, Spread) else []


# moto takes some of version 2's signatures for a scope of version 4, by chance of their characters, and answers 500.
@pytest.fixture(params=[f"{kind}/{style}" for kind in KINDS for style in STYLES if (kind, style) != ("moto", "presigned-v2")])
def any_s3(request: pytest.FixtureRequest, servers: Servers) -> BaseClient:
    kind, _, style = request.param.partition("/")
    endpoint, certificate = servers.endpoint(kind)
    # moto's server, a development one, fails now and then when the machine is busy.
    return client(endpoint, style=style, certificate=certificate, attempts=4 if kind == "moto" else 1)


@pytest.fixture
def new_bucket_name() -> Callable[[], str]:
    return lambda: f"bucket-{next(_bucket_numbers):06}"


@pytest.fixture
def bucket(s3: BaseClient, new_bucket_name: Callable[[], str]) -> str:
    name = new_bucket_name()
    s3.create_bucket(Bucket=name)
    return name


@pytest.fixture
def raw_get(s3: BaseClient) -> Callable[[str], bytes]:
    """A signed GET of a target as it is written, and the body of whatever is answered: what boto3 would hide."""
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    def get(target: str) -> bytes:
        unsigned = {"x-amz-content-sha256": "UNSIGNED-PAYLOAD"}
        request = AWSRequest(method="GET", url=s3.meta.endpoint_url + target, headers=unsigned)
        S3SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), "s3", REGION).add_auth(request)
        return bytes(s3._endpoint.http_session.send(request.prepare()).content)

    return get
