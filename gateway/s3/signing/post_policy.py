"""The policy of a form upload: what its author allows whoever fills in the form (S3_SEMANTICS §20).

JSON in base64: `expiration`, and `conditions` that every field of the form must meet. A field that no condition speaks of is
refused: the author could not have meant it. Source: AWS, "Creating a POST policy".
"""

import base64
import binascii
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple, NoReturn

from gateway.s3.errors import S3Error

CONDITIONS_MAX = 500

UNCONDITIONED = frozenset({"x-amz-signature", "signature", "awsaccesskeyid", "file", "policy"})
"""Fields that need no condition."""

IGNORED = "x-ignore-"


class Condition(NamedTuple):
    """`operator` eq | starts-with; `field` in lower case, without its dollar sign."""

    operator: str
    field: str
    value: str
    shown: str                    # as error messages have it


class Policy(NamedTuple):
    expires_ms: int
    conditions: tuple[Condition, ...]
    size_min: int | None
    size_max: int | None


def parse(text: str) -> Policy:
    """`text` is base64. S3Error InvalidPolicyDocument."""
    try:
        value = json.loads(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError, RecursionError):
        _invalid("Invalid JSON.")
    if not isinstance(value, dict):
        _invalid("Invalid JSON.")
    if not isinstance(value.get("expiration"), str):
        _invalid("Policy missing expiration.")
    if not isinstance(value.get("conditions"), list):
        _invalid("Policy missing conditions.")
    if value.keys() - {"expiration", "conditions"}:
        _invalid(f"Unexpected: '{sorted(value.keys() - {'expiration', 'conditions'})[0][:64]}'.")
    if len(value["conditions"]) > CONDITIONS_MAX:
        _invalid("Too many conditions.")
    conditions: list[Condition] = []
    smallest: int | None = None
    greatest: int | None = None
    for item in value["conditions"]:
        if isinstance(item, list) and len(item) == 3 and _lower(item[0]) == "content-length-range":
            low, high = _size(item[1]), _size(item[2])
            smallest, greatest = max(low, smallest or 0), high if greatest is None else min(high, greatest)
        else:
            conditions += _condition(item)
    return Policy(_expires_ms(value["expiration"]), tuple(conditions), smallest, greatest)


def _condition(item: Any) -> list[Condition]:
    if isinstance(item, dict):
        if None in item.values():
            _invalid("Invalid JSON.")
        if not item or not all(isinstance(text, str) for text in item.values()):
            _invalid("Invalid Simple-Condition: value must be a string.")
        if len(item) != 1:
            _invalid("Invalid Simple-Condition: Simple-Conditions must have exactly one property specified.")
        return [Condition("eq", name.lower(), text, json.dumps(["eq", f"${name}", text])) for name, text in item.items()]
    if not (isinstance(item, list) and len(item) == 3 and all(isinstance(text, str) for text in item)):
        _invalid("Invalid condition.")
    operator, field, text = item
    if operator.lower() not in ("eq", "starts-with"):
        _invalid(f"Invalid Condition operator '{operator[:64]}'.")
    # Without its dollar sign it names no field of any form, so it can't be met.
    name = field[1:].lower() if field.startswith("$") else f"?{field}"
    return [Condition(operator.lower(), name, text, json.dumps(item))]


def check(policy: Policy, fields: Mapping[str, str], now_ms: int) -> None:
    """`fields` by lower-case name, with the bucket that the form was sent to: a policy must speak of it too. S3Error
    AccessDenied."""
    if now_ms >= policy.expires_ms:
        _denied("Policy expired.")
    for condition in policy.conditions:
        if not _met(condition, fields):
            _denied(f"Policy Condition failed: {condition.shown}")
    spoken_of = {condition.field for condition in policy.conditions} | UNCONDITIONED
    extra = [name for name in fields if name not in spoken_of and not name.startswith(IGNORED)]
    if extra:
        _denied(f"Extra input fields: {', '.join(extra)}")


def _met(condition: Condition, fields: Mapping[str, str]) -> bool:
    """An empty beginning allows any value, but not that there is none: AWS has been seen to refuse forms without the field."""
    text = fields.get(condition.field)
    if text is None:
        return False
    if condition.operator == "eq":
        return text == condition.value
    if condition.field == "content-type":
        return all(item.strip().startswith(condition.value) for item in text.split(","))
    return text.startswith(condition.value)


def _expires_ms(text: str) -> int:
    try:
        if "T" not in text or not text.endswith("Z"):
            raise ValueError
        return int(datetime.fromisoformat(text[:-1]).replace(tzinfo=UTC).timestamp() * 1000)
    except (ValueError, OverflowError):
        _invalid(f"Invalid 'expiration' value: '{text[:64]}'")


def _size(value: Any) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 18:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 63:
        _invalid("Invalid content-length-range.")
    return int(value)


def _lower(value: Any) -> str:
    return value.lower() if isinstance(value, str) else ""


def _invalid(what: str) -> NoReturn:
    raise S3Error("InvalidPolicyDocument", f"Invalid Policy: {what}")


def _denied(what: str) -> NoReturn:
    raise S3Error("AccessDenied", f"Invalid according to Policy: {what}")
