"""Signature version 2: AWS's documented examples, botocore as a second opinion, and what it must cover."""

import base64
import hmac
from urllib.parse import quote

import pytest
from botocore.auth import HmacV1Auth, HmacV1QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from gateway.s3.operations import SUBRESOURCES
from gateway.s3.request import S3Request
from gateway.s3.signing import sigv2
from gateway.s3.signing.credentials import V2, V2Query, presented
from gateway.s3.signing.hoisting import signed_by_v2
from tests.s3_requests import s3_request
from tests.signing import Keys, presign_v2, sign_request_v2

DOCUMENTED = Keys(access_key="AKIAIOSFODNN7EXAMPLE", secret_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
KEYS = Keys()
NOW_S = 1_767_323_045.0


def verifies(request: S3Request, keys: Keys = KEYS) -> bool:
    claim = presented(request)
    assert isinstance(claim, V2 | V2Query)
    if isinstance(claim, V2Query):
        texts = sigv2.strings_to_sign(request, signed_by_v2(request), claim.expires)
    else:
        texts = sigv2.strings_to_sign(request, request.headers, None)
    return any(sigv2.matches(keys.secret_key, text, claim.signature) for text in texts)


@pytest.mark.parametrize(("method", "path", "bucket_of_host", "headers", "signature"), [
    (
        "GET", "/photos/puppy.jpg", "awsexamplebucket1", {"date": "Tue, 27 Mar 2007 19:36:42 +0000"},
        "qgk2+6Sv9/oM7G3qLEjTH1a1l1g=",
    ),
    (
        "PUT", "/photos/puppy.jpg", "awsexamplebucket1",
        {"date": "Tue, 27 Mar 2007 21:15:45 +0000", "content-type": "image/jpeg", "content-length": "94328"},
        "iqRzw+ileNPu1fhspnRs8nOjjIA=",
    ),
    (
        "GET", "/?prefix=photos&max-keys=50&marker=puppy", "awsexamplebucket1",
        {"date": "Tue, 27 Mar 2007 19:42:41 +0000"}, "m0WP8eCtspQl5Ahe6L1SozdX9YA=",
    ),
    ("GET", "/?acl", "awsexamplebucket1", {"date": "Tue, 27 Mar 2007 19:44:46 +0000"}, "82ZHiFIjc+WbcwFKGUVEQspPn+0="),
    (
        "DELETE", "/awsexamplebucket1/photos/puppy.jpg", "", {"date": "Tue, 27 Mar 2007 21:20:26 +0000"},
        "XbyTlbQdu9Xw5o8P4iMwPktxQd8=",
    ),
    (
        "PUT", "/db-backup.dat.gz", "static.example.com",
        {
            "date": "Tue, 27 Mar 2007 21:06:08 +0000", "x-amz-acl": "public-read",
            "content-type": "application/x-download", "content-md5": "4gJE4saaMU4BqNR0kLY+lw==",
            "x-amz-meta-reviewedby": "joe@example.com,jane@example.com", "x-amz-meta-filechecksum": "0x02661779",
            "x-amz-meta-checksumalgorithm": "crc32",
        },
        "jtBQa0Aq+DkULFI8qrpwIjGEx0E=",
    ),
    ("GET", "/", "", {"date": "Wed, 28 Mar 2007 01:29:59 +0000"}, "qGdzdERIC03wnaRNKh6OqZehG9s="),
    (
        "GET", "/dictionary/fran%C3%A7ais/pr%c3%a9f%c3%a8re", "", {"date": "Wed, 28 Mar 2007 01:49:49 +0000"},
        "DNEZGsoieTZ92F3bUfSPQcbGmlM=",
    ),
])
def test_the_documented_examples(
    method: str, path: str, bucket_of_host: str, headers: dict[str, str], signature: str
) -> None:
    """AWS, "Signing and authenticating REST requests (AWS signature version 2)"."""
    sent = {**headers, "authorization": f"AWS {DOCUMENTED.access_key}:{signature}"}
    request = s3_request(method, f"http://s3.amazonaws.com{path}", sent, bucket_of_host=bucket_of_host)
    assert verifies(request, DOCUMENTED)
    assert not verifies(request, KEYS)


PATHS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
QUERIES = st.dictionaries(st.sampled_from(["acl", "uploads", "versionId", "prefix", "x-id"]), PATHS, max_size=3)
METADATA = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20)


@given(key=PATHS, query=QUERIES, metadata=METADATA, host_style=st.booleans())
def test_our_signer_agrees(key: str, query: dict[str, str], metadata: str, host_style: bool) -> None:
    text = "&".join(f"{name}={quote(value, safe='')}" if value else name for name, value in query.items())
    bucket = "bucket" if host_style else ""
    url = "http://host" + ("/" if host_style else "/bucket/") + quote(key) + (f"?{text}" if text else "")
    headers = {"x-amz-meta-b": metadata, "x-amz-acl": "private", "content-type": "a/b", "content-md5": "x"}
    sent = sign_request_v2("PUT", url, headers, keys=KEYS, now_s=NOW_S, bucket_of_host=bucket)
    assert verifies(s3_request("PUT", url, sent, bucket_of_host=bucket))
    presigned = presign_v2("PUT", url, headers, keys=KEYS, expires_at_s=int(NOW_S), bucket_of_host=bucket)
    assert verifies(s3_request("PUT", presigned, headers, bucket_of_host=bucket))


@given(key=PATHS, version=PATHS, metadata=METADATA)
def test_botocore_agrees(key: str, version: str, metadata: str) -> None:
    """The presigning signer moves headers into the query, where the signature covers them still."""
    credentials = Credentials(KEYS.access_key, KEYS.secret_key)
    url = f"http://host/bucket/{quote(key)}?versionId={quote(version, safe='')}&acl&x-id=PutObject"
    headers = {"x-amz-meta-b": metadata, "Content-Type": "a/b"}
    request = AWSRequest(method="PUT", url=url, headers=headers)
    HmacV1Auth(credentials).add_auth(request)
    assert verifies(s3_request("PUT", request.url, dict(request.headers.items())))
    request = AWSRequest(method="PUT", url=url, headers=headers)
    HmacV1QueryAuth(credentials, expires=60).add_auth(request)
    assert verifies(s3_request("PUT", request.url))
    assert verifies(s3_request("PUT", request.url, {"content-type": "a/b"}))
    assert not verifies(s3_request("PUT", request.url, {"content-type": "text/html"}))


def test_every_subresource_is_covered() -> None:
    """Else a presigned PUT of an object could be made a PUT of its legal hold by whoever has the link."""
    url = presign_v2("PUT", "http://h/bucket/key", keys=KEYS, expires_at_s=int(NOW_S))
    assert verifies(s3_request("PUT", url))
    for name in SUBRESOURCES:
        assert not verifies(s3_request("PUT", f"{url}&{name}")), name
        assert not verifies(s3_request("PUT", f"{url}&{name}=x")), name
    assert verifies(s3_request("PUT", f"{url}&x-id=PutObject"))


def test_a_younger_subresource_may_be_read_without_being_signed() -> None:
    """s3cmd and boto3 don't sign it; a header can't be handed on as a link can, and writing is another matter."""
    url = "http://h/bucket?ownershipControls"
    for method, allowed in (("GET", True), ("HEAD", True), ("PUT", False), ("DELETE", False)):
        sent = sign_request_v2(method, url, keys=KEYS, now_s=NOW_S)
        assert verifies(s3_request(method, url, sent)) is allowed
    plain = presign_v2("GET", "http://h/bucket", keys=KEYS, expires_at_s=int(NOW_S))
    assert not verifies(s3_request("GET", f"{plain}&ownershipControls"))
    sent = sign_request_v2("GET", "http://h/bucket", keys=KEYS, now_s=NOW_S)
    assert not verifies(s3_request("GET", "http://h/bucket?acl", sent))


@pytest.mark.parametrize("name", [
    "response-cache-control", "response-content-disposition", "response-content-encoding", "response-content-language",
    "response-content-type", "response-expires", "versionId", "partNumber", "uploadId",
])
def test_parameters_that_change_the_answer_are_covered(name: str) -> None:
    url = presign_v2("GET", "http://h/bucket/key", keys=KEYS, expires_at_s=int(NOW_S))
    assert not verifies(s3_request("GET", f"{url}&{name}=x"))
    signed = presign_v2("GET", f"http://h/bucket/key?{name}=a%2Fb%20c", keys=KEYS, expires_at_s=int(NOW_S))
    assert verifies(s3_request("GET", signed))


@pytest.mark.parametrize("added", ["x-amz-acl=public-read", "X-Amz-Acl=public-read", "x-amz-copy-source=%2Fb%2Fkey"])
def test_headers_added_to_the_query_are_seen(added: str) -> None:
    url = presign_v2("PUT", "http://h/bucket/key", keys=KEYS, expires_at_s=int(NOW_S))
    assert not verifies(s3_request("PUT", f"{url}&{added}"))


@pytest.mark.parametrize(("method", "path", "headers"), [
    ("GET", "/bucket/key", {}),
    ("PUT", "/bucket/other", {}),
    ("PUT", "/bucket/key/", {}),
    ("PUT", "/bucket/key", {"content-type": "text/html"}),
    ("PUT", "/bucket/key", {"content-md5": "1B2M2Y8AsgTpgAmY7PhCfg=="}),
    ("PUT", "/bucket/key", {"x-amz-acl": "public-read"}),
    ("PUT", "/bucket/key", {"date": "Tue, 27 Mar 2007 21:06:08 +0000"}),
])
def test_what_is_signed_can_not_be_changed(method: str, path: str, headers: dict[str, str]) -> None:
    sent = sign_request_v2("PUT", "http://h/bucket/key", keys=KEYS, now_s=NOW_S)
    assert verifies(s3_request("PUT", "http://h/bucket/key", sent))
    assert not verifies(s3_request(method, f"http://h{path}", {**sent, **headers}))


def test_x_amz_date_takes_the_place_of_date() -> None:
    headers = {"x-amz-date": "Tue, 27 Mar 2007 21:06:08 +0000", "date": "Wed, 28 Mar 2007 01:29:59 +0000"}
    sent = sign_request_v2("GET", "http://h/bucket/key", headers, keys=KEYS, now_s=NOW_S)
    assert verifies(s3_request("GET", "http://h/bucket/key", sent))
    assert verifies(s3_request("GET", "http://h/bucket/key", {**sent, "date": "any"}))


@pytest.mark.parametrize(("signed", "sent"), [("/bucket", "/bucket/"), ("/bucket/", "/bucket")])
def test_the_last_slash_of_a_bucket_may_be_signed_or_not(signed: str, sent: str) -> None:
    headers = sign_request_v2("GET", f"http://h{signed}?versions", keys=KEYS, now_s=NOW_S)
    assert verifies(s3_request("GET", f"http://h{sent}?versions", headers))


def test_form_policy() -> None:
    policy = "eyAiZXhwaXJhdGlvbiI6ICIyMDE1LTEyLTMwVDEyOjAwOjAwLjAwMFoifQ=="
    signature = base64.b64encode(hmac.new(b"secret", policy.encode(), "sha1").digest()).decode()
    assert sigv2.verify_policy("secret", policy, signature)
    assert not sigv2.verify_policy("secret", policy, signature + "é")
    assert not sigv2.verify_policy("other", policy, signature)
