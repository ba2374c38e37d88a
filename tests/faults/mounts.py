"""Small disks for tests, made and ruined at will: a tmpfs whose size changes, or ext4 in a file. Needs root.

`full` and `roomy` change how much is free; `read_only` and `writable` put a read-only mount over the disk and take it away.
Linux lets nobody make a mount read-only under a program that has files open for writing there, so this is as near as a real
kernel comes: names can't be made, changed or removed, files can't be opened for writing, `statvfs` says read-only; what is
open already can still be written. The shim (tests/torture/shim) fails those writes too.
"""

import contextlib
import os
import shlex
import shutil
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


class SlowFlush(Ext4):
    """Ext4 on a disk in memory whose every flush takes some time (`slow_flush.c`), as those of most disks do: about 1 to 5 ms on
    an SSD without a capacitor, 10 and more on one that turns. Needs a C compiler and libfuse 3 with its headers."""

    BYTES = 6144 * MIB

    def __init__(self, path: Path, flush_ms: float) -> None:
        self._flush_ms = flush_ms
        super().__init__(path)

    def _mount(self) -> None:
        self._beside = self.path.with_name(self.path.name + ".flush")
        self._beside.mkdir()
        program = self.path.with_name(self.path.name + ".program")
        _compile(Path(__file__).with_name("slow_flush.c"), program, "fuse3")
        self._image = Path("/dev/shm") / f"{os.getpid()}-{self.path.name}.ext4"
        with self._image.open("wb") as file:
            file.truncate(self.BYTES)
        run(str(program), str(self._image), str(int(self._flush_ms * 1000)), str(self._beside))
        run("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "nodiscard,lazy_itable_init=1", str(self._beside / "disk"))
        run("mount", "-o", "loop", str(self._beside / "disk"), str(self.path))

    def close(self) -> None:
        with contextlib.suppress(Refused):
            run("umount", str(self.path))             # not lazily: the loop device has to let go before what is under it
        with contextlib.suppress(Refused):
            run("umount", str(self._beside))
        self._image.unlink(missing_ok=True)


def _compile(source: Path, program: Path, library: str) -> None:
    """Raises Refused where there is no compiler, or the library's headers are missing."""
    if (compiler := shutil.which("cc") or shutil.which("gcc")) is None or shutil.which("pkg-config") is None:
        raise Refused("no C compiler, or no pkg-config")
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", library], capture_output=True, text=True, check=False)
    if flags.returncode:
        raise Refused(flags.stderr.strip())
    run(compiler, "-O2", "-Wall", "-o", str(program), str(source), *shlex.split(flags.stdout))
