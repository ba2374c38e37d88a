"""Metadata, storage nodes and requests that remember what was asked of them, and fail where a test says so."""

import asyncio
import dataclasses
import hashlib
import itertools
from collections.abc import AsyncIterator
from typing import Any

from consensus.core.clock import SystemClock
from consensus.core.commands import StageContent
from consensus.core.errors import Corrupt
from consensus.core.ids import ContentId, Digest, Generation, NodeId, SessionId
from consensus.core.model import Bucket, Holder, LocatedSlice, ObjectVersion
from consensus.core.results import AnyResult, Staged
from gateway.auth import PayloadCheck, Principal
from gateway.identities import Identity, IdentityStore
from gateway.ops.context import Context, Settings
from gateway.s3.operations import OPERATION
from gateway.s3.request import S3Request

IDENTITY = Identity(name="i", account="a", user_id="u", access_key="k", secret_key="s", display_name="I")
PRINCIPAL = Principal(identity=IDENTITY, account="a", user_id="u", access_key="k")
HOLDER = Holder(NodeId("n1"), b"i" * 16)


@dataclasses.dataclass
class Metadata:
    """Tickets are counted: `open` holds those that were neither committed nor released."""

    outcomes: list[AnyResult] = dataclasses.field(default_factory=list)
    commands: list[tuple[Any, Generation | None]] = dataclasses.field(default_factory=list)
    open: set[Generation] = dataclasses.field(default_factory=set)
    beside: list[ContentId | None] = dataclasses.field(default_factory=list)
    abandoned: list[ContentId] = dataclasses.field(default_factory=list)
    versions: list[ObjectVersion] = dataclasses.field(default_factory=list)
    contents: dict[ContentId, list[LocatedSlice]] = dataclasses.field(default_factory=dict)
    slices_per_call: int = 256
    looks: int = 0

    def __post_init__(self) -> None:
        self._sequences = itertools.count(1)

    async def reserve(self, beside: ContentId | None = None) -> Generation:
        ticket = Generation(SessionId(7), next(self._sequences))
        self.open.add(ticket)
        self.beside.append(beside)
        return ticket

    def release(self, ticket: Generation) -> None:
        self.open.discard(ticket)

    def abandon(self, content: ContentId) -> None:
        self.abandoned.append(content)

    async def commit(self, command: Any, ticket: Generation | None = None) -> AnyResult:
        await asyncio.sleep(0)
        self.commands.append((command, ticket))
        if ticket is not None:
            self.open.remove(ticket)
        if self.outcomes:
            return self.outcomes.pop(0)
        assert isinstance(command, StageContent)
        return Staged(content=ContentId(1000 + len(self.commands)))

    async def opened(self, bucket: str, key: str) -> tuple[Bucket, ObjectVersion, list[LocatedSlice]]:
        """The versions in turn, the last one for ever."""
        version = self.versions[min(self.looks, len(self.versions) - 1)]
        self.looks += 1
        return BUCKET, version, self.contents.get(version.content, [])[:1]

    async def slices(self, content: ContentId, start: int, length: int) -> list[LocatedSlice]:
        found: list[LocatedSlice] = []
        at = 0
        for part in self.contents.get(content, []):
            low, high = max(start, at), min(start + length, at + part.length)
            if low < high and len(found) < self.slices_per_call:
                found.append(part._replace(start=part.start + low - at, length=high - low))
            at += part.length
        return found


BUCKET = Bucket(id=1, name="bucket", account="a", owner="u", created_ms=0, region="")  # type: ignore[arg-type]


@dataclasses.dataclass
class Nodes:
    """Storage that keeps chunks by (digest, generation). `fail` is raised by the `failing`-th write of a piece."""

    chunks: dict[tuple[Digest, Generation], bytes] = dataclasses.field(default_factory=dict)
    fail: Exception | None = None
    failing: int = 0
    aborted: int = 0
    writes: int = 0
    local: bool = True

    def count(self) -> None:
        self.writes += 1
        if self.fail is not None and self.writes >= self.failing:
            raise self.fail

    async def write(
        self, data: bytes, digest: Digest, generation: Generation, policy: object = None
    ) -> tuple[Holder, ...]:
        await asyncio.sleep(0)
        self.count()
        assert hashlib.sha256(data).digest() == digest
        self.chunks[digest, generation] = bytes(data)
        return (HOLDER,)

    async def open_writer(self, generation: Generation, policy: object = None, room: int = 0) -> "Writer":
        return Writer(self, generation)

    def read_now(self, part: LocatedSlice) -> bytes | None:
        data = self.chunks.get((part.digest, part.generation))
        return data[part.start : part.start + part.length] if self.local and data is not None else None

    async def read(self, part: LocatedSlice) -> AsyncIterator[bytes]:
        data = self.chunks.get((part.digest, part.generation))
        if data is None:
            raise Corrupt("gone")
        for at in range(part.start, part.start + part.length, 1000):
            await asyncio.sleep(0)
            yield data[at : min(at + 1000, part.start + part.length)]


@dataclasses.dataclass
class Writer:
    nodes: Nodes
    generation: Generation
    data: bytearray = dataclasses.field(default_factory=bytearray)

    async def write(self, piece: memoryview) -> None:
        await asyncio.sleep(0)
        self.nodes.count()
        self.data += piece

    async def finish(self, digest: Digest) -> tuple[Holder, ...]:
        await asyncio.sleep(0)
        assert hashlib.sha256(self.data).digest() == digest
        self.nodes.chunks[digest, self.generation] = bytes(self.data)
        return (HOLDER,)

    async def abort(self) -> None:
        self.nodes.aborted += 1


class Pieces:
    """A body in pieces. A piece that is an exception is raised; one that is a future is waited for."""

    def __init__(self, *pieces: Any, length: int | None = None) -> None:
        self._pieces = pieces
        self.length = length

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            await asyncio.sleep(0)
            if isinstance(piece, Exception):
                raise piece
            if isinstance(piece, asyncio.Future):
                await piece
                continue
            yield piece

    async def read(self, limit: int) -> bytes:
        return b"".join([bytes(piece) async for piece in self])


def request(
    body: Any = None, *, method: str = "PUT", headers: dict[str, str] | None = None, query: dict[str, str] | None = None
) -> S3Request:
    headers = dict(headers or {})
    if body is not None and body.length is not None:
        headers["content-length"] = str(body.length)
    return S3Request(
        id="id", method=method, raw_path=b"/bucket/key", raw_query=b"", headers=headers, query=query or {},
        bucket="bucket", key="key", host_style=False, secure=False, remote="", now_ms=1_000_000,
        body=body or Pieces(length=0),
    )


def context(
    metadata: Metadata, nodes: Nodes, *, operation: str = "PutObject", settings: Settings | None = None,
    payload: PayloadCheck | None = None,
) -> Context:
    return Context(
        metadata=metadata, replicas=nodes, clock=SystemClock(),  # type: ignore[arg-type]
        settings=settings or Settings(), identities=IdentityStore([IDENTITY]), operation=OPERATION[operation],
        principal=PRINCIPAL, payload=payload or PayloadCheck(),
    )
