"""Object lock in headers and documents: what S3 takes, and what it calls the rest."""

import pytest

from gateway.s3 import locks
from gateway.s3.errors import S3Error
from gateway.s3.locks import HOLD, MODE, UNTIL, Default, Lock

NOW = 1_700_000_000_000
LATER = "2033-05-18T03:33:20.000Z"
LATER_MS = 2_000_000_000_000


@pytest.mark.parametrize(("headers", "lock"), [
    ({}, None),
    ({MODE: "GOVERNANCE", UNTIL: LATER}, Lock("GOVERNANCE", LATER_MS)),
    ({MODE: "COMPLIANCE", UNTIL: "2033-05-18T03:33:20Z", HOLD: "ON"}, Lock("COMPLIANCE", LATER_MS, True)),
    ({HOLD: "OFF"}, Lock()),
])
def test_headers(headers: dict[str, str], lock: Lock | None) -> None:
    assert locks.from_headers(headers, NOW) == lock


def test_given_back() -> None:
    assert locks.as_headers(Lock("COMPLIANCE", LATER_MS, True)) == [(MODE, "COMPLIANCE"), (UNTIL, LATER), (HOLD, "ON")]
    assert locks.as_headers(Lock()) == locks.as_headers(None) == []
    assert locks.as_headers(Lock(), hold_off=True) == [(HOLD, "OFF")]


@pytest.mark.parametrize("headers", [
    {MODE: "GOVERNANCE"}, {UNTIL: LATER}, {MODE: "governance", UNTIL: LATER}, {MODE: "GOVERNANCE", UNTIL: "soon"},
    {MODE: "GOVERNANCE", UNTIL: "2001-01-01T00:00:00Z"}, {HOLD: "on"},
])
def test_headers_that_make_no_sense(headers: dict[str, str]) -> None:
    with pytest.raises(S3Error) as caught:
        locks.from_headers(headers, NOW)
    assert caught.value.code == "InvalidArgument"


def configuration(inner: str, enabled: str = "Enabled") -> bytes:
    return (f"<ObjectLockConfiguration><ObjectLockEnabled>{enabled}</ObjectLockEnabled>{inner}"
            "</ObjectLockConfiguration>").encode()


def rule(inner: str) -> str:
    return f"<Rule><DefaultRetention>{inner}</DefaultRetention></Rule>"


@pytest.mark.parametrize(("body", "default"), [
    (configuration(""), Default()),
    (configuration(rule("<Mode>GOVERNANCE</Mode><Days>3</Days>")), Default("GOVERNANCE", 3, 0)),
    (configuration(rule("<Mode>COMPLIANCE</Mode><Years>2</Years>")), Default("COMPLIANCE", 0, 2)),
])
def test_configuration(body: bytes, default: Default) -> None:
    assert locks.read_configuration(body) == default
    assert locks.read_configuration(locks.write_configuration(*default)) == default


@pytest.mark.parametrize(("body", "code"), [
    (configuration("", "Disabled"), "MalformedXML"),
    (b"<ObjectLockConfiguration/>", "MalformedXML"),
    (configuration("<Rule/>"), "MalformedXML"),
    (configuration(rule("")), "MalformedXML"),
    (configuration(rule("<Mode>GOVERNANCE</Mode>")), "MalformedXML"),
    (configuration(rule("<Mode>GOVERNANCE</Mode><Days>1</Days><Years>1</Years>")), "MalformedXML"),
    (configuration(rule("<Mode>NONE</Mode><Days>1</Days>")), "MalformedXML"),
    (configuration(rule("<Mode>GOVERNANCE</Mode><Days>0</Days>")), "InvalidRetentionPeriod"),
    (configuration(rule("<Mode>GOVERNANCE</Mode><Years>-1</Years>")), "InvalidRetentionPeriod"),
    (configuration(rule("<Mode>GOVERNANCE</Mode><Days>36501</Days>")), "InvalidRetentionPeriod"),
])
def test_configurations_that_make_no_sense(body: bytes, code: str) -> None:
    with pytest.raises(S3Error) as caught:
        locks.read_configuration(body)
    assert caught.value.code == code


def test_retention_and_hold() -> None:
    assert locks.read_retention(locks.write_retention("GOVERNANCE", LATER_MS), NOW) == Lock("GOVERNANCE", LATER_MS)
    assert locks.read_retention(b"<Retention/>", NOW) == Lock()
    assert locks.read_legal_hold(locks.write_legal_hold(True)) is True
    for body, code in (
        (b"<Retention><Mode>GOVERNANCE</Mode></Retention>", "MalformedXML"),
        (b"<Retention><Mode>X</Mode><RetainUntilDate>2033-05-18T03:33:20Z</RetainUntilDate></Retention>", "MalformedXML"),
        (b"<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>2001-05-18T03:33:20Z</RetainUntilDate></Retention>",
         "InvalidArgument"),
    ):
        with pytest.raises(S3Error) as caught:
            locks.read_retention(body, NOW)
        assert caught.value.code == code
    with pytest.raises(S3Error):
        locks.read_legal_hold(b"<LegalHold><Status>on</Status></LegalHold>")
