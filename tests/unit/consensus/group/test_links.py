"""The post over real links: who may send, what closes a link, and that a lost one comes back."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from consensus.core.errors import Refused
from consensus.core.tls import Tls
from consensus.core.wire import Link, WireClient, WireServer
from consensus.group import links, messages
from consensus.group.links import LinkPost
from consensus.group.messages import Probe, Probed, Voted, encode

pytestmark = pytest.mark.anyio

SECRET = b"s" * 32


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Place:
    """A member as far as its post goes."""

    def __init__(self, name: str, address: str, tls: Tls | None) -> None:
        self.name, self.address, self.tls = name, address, tls
        self.got: list[tuple[str, int, bytes]] = []
        self.events: list[str] = []
        self.accepted: list[Link] = []
        self.post = LinkPost(name, address, SECRET, tls=tls)
        self.post.start(self._receive, self._connected, self._lost_to)

    def _connected(self, name: str) -> None:
        self.events.append(f"+{name}")

    def _lost_to(self, name: str) -> None:
        self.events.append(f"-{name}")

    def _receive(self, name: str, operation: int, payload: "bytes | memoryview") -> None:
        messages.decode(operation, payload)
        self.got.append((name, operation, bytes(payload)))

    async def listen(self) -> None:
        self.server = WireServer(self.address, SECRET, lambda: self, tls=self.tls)
        await self.server.start()

    def frame(self, link: Link, operation: int, status: int, request_id: int, payload: memoryview) -> None:
        self.accepted.append(link)
        try:
            self.post.frame(link, operation, payload)
        except Refused:
            link.close()

    def lost(self, link: Link) -> None:
        self.post.lost(link)

    async def stop(self) -> None:
        await self.post.stop()
        await self.server.stop()


Make = Callable[[str, str | None], Awaitable[Place]]


@pytest.fixture(params=["unix", "tls"])
async def make(request: Any, tmp_path: Path) -> AsyncIterator[Make]:
    made: list[Place] = []

    async def one(name: str, certificate: str | None = None) -> Place:
        if request.param == "unix":
            place = Place(name, f"unix:{tmp_path}/{name}.{len(made)}", None)
        else:
            place = Place(name, f"127.0.0.1:{_free()}", Tls(SECRET, certificate or f"{name}/meta"))
        await place.listen()
        made.append(place)
        return place

    one.tls = request.param == "tls"                                  # type: ignore[attr-defined]
    yield one
    for place in made:
        await place.stop()


def _free() -> int:
    """Below the ephemeral range: a dialling process could take it otherwise."""
    for port in range(23_400, 23_500):
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


PROBE = encode(Probe(3, 4))
PROBED = encode(Probed(3, b"i", 4))


async def test_requests_go_over_our_link_and_answers_back_over_it(make: Make) -> None:
    a, b = await make("a", None), await make("b", None)
    a.post.keep({"b": b.address})
    await until(lambda: a.events == ["+b"])
    a.post.send("b", *PROBE)
    await until(lambda: b.got == [("a", *PROBE)])
    b.post.answer("a", *PROBED)
    await until(lambda: a.got == [("b", *PROBED)])


async def test_who_dials_is_dialled_as_long_as_its_link_lives(make: Make) -> None:
    a, b = await make("a", None), await make("b", None)
    a.post.keep({"b": b.address})
    await until(lambda: b.events == ["+a"])
    a.post.keep({})
    await until(lambda: b.events == ["+a", "-a"])
    assert a.events == ["+b", "-b"]


async def test_a_lost_link_comes_back(make: Make) -> None:
    a, b = await make("a", None), await make("b", None)
    a.post.keep({"b": b.address})
    await until(lambda: a.events == ["+b"])
    await b.server.stop()
    await until(lambda: a.events == ["+b", "-b"])
    await asyncio.sleep(0.3)
    await b.listen()
    await until(lambda: a.events == ["+b", "-b", "+b"])
    a.post.redial("b")
    await until(lambda: a.events == ["+b", "-b"] * 2 + ["+b"])


async def test_another_one_at_the_address_is_nobody(make: Make) -> None:
    """After a machine was moved, its address may be somebody else's."""
    if not make.tls:                                                  # type: ignore[attr-defined]
        pytest.skip("sockets of one machine have no certificates")
    a, b = await make("a", None), await make("b", None)
    a.post.keep({"c": b.address})
    await asyncio.sleep(0.5)
    assert a.events == []
    a.post.send("c", *PROBE)
    await asyncio.sleep(0.1)
    assert b.got == []


@pytest.mark.parametrize("certificate", ["b/meta", "a/node-1", "a/gateway-1"])
async def test_who_says_another_name_than_its_certificate_is_closed(make: Make, certificate: str) -> None:
    if not make.tls:                                                  # type: ignore[attr-defined]
        pytest.skip("sockets of one machine have no certificates")
    a, b = await make("a", certificate), await make("b", None)
    a.post.keep({"b": b.address})
    await until(lambda: "-b" in a.events)
    assert b.got == []
    assert b.events == []


@pytest.mark.parametrize("first", ["nothing", "garbage", "an answer", "an old version"])
async def test_what_no_member_sends_closes_the_link(make: Make, first: str) -> None:
    b = await make("b", None)
    gone = asyncio.Event()
    client = WireClient(b.address, SECRET, on_lost=gone.set, tls=None if b.tls is None else Tls(SECRET, "a/meta"))
    await client.connect()
    hello = encode(messages.Hello(messages.VERSION + (first == "an old version"), "a", "", False))
    if first != "nothing":
        client.post(hello[0], 0, hello[1])
    if first == "garbage":
        client.post(messages.APPEND, 0, b"\xc1 no message")
    elif first == "an answer":
        client.post(PROBED[0], 0, PROBED[1])
    else:
        client.post(PROBE[0], 0, PROBE[1])
    async with asyncio.timeout(5):
        await gone.wait()
    assert b.got == []


async def test_a_question_in_place_of_an_answer_closes_the_link(make: Make) -> None:
    a, b = await make("a", None), await make("b", None)
    a.post.keep({"b": b.address})
    await until(lambda: a.events == ["+b"] and bool(b.accepted))
    b.accepted[0].send(PROBE[0], 0, 0, PROBE[1])
    await until(lambda: "-b" in a.events)
    assert a.got == []


async def test_a_link_that_takes_nothing_is_given_up(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "UNSENT_BYTES_MAX", 1 << 20)
    a, b = await make("a", None), await make("b", None)
    a.post.keep({"b": b.address})
    await until(lambda: a.events == ["+b"] and bool(b.accepted))
    transport: Any = b.accepted[0]._transport
    transport.pause_reading()
    large = encode(messages.Append(1, 1, 1, 1, [(1, bytes(1 << 20))]))
    for _ in range(20):
        a.post.send("b", *large)
    await until(lambda: "-b" in a.events)
    assert len(b.got) < 20


async def test_an_address_that_is_none_is_waited_for(make: Make) -> None:
    a, b = await make("a", None), await make("b", None)
    a.post.keep({"b": "no address"})
    await asyncio.sleep(0.2)
    a.post.keep({"b": b.address})
    await until(lambda: a.events == ["+b"])
    assert isinstance(messages.decode(*encode(Voted(1, 1, b"i", False, False))), Voted)
