"""A LifecycleConfiguration as clients send it: read, and checked as AWS checks it. Codes and messages are AWS's.

What the schema forbids is MalformedXML; what it allows and makes no sense is InvalidArgument or InvalidRequest.
"""

import base64
import itertools
import uuid
from collections.abc import Collection
from typing import NoReturn

from gateway.s3 import tags as tag_rules
from gateway.s3.errors import S3Error
from gateway.s3.lifecycle import (
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
from gateway.s3.lifecycle_due import DAY_MS
from gateway.s3.times import parse_iso8601
from gateway.s3.xml_read import Element, fields_of, malformed, number_of, parse, text_of

ID_CHARACTERS_MAX = 255
PREFIX_BYTES_MAX = 1024
NEWER_MAX = 100
DAYS_MAX = 2**31 - 1
SIZE_MAX = 1_099_511_627_776_000
"""AWS's limit of the sizes in a filter: 1,000 TiB."""

INFREQUENT = frozenset({"STANDARD_IA", "ONEZONE_IA"})
INFREQUENT_DAYS_MIN = 30
"""AWS moves nothing to these classes sooner, nor from them."""

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


def read(body: bytes, minimum: str | None, storage_classes: Collection[str], *, minima: bool = True) -> Lifecycle:
    """S3Error MalformedXML, InvalidArgument, InvalidRequest. `minimum` is the header's value. `minima`: AWS's least times in
    a class hold; they make no sense where a day is short."""
    if minimum is not None and minimum not in MINIMUMS:
        raise S3Error("InvalidRequest", f"Invalid TransitionDefaultMinimumObjectSize found: {minimum}",
                      ArgumentName=MINIMUM_HEADER, ArgumentValue=minimum)
    root = parse(body, "LifecycleConfiguration", BYTES_MAX)
    if not root.children or root.text.strip():
        malformed()
    if len(root.children) > RULES_MAX:
        _request(f"The number of lifecycle rules must not exceed the allowed limit of {RULES_MAX} rules")
    rules = tuple(_rule(element, frozenset(storage_classes)) for element in root.children)
    _check_versions(rules)
    for rule in rules:
        _check(rule, minima)
    _check_together(rules)
    return Lifecycle(rules=rules, minimum=minimum or ALL_128K)


def _request(message: str) -> NoReturn:
    raise S3Error("InvalidRequest", message)


def _argument(message: str) -> NoReturn:
    raise S3Error("InvalidArgument", message)


def _rule(element: Element, storage_classes: frozenset[str]) -> Rule:
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
        id=_id(text_of(fields, "ID")), enabled=status == "Enabled", prefix=_prefix(prefix),
        filter=_filter(fields["Filter"]) if "Filter" in fields else None,
        expiration=_expiration(fields["Expiration"]) if "Expiration" in fields else None,
        transitions=tuple(_transition(each, storage_classes) for each in lists["Transition"]),
        noncurrent_expiration=(_noncurrent(fields["NoncurrentVersionExpiration"])
                               if "NoncurrentVersionExpiration" in fields else None),
        noncurrent_transitions=tuple(
            _noncurrent_transition(each, storage_classes) for each in lists["NoncurrentVersionTransition"]),
        abort_days=_abort(fields["AbortIncompleteMultipartUpload"]) if "AbortIncompleteMultipartUpload" in fields else None,
    )


def _id(given: str | None) -> str:
    """One is given to a rule that has none, of the form that AWS's have."""
    if not given:
        return base64.b64encode(str(uuid.uuid4()).encode()).decode()
    if len(given) > ID_CHARACTERS_MAX:
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


# What the schema allows

def _check_versions(rules: tuple[Rule, ...]) -> None:
    """The first rule says which version of the schema it is."""
    if rules[0].filter is None:
        if any(rule.filter is not None for rule in rules):
            _request("Filter element can only be used in Lifecycle V2.")
    elif any(rule.filter is None for rule in rules):
        _request("Base level prefix cannot be used in Lifecycle V2, prefixes are only supported in the Filter.")


def _check(rule: Rule, minima: bool) -> None:
    expiration, where = rule.expiration, _where(rule)
    if not (expiration or rule.transitions or rule.noncurrent_expiration or rule.noncurrent_transitions or rule.abort_days):
        _request("At least one action needs to be specified in a rule")
    for action, given in (("AbortIncompleteMultipartUpload", rule.abort_days is not None),
                          ("ExpiredObjectDeleteMarker", expiration is not None and expiration.marker is not None)):
        if given and rule.tags:
            _request(f"{action} cannot be specified with Tags.")
        if given and rule.sized:
            _request(f"{action} cannot be specified with Object Size.")
    dates = [each.date_ms for each in rule.transitions]
    days = [each.days for each in rule.transitions]
    if expiration is not None and expiration.marker is None:
        dates, days = [*dates, expiration.date_ms], [*days, expiration.days]
    if rule.transitions and any(date is not None for date in dates) and any(each is not None for each in days):
        _request(f"Found mixed 'Date' and 'Days' based Expiration and Transition actions in lifecycle rule for {where}")
    _check_classes("Transition", [each.storage_class for each in rule.transitions], where)
    _check_classes("NoncurrentVersionTransition", [each.storage_class for each in rule.noncurrent_transitions], where)
    _check_order(rule, where)
    if minima:
        _check_minima(rule)


def _where(rule: Rule) -> str:
    """How AWS's messages name a rule."""
    given = rule.filter
    if given is None:
        return f"prefix '{rule.key_prefix}'"
    parts = [f"prefix={given.prefix or ''}"] if given.prefix is not None or not given.tags else []
    parts += [f"tag: key={key}, value={value}" for key, value in given.tags]
    return f"filter '({' and '.join(parts)})'"


def _check_classes(action: str, classes: list[str], where: str) -> None:
    if len(set(classes)) < len(classes):
        _request(f"'StorageClass' must be different for '{action}' actions in same 'Rule' with {where}")


def _check_order(rule: Rule, where: str) -> None:
    """What expires has been moved before, or is not moved at all."""
    if rule.expiration is not None:
        for move in rule.transitions:
            if rule.expiration.days is not None and move.days is not None and rule.expiration.days <= move.days:
                _argument(f"'Days' in the Expiration action for {where} must be greater than 'Days' in the Transition action")
            if rule.expiration.date_ms is not None and move.date_ms is not None and rule.expiration.date_ms <= move.date_ms:
                _argument(f"'Date' in the Expiration action for {where} must be later than 'Date' in the Transition action")
    gone = rule.noncurrent_expiration
    if gone is not None and any(gone.days <= move.days for move in rule.noncurrent_transitions):
        _argument(f"'NoncurrentDays' in the NoncurrentVersionExpiration action for {where} must be greater than "
                  "'NoncurrentDays' in the NoncurrentVersionTransition action")


def _check_minima(rule: Rule) -> None:
    for move in rule.transitions:
        if move.storage_class in INFREQUENT and move.days is not None and move.days < INFREQUENT_DAYS_MIN:
            _argument(f"'Days' in Transition action must be greater than or equal to {INFREQUENT_DAYS_MIN} for storageClass "
                      f"'{move.storage_class}'")
    for noncurrent in rule.noncurrent_transitions:
        if noncurrent.storage_class in INFREQUENT and noncurrent.days < INFREQUENT_DAYS_MIN:
            _argument(f"'NoncurrentDays' in NoncurrentVersionTransition action must be greater than or equal to "
                      f"{INFREQUENT_DAYS_MIN} for storageClass '{noncurrent.storage_class}'")


def _check_together(rules: tuple[Rule, ...]) -> None:
    if len({rule.id for rule in rules}) < len(rules):
        _argument("Rule ID must be unique. Found same ID for more than one rule")
    if rules[0].filter is None:
        _check_overlaps(rules)


def _check_overlaps(rules: tuple[Rule, ...]) -> None:
    """Of V1: no two rules do the same with the same key. Sorted, a prefix stands right before those that begin with it."""
    for action, has in (
        ("Expiration", [rule for rule in rules if rule.expiration]),
        ("Transition", [rule for rule in rules if rule.transitions]),
        ("NoncurrentVersionExpiration", [rule for rule in rules if rule.noncurrent_expiration]),
        ("NoncurrentVersionTransition", [rule for rule in rules if rule.noncurrent_transitions]),
        ("AbortIncompleteMultipartUpload", [rule for rule in rules if rule.abort_days]),
    ):
        prefixes = sorted(rule.key_prefix for rule in has)
        for first, second in itertools.pairwise(prefixes):
            if first == second:
                _request(f"Found two rules with same prefix '{first}' for same action type '{action}'")
            if second.startswith(first):
                _request(f"Found overlapping prefixes '{second}' and '{first}' for same action type '{action}'")
