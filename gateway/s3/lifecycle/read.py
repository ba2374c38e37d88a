"""A LifecycleConfiguration as clients send it: read, and checked as AWS checks it. Codes and messages are AWS's.

What the schema forbids is MalformedXML. What it allows and makes no sense: gateway/s3/lifecycle/check.py.
"""

from collections.abc import Callable, Collection
from typing import NoReturn

from gateway.s3 import tags as tag_rules
from gateway.s3.errors import S3Error
from gateway.s3.lifecycle.check import check
from gateway.s3.lifecycle.rules import (
    ALL_128K,
    BYTES_MAX,
    MINIMUM_HEADER,
    MINIMUMS,
    RULES_MAX,
    Expiration,
    Filter,
    Lifecycle,
    NoncurrentExpiration,
    NoncurrentTransition,
    Rule,
    Transition,
)
from gateway.s3.times import DAY_MS, parse_iso8601
from gateway.s3.xml.read import Element, fields_of, malformed, number_of, parse, text_of

ID_CHARACTERS_MAX = 255
PREFIX_BYTES_MAX = 1024
NEWER_MAX = 100
DAYS_MAX = 2**31 - 1
SIZE_MAX = 1_099_511_627_776_000
"""AWS's limit of the sizes in a filter: 1,000 TiB."""

_RULE = frozenset({"ID", "Prefix", "Filter", "Status", "Expiration", "NoncurrentVersionExpiration",
                   "AbortIncompleteMultipartUpload"})
_LISTS = ("Transition", "NoncurrentVersionTransition")
_FILTER = frozenset({"Prefix", "Tag", "ObjectSizeGreaterThan", "ObjectSizeLessThan", "And"})
_AND = frozenset({"Prefix", "ObjectSizeGreaterThan", "ObjectSizeLessThan"})
_TAG = frozenset({"Key", "Value"})
_EXPIRATION = frozenset({"Days", "Date", "ExpiredObjectDeleteMarker"})
_TRANSITION = frozenset({"Days", "Date", "StorageClass"})
_NONCURRENT = frozenset({"NoncurrentDays", "NewerNoncurrentVersions"})
_NONCURRENT_TRANSITION = _NONCURRENT | {"StorageClass"}


def read(
    body: bytes, minimum: str | None, storage_classes: Collection[str], new_id: Callable[[], str], *, minima: bool = True,
) -> Lifecycle:
    """S3Error MalformedXML, InvalidArgument, InvalidRequest. `minimum` is the header's value; `new_id` names rules that have no
    id. `minima`: AWS's least times in a class hold; they make no sense where a day is short."""
    if minimum is not None and minimum not in MINIMUMS:
        raise S3Error("InvalidRequest", f"Invalid TransitionDefaultMinimumObjectSize found: {minimum}",
                      ArgumentName=MINIMUM_HEADER, ArgumentValue=minimum)
    root = parse(body, "LifecycleConfiguration", BYTES_MAX)
    if not root.children or root.text.strip():
        malformed()
    if len(root.children) > RULES_MAX:
        _request(f"The number of lifecycle rules must not exceed the allowed limit of {RULES_MAX} rules")
    rules = tuple(_rule(element, frozenset(storage_classes), new_id) for element in root.children)
    check(rules, minima=minima)
    return Lifecycle(rules=rules, minimum=minimum or ALL_128K)


def _request(message: str) -> NoReturn:
    raise S3Error("InvalidRequest", message)


def _argument(message: str) -> NoReturn:
    raise S3Error("InvalidArgument", message)


def _rule(element: Element, storage_classes: frozenset[str], new_id: Callable[[], str]) -> Rule:
    if element.name != "Rule" or element.text.strip():
        malformed()
    lists: dict[str, list[Element]] = {name: [] for name in _LISTS}
    single = Element("")
    for child in element.children:
        lists.get(child.name, single.children).append(child)
    fields = fields_of(single, _RULE)
    status, prefix = text_of(fields, "Status"), text_of(fields, "Prefix")
    if status not in ("Enabled", "Disabled") or (prefix is None and "Filter" not in fields):
        malformed()
    if prefix is not None and "Filter" in fields:
        _request("Base level prefix cannot be used in Lifecycle V2, prefixes are only supported in the Filter.")
    return Rule(
        id=_checked(text_of(fields, "ID")) or new_id(), enabled=status == "Enabled", prefix=_prefix(prefix),
        filter=_filter(fields["Filter"]) if "Filter" in fields else None,
        expiration=_expiration(fields["Expiration"]) if "Expiration" in fields else None,
        transitions=tuple(_transition(each, storage_classes) for each in lists["Transition"]),
        noncurrent_expiration=(_noncurrent(fields["NoncurrentVersionExpiration"])
                               if "NoncurrentVersionExpiration" in fields else None),
        noncurrent_transitions=tuple(
            _noncurrent_transition(each, storage_classes) for each in lists["NoncurrentVersionTransition"]),
        abort_days=_abort(fields["AbortIncompleteMultipartUpload"]) if "AbortIncompleteMultipartUpload" in fields else None,
    )


def _checked(given: str | None) -> str | None:
    if given is not None and len(given) > ID_CHARACTERS_MAX:
        _argument(f"ID length should not exceed allowed limit of {ID_CHARACTERS_MAX}")
    return given


def _prefix(given: str | None) -> str | None:
    if given is not None and len(given.encode()) > PREFIX_BYTES_MAX:
        _request(f"The maximum size of a prefix is {PREFIX_BYTES_MAX}.")
    return given


def _filter(element: Element) -> Filter:
    fields = fields_of(element, _FILTER)
    if len(fields) > 1:
        malformed()
    if "And" in fields:
        return _and(fields["And"])
    return Filter(prefix=_prefix(text_of(fields, "Prefix")), tags=(_tag(fields["Tag"]),) if "Tag" in fields else (),
                  greater=_size(fields, "ObjectSizeGreaterThan", 0), less=_size(fields, "ObjectSizeLessThan", 1))


def _and(element: Element) -> Filter:
    """At least two conditions."""
    single = Element("")
    given: list[tuple[str, str]] = []
    for child in element.children:
        if child.name == "Tag":
            given.append(_tag(child))
        else:
            single.children.append(child)
    fields = fields_of(single, _AND)
    if len(fields) + len(given) < 2 or element.text.strip():
        malformed()
    if len({key for key, _ in given}) < len(given):
        _request("Duplicate Tag Keys are not allowed.")
    greater, less = _size(fields, "ObjectSizeGreaterThan", 0), _size(fields, "ObjectSizeLessThan", 1)
    if greater is not None and less is not None and greater >= less:
        _request("'ObjectSizeLessThan' has to be a value greater than 'ObjectSizeGreaterThan'.")
    return Filter(prefix=_prefix(text_of(fields, "Prefix")), tags=tuple(given), greater=greater, less=less, joined=True)


def _tag(element: Element) -> tuple[str, str]:
    fields = fields_of(element, _TAG)
    key, value = text_of(fields, "Key"), text_of(fields, "Value") or ""     # AWS: a tag without a value fits one that has none
    if key is None:
        malformed()
    if not 1 <= len(key) <= tag_rules.KEY_MAX:
        _request(f"A Tag's Key must be a length between 1 and {tag_rules.KEY_MAX}.")
    if len(value) > tag_rules.VALUE_MAX:
        _request(f"A Tag's Value must be a length between 0 and {tag_rules.VALUE_MAX}.")
    return key, value


def _size(fields: dict[str, Element], name: str, least: int) -> int | None:
    text = text_of(fields, name)
    if text is None:
        return None
    size = number_of(text)
    if not least <= size <= SIZE_MAX:
        _request(f"'{name}' should be between {least} and {SIZE_MAX}.")
    return size


def _expiration(element: Element) -> Expiration:
    fields = fields_of(element, _EXPIRATION)
    if len(fields) != 1:
        malformed()
    marker = text_of(fields, "ExpiredObjectDeleteMarker")
    if marker is not None:
        if marker.strip() not in ("true", "false"):
            malformed()
        return Expiration(marker=marker.strip() == "true")
    return Expiration(days=_days(text_of(fields, "Days"), "'Days' for Expiration action must be a positive integer"),
                      date_ms=_date(text_of(fields, "Date")))


def _transition(element: Element, storage_classes: frozenset[str]) -> Transition:
    fields = fields_of(element, _TRANSITION)
    days, date = text_of(fields, "Days"), text_of(fields, "Date")
    if (days is None) == (date is None):
        malformed()
    return Transition(storage_class=_storage_class(fields, storage_classes), date_ms=_date(date),
                      days=_days(days, "'Days' in Transition action must be nonnegative", least=0))


def _noncurrent(element: Element) -> NoncurrentExpiration:
    fields = fields_of(element, _NONCURRENT)
    days = _days(text_of(fields, "NoncurrentDays"),
                 "'NoncurrentDays' for NoncurrentVersionExpiration action must be a positive integer")
    if days is None:
        malformed()
    return NoncurrentExpiration(days=days, newer=_newer(fields, "NoncurrentVersionExpiration"))


def _noncurrent_transition(element: Element, storage_classes: frozenset[str]) -> NoncurrentTransition:
    fields = fields_of(element, _NONCURRENT_TRANSITION)
    days = _days(text_of(fields, "NoncurrentDays"),
                 "'NoncurrentDays' in NoncurrentVersionTransition action must be nonnegative", least=0)
    if days is None:
        malformed()
    return NoncurrentTransition(storage_class=_storage_class(fields, storage_classes), days=days,
                                newer=_newer(fields, "NoncurrentVersionTransition"))


def _abort(element: Element) -> int:
    fields = fields_of(element, frozenset({"DaysAfterInitiation"}))
    days = _days(text_of(fields, "DaysAfterInitiation"),
                 "'DaysAfterInitiation' for AbortIncompleteMultipartUpload action must be a positive integer")
    if days is None:
        malformed()
    return days


def _days(text: str | None, otherwise: str, *, least: int = 1) -> int | None:
    if text is None:
        return None
    days = number_of(text)
    if days < least:
        raise S3Error("InvalidArgument", otherwise, ArgumentName=otherwise.split("'")[1], ArgumentValue=days)
    if days > DAYS_MAX:
        malformed()
    return days


def _newer(fields: dict[str, Element], action: str) -> int | None:
    text = text_of(fields, "NewerNoncurrentVersions")
    if text is None:
        return None
    count = number_of(text)
    if count < 1:
        _argument(f"'NewerNoncurrentVersions' for {action} action must be a positive integer")
    if count > NEWER_MAX:
        _argument(f"'NewerNoncurrentVersions' for {action} action must be less than or equal to {NEWER_MAX}")
    return count


def _date(text: str | None) -> int | None:
    """Midnight UTC. A date without a time is one."""
    if text is None:
        return None
    text = text.strip()
    ms = parse_iso8601(f"{text}T00:00:00Z" if len(text) == len("2030-01-01") else text)
    if ms is None:
        malformed()
    if ms % DAY_MS:
        raise S3Error("InvalidArgument", "'Date' must be at midnight GMT", ArgumentName="Date", ArgumentValue=text)
    return ms


def _storage_class(fields: dict[str, Element], storage_classes: frozenset[str]) -> str:
    """Nothing is moved to STANDARD."""
    wanted = text_of(fields, "StorageClass")
    if wanted is None or wanted == "STANDARD" or wanted not in storage_classes:
        malformed()
    return wanted
