"""However the network cuts a stream of requests, the answers are the same; and no bytes at all make the edge stumble.

The connection is driven through a transport in memory, which stops giving when it is told to and changes its protocol
as real ones do.
"""

import asyncio
import hashlib
import itertools
from collections.abc import Callable
from typing import Any

import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from uvicorn.server import ServerState

from gateway.http.limits import Limits
from gateway.http.protocol import protocol_class
from tests.unit.gateway.http.edge import Small

LIMITS = Limits(raw_bytes_min=64, buffer_bytes=256, small_buffer_bytes=32, buffers_max=3, buffers_ahead=2,
                drain_bytes_max=100, fast_rate_min=1, pipelined_max=1000)
"""Everything small, so that a body of a few hundred bytes takes every way there is."""

TURNS_MAX = 20_000


class Memory(asyncio.Transport):
    """`give` hands bytes to the protocol in the given cuts, as far as it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.protocol: Any = None
        self.out = bytearray()
        self.reading = True
        self.closed = False

    def give(self, data: memoryview, cut: int) -> int:
        """How many bytes were taken."""
        if isinstance(self.protocol, asyncio.BufferedProtocol):
            buffer = self.protocol.get_buffer(-1)
            size = min(len(buffer), len(data), cut)
            buffer[:size] = data[:size]
            self.protocol.buffer_updated(size)
            return size
        size = min(cut, len(data))
        self.protocol.data_received(bytes(data[:size]))
        return size

    def write(self, data: Any) -> None:
        self.out += data

    def writelines(self, pieces: Any) -> None:
        for piece in pieces:
            self.out += piece

    def set_protocol(self, protocol: Any) -> None:
        assert not self.reading, "changed in the middle of reading"
        self.protocol = protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True

    abort = close


async def _converse(stream: bytes, cuts: list[int]) -> tuple[bytes, Small, bool]:
    """What came out, who served it, and whether the connection was closed."""
    small = Small()
    small.gate.set()
    config = uvicorn.Config(small, ws="none", lifespan="off", interface="asgi3", proxy_headers=False,  # type: ignore[arg-type]
                            log_config=None)
    config.load()
    loop = asyncio.get_running_loop()
    transport = Memory()
    state = ServerState()
    connection = protocol_class(LIMITS)(config, state, {}, loop)
    transport.protocol = connection
    connection.connection_made(transport)
    left, sizes = memoryview(stream), itertools.cycle(cuts)

    def turn(done: "asyncio.Future[None]") -> None:
        nonlocal left
        if transport.reading and left and not transport.closed:
            left = left[transport.give(left, next(sizes)):]
        done.set_result(None)

    idle = 0
    for _ in range(TURNS_MAX):
        done = loop.create_future()
        loop.call_soon(turn, done)
        await done
        idle = 0 if state.tasks or connection._queue or (left and transport.reading and not transport.closed) else idle + 1
        if idle > 3:
            break
    closed = transport.closed or connection._closing_at is not None
    transport.protocol.connection_lost(None)
    while state.tasks:
        await asyncio.sleep(0)
    pool = connection.shared.pool
    assert pool.out == 0, "a buffer was lost"
    return bytes(transport.out), small, closed


def answers(out: bytes) -> list[tuple[int, bytes]]:
    """Statuses and bodies; fails on anything that is not a sequence of whole answers."""
    found = []
    while out:
        head, mark, out = out.partition(b"\r\n\r\n")
        assert mark, head
        lines = head.split(b"\r\n")
        assert lines[0].startswith(b"HTTP/1.1 ")
        status = int(lines[0].split(b" ")[1])
        headers = dict(line.lower().split(b": ", 1) for line in lines[1:])
        size = int(headers.get(b"content-length", b"0"))
        assert len(out) >= size
        found.append((status, out[:size]))
        out = out[size:]
    return found


def converse(stream: bytes, cuts: list[int]) -> tuple[bytes, Small, bool]:
    return asyncio.run(_converse(stream, cuts))


CUTS = st.lists(st.one_of(st.integers(1, 5), st.integers(1, 2000)), min_size=1, max_size=8)

BODIES = st.one_of(st.binary(max_size=30), st.integers(0, 3000).map(lambda size: bytes(range(256)) * (size // 256 + 1)))


@st.composite
def requests(draw: Callable[..., Any]) -> tuple[bytes, list[tuple[int, bytes]]]:
    """A request and the answers it gets."""
    kind = draw(st.sampled_from(["get", "put", "put", "chunked", "refused", "expect"]))
    if kind == "get":
        return b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n", [(200, b"hello")]
    body = draw(BODIES)
    said = (200, b"%d %s" % (len(body), hashlib.md5(body).hexdigest().encode()))
    path = draw(st.sampled_from([b"/md5", b"/read"]))
    if kind == "put":
        return b"PUT %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (path, len(body), body), [said]
    if kind == "expect":
        # Sent without waiting, as clients do that lost their patience.
        body = body or b"a"
        said = (200, b"%d %s" % (len(body), hashlib.md5(body).hexdigest().encode()))
        return (b"PUT %s HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n%b"
                % (path, len(body), body)), [said]
    if kind == "refused":
        rest = body[:100]
        return b"PUT /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(rest), rest), [(403, b"")]
    chunks = [body[place : place + 700] for place in range(0, len(body), 700)]
    framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return b"PUT %s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%b0\r\n\r\n" % (path, framed), [said]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(requests(), min_size=1, max_size=6), CUTS)
def test_cuts_do_not_matter(sent: list[tuple[bytes, list[tuple[int, bytes]]]], cuts: list[int]) -> None:
    out, _, closed = converse(b"".join(request for request, _ in sent), cuts)
    got = [(status, b"" if status == 403 else body) for status, body in answers(out) if status != 100]
    assert got == [answer for _, expected in sent for answer in expected]
    assert not closed


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(requests(), min_size=1, max_size=4), CUTS, st.data())
def test_damaged_streams_get_whole_answers_and_an_end(
    sent: list[tuple[bytes, list[tuple[int, bytes]]]], cuts: list[int], data: st.DataObject,
) -> None:
    stream = bytearray(b"".join(request for request, _ in sent))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(stream) - 1))
        stream[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
        if not stream:
            return
    out, small, _ = converse(bytes(stream), cuts)
    finals = [answer for answer in answers(out) if answer[0] != 100]
    assert len(finals) <= len(small.served) + 1       # one for each request served, and at most one refusal


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=1, max_size=300), CUTS)
def test_noise(stream: bytes, cuts: list[int]) -> None:
    out, small, closed = converse(stream, cuts)
    assert not small.served
    if out:
        assert closed
        assert [status for status, _ in answers(out)] == [400]
