"""Attacks on where one request ends and the next begins, and on those who wait: smuggling, slow clients, many clients."""

import time

from tests import signing
from tests.attacks.attacker import VICTIM, Attacker, both_schemes
from tests.clients.wire import Wire

SMUGGLED = "GET /-/health/live HTTP/1.1\r\nHost: smuggled\r\n\r\n"


def head(attacker: Attacker, method: str, path: str, extra: str, *, payload: str = signing.UNSIGNED) -> str:
    """A properly signed head with lines added to it."""
    signed = attacker.wire.signed(method, path, payload=payload)
    return f"{method} {path} HTTP/1.1\r\n" + "".join(f"{n}: {v}\r\n" for n, v in signed.items()) + extra + "\r\n"


AMBIGUOUS = {
    "length and chunks": ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
    "chunks and length": ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"),
    "two lengths": ("Content-Length: 0\r\nContent-Length: 5\r\n", ""),
    "list of lengths": ("Content-Length: 0, 5\r\n", ""),
    "plus": ("Content-Length: +5\r\n", "hello"),
    "hexadecimal": ("Content-Length: 0x10\r\n", "hello"),
    "negative": ("Content-Length: -1\r\n", "hello"),
    "space before the colon": ("Content-Length : 5\r\n", "hello"),
    "folded": ("X-A: b\r\n c\r\nContent-Length: 0\r\n", ""),
    "bare LF": ("X-A: b\nContent-Length: 5\r\n", "hello"),
    "bare CR": ("X-A: b\rContent-Length: 5\r\n", "hello"),
    "odd coding": ("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"),
    "coding with a tab": ("Transfer-Encoding: chunked\t,\tidentity\r\n", "0\r\n\r\n"),
    "vertical tab": ("Transfer-Encoding:\x0bchunked\r\n", "0\r\n\r\n"),
    "two codings": ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "0\r\n\r\n"),
    "chunk size 0x5": ("Transfer-Encoding: chunked\r\n", "0x5\r\nhello\r\n0\r\n\r\n"),
    "chunk size -5": ("Transfer-Encoding: chunked\r\n", "-5\r\nhello\r\n0\r\n\r\n"),
    "huge chunk": ("Transfer-Encoding: chunked\r\n", "ffffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
    "wrong end of a chunk": ("Transfer-Encoding: chunked\r\n", "5\r\nhelloXX0\r\n\r\n"),
    "LF behind a chunk": ("Transfer-Encoding: chunked\r\n", "5\r\nhello\n0\r\n\r\n"),
    "NUL": ("X-A: a\0b\r\nContent-Length: 0\r\n", ""),
    "two hosts": ("Host: elsewhere\r\nContent-Length: 0\r\n", ""),
}


@both_schemes
def test_29_requests_that_can_be_read_in_two_ways(attacker: Attacker) -> None:
    """400 and the end of the connection: what follows is never taken for a request."""
    for what, (extra, body) in AMBIGUOUS.items():
        request = head(attacker, "PUT", f"{attacker.bucket}/planted", extra) + body + SMUGGLED
        answer = attacker.raw(request.encode("latin-1"))
        assert answer.startswith(b"HTTP/1.1 400 "), (what, answer[:300])
        assert answer.count(b"HTTP/1.1 ") == 1, (what, answer)
        assert b"connection: close" in answer
        assert b"<RequestId>" in answer


@both_schemes
def test_29_what_is_no_http_at_all(attacker: Attacker) -> None:
    for data in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                 b"\x00" * 1000, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\nHost: a\r\n\r\n", b"\r\n\r\nGET\r\n", b"\xff" * 100,
                 b"CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: a\r\n\r\n", b"GET http://127.0.0.1/ HTTP/1.1\r\nHost: a\r\n\r\n",
                 b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
                 b"G\xc3\x89T / HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /\r\nHost: a\r\n\r\n"):
        answer = attacker.raw(data)
        assert not answer or answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 403 ", b"HTTP/1.1 405 ")), (data, answer)


def test_29_requests_in_one_packet(attacker: Attacker) -> None:
    """Two requests may come together: each is answered, in order, and the body of one is not the head of the next."""
    inner = head(attacker, "GET", attacker.victim, "")
    request = head(attacker, "PUT", f"{attacker.bucket}/a", f"Content-Length: {len(inner)}\r\n") + inner
    answer = attacker.raw((request + head(attacker, "GET", f"{attacker.bucket}/a", "Connection: close\r\n")).encode())
    attacker.stored.add("a")
    assert answer.count(b"HTTP/1.1 200 OK") == 2
    assert answer.endswith(inner.encode())
    assert VICTIM not in answer


def test_heads_that_are_too_long(attacker: Attacker) -> None:
    for extra in ("X-A: " + "b" * 40_000 + "\r\n", "".join(f"X-A{n}: b\r\n" for n in range(4000))):
        answer = attacker.raw(head(attacker, "GET", attacker.victim, extra).encode())
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"<Code>RequestHeaderSectionTooLarge</Code>" in answer
    answer = attacker.raw(f"GET /{'k' * 40_000} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert b"<Code>RequestHeaderSectionTooLarge</Code>" in answer
    answer = attacker.raw(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"b" * 2_000_000)     # and without an end
    assert not answer or b"<Code>RequestHeaderSectionTooLarge</Code>" in answer


@both_schemes
def test_34_slow_clients_do_not_hold_up_others(attacker: Attacker) -> None:
    """Half-sent heads, bodies that stall and readers that don't read, 200 of them; somebody else is served at once."""
    slow: list[Wire] = []
    try:
        for number in range(200):
            wire = Wire(attacker.target)
            slow.append(wire)
            if number % 3 == 0:
                wire.begin("GET", attacker.victim, {})
                wire.more(b"GET ")
            elif number % 3 == 1:
                signed = attacker.wire.signed("PUT", f"{attacker.bucket}/slow", payload=signing.UNSIGNED)
                wire.begin("PUT", f"{attacker.bucket}/slow", {**signed, "content-length": "1000000"})
                wire.more(b"x")
            else:
                wire.begin("GET", attacker.victim, attacker.wire.signed("GET", attacker.victim))
        began = time.monotonic()
        for _ in range(20):
            assert attacker.ask("GET", attacker.victim).body == VICTIM
        assert time.monotonic() - began < 2.0
    finally:
        for wire in slow:
            wire.close()
