"""The index, as it is read beside its one writer: by the node's own reads and by gateways on its host.

Write-ahead logging lets readers go on while the node commits; each look-up is a transaction of its own, so a reader sees a
copy as soon as its put is acknowledged, and pins nothing.

A copy that `chunk` has not got yet is in `young` (young.py), which has an order and no index: its rows are read once, and
remembered by name. They may be believed afterwards: what `chunk` says of a copy comes first, and a place is never used twice.
"""

import os
import sqlite3

from consensus.core.binding import bind_quickly
from consensus.core.ids import DIGEST_BYTES
from storage_node.index import FIND, INDEX_NAME, NEW
from storage_node.young import YOUNG_MAX, beyond

READER_CACHE_KIB = 8 << 10
MMAP_BYTES = 1 << 30
"""Pages come from the page cache without a system call each; an index of 1 GiB knows ten million chunks."""


class IndexReader:
    """Look-ups for one thread, also in other processes than the node's own. Raises sqlite3.Error when the index can't
    be read (not there, being replaced): its owner opens another."""

    __slots__ = ("_db", "_execute", "_seen", "_young", "inode")

    def __init__(self, folder: str) -> None:
        path = os.path.join(folder, INDEX_NAME)
        bind_quickly()
        self._db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA query_only=1")
        self._db.execute(f"PRAGMA cache_size=-{READER_CACHE_KIB}")
        self._db.execute(f"PRAGMA mmap_size={MMAP_BYTES}")
        self._db.execute(FIND, (b"", b"")).fetchone()        # opens the file now, not at the first request
        self._execute = self._db.cursor().execute
        self._young: dict[bytes, tuple[int, int, int, int]] = {}
        self._seen = 0
        self.inode = os.stat(path).st_ino

    def find(self, digest: bytes, generation: bytes) -> tuple[int, int, int, int] | None:
        """(size, segment, place, state) of this copy."""
        row: tuple[int, int, int, int] | None = self._execute(FIND, (digest, generation)).fetchone()
        if row is None:
            self._look_at_young()
            row = self._young.get(digest + generation)
            if row is None:                           # it may have come into `chunk` in between
                row = self._execute(FIND, (digest, generation)).fetchone()
        return row

    def _look_at_young(self) -> None:
        if len(self._young) > 2 * YOUNG_MAX:
            self._young, self._seen = {}, 0
        for last, rows in beyond(self._db, self._seen):
            self._seen = last
            for digest, generation, size, segment, place, _ in rows:
                self._young[digest + generation] = (size, segment, place, NEW)

    def others(self, digest: bytes) -> list[tuple[bytes, int, int, int]]:
        """(generation, size, segment, place) of every copy of these bytes."""
        self._look_at_young()
        young = [(name[DIGEST_BYTES:], *row[:3]) for name, row in self._young.items() if name.startswith(digest)]
        others = self._execute("SELECT generation, size, segment, place FROM chunk WHERE digest=?", (digest,)).fetchall()
        return others + [other for other in young if other not in others]

    def close(self) -> None:
        self._db.close()
