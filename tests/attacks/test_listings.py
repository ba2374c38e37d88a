"""Attacks through parameters: tokens and ids that somebody made up, markers that look like SQL, numbers that are none."""

import base64
import time
from urllib.parse import quote

import pytest

from tests.attacks.attacker import Attacker

FORGED = [
    "x", "AAAA", "../../etc/passwd", "gASVIAAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOUjAJpZJSFlFKULg==", "' OR 1=1 --", "%00",
    "null", "-1", "1", "é", "A" * 5000, "\u202e", base64.b64encode(b'{"after": "a"}').decode(), "{}", "[]", "true", "&a=b",
]


def test_46_tokens_that_we_did_not_make(attacker: Attacker) -> None:
    for token in ["", *FORGED]:
        quoted = quote(token, safe="")
        attacker.refused(
            attacker.ask("GET", f"{attacker.bucket}?list-type=2&continuation-token={quoted}"), "InvalidArgument", 400)
        if token:
            attacker.refused(attacker.ask("GET", f"/?continuation-token={quoted}"), "InvalidArgument", 400)
            attacker.refused(attacker.ask("GET", f"{attacker.bucket}?uploads&key-marker=a&upload-id-marker={quoted}"),
                             "InvalidArgument", 400)


def test_46_a_token_changed_by_one_character(attacker: Attacker) -> None:
    for name in ("a", "b", "c"):
        attacker.ask("PUT", f"{attacker.bucket}/{name}", body=b"x")
        attacker.stored.add(name)
    token = attacker.ask("GET", f"{attacker.bucket}?list-type=2&max-keys=1").element("NextContinuationToken") or ""
    assert token
    assert attacker.ask("GET", f"{attacker.bucket}?list-type=2&continuation-token={token}").elements("Key") == [
        "b", "c", "victim"]
    for place in range(len(token) - 1):       # the last character may hold bits that mean nothing
        other = "A" if token[place] != "A" else "B"
        changed = token[:place] + other + token[place + 1 :]
        answer = attacker.ask("GET", f"{attacker.bucket}?list-type=2&continuation-token={changed}")
        attacker.refused(answer, "InvalidArgument", 400)
    attacker.refused(
        attacker.ask("GET", f"{attacker.bucket}?list-type=2&continuation-token={token[:-3]}"), "InvalidArgument", 400)


def test_46_version_and_upload_ids_that_we_did_not_make(attacker: Attacker) -> None:
    for forged in ["", *FORGED]:
        quoted = quote(forged, safe="")
        for method in ("GET", "DELETE"):
            answer = attacker.ask(method, f"{attacker.victim}?versionId={quoted}")
            if forged == "null" and method == "GET":
                assert answer.status == 200
            elif forged != "null":
                attacker.refused(answer, "InvalidArgument", 400)
        for method, path in (("GET", f"{attacker.victim}?uploadId={quoted}"),
                             ("PUT", f"{attacker.victim}?partNumber=1&uploadId={quoted}"),
                             ("DELETE", f"{attacker.victim}?uploadId={quoted}")):
            attacker.refused(attacker.ask(method, path), "NoSuchUpload", 404)
    attacker.prepare_again()


HOSTILE = [
    "'", "''", '"', "`", "' OR '1'='1", "'; DROP TABLE versions; --", "\\", "\\'", "%", "%%", "_", "*", "?", "[a-z]*", "[", "]",
    "(", "\x00", "\x01", "\n", "|", "{", "$", "^", "\U0010ffff", "\uffff", "x' UNION SELECT secret FROM secrets --", "victi_",
    "v%", "v*", "VICTIM",
]


def test_47_markers_mean_themselves(attacker: Attacker) -> None:
    """No wildcard, no quote and no control character means anything in a prefix, delimiter or marker."""
    for text in HOSTILE:
        quoted = quote(text, safe="")
        for query in (f"prefix={quoted}", f"list-type=2&prefix={quoted}", f"prefix={quoted}&delimiter=/",
                      f"list-type=2&prefix={quoted}&delimiter={quoted}"):
            answer = attacker.ask("GET", f"{attacker.bucket}?{query}")
            assert (answer.status, answer.elements("Key")) == (200, []), query
        answer = attacker.ask("GET", f"{attacker.bucket}?list-type=2&delimiter={quoted}&encoding-type=url")
        assert answer.elements("Key") == ["victim"], text
        for name in ("marker", "list-type=2&start-after", "uploads&key-marker"):
            answer = attacker.ask("GET", f"{attacker.bucket}?{name}={quoted}")
            assert answer.status == 200, (name, text)
            if not name.startswith("uploads"):
                assert answer.elements("Key") == (["victim"] if text.encode() < b"victim" else []), (name, text)
        assert attacker.ask("GET", f"/?prefix={quoted}").elements("Bucket") == []
    for name, value in (("prefix", "v"), ("prefix", "victim"), ("marker", "v")):
        assert attacker.ask("GET", f"{attacker.bucket}?{name}={value}").elements("Key") == ["victim"]


def test_47_long_markers_cost_nothing(attacker: Attacker) -> None:
    for name in ("prefix", "delimiter", "marker", "list-type=2&start-after"):
        began = time.monotonic()
        assert attacker.ask("GET", f"{attacker.bucket}?{name}={'a' * 6000}").status == 200
        assert time.monotonic() - began < 1.0


NUMBERS = ["-1", "+1", "1.5", "abc", "1e3", "0x10", " 1", "1 ", "1_0", "١", "9" * 5000, "99999999999", "NaN", "null", "1,2"]


@pytest.mark.parametrize("name", ["max-keys", "list-type=2&max-keys", "uploads&max-uploads", "max-buckets", "max-parts"])
def test_numbers_that_are_none(attacker: Attacker, name: str) -> None:
    path = attacker.bucket
    if name == "max-buckets":
        path = "/"
    begun = attacker.ask("POST", f"{attacker.bucket}/k?uploads").element("UploadId")
    if name == "max-parts":
        path, name = f"{attacker.bucket}/k", f"uploadId={begun}&max-parts"
    for number in NUMBERS:
        answer = attacker.ask("GET", f"{path}?{name}={quote(number, safe='')}")
        attacker.refused(answer, "InvalidArgument", 400)
    attacker.ask("DELETE", f"{attacker.bucket}/k?uploadId={begun}")


def test_queries_that_are_odd(attacker: Attacker) -> None:
    """Broken escapes, repeated names, a thousand names: an answer, and the same on every connection."""
    for query in ("%", "%zz", "%ff=%fe", "=", "&&&&", "=x", "a=b=c", "?", "list-type", "list-type=", "list-type=3",
                  "max-keys=1&max-keys=abc", "&".join(f"a{n}=b" for n in range(1000)), "prefix=%ff", "prefix=%00",
                  "encoding-type=url&prefix=%ff", "x-id=ListObjects", "X-ID=1", "%00=%00"):
        answer = attacker.ask("GET", f"{attacker.bucket}?{query}")
        assert answer.status in (200, 400, 403), (query, answer)
        if answer.status != 200:
            attacker.decent(answer)
    for encoding in ("", "URL", "xml", "base64"):
        answer = attacker.ask("GET", f"{attacker.bucket}?encoding-type={encoding}")
        attacker.refused(answer, "InvalidArgument", 400)
