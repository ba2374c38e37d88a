"""Lifecycles in the log: a step has an effect only while what it was meant for is still so, and its time has come."""

import msgspec
import pytest

from consensus import queries
from consensus.core.commands import (
    LIFECYCLE,
    LIFECYCLE_STEPS_MAX,
    CarryOutLifecycle,
    CreateUpload,
    DeleteVersion,
    LifecycleStep,
    SetBucketSetting,
    SetLegalHold,
    SetObjectLock,
    SetRetention,
    SetTags,
    SetVersioning,
)
from consensus.core.ids import BucketId, UploadId, VersionId
from consensus.core.model import LockDefault, ObjectVersion
from consensus.core.results import CarriedOut, Changed, Done, Malformed, NoBucket
from tests.unit.consensus.metadata import PLAIN, Cluster


def with_lifecycle(cluster: Cluster, versioning: str = "") -> BucketId:
    bucket = cluster.bucket(versioning=versioning)
    set_rules(cluster, bucket)
    return bucket


def set_rules(cluster: Cluster, bucket: BucketId, document: bytes | None = b"rules") -> None:
    assert cluster.run(SetBucketSetting(bucket=bucket, name=LIFECYCLE, document=document)) == Done()


def position_of(cluster: Cluster) -> int:
    (found,) = cluster.read(queries.lifecycle_buckets)
    return int(found.lifecycle)


def carry_out(cluster: Cluster, bucket: BucketId, *steps: LifecycleStep, lifecycle: int | None = None) -> CarriedOut:
    result = cluster.run(CarryOutLifecycle(
        bucket=bucket, lifecycle=position_of(cluster) if lifecycle is None else lifecycle, steps=steps))
    assert isinstance(result, CarriedOut), result
    return result


def step(action: str, key: str, order: int, **named: object) -> LifecycleStep:
    return msgspec.structs.replace(
        LifecycleStep(action=action, key=key, order=order, due_ms=0, marker_id=VersionId(f"m{order}")), **named)


def current(cluster: Cluster, bucket: BucketId, key: str = "k") -> ObjectVersion | None:
    found: ObjectVersion | None = cluster.read(queries.current, bucket, key)
    return found


def versions(cluster: Cluster, bucket: BucketId) -> list[tuple[str, str]]:
    page = cluster.read(queries.list_versions, bucket, "", "", "", None, 1000)
    return [(each.version_id, "marker" if each.delete_marker else "version") for each in page.objects]


def test_the_bucket_tells_whether_it_has_a_lifecycle_and_when_it_changed(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    assert cluster.read(queries.bucket, "bucket").lifecycle == 0
    set_rules(cluster, bucket)
    first = cluster.read(queries.bucket, "bucket").lifecycle
    set_rules(cluster, bucket)
    assert cluster.read(queries.bucket, "bucket").lifecycle > first > 0
    assert [(each.id, each.name) for each in cluster.read(queries.lifecycle_buckets)] == [(bucket, "bucket")]
    set_rules(cluster, bucket, None)
    assert cluster.read(queries.bucket, "bucket").lifecycle == 0
    assert cluster.read(queries.lifecycle_buckets) == []


@pytest.mark.parametrize(("versioning", "left"), [
    ("", []), ("Enabled", [("m", "marker"), ("v1", "version")]), ("Suspended", [("null", "marker")]),
])
def test_what_expires_goes_or_is_hidden_as_the_bucket_keeps_versions(
    cluster: Cluster, versioning: str, left: list[tuple[str, str]],
) -> None:
    bucket = with_lifecycle(cluster, versioning)
    order = cluster.put(bucket, "k", b"one", version="v1").order
    assert carry_out(cluster, bucket, step("expire", "k", order, marker_id="m")) == CarriedOut(places=(0,), reached=1)
    assert versions(cluster, bucket) == left
    assert carry_out(cluster, bucket, step("expire", "k", order, marker_id="n")).places == ()
    cluster.drain()
    cluster.check()


def test_a_version_that_was_replaced_meanwhile_does_not_expire(cluster: Cluster) -> None:
    bucket = with_lifecycle(cluster)
    order = cluster.put(bucket, "k", b"one").order
    new = cluster.put(bucket, "k", b"two").order
    assert carry_out(cluster, bucket, step("expire", "k", order)).places == ()
    found = current(cluster, bucket)
    assert found is not None
    assert found.order == new


def test_nothing_happens_before_its_time_by_the_logs_clock(cluster: Cluster) -> None:
    bucket = with_lifecycle(cluster)
    order = cluster.put(bucket, "k", b"one").order
    due = cluster.now + 1_000
    assert carry_out(cluster, bucket, step("expire", "k", order, due_ms=due)) == CarriedOut(places=(), reached=1)
    cluster.now = due
    assert carry_out(cluster, bucket, step("expire", "k", order, due_ms=due)).places == (0,)


def test_steps_of_other_rules_do_nothing(cluster: Cluster) -> None:
    bucket = with_lifecycle(cluster)
    order = cluster.put(bucket, "k", b"one").order
    old = position_of(cluster)
    set_rules(cluster, bucket)
    assert carry_out(cluster, bucket, step("expire", "k", order), lifecycle=old) == CarriedOut(moved=True)
    set_rules(cluster, bucket, None)
    assert carry_out(cluster, bucket, step("expire", "k", order), lifecycle=0) == CarriedOut(moved=True)
    assert current(cluster, bucket) is not None


def test_a_version_whose_tags_have_changed_since_is_looked_at_again(cluster: Cluster) -> None:
    bucket = with_lifecycle(cluster, "Enabled")
    for key in ("a", "b"):
        cluster.put(bucket, key, b"one", version=f"{key}1")
        cluster.put(bucket, key, b"two", version=f"{key}2")
    looked = cluster.read(queries.lifecycle_page, bucket, b"", b"\xff", 0, history=True, tags=True)
    steps = [step("expire" if each.current else "remove", each.key, each.order, seal=each.seal) for each in looked]
    for version in ("a1", "a2"):
        cluster.run(SetTags(bucket=bucket, key="a", tags=(("keep", "yes"),), version_id=VersionId(version)))
    assert carry_out(cluster, bucket, *steps) == CarriedOut(places=(2, 3), reached=4)
    assert [(key.key, key.delete_marker) for key in cluster.read(queries.list_versions, bucket, "", "", "", None, 9).objects] == [
        ("a", False), ("a", False), ("b", True), ("b", False)]


def test_noncurrent_versions_go_and_what_is_current_by_now_stays(cluster: Cluster) -> None:
    bucket = with_lifecycle(cluster, "Enabled")
    one, two, three = (cluster.put(bucket, "k", data, version=data.decode()).order for data in (b"v1", b"v2", b"v3"))
    assert carry_out(cluster, bucket, step("remove", "k", three)).places == (), "it is current"
    assert carry_out(cluster, bucket, step("remove", "k", two)).places == (0,)
    cluster.run(DeleteVersion(bucket=bucket, key="k", version_id=VersionId("v3")))
    assert carry_out(cluster, bucket, step("remove", "k", one)).places == (), "it has come back"
    assert versions(cluster, bucket) == [("v1", "version")]
    cluster.check()


def test_a_version_that_was_current_in_between_counts_anew(cluster: Cluster) -> None:
    """Its marker is taken away, so it is current; then it is overwritten: it has been noncurrent for a moment only."""
    bucket = with_lifecycle(cluster, "Enabled")
    one = cluster.put(bucket, "k", b"one", version="v1").order
    cluster.run(DeleteVersion(bucket=bucket, key="k", marker_id=VersionId("m1"), owner="o"))
    marker = current(cluster, bucket)
    assert marker is not None
    steps = [step(action, "k", one, newest=marker.order, current=False, storage_class=to)
             for action, to in (("remove", ""), ("move", "GLACIER"))]
    cluster.run(DeleteVersion(bucket=bucket, key="k", version_id=VersionId("m1")))
    newest = cluster.put(bucket, "k", b"two", version="v2").order
    assert carry_out(cluster, bucket, *steps).places == ()
    cluster.put(bucket, "k", b"three", version="v3")
    assert carry_out(cluster, bucket, step("remove", "k", one, newest=newest)).places == (0,), "more writes do not matter"
    cluster.check()


def test_versions_that_are_spared_are_counted_again(cluster: Cluster) -> None:
    """Two noncurrent ones are to stay; a client has removed some of them since the look."""
    bucket = with_lifecycle(cluster, "Enabled")
    one, two, _, newest = (cluster.put(bucket, "k", b"x", version=f"v{number}").order for number in range(1, 5))
    older, old = (step("remove", "k", order, newest=newest, spared=2) for order in (one, two))
    cluster.run(DeleteVersion(bucket=bucket, key="k", version_id=VersionId("v3")))
    cluster.run(DeleteVersion(bucket=bucket, key="k", marker_id=VersionId("m1"), owner="o"))
    assert carry_out(cluster, bucket, old).places == (), "v4 alone is newer: markers do not count"
    cluster.put(bucket, "k", b"x", version="v5")
    assert carry_out(cluster, bucket, old).places == (), "nor does the current version"
    cluster.put(bucket, "k", b"x", version="v6")
    assert carry_out(cluster, bucket, old, older).places == (0, 1), "v4 and v5 are newer than both"
    assert versions(cluster, bucket) == [("v6", "version"), ("v5", "version"), ("m1", "marker"), ("v4", "version")]


def test_a_marker_goes_only_when_it_hides_nothing_and_nothing_came_after_it(cluster: Cluster) -> None:
    bucket = with_lifecycle(cluster, "Enabled")
    cluster.put(bucket, "k", b"one", version="v1")
    cluster.run(DeleteVersion(bucket=bucket, key="k", marker_id=VersionId("m1"), owner="o"))
    found = current(cluster, bucket)
    assert found is not None
    marker = step("unmark", "k", found.order)
    assert carry_out(cluster, bucket, marker).places == (), "it hides v1"
    cluster.run(DeleteVersion(bucket=bucket, key="k", version_id=VersionId("v1")))
    assert carry_out(cluster, bucket, step("expire", "k", found.order)).places == (), "a marker is no current version"
    again = cluster.put(bucket, "k", b"two", version="v2").order
    assert carry_out(cluster, bucket, marker).places == (), "something came after it"
    cluster.run(DeleteVersion(bucket=bucket, key="k", version_id=VersionId("v2")))
    assert carry_out(cluster, bucket, step("unmark", "k", again), marker).places == (1,)
    assert versions(cluster, bucket) == []


@pytest.mark.parametrize("protect", ["GOVERNANCE", "COMPLIANCE", "hold"])
def test_what_is_locked_between_look_and_deed_stays(cluster: Cluster, protect: str) -> None:
    bucket = with_lifecycle(cluster, "Enabled")
    cluster.run(SetObjectLock(bucket=bucket, default=LockDefault()))
    one = cluster.put(bucket, "k", b"one", version="v1").order
    cluster.put(bucket, "k", b"two", version="v2")
    if protect == "hold":
        changed = cluster.run(SetLegalHold(bucket=bucket, key="k", on=True, version_id=VersionId("v1")))
    else:
        changed = cluster.run(SetRetention(
            bucket=bucket, key="k", mode=protect, until_ms=cluster.now + 1_000, version_id=VersionId("v1")))
    assert isinstance(changed, Changed)
    assert carry_out(cluster, bucket, step("remove", "k", one)) == CarriedOut(places=(), reached=1)
    cluster.now += 2_000
    assert carry_out(cluster, bucket, step("remove", "k", one)).places == (() if protect == "hold" else (0,))


def test_a_move_changes_the_label_and_nothing_else(cluster: Cluster) -> None:
    bucket = with_lifecycle(cluster, "Enabled")
    one = cluster.put(bucket, "k", b"one", version="v1").order
    two = cluster.put(bucket, "k", b"two", version="v2").order
    before = cluster.read(queries.version, bucket, "k", "v2")
    cold = {"storage_class": "GLACIER"}
    assert carry_out(cluster, bucket, step("move", "k", two, **cold), step("move", "k", one, current=False, **cold),
                     step("move", "k", two, **cold), step("move", "k", one, **cold)).places == (0, 1)
    for version in ("v1", "v2"):
        assert cluster.read(queries.version, bucket, "k", version).attributes.storage_class == "GLACIER"
    after = cluster.read(queries.version, bucket, "k", "v2")
    assert msgspec.structs.replace(after, attributes=before.attributes) == before
    page = cluster.read(queries.list_objects, bucket, "", "", "", 10)
    assert [each.storage_class for each in page.objects] == ["GLACIER"]
    cluster.check()


def test_an_upload_is_aborted_once(cluster: Cluster) -> None:
    bucket = with_lifecycle(cluster)
    assert cluster.run(CreateUpload(bucket=bucket, key="k", upload_id=UploadId("u"), attributes=PLAIN, owner="o")) == Done()
    (upload,) = cluster.read(queries.lifecycle_uploads, bucket, (b"", ""), b"\xff")
    found = step("abort", "k", upload.order, upload_id="u")
    assert carry_out(cluster, bucket, found, found).places == (0,)
    assert cluster.read(queries.lifecycle_uploads, bucket, (b"", ""), b"\xff") == []


def test_a_command_stays_within_its_rows_and_says_how_far_it_came(cluster: Cluster) -> None:
    """Each of these contents is taken apart at once, in a hundred rows or more; the state machine asserts the limit."""
    bucket = with_lifecycle(cluster)
    orders = [cluster.put(bucket, f"k{number}", *(b"%d %d" % (number, piece) for piece in range(50))).order
              for number in range(LIFECYCLE_STEPS_MAX)]
    left = [step("expire", f"k{number}", order) for number, order in enumerate(orders)]
    rounds = 0
    while left:
        result = carry_out(cluster, bucket, *left)
        assert 0 < result.reached == len(result.places)
        left, rounds = left[result.reached:], rounds + 1
    assert rounds > 1
    assert cluster.rows("object") == 0
    cluster.drain()
    cluster.check()


def test_nonsense_is_refused_and_a_bucket_that_is_gone_is_said_to_be(cluster: Cluster) -> None:
    bucket = with_lifecycle(cluster)
    good = step("expire", "k", 1)
    for wrong in ([good] * (LIFECYCLE_STEPS_MAX + 1), [step("forget", "k", 1)], [step("expire", "", 1)],
                  [step("expire", "k", -1)], [step("move", "k", 1)]):
        assert isinstance(cluster.run(CarryOutLifecycle(bucket=bucket, lifecycle=1, steps=tuple(wrong))), Malformed)
    assert cluster.run(CarryOutLifecycle(bucket=BucketId(999_999), lifecycle=1, steps=(good,))) == NoBucket()


def test_pages_show_every_version_once_newest_first(cluster: Cluster) -> None:
    bucket = with_lifecycle(cluster, "Enabled")
    for number in range(7):
        for key in ("a", "b/1", "b/2", "c"):
            cluster.put(bucket, key, b"%d" % number, version=f"{key}{number}")
    cluster.run(DeleteVersion(bucket=bucket, key="b/1", marker_id=VersionId("m"), owner="o"))
    cluster.run(SetVersioning(bucket=bucket, status="Suspended"))
    for limit in (1, 2, 3, 5, 100):
        found: list[tuple[str, str]] = []
        start, below = b"b/", 0
        while page := cluster.read(queries.lifecycle_page, bucket, start, b"b0", below, history=True, tags=True, limit=limit):
            found += [(each.key, each.version_id) for each in page]
            start, below = page[-1].key.encode(), page[-1].order
        assert found == [("b/1", "m"), *((key, f"{key}{number}") for key in ("b/1", "b/2") for number in range(6, -1, -1))]
    live = cluster.read(queries.lifecycle_page, bucket, b"", b"\xff", 0, history=False, tags=False)
    assert [each.key for each in live] == ["a", "b/2", "c"]
