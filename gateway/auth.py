"""Whose request it is. Before anything is read or shown: every route passes here, and what isn't proved is anonymous.

Principal       who asks: an identity, or nobody in particular; operations and policies decide what it may do
PayloadCheck    what the body must satisfy before anything of it may become visible
authenticate    one request -> both, or an S3Error (S3_SEMANTICS §2)

The order of the checks is AWS's as far as clients can see it: form, scope, key, time, signed headers, signature, body.
No error text holds a secret or an expected signature; the texts that were signed are shown, as AWS does, since users can
only find their mistake by comparing them.
"""

import enum
from datetime import UTC, datetime

import msgspec

from gateway.identities import Identity, IdentityStore
from gateway.s3 import sigv2, sigv4
from gateway.s3.chunked import TRAILERS_MAX, Framing, Signing
from gateway.s3.credentials import (
    V2, V4, Claims, Credential, Presented, V2Query, V4Query, basic_date_s, effective_headers, http_date_s, malformed, presented,
)
from gateway.s3.errors import S3Error
from gateway.s3.request import S3Request

SKEW_MAX_MS = 900_000
"""AWS: a request may be 15 minutes old. Long enough for bad clocks, short enough that a recorded request is soon useless."""

DECODED_BYTES_MAX = 50 << 40
"""Only to refuse nonsense early: ten times the largest object. The operation knows the limit that counts."""

UNSIGNED = "UNSIGNED-PAYLOAD"
UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
SIGNED_CHUNKS = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
SIGNED_CHUNKS_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
_CHUNKED = frozenset((UNSIGNED_TRAILER, SIGNED_CHUNKS, SIGNED_CHUNKS_TRAILER))
_V4A = frozenset(("STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD", "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD-TRAILER"))


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


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """`age_ms` is how long ago the signature was made, None where it doesn't say (anonymous, presigned version 2)."""

    identity: Identity | None = None
    account: str = ""
    user_id: str = ""
    access_key: str = ""
    mechanism: Mechanism = Mechanism.ANONYMOUS
    age_ms: int | None = None

    @property
    def anonymous(self) -> bool:
        return self.identity is None


ANONYMOUS = Principal()


class PayloadCheck(msgspec.Struct, frozen=True, kw_only=True):
    """At most one is set: `sha256`, lower-case hex of the whole body; `framing`, the body is aws-chunked and `framing.decoder()`
    decodes and verifies it. Neither: the body is as sent and nothing but its own checksums vouches for it."""

    sha256: str | None = None
    framing: Framing | None = None

    def verify_sha256(self, computed: str) -> None:
        """`computed` is lower-case hex. S3Error XAmzContentSHA256Mismatch."""
        if self.sha256 is not None and computed != self.sha256:
            raise S3Error("XAmzContentSHA256Mismatch", ClientComputedContentSHA256=self.sha256, S3ComputedContentSHA256=computed)


UNCHECKED = PayloadCheck()


class Authenticated(msgspec.Struct, frozen=True, kw_only=True):
    principal: Principal
    payload: PayloadCheck


def authenticate(request: S3Request, store: IdentityStore, settings: Settings, now_ms: int) -> Authenticated:
    """Verify the signature, if there is one. S3Error for a wrong one: it is never taken for an anonymous request."""
    claim = presented(request)
    match claim:
        case None:
            return Authenticated(principal=ANONYMOUS, payload=_payload(request, request.headers, None))
        case V4():
            return _by_v4_header(request, claim, store, settings, now_ms)
        case V4Query():
            return _by_v4_query(request, claim, store, settings, now_ms)
        case _:
            return _by_v2(request, claim, store, settings, now_ms)


def _by_v4_header(request: S3Request, claim: V4, store: IdentityStore, settings: Settings, now_ms: int) -> Authenticated:
    headers = request.headers
    claims = claim.claims
    credential = claims.credential
    date, date_s = _request_date(headers)
    _check_scope(credential, date, settings, by_query=False)
    identity = _identity(store, credential.access_key, headers.get("x-amz-security-token"))
    payload_hash = headers.get("x-amz-content-sha256")
    if payload_hash is None:
        raise S3Error("InvalidRequest", "Missing required header for this request: x-amz-content-sha256")
    _check_payload_kind(payload_hash)
    age_ms = now_ms - date_s * 1000
    if not -SKEW_MAX_MS <= age_ms <= SKEW_MAX_MS:
        raise _skewed(headers.get("x-amz-date") or headers.get("date", ""), now_ms)
    _check_all_signed(headers, claims)
    signing = _verify_v4(request, claims, claim.signature, date, payload_hash, identity, by_query=False)
    return _authenticated(request, headers, identity, Mechanism.V4_HEADER, age_ms, payload_hash, signing)


def _by_v4_query(request: S3Request, claim: V4Query, store: IdentityStore, settings: Settings, now_ms: int) -> Authenticated:
    claims = claim.claims
    credential = claims.credential
    _check_scope(credential, claim.date, settings, by_query=True)
    _check_no_repeats(request.raw_query)
    query = request.query
    headers = effective_headers(request)
    identity = _identity(store, credential.access_key, query.get("X-Amz-Security-Token") or headers.get("x-amz-security-token"))
    payload_hash = headers.get("x-amz-content-sha256", UNSIGNED)
    _check_payload_kind(payload_hash)
    age_ms = now_ms - claim.date_s * 1000
    if age_ms < -SKEW_MAX_MS:
        raise S3Error("AccessDenied", "Request is not yet valid", ServerTime=_iso(now_ms))
    if age_ms > claim.expires_s * 1000:
        raise _expired((claim.date_s + claim.expires_s) * 1000, now_ms, claim.expires_s)
    _check_all_signed(request.headers, claims)
    signing = _verify_v4(request, claims, claim.signature, claim.date, payload_hash, identity, by_query=True)
    return _authenticated(request, headers, identity, Mechanism.V4_QUERY, age_ms, payload_hash, signing)


def _by_v2(request: S3Request, claim: V2 | V2Query, store: IdentityStore, settings: Settings, now_ms: int) -> Authenticated:
    if not settings.signature_v2:
        raise S3Error("InvalidRequest", "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.")
    headers = effective_headers(request) if isinstance(claim, V2Query) else request.headers
    identity = _identity(store, claim.access_key, headers.get("x-amz-security-token"))
    age_ms: int | None = None
    if isinstance(claim, V2Query):
        mechanism, expires = Mechanism.V2_QUERY, claim.expires
        if now_ms > claim.expires_s * 1000:
            raise _expired(claim.expires_s * 1000, now_ms, None)
    else:
        mechanism, expires = Mechanism.V2_HEADER, None
        date_s = _v2_date_s(headers)
        age_ms = now_ms - date_s * 1000
        if not -SKEW_MAX_MS <= age_ms <= SKEW_MAX_MS:
            raise _skewed(headers.get("x-amz-date") or headers.get("date", ""), now_ms)
    texts = list(sigv2.strings_to_sign(request, headers, expires))
    if not any([sigv2.matches(identity.secret_key, text, claim.signature) for text in texts]):
        raise _mismatch(identity.access_key, claim.signature, texts[0], None)
    payload_hash = headers.get("x-amz-content-sha256")
    if payload_hash is not None:
        _check_payload_kind(payload_hash)
    return _authenticated(request, headers, identity, mechanism, age_ms, payload_hash, None)


def _verify_v4(
    request: S3Request, claims: Claims, signature: str, date: str, payload_hash: str, identity: Identity, *, by_query: bool
) -> Signing | None:
    """What the chunks of this body are signed with, if they are signed."""
    credential = claims.credential
    canonical = sigv4.canonical_request(
        request.method, request.raw_path, request.raw_query, request.headers, claims, payload_hash, by_query=by_query
    )
    if canonical is None:
        missing = ", ".join([name for name in claims.names if name not in request.headers])
        raise S3Error("SignatureDoesNotMatch", f"The signature covers headers that were not sent: {missing}",
                      AWSAccessKeyId=identity.access_key, SignatureProvided=signature)
    text = sigv4.string_to_sign(date, credential.scope, canonical)
    key = sigv4.signing_key(identity.secret_key, credential.date, credential.region, credential.service)
    if not sigv4.matches(key, text, signature):
        raise _mismatch(identity.access_key, signature, text, canonical)
    if payload_hash in (SIGNED_CHUNKS, SIGNED_CHUNKS_TRAILER):
        return Signing(key=key, date=date, scope=credential.scope, seed=signature)
    return None


def _authenticated(
    request: S3Request, headers: dict[str, str], identity: Identity, mechanism: Mechanism, age_ms: int | None,
    payload_hash: str | None, signing: Signing | None,
) -> Authenticated:
    principal = Principal(
        identity=identity, account=identity.account, user_id=identity.user_id, access_key=identity.access_key,
        mechanism=mechanism, age_ms=age_ms,
    )
    return Authenticated(principal=principal, payload=_payload(request, headers, signing, payload_hash))


def _payload(
    request: S3Request, headers: dict[str, str], signing: Signing | None, payload_hash: str | None = None
) -> PayloadCheck:
    """After the signature, so that nobody without a key learns from these answers."""
    if payload_hash is None:
        payload_hash = headers.get("x-amz-content-sha256", UNSIGNED)
        _check_payload_kind(payload_hash)
    trailer = headers.get("x-amz-trailer")
    if payload_hash not in _CHUNKED:
        if trailer is not None:
            # What it announces can't come, and it may be the only thing that vouches for the body.
            raise S3Error("InvalidRequest", "The x-amz-trailer header needs a streaming payload with trailers.")
        return UNCHECKED if payload_hash == UNSIGNED else PayloadCheck(sha256=payload_hash.lower())
    may_trail = payload_hash != SIGNED_CHUNKS
    if payload_hash != UNSIGNED_TRAILER and signing is None:
        raise S3Error(
            "InvalidRequest",
            f"A body of kind {payload_hash} needs a signature of version 4. Use {UNSIGNED} or {UNSIGNED_TRAILER}.",
        )
    return PayloadCheck(framing=Framing(
        decoded_length=_decoded_length(headers), may_trail=may_trail,
        trailers=_trailer_names(trailer, may_trail), signing=signing,
    ))


def _decoded_length(headers: dict[str, str]) -> int:
    text = headers.get("x-amz-decoded-content-length")
    if text is None:
        raise S3Error("MissingContentLength")
    if not (text.isascii() and text.isdigit()) or len(text.lstrip("0")) > 15 or int(text) > DECODED_BYTES_MAX:
        raise S3Error("InvalidArgument", "The value of x-amz-decoded-content-length is not valid.",
                      ArgumentName="x-amz-decoded-content-length", ArgumentValue=text[:64])
    return int(text)


def _trailer_names(text: str | None, may_trail: bool) -> tuple[str, ...]:
    if text is None:
        return ()
    names = tuple([name.strip(" \t").lower() for name in text.split(",") if name.strip(" \t")])
    valid = may_trail and len(names) <= TRAILERS_MAX and all(name.startswith("x-amz-checksum-") for name in names)
    if not valid or len(set(names)) != len(names):
        raise S3Error("InvalidRequest", "The value specified in the x-amz-trailer header is not supported")
    return names


def _check_payload_kind(text: str) -> None:
    if len(text) == 64 and not text.strip("0123456789abcdefABCDEF"):
        return
    if text == UNSIGNED or text in _CHUNKED:
        return
    if text in _V4A:
        raise S3Error("NotImplemented", Header="x-amz-content-sha256")
    raise S3Error(
        "InvalidArgument",
        f"x-amz-content-sha256 must be {UNSIGNED}, {UNSIGNED_TRAILER}, {SIGNED_CHUNKS}, {SIGNED_CHUNKS_TRAILER} or a valid sha256 value.",
        ArgumentName="x-amz-content-sha256", ArgumentValue=text[:128],
    )


def _request_date(headers: dict[str, str]) -> tuple[str, int]:
    """In basic ISO form, as it was signed, and in Unix seconds. x-amz-date wins over Date."""
    date = headers.get("x-amz-date")
    if date is not None:
        date_s = basic_date_s(date)
        if date_s is not None:
            return date, date_s
    elif (plain := headers.get("date")) is not None:
        plain_s = http_date_s(plain)
        if plain_s is not None:
            return f"{datetime.fromtimestamp(plain_s, UTC):%Y%m%dT%H%M%SZ}", plain_s
    raise S3Error("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header")


def _v2_date_s(headers: dict[str, str]) -> int:
    date_s = http_date_s(headers.get("x-amz-date") or headers.get("date", ""))
    if date_s is None:
        raise S3Error("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header")
    return date_s


def _check_scope(credential: Credential, date: str, settings: Settings, *, by_query: bool) -> None:
    if credential.date != date[:8]:
        code, _ = malformed(by_query)
        name = "X-Amz-Date"
        raise S3Error(code, f'Invalid credential date "{credential.date}". This date is not the same as {name}: "{date[:8]}".')
    if credential.service != settings.service:
        code, prefix = malformed(by_query)
        raise S3Error(code, f'{prefix}incorrect service "{credential.service}". This endpoint belongs to "{settings.service}".')
    if credential.region != settings.region and not settings.any_region:
        code, prefix = malformed(by_query)
        # SDKs read the element and sign again for the region in it.
        raise S3Error(code, f"{prefix}the region '{credential.region}' is wrong; expecting '{settings.region}'",
                      headers=(("x-amz-bucket-region", settings.region),), Region=settings.region)


def _identity(store: IdentityStore, access_key: str, token: str | None) -> Identity:
    identity = store.by_access_key(access_key)
    if identity is None:
        raise S3Error("InvalidAccessKeyId", AWSAccessKeyId=access_key)
    if token is not None:
        # No temporary credentials exist yet. Ignoring the token would give them the rights of the key without its limits.
        raise S3Error("InvalidToken")
    return identity


def _check_all_signed(headers: dict[str, str], claims: Claims) -> None:
    signed = claims.signed
    missing = [name for name in headers if name[:6] == "x-amz-" and name not in signed]
    if "host" not in signed:
        missing.append("host")
    if missing:
        raise S3Error("AccessDenied", "There were headers present in the request which were not signed",
                      HeadersNotSigned=", ".join(missing))


def _check_no_repeats(raw_query: bytes) -> None:
    """A parameter of the signature given twice leaves open which of the two was meant."""
    names = [item.partition(b"=")[0] for item in raw_query.split(b"&") if item[:6] == b"X-Amz-"]
    if len(set(names)) != len(names):
        raise S3Error("AuthorizationQueryParametersError", "A query-string authentication parameter was given more than once.")


def _mismatch(access_key: str, signature: str, text: bytes, canonical: bytes | None) -> S3Error:
    detail: dict[str, object] = {
        "AWSAccessKeyId": access_key, "StringToSign": text.decode("utf-8", "replace"), "SignatureProvided": signature,
        "StringToSignBytes": text.hex(" "),
    }
    if canonical is not None:
        detail["CanonicalRequest"] = canonical.decode("utf-8", "replace")
        detail["CanonicalRequestBytes"] = canonical.hex(" ")
    return S3Error("SignatureDoesNotMatch", None, (), **detail)


def _skewed(request_time: str, now_ms: int) -> S3Error:
    return S3Error("RequestTimeTooSkewed", RequestTime=request_time, ServerTime=_iso(now_ms), MaxAllowedSkewMilliseconds=SKEW_MAX_MS)


def _expired(expired_ms: int, now_ms: int, expires_s: int | None) -> S3Error:
    detail: dict[str, object] = {} if expires_s is None else {"X-Amz-Expires": expires_s}
    return S3Error("AccessDenied", "Request has expired", (), **detail, Expires=_iso(expired_ms), ServerTime=_iso(now_ms))


def _iso(time_ms: int) -> str:
    try:
        return f"{datetime.fromtimestamp(time_ms // 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (ValueError, OverflowError, OSError):  # an Expires beyond the calendar
        return str(time_ms // 1000)


__all__ = [
    "ANONYMOUS", "Authenticated", "Mechanism", "PayloadCheck", "Presented", "Principal", "Settings", "authenticate", "effective_headers",
]
