"""Objects down to their chunks and copies."""

from typing import Annotated

import msgspec

from gateway.admin.values.common import PAGE, After, Answer, Limit, Request, about


class ListObjects(Request, frozen=True, kw_only=True):
    bucket: str
    prefix: str = ""
    delimiter: Annotated[str, about("Keys that share the part up to it after the prefix are one entry.")] = ""
    after: After = ""
    limit: Limit = PAGE


class ObjectEntry(Answer, frozen=True, kw_only=True):
    key: str
    size: int
    etag: str
    modified: str
    storage_class: str


class ObjectList(Answer, frozen=True, kw_only=True):
    objects: list[ObjectEntry]
    prefixes: list[str]
    next: str


class OneObject(Request, frozen=True, kw_only=True):
    bucket: str
    key: str
    version_id: Annotated[str, about("Empty for the current version.")] = ""


class StatObject(Request, frozen=True, kw_only=True):
    bucket: str
    key: str
    version_id: Annotated[str, about("Empty for the current version.")] = ""
    after_part: Annotated[int, msgspec.Meta(ge=0, description="Parts after this number.")] = 0
    from_byte: Annotated[int, msgspec.Meta(ge=0, description="Chunks from this byte of the object on.")] = 0


class PartInfo(Answer, frozen=True, kw_only=True):
    number: int
    start: int
    size: int
    etag: str


class ChunkInfo(Answer, frozen=True, kw_only=True):
    """`start` and `length`: which bytes of the object; `chunk_start`: where they begin in the chunk. `nodes` hold it."""

    digest: str
    generation: str
    start: int
    length: int
    chunk_start: int
    chunk_size: int
    nodes: list[str]


class ObjectStat(Answer, frozen=True, kw_only=True):
    """A page of at most 1,000 parts and 256 chunks: `more_parts`, `more_chunks` say whether there are others."""

    bucket: str
    key: str
    version_id: str
    latest: bool
    delete_marker: bool
    size: int
    etag: str
    modified: str
    owner: str
    content_type: str
    storage_class: str
    checksum: str
    headers: dict[str, str]
    metadata: dict[str, str]
    part_count: int
    parts: list[PartInfo]
    more_parts: bool
    chunks: list[ChunkInfo]
    more_chunks: bool


class BadCopy(Answer, frozen=True, kw_only=True):
    digest: str
    node: str
    start: int
    length: int
    reason: str


class Verified(Answer, frozen=True, kw_only=True):
    """`clean`: every copy of every chunk was read and is what its name says. `unreadable`: bytes without a good copy."""

    bucket: str
    key: str
    clean: bool
    chunks: int
    copies: int
    bytes: int
    bad: list[BadCopy]
    unreadable: int


class Deleted(Answer, frozen=True, kw_only=True):
    """`delete_marker`: the bucket keeps versions, so nothing has gone but a marker has come."""

    existed: bool
    delete_marker: bool
    version_id: str
