"""What a durable chunk costs: small puts against one file per chunk, in the same minutes; bulk both ways; local reads.

    python -m tests.bench.chunk_store [FOLDER] [--rounds 3] [--seconds 3]

The reference for small puts is the loop that everybody would write: 64 threads, each writing a file, syncing it,
renaming it and syncing its folder. Rounds of all ways alternate, because the disk is shared. CPU is of all processes
that take part.
"""

import argparse
import asyncio
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import uvloop

from consensus.core.commands import RegisterNode
from consensus.core.ids import Generation, NodeId, SessionId, digest
from consensus.core.model import LocatedSlice
from storage_node.chunk import block_table
from storage_node.disk_store import DiskStore
from storage_node.replicas import Replicas
from storage_node.server import NodeServer
from tests.unit.storage_node.fakes import FakeMetadata

SMALL = 4096
WRITERS = 64
BULK = 256 << 20
PIECE = 1 << 20
SECRET = b"b" * 32
GENERATION = Generation(SessionId(1 << 20), 1)
ROW = "{:<44} {:>9} {:>9} {:>9} {:>10} {:>10}"


class Bodies:
    """A new body for each put: equal ones would be one chunk."""

    def __init__(self) -> None:
        self._base, self._count = os.urandom(SMALL - 8), 0

    def __call__(self) -> bytes:
        self._count += 1
        return self._count.to_bytes(8, "big") + self._base


def cpu_of(pid: int) -> float:
    """Seconds of all threads."""
    total = 0.0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/schedstat") as file:
            total += int(file.read().split()[0]) / 1e9
    return total


async def at_once(put: Callable[[], Awaitable[object]], seconds: float) -> tuple[float, list[float]]:
    """Rate with WRITERS in flight, and the latencies."""
    loop = asyncio.get_running_loop()
    end, latencies = loop.time() + seconds, []

    async def writer() -> None:
        while loop.time() < end:
            started = loop.time()
            await put()
            latencies.append(loop.time() - started)

    started = loop.time()
    await asyncio.gather(*(writer() for _ in range(WRITERS)))
    return len(latencies) / (loop.time() - started), sorted(latencies)


class Small:
    """The ways to store 4 KiB durably."""

    def __init__(self, folder: str, store: DiskStore, replicas: Replicas, node: subprocess.Popen[str]) -> None:
        self._folder, self._store, self._replicas, self._node = folder, store, replicas, node
        self._bodies = Bodies()
        self._threads = ThreadPoolExecutor(WRITERS)
        self._syncs = 0
        for first in range(256):
            os.makedirs(f"{folder}/loop/{first:02x}", exist_ok=True)

    def one_file(self) -> None:
        data = self._bodies()
        name = hashlib.sha256(data).hexdigest()
        path = f"{self._folder}/loop/{name[:2]}/{name}"
        fd = os.open(path + ".new", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        os.write(fd, data)
        os.fdatasync(fd)
        os.close(fd)
        os.rename(path + ".new", path)
        folder = os.open(os.path.dirname(path), os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
        self._syncs += 2

    async def loop_put(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._threads, self.one_file)

    async def store_put(self) -> None:
        data = self._bodies()
        await self._store.put(digest(data), GENERATION, data, block_table(data))

    async def node_put(self) -> None:
        data = self._bodies()
        await self._replicas.write(data, digest(data), GENERATION)

    async def measure(self, name: str, put: Callable[[], Awaitable[object]], seconds: float,
                      syncs: Callable[[], Awaitable[int]]) -> float:
        before, cpu = await syncs(), cpu_of(os.getpid()) + cpu_of(self._node.pid)
        rate, latencies = await at_once(put, seconds)
        count = len(latencies)
        cpu = (cpu_of(os.getpid()) + cpu_of(self._node.pid) - cpu) / count * 1e6
        print(ROW.format(name, f"{rate:.0f}", f"{latencies[count // 2] * 1e3:.1f}",
                         f"{latencies[int(count * .99)] * 1e3:.1f}", f"{cpu:.0f}",
                         f"{(await syncs() - before) / count:.3f}"), flush=True)
        return rate

    async def round(self, seconds: float) -> tuple[float, float, float]:
        async def of_loop() -> int:
            return self._syncs

        async def of_store() -> int:
            return self._store._segments.statistics.syncs

        async def of_node() -> int:
            client = self._replicas.client((await self._replicas._metadata.nodes())[0])
            return (await client.statistics()).syncs

        return (await self.measure("file per chunk, 64 threads", self.loop_put, seconds, of_loop),
                await self.measure("chunk store, in this process", self.store_put, seconds, of_store),
                await self.measure("chunk store, through the node's socket", self.node_put, seconds, of_node))


async def bulk(replicas: Replicas, near: Replicas, node: subprocess.Popen[str], rounds: int) -> None:
    data = os.urandom(BULK)
    print(f"\n{BULK >> 20} MiB in one stream: CPU ms per GiB, MB/s")
    for number in range(rounds):
        generation = Generation(SessionId(1 << 20), 100 + number)
        name = digest(data)
        part = LocatedSlice(name, 0, BULK, generation, BULK, (NodeId("n1"),))

        async def put(generation: Generation = generation, name=name) -> None:  # type: ignore[no-untyped-def]
            writer = await replicas.open_writer(generation)
            for start in range(0, BULK, PIECE):
                await writer.write(data[start:start + PIECE])
            await writer.finish(name)

        async def get(source: Replicas, part: LocatedSlice = part) -> None:
            size = 0
            async for piece in source.read(part):
                size += len(piece)
            assert size == BULK

        for what, work in (("put through the node", put()), ("get through the node", get(replicas)),
                           ("get from the folder", get(near))):
            here, there, started = cpu_of(os.getpid()), cpu_of(node.pid), time.perf_counter()
            await work
            took = time.perf_counter() - started
            share = (1 << 30) / BULK * 1e3
            print(f"  {what:<24} sender/reader {(cpu_of(os.getpid()) - here) * share:6.0f}"
                  f"   node {(cpu_of(node.pid) - there) * share:6.0f}   {BULK / took / 1e6:6.0f} MB/s", flush=True)


async def read_now(replicas: Replicas, near: Replicas) -> None:
    bodies = Bodies()
    parts = []
    for _ in range(2000):
        data = bodies()
        await replicas.write(data, digest(data), GENERATION)
        parts.append(LocatedSlice(digest(data), 0, SMALL, GENERATION, SMALL, (NodeId("n1"),)))
    best, waiting = 1e9, 0
    for _ in range(5):
        started = time.perf_counter()
        for part in parts:
            waiting += near.read_now(part) is None
        best = min(best, (time.perf_counter() - started) / len(parts))
    print(f"\n4 KiB read_now from the folder: {best * 1e6:.1f} µs; {waiting} of {5 * len(parts)} would have had to wait")


def serve(folder: str) -> None:
    """The node's process: says `ready` and ends with its standard input."""
    async def main() -> None:
        server = NodeServer(data=folder, node=NodeId("n1"), address=f"unix:{folder}/node.sock", secret=SECRET,
                            metadata=FakeMetadata(), settle_interval_s=3600)
        await server.start()
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        await server.stop()

    uvloop.run(main())


async def run(folder: str, rounds: int, seconds: float) -> None:
    os.makedirs(f"{folder}/node")
    node = subprocess.Popen([sys.executable, "-m", "tests.bench.chunk_store", "--serve", f"{folder}/node"],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert node.stdout is not None
    assert node.stdin is not None
    assert node.stdout.readline() == "ready\n"
    metadata = FakeMetadata()
    await metadata.register(RegisterNode(node=NodeId("n1"), incarnation=bytes(16),
                                         address=f"unix:{folder}/node/node.sock"))
    replicas = Replicas(metadata, SECRET)
    near = Replicas(metadata, SECRET, local={NodeId("n1"): f"{folder}/node/chunks"})
    store = DiskStore(f"{folder}/here/chunks")
    await store.start()
    try:
        small = Small(folder, store, replicas, node)
        print(ROW.format(f"{SMALL} byte durable puts, {WRITERS} in flight", "put/s", "p50 ms", "p99 ms", "CPU µs", "syncs/put"))
        rates = [await small.round(seconds) for _ in range(rounds)]
        for place, name in ((1, "in process"), (2, "through the socket")):
            print(f"{name}: {', '.join(f'{rate[place] / rate[0]:.1f}x' for rate in rates)} the file-per-chunk loop")
        await bulk(replicas, near, node, rounds)
        await read_now(replicas, near)
    finally:
        await replicas.stop()
        await near.stop()
        await store.stop()
        node.stdin.close()
        node.wait(20)


def main() -> None:
    with_options([])


def with_options(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", help="where to write; default: a temporary folder")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        serve(options.serve)
        return
    folder = tempfile.mkdtemp(prefix="staddle-bench-", dir=options.folder)
    try:
        uvloop.run(run(folder, options.rounds, options.seconds))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    with_options(sys.argv[1:])
