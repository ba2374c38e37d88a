"""Names of things: nodes, sessions, chunks, versions, uploads. Each is parsed once at the border and then trusted."""

import hashlib
import re
import struct
from typing import NamedTuple, NewType

NodeId = NewType("NodeId", str)
"""A storage node: one data folder. 1 to 32 of ``a-z 0-9 -``."""

BucketId = NewType("BucketId", int)
ContentId = NewType("ContentId", int)
SessionId = NewType("SessionId", int)
"""These three are positions in the log (see `position`), so they are never used twice."""

Digest = NewType("Digest", bytes)
"""The name of a chunk: the 32 raw bytes of its SHA-256."""

VersionId = NewType("VersionId", str)
UploadId = NewType("UploadId", str)

NULL_VERSION = VersionId("null")
DIGEST_BYTES = 32

_NODE_ID = re.compile(r"[a-z0-9-]{1,32}")
_GENERATION = struct.Struct(">QQ")

POSITION_BITS = 20
"""Commands in one log entry are fewer than 2**20, so (index, place in the entry) fits one SQLite integer."""


class Generation(NamedTuple):
    """The upload that wrote a chunk, and the only commit that may bring it: (session, sequence)."""

    session: SessionId
    sequence: int

    def pack(self) -> bytes:
        """16 bytes, big-endian: the form in chunk headers, indices and file names."""
        return _GENERATION.pack(self.session, self.sequence)

    @classmethod
    def unpack(cls, raw: bytes) -> "Generation":
        session, sequence = _GENERATION.unpack(raw)
        return cls(SessionId(session), sequence)


def digest(data: bytes | bytearray | memoryview) -> Digest:
    """The name under which these bytes are stored."""
    return Digest(hashlib.sha256(data).digest())


def position(index: int, place: int) -> int:
    """Order of a command: its entry's log index, then its place in the entry. No clock decides order (promise 4)."""
    assert 0 <= place < 1 << POSITION_BITS
    return index << POSITION_BITS | place


def parse_node_id(text: str) -> NodeId:
    """Raises ValueError for anything but 1 to 32 of ``a-z 0-9 -``."""
    if not _NODE_ID.fullmatch(text):
        raise ValueError(f"a node id is 1 to 32 of a-z, 0-9 and '-', not {text!r}")
    return NodeId(text)
