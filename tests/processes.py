"""A tree of processes as Linux shows it: who belongs to it, what it cost, how much memory it took.

Costs are sums over all threads of all living processes of the tree, so compare two readings of the same tree.
"""

import os
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    pid: int
    parent: int
    state: str
    command: tuple[str, ...]
    cpu_s: float                 # user and system, all threads; resolution 10 ms


def read(pid: int) -> Process | None:
    """The process, or None if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(")") + 2:].split()      # the name before it may hold spaces and brackets
    return Process(
        pid=pid, state=fields[0], parent=int(fields[1]),
        command=tuple(part.decode(errors="replace") for part in command.split(b"\0")[:-1]),
        cpu_s=(int(fields[11]) + int(fields[12])) / TICKS_PER_S,
    )


def tree(root: int) -> list[Process]:
    """The process and all its living descendants, the root first, zombies left out."""
    everyone = [process for name in os.listdir("/proc") if name.isdigit() and (process := read(int(name)))]
    found, wanted = [], [root]
    while wanted:
        pid = wanted.pop(0)
        found += [process for process in everyone if process.pid == pid and process.state != "Z"]
        wanted += sorted(process.pid for process in everyone if process.parent == pid)
    return found


def memory_peak_bytes(pid: int) -> int:
    """The most memory that the process held at any one time (VmHWM: mapped files count too). 0 if it is gone."""
    return _status(pid, "VmHWM:") * 1024


def memory_now(pid: int) -> tuple[int, int]:
    """Bytes now: (the process's own, mapped files)."""
    return _status(pid, "RssAnon:") * 1024, _status(pid, "RssFile:") * 1024


def forget_memory_peak(pid: int) -> None:
    """The peak starts again from what is held now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _status(pid: int, name: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(name)), 0)
