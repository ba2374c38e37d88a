"""Which steps come of a page of versions: noncurrent since the next newer one came, markers alone, parts of the key space."""

import msgspec

from consensus.core.ids import VersionId
from consensus.lifecycles import Looked
from gateway.lifecycle.judging import END, Judge, Part, parts, wants
from gateway.s3.headers import STORAGE_CLASSES
from gateway.s3.lifecycle.due import Days
from gateway.s3.lifecycle.read import read
from gateway.s3.lifecycle.rules import Lifecycle
from gateway.s3.times import DAY_MS

NOW = 1_000 * DAY_MS


def of(*rules: str) -> Lifecycle:
    inner = "".join(f"<Rule><ID>{number}</ID><Status>Enabled</Status>{rule}</Rule>" for number, rule in enumerate(rules))
    return read(f"<LifecycleConfiguration>{inner}</LifecycleConfiguration>".encode(), None, STORAGE_CLASSES, lambda: "made")


def everywhere(action: str) -> str:
    return f"<Filter/>{action}"


def expiration(days: int) -> str:
    return f"<Expiration><Days>{days}</Days></Expiration>"


def noncurrent(days: int, newer: int = 0) -> str:
    spared = f"<NewerNoncurrentVersions>{newer}</NewerNoncurrentVersions>" if newer else ""
    return (f"<NoncurrentVersionExpiration><NoncurrentDays>{days}</NoncurrentDays>{spared}</NoncurrentVersionExpiration>")


def seen(key: str, days_ago: int, kind: str = "older") -> Looked:
    """`kind`: current, older, marker. Its order is its age's opposite, as in the log."""
    return Looked(key=key, order=1_000 - days_ago, version_id=VersionId(f"{key}{days_ago}"), modified_ms=NOW - days_ago * DAY_MS,
                  size=1, storage_class="STANDARD", current=kind == "current", marker=kind == "marker")


def judged(lifecycle: Lifecycle, *page: Looked) -> list[tuple[str, str, int]]:
    """(action, key, how many days ago it was made) of each step."""
    judge = Judge(lifecycle, Days(), NOW)
    following = [*(each.key for each in page[1:]), None]
    found = [judge.see(each, after) for each, after in zip(page, following, strict=True)]
    return [(step.action, step.key, 1_000 - step.order) for step in found if step is not None]


def test_current_versions_count_from_when_they_were_made() -> None:
    assert judged(of(everywhere(expiration(5))), seen("a", 7, "current"), seen("b", 3, "current")) == [("expire", "a", 7)]


def test_noncurrent_ones_count_from_when_the_next_newer_one_came() -> None:
    page = [seen("a", 2, "current"), seen("a", 9), seen("a", 20), seen("b", 50, "current"), seen("b", 60)]
    assert judged(of(everywhere(noncurrent(5))), *page) == [("remove", "a", 20), ("remove", "b", 60)]


def test_a_marker_makes_noncurrent_what_it_hides() -> None:
    page = [seen("a", 10, "marker"), seen("a", 30), seen("b", 1, "marker"), seen("b", 30)]
    assert judged(of(everywhere(noncurrent(5))), *page) == [("remove", "a", 30)]


def test_the_newest_noncurrent_versions_are_spared_and_markers_do_not_count_among_them() -> None:
    page = [seen("a", 10, "current"), seen("a", 20), seen("a", 25, "marker"), seen("a", 30), seen("a", 40),
            seen("b", 10, "current"), seen("b", 20)]
    assert judged(of(everywhere(noncurrent(5, newer=2))), *page) == [("remove", "a", 40)]


def test_a_step_names_what_it_counts_on() -> None:
    judge = Judge(of(everywhere(noncurrent(5, newer=1))), Days(), NOW)
    page = [seen("a", 2, "current"), seen("a", 9), seen("a", 20), seen("b", 50, "marker"), seen("b", 60), seen("b", 70)]
    steps = [found for each in page if (found := judge.see(each, None)) is not None]
    assert [(each.key, each.order, each.newest, each.spared) for each in steps] == [("a", 980, 998, 1), ("b", 930, 950, 1)]


def test_a_noncurrent_marker_goes_with_the_noncurrent_versions() -> None:
    page = [seen("a", 10, "current"), seen("a", 20, "marker"), seen("a", 30)]
    assert judged(of(everywhere(noncurrent(5))), *page) == [("remove", "a", 20), ("remove", "a", 30)]


def test_a_marker_that_is_all_there_is_goes() -> None:
    rule = everywhere("<Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>")
    page = [seen("a", 1, "marker"), seen("b", 1, "marker"), seen("b", 2), seen("c", 1, "marker")]
    assert judged(of(rule), *page) == [("unmark", "a", 1), ("unmark", "c", 1)]
    assert judged(of(everywhere(expiration(5))), seen("a", 3, "marker"), seen("b", 9, "marker")) == [("unmark", "b", 9)]


def move(days: int, storage_class: str) -> str:
    return f"<Transition><Days>{days}</Days><StorageClass>{storage_class}</StorageClass></Transition>"


def test_a_move_comes_before_a_marker_and_after_what_is_gone_for_good() -> None:
    """AWS's order of what is due on the same day."""
    rules = of("<Filter><ObjectSizeGreaterThan>0</ObjectSizeGreaterThan></Filter>" + move(3, "GLACIER") + expiration(5))
    page = seen("a", 9, "current")
    for keeps, action in ((False, "expire"), (True, "move")):
        found = Judge(rules, Days(), NOW, keeps=keeps).see(page, None)
        assert found is not None
        assert found.action == action
    moved = Judge(rules, Days(), NOW, keeps=True).see(msgspec.structs.replace(page, storage_class="GLACIER"), None)
    assert moved is not None
    assert moved.action == "expire", "then it has its turn"


def test_of_several_moves_the_coldest_counts() -> None:
    rules = of(*("<Filter><ObjectSizeGreaterThan>0</ObjectSizeGreaterThan></Filter>" + each
                 for each in (move(40, "GLACIER"), move(60, "STANDARD_IA"), move(90, "DEEP_ARCHIVE"))))
    for days_ago, wanted in ((50, "GLACIER"), (70, "GLACIER"), (100, "DEEP_ARCHIVE")):
        found = Judge(rules, Days(), NOW).see(seen("a", days_ago, "current"), None)
        assert found is not None
        assert found.storage_class == wanted


def test_parts_do_not_overlap_and_cover_what_the_rules_are_about() -> None:
    def about(prefix: str) -> str:
        return f"<Filter><Prefix>{prefix}</Prefix></Filter>{expiration(1)}"

    assert parts(of(about("b"), about("a/x"), about("a/"), about("ä"))) == [
        Part(b"a/", b"a0"), Part(b"b", b"c"), Part("ä".encode(), b"\xc3\xa5")]
    assert parts(of(about("b"), everywhere(noncurrent(1)))) == [Part(b"", END)]
    assert parts(of(about("\U0010ffff"))) == [Part(b"\xf4\x8f\xbf\xbf", b"\xf4\x8f\xbf\xc0")]
    off = Lifecycle(rules=tuple(rule for rule in of(about("b")).rules if not rule.enabled))
    assert parts(off) == []


def test_only_what_the_rules_need_is_read() -> None:
    abort = "<AbortIncompleteMultipartUpload><DaysAfterInitiation>1</DaysAfterInitiation></AbortIncompleteMultipartUpload>"
    assert wants(of(everywhere(expiration(1))), versioned=False) == (True, False, False, False)
    assert wants(of(everywhere(expiration(1))), versioned=True) == (True, True, False, False), "markers go with their age"
    assert wants(of(everywhere(noncurrent(1))), versioned=False) == (False, False, False, False)
    assert wants(of(everywhere(abort)), versioned=True) == (False, False, False, True)
    tagged = f"<Filter><Tag><Key>k</Key><Value>v</Value></Tag></Filter>{expiration(1)}"
    assert wants(of(tagged), versioned=False) == (True, False, True, False)
