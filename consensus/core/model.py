"""The metadata as values: buckets, versions, contents, parts, uploads, chunks. Frozen; a change is a command.

A *version* (bucket, key, order) points to a *content* (immutable, but for appends). Only contents refer to *chunks*. Copies share
the content; equal chunks share the row of their digest.
"""

from typing import NamedTuple

import msgspec

from consensus.core.ids import BucketId, ContentId, Digest, Generation, NodeId, UploadId, VersionId


class Value(msgspec.Struct, frozen=True, kw_only=True, array_like=True, omit_defaults=False):
    """Base of all values. On the wire and in SQLite a value is a msgpack array; new fields go last, with a default."""


Pairs = tuple[tuple[str, str], ...]
"""Headers, metadata or tags in their order. Header text is latin-1 decoded, so every byte survives."""


class Checksum(NamedTuple):
    """A stored checksum: `algorithm` as S3 writes it (CRC32, SHA256); `value` base64, with ``-N`` when composite;
    `kind` FULL_OBJECT | COMPOSITE."""

    algorithm: str
    value: str
    kind: str


class Holder(NamedTuple):
    """A node that says it holds a copy durably, with the incarnation (16 random bytes) of the disk that does."""

    node: NodeId
    incarnation: bytes


class Slice(NamedTuple):
    """`length` bytes of a chunk from `start`."""

    digest: Digest
    start: int
    length: int


class LocatedSlice(NamedTuple):
    """A slice, and where its chunk lies now: `nodes` hold `generation` of it; the whole chunk is `chunk_size` bytes."""

    digest: Digest
    start: int
    length: int
    generation: Generation
    chunk_size: int
    nodes: tuple[NodeId, ...]


class Lock(NamedTuple):
    """What protects a version: until `until_ms` in `mode` (GOVERNANCE | COMPLIANCE, "" for no retention), and as long as
    the legal hold is on. S3's object lock."""

    mode: str = ""
    until_ms: int = 0
    legal_hold: bool = False


class LockDefault(Value, frozen=True, kw_only=True):
    """The object lock of a bucket: what versions get that say nothing themselves. `mode` "": nothing. Exactly one of
    `days` and `years` otherwise."""

    mode: str = ""
    days: int = 0
    years: int = 0


class Quota(NamedTuple):
    """The most objects (versions that are no delete markers) and bytes (those of unfinished uploads too) that a bucket, or all
    buckets of an account, may hold. None: any number."""

    objects: int | None = None
    bytes: int | None = None


class Attributes(Value, frozen=True, kw_only=True):
    """What a client said about an object, kept exactly: fixed when the version (or the upload) is made, but for tags,
    lock and access list."""

    content_type: str = "binary/octet-stream"
    headers: Pairs = ()          # cache-control, content-disposition, content-encoding, content-language, expires,
    #                              x-amz-website-redirect-location: lower-case names
    metadata: Pairs = ()         # x-amz-meta-*, names without the prefix
    tags: Pairs = ()
    storage_class: str = "STANDARD"
    lock: Lock | None = None
    acl: Pairs | None = None     # who may do what besides the owner's default: (grantee, permission); None: nobody else
    appended: int = 0            # of an object that was appended to: how many times, the parts it was made of counted in
    restored_ms: int = 0         # of an archived one: until when it may be read; 0: it was not restored
    hold_off: bool = False       # its legal hold was said to be off: another thing than never having been said to be on


class Bucket(Value, frozen=True, kw_only=True):
    """The counters are those of the moment only where somebody asked for them (queries.bucket_counted)."""

    id: BucketId
    name: str
    account: str                 # the owning account
    owner: str                   # canonical id of the owner
    created_ms: int
    region: str                  # as the client asked: "" means the default
    versioning: str = ""         # "" (never set) | "Enabled" | "Suspended"
    object_count: int = 0        # current objects and older versions, delete markers not counted
    byte_count: int = 0
    copies: int | None = None    # 1 to COPIES_MAX; None: as the cluster's setting says
    replication: str | None = None   # sync | async | all; None: likewise
    access: int = 0              # position of the last change of who may reach it; 0: nothing was ever set
    lifecycle: int = 0           # position of the last change of its lifecycle; 0: it has none
    events: bool = False         # somebody is told of changes in it
    upload_bytes: int = 0        # of parts of uploads in progress; not in byte_count
    quota: Quota | None = None


class ObjectVersion(Value, frozen=True, kw_only=True):
    """One version of a key, or a delete marker (then `content` is 0 and size, etag are empty)."""

    key: str
    version_id: VersionId        # "null" for the null version
    order: int                   # position in the log; newest has the greatest
    modified_ms: int
    delete_marker: bool = False
    latest: bool = True
    content: ContentId = ContentId(0)
    size: int = 0
    etag: str = ""               # without quotes
    checksum: Checksum | None = None
    part_count: int = 0          # 0: not made by multipart
    attributes: Attributes = Attributes()
    owner: str = ""              # canonical id


class Upload(Value, frozen=True, kw_only=True):
    bucket: BucketId
    key: str
    upload_id: UploadId
    initiated_ms: int
    order: int
    attributes: Attributes
    owner: str
    checksum_algorithm: str = ""  # "" when the client named none
    checksum_kind: str = ""
    completed_version: VersionId | None = None   # set once Complete succeeded; kept for repeated Completes
    completed_etag: str = ""
    completed_checksum: Checksum | None = None
    initiator: str = ""          # canonical id of who began it; "": the owner
    said: Pairs = ()             # headers it was begun with that policies may ask for: parts are judged by them too.
    #                              Not in listings.


class Part(Value, frozen=True, kw_only=True):
    """A finished part of an upload, or of a completed object (then `start` is its offset in the object)."""

    number: int
    size: int
    etag: str
    modified_ms: int
    content: ContentId
    checksum: Checksum | None = None
    start: int = 0


class NodeInfo(Value, frozen=True, kw_only=True):
    """A storage node as the cluster knows it."""

    node: NodeId
    incarnation: bytes
    address: str                 # "unix:/path" or "host:port"
    zone: str = ""
    capacity_bytes: int = 0
    state: str = "up"            # up | read-only | full | draining | down: as last recorded in the log
    since_ms: int = 0            # of the state; 0: not known
    asked: str = ""              # what an admin wants of it: "" | draining | read-only
    counts: bool = True          # its copies are counted on: it isn't leaving, nor away for good
    said: str = "up"             # of itself, or by the leader: up | full | read-only | down | lost

    @property
    def takes_chunks(self) -> bool:
        return self.state == "up"


COPIES_MAX = 9
"""Of a chunk. More would only make writes slower."""

REPLICATIONS = ("sync", "async", "all")
"""How many durable copies acknowledge a write: a majority, one, or every one (core.placement.write_quorum)."""


class Member(Value, frozen=True, kw_only=True):
    """A metadata member. One that isn't a voter gets the log and may be read, but is never counted."""

    name: str
    address: str                 # HOST:PORT, "" while the cluster has one machine
    incarnation: bytes           # of its folder: one that comes back empty is another one
    voter: bool = True


class JoinToken(Value, frozen=True, kw_only=True):
    """What lets a machine in, once. `hash` is SHA-256 over its secret half."""

    id: str
    hash: bytes
    created_ms: int
    expires_ms: int
    spent_by: str | None = None
    spent_at_ms: int | None = None


class Duty(Value, frozen=True, kw_only=True):
    """Work that one gateway does for all, as long as its lease lasts."""

    name: str
    holder: str                  # the process: machine/gateway-1
    since_ms: int                # without a break
    expires_ms: int


class User(Value, frozen=True, kw_only=True):
    """Who may ask. Several users may share an account: it owns the buckets, `user_id` is the canonical id."""

    name: str
    account: str
    user_id: str
    display_name: str = ""
    email: str = ""
    admin: bool = False
    disabled: bool = False
    created_ms: int = 0


class AccessKey(Value, frozen=True, kw_only=True):
    """`sealed` is the secret, encrypted by the gateways with the cluster's secret: files and backups never show it."""

    access_key: str
    user: str
    sealed: bytes
    disabled: bool = False
    created_ms: int = 0


class Backup(Value, frozen=True, kw_only=True):
    """A kept copy of the metadata. `index` is the last log index in it; None while the copy is being made."""

    name: str
    created_ms: int
    index: int | None = None


class ListedObject(NamedTuple):
    """An entry of a listing page: only what a listing shows."""

    key: str
    version_id: VersionId
    order: int
    modified_ms: int
    size: int
    etag: str
    checksum: Checksum | None
    storage_class: str
    owner: str
    delete_marker: bool
    latest: bool


class Page(NamedTuple):
    """A page of a listing: entries and common prefixes, each in key order, together at most the limit asked for.

    `next_after` is the key (or common prefix) after which the next page starts; None when this is the last page.
    """

    objects: tuple[ListedObject, ...]
    common_prefixes: tuple[str, ...]
    next_after: str | None
    next_version: VersionId | None = None   # of listings by version


class UploadPage(NamedTuple):
    uploads: tuple[Upload, ...]
    common_prefixes: tuple[str, ...]
    next_key: str | None
    next_upload: UploadId | None
