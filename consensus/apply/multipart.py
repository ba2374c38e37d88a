"""Multipart uploads: begun, filled with parts, completed into one composite content, or aborted.

A finished part is a content of its own, referred to by its row. Complete makes a composite content whose
`content_part` rows refer to the listed parts' contents; the part rows go afterwards, through the queue. A long list
comes in pages (`StageParts`). An upload's *revision* counts the replacements of its parts: pages that saw another
revision than the deciding command does are refused, so that the decision needs no second look at each part.
"""

from typing import NamedTuple

from consensus.apply import buckets, contents, copies, events, queue, quotas
from consensus.apply.contents import Prepared
from consensus.apply.objects import (
    Body,
    Current,
    bad_attributes,
    bad_lock,
    bad_version,
    find_current,
    make_current,
    too_much,
    unmet,
)
from consensus.apply.state import State, bad_key, count_fits, texts_fit
from consensus.core.commands import (
    PARTS_PER_PAGE_MAX,
    AbortUpload,
    CompleteUpload,
    CreateUpload,
    ExpireUploads,
    ListedPart,
    PutPart,
    StageParts,
)
from consensus.core.ids import NULL_VERSION, BucketId, ContentId
from consensus.core.model import COPIES_MAX, Attributes
from consensus.core.results import (
    AnyResult,
    Committed,
    ConditionConflict,
    Done,
    Drained,
    Malformed,
    NoBucket,
    NoUpload,
    PartChanged,
    PartStored,
    Staged,
)
from consensus.rows import (
    I63_MAX,
    PARTS,
    damaged,
    decode_attributes,
    decode_checksum,
    encode_attributes,
    encode_checksum,
    encode_pairs,
    part_seal,
)

PART_NUMBER_MAX = 10_000

EXPIRED_AT_ONCE_MAX = 300
"""Uploads that one ExpireUploads aborts: two rows each."""


class UploadRow(NamedTuple):
    order: int
    initiated: int
    attributes: Attributes
    owner: str
    algorithm: str
    kind: str
    existing: int
    revision: int
    said: bytes | None
    bytes: int


class Listing(NamedTuple):
    """A part list under construction, or `content` None where none has begun."""

    content: ContentId | None
    size: int
    parts: int
    last: int
    copies: int
    mark: int
    """As of a content: what the chunks of the parts so far have been told (copies.py)."""


def find_upload(state: State, bucket: int, key: bytes, upload_id: str) -> UploadRow | None:
    if not count_fits(bucket):
        return None
    row = state.execute(
        "SELECT ord, initiated, attributes, owner, algorithm, kind, existing, revision, said, bytes FROM upload"
        " WHERE bucket = ? AND key = ? AND upload_id = ?",
        (bucket, key, upload_id),
    ).fetchone()
    return None if row is None else UploadRow(row[0], row[1], decode_attributes(row[2]), *row[3:])


def create_upload(state: State, command: CreateUpload) -> AnyResult:
    bucket = buckets.find(state, command.bucket)
    if bucket is None:
        return NoBucket()
    key, attributes, said = command.key.encode(), encode_attributes(command.attributes), encode_pairs(command.said)
    wrong = (bad_key(key) or bad_attributes(command.owner, attributes) or bad_attributes("", said or b"")
             or bad_lock(command.attributes, bucket))
    if wrong:
        return wrong
    if not command.upload_id or not texts_fit(
            command.upload_id, command.checksum_algorithm, command.checksum_kind, command.initiator):
        return Malformed(reason="an upload has an id, and short texts")
    if find_upload(state, bucket.id, key, command.upload_id):
        return Malformed(reason="that upload id is in use")
    current = find_current(state, bucket.id, key)
    state.touch()
    state.execute(
        "INSERT INTO upload (bucket, key, upload_id, ord, initiated, attributes, owner, algorithm, kind, existing,"
        " revision, bytes, initiator, said) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, ?, ?)",
        (bucket.id, key, command.upload_id, state.position, state.now, attributes, command.owner,
         command.checksum_algorithm, command.checksum_kind, current.order if current else 0, command.initiator, said),
    )
    return Done()


def put_part(state: State, command: PutPart) -> AnyResult:
    result = _put_part(state, command)
    if not isinstance(result, PartStored):
        contents.abandon(state, command.content.staged)
    return result


def _put_part(state: State, command: PutPart) -> AnyResult:
    bucket = buckets.find(state, command.bucket)
    if bucket is None:
        return NoBucket()
    key = command.key.encode()
    upload = find_upload(state, bucket.id, key, command.upload_id)
    if upload is None:
        return NoUpload()
    if not 1 <= command.number <= PART_NUMBER_MAX:
        return Malformed(reason=f"a part number is 1 to {PART_NUMBER_MAX}")
    new = contents.prepare(state, command.content, state.terms_of(bucket))
    if not isinstance(new, Prepared):
        return new
    old = state.execute(
        "SELECT content, size FROM part WHERE upload = ? AND number = ?", (upload.order, command.number)
    ).fetchone()
    more = new.size - (old[1] if old is not None else 0)
    over = quotas.exceeded(bucket, 0, more)
    if over:
        return over
    content = contents.store(state, new)
    if isinstance(content, Malformed):
        return content
    checksum = encode_checksum(new.checksum)
    state.touch()
    state.execute(
        "INSERT OR REPLACE INTO part (upload, number, size, etag, modified, content, checksum, crc)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (upload.order, command.number, new.size, new.etag, state.now, content, checksum,
         part_seal(upload.order, command.number, content, new.size, new.etag, checksum)),
    )
    if old is not None:
        contents.release(state, old[0])
    state.count(bucket, 0, 0, more)
    state.touch()
    state.execute("UPDATE upload SET bytes = bytes + ?, revision = revision + ? WHERE bucket = ? AND key = ? AND upload_id = ?",
                  (more, old is not None, bucket.id, key, command.upload_id))
    return PartStored(modified_ms=state.now)


def abort_upload(state: State, command: AbortUpload) -> AnyResult:
    bucket = buckets.find(state, command.bucket)
    if bucket is None:
        return NoBucket()
    key = command.key.encode()
    upload = find_upload(state, bucket.id, key, command.upload_id)
    if upload is None:
        return NoUpload()
    remove_upload(state, bucket.id, key, command.upload_id, upload.order)
    return Done()


def remove_upload(state: State, bucket: int, key: bytes, upload_id: str, order: int) -> None:
    """It takes no more parts; those that it has go through the queue, and count no more."""
    state.touch()
    held = state.execute("DELETE FROM upload WHERE bucket = ? AND key = ? AND upload_id = ? RETURNING bytes",
                         (bucket, key, upload_id)).fetchone()
    within = buckets.find(state, BucketId(bucket))      # None: it is deleted, and what it held has been taken off
    if held is not None and within is not None:
        state.count(within, 0, 0, -held[0])
    state.enqueue(queue.UPLOAD, order)


def expire_uploads(state: State, command: ExpireUploads) -> AnyResult:
    """Abort the oldest, as far as they were begun before the given time. Positions rise with time, so they come first."""
    limit = min(max(command.limit, 1), EXPIRED_AT_ONCE_MAX)
    rows = state.execute(
        "SELECT bucket, key, upload_id, ord, initiated FROM upload ORDER BY ord LIMIT ?", (limit + 1,)
    ).fetchall()
    old = [row for row in rows if row[4] < command.before_ms]
    for bucket, key, upload_id, order, _ in old[:limit]:
        remove_upload(state, bucket, key, upload_id, order)
    return Drained(released=min(len(old), limit), more=len(old) > limit)


# Complete

def stage_parts(state: State, command: StageParts) -> AnyResult:
    result = _stage_parts(state, command)
    if not isinstance(result, Staged):
        contents.abandon(state, command.into)
    return result


def _stage_parts(state: State, command: StageParts) -> AnyResult:
    upload = find_upload(state, command.bucket, command.key.encode(), command.upload_id)
    if upload is None:
        return NoUpload()
    listing = _listing(state, upload, command.into)
    if not isinstance(listing, Listing):
        return listing
    checked = _check_parts(state, upload, listing, command.parts)
    if not isinstance(checked, list):
        return checked
    if not checked:
        return Malformed(reason="a page has at least one part")
    listing = _add_parts(state, upload, listing, checked)
    assert listing.content is not None
    contents.grow(state, listing.content, PARTS, listing.size, (listing.copies, listing.mark), listing.parts)
    state.touch()
    state.execute("UPDATE staged SET last = ? WHERE content = ?", (listing.last, listing.content))
    return Staged(content=listing.content)


def _listing(state: State, upload: UploadRow, into: ContentId | None) -> Listing | PartChanged | Malformed:
    """The list so far, if it is this session's, of this upload, and no part has been replaced since it was begun."""
    if into is None:
        return Listing(None, 0, 0, 0, COPIES_MAX, I63_MAX)
    row = None
    if count_fits(into):
        row = state.execute(
            "SELECT s.upload, s.revision, s.last, c.size, c.parts, c.copies, c.mark FROM staged s"
            " JOIN content c ON c.id = s.content"
            " WHERE s.content = ? AND s.session = ? AND c.kind = ?",
            (into, state.session, PARTS),
        ).fetchone()
    if row is None:
        return Malformed(reason="that part list is not this session's")
    if row[:2] != (upload.order, upload.revision):
        return PartChanged(number=0)
    return Listing(into, row[3], row[4], row[2], row[5], row[6])


def _check_parts(
    state: State, upload: UploadRow, listing: Listing, parts: tuple[ListedPart, ...]
) -> list[tuple[int, int, int, str, int, bytes | None]] | PartChanged | Malformed:
    """The rows of the listed parts, each still what the gateway compared. Changes nothing."""
    if len(parts) > PARTS_PER_PAGE_MAX:
        return Malformed(reason=f"at most {PARTS_PER_PAGE_MAX} parts in a page")
    rows = []
    last = listing.last
    for part in parts:
        if not last < part.number <= PART_NUMBER_MAX:
            return Malformed(reason="parts are listed in ascending order")
        last = part.number
        row = state.execute(
            "SELECT number, content, size, etag, modified, checksum, crc FROM part WHERE upload = ? AND number = ?",
            (upload.order, part.number),
        ).fetchone()
        if row is None or row[1] != part.content:
            return PartChanged(number=part.number)
        number, content, size, etag, _, checksum, crc = row
        if crc != part_seal(upload.order, number, content, size, etag, checksum):
            raise damaged(f"part {number} of upload {upload.order}")
        rows.append(row[:6])
    return rows


def _add_parts(
    state: State, upload: UploadRow, listing: Listing, rows: list[tuple[int, int, int, str, int, bytes | None]]
) -> Listing:
    """Refer to these parts' contents from the composite content, which begins with the first of them."""
    content, size = listing.content, listing.size
    if content is None:
        content = ContentId(state.position)
        contents.insert(state, content, PARTS, 0, 0, copies=listing.copies, mark=listing.mark)
        state.touch()
        state.execute("INSERT INTO staged (content, session, upload, revision, last) VALUES (?, ?, ?, ?, 0)",
                      (content, state.session, upload.order, upload.revision))
    state.touch(2 * len(rows))
    added = []
    copies, mark = listing.copies, listing.mark
    for number, part_content, part_size, etag, modified, checksum in rows:
        added.append((content, number, size, part_content, part_size, etag, modified, checksum,
                      part_seal(content, number, part_content, part_size, etag, checksum)))
        size += part_size
        told = state.execute("SELECT copies, mark FROM content WHERE id = ?", (part_content,)).fetchone()
        copies, mark = min(copies, told[0]), min(mark, told[1])
    state.executemany("UPDATE content SET refs = refs + 1 WHERE id = ?", [(row[1],) for row in rows])
    state.executemany(
        "INSERT INTO content_part (content, number, start, part_content, size, etag, modified, checksum, crc)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        added,
    )
    return Listing(content, size, listing.parts + len(rows), rows[-1][0] if rows else listing.last, copies, mark)


def complete_upload(state: State, command: CompleteUpload) -> AnyResult:
    result = _complete(state, command)
    if not isinstance(result, Committed):
        contents.abandon(state, command.staged)
    return result


def _complete(state: State, command: CompleteUpload) -> AnyResult:
    bucket = buckets.find(state, command.bucket)
    if bucket is None:
        return NoBucket()
    key = command.key.encode()
    upload = find_upload(state, bucket.id, key, command.upload_id)
    if upload is None:
        result = _first_answer(state, bucket.id, key, command)
        if isinstance(result, Committed):
            contents.abandon(state, command.staged)
        return result
    wrong = bad_version(command.version_id, bucket)
    if wrong or not texts_fit(command.etag, *(command.checksum or ())):
        return wrong or Malformed(reason="an ETag and a checksum are short texts")
    current = find_current(state, bucket.id, key)
    refusal = unmet(command.condition, current) or _conflict(command, upload, current)
    if refusal:
        return refusal
    listing = _listing(state, upload, command.staged)
    if not isinstance(listing, Listing):
        return listing
    rows = _check_parts(state, upload, listing, command.parts)
    if not isinstance(rows, list):
        return rows
    size = listing.size + sum(row[2] for row in rows)
    if not listing.parts + len(rows) or size != command.size:
        return Malformed(reason=f"the parts make {size} bytes, not {command.size}, or there are none")
    over = too_much(state, bucket, key, current, command.version_id if bucket.versioning == "Enabled" else NULL_VERSION, size,
                    freed=upload.bytes)
    if over:
        return over
    listing = _add_parts(state, upload, listing, rows)
    assert listing.content is not None
    checksum = command.checksum
    contents.grow(state, listing.content, PARTS, size, (listing.copies, listing.mark), listing.parts)
    contents.finish(state, listing.content, PARTS, size, command.etag, encode_checksum(checksum), listing.parts)
    copies.refer(state, listing.content, state.terms_of(bucket))
    body = Body(listing.content, size, command.etag, checksum, listing.parts)
    result = make_current(state, bucket, key, current, body, command.version_id, upload.attributes, upload.owner)
    if bucket.events is not None:
        events.created(state, bucket, "ObjectCreated:CompleteMultipartUpload", key, size, result, command.origin)
    remove_upload(state, bucket.id, key, command.upload_id, upload.order)
    state.touch()
    state.execute(
        "INSERT INTO completed (ord, bucket, key, upload_id, initiated, attributes, owner, algorithm, kind,"
        " version_id, version_ord, modified, etag, checksum, said) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (state.position, bucket.id, key, command.upload_id, upload.initiated, encode_attributes(upload.attributes), upload.owner,
         upload.algorithm, upload.kind, result.version_id, result.order, result.modified_ms, result.etag,
         encode_checksum(checksum), upload.said),
    )
    return result


def _conflict(command: CompleteUpload, upload: UploadRow, current: Current | None) -> ConditionConflict | None:
    """A conditional Complete also fails if the key is another than when the upload began (seen on AWS)."""
    condition = command.condition
    if condition.if_match is not None and current is not None and current.order != upload.existing:
        return ConditionConflict(condition="If-Match")
    if condition.if_none_match == "*" and current is None and upload.existing:
        return ConditionConflict(condition="If-None-Match")
    return None


def _first_answer(state: State, bucket: int, key: bytes, command: CompleteUpload) -> Committed | NoUpload:
    """Of an upload that has been completed with this very ETag."""
    row = state.execute(
        "SELECT version_id, version_ord, modified, etag, checksum FROM completed"
        " WHERE bucket = ? AND key = ? AND upload_id = ?",
        (bucket, key, command.upload_id),
    ).fetchone()
    if row is None or row[3] != command.etag:
        return NoUpload()
    return Committed(version_id=row[0], order=row[1], modified_ms=row[2], etag=row[3], checksum=decode_checksum(row[4]))
