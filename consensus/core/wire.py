"""Frames between the processes of a cluster: small, multiplexed, checksummed, and nothing decoded before both sides have
proved that they know the cluster's secret.

A frame is a header of 20 bytes, little-endian, and a payload:

    u32 payload length | u32 CRC32C of the payload | u16 operation | u16 status | u64 request id

Before the first frame: the server sends ``STDL``, the newest and the oldest version of the protocol that it speaks (two
bytes) and 32 random bytes; the client answers 32 bytes, of which the first is the version to speak and the others are random,
and HMAC-SHA256(secret, "client" + server's bytes + client's bytes); the server ends with
HMAC-SHA256(secret, "server" + client's bytes + server's bytes). All lengths are fixed, so a stranger's bytes are compared
and never parsed. Request id 0 marks a frame that nobody asked for (a push). While a cluster is upgraded, machine by machine,
both sides speak the newest version that both know.

Between machines all this runs inside TLS 1.3, with certificates on both sides (tls.py): an address HOST:PORT without `tls`
is refused. Sockets of one machine (``unix:``) have none.
"""

import asyncio
import contextlib
import errno
import hashlib
import hmac
import os
import secrets
import socket
import ssl
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Protocol, cast

from awscrt.checksums import crc32c

from consensus.core.errors import Refused, Unavailable

if TYPE_CHECKING:                                 # a machine that is alone loads nothing of it
    from consensus.core.tls import Tls

PROTOCOL_VERSION = 1
PROTOCOL_OLDEST = 1
"""The version before the last one, once there are several: upgrades go one at a time."""

PAYLOAD_BYTES_MAX = 8 << 20
"""A log entry, a page of inventory, or a piece of a chunk: all far below."""

BUFFER_BYTES = 256 << 10
"""First size of a link's buffer; one that carries larger frames grows to hold one of them."""

GATHER_FRAME_BYTES_MAX = 16 << 10
"""Smaller frames wait for the end of the loop's turn and go out together: a system call and a wake-up of the other side
cost as much as handling several of them. Larger ones go at once, uncopied."""

GATHER_BYTES_MAX = 64 << 10
"""So many waiting bytes go before the turn ends."""

WRITE_HIGH_WATER_BYTES = 4 << 20
"""Above this, `drain` waits: the other side is slower than we are."""

HANDSHAKE_TIMEOUT_S = 5.0

UNACKNOWLEDGED_MS_MAX = 10_000
IDLE_S, PROBE_S, PROBES = 5, 2, 3
"""Between machines, a link whose other side takes nothing for ten seconds, or doesn't answer three probes while nothing is
sent, is lost: a host that was switched off says no goodbye. Callers have their own, shorter limits."""

OK = 0

_HEADER = struct.Struct("<IIHHQ")
_HELLO = struct.Struct("<4sBB32s")
_MAGIC = b"STDL"
_MAC_BYTES = 32
UNIX_PATH_BYTES_MAX = 100

Buffer = bytes | bytearray | memoryview


class Handler(Protocol):
    """What a link does with frames. Called in the event loop; must not block."""

    def frame(self, link: "Link", operation: int, status: int, request_id: int, payload: memoryview) -> None:
        """`payload` is valid during the call only. An exception closes the link."""

    def lost(self, link: "Link") -> None:
        """The link is gone, for whatever reason; called once, and only after `frame` could have been called."""


class LinkLost(Unavailable):
    """The link went away with calls unanswered. Whether they took effect is for the caller to find out."""


class Link(asyncio.BufferedProtocol):
    """One authenticated connection, seen from either side."""

    def __init__(self, secret: bytes, handler: Handler, *, server: bool,
                 on_made: "Callable[[Link], None] | None" = None) -> None:
        """`on_made` is called once there is a connection: TLS that fails never gets so far."""
        self._secret, self._handler, self._server, self._on_made = secret, handler, server, on_made
        self.peer = ""
        """Who is on the other side, from its certificate (MACHINE/ROLE); "" on a socket of this machine."""
        self._buffer = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        self._ours = secrets.token_bytes(32)
        self._theirs = b""
        self.version = PROTOCOL_VERSION
        self._stage = 0                       # of the handshake; 2 means done
        self._transport: asyncio.Transport | None = None
        self._gathered: list[bytes] = []
        self._gathered_bytes = 0
        self._writable: asyncio.Event = asyncio.Event()
        self._writable.set()
        self.loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = self.loop.create_future()
        self.closed = False

    # Connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)     # uvloop's is no subclass
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            _tune(sock)
        if transport.get_extra_info("ssl_object") is not None:
            from consensus.core.tls import name_in

            self.peer = name_in(transport.get_extra_info("peercert"))
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_WATER_BYTES)
        asyncio.get_running_loop().call_later(HANDSHAKE_TIMEOUT_S, self._handshake_overdue)
        if self._on_made is not None:
            self._on_made(self)
        if self._server:
            self._transport.write(_HELLO.pack(_MAGIC, PROTOCOL_VERSION, PROTOCOL_OLDEST, self._ours))

    def _handshake_overdue(self) -> None:
        if self._stage < 2:
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._writable.set()
        if not self.ready.done():
            why = "the other side closed the connection before it was authenticated"
            # On another machine it may have died at this moment, or one of the clocks is wrong: that may pass.
            self.ready.set_exception(Unavailable(why) if self.peer else Refused(why))
            self.ready.exception()            # seen: nobody has to wait for it
        elif self._stage == 2:
            self._handler.lost(self)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def close(self) -> None:
        if self._transport is not None and not self.closed:
            self.flush()                      # as far as the other side takes it at once
            self._transport.abort()

    # Receiving

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._start == self._end:
            self._start = self._end = 0
        elif len(self._buffer) - self._end < BUFFER_BYTES // 4:
            self._make_room()
        return self._view[self._end:]

    def _make_room(self) -> None:
        """Move what is left to the front, into a larger buffer if the frame under way needs one."""
        waiting = self._end - self._start
        needed = BUFFER_BYTES
        if self._stage == 2 and waiting >= _HEADER.size:
            needed = max(needed, _HEADER.size + _HEADER.unpack_from(self._buffer, self._start)[0] + BUFFER_BYTES // 2)
        kept = bytes(self._view[self._start:self._end])
        if needed > len(self._buffer):
            self._buffer = bytearray(needed)
            self._view = memoryview(self._buffer)
        self._view[:waiting] = kept
        self._start, self._end = 0, waiting

    def buffer_updated(self, nbytes: int) -> None:
        self._end += nbytes
        if self._stage < 2 and not self._shake_hands():
            return
        header, buffer, view = _HEADER, self._buffer, self._view
        while self._end - self._start >= header.size:
            length, crc, operation, status, request_id = header.unpack_from(buffer, self._start)
            if length > PAYLOAD_BYTES_MAX:
                self.close()
                return
            begin = self._start + header.size
            if self._end - begin < length:
                if len(buffer) - self._start < header.size + length:
                    self._make_room()
                return
            payload = view[begin:begin + length]
            self._start = begin + length
            if crc32c(payload) != crc:
                self.close()
                return
            try:
                self._handler.frame(self, operation, status, request_id, payload)
            except BaseException:
                self.close()
                raise
            if self.closed:
                return

    def _take(self, count: int) -> bytes | None:
        if self._end - self._start < count:
            return None
        raw = bytes(self._view[self._start:self._start + count])
        self._start += count
        return raw

    def _mac(self, who: bytes) -> bytes:
        """`who` proves itself by the other side's random bytes, then its own."""
        mine = (who == b"server") == self._server
        first, second = (self._theirs, self._ours) if mine else (self._ours, self._theirs)
        return hmac.digest(self._secret, who + first + second, "sha256")

    def _shake_hands(self) -> bool:
        """One step of the handshake, if its bytes have come. True once frames may follow."""
        assert self._transport is not None
        if self._server:
            raw = self._take(32 + _MAC_BYTES)
            if raw is None:
                return False
            self._theirs, self.version = raw[:32], raw[0]
            if not PROTOCOL_OLDEST <= self.version <= PROTOCOL_VERSION or not hmac.compare_digest(raw[32:], self._mac(b"client")):
                self.close()
                return False
            self._transport.write(self._mac(b"server"))
        elif self._stage == 0:
            raw = self._take(_HELLO.size)
            if raw is None:
                return False
            magic, newest, oldest, self._theirs = _HELLO.unpack(raw)
            self.version = min(newest, PROTOCOL_VERSION)
            if magic != _MAGIC or self.version < max(oldest, PROTOCOL_OLDEST):
                self.ready.set_exception(Refused(f"the other side speaks versions {oldest} to {newest} of the protocol "
                                                 f"{magic!r}, we {PROTOCOL_OLDEST} to {PROTOCOL_VERSION}"))
                self.close()
                return False
            self._ours = bytes((self.version,)) + self._ours[1:]
            self._transport.write(self._ours + self._mac(b"client"))
            self._stage = 1
            return False
        else:
            raw = self._take(_MAC_BYTES)
            if raw is None:
                return False
            if not hmac.compare_digest(raw, self._mac(b"server")):
                self.ready.set_exception(Refused("the other side does not know this cluster's secret"))
                self.close()
                return False
        self._stage = 2
        if not self.ready.done():             # cancelled: nobody waits any more
            self.ready.set_result(None)
        return True

    # Sending

    def send(self, operation: int, status: int, request_id: int, payload: Buffer = b"") -> None:
        """Queue a frame. The payload belongs to the link from here on: it may be written after this call returns."""
        if self.closed or self._transport is None:
            return
        header = _HEADER.pack(len(payload), crc32c(payload), operation, status, request_id)
        if len(payload) > GATHER_FRAME_BYTES_MAX:
            self.flush()
            self._transport.write(header)
            self._transport.write(payload)
            return
        if not self._gathered:
            self.loop.call_soon(self.flush)
        frame = header + payload
        self._gathered.append(frame)
        self._gathered_bytes += len(frame)
        if self._gathered_bytes >= GATHER_BYTES_MAX:
            self.flush()

    def flush(self) -> None:
        """Write what has gathered. uvloop and asyncio both make a system call for each `write`."""
        frames = self._gathered
        if frames:
            self._gathered, self._gathered_bytes = [], 0
            if not self.closed and self._transport is not None:
                self._transport.write(frames[0] if len(frames) == 1 else b"".join(frames))

    @property
    def unsent_bytes(self) -> int:
        """What is still in our memory because the other side has not taken it."""
        return 0 if self.closed or self._transport is None else \
            self._transport.get_write_buffer_size() + self._gathered_bytes

    async def drain(self) -> None:
        """Wait until the other side has taken enough of what was sent."""
        if not self._writable.is_set():
            await self._writable.wait()
        if self.closed:
            raise LinkLost("the link was lost while sending")


class WireServer:
    """Listens on an address (and on those in `also`), and gives each authenticated link to its own handler."""

    def __init__(self, address: str, secret: bytes, make_handler: Callable[[], Handler], *,
                 also: Iterable[str] = (), tls: "Tls | None" = None) -> None:
        self.address, self._secret, self._make_handler, self._tls = address, secret, make_handler, tls
        self._addresses = (address, *also)
        self._servers: list[asyncio.Server] = []
        self._links: set[Link] = set()

    async def start(self) -> None:
        """Raises OSError when the address is taken or not ours, Refused if it needs TLS and there is none."""
        try:
            for address in self._addresses:
                self._servers.append(await self._listen(address))
        except BaseException:
            await self.stop()
            raise

    async def _listen(self, address: str) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        kind, where = split_address(address)
        if kind == "unix":
            try:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(where)
                with short_path(where) as path:
                    server = await loop.create_unix_server(self._accept, path)
                    os.chmod(path, 0o600)
                    return server
            except OSError as error:
                if error.errno not in (errno.EROFS, errno.ENOSPC, errno.EIO):
                    raise
                return await loop.create_unix_server(self._accept, without_folder(where))
        host, port = where.rsplit(":", 1)
        return await loop.create_server(self._accept, host.strip("[]"), int(port), ssl=_needed(self._tls, where).server,
                                        ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S)

    def _accept(self) -> Link:
        if self._tls is not None:
            self._tls.renew_if_due()
        handler = self._make_handler()
        return Link(self._secret, _Registered(handler, self._links), server=True, on_made=self._made)

    def _made(self, link: Link) -> None:
        self._links.add(link)
        link.ready.add_done_callback(lambda ready: self._forget_refused(link, ready))

    def _forget_refused(self, link: Link, ready: "asyncio.Future[None]") -> None:
        if ready.cancelled() or ready.exception() is not None:
            self._links.discard(link)

    async def stop(self) -> None:
        for server in self._servers:
            server.close()
        self._servers = []
        for link in list(self._links):
            link.close()


class _Registered:
    """Forwards to the handler and forgets the link once it is lost."""

    def __init__(self, handler: Handler, links: set[Link]) -> None:
        self._handler, self._links = handler, links
        self.frame = handler.frame

    def lost(self, link: Link) -> None:
        self._links.discard(link)
        self._handler.lost(link)


class WireClient:
    """One link to a server, with calls matched to answers. Does not reconnect: its owner decides what a loss means."""

    def __init__(self, address: str, secret: bytes, on_push: Callable[[int, bytes], None] | None = None,
                 on_lost: Callable[[], None] | None = None, *, tls: "Tls | None" = None) -> None:
        self.address, self._secret, self._on_push, self._on_lost, self._tls = address, secret, on_push, on_lost, tls
        self._waiting: dict[int, asyncio.Future[tuple[int, bytes]]] = {}
        self._next = 0
        self._link: Link | None = None

    @property
    def connected(self) -> bool:
        return self._link is not None and not self._link.closed

    @property
    def peer(self) -> str:
        """Who answered, from its certificate (MACHINE/ROLE); "" on a socket of this machine."""
        return "" if self._link is None else self._link.peer

    async def connect(self, timeout_s: float = HANDSHAKE_TIMEOUT_S) -> None:
        """Raises Unavailable if nobody answers, Refused if it does not know our secret."""
        loop = asyncio.get_running_loop()
        kind, where = split_address(self.address)
        def protocol() -> Link:
            return Link(self._secret, self, server=False)

        try:
            async with asyncio.timeout(timeout_s):
                if kind == "unix":
                    try:
                        with short_path(where) as path:
                            _, link = await loop.create_unix_connection(protocol, path)
                    except (FileNotFoundError, ConnectionRefusedError):
                        _, link = await loop.create_unix_connection(protocol, sock=_connected(without_folder(where)))
                else:
                    host, port = where.rsplit(":", 1)
                    _, link = await loop.create_connection(protocol, host.strip("[]"), int(port),
                                                           ssl=_needed(self._tls, where).client)
                try:
                    await link.ready
                except asyncio.CancelledError:       # or too late: nobody else would close it
                    link.close()
                    raise
        except ssl.SSLError as error:              # no Refused: a clock that was wrong may be set
            raise Unavailable(f"no TLS with {self.address}: {error.reason or error}. Is it of the same cluster, and are "
                              "the clocks right?") from error
        except (OSError, TimeoutError) as error:
            raise Unavailable(f"no answer from {self.address}: {error or 'timed out'}") from error
        self._link = link

    def call(self, operation: int, payload: Buffer = b"") -> "asyncio.Future[tuple[int, bytes]]":
        """Send a request; the future gives (status, payload), or raises LinkLost."""
        link = self._link
        if link is None or link.closed:
            return self.answer_to(self.new_request())
        self._next = request_id = self._next + 1
        future: asyncio.Future[tuple[int, bytes]] = link.loop.create_future()
        self._waiting[request_id] = future
        link.send(operation, OK, request_id, payload)
        return future

    def flush(self) -> None:
        """Send now what waits for the end of the loop's turn: nothing more is to come that could go with it."""
        if self._link is not None:
            self._link.flush()

    def new_request(self) -> int:
        """An id for a request of several frames: see `answer_to` and `post`."""
        self._next += 1
        return self._next

    def answer_to(self, request_id: int) -> "asyncio.Future[tuple[int, bytes]]":
        future: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        if self.connected:
            self._waiting[request_id] = future
        else:
            future.set_exception(LinkLost(f"not connected to {self.address}"))
        return future

    def post(self, operation: int, request_id: int, payload: Buffer = b"") -> None:
        if self._link is not None:
            self._link.send(operation, OK, request_id, payload)

    @property
    def unsent_bytes(self) -> int:
        return 0 if self._link is None else self._link.unsent_bytes

    async def drain(self) -> None:
        if self._link is None:
            raise LinkLost(f"not connected to {self.address}")
        await self._link.drain()

    def forget(self, request_id: int) -> None:
        """Nobody waits for this answer any more."""
        self._waiting.pop(request_id, None)

    def close(self) -> None:
        if self._link is not None:
            self._link.close()

    # Handler

    def frame(self, link: Link, operation: int, status: int, request_id: int, payload: memoryview) -> None:
        if request_id == 0:
            if self._on_push is not None:
                self._on_push(operation, bytes(payload))
            return
        future = self._waiting.pop(request_id, None)
        if future is not None and not future.done():
            future.set_result((status, bytes(payload)))

    def lost(self, link: Link) -> None:
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(LinkLost(f"the link to {self.address} was lost"))
        if self._on_lost is not None:
            self._on_lost()


def _needed(tls: "Tls | None", address: str) -> "Tls":
    """Promise 7: nothing between machines without certificates."""
    if tls is None:
        raise Refused(f"{address} is reached over the network, which needs TLS")
    return tls


def _tune(sock: socket.socket) -> None:
    for level, option, value in (
            (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS_MAX),
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, IDLE_S),
            (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE_S), (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)):
        sock.setsockopt(level, option, value)


def split_address(address: str) -> tuple[str, str]:
    """``unix:/path`` or ``host:port``. Raises ValueError for anything else."""
    if address.startswith("unix:"):
        return "unix", address[5:]
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit():
        raise ValueError(f"an address is unix:/path or host:port, not {address!r}")
    return "tcp", address


def without_folder(path: str) -> str:
    """The name of the same socket on a disk that takes no new files: in the kernel's own name space. Strangers can take it
    too, but no socket is trusted for its name."""
    return "\0staddle-" + hashlib.sha256(os.fsencode(os.path.abspath(path))).hexdigest()[:40]


def _connected(path: str) -> socket.socket:
    """uvloop knows no names with a zero byte in them. Raises OSError; never waits."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.connect(path)
    except OSError:
        sock.close()
        raise
    return sock


@contextlib.contextmanager
def short_path(path: str) -> Iterator[str]:
    """The same socket by a path that fits the kernel's 108 bytes, however deep the data folder lies."""
    if len(os.fsencode(path)) <= UNIX_PATH_BYTES_MAX:
        yield path
        return
    folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{os.path.basename(path)}"
    finally:
        os.close(folder)
