"""Signature version 4: AWS's documented examples, the canonical forms, and botocore as a second opinion."""

import hmac
from urllib.parse import quote, unquote, urlsplit

import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from gateway.s3.errors import S3Error
from gateway.s3.request import S3Request
from gateway.s3.signing import sigv4
from gateway.s3.signing.credentials import V2, V4, Scheme, V4Query, parse_credential, presented
from tests.s3_requests import s3_request
from tests.signing import EMPTY, UNSIGNED, Keys, presign, sign_request
from tests.spec_text import Block, blocks

DOCUMENTED = Keys(access_key="AKIAIOSFODNN7EXAMPLE", secret_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
KEYS = Keys()
NOW_S = 1_767_323_045.0


def verifies(request: S3Request, keys: Keys) -> bool:
    """The signature of the request, as `gateway.auth` verifies it; times and unsigned headers are its business."""
    claim = presented(request)
    by_query = isinstance(claim, V4Query)
    assert isinstance(claim, V4 | V4Query)
    query = sigv4.without_signature(request.raw_query) if by_query else request.raw_query
    payload = request.headers.get("x-amz-content-sha256", UNSIGNED)
    date = claim.date if isinstance(claim, V4Query) else request.headers["x-amz-date"]
    canonical = sigv4.canonical_request(
        request.method, request.raw_path, query, request.headers, claim.claims, payload
    )
    assert canonical is not None
    credential = claim.claims.credential
    key = sigv4.signing_key(keys.secret_key, credential.date, credential.region, credential.service)
    return key.matches(sigv4.string_to_sign(date, credential.scope, canonical), claim.signature)


# The text specification


@pytest.mark.parametrize("block", blocks("sigv4/canonical_path"), ids=lambda block: block.place)
def test_canonical_path(block: Block) -> None:
    (raw,) = block.lines
    assert sigv4.canonical_path(raw.encode()) == block.expected


@pytest.mark.parametrize("block", blocks("sigv4/canonical_query"), ids=lambda block: block.place)
def test_canonical_query(block: Block) -> None:
    (raw,) = block.lines
    assert sigv4.canonical_query(raw.encode()) == block.expected


@pytest.mark.parametrize("block", blocks("sigv4/authorization"), ids=lambda block: block.place)
def test_authorization(block: Block) -> None:
    (header,) = block.lines
    try:
        claim = presented(s3_request("GET", "http://h/b/k", {"authorization": header}))
    except S3Error as error:
        answer = f"{error.code} {error.status}: {error.message}"
    else:
        answer = _claim_text(claim)
    assert answer == block.expected


def _claim_text(claim: object) -> str:
    if isinstance(claim, V2):
        return f"V2 access_key={claim.access_key} signature={claim.signature}"
    assert isinstance(claim, V4)
    credential, names = claim.claims.credential, ";".join(claim.claims.names)
    return (
        f"V4 access_key={credential.access_key} date={credential.date} region={credential.region} "
        f"service={credential.service} names={names} signature={claim.signature}"
    )


# AWS's examples


_DOCUMENTED_HEADER = (
    "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders={},Signature={}"
)


@pytest.mark.parametrize(("method", "path", "headers", "payload", "signature"), [
    (
        "GET", "/test.txt", {"range": "bytes=0-9"}, EMPTY,
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
    ),
    (
        "PUT", "/test%24file.text",
        {"date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"},
        "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
        "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
    ),
    ("GET", "/?lifecycle", {}, EMPTY, "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
    ("GET", "/?max-keys=2&prefix=J", {}, EMPTY, "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
])
def test_the_documented_examples(method: str, path: str, headers: dict[str, str], payload: str, signature: str) -> None:
    """AWS, "Signature Calculations for the Authorization Header: Transferring Payload in a Single Chunk"."""
    sent = {
        **headers, "host": "examplebucket.s3.amazonaws.com", "x-amz-content-sha256": payload,
        "x-amz-date": "20130524T000000Z",
    }
    sent["authorization"] = _DOCUMENTED_HEADER.format(";".join(sorted(sent)), signature)
    url = f"https://examplebucket.s3.amazonaws.com{path}"
    assert verifies(s3_request(method, url, sent, bucket_of_host="examplebucket"), DOCUMENTED)


def test_the_documented_presigned_example() -> None:
    """AWS, "Authenticating Requests: Using Query Parameters"."""
    url = (
        "https://examplebucket.s3.amazonaws.com/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256"
        "&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z"
        "&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
        "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    )
    assert verifies(s3_request("GET", url, bucket_of_host="examplebucket"), DOCUMENTED)
    assert not verifies(s3_request("PUT", url, bucket_of_host="examplebucket"), DOCUMENTED)


def test_the_documented_form_policy_signature_form() -> None:
    credential = parse_credential("AKIAIOSFODNN7EXAMPLE/20151229/us-east-1/s3/aws4_request", Scheme.QUERY)
    policy = "eyAiZXhwaXJhdGlvbiI6ICIyMDE1LTEyLTMwVDEyOjAwOjAwLjAwMFoifQ=="
    key = sigv4.signing_key(DOCUMENTED.secret_key, "20151229", "us-east-1", "s3")
    signature = key.sign(policy.encode()).decode()
    assert sigv4.verify_policy(DOCUMENTED.secret_key, credential, policy, signature)
    assert not sigv4.verify_policy(DOCUMENTED.secret_key, credential, policy + " ", signature)
    assert not sigv4.verify_policy("another", credential, policy, signature)


def test_the_documented_signing_key() -> None:
    """AWS, "Deriving the signing key" (general reference): the IAM example."""
    key = sigv4.signing_key("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "20120215", "us-east-1", "iam")
    assert key.sign(b"") == _plain_hmac("f4780e2d9f65fa895f9c67b32ce1baf0b0d8a43505a000a1a9e090d414db404d", b"")


def _plain_hmac(key_hex: str, text: bytes) -> bytes:
    return hmac.new(bytes.fromhex(key_hex), text, "sha256").hexdigest().encode()


# Second opinions: our own signer, and botocore's

def _joined(parts: list[str], max_size: int) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(parts), max_size=max_size).map("".join)


RAW_PATHS = _joined(
    [*"abz09-._~/+=!*'()$&,:;@ü€ 😀", "%2F", "%2f", "%20", "%25", "%2B", "%00", "..", "//", "%7E", "%C3%BC"], 12
)
NAMES = st.sampled_from(["prefix", "marker", "uploads", "a", "a-b", "A", "x-id", "versionId", "é", "b%2Fc", ""])
VALUES = _joined([*"abAB01-._~/=é€", "%20", "%2B", "%2f", "%26", "%3D", "%"], 8)
METADATA = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)


def _wire(text: str) -> str:
    """What an HTTP client may put on the wire: a space can't be in a target."""
    return text.replace(" ", "%20")


@given(path=RAW_PATHS, query=st.lists(st.tuples(NAMES, VALUES, st.booleans()), max_size=4), metadata=METADATA)
def test_our_signer_agrees(path: str, query: list[tuple[str, str, bool]], metadata: str) -> None:
    text = "&".join(f"{name}={value}" if valued else name for name, value, valued in query)
    url = f"http://host:9000/b/{_wire(path)}" + (f"?{text}" if text else "")
    sent = sign_request("PUT", url, {"x-amz-meta-a": metadata}, keys=KEYS, now_s=NOW_S)
    assert verifies(s3_request("PUT", url, sent), KEYS)
    presigned = presign("PUT", url, {"x-amz-meta-a": metadata}, keys=KEYS, now_s=NOW_S)
    assert verifies(s3_request("PUT", presigned, {"x-amz-meta-a": metadata}), KEYS)


@given(key=st.text(max_size=12), prefix=st.text(max_size=8), metadata=METADATA)
def test_botocore_agrees(key: str, prefix: str, metadata: str) -> None:
    credentials = Credentials(KEYS.access_key, KEYS.secret_key)
    try:
        url = f"http://host:9000/b/{quote(key, safe='/~')}?prefix={quote(prefix, safe='-_.~')}&uploads"
    except UnicodeEncodeError:     # a lone surrogate: no client can send it
        return
    headers = {"x-amz-meta-a": metadata, "User-Agent": "x"}
    request = AWSRequest(method="PUT", url=url, headers=headers, data=b"")
    S3SigV4Auth(credentials, "s3", "us-east-1").add_auth(request)
    assert verifies(s3_request("PUT", request.url, dict(request.headers.items())), KEYS)
    request = AWSRequest(method="GET", url=url, headers={})
    S3SigV4QueryAuth(credentials, "s3", "us-east-1", expires=60).add_auth(request)
    assert verifies(s3_request("GET", request.url), KEYS)


def test_header_values_are_folded_as_signers_do() -> None:
    url = "http://h/b/k"
    sent = sign_request("PUT", url, {"x-amz-meta-a": "one two", "x-amz-meta-b": "ü à"}, keys=KEYS, now_s=NOW_S)
    for variant in ("one two", "one   two", " one two  ", "one \t two"):
        assert verifies(s3_request("PUT", url, {**sent, "x-amz-meta-a": variant}), KEYS)
    assert not verifies(s3_request("PUT", url, {**sent, "x-amz-meta-a": "onetwo"}), KEYS)


def test_utf8_bytes_are_not_taken_for_spaces() -> None:
    """The last byte of "à" is the non-breaking space of latin-1, as which headers are decoded."""
    on_the_wire = "voilà  là".encode().decode("latin-1")
    url = "http://h/b/k"
    sent = sign_request("PUT", url, {"x-amz-meta-a": on_the_wire}, keys=KEYS, now_s=NOW_S)
    assert verifies(s3_request("PUT", url, sent), KEYS)


@pytest.mark.parametrize("signature", ["", "0" * 64, "é" * 64, "\ud800", "A" * 10_000])
def test_odd_signatures_only_fail(signature: str) -> None:
    assert not sigv4.signing_key("s", "20260101", "r", "s3").matches(b"text", signature)


def test_canonical_query_takes_the_short_way_only_for_canonical_text() -> None:
    for raw in (b"a=1&b=%2F", b"a=%2f", b"a=%41", b"a", b"a==&b", b"a=b=c&d", b"a=%2", b"a=1&&b=2", b"a=\x00", b"a=1&"):
        items = [item for item in raw.split(b"&") if item]
        assert sigv4.canonical_query(raw) == sigv4.canonical_query(b"&".join(reversed(items)))
        assert sigv4.canonical_query(sigv4.canonical_query(raw).encode()) == sigv4.canonical_query(raw)


@given(at=st.integers(0, 1000), flip=st.sampled_from("abcdef0123456789/&=;%+"))
def test_any_change_of_a_presigned_url_is_seen(at: int, flip: str) -> None:
    url = presign("GET", "http://h/bucket/some/key?versionId=abc", keys=KEYS, now_s=NOW_S)
    start = url.index("/bucket")
    at = start + at % (len(url) - start)
    changed = url[:at] + flip + url[at + 1 :]
    same = unquote(urlsplit(changed).path) == unquote(urlsplit(url).path) and sorted(
        unquote(urlsplit(changed).query).split("&")) == sorted(unquote(urlsplit(url).query).split("&"))
    try:
        assert verifies(s3_request("GET", changed), KEYS) == same
    except (S3Error, AssertionError):
        assert not same
