"""The gateway's listener as a role: uvicorn with our connections, on sockets of its own.

Several gateway processes share a port by SO_REUSEPORT; the kernel spreads new connections over them. Signals are the
process's business, not uvicorn's. TLS needs 1.2 or newer.
"""

import asyncio
import dataclasses
import logging
import resource
import socket
import ssl
from pathlib import Path
from typing import Any

import uvicorn

from gateway.http.limits import Limits
from gateway.http.protocol import protocol_class
from gateway.http.shared import Shared

log = logging.getLogger("staddle.http")

BACKLOG = 2048
"""Connections that the kernel accepts for us while we are busy."""

DESCRIPTORS_KEPT = 256
"""Open files for everything but clients: SQLite, chunks, sockets to the other processes."""

TLS_HANDSHAKE_S = 15.0
"""As long as a head may take: before the handshake ends a connection is nobody's."""

TLS_GOODBYE_S = 2.0
"""At the server's end, what a client with nothing under way gets to say goodbye. One that only keeps its connection for
later doesn't read, so it doesn't answer, and the end would wait for it as long as for a request."""


def listening_socket(host: str, port: int, *, shared: bool = True) -> socket.socket:
    """Bound, not yet listening. Raises OSError that says where. `shared`: with other gateways of this user. Then two servers
    would not notice each other on one port; who is alone takes no port that another one has, and none gets his."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
        sock.bind((host, port))
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from None
    return sock


def allow_descriptors(wanted: int) -> int:
    """Raise this process's limit of open files as far as it goes; how many connections it leaves room for, at most
    `wanted`. The usual limit of 1024 is meant for programs that use select."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + DESCRIPTORS_KEPT
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return min(wanted, max(1, soft - DESCRIPTORS_KEPT))
    return wanted


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Raises OSError, ssl.SSLError for files that are not a certificate chain and its key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    context.options |= ssl.OP_NO_RENEGOTIATION     # a client could make us compute for nothing
    context.set_alpn_protocols(["http/1.1"])
    return context


class GatewayServer:
    """`application` is ASGI; ours is `gateway.http.app.Application`. `stock` uses uvicorn's HTTP in place of ours;
    `alone` shares the port with no other process."""

    def __init__(
        self, application: Any, *, host: str = "127.0.0.1", port: int = 0, tls_cert: Path | None = None,
        tls_key: Path | None = None, limits: Limits | None = None, stock: bool = False, alone: bool = False,
    ) -> None:
        self._application = application
        self._host = host
        self._port = port
        self._tls = (tls_cert, tls_key)
        self._limits = limits or Limits()
        self._stock = stock
        self._alone = alone
        self._server: _Server | None = None
        self._shared: Shared | None = None

    @property
    def port(self) -> int:
        """The port that it listens on; chosen by the system if 0 was asked for."""
        return self._port

    @property
    def connections(self) -> int:
        """How many there are now."""
        return len(self._server.server_state.connections) if self._server is not None else 0

    @property
    def shared(self) -> Shared | None:
        """What its connections have in common, with their counters; None before it listens, and on uvicorn's own HTTP."""
        return self._shared

    async def start(self) -> None:
        """Listen. Raises OSError for an address that can't be had, or a certificate that can't be read."""
        context = None
        certificate, key = self._tls
        if certificate is not None and key is not None:
            context = tls_context(certificate, key)
        limits = self._limits
        allowed = allow_descriptors(limits.connections_max)
        if allowed < limits.connections_max:
            log.warning("the limit of open files leaves room for %d connections only", allowed)
            limits = dataclasses.replace(limits, connections_max=allowed)
        sock = listening_socket(self._host, self._port, shared=not self._alone)
        self._port = sock.getsockname()[1]
        connection = None if self._stock else protocol_class(limits)
        self._shared = None if connection is None else connection.shared
        config = uvicorn.Config(
            self._application, http=connection or "httptools", ws="none",
            lifespan="off", interface="asgi3", proxy_headers=False, server_header=False, date_header=False,
            access_log=False, log_config=None, timeout_keep_alive=int(self._limits.idle_s),
            timeout_graceful_shutdown=int(self._limits.shutdown_s),
        )
        self._server = _Server(config, context)
        try:
            await self._server.startup([sock])
        except BaseException:
            sock.close()
            raise

    async def stop(self) -> None:
        """Accept no more, finish what is being served (at most `shutdown_s`), then cut the rest."""
        server, self._server = self._server, None
        if server is not None:
            await server.shutdown()
            stopped = getattr(self._application, "stopped", None)
            if stopped is not None:
                stopped()


class _Server(uvicorn.Server):
    """uvicorn's server with a TLS context of ours and an end that waits for connections instead of polling them."""

    def __init__(self, config: uvicorn.Config, context: ssl.SSLContext | None) -> None:
        super().__init__(config)
        self._context = context
        config.load()
        self.lifespan = config.lifespan_class(config)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()

        def connection() -> asyncio.Protocol:
            made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
                config=self.config, server_state=self.server_state, app_state={}, _loop=loop)
            return made

        context = self._context
        timeout = TLS_HANDSHAKE_S if context is not None else None
        self.servers = [
            await loop.create_server(connection, sock=sock, ssl=context, backlog=BACKLOG, ssl_handshake_timeout=timeout)
            for sock in sockets or ()
        ]
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        state = self.server_state
        idle = [connection for connection in state.connections if getattr(connection, "idle", False)]
        for connection in list(state.connections):
            connection.shutdown()
        goodbye = asyncio.get_running_loop().call_later(TLS_GOODBYE_S, _hang_up, idle)
        try:
            async with asyncio.timeout(self.config.timeout_graceful_shutdown):
                while state.connections or state.tasks:      # noqa: ASYNC110  (once in a process's life)
                    await asyncio.sleep(0.01)
        except TimeoutError:
            log.warning("%d requests did not end in time and are cut off", len(state.tasks))
        goodbye.cancel()
        for task in list(state.tasks):
            task.cancel()
        for connection in list(state.connections):
            connection.transport.abort()
        if state.tasks:
            await asyncio.wait(list(state.tasks), timeout=1.0)
        for server in self.servers:
            await server.wait_closed()


def _hang_up(connections: list[Any]) -> None:
    for connection in connections:
        connection.transport.abort()
