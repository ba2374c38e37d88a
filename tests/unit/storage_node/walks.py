"""Many random walks, one after the other, in a folder that is gone afterwards."""

import asyncio
import logging
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.contract.chunk_store import StoppedClock
from tests.unit.consensus.metadata import Cluster
from tests.unit.storage_node.interleavings import Violation, World

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None     # durability isn't the question here


def some_walks(count: int) -> Iterable[int]:
    """So many seeds; `make walks` says how many more, and from which one on."""
    first = int(os.environ.get("STADDLE_FIRST_WALK", "0"))
    return range(first, first + int(os.environ.get("STADDLE_WALKS", count)))


def walk(world: type[World], seeds: Iterable[int]) -> tuple[int, str] | None:
    """The first violation: its seed and what happened."""
    async def main(folder: str) -> tuple[int, str] | None:
        cluster = Cluster(Path(folder), nodes=0, copies=2, replication="async")
        walked = world(cluster, cluster.bucket(), StoppedClock())
        await walked.start()
        for seed in seeds:
            try:
                await walked.run(seed)
            except Violation as violation:
                return seed, str(violation)
        return None

    logging.disable(logging.CRITICAL)
    try:
        with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
            return asyncio.run(main(folder))
    finally:
        logging.disable(logging.NOTSET)
