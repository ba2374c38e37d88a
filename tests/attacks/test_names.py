"""Attacks through names: keys that look like paths, buckets that look like ours, sources that are somewhere else."""

import uuid
from urllib.parse import quote, unquote_plus

import pytest

from tests.attacks.attacker import VICTIM, Attacker, both_schemes


@pytest.fixture
def others(attacker: Attacker) -> str:
    """A bucket of another account, with an object `secret`."""
    path = f"/o-{uuid.uuid4().hex[:20]}"
    assert attacker.as_other("PUT", path).status == 200
    assert attacker.as_other("PUT", f"{path}/secret", body=b"not for you").status == 200
    return path


CLIMBING = [
    "../victim", "..%2fvictim", "%2e%2e/victim", "%2e%2e%2fvictim", "%252e%252e%252fvictim", "..%5cvictim", "..\\victim",
    "./victim", "x/../victim", "%2e/victim", "/victim", "%2fvictim", "victim/", "victim/.", "victim/..", "victim%00",
    "victim%00.txt", "..;/victim", "%c0%ae%c0%ae/victim", "..%c0%afvictim", "victim%20", "%20victim", "victim%0a",
    "../../../../../../etc/passwd", "%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd", "meta/CURRENT", "../../secret",
    "../../root-key", "file:///etc/passwd", "~root", "$HOME", "victim;", "victim:", "victim%3f", "victim%23",
]


@both_schemes
def test_15_a_key_is_no_path(attacker: Attacker, others: str) -> None:
    """Every spelling names a key of its own in this bucket, or no key at all; never the victim and never a file."""
    for written in CLIMBING:
        for key in (written, written.replace("victim", others[1:] + "/secret")):
            answer = attacker.ask("GET", f"{attacker.bucket}/{key}")
            attacker.refused(answer, ("NoSuchKey", "InvalidURI"), 404 if answer.element("Code") == "NoSuchKey" else 400)
        put = attacker.ask("PUT", f"{attacker.bucket}/{written}", body=b"mine")
        if put.status == 200:
            assert attacker.ask("GET", f"{attacker.bucket}/{written}").body == b"mine"
            assert attacker.ask("DELETE", f"{attacker.bucket}/{written}").status == 204
        assert attacker.ask("GET", attacker.victim).body == VICTIM, written
    assert attacker.as_other("GET", f"{others}/secret").body == b"not for you"


def test_15_a_bucket_is_no_path(attacker: Attacker) -> None:
    for written in ("..", "%2e%2e", ".", "%2e", "..%2f..", ""):
        for method in ("GET", "PUT", "DELETE"):
            for path in (f"/{written}/{attacker.bucket[1:]}/victim", f"/{written}/etc/passwd"):
                answer = attacker.ask(method, path, body=b"x" if method == "PUT" else b"")
                attacker.decent(answer)
                assert answer.status in (400, 404)


SOURCES = {
    "climbing": "{mine}/../{others}/secret", "climbing, encoded": "{mine}/%2e%2e/{others}/secret",
    "climbing, encoded twice": "{mine}/%252e%252e/{others}/secret", "climbing at once": "../{others}/secret",
    "two slashes": "//{others}/secret", "nothing": "", "slash": "/", "bucket only": "{mine}",
    "bucket and slash": "{mine}/", "bad escape": "{mine}/%zz", "not UTF-8": "{mine}/%ff", "NUL": "{mine}/victim%00",
    "NUL in the bucket": "{mine}%00/victim", "question mark": "{mine}/victim?", "no version": "{mine}/victim?versionId=",
    "odd version": "{mine}/victim?versionId=../../x", "another parameter": "{mine}/victim?acl",
    "local": "http://127.0.0.1/{mine}/victim", "metadata service": "http://169.254.169.254/latest/meta-data/",
    "file": "file:///etc/passwd", "s3": "s3://{mine}/victim", "access point": "arn:aws:s3:us-east-1:1:accesspoint/a/object/k",
    "upper case": "{MINE}/victim", "long": "{mine}/" + "k" * 1025,
}


@pytest.mark.parametrize("part", [False, True])
def test_16_and_18_copy_sources(attacker: Attacker, others: str, part: bool) -> None:
    path = f"{attacker.bucket}/copied"
    upload = attacker.ask("POST", f"{path}?uploads").element("UploadId")
    query = f"?partNumber=1&uploadId={upload}" if part else ""
    for what, source in SOURCES.items():
        source = source.format(mine=attacker.bucket[1:], others=others[1:], MINE=attacker.bucket[1:].upper())
        answer = attacker.ask("PUT", path + query, {"x-amz-copy-source": source})
        attacker.decent(answer)
        assert (answer.status, answer.element("Code")) in (
            (400, "InvalidArgument"), (404, "NoSuchKey"), (404, "NoSuchBucket"), (404, "NoSuchVersion")), what
    attacker.ask("DELETE", f"{path}?uploadId={upload}")


@both_schemes
def test_17_copying_what_one_may_not_read(attacker: Attacker, others: str) -> None:
    for source in (f"{others}/secret", f"{others[1:]}/secret", f"{others}/secret?versionId=null", f"{others}/nothing"):
        answer = attacker.ask("PUT", f"{attacker.bucket}/copied", {"x-amz-copy-source": source})
        attacker.refused(answer, "AccessDenied", 403)
        begun = attacker.ask("POST", f"{attacker.bucket}/copied?uploads").element("UploadId")
        part = f"{attacker.bucket}/copied?partNumber=1&uploadId={begun}"
        attacker.refused(attacker.ask("PUT", part, {"x-amz-copy-source": source}), "AccessDenied", 403)
        attacker.ask("DELETE", f"{attacker.bucket}/copied?uploadId={begun}")
    answer = attacker.ask("PUT", f"{others}/copied", {"x-amz-copy-source": f"{attacker.bucket}/victim"})
    attacker.refused(answer, "AccessDenied", 403)


@both_schemes
def test_other_peoples_buckets(attacker: Attacker, others: str) -> None:
    """One account's key opens nothing of another's: no method, no sub-resource."""
    begun = attacker.as_other("POST", f"{others}/secret?uploads").element("UploadId")
    for method, path in (
        ("GET", others), ("GET", f"{others}?list-type=2"), ("GET", f"{others}?location"), ("GET", f"{others}?uploads"),
        ("GET", f"{others}?versions"), ("GET", f"{others}?acl"), ("GET", f"{others}?policy"), ("DELETE", others),
        ("GET", f"{others}/secret"), ("GET", f"{others}/nothing"), ("PUT", f"{others}/secret"), ("DELETE", f"{others}/secret"),
        ("POST", f"{others}/secret?uploads"), ("GET", f"{others}/secret?uploadId={begun}"),
        ("PUT", f"{others}/secret?partNumber=1&uploadId={begun}"), ("DELETE", f"{others}/secret?uploadId={begun}"),
        ("POST", f"{others}/secret?uploadId={begun}"), ("GET", f"{others}/secret?tagging"),
    ):
        attacker.refused(attacker.ask(method, path), "AccessDenied", 403)
    assert attacker.ask("HEAD", f"{others}/secret").status == 403
    assert attacker.ask("HEAD", others).status == 403
    attacker.refused(attacker.ask("PUT", others), "BucketAlreadyExists", 409)
    assert others[1:] not in attacker.ask("GET", "/").text
    assert attacker.as_other("GET", f"{others}/secret").body == b"not for you"
    own = attacker.ask("POST", f"{attacker.bucket}/k?uploads").element("UploadId")
    attacker.refused(attacker.as_other("PUT", f"{others}/k?partNumber=1&uploadId={own}", body=b"x"), "NoSuchUpload", 404)
    attacker.refused(attacker.ask("PUT", f"{attacker.bucket}/k?partNumber=1&uploadId={begun}", body=b"x"),
                     "NoSuchUpload", 404)
    attacker.ask("DELETE", f"{attacker.bucket}/k?uploadId={own}")


BUCKETS = [
    ".minio.sys", "_internal", "A", "UPPER", "upPer", "a", "ab", "a" * 64, "a" * 300, "192.168.5.4", "127.0.0.1",
    "xn--bucket", "sthree-bucket", "bucket-s3alias", "bucket--ol-s3", "bucket--x-s3", "b%2fc", "b%c3%a9", "b%ff",
    "b..c", "-bucket", "bucket-", ".bucket", "bucket.", "b_c", "b%20c", "b%00c", "b%0ac", "..", "%2e%2e",
    "null%00", "con%5cc", "bucket%0d%0ax:y", "-", "--",
]


def test_37_bucket_names(attacker: Attacker) -> None:
    for name in BUCKETS:
        answer = attacker.ask("PUT", f"/{name}")
        attacker.refused(answer, ("InvalidBucketName", "InvalidURI"), 400)
        assert not set(attacker.ask("GET", "/").elements("Name")) & {name, name.lower(), quote(name)}
    # An ordinary name; that we have a folder of this name is nobody's business.
    assert attacker.ask("PUT", "/meta").status == 200
    assert attacker.ask("DELETE", "/meta").status == 204


def test_30_a_host_that_names_a_bucket(attacker: Attacker, others: str) -> None:
    """Only configured domains have sub-domains that are buckets; and then their rights are asked as ever."""
    bucket = attacker.bucket[1:]
    for host, status in ((f"{bucket}.s3.test", 200), (f"{bucket}.s3.test:1", 200), (f"{bucket.upper()}.S3.TEST", 200),
                         (f"{bucket}.elsewhere.test", 404), (f"{bucket}.s3.test.evil", 404), (f"{bucket}.xs3.test", 404),
                         (f"{others[1:]}.s3.test", 403), ("..s3.test", 404), ("a/b.s3.test", 400), ("", 404)):
        answer = attacker.ask("GET", "/victim", {"host": host})
        assert answer.status == status, (host, answer)
        if status != 200:
            attacker.decent(answer)
    attacker.refused(attacker.ask("GET", "/secret", {"host": f"{others[1:]}.s3.test"}), "AccessDenied", 403)
    health = attacker.ask("GET", "/-/health/live", {"host": f"{bucket}.s3.test"})
    attacker.refused(health, "NoSuchKey", 404)


LONGEST = "k" * 1024
ODD_KEYS = [
    "a//b", "/lead", "//lead", "trail/", "trail//", "back\\slash", "new\nline", "\x01\x02\x1f\x7f", "tab\tkey", "\r\n",
    "😀", "😀" * 256, LONGEST, "é" * 512, "a+b", "a%2Fb", "a%2fb", "100%", "%", "%25", "?", "#", "&<>\"'", "'; DROP TABLE",
    "a b", " lead", "trail ", "a", "a/", "a/b", "..", ".", "../..", "a/../b", "a/./b", "null", "\u202e", "e\u0301",
    "\u00e9", "\ufeff", "\ufffd", "\U0010ffff", "*", "a;b", "a:b", "$(x)", "`x`", "-", "--help", "con", "CON", "con.", "\x00",
]


@both_schemes
def test_48_odd_keys_are_kept_exactly(attacker: Attacker) -> None:
    """Stored under exactly that key, listed exactly, one does not touch another, and each can be deleted."""
    for key in ODD_KEYS:
        path = f"{attacker.bucket}/{quote(key, safe='')}"
        put = attacker.ask("PUT", path, body=key.encode())
        assert put.status == 200, (key, put)
    for key in ODD_KEYS:
        got = attacker.ask("GET", f"{attacker.bucket}/{quote(key, safe='')}")
        assert (got.status, got.body) == (200, key.encode()), key
    keys: list[str] = []
    token = ""
    while True:
        listed = attacker.ask("GET", f"{attacker.bucket}?encoding-type=url&list-type=2&max-keys=7{token}")
        keys += listed.elements("Key")
        if listed.element("IsTruncated") == "false":
            break
        token = f"&continuation-token={quote(listed.element('NextContinuationToken') or '', safe='')}"
    expected = sorted([*ODD_KEYS, "victim"], key=str.encode)
    assert [unquote_plus(key) for key in keys] == expected
    for key in ODD_KEYS:
        assert attacker.ask("DELETE", f"{attacker.bucket}/{quote(key, safe='')}").status == 204
        assert attacker.ask("GET", attacker.victim).status == 200
    assert attacker.ask("GET", f"{attacker.bucket}?list-type=2").elements("Key") == ["victim"]


def test_48_keys_that_are_too_long(attacker: Attacker) -> None:
    for key in ("k" * 1025, "é" * 513, "😀" * 257, "k" * 7000):
        path = f"{attacker.bucket}/{quote(key, safe='')}"
        for method, query in (("PUT", ""), ("GET", ""), ("DELETE", ""), ("POST", "?uploads"), ("GET", "?tagging")):
            answer = attacker.refused(attacker.ask(method, path + query), "KeyTooLongError", 400)
            assert answer.element("MaxSizeAllowed") == "1024"
