"""The bytes of a journal segment: its head, its records, and where its valid part ends.

Pure but for one listing of a folder. docs/format/journal.md says what each byte means and why.
"""

import os
import re
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from awscrt.checksums import crc32c

from consensus.core.codec import ENTRY_BYTES_MAX
from consensus.core.errors import Corrupt

ENTRY, VOTE, BASE = 1, 2, 3

HEAD_BYTES = 128
VOTE_BYTES_MAX = 64
PAYLOAD_BYTES_MAX = ENTRY_BYTES_MAX + 1
"""An entry, and PySyncObj's byte in front of it."""

_HEAD = struct.Struct("<8sHHIQ8sQQQ64sI")
_MAGIC = b"STADJRNL"
FORMAT_VERSION = 1

RECORD = struct.Struct("<IHBBIIQQ")
_COVERED = struct.Struct("<HBBIIQQ")          # the part of a record's header that its CRC covers
RECORD_HEADER_BYTES = 32
_MARK = 0x51A7
_MARK_BYTES = b"\xa7\x51"
_NAME = re.compile(r"(\d{12})\.log")


class Record(NamedTuple):
    """`synced`: bytes of the segment known to be durable when it was written; `end`: offset behind it."""

    kind: int
    log_index: int
    term: int
    synced: int
    payload: bytes
    end: int


class Head(NamedTuple):
    """The first bytes of a segment. `base_index`, `base_term`: the last entry before it."""

    number: int
    salt: bytes
    term: int
    vote: str
    base_index: int
    base_term: int

    @property
    def seed(self) -> int:
        return int(crc32c(self.salt))

    def pack(self) -> bytes:
        vote = self.vote.encode()
        assert len(vote) <= VOTE_BYTES_MAX
        raw = _HEAD.pack(_MAGIC, FORMAT_VERSION, len(vote), 0, self.number, self.salt, self.term, self.base_index,
                         self.base_term, vote, 0)
        return raw + struct.pack("<I", crc32c(raw))


def read_head(raw: bytes, number: int) -> Head:
    """Raises Corrupt unless these are the first bytes of segment `number`."""
    if len(raw) < HEAD_BYTES:
        raise Corrupt(f"journal segment {number} ends within its head")
    covered, (crc,) = raw[:HEAD_BYTES - 4], struct.unpack_from("<I", raw, HEAD_BYTES - 4)
    if crc32c(covered) != crc or not covered.startswith(_MAGIC):
        raise Corrupt(f"the head of journal segment {number} is damaged")
    _, version, vote_length, _, named, salt, term, base_index, base_term, vote, _ = _HEAD.unpack(covered)
    if version != FORMAT_VERSION:
        raise Corrupt(f"journal segment {number} has format {version}; this Staddle reads {FORMAT_VERSION}")
    if named != number:
        raise Corrupt(f"the file of journal segment {number} holds segment {named}")
    return Head(number, salt, term, vote[:vote_length].decode(), base_index, base_term)


def segment_name(number: int) -> str:
    return f"{number:012d}.log"


def segment_numbers(folder: str) -> list[int]:
    """In order. Other files are not ours to judge."""
    return sorted(int(match[1]) for name in os.listdir(folder) if (match := _NAME.fullmatch(name)))


def pack_record(crc: Callable[[bytes, int], int], seed: int, synced: int, kind: int, index: int, term: int,
                payload: bytes) -> bytes:
    covered = _COVERED.pack(_MARK, kind, 0, len(payload), synced, index, term)
    return crc(payload, crc(covered, seed)).to_bytes(4, "little") + covered + payload


def records(head: Head, data: bytes, *, torn_end: bool, where: str) -> Iterator[Record]:
    """Each valid record, in order.

    `torn_end`: this is the newest segment, so its last group of records may be incomplete. Raises Corrupt if anything
    that was durable is damaged.
    """
    seed, offset = head.seed, HEAD_BYTES
    while (record := _record_at(data, offset, seed)) is not None:
        yield record
        offset = record.end
    if offset == len(data):
        return
    if not torn_end:
        raise Corrupt(f"{where} is damaged at byte {offset}")
    place = data.find(_MARK_BYTES, offset + 4)
    while place >= 0:
        later = _record_at(data, place - 4, seed)
        if later is not None and later.synced > offset:
            raise Corrupt(f"{where} is damaged at byte {offset}, which was durable when byte {place - 4} was written")
        place = data.find(_MARK_BYTES, place + 1)


def _record_at(data: bytes, offset: int, seed: int) -> Record | None:
    """The record that stands there, if a valid one does."""
    if offset + RECORD_HEADER_BYTES > len(data):
        return None
    crc, mark, kind, _, length, synced, index, term = RECORD.unpack_from(data, offset)
    end = offset + RECORD_HEADER_BYTES + length
    if mark != _MARK or not ENTRY <= kind <= BASE or length > PAYLOAD_BYTES_MAX or end > len(data):
        return None
    if crc32c(memoryview(data)[offset + 4:end], seed) != crc:
        return None
    return Record(kind, index, term, synced, data[offset + RECORD_HEADER_BYTES:end], end)
