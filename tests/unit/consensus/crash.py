"""Disks for tests: one that stops or fails at a step, and keeps a shadow of what a power cut would leave.

The model of a power cut is the harshest that POSIX allows:
* a file's bytes are durable as of its last fsync or fdatasync; what was written since may be there in part: each 4 KiB
  page on its own is new, old, or zeros;
* a name (creation, rename, unlink, mkdir) is durable as of the last fsync of its folder; those made since may each be
  there or not, whatever their order;
* a sync that fails loses what was written since the last good one, although later syncs of that file succeed;
* files that other libraries write (SQLite's) are not known here: see `also` of `power_cut`, and `WalFloor`.

    disk = FaultyDisk(root)
    ... use it; or with `disk.stop_at = n`: raise Stopped at step n ...
    disk.power_cut(seed, elsewhere)      # a folder as the machine would find it

Only folders below `root` may be used.
"""

import contextlib
import errno
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from consensus.disk import Buffer, Disk

PAGE = 4096


class Unsynced(Disk):
    """For tests in which no power fails: syncs cost nothing."""

    __slots__ = ()

    def fdatasync(self, fd: int, step: str) -> None:
        pass

    def fsync(self, fd: int, step: str) -> None:
        pass

    def fsync_dir(self, path: str, step: str) -> None:
        pass


class Stopped(BaseException):
    """The process has been stopped at a step. Not an Exception: nothing may catch it and go on."""


@dataclass
class Inode:
    """A file's life: what is durable, and what the kernel holds."""

    durable: bytes = b""
    written: bytearray = field(default_factory=bytearray)
    is_folder: bool = False
    lost: bool = False
    """A sync of it has failed: the kernel has forgotten that anything was to be written."""


class FaultyDisk(Disk):
    """A real disk (the files are written) that counts steps, and remembers what is durable."""

    __slots__ = ("_durable", "_fds", "_live", "_pending", "broken_sync", "fail_at", "fail_step", "on_step", "root",
                 "steps", "stop_at")

    ahead_bytes = 8192
    """Zeros ahead of a file's end: so few that they are used up, and that reading files again and again takes no time."""

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)
        self.steps: list[str] = []
        self.stop_at: int | None = None
        """Stop before this step (counted from 0) is carried out."""
        self.fail_at: int | None = None
        """Let this step raise EIO instead."""
        self.fail_step: str | None = None
        """Let the next step of this name raise EIO."""
        self.broken_sync = False
        """Control: syncs of files are acknowledged but not carried out. A test that passes with it tests nothing."""
        self.on_step: Callable[[str, str], None] | None = None
        self._fds: dict[int, Inode] = {}
        self._live: dict[str, Inode] = {}
        self._durable: dict[str, Inode] = {}
        self._pending: list[tuple[str, str, Inode | None]] = []      # folder, path, what it names now (None: nothing)
        for path, folders, files in os.walk(self.root):
            for name in folders:
                self._adopt(os.path.join(path, name), Inode(is_folder=True))
            for name in files:
                with open(os.path.join(path, name), "rb") as file:
                    data = file.read()
                self._adopt(os.path.join(path, name), Inode(data, bytearray(data)))

    def _adopt(self, path: str, inode: Inode) -> None:
        self._live[path] = self._durable[path] = inode

    # Steps

    def _step(self, step: str, path: str) -> None:
        number = len(self.steps)
        self.steps.append(step)
        if self.on_step is not None:
            self.on_step(step, path)
        if self.stop_at is not None and number >= self.stop_at:
            raise Stopped(f"at step {number}, {step}")
        if number == self.fail_at or step == self.fail_step:
            self.fail_step = None
            raise OSError(errno.EIO, f"injected at step {number}, {step}", path)

    def step(self, step: str, path: str) -> None:
        self._step(step, path)

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        path = os.path.abspath(path)
        created = not os.path.exists(path)
        if created and flags & os.O_CREAT:
            self._step("open", path)
        fd = super().open(path, flags, mode)
        if created:
            self._name(path, Inode())
        if path not in self._live:                       # another library has written it
            self._live[path] = Inode()
        self._fds[fd] = self._live[path]
        self._reread(fd)
        return fd

    def close(self, fd: int) -> None:
        self._fds.pop(fd, None)
        super().close(fd)

    def write(self, fd: int, data: Buffer, step: str) -> None:
        self._step(step, "")
        super().write(fd, data, step)
        self._reread(fd)

    def writev(self, fd: int, buffers: "list[Buffer] | tuple[Buffer, ...]", step: str) -> None:  # type: ignore[override]
        self._step(step, "")
        super().writev(fd, buffers, step)
        self._reread(fd)

    def pwrite(self, fd: int, data: Buffer, offset: int, step: str) -> None:
        self._step(step, "")
        super().pwrite(fd, data, offset, step)
        self._reread(fd)

    def pwritev(self, fd: int, buffers: "list[Buffer] | tuple[Buffer, ...]", offset: int, step: str) -> None:
        for buffer in buffers:
            self.pwrite(fd, buffer, offset, step)
            offset += len(buffer)

    def truncate(self, fd: int, length: int, step: str) -> None:
        self._step(step, "")
        super().truncate(fd, length, step)
        self._reread(fd)

    def _reread(self, fd: int) -> None:
        with open(f"/proc/self/fd/{fd}", "rb") as file:
            self._fds[fd].written = bytearray(file.read())

    def fdatasync(self, fd: int, step: str) -> None:
        inode = self._fds[fd]
        try:
            self._step(step, "")
        except OSError:
            inode.lost = True
            raise
        if not self.broken_sync and not inode.lost:
            inode.durable = bytes(inode.written)

    def fsync(self, fd: int, step: str) -> None:
        self.fdatasync(fd, step)

    def fsync_dir(self, path: str, step: str) -> None:
        path = os.path.abspath(path)
        self._step(step, path)
        for folder, name, inode in self._pending:
            if folder == path:
                self._apply(self._durable, name, inode)
        self._pending = [pending for pending in self._pending if pending[0] != path]

    def rename(self, old: str, new: str, step: str) -> None:
        old, new = os.path.abspath(old), os.path.abspath(new)
        self._step(step, new)
        super().rename(old, new, step)
        inode = self._live[old]
        self._name(new, inode)
        self._name(old, None)

    def unlink(self, path: str, step: str) -> None:
        path = os.path.abspath(path)
        if os.path.exists(path):
            self._step(step, path)
        super().unlink(path, step)
        self._name(path, None)

    def mkdir(self, path: str, step: str, mode: int = 0o700) -> None:
        path = os.path.abspath(path)
        if not os.path.exists(path):
            self._step(step, path)
        super().mkdir(path, step, mode)
        self._name(path, Inode(is_folder=True))

    def rmdir(self, path: str, step: str) -> None:
        path = os.path.abspath(path)
        self._step(step, path)
        super().rmdir(path, step)
        self._name(path, None)

    def _name(self, path: str, inode: Inode | None) -> None:
        self._apply(self._live, path, inode)
        self._pending.append((os.path.dirname(path), path, inode))

    @staticmethod
    def _apply(names: dict[str, Inode], path: str, inode: Inode | None) -> None:
        if inode is None:
            names.pop(path, None)
        else:
            names[path] = inode

    # Power

    def power_cut(self, seed: int, target: str, *, also: Callable[[str], bool] = lambda path: False) -> None:
        """Write to `target` what a machine may find after a power cut now.

        Files written by others are taken as they are if `also` says so of their path, and are missing otherwise.
        """
        chance = random.Random(seed)
        names = dict(self._durable)
        for _, path, inode in self._pending:
            if chance.random() < 0.5:
                self._apply(names, path, inode)
        shutil.rmtree(target, ignore_errors=True)
        os.makedirs(target)
        for path, inode in sorted(names.items()):
            place = os.path.join(target, os.path.relpath(path, self.root))
            if inode.is_folder:
                with contextlib.suppress(FileNotFoundError):      # its parent is gone
                    os.mkdir(place)
            elif os.path.isdir(os.path.dirname(place)):
                with open(place, "wb") as file:
                    file.write(torn(inode, chance))
        for path in _files(self.root):
            place = os.path.join(target, os.path.relpath(path, self.root))
            if path not in self._live and also(path) and os.path.isdir(os.path.dirname(place)):
                shutil.copyfile(path, place)


class WalFloor:
    """How much of a SQLite WAL a power cut must leave: what the last checkpoint synced before it moved pages.

    Between checkpoints SQLite's file doesn't change and nothing is synced (synchronous=NORMAL), so a cut leaves the
    file as it is and any longer part of the WAL. Give `on_step` to a FaultyDisk on which checkpoints are announced.
    """

    def __init__(self, database: str) -> None:
        self._wal = database + "-wal"
        self._under_way: tuple[bytes, int] | None = None
        self._synced: tuple[bytes, int] = (b"", 0)

    def on_step(self, step: str, path: str) -> None:
        if self._under_way is not None:
            self._synced, self._under_way = self._under_way, None
        if step == "metadata.checkpoint":
            self._under_way = self._state()

    def _state(self) -> tuple[bytes, int]:
        """Its salts, which change when it begins anew, and its length."""
        try:
            with open(self._wal, "rb") as file:
                return file.read(32), os.path.getsize(self._wal)
        except FileNotFoundError:
            return b"", 0

    def cut(self, seed: int, wal: str) -> None:
        """Shorten a copy of the WAL to what may be left of it."""
        head, length = self._state()
        if os.path.exists(wal):
            floor = self._synced[1] if head == self._synced[0] else 0
            os.truncate(wal, random.Random(seed).choice((floor, random.Random(seed).randint(floor, length), length)))


def every_step(run: Callable[[FaultyDisk], None], root: Callable[[int], str]) -> Iterator[tuple[int, FaultyDisk]]:
    """Run a piece of work again and again in a fresh folder, stopped one step later each time, until it ends by itself.

    Yields the number of the step and the disk as it was left.
    """
    number = 0
    while True:
        disk = FaultyDisk(root(number))
        disk.stop_at = number
        try:
            run(disk)
        except Stopped:
            yield number, disk
            number += 1
        else:
            return


def torn(inode: Inode, chance: random.Random) -> bytes:
    """What may be there of a file: each page that differs from the durable one is new, old or zeros. Bytes of such a page that
    are the same before and after stay: a sector is written whole, and writing its own bytes again can't lose them."""
    old, new = inode.durable, bytes(inode.written)
    if old == new:
        return old
    length = chance.choice((len(old), len(new), chance.randint(min(len(old), len(new)), max(len(old), len(new)))))
    pages = []
    for at in range(0, length, PAGE):
        before, after = old[at:at + PAGE].ljust(PAGE, b"\0"), new[at:at + PAGE].ljust(PAGE, b"\0")
        kind = chance.randrange(3)
        if kind == 0 or before == after:
            pages.append(before)
        elif kind == 1:
            pages.append(after)
        else:
            pages.append(bytes(b if b == a else 0 for b, a in zip(before, after, strict=True)))
    return b"".join(pages)[:length]


def _files(root: str) -> "list[str]":
    return [os.path.join(path, name) for path, _, names in os.walk(root) for name in names]
