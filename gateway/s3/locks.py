"""Object lock as clients say it: headers of a write, and the documents of bucket, retention and legal hold.

Everything is checked as far as it can be without knowing the bucket or the object (S3_SEMANTICS §15). Source: AWS, "Locking
objects with Object Lock".
"""

from collections.abc import Mapping
from typing import NamedTuple

from gateway.s3.errors import S3Error
from gateway.s3.times import iso8601, pacific, parse_iso8601
from gateway.s3.xml.pieces import document
from gateway.s3.xml.read import SMALL_BYTES_MAX, fields_of, malformed, number_of, parse, text_of

MODES = ("GOVERNANCE", "COMPLIANCE")
DAYS_MAX, YEARS_MAX = 36_500, 100

MODE, UNTIL, HOLD = "x-amz-object-lock-mode", "x-amz-object-lock-retain-until-date", "x-amz-object-lock-legal-hold"
HEADERS = frozenset({MODE, UNTIL, HOLD})
BYPASS = "x-amz-bypass-governance-retention"


class Lock(NamedTuple):
    """As consensus.core.model.Lock."""

    mode: str = ""
    until_ms: int = 0
    legal_hold: bool = False


class Default(NamedTuple):
    """The default retention of a bucket; `mode` "" for none."""

    mode: str = ""
    days: int = 0
    years: int = 0


# Headers

def from_headers(headers: Mapping[str, str], now_ms: int) -> Lock | None:
    """What a write says about the lock of its version. S3Error InvalidArgument."""
    mode, until, hold = headers.get(MODE), headers.get(UNTIL), headers.get(HOLD)
    if mode is None and until is None and hold is None:
        return None
    if (mode is None) != (until is None):
        raise S3Error("InvalidArgument", f"{UNTIL} and {MODE} must both be supplied",
                      ArgumentName=UNTIL if until is None else MODE)
    if mode is not None and mode not in MODES:
        raise S3Error("InvalidArgument", "Unknown wormMode directive.", ArgumentName=MODE, ArgumentValue=mode)
    if hold not in (None, "ON", "OFF"):
        raise S3Error("InvalidArgument", "Legal Hold must be either of 'ON' or 'OFF'", ArgumentName=HOLD,
                      ArgumentValue=hold)
    until_ms = 0 if until is None else _future(until, now_ms, UNTIL)
    return Lock(mode or "", until_ms, hold == "ON")


def _future(text: str, now_ms: int, name: str) -> int:
    ms = parse_iso8601(text)
    if ms is None:
        raise S3Error("InvalidArgument", "The retain until date must be provided in ISO 8601 format", ArgumentName=name,
                      ArgumentValue=text[:64])
    if ms <= now_ms:
        raise S3Error("InvalidArgument", "The retain until date must be in the future!", ArgumentName=name,
                      ArgumentValue=pacific(ms) if name == "RetainUntilDate" else text)
    return ms


def as_headers(lock: Lock | None, *, hold_off: bool = False) -> list[tuple[str, str]]:
    """Of a GET or HEAD. A hold that is off is told where there was one (AWS: "not returned if the specified version of this
    object has never had a legal hold applied")."""
    if lock is None:
        return []
    said = [(MODE, lock[0]), (UNTIL, iso8601(lock[1]))] if lock[0] else []
    return [*said, (HOLD, "ON" if lock[2] else "OFF")] if lock[2] or hold_off else said


def bypass(headers: Mapping[str, str]) -> bool:
    return headers.get(BYPASS, "").lower() == "true"


# Documents

_CONFIGURATION = frozenset({"ObjectLockEnabled", "Rule"})
_RULE = frozenset({"DefaultRetention"})
_DEFAULT = frozenset({"Mode", "Days", "Years"})
_RETENTION = frozenset({"Mode", "RetainUntilDate"})


def read_configuration(body: bytes) -> Default:
    """ObjectLockConfiguration. S3Error MalformedXML, InvalidArgument for a period that S3 doesn't allow."""
    fields = fields_of(parse(body, "ObjectLockConfiguration", SMALL_BYTES_MAX), _CONFIGURATION)
    if text_of(fields, "ObjectLockEnabled") != "Enabled":
        malformed()
    if "Rule" not in fields:
        return Default()
    rule = fields_of(fields["Rule"], _RULE)
    if "DefaultRetention" not in rule:
        malformed()
    default = fields_of(rule["DefaultRetention"], _DEFAULT)
    mode, days, years = text_of(default, "Mode"), text_of(default, "Days"), text_of(default, "Years")
    if mode not in MODES or (days is None) == (years is None):
        malformed()
    count = number_of(days if days is not None else years or "")
    if count <= 0:
        raise S3Error("InvalidRetentionPeriod")
    if count > (DAYS_MAX if days is not None else YEARS_MAX):
        raise S3Error("InvalidRetentionPeriod", "Default retention period is too large")
    return Default(mode, count, 0) if days is not None else Default(mode, 0, count)


def write_configuration(mode: str, days: int, years: int) -> bytes:
    rule = ""
    if mode:
        period = f"<Days>{days}</Days>" if days else f"<Years>{years}</Years>"
        rule = f"<Rule><DefaultRetention><Mode>{mode}</Mode>{period}</DefaultRetention></Rule>"
    return document("ObjectLockConfiguration", f"<ObjectLockEnabled>Enabled</ObjectLockEnabled>{rule}")


def read_retention(body: bytes, now_ms: int) -> Lock:
    """Retention; an empty one lifts it. S3Error MalformedXML, InvalidArgument."""
    fields = fields_of(parse(body, "Retention", SMALL_BYTES_MAX), _RETENTION)
    mode, until = text_of(fields, "Mode"), text_of(fields, "RetainUntilDate")
    if mode is None and until is None:
        return Lock()
    if mode not in MODES or until is None:
        malformed()
    if parse_iso8601(until) is None:
        malformed()
    return Lock(mode, _future(until, now_ms, "RetainUntilDate"))


def write_retention(mode: str, until_ms: int) -> bytes:
    return document("Retention", f"<Mode>{mode}</Mode><RetainUntilDate>{iso8601(until_ms)}</RetainUntilDate>")


def read_legal_hold(body: bytes) -> bool:
    """LegalHold: whether it is on. S3Error MalformedXML."""
    status = text_of(fields_of(parse(body, "LegalHold", SMALL_BYTES_MAX), frozenset({"Status"})), "Status")
    if status not in ("ON", "OFF"):
        malformed()
    return status == "ON"


def write_legal_hold(on: bool) -> bytes:
    return document("LegalHold", f"<Status>{'ON' if on else 'OFF'}</Status>")
