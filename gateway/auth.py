"""Whose request it is, before anything is read or shown. Every route passes here; what isn't proved is anonymous.

Principal       who asks: an identity, or nobody in particular; operations and policies decide what it may do
authenticate    one request -> its principal and what its body must satisfy, or an S3Error (S3_SEMANTICS §2)

The order of the checks is AWS's as far as clients can see it: form, scope, key, time, signed headers, signature, body.
No error text holds a secret or an expected signature. The texts that were signed are shown, as AWS does, since users
can find their mistake only by comparing them.
"""

import enum
from datetime import UTC, datetime

import msgspec

from gateway.identities import Identity, IdentityStore
from gateway.s3.body.chunked import Signing
from gateway.s3.body.payload import SIGNED_KINDS, UNSIGNED, PayloadCheck, announced, known_kind
from gateway.s3.errors import S3Error
from gateway.s3.policy.context import How
from gateway.s3.request import S3Request
from gateway.s3.signing import sigv2, sigv4
from gateway.s3.signing.credentials import V2, V4, Claims, Credential, Scheme, V2Query, V4Query, basic_date_s, presented
from gateway.s3.signing.hoisting import effective_headers, signed_by_v2
from gateway.s3.times import parse_http_date

SKEW_MAX_MS = 900_000
"""AWS: 15 minutes. Long enough for bad clocks, short enough that a recorded request is of no use for long."""

_NO_DATE = "AWS authentication requires a valid Date or x-amz-date header"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    region: str = "us-east-1"
    any_region: bool = False      # accept signatures for whatever region the client believes in
    signature_v2: bool = True
    service: str = "s3"


class Mechanism(enum.Enum):
    ANONYMOUS = "anonymous"
    V4_HEADER = "version 4, header"
    V4_QUERY = "version 4, presigned"
    V2_HEADER = "version 2, header"
    V2_QUERY = "version 2, presigned"
    V4_FORM = "version 4, form"
    V2_FORM = "version 2, form"


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """`age_ms` is how long ago the signature was made; None where it doesn't say (anonymous, presigned version 2)."""

    identity: Identity | None = None
    account: str = ""
    user_id: str = ""
    access_key: str = ""
    mechanism: Mechanism = Mechanism.ANONYMOUS
    age_ms: int | None = None

    @property
    def anonymous(self) -> bool:
        return self.identity is None

    @property
    def how(self) -> How:
        """As policies call it."""
        kind, version = _HOW[self.mechanism]
        return How(kind, version, self.age_ms)


_HOW = {
    Mechanism.ANONYMOUS: ("", ""),
    Mechanism.V4_HEADER: ("REST-HEADER", "AWS4-HMAC-SHA256"), Mechanism.V4_QUERY: ("REST-QUERY-STRING", "AWS4-HMAC-SHA256"),
    Mechanism.V4_FORM: ("POST", "AWS4-HMAC-SHA256"),
    Mechanism.V2_HEADER: ("REST-HEADER", "AWS"), Mechanism.V2_QUERY: ("REST-QUERY-STRING", "AWS"),
    Mechanism.V2_FORM: ("POST", "AWS"),
}


ANONYMOUS = Principal()


class Authenticated(msgspec.Struct, frozen=True, kw_only=True):
    """`headers` are the request's, or, for a presigned URL, with those that the signer moved into the query."""

    principal: Principal
    payload: PayloadCheck
    headers: dict[str, str]


def authenticate(request: S3Request, store: IdentityStore, settings: Settings, now_ms: int) -> Authenticated:
    """Verify the signature, if there is one. S3Error for a wrong one: it is never taken for an anonymous request."""
    claim = presented(request)
    if claim is None:
        kind = known_kind(request.headers.get("x-amz-content-sha256", UNSIGNED))
        payload = announced(kind, request.headers, None)
        return Authenticated(principal=ANONYMOUS, payload=payload, headers=request.headers)
    if isinstance(claim, V4):
        return _by_v4_header(request, claim, store, settings, now_ms)
    if isinstance(claim, V4Query):
        return _by_v4_query(request, claim, store, settings, now_ms)
    if not settings.signature_v2:
        raise S3Error(
            "InvalidRequest",
            "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.",
        )
    if isinstance(claim, V2Query):
        return _by_v2_query(request, claim, store, now_ms)
    return _by_v2_header(request, claim, store, now_ms)


def _by_v4_header(
    request: S3Request, claim: V4, store: IdentityStore, settings: Settings, now_ms: int
) -> Authenticated:
    headers = request.headers
    claims = claim.claims
    date, date_s = _request_date(headers)
    check_scope(claims.credential, date, settings, Scheme.HEADER)
    identity = find_identity(store, claims.credential.access_key, headers.get("x-amz-security-token"))
    kind = headers.get("x-amz-content-sha256")
    if kind is None:
        raise S3Error("InvalidRequest", "Missing required header for this request: x-amz-content-sha256")
    known_kind(kind)
    age_ms = _age_ms(headers, date_s, now_ms)
    _check_all_signed(headers, claims)
    canonical = sigv4.canonical_request(request.method, request.raw_path, request.raw_query, headers, claims, kind)
    key = _verify_v4(request, claims, claim.signature, date, canonical, identity)
    signing = _signing(key, date, claims, claim.signature) if kind in SIGNED_KINDS else None
    return _authenticated(headers, identity, Mechanism.V4_HEADER, age_ms, kind, signing)


def _by_v4_query(
    request: S3Request, claim: V4Query, store: IdentityStore, settings: Settings, now_ms: int
) -> Authenticated:
    claims = claim.claims
    headers = effective_headers(request)
    check_scope(claims.credential, claim.date, settings, Scheme.QUERY)
    token = request.query.get("X-Amz-Security-Token") or headers.get("x-amz-security-token")
    identity = find_identity(store, claims.credential.access_key, token)
    kind = known_kind(headers.get("x-amz-content-sha256", UNSIGNED))
    age_ms = now_ms - claim.date_s * 1000
    if age_ms < -SKEW_MAX_MS:
        raise S3Error("AccessDenied", "Request is not yet valid", ServerTime=_iso(now_ms))
    if age_ms > claim.expires_s * 1000:
        expired = {"X-Amz-Expires": claim.expires_s}
        raise _expired((claim.date_s + claim.expires_s) * 1000, now_ms, expired)
    _check_all_signed(request.headers, claims)
    canonical = sigv4.canonical_request(
        request.method, request.raw_path, sigv4.without_signature(request.raw_query), request.headers, claims, kind
    )
    key = _verify_v4(request, claims, claim.signature, claim.date, canonical, identity)
    signing = _signing(key, claim.date, claims, claim.signature) if kind in SIGNED_KINDS else None
    return _authenticated(headers, identity, Mechanism.V4_QUERY, age_ms, kind, signing)


def _by_v2_header(request: S3Request, claim: V2, store: IdentityStore, now_ms: int) -> Authenticated:
    headers = request.headers
    identity = find_identity(store, claim.access_key, headers.get("x-amz-security-token"))
    date = headers.get("x-amz-date") or headers.get("date", "")
    date_s = basic_date_s(date)
    if date_s is None:
        date_s = parse_http_date(date)
    if date_s is None:
        raise S3Error("AccessDenied", _NO_DATE)
    age_ms = _age_ms(headers, date_s, now_ms)
    _verify_v2(request, headers, None, claim, identity)
    kind = known_kind(headers.get("x-amz-content-sha256", UNSIGNED))
    return _authenticated(headers, identity, Mechanism.V2_HEADER, age_ms, kind, None)


def _by_v2_query(request: S3Request, claim: V2Query, store: IdentityStore, now_ms: int) -> Authenticated:
    signed = signed_by_v2(request)
    identity = find_identity(store, claim.access_key, signed.get("x-amz-security-token"))
    if now_ms > claim.expires_s * 1000:
        raise _expired(claim.expires_s * 1000, now_ms, {})
    _verify_v2(request, signed, claim.expires, claim, identity)
    headers = effective_headers(request)
    kind = known_kind(headers.get("x-amz-content-sha256", UNSIGNED))
    return _authenticated(headers, identity, Mechanism.V2_QUERY, None, kind, None)


def _verify_v4(
    request: S3Request, claims: Claims, signature: str, date: str, canonical: bytes | None, identity: Identity
) -> sigv4.SigningKey:
    """The key of the day, with which chunks of the body would be signed too."""
    credential = claims.credential
    if canonical is None:
        missing = ", ".join([name for name in claims.names if name not in request.headers])
        raise S3Error(
            "SignatureDoesNotMatch", f"The signature covers headers that were not sent: {missing}",
            AWSAccessKeyId=identity.access_key, SignatureProvided=signature,
        )
    text = sigv4.string_to_sign(date, credential.scope, canonical)
    key = sigv4.signing_key(identity.secret_key, credential.date, credential.region, credential.service)
    if not key.matches(text, signature):
        raise _mismatch(identity, signature, text, canonical)
    return key


def _signing(key: sigv4.SigningKey, date: str, claims: Claims, signature: str) -> Signing:
    return Signing(key=key, date=date, scope=claims.credential.scope, seed=signature)


def _verify_v2(
    request: S3Request, headers: dict[str, str], expires: str | None, claim: V2 | V2Query, identity: Identity
) -> None:
    texts = sigv2.strings_to_sign(request, headers, expires)
    if not any(sigv2.matches(identity.secret_key, text, claim.signature) for text in texts):
        raise _mismatch(identity, claim.signature, texts[0], None)


def _authenticated(
    headers: dict[str, str], identity: Identity, mechanism: Mechanism, age_ms: int | None, kind: str,
    signing: Signing | None,
) -> Authenticated:
    principal = Principal(
        identity=identity, account=identity.account, user_id=identity.user_id, access_key=identity.access_key,
        mechanism=mechanism, age_ms=age_ms,
    )
    payload = announced(kind, headers, signing)
    return Authenticated(principal=principal, payload=payload, headers=headers)


def _request_date(headers: dict[str, str]) -> tuple[str, int]:
    """In basic ISO form, as it was signed, and in Unix seconds. x-amz-date wins over Date."""
    date = headers.get("x-amz-date")
    if date is not None:
        date_s = basic_date_s(date)
        if date_s is not None:
            return date, date_s
    else:
        plain = headers.get("date", "")
        date_s = basic_date_s(plain)
        if date_s is not None:
            return plain, date_s
        date_s = parse_http_date(plain)
        if date_s is not None:
            return f"{datetime.fromtimestamp(date_s, UTC):%Y%m%dT%H%M%SZ}", date_s
    raise S3Error("AccessDenied", _NO_DATE)


def _age_ms(headers: dict[str, str], date_s: int, now_ms: int) -> int:
    """How long ago the request was signed. S3Error RequestTimeTooSkewed."""
    age_ms = now_ms - date_s * 1000
    if -SKEW_MAX_MS <= age_ms <= SKEW_MAX_MS:
        return age_ms
    raise S3Error(
        "RequestTimeTooSkewed", RequestTime=headers.get("x-amz-date") or headers.get("date", ""),
        ServerTime=_iso(now_ms), MaxAllowedSkewMilliseconds=SKEW_MAX_MS,
    )


def check_scope(credential: Credential, date: str, settings: Settings, scheme: Scheme) -> None:
    if credential.date != date[:8]:
        raise scheme.malformed(
            f'Invalid credential date "{credential.date}". This date is not the same as X-Amz-Date: "{date[:8]}".'
        )
    if credential.service != settings.service:
        raise scheme.malformed(
            f'incorrect service "{credential.service}". This endpoint belongs to "{settings.service}".'
        )
    if credential.region != settings.region and not settings.any_region:
        error = scheme.malformed(f"the region '{credential.region}' is wrong; expecting '{settings.region}'")
        error.detail["Region"] = settings.region    # SDKs read this element and sign again for the region in it
        error.headers = (("x-amz-bucket-region", settings.region),)
        raise error


def find_identity(store: IdentityStore, access_key: str, token: str | None) -> Identity:
    identity = store.by_access_key(access_key)
    if identity is None:
        raise S3Error("InvalidAccessKeyId", AWSAccessKeyId=access_key)
    if token is not None:
        # No temporary credentials exist yet. To ignore the token would be to give the key's rights without its limits.
        raise S3Error("InvalidToken", None, (), **{"Token-0": token})
    return identity


def _check_all_signed(headers: dict[str, str], claims: Claims) -> None:
    """Else whoever relays a request could add a copy source, an ACL or a trailer to it."""
    signed = claims.signed
    missing = [name for name in headers if name not in signed and name[:6] == "x-amz-"]
    if "host" not in signed:
        missing.append("host")
    if missing:
        raise S3Error(
            "AccessDenied", "There were headers present in the request which were not signed",
            HeadersNotSigned=", ".join(missing),
        )


def _mismatch(identity: Identity, signature: str, text: bytes, canonical: bytes | None) -> S3Error:
    error = S3Error(
        "SignatureDoesNotMatch", AWSAccessKeyId=identity.access_key, StringToSign=text.decode("utf-8", "replace"),
        SignatureProvided=signature, StringToSignBytes=text.hex(" "),
    )
    if canonical is not None:
        error.detail["CanonicalRequest"] = canonical.decode("utf-8", "replace")
        error.detail["CanonicalRequestBytes"] = canonical.hex(" ")
    return error


def _expired(expired_ms: int, now_ms: int, detail: dict[str, int]) -> S3Error:
    error = S3Error("AccessDenied", "Request has expired")
    error.detail.update(detail, Expires=_iso(expired_ms), ServerTime=_iso(now_ms))
    return error


def _iso(time_ms: int) -> str:
    try:
        return f"{datetime.fromtimestamp(time_ms // 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (ValueError, OverflowError, OSError):  # an Expires beyond the calendar
        return str(time_ms // 1000)


__all__ = ["ANONYMOUS", "Authenticated", "Mechanism", "PayloadCheck", "Principal", "Settings", "authenticate"]
