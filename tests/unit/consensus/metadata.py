"""A machine with a log of one: tests write commands and read results; every command is an entry of its own."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from consensus import audit, queries
from consensus.core.codec import encode_entry
from consensus.core.commands import (
    AnyCommand,
    CreateBucket,
    Drain,
    Envelope,
    NewChunk,
    NewContent,
    OpenSession,
    PutVersion,
    RegisterNode,
)
from consensus.core.ids import BucketId, Digest, SessionId, digest
from consensus.core.model import Attributes, Holder, Slice
from consensus.core.results import AnyResult, BucketCreated, Drained, SessionOpened
from consensus.machine import Machine
from consensus.reads import Reader

PLAIN = Attributes()


class Cluster:
    """One member's machine, some storage nodes, and a session to act in."""

    def __init__(self, folder: Path, nodes: int = 1, **settings: Any) -> None:
        self.folder, self.settings = folder, settings
        self.machine = Machine(folder, **settings)
        self.index, self.now = self.machine.applied, 1_000_000
        self.entries: list[bytes] = []
        self.next: dict[int, int] = {}
        self.reader = Reader(str(folder), queries.header, queries.ALONE, queries.KnowingBuckets)
        self.nodes: dict[str, bytes] = {}
        self.node_sessions: dict[str, SessionId] = {}
        for number in range(1, nodes + 1):
            self.register(f"n{number}", b"disk" + bytes([number]) * 12)
        self.session = self.open_session()

    # The log

    def envelope(self, command: AnyCommand, session: int | None = None, sequence: int | None = None,
                 low: int | None = None) -> Envelope:
        session = self.session if session is None else session
        if sequence is None:
            sequence = self.next.get(session, 0) if session else 0
        if session:
            self.next[session] = max(self.next.get(session, 0), sequence + 1)
        self.now += 1
        return Envelope(session=SessionId(session), sequence=sequence, low=low or 0, now_ms=self.now, command=command)

    def send(self, *envelopes: Envelope) -> list[AnyResult]:
        """One entry."""
        entry = encode_entry(envelopes)
        self.index += 1
        self.entries.append(entry)
        results = self.machine.apply(entry, self.index)
        self.machine.commit(self.index, 1)
        return results

    def run(self, command: AnyCommand, session: int | None = None, **named: Any) -> Any:
        """One command; its result."""
        (result,) = self.send(self.envelope(command, session, **named))
        return result

    def reopen(self) -> None:
        """As after a restart of the process."""
        self.reader.close()
        self.machine.close()
        self.machine = Machine(self.folder, **self.settings)
        assert self.machine.applied == self.index

    # Shorthands

    def open_session(self) -> SessionId:
        result = self.run(OpenSession(owner="test"), 0)
        assert isinstance(result, SessionOpened)
        self.next[result.session] = 1
        return result.session

    def register(self, node: str, incarnation: bytes) -> SessionId:
        result = self.run(RegisterNode(node=node, incarnation=incarnation, address=f"unix:/{node}"), 0)
        assert isinstance(result, SessionOpened)
        self.nodes[node], self.node_sessions[node] = incarnation, result.session
        return result.session

    def bucket(self, name: str = "bucket", versioning: str = "") -> BucketId:
        result = self.run(CreateBucket(name=name, account="a", owner="o", versioning=versioning))
        assert isinstance(result, BucketCreated)
        return result.bucket

    def holders(self, *nodes: str) -> tuple[Holder, ...]:
        return tuple(Holder(node, self.nodes[node]) for node in nodes or self.nodes)

    def chunk(self, data: bytes, *nodes: str) -> NewChunk:
        return NewChunk(digest=digest(data), size=len(data), holders=self.holders(*nodes))

    def content(self, *pieces: bytes, etag: str | None = None, **named: Any) -> NewContent:
        """A content whose slices are whole chunks, each of these bytes."""
        chunks = {piece: self.chunk(piece) for piece in pieces}
        return NewContent(size=sum(map(len, pieces)), etag=etag or digest(b"".join(pieces)).hex()[:32],
                          slices=tuple(whole(piece) for piece in pieces), chunks=tuple(chunks.values()), **named)

    def put(self, bucket: BucketId, key: str, *pieces: bytes, version: str = "", session: int | None = None,
            **named: Any) -> Any:
        version = version or f"v{self.index}"
        return self.run(PutVersion(bucket=bucket, key=key, version_id=version, attributes=PLAIN, owner="o",
                                   content=self.content(*pieces), **named), session)

    def drain(self, limit: int = 300) -> int:
        """To the end; answers how many steps it took."""
        for steps in range(1, 10_000):
            result = self.run(Drain(limit=limit), 0)
            assert isinstance(result, Drained)
            if not result.more:
                return steps
        raise AssertionError("the queue does not get shorter")

    # Reading

    def read(self, query: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        return self.reader.run(self.machine.generation, query, *arguments, **named)

    @property
    def db(self) -> sqlite3.Connection:
        return self.machine.db

    def rows(self, table: str) -> int:
        return self.db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]

    def chunk_row(self, data: bytes) -> tuple[Any, ...] | None:
        """(session, sequence, refs, whether it lacks copies) of the chunk of these bytes."""
        return self.db.execute("SELECT session, sequence, refs, short > 0 FROM chunk WHERE digest = ?",
                               (digest(data),)).fetchone()

    def check(self) -> None:
        assert audit.recount(self.db) == []


def whole(data: bytes) -> Slice:
    return Slice(Digest(digest(data)), 0, len(data))
