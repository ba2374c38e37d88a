"""What the head of a request says about its target and its framing, or why it can't be trusted. Pure.

httptools has checked the grammar before. It lets pass some things that we don't: no Host, a Host that is none, a
Transfer-Encoding other than "chunked", HTTP versions but 1.0 and 1.1, a fragment in the target.
"""

from typing import NamedTuple

from gateway.s3.errors import S3Error

HOST_BYTES = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:[]"

NOT_ONE_HOST = "//"
"""In place of a host: names that contradict each other. No host has a slash."""


class Head(NamedTuple):
    target: bytes             # the raw path
    query: bytes              # raw, without the question mark
    length: int | None        # of the body; None for chunks
    expects: bool             # the body is held back until 100 Continue


def read_head(url: bytes, headers: dict[str, str], version: str) -> Head:
    """`headers` have lower-case names; a "host" is put in if HTTP/1.0 left it out. Raises S3Error BadRequest, InvalidURI."""
    if version not in ("1.1", "1.0"):
        raise S3Error("BadRequest", "Only HTTP/1.1 and HTTP/1.0 are spoken here.")
    target, query, host = _split(url, headers.get("host"))
    if host is None:
        if version == "1.1":
            raise S3Error("BadRequest", "A Host header is needed.")
        headers["host"] = ""
    elif host.encode("latin-1").translate(None, HOST_BYTES):
        raise S3Error("BadRequest", "The Host header is malformed.")
    if target[:1] != b"/" or b"#" in url:
        raise S3Error("InvalidURI")
    coding = headers.get("transfer-encoding")
    length: int | None = None
    if coding is None:
        length = int(headers.get("content-length", "0"))
    elif coding.lower() != "chunked" or version != "1.1":
        raise S3Error("BadRequest", "The only Transfer-Encoding is chunked.")
    expects = length != 0 and version == "1.1" and headers.get("expect", "").lower() == "100-continue"
    return Head(target, query, length, expects)


def size_of(url: bytes, headers: dict[str, str]) -> int:
    """Bytes of the head, about as they came: names, values, and four for the rest of each line."""
    return len(url) + sum(len(name) + len(value) + 4 for name, value in headers.items())


def _split(url: bytes, host: str | None) -> tuple[bytes, bytes, str | None]:
    """Path, query and host. The absolute form names a host as well (RFC 9112 §3.2.2)."""
    if url[:1] != b"/":
        scheme, mark, rest = url.partition(b"://")
        if mark and scheme.lower() in (b"http", b"https"):
            authority, slash, path = rest.partition(b"/")
            url = slash + path
            if authority.decode("latin-1") != host:
                host = NOT_ONE_HOST
    path, _, query = url.partition(b"?")
    return path, query, host
