"""What the endpoints are asked and answer, as structs: their JSON form is what docs/ADMIN_API.md describes.

The command line decodes answers with the same structs, so this module imports nothing heavy. Times are text in ISO 8601
(UTC), sizes are bytes. Lists that may be long come in pages: `next`, given back as `after`, goes on after them.
"""

from typing import Annotated

import msgspec

PAGE = 1000
"""Entries of a page, unless asked for fewer."""

SECRET_FIELDS = frozenset({"secret_key"})
"""Never logged."""


def _about(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fields of a request. One that is not known is an error that names it."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer: a JSON object. New fields may be added."""


class Nothing(Request, frozen=True, kw_only=True):
    """No fields."""


class Done(Answer, frozen=True, kw_only=True):
    """It is so now."""


After = Annotated[str, _about("`next` of the page before; empty for the first page.")]
Limit = Annotated[int, msgspec.Meta(ge=1, le=PAGE, description="Entries of a page at most.")]


class Page(Request, frozen=True, kw_only=True):
    after: After = ""
    limit: Limit = PAGE


# Users and keys

UserName = Annotated[str, _about("Name of the user.")]


class UserList(Answer, frozen=True, kw_only=True):
    users: list["UserInfo"]
    next: str


class UserInfo(Answer, frozen=True, kw_only=True):
    """`source`: "metadata" for a user made here, "configuration" or "root" for one that only the configuration changes."""

    name: str
    account: str
    user_id: str
    display_name: str
    email: str
    admin: bool
    disabled: bool
    created: str
    source: str
    keys: list["KeyInfo"]


class UserPolicy(Answer, frozen=True, kw_only=True):
    """`document` is JSON as it was given, or the name of a managed policy."""

    user: str
    name: str
    document: str


class PolicyList(Answer, frozen=True, kw_only=True):
    policies: list[UserPolicy]


class SetPolicy(Request, frozen=True, kw_only=True):
    name: UserName
    policy: Annotated[str, _about("Name of the policy.")]
    document: Annotated[str, _about("The policy, in JSON, without principals.")]


class OnePolicy(Request, frozen=True, kw_only=True):
    name: UserName
    policy: Annotated[str, _about("Name of the policy.")]


class Explain(Request, frozen=True, kw_only=True):
    action: Annotated[str, _about("Such as s3:GetObject.")]
    bucket: Annotated[str, _about("The bucket, if it is about one.")] = ""
    key: Annotated[str, _about("The object, if it is about one.")] = ""
    user: Annotated[str, _about("Name of who asks; empty: somebody without credentials.")] = ""
    context: Annotated[str, _about("Condition keys of the request, written as a query: key=value&key=value.")] = ""


class Explanation(Answer, frozen=True, kw_only=True):
    """`why` names the statement or grant that decides; `facts` are the settings that counted."""

    caller: str
    action: str
    allowed: bool
    why: str
    facts: list[str]


class KeyInfo(Answer, frozen=True, kw_only=True):
    access_key: str
    user: str
    disabled: bool
    created: str


class KeyList(Answer, frozen=True, kw_only=True):
    keys: list[KeyInfo]
    next: str


class NewKey(Answer, frozen=True, kw_only=True):
    """The only time that the secret is shown."""

    user: str
    access_key: str
    secret_key: str


class CreateUser(Request, frozen=True, kw_only=True):
    name: UserName
    account: Annotated[str, _about("The account that owns the user's buckets; empty for a new one of its own.")] = ""
    user_id: Annotated[str, _about("Canonical id; empty for a new one.")] = ""
    display_name: Annotated[str, _about("Shown as the owner's name; empty for `name`.")] = ""
    email: Annotated[str, _about("For grants by e-mail address.")] = ""
    admin: Annotated[bool, _about("Whether the user may use this API.")] = False


class OneUser(Request, frozen=True, kw_only=True):
    name: UserName


class ChangeUser(Request, frozen=True, kw_only=True):
    name: UserName
    display_name: Annotated[str | None, _about("Absent: stays.")] = None
    email: Annotated[str | None, _about("Absent: stays.")] = None
    admin: Annotated[bool | None, _about("Absent: stays.")] = None
    disabled: Annotated[bool | None, _about("A disabled user's keys are refused. Absent: stays.")] = None


class ListKeys(Request, frozen=True, kw_only=True):
    user: Annotated[str, _about("Keys of this user only; empty for all.")] = ""
    after: After = ""
    limit: Limit = PAGE


class CreateKey(Request, frozen=True, kw_only=True):
    user: UserName
    access_key: Annotated[str, _about("3 to 128 characters; empty for a new one.")] = ""
    secret_key: Annotated[str, _about("At least 8 characters; empty for a new one, which is better.")] = ""


class OneKey(Request, frozen=True, kw_only=True):
    access_key: str


class ChangeKey(Request, frozen=True, kw_only=True):
    access_key: str
    disabled: bool


# Buckets

Copies = Annotated[Annotated[int, msgspec.Meta(ge=0, le=9)] | None, _about(
    "Copies wanted of each chunk, 1 to 9; 0 for the setting of the cluster. Absent: stays.")]
Replication = Annotated[str | None, _about(
    "When a write is acknowledged: \"sync\" with a majority of the copies, \"async\" with one, \"all\" with every one; \"\" for "
    "the setting of the cluster. Absent: stays.")]


class BucketInfo(Answer, frozen=True, kw_only=True):
    """`objects` and `bytes` count current objects and older versions. `copies` and `replication`: null for the settings of the
    cluster."""

    name: str
    account: str
    owner: str
    created: str
    region: str
    versioning: str
    objects: int
    bytes: int
    copies: int | None = None
    replication: str | None = None


class BucketList(Answer, frozen=True, kw_only=True):
    buckets: list[BucketInfo]
    next: str


class ListBuckets(Request, frozen=True, kw_only=True):
    account: Annotated[str, _about("Of this account only; empty for all.")] = ""
    prefix: str = ""
    after: After = ""
    limit: Limit = PAGE


class OneBucket(Request, frozen=True, kw_only=True):
    name: Annotated[str, _about("Name of the bucket.")]


class CreateBucket(Request, frozen=True, kw_only=True):
    name: Annotated[str, _about("Name of the bucket, by S3's rules.")]
    user: Annotated[str, _about("The user who will own it; empty for whoever asks.")] = ""
    copies: Copies = None
    replication: Replication = None


class SetBucket(Request, frozen=True, kw_only=True):
    name: Annotated[str, _about("Name of the bucket.")]
    copies: Copies = None
    replication: Replication = None


class BucketStat(Answer, frozen=True, kw_only=True):
    """`uploads`: multipart uploads under way, counted up to 1,000."""

    bucket: BucketInfo
    uploads: int


class Usage(Answer, frozen=True, kw_only=True):
    buckets: int
    objects: int
    bytes: int
    accounts: list["AccountUsage"]


class AccountUsage(Answer, frozen=True, kw_only=True):
    account: str
    buckets: int
    objects: int
    bytes: int


# Objects

class ListObjects(Request, frozen=True, kw_only=True):
    bucket: str
    prefix: str = ""
    delimiter: Annotated[str, _about("Keys that share the part up to it after the prefix are one entry.")] = ""
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
    version_id: Annotated[str, _about("Empty for the current version.")] = ""


class StatObject(Request, frozen=True, kw_only=True):
    bucket: str
    key: str
    version_id: Annotated[str, _about("Empty for the current version.")] = ""
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


# Nodes and the server

class OneNode(Request, frozen=True, kw_only=True):
    node: Annotated[str, _about("This storage node only; empty for all.")] = ""


class NodeStat(Answer, frozen=True, kw_only=True):
    """`statistics` and `care` (scrub, settling, comparison, compaction, upkeep) as the node tells them, in bytes, seconds and ms
    since 1970, counters since its start. Empty while it does not answer: `error` says why. `state`: up, read-only, full,
    draining or down, `since` when; `asked`: what an admin wants of it; `counts`: whether its copies are counted on.

    `to_fetch` copies of `to_fetch_bytes` it has still to make, as far as it knows, in about `seconds_left` (0: not known);
    `to_give_back`: copies that it has too many. `share`: how much of a rebalancing is done, 1 when none is under way."""

    node: str
    state: str
    zone: str
    address: str
    capacity_bytes: int
    error: str
    statistics: dict[str, int | float | bool | str]
    care: dict[str, object]
    since: str = ""
    asked: str = ""
    counts: bool = True
    to_fetch: int = 0
    to_fetch_bytes: int = 0
    to_give_back: int = 0
    share: float = 1.0
    seconds_left: float = 0.0


class NodeList(Answer, frozen=True, kw_only=True):
    """`logical_bytes`: what the objects add up to; `stored_bytes`: what the nodes hold, copies included. `saved_bytes`:
    what deduplication and copying by reference spare, counted with as many copies as are kept.

    `short`: chunks that lack copies, by how many they have left; `short_bytes` in them. `oldest_seconds`: how long the nodes know
    of the one that has waited longest: the lag of asynchronous replication. `over`: chunks with copies that will be given back.
    Counted to 100,000."""

    nodes: list[NodeStat]
    copies: int
    logical_bytes: int
    stored_bytes: int
    saved_bytes: int
    short: dict[str, int] = {}
    short_bytes: int = 0
    oldest_seconds: float = 0.0
    over: int = 0


class AskNode(Request, frozen=True, kw_only=True):
    node: Annotated[str, _about("Name of the storage node.")]


class ReadOnlyNode(Request, frozen=True, kw_only=True):
    node: Annotated[str, _about("Name of the storage node.")]
    on: Annotated[bool, _about("False: it takes chunks again.")] = True


class RemoveNode(Request, frozen=True, kw_only=True):
    node: Annotated[str, _about("Name of the storage node.")]
    force: Annotated[bool, _about("Remove a node that is down, and give up what only it holds.")] = False


class DamageList(Answer, frozen=True, kw_only=True):
    copies: list["Damage"]


class Damage(Answer, frozen=True, kw_only=True):
    """A copy that was found damaged. `became`: repaired, withdrawn or removed; empty while that is to come."""

    node: str
    digest: str
    generation: str
    reason: str
    when: str
    size: int
    became: str


class MetadataStatus(Answer, frozen=True, kw_only=True):
    """The metadata member, and what waits in it. `short_chunks`: with fewer copies than wanted, counted up to 10,000."""

    role: str
    term: int
    leader: str
    applied_index: int
    commit_index: int
    snapshot_index: int
    sessions: int
    journal_bytes: int
    journal_segments: int
    syncs: int
    sync_seconds: float
    entries: int
    commands: int
    queued: int
    short_chunks: int


# The cluster

class ClusterMember(Answer, frozen=True, kw_only=True):
    """A machine's metadata member. One that doesn't vote follows, and is not counted. `applied_behind`: log entries that it
    is behind, `heard_s`: seconds since it was heard of; null where the asked member doesn't know, as only the leader does."""

    name: str
    address: str
    voter: bool
    leads: bool
    applied_behind: int | None
    heard_s: float | None


class ClusterStatus(Answer, frozen=True, kw_only=True):
    alone: bool
    leader: str
    term: int
    known_by: str
    commit_index: int
    applied_index: int
    members: list[ClusterMember]


class NewToken(Request, frozen=True, kw_only=True):
    hours: Annotated[int, msgspec.Meta(ge=1, le=24 * 30, description="How long it may be used.")] = 1


class MadeToken(Answer, frozen=True, kw_only=True):
    """`token` is shown this once."""

    token: str
    id: str
    expires: str


class TokenInfo(Answer, frozen=True, kw_only=True):
    """`state`: "may be used", "used" or "expired"."""

    id: str
    created: str
    expires: str
    state: str
    used_by: str
    used: str


class TokenList(Answer, frozen=True, kw_only=True):
    tokens: list[TokenInfo]


class OneToken(Request, frozen=True, kw_only=True):
    id: Annotated[str, _about("Id of the token.")]


class OneMember(Request, frozen=True, kw_only=True):
    name: Annotated[str, _about("Name of the machine.")]


class Version(Answer, frozen=True, kw_only=True):
    version: str
    python: str
    region: str


class ConfigInForce(Answer, frozen=True, kw_only=True):
    """Setting to value; secret ones are masked."""

    settings: dict[str, object]


# Backups

BackupName = Annotated[str, _about("Name of the backup.")]


class BackupInfo(Answer, frozen=True, kw_only=True):
    """`state`: "kept", "being made", or "without its copy" where the server's folder has lost it. `index`: the last log
    entry in it; `size`: bytes of the copy."""

    name: str
    created: str
    state: str
    index: int
    size: int


class BackupList(Answer, frozen=True, kw_only=True):
    backups: list[BackupInfo]


class CreateBackup(Request, frozen=True, kw_only=True):
    name: Annotated[str, _about("Name of the backup; empty for one made from the time.")] = ""


class OneBackup(Request, frozen=True, kw_only=True):
    name: BackupName


# Care of the chunks

class StartScrub(Request, frozen=True, kw_only=True):
    node: Annotated[str, _about("This storage node only; empty for all.")] = ""
    full_speed: Annotated[bool, _about("As fast as the disk goes, whether or not clients wait.")] = False


class NodeScrub(Answer, frozen=True, kw_only=True):
    """`state`: off, idle, running, or trouble (the disk cannot be read; `trouble` says why). Counts are of the pass under
    way or of the last one. `errors`: copies that could not be read; `index_findings`: what is wrong with the node's index.
    `error`: the node did not answer."""

    node: str
    state: str = ""
    passes: int = 0
    started: str = ""
    finished: str = ""
    next: str = ""
    chunks: int = 0
    bytes: int = 0
    total_bytes: int = 0
    damaged: int = 0
    errors: int = 0
    bytes_per_second: float = 0.0
    full_speed: bool = False
    trouble: str = ""
    index_findings: list[str] = []
    error: str = ""


class ScrubReport(Answer, frozen=True, kw_only=True):
    nodes: list[NodeScrub]


class Compact(Request, frozen=True, kw_only=True):
    node: Annotated[str, _about("This storage node only; empty for all.")] = ""
    dead_percent: Annotated[int, msgspec.Meta(
        ge=0, le=100, description="Empty segments of which at least so much is dead. 0: all with any dead bytes.")] = 0


class NodeCompacted(Answer, frozen=True, kw_only=True):
    """`kept_chunks`: damaged ones that were not moved; their segments stay until they are mended."""

    node: str
    segments: int
    moved_bytes: int
    returned_bytes: int
    kept_chunks: int
    error: str


class CompactReport(Answer, frozen=True, kw_only=True):
    nodes: list[NodeCompacted]


class ReportGc(Request, frozen=True, kw_only=True):
    copies: Annotated[int, msgspec.Meta(ge=0, le=PAGE, description="Copies that are named, for each node.")] = 100


class GcWaits(Answer, frozen=True, kw_only=True):
    """`items` of the kind that `what` names, with so many bytes; the oldest since `since`."""

    what: str
    items: int
    bytes: int
    since: str


class GcCopy(Answer, frozen=True, kw_only=True):
    digest: str
    generation: str
    size: int
    reason: str
    until: str


class GcNode(Answer, frozen=True, kw_only=True):
    """Copies on a node that do not count, by reason. `dead_bytes` of `segment_bytes` wait for compaction. `more`: there are
    too many to count all."""

    node: str
    waits: list[GcWaits] = []
    copies: list[GcCopy] = []
    segment_bytes: int = 0
    dead_bytes: int = 0
    more: bool = False
    error: str = ""


class GcReport(Answer, frozen=True, kw_only=True):
    """`metadata`: what waits there before nodes may let go. `short_chunks` lack copies, `lost_chunks` have none left."""

    metadata: list[GcWaits]
    short_chunks: int
    lost_chunks: int
    nodes: list[GcNode]


class RunGc(Request, frozen=True, kw_only=True):
    now: Annotated[bool, _about("Do not wait for readers that have begun: they may be cut off.")] = False


class GcDone(Answer, frozen=True, kw_only=True):
    """`released`: rows that the metadata let go of. Copies and bytes are those that went from the disks; bytes in segments
    come back by compaction. `errors`: nodes that could not be asked."""

    released: int
    removed_copies: int
    removed_bytes: int
    errors: list[str]


# fsck

class RunFsck(Request, frozen=True, kw_only=True):
    verify: Annotated[bool, _about("Read every byte of every copy and compare it with its digest.")] = False
    deep: Annotated[bool, _about("Have SQLite check the structure of its files.")] = False
    repair: Annotated[bool, _about("Have the nodes mend what can be mended while the server runs.")] = False


class Finding(Answer, frozen=True, kw_only=True):
    """`severity`: loss (bytes that something refers to cannot be had), wrong (two records of a fact differ; nothing is lost),
    note (worth knowing). `remedy` says what to do."""

    kind: str
    severity: str
    text: str
    remedy: str
    digest: str = ""
    generation: str = ""
    node: str = ""


class Affected(Answer, frozen=True, kw_only=True):
    """A version of an object, or a part of an upload, that has lost bytes."""

    bucket: str
    key: str
    version_id: str = ""
    upload_id: str = ""
    part: int = 0


class FsckReport(Answer, frozen=True, kw_only=True):
    """`clean`: nothing is lost and nothing is wrong. `counts`: findings by kind, of which at most 10,000 are listed.
    `waiting`: copies that do not count, by reason; they are no fault. `affected`: what has lost bytes, at most 10,000 of
    `affected_count`. `repaired`: findings that the repair has made go away, by kind."""

    clean: bool
    chunks: int
    chunk_bytes: int
    copies: int
    verified: int
    waiting: dict[str, int]
    counts: dict[str, int]
    findings: list[Finding]
    affected_count: int
    affected: list[Affected]
    repaired: dict[str, int] = {}
