"""A rescue of chunks written from docs/format/chunks.md alone. It imports nothing of Staddle, and must stay so."""

import hashlib
import os
import struct
from collections.abc import Iterator


def crc32c(data: bytes, _table: list[int] = []) -> int:  # noqa: B006 - the table is computed once
    if not _table:
        for byte in range(256):
            for _ in range(8):
                byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)    # 0x1EDC6F41 reflected
            _table.append(byte)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def header(raw: bytes) -> dict[str, object] | None:
    if len(raw) < 96 or raw[:4] != b"StCh" or crc32c(raw[:92]) != struct.unpack(">I", raw[92:96])[0]:
        return None
    version, shift, data_start, size = struct.unpack(">BBHQ", raw[4:16])
    if version != 1 or shift != 18 or any(raw[84:92]):
        return None
    return {"data_start": data_start, "size": size, "digest": raw[16:48], "generation": raw[48:64], "home": raw[64:72],
            "offset": struct.unpack(">Q", raw[72:80])[0], "table_crc": struct.unpack(">I", raw[80:84])[0]}


def chunk(raw: bytes, at: int, found: dict[str, object]) -> bytes | None:
    """The chunk's bytes, if every check of the page holds."""
    size = int(found["size"])  # type: ignore[call-overload]
    start = at + int(found["data_start"])  # type: ignore[call-overload]
    blocks = -(-size // 262144)
    data, table = raw[start:start + size], raw[start + size:start + size + 4 * blocks]
    if len(data) < size or crc32c(table) != found["table_crc"]:
        return None
    for number in range(blocks):
        if crc32c(data[262144 * number:262144 * (number + 1)]) != struct.unpack_from(">I", table, 4 * number)[0]:
            return None
    return data if hashlib.sha256(data).digest() == found["digest"] else None


def from_segment(path: str) -> Iterator[tuple[bytes, bytes, bytes]]:
    with open(path, "rb") as file:
        raw = file.read()
    assert raw[:8] == b"StadSegm"
    assert crc32c(raw[:60]) == struct.unpack(">I", raw[60:64])[0]
    home, at = raw[16:24], 64
    while at + 96 <= len(raw):
        found = header(raw[at:at + 96])
        if found is None or found["home"] != home or found["offset"] != at:
            at += 8
            continue
        data = chunk(raw, at, found)
        if data is not None:
            yield found["digest"], found["generation"], data  # type: ignore[misc]
        size = int(found["size"])  # type: ignore[call-overload]
        at += -(-(96 + size + 4 * -(-size // 262144)) // 8) * 8


def from_file(path: str) -> tuple[bytes, bytes, bytes] | None:
    with open(path, "rb") as file:
        raw = file.read()
    found = header(raw[:96])
    digest, _, generation = os.path.basename(path).partition(".")
    if found is None or found["digest"] != bytes.fromhex(digest) or found["generation"] != bytes.fromhex(generation):
        return None
    data = chunk(raw, 0, found)
    return None if data is None else (found["digest"], found["generation"], data)  # type: ignore[return-value]


def everything(folder: str) -> dict[tuple[bytes, bytes], bytes]:
    chunks = {}
    for name in os.listdir(f"{folder}/segments"):
        for digest, generation, data in from_segment(f"{folder}/segments/{name}"):
            chunks[digest, generation] = data
    for first in range(256):
        for name in os.listdir(f"{folder}/{first:02x}"):
            rescued = from_file(f"{folder}/{first:02x}/{name}")
            if rescued is not None:
                chunks[rescued[:2]] = rescued[2]
    return chunks
