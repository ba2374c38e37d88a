"""A node's chunk index compared with its files: is each copy where the index says, and is each file in the index?

Reads beside a node that may be at work, so what is found here is looked at again by the caller. Of each copy the header is
read, and whether its bytes are there to their end; not the bytes.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import groupby
from urllib.parse import quote

from consensus.core.errors import Corrupt
from storage_node.chunk import FILE_DATA_START, HEADER_BYTES, block_count, decode_header, file_name, parse_file_name
from storage_node.index import INDEX_NAME, Copy
from storage_node.segments import SEGMENTS, segment_path

ROWS_AT_ONCE = 20_000
"""Some 10 MB: more rows are more headers in the order of the disk."""


def index_of(folder: str) -> str:
    return os.path.join(folder, INDEX_NAME)


def places(folder: str, told: Callable[[int, int], None]) -> list[tuple[Copy, str]]:
    """Copies that are not where the index says, and why. `told` hears how many were looked at, of how many."""
    wrong: list[tuple[Copy, str]] = []
    with closing(_open(folder)) as db:
        total = db.execute("SELECT count(*) FROM chunk").fetchone()[0]
        done, after = 0, (b"", b"")
        while page := db.execute("SELECT * FROM chunk WHERE (digest, generation) > (?, ?) ORDER BY digest, generation LIMIT ?",
                                 (*after, ROWS_AT_ONCE)).fetchall():
            wrong += _wrong_in(folder, sorted(map(Copy._make, page), key=lambda copy: (copy.segment, copy.place)))
            done, after = done + len(page), page[-1][:2]
            told(done, total)
    return wrong


def _wrong_in(folder: str, copies: list[Copy]) -> Iterator[tuple[Copy, str]]:
    """In the order of the disk, each segment opened once."""
    for number, group in groupby(copies, key=lambda copy: copy.segment):
        fd = _segment(folder, number) if number else -1
        try:
            for copy in group:
                why = _in_segment(fd, copy) if number else _in_file(folder, copy)
                if why:
                    yield copy, why
        finally:
            if fd >= 0:
                os.close(fd)


def strays(folder: str) -> list[str]:
    """Files of chunks and segments that the index doesn't know. Looked up in it after they were listed, for a file has its
    name before it is in the index; the caller's second look is this function again."""
    found: list[str] = []
    for first in range(256):
        found += _unknown_files(folder, f"{folder}/{first:02x}")
    numbers = {int(name[:-4], 16) for name in _list(f"{folder}/{SEGMENTS}") if name.endswith(".seg")}
    with closing(_open(folder)) as db:
        known = {row[0] for row in db.execute("SELECT number FROM segment").fetchall()}
    found += [segment_path(folder, number) for number in sorted(numbers - known)]
    return [path for path in found if os.path.exists(path)]


def _unknown_files(folder: str, path: str) -> list[str]:
    names = {name: parsed for name in _list(path) if (parsed := parse_file_name(name)) is not None}
    if not names:
        return []
    with closing(_open(folder)) as db:
        return [f"{path}/{name}" for name, (digest, generation) in sorted(names.items())
                if db.execute("SELECT 1 FROM chunk WHERE digest = ? AND generation = ?", (digest, generation)).fetchone() is None]


def _segment(folder: str, number: int) -> int:
    try:
        return os.open(segment_path(folder, number), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1


def _in_segment(fd: int, copy: Copy) -> str:
    if fd < 0:
        return f"its segment {copy.segment} is not there"
    if os.fstat(fd).st_size < copy.place + HEADER_BYTES + copy.size + 4 * block_count(copy.size):
        return f"segment {copy.segment} ends before its end"
    return _header(os.pread(fd, HEADER_BYTES, copy.place), copy)


def _in_file(folder: str, copy: Copy) -> str:
    try:
        with open(f"{folder}/{file_name(copy.digest, copy.generation)}", "rb") as file:
            if os.fstat(file.fileno()).st_size < FILE_DATA_START + copy.size + 4 * block_count(copy.size):
                return "its file is cut short"
            return _header(file.read(HEADER_BYTES), copy)
    except FileNotFoundError:
        return "its file is not there"
    except OSError as error:
        return f"its file can't be read: {error.strerror}"


def _header(raw: bytes, copy: Copy) -> str:
    try:
        header = decode_header(raw)
    except Corrupt as error:
        return str(error)
    same = (header.digest, header.generation.pack(), header.size, header.offset) == (*copy[:3], copy.place)
    return "" if same else "another one is in its place"


def _list(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except FileNotFoundError:
        return []


def _open(folder: str) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(index_of(folder))}?mode=ro", uri=True, isolation_level=None)
