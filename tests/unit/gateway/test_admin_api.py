"""The door of the admin API with endpoints made for the purpose: long work, faults, and clients that leave."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest

from consensus.core.errors import Corrupt, NoSpace, Unavailable, UnknownOutcome
from gateway.admin import api
from gateway.admin.api import AdminApi
from gateway.admin.context import AdminContext, AdminServices, Progress
from gateway.admin.endpoints import ENDPOINTS
from gateway.admin.errors import AdminError
from gateway.admin.table import PREFIX, Download, Endpoint
from gateway.admin.values import Done, Nothing
from gateway.auth import Settings
from gateway.config import Config
from gateway.identities import Identity, IdentityStore
from gateway.ops.context import Services
from tests.signing import Keys, sign_request

KEYS = Keys()
NOW_MS = 1_700_000_000_000


class Clock:
    def now_ms(self) -> int:
        return NOW_MS


class Connection:
    """What the server tells of the client's connection."""

    def __init__(self) -> None:
        self.gone = self.aborted = False

    def abort(self) -> None:
        self.aborted = True


def services() -> AdminServices:
    admin = Identity(name="keeper", account="1", user_id="u", access_key=KEYS.access_key, secret_key=KEYS.secret_key, admin=True)
    inner = Services(metadata=cast(Any, None), replicas=cast(Any, None), clock=cast(Any, Clock()), settings=cast(Any, None),
                     identities=IdentityStore([admin]))
    return AdminServices(services=inner, auth=Settings(), config=Config())


class Asked:
    """One signed POST without fields, and what came back."""

    def __init__(self, endpoint: Callable[..., Any]) -> None:
        self.connection = Connection()
        self.messages: list[dict[str, Any]] = []
        self.said = asyncio.Event()
        self._app = AdminApi(services(), [Endpoint("POST", "it", endpoint)])

    async def run(self) -> "Asked":
        headers = sign_request("POST", f"http://host{PREFIX}it", {"host": "host"}, keys=KEYS, now_s=NOW_MS / 1000)
        scope = {
            "type": "http", "method": "POST", "scheme": "http", "raw_path": f"{PREFIX}it".encode(), "query_string": b"",
            "client": ("127.0.0.1", 1), "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "staddle.exchange": self.connection,
        }

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            self.messages.append(dict(message))
            self.said.set()

        await self._app(scope, receive, send)
        return self

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.messages[1:])

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.body.splitlines()]

    @property
    def whole(self) -> bool:
        return not self.messages[-1].get("more_body", False)


def ask(endpoint: Callable[..., Any]) -> Asked:
    async def asked() -> Asked:
        return await Asked(endpoint).run()

    return asyncio.run(asked())


@pytest.mark.parametrize(("fault", "status", "code"), [
    (NoSpace("full"), 503, "NoSpace"), (Unavailable("away"), 503, "Unavailable"), (UnknownOutcome("lost"), 500, "UnknownOutcome"),
    (Corrupt("rotten"), 500, "Damaged"), (AdminError("NoSuchUser", "no"), 404, "NoSuchUser"),
    (KeyError("secret"), 500, "InternalError"),
])
def test_every_fault_is_an_answer_in_json(fault: Exception, status: int, code: str) -> None:
    async def plain(ctx: AdminContext, asked: Nothing) -> Done:
        raise fault

    async def long(ctx: AdminContext, asked: Nothing, progress: Progress) -> Done:
        raise fault

    for endpoint in (plain, long):
        answer = ask(endpoint)
        assert (answer.status, answer.lines[0]["code"]) == (status, code)
        assert b"secret" not in answer.body
        assert answer.whole


def test_long_work_says_how_far_it_is_and_ends_with_its_result() -> None:
    async def count(ctx: AdminContext, asked: Nothing, progress: Progress) -> Done:
        progress({"done": 1, "of": 2})
        await asyncio.sleep(0.01)
        return Done()

    answer = ask(count)
    assert answer.lines == [{"progress": {"done": 1, "of": 2}}, {"result": {}}]
    assert answer.whole


def test_long_work_that_fails_in_the_middle_says_so_in_its_last_line() -> None:
    async def fail(ctx: AdminContext, asked: Nothing, progress: Progress) -> Done:
        progress({"done": 1})
        await asyncio.sleep(0.01)
        raise Unavailable("the disk is away")

    answer = ask(fail)
    assert answer.status == 200
    assert answer.lines[-1]["error"]["code"] == "Unavailable"
    assert answer.lines[-1]["error"]["request_id"]
    assert answer.whole


def test_silent_work_is_heard_of_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "HEARTBEAT_S", 0.01)
    monkeypatch.setattr(api, "PROGRESS_S", 0.001)

    async def silent(ctx: AdminContext, asked: Nothing, progress: Progress) -> Done:
        await asyncio.sleep(0.1)
        return Done()

    lines = ask(silent).lines
    assert lines[0] == {"progress": {}}
    assert lines[-1] == {"result": {}}
    assert len(lines) > 3


def test_work_is_given_up_when_the_client_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "HEARTBEAT_S", 0.01)
    monkeypatch.setattr(api, "PROGRESS_S", 0.001)
    ended = asyncio.Event()

    async def endless(ctx: AdminContext, asked: Nothing, progress: Progress) -> Done:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return Done()

    async def leave() -> None:
        asked = Asked(endless)
        run = asyncio.create_task(asked.run())
        await asked.said.wait()
        asked.connection.gone = True
        async with asyncio.timeout(5):
            await run
        assert ended.is_set()
        assert asked.connection.aborted

    asyncio.run(leave())


def test_a_download_that_fails_in_the_middle_is_cut_and_one_that_fails_at_once_is_an_error() -> None:
    def failing(before: int) -> Callable[..., Any]:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(before):
                yield b"piece"
            raise Unavailable("away")

        async def download(ctx: AdminContext, asked: Nothing) -> Download:
            return Download("it", 10, pieces())

        return download

    at_once, later = ask(failing(0)), ask(failing(1))
    assert (at_once.status, at_once.connection.aborted) == (503, False)
    assert (later.status, later.connection.aborted, later.whole) == (200, True, False)


def test_too_many_at_once_are_told_to_slow_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "REQUESTS_MAX", 0)

    async def nothing(ctx: AdminContext, asked: Nothing) -> Done:
        return Done()

    assert ask(nothing).lines[0]["code"] == "SlowDown"


def test_every_row_can_be_read_for_routes_and_documentation() -> None:
    rows = {(row.method, row.path) for row in ENDPOINTS}
    assert len(rows) == len(ENDPOINTS)
    for row in ENDPOINTS:
        assert row.method in ("GET", "POST")
        assert row.summary.endswith("."), row
        assert row.answer is not None
        assert row.asked.__struct_config__.forbid_unknown_fields, row
        assert not (row.streams and row.method == "GET"), "progress is for work"
