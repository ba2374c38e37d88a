"""The parts of a version that may change after it was made: its tags, its lock and its access list. Order, time and ETag stay."""

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from consensus.apply import buckets, events, locks
from consensus.apply.state import BucketState, State, bad_key, count_fits, texts_fit
from consensus.core.commands import SetAcl, SetLegalHold, SetRestored, SetRetention, SetTags
from consensus.core.ids import VersionId
from consensus.core.model import Attributes, Lock
from consensus.core.results import (
    AnyResult,
    Changed,
    IsMarker,
    Locked,
    Malformed,
    NoBucket,
    NoKey,
    NoObjectLock,
    NoVersion,
)
from consensus.rows import damaged, decode_attributes, encode_attributes, version_seal
from consensus.tables import VERSION_COLUMNS

BYTES_MAX = 64 << 10
"""S3 allows 2 KiB of metadata, 10 tags and a few headers; this leaves room and bounds a row."""

_EVENTS: dict[type, str] = {SetTags: "ObjectTagging:Put", SetAcl: "ObjectAcl:Put", SetRetention: "ObjectRetention:Put"}

Change = Callable[[BucketState, Attributes], Attributes | AnyResult]
"""The new attributes, or why not."""


class Row(NamedTuple):
    """Where a version is, and what it says. `columns` are VERSION_COLUMNS."""

    table: str
    marker: bool
    columns: tuple[Any, ...]
    attributes: Attributes


def find_row(state: State, bucket: int, key: bytes, version_id: VersionId | None) -> Row | None:
    """The current version (or the marker that hides the key), or the one of that name. Raises Corrupt."""
    found = state.execute(f"SELECT {VERSION_COLUMNS} FROM object WHERE bucket = ? AND key = ?", (bucket, key)).fetchone()
    if found is not None and version_id in (None, found[1]):
        return _checked("object", False, key, found)
    named, values = ("", ()) if version_id is None else (" AND version_id = ?", (version_id,))
    found = state.execute(
        f"SELECT marker, {VERSION_COLUMNS} FROM history WHERE bucket = ? AND key = ?{named} ORDER BY ord DESC LIMIT 1",
        (bucket, key, *values),
    ).fetchone()
    return None if found is None else _checked("history", bool(found[0]), key, found[1:])


def _checked(table: str, marker: bool, key: bytes, columns: tuple[Any, ...]) -> Row:
    if columns[-1] != _seal(key, columns, columns[-2]):
        raise damaged(f"version {columns[1]} of {key!r}")
    return Row(table, marker, columns, decode_attributes(columns[-2]))


def _seal(key: bytes, columns: tuple[Any, ...], raw: bytes) -> int:
    order, version_id, modified, content, size, etag, checksum, parts, _, owner, _, _ = columns
    return version_seal(key, order, version_id, modified, content, size, etag, checksum, parts, owner, raw)


def set_tags(state: State, command: SetTags) -> AnyResult:
    return _change(state, command, lambda _, known: msgspec.structs.replace(known, tags=command.tags))


def set_acl(state: State, command: SetAcl) -> AnyResult:
    return _change(state, command, lambda _, known: msgspec.structs.replace(known, acl=command.acl))


def set_storage_class(state: State, bucket: BucketState, key: bytes, row: Row, storage_class: str) -> None:
    """The label that says where a version lies. Its bytes stay where they are."""
    raw = encode_attributes(msgspec.structs.replace(row.attributes, storage_class=storage_class, restored_ms=0))
    state.touch()
    state.execute(f"UPDATE {row.table} SET storage_class = ?, attributes = ?, crc = ? WHERE bucket = ? AND key = ? AND ord = ?",
                  (storage_class, raw, _seal(key, row.columns, raw), bucket.id, key, row.columns[0]))
    if bucket.events is not None:
        events.record(state, bucket, "LifecycleTransition", key, size=row.columns[4], etag=row.columns[5],
                      version_id=row.columns[1], more=(("destinationStorageClass", storage_class),))


def set_retention(state: State, command: SetRetention) -> AnyResult:
    wanted = Lock(command.mode, command.until_ms)
    if not locks.is_lock(wanted):
        return Malformed(reason="a retention has a mode and a time, or neither")

    def change(bucket: BucketState, known: Attributes) -> Attributes | AnyResult:
        if bucket.lock is None:
            return NoObjectLock()
        if locks.forbids(known.lock, wanted, state.now, command.bypass):
            return Locked()
        hold = known.lock is not None and known.lock.legal_hold
        return msgspec.structs.replace(known, lock=wanted._replace(legal_hold=hold))

    return _change(state, command, change)


def set_legal_hold(state: State, command: SetLegalHold) -> AnyResult:
    def change(bucket: BucketState, known: Attributes) -> Attributes | AnyResult:
        if bucket.lock is None:
            return NoObjectLock()
        return msgspec.structs.replace(known, lock=(known.lock or Lock())._replace(legal_hold=command.on),
                                       hold_off=command.remembered and not command.on)

    return _change(state, command, change)


def set_restored(state: State, command: SetRestored) -> AnyResult:
    """A version that lies elsewhere by now is left as it is: it was made anew, or moved."""
    if not count_fits(command.until_ms):
        return Malformed(reason="a restored version is so until a time")

    def change(bucket: BucketState, known: Attributes) -> Attributes | AnyResult:
        same = known.storage_class == command.storage_class
        return msgspec.structs.replace(known, restored_ms=command.until_ms) if same else known

    return _change(state, command, change)


def _change(state: State, command: SetTags | SetAcl | SetRetention | SetLegalHold | SetRestored, change: Change) -> AnyResult:
    bucket = buckets.find(state, command.bucket)
    if bucket is None:
        return NoBucket()
    key = command.key.encode()
    wrong = bad_key(key)
    if wrong:
        return wrong
    if command.version_id is not None and not texts_fit(command.version_id):
        return Malformed(reason="a version id is a short text")
    row = find_row(state, bucket.id, key, command.version_id)
    if row is None:
        return NoKey() if command.version_id is None else NoVersion()
    order, version_id, modified = row.columns[:3]
    if row.marker:
        return IsMarker(version_id=version_id, modified_ms=modified)
    changed = change(bucket, row.attributes)
    if not isinstance(changed, Attributes):
        return changed
    raw = encode_attributes(changed)
    if len(raw) > BYTES_MAX:
        return Malformed(reason=f"a version has at most {BYTES_MAX} bytes of attributes")
    state.touch()
    state.execute(f"UPDATE {row.table} SET attributes = ?, crc = ? WHERE bucket = ? AND key = ? AND ord = ?",
                  (raw, _seal(key, row.columns, raw), bucket.id, key, order))
    moved = isinstance(command, SetRestored) and changed is row.attributes
    if bucket.events is not None and not moved and not isinstance(command, SetLegalHold):
        _tell(state, bucket, key, row, command)
    return Changed(version_id=version_id if bucket.versioning else None)


def _tell(
    state: State, bucket: BucketState, key: bytes, row: Row, command: SetTags | SetAcl | SetRetention | SetRestored,
) -> None:
    version_id, size, etag = row.columns[1], row.columns[4], row.columns[5]
    if not isinstance(command, SetRestored):
        events.record(state, bucket, _EVENTS[type(command)], key, origin=command.origin, etag=etag, version_id=version_id)
        return
    # Asked for and done at once: whoever waits for either is told.
    events.record(state, bucket, "ObjectRestore:Post", key, origin=command.origin, size=size, etag=etag, version_id=version_id)
    events.record(
        state, bucket, "ObjectRestore:Completed", key, origin=command.origin, size=size, etag=etag, version_id=version_id,
        more=(("until_ms", str(command.until_ms)), ("storage_class", command.storage_class)))
