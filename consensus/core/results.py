"""Every outcome of a command, as a value. `machine.apply` answers one for each command and never raises for bad input."""

import msgspec

from consensus.core.ids import BucketId, ContentId, Digest, SessionId, VersionId
from consensus.core.model import Checksum


class Result(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag=True):
    """Base of all results. Tagged by class name."""


class Done(Result, frozen=True, kw_only=True):
    """It is so now (also when it already was)."""


class SessionOpened(Result, frozen=True, kw_only=True):
    session: SessionId


class SessionEnded(Result, frozen=True, kw_only=True):
    """Refused: the session has ended (or never was), so whether an earlier try took effect is unknown."""


class SequencePassed(Result, frozen=True, kw_only=True):
    """Refused: the session's mark has passed this sequence, its result is no longer kept."""


class Malformed(Result, frozen=True, kw_only=True):
    """Refused: the command breaks a rule that its sender should have kept. `reason` says which."""

    reason: str


class BucketCreated(Result, frozen=True, kw_only=True):
    bucket: BucketId


class BucketExists(Result, frozen=True, kw_only=True):
    account: str                  # of its owner


class NoBucket(Result, frozen=True, kw_only=True):
    pass


class BucketNotEmpty(Result, frozen=True, kw_only=True):
    pass


class NoKey(Result, frozen=True, kw_only=True):
    """A condition demanded the key, and it isn't there."""


class NoUpload(Result, frozen=True, kw_only=True):
    pass


class ConditionFailed(Result, frozen=True, kw_only=True):
    """`condition` is the header that was not met: If-Match | If-None-Match."""

    condition: str


class ConditionConflict(Result, frozen=True, kw_only=True):
    """Complete only: the key has changed since the upload began."""

    condition: str


class Committed(Result, frozen=True, kw_only=True):
    """The version exists. `version_id` is None in a bucket that was never versioned."""

    version_id: VersionId | None
    order: int
    modified_ms: int
    etag: str
    checksum: Checksum | None = None


class Staged(Result, frozen=True, kw_only=True):
    content: ContentId


class NotDurable(Result, frozen=True, kw_only=True):
    """Too few present copies for the write quorum: upload again."""

    digest: Digest
    wanted: int
    present: int


class TooFewCopies(Result, frozen=True, kw_only=True):
    """Refused: the bucket wants more copies than there are of what the command refers to. Bring the bytes themselves."""

    wanted: int


class ChunkMissing(Result, frozen=True, kw_only=True):
    """A slice refers to a chunk that is not live (any more): read the source again."""

    digest: Digest


class ContentMissing(Result, frozen=True, kw_only=True):
    """The content to share is gone: read the source again."""


class PartStored(Result, frozen=True, kw_only=True):
    modified_ms: int


class PartChanged(Result, frozen=True, kw_only=True):
    """The part was replaced (or never was) since the gateway compared it."""

    number: int


class Deleted(Result, frozen=True, kw_only=True):
    """`version_id` and `delete_marker` describe what the client is told; `existed` whether anything was there."""

    existed: bool
    version_id: VersionId | None = None
    delete_marker: bool = False


class Changed(Result, frozen=True, kw_only=True):
    """A version's tags or lock are as wished. `version_id` is None in a bucket that was never versioned."""

    version_id: VersionId | None


class Locked(Result, frozen=True, kw_only=True):
    """Refused: a retention or a legal hold protects the version."""


class NoObjectLock(Result, frozen=True, kw_only=True):
    """Refused: the bucket has no object lock."""


class WrongBucketState(Result, frozen=True, kw_only=True):
    """Refused: object lock needs versioning, and versioning stays on with it."""


class NoVersion(Result, frozen=True, kw_only=True):
    """The key has no version of that name."""


class IsMarker(Result, frozen=True, kw_only=True):
    """The version is a delete marker, which has no more than a name."""

    version_id: VersionId
    modified_ms: int


class Drained(Result, frozen=True, kw_only=True):
    """`more`: the queue is not empty yet."""

    released: int
    more: bool


class Announced(Result, frozen=True, kw_only=True):
    """How many of the copies counted."""

    counted: int


class Withdrawn(Result, frozen=True, kw_only=True):
    """Which of the asked copies were given up, by place in the command."""

    places: tuple[int, ...]


class NoNode(Result, frozen=True, kw_only=True):
    """There is no storage node of that name."""


class NodeInUse(Result, frozen=True, kw_only=True):
    """Refused: the node holds copies that are counted on, or isn't leaving. `reason` says which."""

    reason: str


class TokenRefused(Result, frozen=True, kw_only=True):
    """`why`: unknown | spent | expired | exists."""

    why: str


class UserExists(Result, frozen=True, kw_only=True):
    pass


class NoUser(Result, frozen=True, kw_only=True):
    pass


class KeyExists(Result, frozen=True, kw_only=True):
    """The access key is somebody's already."""


class NoAccessKey(Result, frozen=True, kw_only=True):
    pass


class BackupExists(Result, frozen=True, kw_only=True):
    pass


class NoBackup(Result, frozen=True, kw_only=True):
    pass


class QuotaExceeded(Result, frozen=True, kw_only=True):
    """Refused: there would be more than a quota allows. `whose`: bucket | account; `what`: objects | bytes."""

    whose: str
    what: str


class Moved(Result, frozen=True, kw_only=True):
    """Refused: the key has another version by now than the sender has looked at. Look again."""


class WrongOffset(Result, frozen=True, kw_only=True):
    """Refused: the object is `size` bytes long, so nothing is appended elsewhere."""

    size: int


class TokenReused(Result, frozen=True, kw_only=True):
    """Refused: the client's token stands for another request that was carried out."""


class CarriedOut(Result, frozen=True, kw_only=True):
    """Which steps had an effect, by place in the command. `reached`: so many were looked at, the rest wait for another
    command. `moved`: none, as the bucket has other rules by now."""

    places: tuple[int, ...] = ()
    reached: int = 0
    moved: bool = False


class DutyTaken(Result, frozen=True, kw_only=True):
    """The duty is the holder's, without a break since `since_ms`, until `expires_ms`: the log's time."""

    since_ms: int
    expires_ms: int


class DutyHeld(Result, frozen=True, kw_only=True):
    """Refused: somebody else does it, until `expires_ms` at least."""

    holder: str
    expires_ms: int


AnyResult = (
    Done | SessionOpened | SessionEnded | SequencePassed | Malformed | BucketCreated | BucketExists | NoBucket
    | BucketNotEmpty | NoKey | NoUpload | ConditionFailed | ConditionConflict | Committed | Staged | NotDurable
    | ChunkMissing | ContentMissing | PartStored | PartChanged | Deleted | Drained | Announced | Withdrawn
    | Changed | Locked | NoObjectLock | WrongBucketState | NoVersion | IsMarker
    | UserExists | NoUser | KeyExists | NoAccessKey | BackupExists | NoBackup
    | TooFewCopies | NoNode | NodeInUse | TokenRefused | DutyTaken | DutyHeld | CarriedOut
    | QuotaExceeded | Moved | WrongOffset | TokenReused
)
