"""When does a gateway serve again? Small requests to each gateway at fixed moments, whether or not earlier ones have been
answered, so that one that hangs does not hide what a client would see who asks now.

    probes = Probes(machines); probes.start(); …kill…; probes.back_s(machine, WRITE, since=killed); probes.stop()
"""

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

from tests.linear.clients import Connection, NoAnswer
from tests.servers import StaddleProcess

BUCKET = "probes"
EVERY_S = 0.1
SLOW_S = 2.0
"""Whoever waits longer is not served."""

TIMEOUT_S = 10.0
WRITE, READ = "write", "read"
BODY = b"a probe writes so little that it hardly counts as load"


class Probe(NamedTuple):
    begin: float
    end: float
    served: bool


class Probes:
    """In a thread of its own."""

    def __init__(self, servers: Sequence[StaddleProcess]) -> None:
        self._servers = servers
        self._seen: dict[tuple[StaddleProcess, str], list[Probe]] = {
            (server, kind): [] for server in servers for kind in (WRITE, READ)}
        self._ready = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.errors: list[str] = []

    def start(self) -> None:
        """Returns once each gateway has been read and written through, if they all serve."""
        self._stopping.clear()
        for seen in self._seen.values():
            seen.clear()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True, name="probes")
        self._thread.start()
        deadline = time.monotonic() + TIMEOUT_S
        while not all(any(probe.served for probe in list(seen)) for seen in self._seen.values()):
            assert time.monotonic() < deadline, f"probes find nobody who serves: {self.errors[-3:]}"
            time.sleep(EVERY_S)

    def stop(self) -> None:
        self._stopping.set()
        assert self._thread is not None
        self._thread.join(TIMEOUT_S + 5)
        assert not self._thread.is_alive()

    def back_s(self, server: StaddleProcess, kind: str, since: float) -> float | None:
        """Seconds from `since` until this gateway answered a request that was sent later, with none after it that failed;
        None if it does not serve yet."""
        later = sorted(probe for probe in list(self._seen[server, kind]) if probe.begin >= since)
        bad = max((probe.begin for probe in later if not probe.served), default=since)
        return min((probe.end - since for probe in later if probe.served and probe.begin >= bad), default=None)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for server in self._servers:
                tasks.create_task(self._ask(server))

    async def _ask(self, server: StaddleProcess) -> None:
        idle: list[Connection] = []
        async with asyncio.TaskGroup() as tasks:
            number = 0
            while not self._stopping.is_set():
                number += 1
                kind = READ if number % 2 else WRITE
                tasks.create_task(self._once(server, kind, idle))
                await asyncio.sleep(EVERY_S)
        for connection in idle:
            connection.close()

    async def _once(self, server: StaddleProcess, kind: str, idle: list[Connection]) -> None:
        connection = idle.pop() if idle else Connection(server.address)
        begin = time.monotonic()
        path = f"/{BUCKET}/{server.port}-{server.address[0]}"
        served = False
        try:
            if kind == WRITE:
                answer = await connection.ask("PUT", path, body=BODY, timeout_s=TIMEOUT_S)
                served = answer.status == 200
            else:
                answer = await connection.ask("GET", path, timeout_s=TIMEOUT_S)
                served = answer.status == 404 or (answer.status == 200 and answer.body == BODY)
            if not served:
                self.errors.append(f"{answer.status} {answer.body[:100]!r}")
            idle.append(connection)
        except (NoAnswer, OSError) as error:
            connection.close()
            self.errors.append(repr(error))
        end = time.monotonic()
        self._seen[server, kind].append(Probe(begin, end, served and end - begin <= SLOW_S))
        del self.errors[:-50]
