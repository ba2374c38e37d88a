"""What the metadata costs: µs of CPU per put in apply, per small GET's look, per page of a listing.

    python -m tests.bench.metadata [keys]        # default 10,000 and 200,000; 1000000 takes some minutes

No journal and no sockets: see metadata_log.py for those.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from consensus import queries
from consensus.core.codec import encode_entry
from consensus.core.commands import CreateBucket, Envelope, NewChunk, NewContent, OpenSession, PutVersion, RegisterNode
from consensus.core.ids import Digest, SessionId
from consensus.core.model import Attributes, Checksum, Holder, Slice
from consensus.machine import Machine
from consensus.reads import Reader

INCARNATION = b"i" * 16
ATTRIBUTES = Attributes(content_type="text/plain", metadata=(("mtime", "1700000000.123"),))
CHECKSUM = Checksum("CRC64NVME", "AAAAAAAAAAA=", "FULL_OBJECT")
OWNER = "o" * 64


def put(bucket: int, key: str, random: Random) -> PutVersion:
    """A small object, as a gateway sends it."""
    digest = Digest(random.randbytes(32))
    return PutVersion(
        bucket=bucket, key=key, version_id="v" * 32, attributes=ATTRIBUTES, owner=OWNER,  # type: ignore[arg-type]
        content=NewContent(size=4096, etag="e" * 32, checksum=CHECKSUM, slices=(Slice(digest, 0, 4096),),
                           chunks=(NewChunk(digest=digest, size=4096, holders=(Holder("n1", INCARNATION),)),)),
    )


def key_of(number: int) -> str:
    return f"folder{number % 1000:04}/file{number:09}"


def cpu_us(action: Callable[[], Any], times: int) -> float:
    begin = time.process_time()
    for _ in range(times):
        action()
    return (time.process_time() - begin) / times * 1e6


def main(keys: int) -> None:
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        machine = Machine(folder)
        index = sequence = 0

        def send(*commands: Any, session: int = 0) -> list[Any]:
            nonlocal index, sequence
            index += 1
            first, sequence = sequence, sequence + len(commands)
            entry = encode_entry([
                Envelope(session=SessionId(session), sequence=first + place, low=max(0, first - 64), now_ms=10**12 + index,
                         command=command)
                for place, command in enumerate(commands)
            ])
            begin = time.process_time()
            results = machine.apply(entry, index)
            machine.commit(index, 1)
            spent.append(time.process_time() - begin)
            return results

        spent: list[float] = []
        send(RegisterNode(node="n1", incarnation=INCARNATION, address="unix:/n1"))
        (opened,) = send(OpenSession(owner="bench"))
        (made,) = send(CreateBucket(name="bench", account="a", owner=OWNER))
        random, session, bucket = Random(7), opened.session, made.bucket

        def fill(first: int, count: int, batch: int) -> float:
            spent.clear()
            for start in range(first, first + count, batch):
                send(*(put(bucket, key_of(number), random) for number in range(start, start + batch)), session=session)
            return sum(spent) / count * 1e6

        fill(0, keys - keys % 500, 500)
        machine.checkpoint()
        for batch in (1, 8, 64, 256):
            print(f"{keys:>9} keys: new put, {batch:>3} in an entry: {fill(keys, 2048 - 2048 % batch, batch):6.1f} us")
            keys += 2048
        print(f"{keys:>9} keys: overwrite, 64 in an entry: {fill(0, 2048, 64):6.1f} us")
        reader = Reader(folder, queries.header, queries.ALONE, queries.KnowingBuckets)

        def read(query: Callable[..., Any], *arguments: Any) -> Any:
            return reader.run(1, query, *arguments)

        def report(name: str, times: int, action: Callable[[], Any]) -> None:
            action()
            print(f"{keys:>9} keys: {name:<40} {cpu_us(action, times):8.1f} us")

        wanted = [key_of(random.randrange(keys // 2)) for _ in range(20_000)]
        names = iter(wanted * 3)
        report("opened (hit)", 20_000, lambda: read(queries.opened, "bench", next(names)))
        names = iter(wanted * 3)
        report("opened without the transaction", 20_000, lambda: queries.opened(machine.db, "bench", next(names)))
        report("opened (no such key)", 5_000, lambda: read(queries.opened, "bench", "none"))
        middle = [key_of(random.randrange(keys // 2)) for _ in range(200)]
        places = iter(middle * 9)
        report("page of 1000 keys, anywhere", 100,
               lambda: read(queries.list_objects, bucket, "", "", next(places), 1000))
        report("page of 1000 common prefixes", 50, lambda: read(queries.list_objects, bucket, "", "/", "", 1000))
        report("page of the keys of one folder", 50,
               lambda: read(queries.list_objects, bucket, "folder0001/", "/", "", 1000))
        report("page of 1000 versions", 50,
               lambda: read(queries.list_versions, bucket, "", "", next(places), None, 1000))
        size = Path(machine.path).stat().st_size
        print(f"{keys:>9} keys: {size / keys:.0f} bytes a key in the file")
        machine.close()
        reader.close()


if __name__ == "__main__":
    for wanted in [int(argument) for argument in sys.argv[1:]] or [10_000, 200_000]:
        main(wanted)
