"""Requests byte by byte, for what no client library would let a test send, or would hide when it comes back."""

import hashlib
import http.client
import socket
import ssl
import time
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from tests import signing
from tests.clients.shell import Target

ANSWER_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: int
    headers: dict[str, str]      # lower-case names
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def element(self, name: str) -> str | None:
        """Text of the first element of that name, as a careless client finds it."""
        begin = self.text.find(f"<{name}>")
        return self.text[begin + len(name) + 2:self.text.index(f"</{name}>", begin)] if begin >= 0 else None

    def elements(self, name: str) -> list[str]:
        return [piece.split(f"</{name}>")[0] for piece in self.text.split(f"<{name}>")[1:]]


class Wire:
    """One connection at a time to a server; opened when needed."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.keys = signing.Keys(access_key=target.access_key, secret_key=target.secret_key, region=target.region)
        self._socket: socket.socket | None = None

    def url(self, path: str) -> str:
        return self.target.url + path

    def signed(self, method: str, path: str, headers: dict[str, str] | None = None, *, body: bytes = b"",
               payload: str | None = None) -> dict[str, str]:
        """Headers with a signature of version 4. `path` is as sent, with its query."""
        return signing.sign_request(method, self.url(path), headers, keys=self.keys, now_s=time.time(),
                                    payload=payload or hashlib.sha256(body).hexdigest())

    def ask(self, method: str, path: str, headers: dict[str, str] | None = None, *, body: bytes = b"",
            payload: str | None = None, framed: bytes | None = None) -> Answer:
        """Sign, send and receive. `framed` is sent in place of `body`, whose length is then not announced."""
        signed = self.signed(method, path, headers, body=body, payload=payload)
        if framed is None and (body or method in ("PUT", "POST")):
            signed.setdefault("content-length", str(len(body)))
        return self.send(method, path, signed, body if framed is None else framed)

    def send(self, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> Answer:
        """Send exactly these headers."""
        self.begin(method, path, headers)
        self.more(body)
        return self.receive(method)

    def begin(self, method: str, path: str, headers: dict[str, str]) -> None:
        if self._socket is None:
            self._socket = self._connect()
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))

    def more(self, data: bytes) -> None:
        assert self._socket is not None
        self._socket.sendall(data)

    def line(self) -> bytes:
        """The next line of the answer, byte by byte, so that nothing more is taken."""
        assert self._socket is not None
        received = b""
        while not received.endswith(b"\r\n"):
            received += (byte := self._socket.recv(1))
            assert byte, f"the server hung up after {received!r}"
        return received

    def receive(self, method: str = "GET") -> Answer:
        assert self._socket is not None
        answer = http.client.HTTPResponse(self._socket, method=method)
        answer.begin()
        body = answer.read()
        headers = {name.lower(): value for name, value in answer.headers.items()}
        if answer.will_close:
            self.close()
        return Answer(status=answer.status, headers=headers, body=body)

    def _connect(self) -> socket.socket:
        parts = urlsplit(self.target.url)
        plain = socket.create_connection((parts.hostname, parts.port), timeout=ANSWER_TIMEOUT_S)
        if not self.target.secure:
            return plain
        context = ssl.create_default_context(cafile=str(self.target.ca) if self.target.ca else None)
        return context.wrap_socket(plain, server_hostname=parts.hostname)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def http_chunks(pieces: Iterable[bytes]) -> bytes:
    """A body in HTTP's own chunked coding."""
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces if piece) + b"0\r\n\r\n"


def unsigned_chunks(data: bytes, trailers: dict[str, str], size: int = 65_536) -> bytes:
    """A body in aws-chunked coding without signatures, with trailers."""
    pieces = [data[start:start + size] for start in range(0, len(data), size)]
    framed = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return framed + b"0\r\n" + "".join(f"{name}:{value}\r\n" for name, value in trailers.items()).encode() + b"\r\n"
