"""Attacks through XML: entities, depth, size, encodings, too many entries; and forms and policies that nobody reads."""

import base64
import hashlib
import time

import pytest

from tests import processes
from tests.attacks.attacker import Attacker, both_schemes
from tests.clients.wire import Answer

ENOUGH_S = 2.0
"""A document is judged in a fraction of a second; this leaves room for a busy machine."""

XXE = b'<!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
REMOTE = b'<!DOCTYPE d SYSTEM "http://127.0.0.1:1/evil.dtd">'
PARAMETER = b'<!DOCTYPE d [<!ENTITY % p SYSTEM "http://169.254.169.254/"> %p;]>'
LAUGHS = b"<!DOCTYPE d [" + b'<!ENTITY a0 "ha">' + b"".join(
    b'<!ENTITY a%d "%s">' % (n, b"&a%d;" % (n - 1) * 10) for n in range(1, 10)) + b"]>"
QUADRATIC = b'<!DOCTYPE d [<!ENTITY a "' + b"a" * 100_000 + b'">]>'

KEY = b"<Object><Key>victim</Key></Object>"
DOCUMENTS: dict[str, bytes] = {
    "external entity": XXE + b"<Delete><Object><Key>&x;</Key></Object></Delete>",
    "external DTD": REMOTE + b"<Delete>" + KEY + b"</Delete>",
    "parameter entity": PARAMETER + b"<Delete>" + KEY + b"</Delete>",
    "billion laughs": LAUGHS + b"<Delete><Object><Key>&a9;</Key></Object></Delete>",
    "quadratic": QUADRATIC + b"<Delete><Object><Key>" + b"&a;" * 10_000 + b"</Key></Object></Delete>",
    "undefined entity": b"<Delete><Object><Key>&nothing;</Key></Object></Delete>",
    "nested": b"<a>" * 100_000 + b"</a>" * 100_000,
    "nested in place": b"<Delete>" + b"<Object>" * 50_000 + b"</Object>" * 50_000 + b"</Delete>",
    "text between elements": b"<Delete>" + b"a<b/>" * 400_000 + b"</Delete>",
    "many attributes": b"<Delete " + b" ".join(b'a%d="1"' % n for n in range(50_000)) + b"></Delete>",
    "namespaces": b"<Delete " + b" ".join(b'xmlns:a%d="u%d"' % (n, n) for n in range(50_000)) + b"></Delete>",
    "UTF-16": '<?xml version="1.0" encoding="UTF-16"?><Delete/>'.encode("utf-16"),
    "UTF-16 without mark": "<Delete/>".encode("utf-16-le"),
    "UTF-7": b'<?xml version="1.0" encoding="UTF-7"?>+ADw-Delete+AD4-',
    "not UTF-8": b"<Delete><Object><Key>\xff\xfe</Key></Object></Delete>",
    "overlong": b"<Delete><Object><Key>\xc0\xae\xc0\xae</Key></Object></Delete>",
    "surrogate": b"<Delete><Object><Key>\xed\xa0\x80</Key></Object></Delete>",
    "NUL": b"<Delete><Object><Key>\x00</Key></Object></Delete>",
    "NUL as reference": b"<Delete><Object><Key>&#0;</Key></Object></Delete>",
    "huge reference": b"<Delete><Object><Key>&#99999999999999999999;</Key></Object></Delete>",
    "instruction": b'<Delete><?php system("id") ?>' + KEY + b"</Delete>",
    "include": b'<Delete xmlns:xi="http://www.w3.org/2001/XInclude"><xi:include href="file:///etc/passwd"/></Delete>',
    "1001 keys": b"<Delete>" + KEY * 1001 + b"</Delete>",
    "no key": b"<Delete/>",
    "empty key": b"<Delete><Object><Key></Key></Object></Delete>",
    "key twice": b"<Delete><Object><Key>a</Key><Key>victim</Key></Object></Delete>",
    "cut": b"<Delete><Object><Key>victim</Key></Object>",
    "more after the end": b"<Delete>" + KEY + b"</Delete><Delete/>",
    "another root": b"<CompleteMultipartUpload>" + KEY + b"</CompleteMultipartUpload>",
    "no XML": b"\x00\x01\x02", "JSON": b'{"Objects": [{"Key": "victim"}]}', "nothing": b"", "blank": b" ",
}
TOO_LONG = {
    "eight megabytes": b"<Delete>" + b" " * (8 << 20) + KEY + b"</Delete>",
    "a long key": b"<Delete><Object><Key>" + b"k" * (3 << 20) + b"</Key></Object></Delete>",
}


def digest_of(body: bytes) -> dict[str, str]:
    return {"content-md5": base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()}


def delete(attacker: Attacker, document: bytes) -> Answer:
    return attacker.ask("POST", f"{attacker.bucket}?delete", digest_of(document), body=document)


@both_schemes
def test_19_and_20_xml(attacker: Attacker) -> None:
    gateways = attacker.server.roles()["gateway"]
    for pid in gateways:
        processes.forget_memory_peak(pid)
    before = sum(sum(processes.memory_now(pid)) for pid in gateways)
    for what, document in DOCUMENTS.items():
        began = time.monotonic()
        answer = delete(attacker, document)
        assert (answer.status, answer.element("Code")) == (400, "MalformedXML"), what
        attacker.decent(answer)
        assert time.monotonic() - began < ENOUGH_S, what
        assert "root:" not in answer.text
    for what, document in TOO_LONG.items():
        answer = delete(attacker, document)
        assert answer.status == 400, what
        assert answer.element("Code") in ("MalformedXML", "MaxMessageLengthExceeded")
    after = sum(processes.memory_peak_bytes(pid) for pid in gateways)
    assert after - before < 128 << 20, f"documents of 2 MiB took {(after - before) >> 20} MiB"


def test_19_and_20_other_documents(attacker: Attacker) -> None:
    begun = attacker.ask("POST", f"{attacker.bucket}/k?uploads").element("UploadId")
    for what in ("external entity", "billion laughs", "nested", "UTF-16", "no XML", "text between elements"):
        document = DOCUMENTS[what]
        for root in (b"CompleteMultipartUpload", b"CreateBucketConfiguration"):
            body = document.replace(b"Delete", root)
            if root[1:2] == b"o":
                answer = attacker.ask("POST", f"{attacker.bucket}/k?uploadId={begun}", body=body)
            else:
                answer = attacker.ask("PUT", f"{attacker.bucket}x", body=body)
            attacker.refused(answer, ("MalformedXML", "MaxMessageLengthExceeded"), 400)
    attacker.refused(attacker.ask("GET", f"{attacker.bucket}x"), "NoSuchBucket", 404)
    attacker.ask("DELETE", f"{attacker.bucket}/k?uploadId={begun}")


def test_deletes_need_a_digest(attacker: Attacker) -> None:
    document = b"<Delete>" + KEY + b"</Delete>"
    attacker.refused(attacker.ask("POST", f"{attacker.bucket}?delete", body=document), "InvalidRequest", 400)
    for headers, code in (({"content-md5": base64.b64encode(bytes(16)).decode()}, "BadDigest"),
                          ({"x-amz-checksum-crc32": "AAAAAA=="}, "BadDigest"), ({"content-md5": "x"}, "InvalidDigest")):
        answer = attacker.ask("POST", f"{attacker.bucket}?delete", headers, body=document)
        attacker.refused(answer, code, 400)


def test_keys_in_the_answer_are_escaped(attacker: Attacker) -> None:
    """What was asked to be deleted is shown again; it must stay text."""
    document = b"<Delete><Object><Key>&lt;script&gt;&amp;&#x9;\xf0\x9f\x98\x80</Key></Object>" \
               b"<Object><Key>x</Key><VersionId>&lt;b&gt;</VersionId></Object></Delete>"
    answer = delete(attacker, document)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/xml"
    assert "<script" not in answer.text
    assert "<b>" not in answer.text
    assert answer.element("Key") == "&lt;script&gt;&amp;&#x9;😀"


@pytest.mark.parametrize("query", ["cors", "tagging", "versioning", "object-lock"])
def test_21_documents_of_settings(attacker: Attacker, query: str) -> None:
    began = time.monotonic()
    for body in (b'{"Statement":' * 2_000, b"[" * 60_000, DOCUMENTS["billion laughs"], DOCUMENTS["nested"][:60_000]):
        answer = attacker.ask("PUT", f"{attacker.bucket}?{query}", digest_of(body), body=body)
        attacker.refused(answer, "MalformedXML", 400)
    long = b" " * 70_000
    answer = attacker.ask("PUT", f"{attacker.bucket}?{query}", digest_of(long), body=long)
    attacker.refused(answer, "MaxMessageLengthExceeded", 400)
    assert time.monotonic() - began < 4 * ENOUGH_S


def test_21_policies(attacker: Attacker) -> None:
    deep = b'{"Statement":' * 1_500
    for body in (deep, b'{"Statement":' + b"[" * 20_000, b"[" * 20_000, b'{"Statement":' * 20_000, b"{" * 20_480,
                 DOCUMENTS["billion laughs"], DOCUMENTS["nested"]):
        attacker.refused(attacker.ask("PUT", f"{attacker.bucket}?policy", body=body), "MalformedPolicy", 400)
    attacker.refused(attacker.ask("PUT", f"{attacker.bucket}?policy", body=b" " * (2 << 20)), "MaxMessageLengthExceeded", 400)


def test_21_access_lists(attacker: Attacker) -> None:
    for body in (b"[" * 60_000, DOCUMENTS["billion laughs"], DOCUMENTS["nested"][:60_000]):
        attacker.refused(attacker.ask("PUT", f"{attacker.bucket}?acl", body=body), "MalformedACLError", 400)
        for query in ("publicAccessBlock", "ownershipControls"):
            attacker.refused(attacker.ask("PUT", f"{attacker.bucket}?{query}", body=body), "MalformedXML", 400)


CONFIGURATIONS = [
    "lifecycle", "website", "notification", "replication", "logging", "requestPayment", "accelerate", "publicAccessBlock",
    "ownershipControls", "analytics&id=x", "inventory&id=x", "metrics&id=x", "intelligent-tiering&id=x", "abac", "retention",
    "legal-hold",
]


@pytest.mark.parametrize("query", CONFIGURATIONS)
def test_21_documents_of_configurations(attacker: Attacker, query: str) -> None:
    """Bombs and nests are refused as no document at all, quickly; nothing of them is kept."""
    path = attacker.victim if query in ("retention", "legal-hold") else attacker.bucket
    codes = ("MalformedXML", "InvalidRequest") if query in ("retention", "legal-hold", "replication") else ("MalformedXML",)
    began = time.monotonic()
    for body in (b'{"Statement":' * 2_000, b"[" * 60_000, DOCUMENTS["billion laughs"], DOCUMENTS["external entity"],
                 DOCUMENTS["nested"][:60_000], DOCUMENTS["UTF-16"], b"<a/>", b"\x00"):
        answer = attacker.ask("PUT", f"{path}?{query}", digest_of(body), body=body)
        attacker.refused(answer, (*codes, "MaxMessageLengthExceeded"), 400)
    for length in (3 << 20, 9 << 20):
        body = b" " * length
        answer = attacker.ask("PUT", f"{path}?{query}", digest_of(body), body=body)
        attacker.refused(answer, "MaxMessageLengthExceeded", 400)
    assert time.monotonic() - began < 4 * ENOUGH_S


def form(fields: dict[str, str], data: bytes) -> tuple[bytes, dict[str, str]]:
    parts = [f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
             for name, value in fields.items()]
    parts.append(b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n' + data + b"\r\n--b--\r\n")
    return b"".join(parts), {"content-type": "multipart/form-data; boundary=b"}


def test_12_and_13_forms(attacker: Attacker) -> None:
    """Whatever a form claims that nobody has signed, nothing is stored. (Those that are signed: tests/s3/test_posting.py)"""
    policy = base64.b64encode(b'{"expiration":"2099-01-01T00:00:00Z","conditions":[["starts-with","$key",""]]}').decode()
    v4 = {"x-amz-signature": "0" * 64, "x-amz-algorithm": "AWS4-HMAC-SHA256", "x-amz-date": "20200101T000000Z"}
    scope = f"{attacker.keys.access_key}/20200101/us-east-1/s3/aws4_request"
    for more, code in (({}, "AccessDenied"), ({"policy": policy}, "AccessDenied"),
                       ({"bucket": attacker.bucket[1:], "policy": policy, "signature": "x",
                         "AWSAccessKeyId": attacker.keys.access_key}, "SignatureDoesNotMatch"),
                       ({"policy": policy, "signature": "é", "AWSAccessKeyId": attacker.keys.access_key},
                        "SignatureDoesNotMatch"),
                       ({"policy": policy, **v4, "x-amz-credential": scope}, "SignatureDoesNotMatch"),
                       ({**v4, "x-amz-credential": scope}, "InvalidArgument"),
                       ({"policy": policy, **v4, "x-amz-credential": "x"}, "AuthorizationQueryParametersError")):
        body, headers = form({"key": "planted", **more}, b"x")
        answer = attacker.anonymous("POST", attacker.bucket, headers, body)
        attacker.refused(answer, code, 403 if code in ("AccessDenied", "SignatureDoesNotMatch") else 400)
