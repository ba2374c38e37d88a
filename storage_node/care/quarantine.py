"""Damaged copies, put aside: what was found is kept for people to look at, and out of everybody's way.

The folder `quarantine` holds two files for each copy: its bytes as they lay on the disk (`….chunk`), as long as there
is room, and a description (`….json`). Nothing depends on them: they are bounded, and the oldest go first. What does
matter is that a damaged file's old name is gone for good before its row goes: a name that came back with a power cut
would be taken for a copy that the index had lost.
"""

import contextlib
import logging
import os

import msgspec

from consensus.core.codec import UNDECODABLE
from consensus.core.ids import Digest
from consensus.disk import CREATE, Disk, make_folder
from storage_node.chunk import file_name, record_bytes
from storage_node.errors import from_os
from storage_node.index import Copy
from storage_node.segments import segment_path

log = logging.getLogger("staddle.node")

QUARANTINE = "quarantine"

BYTES_MAX = 512 << 20
"""Of all that is kept: eight chunks of the usual 64 MiB, or a great many small ones. Enough to see what happens to a
disk, and no more than a disk can spare."""

ENTRIES_MAX = 10_000
"""A disk that has damaged more is not to be mended by looking at single copies."""

FREE_BYTES_MIN = 1 << 30
"""With less free than this nothing is kept: clients need the room."""


class PutAside(msgspec.Struct, frozen=True, kw_only=True):
    """A damaged copy that was found. `what` became of it: repaired | withdrawn | removed. `kept` bytes are in the
    folder."""

    digest: str
    generation: str
    reason: str
    found_ms: int
    size: int
    what: str
    segment: int = 0
    place: int = 0
    kept: int = 0


class Quarantine:
    """The folder. Methods run in worker threads, one at a time."""

    def __init__(self, folder: str, disk: Disk, *, bytes_max: int = BYTES_MAX, entries_max: int = ENTRIES_MAX,
                 free_bytes_min: int = FREE_BYTES_MIN) -> None:
        self._chunks, self._folder, self._disk = folder, f"{folder}/{QUARANTINE}", disk
        self._bytes_max, self._entries_max, self._free_bytes_min = bytes_max, entries_max, free_bytes_min

    def put_aside(self, copy: Copy, reason: str, what: str, now_ms: int) -> None:
        """On return nothing can bring the copy's file back under its name. Raises NoSpace, Unavailable; then it is where it
        was, or its file is gone."""
        name = f"{copy.digest.hex()}.{copy.generation.hex()}.{now_ms}"
        kept = self._move_file(copy, name) if not copy.segment else self._copy_record(copy, name)
        self.note(copy.digest, copy.generation, reason, what, now_ms, copy.size, copy.segment, copy.place, kept)

    def note(self, digest: Digest, generation: bytes, reason: str, what: str, now_ms: int, size: int = 0,
             segment: int = 0, place: int = 0, kept: int = 0) -> None:
        """Remember what was found, without bytes. Never fails: it is for people."""
        found = PutAside(digest=digest.hex(), generation=generation.hex(), reason=reason, found_ms=now_ms, size=size,
                         what=what, segment=segment, place=place, kept=kept)
        log.warning("chunk %s: damaged copy %s: %s", found.digest, what, reason,
                    extra={"generation": found.generation, "bytes": size})
        try:
            make_folder(self._disk, self._folder, "quarantine.mkdir")
            path = f"{self._folder}/{found.digest}.{found.generation}.{now_ms}.json"
            self._write(path, msgspec.json.encode(found) + b"\n")
            self._trim()
        except OSError as error:
            log.warning("%s: the finding could not be kept: %s", self._folder, error)

    def _move_file(self, copy: Copy, name: str) -> int:
        path = f"{self._chunks}/{file_name(copy.digest, copy.generation)}"
        try:
            size = os.stat(path).st_size
            if self._has_room(size):
                make_folder(self._disk, self._folder, "quarantine.mkdir")
                self._disk.rename(path, f"{self._folder}/{name}.chunk", "quarantine.rename")
            else:
                self._disk.unlink(path, "quarantine.unlink")
                size = 0
        except FileNotFoundError:
            size = 0
        except OSError as error:
            raise from_os(error, f"putting aside chunk {copy.digest.hex()}") from error
        try:
            self._disk.fsync_dir(os.path.dirname(path), "quarantine.fsync_dir")
        except OSError as error:
            raise from_os(error, f"putting aside chunk {copy.digest.hex()}") from error
        return size

    def _copy_record(self, copy: Copy, name: str) -> int:
        """What lies in the segment stays there as dead bytes, until the segment is compacted."""
        size = record_bytes(copy.size)
        if not self._has_room(size):
            return 0
        try:
            fd = os.open(segment_path(self._chunks, copy.segment), os.O_RDONLY | os.O_CLOEXEC)
            try:
                raw = os.pread(fd, size, copy.place)
            finally:
                os.close(fd)
            make_folder(self._disk, self._folder, "quarantine.mkdir")
            self._write(f"{self._folder}/{name}.chunk", raw)
        except OSError as error:
            log.warning("chunk %s: its damaged bytes could not be kept: %s", copy.digest.hex(), error)
            return 0
        return len(raw)

    def _has_room(self, size: int) -> bool:
        with contextlib.suppress(OSError):
            disk = os.statvfs(self._chunks)
            return size <= self._bytes_max and disk.f_bavail * disk.f_frsize - size >= self._free_bytes_min
        return False

    def _write(self, path: str, data: bytes) -> None:
        fd = self._disk.open(path, CREATE)
        try:
            self._disk.write(fd, data, "quarantine.write")
        finally:
            self._disk.close(fd)

    def _trim(self) -> None:
        """Oldest first: bytes beyond what may be kept, descriptions beyond their number."""
        files = sorted((_found_ms(entry.name), entry.name, entry.stat().st_size) for entry in os.scandir(self._folder))
        kept = sum(size for _, name, size in files if name.endswith(".chunk"))
        described = sum(name.endswith(".json") for _, name, _ in files)
        for _, name, size in files:
            if name.endswith(".chunk") and kept > self._bytes_max:
                kept -= size
            elif name.endswith(".json") and described > self._entries_max:
                described -= 1
            else:
                continue
            self._disk.unlink(f"{self._folder}/{name}", "quarantine.unlink")

    def entries(self, limit: int) -> list[PutAside]:
        """The newest, newest first."""
        try:
            names = [entry.name for entry in os.scandir(self._folder) if entry.name.endswith(".json")]
        except OSError:
            return []
        found = []
        for name in sorted(names, key=_found_ms, reverse=True)[:limit]:
            with contextlib.suppress(OSError, *UNDECODABLE), open(f"{self._folder}/{name}", "rb") as file:
                found.append(_entry.decode(file.read()))
        return found

    def totals(self) -> tuple[int, int]:
        """How many findings are remembered, and the bytes that are kept."""
        with contextlib.suppress(OSError):
            files = [(entry.name, entry.stat().st_size) for entry in os.scandir(self._folder)]
            return (sum(name.endswith(".json") for name, _ in files),
                    sum(size for name, size in files if name.endswith(".chunk")))
        return 0, 0


def _found_ms(name: str) -> int:
    part = name.split(".")
    return int(part[2]) if len(part) == 4 and part[2].isdigit() else 0


_entry = msgspec.json.Decoder(PutAside)
