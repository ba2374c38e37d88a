"""What a server's processes spend: CPU time by role between two moments, and memory at its peak."""

from collections.abc import Mapping, Sequence

from tests import processes
from tests.bench.report import spread
from tests.servers import StaddleProcess, role_of

Costs = Mapping[str, float]


def cpu_s(server: StaddleProcess) -> dict[str, float]:
    """CPU seconds spent so far, by role."""
    spent: dict[str, float] = {}
    for process in server.processes():
        role = role_of(process) or "supervisor"
        spent[role] = spent.get(role, 0.0) + process.cpu_s
    return spent


def each(before: Costs, after: Costs, count: int) -> dict[str, float]:
    """Microseconds for each of `count` requests, by role, and their sum as `all`."""
    spent = {role: (after[role] - before.get(role, 0.0)) / count * 1e6 for role in after}
    return {**spent, "all": sum(spent.values())}


def forget_peaks(server: StaddleProcess) -> None:
    for process in server.processes():
        processes.forget_memory_peak(process.pid)


def peaks_mib(server: StaddleProcess) -> dict[str, float]:
    """The greatest memory of a process since the start (or since `forget_peaks`), by role; the largest of a role."""
    peaks: dict[str, float] = {}
    for process in server.processes():
        role = role_of(process) or "supervisor"
        peaks[role] = max(peaks.get(role, 0.0), processes.memory_peak_bytes(process.pid) / 2**20)
    return peaks


def rows(spent: Sequence[Costs], what: str) -> list[list[object]]:
    """Lines of a report: what each `what` cost, by role, over the rounds."""
    return [[f"server CPU, {role}, µs a {what}", spread([each[role] for each in spent])] for role in spent[0]]
