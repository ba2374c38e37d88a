"""One POST to one webhook. HTTP/1.1 over connections that are kept; every byte of it within the webhook's time.

* A name is resolved for each new connection, each address is checked, and the connection goes to the very address that was
  checked: what a name says later changes nothing (addresses.py).
* https is verified against the webhook's `ca` or the system's authorities. No redirect is followed, no proxy used.
* Any 2xx is success. Of the answer's body only so much is read as lets the connection be used again.
"""

import asyncio
import contextlib
import hashlib
import hmac
import socket
import ssl
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httptools

from gateway.events.addresses import AllowList
from gateway.events.targets import Place, Webhook, place_of

ANSWER_BYTES_MAX = 64 << 10
"""Of an answer, head and body. A longer one is not waited for, and the connection not used again."""

REST_S = 1.0
"""After the head of an answer: what comes later is not waited for, and the answer counts all the same."""

READ_BYTES = 16 << 10

IDLE_S = 20.0
"""How long an unused connection is kept: most servers close theirs after a minute, and a closed one costs a try."""

LOOKUPS_AT_ONCE = 32
"""Of names: one of each target at most. A name server that is silent keeps a thread for half a minute, so these are no threads
that clients' requests wait for."""

Found = tuple[str, int]
"""An address and a port."""

_threads = ThreadPoolExecutor(LOOKUPS_AT_ONCE, thread_name_prefix="names")

OF_THE_TARGET = frozenset({401, 403, 404, 405, 407, 408, 410, 421, 429, 502, 503, 504, 507, 511})
"""Answers that would be the same for any event. So are redirects; others may come of what this one says."""


class DeliveryFailed(Exception):
    """Why, in words for the operator, without secrets. `of_event`: another event might have been taken."""

    def __init__(self, why: str, *, of_event: bool = False) -> None:
        super().__init__(why)
        self.of_event = of_event


class Nowhere:
    """In the place of a sender, for a target that the settings have no more: its events wait for it, or grow too old."""

    async def send(self, body: bytes) -> None:
        raise DeliveryFailed("the settings of the gateway that delivers do not have it")

    def close(self) -> None:
        pass


class _Stale(Exception):
    """A kept connection was closed before anything was answered: a new one may do better."""


class Sender:
    """Of one webhook. `send` may be called `connections` times at once."""

    def __init__(self, webhook: Webhook, allow: AllowList) -> None:
        self._webhook, self._allow, self._place = webhook, allow, place_of(webhook.url)
        self._idle: list[tuple[_Connection, float]] = []
        self._tls: ssl.SSLContext | None = None
        self._lookup: asyncio.Future[list[Found]] | None = None

    async def send(self, body: bytes) -> None:
        """Raises DeliveryFailed."""
        request = head(self._webhook, self._place, body) + body
        try:
            async with asyncio.timeout(self._webhook.timeout_seconds):
                status = await self._exchange(request)
        except TimeoutError:
            raise DeliveryFailed(f"no answer within {self._webhook.timeout_seconds} s") from None
        except ssl.SSLCertVerificationError as error:
            raise DeliveryFailed(f"its certificate is not to be trusted: {error.verify_message}") from None
        except (OSError, asyncio.IncompleteReadError, _Stale) as error:
            raise DeliveryFailed(_words(error)) from None
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            raise DeliveryFailed("what it answers is no HTTP") from None
        if not 200 <= status < 300:
            redirect = ", and redirects are not followed" if 300 <= status < 400 else ""
            raise DeliveryFailed(f"it answers {status}{redirect}", of_event=status >= 400 and status not in OF_THE_TARGET)

    def close(self) -> None:
        for connection, _ in self._idle:
            connection.close()
        self._idle.clear()

    async def _exchange(self, request: bytes) -> int:
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection, since = self._idle.pop()
            if now - since > IDLE_S or connection.closed:
                connection.close()
                continue
            with contextlib.suppress(_Stale, ConnectionError):
                return await self._ask(connection, request)
        return await self._ask(await self._connect(), request)

    async def _ask(self, connection: "_Connection", request: bytes) -> int:
        kept = False
        try:
            status = await connection.ask(request)
            kept = connection.reusable
        finally:
            if not kept:
                connection.close()
        if kept:
            self._idle.append((connection, asyncio.get_running_loop().time()))
        return status

    async def _connect(self) -> "_Connection":
        place = self._place
        if place.tls and self._tls is None:
            try:
                self._tls = await asyncio.to_thread(ssl.create_default_context, cafile=self._webhook.ca)
            except (OSError, ssl.SSLError) as error:
                raise DeliveryFailed(f"its 'ca' file cannot be read: {error.strerror or error}") from None
        found = await self._look_up()
        allowed = [address for address in found if self._allow.allows(place.host, address[0])]
        if not allowed:
            raise DeliveryFailed(_not_allowed(place.host, (address for address, _ in found)))
        for last, (address, port) in enumerate(allowed, 1 - len(allowed)):
            try:
                return await _Connection.to(address, port, self._tls, place.host)
            except ssl.SSLError:
                raise
            except OSError:
                if not last:
                    raise
        raise AssertionError("the last address is either reached or raises")

    async def _look_up(self) -> list[Found]:
        """Who asks while a lookup is under way, gets its answer: also one who comes after another has lost patience."""
        if self._lookup is None:
            self._lookup = asyncio.get_running_loop().run_in_executor(_threads, look_up, self._place.host, self._place.port)
            self._lookup.add_done_callback(self._looked_up)
        return await asyncio.shield(self._lookup)

    def _looked_up(self, lookup: asyncio.Future[list[Found]]) -> None:
        self._lookup = None
        if not lookup.cancelled():
            lookup.exception()            # nobody may be waiting for it any more


def look_up(host: str, port: int) -> list[Found]:
    """What a name leads to now. Waits. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(str(address[0]), int(address[1])) for *_, address in found]


def head(webhook: Webhook, place: Place, body: bytes) -> bytes:
    lines = [
        f"POST {place.target} HTTP/1.1", f"Host: {place.authority}", "User-Agent: Staddle", "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    ]
    if webhook.authorization:
        lines.append(f"Authorization: {webhook.authorization}")
    if webhook.secret:
        digest = hmac.new(webhook.secret.encode(), body, hashlib.sha256).hexdigest()
        lines.append(f"X-Hub-Signature-256: sha256={digest}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _not_allowed(host: str, addresses: Iterable[str]) -> str:
    shown = ", ".join(dict.fromkeys(addresses)) or "nothing"
    return f"{host} is {shown}, which is not public; setting 'webhook_allow' does not name it"


def _words(error: Exception) -> str:
    if isinstance(error, socket.gaierror):
        return f"its host is not known: {error.strerror}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or 'the connection was closed'}"
    if isinstance(error, OSError) and error.strerror:
        return f"not reached: {error.strerror}"
    return "it closed the connection without an answer"


class _Connection:
    """A connection, and the answer that is being read from it (httptools calls the on_… methods)."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._parser: Any = None
        self._status = 0
        self._complete = self._keeps = False
        self._fresh = True        # nothing was ever asked over it
        self.reusable = False

    @classmethod
    async def to(cls, address: str, port: int, tls: ssl.SSLContext | None, host: str) -> "_Connection":
        named = host if tls is not None else None
        return cls(*await asyncio.open_connection(address, port, ssl=tls, server_hostname=named, limit=READ_BYTES))

    @property
    def closed(self) -> bool:
        """Also when something has come that nobody asked for."""
        return self._reader.at_eof() or self._writer.is_closing()

    def close(self) -> None:
        self._writer.transport.abort()

    async def ask(self, request: bytes) -> int:
        """The status of the answer. Raises _Stale, OSError, httptools.HttpParserError."""
        self._fresh = self._parser is None
        self._parser, self._status, self._complete, self._keeps = httptools.HttpResponseParser(self), 0, False, False
        self._writer.write(request)
        await self._writer.drain()
        read = 0
        while not self._status and read < ANSWER_BYTES_MAX:
            read += await self._feed()
        if not self._status:
            raise DeliveryFailed(f"it answers no head of less than {ANSWER_BYTES_MAX} bytes")
        if not self._complete:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REST_S):
                    while not self._complete and read < ANSWER_BYTES_MAX:
                        read += await self._feed()
        self.reusable = self._complete and self._keeps and not self.closed
        return self._status

    async def _feed(self) -> int:
        data = await self._reader.read(READ_BYTES)
        if data:
            self._parser.feed_data(data)
        elif not self._status:
            raise ConnectionResetError(0, "") if self._fresh else _Stale()
        else:
            self._complete = True
            self._writer.close()
        return len(data)

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200 and not self._status:
            self._status = status

    def on_message_complete(self) -> None:
        self._keeps = not self._complete and self._parser.should_keep_alive()      # afterwards it has forgotten
        self._complete = self._status >= 200
