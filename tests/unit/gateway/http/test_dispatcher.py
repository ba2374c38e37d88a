"""S3's steps in order, and each kind of fault as the answer that S3 has for it; on our connections and on uvicorn's."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from consensus.core.clock import SystemClock
from consensus.core.errors import Corrupt, NoSpace, NotYet, Refused, Unavailable, UnknownOutcome
from gateway.auth import Settings as AuthSettings
from gateway.http.app import build
from gateway.http.exchange import ClientGone
from gateway.identities import Identity, IdentityStore
from gateway.ops.context import Context, Services, Settings
from gateway.s3.errors import S3Error
from gateway.s3.operations import OPERATION
from gateway.s3.reply import Reply
from gateway.s3.request import S3Request
from tests.signing import Keys, sign_request
from tests.unit.gateway.http.edge import Client, Edge, Response, Small, run

KEYS = Keys()
IDENTITY = Identity(name="me", account="1", user_id="u", access_key=KEYS.access_key, secret_key=KEYS.secret_key)
WAYS = [("asyncio-http", False), ("uvloop-https", False), ("asyncio-http", True), ("uvloop-https", True)]
"""Kind, and whether uvicorn's own HTTP is used."""

Handler = Callable[[Context, S3Request], Awaitable[Reply]]


class Handlers:
    """All operations; each does what a test has put into `does`."""

    def __init__(self, small: Small) -> None:
        self.small = small
        self.asked: list[tuple[str, S3Request]] = []
        self.does: Handler = self.say_ok
        self.ready = True

    async def say_ok(self, ctx: Context, request: S3Request) -> Reply:
        return Reply(headers=[("etag", '"e"')], body=b"ok")

    def table(self) -> dict[str, Handler]:
        def handler(name: str) -> Handler:
            async def op(ctx: Context, request: S3Request) -> Reply:
                assert ctx.operation.name == name
                self.asked.append((name, request))
                return await self.does(ctx, request)

            return op

        return {name: handler(name) for name in OPERATION}

    async def is_ready(self) -> str:
        return "" if self.ready else "storage node n1 is full"


class NoMetadata:
    def one_moment(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


def application(made: list[Handlers], **options: Any) -> Callable[[Small], object]:
    def make(small: Small) -> object:
        handlers = Handlers(small)
        made.append(handlers)
        services = Services(
            metadata=NoMetadata(), replicas=None, clock=SystemClock(), settings=Settings(),  # type: ignore[arg-type]
            identities=IdentityStore([IDENTITY]))
        return build(services, handlers.table(), auth=AuthSettings(), ready=handlers.is_ready, **options)

    return make


def talk_to(
    way: tuple[str, bool], folder: Path, talk: Callable[[Edge, Handlers], Awaitable[None]], **options: Any,
) -> None:
    made: list[Handlers] = []

    async def with_handlers(edge: Edge) -> None:
        await talk(edge, made[0])

    run(way[0], folder, with_handlers, stock=way[1], application=application(made, **options))


async def ask(
    client: Client, method: str, path: str, *, body: bytes = b"", host: str = "localhost", signed: bool = True,
    **headers: str,
) -> Response:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if signed:
        url = f"http://{host}{path}"
        sent = sign_request(method, url, sent, keys=KEYS, now_s=time.time(), payload="UNSIGNED-PAYLOAD")
    else:
        sent["host"] = host
    if body:
        sent["content-length"] = str(len(body))
    head = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items()), "", ""]
    client.send("\r\n".join(head).encode("latin-1") + body)
    return await client.response(head_only=method == "HEAD")


def error_of(answer: Response) -> dict[str, str]:
    return {element.tag: element.text or "" for element in ET.fromstring(answer.body)}


@pytest.mark.parametrize("way", WAYS)
def test_an_answer_has_what_every_answer_has(way: tuple[str, bool], folder: Path) -> None:
    async def talk(edge: Edge, handlers: Handlers) -> None:
        client = await edge.connect()
        first, second = await ask(client, "GET", "/b/k"), await ask(client, "GET", "/b/k")
        assert (first.status, first.body, first.headers["etag"]) == (200, b"ok", '"e"')
        assert first.headers["content-length"] == "2"
        assert {"date", "server", "x-amz-request-id", "x-amz-id-2"} <= first.headers.keys()
        assert first.headers["server"] == "Staddle"
        ids = [first.headers["x-amz-request-id"], second.headers["x-amz-request-id"]]
        assert all(len(name) == 16 and int(name, 16) and name == name.upper() for name in ids)
        assert ids[0] != ids[1]
        assert [request.id for _, request in handlers.asked] == ids

    talk_to(way, folder, talk)


@pytest.mark.parametrize("way", WAYS)
def test_the_request_as_operations_see_it(way: tuple[str, bool], folder: Path) -> None:
    async def talk(edge: Edge, handlers: Handlers) -> None:
        client = await edge.connect()
        path = "/b//a%20b/../c%2Fd?x-id=PutObject&partNumber=1&uploadId=%C3%A9&uploadId=2"
        await ask(client, "PUT", path, body=b"hi")
        name, request = handlers.asked[0]
        assert (name, request.bucket, request.key) == ("UploadPart", "b", "/a b/../c/d")
        assert request.raw_path == b"/b//a%20b/../c%2Fd"
        assert request.query == {"x-id": "PutObject", "partNumber": "1", "uploadId": "é"}
        assert (request.secure, request.remote) == (way[0].endswith("https"), "127.0.0.1")
        assert abs(request.now_ms - time.time() * 1000) < 60_000
        assert request.body.length == 2

    talk_to(way, folder, talk)


@pytest.mark.parametrize("way", WAYS)
def test_hosts_name_buckets(way: tuple[str, bool], folder: Path) -> None:
    async def talk(edge: Edge, handlers: Handlers) -> None:
        client = await edge.connect()
        await ask(client, "GET", "/k/l", host="b.s3.test:9000")
        await ask(client, "GET", "/-/health/live", host="b.s3.test")
        await ask(client, "GET", "/b/k", host="s3.test")
        assert [(r.bucket, r.key, r.host_style) for _, r in handlers.asked] == [
            ("b", "k/l", True), ("b", "-/health/live", True), ("b", "k", False)]

    talk_to(way, folder, talk, domains=("s3.test",))


@pytest.mark.parametrize("way", WAYS)
def test_a_wrong_signature_never_reaches_an_operation(way: tuple[str, bool], folder: Path) -> None:
    async def talk(edge: Edge, handlers: Handlers) -> None:
        client = await edge.connect()
        sent = sign_request("GET", "http://localhost/b/k", keys=KEYS, now_s=time.time())
        sent["authorization"] = sent["authorization"][:-1] + ("0" if sent["authorization"][-1] != "0" else "1")
        lines = ["GET /b/k HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items()), "", ""]
        answer = await client.ask("\r\n".join(lines).encode())
        assert answer.status == 403
        assert error_of(answer)["Code"] == "SignatureDoesNotMatch"
        assert not handlers.asked

    talk_to(way, folder, talk)


@pytest.mark.parametrize("way", WAYS)
def test_an_unsigned_upload_is_refused_before_its_body_comes(way: tuple[str, bool], folder: Path) -> None:
    async def talk(edge: Edge, handlers: Handlers) -> None:
        client = await edge.connect()
        answer = await ask(client, "PUT", "/b/k", signed=False, expect="100-continue", content_length="1000000000",
                           authorization="AWS4-HMAC-SHA256 Credential=nobody/20260101/us-east-1/s3/aws4_request, "
                           "SignedHeaders=host, Signature=" + "0" * 64)
        assert answer.status in (400, 403)
        if not way[1]:
            assert answer.headers["connection"] == "close"
        assert not handlers.asked

    talk_to(way, folder, talk)


@pytest.mark.parametrize("way", WAYS)
def test_errors_repeat_the_ids_of_their_headers(way: tuple[str, bool], folder: Path) -> None:
    async def refuse(ctx: Context, request: S3Request) -> Reply:
        raise S3Error("NoSuchKey", headers=(("x-amz-delete-marker", "true"),), Key=request.key)

    async def talk(edge: Edge, handlers: Handlers) -> None:
        handlers.does = refuse
        client = await edge.connect()
        answer = await ask(client, "GET", "/b/a%3C%26%0D%0Ab")
        assert (answer.status, answer.headers["content-type"]) == (404, "application/xml")
        assert answer.headers["x-amz-delete-marker"] == "true"
        error = error_of(answer)
        assert (error["Code"], error["Key"]) == ("NoSuchKey", "a<&\r\nb")
        assert error["RequestId"] == answer.headers["x-amz-request-id"]
        assert error["HostId"] == answer.headers["x-amz-id-2"]
        assert (await ask(client, "HEAD", "/b/k")).status == 404
        assert (await ask(client, "GET", "/b/k")).status == 404       # HEAD left nothing on the wire

    talk_to(way, folder, talk)


FAULTS = [
    (Unavailable("no leader"), 503, "ServiceUnavailable"), (NoSpace("full"), 503, "ServiceUnavailable"),
    (NotYet("older members"), 503, "ServiceUnavailable"),
    (UnknownOutcome("lost"), 500, "InternalError"), (Corrupt("rot"), 500, "InternalError"),
    (Refused("old"), 500, "InternalError"), (ZeroDivisionError("secret detail"), 500, "InternalError"),
    (TimeoutError(), 500, "InternalError"), (S3Error("SlowDown"), 503, "SlowDown"),
]


@pytest.mark.parametrize("way", WAYS)
def test_faults_have_their_answers_and_no_details(
    way: tuple[str, bool], folder: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    async def talk(edge: Edge, handlers: Handlers) -> None:
        client = await edge.connect()
        for fault, status, code in FAULTS:
            async def fail(ctx: Context, request: S3Request, fault: Exception = fault) -> Reply:
                raise fault

            handlers.does = fail
            with caplog.at_level(logging.WARNING):
                caplog.clear()
                answer = await ask(client, "GET", "/b/k")
            assert (answer.status, error_of(answer)["Code"]) == (status, code)
            assert b"secret" not in answer.body
            assert ("retry-after" in answer.headers, b"same release" in answer.body) == ((type(fault) is NotYet,) * 2)
            if not isinstance(fault, S3Error):
                logged = [record for record in caplog.records if record.name == "staddle.http"]
                assert [record.__dict__["request_id"] for record in logged] == [answer.headers["x-amz-request-id"]]
                if isinstance(fault, ZeroDivisionError):
                    assert logged[0].exc_info is not None

    talk_to(way, folder, talk)


@pytest.mark.parametrize("way", WAYS)
def test_streams(way: tuple[str, bool], folder: Path) -> None:
    closed: list[str] = []

    def stream(pieces: list[bytes], length: int, fault: Exception | None = None) -> Handler:
        async def body() -> AsyncIterator[bytes]:
            try:
                for piece in pieces:
                    yield piece
                if fault is not None:
                    raise fault
            finally:
                closed.append("closed")

        async def op(ctx: Context, request: S3Request) -> Reply:
            return Reply(body=body(), length=length)

        return op

    async def talk(edge: Edge, handlers: Handlers) -> None:
        client = await edge.connect()
        handlers.does = stream([b"a" * 100_000, b"b" * 100_000], 200_000)
        assert (await ask(client, "GET", "/b/k")).body == b"a" * 100_000 + b"b" * 100_000
        handlers.does = stream([], 0)
        assert (await ask(client, "GET", "/b/k")).body == b""
        handlers.does = stream([], 10, Unavailable("all replicas"))        # before the head: a proper error
        assert (await ask(client, "GET", "/b/k")).status == 503
        handlers.does = stream([b"a" * 10], 10)
        assert (await ask(client, "HEAD", "/b/k")).headers["content-length"] == "10"
        handlers.does = stream([b"part"], 1000, Corrupt("rot"))            # after it: cut off
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await ask(client, "GET", "/b/k")
        assert closed.count("closed") >= 4

    talk_to(way, folder, talk)


@pytest.mark.parametrize("way", WAYS[:2])
def test_a_stream_shorter_than_announced_is_cut(way: tuple[str, bool], folder: Path) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"short"

    async def op(ctx: Context, request: S3Request) -> Reply:
        return Reply(body=body(), length=10)

    async def talk(edge: Edge, handlers: Handlers) -> None:
        handlers.does = op
        client = await edge.connect()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await ask(client, "GET", "/b/k")

    talk_to(way, folder, talk)


@pytest.mark.parametrize("way", WAYS)
def test_304_and_204_have_neither_body_nor_length(way: tuple[str, bool], folder: Path) -> None:
    async def talk(edge: Edge, handlers: Handlers) -> None:
        client = await edge.connect()

        async def not_modified(ctx: Context, request: S3Request) -> Reply:
            raise S3Error("NotModified", headers=(("etag", '"e"'),))

        async def deleted(ctx: Context, request: S3Request) -> Reply:
            return Reply(status=204)

        handlers.does = not_modified
        answer = await ask(client, "GET", "/b/k")
        assert (answer.status, answer.headers["etag"], answer.headers.get("content-length")) == (304, '"e"', None)
        handlers.does = deleted
        answer = await ask(client, "DELETE", "/b/k")
        assert (answer.status, answer.headers.get("content-length")) == (204, None)
        handlers.does = handlers.say_ok
        assert (await ask(client, "GET", "/b/k")).body == b"ok"

    talk_to(way, folder, talk)


@pytest.mark.parametrize("way", WAYS)
def test_no_header_breaks_out_of_its_line(way: tuple[str, bool], folder: Path) -> None:
    async def op(ctx: Context, request: S3Request) -> Reply:
        return Reply(headers=[
            ("content-type", "a\r\nset-cookie: b"), ("x-a\nx-b", "c"), ("x-c", "\u20ac"), ("x-d", "\r\n\r\n<")])

    async def talk(edge: Edge, handlers: Handlers) -> None:
        handlers.does = op
        client = await edge.connect()
        answer = await ask(client, "GET", "/b/k")
        assert "set-cookie" not in answer.headers
        assert answer.headers["content-type"] == "a  set-cookie: b"
        assert answer.headers["x-c"] == "?"
        assert answer.body == b""

    if not way[1]:           # uvicorn refuses such names itself, with 500
        talk_to(way, folder, talk)


@pytest.mark.parametrize("way", WAYS)
def test_too_many_requests_are_told_to_slow_down(way: tuple[str, bool], folder: Path) -> None:
    async def talk(edge: Edge, handlers: Handlers) -> None:
        async def wait(ctx: Context, request: S3Request) -> Reply:
            await edge.small.gate.wait()
            return Reply()

        handlers.does = wait
        clients = [await edge.connect() for _ in range(3)]
        waiting = [asyncio.create_task(ask(client, "GET", "/b/k")) for client in clients[:2]]
        while len(handlers.asked) < 2:
            await asyncio.sleep(0.001)
        answer = await ask(clients[2], "GET", "/b/k")
        assert (answer.status, error_of(answer)["Code"]) == (503, "SlowDown")
        edge.small.gate.set()
        assert [(await task).status for task in waiting] == [200, 200]
        assert (await ask(clients[2], "GET", "/b/k")).status == 200

    talk_to(way, folder, talk, requests_max=2)


@pytest.mark.parametrize("way", WAYS)
def test_health(way: tuple[str, bool], folder: Path) -> None:
    async def talk(edge: Edge, handlers: Handlers) -> None:
        client = await edge.connect()
        assert (await ask(client, "GET", "/-/health/live", signed=False)).status == 200
        assert (await ask(client, "HEAD", "/-/health/live", signed=False)).status == 200
        assert (await ask(client, "GET", "/-/health/ready", signed=False)).status == 200
        handlers.ready = False
        refused = await ask(client, "GET", "/-/health/ready", signed=False)
        assert (refused.status, refused.body) == (503, b"not ready: storage node n1 is full\n")
        assert (await ask(client, "GET", "/-/nothing", signed=False)).status == 404
        assert (await ask(client, "POST", "/-/health/live", signed=False, body=b"a")).status == 405
        assert not handlers.asked

    talk_to(way, folder, talk)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("method", "path", "code"), [
    ("GET", "/b/%zz", "InvalidURI"), ("GET", "/b/%ff", "InvalidURI"), ("PATCH", "/b/k", "MethodNotAllowed"),
    ("DELETE", "/", "MethodNotAllowed"), ("PUT", "/b/k?torrent", "MethodNotAllowed"),
    ("GET", "//k", "InvalidBucketName"),
])
def test_targets_that_mean_nothing(way: tuple[str, bool], method: str, path: str, code: str, folder: Path) -> None:
    async def talk(edge: Edge, handlers: Handlers) -> None:
        client = await edge.connect()
        assert error_of(await ask(client, method, path))["Code"] == code
        assert not handlers.asked

    talk_to(way, folder, talk)


@pytest.mark.parametrize("way", WAYS[:2])
def test_a_client_that_left_is_no_fault(way: tuple[str, bool], folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    ended: list[BaseException] = []

    async def body() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"a" * (1 << 20)
        except BaseException as error:
            ended.append(error)
            raise

    async def op(ctx: Context, request: S3Request) -> Reply:
        return Reply(body=body(), length=1 << 40)

    async def talk(edge: Edge, handlers: Handlers) -> None:
        handlers.does = op
        client = await edge.connect()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await ask(client, "GET", "/b/k")
        client.writer.transport.abort()
        async with asyncio.timeout(5):
            while not ended:
                await asyncio.sleep(0.01)
        assert isinstance(ended[0], GeneratorExit | ClientGone)

    talk_to(way, folder, talk)
    assert not [record for record in caplog.records if record.name.startswith("staddle")]
