"""An object of 5 GiB goes up as one PUT and as a multipart upload, and comes down: the memory that each process took.

The client makes the bytes while it sends them and compares them while it receives them: no file, every MiB different so
that nothing is deduplicated. STADDLE_BENCH_GIB makes the object smaller.
"""

import os
import socket
import struct
import threading
import time
import xml.etree.ElementTree as Xml
from collections.abc import Callable

from tests.bench import costs, running
from tests.bench.report import Report
from tests.servers import StaddleProcess

PIECE_BYTES = 1 << 20
OBJECT_BYTES = int(float(os.environ.get("STADDLE_BENCH_GIB", "5")) * 2**30) // PIECE_BYTES * PIECE_BYTES
PART_BYTES = 64 << 20
PARTS_AT_ONCE = 4
MEMORY_MIB_WANTED = 300.0
ANSWER_TIMEOUT_S = 120.0

_random = os.urandom(PIECE_BYTES)


def main() -> None:
    report = Report("Memory with large objects", f"an object of {OBJECT_BYTES / 2**30:.1f} GiB, peaks of a process")
    rows: list[list[object]] = []
    worst = 0.0
    with running.folder() as where, running.server(where) as server:
        roles = list(costs.peaks_mib(server))
        rows.append(["idle", "", "", *costs.peaks_mib(server).values()])
        jobs: list[tuple[str, Callable[[StaddleProcess], None]]] = [
            ("single PUT", put), ("GET of it", lambda server: get(server, "single")),
            (f"multipart, {PARTS_AT_ONCE} at once", multipart), ("GET of it", lambda server: get(server, "parts"))]
        for name, job in jobs:
            costs.forget_peaks(server)
            before, began = costs.cpu_s(server), time.perf_counter()
            job(server)
            took, spent = time.perf_counter() - began, costs.cpu_s(server)
            peaks = costs.peaks_mib(server)
            worst = max(worst, *peaks.values())
            rows.append([name, OBJECT_BYTES / took / 2**20,
                         sum(spent[role] - before[role] for role in spent) / (OBJECT_BYTES / 2**30), *peaks.values()])
    report.table(["", "MiB/s", "CPU s/GiB", *[f"{role}, MiB" for role in roles]], rows)
    report.target("greatest memory of any process", worst, at_most=MEMORY_MIB_WANTED, unit=" MiB")


def piece(number: int) -> bytes:
    """The object's MiB of that number: like no other."""
    return struct.pack("<Q", number) + _random[8:]


def connect(server: StaddleProcess) -> socket.socket:
    return socket.create_connection(server.address, timeout=ANSWER_TIMEOUT_S)


def ask(connection: socket.socket, request: bytes) -> tuple[bytes, bytes]:
    """Head and body of the answer to a small request. Raises AssertionError unless it is 2xx."""
    connection.sendall(request)
    return answer(connection)


def answer(connection: socket.socket) -> tuple[bytes, bytes]:
    received = b""
    while b"\r\n\r\n" not in received:
        received += (more := connection.recv(65536))
        assert more, f"the server hung up: {received!r}"
    head, _, body = received.partition(b"\r\n\r\n")
    length = next((int(line.split(b":")[1]) for line in head.lower().split(b"\r\n")
                   if line.startswith(b"content-length:")), 0)
    while len(body) < length:
        body += connection.recv(65536)
    assert head.startswith(b"HTTP/1.1 2"), head + body
    return head, body


def put(server: StaddleProcess) -> None:
    with connect(server) as connection:
        connection.sendall(running.signer(server).request(
            "PUT", "/bench/single", payload="UNSIGNED-PAYLOAD", length=OBJECT_BYTES))
        for number in range(OBJECT_BYTES // PIECE_BYTES):
            connection.sendall(piece(number))
        answer(connection)


def multipart(server: StaddleProcess) -> None:
    signer = running.signer(server)
    with connect(server) as connection:
        _, text = ask(connection, signer.request("POST", "/bench/parts", query="uploads="))
        upload = Xml.fromstring(text).findtext("{*}UploadId")
        count = -(-OBJECT_BYTES // PART_BYTES)
        tags: dict[int, str] = {}
        waiting = iter(range(count))
        lock = threading.Lock()

        def work() -> None:
            with connect(server) as mine:
                while True:
                    with lock:
                        number = next(waiting, None)
                    if number is None:
                        return
                    tags[number] = put_part(mine, number)

        def put_part(mine: socket.socket, number: int) -> str:
            size = min(PART_BYTES, OBJECT_BYTES - number * PART_BYTES)
            mine.sendall(signer.request("PUT", "/bench/parts", query=f"partNumber={number + 1}&uploadId={upload}",
                                        payload="UNSIGNED-PAYLOAD", length=size))
            first = number * PART_BYTES // PIECE_BYTES
            for each in range(first, first + size // PIECE_BYTES):
                mine.sendall(piece(each))
            head, _ = answer(mine)
            line = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"etag:"))
            return line.split(b":", 1)[1].strip().decode()

        workers = [threading.Thread(target=work) for _ in range(PARTS_AT_ONCE)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        listed = "".join(f"<Part><PartNumber>{number + 1}</PartNumber><ETag>{tags[number]}</ETag></Part>"
                         for number in range(count))
        _, text = ask(connection, signer.request("POST", "/bench/parts", query=f"uploadId={upload}", body=(
            f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>").encode()))
        assert b"<Error>" not in text, text


def get(server: StaddleProcess, key: str) -> None:
    """Raises AssertionError when a byte differs."""
    buffer = bytearray(PIECE_BYTES)
    with connect(server) as connection:
        connection.sendall(running.signer(server).request("GET", f"/bench/{key}"))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += (one := connection.recv(1))
            assert one, head
        assert head.startswith(b"HTTP/1.1 200"), head
        for number in range(OBJECT_BYTES // PIECE_BYTES):
            view = memoryview(buffer)
            while view:
                received = connection.recv_into(view)
                assert received, f"the answer ended in MiB {number}"
                view = view[received:]
            assert buffer == piece(number), f"MiB {number} differs"
