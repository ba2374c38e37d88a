"""Event notifications in the log: which changes are told, to whom, in which order, and how queues stay bounded."""

from typing import Any

import pytest

from consensus import audit, queries
from consensus.apply import event_queues, events
from consensus.apply import state as state_module
from consensus.core.commands import (
    DeleteBucket,
    DeleteVersion,
    EventsDone,
    PurgeEvents,
    PutVersion,
    ReportTarget,
    SetAcl,
    SetBucketSetting,
    SetNotification,
    SetRestored,
    SetTags,
    SetVersioning,
)
from consensus.core.errors import Corrupt
from consensus.core.events import DamagedEvent, Event, EventQueue, EventRule, Notification, Origin, QueuedEvent
from consensus.core.ids import BucketId, VersionId
from consensus.core.results import Changed, Committed, Done, Drained, Malformed, NoBucket
from consensus.machine import Machine
from consensus.mending import mend
from tests.unit.consensus.metadata import PLAIN, Cluster


def rule(*names: str, target: str = "hook", id: str = "r", **filters: str) -> EventRule:
    return EventRule(id=id, kind="Queue", arn=f"arn:aws:sqs:::{target}", target=target, events=names,
                     filters=tuple((name.capitalize(), value) for name, value in filters.items()))


def tell(cluster: Cluster, bucket: BucketId, *rules: EventRule, test: tuple[str, ...] = ()) -> None:
    assert cluster.run(SetNotification(bucket=bucket, notification=Notification(rules=rules), test=test)) == Done()


def queued(cluster: Cluster, target: str = "hook") -> list[QueuedEvent]:
    return list(cluster.read(queries.queued_events, target))


def told(cluster: Cluster, target: str = "hook") -> list[tuple[str, str]]:
    return [(each.event.name, each.event.key) for each in queued(cluster, target)]


def queue(cluster: Cluster, target: str = "hook") -> EventQueue:
    found: list[EventQueue] = cluster.read(queries.event_queues)
    return next(each for each in found if each.target == target)


ALL = ("s3:ObjectCreated:*", "s3:ObjectRemoved:*", "s3:ObjectTagging:*", "s3:ObjectAcl:Put")


def test_every_change_of_an_object_is_queued_in_the_step_that_makes_it(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    tell(cluster, bucket, rule(*ALL))
    origin = Origin(address="10.0.0.1", principal="AWS:u", request_id="R", host_id="H")
    put = cluster.put(bucket, "a", b"bytes", origin=origin)
    content = cluster.read(queries.current, bucket, "a").content
    copy = PutVersion(bucket=bucket, key="b", version_id=VersionId(""), attributes=PLAIN, owner="o", content_of=content)
    assert isinstance(cluster.run(copy), Committed)
    cluster.run(SetTags(bucket=bucket, key="a", tags=(("k", "v"),)))
    cluster.run(SetTags(bucket=bucket, key="a", tags=(), origin=Origin(event="ObjectTagging:Delete")))
    cluster.run(SetAcl(bucket=bucket, key="a", acl=None))
    cluster.run(DeleteVersion(bucket=bucket, key="a"))
    assert told(cluster) == [
        ("ObjectCreated:Put", "a"), ("ObjectCreated:Copy", "b"), ("ObjectTagging:Put", "a"), ("ObjectTagging:Delete", "a"),
        ("ObjectAcl:Put", "a"), ("ObjectRemoved:Delete", "a")]
    first = queued(cluster)[0].event
    assert first == Event(name="ObjectCreated:Put", rule="r", bucket="bucket", owner="o", region="", at_ms=put.modified_ms,
                          key="a", size=5, etag=put.etag, origin=origin)
    assert queued(cluster)[-1].event.size is None, "what is gone has no size"
    assert [each.order for each in queued(cluster)] == sorted(each.order for each in queued(cluster))


def test_versions_are_named_and_markers_are_told_as_such(cluster: Cluster) -> None:
    bucket = cluster.bucket(versioning="Enabled")
    tell(cluster, bucket, rule(*ALL))
    cluster.put(bucket, "a", b"1", version="v1")
    cluster.run(DeleteVersion(bucket=bucket, key="a", marker_id=VersionId("m1")))
    cluster.run(DeleteVersion(bucket=bucket, key="a", version_id=VersionId("v1")))
    cluster.run(DeleteVersion(bucket=bucket, key="a", version_id=VersionId("m1")))
    cluster.run(SetVersioning(bucket=bucket, status="Suspended"))
    cluster.put(bucket, "a", b"2")
    assert [(each.event.name, each.event.version_id, each.event.etag is None) for each in queued(cluster)] == [
        ("ObjectCreated:Put", "v1", False), ("ObjectRemoved:DeleteMarkerCreated", "m1", False),
        ("ObjectRemoved:Delete", "v1", True), ("ObjectRemoved:Delete", "m1", True), ("ObjectCreated:Put", "", False)]


def test_what_was_not_there_or_was_refused_is_not_told(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    tell(cluster, bucket, rule(*ALL))
    cluster.run(DeleteVersion(bucket=bucket, key="nothing"))
    cluster.run(DeleteVersion(bucket=bucket, key="nothing", version_id=VersionId("v")))
    cluster.run(SetTags(bucket=bucket, key="nothing", tags=()))
    other = cluster.bucket("other")
    cluster.put(other, "a", b"1")
    assert cluster.rows("event") == 0
    assert not cluster.read(queries.bucket, "other").events
    assert cluster.read(queries.bucket, "bucket").events


@pytest.mark.parametrize(("names", "filters", "wanted"), [
    (("s3:ObjectCreated:*",), {}, ["a/1.jpg", "a/2.txt", "b/1.jpg"]),
    (("s3:ObjectCreated:Put",), {"prefix": "a/"}, ["a/1.jpg", "a/2.txt"]),
    (("s3:ObjectCreated:*",), {"suffix": ".jpg"}, ["a/1.jpg", "b/1.jpg"]),
    (("s3:ObjectCreated:*",), {"prefix": "a/", "suffix": ".jpg"}, ["a/1.jpg"]),
    (("s3:ObjectCreated:*",), {"prefix": "a/1.jpg", "suffix": "1.jpg"}, ["a/1.jpg"]),
    (("s3:ObjectCreated:*",), {"prefix": "A/"}, []),
    (("s3:ObjectCreated:Copy", "s3:ObjectRemoved:*", "s3:LifecycleTransition"), {}, []),
], ids=str)
def test_rules_choose_by_event_and_by_both_ends_of_the_key(
    cluster: Cluster, names: tuple[str, ...], filters: dict[str, str], wanted: list[str],
) -> None:
    bucket = cluster.bucket()
    tell(cluster, bucket, rule(*names, **filters))
    for key in ("a/1.jpg", "a/2.txt", "b/1.jpg"):
        cluster.put(bucket, key, b"x")
    assert [key for _, key in told(cluster)] == wanted


def test_each_target_is_sent_what_its_rules_say_and_a_test_event_first(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    tell(cluster, bucket, rule("s3:ObjectCreated:*", target="one", id="1", prefix="a"),
         rule("s3:ObjectCreated:*", target="two", id="2", prefix="b"), rule("s3:ObjectRemoved:*", target="", id="3"),
         test=("one", "two"))
    cluster.put(bucket, "a", b"x")
    cluster.put(bucket, "b", b"x")
    cluster.run(DeleteVersion(bucket=bucket, key="b"))
    assert told(cluster, "one") == [("TestEvent", ""), ("ObjectCreated:Put", "a")]
    assert told(cluster, "two") == [("TestEvent", ""), ("ObjectCreated:Put", "b")]
    assert cluster.read(queries.waiting_targets) == [("one", 2), ("two", 2)]


def test_rules_are_replaced_and_taken_away_and_what_waits_stays(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    tell(cluster, bucket, rule("s3:ObjectCreated:*"))
    cluster.put(bucket, "a", b"x")
    tell(cluster, bucket, rule("s3:ObjectRemoved:*"))
    cluster.put(bucket, "b", b"x")
    cluster.reopen()
    cluster.run(DeleteVersion(bucket=bucket, key="a"))
    assert cluster.run(SetNotification(bucket=bucket, notification=None)) == Done()
    cluster.run(DeleteVersion(bucket=bucket, key="b"))
    assert not cluster.read(queries.bucket, "bucket").events
    assert cluster.read(queries.notification, bucket) is None
    assert cluster.run(DeleteBucket(bucket=bucket)) == Done()
    assert told(cluster) == [("ObjectCreated:Put", "a"), ("ObjectRemoved:Delete", "a")], "what was a change stays one"


def test_a_deleted_bucket_takes_its_rules_with_it(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    tell(cluster, bucket, rule("s3:ObjectCreated:*"))
    assert cluster.run(DeleteBucket(bucket=bucket)) == Done()
    again = cluster.bucket()
    cluster.put(again, "a", b"x")
    assert cluster.rows("event") == cluster.rows("bucket_setting") == 0


def test_a_full_queue_drops_its_oldest_and_counts_them(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    tell(cluster, bucket, rule("s3:ObjectCreated:*"))
    for number in range(20):
        cluster.put(bucket, f"k{number:02}", b"x", origin=Origin(queue_max=10))
    assert [key for _, key in told(cluster)] == [f"k{number}" for number in range(10, 20)]
    assert (queue(cluster).queued, queue(cluster).dropped) == (10, 10)
    cluster.put(bucket, "by the store itself", b"x")
    assert queue(cluster).queued == 10, "the limit that was said last holds for all"
    cluster.put(bucket, "lowered", b"x", origin=Origin(queue_max=5))
    assert told(cluster)[-1][1] == "lowered"
    cluster.put(bucket, "again", b"x", origin=Origin(queue_max=5))
    assert queue(cluster).queued == len(told(cluster)) == 5


def test_done_events_go_once_however_often_it_is_said(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    tell(cluster, bucket, rule("s3:ObjectCreated:*"))
    for number in range(5):
        cluster.put(bucket, f"k{number}", b"x")
    names = [(each.order, each.place) for each in queued(cluster)]
    cluster.run(ReportTarget(target="hook", error="it answers 500"))
    assert queue(cluster).error == "it answers 500"
    for _ in range(2):
        assert cluster.run(EventsDone(target="hook", events=(names[1], names[3]))) == Done()
    assert cluster.run(EventsDone(target="hook", events=(names[0],), delivered=False)) == Done()
    assert cluster.run(EventsDone(target="nobody", events=tuple(names))) == Done()
    assert [key for _, key in told(cluster)] == ["k2", "k4"]
    assert queue(cluster) == EventQueue(target="hook", queued=2, delivered=2, expired=1, oldest_ms=queued(cluster)[0].event.at_ms,
                                        error_ms=queue(cluster).error_ms), "a delivery heals"


@pytest.mark.parametrize("broken", ["CAST(zeroblob(9) AS BLOB)", "substr(event, 1, 20)", "'text'", "7", "x'c1'",
                                    "CAST(replace(CAST(event AS TEXT), 'k1', x'ff' || 'k') AS BLOB)"])
def test_an_event_that_cannot_be_read_keeps_no_other_waiting(cluster: Cluster, broken: str) -> None:
    bucket = cluster.bucket()
    tell(cluster, bucket, rule("s3:ObjectCreated:*"))
    for number in range(3):
        cluster.put(bucket, f"k{number}", b"x")
    name = queued(cluster)[1].order, queued(cluster)[1].place
    cluster.db.execute(f"UPDATE event SET event = {broken} WHERE ord = {name[0]}")
    page = queued(cluster)
    assert [type(each) for each in page] == [QueuedEvent, DamagedEvent, QueuedEvent]
    assert (page[1].order, page[1].place) == name
    for _ in range(2):
        assert cluster.run(EventsDone(target="hook", events=(name,), delivered=False, damaged=True)) == Done()
    assert told(cluster) == [("ObjectCreated:Put", "k0"), ("ObjectCreated:Put", "k2")]
    assert (queue(cluster).queued, queue(cluster).damaged, queue(cluster).expired) == (2, 1, 0)


def test_a_page_begins_after_an_event(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    tell(cluster, bucket, rule("s3:ObjectCreated:*"))
    for number in range(5):
        cluster.put(bucket, f"k{number}", b"x")
    first = cluster.read(queries.queued_events, "hook", (0, -1), 2)
    rest = cluster.read(queries.queued_events, "hook", (first[-1].order, first[-1].place), 100)
    assert [each.event.key for each in (*first, *rest)] == [f"k{number}" for number in range(5)]


def test_a_purge_gives_up_what_waits_in_pages(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_queues, "PURGED_AT_ONCE_MAX", 3)
    bucket = cluster.bucket()
    tell(cluster, bucket, rule("s3:ObjectCreated:*"))
    for number in range(7):
        cluster.put(bucket, f"k{number}", b"x")
    assert cluster.run(PurgeEvents(target="hook")) == Drained(released=3, more=True)
    assert (queue(cluster).queued, queue(cluster).dropped) == (4, 3)
    assert cluster.run(PurgeEvents(target="hook")) == Drained(released=3, more=True)
    assert cluster.run(PurgeEvents(target="hook")) == Drained(released=1, more=False)
    assert cluster.read(queries.event_queues) == []
    assert cluster.run(PurgeEvents(target="nobody")) == Drained(released=0, more=False)


def test_what_a_sender_should_have_checked_is_refused(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    many = Notification(rules=tuple(rule("s3:ObjectCreated:*", id=str(number)) for number in range(events.RULES_MAX + 1)))
    for command in (
        SetNotification(bucket=bucket, notification=many),
        SetNotification(bucket=bucket, notification=Notification(), test=("a", "a")),
        SetNotification(bucket=bucket, notification=Notification(), test=("",)),
        SetBucketSetting(bucket=bucket, name=events.SETTING, document=b"\x00"),
        EventsDone(target="hook", events=((1, 1),) * (event_queues.DONE_MAX + 1)),
        EventsDone(target="hook", events=((-1, 0),)),
        EventsDone(target="hook", events=((1 << 63, 0),)),
        EventsDone(target="x" * 2000, events=()),
        ReportTarget(target="hook", error="x" * 301),
        PurgeEvents(target="x" * 2000),
    ):
        assert isinstance(cluster.run(command), Malformed), command
    assert cluster.run(SetNotification(bucket=BucketId(99), notification=None)) == NoBucket()
    tell(cluster, bucket, rule("s3:ObjectCreated:*"))
    for absurd in (Origin(address="x" * 5000, queue_max=-1), Origin(queue_max=1 << 63)):
        cluster.put(bucket, "a", b"x", origin=absurd)
        assert queued(cluster)[-1].event.origin == Origin(), "an absurd origin is left out, the change is told"
        cluster.run(SetNotification(bucket=bucket, notification=Notification(rules=(rule("s3:ObjectCreated:*"),)),
                                    test=("tested",), origin=absurd))
        assert queued(cluster, "tested")[-1].event.origin == Origin()


def test_a_rule_that_names_an_event_too_often_is_refused(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    often = Notification(rules=(rule(*["s3:ObjectCreated:Put"] * 10_000),))
    assert isinstance(cluster.run(SetNotification(bucket=bucket, notification=often)), Malformed)


def test_rules_in_memory_are_bounded(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket's may take 100 KB: so many buckets as are kept otherwise would fill the memory."""
    monkeypatch.setattr(state_module, "COMPILED_BYTES_MAX", 10_000)
    most = 0
    for number in range(30):
        bucket = cluster.bucket(f"b{number}")
        tell(cluster, bucket, rule("s3:ObjectCreated:*", Prefix="p" * 1000))
        most = max(most, sum(each.events is not None for each in cluster.machine.state.buckets.values()))
    assert 5 < most < 15
    cluster.put(bucket, "p" * 1001, b"x")
    assert len(told(cluster)) == 1


def test_targets_are_no_more_than_can_be_looked_after(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "TARGETS_MAX", 2)
    bucket = cluster.bucket()
    for number in range(4):
        tell(cluster, bucket, rule("s3:ObjectCreated:*", target=f"t{number}"))
        cluster.put(bucket, "a", b"x")
    assert [each.target for each in cluster.read(queries.event_queues)] == ["t0", "t1"]


def test_equal_logs_give_equal_queues(cluster: Cluster, tmp_path: Any) -> None:
    bucket = cluster.bucket()
    tell(cluster, bucket, rule(*ALL))
    for number in range(12):
        cluster.put(bucket, f"k{number % 3}", bytes([number]), origin=Origin(queue_max=5))
    (tmp_path / "other").mkdir()
    replica = Machine(tmp_path / "other")
    for index, entry in enumerate(cluster.entries, 1):
        replica.apply(entry, index)
        replica.commit(index, 1)
    for table in ("event", "event_target"):
        assert replica.db.execute(f"SELECT * FROM {table}").fetchall() == cluster.db.execute(f"SELECT * FROM {table}").fetchall()
    replica.close()


def test_a_recount_finds_and_mends_a_wrong_length(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    tell(cluster, bucket, rule("s3:ObjectCreated:*"), rule("s3:ObjectRemoved:*", target="gone", id="2"))
    for key in ("a", "b"):
        cluster.put(bucket, key, b"x")
    cluster.run(DeleteVersion(bucket=bucket, key="a"))
    assert audit.recount(cluster.db) == []
    cluster.db.execute("UPDATE event_target SET queued = 7 WHERE name = 'hook'")
    cluster.db.execute("DELETE FROM event_target WHERE name = 'gone'")
    assert audit.recount(cluster.db) == [
        "target hook: 7 events recorded, 2 counted", "target gone: 0 events recorded, 1 counted"]
    assert mend(cluster.db) == ["target hook: 7 events, now 2", "target gone: 0 events, now 1"]
    assert audit.recount(cluster.db) == []


def test_a_restore_is_told_as_asked_for_and_done(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    tell(cluster, bucket, rule("s3:ObjectRestore:*"))
    cluster.put(bucket, "a", b"x")
    assert isinstance(cluster.run(SetRestored(bucket=bucket, key="a", storage_class="STANDARD", until_ms=5)), Changed)
    assert told(cluster) == [("ObjectRestore:Post", "a"), ("ObjectRestore:Completed", "a")]
    assert [each.place for each in queued(cluster)] == [0, 1], "counted by itself: what else a command touches does not matter"
    assert queued(cluster)[1].event.more == (("until_ms", "5"), ("storage_class", "STANDARD"))
    assert isinstance(cluster.run(SetRestored(bucket=bucket, key="a", storage_class="GLACIER", until_ms=9)), Changed)
    assert len(queued(cluster)) == 2, "it lies elsewhere by now: nothing was restored"


@pytest.mark.parametrize("letter", [b"", b"\xff"], ids=["no document", "no text"])
def test_rules_that_cannot_be_read_are_damage(cluster: Cluster, letter: bytes) -> None:
    bucket = cluster.bucket()
    tell(cluster, bucket, rule("s3:ObjectCreated:*"))
    document = cluster.read(queries.bucket_setting, bucket, "notification")
    assert document is not None
    cluster.db.execute("UPDATE bucket_setting SET document = ? WHERE name = 'notification'",
                       (document.replace(b"O", letter, 1),))
    cluster.reopen()
    with pytest.raises(Corrupt, match="notification"):
        cluster.put(bucket, "a", b"x")
    with pytest.raises(Corrupt, match="notification"):
        cluster.read(queries.notification, bucket)
