"""The metadata's files: which one is in use, snapshots of it, and how a snapshot takes its place.

Files in the folder: `meta.<generation>.sqlite` (with SQLite's -wal and -shm beside it), `CURRENT` (the generation in
use, in decimal), `snapshots/<index>.sqlite` with its descriptor `snapshots/<index>.json`. Rules:
* a metadata file is never renamed over another: readers that have the old one open keep a whole file, and notice the
  new generation in the next read's first row;
* a snapshot exists once its descriptor does; both are synced, then their folder.
"""

import logging
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from urllib.parse import quote
from zlib import crc32

import msgspec

from consensus.core.codec import UNDECODABLE
from consensus.core.errors import Corrupt
from consensus.disk import Disk, make_folder, replace_file

log = logging.getLogger("staddle.meta")

CURRENT = "CURRENT"
FOLDER = "snapshots"

KEPT = 2
"""A group of one keeps two and trims the journal only behind the older, so that one may turn out to be damaged."""

READ_BYTES = 1 << 20
_DESCRIPTOR = re.compile(r"(\d+)\.json")


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What a descriptor says. `crc32` is over the whole file."""

    index: int
    term: int
    size: int
    crc32: int
    path: str = ""          # of the file: known where it lies, not stored


def current_file(folder: str, disk: Disk) -> tuple[str, int]:
    """(path, generation) of the metadata file in use. The first start names generation 1."""
    name = os.path.join(folder, CURRENT)
    try:
        with open(name, encoding="ascii") as file:
            text = file.read().strip()
    except FileNotFoundError:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        replace_file(disk, name, b"1\n", "metadata.current")
        text = "1"
    if not text.isdecimal():
        raise Corrupt(f"{name} names no generation")
    return file_of(folder, int(text)), int(text)


def file_of(folder: str, generation: int) -> str:
    return os.path.join(folder, f"meta.{generation}.sqlite")


# Taking

def make(path: str, folder: str, disk: Disk) -> Snapshot:
    """A consistent copy of the metadata file at `path`, into `folder`/snapshots. Runs in a thread: it has its own
    connection, and writers go on. Raises sqlite3.Error or OSError; what it leaves then is overwritten by the next."""
    snapshots = os.path.join(folder, FOLDER)
    make_folder(disk, snapshots, "snapshot.folder")
    copy = copy_whole(path, os.path.join(snapshots, "taking.sqlite"), disk, "snapshot")
    for known in _descriptors(snapshots):
        if known.index == copy.index:       # nothing has happened since: there is no better one
            with suppress(Corrupt):
                verify(known)
                _remove(copy.path, disk)
                return known
    return adopt(copy, folder, disk)


def adopt(copy: Snapshot, folder: str, disk: Disk) -> Snapshot:
    """Make a whole and synced file, on the same disk, one of the snapshots in `folder`."""
    snapshots = os.path.join(folder, FOLDER)
    final = os.path.join(snapshots, f"{copy.index}.sqlite")
    disk.rename(copy.path, final, "snapshot.rename")
    disk.fsync_dir(snapshots, "snapshot.fsync_dir")
    descriptor = msgspec.json.encode(msgspec.structs.replace(copy, path=""))
    replace_file(disk, os.path.join(snapshots, f"{copy.index}.json"), descriptor, "snapshot.descriptor")
    _keep_newest(snapshots, disk)
    return msgspec.structs.replace(copy, path=final)


def copy_whole(path: str, fresh: str, disk: Disk, step: str) -> Snapshot:
    """A consistent copy of the metadata file at `path`, synced, in the new file `fresh` (one that is there goes). Writers
    go on. Raises sqlite3.Error or OSError."""
    _remove(fresh, disk)
    disk.step(f"{step}.vacuum", fresh)
    with closing(sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, isolation_level=None)) as source:
        source.execute("VACUUM INTO ?", (fresh,))
    fd = disk.open(fresh, os.O_RDWR | os.O_CLOEXEC)
    try:
        disk.fsync(fd, f"{step}.fsync")
    finally:
        disk.close(fd)
    index, term = applied_in(fresh)
    size, crc = measure(fresh)
    return Snapshot(index=index, term=term, size=size, crc32=crc, path=fresh)


def listed(folder: str) -> list[Snapshot]:
    """The snapshots there are, oldest first. Not verified."""
    snapshots = os.path.join(folder, FOLDER)
    return sorted(_descriptors(snapshots), key=lambda snapshot: snapshot.index)


def _descriptors(snapshots: str) -> Iterator[Snapshot]:
    if not os.path.isdir(snapshots):
        return
    for name in os.listdir(snapshots):
        match = _DESCRIPTOR.fullmatch(name)
        if match is None:
            continue
        with open(os.path.join(snapshots, name), "rb") as file:
            try:
                snapshot = msgspec.json.decode(file.read(), type=Snapshot)
            except UNDECODABLE as error:
                log.error("snapshot descriptor %s cannot be read, so there is no such snapshot: %s", name, error)
                continue
        yield msgspec.structs.replace(snapshot, path=os.path.join(snapshots, f"{match[1]}.sqlite"))


def _keep_newest(snapshots: str, disk: Disk) -> None:
    """Descriptors go first: a file without one is no snapshot."""
    for old in sorted(_descriptors(snapshots), key=lambda snapshot: snapshot.index)[:-KEPT]:
        _remove(os.path.join(snapshots, f"{old.index}.json"), disk)
        _remove(old.path, disk)
    disk.fsync_dir(snapshots, "snapshot.trim")


# Using

def verify(snapshot: Snapshot) -> None:
    """Raises Corrupt unless the file is what the descriptor says, and SQLite finds it whole."""
    try:
        measured = measure(snapshot.path)
    except FileNotFoundError:
        raise Corrupt(f"snapshot {snapshot.path} is gone") from None
    if measured != (snapshot.size, snapshot.crc32):
        raise Corrupt(f"snapshot {snapshot.path} has changed since it was taken")
    try:
        found = applied_in(snapshot.path)
    except sqlite3.DatabaseError as error:
        raise Corrupt(f"snapshot {snapshot.path}: {error}") from error
    if found != (snapshot.index, snapshot.term):
        raise Corrupt(f"snapshot {snapshot.path} is at {found}, its descriptor says otherwise")


def install(snapshot: Snapshot, folder: str, disk: Disk) -> str:
    """Copy a verified snapshot to the next generation and switch CURRENT to it. Answers the new file's path.

    The machine on the old file must be closed before, and a new one opened after. The old file stays until
    `remove_old`, for readers that have it open.
    """
    verify(snapshot)
    _, generation = current_file(folder, disk)
    path = file_of(folder, generation + 1)
    _make_way(path, disk)
    fd = disk.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC)
    try:
        with open(snapshot.path, "rb") as source:
            while data := source.read(READ_BYTES):
                disk.write(fd, data, "install.write")
        disk.fsync(fd, "install.fsync")
    finally:
        disk.close(fd)
    disk.fsync_dir(folder, "install.fsync_dir")
    if measure(path) != (snapshot.size, snapshot.crc32):
        raise Corrupt(f"{path} differs from the snapshot that was copied there")
    replace_file(disk, os.path.join(folder, CURRENT), f"{generation + 1}\n".encode(), "install.current")
    return path


def begin_anew(folder: str, disk: Disk) -> None:
    """Switch CURRENT to the next generation without a file: whoever opens it begins with nothing."""
    _, generation = current_file(folder, disk)
    _make_way(file_of(folder, generation + 1), disk)
    replace_file(disk, os.path.join(folder, CURRENT), f"{generation + 1}\n".encode(), "metadata.anew")


def use_newest(folder: str, disk: Disk) -> None:
    """CURRENT cannot be read: let it name the newest file there is."""
    found = [int(match[1]) for name in os.listdir(folder) if (match := re.fullmatch(r"meta\.(\d+)\.sqlite", name))]
    replace_file(disk, os.path.join(folder, CURRENT), f"{max(found, default=1)}\n".encode(), "metadata.current")


def remove_old(folder: str, disk: Disk) -> None:
    """Metadata files that CURRENT doesn't name go. Only when all readers have reopened, or after a minute."""
    path, _ = current_file(folder, disk)
    used = os.path.basename(path)
    for name in os.listdir(folder):
        if re.fullmatch(r"meta\.\d+\.sqlite(-wal|-shm)?", name) and not name.startswith(used):
            _remove(os.path.join(folder, name), disk)


def _make_way(path: str, disk: Disk) -> None:
    """Remove what an installation that was cut short has left."""
    for suffix in ("", "-wal", "-shm"):
        _remove(path + suffix, disk)


def _remove(path: str, disk: Disk) -> None:
    with suppress(FileNotFoundError):
        disk.unlink(path, "snapshot.unlink")


def applied_in(path: str) -> tuple[int, int]:
    """(index, term) of the last entry in a whole copy."""
    with closing(sqlite3.connect(f"file:{quote(path)}?mode=ro&immutable=1", uri=True)) as database:
        values = dict(database.execute("SELECT k, v FROM meta WHERE k IN ('applied', 'term')").fetchall())
    return values.get("applied", 0), values.get("term", 0)


def measure(path: str) -> tuple[int, int]:
    """(size, CRC-32) of the file."""
    size, crc = 0, 0
    with open(path, "rb") as file:
        while data := file.read(READ_BYTES):
            size, crc = size + len(data), crc32(data, crc)
    return size, crc
