"""A request as S3 sees it: raw bytes of path and query kept for signatures, names and values decoded once. Frozen."""

import math
from collections.abc import AsyncIterator
from typing import Protocol
from urllib.parse import unquote_to_bytes

import msgspec


class Body(Protocol):
    """The undecoded body (HTTP chunking already removed). Pulled, so a slow reader slows the sender."""

    length: int | None            # Content-Length; None for chunked transfer

    def __aiter__(self) -> AsyncIterator[bytes | memoryview]:
        """Pieces as they arrive. A piece is valid only until the next one is asked for. Asking for the first piece
        sends ``100 Continue`` if the client waits for it. Raises S3Error IncompleteBody, RequestTimeout."""

    async def read(self, limit: int) -> bytes:
        """The whole body; S3Error EntityTooLarge above `limit` bytes."""


class S3Request(msgspec.Struct, frozen=True, kw_only=True):
    """A msgspec Struct because one is made for every request: a frozen dataclass takes ten times as long."""

    id: str                       # x-amz-request-id
    method: str
    raw_path: bytes               # as sent, before percent-decoding, without the query
    raw_query: bytes
    headers: dict[str, str]       # lower-case names, latin-1 values; repeated headers joined by "," in order
    query: dict[str, str]         # decoded; a name without value has ""; first occurrence wins
    bucket: str                   # "" for the service itself
    key: str                      # "" for a bucket; else decoded UTF-8
    host_style: bool              # the bucket came from the Host header
    secure: bool                  # TLS
    remote: str                   # the peer's address
    now_ms: int                   # arrival, wall clock
    body: Body
    tls: str = ""                 # its version, as "TLSv1.3"; "" without TLS
    arrived: float = math.inf     # its head, by time.perf_counter(); what is read after that shows all it may know of

    def header(self, name: str) -> str | None:
        return self.headers.get(name)


def decode_query(raw: bytes) -> list[tuple[str, str]]:
    """Names and values in order, percent-decoded; '+' is a space (S3_SEMANTICS §1). Bytes that aren't UTF-8 become U+FFFD."""
    pairs = []
    for item in raw.split(b"&"):
        if item:
            name, _, value = item.replace(b"+", b" ").partition(b"=")
            name_text = unquote_to_bytes(name).decode("utf-8", "replace")
            pairs.append((name_text, unquote_to_bytes(value).decode("utf-8", "replace")))
    return pairs
