"""One server for all tests here, and people who are not its keepers."""

from collections.abc import Iterator
from typing import Any

import boto3
import pytest

from tests.admin.asking import done
from tests.servers import ACCESS_KEY, REGION, SECRET_KEY, StaddleProcess, serving
from tests.signing import Keys


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StaddleProcess]:
    with serving(tmp_path_factory.mktemp("admin"), settings={"workers": "2"}) as server:
        yield server


@pytest.fixture(scope="session")
def s3(server: StaddleProcess) -> Any:
    return boto3.client("s3", endpoint_url=server.endpoint, aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY,
                        region_name=REGION)


@pytest.fixture(scope="session")
def stranger(server: StaddleProcess) -> Keys:
    """A user of the store who is no admin."""
    done(server, "POST", "user/create", name="stranger")
    made = done(server, "POST", "key/create", user="stranger")
    return Keys(access_key=made["access_key"], secret_key=made["secret_key"])


@pytest.fixture(scope="session")
def former(server: StaddleProcess) -> Keys:
    """An admin who has been disabled."""
    done(server, "POST", "user/create", name="former", admin=True)
    made = done(server, "POST", "key/create", user="former")
    done(server, "POST", "user/change", name="former", disabled=True)
    return Keys(access_key=made["access_key"], secret_key=made["secret_key"])
