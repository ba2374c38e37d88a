"""What a request says about who signed it: the Authorization header or the query of a presigned URL, as frozen values.

V4, V4Query, V2, V2Query   one for each way to sign; `presented` finds which one a request uses, at most one
Claims                     the part of a V4 signature that repeats from request to request: credential and signed names
Rules                      nothing here knows a secret or the time, and nothing here says that a claim is true.

Sources: "Authenticating Requests (AWS Signature Version 4)", "Signing and authenticating REST requests (version 2)".
"""

import functools
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import msgspec

from gateway.s3.errors import S3Error
from gateway.s3.request import S3Request

ALGORITHM = "AWS4-HMAC-SHA256"
ALGORITHM_V4A = "AWS4-ECDSA-P256-SHA256"
TERMINATOR = "aws4_request"

EXPIRES_MAX_S = 604_800
"""AWS: a presigned URL lives for a week at most, since its signing key does."""

CLAIMS_CACHED = 1024
"""A client repeats the same claims all day; so many different clients are served without parsing again. A claim is at most
as long as the header section, so the cache is bounded in bytes too."""

_HEADER_PREFIX = "The authorization header is malformed; "
_QUERY_PREFIX = "Error parsing the X-Amz-Credential parameter; "
_QUERY_NAMES = ("X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Signature", "X-Amz-Date", "X-Amz-SignedHeaders", "X-Amz-Expires")
_QUERY_AUTH_NAMES = frozenset(name.lower() for name in (*_QUERY_NAMES, "X-Amz-Security-Token"))
_QUERY_MISSING = (
    "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, X-Amz-Signature, X-Amz-Date, "
    "X-Amz-SignedHeaders, and X-Amz-Expires parameters."
)


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    """``access key/date/region/service/aws4_request``; `scope` is all of it but the access key."""

    access_key: str
    date: str
    region: str
    service: str
    scope: str


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    credential: Credential
    signed_headers: str           # as sent: it is part of what was signed
    names: tuple[str, ...]
    signed: frozenset[str]


class V4(msgspec.Struct, frozen=True, kw_only=True):
    """Authorization: AWS4-HMAC-SHA256 …"""

    claims: Claims
    signature: str


class V4Query(msgspec.Struct, frozen=True, kw_only=True):
    """A presigned URL of version 4. `date` is basic ISO 8601, its form checked."""

    claims: Claims
    signature: str
    date: str
    date_s: int
    expires_s: int


class V2(msgspec.Struct, frozen=True, kw_only=True):
    """Authorization: AWS access_key:signature"""

    access_key: str
    signature: str


class V2Query(msgspec.Struct, frozen=True, kw_only=True):
    """A presigned URL of version 2. `expires` is as sent (it is signed), `expires_s` the Unix time it means."""

    access_key: str
    signature: str
    expires: str
    expires_s: int


Presented = V4 | V4Query | V2 | V2Query


def presented(request: S3Request) -> Presented | None:
    """The signature that the request carries, not yet verified; None for an anonymous one.

    S3Error if it carries two, or one that can't be understood. Naming any parameter of a mechanism chooses it: a damaged
    signature must never turn into an anonymous request that a public bucket then serves.
    """
    authorization = request.headers.get("authorization")
    query = request.query
    by_v4_query = by_v2_query = False
    if query:
        by_v4_query = "X-Amz-Algorithm" in query or "X-Amz-Signature" in query or "X-Amz-Credential" in query
        by_v2_query = "AWSAccessKeyId" in query or "Signature" in query
    if authorization is None:
        if by_v4_query and by_v2_query:
            raise _two_mechanisms()
        if by_v4_query:
            return _v4_query(request)
        return _v2_query(request) if by_v2_query else None
    if by_v4_query or by_v2_query:
        raise _two_mechanisms()
    return _authorization(authorization)


def effective_headers(request: S3Request) -> dict[str, str]:
    """The headers, and for a presigned URL also the ``x-amz-*`` headers that the signer moved into the query.

    Only presigned requests: there the query is covered by the signature in the place of headers. A header wins over the
    parameter. Checksums found only in the query stay out, since the JavaScript SDK puts the checksum of an *empty* body there.
    """
    query = request.query
    if not query or not ("X-Amz-Signature" in query or "Signature" in query):
        return request.headers
    hoisted: dict[str, str] = {}
    for name, value in query.items():
        lower = name.lower()
        if lower.startswith("x-amz-") and lower not in _QUERY_AUTH_NAMES and not _is_checksum(lower):
            hoisted.setdefault(lower, _as_header(value))
        elif lower in ("content-type", "content-md5") and "Signature" in query:
            hoisted.setdefault(lower, _as_header(value))  # version 2 signers move these two as well
    return {**hoisted, **request.headers} if hoisted else request.headers


@functools.lru_cache(maxsize=1024)
def basic_date_s(text: str) -> int | None:
    """Unix seconds of ``yyyymmddThhmmssZ``; None if it isn't one. Cached: most requests of one second share it."""
    if len(text) != 16 or text[8] != "T" or text[15] != "Z" or not text.isascii():
        return None
    if not (text[:8].isdigit() and text[9:15].isdigit()):
        return None
    try:
        return int(datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp())
    except ValueError:
        return None


def http_date_s(text: str) -> int | None:
    """Unix seconds of an RFC 1123, RFC 850, asctime or basic ISO date; None if it is none of them."""
    basic = basic_date_s(text)
    if basic is not None:
        return basic
    for form in ("%A, %d-%b-%y %H:%M:%S %Z", "%a %b %d %H:%M:%S %Y"):
        try:
            return int(datetime.strptime(text, form).replace(tzinfo=UTC).timestamp())
        except ValueError:
            continue
    try:
        parsed = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):  # the standard parser lets some of these out on garbage
        return None
    return int((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp())


def parse_credential(text: str, prefix: str, code: str) -> Credential:
    """`prefix` opens the message and `code` is the error: AWS says the same things about the header and the query."""
    parts = text.rsplit("/", 4)  # from the right: an access key may hold slashes
    if len(parts) != 5:
        raise S3Error(code, f'{prefix}the Credential is mal-formed; expecting "<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request".')
    access_key, date, region, service, terminator = parts
    if not access_key:
        raise S3Error(code, f"{prefix}a non-empty Access Key (AKID) must be provided in the credential.")
    if len(date) != 8 or not (date.isascii() and date.isdigit()):
        raise S3Error(code, f'{prefix}incorrect date format "{date}". This date in the credential must be in the format "yyyyMMdd".')
    if terminator != TERMINATOR:
        raise S3Error(code, f'{prefix}incorrect terminal "{terminator}". This endpoint uses "{TERMINATOR}".')
    return Credential(access_key=access_key, date=date, region=region, service=service, scope=f"{date}/{region}/{service}/{terminator}")


def malformed(by_query: bool) -> tuple[str, str]:
    """Error code and how its message begins, for a fault in the credential of a V4 signature."""
    if by_query:
        return "AuthorizationQueryParametersError", _QUERY_PREFIX
    return "AuthorizationHeaderMalformed", _HEADER_PREFIX


def _authorization(header: str) -> V4 | V2:
    # The common form ends in "Signature=" and 64 hex digits, and all before them repeats: parsed once, then looked up.
    if header.endswith("Signature=", 0, -64) and header.startswith("AWS4-HMAC-SHA256 "):
        return V4(claims=_claims(header[17:-74]), signature=header[-64:])
    scheme, space, rest = header.partition(" ")
    if not space:
        raise S3Error("InvalidArgument", "Authorization header is invalid -- one and only one ' ' (space) required",
                      ArgumentName="Authorization", ArgumentValue=header)
    if scheme == ALGORITHM:
        fields = _fields(rest)
        head = ",".join(f"{name}={value}" for name, value in fields.items() if name != "Signature")
        return V4(claims=_claims(head), signature=fields.get("Signature", ""))
    if scheme == "AWS":
        return _v2_header(header, rest)
    if scheme == ALGORITHM_V4A:
        raise S3Error("NotImplemented", Header="Authorization")
    raise S3Error("InvalidArgument", "Unsupported Authorization Type", ArgumentName="Authorization", ArgumentValue=header)


def _v2_header(header: str, rest: str) -> V2:
    if " " in rest.strip():
        raise S3Error("InvalidArgument", "Authorization header is invalid -- one and only one ' ' (space) required",
                      ArgumentName="Authorization", ArgumentValue=header)
    access_key, colon, signature = rest.strip().rpartition(":")
    if not colon or not access_key or not signature:
        raise S3Error("InvalidArgument", "AWS authorization header is invalid.  Expected AwsAccessKeyId:signature",
                      ArgumentName="Authorization", ArgumentValue=header)
    return V2(access_key=_from_header(access_key), signature=signature)


def _fields(text: str) -> dict[str, str]:
    code, prefix = malformed(by_query=False)
    fields: dict[str, str] = {}
    for item in text.split(","):
        name, equals, value = item.strip().partition("=")
        if not equals and not name:
            continue
        if not equals or name in fields:
            raise S3Error(code, f"{prefix}the authorization component \"{item.strip()}\" is malformed.")
        fields[name] = value
    for name in ("Credential", "SignedHeaders", "Signature"):
        if not fields.get(name):
            raise S3Error(code, f"{prefix}the authorization header requires three components: Credential, SignedHeaders, and Signature.")
    return fields


@functools.lru_cache(maxsize=CLAIMS_CACHED)
def _claims(head: str) -> Claims:
    """From the header's ``Credential=…, SignedHeaders=…,``; errors are not cached."""
    fields = _fields(head.rstrip().removesuffix(",") + ",Signature=-")
    code, prefix = malformed(by_query=False)
    return _make_claims(parse_credential(_from_header(fields["Credential"]), prefix, code), fields["SignedHeaders"])


def _make_claims(credential: Credential, signed_headers: str) -> Claims:
    names = tuple(signed_headers.split(";"))
    return Claims(credential=credential, signed_headers=signed_headers, names=names, signed=frozenset(names))


@functools.lru_cache(maxsize=CLAIMS_CACHED)
def _query_claims(credential: str, signed_headers: str) -> Claims:
    code, prefix = malformed(by_query=True)
    return _make_claims(parse_credential(credential, prefix, code), signed_headers)


def _v4_query(request: S3Request) -> V4Query:
    query = request.query
    for name in _QUERY_NAMES:
        if not query.get(name):
            raise S3Error("AuthorizationQueryParametersError", _QUERY_MISSING)
    algorithm = query["X-Amz-Algorithm"]
    if algorithm == ALGORITHM_V4A:
        raise S3Error("NotImplemented", Header="X-Amz-Algorithm")
    if algorithm != ALGORITHM:
        raise S3Error("AuthorizationQueryParametersError", f'X-Amz-Algorithm only supports "{ALGORITHM}"')
    claims = _query_claims(query["X-Amz-Credential"], query["X-Amz-SignedHeaders"])
    date = query["X-Amz-Date"]
    date_s = basic_date_s(date)
    if date_s is None:
        raise S3Error("AuthorizationQueryParametersError", 'X-Amz-Date must be in the ISO8601 Long Format "yyyyMMdd\'T\'HHmmss\'Z\'"')
    return V4Query(claims=claims, signature=query["X-Amz-Signature"], date=date, date_s=date_s, expires_s=_expires_s(query["X-Amz-Expires"]))


def _expires_s(text: str) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        raise S3Error("AuthorizationQueryParametersError", "X-Amz-Expires should be a number")
    if digits is not text and digits.strip("0"):
        raise S3Error("AuthorizationQueryParametersError", "X-Amz-Expires must be non-negative")
    # By length first: a number of thousands of digits must not be converted.
    if len(digits.lstrip("0")) > 6 or int(digits) > EXPIRES_MAX_S:
        raise S3Error(
            "AuthorizationQueryParametersError",
            "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be less than 604800 seconds",
        )
    return int(digits)


def _v2_query(request: S3Request) -> V2Query:
    query = request.query
    access_key, signature, expires = query.get("AWSAccessKeyId"), query.get("Signature"), query.get("Expires")
    if not access_key or not signature or not expires:
        raise S3Error("AccessDenied", "Query-string authentication requires the Signature, Expires and AWSAccessKeyId parameters")
    if not (expires.isascii() and expires.isdigit()) or len(expires) > 12:
        raise S3Error("AccessDenied", f"Invalid date (should be seconds since epoch): {expires[:64]}")
    return V2Query(access_key=access_key, signature=signature, expires=expires, expires_s=int(expires))


def _two_mechanisms() -> S3Error:
    return S3Error(
        "InvalidArgument",
        "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string parameter or the "
        "Authorization header should be specified",
        ArgumentName="Authorization",
    )


def _is_checksum(name: str) -> bool:
    return name.startswith("x-amz-checksum-") or name == "x-amz-sdk-checksum-algorithm"


def _from_header(text: str) -> str:
    """Header text is latin-1 by decoding only; what people typed was UTF-8."""
    return text if text.isascii() else text.encode("latin-1").decode("utf-8", "replace")


def _as_header(value: str) -> str:
    """A decoded query value in the form in which headers come: UTF-8 bytes seen as latin-1."""
    return value if value.isascii() else value.encode("utf-8").decode("latin-1")
