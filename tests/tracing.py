"""Which functions of ours are called, in what order, in all threads: what a page says of it is compared with this.

A *call* is a file (from the repository's root) and a function's qualified name. Steps of `consensus.disk.Disk` carry
the step's name too, `Disk.fdatasync("journal.fdatasync")`, since it tells whose bytes are made durable.

Rules: threads must be started after `installed` was entered (Python below 3.12 cannot reach older ones); nothing is
kept but during `record`; a call counts where it came first.
"""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
PACKAGES = ("consensus", "storage_node", "gateway")
DISK = "consensus/disk.py"


class Call(NamedTuple):
    file: str
    function: str

    def __str__(self) -> str:
        return f"{self.file} {self.function}"


class Recorder:
    """Kept are the calls of one request: what background tasks did before its first call is left out."""

    def __init__(self) -> None:
        self._calls: dict[Call, None] | None = None
        self._armed_by: Call | None = None
        self._files: dict[str, str | None] = {}

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        threading.setprofile(self._seen)
        try:
            yield
        finally:
            threading.setprofile(None)

    @contextlib.contextmanager
    def record(self, armed_by: Call) -> Iterator[list[Call]]:
        """Begins at the call `armed_by`. The list is filled when the block ends: each call once, in order."""
        found: list[Call] = []
        self._armed_by, self._calls = armed_by, {}
        try:
            yield found
        finally:
            calls, self._calls = self._calls, None
            found += calls

    def _seen(self, frame: FrameType, event: str, argument: Any) -> None:
        calls = self._calls
        if calls is None or event != "call":
            return
        code = frame.f_code
        if code.co_filename not in self._files:
            self._files[code.co_filename] = _ours(code.co_filename)
        file = self._files[code.co_filename]
        if file is None:
            return
        function = code.co_qualname
        if file == DISK and (step := frame.f_locals.get("step")) is not None:
            function = f'{function}("{step}")'
        call = Call(file, function)
        if calls or call == self._armed_by:
            calls.setdefault(call)


def _ours(filename: str) -> str | None:
    path = Path(filename)
    if not path.is_relative_to(ROOT):
        return None
    relative = path.relative_to(ROOT)
    return relative.as_posix() if relative.parts[0] in PACKAGES else None
