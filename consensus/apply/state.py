"""What all handlers share: the connection, the command's place in the log, and what is held in memory.

In memory: sessions with their kept results, the counters of buckets in use, and the nodes. All of it is in rows too,
written at the latest by `flush`, in the transaction that also stores the applied index.
"""

import sqlite3
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from consensus.apply.watching import Watching
from consensus.core import placement
from consensus.core.commands import ROWS_PER_COMMAND_MAX
from consensus.core.ids import BucketId, Digest, Generation, NodeId
from consensus.core.model import LockDefault, NodeInfo, Quota
from consensus.core.results import Malformed
from consensus.rows import I63_MAX, NODE_COLUMNS, encode, node_info

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

COMPILED_BYTES_MAX = 16 << 20
"""Documents of buckets whose rules of notification are in memory. One may have 256 KB."""


class Terms(NamedTuple):
    """How durable is durable. `copies`: wished for; `wanted`: that, as far as there are nodes; `quorum`: present copies
    without which a commit is refused."""

    copies: int
    wanted: int
    quorum: int


class AccountState:
    """Whose buckets count together. What they hold is counted, by `State.count`, only while the account has a quota: nobody
    asks otherwise, and it costs nothing."""

    __slots__ = ("bytes", "name", "objects", "quota", "uploading")

    def __init__(self, name: str) -> None:
        self.name = name
        self.quota: Quota | None = None
        self.objects = self.bytes = self.uploading = 0


class BucketState:
    """A bucket as handlers need it. Its counters change by `State.count` only. `copies` and `replication` None: as the
    cluster's settings say."""

    __slots__ = ("account", "bytes", "copies", "events", "id", "lock", "name", "objects", "quota", "replication", "uploading",
                 "versioning")

    def __init__(self, id: BucketId, name: str, account: AccountState, quota: Quota | None, versioning: str, objects: int,
                 bytes: int, copies: int | None, replication: str | None, uploading: int) -> None:
        self.id, self.name, self.account, self.quota, self.versioning = id, name, account, quota, versioning
        self.objects, self.bytes, self.uploading, self.copies, self.replication = objects, bytes, uploading, copies, replication
        self.lock: LockDefault | None = None        # None: no object lock
        self.events: Watching | None = None         # None: nobody is told of changes


class State:
    """One machine's. `now`, `position`, `session` and `sequence` are those of the command in hand."""

    __slots__ = (
        "_dirty", "_hints", "_terms", "accounts", "away", "buckets", "compiled", "copies", "counting", "db", "default",
        "execute", "executemany", "names", "nodes", "now", "pinned", "position", "replication", "sequence", "session",
        "session_node", "told", "touched", "uncounted",
    )

    def __init__(self, db: sqlite3.Connection, *, now: int, copies: int, replication: str) -> None:
        """`copies` and `replication` hold until the log says others."""
        self.db, self.execute, self.executemany = db, db.execute, db.executemany
        self.now = now
        self.copies: int = self.get_meta("copies") or copies
        self.replication: str = self.get_meta("replication") or replication
        self.counting: int = self.get_meta("counting") or 0
        """How many countings of the wanted copies have begun: see copies.py."""
        self.position = self.session = self.sequence = self.touched = self.told = 0
        self.compiled = 0           # bytes of documents, those that were replaced meanwhile included
        self.pinned = 0             # contents up to this id are held when they die: see apply/backups.py
        self.session_node: NodeId | None = None
        self.buckets: dict[int, BucketState] = {}
        self._dirty: dict[int, BucketState] = {}
        self.accounts: dict[str, AccountState] = {}
        self.nodes: dict[NodeId, tuple[int, NodeInfo]] = {}
        self.names: dict[int, NodeId] = {}      # of the present incarnations: only these may be read
        self.uncounted: frozenset[int] = frozenset()    # those of them that leave or are lost: their copies don't count
        self.away: frozenset[int] = frozenset()         # those that are down: their copies count, but nobody can read them now
        self._hints: dict[int, list[bytes]] = {}
        self._terms: dict[tuple[int | None, str | None], Terms] = {}
        for row in db.execute(f"SELECT {NODE_COLUMNS} FROM node"):
            self.nodes[row[1]], self.names[row[0]] = (row[0], node_info(row)), row[1]
        self.count_nodes()

    def begin(self, position: int, session: int, sequence: int, node: NodeId | None) -> None:
        """A command starts."""
        self.position, self.session, self.sequence, self.session_node = position, session, sequence, node
        self.touched = self.told = 0

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
        """Count rows that are written. How far a command of a lifecycle comes depends on it (apply/lifecycle.py): who counts
        otherwise changes what the log means, and members of both versions would differ."""
        self.touched += rows

    def count_nodes(self) -> None:
        """The nodes or the settings have changed, and with them what decides how durable is durable."""
        self.uncounted = frozenset(number for number, info in self.nodes.values() if not info.counts)
        self.away = frozenset(number for number, info in self.nodes.values() if info.state == "down")
        self._terms.clear()
        self.default = self.terms(None, None)

    def terms(self, copies: int | None, replication: str | None) -> Terms:
        """Of a bucket with these settings."""
        found = self._terms.get((copies, replication))
        if found is None:
            wished = copies or self.copies
            wanted = max(1, placement.copies_wanted(wished, [info for _, info in self.nodes.values()]))
            found = self._terms[copies, replication] = Terms(
                wished, wanted, placement.write_quorum(replication or self.replication, wanted))
        return found

    def terms_of(self, bucket: BucketState) -> Terms:
        return self.terms(bucket.copies, bucket.replication)

    def wanted(self, copies: int) -> int:
        """So many copies (0: the cluster's setting), as far as there are nodes for them."""
        return self.terms(copies or None, None).wanted

    def valid(self, locations: Sequence[int]) -> int:
        """How many of these locations are on disks that still count."""
        names, uncounted = self.names, self.uncounted
        return sum(number in names and number not in uncounted for number in locations)

    def at_hand(self, locations: Sequence[int]) -> int:
        """How many of them are, besides, on nodes that aren't down."""
        return self.valid([number for number in locations if number not in self.away]) if self.away else self.valid(locations)

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

    # Buckets' counters, and what accounts hold

    def account(self, name: str) -> AccountState:
        found = self.accounts.get(name)
        if found is None:
            found = self.accounts[name] = AccountState(name)
            row = self.execute("SELECT objects_max, bytes_max FROM account WHERE name = ?", (name,)).fetchone()
            if row is not None:
                self.limit(found, Quota(*row))
        return found

    def limit(self, account: AccountState, quota: Quota | None) -> None:
        """From now on the account has this quota. What it holds is added up from its buckets, once."""
        account.quota = quota
        if quota is not None:
            self._write_counters()
            account.objects, account.bytes, account.uploading = self.execute(
                "SELECT coalesce(sum(objects), 0), coalesce(sum(bytes), 0), coalesce(sum(uploading), 0) FROM bucket"
                " WHERE account = ?", (account.name,)).fetchone()

    def count(self, bucket: BucketState, objects: int, bytes: int, uploading: int = 0) -> None:
        """Versions more (or fewer), their bytes, and those of parts of uploads."""
        bucket.objects += objects
        bucket.bytes += bytes
        bucket.uploading += uploading
        self._dirty[bucket.id] = bucket
        account = bucket.account
        if account.quota is not None:
            account.objects += objects
            account.bytes += bytes
            account.uploading += uploading

    def forget(self, bucket: BucketState) -> None:
        """The bucket is deleted."""
        self.buckets.pop(bucket.id, None)
        self._dirty.pop(bucket.id, None)

    def flush(self) -> None:
        """Write what is held in memory: bucket counters (sessions do it themselves)."""
        if self._dirty:
            self._write_counters()
        if len(self.buckets) > BUCKETS_CACHED_MAX or self.compiled > COMPILED_BYTES_MAX:
            self.buckets.clear()
            self.compiled = 0
        if len(self.accounts) > BUCKETS_CACHED_MAX:
            self.buckets.clear()        # together: a bucket in memory counts in the account that is in memory
            self.accounts.clear()

    def _write_counters(self) -> None:
        self.executemany("UPDATE bucket SET objects = ?, bytes = ?, uploading = ? WHERE id = ?",
                         [(bucket.objects, bucket.bytes, bucket.uploading, bucket.id) for bucket in self._dirty.values()])
        self._dirty.clear()


def quota_of(objects_max: int | None, bytes_max: int | None) -> Quota | None:
    return None if objects_max is None and bytes_max is None else Quota(objects_max, bytes_max)


# Checks of what senders should have checked

COUNT_MAX = I63_MAX >> 2
"""Of what SQLite can hold, with room to add a few."""


def count_fits(number: int) -> bool:
    """A size, count or position."""
    return 0 <= number <= COUNT_MAX


def text_fits(text: str) -> bool:
    return len(text) <= TEXT_CHARACTERS_MAX


def texts_fit(*texts: str) -> bool:
    return max(map(len, texts)) <= TEXT_CHARACTERS_MAX


def bad_key(key: bytes) -> Malformed | None:
    if 0 < len(key) <= KEY_BYTES_MAX:
        return None
    return Malformed(reason=f"a key is 1 to {KEY_BYTES_MAX} bytes of UTF-8")
