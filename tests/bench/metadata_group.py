"""The same as metadata_log for a group of three members, in processes of their own with TLS between them:
`python -m tests.bench.metadata_group [FOLDER]`.

Puts go through the leader's socket, then through a follower's (one hop more), then reads at both (a read index each).
"""

import argparse
import asyncio
import socket
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from consensus import queries
from consensus.client import MetadataClient
from consensus.core.commands import CreateBucket
from consensus.core.results import BucketCreated
from consensus.core.tls import Tls
from consensus.endings import EXIT_RESTART
from consensus.joining import ClusterSettings
from consensus.server import MetaServer
from tests.bench.metadata_log import _cpu, _puts

SECRET = b"b" * 32
NAMES = ("n1", "n2", "n3")


async def serve(folder: str, name: str, addresses: list[str]) -> None:
    address = addresses[NAMES.index(name)]
    server = MetaServer(
        f"{folder}/{name}/meta", f"unix:{folder}/{name}/meta.sock", SECRET, name=name, tls=Tls(SECRET, f"{name}/meta"),
        also=(address,), cluster=ClusterSettings(address=address, begins=name == "n1",
                                                 peers=tuple(other for other in addresses if other != address)))
    await server.start()
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop()


async def measure(folder: str, pids: dict[str, int], seconds: float) -> None:
    clients = {}
    for name in NAMES:
        clients[name] = MetadataClient(f"unix:{folder}/{name}/meta.sock", SECRET, f"{folder}/{name}/meta", owner="bench")
        await clients[name].start()
    while sum(member.voter for member in (await clients["n1"].status()).members) < 3:
        await asyncio.sleep(0.1)
    created = await clients["n1"].commit(CreateBucket(name="bench", account="a", owner="o"))
    assert isinstance(created, BucketCreated)
    leader = (await clients["n1"].status()).leader
    follower = next(name for name in NAMES if name != leader)
    print(" through   clients   puts/s   p50 ms   p99 ms  per sync  members' µs: " + " ".join(NAMES))
    for name in (leader, follower):
        for count_of_clients in (1, 16, 64, 256):
            before, cpu = await clients[leader].status(), {other: _cpu(pids[other]) for other in NAMES}
            began = time.perf_counter()
            waits = await asyncio.gather(*(
                _puts(clients[name], created.bucket, f"{name}/{count_of_clients}/{number}", began + seconds)
                for number in range(count_of_clients)))
            took = time.perf_counter() - began
            after, times = await clients[leader].status(), sorted(wait for each in waits for wait in each)
            count = len(times)
            costs = " ".join(f"{(_cpu(pids[other]) - cpu[other]) / count * 1e6:6.1f}" for other in NAMES)
            print(f"{name + ('*' if name == leader else ''):8} {count_of_clients:8} {count / took:8.0f} "
                  f"{times[count // 2] * 1e3:8.2f} {times[count * 99 // 100] * 1e3:8.2f} "
                  f"{count / max(1, after.syncs - before.syncs):9.1f}   {costs}")
    for name in (leader, follower):
        for readers in (1, 64):
            until, began = time.perf_counter() + seconds, time.perf_counter()
            counts = await asyncio.gather(*(_reads(clients[name], until) for _ in range(readers)))
            took = time.perf_counter() - began
            print(f"reads at {name}{'*' if name == leader else ''}, {readers} at once: {sum(counts) / took:.0f}/s, "
                  f"{took * readers / sum(counts) * 1e3:.2f} ms each")
    for name in NAMES:
        status = await clients[name].status()
        print(f"{name}: mean sync {status.sync_seconds / max(1, status.syncs) * 1e3:.2f} ms over {status.syncs} syncs")
        await clients[name].stop()


async def _reads(client: MetadataClient, until: float) -> int:
    count = 0
    while time.perf_counter() < until:
        await client.read(queries.bucket, "bench")
        count += 1
    return count


def free_ports(count: int) -> list[int]:
    """Below the ephemeral range: a dialling member must not take another's."""
    found: list[int] = []
    port = 20_100
    while len(found) < count:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                found.append(port)
            except OSError:
                pass
        port += 1
    return found


async def _started(folder: str, name: str, addresses: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.metadata_group", folder, "--serve", name, addresses,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", default=None)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        await serve(options.folder, options.serve[0], options.serve[1].split(","))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        addresses = ",".join(f"127.0.0.1:{port}" for port in free_ports(3))
        processes = {}
        for name in NAMES:
            (Path(folder) / name / "meta").mkdir(parents=True)
            processes[name] = await _started(folder, name, addresses)
        try:
            for name, process in processes.items():
                assert process.stdout is not None
                while not await process.stdout.readline():        # it has fetched a snapshot and begins anew
                    assert await process.wait() == EXIT_RESTART
                    processes[name] = process = await _started(folder, name, addresses)
                    assert process.stdout is not None
            await measure(folder, {name: process.pid for name, process in processes.items()}, options.seconds)
        finally:
            for process in processes.values():
                assert process.stdin is not None
                process.stdin.close()
                await process.wait()


if __name__ == "__main__":
    uvloop.run(main())
