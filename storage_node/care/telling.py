"""What a node says through the log about its own copies, and which of it has had no answer.

A command without an answer may still arrive, and would then speak of a copy as it was before: an announcement could list
what has been deleted since, a withdrawal could give up what has been mended since. So while something is unanswered, a
new registration comes first: it ends the session that everything was sent in, and nothing of it can take effect any more.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from consensus.core.commands import CHUNKS_PER_COMMAND_MAX, Announce, AnyCommand, RegisterNode, Withdraw
from consensus.core.errors import Unavailable, UnknownOutcome
from consensus.core.ids import Digest, Generation, NodeId
from consensus.core.model import NodeInfo
from consensus.core.results import Announced, AnyResult, SessionOpened, Withdrawn

Name = tuple[Digest, bytes]
"""Digest and packed generation."""


class Released(Protocol):
    @property
    def copies(self) -> Sequence[tuple[Digest, Generation]]: ...

    @property
    def after(self) -> int: ...


class Live(Protocol):
    """What is live under a digest, and whether this node is listed and more copies are wanted."""

    @property
    def generation(self) -> Generation: ...

    @property
    def listed(self) -> bool: ...

    @property
    def short(self) -> bool: ...


class Listed(Protocol):
    """A page of copies that a node is listed for. `after` is where the next one begins; None: there is no more."""

    @property
    def copies(self) -> Sequence[tuple[Digest, Generation]]: ...

    @property
    def after(self) -> bytes | None: ...


class Place(Protocol):
    """A chunk's row. `nodes`: all that are said to hold it and may be read."""

    @property
    def digest(self) -> Digest: ...

    @property
    def generation(self) -> Generation: ...

    @property
    def size(self) -> int: ...

    @property
    def nodes(self) -> tuple[NodeId, ...]: ...

    @property
    def wanted(self) -> int: ...


class Unequal(Place, Protocol):
    """The row of a chunk that lacks copies, or has too many. `place`: where a listing goes on after it."""

    @property
    def place(self) -> tuple[int, bytes]: ...


class NodeMetadata(Protocol):
    """What a storage node needs of consensus.client.MetadataClient."""

    async def nodes(self) -> Sequence[NodeInfo]:
        """All storage nodes."""

    async def under_replicated(self, limit: int = 1000, after: tuple[int, bytes] = (0, b"")) -> Sequence[Unequal]:
        """Chunks that lack copies, the fewest left first."""

    async def over_replicated(self, limit: int = 1000, after: tuple[int, bytes] = (-1 << 31, b"")) -> Sequence[Unequal]:
        """Chunks that have more copies than are wanted, those included that don't count."""

    async def chunk_places(self, after: bytes = b"", limit: int = 1000) -> Sequence[Place]:
        """All chunks' rows, in order of digest."""

    async def register(self, command: RegisterNode) -> SessionOpened: ...

    async def commit(self, command: AnyCommand) -> AnyResult: ...

    async def chunk_states(self, node: NodeId, copies: list[tuple[Digest, Generation]]) -> Sequence[str]:
        """LISTED, SHORT, PASSED or PENDING of each, at one read index taken after the call."""

    async def live_chunks(self, node: NodeId, digests: list[Digest]) -> Sequence[Live | None]:
        """What is live under each digest, at one read index taken after the call."""

    async def listed_on(self, node: NodeId, after: bytes = b"", limit: int = 1000) -> Listed:
        """The copies that the node is listed for, in pages."""

    async def lineage(self) -> tuple[int, str]:
        """Applied index, and the mark of the last restore."""

    async def released(self, node: NodeId, after: int = 0, limit: int = 300) -> Released:
        """Copies that are listed no more, and from where to go on."""


class Teller:
    """One per node. `register` is the node's own: it begins a new session and ends the earlier ones."""

    def __init__(self, metadata: NodeMetadata, node: NodeId, register: Callable[[], Awaitable[None]]) -> None:
        self._metadata, self._node, self.register = metadata, node, register
        self.unanswered: set[Name] = set()

    async def settle(self) -> None:
        """Nothing is unanswered on return. Raises ClusterError."""
        if self.unanswered:
            await self.register()
            self.unanswered.clear()

    async def announce(self, incarnation: bytes, names: Sequence[Name]) -> int:
        """Say that we hold these (at most 300). How many counted. Raises Unavailable, UnknownOutcome."""
        result = await self._say(Announce(node=self._node, incarnation=incarnation, copies=_copies(names)), names)
        if not isinstance(result, Announced):
            raise Unavailable(f"announcement refused: {result}")
        self.unanswered.difference_update(names)
        return result.counted

    async def withdraw_lost(self, names: Sequence[Name]) -> list[Name]:
        """Say that these (at most 300) are lost. Those that were listed and now aren't. Raises Unavailable,
        UnknownOutcome."""
        return await self._withdraw(names, True)

    async def give_back(self, names: Sequence[Name]) -> list[Name]:
        """Ask to be listed no more for these (at most 300). Those for which it was granted: enough others are listed. Raises
        Unavailable, UnknownOutcome."""
        return await self._withdraw(names, False)

    async def _withdraw(self, names: Sequence[Name], damaged: bool) -> list[Name]:
        result = await self._say(Withdraw(node=self._node, copies=_copies(names), damaged=damaged), names)
        if not isinstance(result, Withdrawn):
            raise Unavailable(f"withdrawal refused: {result}")
        self.unanswered.difference_update(names)
        return [names[place] for place in result.places]

    async def _say(self, command: Announce | Withdraw, names: Sequence[Name]) -> AnyResult:
        """An answer of another kind leaves the names unanswered: by another session's rules, so register anew."""
        assert len(names) <= CHUNKS_PER_COMMAND_MAX
        self.unanswered.update(names)
        try:
            return await self._metadata.commit(command)
        except UnknownOutcome:
            raise                                     # still unanswered
        except Unavailable:
            self.unanswered.difference_update(names)  # not done, and never will be
            raise


def _copies(names: Sequence[Name]) -> tuple[tuple[Digest, Generation], ...]:
    return tuple((digest, Generation.unpack(generation)) for digest, generation in names)
