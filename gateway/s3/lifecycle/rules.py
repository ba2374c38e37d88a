"""A bucket's lifecycle as values: rules, which versions they are about, and the XML that says them (S3_SEMANTICS §21).

*Rule*: a filter and what is done with versions that it fits, once they are old enough. An old configuration (V1) has a Prefix
in each rule, a new one (V2) a Filter; one configuration is not both. How it is read: gateway/s3/lifecycle/read.py;
when something is due: gateway/s3/lifecycle/due.py.
"""

from collections.abc import Iterable

import msgspec

from gateway.s3.times import iso8601
from gateway.s3.xml.pieces import document, optional, word
from gateway.s3.xml.text import escape

RULES_MAX = 1000
BYTES_MAX = 448 << 10
"""A thousand rules of ordinary length. What is made of them is kept in one setting of the bucket, of 512 KiB at most."""

ALL_128K, VARIES = "all_storage_classes_128K", "varies_by_storage_class"
MINIMUMS = (ALL_128K, VARIES)
MINIMUM_HEADER = "x-amz-transition-default-minimum-object-size"

Pairs = tuple[tuple[str, str], ...]


class _Value(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Kept as msgpack arrays: new fields go last, with a default."""


class Filter(_Value, frozen=True, kw_only=True):
    """All that is given must fit. `joined`: it stood in an And element."""

    prefix: str | None = None
    tags: Pairs = ()
    greater: int | None = None       # bytes, exclusive
    less: int | None = None
    joined: bool = False


class Expiration(_Value, frozen=True, kw_only=True):
    """Exactly one of them. `marker` False does nothing, and is given back."""

    days: int | None = None
    date_ms: int | None = None
    marker: bool | None = None


class Transition(_Value, frozen=True, kw_only=True):
    storage_class: str
    days: int | None = None
    date_ms: int | None = None


class NoncurrentExpiration(_Value, frozen=True, kw_only=True):
    """`newer`: so many noncurrent versions that are newer stay whatever their age."""

    days: int
    newer: int | None = None


class NoncurrentTransition(_Value, frozen=True, kw_only=True):
    storage_class: str
    days: int
    newer: int | None = None


class Rule(_Value, frozen=True, kw_only=True):
    """Exactly one of `prefix` (of V1) and `filter`."""

    id: str
    enabled: bool
    prefix: str | None = None
    filter: Filter | None = None
    expiration: Expiration | None = None
    transitions: tuple[Transition, ...] = ()
    noncurrent_expiration: NoncurrentExpiration | None = None
    noncurrent_transitions: tuple[NoncurrentTransition, ...] = ()
    abort_days: int | None = None

    @property
    def key_prefix(self) -> str:
        """All keys that the rule is about begin so."""
        return self.prefix or (self.filter.prefix if self.filter is not None else None) or ""

    @property
    def tags(self) -> Pairs:
        return self.filter.tags if self.filter is not None else ()

    @property
    def sized(self) -> bool:
        return self.filter is not None and (self.filter.greater is not None or self.filter.less is not None)


class Lifecycle(_Value, frozen=True, kw_only=True):
    """What is set for a bucket. `minimum`: which objects are too small to be moved where no rule speaks of their size."""

    rules: tuple[Rule, ...]
    minimum: str = ALL_128K


def fits(rule: Rule, key: str, tags: Pairs, size: int) -> bool:
    """Whether the rule is about a version of this key."""
    if not key.startswith(rule.key_prefix):
        return False
    given = rule.filter
    if given is None:
        return True
    return ((given.greater is None or size > given.greater) and (given.less is None or size < given.less)
            and all(tag in tags for tag in given.tags))


def fits_key(rule: Rule, key: str) -> bool:
    """Whether it is about a delete marker or an upload of this key: neither has a size or tags, so rules that ask for them
    are not."""
    return key.startswith(rule.key_prefix) and not rule.tags and not rule.sized


# Written

def write(lifecycle: Lifecycle) -> bytes:
    """The LifecycleConfiguration that was set, in AWS's order of elements."""
    return document("LifecycleConfiguration", "".join(map(_rule, lifecycle.rules)))


def _rule(rule: Rule) -> str:
    given = rule.filter
    about = optional("Prefix", rule.prefix) if given is None else f"<Filter>{_filter(given)}</Filter>"
    return (
        f"<Rule><ID>{escape(rule.id)}</ID>{about}<Status>{'Enabled' if rule.enabled else 'Disabled'}</Status>"
        + "".join(
            f"<Transition>{_when(each.days, each.date_ms)}<StorageClass>{escape(each.storage_class)}</StorageClass></Transition>"
            for each in rule.transitions)
        + _expiration(rule.expiration)
        + "".join(
            f"<NoncurrentVersionTransition><NoncurrentDays>{each.days}</NoncurrentDays>{_newer(each.newer)}"
            f"<StorageClass>{escape(each.storage_class)}</StorageClass></NoncurrentVersionTransition>"
            for each in rule.noncurrent_transitions)
        + _noncurrent(rule.noncurrent_expiration)
        + ("" if rule.abort_days is None else "<AbortIncompleteMultipartUpload>"
           f"<DaysAfterInitiation>{rule.abort_days}</DaysAfterInitiation></AbortIncompleteMultipartUpload>")
        + "</Rule>"
    )


def _filter(given: Filter) -> str:
    inner = (optional("Prefix", given.prefix) + _tags(given.tags)
             + optional("ObjectSizeGreaterThan", given.greater) + optional("ObjectSizeLessThan", given.less))
    return f"<And>{inner}</And>" if given.joined else inner


def _tags(tags: Iterable[tuple[str, str]]) -> str:
    return "".join(f"<Tag><Key>{escape(key)}</Key><Value>{escape(value)}</Value></Tag>" for key, value in tags)


def _expiration(given: Expiration | None) -> str:
    if given is None:
        return ""
    marker = "" if given.marker is None else f"<ExpiredObjectDeleteMarker>{word(given.marker)}</ExpiredObjectDeleteMarker>"
    return f"<Expiration>{_when(given.days, given.date_ms)}{marker}</Expiration>"


def _when(days: int | None, date_ms: int | None) -> str:
    return optional("Days", days) + optional("Date", None if date_ms is None else iso8601(date_ms))


def _noncurrent(given: NoncurrentExpiration | None) -> str:
    if given is None:
        return ""
    return ("<NoncurrentVersionExpiration>"
            f"<NoncurrentDays>{given.days}</NoncurrentDays>{_newer(given.newer)}</NoncurrentVersionExpiration>")


def _newer(count: int | None) -> str:
    return optional("NewerNoncurrentVersions", count)
