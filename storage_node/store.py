"""What a place for chunks must do: the contract that the disk, the memory store and their tests share.

Obligations:
* after `put` or `finish` has returned, the copy survives a crash and a power cut, and every reader finds it; when one
  raises, nothing is promised, and the same may be tried again;
* a second put of the same (digest, generation) changes nothing and succeeds;
* a read gives the bytes that were put, or raises: Corrupt for damage (which is also remembered), NotHere, Unavailable;
* a copy starts as NEW and due; only `mark` changes that, only `remove` takes it away;
* with a full or failing disk, writes raise NoSpace or Unavailable, reads and removals go on, and writes work again by
  themselves once the disk does.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

import msgspec

from consensus.core.errors import ClusterError
from consensus.core.ids import Digest, Generation
from storage_node.index import CONDEMNED, NEW, SETTLED, Copy

__all__ = ["CONDEMNED", "NEW", "SETTLED", "Answer", "ChunkStore", "CompactionState", "Copy", "DiskState", "IncomingChunk",
           "StoreStatistics", "settle"]


Answer = Callable[[ClusterError | None], None]
"""Called in the event loop when something has been done, or was not, and why. Where there are thousands in a second: a future's
callbacks are scheduled one by one, which costs as much again as the rest of a put."""


def settle(done: "asyncio.Future[None]", error: ClusterError | None) -> None:
    """The answer for who awaits a future."""
    if not done.done():
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)


class StoreStatistics(NamedTuple):
    """Figures for operators. Bytes and seconds; counters run since the start."""

    capacity_bytes: int = 0
    free_bytes: int = 0
    chunks: int = 0
    chunk_bytes: int = 0
    unsettled: int = 0
    damaged: int = 0
    segments: int = 0
    segment_bytes: int = 0
    dead_bytes: int = 0
    puts: int = 0
    put_bytes: int = 0
    files_finished: int = 0
    syncs: int = 0
    sync_s: float = 0.0
    longest_sync_s: float = 0.0
    disk_errors: int = 0
    writable: bool = True
    reason: str = ""
    """Why it isn't writable: DiskState's."""
    moves: int = 0
    """Small chunks that compaction has copied."""
    returned_bytes: int = 0
    """That compaction has given back."""
    allocated_ahead_bytes: int = 0
    """That the segment being written takes beyond its end."""


class CompactionState(msgspec.Struct, frozen=True, kw_only=True):
    """The run of compaction that is under way, or the last one. All zero before the first."""

    running: bool = False
    run: int = 0
    """Counted since the start, so that who asked for a run knows that the state is that one's."""
    segments: int = 0
    """To be emptied, as far as was known when it began."""
    done: int = 0
    """Of these: emptied, or found to hold damage that must stay."""
    moved_chunks: int = 0
    moved_bytes: int = 0
    returned_bytes: int = 0
    """What the segments that are gone had taken, less what was moved out of them."""
    kept_chunks: int = 0
    """Damaged ones, which are not moved; their segments stay until they are gone."""
    error: str = ""
    """Why it ended early."""
    started_ms: int = 0
    ended_ms: int = 0


class DiskState(msgspec.Struct, frozen=True, kw_only=True):
    """Whether chunks can be written. Errors are counted since the start."""

    writable: bool = True
    reason: str = ""
    """`full` (down to the reserve), `read-only` or `failing`; empty when writable."""
    text: str = ""
    since_ms: int = 0
    """Of the last change; 0 if there was none."""
    errors_full: int = 0
    errors_read_only: int = 0
    errors_failing: int = 0
    """Writes and syncs that failed otherwise."""
    errors_read: int = 0

    @property
    def errors(self) -> int:
        return self.errors_full + self.errors_read_only + self.errors_failing + self.errors_read


class IncomingChunk(Protocol):
    """A large chunk on its way. Each call is awaited before the next; after an error it is gone."""

    @property
    def size(self) -> int: ...

    async def write(self, blocks: list[bytes]) -> None:
        """Append blocks of BLOCK_BYTES; only the last of the chunk may be shorter. Raises NoSpace, Unavailable."""

    async def finish(self, digest: Digest, table: bytes | None) -> None:
        """Make it durable under this name. `table` holds the sender's block CRCs: Corrupt if ours differ."""

    async def abort(self) -> None:
        """Forget it. Never raises."""


class ChunkStore(Protocol):
    """One data folder. Used from one event loop."""

    incarnation: bytes
    """16 random bytes: which disk this is. An emptied folder is another one."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def put(self, digest: Digest, generation: Generation, data: bytes, table: bytes) -> "asyncio.Future[None]":
        """Store a small chunk (1 to SMALL_BYTES_MAX bytes) whole. Corrupt if `table` doesn't fit `data`, NoSpace,
        Unavailable: all through the future (a coroutine would need a task for each put)."""

    def put_then(self, digest: Digest, generation: bytes, data: bytes, table: bytes, answer: Answer) -> None:
        """The same with a packed generation, and everything through `answer`, maybe at once."""

    async def create(self, generation: Generation, room: int = 0) -> IncomingChunk:
        """Begin a large chunk, of which `room` bytes may come: NoSpace now rather than in the middle, when its sender has let
        go of what came before. Raises NoSpace, Unavailable."""

    async def read(self, digest: Digest, generation: Generation, start: int, length: int) -> bytes:
        """At most PIECE_BYTES, verified; of another copy of the same bytes if this one isn't here. Raises NotHere,
        Corrupt, Unavailable, and ValueError for a range outside the chunk."""

    async def find(self, digest: Digest, generation: Generation) -> Copy | None: ...

    async def find_all(self, names: Sequence[tuple[Digest, Generation]]) -> list[Copy]:
        """Those that are here."""

    async def generations(self, digest: Digest) -> list[Copy]:
        """All copies of these bytes here."""

    async def inventory(self, after: tuple[bytes, bytes] | None, limit: int) -> list[Copy]:
        """Copies in order of (digest, packed generation)."""

    async def due(self, now_ms: int, limit: int) -> list[Copy]:
        """Copies that aren't SETTLED and should be asked about, longest waiting first."""

    async def mark(self, marks: Iterable[tuple[Copy, int, int]]) -> None:
        """Set the state and the due time (ms) of copies."""

    async def remove(self, copies: list[Copy]) -> None:
        """Take copies away for good and give back their space (of a segment: when nothing in it lives any more)."""

    async def verify(self, copy: Copy) -> bool:
        """Read all of it and compare it with its name. False for damage, which is remembered, and for a copy that has gone
        meanwhile. Raises Unavailable when it can't be told."""

    async def damage_of(self, copies: list[Copy]) -> set[tuple[Digest, bytes]]:
        """The names of those that are known to be damaged."""

    async def damage(
        self, limit: int, after: tuple[bytes, bytes] | None = None
    ) -> list[tuple[Digest, bytes, str]]:
        """Copies known to be damaged and not yet dealt with: digest, packed generation, reason; in that order."""

    async def note_damage(self, digest: Digest, generation: bytes, reason: str) -> None:
        """Remember that this copy is damaged, or that it should be here and isn't. Never raises."""

    async def forgive(self, names: list[tuple[Digest, bytes]]) -> None:
        """Forget damage: these are good, or have been dealt with. Raises NoSpace, Unavailable."""

    async def put_aside(self, copy: Copy, reason: str, what: str) -> None:
        """Keep a damaged copy's bytes for people to look at, as far as there is room; the copy's row stays, since good bytes
        will be put in their place. `what`: repaired | withdrawn | removed. Raises NoSpace, Unavailable."""

    async def put_away(self, copy: Copy, reason: str, what: str) -> None:
        """The same, and the copy is here no more. Raises NoSpace, Unavailable."""

    async def unsettled(self, after: tuple[bytes, bytes] | None, limit: int) -> list[Copy]:
        """Copies that aren't SETTLED, in order of (digest, packed generation)."""

    async def check(self) -> None:
        """Whether the folder can be read and is still the one that was started. Raises Unavailable: then nothing that is
        missing may be taken for lost."""

    def compact(self, dead_percent: int) -> int:
        """Begin to give back the space of deleted small chunks, from segments of which at least so much is dead. Returns
        the number of the run; if one is under way, that one's, or the next one's if this one asks for more."""

    @property
    def compaction(self) -> CompactionState: ...

    @property
    def disk_state(self) -> DiskState: ...

    def capacity_bytes(self) -> int:
        """Of the whole disk."""

    async def statistics(self) -> StoreStatistics: ...
