"""The server under attack, over http and over https, and an attacker with a bucket of his own for each test."""

import contextlib
import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.folders import ROOT_ACCOUNT
from tests.attacks.attacker import LIMITED_ACCESS_KEY, LIMITED_SECRET_KEY, OTHER_ACCESS_KEY, OTHER_SECRET_KEY, Attacker
from tests.servers import StaddleProcess, serving

LIMITS = json.dumps({"Version": "2012-10-17", "Statement": {
    "Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": ["arn:aws:s3:::a-*", "arn:aws:s3:::a-*/*"]}})

CONFIGURATION = f"""
[[identity]]
name = "other"
account = "222222222222"
user_id = "other-person"
display_name = "Other"
access_key = "{OTHER_ACCESS_KEY}"
secret_key = "{OTHER_SECRET_KEY}"

[[identity]]
name = "limited"
account = "{ROOT_ACCOUNT}"
user_id = "limited-person"
display_name = "Limited"
access_key = "{LIMITED_ACCESS_KEY}"
secret_key = "{LIMITED_SECRET_KEY}"
policies = ['{LIMITS}']
"""


class Servers:
    """One server for each scheme, started when a test first asks for it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[str, StaddleProcess] = {}
        self.stack = contextlib.ExitStack()

    def get(self, scheme: str) -> StaddleProcess:
        if scheme not in self._running:
            folder = self._folder / scheme
            folder.mkdir()
            file = folder / "staddle.toml"
            file.write_text(CONFIGURATION)
            self._running[scheme] = self.stack.enter_context(serving(
                folder, tls=scheme == "https", settings={"domains": "s3.test"}, extra=("--config", str(file))))
        return self._running[scheme]


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    running = Servers(tmp_path_factory.mktemp("attacked"))
    with running.stack:
        yield running


@pytest.fixture
def scheme() -> str:
    """http, unless a test is marked `both_schemes`."""
    return "http"


@pytest.fixture
def attacker(servers: Servers, scheme: str) -> Iterator[Attacker]:
    attacker = Attacker(servers.get(scheme), f"/a-{uuid.uuid4().hex[:20]}")
    attacker.prepare()
    try:
        yield attacker
        attacker.unharmed()
    finally:
        attacker.wire.close()
