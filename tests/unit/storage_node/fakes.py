"""The metadata as storage nodes see it, reduced to the rules of ARCHITECTURE "Names are never used twice", in
memory."""

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from consensus.core.commands import Announce, AnyCommand, RegisterNode, Withdraw
from consensus.core.errors import ClusterError
from consensus.core.ids import Digest, Generation, NodeId, SessionId
from consensus.core.model import NodeInfo
from consensus.core.results import Announced, AnyResult, Malformed, SessionOpened, Withdrawn


class Released(NamedTuple):
    copies: tuple[tuple[Digest, Generation], ...]
    after: int


class Live(NamedTuple):
    generation: Generation
    listed: bool
    short: bool


class Listed(NamedTuple):
    copies: tuple[tuple[Digest, Generation], ...]
    after: bytes | None


class FakeMetadata:
    """Rows of chunks, sessions with their marks, registered nodes. Everything that a test wants to say is an
    attribute."""

    def __init__(self, wanted: int = 1) -> None:
        self.wanted = wanted
        self.map: dict[NodeId, NodeInfo] = {}
        self.rows: dict[Digest, tuple[Generation, set[NodeId]]] = {}
        self.low: dict[SessionId, int] = {}
        """Of open sessions; one that isn't here has ended."""
        self.node_session: dict[NodeId, SessionId] = {}
        self.hints: list[tuple[NodeId, Digest, Generation]] = []
        self.fail_commit: list[ClusterError] = []
        """Raised by the next announcements, before they are applied."""
        self.hold_announcements: asyncio.Event | None = None
        self.stray: list[tuple[SessionId, Announce | Withdraw]] = []
        """Announcements and withdrawals with a lost answer: they may still arrive (`deliver`)."""
        self.mark = ""
        """Of the last restore."""
        self.log: list[str] = []
        self.not_durable = 0
        self._next_session = 1 << 20

    def open_session(self) -> SessionId:
        session = SessionId(self._next_session)
        self._next_session += 1
        self.low[session] = 0
        return session

    def list_copy(self, digest: Digest, generation: Generation, *nodes: str) -> None:
        """A commit that brings this generation, with these holders."""
        self.rows[digest] = generation, {NodeId(node) for node in nodes}

    def drop(self, digest: Digest) -> None:
        """The last reference goes."""
        generation, nodes = self.rows.pop(digest)
        self.hints += [(node, digest, generation) for node in sorted(nodes)]

    # What nodes call

    async def nodes(self) -> list[NodeInfo]:
        return list(self.map.values())

    async def register(self, command: RegisterNode) -> SessionOpened:
        self.log.append("register")
        self.low.pop(self.node_session.get(command.node, SessionId(0)), None)
        known = self.map.get(command.node)
        if known is not None and known.incarnation != command.incarnation:
            for _, nodes in self.rows.values():
                nodes.discard(command.node)
        self.map[command.node] = NodeInfo(node=command.node, incarnation=command.incarnation, address=command.address,
                                          zone=command.zone, capacity_bytes=command.capacity_bytes)
        self.node_session[command.node] = self.open_session()
        return SessionOpened(session=self.node_session[command.node])

    async def commit(self, command: AnyCommand) -> AnyResult:
        assert isinstance(command, Announce | Withdraw)
        session = self.node_session[command.node]
        self.log.append("announce" if isinstance(command, Announce) else "withdraw")
        if self.fail_commit:
            self.stray.append((session, command))
            raise self.fail_commit.pop(0)
        return self.apply(session, command)

    def deliver(self) -> list[AnyResult]:
        """What has lost its answer arrives now."""
        stray, self.stray = self.stray, []
        return [self.apply(session, command) for session, command in stray]

    def apply(self, session: SessionId, command: Announce | Withdraw) -> AnyResult:
        if session not in self.low:
            return Malformed(reason="the session has ended")
        if isinstance(command, Withdraw):
            return self._withdraw(command)
        if self.map[command.node].incarnation != command.incarnation:
            return Malformed(reason="another disk")
        counted = 0
        for digest, generation in command.copies:
            row = self.rows.get(digest)
            if row is not None and row[0] == generation:
                row[1].add(command.node)
                counted += 1
        return Announced(counted=counted)

    def _withdraw(self, command: Withdraw) -> AnyResult:
        assert command.damaged
        places = []
        for place, (digest, generation) in enumerate(command.copies):
            row = self.rows.get(digest)
            if row is not None and row[0] == generation and command.node in row[1]:
                row[1].discard(command.node)
                places.append(place)
        return Withdrawn(places=tuple(places))

    async def located(self, digest: Digest) -> tuple[Generation, tuple[NodeId, ...]] | None:
        row = self.rows.get(digest)
        return None if row is None else (row[0], tuple(sorted(row[1])))

    async def live_chunks(self, node: NodeId, digests: Sequence[Digest]) -> list[Live | None]:
        rows = (self.rows.get(digest) for digest in digests)
        return [None if row is None else Live(row[0], node in row[1], len(row[1]) < self.wanted) for row in rows]

    async def listed_on(self, node: NodeId, after: bytes = b"", limit: int = 1000) -> Listed:
        page = sorted(digest for digest in self.rows if digest > after)[:limit]
        copies = tuple((digest, self.rows[digest][0]) for digest in page if node in self.rows[digest][1])
        return Listed(copies, page[-1] if len(page) == limit else None)

    async def under_replicated(self, limit: int = 1000, after: tuple[int, bytes] = (0, b"")) -> list[Any]:
        return []                                     # the loops that look beyond a node are tested with the real metadata

    async def over_replicated(self, limit: int = 1000, after: tuple[int, bytes] = (0, b"")) -> list[Any]:
        return []

    async def chunk_places(self, after: bytes = b"", limit: int = 1000) -> list[Any]:
        return []

    async def lineage(self) -> tuple[int, str]:
        return 1, self.mark

    async def chunk_states(self, node: NodeId, copies: Sequence[tuple[Digest, Generation]]) -> list[str]:
        self.log.append("read")
        return [self._state(node, digest, generation) for digest, generation in copies]

    def _state(self, node: NodeId, digest: Digest, generation: Generation) -> str:
        row = self.rows.get(digest)
        if row is not None and row[0] == generation:
            if node in row[1]:
                return "listed"
            if len(row[1]) < self.wanted:
                return "short"
        low = self.low.get(generation.session)
        return "passed" if low is None or generation.sequence < low else "pending"

    async def released(self, node: NodeId, after: int = 0, limit: int = 300) -> Released:
        page = self.hints[after:after + limit]
        return Released(tuple((digest, generation) for holder, digest, generation in page if holder == node),
                        after + len(page))
