"""What all handlers share: the connection, the command's place in the log, and what is held in memory.

In memory: sessions with their kept results, the counters of buckets in use, and the nodes. All of it is in rows too,
written at the latest by `flush`, in the transaction that also stores the applied index.
"""

import sqlite3
from collections.abc import Sequence
from typing import Any, Literal

from consensus.core.commands import ROWS_PER_COMMAND_MAX
from consensus.core.ids import BucketId, Digest, Generation, NodeId
from consensus.core.model import LockDefault, NodeInfo
from consensus.core.results import Malformed
from consensus.rows import I63_MAX, encode

Replication = Literal["sync", "async", "all"]

KEY_BYTES_MAX = 1024
"""S3's limit of a key."""

TEXT_CHARACTERS_MAX = 1024
"""Names, owners, ETags and ids: all far shorter. Keeps a row near a page whatever a client sends."""

HINTED_NODES_MAX = 64
"""Nodes that one command leaves hints for, a row each. In a larger cluster some hints are left out; a node's comparison
of its inventory finds those copies later."""

BUCKETS_CACHED_MAX = 10_000
"""Counters in memory: about 3 MB."""


class BucketState:
    """A bucket as handlers need it. Its counters change by `State.count` only."""

    __slots__ = ("account", "bytes", "id", "lock", "name", "objects", "versioning")

    def __init__(self, id: BucketId, name: str, account: str, versioning: str, objects: int, bytes: int) -> None:
        self.id, self.name, self.account, self.versioning = id, name, account, versioning
        self.objects, self.bytes = objects, bytes
        self.lock: LockDefault | None = None        # None: no object lock


class State:
    """One machine's. `now`, `position`, `session` and `sequence` are those of the command in hand."""

    __slots__ = (
        "_dirty", "_hints", "buckets", "copies", "db", "execute", "executemany", "names", "nodes", "now", "pinned",
        "position", "quorum", "replication", "sequence", "session", "session_node", "touched", "wanted",
    )

    def __init__(self, db: sqlite3.Connection, *, now: int, copies: int, replication: Replication) -> None:
        self.db, self.execute, self.executemany = db, db.execute, db.executemany
        self.now, self.copies, self.replication = now, copies, replication
        self.position = self.session = self.sequence = self.touched = 0
        self.pinned = 0             # contents up to this id are held when they die: see apply/backups.py
        self.session_node: NodeId | None = None
        self.buckets: dict[int, BucketState] = {}
        self._dirty: dict[int, BucketState] = {}
        self.nodes: dict[NodeId, tuple[int, NodeInfo]] = {}
        self.names: dict[int, NodeId] = {}      # of the present incarnations: a location is valid if it is in here
        self._hints: dict[int, list[bytes]] = {}
        for number, id, incarnation, address, zone, capacity, status in db.execute(
            "SELECT number, id, incarnation, address, zone, capacity, state FROM node"
        ):
            info = NodeInfo(node=id, incarnation=incarnation, address=address, zone=zone, capacity_bytes=capacity,
                            state=status)
            self.nodes[id], self.names[number] = (number, info), id
        self.count_nodes()

    def begin(self, position: int, session: int, sequence: int, node: NodeId | None) -> None:
        """A command starts."""
        self.position, self.session, self.sequence, self.session_node = position, session, sequence, node
        self.touched = 0

    def end(self) -> None:
        """A command is done: its hints go into one row for each node, and its size is checked."""
        if self._hints:
            for number, copies in self._hints.items():
                self.touch()
                self.execute("INSERT INTO released (node, id, at, copies) VALUES (?, ?, ?, ?)",
                             (number, self.position, self.now, b"".join(copies)))
            self._hints = {}
        assert self.touched <= ROWS_PER_COMMAND_MAX, f"a command touched {self.touched} rows"

    def touch(self, rows: int = 1) -> None:
        """Count rows that are written."""
        self.touched += rows

    def count_nodes(self) -> None:
        """The nodes have changed, and with them the numbers that decide how durable is durable.

        wanted   copies wanted of each chunk: min(copies, storage nodes in the map, up or not)
        quorum   present copies without which a commit is refused
        """
        self.wanted = max(1, min(self.copies, len(self.nodes)))
        self.quorum = {"sync": self.wanted // 2 + 1, "async": 1, "all": self.wanted}[self.replication]

    def valid(self, locations: Sequence[int]) -> int:
        """How many of these locations are on disks that still count."""
        names = self.names
        return sum(number in names for number in locations)

    # Hints and the queue

    def hint(self, number: int, digest: Digest, generation: Generation) -> None:
        """This node's copy is listed no more: it may look whether to delete it."""
        if number in self.names and (number in self._hints or len(self._hints) < HINTED_NODES_MAX):
            self._hints.setdefault(number, []).append(digest + generation.pack())

    def enqueue(self, kind: int, a: int, b: bytes | None = None) -> None:
        self.touch()
        self.execute("INSERT INTO queue (kind, a, b, at) VALUES (?, ?, ?, ?)", (kind, a, b, self.now))

    # Meta rows

    def get_meta(self, name: str) -> Any:
        row = self.execute("SELECT v FROM meta WHERE k = ?", (name,)).fetchone()
        return None if row is None else row[0]

    def set_meta(self, name: str, value: int | str | bytes) -> None:
        self.touch()
        self.execute("INSERT OR REPLACE INTO meta (k, v) VALUES (?, ?)", (name, value))

    def save_node_map(self) -> None:
        """The names of valid locations as one small blob, which readers fetch with each version."""
        self.set_meta("nodes", encode(tuple(sorted(self.names.items()))))

    # Buckets' counters

    def count(self, bucket: BucketState, objects: int, bytes: int) -> None:
        bucket.objects += objects
        bucket.bytes += bytes
        self._dirty[bucket.id] = bucket

    def forget(self, bucket: BucketState) -> None:
        """The bucket is deleted."""
        self.buckets.pop(bucket.id, None)
        self._dirty.pop(bucket.id, None)

    def flush(self) -> None:
        """Write what is held in memory: bucket counters (sessions do it themselves)."""
        if self._dirty:
            self.executemany("UPDATE bucket SET objects = ?, bytes = ? WHERE id = ?",
                             [(bucket.objects, bucket.bytes, bucket.id) for bucket in self._dirty.values()])
            self._dirty.clear()
        if len(self.buckets) > BUCKETS_CACHED_MAX:
            self.buckets.clear()


# Checks of what senders should have checked

def count_fits(number: int) -> bool:
    """A size, count or position that SQLite can hold, with room to add a few."""
    return 0 <= number <= I63_MAX >> 2


def texts_fit(*texts: str) -> bool:
    return max(map(len, texts)) <= TEXT_CHARACTERS_MAX


def bad_key(key: bytes) -> Malformed | None:
    if 0 < len(key) <= KEY_BYTES_MAX:
        return None
    return Malformed(reason=f"a key is 1 to {KEY_BYTES_MAX} bytes of UTF-8")
