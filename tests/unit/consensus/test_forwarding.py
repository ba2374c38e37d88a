"""What is passed on to a leader that goes away, and indices that readers share."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from consensus import protocol
from consensus.core.errors import Unavailable
from consensus.core.wire import OK, Link, WireClient, WireServer
from consensus.forwarding import PASSED_ON, WAITING_BYTES_MAX, Forwarder
from consensus.link import MemberLink
from consensus.moments import ROUNDS_MAX, Moments
from tests.unit.consensus.members import SECRET
from tests.unit.consensus.trio import Trio

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> object:
    return ("asyncio", {"use_uvloop": True})


class Member:
    """Answers what it is told to; keeps what came."""

    def __init__(self, answer: Callable[[Link, int, int], None]) -> None:
        self.answer, self.came = answer, list[int]()

    def frame(self, link: Link, operation: int, status: int, request_id: int, payload: memoryview) -> None:
        self.came.append(operation)
        self.answer(link, operation, request_id)

    def lost(self, link: Link) -> None:
        """Nothing is kept of it."""


def echo(link: Link, operation: int, request_id: int) -> None:
    link.send(operation, OK, request_id, b"done")


async def test_what_a_lost_leader_was_asked_is_unknown_unless_it_may_be_asked_again(tmp_path: Path) -> None:
    leader = Member(lambda link, operation, request_id: link.close())
    server = WireServer(f"unix:{tmp_path}/l.sock", SECRET, lambda: leader)
    await server.start()
    forwarder = Forwarder(SECRET, None, lambda: ("m1", server.address))
    for operation, status in ((protocol.SUBMIT, protocol.UNKNOWN), (protocol.JOIN, protocol.UNKNOWN),
                              (protocol.PING, protocol.UNAVAILABLE), (protocol.BACKUP_TAKE, protocol.UNAVAILABLE)):
        told: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        forwarder._pass_on(operation, b"", lambda code, answer, told=told: told.set_result(code))  # type: ignore[misc]
        assert await told == status
    assert leader.came == [operation | PASSED_ON for operation in
                           (protocol.SUBMIT, protocol.JOIN, protocol.PING, protocol.BACKUP_TAKE)]
    await forwarder.stop()
    await server.stop()


async def test_what_was_not_sent_is_unavailable_and_what_waits_is_bounded(tmp_path: Path) -> None:
    known: list[tuple[str, str]] = []
    forwarder = Forwarder(SECRET, None, lambda: known[0] if known else None)
    with pytest.raises(Unavailable, match="no leader"):
        await forwarder.ask(protocol.SUBMIT, b"")
    known.append(("m1", f"unix:{tmp_path}/nobody.sock"))
    forwarder.changed()
    asking = [asyncio.create_task(forwarder.ask(protocol.SUBMIT, bytes(1 << 20))) for _ in range((WAITING_BYTES_MAX >> 20) + 1)]
    for error in await asyncio.gather(*asking, return_exceptions=True):
        assert isinstance(error, Unavailable), "no link, so nothing was sent"
    await forwarder.stop()


async def test_a_frame_is_passed_on_once(tmp_path: Path) -> None:
    """Two members that each take the other for the leader would send it to and fro."""
    trio = Trio(tmp_path)
    await trio.serve()
    leader = await trio.led()
    follower = next(name for name in trio.names if name != leader)
    wire = WireClient(trio.address(follower), SECRET)
    await wire.connect()
    assert (await wire.call(protocol.PING, protocol.encode([])))[0] == OK
    status, answer = await wire.call(protocol.PING | PASSED_ON, protocol.encode([]))
    assert (status, answer) == (protocol.UNAVAILABLE, b"this member does not lead")
    wire.close()
    await trio.close()


async def test_readers_of_a_moment_share_an_index_and_a_request_its_own(tmp_path: Path) -> None:
    index, held = 0, list[Callable[[], None]]()
    hold = False

    def answer(link: Link, operation: int, request_id: int) -> None:
        nonlocal index
        if operation == protocol.WATCH:
            link.send(operation, OK, request_id, protocol.encode(protocol.Serving(epoch="e", generation=1, alone=False)))
            return
        index += 1
        body = protocol.encode(index)
        if hold:
            held.append(lambda: link.send(operation, OK, request_id, body))
        else:
            link.send(operation, OK, request_id, body)

    server = WireServer(f"unix:{tmp_path}/m.sock", SECRET, lambda: Member(answer))
    await server.start()
    link = MemberLink(server.address, SECRET, on_up=lambda: None)
    link.start()
    try:
        await link.wait(5)
        moments = Moments(link)
        assert len(set(await asyncio.gather(*(moments.index() for _ in range(100))))) == 1
        first = await moments.index()
        assert await moments.index() > first, "who comes later needs a later one"
        hold, late = True, []
        for number in range(20):
            late.append(asyncio.create_task(moments.index()))
            while len(held) < min(number + 1, ROUNDS_MAX):
                await asyncio.sleep(0.001)
        before = index
        hold = False
        for release in held:
            release()
        await asyncio.gather(*late)
        assert index - before <= ROUNDS_MAX, "those who came while others were asked share the next"
        with moments.one():
            first = await moments.index()
            assert {await moments.index() for _ in range(5)} == {first}
            moments.passed()
            assert await moments.index() > first, "the request has committed something"
        with moments.one():
            beside = asyncio.create_task(moments.index())
            await asyncio.sleep(0)
            moments.passed()
            before = await beside
            assert await moments.index() > before, "what was asked for before it had committed is not for what comes after"
        later = await moments.index()
        assert await moments.index() > later, "no request, no moment"
    finally:
        await link.stop()
        await server.stop()
