"""Reads of a node's folder by whoever is on its host: the node itself and the gateways. No byte leaves unverified.

The index says where a copy is, its own header must name it (so a stale or damaged index can't make us read another
chunk), and each block's CRC is checked in the buffer that is handed out. `read_now` never waits for the disk: what
isn't in the page cache is left to `read`, which asks in a thread.

One reader belongs to one event loop. Open files are kept, up to a limit, and closed when their last reader lets go.
"""

import asyncio
import contextlib
import errno
import os
import sqlite3
from collections import OrderedDict
from concurrent.futures import Executor
from typing import NamedTuple

from awscrt.checksums import crc32c

from consensus.core.errors import Corrupt, Unavailable
from consensus.core.ids import Digest
from storage_node.chunk import (
    BLOCK_BYTES,
    BLOCK_SHIFT,
    FILE_DATA_START,
    HEADER_BYTES,
    NAME_AT,
    block_count,
    check_blocks,
    decode_header,
    file_name,
)
from storage_node.errors import NotHere, from_os
from storage_node.index import FILE, INDEX_NAME
from storage_node.index_reader import IndexReader
from storage_node.segments import segment_path

PIECE_BYTES = 1 << 20
"""Of one read: four blocks. Larger ones gain nothing and keep the others waiting."""

OPEN_FILES_MAX = 256
"""Kept open for the next read; far below the usual limit of 1,024 descriptors, since gateways hold sockets too."""

IDLE_S = 20.0
"""Files that nobody has read for one to two of these are closed: an open file keeps its space after it was removed."""

NOW_BYTES_MAX = BLOCK_BYTES
"""More than this is copied by a thread rather than while everybody waits."""

PLACES_MAX = 8192
"""Places of small copies remembered, so that what is read again and again costs no look into the index: 2.5 MB."""

_NAME_START, _NAME_END = NAME_AT.start, NAME_AT.stop


class OpenFile:
    """A descriptor that is closed when nobody uses it any more, so a thread may still read from one that was
    evicted."""

    __slots__ = ("fd", "table", "used")

    def __init__(self, fd: int, table: bytes = b"") -> None:
        self.fd, self.table = fd, table
        self.used = True                              # since the last sweep

    def __del__(self) -> None:
        os.close(self.fd)


class Located(NamedTuple):
    """A copy of which the place is known: all that a thread needs to read from it."""

    digest: Digest
    generation: bytes
    size: int
    segment: int
    place: int


class LocalReader:
    """Raises Unavailable at the first use if the folder can't be read (yet)."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._index: IndexReader | None = None
        self._places: dict[bytes, tuple[int, int, int, int]] = {}
        """By digest + generation. A copy may move (a fresh one heals it) or go, so these are believed only as far as the
        header and the CRC that are read there bear them out."""
        self._open: OrderedDict[tuple[int, bytes, bytes], OpenFile] = OrderedDict()
        self._buffer = bytearray(HEADER_BYTES + NOW_BYTES_MAX + 4)
        self._view = memoryview(self._buffer)
        self._nowait = getattr(os, "RWF_NOWAIT", 0)
        self._sweeping: asyncio.TimerHandle | None = None

    def close(self) -> None:
        self._open.clear()
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        if self._index is not None:
            self._index.close()
            self._index = None

    def locate(self, digest: Digest, generation: bytes) -> Located:
        """Where this copy is; failing that, another copy of the same bytes, for by their name they are the same.

        Raises NotHere, Unavailable."""
        for last in (False, True):
            try:
                index = self._index
                if index is None:
                    index = self._index = IndexReader(self.folder)
                row = index.find(digest, generation)
                if row is not None:
                    return Located(digest, generation, row[0], row[1], row[2])
                for other, size, segment, place in index.others(digest):
                    return Located(digest, other, size, segment, place)
                if last or not self._replaced(index):
                    raise NotHere(f"no copy of chunk {digest.hex()}")
            except sqlite3.Error as error:
                if last:
                    raise Unavailable(f"{self.folder}: the index can't be read: {error}") from error
            self._forget_index()
        raise AssertionError("unreachable")

    def others(self, digest: Digest, besides: bytes) -> list[Located]:
        """Copies of the same bytes here under other generations: for whoever has found this one damaged or gone."""
        try:
            if self._index is None:
                self._index = IndexReader(self.folder)
            return [Located(digest, generation, size, segment, place)
                    for generation, size, segment, place in self._index.others(digest) if generation != besides]
        except sqlite3.Error:
            return []

    def _replaced(self, index: IndexReader) -> bool:
        """Whether the node has built a new index since."""
        with contextlib.suppress(OSError):
            return os.stat(os.path.join(self.folder, INDEX_NAME)).st_ino != index.inode
        return True

    def _forget_index(self) -> None:
        if self._index is not None:
            with contextlib.suppress(sqlite3.Error):
                self._index.close()
            self._index = None
            self._places.clear()
            self._open.clear()

    # At once

    def read_now(self, digest: Digest, generation: bytes, start: int, length: int) -> bytes | None:
        """Verified bytes, or None if they aren't here or can't be had without waiting. Raises Corrupt."""
        index = self._index
        if index is None or not 0 < length <= NOW_BYTES_MAX:
            return self._first_time(digest, generation, start, length)
        name = digest + generation
        remembered = row = self._places.get(name)
        if row is None:
            try:
                row = index.find(digest, generation)
            except sqlite3.Error:
                self._forget_index()
                return None
            if row is None:
                return None
        size, segment, place, _ = row
        if start < 0 or start + length > size:
            return None                               # the caller is mistaken; `read` says so
        opened = self._open.get((segment, b"", b"") if segment else (FILE, digest, generation))
        if opened is None:
            if not segment:
                return None                           # opening checks header and table: not while everybody waits
            try:
                opened = self._open_segment(segment)
            except OSError:
                if remembered is None:
                    return None
                del self._places[name]                # it has moved, and what is left of that segment is gone
                return self.read_now(digest, generation, start, length)
        opened.used = True
        view, buffer = self._view, self._buffer
        try:
            if segment and size <= BLOCK_BYTES:
                want = HEADER_BYTES + size + 4
                if os.preadv(opened.fd, (view[:want],), place, self._nowait) != want:
                    return None
                end = HEADER_BYTES + size
                named = buffer[_NAME_START:_NAME_END] == name
                if not named or crc32c(view[HEADER_BYTES:end]) != int.from_bytes(buffer[end:want], "big"):
                    if remembered is not None:
                        del self._places[name]        # maybe it has moved: ask the index
                        return self.read_now(digest, generation, start, length)
                    raise Corrupt(f"chunk {digest.hex()} is damaged" if named
                                  else f"chunk {digest.hex()}: another one is in its place")
                if remembered is None:
                    self._remember(name, row)
                return bytes(view[HEADER_BYTES + start:HEADER_BYTES + start + length])
            first = start >> BLOCK_SHIFT
            if start + length > (first + 1) << BLOCK_SHIFT or segment:
                return None                           # rare: two blocks, or one of a middle-sized record
            want = min(size - (first << BLOCK_SHIFT), BLOCK_BYTES)
            if os.preadv(opened.fd, (view[:want],), FILE_DATA_START + (first << BLOCK_SHIFT), self._nowait) != want:
                return None
            if crc32c(view[:want]) != int.from_bytes(opened.table[4 * first:4 * first + 4], "big"):
                raise Corrupt(f"chunk {digest.hex()} is damaged in block {first}")
            skip = start - (first << BLOCK_SHIFT)
            return bytes(view[skip:skip + length])
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                self._nowait = 0                      # a file system without it: then it has to be waited for
            return None

    def _remember(self, name: bytes, row: tuple[int, int, int, int]) -> None:
        if len(self._places) >= PLACES_MAX:
            self._places.clear()
        self._places[name] = row

    def _first_time(self, digest: Digest, generation: bytes, start: int, length: int) -> bytes | None:
        if not 0 < length <= NOW_BYTES_MAX:
            return None
        try:
            self._index = IndexReader(self.folder)
        except sqlite3.Error:
            return None
        return self.read_now(digest, generation, start, length)

    # In a thread

    async def read(self, located: Located, start: int, length: int, executor: Executor | None = None) -> bytes:
        """`length` ≤ PIECE_BYTES verified bytes. Raises Corrupt, Unavailable, NotHere (a copy that has gone
        meanwhile)."""
        assert 0 <= start < start + length <= located.size
        assert length <= PIECE_BYTES
        key = _key(located)
        run = asyncio.get_running_loop().run_in_executor
        try:
            data, used = await run(executor, read_blocks, self.folder, located, self._open.get(key), start, length)
        except (Corrupt, NotHere):
            # What was open may have been replaced by a good file of the same name since, or the copy has moved.
            now = self._located_now(located)
            if self._open.pop(key, None) is None and now == located:
                raise
            key = _key(now)
            data, used = await run(executor, read_blocks, self.folder, now, None, start, length)
        self._keep(key, used)
        return data

    def _located_now(self, located: Located) -> Located:
        """Where it is by now; the same if that can't be told."""
        try:
            now = self.locate(located.digest, located.generation)
        except (NotHere, Unavailable):
            return located
        return now if now.size == located.size else located

    def _open_segment(self, number: int) -> OpenFile:
        opened = OpenFile(os.open(segment_path(self.folder, number), os.O_RDONLY | os.O_CLOEXEC))
        self._keep((number, b"", b""), opened)
        return opened

    def _keep(self, key: tuple[int, bytes, bytes], opened: OpenFile) -> None:
        opened.used = True
        self._open[key] = opened
        self._open.move_to_end(key)
        if len(self._open) > OPEN_FILES_MAX:
            self._open.popitem(last=False)
        if self._sweeping is None:
            self._sweeping = asyncio.get_running_loop().call_later(IDLE_S, self._sweep)

    def forget(self, digest: Digest, generation: bytes) -> None:
        """A large chunk is about to go: let go of its file, so that its space is free at once."""
        self._open.pop((FILE, digest, generation), None)

    def _sweep(self) -> None:
        """Close what nobody has read since the last sweep; and what has no name any more, however often it is read: it
        keeps its space until then, and what is left in a segment that was compacted is found in another one."""
        gone = {key for key, opened in self._open.items() if not os.fstat(opened.fd).st_nlink}
        if gone:
            self._places.clear()
        for key in [key for key, opened in self._open.items() if not opened.used or key in gone]:
            del self._open[key]
        for opened in self._open.values():
            opened.used = False
        self._sweeping = asyncio.get_running_loop().call_later(IDLE_S, self._sweep) if self._open else None


def _key(located: Located) -> tuple[int, bytes, bytes]:
    return (located.segment, b"", b"") if located.segment else (FILE, located.digest, located.generation)


def read_blocks(folder: str, located: Located, opened: OpenFile | None, start: int,
                length: int) -> tuple[bytes, OpenFile]:
    """The verified read itself, in a thread: `start` to `start + length` of the copy, and the file for the next
    time."""
    name = located.digest.hex()
    try:
        if opened is None:
            opened = open_copy(folder, located)
        if located.segment:
            table_at = located.place + HEADER_BYTES + located.size
            _check_header(os.pread(opened.fd, HEADER_BYTES, located.place), located)
            table = os.pread(opened.fd, 4 * block_count(located.size), table_at)
            data_at = located.place + HEADER_BYTES
        else:
            table, data_at = opened.table, FILE_DATA_START
        first, last = start >> BLOCK_SHIFT, (start + length - 1) >> BLOCK_SHIFT
        begin, end = first << BLOCK_SHIFT, min(located.size, (last + 1) << BLOCK_SHIFT)
        data = os.pread(opened.fd, end - begin, data_at + begin)
    except FileNotFoundError as error:
        raise NotHere(f"the file of chunk {name} is gone") from error
    except OSError as error:
        raise from_os(error, f"reading chunk {name}") from error
    table = table[4 * first:4 * last + 4]
    if len(data) != end - begin or len(table) != 4 * (last + 1 - first):
        raise Corrupt(f"chunk {name} is cut short")
    try:
        check_blocks(data, table)
    except Corrupt as error:
        raise Corrupt(f"chunk {name}: {error}") from error
    return (data if length == len(data) else data[start - begin:start - begin + length]), opened


def open_copy(folder: str, located: Located) -> OpenFile:
    """Open the file that the copy is in; a large chunk's header and table are checked once, here. Raises OSError,
    Corrupt."""
    if located.segment:
        return OpenFile(os.open(segment_path(folder, located.segment), os.O_RDONLY | os.O_CLOEXEC))
    path = f"{folder}/{file_name(located.digest, located.generation)}"
    opened = OpenFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    header = _check_header(os.pread(opened.fd, HEADER_BYTES, 0), located)
    opened.table = os.pread(opened.fd, 4 * block_count(located.size), FILE_DATA_START + located.size)
    if len(opened.table) != 4 * block_count(located.size) or crc32c(opened.table) != header:
        raise Corrupt(f"chunk {located.digest.hex()}: its block table is damaged")
    return opened


def _check_header(raw: bytes, located: Located) -> int:
    """The table's CRC, if this is the copy's header. Raises Corrupt."""
    try:
        header = decode_header(raw)
    except Corrupt as error:
        raise Corrupt(f"chunk {located.digest.hex()}: {error}") from error
    if (header.digest, header.generation.pack(), header.size, header.offset) != (
            located.digest, located.generation, located.size, located.place):
        raise Corrupt(f"chunk {located.digest.hex()}: another one is in its place")
    return header.table_crc
