"""A wall clock of its own for a machine: its processes see the time shifted by some seconds, which may change under them."""

import hashlib
import os
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("clock_skew.c")


def compiler() -> str | None:
    return shutil.which("cc") or shutil.which("gcc")


def _library() -> Path:
    """Compiled once for each version of its source."""
    name = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    library = Path(tempfile.gettempdir(), f"staddle-clock-{os.getuid()}-{name}.so")
    if not library.exists():
        found = compiler()
        assert found is not None, "there is no C compiler"
        fresh = library.with_suffix(f".{os.getpid()}")
        subprocess.run([found, "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(fresh), str(SOURCE)],
                       check=True)
        fresh.rename(library)
    return library


class Clock:
    """`variables` are for the environment of the machine's processes."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.ahead_s = 0
        self._file.write_bytes(struct.pack("<q", 0))
        self.variables = {"LD_PRELOAD": str(_library()), "TEST_CLOCK_FILE": str(self._file)}

    def set(self, ahead_s: int) -> None:
        """In place: the processes have the file mapped."""
        self.ahead_s = ahead_s
        with self._file.open("r+b") as file:
            file.write(struct.pack("<q", ahead_s))
