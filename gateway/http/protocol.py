"""Our HTTP/1.1 connection, given to uvicorn as `http=`: parsing, strict framing, order, deadlines.

Bytes go to httptools' parser, which is strict as long as no leniency is switched on; head.py is stricter. A request is
served when it is the oldest unanswered one; what was parsed after it waits in `_queue`, and reading stops. A framing
fault is answered in its turn with 400, and the connection is closed: nothing behind it can be trusted (RFC 9112 §11.2).

A request whose first step can answer it (a small GET) runs without a task of its own (stepping.py); others get one.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, NoReturn

import httptools
import uvicorn
from uvicorn.config import Config
from uvicorn.server import ServerState

from gateway.http import asgi
from gateway.http.body import FEED_BYTES_MAX, RequestBody, incomplete, timed_out
from gateway.http.exchange import Exchange
from gateway.http.head import read_head, size_of
from gateway.http.limits import Limits
from gateway.http.raw import RawReceiver
from gateway.http.reply import STATUS_LINE, error_answer, new_request_id
from gateway.http.shared import Shared
from gateway.http.stepping import step
from gateway.s3.errors import S3Error

log = logging.getLogger("staddle.http")

UVICORN_VERSION = "0.54."
"""We rely on the constructor's arguments, `ServerState` and `shutdown()`. Look at them before allowing another."""

TLS_BUFFER_BYTES = 64 * 1024
"""Encrypted bytes that may wait for a slow reader before we stop writing."""

Serve = Callable[[Exchange], Coroutine[Any, Any, None]]

def protocol_class(limits: Limits) -> type["Connection"]:
    """A class for uvicorn's `http=`, with its own limits and buffers. Raises RuntimeError for an uvicorn that we
    don't know."""
    if not uvicorn.__version__.startswith(UVICORN_VERSION):
        raise RuntimeError(f"uvicorn {uvicorn.__version__}: gateway.http was written for {UVICORN_VERSION}x")
    return type("StaddleConnection", (Connection,), {"shared": Shared(limits)})


class Connection(asyncio.Protocol):
    shared: ClassVar[Shared]

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        self.loop = _loop or asyncio.get_running_loop()
        self._state = server_state
        application = config.loaded_app
        serve: Serve | None = getattr(application, "serve", None)
        self._ours = serve is not None
        self._serve: Serve = serve if serve is not None else asgi.serving(application)
        self._parser: Any = httptools.HttpRequestParser(self)

        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set by connection_made
        self.secure = False
        self.remote = ""
        self.lost = False
        self.write_paused = False
        self._drain_waiter: asyncio.Future[None] | None = None

        # The head that is being parsed.
        self._used = False
        """A head has come on this connection."""
        self._in_head = True
        self._head_bytes = 0
        self._since = self.shared.now
        self._url = b""
        self._headers: dict[str, str] = {}
        self._refusal: S3Error | None = None

        # The body that is arriving, the exchange that is served, and what waits behind it.
        self._arriving: Exchange | None = None
        self._current: Exchange | None = None
        self._queue: deque[Exchange | S3Error] = deque()
        self._receiver: RawReceiver | None = None
        self._starting = False

        self._reading = True
        self._eof = False
        self._deaf = False
        """Whatever comes now is dropped: the last answer is on its way."""
        self._closing_at: float | None = None
        self._window = (0.0, 0)
        """Seconds that the reader of the body has waited in this window, and the bytes received at its start."""
        self._framing = (0, 0)
        """Bytes read that brought no body since `received` was this."""
        self._stalled = (0.0, 0)
        """Since when the client has taken nothing of our answer, and how much was waiting then."""

    # The transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.secure = transport.get_extra_info("sslcontext") is not None
        if self.secure:
            # By default 512 KiB, on top of what the socket's own transport holds, for each slow reader.
            self.transport.set_write_buffer_limits(high=TLS_BUFFER_BYTES)
        peer = transport.get_extra_info("peername")
        self.remote = str(peer[0]) if isinstance(peer, tuple) else ""
        self._state.connections.add(self)  # type: ignore[arg-type]  # uvicorn lists its own classes; it needs shutdown()
        self.shared.watch(self)
        self._since = self.shared.now
        if len(self._state.connections) > self.shared.limits.connections_max:
            self._queue.append(S3Error("SlowDown"))
            self._pump()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._state.connections.discard(self)
        self.shared.forget(self)
        for exchange in (self._current, self._arriving):
            if exchange is not None and exchange.request_body is not None:
                exchange.request_body.fail(incomplete)
        self._queue.clear()
        self.resume_writing()
        self._parser = None           # it holds us, we hold it

    def eof_received(self) -> bool:
        """The client has said all it will say; that which it asked for is still answered (not over TLS, which has no
        half-closed connections)."""
        self._eof = True
        for exchange in (self._current, self._arriving):
            if exchange is not None and exchange.request_body is not None:
                exchange.request_body.fail(incomplete)
        return (self._current is not None or bool(self._queue)) and not self.secure and not self._deaf

    def pause_writing(self) -> None:
        self.write_paused = True
        self._stalled = (self.shared.now, self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        self.write_paused = False
        if self._drain_waiter is not None and not self._drain_waiter.done():
            self._drain_waiter.set_result(None)

    async def drained(self) -> None:
        """Returns when the client has taken most of what was written."""
        while self.write_paused and not self.lost:
            self._drain_waiter = self.loop.create_future()
            await self._drain_waiter
        self._drain_waiter = None

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        if self._in_head:
            if not self._head_bytes:
                self._since = self.shared.now
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._last()              # we speak nothing else: the request is served as it stands, as the last one
        except httptools.HttpParserInvalidURLError:
            self._refuse(S3Error("InvalidURI"))
        except httptools.HttpParserError:
            self._refuse(self._refusal or S3Error("BadRequest", _UNREADABLE))
        else:
            if self._in_head and self._head_bytes > self.shared.limits.head_bytes_max:
                self._refuse(S3Error("RequestHeaderSectionTooLarge", MaxSizeAllowed=self.shared.limits.head_bytes_max))
        arriving = self._arriving
        if arriving is not None and arriving.request_body is not None:
            self._check_framing(arriving.request_body, len(data))
            if arriving is self._current:
                arriving.request_body.wake()
        self._pump()
        self._set_reading()

    # The parser

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers = {}
        if not self._head_bytes:      # behind another request in the same read
            self._head_bytes = 1
            self._since = self.shared.now

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return                    # a trailer of HTTP's chunked coding; S3's own trailers are inside the body
        # Blanks around a value are no part of it (RFC 9110 §5.5); the parser takes off those before it.
        key, text, headers = name.decode("latin-1").lower(), value.rstrip(b" \t").decode("latin-1"), self._headers
        if key not in headers:
            headers[key] = text
        elif key == "host":
            self._refusal = S3Error("BadRequest", "More than one Host header.")
            raise ValueError(key)
        else:
            headers[key] += "," + text

    def on_headers_complete(self) -> None:
        parser, headers, limits = self._parser, self._headers, self.shared.limits
        self._in_head = False
        self._used = True
        if self._head_bytes > limits.head_bytes_max and size_of(self._url, headers) > limits.head_bytes_max:
            # The bytes that came with the head may be a body's, so the head was counted by itself.
            self._stop(S3Error("RequestHeaderSectionTooLarge", MaxSizeAllowed=limits.head_bytes_max))
        version = parser.get_http_version()
        try:
            target, query, length, expects = read_head(self._url, headers, version)
        except S3Error as refusal:
            self._stop(refusal)
        body = None
        if length != 0:
            body = RequestBody(length, self, self.shared.pool)
            self._window = (0.0, 0)
            self._framing = (0, -1)      # the read that brings the head does not count
        self._arriving = exchange = Exchange(
            self, method=parser.get_method().decode("latin-1"), target=target, query=query, headers=headers,
            http_10=version == "1.0", keep_alive=version == "1.1" and parser.should_keep_alive(), body=body,
            expects=expects,
        )
        if len(self._queue) >= limits.pipelined_max:
            self._stop(S3Error("SlowDown"))
        self._queue.append(exchange)

    def on_body(self, piece: bytes) -> None:
        exchange = self._arriving
        assert exchange is not None
        assert exchange.request_body is not None
        if exchange.complete:
            exchange.request_body.received += len(piece)
        else:
            exchange.request_body.feed(piece)

    def on_message_complete(self) -> None:
        exchange, self._arriving = self._arriving, None
        self._in_head = True
        self._head_bytes = 0
        if exchange is not None and exchange.request_body is not None:
            exchange.request_body.ended = True
            exchange.request_body.ended_at = time.perf_counter()
            exchange.request_body.wake()

    def _check_framing(self, body: RequestBody, came: int) -> None:
        """Chunk extensions and trailers are no body, and the parser holds a trailer until it ends: bound them as a head
        is bounded."""
        if body.received != self._framing[1]:
            self._framing = (0, body.received)
            return
        self._framing = (self._framing[0] + came, body.received)
        if self._framing[0] > self.shared.limits.head_bytes_max:
            self._refuse(S3Error("MalformedTrailerError"))

    def _stop(self, refusal: S3Error) -> NoReturn:
        """Raises, which ends the parser's work; `data_received` goes on with `_refusal`."""
        self._refusal = refusal
        self._arriving = None
        raise ValueError(refusal.code)

    # Order

    def _refuse(self, refusal: S3Error) -> None:
        """The bytes make no sense from here on. A body that was arriving is damaged; else it is a request's turn."""
        self._deaf = True
        arriving, self._arriving = self._arriving, None
        if arriving is None:
            last = self._queue[-1] if self._queue else self._current
            if isinstance(last, Exchange) and not last.keep_alive:
                return                # bytes after the last request, as it itself announced
            self._queue.append(refusal)
        elif arriving.complete:
            self._close()
        else:
            arriving.keep_alive = False
            assert arriving.request_body is not None
            arriving.request_body.fail(lambda: refusal)

    def _last(self) -> None:
        """The request that was parsed last is the last on this connection."""
        self._deaf = True
        self._arriving = None
        last = self._queue[-1] if self._queue else self._current
        if isinstance(last, Exchange):
            last.keep_alive = False

    def _pump(self) -> None:
        """Serve the next request, if none is being served. Requests that end at once are done in a loop."""
        if self._starting:
            return
        self._starting = True
        try:
            while self._queue and self._current is None and not self.lost:
                item = self._queue.popleft()
                if isinstance(item, S3Error):
                    self._queue.clear()
                    self._answer_refusal(item)
                else:
                    self._current = item
                    self._start(item)
        finally:
            self._starting = False

    def _start(self, exchange: Exchange) -> None:
        run = self._run(exchange)
        if exchange.method not in ("GET", "HEAD") or exchange.request_body is not None or not self._eager(exchange):
            task: asyncio.Task[None] | None = self.loop.create_task(run)
        else:
            task = step(self.loop, run)
        if task is not None:
            exchange.task = task
            self._state.tasks.add(task)

    def _eager(self, exchange: Exchange) -> bool:
        """Whether the first step may run without a task. Not for Starlette's routes: anyio, which they use, wants a
        task that stays the same from a scope's beginning to its end."""
        return self._ours and not exchange.target.startswith(b"/-/")

    async def _run(self, exchange: Exchange) -> None:
        try:
            await self._serve(exchange)
        except Exception:
            log.exception("a request failed outside the dispatcher")
        finally:
            if not exchange.complete:
                exchange.abort()
            if exchange.task is not None:     # a callback of the task would cost a turn of the loop
                self._state.tasks.discard(exchange.task)

    def exchange_done(self, exchange: Exchange) -> None:
        """The answer is written (or given up): on to the next request, or the end."""
        assert exchange is self._current
        self._current = None
        self._state.total_requests += 1
        self._since = self.shared.now
        if self.lost:
            return
        if not exchange.keep_alive:
            self._queue.clear()
            body = exchange.request_body
            self._close(linger=body is not None and not body.ended and not self._eof)
            return
        if self._queue:
            if not self._starting:
                # Not from here: this runs inside the task of the request that has just ended.
                self.loop.call_soon(self._pump)
        elif self._eof:
            self._close()
        self._set_reading()

    def _answer_refusal(self, refusal: S3Error) -> None:
        self.shared.malformed += 1
        lines, body = error_answer(refusal, new_request_id(), with_body=True)
        head = STATUS_LINE[refusal.status] + lines + "connection: close\r\n\r\n"
        self.transport.write(head.encode("latin-1") + body)
        self._close(linger=not self._eof)

    def _close(self, *, linger: bool = False) -> None:
        """`linger`: the client may still be sending; read on for a while, or our closing would take the answer away."""
        self._deaf = True
        if self.transport.is_closing():
            return
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.stop()
            self._reading = False
            self.transport.set_protocol(self)
        if not linger:
            self._closing_at = self.shared.now + self.shared.limits.write_stall_s
            self.transport.close()
            return
        self._closing_at = self.shared.now + self.shared.limits.linger_s
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._set_reading()

    @property
    def idle(self) -> bool:
        """No request is under way."""
        return self._current is None

    def shutdown(self) -> None:
        """The server stops: what is being served is finished, then the connection ends."""
        if self._current is None:
            self.transport.close()
        else:
            self._queue.clear()
            self._deaf = self._deaf or self._arriving is None
            self._current.keep_alive = False

    # The body's source

    def body_wanted(self) -> None:
        exchange = self._current
        if exchange is None or self.lost:
            return
        if exchange.expects:
            exchange.expects = False
            if not exchange.started:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._more(exchange)

    def body_taken(self) -> None:
        if self._current is not None and not self.lost:
            self._more(self._current)

    def _more(self, exchange: Exchange) -> None:
        if self._receiver is not None:
            self._receiver.go()
        elif self._is_raw(exchange):
            body = exchange.request_body
            assert body is not None
            self._pause()
            self._receiver = RawReceiver(
                self.transport, self, body, self.shared.pool, self.shared.limits.buffers_ahead, self._raw_done)
            self.transport.set_protocol(self._receiver)
            self._receiver.go()
        else:
            self._set_reading()

    def _is_raw(self, exchange: Exchange) -> bool:
        """Whether so much of its body is still to come that it goes round the parser."""
        body = exchange.request_body
        return (
            exchange is self._arriving and exchange is self._current and not exchange.complete and not self._deaf
            and body is not None and body.length is not None and not self._eof
            and body.length - body.received > self.shared.limits.raw_bytes_min
        )

    def _raw_done(self) -> None:
        self._receiver = None
        self._arriving = None
        self._reading = False
        self._parser = httptools.HttpRequestParser(self)
        self._in_head = True
        self._head_bytes = 0
        self.transport.set_protocol(self)

    def can_drain(self, exchange: Exchange) -> bool:
        """Whether the unread rest of a body is small enough to be read and dropped."""
        body = exchange.request_body
        assert body is not None
        return (
            body.length is not None and not exchange.expects and self._receiver is None and not self._eof
            and body.length - body.received <= self.shared.limits.drain_bytes_max
        )

    def _set_reading(self) -> None:
        """Read on unless somebody has to catch up. (EOF shows itself only while we read.)"""
        if self._receiver is not None or self._eof or self.lost:
            return
        arriving = self._arriving
        if self._deaf:
            wanted = True
        elif self._queue:
            wanted = False
        elif arriving is None or arriving.complete or arriving.request_body is None:
            wanted = True
        else:
            wanted = arriving.request_body.fed_bytes < FEED_BYTES_MAX and not self._is_raw(arriving)
        if wanted:
            self._resume()
        else:
            self._pause()

    def _pause(self) -> None:
        if self._reading:
            self._reading = False
            self.transport.pause_reading()

    def _resume(self) -> None:
        if not self._reading and not self.transport.is_closing():
            self._reading = True
            self.transport.resume_reading()

    # Deadlines

    def tick(self, now: float) -> None:
        """Once a sweep: end what takes too long."""
        limits, current = self.shared.limits, self._current
        if self._closing_at is not None:
            if now >= self._closing_at:
                self.transport.abort()
        elif self.write_paused:
            waiting = self.transport.get_write_buffer_size()
            if waiting < self._stalled[1]:
                self._stalled = (now, waiting)
            elif now - self._stalled[0] >= limits.write_stall_s:
                self.transport.abort()
        elif current is not None:
            body = current.request_body
            if body is not None and body.waiting:
                self._check_rate(current, body)
        elif not self._in_head or self._head_bytes:
            if now - self._since >= limits.head_s:
                self._too_slow()
        elif now - self._since >= (limits.idle_s if self._used else limits.head_s):
            self._close()

    def _check_rate(self, exchange: Exchange, body: RequestBody) -> None:
        limits = self.shared.limits
        waited, at_start = self._window
        waited += limits.sweep_s
        if waited >= limits.body_window_s:
            if body.received - at_start < limits.body_rate_min * limits.body_window_s:
                exchange.keep_alive = False
                body.fail(timed_out)
            waited, at_start = 0.0, body.received
        self._window = (waited, at_start)

    def _too_slow(self) -> None:
        """A head, or the unread rest of a body, that does not end."""
        self._deaf = True
        if self._in_head:
            self._queue.append(S3Error("RequestTimeout"))
            self._pump()
        else:
            self.transport.close()


_UNREADABLE = "An error occurred when parsing the HTTP request."

