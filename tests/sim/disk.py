"""A machine's disk: folders and SQLite files as a kill and as a power cut leave them, and a disk that is ill.

The files are real ones on a memory file system. A kill leaves all that was written; a power cut what was synced, and of
the rest some (tests/unit/consensus/crash.py has the model; SQLite's files are modelled by what their checkpoints sync).
The connections and descriptors of a process that was killed are closed by us, since the kernel cannot.
"""

import contextlib
import errno
import os
import random
import shutil
import sqlite3
from typing import Any

from consensus.disk import Buffer, Disk
from tests.sim.clock import CURRENT
from tests.unit.consensus.crash import FaultyDisk, Inode, WalFloor


class VirtualDisk(FaultyDisk):
    """One per machine; it outlives the machine's processes."""

    def __init__(self, root: str, chance: random.Random) -> None:
        os.makedirs(root)
        super().__init__(root)
        self._chance = chance
        self._floors: dict[str, WalFloor] = {}
        self._guards: dict[str, sqlite3.Connection] = {}
        self.sync_s = 0.0005
        """What a sync takes."""
        self.full = self.read_only = False
        self.lies = False
        """Control: syncs are acknowledged and not carried out."""

    # What the product calls

    def _step(self, step: str, path: str) -> None:
        for floor in self._floors.values():
            floor.on_step("", "")
        if step in ("metadata.commit", "metadata.checkpoint") and path not in self._floors:
            self._guard(path)
        if step == "metadata.checkpoint":
            self._floors[path].on_step(step, path)

    def _guard(self, path: str) -> None:
        """As long as we have it open too, no process that ends is the last one, which would bring SQLite's log in."""
        self._floors[path] = WalFloor(path)
        guard = self._guards[path] = _connect(path, isolation_level=None)
        guard.execute("SELECT count(*) FROM sqlite_master").fetchone()

    def _refuse(self) -> None:
        if self.read_only:
            raise OSError(errno.EROFS, "read-only file system")
        if self.full:
            raise OSError(errno.ENOSPC, "no space left on device")

    def write(self, fd: int, data: Buffer, step: str) -> None:
        self._refuse()
        Disk.write(self, fd, data, step)
        self._fds[fd].written += data

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            if self.read_only:
                self._refuse()
            if flags & os.O_CREAT and not os.path.exists(path):
                self._refuse()
        return super().open(path, flags, mode)

    def rename(self, old: str, new: str, step: str) -> None:
        old = os.path.abspath(old)
        if old not in self._live:                            # SQLite has written it
            with open(old, "rb") as file:
                data = file.read()
            self._adopt(old, Inode(data, bytearray(data)))
        super().rename(old, new, step)

    def fdatasync(self, fd: int, step: str) -> None:
        process = CURRENT.get()
        if process is not None:
            process.wait(self.sync_s * (0.5 + self._chance.random()))
        self.broken_sync = self.lies
        super().fdatasync(fd, step)

    def fsync_dir(self, path: str, step: str) -> None:
        if not self.lies:
            super().fsync_dir(path, step)

    # What faults do

    def close_guards(self) -> None:
        for guard in self._guards.values():
            guard.close()
        self._guards.clear()
        self._floors.clear()

    def lose_power(self, close: "list[sqlite3.Connection]") -> None:
        """What was not synced is lost, in part. `close` are the connections of the processes that had run."""
        target = self.root + ".after"
        self._fds.clear()
        self.power_cut(self._chance.getrandbits(32), target, also=lambda path: not path.endswith("-shm"))
        for path, floor in self._floors.items():
            floor.cut(self._chance.getrandbits(32), os.path.join(target, os.path.relpath(path, self.root)) + "-wal")
        for connection in close:
            connection.close()
        self.close_guards()
        shutil.rmtree(self.root)
        os.rename(target, self.root)
        self._adopt_all()

    def wipe(self, close: "list[sqlite3.Connection]") -> None:
        """Another disk in its place."""
        self._fds.clear()
        for connection in close:
            connection.close()
        self.close_guards()
        shutil.rmtree(self.root)
        os.makedirs(self.root)
        self._adopt_all()

    def _adopt_all(self) -> None:
        sync_s, full, read_only, lies, chance = self.sync_s, self.full, self.read_only, self.lies, self._chance
        FaultyDisk.__init__(self, self.root)
        self.sync_s, self.full, self.read_only, self.lies, self._chance = sync_s, full, read_only, lies, chance


class Files:
    """Stands in for os.open, os.close and sqlite3.connect while a simulation runs: what a process has open goes with it."""

    def __init__(self) -> None:
        self.owner: dict[int, object] = {}

    def open(self, path: object, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        fd = _open(path, flags, mode, dir_fd=dir_fd)         # type: ignore[arg-type]
        process = CURRENT.get()
        if process is not None:
            self.owner[fd] = process
        return fd

    def close(self, fd: int) -> None:
        owner = self.owner.pop(fd, None)
        if owner is not None and owner is not CURRENT.get():
            self.owner[fd] = owner                           # an object of a dead process lets go of what is another's now
            return
        _close(fd)

    def connect(self, *arguments: Any, **named: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = _connect(*arguments, **named)
        process = CURRENT.get()
        if process is not None:
            connections: list[sqlite3.Connection] = process.__dict__.setdefault("connections", [])
            connections.append(connection)
        return connection

    def end(self, process: object) -> None:
        """A killed process: its descriptors and locks."""
        for fd in [fd for fd, owner in self.owner.items() if owner is process]:
            del self.owner[fd]
            with contextlib.suppress(OSError):
                _close(fd)


_open, _close, _connect = os.open, os.close, sqlite3.connect
