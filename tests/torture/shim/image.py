"""The folder as a disk would have it after a power cut at some moment of a shim's log.

* A *page* (4 KiB) of a file is durable as it was when the last good sync of the file began; what was written into it
  since is *dirty*. After a failed sync the dirty pages are *lost*: the kernel takes them for clean, so no later sync
  writes them, until somebody writes into them again.
* A file's length goes the way of a page. A name in a folder goes with the syncs of that folder; a rename within a folder
  is one change, one between folders takes the old name away only where the new one is durable.
* The *lost* form of a cut: what is durable and nothing else. The *torn* form: each dirty page is new, old, or mixed by
  sectors of 512 bytes that are new, old or zeros; lengths lie in between; each change of a name that was not synced is
  there or not. Bytes that are the same before and after stay: rewriting a sector with its own bytes cannot harm it.

Changes after the moment are undone as well, so a cut needs no stopping of anybody: the moment may be in the past.
"""

import os
import random
import shutil
import stat
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.torture.shim.log import NO_RESULT, UNDO_IS_ZEROS, Kind, Record, ShimLog

PAGE, SECTOR = 4096, 512
NEW, OLD, ZEROS = range(3)


@dataclass(eq=False)
class Inode:
    """A file or folder. Positions are places in the log; 0 is before it began."""

    number: int
    is_folder: bool = False
    size: int = 0
    changes: list[Record] = field(default_factory=list)
    """Of bytes, oldest first; also those after the cut."""
    dirty: dict[int, tuple[int, int]] = field(default_factory=dict)
    """By page: first and last change since it was durable."""
    lost: set[int] = field(default_factory=set)
    settled: dict[int, int] = field(default_factory=dict)
    """By page: since when it is durable, where that is not 0."""
    durable_size: int = 0
    resized: int = 0
    """The last change of `size` that no sync has lost."""
    names: dict[str, "Inode"] = field(default_factory=dict)
    """Of a folder: what it holds for certain."""

    def write(self, record: Record, start: int, end: int, size: int) -> None:
        for page in range(start // PAGE, -(-end // PAGE)):
            first, _ = self.dirty.get(page, (record.position, 0))
            self.dirty[page] = first, record.position
            self.lost.discard(page)
        if size != self.size:
            self.size, self.resized = size, record.position

    def synced(self, began: int, size: int) -> None:
        """A good sync, begun when the length was `size`."""
        for page, (first, last) in list(self.dirty.items()):
            if first < began:
                self.settled[page] = began
                if last < began:
                    del self.dirty[page]
                else:
                    self.dirty[page] = last, last
        if self.resized:
            self.durable_size = size
            if self.resized < began:
                self.resized = 0

    def failed(self, began: int) -> None:
        """A sync that failed: nobody will write these pages any more."""
        for page, (_, last) in list(self.dirty.items()):
            if last < began:
                del self.dirty[page]
                self.lost.add(page)
        if self.resized < began:
            self.resized = 0


@dataclass(eq=False)
class NameChange:
    """In a folder, not synced yet. `gone` is the old name of a rename, in the same folder."""

    position: int
    name: str
    inode: Inode | None
    gone: str | None = None

    def apply(self, names: dict[str, Inode]) -> None:
        if self.gone is not None:
            names.pop(self.gone, None)
        if self.inode is None:
            names.pop(self.name, None)
        else:
            names[self.name] = self.inode


@dataclass(eq=False)
class Departure(NameChange):
    """The old name of a rename into another folder: goes only with the arrival there."""

    arrival: tuple[Inode, NameChange] | None = None


class Disk:
    """What is durable at the position `cut` of the log (None: at its end)."""

    def __init__(self, log: ShimLog, baseline: "Baseline", cut: int | None = None) -> None:
        self._log = log
        self.cut = log.position if cut is None else cut
        self._inodes: dict[int, Inode] = {}
        self._pending: dict[Inode, list[NameChange]] = defaultdict(list)
        self._syncs: dict[int, int] = {}
        """Length of the file at the beginning of each sync."""
        self.root = self._known(baseline.tree)
        self.syncs = self.failed_syncs = 0
        for record in log.records():
            self._replay(record)

    def _known(self, found: "Found") -> Inode:
        inode = Inode(found.number, found.is_folder, found.size, durable_size=found.size)
        inode.names = {name: self._known(inner) for name, inner in found.inner.items()}
        self._inodes[found.number] = inode
        return inode

    def _replay(self, record: Record) -> None:
        kind = record.kind
        if kind in (Kind.WRITE, Kind.TRUNCATE, Kind.ALLOCATE):
            inode = self._inodes.get(record.inode)
            if inode is None:
                assert record.position >= self.cut, f"an unknown file {record.inode} is written"
                return
            inode.changes.append(record)
            if record.position < self.cut and not record.failed:
                _change(inode, record)
        elif record.position >= self.cut or record.failed:
            return
        elif kind == Kind.SYNC_BEGIN:
            self._syncs[record.position] = self._inodes[record.inode].size if record.inode in self._inodes else 0
        elif kind == Kind.SYNC_END:
            self._synced(record.inode, record.a)
        else:
            self._rename(record)

    def _synced(self, number: int, began: int) -> None:
        self.syncs += 1
        inode = self._inodes[number]
        inode.synced(began, self._syncs.pop(began))
        if inode.is_folder:
            left = []
            for change in self._pending[inode]:
                if change.position < began:
                    self._settle(inode, change)
                else:
                    left.append(change)
            self._pending[inode] = left

    def _settle(self, folder: Inode, change: NameChange) -> None:
        if isinstance(change, Departure) and change.arrival is not None:
            other, arrival = change.arrival
            if arrival in self._pending[other]:       # one transaction: both or none
                self._pending[other].remove(arrival)
                arrival.apply(other.names)
        change.apply(folder.names)

    def _rename(self, record: Record) -> None:
        """A change of a name."""
        assert record.kind != Kind.FOREIGN, f"a rename into or out of the folder: {bytes(record.first)!r}"
        name, position = os.fsdecode(bytes(record.first)), record.position
        if name.endswith("-shm") or record.inode == 0:
            return                                    # or its process was killed before the file was there
        folder = self._inodes[record.a]
        if record.kind in (Kind.CREATE, Kind.MKDIR):
            made = self._inodes[record.inode] = Inode(record.inode, record.kind == Kind.MKDIR)
            self._pending[folder].append(NameChange(position, name, made))
        elif record.kind == Kind.LINK:
            self._pending[folder].append(NameChange(position, name, self._inodes[record.inode]))
        elif record.kind == Kind.UNLINK:
            self._pending[folder].append(NameChange(position, name, None))
        else:
            assert record.kind == Kind.RENAME
            inode, new, other = self._inodes[record.inode], os.fsdecode(bytes(record.second)), self._inodes[record.b]
            if other is folder:
                self._pending[folder].append(NameChange(position, new, inode, gone=name))
                return
            arrival = NameChange(position, new, inode)
            self._pending[other].append(arrival)
            self._pending[folder].append(Departure(position, name, None, arrival=(other, arrival)))

    # Failed syncs are results too, so they are looked for on their own.

    def fail(self, record: Record) -> None:
        """A sync that failed before the cut."""
        self.failed_syncs += 1
        inode = self._inodes[record.inode]
        inode.failed(record.a)
        if inode.is_folder:
            self._pending[inode] = [change for change in self._pending[inode] if change.position >= record.a]
        self._syncs.pop(record.a, None)

    # The image

    def names(self, folder: Inode, chance: random.Random | None) -> dict[str, Inode]:
        """What the folder holds; with chance, some of the changes that were not synced too."""
        names = dict(folder.names)
        if chance is not None:
            for change in self._pending[folder]:
                if _happens(change, chance):
                    change.apply(names)
        return names


def _happens(change: NameChange, chance: random.Random) -> bool:
    return chance.random() < 0.5
