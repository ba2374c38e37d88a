"""The order of a PUT as the kernel saw it: chunk on disk, then journal on disk, then the answer (promise 1)."""

import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.servers import StaddleProcess
from tests.talker import BUCKET, Talker, make_bucket

CALLS = "fsync,fdatasync,write,writev,send,sendto,sendmsg"
ATTACH_TIMEOUT_S = 20.0


@pytest.mark.slow
@pytest.mark.parametrize("size", [4096, 3_000_000], ids=["segment", "file"])
def test_chunk_then_journal_then_answer(server: StaddleProcess, tmp_path: Path, size: int) -> None:
    server.start()
    make_bucket(server)
    talker = Talker(server)
    talker.ask("PUT", f"/{BUCKET}/warm", body=b"w" * size)       # makes files and connections that stay
    trace = Trace(server, tmp_path / "trace")
    status, answer, _ = talker.ask("PUT", f"/{BUCKET}/traced", body=b"t" * size)
    assert status == 200, answer
    trace.wait_for("HTTP/1.1 200")
    lines = trace.stop()
    talker.close()

    chunk = [line for line in lines if line.is_sync and "/chunks/" in line.text]
    journal = [line for line in lines if line.is_sync and "/journal/" in line.text]
    answers = [line for line in lines if "HTTP/1.1 200" in line.text]
    shown = "\n".join(line.text for line in lines)
    assert chunk, shown
    assert journal, shown
    assert len(answers) == 1, shown
    # The journal may also be synced for housekeeping; the last one before the answer is the one that counts.
    deciding = max(line.ended for line in journal if line.ended < answers[0].began)
    began = next(line.began for line in journal if line.ended == deciding)
    first = min(line.ended for line in chunk)
    assert first < began, shown
    assert deciding < answers[0].began, shown


class Line:
    """A system call: when it began and ended (seconds), and its text."""

    def __init__(self, began: float, took: float, text: str) -> None:
        self.began, self.ended, self.text = began, began + took, text

    @property
    def is_sync(self) -> bool:
        return "sync(" in self.text and self.text.rstrip().endswith("= 0")


class Trace:
    """strace on all processes of a server. Skips the test where it isn't installed or not permitted."""

    def __init__(self, server: StaddleProcess, output: Path) -> None:
        if shutil.which("strace") is None:
            pytest.skip("strace is not installed")
        self._output = output
        pids = [pid for role in ("meta", "node", "gateway") for pid in server.roles()[role]]
        attach = [argument for pid in pids for argument in ("-p", str(pid))]
        # -ff: a file for each thread, so that no call is split in two lines; times tell the order.
        self._process = subprocess.Popen(
            ["strace", "-ff", "-y", "-ttt", "-T", "-s", "40", "-e", f"trace={CALLS}", "-o", str(output), *attach],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + ATTACH_TIMEOUT_S
        while any(_untraced(pid) for pid in pids):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._process.kill()
                pytest.skip(f"strace is not permitted here: {self._process.communicate()[1].strip()[:200]}")
            time.sleep(0.01)

    def wait_for(self, text: str) -> None:
        """Until strace has written down a call with this text: the client may know of it earlier."""
        deadline = time.monotonic() + ATTACH_TIMEOUT_S
        while not any(text in path.read_text(errors="replace") for path in self._output.parent.glob(self._output.name + ".*")):
            assert time.monotonic() < deadline, f"no call with {text!r} was traced"
            time.sleep(0.01)

    def stop(self) -> list[Line]:
        self._process.send_signal(signal.SIGINT)
        self._process.communicate()
        lines = [line for path in self._output.parent.glob(self._output.name + ".*")
                 for text in path.read_text(errors="replace").splitlines() if (line := _parse(text))]
        return sorted(lines, key=lambda line: line.began)


def _parse(text: str) -> Line | None:
    found = re.match(r"(\d+\.\d+) (.*) <(\d+\.\d+)>$", text)
    return Line(float(found[1]), float(found[3]), found[2]) if found else None


def _untraced(pid: int) -> bool:
    tasks = list(Path(f"/proc/{pid}/task").iterdir())
    return any("TracerPid:\t0\n" in (task / "status").read_text() for task in tasks)
