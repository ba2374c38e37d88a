"""Bodies of every size and framing arrive whole, over both loops and schemes, and the next request finds its place."""

import asyncio
import hashlib
import os
from pathlib import Path

import pytest

from gateway.http.limits import Limits
from tests.unit.gateway.http.edge import KINDS, READ_BYTES_MAX, Client, Edge, request, run

DATA = os.urandom(9 << 20)
SMALL = Limits(buffer_bytes=128 << 10, small_buffer_bytes=16 << 10, buffers_max=2, raw_bytes_min=8 << 10, shutdown_s=2)
"""Little buffers, so that a modest body needs many."""

SIZES = [1, 100, 64 << 10, (64 << 10) + 1, 200_000, 256 << 10, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 9 << 20]


def summary(data: bytes) -> bytes:
    return b"%d %s" % (len(data), hashlib.md5(data).hexdigest().encode())


def chunked(path: str, data: bytes, piece: int, *headers: str) -> bytes:
    lines = [f"PUT {path} HTTP/1.1", "Host: localhost", "Transfer-Encoding: chunked", *headers, "", ""]
    out = ["\r\n".join(lines).encode()]
    for place in range(0, len(data), piece):
        part = data[place : place + piece]
        out.append(b"%x\r\n%b\r\n" % (len(part), part))
    return b"".join([*out, b"0\r\n\r\n"])


@pytest.mark.parametrize("limits", [Limits(shutdown_s=2), SMALL], ids=["usual", "small"])
@pytest.mark.parametrize("kind", KINDS)
def test_bodies_of_all_sizes_one_after_another(kind: str, limits: Limits, folder: Path) -> None:
    async def talk(edge: Edge) -> None:
        client = await edge.connect()
        for size in SIZES:
            for path in ("/md5", "/read") if size <= READ_BYTES_MAX else ("/md5",):
                answer = await client.ask(request("PUT", path, DATA[:size]))
                assert (answer.status, answer.body) == (200, summary(DATA[:size])), (path, size)
        assert (await client.ask(request("GET", "/hello"))).body == b"hello"

    run(kind, folder, talk, limits=limits)


@pytest.mark.parametrize("kind", KINDS)
def test_the_next_request_in_the_same_packets_as_a_large_body(kind: str, folder: Path) -> None:
    async def talk(edge: Edge) -> None:
        client = await edge.connect()
        client.send(b"".join(request("PUT", "/md5", DATA[:size]) + request("GET", "/hello") for size in SIZES))
        for size in SIZES:
            assert (await client.response()).body == summary(DATA[:size])
            assert (await client.response()).body == b"hello"

    run(kind, folder, talk, limits=SMALL)


@pytest.mark.parametrize("piece", [1000, 16 << 10, 1 << 20])
@pytest.mark.parametrize("kind", KINDS)
def test_chunked_bodies(kind: str, piece: int, folder: Path) -> None:
    async def talk(edge: Edge) -> None:
        client = await edge.connect()
        for size in (0, 1, 100_000, 3_000_000):
            for path in ("/md5", "/read"):
                answer = await client.ask(chunked(path, DATA[:size], piece))
                assert (answer.status, answer.body) == (200, summary(DATA[:size]))

    run(kind, folder, talk)


@pytest.mark.parametrize("kind", KINDS)
def test_a_body_that_dribbles_in(kind: str, folder: Path) -> None:
    async def talk(edge: Edge) -> None:
        client = await edge.connect()
        whole = request("PUT", "/md5", DATA[:100_000]) + request("GET", "/hello")
        for place in range(0, len(whole), 7000):
            client.send(whole[place : place + 7000])
            await client.writer.drain()
            await asyncio.sleep(0)
        assert (await client.response()).body == summary(DATA[:100_000])
        assert (await client.response()).body == b"hello"

    run(kind, folder, talk, limits=SMALL)


@pytest.mark.parametrize("kind", KINDS)
def test_many_uploads_at_once_with_few_buffers(kind: str, folder: Path) -> None:
    async def talk(edge: Edge) -> None:
        async def upload(client: Client, number: int) -> bytes:
            return (await client.ask(request("PUT", "/md5", DATA[number : number + 500_000]))).body

        clients = [await edge.connect() for _ in range(12)]
        got = await asyncio.gather(*(upload(client, number) for number, client in enumerate(clients)))
        assert got == [summary(DATA[number : number + 500_000]) for number in range(12)]

    run(kind, folder, talk, limits=SMALL)


@pytest.mark.parametrize("size", [50_000, 500_000])
@pytest.mark.parametrize("kind", ["asyncio-http", "uvloop-http"])
def test_a_body_that_ends_early_is_incomplete(kind: str, size: int, folder: Path) -> None:
    async def talk(edge: Edge) -> None:
        client = await edge.connect()
        client.send(request("PUT", "/md5", DATA[:size], length=size + 10))
        client.writer.write_eof()
        answer = await client.response()
        assert b"<Code>IncompleteBody</Code>" in answer.body
        assert edge.small.errors == ["IncompleteBody"]
        assert await client.closed() == b""

    run(kind, folder, talk)


@pytest.mark.parametrize("size", [50_000, 500_000, None])
@pytest.mark.parametrize("kind", KINDS)
def test_a_client_that_goes_away_ends_the_reader(kind: str, size: int | None, folder: Path) -> None:
    async def talk(edge: Edge) -> None:
        client = await edge.connect()
        if size is None:
            client.send(chunked("/md5", DATA[:50_000], 1000)[:-5])
        else:
            client.send(request("PUT", "/md5", DATA[:size], length=size + 10))
        await edge.small.reading.wait()
        client.writer.transport.abort()
        async with asyncio.timeout(5):
            while not edge.small.errors:
                await asyncio.sleep(0.005)
        assert edge.small.errors == ["IncompleteBody"]

    run(kind, folder, talk)


@pytest.mark.parametrize("kind", KINDS)
def test_read_refuses_what_is_too_large_before_it_comes(kind: str, folder: Path) -> None:
    async def talk(edge: Edge) -> None:
        client = await edge.connect()
        answer = await client.ask(request("PUT", "/read", b"abc", length=READ_BYTES_MAX + 1))
        assert b"<Code>EntityTooLarge</Code>" in answer.body
        assert f"<MaxSizeAllowed>{READ_BYTES_MAX}</MaxSizeAllowed>".encode() in answer.body
        client = await edge.connect()
        answer = await client.ask(chunked("/read", DATA[: READ_BYTES_MAX + 1], 1 << 20))
        assert b"<Code>EntityTooLarge</Code>" in answer.body

    run(kind, folder, talk)


@pytest.mark.parametrize("kind", KINDS)
def test_large_pieces_are_large(kind: str, folder: Path) -> None:
    """That the raw way is taken at all: 9 MiB come in about ten pieces, not in hundreds."""
    async def talk(edge: Edge) -> None:
        client = await edge.connect()
        assert (await client.ask(request("PUT", "/md5", DATA))).body == summary(DATA)
        assert edge.small.pieces < 20

    run(kind, folder, talk, limits=Limits(fast_rate_min=1, shutdown_s=2))
