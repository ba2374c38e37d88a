"""Conditions of policy statements: every operator of AWS, with its IfExists and set forms. Pure.

A *condition* is one operator, one key and the values it is compared with; a statement's all must hold. A key that the
request lacks: positive operators fail, negated ones hold, ``…IfExists`` hold, ``ForAllValues`` hold, ``ForAnyValue`` fail.
Source: AWS, "IAM JSON policy elements: Condition operators", "Multivalued context keys".
"""

import base64
import binascii
import functools
import ipaddress
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import NamedTuple

from gateway.s3.policy.patterns import Pattern, Variable, pattern
from gateway.s3.times import parse_iso8601

Context = Mapping[str, tuple[str, ...]]
Compare = Callable[[str, Pattern, Context], bool]
"""Does this value of the request fit this value of the policy?"""


class Operator(NamedTuple):
    name: str
    compare: Compare
    check: Callable[[str], bool]      # whether a policy may hold this value
    negated: bool = False
    variables: bool = True            # in the policy's values


class Condition(NamedTuple):
    operator: Operator
    set_form: str                     # "" | ForAllValues | ForAnyValue
    if_exists: bool
    key: str                          # lower case
    values: tuple[Pattern, ...]

    @property
    def called(self) -> str:
        prefix = f"{self.set_form}:" if self.set_form else ""
        return f"{prefix}{self.operator.name}{'IfExists' if self.if_exists else ''}"

    def holds(self, context: Context) -> bool:
        given = context.get(self.key)
        if self.operator.name == "Null":
            absent = given is None or not given
            return any((value.text.lower() == "true") is absent for value in self.values)
        if not given:
            if self.if_exists or self.set_form == "ForAllValues":
                return True
            return self.operator.negated and not self.set_form
        if self.set_form == "ForAllValues":
            return all(self._fits(value, context) for value in given)
        if self.set_form == "ForAnyValue" or not self.operator.negated:
            return any(self._fits(value, context) for value in given)
        return all(self._fits(value, context) for value in given)

    def _fits(self, value: str, context: Context) -> bool:
        compare = self.operator.compare
        return any(compare(value, wanted, context) for wanted in self.values) is not self.operator.negated


# Comparisons

def _equals(value: str, wanted: Pattern, context: Context) -> bool:
    return wanted.literally(context) == value


def _equals_folded(value: str, wanted: Pattern, context: Context) -> bool:
    text = wanted.literally(context)
    return text is not None and text.casefold() == value.casefold()


def _like(value: str, wanted: Pattern, context: Context) -> bool:
    return wanted.matches(value, context)


def _arn(value: str, wanted: Pattern, context: Context) -> bool:
    """Each of the six parts by itself, so that no wildcard reaches across a colon."""
    if any(isinstance(piece, Variable) for piece in wanted.pieces):
        return wanted.matches(value, context)            # a variable's name has colons, and so may its value
    parts, patterns = value.split(":", 5), wanted.text.split(":", 5)
    if len(parts) != len(patterns):
        return False
    return all(_arn_part(text).matches(part, context) for part, text in zip(parts, patterns, strict=True))


@functools.lru_cache(1024)
def _arn_part(text: str) -> Pattern:
    return pattern(text)


def _number(text: str) -> Decimal | None:
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


@functools.lru_cache(1024)
def moment_ms(text: str) -> int | None:
    """A time as policies write it: ISO 8601, or seconds since 1970."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return int(text) * 1000 if len(text) <= 13 else None
    known = parse_iso8601(text)
    if known is not None:
        return known
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        return None
    return int(parsed.timestamp() * 1000) if parsed.tzinfo is not None else None


def _ordered(read: Callable[[str], Decimal | int | None], fits: Callable[[Decimal | int, Decimal | int], bool]) -> Compare:
    def compare(value: str, wanted: Pattern, _: Context) -> bool:
        left, right = read(value), read(wanted.text)
        return left is not None and right is not None and fits(left, right)

    return compare


def _bool(value: str, wanted: Pattern, _: Context) -> bool:
    return value.lower() == wanted.text.lower()


def _binary(value: str, wanted: Pattern, _: Context) -> bool:
    return value == wanted.text


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@functools.lru_cache(1024)
def network(text: str) -> Network | None:
    try:
        return ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        return None


def _address(value: str, wanted: Pattern, _: Context) -> bool:
    inside = network(wanted.text)
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return inside is not None and address.version == inside.version and address in inside


# What a policy may hold

def _anything(_: str) -> bool:
    return True


def _is_number(text: str) -> bool:
    return _number(text) is not None


def _is_moment(text: str) -> bool:
    return moment_ms(text) is not None


def _is_truth(text: str) -> bool:
    return text.lower() in ("true", "false")


def _is_network(text: str) -> bool:
    return network(text) is not None


def _is_binary(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except binascii.Error:
        return False
    return True


def _operators() -> dict[str, Operator]:
    made = [
        Operator("StringEquals", _equals, _anything), Operator("StringNotEquals", _equals, _anything, True),
        Operator("StringEqualsIgnoreCase", _equals_folded, _anything),
        Operator("StringNotEqualsIgnoreCase", _equals_folded, _anything, True),
        Operator("StringLike", _like, _anything), Operator("StringNotLike", _like, _anything, True),
        Operator("ArnEquals", _arn, _anything), Operator("ArnLike", _arn, _anything),
        Operator("ArnNotEquals", _arn, _anything, True), Operator("ArnNotLike", _arn, _anything, True),
        Operator("Bool", _bool, _is_truth, variables=False), Operator("Null", _bool, _is_truth, variables=False),
        Operator("BinaryEquals", _binary, _is_binary, variables=False),
        Operator("IpAddress", _address, _is_network, variables=False),
        Operator("NotIpAddress", _address, _is_network, True, variables=False),
    ]
    orders: dict[str, tuple[Callable[[Decimal | int, Decimal | int], bool], bool]] = {
        "Equals": (lambda left, right: left == right, False), "NotEquals": (lambda left, right: left == right, True),
        "LessThan": (lambda left, right: left < right, False), "LessThanEquals": (lambda left, right: left <= right, False),
        "GreaterThan": (lambda left, right: left > right, False),
        "GreaterThanEquals": (lambda left, right: left >= right, False),
    }
    for suffix, (fits, negated) in orders.items():
        made.append(Operator(f"Numeric{suffix}", _ordered(_number, fits), _is_number, negated, False))
        made.append(Operator(f"Date{suffix}", _ordered(moment_ms, fits), _is_moment, negated, False))
    return {operator.name.lower(): operator for operator in made}


OPERATORS = _operators()
"""By name in lower case: AWS takes them so."""

SET_FORMS = {"forallvalues": "ForAllValues", "foranyvalue": "ForAnyValue"}


def operator(text: str) -> tuple[Operator, str, bool] | None:
    """(operator, set form, IfExists); None for what is none."""
    prefix, colon, name = text.lower().rpartition(":")
    if colon and prefix not in SET_FORMS:
        return None
    if_exists = name.endswith("ifexists")
    found = OPERATORS.get(name.removesuffix("ifexists"))
    if found is None or (found.name == "Null" and (if_exists or colon)):
        return None
    return found, SET_FORMS.get(prefix, ""), if_exists
