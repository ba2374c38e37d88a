"""The contract, kept by the disk's store and by the one in memory."""

from pathlib import Path

import pytest

from consensus.core.clock import Clock
from storage_node.disk_store import DiskStore
from storage_node.memory import MemoryStore
from storage_node.store import ChunkStore
from tests.contract.chunk_store import ChunkStoreContract, Make


class TestChunkStore(ChunkStoreContract):
    @pytest.fixture(params=["disk", "disk with tiny segments", "memory"])
    def make(self, request: pytest.FixtureRequest, tmp_path: Path) -> Make:
        def make(clock: Clock) -> ChunkStore:
            if request.param == "memory":
                return MemoryStore(clock)
            size = 128 << 20 if request.param == "disk" else 1000
            return DiskStore(str(tmp_path / "chunks"), clock=clock, segment_bytes=size, reserve_bytes=0)

        return make
