"""The chunk index of a folder that this process has opened, read from one end to the other: for a restore of the metadata."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing

from consensus.core.ids import Digest, NodeId
from storage_node.disk_store import DiskStore
from storage_node.index import INDEX_NAME

ROWS_AT_ONCE = 1000


class FolderIndex:
    """What consensus.restore.Copies asks for. The store has been started; the methods may run in a thread. Raise
    sqlite3.Error."""

    def __init__(self, node: NodeId, store: DiskStore) -> None:
        self.node, self.incarnation, self._folder = node, store.incarnation, store.folder

    def greatest_session(self) -> int:
        with closing(self._open()) as db:
            # The first 8 bytes of a generation are its session, big-endian.
            greatest = db.execute("SELECT max(generation) FROM chunk").fetchone()[0]
        return 0 if greatest is None else int.from_bytes(greatest[:8], "big")

    def by_digest(self) -> Iterator[tuple[Digest, bytes, int]]:
        with closing(self._open()) as db:
            rows = db.execute("SELECT digest, generation, size FROM chunk WHERE NOT EXISTS (SELECT 1 FROM damage d"
                              " WHERE d.digest = chunk.digest AND d.generation = chunk.generation) ORDER BY 1, 2")
            while page := rows.fetchmany(ROWS_AT_ONCE):
                yield from page

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(f"{self._folder}/{INDEX_NAME}", isolation_level=None)
