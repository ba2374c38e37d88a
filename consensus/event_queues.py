"""The read side of event notifications: what waits for each target, and what is set for a bucket. Plain functions on a
read-only connection, asked for through consensus.queries."""

import sqlite3

import msgspec

from consensus.apply.events import SETTING
from consensus.core.codec import UNDECODABLE
from consensus.core.errors import Corrupt
from consensus.core.events import DamagedEvent, Event, EventQueue, Notification, QueuedEvent
from consensus.core.ids import BucketId

Database = sqlite3.Connection

EVENTS_PER_PAGE_MAX = 500
"""Of some 400 bytes each."""

_event = msgspec.msgpack.Decoder(Event)
_notification = msgspec.msgpack.Decoder(Notification)


def event_queues(db: Database) -> list[EventQueue]:
    """Of every target that was ever told anything, by name."""
    rows = db.execute(
        "SELECT name, queued, delivered, expired, dropped, error, error_at, damaged,"
        " (SELECT e.at FROM event e WHERE e.target = name ORDER BY e.ord, e.place LIMIT 1) FROM event_target ORDER BY name"
    ).fetchall()
    return [EventQueue(target=name, queued=queued, delivered=delivered, expired=expired, dropped=dropped, oldest_ms=oldest,
                       error=error, error_ms=error_ms, damaged=damaged)
            for name, queued, delivered, expired, dropped, error, error_ms, damaged, oldest in rows]


def waiting_targets(db: Database) -> list[tuple[str, int]]:
    """Every target that was ever told anything, and how much waits for it: what gateways ask all the time."""
    found: list[tuple[str, int]] = db.execute("SELECT name, queued FROM event_target ORDER BY name").fetchall()
    return found


def queued_events(
    db: Database, target: str, after: tuple[int, int] = (0, -1), limit: int = EVENTS_PER_PAGE_MAX
) -> list[QueuedEvent | DamagedEvent]:
    """What waits for a target after that one, in order. One that cannot be read is named, and keeps no other waiting: it is
    nobody's data, and no reason to make the metadata anew."""
    rows = db.execute(
        "SELECT ord, place, event FROM event WHERE target = ? AND (ord, place) > (?, ?) ORDER BY ord, place LIMIT ?",
        (target, *after, min(limit, EVENTS_PER_PAGE_MAX))).fetchall()
    return [_queued(order, place, raw) for order, place, raw in rows]


def _queued(order: int, place: int, raw: bytes) -> QueuedEvent | DamagedEvent:
    try:
        return QueuedEvent(order=order, place=place, event=_event.decode(raw))
    except (*UNDECODABLE, TypeError):        # the last: no blob any more
        return DamagedEvent(order=order, place=place, raw=raw if isinstance(raw, bytes) else str(raw).encode())


def notification(db: Database, bucket_id: BucketId) -> Notification | None:
    """What is set for the bucket."""
    row = db.execute("SELECT document FROM bucket_setting WHERE bucket = ? AND name = ?", (bucket_id, SETTING)).fetchone()
    try:
        return None if row is None else _notification.decode(row[0])
    except UNDECODABLE as error:
        raise Corrupt(f"the notification of bucket {bucket_id} cannot be read: {error}") from error
