"""When a lifecycle does what with a version: pure arithmetic of rules and times, for answers and for the worker alike.

A time in days counts from when the version was made (or became noncurrent) and is rounded up to the next midnight UTC, as
AWS does it. Where a day is shorter (the setting `lifecycle_day_seconds`) the worker counts in such days and rounds nothing;
what clients are told stays in real days.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple
from urllib.parse import quote

from gateway.s3.lifecycle.rules import ALL_128K, Lifecycle, Pairs, Rule, fits, fits_key
from gateway.s3.times import DAY_MS, http_date

SMALL_BYTES = 128 << 10
"""Objects below are not moved, unless a rule speaks of sizes itself."""

COLDER = ("STANDARD", "REDUCED_REDUNDANCY", "STANDARD_IA", "INTELLIGENT_TIERING", "ONEZONE_IA", "GLACIER_IR", "GLACIER",
          "DEEP_ARCHIVE")
"""AWS's classes: versions move down this list only. Names that a store has besides have no place in it."""

ARCHIVES = frozenset({"GLACIER", "DEEP_ARCHIVE"})
"""What AWS reads only after a restore. Where the default minimum varies by class, these take objects of any size."""

_SECOND_LAST = 253_402_214_400_000
"""31 December 9999: later dates have no form that clients know."""


class Days(NamedTuple):
    """How long a lifecycle's day is."""

    ms: int = DAY_MS

    @property
    def real(self) -> bool:
        return self.ms == DAY_MS

    def after(self, from_ms: int, days: int) -> int:
        """When so many days are over."""
        ends = from_ms + days * self.ms
        return min(-(-ends // DAY_MS) * DAY_MS if self.real else ends, _SECOND_LAST)


REAL = Days()


class Due(NamedTuple):
    """`at_ms` is when; `rule` which one says so. `spared`: as long as so many noncurrent versions are newer."""

    at_ms: int
    rule: Rule
    storage_class: str = ""
    spared: int = 0


class Version(NamedTuple):
    """What rules look at. `from_ms`: since when it is what it is, current or noncurrent. `newer`: how many noncurrent
    versions of its key are newer."""

    key: str
    from_ms: int
    size: int = 0
    tags: Pairs = ()
    storage_class: str = "STANDARD"
    newer: int = 0


def expiration(lifecycle: Lifecycle, version: Version, days: Days = REAL) -> Due | None:
    """Of a current version: the earliest of all rules."""
    return _first(
        Due(_at(days, version.from_ms, rule.expiration.days, rule.expiration.date_ms), rule)
        for rule in _enabled(lifecycle) if rule.expiration is not None and rule.expiration.marker is None
        and fits(rule, version.key, version.tags, version.size))


def noncurrent_expiration(lifecycle: Lifecycle, version: Version, days: Days = REAL) -> Due | None:
    """Of a noncurrent version; of a noncurrent delete marker with `marker_expiration`'s filters."""
    return _first(
        Due(days.after(version.from_ms, rule.noncurrent_expiration.days), rule, spared=rule.noncurrent_expiration.newer or 0)
        for rule in _enabled(lifecycle) if rule.noncurrent_expiration is not None
        and version.newer >= (rule.noncurrent_expiration.newer or 0) and fits(rule, version.key, version.tags, version.size))


def noncurrent_marker_expiration(lifecycle: Lifecycle, version: Version, days: Days = REAL) -> Due | None:
    """Of a delete marker that something newer has followed."""
    return _first(
        Due(days.after(version.from_ms, rule.noncurrent_expiration.days), rule, spared=rule.noncurrent_expiration.newer or 0)
        for rule in _enabled(lifecycle) if rule.noncurrent_expiration is not None
        and version.newer >= (rule.noncurrent_expiration.newer or 0) and fits_key(rule, version.key))


def marker_expiration(lifecycle: Lifecycle, key: str, made_ms: int, days: Days = REAL) -> Due | None:
    """Of a delete marker that is all there is of its key. A rule that expires after days takes such markers along when they
    are as old as that; one that asks for it takes them at once."""
    return _first(
        Due(0 if rule.expiration.marker else _at(days, made_ms, rule.expiration.days, rule.expiration.date_ms), rule)
        for rule in _enabled(lifecycle) if rule.expiration is not None and rule.expiration.marker is not False
        and fits_key(rule, key))


def abort(lifecycle: Lifecycle, key: str, initiated_ms: int, days: Days = REAL) -> Due | None:
    """Of an upload that is not completed."""
    return _first(Due(days.after(initiated_ms, rule.abort_days), rule)
                  for rule in _enabled(lifecycle) if rule.abort_days is not None and fits_key(rule, key))


def transition(lifecycle: Lifecycle, version: Version, now_ms: int, days: Days = REAL) -> Due | None:
    """Where a current version is to be moved by now: the last move that is due. None if it lies there, or colder."""
    return _move(lifecycle, version, now_ms, days, (
        Due(_at(days, version.from_ms, each.days, each.date_ms), rule, each.storage_class)
        for rule in _enabled(lifecycle) if rule.transitions and fits(rule, version.key, version.tags, version.size)
        for each in rule.transitions))


def noncurrent_transition(lifecycle: Lifecycle, version: Version, now_ms: int, days: Days = REAL) -> Due | None:
    """The same of a noncurrent version."""
    return _move(lifecycle, version, now_ms, days, (
        Due(days.after(version.from_ms, each.days), rule, each.storage_class, each.newer or 0)
        for rule in _enabled(lifecycle) if rule.noncurrent_transitions
        and fits(rule, version.key, version.tags, version.size)
        for each in rule.noncurrent_transitions if version.newer >= (each.newer or 0)))


def _enabled(lifecycle: Lifecycle) -> Iterator[Rule]:
    return (rule for rule in lifecycle.rules if rule.enabled)


def _at(days: Days, from_ms: int, count: int | None, date_ms: int | None) -> int:
    if count is not None:
        return days.after(from_ms, count)
    assert date_ms is not None
    return date_ms


def _first(due: Iterable[Due]) -> Due | None:
    return min(due, key=lambda each: each.at_ms, default=None)


def _move(lifecycle: Lifecycle, version: Version, now_ms: int, days: Days, due: Iterable[Due]) -> Due | None:
    """Of AWS's classes the coldest: nothing comes back up from there. A store's own count by their time."""
    by_now = [each for each in due if each.at_ms <= now_ms and _large_enough(lifecycle, version, each, days)]
    chosen = max(by_now, key=lambda each: (each.at_ms, _coldness(each.storage_class)), default=None)
    if chosen is not None and chosen.storage_class in COLDER:
        chosen = max(by_now, key=lambda each: _coldness(each.storage_class))
    if chosen is None or not _colder(version.storage_class, chosen.storage_class):
        return None
    return chosen


def _large_enough(lifecycle: Lifecycle, version: Version, due: Due, days: Days) -> bool:
    """Where a day is short, somebody tries things with small objects."""
    if version.size >= SMALL_BYTES or due.rule.sized or not days.real:
        return True
    return lifecycle.minimum != ALL_128K and due.storage_class in ARCHIVES


def _coldness(storage_class: str) -> int:
    return COLDER.index(storage_class) if storage_class in COLDER else -1


def _colder(lies: str, wanted: str) -> bool:
    known = lies in COLDER and wanted in COLDER
    return COLDER.index(wanted) > COLDER.index(lies) if known else wanted != lies


# Said to clients

def expiration_header(due: Due) -> tuple[str, str]:
    return "x-amz-expiration", f'expiry-date="{http_date(due.at_ms)}", rule-id="{quote(due.rule.id, safe="")}"'


def abort_headers(due: Due) -> list[tuple[str, str]]:
    return [("x-amz-abort-date", http_date(due.at_ms)), ("x-amz-abort-rule-id", quote(due.rule.id, safe=""))]
