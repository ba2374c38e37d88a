"""Between ASGI and exchanges, both ways.

`serving` runs any ASGI application on one of our exchanges: the routes under `/-/` are Starlette's. `AsgiExchange` is
an exchange on top of ASGI, so that the dispatcher also works on uvicorn's own protocol classes: the fallback, should
ours ever stand in the way. It is slower and less strict, and tested to give the same answers.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, MutableMapping
from typing import Any
from urllib.parse import unquote

from gateway.http.body import NO_BODY, RequestBody, incomplete, too_large
from gateway.http.exchange import BODILESS, ClientGone, Exchange
from gateway.http.reply import date_lines

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


def serving(application: Application) -> Callable[[Exchange], Coroutine[Any, Any, None]]:
    """The application as something that serves exchanges."""

    async def serve(exchange: Exchange) -> None:
        bridge = _Bridge(exchange)
        await application(_scope(exchange), bridge.receive, bridge.send)

    return serve


def _scope(exchange: Exchange) -> Scope:
    path = exchange.target.decode("latin-1")
    return {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1",
        "method": exchange.method, "scheme": "https" if exchange.secure else "http",
        "path": unquote(path), "raw_path": exchange.target, "query_string": exchange.query, "root_path": "",
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in exchange.headers.items()],
        "client": (exchange.remote, 0) if exchange.remote else None, "server": None, "state": {},
        "staddle.exchange": exchange, "staddle.body": exchange.body,
    }


class _Bridge:
    """ASGI's receive and send for one exchange. An answer without a length goes out chunked."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._pieces = exchange.body.__aiter__()
        self._body_done = False
        self._start: Message = {}
        self._begun = False
        self._chunked = False
        self._answered = asyncio.Event()

    async def receive(self) -> Message:
        if self._body_done:
            await self._answered.wait()
            return {"type": "http.disconnect"}
        try:
            piece = await anext(self._pieces)
        except StopAsyncIteration:
            self._body_done = True
            return {"type": "http.request", "body": b"", "more_body": False}
        return {"type": "http.request", "body": bytes(piece), "more_body": True}

    async def send(self, message: Message) -> None:
        exchange = self._exchange
        if message["type"] == "http.response.start":
            self._start = message
            return
        assert message["type"] == "http.response.body"
        piece, more = message.get("body", b""), message.get("more_body", False)
        try:
            if not self._begun:
                await self._begin(bytes(piece), more)
            else:
                await self._go_on(piece, more)
        except ClientGone:
            more = False
        if not more:
            self._answered.set()
            if not exchange.complete:
                await exchange.end()

    async def _begin(self, piece: bytes, more: bool) -> None:
        exchange, status = self._exchange, self._start["status"]
        lines, length = [date_lines()], None
        for raw_name, raw_value in self._start.get("headers", ()):
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
            assert not {"\r", "\n"} & set(value), f"{name} is more than a line"
            if name == "content-length":
                length = int(value)
            if name not in ("date", "server", "transfer-encoding", "connection"):
                lines.append(f"{name}: {value}\r\n")
        if not more:
            if length is None and status not in BODILESS:
                lines.append(f"content-length: {len(piece)}\r\n")
            await exchange.reply(status, "".join(lines), piece)
            return
        self._begun = True
        if length is None:
            self._chunked = not exchange.http_10 and exchange.method != "HEAD"
            exchange.keep_alive = exchange.keep_alive and not exchange.http_10
            if self._chunked:
                lines.append("transfer-encoding: chunked\r\n")
        await exchange.begin(status, "".join(lines), length)
        await self._go_on(piece, more)

    async def _go_on(self, piece: bytes, more: bool) -> None:
        if self._chunked:
            framed = b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b""
            piece = framed if more else framed + b"0\r\n\r\n"
        if piece:
            await self._exchange.write(piece)


class AsgiBody:
    """gateway.s3.request.Body on ASGI's `receive`. uvicorn sends 100 Continue at the first call."""

    def __init__(self, length: int | None, receive: Receive) -> None:
        self.length = length
        self._receive = receive
        self._ended = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not self._ended:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise incomplete()
            self._ended = not message.get("more_body", False)
            piece: bytes = message.get("body", b"")
            if piece:
                return piece
        raise StopAsyncIteration

    async def read(self, limit: int) -> bytes:
        """Raises S3Error EntityTooLarge above `limit` bytes."""
        if self.length is not None and self.length > limit:
            raise too_large(self.length, limit)
        read = bytearray()
        async for piece in self:
            read += piece
            if len(read) > limit:
                raise too_large(len(read), limit)
        return bytes(read)


class AsgiExchange:
    """What the dispatcher needs of an exchange, on a server that is not ours."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._send = send
        self.method: str = scope["method"]
        self.target: bytes = scope["raw_path"]
        self.query: bytes = scope["query_string"]
        self.secure = scope["scheme"] == "https"
        self.remote: str = scope["client"][0] if scope.get("client") else ""
        self.headers: dict[str, str] = {}
        for raw_name, raw_value in scope["headers"]:
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
            self.headers[name] = f"{self.headers[name]},{value}" if name in self.headers else value
        self.headers.setdefault("host", "")
        length = int(self.headers.get("content-length", "0"))
        if "transfer-encoding" in self.headers:
            self.body: Any = AsgiBody(None, receive)
        else:
            self.body = AsgiBody(length, receive) if length else NO_BODY
        self.request_body: RequestBody | None = None
        self.started = False
        self.complete = False
        self.sent = 0
        self.arrived = time.perf_counter()
        self.answered_at = 0.0
        self.http_10 = scope.get("http_version") == "1.0"
        self.cipher = ("", "")

    async def reply(self, status: int, head: str, body: bytes = b"") -> None:
        await self._start(status, head)
        self.complete = True
        bodiless = self.method == "HEAD" or status in BODILESS
        self.sent = 0 if bodiless else len(body)
        await self._send({"type": "http.response.body", "body": b"" if bodiless else body})

    async def begin(self, status: int, head: str, length: int | None, first: bytes = b"") -> None:
        await self._start(status, head)
        if first:
            await self.write(first)

    async def write(self, piece: bytes) -> None:
        self.sent += len(piece)
        await self._send({"type": "http.response.body", "body": piece, "more_body": True})

    async def end(self) -> None:
        self.complete = True
        await self._send({"type": "http.response.body", "body": b""})

    def abort(self) -> None:
        """uvicorn cuts the connection of an application that returns in the middle of its answer."""

    async def _start(self, status: int, head: str) -> None:
        self.started = True
        self.answered_at = time.perf_counter()
        headers = [line.split(": ", 1) for line in head.split("\r\n") if line]
        await self._send({
            "type": "http.response.start", "status": status,
            "headers": [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers],
        })
