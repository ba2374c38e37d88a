"""What a machine answers to those that want into its cluster: at the port 100 above that of `cluster_listen`, over TLS.

    the door:  STDR, version (u16), length (u16), the certificate of the cluster's authority (DER)
    guest:     STDR, version (u16), kind (u16), name (32 bytes, padded with zeros), 16 random bytes of the guest's own,
               token id (8), token secret (32)
    the door:  status (u16), length (u32), and so many bytes: JSON of a Welcome, or a sentence

MEMBER  shows a certificate of the cluster, so it has the secret already: it gets the root key, and is told whether there
        is a cluster yet. The rest is the metadata members' (MEET and JOIN in consensus/protocol.py).
TOKEN   shows a join token that the log spends at that moment, and gets the secret too.

A stranger's bytes are a frame of fixed length, taken apart at fixed places and compared. One request for each connection.
"""

import asyncio
import contextlib
import logging
import re
import secrets
import struct
from collections.abc import Awaitable, Callable

import msgspec
from cryptography.hazmat.primitives.serialization import Encoding

from consensus.core.errors import ClusterError, Refused
from consensus.core.tls import Tls, name_in, peer_of
from consensus.core.wire import split_address
from gateway.cluster.tokens import ID_BYTES, SECRET_BYTES, hash_of, visitor
from gateway.identities import Identity

log = logging.getLogger("staddle.door")

MAGIC, VERSION = b"STDR", 1
MEMBER, TOKEN = 1, 2
OK, REFUSED, TRY_AGAIN = 0, 1, 2

HELLO = struct.Struct("<4sHH")
REQUEST = struct.Struct(f"<4sHH32s16s{ID_BYTES}s{SECRET_BYTES}s")
ANSWER = struct.Struct("<HI")
ANSWER_BYTES_MAX = 64 << 10
AUTHORITY_BYTES_MAX = 4096

HANG_UP_S = 1.0
"""Of a connection that is closed: TLS says goodbye, and the other side may be gone."""

PATIENCE_S = 15.0
"""Of a whole visit; spending a token takes a commit."""

STRANGERS_MAX = 64
"""Without a certificate, at once: whoever comes beyond is sent away. Holders of tokens come once in a machine's life, and each
visitor costs some memory. Members don't wait for strangers."""

NAME = re.compile(rb"[a-z0-9-]{1,32}")


class RootKey(msgspec.Struct, frozen=True, kw_only=True):
    access_key: str
    secret_key: str


class Welcome(msgspec.Struct, frozen=True, kw_only=True):
    """`life` is random for each life of a door: whoever knocks at its own finds out by it. `root` is None as long as this
    machine has none either; `secret` (hex) is for holders of tokens only."""

    name: str
    life: str
    may_begin: bool
    root: RootKey | None = None
    secret: str = ""
    peers: tuple[str, ...] = ()


class NotNow(Exception):
    """A sentence: not refused, but it cannot be done now."""


Spend = Callable[[str, bytes, str], Awaitable[tuple[str, ...]]]
"""Spends the token of this id and hash for a machine's visit, and tells where the members of the metadata are. Raises Refused
with a sentence, ClusterError."""


class Door:
    """Answers from `start` to `stop`. `root` is set once this machine knows the root key."""

    def __init__(self, address: str, secret: bytes, tls: Tls, *, name: str, may_begin: bool, peers: Callable[[], tuple[str, ...]],
                 spend: Spend) -> None:
        self.address, self._secret, self._tls, self._name, self._may_begin = address, secret, tls, name, may_begin
        self._peers, self._spend = peers, spend
        self.life = secrets.token_hex(16)
        self.root: Identity | None = None
        authority = tls.authority.certificate.public_bytes(Encoding.DER)
        self._hello = HELLO.pack(MAGIC, VERSION, len(authority)) + authority
        self._server: asyncio.Server | None = None
        self._strangers = self.visited = 0

    async def start(self) -> None:
        """Raises OSError when the address is taken or not ours."""
        host, port = split_address(self.address)[1].rsplit(":", 1)
        self._server = await asyncio.start_server(
            self._visit, host.strip("[]"), int(port), ssl=self._tls.open_server(), ssl_handshake_timeout=PATIENCE_S, limit=4096)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _visit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tls.renew_if_due()
        certified = name_in(writer.get_extra_info("peercert"))
        self._strangers += not certified
        self.visited += 1
        try:
            if certified or self._strangers <= STRANGERS_MAX:
                async with asyncio.timeout(PATIENCE_S):
                    writer.write(self._hello)
                    raw = await reader.readexactly(REQUEST.size)
                    status, answer = await self._answer(raw, certified)
                    writer.write(ANSWER.pack(status, len(answer)) + answer)
                    await writer.drain()
                    await reader.read(1)                   # it has our answer, and goes
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            log.info("a visitor at the door went away: %r", error)
        finally:
            self._strangers -= not certified
            await hang_up(writer)

    async def _answer(self, raw: bytes, certified: str) -> tuple[int, bytes]:
        magic, version, kind, padded, nonce, token_id, token_secret = REQUEST.unpack(raw)
        name = padded.rstrip(b"\0")
        if magic != MAGIC or version != VERSION:
            return REFUSED, f"this door speaks version {VERSION}: is the same Staddle on both machines?".encode()
        if not NAME.fullmatch(name):
            return REFUSED, b"a machine's name is 1 to 32 of a-z, 0-9 and '-'"
        guest = name.decode()
        if kind == MEMBER and peer_of(certified).machine == guest:
            return OK, self._welcome("")
        if kind != TOKEN:
            return REFUSED, b"no certificate of this cluster for that name"
        try:
            if self.root is None:
                raise NotNow("this machine has no cluster yet itself")
            if guest == self._name:
                raise Refused(f"this machine is called {guest} itself: give the new one another --name")
            members = await self._spend(token_id.hex(), hash_of(token_secret), visitor(guest, nonce))
        except Refused as error:
            log.warning("refused to let machine %s in: %s", guest, error)
            return REFUSED, str(error).encode()
        except (ClusterError, NotNow) as error:
            return TRY_AGAIN, str(error).encode()
        log.warning("machine %s was let in with token %s", guest, token_id.hex())
        return OK, self._welcome(self._secret.hex(), members)

    def _welcome(self, secret: str, members: tuple[str, ...] = ()) -> bytes:
        root = None if self.root is None else RootKey(access_key=self.root.access_key, secret_key=self.root.secret_key)
        return msgspec.json.encode(Welcome(
            name=self._name, life=self.life, may_begin=self._may_begin, root=root, secret=secret,
            peers=tuple(dict.fromkeys((*self._peers(), *members)))))


async def hang_up(writer: asyncio.StreamWriter) -> None:
    """Close a connection, and wait a moment for the other side to see it."""
    writer.close()
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(HANG_UP_S):
            await writer.wait_closed()
