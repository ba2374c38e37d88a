"""Rounds of one fault: load, the fault, a while with it, its end, and the question whether anything was lost.

A *case* says what happens to which disk. In each round clients write while the fault comes and goes (tests/torture's
workload, which knows what it was told), and readers ask for objects that were there before: none of their reads may fail.
The server is never restarted; after the fault, writes must be accepted within BACK_S.
"""

import errno
import hashlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.faults.mounts import MIB, Ext4, Mounted, Plain, Tmpfs
from tests.servers import StaddleProcess
from tests.talker import NotSent, Talker, Unanswered
from tests.torture.checker import check
from tests.torture.shim.log import Op, Rule, ShimLog
from tests.torture.workload import BUCKET, Workload

BACK_S = 10.0
"""From the end of the fault to the first acknowledged write."""

NOTICED_S = 10.0
"""From the fault to the word that the server is not ready."""

LOAD_S = (0.3, 1.0)
FAULT_S = (1.0, 3.0)
FIXED = 12
LARGEST = 4 * MIB
"""Of an object: small disks."""

POLL_S = 0.02


class Case(NamedTuple):
    """`ruin` and `mend` change the disks of the data folders, which are given in order."""

    name: str
    folders: int
    disk: type[Mounted]
    ruin: Callable[["Fault"], None]
    mend: Callable[["Fault"], None]
    refuses: bool = True
    """Writes can't succeed meanwhile."""


class Fault:
    """What a case can lay hands on."""

    def __init__(self, disks: list[Mounted], log: ShimLog | None, choose: random.Random) -> None:
        self.disks, self.log, self.choose = disks, log, choose
        self._rules: list[int] = []

    def fill(self, disk: Mounted) -> None:
        """To the brim, or so that a little is left."""
        disk.full(self.choose.choice((0, 0, 3 * MIB, 20 * MIB, 40 * MIB)))

    def refuse(self, *patterns: str, error: int = errno.EROFS) -> None:
        """Whatever would change files below these fails from now on."""
        assert self.log is not None
        self._rules = [self.log.add(Rule(pattern=pattern, ops=Op.WRITE | Op.NAME | Op.SYNC | Op.RANGE, error=error, count=None))
                       for pattern in patterns]

    def relent(self) -> None:
        assert self.log is not None
        for number in self._rules:
            self.log.remove(number)


CASES = [
    Case("one full disk for all", 1, Tmpfs, lambda fault: fault.fill(fault.disks[0]), lambda fault: fault.disks[0].roomy()),
    Case("one full disk for all, ext4", 1, Ext4, lambda fault: fault.fill(fault.disks[0]),
         lambda fault: fault.disks[0].roomy()),
    Case("the second of two disks full", 2, Tmpfs, lambda fault: fault.fill(fault.disks[1]),
         lambda fault: fault.disks[1].roomy()),
    Case("one disk for all, mounted read-only", 1, Tmpfs, lambda fault: fault.disks[0].read_only(),
         lambda fault: fault.disks[0].writable()),
    Case("the second of two disks mounted read-only", 2, Tmpfs, lambda fault: fault.disks[1].read_only(),
         lambda fault: fault.disks[1].writable()),
    Case("chunks read-only, open files too", 1, Plain, lambda fault: fault.refuse("chunks/*"), Fault.relent),
    Case("metadata read-only, open files too", 1, Plain, lambda fault: fault.refuse("meta/*"), Fault.relent),
    Case("all read-only, open files too", 1, Plain, lambda fault: fault.refuse("chunks/*", "meta/*"), Fault.relent),
    Case("all writes fail with EIO", 1, Plain, lambda fault: fault.refuse("chunks/*", "meta/*", error=errno.EIO),
         Fault.relent),
]


class Round(NamedTuple):
    """What one has shown. Seconds."""

    faulty_s: float
    noticed_s: float | None
    reason: str
    back_s: float
    reads: int
    longest_read_s: float


class Readers:
    """Ask for what was there before, again and again, until stopped."""

    def __init__(self, server: StaddleProcess, fixed: dict[str, str]) -> None:
        self._server, self._fixed = server, fixed
        self._stopping = threading.Event()
        self.reads, self.longest_s = 0, 0.0
        self.failed: list[str] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with Talker(self._server) as talker:
            while not self._stopping.is_set():
                for key, digest in self._fixed.items():
                    began = time.monotonic()
                    try:
                        status, body, _ = talker.ask("GET", f"/{BUCKET}/{key}")
                    except (NotSent, Unanswered) as error:
                        self.failed.append(f"GET {key}: {error!r}")
                        continue
                    self.reads += 1
                    self.longest_s = max(self.longest_s, time.monotonic() - began)
                    if status != 200 or hashlib.sha256(body).hexdigest() != digest:
                        self.failed.append(f"GET {key}: {status} {body[:200]!r}")

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(60)


class Rounds:
    """One server on disks of its own. `close` ends it."""

    def __init__(self, case: Case, folder: Path, seed: int, clients: int = 3) -> None:
        """Raises mounts.Refused."""
        self.case, self.seed = case, seed
        self.choose = random.Random(f"{seed} {case.name}")
        folder.mkdir(parents=True, exist_ok=True)
        self.server = StaddleProcess(folder, data_folders=case.folders,
                                     settings={"read_grace_seconds": "0", "copies": str(case.folders)})
        self.disks: list[Mounted] = []
        self._log: ShimLog | None = None
        try:
            for data in self.server.data:
                self.disks.append(case.disk(data))
            if case.mend is Fault.relent:
                self._log = ShimLog(self.server.data[0], real_sync=True)
                self.server.variables = self._log.environment
            self.server.start()
            self.workload = Workload(self.server, clients, seed, largest=LARGEST)
            self.workload.make_bucket()
            self.fixed = self._put_fixed()
        except BaseException:
            self.close()
            raise
        self.fault = Fault(self.disks, self._log, self.choose)

    def close(self) -> None:
        self.server.kill_all()
        for disk in self.disks:
            disk.close()
        if self._log is not None:
            self._log.close()

    def _put_fixed(self) -> dict[str, str]:
        fixed = {}
        with Talker(self.server) as talker:
            for number in range(FIXED):
                body = self.choose.randbytes(self.choose.choice((700, 20_000, 300_000, 2_000_000)))
                status, answer, _ = talker.ask("PUT", f"/{BUCKET}/fixed/{number}", body=body)
                assert status == 200, answer
                fixed[f"fixed/{number}"] = hashlib.sha256(body).hexdigest()
        return fixed

    def round(self) -> Round:
        """Raises AssertionError with what was wrong."""
        workload, choose = self.workload, self.choose
        supervisor = self.server.pid
        workload.start()
        readers = Readers(self.server, self.fixed)
        try:
            time.sleep(choose.uniform(*LOAD_S))       # the moment is the experiment
            began = time.monotonic()
            self.case.ruin(self.fault)
            reason, noticed = self._noticed(began) if self.case.refuses else ("", None)
            time.sleep(choose.uniform(*FAULT_S))
            mended = time.monotonic()
            self.case.mend(self.fault)
            back = self._back(mended)
            time.sleep(choose.uniform(*LOAD_S))
        finally:
            workload.stop()
            readers.stop()
        assert self.server.running, "the server has ended"
        assert self.server.pid == supervisor
        assert not readers.failed, f"{len(readers.failed)} of {readers.reads} reads failed: {readers.failed[:3]}"
        self.server.wait_ready(BACK_S)
        violations = check(workload)
        assert not violations, f"{len(violations)} violations: {violations[:5]}"
        return Round(mended - began, noticed, reason, back, readers.reads, readers.longest_s)

    def _noticed(self, began: float) -> tuple[str, float]:
        """What `ready` says once it says no."""
        while time.monotonic() < began + NOTICED_S:
            connection = self.server.connect(timeout_s=5.0)
            try:
                connection.request("GET", "/-/health/ready")
                answer = connection.getresponse()
                said = answer.read().decode().strip()
            finally:
                connection.close()
            if answer.status == 503:
                return said, time.monotonic() - began
            time.sleep(POLL_S)
        raise AssertionError(f"ready {NOTICED_S} s after the fault")

    def _back(self, mended: float) -> float:
        """Seconds to the first write that began after the fault's end and was acknowledged."""
        while (at := self.workload.acknowledged_after(mended)) is None:
            waited = time.monotonic() - mended
            assert waited < 2 * BACK_S, f"no write is accepted {waited:.1f} s after the fault:\n{self.server.log()}"
            time.sleep(POLL_S)
        assert at - mended <= BACK_S, f"the first write was accepted after {at - mended:.1f} s"
        return at - mended

    @property
    def refusals(self) -> Counter[str]:
        return self.workload.refusals
