"""Storage nodes as fsck sees them: one that serves, asked over its socket, and one whose folder this process has opened."""

from consensus.core.errors import Refused
from consensus.core.ids import Digest, Generation, NodeId
from storage_node.client import NodeClient
from storage_node.disk_store import DiskStore
from storage_node.errors import NotHere
from storage_node.index import Copy

DAMAGE_MAX = 10_000
"""Notes of damage that are looked at: with more, the first ones tell enough."""


class ServingNode:
    """`folder`: its chunks, if they are on this machine."""

    def __init__(self, node: NodeId, client: NodeClient, folder: str | None) -> None:
        self.node, self.folder, self._client = node, folder, client

    async def inventory(self, after: tuple[bytes, bytes] | None, limit: int) -> list[Copy]:
        return await self._client.inventory(after, limit)

    async def find(self, digest: Digest, generation: bytes) -> Copy | None:
        try:
            return await self._client.find(digest, Generation.unpack(generation))
        except NotHere:
            return None

    async def damaged(self) -> dict[tuple[bytes, bytes], str]:
        report = await self._client.damage(DAMAGE_MAX)
        return {(bytes.fromhex(note.digest), bytes.fromhex(note.generation)): note.reason for note in report.open}

    async def look_again(self, digest: Digest, generation: bytes) -> bool:
        return await self._client.report(digest, Generation.unpack(generation))

    async def compare(self) -> None:
        await self._client.compare(begin=True)


class OpenedNode:
    """Looks only: what is found here is repaired by a node that serves."""

    def __init__(self, node: NodeId, store: DiskStore) -> None:
        self.node, self.folder, self._store = node, store.folder, store

    async def inventory(self, after: tuple[bytes, bytes] | None, limit: int) -> list[Copy]:
        return await self._store.inventory(after, limit)

    async def find(self, digest: Digest, generation: bytes) -> Copy | None:
        return await self._store.find(digest, Generation.unpack(generation))

    async def damaged(self) -> dict[tuple[bytes, bytes], str]:
        notes = await self._store.damage(DAMAGE_MAX)
        return {(digest, generation): reason for digest, generation, reason in notes}

    async def look_again(self, digest: Digest, generation: bytes) -> bool:
        raise Refused("this folder was opened to be looked at only")

    async def compare(self) -> None:
        raise Refused("this folder was opened to be looked at only")
