"""Appends: bytes after those that an object has, in one step, at an offset that must be its end.

Nothing is rewritten. A first append makes a content in pages of the slices that were there and the new ones; from then on it
grows in place by a page, as long as one version alone refers to it and that version is to be replaced. Where versions are
kept, an append is a new version with all slices, and the one before stays as it was.

The sender has put ETag and checksum together from those of the version that it names; another one is refused with Moved.
"""

import msgspec

from consensus.apply import attributes, buckets, contents, events, objects
from consensus.apply.contents import Prepared
from consensus.apply.objects import Body, Current
from consensus.apply.state import BucketState, State, bad_key, count_fits
from consensus.core.commands import CHUNKS_PER_COMMAND_MAX, AppendVersion
from consensus.core.ids import NULL_VERSION
from consensus.core.results import AnyResult, Committed, Malformed, Moved, NoBucket, WrongOffset
from consensus.rows import PIECES


def append_version(state: State, command: AppendVersion) -> AnyResult:
    result = _append(state, command)
    if not isinstance(result, Committed):
        contents.abandon(state, command.content.staged)
    return result


def _append(state: State, command: AppendVersion) -> AnyResult:
    bucket = buckets.find(state, command.bucket)
    if bucket is None:
        return NoBucket()
    key = command.key.encode()
    wrong = bad_key(key) or objects.bad_version(command.version_id, bucket)
    if wrong:
        return wrong
    if not (count_fits(command.offset) and count_fits(command.appended)) or (
            command.content.size <= (command.offset if command.whole else 0)):
        return Malformed(reason="an append has an offset, bytes, and a count of appends")
    row = attributes.find_row(state, bucket.id, key, None)
    if row is None or row.marker:
        return objects.unmet(command.condition, None) or WrongOffset(size=0)
    order, version_id, _, content, size, etag, _, _, _, owner, _, _ = row.columns
    current = Current(order, version_id, content, size, etag)
    refusal = objects.unmet(command.condition, current)
    if refusal:
        return refusal
    if size != command.offset:
        return WrongOffset(size=size)
    if order != command.base:
        return Moved()
    coming = command.version_id if bucket.versioning == "Enabled" else NULL_VERSION
    whole = command.content.size if command.whole else size + command.content.size
    over = objects.too_much(state, bucket, key, current, coming, whole)
    if over:
        return over
    body = _body(state, bucket, current, command, stays=coming != version_id)
    if not isinstance(body, Body):
        return body
    result = objects.make_current(
        state, bucket, key, current, body, command.version_id,
        msgspec.structs.replace(row.attributes, lock=None, appended=command.appended), owner)
    if bucket.events is not None:
        events.created(state, bucket, "ObjectCreated:Put", key, body.size, result, command.origin)
    return result


def _body(state: State, bucket: BucketState, current: Current, command: AppendVersion, stays: bool) -> Body | AnyResult:
    """The content of the longer object, with a reference for it. Changes nothing if it is refused."""
    terms = state.terms_of(bucket)
    given = command.content
    if not command.whole:
        row = state.execute("SELECT refs, kind FROM content WHERE id = ?", (current.content,)).fetchone()
        if not stays and row == (1, PIECES):
            new = contents.prepare(state, given, terms)
            if not isinstance(new, Prepared):
                return new
            if new.staged is not None:
                return Moved()
            if not new.slices:
                return Malformed(reason="a page of a content that grows has slices")
            refusal = contents.extend(state, current.content, current.size, new)
            return refusal or Body(current.content, current.size + new.size, new.etag, new.checksum, 0)
        before = contents.slices_in_pages(state, current.content, CHUNKS_PER_COMMAND_MAX - len(given.slices))
        if before is None or given.staged is not None:
            return Moved()
        given = msgspec.structs.replace(given, size=current.size + given.size, slices=(*before, *given.slices))
    new = contents.prepare(state, given, terms)
    if not isinstance(new, Prepared):
        return new
    content = contents.store(state, new, in_pages=True)
    if isinstance(content, Malformed):
        return content
    return Body(content, new.size, new.etag, new.checksum, 0)
