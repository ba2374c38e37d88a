"""One address in front of several gateways, and requests that take turns between them.

Spread        a TCP proxy: each connection goes to the next gateway, in turn. What clients of all kinds are given.
take_turns    makes a boto3 client send every single request to the next gateway: what one has acknowledged, the others
              must show. The signature is for the proxy's name, which the Host header goes on saying.
three         three machines with identities and settings of a suite, behind such an address.
"""

import asyncio
import contextlib
import itertools
import json
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

from botocore.client import BaseClient

from gateway.identities import Identity
from tests.servers import free_port, make_certificate
from tests.trio import Trio

Address = tuple[str, int]
PIECE_BYTES = 1 << 16


class Spread:
    """Runs in a thread of its own while it is entered."""

    def __init__(self, targets: Iterable[Address], *, scheme: str = "http", certificate: Path | None = None) -> None:
        self.targets, self.scheme, self.certificate = list(targets), scheme, certificate
        self.port = free_port()
        self._turn = itertools.cycle(self.targets)
        self._connections: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="spread", daemon=True)

    @property
    def endpoint(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._accept, "127.0.0.1", self.port), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _stop(self) -> None:
        self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await asyncio.sleep(0)                           # their sockets close

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError):
            there, back = await asyncio.open_connection(*next(self._turn))
            with contextlib.closing(back):
                await asyncio.gather(_pass_on(reader, back), _pass_on(there, writer))


async def _pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(PIECE_BYTES):
            target.write(data)
            await target.drain()
        if target.can_write_eof():
            target.write_eof()
            return
    target.close()


def take_turns(client: BaseClient, targets: Iterable[Address]) -> BaseClient:
    turn = itertools.cycle(list(targets))

    def send_to_next(request: Any, **_: Any) -> None:
        parts = urlsplit(request.url)
        host, port = next(turn)
        request.headers["Host"] = parts.netloc
        request.url = urlunsplit(parts._replace(netloc=f"{host}:{port}"))

    client.meta.events.register("before-send.s3", send_to_next)
    return client


@contextlib.contextmanager
def three(folder: Path, *, identities: Iterable[Identity] = (), tls: bool = False,
          settings: Mapping[str, str] | None = None) -> Iterator[Spread]:
    """A cluster that serves, behind one address. With `identities`, the root key is another one."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted, variables = dict(settings or {}), {}
    if tls:
        wanted |= {"tls_cert": str(folder / "tls.crt"), "tls_key": str(folder / "tls.key")}
    tables = "".join(_table(identity) for identity in identities)
    if tables:
        (folder / "identities.toml").write_text(tables)
        variables = {"STADDLE_CONFIG": str(folder / "identities.toml"),
                     "STADDLE_ROOT_ACCESS_KEY": "ROOTOFTHREEMACHINES1", "STADDLE_ROOT_SECRET_KEY": "root/of+three/" + "x" * 26}
    with Trio(folder, settings=wanted) as trio:
        certificate = make_certificate(folder, *(machine.host for machine in trio)) if tls else None
        for machine in trio:
            machine.variables |= variables
            machine.certificate = certificate            # so that it is asked over TLS whether it is ready
        trio.start()
        with Spread(trio.addresses, scheme="https" if tls else "http",
                    certificate=certificate.certificate if certificate else None) as spread:
            yield spread


def _table(identity: Identity) -> str:
    fields = ("name", "account", "user_id", "display_name", "email", "access_key", "secret_key")
    return "[[identity]]\n" + "".join(f"{name} = {json.dumps(getattr(identity, name))}\n" for name in fields) + "\n"
