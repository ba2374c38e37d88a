"""The index, as it is read beside its one writer: by the node's own reads and by gateways on its host.

Write-ahead logging lets readers go on while the node commits; each look-up is a transaction of its own, so a reader sees a
copy as soon as its put is acknowledged, and pins nothing.
"""

import os
import sqlite3

from storage_node.index import FIND, INDEX_NAME

READER_CACHE_KIB = 8 << 10
MMAP_BYTES = 1 << 30
"""Pages come from the page cache without a system call each; an index of 1 GiB knows ten million chunks."""


class IndexReader:
    """Look-ups for one thread, also in other processes than the node's own. Raises sqlite3.Error when the index can't
    be read (not there, being replaced): its owner opens another."""

    __slots__ = ("_db", "_execute", "inode")

    def __init__(self, folder: str) -> None:
        path = os.path.join(folder, INDEX_NAME)
        self._db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA query_only=1")
        self._db.execute(f"PRAGMA cache_size=-{READER_CACHE_KIB}")
        self._db.execute(f"PRAGMA mmap_size={MMAP_BYTES}")
        self._db.execute(FIND, (b"", b"")).fetchone()        # opens the file now, not at the first request
        self._execute = self._db.cursor().execute
        self.inode = os.stat(path).st_ino

    def find(self, digest: bytes, generation: bytes) -> tuple[int, int, int, int] | None:
        """(size, segment, place, state) of this copy."""
        row: tuple[int, int, int, int] | None = self._execute(FIND, (digest, generation)).fetchone()
        return row

    def others(self, digest: bytes) -> list[tuple[bytes, int, int, int]]:
        """(generation, size, segment, place) of every copy of these bytes."""
        return self._execute("SELECT generation, size, segment, place FROM chunk WHERE digest=?", (digest,)).fetchall()

    def close(self) -> None:
        self._db.close()
