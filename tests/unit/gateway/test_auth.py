"""Whose request it is: each refusal with its code, status and elements (S3_SEMANTICS §2, §3), and the attacks."""

import dataclasses
from collections.abc import Callable

import msgspec
import pytest

from gateway.auth import ANONYMOUS, Authenticated, Mechanism, Settings, authenticate
from gateway.identities import Identity, IdentityStore
from gateway.s3 import errors
from gateway.s3.errors import S3Error
from gateway.s3.request import S3Request
from gateway.s3.signing.hoisting import effective_headers
from tests.s3_requests import s3_request
from tests.signing import (
    EMPTY,
    UNSIGNED,
    ChunkSigner,
    Keys,
    presign,
    presign_v2,
    sign_request,
    sign_request_v2,
    signature_of,
)

KEYS = Keys()
NOW_S = 1_767_323_045           # 2026-01-02T03:04:05Z
NOW_MS = NOW_S * 1000
URL = "http://host:9000/bucket/key"
STREAMING = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
MISMATCH = (403, "SignatureDoesNotMatch")
UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"

IDENTITY = Identity(
    name="main", account="account A", user_id="testid", access_key=KEYS.access_key, secret_key=KEYS.secret_key
)
STORE = IdentityStore([IDENTITY])


def who(request: S3Request, settings: Settings | None = None, *, later_s: float = 0) -> Authenticated:
    return authenticate(request, STORE, settings or Settings(), NOW_MS + round(later_s * 1000))


def refused(request: S3Request, settings: Settings | None = None, *, later_s: float = 0) -> S3Error:
    """The error; its document holds neither a secret nor the signature that would have been right."""
    with pytest.raises(S3Error) as caught:
        who(request, settings, later_s=later_s)
    document = errors.render(caught.value, "ID", "HOST")
    assert KEYS.secret_key.encode() not in document
    return caught.value


def answer(error: S3Error) -> tuple[int, str]:
    return error.status, error.code


def signed(
    method: str = "GET", url: str = URL, headers: dict[str, str] | None = None, *, keys: Keys = KEYS, **options: object
) -> S3Request:
    sent = sign_request(method, url, headers, keys=keys, **{"now_s": NOW_S, **options})  # type: ignore[arg-type]
    return s3_request(method, url, sent)


def changed(request: S3Request, **headers: str | None) -> S3Request:
    """With other headers; underscores stand for dashes, None takes one away."""
    new = {name.replace("_", "-"): value for name, value in headers.items()}
    kept = {name: value for name, value in {**request.headers, **new}.items() if value is not None}
    return msgspec.structs.replace(request, headers=kept)


# Who asks


def test_header_signature_of_version_4() -> None:
    principal = who(signed(), later_s=60).principal
    assert principal.identity is IDENTITY
    assert not principal.anonymous
    assert (principal.account, principal.user_id, principal.access_key) == ("account A", "testid", KEYS.access_key)
    assert (principal.mechanism, principal.age_ms) == (Mechanism.V4_HEADER, 60_000)


def test_presigned_of_version_4() -> None:
    principal = who(s3_request("GET", presign("GET", URL, keys=KEYS, now_s=NOW_S)), later_s=3600).principal
    assert (principal.identity, principal.mechanism, principal.age_ms) == (IDENTITY, Mechanism.V4_QUERY, 3_600_000)


def test_header_signature_of_version_2() -> None:
    principal = who(s3_request("GET", URL, sign_request_v2("GET", URL, keys=KEYS, now_s=NOW_S))).principal
    assert (principal.identity, principal.mechanism, principal.age_ms) == (IDENTITY, Mechanism.V2_HEADER, 0)


def test_presigned_of_version_2() -> None:
    url = presign_v2("GET", URL, keys=KEYS, expires_at_s=NOW_S + 9)
    principal = who(s3_request("GET", url), later_s=9).principal
    assert (principal.identity, principal.mechanism, principal.age_ms) == (IDENTITY, Mechanism.V2_QUERY, None)


def test_without_a_signature_one_is_anonymous() -> None:
    found = who(s3_request("GET", URL))
    assert found.principal is ANONYMOUS
    assert found.principal.anonymous
    assert (found.payload.sha256, found.payload.framing) == (None, None)


def test_the_date_header_will_do() -> None:
    date = {"date": "Fri, 02 Jan 2026 03:04:05 GMT"}
    sent = sign_request("GET", URL, date, keys=KEYS, now_s=NOW_S, unsigned=["x-amz-date"])
    del sent["x-amz-date"]
    assert who(s3_request("GET", URL, sent)).principal.identity is IDENTITY


@pytest.mark.parametrize(("access_key", "secret_key"), [
    ("0555b35654ad1656d804", "h7GhxuBLTrlhVUyxSPUKUV8r/2EI4ngqJxD7iBdBYLhwluN30JaT3Q=="),
    ("a/b+c=:d", "/+= "), ("é", "ü€"), ("x", "y"), ("$", "k" * 1000),
])
def test_keys_are_arbitrary_text(access_key: str, secret_key: str) -> None:
    store = IdentityStore([dataclasses.replace(IDENTITY, access_key=access_key, secret_key=secret_key)])
    keys = Keys(access_key=access_key, secret_key=secret_key)
    expires = NOW_S + 5
    for request in (
        s3_request("GET", presign("GET", URL, keys=keys, now_s=NOW_S)),
        s3_request("GET", presign_v2("GET", URL, keys=keys, expires_at_s=expires)),
        changed_to_wire(signed(keys=keys)),
        changed_to_wire(s3_request("GET", URL, sign_request_v2("GET", URL, keys=keys, now_s=NOW_S))),
    ):
        assert authenticate(request, store, Settings(), NOW_MS).principal.access_key == access_key


def changed_to_wire(request: S3Request) -> S3Request:
    """Header text as the HTTP edge gives it: UTF-8 bytes seen as latin-1."""
    return changed(request, authorization=request.headers["authorization"].encode().decode("latin-1"))


# Version 4 in the header: refusals


@pytest.mark.parametrize(("change", "status", "code"), [
    ({"x_amz_content_sha256": None}, 400, "InvalidRequest"),
    ({"x_amz_content_sha256": "0" * 63}, 400, "InvalidArgument"),
    ({"x_amz_content_sha256": "g" * 64}, 400, "InvalidArgument"),
    ({"x_amz_content_sha256": "unsigned-payload"}, 400, "InvalidArgument"),
    ({"x_amz_content_sha256": "STREAMING-ANYTHING"}, 400, "InvalidArgument"),
    ({"x_amz_content_sha256": "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"}, 501, "NotImplemented"),
    ({"x_amz_content_sha256": "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD-TRAILER"}, 501, "NotImplemented"),
    ({"x_amz_content_sha256": UNSIGNED}, 403, "SignatureDoesNotMatch"),
    ({"x_amz_content_sha256": UNSIGNED_TRAILER}, 403, "SignatureDoesNotMatch"),
    ({"x_amz_date": None}, 403, "AccessDenied"),
    ({"x_amz_date": "2026-01-02T03:04:05Z"}, 403, "AccessDenied"),
    ({"x_amz_date": "20261302T030405Z"}, 403, "AccessDenied"),
    ({"x_amz_date": "20260102T030406Z"}, 403, "SignatureDoesNotMatch"),
    ({"x_amz_date": "20260103T030405Z"}, 400, "AuthorizationHeaderMalformed"),
    ({"host": "other:9000"}, 403, "SignatureDoesNotMatch"),
    ({"host": "host"}, 403, "SignatureDoesNotMatch"),
    ({"x_amz_acl": "public-read"}, 403, "AccessDenied"),
    ({"x_amz_copy_source": "/other/key"}, 403, "AccessDenied"),
    ({"x_amz_meta_x": ""}, 403, "AccessDenied"),
    ({"x_amz_security_token": "any"}, 400, "InvalidToken"),
    ({"authorization": ""}, 400, "InvalidArgument"),
    ({"authorization": "Basic dXNlcjpwYXNz"}, 400, "InvalidArgument"),
    ({"authorization": "AWS4-HMAC-SHA256"}, 400, "InvalidArgument"),
    ({"authorization": "AWS4-HMAC-SHA256 x"}, 400, "AuthorizationHeaderMalformed"),
    ({"authorization": "AWS4-ECDSA-P256-SHA256 x"}, 501, "NotImplemented"),
])
def test_header_signature_refused(change: dict[str, str | None], status: int, code: str) -> None:
    assert answer(refused(changed(signed(), **change))) == (status, code)


def test_other_things_that_are_signed() -> None:
    request = signed("PUT", f"{URL}?versionId=a")
    for other in (
        msgspec.structs.replace(request, method="GET"),
        msgspec.structs.replace(request, raw_path=b"/bucket/other"),
        msgspec.structs.replace(request, raw_path=b"/bucket/key/"),
        msgspec.structs.replace(request, raw_path=b"/bucket//key"),
        msgspec.structs.replace(request, raw_query=b"versionId=b"),
        msgspec.structs.replace(request, raw_query=b"versionId=a&acl"),
        msgspec.structs.replace(request, raw_query=b""),
    ):
        assert answer(refused(other)) == MISMATCH


def test_unknown_key() -> None:
    error = refused(signed(keys=Keys(access_key="nobody")))
    assert answer(error) == (403, "InvalidAccessKeyId")
    assert error.detail == {"AWSAccessKeyId": "nobody"}


def test_wrong_secret_shows_what_was_signed_and_nothing_else() -> None:
    request = signed(keys=Keys(secret_key="wrong"))
    error = refused(request)
    assert answer(error) == MISMATCH
    canonical = f"GET\n/bucket/key\n\nhost:host:9000\nx-amz-content-sha256:{EMPTY}\nx-amz-date:20260102T030405Z\n\n"
    canonical += f"host;x-amz-content-sha256;x-amz-date\n{EMPTY}"
    assert list(error.detail) == [
        "AWSAccessKeyId", "StringToSign", "SignatureProvided", "StringToSignBytes", "CanonicalRequest",
        "CanonicalRequestBytes",
    ]
    assert error.detail["CanonicalRequest"] == canonical
    assert error.detail["CanonicalRequestBytes"] == canonical.encode().hex(" ")
    assert error.detail["SignatureProvided"] == signature_of(request.headers)
    assert str(error.detail["StringToSign"]).startswith("AWS4-HMAC-SHA256\n20260102T030405Z\n20260102/us-east-1/s3/")
    assert signature_of(signed().headers) not in errors.render(error, "ID", "HOST").decode()


@pytest.mark.parametrize("signature", ["", "0" * 64, "é" * 64, "\x80\xff" * 32, "A" * 5000, "🂡"])
def test_odd_signatures_are_only_wrong(signature: str) -> None:
    """Text that isn't ASCII once made such comparisons raise, which was a 500 for everybody to see."""
    request = signed()
    head = request.headers["authorization"].rpartition("=")[0]
    expected = MISMATCH if signature else (400, "AuthorizationHeaderMalformed")
    assert answer(refused(changed(request, authorization=f"{head}={signature}"))) == expected


@pytest.mark.parametrize(("keys", "message", "region"), [
    (Keys(region="eu-west-1"), "the region 'eu-west-1' is wrong; expecting 'us-east-1'", "us-east-1"),
    (Keys(service="ec2"), 'incorrect service "ec2". This endpoint belongs to "s3".', None),
])
def test_wrong_scope(keys: Keys, message: str, region: str | None) -> None:
    error = refused(signed(keys=keys))
    assert answer(error) == (400, "AuthorizationHeaderMalformed")
    assert error.message == f"The authorization header is malformed; {message}"
    assert error.detail.get("Region") == region
    error = refused(s3_request("GET", presign("GET", URL, keys=keys, now_s=NOW_S)))
    assert answer(error) == (400, "AuthorizationQueryParametersError")
    assert error.detail.get("Region") == region


def test_any_region_may_be_allowed() -> None:
    keys = Keys(region="mars-1")
    settings = Settings(any_region=True)
    assert who(signed(keys=keys), settings).principal.identity is IDENTITY
    assert who(signed(keys=keys), Settings(region="mars-1")).principal.identity is IDENTITY
    assert answer(refused(signed(keys=Keys(region="mars-1", secret_key="w")), settings)) == MISMATCH


@pytest.mark.parametrize("later_s", [-901, 901, 86_000])
def test_skewed_clocks(later_s: int) -> None:
    error = refused(signed(), later_s=later_s)
    assert answer(error) == (403, "RequestTimeTooSkewed")
    assert list(error.detail) == ["RequestTime", "ServerTime", "MaxAllowedSkewMilliseconds"]
    assert error.detail["RequestTime"] == "20260102T030405Z"
    assert error.detail["MaxAllowedSkewMilliseconds"] == 900_000
    by_v2 = s3_request("GET", URL, sign_request_v2("GET", URL, keys=KEYS, now_s=NOW_S))
    assert answer(refused(by_v2, later_s=later_s)) == (403, "RequestTimeTooSkewed")


@pytest.mark.parametrize("later_s", [-900, 0, 900])
def test_a_quarter_of_an_hour_of_skew_is_allowed(later_s: int) -> None:
    assert who(signed(), later_s=later_s).principal.identity is IDENTITY


def test_unsigned_amz_headers_are_named() -> None:
    error = refused(changed(signed(), x_amz_acl="public-read", x_amz_meta_a="1", cache_control="no-cache"))
    assert error.message == "There were headers present in the request which were not signed"
    assert error.detail == {"HeadersNotSigned": "x-amz-acl, x-amz-meta-a"}


def test_ordinary_headers_need_no_signature() -> None:
    request = changed(signed(), content_type="text/plain", range="bytes=0-1", user_agent="x", if_match='"e"')
    assert who(request).principal.identity is IDENTITY


def test_host_must_be_signed() -> None:
    error = refused(signed(unsigned=["host"]))
    assert answer(error) == (403, "AccessDenied")
    assert error.detail == {"HeadersNotSigned": "host"}


def test_a_signed_header_must_be_there() -> None:
    request = changed(signed(headers={"range": "bytes=0-1", "content-type": ""}), range=None)
    error = refused(request)
    assert answer(error) == MISMATCH
    assert "range" in error.message
    assert answer(refused(changed(signed(headers={"content-type": ""}), content_type=None))) == MISMATCH


# Version 4 in the query: refusals


@pytest.mark.parametrize("name", [
    "X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders", "X-Amz-Signature",
])
def test_presigned_needs_all_parameters(name: str) -> None:
    url = presign("GET", URL, keys=KEYS, now_s=NOW_S)
    head, _, query = url.partition("?")
    without = "&".join(item for item in query.split("&") if not item.startswith(name + "="))
    assert answer(refused(s3_request("GET", f"{head}?{without}"))) == (400, "AuthorizationQueryParametersError")
    assert answer(refused(s3_request("GET", f"{head}?{without}&{name}="))) == (400, "AuthorizationQueryParametersError")
    assert answer(refused(s3_request("GET", f"{url}&{name}=x"))) == (400, "AuthorizationQueryParametersError")


@pytest.mark.parametrize(("expires", "message"), [
    ("abc", "X-Amz-Expires should be a number"),
    ("1.5", "X-Amz-Expires should be a number"),
    ("１", "X-Amz-Expires should be a number"),
    ("-", "X-Amz-Expires should be a number"),
    ("-1", "X-Amz-Expires must be non-negative"),
    ("604801", "X-Amz-Expires must be less than a week (in seconds)"),
    ("9" * 5000, "X-Amz-Expires must be less than a week (in seconds)"),
])
def test_presigned_with_odd_expiry(expires: str, message: str) -> None:
    error = refused(s3_request("GET", presign("GET", URL, keys=KEYS, now_s=NOW_S, expires_s=expires)))
    assert answer(error) == (400, "AuthorizationQueryParametersError")
    assert error.message.startswith(message)


@pytest.mark.parametrize("extra", [
    {"X-Amz-Algorithm": "AWS4-HMAC-SHA1"}, {"X-Amz-Date": "20260102"},
    {"X-Amz-Credential": "AK/us-east-1/s3/aws4_request"},
    {"X-Amz-Credential": "AKIDEXAMPLE/20260101/us-east-1/s3/aws4_request"},
])
def test_presigned_with_odd_parameters(extra: dict[str, str]) -> None:
    url = presign("GET", URL, keys=KEYS, now_s=NOW_S, extra=extra)
    assert answer(refused(s3_request("GET", url))) == (400, "AuthorizationQueryParametersError")


def test_presigned_expires() -> None:
    request = s3_request("GET", presign("GET", URL, keys=KEYS, now_s=NOW_S, expires_s=60))
    assert who(request, later_s=60).principal.identity is IDENTITY
    error = refused(request, later_s=60.001)
    assert (answer(error), error.message) == ((403, "AccessDenied"), "Request has expired")
    assert error.detail == {
        "X-Amz-Expires": 60, "Expires": "2026-01-02T03:05:05Z", "ServerTime": "2026-01-02T03:05:05Z",
    }
    week = s3_request("GET", presign("GET", URL, keys=KEYS, now_s=NOW_S, expires_s=604_800))
    assert who(week, later_s=604_800).principal.identity is IDENTITY
    at_once = s3_request("GET", presign("GET", URL, keys=KEYS, now_s=NOW_S, expires_s=0))
    assert answer(refused(at_once, later_s=1)) == (403, "AccessDenied")


def test_presigned_for_later() -> None:
    request = s3_request("GET", presign("GET", URL, keys=KEYS, now_s=NOW_S))
    error = refused(request, later_s=-901)
    assert (answer(error), error.message) == ((403, "AccessDenied"), "Request is not yet valid")


def test_presigned_binds_method_path_and_query() -> None:
    url = presign("GET", f"{URL}?versionId=1", keys=KEYS, now_s=NOW_S)
    assert who(s3_request("GET", url)).principal.identity is IDENTITY
    for request in (
        s3_request("PUT", url),
        s3_request("HEAD", url),
        s3_request("GET", url.replace("/key", "/kez")),
        s3_request("GET", url.replace("versionId=1", "versionId=2")),
        s3_request("GET", url.replace("Expires=3600", "Expires=3601")),
        s3_request("GET", f"{url}&acl"),
        s3_request("GET", f"{url}&response-content-type=text%2Fhtml"),
        s3_request("GET", url, {"host": "other"}),
    ):
        assert answer(refused(request)) == MISMATCH


def test_presigned_with_headers() -> None:
    url = presign("PUT", URL, {"x-amz-acl": "private"}, keys=KEYS, now_s=NOW_S)
    assert who(s3_request("PUT", url, {"x-amz-acl": "private", "content-type": "a/b"})).principal.identity is IDENTITY
    assert answer(refused(s3_request("PUT", url))) == MISMATCH
    assert answer(refused(s3_request("PUT", url, {"x-amz-acl": "public-read"}))) == MISMATCH
    error = refused(s3_request("PUT", url, {"x-amz-acl": "private", "x-amz-tagging": "a=b"}))
    assert (answer(error), error.detail) == ((403, "AccessDenied"), {"HeadersNotSigned": "x-amz-tagging"})


def test_presigned_with_a_security_token() -> None:
    url = presign("GET", URL, keys=KEYS, now_s=NOW_S, extra={"X-Amz-Security-Token": "t"})
    assert answer(refused(s3_request("GET", url))) == (400, "InvalidToken")


# Two mechanisms, or half of one


@pytest.mark.parametrize("sign", [
    lambda: presign("GET", URL, keys=KEYS, now_s=NOW_S),
    lambda: presign_v2("GET", URL, keys=KEYS, expires_at_s=NOW_S + 60),
])
def test_only_one_mechanism(sign: Callable[[], str]) -> None:
    for headers in (sign_request("GET", sign(), keys=KEYS, now_s=NOW_S), {"authorization": "nonsense"}):
        assert answer(refused(s3_request("GET", sign(), headers))) == (400, "InvalidArgument")
    both = presign("GET", presign_v2("GET", URL, keys=KEYS, expires_at_s=NOW_S + 60), keys=KEYS, now_s=NOW_S)
    assert answer(refused(s3_request("GET", both))) == (400, "InvalidArgument")


@pytest.mark.parametrize("query", [
    "X-Amz-Signature=x", "X-Amz-Credential=AKIDEXAMPLE%2F20260102%2Fus-east-1%2Fs3%2Faws4_request", "X-Amz-Algorithm=",
    "AWSAccessKeyId=AKIDEXAMPLE", "Signature=", "AWSAccessKeyId=AKIDEXAMPLE&Signature=x",
    "Signature=x&Expires=99999999999",
])
def test_half_a_signature_is_never_anonymous(query: str) -> None:
    assert refused(s3_request("GET", f"{URL}?{query}")).status in (400, 403)


# Version 2: refusals


@pytest.mark.parametrize(("change", "status", "code"), [
    ({"date": None}, 403, "AccessDenied"),
    ({"date": "yesterday"}, 403, "AccessDenied"),
    ({"authorization": "AWS AKIDEXAMPLE"}, 400, "InvalidArgument"),
    ({"authorization": "AWS AKIDEXAMPLE: x"}, 400, "InvalidArgument"),
    ({"authorization": "AWS nobody:x"}, 403, "InvalidAccessKeyId"),
    ({"authorization": "AWS AKIDEXAMPLE:x"}, 403, "SignatureDoesNotMatch"),
    ({"authorization": "AWS AKIDEXAMPLE:\x80"}, 403, "SignatureDoesNotMatch"),
    ({"x_amz_acl": "public-read"}, 403, "SignatureDoesNotMatch"),
    ({"x_amz_security_token": "t"}, 400, "InvalidToken"),
])
def test_header_signature_of_version_2_refused(change: dict[str, str | None], status: int, code: str) -> None:
    request = s3_request("GET", URL, sign_request_v2("GET", URL, keys=KEYS, now_s=NOW_S))
    assert answer(refused(changed(request, **change))) == (status, code)


def test_version_2_shows_what_was_signed() -> None:
    error = refused(s3_request("GET", URL, sign_request_v2("GET", URL, keys=Keys(secret_key="w"), now_s=NOW_S)))
    assert list(error.detail) == ["AWSAccessKeyId", "StringToSign", "SignatureProvided", "StringToSignBytes"]
    assert error.detail["StringToSign"] == "GET\n\n\nFri, 02 Jan 2026 03:04:05 GMT\n/bucket/key"


@pytest.mark.parametrize(("expires", "message"), [
    ("soon", "Invalid date (should be seconds since epoch): soon"), ("-5", "Invalid date"), ("9" * 400, "Invalid date"),
    (NOW_S - 1, "Request has expired"), ("0", "Request has expired"),
])
def test_presigned_of_version_2_refused(expires: int | str, message: str) -> None:
    error = refused(s3_request("GET", presign_v2("GET", URL, keys=KEYS, expires_at_s=expires)))
    assert answer(error) == (403, "AccessDenied")
    assert error.message.startswith(message)


@pytest.mark.parametrize("missing", ["AWSAccessKeyId", "Signature", "Expires"])
def test_presigned_of_version_2_needs_all_parameters(missing: str) -> None:
    url = presign_v2("GET", URL, keys=KEYS, expires_at_s=NOW_S + 60)
    error = refused(s3_request("GET", url.replace(f"{missing}=", f"x{missing}=")))
    assert answer(error) == (403, "AccessDenied")


def test_version_2_may_be_switched_off() -> None:
    settings = Settings(signature_v2=False)
    for request in (
        s3_request("GET", URL, sign_request_v2("GET", URL, keys=KEYS, now_s=NOW_S)),
        s3_request("GET", presign_v2("GET", URL, keys=KEYS, expires_at_s=NOW_S + 60)),
    ):
        error = refused(request, settings)
        assert answer(error) == (400, "InvalidRequest")
        assert "AWS4-HMAC-SHA256" in error.message


# What the body must satisfy


def test_payload_digest() -> None:
    digest = "AB" * 32
    payload = who(signed("PUT", payload=digest)).payload
    assert (payload.sha256, payload.framing) == (digest.lower(), None)
    payload.verify_sha256(digest.lower())
    with pytest.raises(S3Error) as caught:
        payload.verify_sha256("00" * 32)
    assert answer(caught.value) == (400, "XAmzContentSHA256Mismatch")
    assert caught.value.detail == {
        "ClientComputedContentSHA256": digest.lower(), "S3ComputedContentSHA256": "00" * 32,
    }


def test_unsigned_payload() -> None:
    for request in (
        signed("PUT", payload=UNSIGNED),
        s3_request("PUT", presign("PUT", URL, keys=KEYS, now_s=NOW_S)),
        s3_request("PUT", URL),
    ):
        payload = who(request).payload
        assert (payload.sha256, payload.framing) == (None, None)
        payload.verify_sha256("00" * 32)


def test_presigned_may_fix_the_payload_digest() -> None:
    digest = "ab" * 32
    url = presign("PUT", URL, keys=KEYS, now_s=NOW_S, payload=digest, extra={"X-Amz-Content-Sha256": digest})
    assert who(s3_request("PUT", url)).payload.sha256 == digest
    url = presign("PUT", URL, {"x-amz-content-sha256": digest}, keys=KEYS, now_s=NOW_S, payload=digest)
    assert who(s3_request("PUT", url, {"x-amz-content-sha256": digest})).payload.sha256 == digest
    assert answer(refused(s3_request("PUT", url, {"x-amz-content-sha256": UNSIGNED}))) == MISMATCH


def test_signed_chunks_hang_on_the_request() -> None:
    request = signed("PUT", headers={"x-amz-decoded-content-length": "5"}, payload=STREAMING)
    framing = who(request).payload.framing
    assert framing is not None
    chain = ChunkSigner(keys=KEYS, date="20260102T030405Z", seed=signature_of(request.headers))
    decoder = framing.decoder()
    assert b"".join(decoder.feed(chain.chunk(b"hello") + chain.last())) == b"hello"
    assert decoder.finish() == {}
    foreign = ChunkSigner(keys=KEYS, date="20260102T030405Z", seed="0" * 64)
    with pytest.raises(S3Error, match="SignatureDoesNotMatch"):
        framing.decoder().feed(foreign.chunk(b"hello") + foreign.last())


def test_signed_trailers() -> None:
    headers = {"x-amz-decoded-content-length": "5", "x-amz-trailer": "X-Amz-Checksum-Crc32"}
    request = signed("PUT", headers=headers, payload=f"{STREAMING}-TRAILER")
    framing = who(request).payload.framing
    assert framing is not None
    assert framing.trailers == ("x-amz-checksum-crc32",)
    chain = ChunkSigner(keys=KEYS, date="20260102T030405Z", seed=signature_of(request.headers))
    decoder = framing.decoder()
    body = chain.chunk(b"hello") + chain.last_with_trailers({"x-amz-checksum-crc32": "NhCmhg=="})
    assert b"".join(decoder.feed(body)) == b"hello"
    assert decoder.finish() == {"x-amz-checksum-crc32": "NhCmhg=="}


@pytest.mark.parametrize("anonymous", [False, True])
def test_unsigned_trailers(anonymous: bool) -> None:
    headers = {"x-amz-decoded-content-length": "5", "x-amz-trailer": "x-amz-checksum-crc32"}
    request = signed("PUT", headers=headers, payload=UNSIGNED_TRAILER)
    if anonymous:
        request = changed(request, authorization=None)
    found = who(request)
    assert found.principal.anonymous is anonymous
    assert found.payload.framing is not None
    decoder = found.payload.framing.decoder()
    assert b"".join(decoder.feed(b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n")) == b"hello"
    assert decoder.finish() == {"x-amz-checksum-crc32": "NhCmhg=="}


def test_signed_chunks_in_a_presigned_upload() -> None:
    headers = {"x-amz-content-sha256": STREAMING, "x-amz-decoded-content-length": "5"}
    url = presign("PUT", URL, headers, keys=KEYS, now_s=NOW_S, payload=STREAMING)
    framing = who(s3_request("PUT", url, headers)).payload.framing
    assert framing is not None
    chain = ChunkSigner(keys=KEYS, date="20260102T030405Z", seed=url.rpartition("=")[2])
    assert b"".join(framing.decoder().feed(chain.chunk(b"hello") + chain.last())) == b"hello"


@pytest.mark.parametrize(("headers", "payload", "status", "code"), [
    ({}, STREAMING, 411, "MissingContentLength"),
    ({"x-amz-decoded-content-length": "-1"}, STREAMING, 411, "MissingContentLength"),
    ({"x-amz-decoded-content-length": ""}, STREAMING, 411, "MissingContentLength"),
    ({"x-amz-decoded-content-length": "+5"}, STREAMING, 411, "MissingContentLength"),
    ({"x-amz-decoded-content-length": "0x5"}, UNSIGNED_TRAILER, 411, "MissingContentLength"),
    ({"x-amz-decoded-content-length": "5.0"}, UNSIGNED_TRAILER, 411, "MissingContentLength"),
    ({"x-amz-decoded-content-length": "9" * 20}, UNSIGNED_TRAILER, 400, "InvalidArgument"),
    ({"x-amz-decoded-content-length": "9" * 5000}, UNSIGNED_TRAILER, 400, "InvalidArgument"),
    ({"x-amz-decoded-content-length": "5", "x-amz-trailer": "x-amz-checksum-crc32"}, STREAMING, 400, "InvalidRequest"),
    ({"x-amz-decoded-content-length": "5", "x-amz-trailer": "x-amz-acl"}, UNSIGNED_TRAILER, 400, "InvalidRequest"),
    ({"x-amz-decoded-content-length": "5", "x-amz-trailer": "x-amz-checksum-a,x-amz-checksum-a"}, UNSIGNED_TRAILER, 400,
     "InvalidRequest"),
    ({"x-amz-decoded-content-length": "5", "x-amz-trailer": ",".join(f"x-amz-checksum-{n}" for n in range(11))},
     UNSIGNED_TRAILER, 400, "InvalidRequest"),
    ({"x-amz-trailer": "x-amz-checksum-crc32"}, UNSIGNED, 400, "InvalidRequest"),
    ({"x-amz-trailer": "x-amz-checksum-crc32"}, EMPTY, 400, "InvalidRequest"),
])
def test_streaming_announcements_refused(headers: dict[str, str], payload: str, status: int, code: str) -> None:
    assert answer(refused(signed("PUT", headers=headers, payload=payload))) == (status, code)


@pytest.mark.parametrize("payload", [STREAMING, f"{STREAMING}-TRAILER"])
def test_signed_chunks_need_a_signature_of_version_4(payload: str) -> None:
    headers = {"x-amz-content-sha256": payload, "x-amz-decoded-content-length": "5"}
    assert answer(refused(s3_request("PUT", URL, headers))) == (400, "InvalidRequest")
    by_v2 = s3_request("PUT", URL, sign_request_v2("PUT", URL, headers, keys=KEYS, now_s=NOW_S))
    assert answer(refused(by_v2)) == (400, "InvalidRequest")


# Attacks seen elsewhere


@pytest.mark.parametrize("payload", [UNSIGNED_TRAILER, STREAMING, f"{STREAMING}-TRAILER", UNSIGNED, EMPTY])
def test_no_payload_kind_goes_around_the_signature(payload: str) -> None:
    headers = {"x-amz-decoded-content-length": "0"}
    wrong = Keys(secret_key="guessed")
    assert answer(refused(signed("PUT", headers=headers, payload=payload, keys=wrong))) == MISMATCH
    in_query = {"x-amz-content-sha256": payload, **headers}
    url = presign("PUT", URL, in_query, keys=wrong, now_s=NOW_S, payload=payload)
    assert answer(refused(s3_request("PUT", url, in_query))) == MISMATCH
    only_named = f"{URL}?X-Amz-Credential={KEYS.access_key}%2F20260102%2Fus-east-1%2Fs3%2Faws4_request"
    assert answer(refused(s3_request("PUT", only_named, in_query))) == (400, "AuthorizationQueryParametersError")


def test_a_shortened_presigned_link_is_not_another_one() -> None:
    url = presign("PUT", f"{URL}?partNumber=1&uploadId=u", keys=KEYS, now_s=NOW_S)
    for part in ("partNumber=1&", "uploadId=u&", "partNumber=1&uploadId=u&"):
        assert answer(refused(s3_request("PUT", url.replace(part, "")))) == MISMATCH


# Headers that were moved into the query


def test_hoisted_headers_act_like_headers() -> None:
    extra = {"x-amz-acl": "private", "X-Amz-Meta-Name": "ü", "x-amz-checksum-crc32": "AAAAAA==",
             "x-amz-sdk-checksum-algorithm": "CRC32", "x-id": "PutObject"}
    request = s3_request("PUT", presign("PUT", URL, keys=KEYS, now_s=NOW_S, extra=extra), {"content-type": "a/b"})
    found = who(request)
    assert found.headers == {
        "host": "host:9000", "content-type": "a/b", "x-amz-acl": "private",
        "x-amz-meta-name": "ü".encode().decode("latin-1"),
    }
    assert effective_headers(request) == found.headers


def test_hoisted_headers_of_version_2() -> None:
    headers = {"x-amz-acl": "private", "content-type": "a/b", "x-amz-checksum-crc32": "AAAAAA=="}
    url = presign_v2("PUT", URL, headers, keys=KEYS, expires_at_s=NOW_S + 60)
    url += "&x-amz-acl=private&content-type=a%2Fb&x-amz-checksum-crc32=AAAAAA%3D%3D"
    assert who(s3_request("PUT", url)).headers == {"host": "host:9000", "x-amz-acl": "private", "content-type": "a/b"}


def test_a_header_wins_over_its_parameter() -> None:
    url = presign("PUT", URL, {"x-amz-acl": "private"}, keys=KEYS, now_s=NOW_S, extra={"x-amz-acl": "public-read"})
    request = s3_request("PUT", url, {"x-amz-acl": "private"})
    assert who(request).headers["x-amz-acl"] == "private"


@pytest.mark.parametrize("query", ["x-amz-acl=public-read", "X-Amz-Copy-Source=%2Fa%2Fb"])
def test_the_query_of_other_requests_is_no_place_for_headers(query: str) -> None:
    request = signed("PUT", f"{URL}?{query}")
    assert who(request).headers is request.headers
    anonymous = s3_request("PUT", f"{URL}?{query}")
    assert who(anonymous).headers is anonymous.headers


# Caches


def test_claims_of_any_length_are_understood() -> None:
    """Only short ones are kept, so that nobody can fill the cache with long ones."""
    headers = {f"x-amz-meta-{number:03}": "v" for number in range(100)}
    assert who(signed(headers=headers)).principal.identity is IDENTITY
    url = presign("PUT", URL, headers, keys=KEYS, now_s=NOW_S)
    assert who(s3_request("PUT", url, headers)).principal.identity is IDENTITY


def test_a_new_secret_is_in_force_at_once() -> None:
    store = IdentityStore([IDENTITY])
    assert authenticate(signed(), store, Settings(), NOW_MS).principal.identity is IDENTITY
    store.replace([dataclasses.replace(IDENTITY, secret_key="new")])
    with pytest.raises(S3Error, match="SignatureDoesNotMatch"):
        authenticate(signed(), store, Settings(), NOW_MS)
    assert authenticate(signed(keys=Keys(secret_key="new")), store, Settings(), NOW_MS).principal.account == "account A"
    store.replace([])
    with pytest.raises(S3Error, match="InvalidAccessKeyId"):
        authenticate(signed(), store, Settings(), NOW_MS)
