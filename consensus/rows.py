"""How values lie in rows: packed slices, location lists, small msgpack blobs, and the CRC that seals a row.

Shared by the machine, which writes rows, and the queries, which read them, so that both agree. A seal that does not fit
raises Corrupt: damage is never shown as "not found", nor as somebody else's bytes.
"""

import struct
from collections.abc import Collection
from typing import Any
from zlib import crc32

import msgspec

from consensus.core.errors import Corrupt
from consensus.core.ids import DIGEST_BYTES, Digest, NodeId
from consensus.core.model import Attributes, Checksum, LockDefault, NodeInfo, Pairs, Slice

INLINE, PIECES, PARTS = 0, 1, 2
"""Kinds of content: slices in the content row; in pages of `piece`; by part, each a content of its own."""

INLINE_SLICES_MAX = 64

_WITHOUT_THREE = bytes((0x90 | len(Attributes.__struct_fields__) - 3,))
"""The head of an array of that many values."""

U32_MAX = (1 << 32) - 1
I63_MAX = (1 << 63) - 1

_SLICE = struct.Struct(">32sII")
SLICE_BYTES = _SLICE.size

COPY_BYTES = DIGEST_BYTES + 16
"""A released copy: digest, then generation as packed by `Generation.pack`."""

encode = msgspec.msgpack.Encoder().encode
decode_attributes = msgspec.msgpack.Decoder(Attributes).decode
_decode_pairs = msgspec.msgpack.Decoder(Pairs).decode
_decode_checksum = msgspec.msgpack.Decoder(Checksum).decode
decode_lock_default = msgspec.msgpack.Decoder(LockDefault).decode
decode_locations = msgspec.msgpack.Decoder(tuple[int, ...]).decode
decode_nodes = msgspec.msgpack.Decoder(tuple[tuple[int, NodeId], ...]).decode


def encode_attributes(attributes: Attributes) -> bytes:
    """Without the three last fields where they say nothing. They came later, and seals are made of these bytes: a member of an
    older release, as there is one in an upgrade machine by machine, writes the same ones."""
    raw = encode(attributes)
    return (raw if attributes.appended or attributes.restored_ms or attributes.hold_off
            else _WITHOUT_THREE + raw[1:-3])


def encode_checksum(checksum: Checksum | None) -> bytes | None:
    return None if checksum is None else encode(checksum)


def decode_checksum(raw: bytes | None) -> Checksum | None:
    return None if raw is None else _decode_checksum(raw)


def encode_pairs(pairs: Pairs) -> bytes | None:
    return encode(pairs) if pairs else None


def decode_pairs(raw: bytes | None) -> Pairs:
    return () if raw is None else _decode_pairs(raw)


def pack_slices(slices: tuple[Slice, ...]) -> bytes:
    """40 bytes each: digest, start in the chunk, length."""
    pack = _SLICE.pack
    if len(slices) == 1:                          # most objects have no second
        return pack(*slices[0])
    return b"".join([pack(digest, start, length) for digest, start, length in slices])


def unpack_slices(raw: bytes) -> list[Slice]:
    return [Slice(Digest(digest), start, length) for digest, start, length in _SLICE.iter_unpack(raw)]


def unpack_slice(raw: bytes) -> Slice:
    """The only one: most objects have no second."""
    digest, start, length = _SLICE.unpack(raw)
    return Slice(Digest(digest), start, length)


def version_seal(
    key: bytes, order: int, version_id: str, modified: int, content: int, size: int, etag: str, checksum: bytes | None,
    parts: int, owner: str, attributes: bytes,
) -> int:
    """CRC-32 of a row of `object` or `history`."""
    text = f"{order} {version_id} {modified} {content} {size} {etag} {parts} {owner}"
    return crc32(b"".join((key, text.encode(), checksum or b"", attributes)))


def content_seal(content: int, kind: int, size: int, etag: str, parts: int, slices: bytes | None) -> int:
    return crc32(slices or b"", crc32(f"{content} {kind} {size} {etag} {parts}".encode()))


def piece_seal(content: int, start: int, slices: bytes) -> int:
    return crc32(slices, crc32(f"{content} {start}".encode()))


def part_seal(owner: int, number: int, content: int, size: int, etag: str, checksum: bytes | None) -> int:
    """CRC-32 of a row of `part` (owner: its upload) or `content_part` (owner: the composite content)."""
    return crc32(checksum or b"", crc32(f"{owner} {number} {content} {size} {etag}".encode()))


def chunk_seal(digest: bytes, session: int, sequence: int, size: int, locations: bytes) -> int:
    return crc32(b"".join((digest, f"{session} {sequence} {size}".encode(), locations)))


def shortness(locations: Collection[int], names: Collection[int], uncounted: Collection[int], wanted: int) -> int:
    """What `chunk.short` says: 0 if as many locations count as are wanted, and there are no others. 1 + the copies that count
    if they are fewer than wanted, so that the fewest come first; else less than 0, by how many copies there are too many,
    those included that are there and don't count. `names`: numbers of present disks; `uncounted`: those of nodes that leave
    or are lost."""
    there = [number for number in locations if number in names]
    present = len(there)
    counted = present if not uncounted else sum(number not in uncounted for number in there)
    return 1 + counted if counted < wanted else min(0, wanted - present)


NODE_COLUMNS = "number, id, incarnation, address, zone, capacity, state, since, asked"


def node_info(row: tuple[Any, ...]) -> NodeInfo:
    """`row` is NODE_COLUMNS. What an admin has asked for shows while the node is there to do it; one that is lost is down,
    and its copies don't count."""
    _, id, incarnation, address, zone, capacity, state, since, asked = row
    shown = "down" if state in ("down", "lost") else asked or state
    return NodeInfo(node=id, incarnation=incarnation, address=address, zone=zone, capacity_bytes=capacity, state=shown,
                    since_ms=since, asked=asked, counts=asked != "draining" and state != "lost", said=state)


UNCOUNTED = "SELECT number FROM node WHERE asked = 'draining' OR state = 'lost'"
"""Numbers of nodes whose copies don't count."""


def damaged(what: str) -> Corrupt:
    return Corrupt(f"metadata row of {what} does not fit its checksum")
