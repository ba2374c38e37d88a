"""What clients that stall make a gateway hold: 200 large GETs that nobody reads on with, 200 large PUTs that trickle in.

Each client is quick at first, so that it gets whatever the server gives to quick ones, and then almost stands still. Two
GETs of a large object, before the crowd has come and beside it, show what it costs the others. Over http and https.
"""

import contextlib
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tests import processes
from tests.bench import costs, memory, running
from tests.bench.report import Report, median
from tests.servers import StaddleProcess

CROWD = 200
OBJECT_BYTES = 64 << 20
QUICK_BYTES = 3 << 20
"""What a PUT sends before it slows down: several of any buffers that there are."""

TRICKLE_BYTES = 16 << 10
TRICKLE_S = 0.25
"""64 KiB/s: far above what is taken for dead, far below what deserves large buffers."""

HOLD_S = 8.0
FAST_GETS = 8
"""Of OBJECT_BYTES each."""

MEMORY_MIB_WANTED = 300.0
RATE_KEPT_WANTED = 0.5


def main() -> None:
    report = Report("Memory with slow clients", f"{CROWD} stalled GETs, {CROWD} slow PUTs, and both; a gateway's memory")
    rows: list[list[object]] = []
    worst = 0.0
    for tls in (False, True):
        kinds = {"stalled GETs": (CROWD, 0), "slow PUTs": (0, CROWD), "both": (CROWD, CROWD)}
        for kind, (readers, writers) in kinds.items():
            with running.folder() as where, _server(where, tls=tls) as server:
                row, peak = measure(server, readers, writers)
                rows.append([f"{'https' if tls else 'http'}, {kind}", *row])
                worst = max(worst, peak)
    report.table(["", "idle MiB", "greatest MiB", "after 8 s, MiB", "fast GET MiB/s", "beside the crowd",
                  "gateway CPU s/GiB", "beside the crowd"], rows)
    report.target("greatest memory of a gateway", worst, at_most=MEMORY_MIB_WANTED, unit=" MiB")


@contextlib.contextmanager
def _server(where: Path, *, tls: bool) -> Iterator[StaddleProcess]:
    server = StaddleProcess(where / "server", tls=tls)
    try:
        server.start()
        with connect(server) as connection:
            memory.ask(connection, running.signer(server).request("PUT", "/bench"))
            memory.ask(connection, running.signer(server).request("PUT", "/bench/large", body=os.urandom(OBJECT_BYTES)))
        yield server
    finally:
        if server.running:
            server.stop()


def connect(server: StaddleProcess) -> socket.socket:
    plain = socket.create_connection(server.address, timeout=memory.ANSWER_TIMEOUT_S)
    if server.certificate is None:
        return plain
    context = ssl.create_default_context(cafile=str(server.certificate.certificate))
    return context.wrap_socket(plain, server_hostname="127.0.0.1")


def measure(server: StaddleProcess, readers: int, writers: int) -> tuple[list[object], float]:
    """A row of the table, and the greatest memory of the gateway in MiB."""
    pid = server.roles()["gateway"][0]
    alone = fast(server)
    time.sleep(1.0)
    costs.forget_peaks(server)
    idle = processes.memory_peak_bytes(pid) / 2**20
    stop = threading.Event()
    with contextlib.ExitStack() as open_ones:
        for _ in range(readers):
            connection = open_ones.enter_context(connect(server))
            connection.sendall(running.signer(server).request("GET", "/bench/large"))
            assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        senders = [open_ones.enter_context(connect(server)) for _ in range(writers)]
        trickle = threading.Thread(target=send, args=(server, senders, stop))
        trickle.start()
        try:
            time.sleep(HOLD_S)
            peak = processes.memory_peak_bytes(pid) / 2**20
            costs.forget_peaks(server)
            held = processes.memory_peak_bytes(pid) / 2**20
            beside = fast(server)
            peak = max(peak, processes.memory_peak_bytes(pid) / 2**20)
        finally:
            stop.set()
            trickle.join()
    return [idle, peak, held, alone[0], beside[0], alone[1], beside[1]], peak


def send(server: StaddleProcess, senders: list[socket.socket], stop: threading.Event) -> None:
    piece = os.urandom(QUICK_BYTES)
    for number, connection in enumerate(senders):
        connection.sendall(running.signer(server).request(
            "PUT", f"/bench/slow/{number}", payload="UNSIGNED-PAYLOAD", length=OBJECT_BYTES))
        connection.sendall(piece)
    while senders and not stop.is_set():
        began = time.monotonic()
        for connection in senders:
            connection.sendall(piece[:TRICKLE_BYTES])
        stop.wait(max(0.0, began + TRICKLE_S - time.monotonic()))


def fast(server: StaddleProcess) -> tuple[float, float]:
    """GETs one after the other: the median of their MiB/s, and the gateway's CPU seconds per GiB."""
    rates: list[float] = []
    buffer = bytearray(1 << 20)
    cpu = costs.cpu_s(server)["gateway"]
    with connect(server) as connection:
        for _ in range(FAST_GETS):
            began = time.perf_counter()
            connection.sendall(running.signer(server).request("GET", "/bench/large"))
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += (one := connection.recv(1))
                assert one, head
            left = OBJECT_BYTES
            while left:
                received = connection.recv_into(buffer)
                assert received, f"the answer ended {left} bytes early"
                left -= received
            rates.append(OBJECT_BYTES / 2**20 / (time.perf_counter() - began))
    # The system counts in ticks of 10 ms, so only the sum of several GETs says something.
    return median(rates), (costs.cpu_s(server)["gateway"] - cpu) / (FAST_GETS * OBJECT_BYTES / 2**30)
