"""Links between machines: both sides show a certificate of the cluster, and strangers get nothing."""

import asyncio
import contextlib
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Callable, Coroutine

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from consensus.core import tls as tls_module
from consensus.core.errors import Refused, Unavailable
from consensus.core.tls import LEAF_S, Authority, Peer, Tls, peer_of
from consensus.core.wire import PAYLOAD_BYTES_MAX, Link, WireClient, WireServer

SECRET, OTHER = b"s" * 32, b"o" * 32
HOUR, DAY = 3600.0, 86_400.0
Run = Callable[[Coroutine[None, None, None]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    return asyncio.run if request.param == "asyncio" else uvloop.run


@pytest.fixture
def address() -> str:
    """Free, and below the ports that the system gives to those who dial."""
    for port in range(21_000, 21_400):
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return f"127.0.0.1:{port}"
    raise AssertionError("no free port")


class Echo:
    """Answers with what came; remembers who asked."""

    def __init__(self) -> None:
        self.peers: list[str] = []
        self.links = 0

    def frame(self, link: Link, operation: int, status: int, request_id: int, payload: memoryview) -> None:
        self.peers.append(link.peer)
        link.send(operation, 0, request_id, bytes(payload))

    def lost(self, link: Link) -> None:
        pass


def at(difference_s: float) -> Callable[[], float]:
    return lambda: time.time() + difference_s


@contextlib.asynccontextmanager
async def serving(address: str, echo: Echo, tls: Tls) -> AsyncIterator[WireServer]:
    server = WireServer(address, SECRET, lambda: echo, tls=tls)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def answered(address: str, tls: Tls | None, secret: bytes = SECRET) -> str:
    """One call; the name of who answered."""
    client = WireClient(address, secret, tls=tls)
    try:
        await client.connect()
        assert await client.call(3, b"hello") == (0, b"hello")
        return client.peer
    finally:
        client.close()


def test_each_side_knows_the_other_by_its_certificate(run: Run, address: str) -> None:
    echo = Echo()

    async def main() -> None:
        async with serving(address, echo, Tls(SECRET, "n1/meta")):
            assert await answered(address, Tls(SECRET, "n2/gateway-1")) == "n1/meta"
            client = WireClient(address, SECRET, tls=Tls(SECRET, "n3/node-1"))
            await client.connect()
            sizes = [0, 1, 16384, 300_000, PAYLOAD_BYTES_MAX, 5]
            answers = await asyncio.gather(*[client.call(3, b"x" * size) for size in sizes])
            assert [len(payload) for _, payload in answers] == sizes
            client.close()
        assert echo.peers == ["n2/gateway-1"] + ["n3/node-1"] * len(sizes)

    run(main())


def test_the_authority_is_the_same_bytes_on_every_machine_and_another_one_for_another_secret() -> None:
    raw = [Authority(secret).certificate.public_bytes(Encoding.DER) for secret in (SECRET, SECRET, OTHER)]
    assert raw[0] == raw[1] != raw[2]
    assert peer_of("n1/node-2") == Peer("n1", "node-2")


class _Impostor(Tls):
    """Shows a leaf of another authority than the one that it trusts."""

    def __init__(self, name: str) -> None:
        super().__init__(SECRET, name)
        stolen = Authority(OTHER).leaf(name, time.time())
        for context in (self._server, self._client):
            tls_module._load(context, stolen)


class _Nameless(Tls):
    """Trusts us and shows nothing."""

    def __init__(self) -> None:
        super().__init__(SECRET, "nobody/meta")
        self._client = self._context(ssl.PROTOCOL_TLS_CLIENT)


@pytest.mark.parametrize("stranger", [
    lambda: Tls(OTHER, "n1/meta"), lambda: _Impostor("n1/meta"), _Nameless,
    lambda: Tls(SECRET, "n1/meta", now=at(-LEAF_S - HOUR)), lambda: Tls(SECRET, "n1/meta", now=at(DAY + HOUR)),
], ids=["of another cluster", "certificate of another cluster", "no certificate", "expired", "not yet valid"])
def test_a_stranger_gets_nothing_and_none_of_its_bytes_are_read(
        run: Run, address: str, stranger: Callable[[], Tls]) -> None:
    echo = Echo()

    async def main() -> None:
        async with serving(address, echo, Tls(SECRET, "n2/meta")) as server:
            with pytest.raises(Unavailable):
                await answered(address, stranger())
            assert not echo.peers
            assert await answered(address, Tls(SECRET, "n3/meta")) == "n2/meta"
            while server._links:                             # of the strangers too: nothing is kept
                await asyncio.sleep(0.001)

    run(main())


def test_a_certificate_is_not_enough_without_the_secret(run: Run, address: str) -> None:
    echo = Echo()

    async def main() -> None:
        async with serving(address, echo, Tls(SECRET, "n2/meta")):
            with pytest.raises(Unavailable):
                await answered(address, Tls(SECRET, "n1/meta"), secret=OTHER)
        assert not echo.peers

    run(main())


def test_a_client_refuses_a_server_that_is_not_of_its_cluster(run: Run, address: str) -> None:
    async def main() -> None:
        async with serving(address, Echo(), _Impostor("n1/meta")):
            with pytest.raises(Unavailable, match="same cluster"):
                await answered(address, Tls(SECRET, "n2/meta"))

    run(main())


def test_bytes_that_are_no_tls_end_the_connection(run: Run, address: str) -> None:
    echo = Echo()

    async def main() -> None:
        async with serving(address, echo, Tls(SECRET, "n1/meta")):
            host, port = address.split(":")
            for raw in (b"\xff" * 5000, b"GET / HTTP/1.1\r\n\r\n", struct.pack("<IIHHQ", 5, 0, 1, 0, 1) + b"hello"):
                reader, writer = await asyncio.open_connection(host, int(port))
                writer.write(raw)
                with contextlib.suppress(ConnectionError):
                    assert len(await reader.read(1000)) < 20          # an alert, at most
                    assert await reader.read(1000) == b""
                writer.close()
        assert not echo.peers

    run(main())


@pytest.mark.parametrize("difference_s", [-DAY + HOUR, -HOUR, HOUR, DAY - HOUR])
def test_clocks_may_differ_by_almost_a_day(run: Run, address: str, difference_s: float) -> None:
    async def main() -> None:
        async with serving(address, Echo(), Tls(SECRET, "n1/meta", now=at(difference_s))):
            assert await answered(address, Tls(SECRET, "n2/meta", now=at(-difference_s))) == "n1/meta"

    run(main())


def test_a_running_server_renews_its_leaf_at_half_of_its_life(run: Run, address: str) -> None:
    clock = [time.time() - LEAF_S / 2]
    tls, client = Tls(SECRET, "n1/meta", now=lambda: clock[0]), Tls(SECRET, "n2/meta")

    async def serial() -> int:
        host, port = address.split(":")
        _, writer = await asyncio.open_connection(host, int(port), ssl=client.client)
        raw = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()
        assert raw is not None
        return x509.load_der_x509_certificate(raw).serial_number

    async def main() -> None:
        async with serving(address, Echo(), tls):
            link = WireClient(address, SECRET, tls=client)
            await link.connect()
            first = await serial()
            clock[0] += LEAF_S / 2 - 1
            assert await serial() == first
            clock[0] += 2
            renewed = await serial()
            assert renewed != first
            clock[0] -= 2 * HOUR                             # set back: ours would begin too late for others
            assert await serial() != renewed
            assert await link.call(3, b"open") == (0, b"open")    # the link of before is still good
            link.close()

    run(main())


def test_a_giant_frame_ends_the_link(run: Run, address: str) -> None:
    echo = Echo()

    async def main() -> None:
        async with serving(address, echo, Tls(SECRET, "n1/meta")):
            lost = asyncio.Event()
            client = WireClient(address, SECRET, on_lost=lost.set, tls=Tls(SECRET, "n2/meta"))
            await client.connect()
            assert client._link is not None
            assert client._link._transport is not None
            client._link._transport.write(struct.pack("<IIHHQ", PAYLOAD_BYTES_MAX + 1, 0, 1, 0, 1))
            await lost.wait()
        assert not echo.peers

    run(main())


def test_an_address_of_the_network_without_tls_is_refused(run: Run, address: str) -> None:
    async def main() -> None:
        with pytest.raises(Refused, match="needs TLS"):
            await WireServer(address, SECRET, Echo).start()
        with pytest.raises(Refused, match="needs TLS"):
            await WireClient(address, SECRET).connect()
        with pytest.raises(Unavailable):                     # nobody listens
            await WireClient(address, SECRET, tls=Tls(SECRET, "n1/meta")).connect()

    run(main())
