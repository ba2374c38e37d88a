"""Every change of metadata, as a value. `machine.apply` carries them out in log order; nothing else writes.

A command carries what apply may not look up for itself: the proposer's time and random ids. It touches at most
`ROWS_PER_COMMAND_MAX` rows, so long work goes in pages (`StageContent`, `StageParts`) and the last command decides.
"""

import msgspec

from consensus.core.events import Notification, Origin
from consensus.core.ids import BucketId, ContentId, Digest, Generation, NodeId, SessionId, UploadId, VersionId
from consensus.core.model import AccessKey, Attributes, Checksum, Holder, LockDefault, Pairs, Quota, Slice, User, Value

ROWS_PER_COMMAND_MAX = 1000
"""Bounds the time of one apply (promise 8)."""

CHUNKS_PER_COMMAND_MAX = 300
"""New or referenced chunks in one command: each costs up to three rows (chunk, its generation's end, queue)."""

PARTS_PER_PAGE_MAX = 400
"""Parts checked by one StageParts: two rows each."""

RESULTS_PER_SESSION_MAX = 4096


class Command(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag=True):
    """Base of all commands. Tagged by class name; new fields go last, with a default (docs/DISK_FORMAT.md)."""


class NewChunk(Value, frozen=True, kw_only=True):
    """A chunk that this command's generation brings: stored on `holders` under (digest, the command's generation)."""

    digest: Digest
    size: int
    holders: tuple[Holder, ...]


class NewContent(Value, frozen=True, kw_only=True):
    """Bytes of an object or a part.

    `slices` in order make up the bytes that follow those of `staged` (earlier pages, from StageContent). A slice whose
    digest is in `chunks` is new; any other refers to a chunk that must be live already (a copy by reference).
    """

    size: int                     # of everything, staged pages included
    etag: str                     # hex MD5, or md5-N of a multipart object
    slices: tuple[Slice, ...] = ()
    chunks: tuple[NewChunk, ...] = ()
    staged: ContentId | None = None
    checksum: Checksum | None = None


class Condition(Value, frozen=True, kw_only=True):
    """Preconditions of a write, decided in apply so that check and write are one step."""

    if_match: str | None = None   # an ETag without quotes, or "*"
    if_none_match: str | None = None  # "*" (an ETag is allowed too)

    def __bool__(self) -> bool:
        return self.if_match is not None or self.if_none_match is not None


# Sessions

class OpenSession(Command, frozen=True, kw_only=True):
    """Answer: SessionOpened. `owner` is for people to read."""

    owner: str


class EndSession(Command, frozen=True, kw_only=True):
    """Nothing of that session can be committed any more; contents that it staged are released."""

    session: SessionId


# Storage nodes

class RegisterNode(Command, frozen=True, kw_only=True):
    """A storage node has started. Ends the node's earlier sessions in the same step and answers SessionOpened.

    Another incarnation than before means another (or an emptied) disk: its old locations are forgotten, in pages.
    """

    node: NodeId
    incarnation: bytes
    address: str
    zone: str = ""
    capacity_bytes: int = 0


class Announce(Command, frozen=True, kw_only=True):
    """This node holds these copies durably. Counts only where the row's live generation is the same. At most 300."""

    node: NodeId
    incarnation: bytes
    copies: tuple[tuple[Digest, Generation], ...]


class Withdraw(Command, frozen=True, kw_only=True):
    """This node wants to give these copies up; refused one by one where too few would be left. At most 300.

    `damaged`: they are lost already (rotten, or gone from the disk), so nothing is refused: to list them would be a lie.
    A chunk that is left without a location stays, for what refers to it; whoever brings its bytes again heals it.
    """

    node: NodeId
    copies: tuple[tuple[Digest, Generation], ...]
    damaged: bool = False


class SetNodeState(Command, frozen=True, kw_only=True):
    """A node is now in this state. The node itself says up, full or read-only; the leader says down, and later `lost` of one
    that has been down for so long that its copies are made anew elsewhere. What an admin has asked for stays beside it.
    Answer: Done, NoNode, Malformed."""

    node: NodeId
    state: str                    # up | full | read-only | down | lost


class AskNode(Command, frozen=True, kw_only=True):
    """What an admin wants of a node: draining (its copies count no more, so others make them), read-only, or "" as it is.
    Answer: Done, NoNode, Malformed."""

    node: NodeId
    asked: str                    # "" | draining | read-only


class RemoveNode(Command, frozen=True, kw_only=True):
    """The node is no more. Refused with NodeInUse unless it is draining and nothing lists it any more, or it is down and
    `force` says that what only it holds may be given up. Answer: Done, NoNode, NodeInUse."""

    node: NodeId
    force: bool = False


class SetDefaults(Command, frozen=True, kw_only=True):
    """The settings `copies` and `replication` of the whole cluster, as the leader has them: apply counts by what the log
    says, so that members whose files differ for a while don't. Answer: Done, Malformed."""

    copies: int
    replication: str


# Machines that join

class CreateToken(Command, frozen=True, kw_only=True):
    """Answer: Done, TokenRefused, Malformed."""

    id: str
    hash: bytes                   # SHA-256 of its secret half
    expires_ms: int


class SpendToken(Command, frozen=True, kw_only=True):
    """Let the visitor `name` in, if the token is known, not expired, and not spent (but by the same visitor: its answer was
    lost); then it is spent. Answer: Done, TokenRefused."""

    id: str
    hash: bytes
    name: str


class DeleteToken(Command, frozen=True, kw_only=True):
    """Answer: Done, TokenRefused."""

    id: str


# Buckets

class CreateBucket(Command, frozen=True, kw_only=True):
    name: str
    account: str
    owner: str
    region: str = ""
    versioning: str = ""
    object_lock: bool = False     # turns versioning on, for good
    copies: int | None = None     # None: as the cluster's setting says
    replication: str | None = None
    settings: tuple[tuple[str, bytes], ...] = ()   # as SetBucketSetting, in the same step


class DeleteBucket(Command, frozen=True, kw_only=True):
    bucket: BucketId


class SetBucketCopies(Command, frozen=True, kw_only=True):
    """How many copies are wanted of what is in this bucket, and how many acknowledge a write to it (None: as the cluster's
    settings say). What is there already follows, in pages. Answer: Done, NoBucket, Malformed."""

    bucket: BucketId
    copies: int | None = None     # 1 to COPIES_MAX
    replication: str | None = None


class SetVersioning(Command, frozen=True, kw_only=True):
    bucket: BucketId
    status: str                   # Enabled | Suspended


class SetObjectLock(Command, frozen=True, kw_only=True):
    """Lock objects in this bucket, which must be versioned; there is no way back. Answer: Done, NoBucket,
    WrongBucketState."""

    bucket: BucketId
    default: LockDefault


ACCESS = "access-"
"""How settings of a bucket begin that say who may reach it: gateways keep what they read of them until `access` moves."""


class SetBucketSetting(Command, frozen=True, kw_only=True):
    """Keep `document` under `name` with the bucket, in place of an earlier one; None removes it. What it means is for
    the gateways to know; one whose name begins with `ACCESS` moves the bucket's `access`. Answer: Done, NoBucket,
    Malformed."""

    bucket: BucketId
    name: str
    document: bytes | None


class SetQuota(Command, frozen=True, kw_only=True):
    """What a bucket, or (None) all buckets of `account` together, may hold from now on; None takes the quota away. What is
    there already stays. Answer: Done, NoBucket, Malformed."""

    bucket: BucketId | None
    account: str
    quota: Quota | None


# Objects

class StageContent(Command, frozen=True, kw_only=True):
    """One page of a long content, before the command that decides. Answer: Staged(content).

    The content belongs to the session until a command takes it over; if the session ends first, it is released.
    `into` continues an earlier page.
    """

    slices: tuple[Slice, ...]
    chunks: tuple[NewChunk, ...] = ()
    into: ContentId | None = None
    bucket: BucketId | None = None      # whose settings of copies hold; None: the cluster's


class PutVersion(Command, frozen=True, kw_only=True):
    """The one moment at which an object exists. Exactly one of `content` and `content_of` is given.

    `content_of` shares an existing content (a copy): refused with ContentMissing if it is gone meanwhile.
    """

    bucket: BucketId
    key: str
    version_id: VersionId         # used when the bucket is versioned
    attributes: Attributes
    owner: str
    content: NewContent | None = None
    content_of: ContentId | None = None
    condition: Condition = Condition()
    checksum: Checksum | None = None    # with content_of: the new version's own checksum, when it isn't the source's
    origin: Origin | None = None  # of this and other changes: only in a bucket with `events`
    content_size: int | None = None     # with content_of: how long it was when it was looked at (it may be appended to)


class DeleteVersion(Command, frozen=True, kw_only=True):
    """`version_id` None: the current version goes (or a marker named `marker_id` comes, when versioned)."""

    bucket: BucketId
    key: str
    version_id: VersionId | None = None
    marker_id: VersionId = VersionId("")
    owner: str = ""
    condition: Condition = Condition()
    bypass: bool = False          # retention in GOVERNANCE mode
    origin: Origin | None = None


class RenameVersion(Command, frozen=True, kw_only=True):
    """The current version of `source` becomes that of `key`, in the same bucket, as it is: content, ETag, attributes, owner, and
    its time where versions aren't kept. Where they are, `source` gets a delete marker named `marker_id`.

    Refused with Moved unless `source_order` is the current version's, and (unless it is None) `over` is that of the one at
    `key` (0: there is none): these are what the sender has judged. `token`, if there is one, stands for the request with this
    `fingerprint`: once that was carried out, it is answered the same for a day. Answer: Committed, Moved, NoKey,
    ConditionFailed, TokenReused, QuotaExceeded, NoBucket, Malformed."""

    bucket: BucketId
    source: str
    source_order: int
    key: str
    version_id: VersionId
    marker_id: VersionId
    owner: str                    # of the marker
    condition: Condition = Condition()
    over: int | None = None
    token: str = ""
    fingerprint: bytes = b""
    origin: Origin | None = None


class AppendVersion(Command, frozen=True, kw_only=True):
    """Bytes after those of the current version, which is `base` (its order) and `offset` bytes long. `content` has the slices of
    the new bytes alone, or, if `whole`, of all of the object, those before by reference; its size is theirs, its ETag and
    checksum are the whole object's in both cases. Where nothing else refers to a content of pages and the version would not
    stay, it grows in place; else all slices are listed anew, if they are few enough for a command.

    Answer: Committed, WrongOffset, Moved (another version by now, or `whole` is needed), NoKey, ConditionFailed,
    QuotaExceeded, NoBucket, Malformed, and what a new content may be refused with."""

    bucket: BucketId
    key: str
    version_id: VersionId         # used when the bucket is versioned
    base: int
    offset: int
    content: NewContent
    appended: int                 # as in Attributes
    whole: bool = False
    condition: Condition = Condition()
    origin: Origin | None = None


class SetTags(Command, frozen=True, kw_only=True):
    """Replace the tags of a version (None: the current one). Nothing else about it changes. Answer: Changed, NoKey,
    NoVersion, IsMarker."""

    bucket: BucketId
    key: str
    tags: Pairs
    version_id: VersionId | None = None
    origin: Origin | None = None


class SetAcl(Command, frozen=True, kw_only=True):
    """Replace the access list of a version (None: the current one). Answer: Changed, NoKey, NoVersion, IsMarker."""

    bucket: BucketId
    key: str
    acl: Pairs | None
    version_id: VersionId | None = None
    origin: Origin | None = None


class SetRetention(Command, frozen=True, kw_only=True):
    """Protect a version (None: the current one) until `until_ms`; mode "" lifts the retention. Answer: Changed, Locked,
    NoObjectLock, NoKey, NoVersion, IsMarker."""

    bucket: BucketId
    key: str
    mode: str
    until_ms: int
    version_id: VersionId | None = None
    bypass: bool = False
    origin: Origin | None = None


class SetLegalHold(Command, frozen=True, kw_only=True):
    """`remembered`: that it was said, also where it is off. Answer: Changed, NoObjectLock, NoKey, NoVersion, IsMarker."""

    bucket: BucketId
    key: str
    on: bool
    version_id: VersionId | None = None
    remembered: bool = False


class SetRestored(Command, frozen=True, kw_only=True):
    """An archived version (None: the current one) may be read until `until_ms`, as long as its storage class is still this
    one. Answer: Changed, NoKey, NoVersion, IsMarker."""

    bucket: BucketId
    key: str
    storage_class: str
    until_ms: int
    version_id: VersionId | None = None
    origin: Origin | None = None


# Multipart uploads

class CreateUpload(Command, frozen=True, kw_only=True):
    bucket: BucketId
    key: str
    upload_id: UploadId
    attributes: Attributes
    owner: str
    checksum_algorithm: str = ""
    checksum_kind: str = ""
    initiator: str = ""
    said: Pairs = ()             # as in model.Upload


class PutPart(Command, frozen=True, kw_only=True):
    """Store part `number` (1 to 10,000), in place of an earlier one with that number."""

    bucket: BucketId
    key: str
    upload_id: UploadId
    number: int
    content: NewContent


class ListedPart(Value, frozen=True, kw_only=True):
    """A part as the client lists it in Complete, already compared with what was stored: `content` is what the gateway
    read. Apply refuses the page if the part has been replaced since."""

    number: int
    content: ContentId


class StageParts(Command, frozen=True, kw_only=True):
    """One page of the part list of a Complete, in ascending order. Answer: Staged(content). At most 400 parts."""

    bucket: BucketId
    key: str
    upload_id: UploadId
    parts: tuple[ListedPart, ...]
    into: ContentId | None = None


class CompleteUpload(Command, frozen=True, kw_only=True):
    """Make the staged list (and `parts` after it) the new version. Decides; everything before it left no trace.

    A repeated Complete of an upload that succeeded answers the first outcome again.
    """

    bucket: BucketId
    key: str
    upload_id: UploadId
    version_id: VersionId
    etag: str
    size: int
    parts: tuple[ListedPart, ...] = ()
    staged: ContentId | None = None
    checksum: Checksum | None = None
    condition: Condition = Condition()
    origin: Origin | None = None


class AbortUpload(Command, frozen=True, kw_only=True):
    bucket: BucketId
    key: str
    upload_id: UploadId


# Event notifications

class SetNotification(Command, frozen=True, kw_only=True):
    """What is told about this bucket from now on; None: nothing. What is queued already is still delivered. Answer: Done,
    NoBucket, Malformed."""

    bucket: BucketId
    notification: Notification | None
    test: tuple[str, ...] = ()    # targets that are sent a TestEvent
    origin: Origin | None = None


class EventsDone(Command, frozen=True, kw_only=True):
    """These events (order, place) of a target are delivered, or given up: because they are too old, or `damaged`. At most 400.
    Answer: Done, Malformed."""

    target: str
    events: tuple[tuple[int, int], ...]
    delivered: bool = True
    damaged: bool = False


class PurgeEvents(Command, frozen=True, kw_only=True):
    """Give up what waits for a target. Answer: Drained, Malformed."""

    target: str
    limit: int = 500


class ReportTarget(Command, frozen=True, kw_only=True):
    """The last delivery to this target failed: why. Answer: Done, Malformed."""

    target: str
    error: str


# Users and their keys

class CreateUser(Command, frozen=True, kw_only=True):
    """Answer: Done, UserExists, Malformed."""

    user: User                    # `created_ms` is set by apply


class ChangeUser(Command, frozen=True, kw_only=True):
    """None leaves a field as it is. Answer: Done, NoUser."""

    name: str
    display_name: str | None = None
    email: str | None = None
    admin: bool | None = None
    disabled: bool | None = None


class DeleteUser(Command, frozen=True, kw_only=True):
    """The user's keys go with it; the buckets stay, with its account. Answer: Done, NoUser."""

    name: str


class SetUserPolicy(Command, frozen=True, kw_only=True):
    """Keep `document` under `policy` with the user, in place of an earlier one; None removes it. What it means is for the
    gateways to know. Answer: Done, NoUser, Malformed."""

    name: str
    policy: str
    document: bytes | None


class CreateKey(Command, frozen=True, kw_only=True):
    """`replaces` goes in the same step (rotation). Answer: Done, NoUser, KeyExists, NoAccessKey (of `replaces`)."""

    key: AccessKey                # `created_ms` is set by apply
    replaces: str = ""


class ChangeKey(Command, frozen=True, kw_only=True):
    """Answer: Done, NoAccessKey."""

    access_key: str
    disabled: bool


class DeleteKey(Command, frozen=True, kw_only=True):
    """Answer: Done, NoAccessKey."""

    access_key: str


# Backups

class OpenBackup(Command, frozen=True, kw_only=True):
    """From here on nothing that exists is taken apart, until the copy has been made and `KeepBackup` says where it ends.
    If the session ends before, the backup is dropped. Answer: Done, BackupExists, Malformed."""

    name: str


class KeepBackup(Command, frozen=True, kw_only=True):
    """The copy of backup `name` holds everything up to log index `index`: only contents up to there stay pinned.
    Answer: Done, NoBackup."""

    name: str
    index: int


class DropBackup(Command, frozen=True, kw_only=True):
    """What only it kept goes. `own`: only if it is the one that this session has open. Answer: Done, NoBackup."""

    name: str
    own: bool = False


class LifecycleStep(Value, frozen=True, kw_only=True):
    """What a bucket's lifecycle wants of one version, which was `order` when it was looked at.

    `action`: expire (the current version goes, or gets a delete marker named `marker_id`), remove (a noncurrent version goes),
    unmark (a delete marker goes that is all there is of its key), move (to `storage_class`), abort (the upload `upload_id`)."""

    action: str
    key: str
    order: int
    due_ms: int                   # not before the log's time has come to this
    marker_id: VersionId = VersionId("")
    storage_class: str = ""
    upload_id: str = ""
    current: bool = True          # of a move: whether it is the current version that it is meant for
    seal: int | None = None       # `crc` of its row, where it is meant for a version with these tags
    newest: int | None = None     # of a noncurrent one: its key's newest. While that is there, it was never current since
    spared: int = 0               # so many noncurrent versions that are newer must be there


class CarryOutLifecycle(Command, frozen=True, kw_only=True):
    """Steps of a bucket's lifecycle, at most LIFECYCLE_STEPS_MAX. A step is left out if the version is another one by now, is
    protected, or its time has not come; all of them if the bucket's `lifecycle` is not the one that they come from.
    Answer: CarriedOut, NoBucket, Malformed."""

    bucket: BucketId
    lifecycle: int
    steps: tuple[LifecycleStep, ...]


LIFECYCLE = "lifecycle"
"""The setting of a bucket that moves its `lifecycle`."""

FAMILY = "/"
"""A setting with this in its name is one of a family: "inventory/weekly". S3 has four kinds that come many times."""

LIFECYCLE_STEPS_MAX = 50
"""A step may touch about ten rows, an event of it included; and who writes in between waits for the command's end."""


# Duties of gateways

class TakeDuty(Command, frozen=True, kw_only=True):
    """Let `holder` do the work `name` for so long, if nobody else does: it is free, its lease is over by the log's time, or
    it is the holder's already (then the lease begins anew). Answer: DutyTaken, DutyHeld, Malformed."""

    name: str
    holder: str
    lease_ms: int


class DropDuty(Command, frozen=True, kw_only=True):
    """`holder` does it no longer. Somebody else's stays. Answer: Done, Malformed."""

    name: str
    holder: str


# Housekeeping, proposed by the leader

class ExpireUploads(Command, frozen=True, kw_only=True):
    """Abort at most `limit` multipart uploads that were begun before `before_ms`. Answer: Drained."""

    before_ms: int
    limit: int = 100


class Drain(Command, frozen=True, kw_only=True):
    """Release what nothing refers to any more: at most `limit` chunk references, parts and rows. Answer: Drained.

    Long contents, which readers look up in several steps, are left alone for `grace_ms` after their last reference.
    """

    limit: int = 300
    grace_ms: int = 0


AnyCommand = (
    SetNotification | EventsDone | PurgeEvents | ReportTarget
    | OpenSession | EndSession | RegisterNode | Announce | Withdraw | CreateBucket | DeleteBucket | SetVersioning
    | StageContent | PutVersion | DeleteVersion | CreateUpload | PutPart | StageParts | CompleteUpload | AbortUpload | Drain
    | CreateUser | ChangeUser | DeleteUser | CreateKey | ChangeKey | DeleteKey | OpenBackup | KeepBackup | DropBackup
    | ExpireUploads | SetTags | SetBucketSetting | SetObjectLock | SetRetention | SetLegalHold | SetRestored
    | SetNodeState | AskNode | RemoveNode | SetDefaults | CreateToken | SpendToken | DeleteToken | SetBucketCopies
    | SetAcl | SetUserPolicy | TakeDuty | DropDuty | CarryOutLifecycle | SetQuota | RenameVersion | AppendVersion
)


class Envelope(Value, frozen=True, kw_only=True):
    """A command on its way through the log. Session 0 stands for the leader's own housekeeping and has no repeats.

    `low` is the lowest sequence of this session that its owner has no answer for; results below it are dropped.
    """

    session: SessionId
    sequence: int
    low: int
    now_ms: int
    command: AnyCommand
