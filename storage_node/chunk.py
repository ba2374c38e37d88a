"""How a stored chunk looks: header, bytes, and a table with the CRC32C of each 256 KiB block. Pure.

docs/format/chunks.md is the specification of what this file encodes. A header names its chunk (digest, generation)
and its own place (home, offset), so a read can tell that it got the chunk it asked for and not another valid one.
"""

import struct
from typing import NamedTuple

from awscrt.checksums import crc32c

from consensus.core.errors import Corrupt
from consensus.core.ids import DIGEST_BYTES, Digest, Generation

Buffer = bytes | bytearray | memoryview

VERSION = 1
BLOCK_SHIFT = 18
BLOCK_BYTES = 1 << BLOCK_SHIFT
"""Of a verified read: small enough that a range wastes little, large enough that a table is 1/65536 of its chunk."""

HEADER_BYTES = 96
FILE_DATA_START = 4096
"""A file's bytes begin on a page, so that its blocks are whole pages."""

SMALL_BYTES_MAX = (1 << 20) - 1
"""Larger chunks are files. Below this a file's own syncs and inode cost more than appending."""

CHUNK_BYTES_MAX = 5 << 30
"""Above any configured chunk size; bounds what a damaged header can make us read."""

SEGMENT_HEADER_BYTES = 64
ALIGNMENT = 8
NO_HOME = bytes(8)

_MAGIC = b"StCh"
_HEADER = struct.Struct(">4sBBHQ32s16s8sQIQ")
_CRC = struct.Struct(">I")
_SEGMENT_MAGIC = b"StadSegm"
_SEGMENT = struct.Struct(">8sHHI8s16sQ12s")
NAME_AT = slice(16, 64)
"""Where a header holds digest + generation: what a read compares first."""



class Header(NamedTuple):
    digest: Digest
    generation: Generation
    size: int
    data_start: int
    home: bytes
    offset: int
    table_crc: int


class SegmentHeader(NamedTuple):
    home: bytes
    incarnation: bytes
    number: int


def block_count(size: int) -> int:
    return (size + BLOCK_BYTES - 1) >> BLOCK_SHIFT


def record_bytes(size: int) -> int:
    """Of a chunk in a segment, with the zeros up to the next record."""
    return -(-(HEADER_BYTES + size + 4 * block_count(size)) // ALIGNMENT) * ALIGNMENT


def block_table(data: Buffer) -> bytes:
    """The CRC32C of each block of a whole chunk, as it is stored."""
    size = len(data)
    if size <= BLOCK_BYTES:
        return _CRC.pack(crc32c(data)) if size else b""
    view = memoryview(data)
    return b"".join(_CRC.pack(crc32c(view[start:start + BLOCK_BYTES])) for start in range(0, size, BLOCK_BYTES))


def pack_table(crcs: list[int]) -> bytes:
    return struct.pack(f">{len(crcs)}I", *crcs)


def encode_header(digest: Digest, generation: bytes, size: int, table: bytes, home: bytes = NO_HOME, offset: int = 0,
                  data_start: int = HEADER_BYTES) -> bytes:
    """`generation` packed. 96 bytes."""
    head = _HEADER.pack(_MAGIC, VERSION, BLOCK_SHIFT, data_start, size, digest, generation, home, offset,
                        crc32c(table), 0)
    return head + _CRC.pack(crc32c(head))


def decode_header(raw: Buffer) -> Header:
    """Raises Corrupt unless these 96 bytes are a header that a Staddle of this version wrote."""
    if len(raw) < HEADER_BYTES:
        raise Corrupt("chunk header is cut short")
    head = memoryview(raw)[:HEADER_BYTES]
    if head[:4] != _MAGIC or _CRC.unpack(head[92:])[0] != crc32c(head[:92]):
        raise Corrupt("no chunk header, or a damaged one")
    _, version, shift, data_start, size, digest, generation, home, offset, table_crc, flags = _HEADER.unpack(head[:92])
    if version != VERSION or shift != BLOCK_SHIFT or flags or size > CHUNK_BYTES_MAX:
        raise Corrupt(f"chunk of format {version}, block shift {shift}, flags {flags:#x}: this Staddle reads {VERSION}")
    return Header(Digest(digest), Generation.unpack(generation), size, data_start, home, offset, table_crc)


def check_blocks(data: Buffer, table: Buffer) -> None:
    """`data` is whole blocks (the last may be a chunk's short end), `table` their CRCs. Raises Corrupt."""
    size = len(data)
    if size <= BLOCK_BYTES:
        good = not size or crc32c(data) == _CRC.unpack(table)[0]
    else:
        view = memoryview(data)
        good = all(crc32c(view[start:start + BLOCK_BYTES]) == _CRC.unpack_from(table, start >> BLOCK_SHIFT << 2)[0]
                   for start in range(0, size, BLOCK_BYTES))
    if not good:
        raise Corrupt("block checksum does not match")


def encode_segment_header(home: bytes, incarnation: bytes, number: int) -> bytes:
    """64 bytes."""
    head = _SEGMENT.pack(_SEGMENT_MAGIC, VERSION, SEGMENT_HEADER_BYTES, 0, home, incarnation, number, bytes(12))
    return head + _CRC.pack(crc32c(head))


def decode_segment_header(raw: Buffer) -> SegmentHeader:
    """Raises Corrupt."""
    if len(raw) < SEGMENT_HEADER_BYTES:
        raise Corrupt("segment header is cut short")
    head = memoryview(raw)[:SEGMENT_HEADER_BYTES]
    magic, version, length, _, home, incarnation, number, _ = _SEGMENT.unpack(head[:60])
    if magic != _SEGMENT_MAGIC or _CRC.unpack(head[60:])[0] != crc32c(head[:60]):
        raise Corrupt("no segment header, or a damaged one")
    if version != VERSION or length != SEGMENT_HEADER_BYTES:
        raise Corrupt(f"segment of format {version}: this Staddle reads {VERSION}")
    return SegmentHeader(home, incarnation, number)


def file_name(digest: Digest, generation: bytes) -> str:
    """Of a large chunk, from the folder `chunks`."""
    name = digest.hex()
    return f"{name[:2]}/{name}.{generation.hex()}"


def parse_file_name(name: str) -> tuple[Digest, bytes] | None:
    """Digest and packed generation, or None for a file that is no chunk."""
    digest, _, generation = name.partition(".")
    try:
        raw = Digest(bytes.fromhex(digest)), bytes.fromhex(generation)
    except ValueError:
        return None
    return raw if len(raw[0]) == DIGEST_BYTES and len(raw[1]) == 16 else None
