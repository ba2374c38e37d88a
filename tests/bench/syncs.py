"""How often a server's processes sync a file, counted by strace while a load runs.

strace slows what it watches, so nothing is timed meanwhile; the count per request is an upper bound, as slower requests
share their syncs just as well.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from tests.servers import StaddleProcess

CALLS = "fsync,fdatasync,sync_file_range,syncfs,msync"
ATTACH_TIMEOUT_S = 10.0


class Counting:
    """A stretch of time in which syncs are counted. `counts` by role afterwards; empty if strace can't be had."""

    def __init__(self, server: StaddleProcess) -> None:
        self._server = server
        self.counts: dict[str, int] = {}
        self._watching: list[tuple[str, subprocess.Popen[bytes], Path]] = []

    def __enter__(self) -> "Counting":
        if shutil.which("strace") is None:
            return self
        self._folder = Path(tempfile.mkdtemp(prefix="staddle-syncs-"))
        for role in ("meta", "node"):
            for pid in self._server.roles()[role]:
                output = self._folder / f"{role}-{pid}"
                watcher = subprocess.Popen(
                    ["strace", "-f", "-qq", "-e", f"trace={CALLS}", "-o", str(output), "-p", str(pid)],
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                self._watching.append((role, watcher, output))
                _wait_attached(pid)
        return self

    def __exit__(self, *_: object) -> None:
        for role, watcher, output in self._watching:
            watcher.send_signal(signal.SIGINT)
            watcher.wait()
            with contextlib.suppress(FileNotFoundError):
                lines = output.read_text().splitlines()
                # A call that another thread interrupts has two lines; only one of them ends with its result.
                done = sum(1 for line in lines if " = 0" in line and "sync" in line)
                self.counts[role] = self.counts.get(role, 0) + done
        if self._watching:
            shutil.rmtree(self._folder)


def _wait_attached(pid: int) -> None:
    """Until each thread of the process is watched. Silently gives up where watching is not permitted."""
    deadline = time.monotonic() + ATTACH_TIMEOUT_S
    while time.monotonic() < deadline:
        statuses = [Path(f"/proc/{pid}/task/{task}/status").read_text() for task in os.listdir(f"/proc/{pid}/task")]
        if all("TracerPid:\t0\n" not in status for status in statuses):
            return
        time.sleep(0.01)
