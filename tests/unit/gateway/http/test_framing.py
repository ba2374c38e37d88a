"""What is not plainly one HTTP/1.1 request is refused and the connection closed: where two readings of one byte stream
are possible, requests are smuggled (RFC 9112 §11.2)."""

import asyncio
from pathlib import Path

import pytest

from tests.unit.gateway.http.edge import KINDS, PLAIN, Edge, request, run

SMUGGLED = b"GET /hello-smuggled HTTP/1.1\r\nHost: a\r\n\r\n"

POST = "POST /md5 HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + "Transfer-Encoding: chunked\r\n\r\n"

ATTACKS = {
    "length and chunks": POST + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": POST + "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "two lengths": POST + "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    "two equal lengths": POST + "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "list of lengths": POST + "Content-Length: 3, 3\r\n\r\nabc",
    "plus": POST + "Content-Length: +5\r\n\r\nabcde",
    "hexadecimal": POST + "Content-Length: 0x10\r\n\r\nabcde",
    "negative": POST + "Content-Length: -1\r\n\r\nabcde",
    "empty length": POST + "Content-Length: \r\n\r\n",
    "underscore": POST + "Content-Length: 1_0\r\n\r\nabcdefghij",
    "huge length": POST + "Content-Length: 99999999999999999999999\r\n\r\nabc",
    "bare LF": "GET /hello HTTP/1.1\nHost: a\n\n",
    "bare LF after a header": "GET /hello HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
    "bare CR": "GET /hello HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
    "LF at the end": "GET /hello HTTP/1.1\r\nHost: a\r\n\n",
    "folded header": "GET /hello HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
    "space before colon": "GET /hello HTTP/1.1\r\nHost : a\r\n\r\n",
    "space before a length": POST + "Content-Length : 3\r\n\r\nabc",
    "header without name": "GET /hello HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
    "NUL in a header": "GET /hello HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
    "control in a header": "GET /hello HTTP/1.1\r\nHost: a\r\nX: a\x01b\r\n\r\n",
    "gzip, chunked": POST + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "xchunked": POST + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked, identity": POST + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "two codings": POST + "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": POST + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "identity": POST + "Transfer-Encoding: identity\r\n\r\n",
    "chunks in HTTP/1.0": "POST /md5 HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunk size with LF": CHUNKED + "3\nabc\r\n0\r\n\r\n",
    "chunk size 0x3": CHUNKED + "0x3\r\nabc\r\n0\r\n\r\n",
    "chunk size +3": CHUNKED + "+3\r\nabc\r\n0\r\n\r\n",
    "chunk size with space": CHUNKED + "3 \r\nabc\r\n0\r\n\r\n",
    "chunk size too large": CHUNKED + "fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "chunk extension with LF": CHUNKED + "3;a\nabc\r\n0\r\n\r\n",
    "wrong terminator": CHUNKED + "3\r\nabcXX0\r\n\r\n",
    "LF as terminator": CHUNKED + "3\r\nabc\n0\r\n\r\n",
    "length as trailer": CHUNKED + "0\r\nContent-Length: 5\r\n\r\n",
    "no host": "GET /hello HTTP/1.1\r\n\r\n",
    "two hosts": "GET /hello HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "host with a path": "GET /hello HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "host with user": "GET /hello HTTP/1.1\r\nHost: u@a\r\n\r\n",
    "host list": "GET /hello HTTP/1.1\r\nHost: a, b\r\n\r\n",
    "HTTP/2.0": "GET /hello HTTP/2.0\r\nHost: a\r\n\r\n",
    "HTTP/1.2": "GET /hello HTTP/1.2\r\nHost: a\r\n\r\n",
    "HTTP/0.9": "GET /hello\r\n\r\n",
    "HTTP/2 preface": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "unknown method": "FOO /hello HTTP/1.1\r\nHost: a\r\n\r\n",
    "space in target": "GET /hel lo HTTP/1.1\r\nHost: a\r\n\r\n",
    "tab": "GET\t/hello HTTP/1.1\r\nHost: a\r\n\r\n",
    "space at the end of the line": "GET /hello HTTP/1.1 \r\nHost: a\r\n\r\n",
    "raw UTF-8": "GET /h\xc3\xa9llo HTTP/1.1\r\nHost: a\r\n\r\n",
    "fragment": "GET /hello#x HTTP/1.1\r\nHost: a\r\n\r\n",
    "tunnel": "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "asterisk": "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "two hosts that differ": "GET http://b/hello HTTP/1.1\r\nHost: a\r\n\r\n",
    "other scheme": "GET ftp://a/hello HTTP/1.1\r\nHost: a\r\n\r\n",
    "TLS to a clear-text port": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "nonsense": "\r\n\r\n\0\0\0\0",
}


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("attack", ATTACKS)
def test_refused_with_400_and_closed(kind: str, attack: str, folder: Path) -> None:
    async def talk(edge: Edge) -> None:
        client = await edge.connect()
        answer = await client.ask(ATTACKS[attack].encode("latin-1") + SMUGGLED)
        assert answer.status == 400
        assert answer.headers["connection"] == "close"
        assert answer.headers["x-amz-request-id"]
        assert b"<Error><Code>" in answer.body
        assert await client.closed() == b""
        assert not any(b"smuggled" in target for _, target in edge.small.served)

    run(kind, folder, talk)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attack", ["length and chunks", "wrong terminator", "bare LF", "folded header"])
def test_refused_byte_by_byte_too(kind: str, attack: str, folder: Path) -> None:
    async def talk(edge: Edge) -> None:
        client = await edge.connect()
        for byte in ATTACKS[attack].encode("latin-1"):
            client.send(bytes([byte]))
            await client.writer.drain()
        answer = await client.response()
        assert answer.status == 400
        assert await client.closed() == b""

    run(kind, folder, talk)


@pytest.mark.parametrize("kind", PLAIN)
def test_the_requests_before_the_fault_are_answered_in_order(kind: str, folder: Path) -> None:
    async def talk(edge: Edge) -> None:
        client = await edge.connect()
        client.send(request("GET", "/late-1") + request("GET", "/hello") + ATTACKS["bare LF"].encode() + SMUGGLED)
        edge.small.gate.set()
        answers = [await client.response() for _ in range(3)]
        assert [(answer.status, answer.body[:7]) for answer in answers[:2]] == [(200, b"/late-1"), (200, b"hello")]
        assert answers[2].status == 400
        assert await client.closed() == b""
        assert len(edge.small.served) == 2

    run(kind, folder, talk)


@pytest.mark.parametrize("kind", PLAIN)
def test_a_fault_in_a_body_reaches_its_reader(kind: str, folder: Path) -> None:
    async def talk(edge: Edge) -> None:
        client = await edge.connect()
        client.send(CHUNKED.encode() + b"3\r\nabc\r\n")
        await edge.small.reading.wait()
        answer = await client.ask(b"zz\r\n")
        assert answer.status == 400
        assert edge.small.errors == ["BadRequest"]
        assert await client.closed() == b""

    run(kind, folder, talk)


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("flood", [b"0\r\nX-A: ", b"3;", b"0\r\nX-A: b\r\n"], ids=["trailer", "extension", "trailers"])
def test_trailers_and_extensions_have_an_end(kind: str, flood: bytes, folder: Path) -> None:
    async def talk(edge: Edge) -> None:
        client = await edge.connect()
        client.send(CHUNKED.encode() + b"3\r\nabc\r\n" + flood)

        async def go_on() -> None:
            while True:
                client.send(b"X-B: c\r\n" * 100 if flood.endswith(b"\n") else b"a" * 1000)
                await client.writer.drain()
                await asyncio.sleep(0.001)

        flooding = asyncio.create_task(go_on())
        answer = await client.response()
        flooding.cancel()
        assert answer.status == 400
        assert edge.small.errors == ["MalformedTrailerError"]

    run(kind, folder, talk)


GOOD = {
    "plain": "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n",
    "lower case": "GET /hello HTTP/1.1\r\nhost: a.example:9000\r\n\r\n",
    "IPv6 host": "GET /hello HTTP/1.1\r\nHost: [::1]:9000\r\n\r\n",
    "absolute form": "GET http://a/hello HTTP/1.1\r\nHost: a\r\n\r\n",
    "blank lines before": "\r\n\r\nGET /hello HTTP/1.1\r\nHost: a\r\n\r\n",
    "query": "GET /hello?a=%20b&c HTTP/1.1\r\nHost: a\r\n\r\n",
    "latin-1 header": "GET /hello HTTP/1.1\r\nHost: a\r\nx-amz-meta-a: \xe9\r\n\r\n",
    "empty header": "GET /hello HTTP/1.1\r\nHost: a\r\nx-amz-meta-a:\r\n\r\n",
}


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("good", GOOD)
def test_served(kind: str, good: str, folder: Path) -> None:
    async def talk(edge: Edge) -> None:
        client = await edge.connect()
        for _ in range(2):
            answer = await client.ask(GOOD[good].encode("latin-1"))
            assert (answer.status, answer.body) == (200, b"hello")
            assert "connection" not in answer.headers

    run(kind, folder, talk)


@pytest.mark.parametrize("kind", PLAIN)
def test_an_upgrade_is_declined_by_serving_the_request(kind: str, folder: Path) -> None:
    async def talk(edge: Edge) -> None:
        client = await edge.connect()
        answer = await client.ask(request("GET", "/hello", b"", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"))
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await client.closed() == b""

    run(kind, folder, talk)


@pytest.mark.parametrize("kind", PLAIN)
def test_http_1_0_and_connection_close_end_the_connection(kind: str, folder: Path) -> None:
    async def talk(edge: Edge) -> None:
        for asked in (b"GET /hello HTTP/1.0\r\n\r\n", request("GET", "/hello", b"", "Connection: close")):
            client = await edge.connect()
            answer = await client.ask(asked + SMUGGLED)
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            assert await client.closed() == b""
        assert len(edge.small.served) == 2

    run(kind, folder, talk)


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_may_be_16_kib_and_no_more(kind: str, folder: Path) -> None:
    async def talk(edge: Edge) -> None:
        client = await edge.connect()
        answer = await client.ask(request("GET", "/hello", b"", "X-A: " + "a" * 15_000))
        assert answer.status == 200
        for asked in (
            request("GET", "/hello", b"", "X-A: " + "a" * 17_000),
            request("GET", "/hello-" + "a" * 17_000),
            request("GET", "/hello", b"", *(f"X-{number}: a" for number in range(3000))),
            b"GET /hello HTTP/1.1\r\nX-A: " + b"a" * 17_000,            # and it does not end
            b"\r\n" * 9_000,
        ):
            client = await edge.connect()
            answer = await client.ask(asked)
            assert answer.status == 400
            assert b"<Code>RequestHeaderSectionTooLarge</Code>" in answer.body
            assert await client.closed() == b""

    run(kind, folder, talk)


@pytest.mark.parametrize("kind", PLAIN)
def test_a_body_in_the_same_packet_does_not_count_as_head(kind: str, folder: Path) -> None:
    async def talk(edge: Edge) -> None:
        client = await edge.connect()
        answer = await client.ask(request("PUT", "/md5", b"a" * 60_000))
        assert answer.body.startswith(b"60000 ")

    run(kind, folder, talk)
