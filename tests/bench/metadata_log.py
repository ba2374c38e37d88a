"""How many metadata commits a second the log takes, and what each costs: `python -m tests.bench.metadata_log [FOLDER]`.

The member runs in its own process, as in `staddle serve`; the client is this one. Commands are puts of empty objects,
so no storage node takes part: the figures are of client, wire, journal, Raft and the state machine. FOLDER decides
which disk is measured; `--no-sync` leaves the syncs out, to see the CPU cost alone.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from consensus.client import MetadataClient
from consensus.core.commands import CreateBucket, NewContent, PutVersion
from consensus.core.ids import BucketId, VersionId
from consensus.core.model import Attributes
from consensus.core.results import BucketCreated, Committed
from consensus.server import MetaServer

SECRET = b"b" * 32
ATTRIBUTES = Attributes(content_type="application/octet-stream", metadata=(("mtime", "1700000000.0"),))


async def serve(folder: str, sync: bool) -> None:
    if not sync:
        os.fdatasync = lambda fd: None
    server = MetaServer(f"{folder}/meta", f"unix:{folder}/meta.sock", SECRET)
    await server.start()
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop()


async def measure(folder: str, pid: int, seconds: float) -> None:
    client = MetadataClient(f"unix:{folder}/meta.sock", SECRET, f"{folder}/meta", owner="bench")
    await client.start()
    created = await client.commit(CreateBucket(name="bench", account="a", owner="o"))
    assert isinstance(created, BucketCreated)
    print(" clients   puts/s   p50 ms   p99 ms  per sync  server µs  client µs")
    for clients in (1, 16, 64, 256):
        before, cpu = await client.status(), (_cpu(pid), time.process_time())
        began = time.perf_counter()
        waits = await asyncio.gather(*(
            _puts(client, created.bucket, f"{clients}/{number}", began + seconds) for number in range(clients)))
        took = time.perf_counter() - began
        after, times = await client.status(), sorted(wait for each in waits for wait in each)
        count = len(times)
        print(f"{clients:8} {count / took:8.0f} {times[count // 2] * 1e3:8.2f} {times[count * 99 // 100] * 1e3:8.2f} "
              f"{count / max(1, after.syncs - before.syncs):9.1f} {(_cpu(pid) - cpu[0]) / count * 1e6:10.1f} "
              f"{(time.process_time() - cpu[1]) / count * 1e6:10.1f}")
    key, rounds = "1/0/0", 20_000
    began = time.process_time()
    for _ in range(rounds):
        await client.opened("bench", key)
    print(f"opened(): {(time.process_time() - began) / rounds * 1e6:.1f} µs CPU each")
    status = await client.status()
    print(f"mean sync {status.sync_seconds / status.syncs * 1e3:.2f} ms over {status.syncs} syncs")
    await client.stop()


async def _puts(client: MetadataClient, bucket: BucketId, prefix: str, until: float) -> list[float]:
    waits, number = [], 0
    now = time.perf_counter()
    while now < until:
        done = await client.commit(PutVersion(
            bucket=bucket, key=f"{prefix}/{number}", version_id=VersionId(""), attributes=ATTRIBUTES, owner="o",
            content=NewContent(size=0, etag="d41d8cd98f00b204e9800998ecf8427e")))
        assert isinstance(done, Committed)
        number += 1
        later = time.perf_counter()
        waits.append(later - now)
        now = later
    return waits


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", default=None)
    parser.add_argument("--no-sync", action="store_true")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        await serve(options.folder, not options.no_sync)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        (Path(folder) / "meta").mkdir()
        extra = ["--no-sync"] if options.no_sync else []
        server = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.bench.metadata_log", folder, "--serve", *extra,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
        assert server.stdout is not None
        assert server.stdin is not None
        await server.stdout.readline()
        await measure(folder, server.pid, options.seconds)
        server.stdin.close()
        await server.wait()


if __name__ == "__main__":
    uvloop.run(main())
