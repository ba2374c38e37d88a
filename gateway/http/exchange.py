"""One request and its answer on our own connections: what the dispatcher works with.

An exchange is answered once: `reply` for a whole answer (head and body in one write), or `begin`, `write`..., `end`
for a stream. It knows whether the connection may be used again: not when the client is still sending a body that nobody
will read, and not when it holds back a body until a 100 that never came.
"""

import asyncio
import time
from typing import TYPE_CHECKING

from gateway.http.body import NO_BODY, RequestBody
from gateway.http.reply import STATUS_LINE

if TYPE_CHECKING:
    from gateway.http.protocol import Connection

JOIN_BYTES_MAX = 64 * 1024
"""Head and body up to this go out as one copy; above, copying costs more than a second buffer in the same write."""

TLS_WRITE_BYTES_MAX = 128 * 1024
"""Bytes given to a TLS transport at once."""

TURN_BYTES_MIN = 128 * 1024
"""A piece this long is followed by a turn of the loop, even when the client takes all that it is given: a source that is
always ready would keep the loop for itself, and nobody would hear that the client has left."""

BODILESS = frozenset({204, 304})


class ClientGone(Exception):
    """Nobody is there to take the answer."""


class Exchange:
    """`headers` have lower-case names; repeated ones are joined by ",". `complete`: answered, or given up."""

    __slots__ = (
        "_connection", "_left", "answered_at", "arrived", "body", "complete", "expects", "headers", "http_10", "keep_alive",
        "method", "query", "request_body", "sent", "started", "target", "task",
    )

    def __init__(
        self, connection: "Connection", *, method: str, target: bytes, query: bytes, headers: dict[str, str],
        http_10: bool, keep_alive: bool, body: RequestBody | None, expects: bool,
    ) -> None:
        self._connection = connection
        self.method = method
        self.target = target
        """The raw path: neither decoded nor normalised."""
        self.query = query
        self.headers = headers
        self.http_10 = http_10
        self.keep_alive = keep_alive
        self.request_body = body
        self.body = body if body is not None else NO_BODY
        self.expects = expects
        """The client waits for 100 Continue before it sends the body."""
        self.started = False
        self.complete = False
        self.sent = 0
        """Bytes of the answer's body that were given to the transport."""
        self.arrived = time.perf_counter()
        """When its head had come."""
        self.answered_at = 0.0
        """time.perf_counter() when the answer began; 0 before."""
        self._left: int | None = 0
        self.task: asyncio.Task[None] | None = None
        """That serves it, unless its first step did."""

    @property
    def secure(self) -> bool:
        return self._connection.secure

    @property
    def remote(self) -> str:
        return self._connection.remote

    @property
    def cipher(self) -> tuple[str, str]:
        """Cipher suite and version of TLS; empty without it."""
        tls = self._connection.transport.get_extra_info("ssl_object") if self._connection.secure else None
        return ("", "") if tls is None else ((tls.cipher() or ("",))[0], tls.version() or "")

    @property
    def gone(self) -> bool:
        return self._connection.lost

    async def reply(self, status: int, head: str, body: bytes = b"") -> None:
        """The whole answer. `head` are lines with their CRLF. Never raises for a client that has gone."""
        connection = self._connection
        if not connection.lost:
            if self.method == "HEAD" or status in BODILESS:
                body = b""
            out = self._head(status, head)
            self.sent = len(body)
            if len(body) <= JOIN_BYTES_MAX:
                connection.transport.write(out + body if body else out)
            else:
                connection.transport.writelines((out, body))
        self.started = True
        self._finish()

    async def begin(self, status: int, head: str, length: int | None, first: bytes = b"") -> None:
        """Start a stream of `length` bytes, of which `first` are the first; None: as long as the connection lives
        (HTTP/1.0 without a length). Raises ClientGone."""
        connection = self._connection
        if connection.lost:
            raise ClientGone
        out = self._head(status, head)
        self.started = True
        self._left = length
        if not first or self.method == "HEAD":
            connection.transport.write(out)
            return
        if connection.secure:
            connection.transport.write(out)
            await self.write(first)
            return
        if length is not None:
            self._left = length - len(first)
            assert self._left >= 0, "more bytes than were announced"
        self.sent = len(first)
        connection.transport.writelines((out, first))
        if connection.write_paused:
            await connection.drained()

    async def write(self, piece: bytes) -> None:
        """Hand out a piece; returns when the client has taken most of what was given. Raises ClientGone."""
        connection = self._connection
        if connection.lost:
            raise ClientGone
        if self.method == "HEAD":
            return
        if self._left is not None:
            self._left -= len(piece)
            assert self._left >= 0, "more bytes than were announced"
        self.sent += len(piece)
        if connection.secure and len(piece) > TLS_WRITE_BYTES_MAX:
            await self._write_secure(piece)
            return
        connection.transport.write(piece)
        if connection.write_paused:
            await connection.drained()
        elif len(piece) >= TURN_BYTES_MIN and self._left != 0:
            await asyncio.sleep(0)

    async def _write_secure(self, piece: bytes) -> None:
        """TLS encrypts all that it is given at once, so a slow reader is given little by little."""
        connection = self._connection
        for place in range(0, len(piece), TLS_WRITE_BYTES_MAX):
            connection.transport.write(piece[place : place + TLS_WRITE_BYTES_MAX])
            if connection.write_paused:
                await connection.drained()
            elif self._left != 0:
                await asyncio.sleep(0)
            if connection.lost:
                raise ClientGone

    async def end(self) -> None:
        """The stream is complete."""
        assert not self._left or self.method == "HEAD", f"{self._left} bytes fewer than were announced"
        self._finish()

    def abort(self) -> None:
        """Cut the connection, so that the client sees that the answer is not whole."""
        self.keep_alive = False
        if not self.complete:
            self.complete = True
            self._connection.transport.abort()
            if self.request_body is not None:
                self.request_body.close()
            self._connection.exchange_done(self)

    def _head(self, status: int, head: str) -> bytes:
        assert not self.started, "answered twice"
        self.answered_at = time.perf_counter()
        body = self.request_body
        if body is not None and not body.ended and self.keep_alive:
            self.keep_alive = self._connection.can_drain(self)
        text = STATUS_LINE[status] + head
        return (text + ("\r\n" if self.keep_alive else "connection: close\r\n\r\n")).encode("latin-1", "replace")

    def _finish(self) -> None:
        assert not self.complete
        self.complete = True
        if self.request_body is not None:
            self.request_body.close()
        self._connection.exchange_done(self)
