"""Small disks for tests, made and ruined at will: a tmpfs whose size changes, or ext4 in a file. Needs root.

`full` and `roomy` change how much is free; `read_only` and `writable` put a read-only mount over the disk and take it away.
Linux lets nobody make a mount read-only under a program that has files open for writing there, so this is as near as a real
kernel comes: names can't be made, changed or removed, files can't be opened for writing, `statvfs` says read-only; what is
open already can still be written. The shim (tests/torture/shim) fails those writes too.
"""

import contextlib
import os
import subprocess
from pathlib import Path
from typing import Self

MIB = 1 << 20
PLENTY = 4096 * MIB


class Refused(Exception):
    """This machine lets us mount nothing."""


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")


class Mounted:
    """A disk at `path`, a new folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self._covered = False
        self._mount()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _mount(self) -> None:
        raise NotImplementedError

    def full(self, leave: int) -> None:
        """Only `leave` bytes are free from now on."""
        raise NotImplementedError

    def roomy(self) -> None:
        raise NotImplementedError

    @property
    def free(self) -> int:
        disk = os.statvfs(self.path)
        return disk.f_bavail * disk.f_frsize

    def read_only(self) -> None:
        # Made beside it, where nobody opens a file for writing meanwhile; a mount of a mount has its flags.
        beside = self.path.with_name(self.path.name + ".ro")
        beside.mkdir(exist_ok=True)
        run("mount", "--bind", str(self.path), str(beside))
        try:
            run("mount", "-o", "remount,bind,ro", str(beside))
            run("mount", "--bind", str(beside), str(self.path))
            self._covered = True
        finally:
            run("umount", "--lazy", str(beside))

    def writable(self) -> None:
        if self._covered:
            run("umount", "--lazy", str(self.path))   # lazy: somebody may just be looking at a file through it
            self._covered = False

    def close(self) -> None:
        for _ in range(2 if self._covered else 1):
            with contextlib.suppress(Refused):
                run("umount", "--lazy", str(self.path))


class Plain(Mounted):
    """No disk of its own: for faults that the shim makes."""

    def _mount(self) -> None:
        """It is on the disk that the folder is on."""

    def close(self) -> None:
        """Nothing was mounted."""


class Tmpfs(Mounted):
    """Its size is changed in place, so that filling it takes no memory."""

    def _mount(self) -> None:
        run("mount", "-t", "tmpfs", "-o", f"size={PLENTY}", "staddle-test", str(self.path))

    def full(self, leave: int) -> None:
        while True:                                   # it may grow between our look and the change
            disk = os.statvfs(self.path)
            used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize
            try:
                run("mount", "-o", f"remount,size={max(used + leave, 4096)}", str(self.path))
            except Refused:
                continue
            return

    def roomy(self) -> None:
        run("mount", "-o", f"remount,size={PLENTY}", str(self.path))


class Ext4(Mounted):
    """On a loop device; full by means of a ballast file."""

    BYTES = 1024 * MIB

    def _mount(self) -> None:
        self._image = self.path.with_name(self.path.name + ".ext4")
        with self._image.open("wb") as file:
            file.truncate(self.BYTES)
        run("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1", str(self._image))
        run("mount", "-o", "loop", str(self._image), str(self.path))

    def full(self, leave: int) -> None:
        fd = os.open(self.path / "ballast", os.O_CREAT | os.O_WRONLY)
        try:
            end = os.fstat(fd).st_size
            while (want := self.free - leave) > 0:
                step = min(want, 64 * MIB)
                with contextlib.suppress(OSError):
                    os.posix_fallocate(fd, end, step)
                    end += step
                    continue
                break
        finally:
            os.close(fd)

    def roomy(self) -> None:
        (self.path / "ballast").unlink(missing_ok=True)

    def close(self) -> None:
        super().close()
        self._image.unlink(missing_ok=True)
