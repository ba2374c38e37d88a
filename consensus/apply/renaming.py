"""Renames: the current version of one key becomes that of another, in the same bucket, in one step and without its bytes moving.

What is renamed stays what it is: content, ETag, attributes (its lock too), owner, and where versions aren't kept its time. Where
they are, nothing that was there goes: the version stays under its old name, hidden by a delete marker, and what the new name
had before becomes history. So a lock stands in nobody's way and is in nobody's way: it protects what it protected.

The sender has judged rights and conditions by the versions that it names; another one is refused with Moved.
"""

import msgspec

from consensus.apply import attributes, buckets, copies, events, objects, quotas
from consensus.apply.objects import Body
from consensus.apply.state import State, bad_key, texts_fit
from consensus.core.commands import DeleteVersion, RenameVersion
from consensus.core.ids import NULL_VERSION
from consensus.core.results import (
    AnyResult,
    Committed,
    Deleted,
    Malformed,
    Moved,
    NoBucket,
    NoKey,
    TokenReused,
)
from consensus.rows import decode_checksum

FINGERPRINT_BYTES_MAX = 64


def rename_version(state: State, command: RenameVersion) -> AnyResult:
    bucket = buckets.find(state, command.bucket)
    if bucket is None:
        return NoBucket()
    source, key = command.source.encode(), command.key.encode()
    wrong = (bad_key(source) or bad_key(key) or objects.bad_version(command.version_id, bucket)
             or objects.bad_version(command.marker_id, bucket) or objects.bad_attributes(command.owner, b""))
    if wrong:
        return wrong
    if source == key or not texts_fit(command.token) or len(command.fingerprint) > FINGERPRINT_BYTES_MAX:
        return Malformed(reason="a rename has two names, and a short token and fingerprint")
    if command.token:
        known = _first_answer(state, bucket.id, command)
        if known is not None:
            return known
    row = attributes.find_row(state, bucket.id, source, None)
    if row is None or row.marker:
        return NoKey()
    order, version_id, modified, content, size, etag, checksum, parts, _, owner, _, _ = row.columns
    current = objects.find_current(state, bucket.id, key)
    if order != command.source_order or command.over not in (None, 0 if current is None else current.order):
        return Moved()
    refusal = objects.unmet(command.condition, current)
    if refusal:
        return refusal
    coming = command.version_id if bucket.versioning == "Enabled" else NULL_VERSION
    goes = not bucket.versioning or (bucket.versioning == "Suspended" and version_id == NULL_VERSION)
    replaced = objects.replaced(state, bucket, key, current, coming)
    over = quotas.exceeded(bucket, 1 - len(replaced) - goes, size - sum(replaced) - goes * size)
    if over:
        return over
    state.touch()
    state.execute("UPDATE content SET refs = refs + 1 WHERE id = ?", (content,))
    copies.refer(state, content, state.terms_of(bucket))    # who looks through keys in order may have passed the new one
    body = Body(content, size, etag, decode_checksum(checksum), parts)
    result = objects.make_current(state, bucket, key, current, body, command.version_id, row.attributes, owner,
                                  modified=None if bucket.versioning else modified)
    gone = objects.delete(state, bucket, DeleteVersion(
        bucket=bucket.id, key=command.source, marker_id=command.marker_id, owner=command.owner))
    assert isinstance(gone, Deleted), gone
    if bucket.events is not None:
        events.created(state, bucket, "ObjectCreated:Copy", key, size, result, command.origin)
        origin = None if command.origin is None else msgspec.structs.replace(command.origin, event="")
        events.removed(state, bucket, source, gone, False, origin)
    if command.token:
        _keep(state, bucket.id, command, result)
    return result


def _first_answer(state: State, bucket: int, command: RenameVersion) -> Committed | TokenReused | None:
    """Of the rename that came with this token before."""
    row = state.execute("SELECT fingerprint, version_id, version_ord, modified, etag FROM renamed WHERE bucket = ? AND token = ?",
                        (bucket, command.token)).fetchone()
    if row is None:
        return None
    if row[0] != command.fingerprint:
        return TokenReused()
    return Committed(version_id=row[1], order=row[2], modified_ms=row[3], etag=row[4])


def _keep(state: State, bucket: int, command: RenameVersion, result: Committed) -> None:
    state.touch()
    state.execute(
        "INSERT INTO renamed (ord, bucket, token, fingerprint, version_id, version_ord, modified, etag, at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (state.position, bucket, command.token, command.fingerprint, result.version_id, result.order, result.modified_ms,
         result.etag, state.now))
