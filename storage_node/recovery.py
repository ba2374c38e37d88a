"""What a store does before it serves: finds what the index has lost, and believes nothing that the disk may not hold.

After a crash the index lacks at most what was written last. It is found in the tails of segments that were not
sealed, and among the large files. A tail is copied to a new segment and synced before it is vouched for: if the last
sync failed, the page cache shows bytes that are not on the disk, and a second sync of the same file would not tell.

When the whole index is lost (or was damaged: it is moved aside then), everything is found this way. Only then, all but the
newest segment are taken as they are, without a look at their bytes: a segment is left only after its last sync succeeded
or its end was cut off. An index that knows other segments has lost this one's row in a power cut, and then it may be one
that was being cut: it is copied like a tail.

A name may be found twice: a tail was copied, and the power failed before it was cut; or a copy was moved, and its old
segment not yet unlinked. The place that was found first counts, unless what lies there is not good.

Segments in which nothing lives any more go at the start too: unlinked, the folder synced, then their row. A row that went
first would make the file, come back with a power cut, look like one that the index has lost.

Copies found are NEW: the node asks the metadata about each, as about one that has just been written. After a start that
was not clean it compares its whole inventory as well (inventory.py).
"""

import contextlib
import logging
import os
from typing import NamedTuple

from consensus.core.clock import SteadyClock
from consensus.core.errors import ClusterError, Corrupt
from consensus.core.ids import Digest
from consensus.disk import Disk
from storage_node.care.examine import examine
from storage_node.chunk import (
    HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    block_table,
    decode_header,
    decode_segment_header,
    parse_file_name,
    record_bytes,
)
from storage_node.files import INCOMING
from storage_node.index import FILE, SETTLED, Index, Row, SegmentRow
from storage_node.scan import Found, Gap, read_record, records
from storage_node.segments import (
    BATCH_BYTES_MAX,
    BATCH_RECORDS_MAX,
    SEGMENTS,
    Record,
    Segments,
    remove_segment,
    segment_path,
)

log = logging.getLogger("staddle.node")

_UPDATE = os.O_RDWR | os.O_CLOEXEC


class Recovered(NamedTuple):
    """What a start has found beside what the index knew."""

    records: int
    files: int
    damaged: int
    clean: bool = True            # the last stop had left its mark


def recover(folder: str, disk: Disk, index: Index, segments: Segments) -> Recovered:
    """Before `segments` is started. Raises OSError, NoSpace, Unavailable: the folder can't be served then."""
    for name in os.listdir(f"{folder}/{INCOMING}"):
        disk.unlink(f"{folder}/{INCOMING}/{name}", "recover.incoming")
    was_clean = index.clean
    index.set_clean(False)
    found, damaged = _segments(folder, disk, index, segments)
    files = 0
    if not was_clean:
        files, missing = _files(folder, disk, index)
        damaged += missing
        # A new folder was never stopped either; there is nothing to tell about it.
        log.log(logging.INFO if found or files or damaged else logging.DEBUG,
                "recovered after an unclean stop: %d records, %d files, %d damaged", found, files, damaged)
    return Recovered(found, files, damaged, was_clean)


def _segments(folder: str, disk: Disk, index: Index, segments: Segments) -> tuple[int, int]:
    known = {row.number: row for row in index.segments()}
    numbers = sorted(int(name[:-4], 16) for name in os.listdir(f"{folder}/{SEGMENTS}") if name.endswith(".seg"))
    segments.skip_to(1 + max([0, *numbers, *known]))
    found = damaged = 0
    for number in known.keys() - set(numbers):
        damaged += _missing(index, number)
    for number in numbers:
        row = known.get(number)
        if row is None or not row.sealed:
            # An index that knows others has lost this one's row in a power cut: it may be one that was being cut.
            in_place = not known and number != numbers[-1]
            more, bad = _tail(folder, disk, index, segments, number, row, in_place)
            found += more
            damaged += bad
        elif row.live <= 0:                           # a crash came between its last chunk's end and its own
            remove_segment(disk, index, folder, number)
    return found, damaged


def _missing(index: Index, number: int) -> int:
    """A segment of which the file is gone. Expected when its last removal was interrupted by a power cut."""
    copies = index.copies_in(number)
    lost = [copy for copy in copies if copy.state == SETTLED]
    for copy in lost:
        index.damaged(copy.digest, copy.generation, "its segment is missing", _now_ms())
    index.remove([copy for copy in copies if copy.state != SETTLED])
    if not lost:
        index.drop_segment(number)
    return len(lost)


def _tail(folder: str, disk: Disk, index: Index, segments: Segments, number: int, row: SegmentRow | None,
          in_place: bool) -> tuple[int, int]:
    """Take in the records that the index lacks; then the segment is sealed."""
    path = segment_path(folder, number)
    fd = disk.open(path, _UPDATE)
    try:
        home = row.home if row else _home(fd)
        if home is None:
            disk.unlink(path, "recover.unlink")       # a crash before its header was synced: it has held nothing
            return 0, 0
        start = row.used if row else SEGMENT_HEADER_BYTES
        if row is None:
            index.open_segment(number, home)
        reader = _Tail(folder, index, segments, fd, number, home, start)
        if in_place:
            reader.adopt()
        else:
            reader.copy()
            disk.truncate(fd, start, "recover.truncate")
            disk.fdatasync(fd, "recover.fdatasync")   # or a power cut might leave half of what was copied
    finally:
        disk.close(fd)
    if index.seal_segment(number):
        remove_segment(disk, index, folder, number)
    return reader.found, reader.damaged


def _home(fd: int) -> bytes | None:
    try:
        return decode_segment_header(os.pread(fd, SEGMENT_HEADER_BYTES, 0)).home
    except Corrupt:
        # A damaged header must not cost the records: they say the home too.
        raw = os.pread(fd, HEADER_BYTES, SEGMENT_HEADER_BYTES)
        with contextlib.suppress(Corrupt):
            return decode_header(raw).home
        return None


class _Tail:
    def __init__(self, folder: str, index: Index, segments: Segments, fd: int, number: int, home: bytes,
                 start: int) -> None:
        self._folder, self._index, self._segments, self._fd, self._number = folder, index, segments, fd, number
        self._records = records(fd, home, start)
        self.found = self.damaged = 0

    def copy(self) -> None:
        batch: list[Record] = []
        size = 0
        torn: list[Found] = []
        for item in self._records:
            self._judge(torn)                         # something follows, so what looked torn is damage
            if isinstance(item, Gap):
                log.error("segment %d is damaged from %d to %d", self._number, item.start, item.end)
                self.damaged += 1
                continue
            data, table = read_record(self._fd, item)
            if len(data) != item.header.size or table != block_table(data):
                torn.append(item)
                continue
            self._prefer_good([(item.header.digest, item.header.generation.pack())])
            batch.append(Record(item.header.digest, item.header.generation.pack(), data, table, _now_ms()))
            size += len(data)
            self.found += 1
            if len(batch) == BATCH_RECORDS_MAX or size > BATCH_BYTES_MAX:
                self._segments.write(batch)
                batch, size = [], 0
        if batch:
            self._segments.write(batch)

    def _judge(self, torn: list[Found]) -> None:
        for item in torn:
            if not self._is_elsewhere(item):
                self._index.damaged(item.header.digest, item.header.generation.pack(), "damaged in its segment", _now_ms())
                self.damaged += 1
        torn.clear()

    def _is_elsewhere(self, item: Found) -> bool:
        """Whether a good copy of that name is in another place: then this tail had been copied, and a power cut came while it
        was cut off."""
        known = self._index.find(item.header.digest, item.header.generation.pack())
        if known is None or (known.segment, known.place) == (self._number, item.place):
            return False
        with contextlib.suppress(ClusterError):
            return examine(self._folder, known) is None
        return False

    def adopt(self) -> None:
        rows: list[Row] = []
        end = SEGMENT_HEADER_BYTES
        for item in self._records:
            if isinstance(item, Gap):
                log.error("segment %d is damaged from %d to %d", self._number, item.start, item.end)
                self.damaged += 1
                continue
            header = item.header
            rows.append(Row(header.digest, header.generation.pack(), header.size, self._number, item.place, _now_ms()))
            end = item.place + record_bytes(header.size)
            self.found += 1
            if len(rows) == 1000:
                self._add(rows, end)
                rows = []
        self._add(rows, end)

    def _add(self, rows: list[Row], end: int) -> None:
        self._prefer_good([row[:2] for row in rows])
        self._index.add(rows, self._number, end)

    def _prefer_good(self, names: list[tuple[Digest, bytes]]) -> None:
        """Names that are about to be found a second time: where the first place is not good, it is said to be damaged, so
        that the second takes over (Index.add)."""
        for known in self._index.find_all(names):
            try:
                reason = examine(self._folder, known)
            except ClusterError as error:
                reason = str(error)
            if reason is not None:
                log.warning("%s; another place of it counts", reason)
                self._index.damaged(known.digest, known.generation, reason, _now_ms())


def _files(folder: str, disk: Disk, index: Index) -> tuple[int, int]:
    """Compare the large chunks' folders with the index."""
    found = missing = 0
    for first in range(256):
        path = f"{folder}/{first:02x}"
        names = {parse_file_name(name): name for name in os.listdir(path)}
        known = {(copy.digest, copy.generation): copy for copy in index.files(first)}
        rows = []
        for name, text in names.items():
            if name is not None and name not in known:
                size = _size(f"{path}/{text}", name)
                if size is None:
                    index.damaged(*name, "its file is damaged", _now_ms())
                    missing += 1
                else:
                    rows.append(Row(*name, size, FILE, 0, _now_ms()))
        if rows:
            disk.fsync_dir(path, "recover.fsync_dir")   # they were named; whether durably, the crash has not told
            index.add(rows)
            found += len(rows)
        for name, copy in known.items():
            if name not in names:
                if copy.state == SETTLED:
                    index.damaged(*name, "its file is missing", _now_ms())
                    missing += 1
                else:
                    index.remove([copy])
    return found, missing


def _size(path: str, name: tuple[bytes, bytes]) -> int | None:
    """Of the chunk in this file; None if its header isn't what the name says."""
    with open(path, "rb") as file:
        raw = file.read(HEADER_BYTES)
    try:
        header = decode_header(raw)
    except Corrupt:
        return None
    return header.size if (header.digest, header.generation.pack()) == name else None


def _now_ms() -> int:
    return SteadyClock().now_ms()
