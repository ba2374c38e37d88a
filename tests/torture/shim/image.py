"""The folder as a disk would have it after a power cut at some moment of a shim's log.

* A *page* (4 KiB) of a file is durable as it was when the last good sync of the file began; what was written into it
  since is *dirty*. After a failed sync the dirty pages are *lost*: the kernel takes them for clean, so no later sync
  writes them, until somebody writes into them again.
* A file's length goes the way of its pages. A name in a folder goes with the syncs of that folder; a rename within a
  folder is one change, one between folders takes the old name away only where the new one arrives.
* The *lost* form of a cut: what is durable and nothing else. The *torn* form: each dirty page is new, old, or mixed by
  sectors of 512 bytes that are new, old or zeros; lengths lie in between; each change of a name that was not synced is
  there or not. Bytes that are the same before and after stay: rewriting a sector with its own bytes cannot harm it.

Changes after the moment are undone as well, so a cut needs no stopping of anybody: the moment may be in the past.
"""

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.torture.shim.log import NO_RESULT, UNDO_IS_ZEROS, Kind, Record, ShimLog

PAGE, SECTOR = 4096, 512
COPY_BYTES = 1 << 20


@dataclass(eq=False)
class Inode:
    """A file or folder. Positions are places in the log; 0 is before it began."""

    number: int
    is_folder: bool = False
    size: int = 0
    durable_size: int = 0
    resized: int = 0
    """The last change of `size` that may still become durable; 0: none."""
    changes: list[Record] = field(default_factory=list)
    """Of bytes, oldest first; also those after the cut."""
    dirty: dict[int, tuple[int, int]] = field(default_factory=dict)
    """By page: first and last change since it was durable."""
    lost: set[int] = field(default_factory=set)
    settled: dict[int, int] = field(default_factory=dict)
    """By page: as of when it is durable, where that is not 0."""
    names: dict[str, "Inode"] = field(default_factory=dict)
    """What a folder holds for certain."""
    live: dict[str, "Inode"] = field(default_factory=dict)
    """What it shows while nothing is cut."""
    pending: "list[NameChange]" = field(default_factory=list)

    def change(self, record: Record) -> None:
        """A write, a new length, or space allocated ahead."""
        done = 0 if record.result == NO_RESULT else record.result
        start = end = 0
        size = self.size
        if record.kind == Kind.WRITE:
            start, end = record.a, record.a + record.b
            size = max(size, record.a + done) if done else size
        elif record.kind == Kind.TRUNCATE:
            start, end = record.a, max(record.a, record.c)
            size = size if record.result == NO_RESULT else record.a
        elif record.result != NO_RESULT:
            size = max(size, record.a)
        for page in range(start // PAGE, -(-end // PAGE)):
            first, _ = self.dirty.get(page, (record.position, 0))
            self.dirty[page] = first, record.position
            self.lost.discard(page)
        if size != self.size:
            self.size, self.resized = size, record.position

    def synced(self, began: int, size: int) -> None:
        """A good sync, begun when the length was `size`."""
        top = 0
        for page, (first, last) in list(self.dirty.items()):
            if first < began:
                self.settled[page] = began
                top = max(top, page + 1)
                if last < began:
                    del self.dirty[page]
                else:
                    self.dirty[page] = last, last
        if self.resized:
            self.durable_size = size
            if self.resized < began:
                self.resized = 0
        self.durable_size = max(self.durable_size, min(size, top * PAGE))

    def failed(self, began: int) -> None:
        """A sync that failed: nobody will write these pages and names any more."""
        for page, (_, last) in list(self.dirty.items()):
            if last < began:
                del self.dirty[page]
                self.lost.add(page)
        if self.resized < began:
            self.resized = 0
        self.pending = [change for change in self.pending if change.position >= began]


@dataclass(eq=False)
class NameChange:
    """In a folder, not synced yet: `name` stands for `inode`, or for nothing."""

    position: int
    name: str
    inode: Inode | None
    gone: str | None = None
    """The old name of a rename in the same folder."""
    arrival: "tuple[Inode, NameChange] | None" = None
    """Where a name that is removed has been moved to, if to another folder: this happens only with that."""
    chosen: bool | None = None

    def apply(self, names: dict[str, Inode]) -> None:
        if self.gone is not None:
            names.pop(self.gone, None)
        if self.inode is None:
            names.pop(self.name, None)
        else:
            names[self.name] = self.inode

    def happens(self, chance: random.Random) -> bool:
        """Although nobody synced it. Chosen once."""
        if self.chosen is None:
            self.chosen = chance.random() < 0.5
            if self.arrival is not None and self.arrival[1] in self.arrival[0].pending:
                self.chosen = self.chosen and self.arrival[1].happens(chance)
        return self.chosen


def found(path: Path) -> Inode:
    """A folder or file in which nobody is at work: all that it holds is durable."""
    about = path.lstat()
    inode = Inode(about.st_ino, path.is_dir(), about.st_size, about.st_size)
    if inode.is_folder:
        inode.names = {inner.name: found(inner) for inner in path.iterdir()
                       if (inner.is_dir() or inner.is_file()) and not inner.name.endswith("-shm")}
        inode.live = dict(inode.names)
    return inode


class Disk:
    """What is durable at the position `cut` of the log (None: at its end). `before`: the folder when the log began."""

    def __init__(self, log: ShimLog, before: Inode, cut: int | None = None) -> None:
        self.log, self.root = log, before
        self.cut = log.position if cut is None else cut
        self.good_syncs = self.failed_syncs = 0
        self._inodes = {inode.number: inode for inode in _all(before)}
        self._syncing: dict[int, int] = {}
        """By its beginning: the length of the file then."""
        for record in log.records():
            if record.kind in (Kind.WRITE, Kind.TRUNCATE, Kind.ALLOCATE):
                self._bytes(record)
            elif record.position < self.cut:
                self._other(record)

    def _bytes(self, record: Record) -> None:
        inode = self._inodes.get(record.inode)
        if inode is None:                             # made after the cut
            assert record.position >= self.cut, f"an unknown file {record.inode} is written"
        else:
            inode.changes.append(record)
            if record.position < self.cut and not record.failed:
                inode.change(record)

    def _other(self, record: Record) -> None:
        inode = self._inodes.get(record.inode)
        if record.kind == Kind.SYNC_BEGIN:
            assert inode is not None, "an unknown file is synced"
            self._syncing[record.position] = inode.size
        elif record.kind == Kind.SYNC_END:
            assert inode is not None
            size = self._syncing.pop(record.a)
            if record.failed:
                self.failed_syncs += 1
                inode.failed(record.a)
            else:
                self.good_syncs += 1
                inode.synced(record.a, size)
                _settle_names(inode, record.a)
        elif not record.failed:
            self._name(record, inode)

    def _name(self, record: Record, inode: Inode | None) -> None:
        assert record.kind != Kind.FOREIGN, f"a rename into or out of the folder: {bytes(record.first)!r}"
        name, position = os.fsdecode(bytes(record.first)), record.position
        if name.endswith("-shm") or record.inode == 0:
            return                                    # or its process was killed before the file was there
        folder = self._inodes[record.a]
        if record.kind in (Kind.CREATE, Kind.MKDIR):
            inode = self._inodes[record.inode] = Inode(record.inode, record.kind == Kind.MKDIR)
            _pend(folder, NameChange(position, name, inode))
            return
        assert inode is not None, f"an unknown file is renamed: {name}"
        if record.kind == Kind.LINK:
            _pend(folder, NameChange(position, name, inode))
        elif record.kind == Kind.UNLINK:
            _pend(folder, NameChange(position, name, None))
        else:
            assert record.kind == Kind.RENAME
            new, other = os.fsdecode(bytes(record.second)), self._inodes[record.b]
            if other is folder:
                _pend(folder, NameChange(position, new, inode, gone=name))
            else:
                arrival = NameChange(position, new, inode)
                _pend(other, arrival)
                _pend(folder, NameChange(position, name, None, arrival=(other, arrival)))

    def lay_out(self, target: Path, chance: random.Random | None = None) -> None:
        """Make the folder `target` and put into it what the cut leaves: the lost form, or with `chance` a torn one.

        Files that nothing is to be changed in are linked, so the followed folder is not to be used after this."""
        places = {inner.stat().st_ino: inner for base in (self.log.root, self.log.grave)
                  for inner in base.rglob("*") if inner.is_file() and not inner.is_symlink()}
        target.mkdir(mode=0o700)
        self._folder(self.root, target, places, chance)

    def _folder(self, folder: Inode, target: Path, places: dict[int, Path], chance: random.Random | None) -> None:
        names = dict(folder.names)
        if chance is not None:
            for change in folder.pending:
                if change.happens(chance):
                    change.apply(names)
        for name, inode in names.items():
            if inode.is_folder:
                (target / name).mkdir(mode=0o700)
                self._folder(inode, target / name, places, chance)
            else:
                self._file(inode, target / name, places[inode.number], chance)

    def _file(self, inode: Inode, target: Path, source: Path, chance: random.Random | None) -> None:
        size = inode.durable_size
        if chance is not None and inode.resized:
            low, high = sorted((inode.size, inode.durable_size))
            size = chance.choice((low, high, chance.randint(low, high)))
        after = {page for record in inode.changes if record.position >= self.cut for page in _pages(record)}
        pages = sorted(page for page in inode.dirty.keys() | inode.lost | after if page * PAGE < size)
        if not pages and source.stat().st_size == size:
            os.link(source, target)
            return
        with source.open("rb") as reader, target.open("xb") as writer:
            os.chmod(target, 0o600)
            while writer.tell() < size and (data := reader.read(min(COPY_BYTES, size - writer.tell()))):
                writer.write(data)
            writer.truncate(size)
            wanted: dict[int, set[int]] = {}
            for page in pages:
                durable = inode.settled.get(page, 0)
                wanted[page] = {durable} if page in inode.lost else {self.cut}
                if page in inode.dirty:
                    wanted[page].add(durable)
            for page, versions in _earlier(inode, reader.fileno(), wanted).items():
                if page not in inode.dirty:
                    (data,) = versions.values()
                else:
                    old, new = versions[inode.settled.get(page, 0)], versions[self.cut]
                    data = old if chance is None else torn(old, new, chance)
                writer.seek(page * PAGE)
                writer.write(data[:size - page * PAGE])

    @property
    def dirty_bytes(self) -> int:
        """How much was written and not synced."""
        return sum(len(inode.dirty) for inode in self._inodes.values()) * PAGE


def _all(inode: Inode) -> Iterator[Inode]:
    yield inode
    for inner in inode.names.values():
        yield from _all(inner)


def _pend(folder: Inode, change: NameChange) -> None:
    folder.pending.append(change)
    change.apply(folder.live)


def _settle_names(folder: Inode, began: int) -> None:
    """The folder was synced: so were the changes in it that a sync which began then has met."""
    for change in [change for change in folder.pending if change.position < began]:
        folder.pending.remove(change)
        if change.arrival is not None:
            other, arrival = change.arrival
            if arrival in other.pending:              # one transaction of the file system: both or none
                other.pending.remove(arrival)
                arrival.apply(other.names)
        change.apply(folder.names)


def _span(record: Record) -> tuple[int, int]:
    """The bytes that the record's change may have changed."""
    if record.kind == Kind.WRITE:
        return record.a, record.a + record.b
    if record.kind == Kind.TRUNCATE:
        return record.a, max(record.a, record.c)
    return 0, 0


def _pages(record: Record) -> range:
    start, end = _span(record)
    return range(start // PAGE, -(-end // PAGE))


def _earlier(inode: Inode, fd: int, wanted: dict[int, set[int]]) -> dict[int, dict[int, bytes]]:
    """Pages as they were at positions of the log: by page and position."""
    now = {page: bytearray(os.pread(fd, PAGE, page * PAGE).ljust(PAGE, b"\0")) for page in wanted}
    seen: dict[int, dict[int, bytes]] = {page: {} for page in wanted}
    for record in reversed(inode.changes):
        for page in _pages(record):
            if page not in wanted:
                continue
            for position in wanted[page] - seen[page].keys():
                if position > record.position:
                    seen[page][position] = bytes(now[page])
            _undo(record, page, now[page])
    for page, positions in wanted.items():
        for position in positions - seen[page].keys():
            seen[page][position] = bytes(now[page])
    return seen


def _undo(record: Record, page: int, data: bytearray) -> None:
    """What the page held before the change. Behind the file's end then there were zeros."""
    start, end = _span(record)
    low, high = max(start, page * PAGE), min(end, (page + 1) * PAGE)
    known = max(low, min(high, record.c))
    old = bytes(known - low) if record.flags & UNDO_IS_ZEROS else bytes(record.first[low - start:known - start])
    data[low - page * PAGE:high - page * PAGE] = old.ljust(high - low, b"\0")


def torn(old: bytes, new: bytes, chance: random.Random) -> bytes:
    """A page of which nobody knows whether it was written."""
    kind = chance.randrange(4)
    if kind == 0:
        return old
    if kind == 1:
        return new
    if kind == 2:
        return _zeroed(old, new)
    sectors = [(old[at:at + SECTOR], new[at:at + SECTOR]) for at in range(0, PAGE, SECTOR)]
    return b"".join(chance.choice((before, after, _zeroed(before, after))) for before, after in sectors)


def _zeroed(old: bytes, new: bytes) -> bytes:
    return new if old == new else bytes(0 if a != b else a for a, b in zip(old, new, strict=True))
