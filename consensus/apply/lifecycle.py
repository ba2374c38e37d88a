"""A bucket's lifecycle, carried out: versions that expire, noncurrent ones that go, markers, moves to another storage class.

Which versions are due is found by a gateway that pages through the bucket; between its look and this command a client may
have written, locked, restored or deleted, and the owner may have set other rules. So each step names what it was meant for,
and is left out where that is no longer so. Nothing is removed before its time by the log's clock, whatever the gateway's says.
"""

from collections.abc import Callable

from consensus.apply import attributes, buckets, multipart, objects
from consensus.apply.attributes import Row
from consensus.apply.state import BucketState, State, bad_key, count_fits, texts_fit
from consensus.core.commands import (
    LIFECYCLE_STEPS_MAX,
    ROWS_PER_COMMAND_MAX,
    AbortUpload,
    CarryOutLifecycle,
    DeleteVersion,
    LifecycleStep,
)
from consensus.core.events import Origin
from consensus.core.ids import UploadId, VersionId
from consensus.core.results import AnyResult, CarriedOut, Deleted, Done, Malformed, NoBucket

ROWS_ENOUGH = ROWS_PER_COMMAND_MAX // 3
"""After so many rows the rest of the steps wait for another command: one step may take apart a content of 50 slices."""

SPARED_MAX = 100
"""S3's limit."""

SPARED_AMONG_MAX = 1_000
"""So many rows are looked at for the versions that are spared, delete markers among them. Who has more keeps what is old."""

EXPIRED, MARKED = "LifecycleExpiration:Delete", "LifecycleExpiration:DeleteMarkerCreated"
"""AWS's names of these events."""


def carry_out(state: State, command: CarryOutLifecycle) -> AnyResult:
    if len(command.steps) > LIFECYCLE_STEPS_MAX:
        return Malformed(reason=f"a command carries out at most {LIFECYCLE_STEPS_MAX} steps")
    for step in command.steps:
        wrong = _bad(step)
        if wrong:
            return wrong
    bucket = buckets.find(state, command.bucket)
    if bucket is None:
        return NoBucket()
    lifecycle, owner = state.execute("SELECT lifecycle, owner FROM bucket WHERE id = ?", (bucket.id,)).fetchone()
    if not lifecycle or lifecycle != command.lifecycle:
        return CarriedOut(moved=True)
    done: list[int] = []
    reached = 0
    for place, step in enumerate(command.steps):
        if state.touched >= ROWS_ENOUGH:
            break
        reached += 1
        if step.due_ms <= state.now and _is_as_looked_at(state, bucket, step) and _ACTIONS[step.action](
                state, bucket, step, owner):
            done.append(place)
    return CarriedOut(places=tuple(done), reached=reached)


def _bad(step: LifecycleStep) -> Malformed | None:
    if step.action not in _ACTIONS or not count_fits(step.order) or not count_fits(step.seal or 0) or not count_fits(
            step.newest or 0) or not 0 <= step.spared <= SPARED_MAX or not texts_fit(
            step.marker_id, step.storage_class, step.upload_id) or (step.action == "move" and not step.storage_class):
        return Malformed(reason="a step has an action, an order and short texts")
    return bad_key(step.key.encode())


def _is_as_looked_at(state: State, bucket: BucketState, step: LifecycleStep) -> bool:
    """Whether its tags are still those that a rule asks for. Whatever else has changed about it is looked at again, too."""
    if step.seal is None:
        return True
    at = _at(bucket, step)
    return any(
        state.execute(f"SELECT 1 FROM {table} WHERE bucket = ? AND key = ? AND ord = ? AND crc = ?", (*at, step.seal)).fetchone()
        for table in ("object", "history"))


def _expire(state: State, bucket: BucketState, step: LifecycleStep, owner: str) -> bool:
    """As a client's DELETE without a version: under versioning a marker hides it, locked or not, and it becomes noncurrent."""
    current = objects.find_current(state, bucket.id, step.key.encode())
    if current is None or current.order != step.order:
        return False
    return _delete(state, bucket, step, owner, None, MARKED if bucket.versioning else EXPIRED)


def _remove(state: State, bucket: BucketState, step: LifecycleStep, owner: str) -> bool:
    """Gone for good, unless retention or a legal hold protects it."""
    version_id = _noncurrent(state, bucket, step)
    if version_id is None:
        return False
    return _delete(state, bucket, step, owner, version_id, EXPIRED)


def _unmark(state: State, bucket: BucketState, step: LifecycleStep, owner: str) -> bool:
    version_id, marker = _in_history(state, bucket, step)
    if version_id is None or not marker or _has_newer(state, bucket, step):
        return False
    older = state.execute("SELECT 1 FROM history WHERE bucket = ? AND key = ? AND ord < ? LIMIT 1", _at(bucket, step))
    if older.fetchone():
        return False                     # it hides something
    return _delete(state, bucket, step, owner, version_id, EXPIRED)


def _move(state: State, bucket: BucketState, step: LifecycleStep, owner: str) -> bool:
    found = (attributes.find_row(state, bucket.id, step.key.encode(), None) if step.current
             else _noncurrent_row(state, bucket, step))
    if found is None or found.marker or found.columns[0] != step.order or found.attributes.storage_class == step.storage_class:
        return False
    attributes.set_storage_class(state, bucket, step.key.encode(), found, step.storage_class)
    return True


def _abort(state: State, bucket: BucketState, step: LifecycleStep, owner: str) -> bool:
    return isinstance(
        multipart.abort_upload(state, AbortUpload(bucket=bucket.id, key=step.key, upload_id=UploadId(step.upload_id))), Done)


_ACTIONS: dict[str, Callable[[State, BucketState, LifecycleStep, str], bool]] = {
    "expire": _expire, "remove": _remove, "unmark": _unmark, "move": _move, "abort": _abort,
}


def _delete(
    state: State, bucket: BucketState, step: LifecycleStep, owner: str, version_id: VersionId | None, event: str,
) -> bool:
    outcome = objects.delete_version(state, DeleteVersion(
        bucket=bucket.id, key=step.key, version_id=version_id, marker_id=step.marker_id, owner=owner,
        origin=Origin(event=event)))
    return isinstance(outcome, Deleted) and (outcome.existed or outcome.delete_marker)


def _at(bucket: BucketState, step: LifecycleStep) -> tuple[int, bytes, int]:
    return bucket.id, step.key.encode(), step.order


def _in_history(state: State, bucket: BucketState, step: LifecycleStep) -> tuple[VersionId | None, bool]:
    row = state.execute("SELECT version_id, marker FROM history WHERE bucket = ? AND key = ? AND ord = ?",
                        _at(bucket, step)).fetchone()
    return (None, False) if row is None else (row[0], bool(row[1]))


def _has_newer(state: State, bucket: BucketState, step: LifecycleStep) -> bool:
    at = _at(bucket, step)
    return (objects.find_current(state, *at[:2]) is not None
            or state.execute("SELECT 1 FROM history WHERE bucket = ? AND key = ? AND ord > ? LIMIT 1", at).fetchone() is not None)


def _noncurrent(state: State, bucket: BucketState, step: LifecycleStep) -> VersionId | None:
    """Its id, if it has been noncurrent ever since it was looked at, and as many as are to stay are newer."""
    version_id, _ = _in_history(state, bucket, step)
    if version_id is None or not _has_newer(state, bucket, step):
        return None
    at = _at(bucket, step)
    if step.newest is not None and not any(
            state.execute(f"SELECT 1 FROM {table} WHERE bucket = ? AND key = ? AND ord = ?", (*at[:2], step.newest)).fetchone()
            for table in ("object", "history")):
        return None
    if step.spared:
        newer = state.execute(
            "SELECT count(*) FROM (SELECT 1 FROM (SELECT marker FROM history WHERE bucket = ? AND key = ? AND ord > ?"
            " ORDER BY ord LIMIT ?) WHERE NOT marker LIMIT ?)", (*at, SPARED_AMONG_MAX, step.spared)).fetchone()[0]
        if newer < step.spared:
            return None
    return version_id


def _noncurrent_row(state: State, bucket: BucketState, step: LifecycleStep) -> Row | None:
    version_id = _noncurrent(state, bucket, step)
    if version_id is None:
        return None
    return attributes.find_row(state, bucket.id, step.key.encode(), version_id)
