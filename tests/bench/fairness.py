"""Nobody holds up the others: 200 slow clients beside quick ones, and huge metadata work beside small PUTs.

The waits that are shown are those of the quick clients.
"""

import asyncio
import base64
import hashlib
import os
import threading
import time
import xml.etree.ElementTree as Xml
from collections.abc import Callable, Iterator

from awscrt.checksums import crc64nvme

from consensus import queries
from consensus.core.commands import NewContent, PutPart, PutVersion
from consensus.core.ids import UploadId, VersionId, digest
from consensus.core.model import Attributes, Checksum, Slice
from tests.bench import memory, puts, running
from tests.bench.filling import metadata
from tests.bench.load import Load, Outcome
from tests.bench.report import Report
from tests.bench.signer import Signer
from tests.servers import StaddleProcess

SLOW_CLIENTS = 200
SLOW_BYTES_A_S = 2000
"""Above the rate below which the server hangs up."""

QUICK_S = 8.0
QUICK_CONNECTIONS = 4
RATE_KEPT_WANTED = 0.5
PARTS = 10_000
PART_BYTES = 5 << 20
WAIT_MS_WANTED = 200.0


def main() -> None:
    with running.folder() as where, running.server(where) as server:
        slow_clients(server)
        huge_upload(server)


# 200 slow clients

def slow_clients(server: StaddleProcess) -> None:
    report = Report("Slow clients", f"{SLOW_CLIENTS} clients that send or receive {SLOW_BYTES_A_S} bytes a second, "
                                    f"and {QUICK_CONNECTIONS} quick ones")
    signer = running.signer(server)
    with Load(server.address, QUICK_CONNECTIONS) as load:
        load.run(quick(signer, "warm", 0.5))
        load.run([signer.request("PUT", "/bench/large", body=os.urandom(4 << 20))]).all_succeeded()
        alone = load.run(quick(signer, "alone", QUICK_S)).all_succeeded()
        stop = threading.Event()
        crowd = threading.Thread(target=asyncio.run, args=(slow(server, stop),))
        crowd.start()
        time.sleep(2.0)              # all of them are under way
        beside = load.run(quick(signer, "beside", QUICK_S)).all_succeeded()
        stop.set()
        crowd.join()
    report.table(["quick clients", "requests/s", "p50 ms", "p99 ms", "greatest ms"],
                 [waits("alone", alone), waits("beside slow ones", beside)])
    report.target("rate kept beside slow clients, share", beside.rate / alone.rate, at_least=RATE_KEPT_WANTED)


def quick(signer: Signer, name: str, seconds: float) -> Iterator[bytes]:
    """PUTs and GETs in turn, for a while."""
    end, number = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        path = f"/bench/quick/{name}/{number:06}"
        yield signer.request("PUT", path, body=os.urandom(4096))
        if number >= 100:
            yield signer.request("GET", f"/bench/quick/{name}/{number - 100:06}")
        number += 1


async def slow(server: StaddleProcess, stop: threading.Event) -> None:
    """Half of the clients send a large body slowly, half receive one slowly. A refused or broken one is an error."""
    signer = running.signer(server)

    async def sender(number: int) -> None:
        _, writer = await asyncio.open_connection(*server.address)
        writer.write(signer.request("PUT", f"/bench/slow/{number}", payload="UNSIGNED-PAYLOAD", length=1 << 20))
        while not stop.is_set():
            writer.write(b"s" * (SLOW_BYTES_A_S // 4))
            await writer.drain()
            await asyncio.sleep(0.25)
        writer.close()

    async def receiver() -> None:
        reader, writer = await asyncio.open_connection(*server.address, limit=4096)
        writer.write(signer.request("GET", "/bench/large"))
        while not stop.is_set():
            assert await reader.read(SLOW_BYTES_A_S // 4)
            await asyncio.sleep(0.25)
        writer.close()

    async with asyncio.TaskGroup() as clients:
        for number in range(SLOW_CLIENTS):
            clients.create_task(sender(number) if number % 2 else receiver())


# Huge uploads

def huge_upload(server: StaddleProcess) -> None:
    report = Report("Huge uploads", f"Complete of {PARTS:,} parts, a copy, and the deletion of both, beside small PUTs")
    signer = running.signer(server)
    upload = prepare_upload(server)
    content = f"{PARTS * PART_BYTES / 2**30:.1f} GiB"
    steps: list[tuple[str, Callable[[], None]]] = [
        ("nothing else", lambda: time.sleep(3.0)),
        (f"Complete, {content}", lambda: complete(server, upload)),
        ("copy by reference", lambda: asyncio.run(copy(server))),
        ("deletion of both", lambda: delete(server)),
    ]
    rows, worst = [], 0.0
    for name, step in steps:
        outcome = beside(server, signer, name, step)
        rows.append(waits(name, outcome))
        worst = max(worst, outcome.wait_max_ms)
    report.table(["PUTs beside", "PUTs/s", "p50 ms", "p99 ms", "greatest ms"], rows)
    report.target("greatest wait of a PUT", worst, at_most=WAIT_MS_WANTED, unit=" ms")


def beside(server: StaddleProcess, signer: Signer, name: str, step: Callable[[], None]) -> Outcome:
    """Small PUTs while the step runs, and for two seconds after it: its work may go on behind the answer."""
    done = threading.Event()
    failed: list[BaseException] = []

    def work() -> None:
        try:
            step()
            time.sleep(2.0)
        except BaseException as error:
            failed.append(error)
        finally:
            done.set()

    def requests() -> Iterator[bytes]:
        number = 0
        while not done.is_set():
            yield signer.request("PUT", f"/bench/{name}/{number:06}", body=os.urandom(puts.OBJECT_BYTES))
            number += 1

    worker = threading.Thread(target=work)
    worker.start()
    with Load(server.address, 8) as load:
        outcome = load.run(requests()).all_succeeded()
    worker.join()
    if failed:
        raise RuntimeError(f"{name} failed; the server's log ends with\n{server.log()}") from failed[0]
    return outcome


def prepare_upload(server: StaddleProcess) -> str:
    """An upload of 10,000 parts that all share one chunk: sent through the metadata, as 50 GiB would take too long."""
    signer = running.signer(server)
    data = os.urandom(PART_BYTES)
    with memory.connect(server) as connection:
        memory.ask(connection, signer.request("PUT", "/bench/part", body=data))
        _, text = memory.ask(connection, signer.request("POST", "/bench/huge", query="uploads="))
    upload = Xml.fromstring(text).findtext("{*}UploadId") or ""
    etag = hashlib.md5(data).hexdigest()
    checksum = base64.b64encode(crc64nvme(data).to_bytes(8, "big")).decode()
    shared = NewContent(size=PART_BYTES, etag=etag, slices=(Slice(digest(data), 0, PART_BYTES),),
                        checksum=Checksum("CRC64NVME", checksum, "FULL_OBJECT"))

    async def parts() -> None:
        async with metadata(server) as client:
            bucket = await client.read(queries.bucket, "bench")
            assert bucket is not None
            for start in range(1, PARTS + 1, 500):
                await asyncio.gather(*(
                    client.commit(PutPart(bucket=bucket.id, key="huge", upload_id=UploadId(upload), number=number,
                                          content=shared)) for number in range(start, min(start + 500, PARTS + 1))))

    asyncio.run(parts())
    _etags.append(etag)
    return upload


_etags: list[str] = []


def complete(server: StaddleProcess, upload: str) -> None:
    listed = "".join(f'<Part><PartNumber>{number}</PartNumber><ETag>"{_etags[-1]}"</ETag></Part>'
                     for number in range(1, PARTS + 1))
    request = running.signer(server).request("POST", "/bench/huge", query=f"uploadId={upload}", body=(
        f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>").encode())
    with memory.connect(server) as connection:
        _, text = memory.ask(connection, request)
    assert b"<Error>" not in text, text


async def copy(server: StaddleProcess) -> None:
    """S3 copies at most 5 GiB in one request, so the commit that such a copy ends in is sent itself."""
    async with metadata(server) as client:
        bucket = await client.read(queries.bucket, "bench")
        assert bucket is not None
        version = await client.read(queries.current, bucket.id, "huge")
        assert version is not None
        await client.commit(PutVersion(bucket=bucket.id, key="copy", version_id=VersionId("null"),
                                       attributes=Attributes(), owner=bucket.owner, content_of=version.content))


def delete(server: StaddleProcess) -> None:
    signer = running.signer(server)
    with memory.connect(server) as connection:
        for key in ("huge", "copy"):
            memory.ask(connection, signer.request("DELETE", f"/bench/{key}"))


def waits(name: str, outcome: Outcome) -> list[object]:
    return [name, outcome.rate, outcome.wait_ms(0.5), outcome.wait_ms(0.99), outcome.wait_max_ms]
