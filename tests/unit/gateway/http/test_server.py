"""The listener's life: sharing a port, TLS, and an end that lets requests finish."""

import asyncio
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.http import protocol
from gateway.http.limits import Limits
from gateway.http.server import GatewayServer
from tests.unit.gateway.http.edge import KINDS, PLAIN, Edge, Small, request, run


@pytest.mark.parametrize("kind", KINDS)
def test_stop_lets_requests_finish_and_closes_the_idle(kind: str, folder: Path) -> None:
    async def talk(edge: Edge) -> None:
        idle, busy, uploading = [await edge.connect() for _ in range(3)]
        assert (await idle.ask(request("GET", "/hello"))).status == 200
        busy.send(request("GET", "/late-1"))
        uploading.send(request("PUT", "/md5", b"a" * 300_000, length=300_010))
        await edge.small.reading.wait()
        while len(edge.small.served) < 3:
            await asyncio.sleep(0.001)
        stopping = asyncio.create_task(edge.server.stop())
        assert await idle.closed() == b""
        assert not stopping.done()
        edge.small.gate.set()
        answer = await busy.response()
        assert (answer.body, answer.headers["connection"]) == (b"/late-1", "close")
        uploading.send(b"a" * 10)
        assert (await uploading.response()).body.startswith(b"300010 ")
        await stopping
        with pytest.raises(OSError, match=r"refused|Connect call failed|Multiple"):
            await edge.connect()

    run(kind, folder, talk, limits=Limits(shutdown_s=10))


@pytest.mark.parametrize("kind", KINDS)
def test_stop_has_an_end_even_if_requests_have_not(kind: str, folder: Path) -> None:
    async def talk(edge: Edge) -> None:
        client = await edge.connect()
        client.send(request("GET", "/late-1"))
        while not edge.small.served:
            await asyncio.sleep(0.001)
        async with asyncio.timeout(5):
            await edge.server.stop()
        assert await client.closed() == b""

    run(kind, folder, talk, limits=Limits(shutdown_s=1))


@pytest.mark.parametrize("kind", PLAIN)
def test_gateways_share_a_port(kind: str, folder: Path) -> None:
    async def talk(edge: Edge) -> None:
        small = Small()
        other = GatewayServer(small, port=edge.server.port)
        await other.start()
        try:
            for _ in range(200):
                client = await edge.connect()
                assert (await client.ask(request("GET", "/hello"))).status == 200
                if small.served and edge.small.served:
                    return
            raise AssertionError("one of two gateways got no connection")
        finally:
            for client in edge.clients:
                client.writer.close()
            await other.stop()

    run(kind, folder, talk)


@pytest.mark.parametrize("kind", ["asyncio-https", "uvloop-https"])
def test_tls_is_1_2_or_newer(kind: str, folder: Path) -> None:
    async def talk(edge: Edge) -> None:
        assert edge.context is not None
        edge.context.maximum_version = ssl.TLSVersion.TLSv1_2
        client = await edge.connect()
        assert client.writer.get_extra_info("ssl_object").version() == "TLSv1.2"
        assert (await client.ask(request("GET", "/hello"))).status == 200
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname = False
        old.verify_mode = ssl.CERT_NONE
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        edge.context = old
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await edge.connect()

    run(kind, folder, talk)


@pytest.mark.parametrize("kind", ["asyncio-https", "uvloop-https"])
def test_clear_text_on_the_tls_port_does_no_harm(kind: str, folder: Path) -> None:
    async def talk(edge: Edge) -> None:
        context, edge.context = edge.context, None
        client = await edge.connect()
        client.send(request("GET", "/hello"))
        assert b"hello" not in await client.closed()
        edge.context = context
        client = await edge.connect()
        assert (await client.ask(request("GET", "/hello"))).status == 200

    run(kind, folder, talk)


def test_a_port_that_is_taken_is_said(folder: Path) -> None:
    async def main() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            with pytest.raises(OSError, match="in use"):
                await GatewayServer(Small(), port=taken.getsockname()[1]).start()

    asyncio.run(main())


def test_a_certificate_that_is_none_is_said(tmp_path: Path) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")

    async def main() -> None:
        with pytest.raises(ssl.SSLError):
            await GatewayServer(Small(), tls_cert=broken, tls_key=broken).start()
        with pytest.raises(FileNotFoundError):
            await GatewayServer(Small(), tls_cert=tmp_path / "none", tls_key=broken).start()

    asyncio.run(main())


def test_another_uvicorn_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol.uvicorn, "__version__", "0.60.0")
    with pytest.raises(RuntimeError, match=r"0\.60\.0"):
        protocol.protocol_class(Limits())


def test_the_limit_of_open_files_is_raised_as_far_as_it_goes() -> None:
    code = """
import resource, sys
from gateway.http.server import allow_descriptors
resource.setrlimit(resource.RLIMIT_NOFILE, (300, 1000))
print(allow_descriptors(4096), allow_descriptors(100), resource.getrlimit(resource.RLIMIT_NOFILE))
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "744 100 (1000, 1000)\n"
