"""Three machines for all tests of this folder, which break them and leave them whole; and what the tests share."""

import sqlite3
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.servers import ACCESS_KEY, SECRET_KEY
from tests.talker import Talker
from tests.torture import leftovers
from tests.trio import Machine, Trio

BUCKET = "three"
POLL_S = 0.05


@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trio]:
    with Trio(tmp_path_factory.mktemp("three")) as trio:
        trio.start()
        status, answer = ask(trio.machines[0], "PUT", f"/{BUCKET}")
        assert status == 200, answer
        yield trio


@pytest.fixture
def trio(cluster: Trio) -> Iterator[Trio]:
    """All three ready, with a bucket. What a test has stopped or killed runs again after it."""
    yield cluster
    for machine in cluster.machines:
        machine.unpause()
    cluster.start()


def ask(machine: Machine, method: str, path: str, body: bytes = b"", query: str = "",
        headers: tuple[tuple[str, str], ...] = ()) -> tuple[int, bytes]:
    with Talker(machine) as talker:
        status, answer, _ = talker.ask(method, path, query, body, headers)
    return status, answer


def await_status(machine: Machine, wanted: int, method: str, path: str, body: bytes = b"", *, within_s: float) -> float:
    """Seconds until it was answered so."""
    began = time.monotonic()
    while True:
        status, answer = ask(machine, method, path, body)
        if status == wanted:
            return time.monotonic() - began
        assert time.monotonic() - began < within_s, f"{machine.name}: {method} {path} answers {status} {answer[:300]!r}"
        time.sleep(POLL_S)


def await_copies(trio: Trio, copies: int, within_s: float) -> float:
    """Seconds until every chunk has so many copies that are listed and are there. (What is listed at a disk that was wiped is
    none.)"""
    began = time.monotonic()
    while True:
        try:
            counts = leftovers.look(trio.machines[0], trio.machines[1:]).copies()
        except (sqlite3.OperationalError, FileNotFoundError):
            counts = Counter()                        # a disk that was wiped has no files yet
        short = [digest.hex()[:12] for digest, count in counts.items() if count < copies]
        if counts and not short:
            return time.monotonic() - began
        assert time.monotonic() - began < within_s, (
            f"{len(short)} of {len(counts)} chunks have fewer than {copies} copies: {short[:5]}\n{trio.logs()}")
        time.sleep(POLL_S)


def keys_for(machine: Machine) -> dict[str, str]:
    """For boto3."""
    return {"endpoint_url": machine.endpoint, "aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY,
            "region_name": "us-east-1"}
