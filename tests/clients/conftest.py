"""One server over http and one over https for all clients of a pytest process, and a fresh bucket name for each test.

STADDLE_TEST_ENDPOINT (with STADDLE_TEST_ACCESS_KEY, STADDLE_TEST_SECRET_KEY) points the tests at a server that runs
already, for a second opinion about a test; STADDLE_BIG=1 makes the big file 1 GiB. STADDLE_TEST_THREE=1 (`make three`)
makes the server three machines, of which each connection reaches the next.

The tests of `every/` run only where that folder is named (`make clients`): their clients take minutes to install.
"""

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clients.shell import Shell, Target, random_file, small_files
from tests.servers import ACCESS_KEY, REGION, SECRET_KEY, serving
from tests.spread import three

BIG_BYTES = (1 << 30) if os.environ.get("STADDLE_BIG") else (64 << 20)
SMALL_COUNT = 1000


EVERY = Path(__file__).parent / "every"

EVERY_TIMEOUT_S = 600
"""A backup with PostgreSQL takes a minute on an idle machine. Each program that is run has a limit of its own."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.clients)
        if EVERY in item.path.parents:
            item.add_marker(pytest.mark.timeout(EVERY_TIMEOUT_S))
    named = [config.invocation_params.dir / argument.split("::")[0] for argument in config.args]
    if not any(EVERY in (path.resolve(), *path.resolve().parents) for path in named):
        items[:] = [item for item in items if EVERY not in item.path.parents]


@pytest.fixture(scope="session", params=["http", "https"])
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    elsewhere = os.environ.get("STADDLE_TEST_ENDPOINT")
    if elsewhere:
        if not elsewhere.startswith(request.param + ":"):
            pytest.skip("the server under test speaks the other scheme")
        yield Target(url=elsewhere, access_key=os.environ.get("STADDLE_TEST_ACCESS_KEY", ACCESS_KEY),
                     secret_key=os.environ.get("STADDLE_TEST_SECRET_KEY", SECRET_KEY))
        return
    if os.environ.get("STADDLE_TEST_THREE"):
        with three(tmp_path_factory.mktemp(request.param), tls=request.param == "https") as spread:
            yield Target(url=spread.endpoint, access_key=ACCESS_KEY, secret_key=SECRET_KEY, region=REGION,
                         ca=spread.certificate)
        return
    with serving(tmp_path_factory.mktemp(request.param), tls=request.param == "https") as server:
        yield Target(url=server.endpoint, access_key=ACCESS_KEY, secret_key=SECRET_KEY, region=REGION,
                     ca=server.certificate.certificate if server.certificate else None)


@pytest.fixture
def shell(target: Target, tmp_path: Path) -> Shell:
    return Shell(target, tmp_path / "home")


@pytest.fixture
def bucket() -> str:
    """A name that no other test uses. The test makes the bucket, with the client that it is about."""
    return f"t-{uuid.uuid4().hex[:20]}"


@pytest.fixture(scope="session")
def big_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_file(tmp_path_factory.mktemp("big") / "big.bin", BIG_BYTES)


@pytest.fixture(scope="session")
def many_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a thousand small files. Not to be changed."""
    return small_files(tmp_path_factory.mktemp("many"), SMALL_COUNT)


@pytest.fixture
def few_files(tmp_path: Path) -> Callable[[int], Path]:
    """Makes a folder with so many small files, the test's own to change."""
    return lambda count: small_files(tmp_path / "few", count)
