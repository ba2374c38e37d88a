"""Slow clients lose their connection, and nobody else notices them."""

import asyncio
import hashlib
import time
from pathlib import Path

import pytest

from gateway.http.limits import Limits
from tests.unit.gateway.http.edge import KINDS, PLAIN, Edge, request, run

QUICK = Limits(
    head_s=0.3, idle_s=0.6, body_window_s=0.3, write_stall_s=0.3, linger_s=0.2, sweep_s=0.05, shutdown_s=2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_that_does_not_end(kind: str, folder: Path) -> None:
    async def talk(edge: Edge) -> None:
        client = await edge.connect()
        answer = await client.ask(b"GET /hello HTTP/1.1\r\nHost: a\r\nX-A: ")
        assert b"<Code>RequestTimeout</Code>" in answer.body
        assert await client.closed() == b""

    run(kind, folder, talk, limits=QUICK)


@pytest.mark.parametrize("kind", PLAIN)
def test_a_head_that_dribbles_has_no_more_time(kind: str, folder: Path) -> None:
    async def talk(edge: Edge) -> None:
        client = await edge.connect()
        began = time.monotonic()

        async def dribble() -> None:
            while True:
                client.send(b"X-A: b\r\n")
                await asyncio.sleep(0.02)

        client.send(b"GET /hello HTTP/1.1\r\nHost: a\r\n")
        dribbling = asyncio.create_task(dribble())
        answer = await client.response()
        dribbling.cancel()
        assert b"<Code>RequestTimeout</Code>" in answer.body
        assert time.monotonic() - began < 3

    run(kind, folder, talk, limits=QUICK)


@pytest.mark.parametrize("kind", KINDS)
def test_a_connection_that_says_nothing(kind: str, folder: Path) -> None:
    async def talk(edge: Edge) -> None:
        client = await edge.connect()
        assert await client.closed() == b""

    run(kind, folder, talk, limits=QUICK)


@pytest.mark.parametrize("kind", KINDS)
def test_an_idle_connection_is_closed_without_a_word(kind: str, folder: Path) -> None:
    async def talk(edge: Edge) -> None:
        client = await edge.connect()
        assert (await client.ask(request("GET", "/hello"))).status == 200
        began = time.monotonic()
        assert await client.closed() == b""
        assert time.monotonic() - began > QUICK.idle_s / 2

    run(kind, folder, talk, limits=QUICK)


@pytest.mark.parametrize("size", [1000, 1 << 20, None])
@pytest.mark.parametrize("kind", KINDS)
def test_a_body_that_stalls(kind: str, size: int | None, folder: Path) -> None:
    async def talk(edge: Edge) -> None:
        client = await edge.connect()
        if size is None:
            client.send(request("PUT", "/md5", b"", "Transfer-Encoding: chunked") + b"5\r\nabcde\r\n5\r\nab")
        else:
            client.send(request("PUT", "/md5", b"abc", length=size))
        answer = await client.response()
        assert (answer.status, answer.headers["connection"]) == (400, "close")
        assert b"<Code>RequestTimeout</Code>" in answer.body
        assert await client.closed() == b""

    run(kind, folder, talk, limits=QUICK)


@pytest.mark.parametrize("kind", PLAIN)
def test_a_body_below_a_kilobyte_a_second(kind: str, folder: Path) -> None:
    async def talk(edge: Edge) -> None:
        client = await edge.connect()
        client.send(request("PUT", "/md5", b"", length=100_000))

        async def dribble() -> None:
            while True:
                client.send(b"a")
                await asyncio.sleep(0.01)

        dribbling = asyncio.create_task(dribble())
        answer = await client.response()
        dribbling.cancel()
        assert b"<Code>RequestTimeout</Code>" in answer.body

    run(kind, folder, talk, limits=QUICK)


@pytest.mark.parametrize("kind", PLAIN)
def test_a_slow_but_steady_body_has_all_the_time(kind: str, folder: Path) -> None:
    """Ten times the least rate, over several windows."""
    async def talk(edge: Edge) -> None:
        client = await edge.connect()
        began = time.monotonic()
        client.send(request("PUT", "/md5", b"", length=100 * 200))
        for _ in range(100):
            client.send(b"a" * 200)
            await asyncio.sleep(0.01)
        assert (await client.response()).body == b"20000 " + hashlib.md5(b"a" * 20_000).hexdigest().encode()
        assert time.monotonic() - began > 2 * QUICK.body_window_s

    run(kind, folder, talk, limits=QUICK)


@pytest.mark.parametrize("kind", PLAIN)
def test_a_slow_handler_is_not_the_clients_fault(kind: str, folder: Path) -> None:
    async def talk(edge: Edge) -> None:
        client = await edge.connect()
        client.send(request("GET", "/late-1"))
        await asyncio.sleep(3 * QUICK.idle_s)
        edge.small.gate.set()
        assert (await client.response()).body == b"/late-1"

    run(kind, folder, talk, limits=QUICK)


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_that_does_not_read_is_cut_off(kind: str, folder: Path) -> None:
    async def talk(edge: Edge) -> None:
        client = await edge.connect()
        client.writer.transport.pause_reading()
        for _ in range(4):
            client.send(request("GET", "/stream"))
        async with asyncio.timeout(5):
            while edge.server.connections:
                await asyncio.sleep(0.01)

    run(kind, folder, talk, limits=QUICK)


@pytest.mark.parametrize("kind", PLAIN)
def test_the_rest_of_a_refused_body_that_never_comes(kind: str, folder: Path) -> None:
    async def talk(edge: Edge) -> None:
        client = await edge.connect()
        assert (await client.ask(request("PUT", "/refuse", b"a", length=1000))).status == 403
        assert await client.closed() == b""

    run(kind, folder, talk, limits=QUICK)


@pytest.mark.parametrize("kind", PLAIN)
def test_two_hundred_slow_clients_do_not_stop_the_others(kind: str, folder: Path) -> None:
    """A third each: half a head, a large body that stopped, an answer that nobody reads."""
    async def talk(edge: Edge) -> None:
        slow = [await edge.connect() for _ in range(200)]
        for number, client in enumerate(slow):
            client.writer.transport.pause_reading()
            client.send([
                b"GET /hello HTTP/1.1\r\nHost: a\r\nX-A: ", request("PUT", "/md5", b"a" * 100_000, length=1 << 30),
                request("GET", "/stream") * 4,
            ][number % 3])
        quick = await edge.connect()
        for _ in range(50):
            assert (await quick.ask(request("GET", "/hello"))).body == b"hello"
            assert (await quick.ask(request("PUT", "/md5", b"a" * 100_000))).body.startswith(b"100000 ")
        assert edge.server.connections == 201

    run(kind, folder, talk)


@pytest.mark.parametrize("kind", KINDS)
def test_connections_above_the_limit_are_told_so(kind: str, folder: Path) -> None:
    async def talk(edge: Edge) -> None:
        clients = [await edge.connect() for _ in range(3)]
        for client in clients:
            assert (await client.ask(request("GET", "/hello"))).status == 200
        extra = await edge.connect()
        answer = await extra.response()
        assert (answer.status, answer.headers["connection"]) == (503, "close")
        assert b"<Code>SlowDown</Code>" in answer.body
        assert await extra.closed() == b""

    run(kind, folder, talk, limits=Limits(connections_max=3, linger_s=0.2, sweep_s=0.05, shutdown_s=2))
