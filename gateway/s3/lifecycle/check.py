"""What makes no sense in a lifecycle although the schema allows it: refused in AWS's words (S3_SEMANTICS §21)."""

import itertools
from typing import NoReturn

from gateway.s3.errors import S3Error
from gateway.s3.lifecycle.due import ARCHIVES
from gateway.s3.lifecycle.rules import Rule

INFREQUENT = frozenset({"STANDARD_IA", "ONEZONE_IA"})
INFREQUENT_DAYS_MIN = 30
"""AWS moves nothing to these classes sooner, nor from them to an archive."""


def check(rules: tuple[Rule, ...], *, minima: bool) -> None:
    """Raises S3Error InvalidRequest, InvalidArgument. `minima`: AWS's least times in a class hold."""
    _check_versions(rules)
    for rule in rules:
        _check(rule, minima)
    _check_together(rules)


def _request(message: str) -> NoReturn:
    raise S3Error("InvalidRequest", message)


def _argument(message: str) -> NoReturn:
    raise S3Error("InvalidArgument", message)


def _check_versions(rules: tuple[Rule, ...]) -> None:
    """The first rule says which version of the schema it is."""
    if rules[0].filter is None:
        if any(rule.filter is not None for rule in rules):
            _request("Filter element can only be used in Lifecycle V2.")
        for rule in rules:
            for action in (rule.noncurrent_expiration, *rule.noncurrent_transitions):
                if action is not None and action.newer is not None:
                    _request("NewerNoncurrentVersions element can only be used in Lifecycle V2.")
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
        _check_minima(rule, where)


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


def _check_minima(rule: Rule, where: str) -> None:
    archived = [move for move in rule.transitions if move.storage_class in ARCHIVES and move.days is not None]
    for move in rule.transitions:
        if move.storage_class in INFREQUENT and move.days is not None and move.days < INFREQUENT_DAYS_MIN:
            _argument(f"'Days' in Transition action must be greater than or equal to {INFREQUENT_DAYS_MIN} for storageClass "
                      f"'{move.storage_class}'")
        for later in archived:
            if (move.storage_class in INFREQUENT and move.days is not None and later.days is not None
                    and later.days < move.days + INFREQUENT_DAYS_MIN):
                _argument(f"'Days' in the 'Transition' action for StorageClass '{later.storage_class}' for {where} must be "
                          f"{INFREQUENT_DAYS_MIN} days more than '{where}' in the 'Transition' action for StorageClass "
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
