"""The real roles (metadata member, storage node with its disk store, gateway operations) in one loop, on a given Disk.

Requests enter where the HTTP edge hands them over: as an S3Request to the operation's function. Sizes are small, so that
segments, snapshots, trims and both kinds of chunks happen within a hundred requests; housekeeping and settling happen
when a test says so.
"""

import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import NamedTuple, Self

import msgspec

from consensus.client import MetadataClient
from consensus.config import MetaConfig
from consensus.core.clock import SystemClock
from consensus.core.commands import EndSession
from consensus.core.ids import NodeId, SessionId
from consensus.disk import Disk
from consensus.server import MetaServer
from gateway.auth import Principal
from gateway.identities import Identity, IdentityStore
from gateway.ops import HANDLERS
from gateway.ops.context import Services, Settings
from gateway.s3.body.payload import PayloadCheck
from gateway.s3.operations import OPERATION
from gateway.s3.request import S3Request
from storage_node.disk_store import DiskStore
from storage_node.replicas import Policy, Replicas
from storage_node.server import NodeServer
from tests.s3_requests import s3_request

SECRET = b"s" * 32
NODE = NodeId("n1")
CONFIG = MetaConfig(housekeeping_s=3600.0, segment_bytes=4000)
SETTINGS = Settings(chunk_bytes=(1 << 20) + 4096, part_bytes_min=1000)
"""Chunks just too large for a segment, so that a large object has files, and a tail in a segment."""

SEGMENT_BYTES = 20_000
DEADLINE_S = 10.0
IDENTITY = Identity(name="i", account="a", user_id="u", access_key="k", secret_key="s", display_name="I")
PRINCIPAL = Principal(identity=IDENTITY, account="a", user_id="u", access_key="k")


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def text(self, element: str) -> str:
        return self.texts(element)[0]

    def texts(self, element: str) -> list[str]:
        found = [piece.partition(f"</{element}>")[0] for piece in self.body.decode().split(f"<{element}>")[1:]]
        return [text.replace("&quot;", '"') for text in found]


Ending = Callable[[], Awaitable[None]]


class Body:
    """Of a request. `ending` is awaited in the place of the last thousand bytes: the sender that goes away."""

    def __init__(self, data: bytes, ending: Ending | None = None) -> None:
        self._data, self._ending = data, ending
        self.length: int | None = len(data) if ending is None else len(data) + 1000

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for at in range(0, len(self._data), 1 << 20):
            yield self._data[at:at + (1 << 20)]
        if self._ending is not None:
            await self._ending()

    async def read(self, limit: int) -> bytes:
        return b"".join([piece async for piece in self])


class Later:
    """A clock that tests move on."""

    def __init__(self) -> None:
        self._real, self._ahead_ms = SystemClock(), 0

    def now_ms(self) -> int:
        return self._real.now_ms() + self._ahead_ms

    def move(self, ms: int) -> None:
        self._ahead_ms += ms


class Roles:
    """In `root`, with `meta` made before. `async with`, or never stopped: a dead process doesn't stop either."""

    def __init__(self, root: Path, disk: Disk) -> None:
        self.root, self.disk = root, disk
        self.failures: list[BaseException] = []
        self._run = Path(tempfile.mkdtemp(prefix="crash-"))       # sockets: their paths must be short
        self.address = f"unix:{self._run}/m"
        self._started: list[object] = []
        self.settling = Later()

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def _start(self) -> None:
        self.meta = MetaServer(str(self.root / "meta"), self.address, SECRET, config=CONFIG, disk=self.disk, copies=1,
                               on_failure=self.failures.append)
        await self.meta.start()
        self._started.append(self.meta)
        self.before = set(self.meta._machine.sessions.open)
        self.store = DiskStore(str(self.root / "chunks"), disk=self.disk, segment_bytes=SEGMENT_BYTES, reserve_bytes=0)
        self.node = NodeServer(data=str(self.root), node=NODE, address=f"unix:{self._run}/n", secret=SECRET,
                               metadata=await self._client("node"), store=self.store, settle_interval_s=3600.0,
                               read_grace_s=0.0)
        await self.node.start()
        self._started.append(self.node)
        await self.node.settler.stop()                # its rounds are ours to call
        self.node.settler._clock = self.settling
        self.metadata = await self._client("gateway")
        self.replicas = Replicas(self.metadata, SECRET, local={NODE: str(self.root / "chunks")}, policy=Policy(copies=1))
        await self.replicas.start()
        self._started.append(self.replicas)
        self.services = Services(metadata=self.metadata, replicas=self.replicas, clock=SystemClock(), settings=SETTINGS,
                                 identities=IdentityStore([IDENTITY]))

    async def _client(self, owner: str) -> MetadataClient:
        client = MetadataClient(self.address, SECRET, str(self.root / "meta"), owner=owner, deadline_s=DEADLINE_S)
        self._started.append(client)
        await client.start()
        return client

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    async def _stop(self) -> None:
        while self._started:
            role = self._started.pop()
            await role.stop()  # type: ignore[attr-defined]
        shutil.rmtree(self._run, ignore_errors=True)

    # Requests

    async def ask(self, operation: str, method: str, url: str, data: bytes = b"", headers: dict[str, str] | None = None,
                  *, ending: Ending | None = None) -> Answer:
        """Raises S3Error, ClusterError."""
        content = Body(data, ending)
        sent = {"content-length": str(content.length), **(headers or {})}
        request: S3Request = msgspec.structs.replace(s3_request(method, f"http://h/{url}", sent), body=content)
        context = self.services.context(OPERATION[operation], PRINCIPAL, PayloadCheck())
        reply = await HANDLERS[operation](context, request)
        found = reply.body
        whole = found if isinstance(found, bytes) else b"".join([bytes(piece) async for piece in found])
        return Answer(reply.status, dict(reply.headers), whole)

    # Housekeeping

    async def settle(self, rounds: int = 1) -> None:
        """The node asks about all its copies and acts on the answers, as it does every few seconds."""
        for _ in range(rounds):
            self.settling.move(60_000)
            await self.node.settler.take_hints()
            await self.node.settler.round()

    async def end_sessions_of_the_dead(self) -> None:
        """What happens to the sessions of an earlier life after a minute."""
        for session in self.before & set(self.meta._machine.sessions.open):
            await self.meta.propose(EndSession(session=SessionId(session)))

    async def drain(self) -> None:
        await self.meta.housekeeper.drain()

    async def snapshot(self) -> None:
        await self.meta.housekeeper.take_snapshot()
