"""The log that the shim writes: built, started, ruled and read from here.

`ShimLog` is one watched folder's log from one power cut to the next. Programs started with its `environment` are
followed. `position` is now, as a place in the log: whatever anybody was told until then had been done before it.
Records and their fields are explained in shim.c.
"""

import contextlib
import ctypes
import errno
import hashlib
import mmap
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from pathlib import Path
from typing import NamedTuple, Self

SOURCE = Path(__file__).with_name("shim.c")
LOG_VARIABLE = "TORTURE_SHIM_LOG"
MEMORY = Path("/dev/shm")
MEMORY_BYTES_MIN = 2 << 30
"""With less room there (containers have 64 MB by default) the log goes where temporary files go."""

LOG_BYTES_MAX = 8 << 30
"""Sparse: only what is written takes memory. What is overwritten counts, what is appended does not: tens of MB a round."""

HEADER_BYTES = 16384
_TAIL, _FLAGS, _DELAY, _RULES_ACTIVE, _RULES_AT = 16, 24, 28, 32, 2048
_RULE = struct.Struct("<IIiiiIQII152s")
RULES_MAX = 32
_RECORD = struct.Struct("<IHHqQQQQII")
NO_RESULT = -(1 << 63)


class Op(IntFlag):
    """What a rule is about. RANGE is sync_file_range, which begins write-back and can report that it failed."""

    SYNC = 1
    WRITE = 2
    NAME = 4
    RANGE = 8


class Kind(IntEnum):
    WRITE = 1
    TRUNCATE = 2
    ALLOCATE = 3
    CREATE = 4
    MKDIR = 5
    RENAME = 6
    LINK = 7
    UNLINK = 8
    SYNC_BEGIN = 9
    SYNC_END = 10
    FOREIGN = 11


UNDO_IS_ZEROS, WAS_HOLE = 1, 2


class Record(NamedTuple):
    position: int
    kind: int
    flags: int
    result: int
    """What the call returned, or minus its errno; NO_RESULT if its process was killed in it."""
    inode: int
    a: int
    b: int
    c: int
    first: memoryview
    second: memoryview

    @property
    def failed(self) -> bool:
        return NO_RESULT < self.result < 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """For calls of these kinds on files whose path below the root fits `pattern` (as in fnmatch; * takes slashes too):
    let `skip` pass, then `count` of them (None: all) wait for `delay_s` and fail with `error` (0: go on). `every`: only each
    second, third, … meets this, the first one does. A call that one rule fails is not shown to the next."""

    pattern: str
    ops: Op
    error: int = errno.EIO
    skip: int = 0
    count: int | None = 1
    every: int = 1
    delay_s: float = 0.0


def compiler() -> str | None:
    """A C compiler, or None: then nothing here can be used."""
    return shutil.which("cc") or shutil.which("gcc")


def build() -> Path:
    """The shim as a library, compiled once for each version of its source."""
    name = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    library = Path(tempfile.gettempdir(), f"staddle-shim-{os.getuid()}-{name}.so")
    if not library.exists():
        found = compiler()
        assert found is not None, "there is no C compiler"
        fresh = library.with_suffix(f".{os.getpid()}")
        subprocess.run([found, "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(fresh), str(SOURCE),
                        "-pthread"], check=True)
        fresh.rename(library)
    return library


def _logs() -> Path:
    if MEMORY.is_dir():
        room = os.statvfs(MEMORY)
        if room.f_bavail * room.f_frsize >= MEMORY_BYTES_MIN:
            return MEMORY
    return Path(tempfile.gettempdir())


class ShimLog:
    """One log. `close` gives its memory back."""

    def __init__(self, root: Path, *, real_sync: bool = False, keep_data: bool = False, sync_delay_s: float = 0.0) -> None:
        """Watch `root`, an existing folder in which nobody is at work. What it holds now counts as durable.

        `real_sync`: syncs go on to the real disk; what they promise is known without. `sync_delay_s`: each takes this
        much longer. `keep_data`: the log has all bytes that are written, so that a test can compare."""
        self.root = root.resolve()
        self.grave = self.root.with_name(self.root.name + ".grave")
        self.grave.mkdir(exist_ok=True)
        library = build()
        self.path = _logs() / f"staddle-shim-{os.getpid()}-{id(self):x}.log"
        make = ctypes.CDLL(str(library)).shim_make
        make.argtypes = (ctypes.c_char_p, ctypes.c_uint64, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint32)
        error = make(os.fsencode(self.path), LOG_BYTES_MAX, os.fsencode(self.root), os.fsencode(self.grave),
                     int(real_sync) + 2 * int(keep_data))
        if error:
            raise OSError(error, os.strerror(error), str(self.path))
        self.environment = {LOG_VARIABLE: str(self.path), "LD_PRELOAD": str(library)}
        with self.path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), LOG_BYTES_MAX)
        self._rules = 0
        struct.pack_into("<I", self._map, _DELAY, int(sync_delay_s * 1e6))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """The folder stays as it is."""
        with contextlib.suppress(BufferError):        # a record that is still looked at keeps the map, not the file
            self._map.close()
        self.path.unlink(missing_ok=True)

    @property
    def position(self) -> int:
        return int(struct.unpack_from("<Q", self._map, _TAIL)[0])

    def add(self, rule: Rule) -> int:
        """From now on. Its number, for `hits` and `remove`."""
        assert self._rules < RULES_MAX, "too many rules"
        number, self._rules = self._rules, self._rules + 1
        _RULE.pack_into(self._map, _RULES_AT + number * _RULE.size, 1, int(rule.ops), rule.error, rule.skip,
                        -1 if rule.count is None else rule.count, int(rule.delay_s * 1e6), 0, rule.every, 0,
                        rule.pattern.encode())
        struct.pack_into("<I", self._map, _RULES_ACTIVE, 1)
        return number

    def remove(self, number: int) -> None:
        struct.pack_into("<I", self._map, _RULES_AT + number * _RULE.size, 0)

    def hits(self, number: int) -> int:
        """How many calls the rule has met."""
        return int(_RULE.unpack_from(self._map, _RULES_AT + number * _RULE.size)[6])

    def records(self) -> Iterator[Record]:
        """In the order in which they happened."""
        view, position, end = memoryview(self._map), HEADER_BYTES, self.position
        while position < end:
            length, kind, flags, result, inode, a, b, c, first, second = _RECORD.unpack_from(view, position)
            start = position + _RECORD.size
            other = start + (first + 7 & ~7)
            yield Record(position, kind, flags, result, inode, a, b, c, view[start:start + first],
                         view[other:other + second])
            position += length
