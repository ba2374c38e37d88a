"""Every outcome of a command, as a value. `machine.apply` answers one for each command and never raises for bad input."""

import msgspec

from consensus.core.ids import BucketId, ContentId, Digest, SessionId, VersionId
from consensus.core.model import Checksum


class Result(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag=True):
    """Base of all results. Tagged by class name."""


class Done(Result):
    """It is so now (also when it already was)."""


class SessionOpened(Result):
    session: SessionId


class SessionEnded(Result):
    """Refused: the session has ended (or never was), so whether an earlier try took effect is unknown."""


class SequencePassed(Result):
    """Refused: the session's mark has passed this sequence, its result is no longer kept."""


class Malformed(Result):
    """Refused: the command breaks a rule that its sender should have kept. `reason` says which."""

    reason: str


class BucketCreated(Result):
    bucket: BucketId


class BucketExists(Result):
    account: str                  # of its owner


class NoBucket(Result):
    pass


class BucketNotEmpty(Result):
    pass


class NoKey(Result):
    """A condition demanded the key, and it isn't there."""


class NoUpload(Result):
    pass


class ConditionFailed(Result):
    """`condition` is the header that was not met: If-Match | If-None-Match."""

    condition: str


class ConditionConflict(Result):
    """Complete only: the key has changed since the upload began."""

    condition: str


class Committed(Result):
    """The version exists. `version_id` is None in a bucket that was never versioned."""

    version_id: VersionId | None
    order: int
    modified_ms: int
    etag: str
    checksum: Checksum | None = None


class Staged(Result):
    content: ContentId


class NotDurable(Result):
    """Too few present copies for the write quorum: upload again."""

    digest: Digest
    wanted: int
    present: int


class ChunkMissing(Result):
    """A slice refers to a chunk that is not live (any more): read the source again."""

    digest: Digest


class ContentMissing(Result):
    """The content to share is gone: read the source again."""


class PartStored(Result):
    modified_ms: int


class PartChanged(Result):
    """The part was replaced (or never was) since the gateway compared it."""

    number: int


class Deleted(Result):
    """`version_id` and `delete_marker` describe what the client is told; `existed` whether anything was there."""

    existed: bool
    version_id: VersionId | None = None
    delete_marker: bool = False


class Drained(Result):
    """`more`: the queue is not empty yet."""

    released: int
    more: bool


class Announced(Result):
    """How many of the copies counted."""

    counted: int


class Withdrawn(Result):
    """Which of the asked copies were given up, by place in the command."""

    places: tuple[int, ...]


AnyResult = (
    Done | SessionOpened | SessionEnded | SequencePassed | Malformed | BucketCreated | BucketExists | NoBucket
    | BucketNotEmpty | NoKey | NoUpload | ConditionFailed | ConditionConflict | Committed | Staged | NotDurable
    | ChunkMissing | ContentMissing | PartStored | PartChanged | Deleted | Drained | Announced | Withdrawn
)
