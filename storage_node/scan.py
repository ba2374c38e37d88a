"""The records of a segment, found without an index. Tells the torn end of a write that nobody acknowledged from damage.

Recovery reads tails with it; whoever rebuilds, scrubs or compacts reads whole segments.
"""

import os
from collections.abc import Iterator
from typing import NamedTuple

from consensus.core.errors import Corrupt
from storage_node.chunk import (
    ALIGNMENT,
    HEADER_BYTES,
    SMALL_BYTES_MAX,
    Header,
    block_count,
    decode_header,
    record_bytes,
)

_WINDOW = 1 << 20
_MAGIC = b"StCh"


class Found(NamedTuple):
    place: int
    header: Header


class Gap(NamedTuple):
    """Bytes that are no record, with records behind them: damage. A gap at the end is not reported, it is a torn
    tail."""

    start: int
    end: int


def records(fd: int, home: bytes, start: int) -> Iterator[Found | Gap]:
    """Every record of the segment `home` from `start` on whose header is good. Its bytes are not looked at. Raises
    OSError."""
    end = os.fstat(fd).st_size
    place = start
    while place + HEADER_BYTES <= end:
        header = _header(os.pread(fd, HEADER_BYTES, place), home, place)
        if header is None:
            found = _next(fd, home, place + ALIGNMENT, end)
            if found is None:
                return
            yield Gap(place, found)
            place = found
            continue
        yield Found(place, header)
        place += record_bytes(header.size)


def read_record(fd: int, found: Found) -> tuple[bytes, bytes]:
    """Bytes and table, not verified and possibly cut short."""
    size = found.header.size
    raw = os.pread(fd, size + 4 * block_count(size), found.place + HEADER_BYTES)
    return raw[:size], raw[size:]


def _header(raw: bytes, home: bytes, place: int) -> Header | None:
    try:
        header = decode_header(raw)
    except Corrupt:
        return None
    own = header.home == home and header.offset == place and header.data_start == HEADER_BYTES
    return header if own and header.size <= SMALL_BYTES_MAX else None


def _next(fd: int, home: bytes, place: int, end: int) -> int | None:
    """Where the next good header is."""
    while place + HEADER_BYTES <= end:
        window = os.pread(fd, _WINDOW + HEADER_BYTES, place)
        at = window.find(_MAGIC)
        while 0 <= at < _WINDOW:
            if (place + at) % ALIGNMENT == 0 and _header(window[at:at + HEADER_BYTES], home, place + at) is not None:
                return place + at
            at = window.find(_MAGIC, at + 1)
        place += _WINDOW
    return None
