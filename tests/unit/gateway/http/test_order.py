"""Answers come in the order of the questions, once each, and early ones don't derail the connection."""

import asyncio
import os
from pathlib import Path

import pytest

from gateway.http.exchange import Exchange
from gateway.http.limits import Limits
from gateway.http.reply import head
from tests.unit.gateway.http.edge import KINDS, PLAIN, Edge, Small, request, run

EXPECT = ("Expect: 100-continue", "expect: 100-Continue")


@pytest.mark.parametrize("kind", KINDS)
def test_pipelined_requests_are_answered_in_order(kind: str, folder: Path) -> None:
    async def talk(edge: Edge) -> None:
        client = await edge.connect()
        paths = [f"/late-{number}" if number % 3 == 0 else "/hello" for number in range(60)]
        client.send(b"".join(request("GET", path) for path in paths))
        assert await client.silent()
        edge.small.gate.set()
        for path in paths:
            answer = await client.response()
            assert answer.body == (path.encode() if path != "/hello" else b"hello")
            assert "connection" not in answer.headers

    run(kind, folder, talk)


@pytest.mark.parametrize("kind", PLAIN)
def test_too_many_pipelined_requests_end_the_connection_in_order(kind: str, folder: Path) -> None:
    async def talk(edge: Edge) -> None:
        client = await edge.connect()
        client.send(request("GET", "/hello") * 1000)
        for _ in range(8):
            assert (await client.response()).body == b"hello"
        answer = await client.response()
        assert b"<Code>SlowDown</Code>" in answer.body
        assert await client.closed() == b""

    run(kind, folder, talk, limits=Limits(pipelined_max=8, shutdown_s=2))


@pytest.mark.parametrize("kind", PLAIN)
def test_one_request_at_a_time(kind: str, folder: Path) -> None:
    async def talk(edge: Edge) -> None:
        client = await edge.connect()
        client.send(request("GET", "/late-1") + request("GET", "/late-2"))
        assert await client.silent()
        assert edge.small.served == [("GET", b"/late-1")]
        edge.small.gate.set()
        assert [(await client.response()).body for _ in range(2)] == [b"/late-1", b"/late-2"]

    run(kind, folder, talk)


@pytest.mark.parametrize("expect", EXPECT)
@pytest.mark.parametrize("size", [10, 300_000])
@pytest.mark.parametrize("kind", KINDS)
def test_continue_is_said_when_the_body_is_asked_for(kind: str, size: int, expect: str, folder: Path) -> None:
    async def talk(edge: Edge) -> None:
        client = await edge.connect()
        for _ in range(2):
            first = await client.ask(request("PUT", "/md5", b"", expect, length=size))
            assert first.status == 100
            answer = await client.ask(b"a" * size)
            assert (answer.status, answer.body[: len(str(size))]) == (200, str(size).encode())
            assert "connection" not in answer.headers

    run(kind, folder, talk)


@pytest.mark.parametrize("expect", EXPECT)
@pytest.mark.parametrize("kind", KINDS)
def test_a_refusal_takes_the_place_of_continue(kind: str, expect: str, folder: Path) -> None:
    async def talk(edge: Edge) -> None:
        client = await edge.connect()
        answer = await client.ask(request("PUT", "/refuse", b"", expect, length=1 << 30))
        assert (answer.status, answer.headers["connection"]) == (403, "close")
        assert await client.closed() == b""

    run(kind, folder, talk)


@pytest.mark.parametrize("kind", PLAIN)
def test_a_chunked_body_may_be_announced_with_expect(kind: str, folder: Path) -> None:
    async def talk(edge: Edge) -> None:
        client = await edge.connect()
        first = await client.ask(request("PUT", "/md5", b"", EXPECT[0], "Transfer-Encoding: chunked"))
        assert first.status == 100
        assert (await client.ask(b"3\r\nabc\r\n0\r\n\r\n")).body.startswith(b"3 ")

    run(kind, folder, talk)


@pytest.mark.parametrize("kind", PLAIN)
def test_http_1_0_is_never_told_to_continue(kind: str, folder: Path) -> None:
    async def talk(edge: Edge) -> None:
        client = await edge.connect()
        client.send(b"PUT /md5 HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        await edge.small.reading.wait()
        assert await client.silent()
        assert (await client.ask(b"abc")).status == 200

    run(kind, folder, talk)


@pytest.mark.parametrize("kind", KINDS)
def test_an_early_answer_with_a_small_rest_keeps_the_connection(kind: str, folder: Path) -> None:
    async def talk(edge: Edge) -> None:
        client = await edge.connect()
        for size in (10, 1000, 200_000):
            answer = await client.ask(request("PUT", "/refuse", b"a" * size))
            assert answer.status == 403
            assert "connection" not in answer.headers
            assert (await client.ask(request("GET", "/hello"))).body == b"hello"

    run(kind, folder, talk)


@pytest.mark.parametrize("kind", KINDS)
def test_an_early_answer_to_a_rest_that_comes_later(kind: str, folder: Path) -> None:
    async def talk(edge: Edge) -> None:
        client = await edge.connect()
        answer = await client.ask(request("PUT", "/refuse", b"a" * 10, length=50_010))
        assert answer.status == 403
        client.send(b"a" * 50_000 + request("GET", "/hello"))
        assert (await client.response()).body == b"hello"

    run(kind, folder, talk)


@pytest.mark.parametrize("kind", KINDS)
def test_an_early_answer_to_a_large_body_arrives_whole_before_the_end(kind: str, folder: Path) -> None:
    """The client is in the middle of sending: a reset would take the answer from it."""
    async def talk(edge: Edge) -> None:
        client = await edge.connect()
        client.send(request("PUT", "/refuse", b"", length=1 << 30))

        async def go_on() -> None:
            for _ in range(64):
                client.send(os.urandom(1 << 16))
                try:
                    await client.writer.drain()
                except ConnectionError:
                    return

        sending = asyncio.create_task(go_on())
        answer = await client.response()
        assert (answer.status, answer.headers["connection"]) == (403, "close")
        await sending
        assert await client.closed() == b""

    run(kind, folder, talk, limits=Limits(linger_s=0.4, sweep_s=0.1, shutdown_s=2))


@pytest.mark.parametrize("kind", PLAIN)
def test_an_early_answer_to_a_chunked_body_closes(kind: str, folder: Path) -> None:
    async def talk(edge: Edge) -> None:
        client = await edge.connect()
        answer = await client.ask(request("PUT", "/refuse", b"", "Transfer-Encoding: chunked") + b"3\r\nabc\r\n")
        assert (answer.status, answer.headers["connection"]) == (403, "close")
        client.send(b"0\r\n\r\n" + request("GET", "/hello"))
        assert await client.closed() == b""
        assert len(edge.small.served) == 1

    run(kind, folder, talk, limits=Limits(linger_s=0.2, sweep_s=0.1, shutdown_s=2))


@pytest.mark.parametrize("kind", PLAIN)
def test_head_and_204_have_no_body(kind: str, folder: Path) -> None:
    async def talk(edge: Edge) -> None:
        client = await edge.connect()
        for asked, status, length in (
            (request("HEAD", "/hello"), 200, "5"), (request("GET", "/empty"), 204, None),
            (request("HEAD", "/refuse"), 403, None),
            (request("HEAD", "/stream"), 200, str(64 << 16)),
        ):
            client.send(asked)
            answer = await client.response(head_only=True)
            assert (answer.status, answer.headers.get("content-length")) == (status, length)
        assert (await client.ask(request("GET", "/hello"))).body == b"hello"

    run(kind, folder, talk)


@pytest.mark.parametrize("kind", KINDS)
def test_streams_come_whole(kind: str, folder: Path) -> None:
    async def talk(edge: Edge) -> None:
        client = await edge.connect()
        for _ in range(3):
            answer = await client.ask(request("GET", "/stream"))
            assert answer.body == b"".join(bytes([number]) * (1 << 16) for number in range(64))

    run(kind, folder, talk)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_that_fails_is_cut_off(kind: str, folder: Path) -> None:
    async def talk(edge: Edge) -> None:
        client = await edge.connect()
        client.send(request("GET", "/cut"))
        came = await client.closed()
        assert b"content-length: 1000" in came or came == b""       # a reset may overtake what was sent
        assert len(came.partition(b"\r\n\r\n")[2]) < 1000

    run(kind, folder, talk)


@pytest.mark.parametrize("kind", PLAIN)
def test_half_closed_clients_get_their_answers(kind: str, folder: Path) -> None:
    """As `printf ... | nc` does."""
    async def talk(edge: Edge) -> None:
        client = await edge.connect()
        client.send(request("GET", "/late-1") + request("GET", "/hello"))
        client.writer.write_eof()
        assert await client.silent()
        edge.small.gate.set()
        assert [(await client.response()).body for _ in range(2)] == [b"/late-1", b"hello"]
        assert await client.closed() == b""

    run(kind, folder, talk)


class Steps:
    """Handlers that wait in every way that asyncio has, in requests whose first step runs without a task."""

    def __init__(self, small: Small) -> None:
        self.small = small

    async def serve(self, exchange: Exchange) -> None:
        said = await getattr(self, exchange.target.decode()[1:])()
        await exchange.reply(200, head("ID", (), len(said)), said.encode())

    async def nothing(self) -> str:
        async with asyncio.timeout(5):
            return "nothing"

    async def too_late(self) -> str:
        try:
            async with asyncio.timeout(0.02):
                await asyncio.Event().wait()
        except TimeoutError:
            return "too late"
        return "no"

    async def in_time(self) -> str:
        async with asyncio.timeout(5):
            await asyncio.sleep(0)
            async with asyncio.timeout(5):
                await asyncio.sleep(0.001)
        try:
            async with asyncio.timeout(0.02):
                await asyncio.sleep(5)
        except TimeoutError:
            return "in time"
        return "no"

    async def group(self) -> str:
        async with asyncio.TaskGroup() as tasks:
            made = [tasks.create_task(asyncio.sleep(0.001, text)) for text in ("a", "b")]
        return "".join(task.result() for task in made)

    async def broken_group(self) -> str:
        async def fail() -> None:
            raise KeyError("a")

        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(fail())
                await asyncio.Event().wait()
        except* KeyError:
            pass
        return "broken"

    async def thread(self) -> str:
        return await asyncio.to_thread(lambda: "thread")

    async def failing_future(self) -> str:
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_exception, KeyError("a"))
        try:
            await future
        except KeyError:
            return "failed"
        return "no"

    async def task(self) -> str:
        await asyncio.sleep(0)
        assert asyncio.current_task() in asyncio.all_tasks()
        return "task"


@pytest.mark.parametrize("kind", PLAIN)
def test_handlers_may_wait_in_any_way(kind: str, folder: Path) -> None:
    async def talk(edge: Edge) -> None:
        client = await edge.connect()
        for path, said in (
            ("nothing", "nothing"), ("too_late", "too late"), ("in_time", "in time"), ("group", "ab"),
            ("broken_group", "broken"), ("thread", "thread"), ("failing_future", "failed"), ("task", "task"),
            ("nothing", "nothing"),
        ):
            assert (await client.ask(request("GET", "/" + path))).body == said.encode()

    run(kind, folder, talk, application=Steps)
