"""The command line, run in this process: starting Python for each command would take most of the time."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner

from gateway.cli import app
from tests.servers import ACCESS_KEY, SECRET_KEY, StaddleProcess


class Ran(NamedTuple):
    status: int
    out: str
    err: str
    raw: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def sentence(self) -> str:
        """The one line that a failed command says."""
        (line,) = self.err.splitlines()
        assert line.startswith("staddle: "), line
        return line.removeprefix("staddle: ")


class Staddle:
    """`staddle …` with the root key of a server, unless the environment says otherwise."""

    def __init__(self, endpoint: str) -> None:
        self.environment: dict[str, str | None] = {
            "STADDLE_ENDPOINT": endpoint, "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": None, "AWS_DEFAULT_REGION": None, "AWS_CA_BUNDLE": None, "STADDLE_CONFIG": None, "COLUMNS": "200"}

    def __call__(self, *arguments: str, input: bytes | str | None = None, **environment: str | None) -> Ran:
        """`environment`: other variables, None to unset one."""
        ran = CliRunner().invoke(app, list(arguments), input=input, env=self.environment | environment)
        if ran.exception is not None and not isinstance(ran.exception, SystemExit):
            raise ran.exception
        return Ran(ran.exit_code, ran.stdout, ran.stderr, ran.stdout_bytes)

    def done(self, *arguments: str, **more: Any) -> Ran:
        ran = self(*arguments, **more)
        assert ran.status == 0, ran
        assert not ran.err, ran
        return ran

    def json(self, *arguments: str, **more: Any) -> Any:
        return self.done(*arguments, "--json", **more).json

    def refused(self, *arguments: str, status: int = 1, **more: Any) -> str:
        ran = self(*arguments, **more)
        assert ran.status == status, ran
        assert not ran.out, ran
        return ran.sentence


@pytest.fixture(scope="session")
def staddle(server: StaddleProcess) -> Staddle:
    return Staddle(server.endpoint)


def keys(made: Mapping[str, Any]) -> dict[str, str]:
    """The environment of somebody with this new key."""
    return {"AWS_ACCESS_KEY_ID": made["access_key"], "AWS_SECRET_ACCESS_KEY": made["secret_key"]}
