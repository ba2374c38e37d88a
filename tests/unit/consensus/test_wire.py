"""Frames between processes: authenticated both ways, checksummed, multiplexed; strangers get nothing decoded."""

import asyncio
import contextlib
import errno
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path

import pytest
import uvloop
from awscrt.checksums import crc32c

from consensus.core.errors import Refused, Unavailable
from consensus.core.wire import PAYLOAD_BYTES_MAX, Link, LinkLost, WireClient, WireServer, split_address

SECRET = b"s" * 32
Run = Callable[[Coroutine[None, None, None]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    return asyncio.run if request.param == "asyncio" else uvloop.run


class Echo:
    def __init__(self) -> None:
        self.frames = 0
        self.gone = 0

    def frame(self, link: Link, operation: int, status: int, request_id: int, payload: memoryview) -> None:
        self.frames += 1
        if operation == 9:
            raise ValueError("a handler's own bug")
        link.send(operation, 7, request_id, bytes(payload))

    def lost(self, link: Link) -> None:
        self.gone += 1


@contextlib.asynccontextmanager
async def serving(address: str, echo: Echo) -> AsyncIterator[WireServer]:
    server = WireServer(address, SECRET, lambda: echo)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@pytest.mark.parametrize("deep", [False, True])
def test_calls_of_all_sizes_come_back_over_a_unix_socket(run: Run, tmp_path: Path, deep: bool) -> None:
    folder = tmp_path / ("d" * 120) if deep else tmp_path
    folder.mkdir(exist_ok=True)
    address = f"unix:{folder}/x.sock"

    async def main() -> None:
        async with serving(address, Echo()):
            client = WireClient(address, SECRET)
            await client.connect()
            sizes = [0, 1, 19, 16384, 16385, 300_000, 1 << 20, PAYLOAD_BYTES_MAX, 5]
            payloads = [os.urandom(size) for size in sizes]
            answers = await asyncio.gather(*[client.call(3, payload) for payload in payloads])
            assert answers == [(7, payload) for payload in payloads]
            client.close()

    run(main())


def test_a_client_without_the_secret_is_refused_and_nothing_of_its_is_decoded(run: Run, tmp_path: Path) -> None:
    address, echo = f"unix:{tmp_path}/x.sock", Echo()

    async def main() -> None:
        async with serving(address, echo):
            with pytest.raises(Refused):
                await WireClient(address, b"wrong" * 8).connect()
            reader, writer = await asyncio.open_unix_connection(f"{tmp_path}/x.sock")
            writer.write(b"\xff" * 5000)
            assert len(await reader.read(100)) == 38        # the hello, then the end
            assert await reader.read(100) == b""
            writer.close()
        assert echo.frames == 0

    run(main())


def test_a_client_refuses_a_server_that_does_not_know_the_secret(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        done = asyncio.Event()

        async def impostor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(struct.pack("<4sH32s", b"STDL", 1, b"n" * 32))
            await reader.readexactly(64)
            writer.write(b"m" * 32)
            with contextlib.suppress(ConnectionError):
                await reader.read()                          # until the client has gone
                writer.close()
                await writer.wait_closed()
            done.set()

        server = await asyncio.start_unix_server(impostor, f"{tmp_path}/x.sock")
        with pytest.raises(Refused):
            await WireClient(f"unix:{tmp_path}/x.sock", SECRET).connect()
        await done.wait()
        server.close()

    run(main())


@pytest.mark.parametrize(("server", "client", "spoken"), [
    ((1, 1), (1, 1), 1), ((3, 2), (2, 1), 2), ((2, 1), (3, 2), 2), ((3, 3), (2, 1), None), ((2, 1), (3, 3), None),
])
def test_both_sides_speak_the_newest_version_that_both_know(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: tuple[int, int], client: tuple[int, int],
    spoken: int | None,
) -> None:
    """As while machines are upgraded, one after the other."""
    address = f"unix:{tmp_path}/x.sock"

    def be(version: tuple[int, int]) -> None:
        monkeypatch.setattr("consensus.core.wire.PROTOCOL_VERSION", version[0])
        monkeypatch.setattr("consensus.core.wire.PROTOCOL_OLDEST", version[1])

    class As(Link):
        def _shake_hands(self) -> bool:
            be(server if self._server else client)
            return super()._shake_hands()

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            be(server if self._server else client)
            super().connection_made(transport)

    monkeypatch.setattr("consensus.core.wire.Link", As)

    async def main() -> None:
        async with serving(address, Echo()) as listening:
            caller = WireClient(address, SECRET)
            if spoken is None:
                with pytest.raises(Refused, match="speaks versions"):
                    await caller.connect()
                return
            await caller.connect()
            assert await caller.call(3, b"x") == (7, b"x")
            assert caller._link is not None
            assert [link.version for link in (caller._link, *listening._links)] == [spoken, spoken]
            caller.close()

    run(main())


@pytest.mark.parametrize("header", [
    struct.pack("<IIHHQ", 5, crc32c(b"hello") ^ 1, 1, 0, 1) + b"hello",     # damaged on the way
    struct.pack("<IIHHQ", PAYLOAD_BYTES_MAX + 1, 0, 1, 0, 1),               # larger than any frame may be
])
def test_a_damaged_or_giant_frame_ends_the_link(run: Run, tmp_path: Path, header: bytes) -> None:
    address, echo = f"unix:{tmp_path}/x.sock", Echo()

    async def main() -> None:
        async with serving(address, echo):
            client = WireClient(address, SECRET)
            await client.connect()
            future = client.call(1, b"fine")
            assert await future == (7, b"fine")
            waiting = client.answer_to(99)
            assert client._link is not None
            assert client._link._transport is not None
            client._link._transport.write(header)
            with pytest.raises(LinkLost):
                await waiting
        assert (echo.frames, echo.gone) == (1, 1)

    run(main())


def test_calls_in_flight_fail_when_the_server_goes(run: Run, tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/x.sock"

    async def main() -> None:
        lost: list[bool] = []
        client = WireClient(address, SECRET, on_lost=lambda: lost.append(True))
        async with serving(address, Echo()) as server:
            await client.connect()
            waiting = client.answer_to(client.new_request())
            await server.stop()
            with pytest.raises(LinkLost):
                await waiting
        assert lost == [True]
        with pytest.raises(LinkLost):
            await client.call(1)
        with pytest.raises(Unavailable):
            await WireClient(address, SECRET).connect(timeout_s=0.5)

    run(main())


def test_addresses() -> None:
    assert split_address("unix:/a/b") == ("unix", "/a/b")
    assert split_address("[::1]:9") == ("tcp", "[::1]:9")
    for bad in ("", "nowhere", "host:", ":1", "host:port"):
        with pytest.raises(ValueError, match="unix:/path or host:port"):
            split_address(bad)


def test_a_socket_that_can_have_no_name_on_its_disk_is_found_all_the_same(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The disk has become read-only since the file of an earlier life was made."""
    address, name = f"unix:{tmp_path}/x.sock", tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as earlier:
        earlier.bind(str(name))

    def refuse(path: str) -> None:
        raise OSError(errno.EROFS, "Read-only file system", path)

    async def main() -> None:
        monkeypatch.setattr("consensus.core.wire.os.unlink", refuse)
        async with serving(address, Echo()):
            client = WireClient(address, SECRET)
            await client.connect()
            assert await client.call(3, b"hello") == (7, b"hello")
            client.close()
        with pytest.raises(Unavailable):
            await WireClient(address, SECRET).connect()

    run(main())
