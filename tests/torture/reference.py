"""S3 as it should be, in memory: buckets, versions, uploads, and which chunks must be on the disk for them. Pure.

Written from S3's rules and from how bodies are cut (chunks of one size from the body's start on), knowing nothing of how
the product does it.
"""

import functools
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.torture.contents import Content

NULL = "null"
NEVER, ENABLED, SUSPENDED = "", "Enabled", "Suspended"


class Slice(NamedTuple):
    """Bytes `start` to `start + length` of a content that was stored as a whole, in chunks of `cut` bytes."""

    content: Content
    cut: int
    start: int
    length: int

    @property
    def bytes(self) -> bytes:
        return self.content.bytes(self.start, self.length)


class Value(NamedTuple):
    """An object's bytes and ETag."""

    slices: tuple[Slice, ...]
    size: int
    sha256: str
    etag: str

    @property
    def bytes(self) -> bytes:
        return b"".join([piece.bytes for piece in self.slices])


def value_of(content: Content, cut: int) -> Value:
    return Value((Slice(content, cut, 0, content.size),), content.size, content.sha256, content.md5)


def part_of(value: Value, start: int, end: int) -> Value:
    """Bytes `start` to `end` as a part of their own."""
    slices, at = [], 0
    for piece in value.slices:
        low, high = max(start, at), min(end, at + piece.length)
        if low < high:
            slices.append(Slice(piece.content, piece.cut, piece.start + low - at, high - low))
        at += piece.length
    data = value.bytes[start:end]
    return Value(tuple(slices), end - start, hashlib.sha256(data).hexdigest(), hashlib.md5(data).hexdigest())


def joined(parts: Iterable[Value]) -> Value:
    """What a Complete makes of these parts."""
    parts = list(parts)
    data = hashlib.sha256()
    for part in parts:
        data.update(part.bytes)
    md5 = hashlib.md5(b"".join([bytes.fromhex(part.etag) for part in parts])).hexdigest()
    return Value(tuple(piece for part in parts for piece in part.slices), sum(part.size for part in parts),
                 data.hexdigest(), f"{md5}-{len(parts)}")


class Version(NamedTuple):
    id: str
    value: Value | None
    """None: a delete marker."""


@dataclass
class Bucket:
    versioning: str = NEVER
    keys: dict[str, list[Version]] = field(default_factory=dict)
    """Versions, the newest last."""

    def current(self, key: str) -> Value | None:
        versions = self.keys.get(key)
        return versions[-1].value if versions else None

    def version(self, key: str, id: str) -> Version | None:
        return next((version for version in self.keys.get(key, ()) if version.id == id), None)

    def put(self, key: str, value: Value | None, id: str) -> None:
        """A new version (or marker). `id` is what a versioned bucket gave it."""
        if self.versioning != ENABLED:
            id = NULL
            self.remove(key, NULL)
        self.keys.setdefault(key, []).append(Version(id, value))

    def delete(self, key: str, id: str) -> None:
        """Without a version id in the request. `id` is that of the marker."""
        if self.versioning == NEVER:
            self.keys.pop(key, None)
        else:
            self.put(key, None, id)

    def remove(self, key: str, id: str) -> None:
        left = [version for version in self.keys.get(key, ()) if version.id != id]
        if left:
            self.keys[key] = left
        else:
            self.keys.pop(key, None)

    def values(self) -> Iterator[Value]:
        for versions in self.keys.values():
            for version in versions:
                if version.value is not None:
                    yield version.value


@dataclass
class Upload:
    bucket: str
    key: str
    parts: dict[int, Value] = field(default_factory=dict)


@dataclass
class Reference:
    buckets: dict[str, Bucket] = field(default_factory=dict)
    uploads: dict[str, Upload] = field(default_factory=dict)

    def live_chunks(self) -> dict[str, int]:
        """Every chunk that something refers to: digest in hex, size."""
        values = [value for bucket in self.buckets.values() for value in bucket.values()]
        values += [value for upload in self.uploads.values() for value in upload.parts.values()]
        pieces = {piece for value in values for piece in value.slices if piece.length}
        live: dict[str, int] = {}
        for piece in pieces:
            first, last = piece.start // piece.cut, (piece.start + piece.length - 1) // piece.cut
            live.update(_chunks(piece.content, piece.cut)[first:last + 1])
        return live


@functools.lru_cache(20_000)
def _chunks(content: Content, cut: int) -> tuple[tuple[str, int], ...]:
    data = content.bytes()
    chunks = [data[at:at + cut] for at in range(0, len(data), cut)]
    return tuple((hashlib.sha256(chunk).hexdigest(), len(chunk)) for chunk in chunks)
