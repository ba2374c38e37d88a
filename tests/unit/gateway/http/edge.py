"""A gateway listener around a small application, and a client that sends exactly the bytes it is told to.

`run(kind, talk)` starts it on the loop and scheme that `kind` names and runs `talk(edge)`. The application `Small` does
what a path says:

    /hello        answers at once               /md5      reads the body piece by piece: "<bytes> <md5>"
    /read         reads the whole body          /refuse   403 without asking for the body
    /late         waits for `edge.gate`         /stream   64 pieces of 64 KiB
    /cut          fails in the middle of a stream
"""

import asyncio
import contextlib
import functools
import hashlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from gateway.http.exchange import Exchange
from gateway.http.limits import Limits
from gateway.http.reply import error_answer, head
from gateway.http.server import GatewayServer
from gateway.s3.errors import S3Error
from tests.servers import Certificate, make_certificate

KINDS = ("asyncio-http", "asyncio-https", "uvloop-http", "uvloop-https")
PLAIN = ("asyncio-http", "uvloop-http")
READ_BYTES_MAX = 4 << 20
PATIENCE_S = 8.0


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    headers: dict[str, str]
    body: bytes


class Small:
    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.served: list[tuple[str, bytes]] = []
        self.reading = asyncio.Event()
        self.errors: list[str] = []
        self.pieces = 0

    async def serve(self, exchange: Exchange) -> None:
        self.served.append((exchange.method, exchange.target))
        try:
            await self._serve(exchange)
        except S3Error as error:
            self.errors.append(error.code)
            lines, body = error_answer(error, "ID", with_body=exchange.method != "HEAD")
            await exchange.reply(error.status, lines, body)

    async def _serve(self, exchange: Exchange) -> None:
        match exchange.target.split(b"-")[0]:
            case b"/hello":
                await self._say(exchange, b"hello")
            case b"/md5":
                digest, size = hashlib.md5(), 0
                self.reading.set()
                async for piece in exchange.body:
                    digest.update(piece)
                    size += len(piece)
                    self.pieces += 1
                await self._say(exchange, b"%d %s" % (size, digest.hexdigest().encode()))
            case b"/read":
                body = await exchange.body.read(READ_BYTES_MAX)
                await self._say(exchange, b"%d %s" % (len(body), hashlib.md5(body).hexdigest().encode()))
            case b"/refuse":
                raise S3Error("AccessDenied")
            case b"/late":
                await self.gate.wait()
                await self._say(exchange, exchange.target)
            case b"/stream":
                await exchange.begin(200, head("ID", [], 64 << 16), 64 << 16)
                for number in range(64):
                    await exchange.write(bytes([number]) * (1 << 16))
                await exchange.end()
            case b"/cut":
                await exchange.begin(200, head("ID", [], 1000), 1000, b"part of it")
                raise ConnectionError("the disk went away")
            case b"/empty":
                await exchange.reply(204, head("ID", [], None), b"")
            case _:
                raise S3Error("NoSuchKey")

    async def _say(self, exchange: Exchange, body: bytes) -> None:
        await exchange.reply(200, head("ID", [], len(body)), body)


@dataclass
class Client:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def response(self, *, head_only: bool = False) -> Response:
        """The next final answer; asserts that it is framed by its length."""
        async with asyncio.timeout(PATIENCE_S):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {}
            for line in lines[1:-2]:
                name, _, value = line.partition(": ")
                headers[name] = value
            status = int(lines[0].split(" ")[1])
            assert lines[0].startswith("HTTP/1.1 ")
            if head_only or status in (100, 204, 304):
                return Response(status, headers, b"")
            if headers.get("transfer-encoding") == "chunked":
                body = b""
                while size := int(await self.reader.readline(), 16):
                    body += await self.reader.readexactly(size)
                    await self.reader.readexactly(2)
                await self.reader.readexactly(2)
                return Response(status, headers, body)
            return Response(status, headers, await self.reader.readexactly(int(headers["content-length"])))

    async def ask(self, data: bytes) -> Response:
        self.send(data)
        return await self.response()

    async def closed(self) -> bytes:
        """What still came before the server closed."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                return await self.reader.read(-1)
            except ConnectionError:
                return b""

    async def silent(self) -> bool:
        """Whether nothing has come, a moment later: what must not come gives no sign to wait for."""
        await asyncio.sleep(0.05)
        return not self.reader._buffer  # type: ignore[attr-defined]


@dataclass
class Edge:
    server: GatewayServer
    small: Small
    context: ssl.SSLContext | None
    clients: list[Client] = field(default_factory=list)

    async def connect(self) -> Client:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.server.port, ssl=self.context, limit=8 << 20,
            server_hostname="localhost" if self.context else None)
        client = Client(reader, writer)
        self.clients.append(client)
        return client


@functools.cache
def certificate(folder: Path) -> Certificate:
    return make_certificate(folder)


@contextlib.asynccontextmanager
async def edge(
    kind: str, folder: Path, *, limits: Limits | None = None, stock: bool = False,
    application: Callable[[Small], object] | None = None,
) -> AsyncIterator[Edge]:
    small = Small()
    context, made = None, None
    if kind.endswith("https"):
        made = certificate(folder)
        context = ssl.create_default_context(cafile=str(made.certificate))
    server = GatewayServer(
        application(small) if application else small, tls_cert=made.certificate if made else None,
        tls_key=made.key if made else None, limits=limits or Limits(shutdown_s=2, linger_s=0.5, sweep_s=0.2), stock=stock)
    await server.start()
    running = Edge(server, small, context)
    try:
        yield running
    finally:
        for client in running.clients:
            client.writer.transport.abort()
        await server.stop()
        # Let aborted transports say goodbye, else they complain to the garbage collector.
        await asyncio.sleep(0)
        await asyncio.sleep(0)


def run(
    kind: str, folder: Path, talk: Callable[[Edge], Awaitable[None]], *, limits: Limits | None = None,
    stock: bool = False, application: Callable[[Small], object] | None = None,
) -> None:
    async def main() -> None:
        async with edge(kind, folder, limits=limits, stock=stock, application=application) as running:
            await talk(running)

    factory = uvloop.new_event_loop if kind.startswith("uvloop") else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


def request(method: str, path: str, body: bytes = b"", *headers: str, length: int | None = None) -> bytes:
    """A request with a Content-Length if there is a body (or a `length` is claimed)."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers]
    if body or length is not None:
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
