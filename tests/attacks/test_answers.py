"""Attacks that come back with the answer: headers broken apart, keys as markup, ranges without end, pages left open."""

import time
import xml.etree.ElementTree as Xml
from urllib.parse import quote

import pytest

from tests import signing
from tests.attacks.attacker import VICTIM, Attacker, both_schemes
from tests.servers import SECRET_KEY

BREAKS = ["a\r\nx-injected: 1", "a\nx-injected: 1", "a\rx-injected: 1", "a\r\n\r\n<html>", "\x00", "\x7f", "\x0b"]


@both_schemes
def test_38_headers_from_the_query(attacker: Attacker) -> None:
    for name in ("content-type", "content-language", "expires", "cache-control", "content-disposition",
                 "content-encoding"):
        for value in BREAKS:
            path = f"{attacker.victim}?response-{name}={quote(value, safe='')}"
            answer = attacker.ask("GET", path)
            attacker.refused(answer, "InvalidArgument", 400)
            assert "x-injected" not in answer.headers
            assert attacker.ask("HEAD", path).status == 400
    good = attacker.ask("GET", f"{attacker.victim}?response-content-disposition={quote('attachment; filename=é.txt')}")
    assert good.headers["content-disposition"].encode("latin-1").decode() == "attachment; filename=é.txt"


def test_38_headers_through_a_links_query(attacker: Attacker) -> None:
    """What a signer may move into the query must be as clean as what comes as a header."""
    for name in ("x-amz-meta-a", "x-amz-website-redirect-location", "x-amz-storage-class", "x-amz-tagging"):
        for value in BREAKS:
            text = f"/{value}" if "redirect" in name else value
            url = signing.presign("PUT", f"{attacker.target.url}{attacker.bucket}/planted", keys=attacker.keys,
                                  now_s=time.time(), extra={name: text})
            answer = attacker.anonymous("PUT", url.removeprefix(attacker.target.url))
            assert answer.status == 400, (name, value, answer)
            attacker.decent(answer)


def test_41_errors_with_markup(attacker: Attacker) -> None:
    for key in ("<script>alert(1)</script>", "&", "]]>", '"><img src=x onerror=alert(1)>', "'", "\x01\x02", "\ufffe", "&#0;"):
        answer = attacker.ask("GET", f"{attacker.bucket}/{quote(key, safe='')}")
        attacker.refused(answer, "NoSuchKey", 404)
        assert "<script" not in answer.text
        assert "<img" not in answer.text
        shown = Xml.fromstring(answer.text).findtext("Key") or ""
        assert shown == key or not key.isprintable()
    for path in (f"/{quote('<b>x</b>', safe='')}", f"{attacker.bucket}?versionId={quote('<b>')}"):
        assert "<b>" not in attacker.ask("PUT", path).text


def test_41_objects_are_given_as_what_they_were_put(attacker: Attacker) -> None:
    """A page that somebody stored is served under its own type, and never under ours."""
    for kind in ("text/html", "image/svg+xml", "application/xhtml+xml"):
        attacker.ask("PUT", f"{attacker.bucket}/page", {"content-type": kind}, body=b"<script>1</script>")
        assert attacker.ask("GET", f"{attacker.bucket}/page").headers["content-type"] == kind
    attacker.stored.add("page")


def test_39_no_cors_without_a_rule(attacker: Attacker) -> None:
    origin = {"origin": "https://evil.example", "access-control-request-method": "PUT"}
    for path in (attacker.bucket, attacker.victim, "/no-such-bucket/k"):
        answer = attacker.anonymous("OPTIONS", path, origin)
        assert answer.status == 403
        assert answer.element("Code") == "AccessForbidden"
        assert not [name for name in answer.headers if name.startswith("access-control-")]
    for answer in (attacker.ask("GET", attacker.victim, {"origin": "null"}), attacker.anonymous("GET", attacker.victim, origin)):
        assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("credentials", [
    ("minioadmin", "minioadmin"), ("admin", "admin"), ("root", "root"), ("staddle", "staddle"), ("", ""),
    ("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"), ("test", "test"), ("rustfsadmin", "rustfsadmin"),
])
def test_42_there_are_no_default_credentials(attacker: Attacker, credentials: tuple[str, str]) -> None:
    keys = signing.Keys(access_key=credentials[0], secret_key=credentials[1])
    signed = signing.sign_request("GET", attacker.target.url + "/", keys=keys, now_s=time.time())
    assert attacker.send("GET", "/", signed).status in (400, 403)


PAGES = [
    "/-/", "/-/metrics", "/-/admin", "/-/health", "/-/health/", "/-/health/live/", "/-/docs", "/-/openapi.json", "/-/debug",
    "/-/debug/pprof", "/-/config", "/-/env", "/-/../secret", "/-/..%2f..%2fsecret", "/-/static/../../secret", "/-/%2e%2e/x",
    "/metrics", "/minio/health/live", "/debug/pprof/", "/openapi.json", "/docs", "/.env", "/.git/config", "/server-status",
]


@both_schemes
def test_43_nothing_is_open(attacker: Attacker) -> None:
    """Health says ok or not, to everybody; all else is closed or not there, and says nothing about the inside."""
    for path in PAGES:
        for method in ("GET", "POST", "HEAD"):
            answer = attacker.anonymous(method, path)
            assert answer.status in (400, 401, 403, 404, 405, 412), (method, path, answer)
            for word in ("Traceback", SECRET_KEY, "/root", "starlette", "uvicorn", "python"):
                assert word not in answer.body.decode("latin-1"), (path, answer)
    for path in ("/-/health/live", "/-/health/ready"):
        assert attacker.anonymous("GET", path).body == b"ok\n"
        assert attacker.anonymous("POST", path).status == 405


def test_44_answers_do_not_tell_versions(attacker: Attacker) -> None:
    for answer in (attacker.anonymous("GET", "/"), attacker.ask("GET", attacker.victim), attacker.anonymous("GET", "/-/x")):
        assert answer.headers["server"] == "Staddle"
        assert "x-powered-by" not in answer.headers


def test_49_metadata_and_tags(attacker: Attacker) -> None:
    path = f"{attacker.bucket}/planted"
    for headers, code in (
        ({"x-amz-meta-a": "b" * 2048}, "MetadataTooLarge"),
        ({f"x-amz-meta-{n}": "b" * 100 for n in range(30)}, "MetadataTooLarge"),
        ({"x-amz-tagging": "&".join(f"k{n}=v" for n in range(11))}, ("BadRequest", "InvalidTag")),
        ({"x-amz-tagging": "a=1&a=2"}, ("InvalidArgument", "InvalidTag")),
        ({"x-amz-tagging": "k" * 129 + "=v"}, "InvalidTag"), ({"x-amz-tagging": "k=" + "v" * 257}, "InvalidTag"),
        ({"x-amz-tagging": "aws:k=v"}, "InvalidTag"), ({"x-amz-tagging": "=v"}, "InvalidArgument"),
        ({"x-amz-tagging": "k=%3Cscript%3E"}, "InvalidTag"), ({"x-amz-tagging": "k=%00"}, "InvalidTag"),
        ({"x-amz-storage-class": "deep_archive"}, "InvalidStorageClass"), ({"x-amz-storage-class": "x"}, "InvalidStorageClass"),
        ({"x-amz-website-redirect-location": "javascript:alert(1)"}, "InvalidRedirectLocation"),
        ({"x-amz-acl": "all-power"}, "InvalidArgument"), ({"x-amz-acl": "public-read"}, "AccessControlListNotSupported"),
        ({"x-amz-grant-full-control": 'uri="http://acs.amazonaws.com/groups/global/AllUsers"'},
         "AccessControlListNotSupported"),
        ({"x-amz-object-lock-legal-hold": "ON"}, "InvalidRequest"),
        ({"x-amz-server-side-encryption": "rot13"}, "InvalidArgument"),
    ):
        for method, query in (("PUT", ""), ("POST", "?uploads")):
            answer = attacker.ask(method, path + query, headers)
            attacker.refused(answer, code, 400)


RANGES = [
    "bytes=" + ",".join("0-" for _ in range(3000)), "bytes=" + ",".join(f"{n}-{n + 1}" for n in range(1500)),
    "bytes=0-0,1-1", "bytes=" + "9" * 4000 + "-", "bytes=0-" + "9" * 4000, "bytes=-" + "9" * 4000, "bytes=-0", "bytes=-",
    "bytes=--1", "bytes=5-2", "bytes=a-b", "bytes=0x0-0x5", "bytes=1.5-2", "bytes= 0-1", "bytes=0 - 1", "bytes", "octets=0-1",
    "bytes=0-1;", "bytes=\x0b0-1", "bytes=٠-١", "", "bytes=+0-1", "bytes=1-", "bytes=1000-", "bytes=0-18446744073709551616",
]


@both_schemes
def test_33_ranges(attacker: Attacker) -> None:
    for wanted in RANGES:
        began = time.monotonic()
        answer = attacker.ask("GET", attacker.victim, {"range": wanted.encode().decode("latin-1")})
        assert time.monotonic() - began < 1.0, wanted
        if answer.status in (400, 416):
            attacker.refused(answer, "InvalidRange" if answer.status == 416 else "BadRequest", answer.status)
        else:
            assert answer.status in (200, 206), (wanted, answer)
            assert len(answer.body) == int(answer.headers["content-length"]) <= len(VICTIM)
            assert answer.body in VICTIM
            assert (answer.status == 206) == ("content-range" in answer.headers)
        head = attacker.ask("HEAD", attacker.victim, {"range": wanted.encode().decode("latin-1")})
        assert head.status == answer.status


CONDITIONS = ['"', '""', "*", "W/\"x\"", '"' + "a" * 5000 + '"', ",".join('"x"' for _ in range(2000)), "", "é", "\t", ","]


def test_conditions_of_odd_bytes(attacker: Attacker) -> None:
    for value in CONDITIONS:
        sent = value.encode().decode("latin-1")
        for name in ("if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range"):
            for method in ("GET", "PUT", "DELETE"):
                answer = attacker.ask(method, f"{attacker.bucket}/absent" if method != "GET" else attacker.victim,
                                      {name: sent})
                assert answer.status < 500 or answer.status == 501, (name, value, method, answer)
                if method == "PUT" and answer.status == 200:
                    attacker.ask("DELETE", f"{attacker.bucket}/absent")
