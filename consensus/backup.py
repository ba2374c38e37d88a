"""Backups of the metadata: a whole copy with a descriptor, made while the member serves, kept beside it and readable in pages.

In the folder `backups` of the member: `NAME.sqlite` (the copy) and `NAME.json` (its descriptor); a copy without a descriptor
is none. Elsewhere a backup is one file, its *exported form*: the descriptor in one line, then the copy. A restore takes
either.

The log decides which backups there are (apply/backups.py): a client opens one, has the copy made here, and keeps it; until
then the backup is its session's. Files of backups that the log doesn't know go (`tidy`). A backup holds metadata only, and
pins the chunks that it refers to: it is of use together with the storage nodes' folders.
"""

import errno
import hmac
import logging
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import suppress

import msgspec

from consensus import snapshot
from consensus.core.codec import UNDECODABLE
from consensus.core.errors import ClusterError, Corrupt, NoSpace, Unavailable
from consensus.disk import Disk, make_folder, replace_file

log = logging.getLogger("staddle.meta")

FOLDER = "backups"
FORMAT = 1
PAGE_BYTES_MAX = 1 << 20
"""Of one read: far below what a frame may hold."""

SPACE_KEPT_BYTES = 128 << 20
"""A copy must leave this much free: the journal and the nodes need room to go on."""

HEAD_BYTES_MAX = 4096
"""The first line of the exported form is shorter."""

_FILE = re.compile(r"(.+)\.(sqlite|json)(\.new)?")


class Descriptor(msgspec.Struct, frozen=True, kw_only=True):
    """What a copy is. `crc32` is over the whole copy; `cluster` tells whether a secret is the one of its cluster."""

    format: int
    name: str
    index: int
    term: int
    size: int
    crc32: int
    created_ms: int
    cluster: str

    def head(self) -> bytes:
        """The first line of the exported form."""
        return msgspec.json.encode(self) + b"\n"


class Taking(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """How far a copy is: bytes written of about `total`; `made` once it is done."""

    written: int
    total: int
    made: Descriptor | None = None


_decode = msgspec.json.Decoder(Descriptor).decode


def fingerprint(secret: bytes) -> str:
    """Tells clusters apart without telling their secret."""
    return hmac.digest(secret, b"staddle backup", "sha256")[:8].hex()


def make(path: str, folder: str, name: str, *, cluster: str, now_ms: int, disk: Disk) -> Descriptor:
    """Copy the metadata file at `path` to the backup `name` in `folder`/backups. Runs in a thread; writers go on.

    Raises NoSpace or Unavailable; then nothing is left behind, as far as the disk lets us.
    """
    backups = os.path.join(folder, FOLDER)
    copy, final = os.path.join(backups, f"{name}.sqlite.new"), os.path.join(backups, f"{name}.sqlite")
    try:
        _check_room(path, folder)
        make_folder(disk, backups, "backup.folder")
        remove(folder, name, disk)                        # an earlier try, or one of the same name that was dropped
        taken = snapshot.copy_whole(path, copy, disk, "backup")
        disk.rename(copy, final, "backup.rename")
        disk.fsync_dir(backups, "backup.fsync_dir")
        made = Descriptor(format=FORMAT, name=name, index=taken.index, term=taken.term, size=taken.size, crc32=taken.crc32,
                          created_ms=now_ms, cluster=cluster)
        replace_file(disk, os.path.join(backups, f"{name}.json"), msgspec.json.encode(made), "backup.descriptor")
    except (OSError, sqlite3.Error) as error:
        with suppress(OSError):
            remove(folder, name, disk)
        raise _failure(error, name) from error
    return made


def _check_room(path: str, folder: str) -> None:
    free, size = os.statvfs(folder), os.stat(path).st_size
    if free.f_bavail * free.f_frsize < size + SPACE_KEPT_BYTES:
        raise OSError(errno.ENOSPC, f"a copy of {size} bytes must leave {SPACE_KEPT_BYTES} bytes free, "
                                    f"and {free.f_bavail * free.f_frsize} are")


def _failure(error: Exception, name: str) -> ClusterError:
    full = (getattr(error, "errno", 0) in (errno.ENOSPC, errno.EDQUOT)
            or getattr(error, "sqlite_errorname", "").startswith("SQLITE_FULL"))
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (NoSpace if full else Unavailable)(f"backup {name} could not be made: {why}")


def remove(folder: str, name: str, disk: Disk) -> None:
    """The files of a backup go, the descriptor first: a copy without one is none."""
    backups = os.path.join(folder, FOLDER)
    gone = False
    for end in ("json", "json.new", "sqlite", "sqlite.new", "sqlite.new-journal"):
        with suppress(FileNotFoundError):
            disk.unlink(os.path.join(backups, f"{name}.{end}"), "backup.unlink")
            gone = True
    if gone:
        disk.fsync_dir(backups, "backup.unlink_fsync_dir")


def tidy(folder: str, known: set[str], disk: Disk) -> None:
    """Files of backups that are not (any more) `known` go."""
    backups = os.path.join(folder, FOLDER)
    if not os.path.isdir(backups):
        return
    names = {match[1] for file in os.listdir(backups) if (match := _FILE.fullmatch(file))}
    for name in sorted(names - known):
        log.info("the files of backup %s go: it was dropped or given up", name)
        remove(folder, name, disk)


# Reading

def described(folder: str) -> Iterator[Descriptor]:
    """The whole copies there are. A descriptor that cannot be read is passed over: `find` says why."""
    backups = os.path.join(folder, FOLDER)
    if os.path.isdir(backups):
        for file in sorted(os.listdir(backups)):
            if file.endswith(".json"):
                with suppress(Unavailable, Corrupt):
                    yield find(folder, file[:-5])


def find(folder: str, name: str) -> Descriptor:
    """Raises Unavailable if there is no such copy, Corrupt if its descriptor cannot be read."""
    path = os.path.join(folder, FOLDER, f"{name}.json")
    try:
        with open(path, "rb") as file:
            return read_descriptor(file.read(), path)
    except OSError as error:
        raise Unavailable(f"there is no copy of backup {name}: {error.strerror}") from error


def read_descriptor(raw: bytes, path: str) -> Descriptor:
    """Raises Corrupt."""
    try:
        found = _decode(raw)
    except UNDECODABLE as error:
        raise Corrupt(f"{path} does not begin with the description of a backup: {error}") from error
    if found.format != FORMAT:
        raise Corrupt(f"{path} is a backup of format {found.format}, this Staddle knows {FORMAT}")
    return found


def read(folder: str, name: str, offset: int, length: int) -> bytes:
    """A page of the exported form; empty behind its end. Raises Unavailable, Corrupt."""
    head = find(folder, name).head()
    length = max(0, min(length, PAGE_BYTES_MAX))
    if offset < 0:
        raise Unavailable("a page of a backup begins at 0 or later")
    page = head[offset:offset + length]
    if len(page) < length:
        try:
            with open(os.path.join(folder, FOLDER, f"{name}.sqlite"), "rb") as file:
                page += os.pread(file.fileno(), length - len(page), max(0, offset - len(head)))
        except OSError as error:
            raise Unavailable(f"backup {name} cannot be read: {error.strerror}") from error
    return page
