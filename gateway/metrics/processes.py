"""What the system says of a process (Linux, /proc), and which process listens on a socket.

Nobody is asked to tell of himself: that would be one more message for each role, and silent when it matters.
"""

import os
import socket
import struct
from pathlib import Path
from typing import NamedTuple

from consensus.core.wire import short_path, split_address, without_folder

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_CREDENTIALS = struct.Struct("3i")


class ProcessFigures(NamedTuple):
    resident_bytes: int
    cpu_s: float
    open_files: int | None        # None: not ours to see
    threads: int
    started_s: float              # Unix time


def figures_of(pid: int) -> ProcessFigures | None:
    """None for a process that is gone, or hidden from us."""
    try:
        # The second field is the command in brackets, which may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    try:
        open_files = len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        open_files = None
    user, system, threads, started, resident = (int(fields[place - 3]) for place in (14, 15, 20, 22, 24))
    return ProcessFigures(resident * _PAGE_BYTES, (user + system) / _TICKS, open_files, threads, _boot_s() + started / _TICKS)


def listener_of(address: str) -> int | None:
    """The process that listens on a Unix socket; None if nobody does."""
    kind, where = split_address(address)
    if kind != "unix":
        return None
    try:
        with short_path(where) as path:
            found = _peer(path)
    except OSError:                       # not even the folder is there
        found = None
    return found or _peer(without_folder(where))


def _peer(path: str) -> int | None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.setblocking(False)
            probe.connect(path)
            pid: int = _CREDENTIALS.unpack(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))[0]
        except OSError:
            return None
    return pid


def _boot_s() -> float:
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("btime "):
            return float(line.split()[1])
    return 0.0
