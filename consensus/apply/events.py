"""Event notifications: each change that a bucket's owner wants told is queued in the same step as the change itself.

A bucket's rules are compiled when it is first used (watching.py). A change is queued at most once.

Each target has a queue of its own, bounded by what the command says. A full one drops its oldest event for the newest: what
came last is what a reader who has fallen behind needs to know of a key, and nobody's write is refused for a dead listener.
How rules are set and events leave: consensus/apply/event_queues.py.
"""

import msgspec

from consensus.apply.state import BucketState, State, texts_fit
from consensus.apply.watching import Watching, compiled
from consensus.core.codec import UNDECODABLE
from consensus.core.errors import Corrupt
from consensus.core.events import Event, Notification, Origin
from consensus.core.model import Pairs
from consensus.core.results import Committed, Deleted
from consensus.rows import encode

SETTING = "notification"
"""The name among the bucket's settings."""

RULES_MAX = 100
"""AWS's limit of configurations for a bucket. It bounds the matching of one change."""

NAMES_MAX = 64
"""Events that one rule names: S3 has half as many."""

TARGETS_MAX = 1000
"""Rows of queues. Each is a target in somebody's settings, or was one."""

DROPPED_AT_ONCE_MAX = 4
"""Of a queue that is over its limit, with one event: it may have been lowered. So each new one makes the queue shorter."""

EVENT_QUEUE_BOUND = 1 << 31
"""Far above what gateways can be set to."""

NO_ORIGIN = Origin()

_decode = msgspec.msgpack.Decoder(Notification).decode

NO_BYTES_ETAG = "d41d8cd98f00b204e9800998ecf8427e"
"""As S3 has it of delete markers."""


def of_bucket(state: State, bucket: int) -> Watching | None:
    """None, as a rule: then nothing more is looked at when something changes in it. Raises Corrupt."""
    row = state.execute(
        "SELECT b.owner, b.region, s.document FROM bucket_setting s JOIN bucket b ON b.id = s.bucket"
        " WHERE s.bucket = ? AND s.name = ?", (bucket, SETTING)).fetchone()
    if row is None:
        return None
    state.compiled += len(row[2])
    try:
        return compiled(row[0], row[1], _decode(row[2]))
    except UNDECODABLE as error:
        raise Corrupt(f"the notification of bucket {bucket} cannot be read: {error}") from error


def record(
    state: State, bucket: BucketState, name: str, key: bytes, *, origin: Origin | None = None, size: int | None = None,
    etag: str | None = None, version_id: str | None = None, more: Pairs = (),
) -> None:
    """Something has changed in a bucket with `events`. `version_id` as it is stored: "null" and None are not told. An `origin`
    that knows better than the command names the event."""
    watching = bucket.events
    assert watching is not None, "ask first: most buckets tell nobody anything"
    name = (origin.event if origin is not None else "") or name
    watch = watching.find(name, key)
    if watch is not None:
        queue(state, watch.target, Event(
            name=name, rule=watch.rule, bucket=bucket.name, owner=watching.owner, region=watching.region, at_ms=state.now,
            key=key.decode(), size=size, etag=etag, version_id="" if version_id in (None, "null") else str(version_id),
            origin=sound(origin), more=more))


def sound(origin: Origin | None) -> Origin:
    """An absurd one tells nothing; the change is told all the same."""
    fits = origin is not None and origin.queue_max < EVENT_QUEUE_BOUND and texts_fit(
        origin.address, origin.principal, origin.request_id, origin.host_id)
    return origin if origin is not None and fits else NO_ORIGIN


def created(
    state: State, bucket: BucketState, name: str, key: bytes, size: int, result: Committed, origin: Origin | None,
) -> None:
    """A new current version."""
    record(state, bucket, name, key, origin=origin, size=size, etag=result.etag, version_id=result.version_id)


def removed(
    state: State, bucket: BucketState, key: bytes, result: Deleted, named: bool, origin: Origin | None,
) -> None:
    """A version went for good, or a delete marker came. What was not there is not told. `named`: by its version's id."""
    if result.delete_marker and not named:
        record(state, bucket, "ObjectRemoved:DeleteMarkerCreated", key, origin=origin, etag=NO_BYTES_ETAG,
               version_id=result.version_id)
    elif result.existed:
        record(state, bucket, "ObjectRemoved:Delete", key, origin=origin, version_id=result.version_id)


def queue(state: State, target: str, event: Event) -> None:
    place = state.told            # tells several events of one command apart; the same in every version of Staddle
    state.told += 1
    state.touch(2)
    if state.execute("SELECT 1 FROM event_target WHERE name = ?", (target,)).fetchone() is None:
        if state.execute("SELECT count(*) FROM event_target").fetchone()[0] >= TARGETS_MAX:
            return
        state.touch()
        state.execute("INSERT INTO event_target (name) VALUES (?)", (target,))
    ((queued, most),) = state.execute(
        "UPDATE event_target SET queued = queued + 1, most = coalesce(nullif(?, 0), most) WHERE name = ? RETURNING queued, most",
        (max(0, event.origin.queue_max), target)).fetchall()
    state.execute("INSERT INTO event (target, ord, place, at, event) VALUES (?, ?, ?, ?, ?)",
                  (target, state.position, place, state.now, encode(event)))
    if queued > most:
        dropped = remove_oldest(state, target, min(queued - most, DROPPED_AT_ONCE_MAX))
        state.execute("UPDATE event_target SET queued = queued - ?, dropped = dropped + ? WHERE name = ?",
                      (dropped, dropped, target))


def remove_oldest(state: State, target: str, limit: int) -> int:
    removed = state.execute(
        "DELETE FROM event WHERE target = ?1 AND (ord, place) IN"
        " (SELECT ord, place FROM event WHERE target = ?1 ORDER BY ord, place LIMIT ?2)", (target, limit)).rowcount
    state.touch(removed)
    return removed
