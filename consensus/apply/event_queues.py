"""What is set about event notifications, and how events leave their queues: commands of the gateways.

The gateway that delivers says which events are done, in batches; a repeat finds nothing to do, so two that deliver at once
tell a listener twice and count once.
"""

from consensus.apply import buckets, events
from consensus.apply.state import State, count_fits, texts_fit
from consensus.core.commands import EventsDone, PurgeEvents, ReportTarget, SetNotification
from consensus.core.events import ERROR_CHARACTERS_MAX, Event
from consensus.core.results import AnyResult, Done, Drained, Malformed, NoBucket
from consensus.rows import I63_MAX, encode

DONE_MAX = 400
"""Events in one EventsDone: a row each."""

PURGED_AT_ONCE_MAX = 500


def set_notification(state: State, command: SetNotification) -> AnyResult:
    """In the place of an earlier one. `test` are the targets that are sent a TestEvent, as S3 does before it tells anything."""
    bucket = buckets.find(state, command.bucket)
    if bucket is None:
        return NoBucket()
    notification = command.notification
    raw = b"" if notification is None else encode(notification)
    if len(raw) > buckets.SETTING_BYTES_MAX or len(command.test) > events.RULES_MAX or (
            notification is not None and len(notification.rules) > events.RULES_MAX):
        return Malformed(reason=f"a bucket has at most {events.RULES_MAX} rules of notification")
    if notification is not None and any(len(rule.events) > events.NAMES_MAX for rule in notification.rules):
        return Malformed(reason=f"a rule names at most {events.NAMES_MAX} events")
    if not all(target and texts_fit(target) for target in command.test) or len(set(command.test)) < len(command.test):
        return Malformed(reason="a target has a short name, and is tested once")
    state.touch(2)
    if notification is None:
        state.execute("DELETE FROM bucket_setting WHERE bucket = ? AND name = ?", (bucket.id, events.SETTING))
    else:
        state.execute("INSERT OR REPLACE INTO bucket_setting (bucket, name, document) VALUES (?, ?, ?)",
                      (bucket.id, events.SETTING, raw))
    bucket.events = events.of_bucket(state, bucket.id)
    state.execute("UPDATE bucket SET events = ? WHERE id = ?", (bucket.events is not None, bucket.id))
    if bucket.events is not None:
        for target in command.test:
            events.queue(state, target, Event(
                name="TestEvent", rule="", bucket=bucket.name, owner=bucket.events.owner, region=bucket.events.region,
                at_ms=state.now, origin=events.sound(command.origin)))
    return Done()


def events_done(state: State, command: EventsDone) -> AnyResult:
    """They are delivered, or given up. Those that are gone already (a repeat, a full queue) are not counted again."""
    if len(command.events) > DONE_MAX or not texts_fit(command.target):
        return Malformed(reason=f"at most {DONE_MAX} events of one target at once")
    if not all(count_fits(place) and 0 <= order <= I63_MAX for order, place in command.events):
        return Malformed(reason="an event is named by its order and its place")
    removed = sum(state.execute("DELETE FROM event WHERE target = ? AND ord = ? AND place = ?",
                                (command.target, *event)).rowcount for event in command.events)
    state.touch(1 + removed)
    column = "damaged" if command.damaged else "delivered" if command.delivered else "expired"
    healed = ", error = ''" if column == "delivered" else ""
    state.execute(f"UPDATE event_target SET queued = queued - ?, {column} = {column} + ?{healed} WHERE name = ?",
                  (removed, removed, command.target))
    return Done()


def purge_events(state: State, command: PurgeEvents) -> AnyResult:
    """Give up what waits for a target, in pages, the oldest first. An empty queue goes with its counters."""
    if not texts_fit(command.target):
        return Malformed(reason="a target has a short name")
    removed = events.remove_oldest(state, command.target, min(max(command.limit, 1), PURGED_AT_ONCE_MAX))
    left = state.execute("SELECT 1 FROM event WHERE target = ? LIMIT 1", (command.target,)).fetchone() is not None
    state.touch()
    if left:
        state.execute("UPDATE event_target SET queued = queued - ?, dropped = dropped + ? WHERE name = ?",
                      (removed, removed, command.target))
    else:
        state.execute("DELETE FROM event_target WHERE name = ?", (command.target,))
    return Drained(released=removed, more=left)


def report_target(state: State, command: ReportTarget) -> AnyResult:
    """Why the last delivery failed, for whoever asks any machine."""
    if not texts_fit(command.target) or len(command.error) > ERROR_CHARACTERS_MAX:
        return Malformed(reason=f"an error is told in {ERROR_CHARACTERS_MAX} characters")
    state.touch()
    state.execute("UPDATE event_target SET error = ?, error_at = ? WHERE name = ?",
                  (command.error, state.now, command.target))
    return Done()
