"""What the HTTP edge costs by itself: CPU per request with no kernel involved, and CPU per GiB received over loopback.

`requests` drives a connection object with a transport that goes nowhere: the parser, the connection, the dispatcher and
a signed 4 KiB answer, ours and uvicorn's own, the least of many batches. `receive` runs a listener in this process and
a sender in another, and takes this process's CPU time.
"""

import asyncio
import gc
import multiprocessing
import socket
import ssl
import tempfile
import time
from pathlib import Path
from typing import Any

import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from consensus.core.clock import SystemClock
from gateway.auth import Settings as AuthSettings
from gateway.http.app import build
from gateway.http.exchange import Exchange
from gateway.http.limits import Limits
from gateway.http.protocol import protocol_class
from gateway.http.reply import head
from gateway.http.server import GatewayServer
from gateway.identities import Identity, IdentityStore
from gateway.ops.context import Context, Services, Settings
from gateway.s3.operations import OPERATION
from gateway.s3.reply import Reply
from gateway.s3.request import S3Request
from tests.bench.report import Report
from tests.servers import make_certificate
from tests.signing import Keys, sign_request

BATCHES = 60
BATCH = 500
RECEIVE_BYTES = 512 << 20
PAYLOAD = b"x" * 4096
KEYS = Keys()


class Nowhere(asyncio.Transport):
    """A transport that counts what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.written = 0

    def write(self, data: Any) -> None:
        self.written += len(data)

    def writelines(self, pieces: Any) -> None:
        for piece in pieces:
            self.written += len(piece)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name in ("peername", "sockname") else default

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def close(self) -> None:
        pass


class Bare:
    """Answers five bytes to everything, as an exchange and as ASGI."""

    async def serve(self, exchange: Exchange) -> None:
        await exchange.reply(200, head("0123456789ABCDEF", (), 5), b"hello")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        await send({"type": "http.response.body", "body": b"hello"})


class Receiving:
    """Takes a body and drops it."""

    async def serve(self, exchange: Exchange) -> None:
        size = pieces = 0
        async for piece in exchange.body:
            size += len(piece)
            pieces += 1
        body = b"%d %d" % (size, pieces)
        await exchange.reply(200, head("ID", (), len(body)), body)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        size, pieces, more = 0, 0, True
        while more:
            message = await receive()
            size += len(message.get("body", b""))
            pieces += 1
            more = message.get("more_body", False)
        body = b"%d %d" % (size, pieces)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})


async def _get(ctx: Context, request: S3Request) -> Reply:
    return Reply(body=PAYLOAD, headers=[
        ("etag", '"620f0b67a91f7f74151bc5be745b7110"'), ("last-modified", "Mon, 12 Oct 2009 17:50:30 GMT"),
        ("content-type", "binary/octet-stream"), ("accept-ranges", "bytes"),
    ])


def _s3() -> object:
    services = Services(
        metadata=None, replicas=None, clock=SystemClock(), settings=Settings(),  # type: ignore[arg-type]
        identities=IdentityStore([Identity(
            name="me", account="1", user_id="u", access_key=KEYS.access_key, secret_key=KEYS.secret_key)]))

    async def ready() -> str:
        return ""

    return build(services, dict.fromkeys(OPERATION, _get), auth=AuthSettings(), ready=ready)


def _plain_request() -> bytes:
    return b"GET /bucket/key HTTP/1.1\r\nHost: localhost:9000\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"


def _signed_request() -> bytes:
    sent = sign_request("GET", "http://localhost:9000/bucket/some/key", {
        "user-agent": "bench", "accept-encoding": "identity"}, keys=KEYS, now_s=time.time())
    return "\r\n".join(["GET /bucket/some/key HTTP/1.1", *(f"{n}: {v}" for n, v in sent.items()), "", ""]).encode()


async def _us_per_request(application: object, protocol: Any, request: bytes) -> float:
    config = uvicorn.Config(
        application, http=protocol, ws="none", lifespan="off", interface="asgi3", proxy_headers=False,  # type: ignore[arg-type]
        access_log=False, log_config=None)
    config.load()
    loop = asyncio.get_running_loop()
    connection = protocol(config=config, server_state=ServerState(), app_state={}, _loop=loop)
    transport = Nowhere()
    connection.connection_made(transport)
    best = float("inf")
    gc.collect()
    for _ in range(BATCHES):
        began = time.process_time_ns()
        await _batch(loop, connection, transport, request)
        best = min(best, (time.process_time_ns() - began) / BATCH / 1000)
    connection.connection_lost(None)
    return best


def _batch(
    loop: asyncio.AbstractEventLoop, connection: Any, transport: Nowhere, request: bytes,
) -> "asyncio.Future[None]":
    """Feeds requests from the loop, as a transport does, each when the one before is answered."""
    done = loop.create_future()
    left, before = BATCH, -1

    def feed() -> None:
        nonlocal left, before
        while transport.written != before:
            if not left:
                done.set_result(None)
                return
            left -= 1
            before = transport.written
            connection.data_received(request)
        loop.call_soon(feed)

    loop.call_soon(feed)
    return done


async def _requests() -> list[tuple[str, float]]:
    ours = protocol_class(Limits())
    rows = []
    for name, application, request in (
        ("bare, 5 bytes", Bare(), _plain_request()), ("S3, signed, 4 KiB", _s3(), _signed_request())):
        for which, protocol in (("ours", ours), ("uvicorn's", HttpToolsProtocol)):
            rows.append((f"{name}: {which}", await _us_per_request(application, protocol, request)))
    return rows


def _send(port: int, certificate: str | None, chunk: int | None) -> None:
    """Another process: one large PUT, from one buffer."""
    sock = socket.create_connection(("127.0.0.1", port))
    if certificate is not None:
        sock = ssl.create_default_context(cafile=certificate).wrap_socket(sock, server_hostname="localhost")
    framing = f"Content-Length: {RECEIVE_BYTES}" if chunk is None else "Transfer-Encoding: chunked"
    sock.sendall(f"PUT /bucket/key HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{framing}\r\n\r\n".encode())
    piece = bytes(chunk or 1 << 20)
    if chunk is not None:
        piece = b"%x\r\n%b\r\n" % (len(piece), piece)
    for _ in range(RECEIVE_BYTES // (chunk or 1 << 20)):
        sock.sendall(piece)
    if chunk is not None:
        sock.sendall(b"0\r\n\r\n")
    answer = b""
    while data := sock.recv(65536):
        answer += data
    expected = b"%d " % RECEIVE_BYTES
    assert expected in answer, answer


async def _ms_per_gib(*, stock: bool, tls: bool, chunk: int | None = None) -> float:
    with tempfile.TemporaryDirectory() as folder:
        made = make_certificate(Path(folder)) if tls else None
        server = GatewayServer(Receiving(), stock=stock, tls_cert=made.certificate if made else None,
                               tls_key=made.key if made else None)
        await server.start()
        best = float("inf")
        for _ in range(3):
            sender = multiprocessing.get_context("spawn").Process(
                target=_send, args=(server.port, str(made.certificate) if made else None, chunk))
            sender.start()
            began = time.process_time_ns()
            while sender.exitcode is None:
                await asyncio.sleep(0.05)
            assert sender.exitcode == 0
            best = min(best, (time.process_time_ns() - began) / 1e6 * (1 << 30) / RECEIVE_BYTES)
        await server.stop()
    return best


def main() -> None:
    report = Report("The HTTP edge", "CPU of the listener's process; least of many batches, or of three transfers.")
    costs = uvloop.run(_requests())
    report.table(["request, no kernel", "µs"], [(name, round(value, 1)) for name, value in costs])
    report.target("bare request", costs[0][1], at_most=30, unit="µs")
    rows: list[tuple[str, float, float]] = []
    for name, options in (
        ("Content-Length: ours", {"stock": False, "tls": False}),
        ("Content-Length: uvicorn's", {"stock": True, "tls": False}),
        ("HTTP chunks of 16 KiB: ours", {"stock": False, "tls": False, "chunk": 16 << 10}),
        ("HTTP chunks of 1 MiB: ours", {"stock": False, "tls": False, "chunk": 1 << 20}),
        ("Content-Length over TLS: ours", {"stock": False, "tls": True}),
    ):
        costs_of = [run(_ms_per_gib(**options)) for run in (uvloop.run, asyncio.run)]  # type: ignore[arg-type]
        rows.append((name, *(round(value) for value in costs_of)))
    report.table(["receive a body", "uvloop ms/GiB", "asyncio ms/GiB"], rows)
    report.target("receive, uvloop", rows[0][1], at_most=300, unit="ms/GiB")


if __name__ == "__main__":
    main()
