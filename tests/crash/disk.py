"""A disk that remembers, at each durable step, what a crash and what a power cut at that moment would leave.

One run gives the images of all its steps: they are taken inside the step, before it is carried out, while a lock keeps
every other change through Disk out. Taking all images from one run rather than running again for each step means that
the image of step N and what the client had been told by step N belong to the same run, whatever its threads do.

* crash: the process is gone, the page cache is not: every byte as written.
* lost: nothing that wasn't synced is left: no bytes since the file's last sync, no names since the folder's last sync.
* torn: each page written since is new, old or zeros; each name changed since is there or not, in no order.

SQLite writes past Disk, so its files are modelled from the steps announced around it, as WAL and synchronous=NORMAL have
it: a commit syncs nothing; a checkpoint syncs the log, then moves pages, then syncs the database; a log that begins anew
syncs its head. So between checkpoints the database is as it is, and the log is cut anywhere behind its synced part (lost:
right there; torn: anywhere, in the middle of a frame, or with a hole). While a checkpoint is under way each page of the
database is old, new or half of each, beside a whole log: such an image is made after each checkpoint from the pages
before and after it (kind "checkpoint"). A commit under synchronous=FULL is announced by `index.synced`. What this cannot
show is a step of SQLite that breaks its own documented order. The shared-memory file is left out: it never survives.
"""

import os
import random
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from consensus.disk import Buffer
from tests.crash.faults import NO_FAULT, Fault
from tests.unit.consensus.crash import PAGE, FaultyDisk, Inode, torn

CRASH, LOST, TORN, CHECKPOINT = "crash", "lost", "torn", "checkpoint"
SECTOR = 512

DATABASE = re.compile(r"(meta/meta\.\d+|chunks/index)\.sqlite")
_LEFT_OUT = re.compile(r".*(-shm|/lock|\.sock)")
_CHUNK_FILE = re.compile(r"chunks/[0-9a-f]{2}/.*")
_CHECKPOINTS = {"metadata.checkpoint": "meta/", "index.checkpoint": "chunks/"}
READ_TRIES = 1000


@dataclass(frozen=True, slots=True)
class Image:
    """A folder as it might be found. Bytes are shared between images."""

    folders: tuple[str, ...]
    files: dict[str, bytes]

    def lay_out(self, target: Path) -> None:
        for folder in self.folders:
            (target / folder).mkdir(parents=True, exist_ok=True)
        for name, data in self.files.items():
            (target / name).write_bytes(data)


class Pair(NamedTuple):
    """A database and its log, read at one moment."""

    pages: bytes
    log: bytes


NOTHING = Pair(b"", b"")


@dataclass
class Checkpoint:
    """One that was announced. Whether it has ended is known at its thread's next step; until then it may be half done."""

    number: int
    before: Pair
    lost: Image
    shown: bool = False


@dataclass
class Database:
    """What is durable of one SQLite file."""

    synced: Pair
    """`log` as of its last sync."""
    under_way: "dict[int, Checkpoint]" = field(default_factory=dict)
    """By thread, until its next step."""

    def left(self, now: Pair, chance: random.Random | None) -> Pair:
        floor = _synced_bytes(self.synced.log, now.log)
        pages = now.pages
        for checkpoint in self.under_way.values():
            before = checkpoint.before
            if before.log[:32] == now.log[:32] and before.pages != now.pages:
                floor = max(floor, len(before.log))
                pages = before.pages if chance is None else mixed_pages(before.pages, now.pages, chance)
        if chance is None:
            return Pair(pages, now.log[:floor])
        return Pair(pages, now.log[:floor] + _torn_tail(now.log[floor:], chance))


class RecordingDisk(FaultyDisk):
    """Calls `taken` at each step. `fault` makes syncs lie, for controls."""

    def __init__(self, root: Path, fault: Fault = NO_FAULT) -> None:
        super().__init__(str(root))
        self._fault = fault
        self._owed: list[tuple[int, Inode, bytes]] = []
        """Late syncs: at which step, of what."""
        self._lock = threading.RLock()
        self._where = ""
        self._databases: dict[str, Database] = {}
        self._chunk_files: dict[tuple[str, int], bytes] = {}
        self.taken: Callable[[int, str, str], None] = lambda number, step, path: None
        self.mid_checkpoint: Callable[[int, Image], None] = lambda number, image: None
        for names in (self._live, self._durable):
            for path in [path for path in names if self._apart(path)]:
                del names[path]
        for name in self._database_names():
            self._databases[name] = Database(self._pair(name))

    def _apart(self, path: str) -> bool:
        name = os.path.relpath(path, self.root)
        return DATABASE.fullmatch(name.removesuffix("-wal")) is not None or _LEFT_OUT.fullmatch(name) is not None

    # Steps

    def _step(self, step: str, path: str) -> None:
        with self._lock:
            number, path = len(self.steps), path or self._where
            super()._step(step, path)
            self._follow(number, step)
            self.taken(number, step, os.path.relpath(path, self.root) if path else "")
            for due, inode, data in self._owed:
                if due <= number:
                    inode.durable = data
            self._owed = [owed for owed in self._owed if owed[0] > number]

    def _follow(self, number: int, step: str) -> None:
        """What a step tells about the databases."""
        thread = threading.get_ident()
        folder = _CHECKPOINTS.get(step, "none")
        for name in self._database_names():
            database = self._databases.setdefault(name, Database(NOTHING))
            now = self._pair(name)
            for checkpoint in database.under_way.values():
                before = checkpoint.before
                if not checkpoint.shown and before.pages != now.pages and before.log[:32] == now.log[:32]:
                    checkpoint.shown = True
                    pages = mixed_pages(before.pages, now.pages, random.Random(number))
                    files = {**checkpoint.lost.files, name: pages, name + "-wal": before.log}
                    self.mid_checkpoint(checkpoint.number, Image(checkpoint.lost.folders, files))
            ended = database.under_way.pop(thread, None)
            if ended is not None:
                database.synced = ended.before
            if step == "index.synced" and name.startswith("chunks/"):
                database.synced = now
            if name.startswith(folder):
                database.under_way[thread] = Checkpoint(number, now, self.power())

    def step(self, step: str, path: str) -> None:
        self._step(step, path)

    @contextmanager
    def _at(self, fd: int | None = None) -> Iterator[None]:
        with self._lock:
            self._where = "" if fd is None else os.readlink(f"/proc/self/fd/{fd}")
            yield

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        with self._at():
            return super().open(path, flags, mode)

    def close(self, fd: int) -> None:
        with self._at():
            super().close(fd)

    def write(self, fd: int, data: Buffer, step: str) -> None:
        with self._at(fd):
            super().write(fd, data, step)

    def writev(self, fd: int, buffers: Sequence[Buffer], step: str) -> None:  # type: ignore[override]
        with self._at(fd):
            super().writev(fd, list(buffers), step)

    def pwrite(self, fd: int, data: Buffer, offset: int, step: str) -> None:
        with self._at(fd):
            super().pwrite(fd, data, offset, step)

    def truncate(self, fd: int, length: int, step: str) -> None:
        with self._at(fd):
            super().truncate(fd, length, step)

    def fdatasync(self, fd: int, step: str) -> None:
        with self._at(fd):
            if step in self._fault.swallowed:
                self._step(step, "")
            elif step in self._fault.late:
                inode = self._fds[fd]
                self._owed.append((len(self.steps) + self._fault.late[step], inode, bytes(inode.written)))
                self._step(step, "")
            else:
                super().fdatasync(fd, step)

    def fsync_dir(self, path: str, step: str) -> None:
        with self._at():
            if step in self._fault.swallowed:
                self._step(step, os.path.abspath(path))
            else:
                super().fsync_dir(path, step)

    def rename(self, old: str, new: str, step: str) -> None:
        with self._at():
            super().rename(old, new, step)

    def unlink(self, path: str, step: str) -> None:
        with self._at():
            super().unlink(path, step)

    def mkdir(self, path: str, step: str, mode: int = 0o700) -> None:
        with self._at():
            super().mkdir(path, step, mode)

    def rmdir(self, path: str, step: str) -> None:
        with self._at():
            super().rmdir(path, step)

    # Images

    def crash(self) -> Image:
        """Everything that was written."""
        with self._lock:
            folders, files = [], {}
            for path, names, found in os.walk(self.root):
                folders += [os.path.relpath(os.path.join(path, name), self.root) for name in names]
                for file in found:
                    name = os.path.relpath(os.path.join(path, file), self.root)
                    if not self._apart(os.path.join(path, file)):
                        files[name] = self._read(name)
            for name in self._database_names():
                _put(files, name, self._pair(name))
            return Image(tuple(folders), files)

    def power(self, seed: int | None = None) -> Image:
        """What a power cut may leave: the least (without a seed), or some of what wasn't synced."""
        with self._lock:
            chance = None if seed is None else random.Random(seed)
            names = dict(self._durable)
            for _, path, inode in self._pending:
                if chance is not None and chance.random() < 0.5:
                    self._apply(names, path, inode)
            folders, files = [], {}
            for path, inode in sorted(names.items()):
                name = os.path.relpath(path, self.root)
                if self._apart(path) or (os.path.dirname(name) and os.path.dirname(name) not in folders):
                    continue                          # the folder around it is gone
                if inode.is_folder:
                    folders.append(name)
                else:
                    files[name] = inode.durable if chance is None else torn(inode, chance)
            for name in self._database_names():
                if os.path.dirname(name) in folders:
                    database = self._databases.setdefault(name, Database(NOTHING))
                    _put(files, name, database.left(self._pair(name), chance))
            return Image(tuple(folders), files)

    def _database_names(self) -> list[str]:
        found = []
        for folder in ("meta", "chunks"):
            place = os.path.join(self.root, folder)
            if os.path.isdir(place):
                found += [f"{folder}/{name}" for name in os.listdir(place) if DATABASE.fullmatch(f"{folder}/{name}")]
        return sorted(found)

    def _read(self, name: str) -> bytes:
        """A large chunk's file isn't changed once it has its name: it is read once."""
        path = os.path.join(self.root, name)
        key = name, os.stat(path).st_ino
        known = self._chunk_files.get(key)
        if known is not None:
            return known
        data = Path(path).read_bytes()
        if _CHUNK_FILE.fullmatch(name):
            self._chunk_files[key] = data
        return data

    def _pair(self, name: str) -> Pair:
        """Both files at one moment, although another thread's SQLite may be writing."""
        path = Path(self.root, name)
        for _ in range(READ_TRIES):
            pages, log, head = _bytes(path), _bytes(Path(f"{path}-wal")), _bytes(Path(f"{path}-wal"))[:32]
            if log[:32] == head and pages == _bytes(path):
                return Pair(pages, log)
        raise AssertionError(f"{name} never stays as it is")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _put(files: dict[str, bytes], name: str, pair: Pair) -> None:
    files[name] = pair.pages
    if pair.log:
        files[name + "-wal"] = pair.log


def _synced_bytes(synced: bytes, log: bytes) -> int:
    """How much of a log was there when it was last synced: nothing if it has begun anew since."""
    return len(synced) if synced[:32] == log[:32] and len(log) >= len(synced) else 0


def _torn_tail(tail: bytes, chance: random.Random) -> bytes:
    kind = chance.randrange(3)
    if kind == 0 or not tail:
        return tail
    cut = chance.randrange(len(tail) + 1)
    if kind == 1:
        return tail[:cut]
    at = cut // SECTOR * SECTOR                       # one sector never arrived
    return tail[:at] + bytes(len(tail[at:at + SECTOR])) + tail[at + SECTOR:]


def mixed_pages(old: bytes, new: bytes, chance: random.Random) -> bytes:
    """Of pages that are being overwritten: old, new, or the first sectors new and the rest old."""
    pages = []
    for at in range(0, len(new), PAGE):
        before, after = old[at:at + PAGE].ljust(PAGE, b"\0"), new[at:at + PAGE]
        cut = chance.choice((0, PAGE, SECTOR * chance.randrange(PAGE // SECTOR)))
        pages.append(after[:cut] + before[cut:len(after)])
    return b"".join(pages)
