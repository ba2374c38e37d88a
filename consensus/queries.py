"""Questions to the metadata: plain functions on a read-only SQLite connection, each within one read transaction.

The caller (consensus.client, or the server for hosts without a member) begins the transaction, reads `header` first,
checks that it is not behind the read index, calls one of these, and ends the transaction, all without waiting. A row
that does not fit its checksum raises Corrupt. Every public function here, those imported from accounts.py and
garbage.py too, is one that a process without a member on its host may ask for by name.
"""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from consensus import listing
from consensus import slices as located_slices
from consensus.accounts import access_key as access_key
from consensus.accounts import access_keys as access_keys
from consensus.accounts import account_usage as account_usage
from consensus.accounts import identities_version as identities_version
from consensus.accounts import keys_of as keys_of
from consensus.accounts import policies_of as policies_of
from consensus.accounts import user as user
from consensus.accounts import user_policies as user_policies
from consensus.accounts import users as users
from consensus.core.errors import Corrupt
from consensus.core.ids import NULL_VERSION, BucketId, ContentId, Digest, Generation, NodeId, UploadId, VersionId
from consensus.core.model import (
    Backup,
    Bucket,
    JoinToken,
    LocatedSlice,
    Member,
    NodeInfo,
    ObjectVersion,
    Page,
    Part,
    Upload,
    UploadPage,
)
from consensus.garbage import gc_report as gc_report
from consensus.garbage import held_contents as held_contents
from consensus.garbage import lingering_contents as lingering_contents
from consensus.garbage import open_uploads as open_uploads
from consensus.garbage import staged_contents as staged_contents
from consensus.rows import (
    COPY_BYTES,
    INLINE,
    NODE_COLUMNS,
    SLICE_BYTES,
    UNCOUNTED,
    chunk_seal,
    content_seal,
    damaged,
    decode_attributes,
    decode_checksum,
    decode_locations,
    node_info,
    part_seal,
    unpack_slice,
    version_seal,
)
from consensus.slices import node_names
from consensus.tables import VERSION_COLUMNS

Database = sqlite3.Connection
ChunkState = Literal["listed", "short", "passed", "pending"]

SLICES_PER_CALL_MAX = 256
"""One call stays near a millisecond; who wants more calls again."""

BUCKET_COLUMNS = "id, name, account, owner, created, region, versioning, objects, bytes, copies, replication, access"


class Released(NamedTuple):
    """Copies that a node holds and that were listed no more at some moment. `after` is where the next call goes on."""

    copies: tuple[tuple[Digest, Generation], ...]
    after: int


class ShortChunk(NamedTuple):
    """A chunk that lacks copies, or has too many. `nodes`: all that may be read, also of nodes that are leaving. `place`: where
    a listing goes on after it."""

    digest: Digest
    generation: Generation
    size: int
    nodes: tuple[NodeId, ...]
    wanted: int
    place: tuple[int, bytes]


class LiveChunk(NamedTuple):
    """The live row of a digest, as one node asks about it: whether that node is listed, whether copies are wanted."""

    generation: Generation
    size: int
    listed: bool
    short: bool


class ListedCopies(NamedTuple):
    """Copies for which a node is listed. `after` is where the next call goes on; None: there is no more."""

    copies: tuple[tuple[Digest, Generation], ...]
    after: bytes | None


class ChunkPlace(NamedTuple):
    """A chunk's row: what is live under this digest, and which nodes are said to hold it."""

    digest: Digest
    generation: Generation
    size: int
    nodes: tuple[NodeId, ...]
    wanted: int


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

def bucket(db: Database, name: str) -> Bucket | None:
    row = db.execute(f"SELECT {BUCKET_COLUMNS} FROM bucket WHERE name = ?", (name,)).fetchone()
    return None if row is None else _bucket(row)


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
                  versioning=row[6], object_count=row[7], byte_count=row[8], copies=row[9], replication=row[10], access=row[11])


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
SELECT {", ".join(f"b.{name.strip()}" for name in BUCKET_COLUMNS.split(","))},
       {", ".join(f"o.{name.strip()}" for name in VERSION_COLUMNS.split(","))},
       c.kind, c.size, c.etag, c.parts, c.slices, c.crc,
       k.digest, k.session, k.sequence, k.size, k.locations, k.crc,
       (SELECT v FROM meta WHERE k = 'nodes')
FROM bucket b LEFT JOIN object o ON o.bucket = b.id AND o.key = ?2 LEFT JOIN content c ON c.id = o.content
     LEFT JOIN chunk k ON k.digest = substr(c.slices, 1, 32)
WHERE b.name = ?1
"""
"""A bucket, the current object of a key, its content and its first chunk: all that a small GET needs, at once."""


def opened_at_once(
    db: Database, bucket_name: str, key: str
) -> tuple[Bucket | None, ObjectVersion | None, list[LocatedSlice]] | None:
    """What `opened` answers, if one statement can tell it: for all small objects. None: ask `opened`."""
    raw = key.encode()
    row = db.execute(_OPENED, (bucket_name, raw)).fetchone()
    if row is None:
        return None, None, []
    bucket = _bucket(row)
    if row[12] is None:
        return None if bucket.versioning else (bucket, None, [])
    version = _version(key, raw, row[12:24])
    kind, size, etag, part_count, packed, crc = row[24:30]
    if kind is None or crc != content_seal(version.content, kind, size, etag, part_count, packed):
        raise damaged(f"content {version.content}")
    if kind == INLINE and len(packed) == SLICE_BYTES:      # the usual small object
        return bucket, version, [located_slices.locate(unpack_slice(packed), row[30:36], node_names(row[36]))]
    return None if size else (bucket, version, [])


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
        f"SELECT initiated, ord, attributes, owner, algorithm, kind, NULL, '', NULL FROM upload {named}", at
    ).fetchone()
    done = row is None
    if done:
        row = db.execute(
            "SELECT initiated, ord, attributes, owner, algorithm, kind, version_id, etag, checksum"
            f" FROM completed {named}",
            at,
        ).fetchone()
        if row is None:
            return None
    return Upload(
        bucket=bucket_id, key=key, upload_id=upload_id, initiated_ms=row[0], order=row[1],
        attributes=decode_attributes(row[2]), owner=row[3], checksum_algorithm=row[4], checksum_kind=row[5],
        completed_version=(row[6] or NULL_VERSION) if done else None, completed_etag=row[7],
        completed_checksum=decode_checksum(row[8]),
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


# Storage nodes and chunks

def nodes(db: Database) -> list[NodeInfo]:
    return [node_info(row) for row in db.execute(f"SELECT {NODE_COLUMNS} FROM node ORDER BY id").fetchall()]


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


def defaults(db: Database) -> tuple[int, str] | None:
    """The cluster's `copies` and `replication`; None while the log says nothing about them."""
    found = dict(db.execute("SELECT k, v FROM meta WHERE k IN ('copies', 'replication')").fetchall())
    return (found["copies"], found["replication"]) if found else None


def chunk_states(
    db: Database, node: NodeId, copies: Sequence[tuple[Digest, Generation]]
) -> list[ChunkState]:
    """What a node is to do about copies that it stored before this read. In their order, one each:

    listed   it is counted on for this copy: keep it
    short    the generation is live, lacks copies and doesn't list this node: announce it
    passed   not listed, and no commit can bring the generation any more (it has been carried out, the mark has passed it,
             or its session has ended): it may go
    pending  a commit may still bring it: ask again later
    """
    names = node_names(db.execute("SELECT v FROM meta WHERE k = 'nodes'").fetchone())
    uncounted = _uncounted(db)
    own = {number for number, name in names.items() if name == node}
    lows: dict[int, int | None] = {}
    answers: list[ChunkState] = []
    for digest, (session, sequence) in copies:
        row = db.execute(
            "SELECT session, sequence, wanted, locations, size, crc FROM chunk WHERE digest = ?", (digest,)
        ).fetchone()
        if row is not None:
            if row[5] != chunk_seal(digest, row[0], row[1], row[4], row[3]):
                raise damaged(f"chunk {digest.hex()}")
            if (row[0], row[1]) == (session, sequence):
                valid = [number for number in decode_locations(row[3]) if number in names]
                if own.intersection(valid):
                    answers.append("listed")
                    continue
                if sum(number not in uncounted for number in valid) < row[2]:
                    # A node that isn't known can't announce yet, and one that is being taken out isn't to.
                    answers.append("short" if own - uncounted else "pending")
                    continue
        if session not in lows:
            low = db.execute("SELECT low FROM session WHERE id = ?", (session,)).fetchone()
            lows[session] = None if low is None else low[0]
        mark = lows[session]
        over = mark is None or sequence < mark or _has_result(db, session, sequence)
        answers.append("passed" if over else "pending")
    return answers


def _has_result(db: Database, session: int, sequence: int) -> bool:
    """Whether the sequence was carried out already: its repeats change nothing, so it brings no chunk any more. An owner
    that has become idle tells its mark only half a second later: until then its last uploads would seem to be under way."""
    found = db.execute("SELECT 1 FROM result WHERE session = ? AND sequence = ?", (session, sequence)).fetchone()
    return found is not None


def located(db: Database, digest: Digest) -> tuple[Generation, tuple[NodeId, ...]] | None:
    """The live generation of a chunk and who holds it now: for a reader to whom all places it knew have failed."""
    row = db.execute("SELECT session, sequence, size, locations, crc FROM chunk WHERE digest = ?", (digest,)).fetchone()
    if row is None:
        return None
    session, sequence, size, locations, crc = row
    if crc != chunk_seal(digest, session, sequence, size, locations):
        raise damaged(f"chunk {digest.hex()}")
    names = node_names(db.execute("SELECT v FROM meta WHERE k = 'nodes'").fetchone())
    return Generation(session, sequence), tuple(names[number] for number in decode_locations(locations) if number in names)


def live_chunks(
    db: Database, node: NodeId, digests: Sequence[Digest]
) -> list[LiveChunk | None]:
    """What is live under these digests, one answer each in their order; None where nothing is."""
    names = node_names(db.execute("SELECT v FROM meta WHERE k = 'nodes'").fetchone())
    uncounted = _uncounted(db)
    answers: list[LiveChunk | None] = []
    for digest in digests:
        row = db.execute(
            "SELECT session, sequence, size, wanted, locations, crc FROM chunk WHERE digest = ?", (digest,)
        ).fetchone()
        if row is None:
            answers.append(None)
            continue
        session, sequence, size, wanted, locations, crc = row
        if crc != chunk_seal(digest, session, sequence, size, locations):
            raise damaged(f"chunk {digest.hex()}")
        valid = [number for number in decode_locations(locations) if number in names]
        listed = any(names[number] == node for number in valid)
        lacking = sum(number not in uncounted for number in valid) < wanted
        answers.append(LiveChunk(Generation(session, sequence), size, listed, lacking))
    return answers


def listed_on(db: Database, node: NodeId, after: bytes = b"", limit: int = 1000) -> ListedCopies:
    """The copies that this node is listed for, in order of digest, among the `limit` rows that follow `after`: so a page
    may be empty and yet not the last."""
    names = node_names(db.execute("SELECT v FROM meta WHERE k = 'nodes'").fetchone())
    own = {number for number, name in names.items() if name == node}
    rows = db.execute(
        "SELECT digest, session, sequence, size, locations, crc FROM chunk WHERE digest > ? ORDER BY digest LIMIT ?",
        (after, limit),
    ).fetchall()
    copies = []
    for digest, session, sequence, size, locations, crc in rows:
        if crc != chunk_seal(digest, session, sequence, size, locations):
            raise damaged(f"chunk {digest.hex()}")
        if own.intersection(decode_locations(locations)):
            copies.append((digest, Generation(session, sequence)))
    return ListedCopies(tuple(copies), rows[-1][0] if len(rows) == limit else None)


def lineage(db: Database) -> tuple[int, str]:
    """(applied index, mark of the last restore from a backup or ""): when the index falls or the mark changes, this is
    another history than before, and whoever remembers anything of the old one compares it anew."""
    mark = db.execute("SELECT v FROM meta WHERE k = 'restored'").fetchone()
    return header(db)[0], "" if mark is None else str(mark[0])


def released(db: Database, node: NodeId, after: int = 0, limit: int = 300) -> Released:
    """Hints for this node, from after `after` on: about `limit`, more only if one command left more. A node remembers
    how far it got; hints older than a day are gone, and it compares its whole inventory instead."""
    number = db.execute("SELECT number FROM node WHERE id = ?", (node,)).fetchone()
    copies: list[tuple[Digest, Generation]] = []
    if number is not None:
        for id, packed in db.execute(
            "SELECT id, copies FROM released WHERE node = ? AND id > ? ORDER BY id LIMIT ?", (number[0], after, limit)
        ).fetchall():
            if len(copies) >= limit:
                break
            copies += [(Digest(packed[at:at + 32]), Generation.unpack(packed[at + 32:at + COPY_BYTES]))
                       for at in range(0, len(packed), COPY_BYTES)]
            after = id
    return Released(tuple(copies), after)


def _uncounted(db: Database) -> frozenset[int]:
    """Numbers of nodes that are leaving or lost."""
    return frozenset(number for (number,) in db.execute(UNCOUNTED).fetchall())


def under_replicated(db: Database, limit: int = 1000, after: tuple[int, bytes] = (0, b"")) -> list[ShortChunk]:
    """Live chunks of which fewer copies count than are wanted: the queue of replication and repair. Those with the fewest
    left come first; go on with `place` of the last one."""
    return _unequal(db, "short > 0 AND (short, digest) > (?, ?)", after, limit)


def over_replicated(db: Database, limit: int = 1000, after: tuple[int, bytes] = (-1 << 31, b"")) -> list[ShortChunk]:
    """Those of which there are more copies than are wanted, so that somebody may give one back."""
    return _unequal(db, "short < 0 AND (short, digest) > (?, ?)", after, limit)


def _unequal(db: Database, where: str, after: tuple[int, bytes], limit: int) -> list[ShortChunk]:
    names = node_names(db.execute("SELECT v FROM meta WHERE k = 'nodes'").fetchone())
    rows = db.execute(
        f"SELECT digest, session, sequence, size, locations, wanted, short FROM chunk WHERE short <> 0 AND {where}"
        " ORDER BY short, digest LIMIT ?", (*after, limit)).fetchall()
    return [
        ShortChunk(row[0], Generation(row[1], row[2]), row[3],
                   tuple(names[number] for number in decode_locations(row[4]) if number in names), row[5], (row[6], row[0]))
        for row in rows
    ]


class Unequal(NamedTuple):
    """How many chunks lack copies, by how many are left that count, and their bytes; how many have too many. Counted up to a
    limit each."""

    short: dict[int, int]
    short_bytes: int
    over: int


def unequal(db: Database, limit: int = 100_000) -> Unequal:
    rows = db.execute("SELECT short - 1, count(*), sum(size) FROM (SELECT short, size FROM chunk WHERE short <> 0 AND short > 0"
                      " LIMIT ?) GROUP BY short", (limit,)).fetchall()
    over = db.execute("SELECT count(*) FROM (SELECT 1 FROM chunk WHERE short <> 0 AND short < 0 LIMIT ?)", (limit,)).fetchone()[0]
    return Unequal({left: count for left, count, _ in rows}, sum(row[2] for row in rows), over)


_PLACE = "SELECT digest, session, sequence, size, locations, wanted FROM chunk"


def chunk_places(db: Database, after: bytes = b"", limit: int = 1000) -> list[ChunkPlace]:
    """Chunk rows in order of digest, from after `after` on. Seals are not looked at: whoever compares wants all rows."""
    names = node_names(db.execute("SELECT v FROM meta WHERE k = 'nodes'").fetchone())
    rows = db.execute(f"{_PLACE} WHERE digest > ? ORDER BY digest LIMIT ?", (after, limit)).fetchall()
    return [_place(row, names) for row in rows]


def chunk_place(db: Database, digest: Digest) -> ChunkPlace | None:
    row = db.execute(f"{_PLACE} WHERE digest = ?", (digest,)).fetchone()
    return None if row is None else _place(row, node_names(db.execute("SELECT v FROM meta WHERE k = 'nodes'").fetchone()))


def _place(row: tuple[Any, ...], names: Mapping[int, NodeId]) -> ChunkPlace:
    digest, session, sequence, size, locations, wanted = row
    try:
        numbers = decode_locations(locations)
    except msgspec.MsgspecError:         # the row is damaged, and tells of no place
        numbers = ()
    return ChunkPlace(digest, Generation(session, sequence), size,
                      tuple(names[number] for number in numbers if number in names), wanted)


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
