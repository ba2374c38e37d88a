"""One delivery, to real sockets: what the target gets, and every way in which it may fail to take it."""

import asyncio
import hashlib
import hmac
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.events import sending
from gateway.events.addresses import AllowList
from gateway.events.sending import DeliveryFailed, Sender
from gateway.events.targets import Webhook
from tests.servers import make_certificate

LOCAL = AllowList(["127.0.0.1", "::1"])
BODY = b'{"Records":[]}'
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

Answer = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


class Target:
    """Answers each request as it is told, and remembers them by connection."""

    def __init__(self, answer: Answer) -> None:
        self._answer, self.connections = answer, list[list[bytes]]()
        self.serving: set[asyncio.Task[None]] = set()

    @property
    def requests(self) -> list[bytes]:
        return [request for connection in self.connections for request in connection]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mine: list[bytes] = []
        self.connections.append(mine)
        task = asyncio.current_task()
        assert task is not None
        self.serving.add(task)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                mine.append(head + await reader.readexactly(length))
                await self._answer(mine[-1], writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass                      # asyncio would make noise about a cancelled one
        finally:
            writer.close()


@asynccontextmanager
async def target(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[Target, int]]:
    made = Target(answer)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield made, server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in made.serving:
            task.cancel()
        await asyncio.gather(*made.serving)


async def deliver(webhook: Webhook, allow: AllowList = LOCAL, times: int = 1) -> None:
    """With a sender of its own."""
    sender = Sender(webhook, allow)
    try:
        for _ in range(times):
            await sender.send(BODY)
    finally:
        sender.close()
        await asyncio.sleep(0)        # the sockets close


def says(raw: bytes, *, then_close: bool = False) -> Answer:
    async def answer(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await writer.drain()
        if then_close:
            writer.close()
    return answer


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def test_the_target_gets_the_document_signed() -> None:
    async def work() -> None:
        async with target(says(OK)) as (got, port):
            webhook = Webhook(url=f"http://127.0.0.1:{port}/in?token=x", authorization="Bearer y", secret="z")
            await deliver(webhook)
            signed = hmac.new(b"z", BODY, hashlib.sha256).hexdigest()
            assert got.requests == [(
                f"POST /in?token=x HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: Staddle\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\nAuthorization: Bearer y\r\n"
                f"X-Hub-Signature-256: sha256={signed}\r\n\r\n"
            ).encode() + BODY]
    run(work())


@pytest.mark.parametrize("answer", [
    OK, b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
], ids=["200", "204", "100", "chunked"])
def test_connections_are_used_again(answer: bytes) -> None:
    async def work() -> None:
        async with target(says(answer)) as (got, port):
            await deliver(Webhook(url=f"http://127.0.0.1:{port}/"), times=3)
            assert [len(each) for each in got.connections] == [3]
    run(work())


@pytest.mark.parametrize("answer", [
    says(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nbye", then_close=True), says(b"HTTP/1.0 200 OK\r\n\r\n", then_close=True),
    says(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n" + b"x" * 10_000_000),
    says(OK + b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"),
], ids=["close", "old", "10 MB", "two"])
def test_other_answers_count_and_end_the_connection(answer: Answer) -> None:
    async def work() -> None:
        async with target(answer) as (got, port):
            await deliver(Webhook(url=f"http://127.0.0.1:{port}/"), times=2)
            assert [len(each) for each in got.connections] == [1, 1]
    run(work())


def test_what_comes_after_the_head_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "REST_S", 0.05)

    async def work() -> None:
        async with target(says(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nx")) as (_, port):
            await deliver(Webhook(url=f"http://127.0.0.1:{port}/", timeout_seconds=60))
    run(work())


def test_a_kept_connection_that_was_closed_meanwhile_costs_no_failure() -> None:
    async def work() -> None:
        async with target(says(OK, then_close=True)) as (got, port):
            await deliver(Webhook(url=f"http://127.0.0.1:{port}/"), times=5)
            assert len(got.requests) == 5
    run(work())


async def _reset(_: bytes, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def _hang(_: bytes, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(3600)


@pytest.mark.parametrize(("answer", "why", "of_event"), [
    (says(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"), "it answers 500", True),
    (says(b"HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n"), "it answers 400", True),
    (says(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"), "it answers 503", False),
    (says(b"HTTP/1.1 429 Slow\r\nContent-Length: 0\r\n\r\n"), "it answers 429", False),
    (says(b"HTTP/1.1 401 Who\r\nContent-Length: 0\r\n\r\n"), "it answers 401", False),
    (says(b"HTTP/1.1 302 Go\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n"),
     "it answers 302, and redirects are not followed", False),
    (says(b"SSH-2.0-OpenSSH_9.2\r\n"), "what it answers is no HTTP", False),
    (says(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"), "what it answers is no HTTP", False),
    (says(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000), "it answers no head of less than 65536 bytes", False),
    (_reset, "it closed the connection without an answer", False),
    (says(b"", then_close=True), "it closed the connection without an answer", False),
    (_hang, "no answer within 1 s", False),
])
def test_failures_say_why_and_whose_they_are(answer: Answer, why: str, of_event: bool) -> None:
    async def work() -> None:
        async with target(answer) as (got, port):
            with pytest.raises(DeliveryFailed) as failed:
                await deliver(Webhook(url=f"http://127.0.0.1:{port}/", timeout_seconds=1))
            assert (str(failed.value), failed.value.of_event) == (why, of_event)
            assert len(got.requests) == 1, "a new connection is not tried twice, and nothing else is asked"
    run(work())


def test_nobody_there() -> None:
    async def work() -> None:
        async with target(says(OK)) as (_, port):
            pass
        for url, why in (
            (f"http://127.0.0.1:{port}/", "not reached: "), ("http://name.invalid/", "its host is not known: "),
        ):
            with pytest.raises(DeliveryFailed, match=why):
                await deliver(Webhook(url=url))
    run(work())


def _here(host: str, port: int) -> list[sending.Found]:
    return [("127.0.0.1", port)]


def test_https_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "good").mkdir()
    (tmp_path / "other").mkdir()
    good, other = make_certificate(tmp_path / "good"), make_certificate(tmp_path / "other")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(good.certificate, good.key)
    monkeypatch.setattr(sending, "look_up", _here)

    async def work() -> None:
        async with target(says(OK), context) as (got, port):
            url = f"https://127.0.0.1:{port}/"
            await deliver(Webhook(url=url, ca=good.certificate))
            for ca in (None, other.certificate):
                with pytest.raises(DeliveryFailed, match="its certificate is not to be trusted"):
                    await deliver(Webhook(url=url, ca=ca))
            with pytest.raises(DeliveryFailed, match=r"certificate is not to be trusted: .*elsewhere"):
                await deliver(Webhook(url=f"https://elsewhere.example.com:{port}/", ca=good.certificate))
            with pytest.raises(DeliveryFailed, match="'ca' file cannot be read"):
                await deliver(Webhook(url=url, ca=tmp_path / "missing.pem"))
            assert len(got.requests) == 1, "nothing is sent before it is known who listens"
    run(work())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "0x7f000001", "2130706433", "[::1]", "[::ffff:127.0.0.1]"])
def test_what_a_name_leads_to_is_checked(host: str) -> None:
    async def work() -> None:
        async with target(says(OK)) as (got, port):
            with pytest.raises(DeliveryFailed, match=r"not public|not known"):
                await deliver(Webhook(url=f"http://{host}:{port}/"), AllowList(["10.0.0.0/8"]))
            assert not got.connections
    run(work())


def test_a_name_server_that_is_silent_keeps_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads cannot be called back: each try would hold another one for as long as the system waits."""
    asked, answered = list[str](), threading.Event()

    def resolve(host: str, port: int) -> list[sending.Found]:
        asked.append(threading.current_thread().name)
        answered.wait(10)
        return _here(host, port)

    async def work() -> None:
        async with target(says(OK)) as (_, port):
            sender = Sender(Webhook(url=f"http://silent.example.com:{port}/", timeout_seconds=1), LOCAL)
            failed = await asyncio.gather(*(sender.send(BODY) for _ in range(10)), return_exceptions=True)
            assert [str(each) for each in failed] == ["no answer within 1 s"] * 10
            trying = asyncio.create_task(sender.send(BODY))
            await asyncio.sleep(0)
            answered.set()
            await trying
            assert len(asked) == 1
            assert asked[0].startswith("names"), "requests of clients wait for other threads"
            sender.close()
    monkeypatch.setattr(sending, "look_up", resolve)
    run(work())


def test_a_name_that_changes_its_mind_is_checked_at_each_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address that was checked is the one that is dialled: between the two nobody is asked again."""
    async def work() -> None:
        async with target(says(OK, then_close=True)) as (got, port):
            asked = []

            def resolve(host: str, port: int) -> list[sending.Found]:
                asked.append(host)
                return [("127.0.0.1" if len(asked) == 1 else "127.0.0.2", port)]

            monkeypatch.setattr(sending, "look_up", resolve)
            sender = Sender(Webhook(url=f"http://rebinding.example.com:{port}/"), LOCAL)
            await sender.send(BODY)
            with pytest.raises(DeliveryFailed, match=r"rebinding.example.com is 127.0.0.2, which is not public"):
                await sender.send(BODY)
            assert len(got.requests) == 1
            assert set(asked) == {"rebinding.example.com"}
    run(work())
