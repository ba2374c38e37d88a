"""Questions to the metadata: plain functions on a read-only SQLite connection, each within one read transaction.

The caller (consensus.client, or the server for hosts without a member) begins the transaction, reads `header` first,
checks that it is not behind the read index, calls one of these, and ends the transaction, all without waiting. A row
that does not fit its checksum raises Corrupt. Every public function here, those imported from accounts.py,
garbage.py and holdings.py too, is one that a process without a member on its host may ask for by name.
"""

import sqlite3
from collections.abc import Callable
from typing import Any, NamedTuple

from consensus import listing
from consensus import slices as located_slices
from consensus.accounts import access_key as access_key
from consensus.accounts import access_keys as access_keys
from consensus.accounts import account_holding as account_holding
from consensus.accounts import account_usage as account_usage
from consensus.accounts import holding_accounts as holding_accounts
from consensus.accounts import identities_version as identities_version
from consensus.accounts import keys_of as keys_of
from consensus.accounts import limited_accounts as limited_accounts
from consensus.accounts import limited_buckets as limited_buckets
from consensus.accounts import policies_of as policies_of
from consensus.accounts import quota_room as quota_room
from consensus.accounts import user as user
from consensus.accounts import user_policies as user_policies
from consensus.accounts import users as users
from consensus.core.errors import Corrupt
from consensus.core.ids import NULL_VERSION, BucketId, ContentId, UploadId, VersionId
from consensus.core.model import (
    Backup,
    Bucket,
    Duty,
    JoinToken,
    LocatedSlice,
    Member,
    ObjectVersion,
    Page,
    Part,
    Quota,
    Upload,
    UploadPage,
)
from consensus.event_queues import event_queues as event_queues
from consensus.event_queues import notification as notification
from consensus.event_queues import queued_events as queued_events
from consensus.event_queues import waiting_targets as waiting_targets
from consensus.garbage import gc_report as gc_report
from consensus.garbage import held_contents as held_contents
from consensus.garbage import lingering_contents as lingering_contents
from consensus.garbage import open_uploads as open_uploads
from consensus.garbage import staged_contents as staged_contents
from consensus.holdings import chunk_place as chunk_place
from consensus.holdings import chunk_places as chunk_places
from consensus.holdings import chunk_states as chunk_states
from consensus.holdings import listed_on as listed_on
from consensus.holdings import live_chunks as live_chunks
from consensus.holdings import located as located
from consensus.holdings import nodes as nodes
from consensus.holdings import over_replicated as over_replicated
from consensus.holdings import released as released
from consensus.holdings import under_replicated as under_replicated
from consensus.holdings import unequal as unequal
from consensus.lifecycles import lifecycle_buckets as lifecycle_buckets
from consensus.lifecycles import lifecycle_page as lifecycle_page
from consensus.lifecycles import lifecycle_uploads as lifecycle_uploads
from consensus.lifecycles import log_time as log_time
from consensus.rows import (
    INLINE,
    PARTS,
    SLICE_BYTES,
    content_seal,
    damaged,
    decode_attributes,
    decode_checksum,
    decode_pairs,
    part_seal,
    unpack_slice,
    version_seal,
)
from consensus.slices import node_names
from consensus.tables import VERSION_COLUMNS

Database = sqlite3.Connection

SLICES_PER_CALL_MAX = 256
"""One call stays near a millisecond; who wants more calls again."""

BUCKET_COLUMNS = (
    "id, name, account, owner, created, region, versioning, objects, bytes, copies, replication, access, lifecycle,"
    " uploading, objects_max, bytes_max, events"
)


def _of(table: str, columns: str) -> str:
    """The columns as a join names them."""
    return ", ".join(f"{table}.{column.strip()}" for column in columns.split(","))


class Usage(NamedTuple):
    """`queued`: items that wait for Drain. `short`: chunks that lack copies, counted up to the limit asked for."""

    buckets: int
    objects: int
    bytes: int
    queued: int
    short: int


def header(db: Database) -> tuple[int, int]:
    """(applied index, generation of the file): the first statement of each read transaction."""
    found = db.execute(
        "SELECT (SELECT v FROM meta WHERE k = 'applied'), (SELECT v FROM meta WHERE k = 'generation')"
    ).fetchone()
    return found[0] or 0, found[1] or 0


# Buckets

BUCKETS_KNOWN_MAX = 4096
"""Kept with one connection; 2 MB."""


class KnowingBuckets(sqlite3.Connection):
    """A connection that keeps what rows of `bucket` stand for: each request needs one, and they hardly change. Number of
    changes and bucket, by id."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.buckets: dict[BucketId, tuple[int, Bucket]] = {}


def bucket(db: Database, name: str) -> Bucket | None:
    """Its counters may be as old as its last other change: `bucket_counted` has them."""
    if isinstance(db, KnowingBuckets):
        row = db.execute("SELECT id, changed FROM bucket WHERE name = ?", (name,)).fetchone()
        if row is None:
            return None
        known = db.buckets.get(row[0])
        if known is not None and known[0] == row[1]:
            return known[1]
    return bucket_counted(db, name)


def bucket_counted(db: Database, name: str) -> Bucket | None:
    row = db.execute(f"SELECT {BUCKET_COLUMNS}, changed FROM bucket WHERE name = ?", (name,)).fetchone()
    if row is None:
        return None
    found = _bucket(row)
    if isinstance(db, KnowingBuckets):
        if len(db.buckets) >= BUCKETS_KNOWN_MAX:
            db.buckets.clear()
        db.buckets[found.id] = row[-1], found
    return found


def bucket_setting(db: Database, bucket_id: BucketId, name: str) -> bytes | None:
    """What was set for the bucket under that name."""
    row = db.execute(
        "SELECT document FROM bucket_setting WHERE bucket = ? AND name = ?", (bucket_id, name)).fetchone()
    return None if row is None else row[0]


def bucket_settings(db: Database, bucket_id: BucketId, beginning: str) -> tuple[int, list[tuple[str, bytes]]]:
    """The bucket's `access`, and its settings whose names (ASCII) begin so: what moves it and what it stands for."""
    row = db.execute("SELECT access FROM bucket WHERE id = ?", (bucket_id,)).fetchone()
    found = db.execute("SELECT name, document FROM bucket_setting WHERE bucket = ? AND name >= ? AND name < ?",
                       (bucket_id, beginning, beginning + "\x7f")).fetchall()
    return (0 if row is None else row[0]), found


def settings_page(
    db: Database, bucket_id: BucketId, beginning: str, after: str, limit: int,
) -> list[tuple[str, bytes]]:
    """The bucket's settings whose names (ASCII) begin so and come after `after`, in order of name."""
    return db.execute(
        "SELECT name, document FROM bucket_setting WHERE bucket = ? AND name >= ? AND name > ? AND name < ?"
        " ORDER BY name LIMIT ?", (bucket_id, beginning, after, beginning + "\x7f", limit)).fetchall()


def settings_named(db: Database, name: str, after: BucketId, limit: int) -> list[tuple[Bucket, bytes]]:
    """Buckets that have such a setting, of all accounts, in order of their ids; and the setting."""
    rows = db.execute(
        f"SELECT {_of('b', BUCKET_COLUMNS)}, s.document FROM bucket_setting AS s JOIN bucket AS b ON b.id = s.bucket"
        " WHERE s.name = ? AND s.bucket > ? ORDER BY s.bucket LIMIT ?", (name, after, limit)).fetchall()
    return [(_bucket(row[:-1]), row[-1]) for row in rows]


def buckets(db: Database, account: str | None, prefix: str = "", after: str = "", limit: int = 1000) -> list[Bucket]:
    """In order of name; of one account, or of all."""
    # Names are ASCII, so no name sorts above prefix + U+10FFFF.
    bounds = (max(prefix, after), after, prefix + "\U0010ffff", limit)
    where = "name >= ? AND name > ? AND name < ? ORDER BY name LIMIT ?"
    if account is None:
        rows = db.execute(f"SELECT {BUCKET_COLUMNS} FROM bucket WHERE {where}", bounds)
    else:
        rows = db.execute(f"SELECT {BUCKET_COLUMNS} FROM bucket WHERE account = ? AND {where}", (account, *bounds))
    return [_bucket(row) for row in rows.fetchall()]


def _bucket(row: tuple[Any, ...]) -> Bucket:
    return Bucket(id=row[0], name=row[1], account=row[2], owner=row[3], created_ms=row[4], region=row[5],
                  versioning=row[6], object_count=row[7], byte_count=row[8], copies=row[9], replication=row[10],
                  access=row[11], lifecycle=row[12], upload_bytes=row[13],
                  quota=None if row[14] is None and row[15] is None else Quota(row[14], row[15]), events=row[16] != 0)


# Versions

_OBJECT = f"SELECT {VERSION_COLUMNS} FROM object WHERE bucket = ? AND key = ?"


def current(db: Database, bucket_id: BucketId, key: str) -> ObjectVersion | None:
    """The newest version of a key. A delete marker is answered as such; None: there never was one, or all are gone."""
    raw = key.encode()
    row = db.execute(_OBJECT, (bucket_id, raw)).fetchone()
    if row is not None:
        return _version(key, raw, row)
    return _newest_marker(db, bucket_id, key, raw)


def _newest_marker(db: Database, bucket_id: BucketId, key: str, raw: bytes) -> ObjectVersion | None:
    row = db.execute(
        f"SELECT {VERSION_COLUMNS} FROM history WHERE bucket = ? AND key = ? ORDER BY ord DESC LIMIT 1",
        (bucket_id, raw),
    ).fetchone()
    return None if row is None else _version(key, raw, row)


def version(db: Database, bucket_id: BucketId, key: str, version_id: VersionId) -> ObjectVersion | None:
    raw = key.encode()
    newest = db.execute(_OBJECT, (bucket_id, raw)).fetchone()
    if newest is not None and newest[1] == version_id:
        return _version(key, raw, newest)
    row = db.execute(
        f"SELECT {VERSION_COLUMNS} FROM history WHERE bucket = ? AND key = ? AND version_id = ?"
        " ORDER BY ord DESC LIMIT 1",
        (bucket_id, raw, version_id),
    ).fetchone()
    if row is None:
        return None
    latest = newest is None and not db.execute(
        "SELECT 1 FROM history WHERE bucket = ? AND key = ? AND ord > ? LIMIT 1", (bucket_id, raw, row[0])
    ).fetchone()
    return _version(key, raw, row, latest)


def _version(key: str, raw: bytes, row: tuple[Any, ...], latest: bool = True) -> ObjectVersion:
    order, version_id, modified, content, size, etag, checksum, part_count, _, owner, attributes, crc = row
    if crc != version_seal(
        raw, order, version_id, modified, content, size, etag, checksum, part_count, owner, attributes
    ):
        raise damaged(f"version {version_id} of key {key!r}")
    return ObjectVersion(
        key=key, version_id=version_id, order=order, modified_ms=modified, delete_marker=not content, latest=latest,
        content=content, size=size, etag=etag, checksum=decode_checksum(checksum), part_count=part_count,
        attributes=decode_attributes(attributes), owner=owner,
    )


_OPENED = f"""
SELECT {_of("o", VERSION_COLUMNS)},
       c.kind, c.size, c.etag, c.parts, c.slices, c.crc,
       k.digest, k.session, k.sequence, k.size, k.locations, k.crc,
       (SELECT v FROM meta WHERE k = 'nodes'),
       b.id, b.changed
FROM bucket b LEFT JOIN object o ON o.bucket = b.id AND o.key = ?2 LEFT JOIN content c ON c.id = o.content
     LEFT JOIN chunk k ON k.digest = substr(c.slices, 1, 32)
WHERE b.name = ?1
"""
"""A bucket's state, the current object of a key, its content and its first chunk: all that a small GET needs, at once."""


def opened_at_once(
    db: Database, bucket_name: str, key: str
) -> tuple[Bucket | None, ObjectVersion | None, list[LocatedSlice]] | None:
    """What `opened` answers, if one statement can tell it: for small objects of buckets that this connection knows. None: ask
    `opened`."""
    raw = key.encode()
    row = db.execute(_OPENED, (bucket_name, raw)).fetchone()
    if row is None:
        return None, None, []
    version: ObjectVersion | None = None
    located: list[LocatedSlice] = []
    if row[0] is not None:
        version = _version(key, raw, row[:12])
        kind, size, etag, part_count, packed, crc = row[12:18]
        if kind is None or crc != content_seal(version.content, kind, size, etag, part_count, packed):
            raise damaged(f"content {version.content}")
        if kind == INLINE and len(packed) == SLICE_BYTES:      # the usual small object
            located = [located_slices.locate(unpack_slice(packed), row[18:24], node_names(row[24]))]
        elif size:
            return None
    known = db.buckets.get(row[25]) if isinstance(db, KnowingBuckets) else None
    if known is None or known[0] != row[26] or (version is None and known[1].versioning):
        return None
    return known[1], version, located


def opened(
    db: Database, bucket_name: str, key: str, limit_slices: int = 4
) -> tuple[Bucket | None, ObjectVersion | None, list[LocatedSlice]]:
    """The bucket, the key's current version (or delete marker), and its first slices."""
    found = opened_at_once(db, bucket_name, key)
    if found is not None:
        return found
    within = bucket(db, bucket_name)
    assert within is not None
    version = current(db, within.id, key)
    if version is None or not version.size:
        return within, version, []
    return within, version, slices(db, version.content, 0, version.size, limit_slices)


ALONE: frozenset[Callable[..., object]] = frozenset({bucket, opened_at_once})
"""Queries of one statement that gives one row at most: a transaction in themselves (consensus.reads)."""


# Contents

def slices(
    db: Database, content_id: ContentId, start: int, length: int, limit: int = SLICES_PER_CALL_MAX
) -> list[LocatedSlice]:
    """The slices of `length` bytes from `start`, cut to that range, at most `limit` (256) of them: the caller goes on
    after what it got. Empty: the content is gone, or ends before `start`."""
    found: list[LocatedSlice] = []
    names = node_names(db.execute("SELECT v FROM meta WHERE k = 'nodes'").fetchone())
    try:
        located_slices.collect(db, content_id, start, start + length, min(limit, SLICES_PER_CALL_MAX), names, found)
    except Corrupt:
        row = db.execute("SELECT refs FROM content WHERE id = ?", (content_id,)).fetchone()
        if row is not None and row[0]:
            raise
        return []                     # it is being taken apart, from its end: no damage, it is as good as gone
    return found


class Shape(NamedTuple):
    """How long a content's list of slices is, parts counted as very many; and whether it may grow: it is in pages, and one
    version alone refers to it."""

    slices: int
    grows: bool


LONG = 1 << 30


def shape(db: Database, content_id: ContentId) -> Shape:
    """Looks at a few rows only: a list of more than `SLICES_PER_CALL_MAX` pages is long, whatever is in them."""
    row = db.execute("SELECT refs, kind, length(slices) FROM content WHERE id = ?", (content_id,)).fetchone()
    if row is None or row[1] == PARTS:
        return Shape(LONG, False)
    if row[1] == INLINE:
        return Shape(row[2] // SLICE_BYTES, False)
    pages = db.execute("SELECT length(slices) FROM piece WHERE content = ? LIMIT ?",
                       (content_id, SLICES_PER_CALL_MAX)).fetchall()
    many = len(pages) == SLICES_PER_CALL_MAX
    return Shape(LONG if many else sum(page for (page,) in pages) // SLICE_BYTES, row[0] == 1)


def restored(db: Database, bucket_id: BucketId, named: list[tuple[str, VersionId]]) -> list[int]:
    """Until when these versions, by key and version id, are restored from an archive, one answer each in their order; 0 for one
    that never was, or is not there."""
    found = [version(db, bucket_id, key, version_id) for key, version_id in named]
    return [0 if each is None else each.attributes.restored_ms for each in found]


class RenamedBefore(NamedTuple):
    fingerprint: bytes
    version_id: VersionId | None


def renamed(db: Database, bucket_id: BucketId, token: str) -> RenamedBefore | None:
    """The rename that came with this token of a client's, within a day."""
    row = db.execute("SELECT fingerprint, version_id FROM renamed WHERE bucket = ? AND token = ?", (bucket_id, token)).fetchone()
    return None if row is None else RenamedBefore(*row)


def object_parts(db: Database, content_id: ContentId, after: int = 0, limit: int = 1000) -> list[Part]:
    """The parts of a completed object, from the one after number `after`. Empty if it wasn't made by multipart."""
    rows = db.execute(
        f"SELECT {_CONTENT_PART} FROM content_part WHERE content = ? AND number > ? ORDER BY number LIMIT ?",
        (content_id, after, limit),
    ).fetchall()
    return [_part(content_id, row) for row in rows]


def part_of(db: Database, content_id: ContentId, number: int) -> Part | None:
    """The part with that number, as it was uploaded, of a completed object."""
    row = db.execute(f"SELECT {_CONTENT_PART} FROM content_part WHERE content = ? AND number = ?",
                     (content_id, number)).fetchone()
    return None if row is None else _part(content_id, row)


_CONTENT_PART = "number, part_content, size, etag, modified, checksum, crc, start"


def _part(owner: int, row: tuple[Any, ...]) -> Part:
    number, content, size, etag, modified, checksum, crc, start = row
    if crc != part_seal(owner, number, content, size, etag, checksum):
        raise damaged(f"part {number} of {owner}")
    return Part(number=number, size=size, etag=etag, modified_ms=modified, content=content,
                checksum=decode_checksum(checksum), start=start)


# Uploads

def upload(db: Database, bucket_id: BucketId, key: str, upload_id: UploadId) -> Upload | None:
    """An upload in progress, or one that was completed within the last day."""
    at = (bucket_id, key.encode(), upload_id)
    named = "WHERE bucket = ? AND key = ? AND upload_id = ?"
    row = db.execute(
        f"SELECT initiated, ord, attributes, owner, algorithm, kind, NULL, '', NULL, initiator, said FROM upload {named}", at
    ).fetchone()
    done = row is None
    if done:
        row = db.execute(
            "SELECT initiated, ord, attributes, owner, algorithm, kind, version_id, etag, checksum, '', said"
            f" FROM completed {named}",
            at,
        ).fetchone()
        if row is None:
            return None
    return Upload(
        bucket=bucket_id, key=key, upload_id=upload_id, initiated_ms=row[0], order=row[1],
        attributes=decode_attributes(row[2]), owner=row[3], checksum_algorithm=row[4], checksum_kind=row[5],
        completed_version=(row[6] or NULL_VERSION) if done else None, completed_etag=row[7],
        completed_checksum=decode_checksum(row[8]), initiator=row[9], said=decode_pairs(row[10]),
    )


def parts(
    db: Database, bucket_id: BucketId, key: str, upload_id: UploadId, after: int = 0, limit: int = 1000
) -> list[Part]:
    """The finished parts of an upload in progress, from the one after number `after`."""
    row = db.execute("SELECT ord FROM upload WHERE bucket = ? AND key = ? AND upload_id = ?",
                     (bucket_id, key.encode(), upload_id)).fetchone()
    if row is None:
        return []
    rows = db.execute(
        "SELECT number, content, size, etag, modified, checksum, crc, 0 FROM part WHERE upload = ? AND number > ?"
        " ORDER BY number LIMIT ?",
        (row[0], after, limit),
    ).fetchall()
    return [_part(row[0], found) for found in rows]


# Listings: see consensus.listing

def list_objects(db: Database, bucket_id: BucketId, prefix: str, delimiter: str, after: str, limit: int) -> Page:
    """Current objects whose keys begin with `prefix`, from after `after` on: at most `limit` entries."""
    return listing.list_objects(db, bucket_id, prefix, delimiter, after, limit)


def list_versions(
    db: Database, bucket_id: BucketId, prefix: str, delimiter: str, key_marker: str, version_marker: VersionId | None,
    limit: int,
) -> Page:
    """All versions and delete markers: keys ascending, newest first within a key."""
    return listing.list_versions(db, bucket_id, prefix, delimiter, key_marker, version_marker, limit)


def uploads(
    db: Database, bucket_id: BucketId, prefix: str, delimiter: str, key_marker: str, upload_marker: UploadId | None,
    limit: int,
) -> UploadPage:
    """Uploads in progress, by key and then by upload id."""
    return listing.list_uploads(db, bucket_id, prefix, delimiter, key_marker, upload_marker, limit)


# The cluster, and all of it


def members(db: Database) -> list[Member]:
    """The metadata members, as the last configuration that was applied says; none in a store that never was a cluster."""
    return [Member(name=name, address=address, incarnation=incarnation, voter=bool(voter))
            for name, address, incarnation, voter in
            db.execute("SELECT name, address, incarnation, voter FROM member ORDER BY name").fetchall()]


def join_tokens(db: Database) -> list[JoinToken]:
    """In the order in which they were made."""
    return [JoinToken(id=row[0], hash=row[1], created_ms=row[2], expires_ms=row[3], spent_by=row[4], spent_at_ms=row[5])
            for row in db.execute("SELECT id, hash, created, expires, spent_by, spent_at FROM join_token"
                                  " ORDER BY created, id").fetchall()]


def duties(db: Database) -> list[Duty]:
    """Of gateways, by name: those whose lease is over too, as long as nobody else has taken them."""
    return [Duty(name=name, holder=holder, since_ms=since, expires_ms=expires) for name, holder, since, expires in
            db.execute("SELECT name, holder, since, expires FROM duty ORDER BY name").fetchall()]


def defaults(db: Database) -> tuple[int, str] | None:
    """The cluster's `copies` and `replication`; None while the log says nothing about them."""
    found = dict(db.execute("SELECT k, v FROM meta WHERE k IN ('copies', 'replication')").fetchall())
    return (found["copies"], found["replication"]) if found else None


def lineage(db: Database) -> tuple[int, str]:
    """(applied index, mark of the last restore from a backup or ""): when the index falls or the mark changes, this is
    another history than before, and whoever remembers anything of the old one compares it anew."""
    mark = db.execute("SELECT v FROM meta WHERE k = 'restored'").fetchone()
    return header(db)[0], "" if mark is None else str(mark[0])


def backups(db: Database) -> list[Backup]:
    """Kept ones and those that are being made, oldest first."""
    return [Backup(name=name, created_ms=created, index=index) for name, created, index in
            db.execute("SELECT name, created, idx FROM backup ORDER BY ord").fetchall()]


def usage(db: Database, short_limit: int = 10_000) -> Usage:
    """Totals. Reads the bucket table, not the objects."""
    totals = db.execute("SELECT count(*), coalesce(sum(objects), 0), coalesce(sum(bytes), 0) FROM bucket").fetchone()
    queued = db.execute("SELECT count(*) FROM (SELECT 1 FROM queue LIMIT 100000)").fetchone()[0]
    short = db.execute(
        "SELECT count(*) FROM (SELECT 1 FROM chunk WHERE short <> 0 AND short > 0 LIMIT ?)", (short_limit,)
    ).fetchone()[0]
    return Usage(totals[0], totals[1], totals[2], queued, short)
