"""Versions of keys: put, delete, and what versioning makes of them (S3's rules for never set, Enabled and Suspended).

The current version of a key is its `object` row; older ones and every delete marker are `history` rows. A key without
an `object` row, but with history, has a delete marker as its newest. At most one version of a key is the null version.
"""

from typing import NamedTuple

import msgspec

from consensus.apply import attributes as rows
from consensus.apply import buckets, contents, copies, events, locks, quotas
from consensus.apply.contents import Prepared
from consensus.apply.state import BucketState, State, bad_key, count_fits, text_fits
from consensus.core.commands import Condition, DeleteVersion, PutVersion
from consensus.core.ids import NULL_VERSION, ContentId, VersionId
from consensus.core.model import Attributes, Checksum
from consensus.core.results import (
    AnyResult,
    Committed,
    ConditionFailed,
    ContentMissing,
    Deleted,
    Locked,
    Malformed,
    NoBucket,
    NoKey,
    NoObjectLock,
    QuotaExceeded,
    TooFewCopies,
)
from consensus.rows import decode_checksum, encode_attributes, encode_checksum, version_seal
from consensus.tables import VERSION_COLUMNS

EMPTY_ATTRIBUTES = encode_attributes(Attributes())

_COLUMNS_AND_VALUES = f"(bucket, key, {VERSION_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_REPLACE = f"INSERT OR REPLACE INTO object {_COLUMNS_AND_VALUES}"
_INSERT_IF_NEW = f"INSERT INTO object {_COLUMNS_AND_VALUES} ON CONFLICT DO NOTHING"


class Current(NamedTuple):
    """The object row of a key, as far as a write needs it."""

    order: int
    version_id: VersionId
    content: ContentId
    size: int
    etag: str


class Body(NamedTuple):
    """The content that a new version points to, its reference already taken."""

    content: ContentId
    size: int
    etag: str
    checksum: Checksum | None
    parts: int


UNSEEN = Current(0, NULL_VERSION, ContentId(0), 0, "")
"""Stands for the object row of a key that has not been looked for: most new versions are the first of their key, and to find
that out when the row is inserted costs nothing more."""


def find_current(state: State, bucket: int, key: bytes) -> Current | None:
    row = state.execute(
        "SELECT ord, version_id, content, size, etag FROM object WHERE bucket = ? AND key = ?", (bucket, key)
    ).fetchone()
    return None if row is None else Current(*row)


def unmet(condition: Condition, current: Current | None) -> NoKey | ConditionFailed | None:
    """What a precondition of a write answers. A current delete marker counts as no object."""
    if condition.if_match is not None:
        if current is None:
            return NoKey()
        if condition.if_match not in ("*", current.etag):
            return ConditionFailed(condition="If-Match")
    if condition.if_none_match is not None and current is not None and condition.if_none_match in ("*", current.etag):
        return ConditionFailed(condition="If-None-Match")
    return None


def put_version(state: State, command: PutVersion) -> AnyResult:
    result = _put(state, command)
    if command.content is not None and not isinstance(result, Committed):
        contents.abandon(state, command.content.staged)
    return result


def _put(state: State, command: PutVersion) -> AnyResult:
    bucket = buckets.find(state, command.bucket)
    if bucket is None:
        return NoBucket()
    key, attributes = command.key.encode(), encode_attributes(command.attributes)
    wrong = bad_key(key) or bad_version(command.version_id, bucket) or bad_attributes(command.owner, attributes)
    if wrong:
        return wrong
    if (command.content is None) == (command.content_of is None):
        return Malformed(reason="a version has either a content of its own or another's")
    current: Current | None = UNSEEN
    refusal: AnyResult | None = bad_lock(command.attributes, bucket)
    if command.condition or bucket.versioning or bucket.quota is not None or bucket.account.quota is not None:
        current = find_current(state, bucket.id, key)
        refusal = unmet(command.condition, current) or refusal
    if refusal:
        return refusal
    stored = command.version_id if bucket.versioning == "Enabled" else NULL_VERSION
    if command.content is not None:
        new = contents.prepare(state, command.content, state.terms_of(bucket))
        if not isinstance(new, Prepared):
            return new
        over = too_much(state, bucket, key, current, stored, new.size)
        if over:
            return over
        content = contents.store(state, new)
        if isinstance(content, Malformed):
            return content
        body = Body(content, new.size, new.etag, new.checksum, 0)
    else:
        shared = _shareable(state, command)
        if shared is None:
            return ContentMissing()
        over = too_much(state, bucket, key, current, stored, shared.size)
        if over:
            return over
        taken = contents.share(state, shared.content, state.terms_of(bucket))
        if isinstance(taken, TooFewCopies):
            return taken
        if not taken:
            return ContentMissing()
        body = shared
    result = make_current(state, bucket, key, current, body, command.version_id, command.attributes, command.owner,
                          encoded=attributes)
    if bucket.events is not None:
        copied = command.content is None
        events.created(state, bucket, "ObjectCreated:Copy" if copied else "ObjectCreated:Put", key, body.size, result,
                       command.origin)
    return result


def _shareable(state: State, command: PutVersion) -> Body | None:
    """What a copy will refer to, which costs one row, whatever the size. None if it is gone, or another than was looked at."""
    assert command.content_of is not None
    if not count_fits(command.content_of):
        return None
    row = state.execute("SELECT size, etag, checksum, parts FROM content WHERE id = ?", (command.content_of,)).fetchone()
    if row is None or command.content_size not in (None, row[0]):
        return None
    return Body(command.content_of, row[0], row[1], command.checksum or decode_checksum(row[2]), row[3])


def too_much(
    state: State, bucket: BucketState, key: bytes, current: Current | None, coming: VersionId, size: int, freed: int = 0,
) -> QuotaExceeded | None:
    """Whether a new newest version of this size, named `coming`, would be more than a quota allows. What it replaces counts no
    more, nor `freed` bytes besides."""
    if bucket.quota is None and bucket.account.quota is None:
        return None
    gone = replaced(state, bucket, key, current, coming)
    return quotas.exceeded(bucket, 1 - len(gone), size - sum(gone) - freed)


def replaced(
    state: State, bucket: BucketState, key: bytes, current: Current | None, coming: VersionId
) -> list[int]:
    """The sizes of the versions that `clear_the_way` will remove: one at most."""
    if coming != NULL_VERSION:
        return []
    if current is not None and current.version_id == NULL_VERSION:
        return [current.size]
    row = None
    if bucket.versioning:
        row = state.execute("SELECT size, marker FROM history WHERE bucket = ? AND key = ? AND version_id = ?"
                            " ORDER BY ord DESC LIMIT 1", (bucket.id, key, NULL_VERSION)).fetchone()
    return [] if row is None or row[1] else [row[0]]


def bad_attributes(owner: str, attributes: bytes) -> Malformed | None:
    if text_fits(owner) and len(attributes) <= rows.BYTES_MAX:
        return None
    return Malformed(reason=f"a version has a short owner, and at most {rows.BYTES_MAX} bytes of attributes")


def bad_version(version_id: VersionId, bucket: BucketState) -> Malformed | None:
    if text_fits(version_id) and (bucket.versioning != "Enabled" or version_id not in ("", NULL_VERSION)):
        return None
    return Malformed(reason="a version in a versioned bucket has an id, a short one")


def bad_lock(attributes: Attributes, bucket: BucketState) -> Malformed | NoObjectLock | None:
    if attributes.lock is None:
        return None
    if not locks.is_lock(attributes.lock):
        return Malformed(reason="a lock has a mode and a time, or neither")
    return None if bucket.lock is not None else NoObjectLock()


def make_current(
    state: State, bucket: BucketState, key: bytes, current: Current | None, body: Body, version_id: VersionId,
    attributes: Attributes, owner: str, modified: int | None = None, encoded: bytes | None = None,
) -> Committed:
    """The new version takes its place; what it replaces is released or becomes history. It is made now, or was at `modified`.
    `encoded`: the attributes, if they have been encoded before."""
    stored = version_id if bucket.versioning == "Enabled" else NULL_VERSION
    if current is not UNSEEN:
        clear_the_way(state, bucket, key, current, stored)
    if bucket.lock is not None:
        attributes = msgspec.structs.replace(attributes, lock=locks.with_default(attributes, bucket.lock, state.now))
        encoded = None
    raw, checksum = encoded or encode_attributes(attributes), encode_checksum(body.checksum)
    order, now = state.position, state.now if modified is None else modified
    row = (bucket.id, key, order, stored, now, body.content, body.size, body.etag, checksum, body.parts,
           attributes.storage_class, owner, raw,
           version_seal(key, order, stored, now, body.content, body.size, body.etag, checksum, body.parts, owner, raw))
    state.touch()
    if current is not UNSEEN:
        state.execute(_REPLACE, row)
    elif not state.execute(_INSERT_IF_NEW, row).rowcount:
        clear_the_way(state, bucket, key, find_current(state, bucket.id, key), stored)
        state.execute(_REPLACE, row)
    state.count(bucket, 1, body.size)
    shown = stored if bucket.versioning else None
    return Committed(version_id=shown, order=order, modified_ms=now, etag=body.etag, checksum=body.checksum)


def clear_the_way(state: State, bucket: BucketState, key: bytes, current: Current | None, coming: VersionId) -> None:
    """Before a new newest version named `coming`: an older null version goes if that is the name, any other stays as
    history. Afterwards the `object` row is free, or about to be replaced."""
    if coming == NULL_VERSION:
        if bucket.versioning:
            remove_from_history(state, bucket, key, NULL_VERSION)
        if current is not None and current.version_id == NULL_VERSION:
            _drop(state, bucket, current.content, current.size)
            return
    if current is not None:
        state.touch()
        state.execute(
            f"INSERT INTO history (bucket, key, marker, {VERSION_COLUMNS})"
            f" SELECT bucket, key, 0, {VERSION_COLUMNS} FROM object WHERE bucket = ? AND key = ?",
            (bucket.id, key),
        )


def _drop(state: State, bucket: BucketState, content: int, size: int) -> None:
    contents.release(state, content, of_version=True)
    state.count(bucket, -1, -size)


def _delete_row(state: State, bucket: BucketState, key: bytes) -> None:
    state.touch()
    state.execute("DELETE FROM object WHERE bucket = ? AND key = ?", (bucket.id, key))


def remove_from_history(state: State, bucket: BucketState, key: bytes, version_id: VersionId) -> bool | None:
    """Remove that version; answers whether it was a delete marker, None if there is none of that name."""
    row = state.execute(
        "SELECT ord, marker, content, size FROM history WHERE bucket = ? AND key = ? AND version_id = ?"
        " ORDER BY ord DESC LIMIT 1",
        (bucket.id, key, version_id),
    ).fetchone()
    if row is None:
        return None
    order, marker, content, size = row
    state.touch()
    state.execute("DELETE FROM history WHERE bucket = ? AND key = ? AND ord = ?", (bucket.id, key, order))
    if not marker:
        _drop(state, bucket, content, size)
    return bool(marker)


def delete_version(state: State, command: DeleteVersion) -> AnyResult:
    bucket = buckets.find(state, command.bucket)
    if bucket is None:
        return NoBucket()
    result = delete(state, bucket, command)
    if bucket.events is not None and isinstance(result, Deleted):
        events.removed(state, bucket, command.key.encode(), result, command.version_id is not None, command.origin)
    return result


def delete(state: State, bucket: BucketState, command: DeleteVersion) -> AnyResult:
    key = command.key.encode()
    wrong = bad_key(key)
    if wrong:
        return wrong
    current = find_current(state, bucket.id, key)
    refusal = unmet(command.condition, current)
    if refusal:
        return refusal
    if command.version_id is not None:
        return _delete_named(state, bucket, key, current, command.version_id, command.bypass)
    if not bucket.versioning:
        if current is not None:
            _delete_row(state, bucket, key)
            _drop(state, bucket, current.content, current.size)
        return Deleted(existed=current is not None)
    wrong = bad_version(command.marker_id, bucket) or bad_attributes(command.owner, b"")
    return wrong or _put_marker(state, bucket, key, current, command)


def _put_marker(
    state: State, bucket: BucketState, key: bytes, current: Current | None, command: DeleteVersion
) -> Deleted:
    name = command.marker_id if bucket.versioning == "Enabled" else NULL_VERSION
    clear_the_way(state, bucket, key, current, name)
    if current is not None:
        _delete_row(state, bucket, key)
    state.touch()
    state.execute(
        f"INSERT INTO history (bucket, key, marker, {VERSION_COLUMNS})"
        " VALUES (?, ?, 1, ?, ?, ?, 0, 0, '', NULL, 0, '', ?, ?, ?)",
        (bucket.id, key, state.position, name, state.now, command.owner, EMPTY_ATTRIBUTES,
         version_seal(key, state.position, name, state.now, 0, 0, "", None, 0, command.owner, EMPTY_ATTRIBUTES)),
    )
    return Deleted(existed=current is not None, version_id=name, delete_marker=True)


def _delete_named(
    state: State, bucket: BucketState, key: bytes, current: Current | None, version_id: VersionId, bypass: bool
) -> Deleted | Locked | Malformed:
    """Remove one version for good. If it was the newest, the one before is uncovered."""
    if not text_fits(version_id):
        return Malformed(reason="a version id is a short text")
    found = rows.find_row(state, bucket.id, key, version_id)
    if found is not None and locks.protects(found.attributes.lock, state.now, bypass):
        return Locked()
    if current is not None and current.version_id == version_id:
        _delete_row(state, bucket, key)
        _drop(state, bucket, current.content, current.size)
        was_marker: bool | None = False
    else:
        was_marker = remove_from_history(state, bucket, key, version_id) if bucket.versioning else None
    if bucket.versioning and was_marker is not None and (was_marker or (current and current.version_id == version_id)):
        _uncover(state, bucket, key)
    return Deleted(existed=was_marker is not None, version_id=version_id, delete_marker=bool(was_marker))


def _uncover(state: State, bucket: BucketState, key: bytes) -> None:
    """If the key has no `object` row and its newest history row is no marker, that row becomes the object."""
    at = (bucket.id, key)
    if state.execute("SELECT 1 FROM object WHERE bucket = ? AND key = ?", at).fetchone():
        return
    row = state.execute(
        "SELECT ord, marker, content FROM history WHERE bucket = ? AND key = ? ORDER BY ord DESC LIMIT 1", at
    ).fetchone()
    if row is None or row[1]:
        return
    state.touch(2)
    state.execute(
        f"INSERT INTO object (bucket, key, {VERSION_COLUMNS}) SELECT bucket, key, {VERSION_COLUMNS} FROM history"
        " WHERE bucket = ? AND key = ? AND ord = ?",
        (*at, row[0]),
    )
    state.execute("DELETE FROM history WHERE bucket = ? AND key = ? AND ord = ?", (*at, row[0]))
    copies.refer(state, row[2], state.terms_of(bucket))     # who looks through objects first and history then misses it
