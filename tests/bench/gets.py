"""Signed GETs of 4 KiB objects: what each costs the server, over all its processes.

Where nginx is installed, it serves the same bytes as plain files beside, as the yardstick of what HTTP itself costs.
"""

import contextlib
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests import processes
from tests.bench import costs, puts, running
from tests.bench.load import Load, Outcome
from tests.bench.report import Report, median, spread
from tests.clients import install
from tests.servers import StaddleProcess, free_port

OBJECTS = 5000
GETS_A_ROUND = 20_000
CONCURRENCY = 32
ROUNDS = 5
CPU_US_WANTED = 200.0


def main() -> None:
    report = Report("Small signed GETs", f"4 KiB, {OBJECTS} objects in random order, {CONCURRENCY} connections")
    outcomes, spent, plain = [], [], []
    with running.folder() as where, running.server(where) as server, nginx(where) as yardstick:
        with Load(server.address, 64) as filling:
            puts.run(server, filling, OBJECTS, "k")
        with Load(server.address, CONCURRENCY) as load:
            get(server, load, 2000)
            for _ in range(ROUNDS):
                outcome, each = get(server, load, GETS_A_ROUND)
                outcomes.append(outcome)
                spent.append(each)
                if yardstick is not None:
                    plain.append(get_plain(yardstick))
    rows: list[list[object]] = [
        ["GETs a second", spread([outcome.rate for outcome in outcomes])],
        ["wait p50, ms", spread([outcome.wait_ms(0.5) for outcome in outcomes])],
        ["wait p99, ms", spread([outcome.wait_ms(0.99) for outcome in outcomes])],
        *costs.rows(spent, "GET"),
        ["generator CPU, µs a GET", spread([outcome.client_cpu_s / GETS_A_ROUND * 1e6 for outcome in outcomes])],
    ]
    if plain:
        rows.append(["nginx, static file, CPU µs a GET", spread(plain)])
        rows.append(["ratio to nginx", spread([each["all"] / one for each, one in zip(spent, plain, strict=True)])])
    report.table(["", "median (least to greatest of rounds)"], rows)
    report.target("server CPU of a signed 4 KiB GET", median([each["all"] for each in spent]), at_most=CPU_US_WANTED,
                  unit=" µs")


def get(server: StaddleProcess, load: Load, count: int) -> tuple[Outcome, dict[str, float]]:
    signer = running.signer(server)
    choose = random.Random(count)
    requests = [signer.request("GET", f"/bench/k/{choose.randrange(OBJECTS):06}") for _ in range(count)]
    before = costs.cpu_s(server)
    outcome = load.run(requests).all_succeeded()
    return outcome, costs.each(before, costs.cpu_s(server), count)


@contextlib.contextmanager
def nginx(where: Path) -> Iterator[tuple[int, int] | None]:
    """(port, process id) of an nginx that serves files of the same size; None where it isn't installed."""
    program = shutil.which("nginx") or shutil.which("nginx", path=str(install.TOOLS / "usr" / "sbin"))
    if program is None:
        yield None
        return
    home, port = where / "nginx", free_port()
    home.mkdir()
    for number in range(OBJECTS):
        (home / f"{number:06}").write_bytes(os.urandom(4096))
    settings = home / "nginx.conf"
    settings.write_text(f"""
        daemon off; master_process off; pid {home}/pid; error_log {home}/error.log;
        events {{ worker_connections 256; }}
        http {{ access_log off; keepalive_requests 1000000000; open_file_cache max=10000; sendfile on;
                client_body_temp_path {home}/a; proxy_temp_path {home}/b; fastcgi_temp_path {home}/c;
                uwsgi_temp_path {home}/d; scgi_temp_path {home}/e;
                server {{ listen 127.0.0.1:{port}; root {home}; }} }}""")
    process = subprocess.Popen([program, "-c", str(settings), "-e", str(home / "error.log")], cwd=home)
    try:
        yield port, process.pid
    finally:
        process.terminate()
        process.wait()


def get_plain(yardstick: tuple[int, int]) -> float:
    """CPU µs of nginx for each GET."""
    port, pid = yardstick
    choose = random.Random(port)
    names = [f"{choose.randrange(OBJECTS):06}" for _ in range(GETS_A_ROUND)]
    requests = [f"GET /{name} HTTP/1.1\r\nhost: n\r\n\r\n".encode() for name in names]
    with Load(("127.0.0.1", port), CONCURRENCY) as load:
        before = processes.read(pid)
        load.run(requests).all_succeeded()
        after = processes.read(pid)
    assert before is not None
    assert after is not None
    return (after.cpu_s - before.cpu_s) / GETS_A_ROUND * 1e6
