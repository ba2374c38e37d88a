"""Every durable step of Staddle, in one small class: write, sync, rename, unlink, and the syncing of folders.

Whoever must survive a crash (the journal, the chunk store, the metadata's files) calls these methods and nothing else
to change files, and names each step (`"journal.fdatasync"`). So a test can stop the program before any step, fail any
step, or work out what a power cut would leave, by passing another Disk; the real one adds one Python call to the system
call.

Rules for callers:
* bytes first, names second: write, fdatasync, rename, `fsync_dir`, and only then tell anyone;
* a new name, a rename and an unlink are durable only after `fsync_dir` of the folder;
* an OSError from a sync means that what was written since the last good sync may be lost although a second sync would
  succeed (the kernel marks the pages clean): give the file up, never sync it again and believe it;
* steps that other libraries carry out (SQLite's commits and checkpoints) are announced with `step`.

Methods may be called from any thread. Reads need no Disk.
"""

import contextlib
import errno
import os
from collections.abc import Sequence

Buffer = bytes | bytearray | memoryview

APPEND = os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
CREATE = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
UPDATE = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC
"""Flags for `open`: append to an old or new file; a file that must not exist yet; read and write anywhere."""

IOV_MAX = 1024
"""The kernel takes no more buffers in one writev (sysconf SC_IOV_MAX on Linux)."""

AHEAD_BYTES = 1 << 20
"""Zeros written ahead at once: a few milliseconds of work, each time that so many bytes have been appended."""

_ZEROS = bytes(AHEAD_BYTES)


class Disk:
    """The real disk. All methods raise OSError; `step` names what the caller is doing, for tests and traces."""

    __slots__ = ()

    ahead_bytes = AHEAD_BYTES

    def step(self, step: str, path: str) -> None:
        """A durable step is about to happen, or has happened, outside this class."""

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        """A file descriptor for writing. The name of a new file is durable after `fsync_dir` of its folder."""
        return os.open(path, flags, mode)

    def close(self, fd: int) -> None:
        os.close(fd)

    def write(self, fd: int, data: Buffer, step: str) -> None:
        """Write all of `data` at the descriptor's position (its end, with APPEND)."""
        done = os.write(fd, data)
        if done != len(data):
            self._rest(fd, memoryview(data)[done:])

    def writev(self, fd: int, buffers: Sequence[Buffer], step: str) -> None:
        """Write all buffers in order, without joining them. At most IOV_MAX."""
        done = os.writev(fd, buffers)
        for buffer in buffers:
            if done >= len(buffer):
                done -= len(buffer)
            else:
                self._rest(fd, memoryview(buffer)[done:])
                done = 0

    def pwrite(self, fd: int, data: Buffer, offset: int, step: str) -> None:
        """Write all of `data` at `offset`."""
        view = memoryview(data)
        while view:
            done = os.pwrite(fd, view, offset)
            if done == 0:
                raise OSError(errno.ENOSPC, "nothing was written")
            view, offset = view[done:], offset + done

    def write_ahead(self, fd: int, start: int, most: int, step: str) -> int:
        """Write zeros from `start`, behind what was just written there, and return where they end: up to `ahead_bytes`
        further, but not beyond `most`.

        A sync of bytes that lie over such zeros writes them and nothing else. One that makes the file longer, or uses
        blocks that never had content (those of posix_fallocate neither), makes the file system commit its own journal
        too: twice the flushes. The zeros become durable with the next sync. A mere help, so a disk that has no room for
        them is not an error.
        """
        end = min(start + self.ahead_bytes, most)
        if end <= start:
            return start
        try:
            self.pwrite(fd, memoryview(_ZEROS)[:end - start], start, step)
        except OSError:
            return start
        return end

    def truncate(self, fd: int, length: int, step: str) -> None:
        os.ftruncate(fd, length)

    def fdatasync(self, fd: int, step: str) -> None:
        """Make the file's bytes and length durable. After a failure: never again on this file."""
        os.fdatasync(fd)

    def fsync(self, fd: int, step: str) -> None:
        os.fsync(fd)

    def fsync_dir(self, path: str, step: str) -> None:
        """Make the names in this folder durable."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def rename(self, old: str, new: str, step: str) -> None:
        """Atomic, and replaces `new`; durable after `fsync_dir` of both folders."""
        os.rename(old, new)

    def unlink(self, path: str, step: str) -> None:
        os.unlink(path)

    def mkdir(self, path: str, step: str, mode: int = 0o700) -> None:
        """Raises FileExistsError. Durable after `fsync_dir` of the folder around it."""
        os.mkdir(path, mode)

    def rmdir(self, path: str, step: str) -> None:
        os.rmdir(path)

    @staticmethod
    def _rest(fd: int, view: memoryview) -> None:
        # A signal or a full disk can cut a write short; the next write says which.
        while view:
            done = os.write(fd, view)
            if done == 0:
                raise OSError(errno.ENOSPC, "nothing was written")
            view = view[done:]


def make_folder(disk: Disk, path: str, step: str) -> None:
    """Have a folder whose name is durable. Its parent must exist.

    The parent is synced even if the folder is there: an earlier run may have stopped between the two steps.
    """
    with contextlib.suppress(FileExistsError):
        disk.mkdir(path, step)
    disk.fsync_dir(os.path.dirname(os.path.abspath(path)), step)


def replace_file(disk: Disk, path: str, data: Buffer, step: str, mode: int = 0o600) -> None:
    """Give `path` this content, all or nothing, durable on return: new file, sync, rename, sync of the folder."""
    fresh = path + ".new"
    fd = disk.open(fresh, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, mode)
    try:
        disk.write(fd, data, step + ".write")
        disk.fdatasync(fd, step + ".fdatasync")
    finally:
        disk.close(fd)
    disk.rename(fresh, path, step + ".rename")
    disk.fsync_dir(os.path.dirname(os.path.abspath(path)), step + ".fsync_dir")
