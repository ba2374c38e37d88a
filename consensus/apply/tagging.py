"""Tags of a version: the one part of its attributes that may change after it was made."""

from typing import Any

import msgspec

from consensus.apply import buckets, objects
from consensus.apply.state import State, bad_key, texts_fit
from consensus.core.commands import SetTags
from consensus.core.ids import VersionId
from consensus.core.results import AnyResult, IsMarker, Malformed, NoBucket, NoKey, NoVersion, TagsSet
from consensus.rows import damaged, decode_attributes, encode, version_seal
from consensus.tables import VERSION_COLUMNS


def set_tags(state: State, command: SetTags) -> AnyResult:
    """Tags are part of a version's attributes; its place in the order, its time and its ETag stay."""
    bucket = buckets.find(state, command.bucket)
    if bucket is None:
        return NoBucket()
    key = command.key.encode()
    wrong = bad_key(key)
    if wrong:
        return wrong
    if command.version_id is not None and not texts_fit(command.version_id):
        return Malformed(reason="a version id is a short text")
    found = _find_row(state, bucket.id, key, command.version_id)
    if found is None:
        return NoKey() if command.version_id is None else NoVersion()
    table, marker, row = found
    order, version_id, modified, content, size, etag, checksum, parts, _, owner, raw, seal = row
    if seal != version_seal(key, order, version_id, modified, content, size, etag, checksum, parts, owner, raw):
        raise damaged(f"version {version_id} of {key!r}")
    if marker:
        return IsMarker(version_id=version_id, modified_ms=modified)
    attributes = encode(msgspec.structs.replace(decode_attributes(raw), tags=command.tags))
    wrong = objects.bad_attributes(owner, attributes)
    if wrong:
        return wrong
    state.touch()
    state.execute(
        f"UPDATE {table} SET attributes = ?, crc = ? WHERE bucket = ? AND key = ? AND ord = ?",
        (attributes,
         version_seal(key, order, version_id, modified, content, size, etag, checksum, parts, owner, attributes),
         bucket.id, key, order),
    )
    return TagsSet(version_id=version_id if bucket.versioning else None)


def _find_row(
    state: State, bucket: int, key: bytes, version_id: VersionId | None
) -> tuple[str, bool, tuple[Any, ...]] | None:
    """(table, whether it is a marker, its VERSION_COLUMNS) of the current version, or of the one of that name."""
    row = state.execute(f"SELECT {VERSION_COLUMNS} FROM object WHERE bucket = ? AND key = ?", (bucket, key)).fetchone()
    if row is not None and version_id in (None, row[1]):
        return "object", False, row
    named, values = ("", ()) if version_id is None else (" AND version_id = ?", (version_id,))
    row = state.execute(
        f"SELECT marker, {VERSION_COLUMNS} FROM history WHERE bucket = ? AND key = ?{named} ORDER BY ord DESC LIMIT 1",
        (bucket, key, *values),
    ).fetchone()
    return None if row is None else ("history", bool(row[0]), row[1:])
