"""Slow checks of the whole metadata, for tests and the scrub: counts recounted, seals checked, a hash over all rows.

`recount` answers sentences, one for each thing that doesn't fit; none: the metadata is consistent with itself.
"""

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator
from itertools import chain, islice

import msgspec

from consensus import tally
from consensus.apply import queue
from consensus.apply.backups import Needs
from consensus.core.ids import DIGEST_BYTES
from consensus.rows import (
    I63_MAX,
    INLINE,
    PARTS,
    PIECES,
    SLICE_BYTES,
    UNCOUNTED,
    chunk_seal,
    content_seal,
    decode_locations,
    part_seal,
    piece_seal,
    shortness,
    unpack_slices,
    version_seal,
)
from consensus.tables import TABLES, VERSION_COLUMNS

Database = sqlite3.Connection

LOCAL_META = ("generation", "schema")
"""Meta rows that may differ between members."""

LOCAL_COLUMNS = frozenset((("bucket", "changed"),))
"""Columns that may: a member that was upgraded later has counted from a later time on. No command reads them."""


def recount(db: Database, limit: int | None = None) -> list[str]:
    """What doesn't fit, at most `limit` sentences of it. Reads every row; counts are kept in temporary tables
    (consensus.tally), so memory is bounded. The connection is in no transaction, or in one that only reads."""
    tally.clear(db)
    found = chain(_versions(db), _references(db), _chunks(db), _shapes(db), _queue(db), _backups(db), _settings(db),
                  _events(db))
    return list(islice(found, limit))


class Affected(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a key, or a part of an upload, that refers to certain chunks."""

    bucket: str
    key: str
    version_id: str = ""
    upload_id: str = ""
    part: int = 0


AFFECTED_MAX = 10_000


def affected(db: Database, digests: Collection[bytes], limit: int = AFFECTED_MAX) -> tuple[int, list[Affected]]:
    """How many versions and parts refer to any of these chunks, and the first `limit` of them in order of bucket and key.
    Reads all slices and all versions, unless there are no digests. What only waits to be taken apart is not counted."""
    if not digests:
        return 0, []
    db.execute("CREATE TEMP TABLE IF NOT EXISTS hit (content INTEGER PRIMARY KEY)")
    db.execute("DELETE FROM temp.hit")
    for table in ("SELECT id, slices FROM content WHERE slices IS NOT NULL", "SELECT content, slices FROM piece"):
        for content, packed in db.execute(table):
            if any(packed[at:at + DIGEST_BYTES] in digests for at in range(0, len(packed), SLICE_BYTES)):
                db.execute("INSERT OR IGNORE INTO temp.hit VALUES (?)", (content,))
    db.execute("INSERT OR IGNORE INTO temp.hit SELECT content FROM content_part WHERE part_content IN temp.hit")
    found = (
        "SELECT b.name, v.key, v.version_id, '', 0 FROM object v JOIN bucket b ON b.id = v.bucket"
        " WHERE v.content IN temp.hit UNION ALL"
        " SELECT b.name, v.key, v.version_id, '', 0 FROM history v JOIN bucket b ON b.id = v.bucket"
        " WHERE v.content IN temp.hit UNION ALL"
        " SELECT b.name, u.key, '', u.upload_id, p.number FROM part p JOIN upload u ON u.ord = p.upload"
        " JOIN bucket b ON b.id = u.bucket WHERE p.content IN temp.hit"
    )
    count: int = db.execute(f"SELECT count(*) FROM ({found})").fetchone()[0]
    rows = db.execute(f"{found} ORDER BY 1, 2, 3, 4, 5 LIMIT ?", (limit,)).fetchall()
    db.execute("DELETE FROM temp.hit")
    return count, [Affected(bucket=bucket, key=key.decode(errors="replace"), version_id=version_id, upload_id=upload_id,
                            part=part) for bucket, key, version_id, upload_id, part in rows]


def logical_hash(db: Database) -> str:
    """Equal on members that have applied the same log, whatever their files look like."""
    total = hashlib.sha256()
    for table in TABLES:
        name = table._meta.table_name
        columns = ", ".join(f'"{column}"' for column in table._meta.columns if (name, column) not in LOCAL_COLUMNS)
        where = f"WHERE k NOT IN ({', '.join(repr(k) for k in LOCAL_META)})" if name == "meta" else ""
        total.update(name.encode())
        for row in db.execute(f"SELECT {columns} FROM {name} {where} ORDER BY {columns}"):
            total.update(repr(row).encode())
    return total.hexdigest()


def _versions(db: Database) -> Iterator[str]:
    objects: Counter[int] = Counter()
    sizes: Counter[int] = Counter()
    for table, marker in (("object", "0"), ("history", "marker")):
        for row in tally.gently(db.execute(f"SELECT bucket, key, {marker}, {VERSION_COLUMNS} FROM {table}")):
            bucket, key, is_marker, order, version_id, modified, content, size, etag, checksum, parts = row[:11]
            _, owner, attributes, crc = row[11:]
            if crc != version_seal(key, order, version_id, modified, content, size, etag, checksum, parts, owner,
                                   attributes):
                yield f"{table} {bucket} {key!r} {order}: seal"
            if bool(is_marker) == bool(content):
                yield f"{table} {bucket} {key!r} {order}: a marker with a content, or a version without"
            if not is_marker:
                objects[bucket] += 1
                sizes[bucket] += size
                found = db.execute("SELECT size, etag, parts, refs FROM content WHERE id = ?", (content,)).fetchone()
                if found is None or found[:3] != (size, etag, parts) or found[3] < 1:
                    yield f"{table} {bucket} {key!r} {order}: its content {content} is {found}"
    parts = dict(db.execute("SELECT bucket, sum(bytes) FROM upload GROUP BY bucket").fetchall())
    for bucket, count, size, uploading in db.execute("SELECT id, objects, bytes, uploading FROM bucket").fetchall():
        if (count, size, uploading) != (objects.pop(bucket, 0), sizes.pop(bucket, 0), parts.pop(bucket, 0)):
            yield f"bucket {bucket}: counters {count}, {size}, {uploading}"
    yield from _uploads(db)
    yield from (f"versions of bucket {bucket}, which is not there" for bucket in objects)
    for bucket, key in db.execute(
        "SELECT h.bucket, h.key FROM history h LEFT JOIN object o ON o.bucket = h.bucket AND o.key = h.key"
        " GROUP BY h.bucket, h.key HAVING o.key IS NULL AND NOT max(h.ord * 2 + h.marker) & 1 OR o.ord < max(h.ord)"
    ):
        yield f"key {bucket} {key!r}: its newest version is not the current one"
    for bucket, key in db.execute(
        "SELECT bucket, key FROM (SELECT bucket, key, version_id FROM object UNION ALL"
        " SELECT bucket, key, version_id FROM history) WHERE version_id = 'null' GROUP BY 1, 2 HAVING count(*) > 1"
    ):
        yield f"key {bucket} {key!r}: two null versions"


def _uploads(db: Database) -> Iterator[str]:
    """What uploads say is the sum of what they have."""
    for upload, size, counted in db.execute(
        "SELECT u.upload_id, u.bytes, coalesce(sum(p.size), 0) AS n FROM upload u LEFT JOIN part p ON p.upload = u.ord"
        " GROUP BY u.ord HAVING n != u.bytes"
    ):
        yield f"upload {upload}: {size} bytes recorded, {counted} counted"


def _references(db: Database) -> Iterator[str]:
    tally.references(db)
    for content, refs, counted, waiting, staged, held in db.execute(
        "SELECT * FROM (SELECT c.id, c.refs, coalesce(k.n, 0) AS n, w.content IS NOT NULL AS waiting,"
        " s.content IS NOT NULL AS staged, h.content IS NOT NULL AS held FROM content c"
        " LEFT JOIN temp.counted k ON k.content = c.id LEFT JOIN temp.waiting w ON w.content = c.id"
        " LEFT JOIN staged s ON s.content = c.id LEFT JOIN held h ON h.content = c.id)"
        " WHERE refs != n OR waiting + staged + held != (refs = 0)"
    ):
        if refs != counted:
            yield f"content {content}: {refs} references recorded, {counted} counted"
        if waiting + staged + held != (refs == 0):
            yield (f"content {content}: {refs} references, waiting {bool(waiting)}, staged {bool(staged)}, "
                   f"held {bool(held)}")
    for (content,) in db.execute("SELECT content FROM temp.counted WHERE content NOT IN (SELECT id FROM content)"):
        yield f"content {content} is referred to, but not there"


def _settings(db: Database) -> Iterator[str]:
    for (bucket,) in db.execute(
        "SELECT DISTINCT bucket FROM bucket_setting WHERE bucket NOT IN (SELECT id FROM bucket)"
        " AND bucket NOT IN (SELECT a FROM queue WHERE kind = ?)", (queue.BUCKET,)
    ):
        yield f"settings of bucket {bucket}, which is not there"


def _events(db: Database) -> Iterator[str]:
    for target, said, counted in db.execute(tally.EVENTS):
        if said != counted:
            yield f"target {target}: {said} events recorded, {counted} counted"
    for (bucket,) in db.execute(
        "SELECT id FROM bucket b WHERE events AND NOT EXISTS (SELECT 1 FROM bucket_setting s WHERE s.bucket = b.id"
        " AND s.name = 'notification')"
    ):
        yield f"bucket {bucket} tells of its changes, but it is not known whom"


def _chunks(db: Database) -> Iterator[str]:
    tally.slices(db)
    names = {row[0] for row in db.execute("SELECT number FROM node")}
    uncounted = {row[0] for row in db.execute(UNCOUNTED)}
    reviewing = db.execute("SELECT 1 FROM queue WHERE kind = ?", (queue.REVIEW,)).fetchone()
    for digest, session, sequence, size, refs, wanted, short, locations, crc, counted, reached in tally.gently(db.execute(
        "SELECT c.digest, session, sequence, c.size, refs, wanted, short, locations, crc, coalesce(k.n, 0),"
        " coalesce(k.size, 0) FROM chunk c LEFT JOIN temp.sliced k ON k.digest = c.digest"
    )):
        name = digest.hex()[:12]
        if crc != chunk_seal(digest, session, sequence, size, locations):
            yield f"chunk {name}: seal"
            continue                # its locations may be anything
        if refs != counted:
            yield f"chunk {name}: {refs} references recorded, {counted} counted"
        if size < reached:
            yield f"chunk {name}: a slice goes beyond its {size} bytes"
        valid = [number for number in decode_locations(locations) if number in names]
        if len(valid) != len(set(valid)) or (not reviewing and short != shortness(valid, names, uncounted, wanted)):
            yield f"chunk {name}: locations {valid}, wanted {wanted}, short {short}"
    for (digest,) in db.execute("SELECT digest FROM temp.sliced WHERE digest NOT IN (SELECT digest FROM chunk)"):
        yield f"chunk {digest.hex()[:12]} is referred to, but not there"


def _shapes(db: Database) -> Iterator[str]:
    """Contents add up to their size; nothing lies around without its owner."""
    for content, refs, kind, size, etag, parts, slices, crc, waiting in tally.gently(db.execute(
        "SELECT id, refs, kind, size, etag, parts, slices, crc, w.content FROM content c"
        " LEFT JOIN temp.waiting w ON w.content = c.id"
    )):
        if crc != content_seal(content, kind, size, etag, parts, slices):
            yield f"content {content}: seal"
        if (slices is not None) != (kind == INLINE):
            yield f"content {content} of kind {kind} has the wrong slices"
        if refs == 0 and waiting is not None:
            continue                # it may be half taken apart
        found = 0
        if kind == INLINE and slices is not None:
            found = sum(piece.length for piece in unpack_slices(slices))
        elif kind == PIECES:
            for start, packed, seal in db.execute(
                "SELECT start, slices, crc FROM piece WHERE content = ? ORDER BY start", (content,)
            ):
                if start != found or seal != piece_seal(content, start, packed):
                    yield f"piece {content} {start}: seal, or a gap"
                found += sum(piece.length for piece in unpack_slices(packed))
        elif kind == PARTS:
            rows = db.execute(
                "SELECT number, start, part_content, size, etag, checksum, crc FROM content_part WHERE content = ?"
                " ORDER BY number",
                (content,),
            ).fetchall()
            for number, start, part_content, part_size, part_etag, checksum, seal in rows:
                if start != found or seal != part_seal(content, number, part_content, part_size, part_etag, checksum):
                    yield f"part {content} {number}: seal, or a gap"
                found += part_size
            if len(rows) != parts:
                yield f"content {content}: {len(rows)} parts, {parts} recorded"
        if found != size:
            yield f"content {content}: {found} bytes, {size} recorded"
    for key, user in db.execute("SELECT access_key, user FROM access_key WHERE user NOT IN (SELECT name FROM user)"):
        yield f"access key {key} of user {user!r}, who is not there"
    for name, user in db.execute("SELECT name, user FROM user_policy WHERE user NOT IN (SELECT name FROM user)"):
        yield f"policy {name!r} of user {user!r}, who is not there"
    for table in ("piece", "content_part", "staged"):
        for (owner,) in db.execute(
            f"SELECT DISTINCT content FROM {table} WHERE content NOT IN (SELECT id FROM content)"
        ):
            yield f"{table} of content {owner}, which is not there"


def _queue(db: Database) -> Iterator[str]:
    """What has lost its owner is waiting to be taken apart."""
    waiting = set(db.execute("SELECT kind, a FROM queue").fetchall())
    for kind, table, column, owners, id in queue.OWNED:
        for (owner,) in db.execute(
            f"SELECT DISTINCT {column} FROM {table} WHERE {column} NOT IN (SELECT {id} FROM {owners})"
        ):
            if (kind, owner) not in waiting:
                yield f"{table} of {owners} {owner}, which is gone and not in the queue"


def _backups(db: Database) -> Iterator[str]:
    """An open backup has a session; a held content is there, and a backup refers to it (or it is about to go on)."""
    for (name,) in db.execute("SELECT name FROM backup WHERE (idx IS NULL) != (session IS NOT NULL) OR idx IS NULL AND"
                              " session NOT IN (SELECT id FROM session)"):
        yield f"backup {name!r} is neither kept nor a session's"
    for (content,) in db.execute("SELECT content FROM held WHERE content NOT IN (SELECT id FROM content)"):
        yield f"content {content} is held, but not there"
    row = db.execute("SELECT b FROM queue WHERE kind = ?", (queue.HELD,)).fetchone()
    reviewed = I63_MAX if row is None else int.from_bytes(row[0], "big")
    needed = Needs(db.execute("SELECT ord, idx FROM backup").fetchall())
    for content, died in db.execute("SELECT content, died FROM held WHERE content <= ?", (reviewed,)):
        if not needed(content, died):
            yield f"content {content} is held, but no backup refers to it"
