"""What a request says about who signed it: the Authorization header or a presigned URL's query, as frozen values.

V4, V4Query, V2, V2Query   one for each way to sign; `presented` finds the one that a request uses, at most one
Claims                     the part of a version 4 signature that repeats: credential and names of signed headers
Rules                      nothing here knows a secret or the time; nothing here says that a claim is true.

Sources: "Authenticating Requests (AWS Signature Version 4)", "Signing and authenticating REST requests (version 2)".
"""

# ruff: noqa: E501  (AWS's messages stay in one piece, so that they can be searched for)

import enum
import functools
from datetime import UTC, datetime

import msgspec

from gateway.s3.errors import S3Error
from gateway.s3.request import S3Request

ALGORITHM = "AWS4-HMAC-SHA256"
ALGORITHM_V4A = "AWS4-ECDSA-P256-SHA256"
TERMINATOR = "aws4_request"

EXPIRES_MAX_S = 604_800
"""AWS: a presigned URL lives for a week at most."""

CLAIMS_CACHED = 256
CLAIMS_CHARS_MAX = 768
"""A client repeats the same claims all day, so that many clients are served without parsing. Longer claims are parsed
each time: everybody may send claims, so the cache must stay small however many names they hold."""

_PREFIX = "AWS4-HMAC-SHA256 "
_HEADER_ENDING = "Signature="
_SIGNATURE_DIGITS = 64
_QUERY_NAMES = ("X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Signature", "X-Amz-Date", "X-Amz-SignedHeaders", "X-Amz-Expires")


class Scheme(enum.Enum):
    """Where a version 4 signature stands. AWS says the same things about both, with another code and beginning."""

    HEADER = ("AuthorizationHeaderMalformed", "The authorization header is malformed; ")
    QUERY = ("AuthorizationQueryParametersError", "Error parsing the X-Amz-Credential parameter; ")

    def malformed(self, what: str) -> S3Error:
        code, beginning = self.value
        return S3Error(code, beginning + what)


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    """``access key/date/region/service/aws4_request``; `scope` is all of it but the access key."""

    access_key: str
    date: str
    region: str
    service: str
    scope: str


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """`signed_headers` as sent, since it is part of what was signed; `names` in that order, `signed` for look-ups."""

    credential: Credential
    signed_headers: str
    names: tuple[str, ...]
    signed: frozenset[str]


class V4(msgspec.Struct, frozen=True, kw_only=True):
    """Authorization: AWS4-HMAC-SHA256 …"""

    claims: Claims
    signature: str


class V4Query(msgspec.Struct, frozen=True, kw_only=True):
    """A presigned URL of version 4. `date` as sent, its form checked; `date_s` the Unix time it means."""

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
    """A presigned URL of version 2. `expires` as sent (it is signed); `expires_s` the Unix time it means."""

    access_key: str
    signature: str
    expires: str
    expires_s: int


Presented = V4 | V4Query | V2 | V2Query


def presented(request: S3Request) -> Presented | None:
    """The signature that the request carries, not yet verified; None for an anonymous one.

    S3Error if it carries two, or one that can't be understood. Any one parameter of a mechanism chooses it: a damaged
    signature must never turn into an anonymous request that a public bucket then serves.
    """
    authorization = request.headers.get("authorization")
    query = request.query
    by_v4 = by_v2 = False
    if query:
        by_v4 = "X-Amz-Signature" in query or "X-Amz-Algorithm" in query or "X-Amz-Credential" in query
        by_v2 = "AWSAccessKeyId" in query or "Signature" in query
    if (authorization is not None) + by_v4 + by_v2 > 1:
        raise S3Error(
            "InvalidArgument",
            "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string parameter or the Authorization header should be specified",
            ArgumentName="Authorization",
        )
    if authorization is not None:
        return _authorization(authorization)
    if by_v4:
        return _v4_query(request)
    return _v2_query(query) if by_v2 else None


def basic_date_s(text: str) -> int | None:
    """Unix seconds of ``yyyymmddThhmmssZ``; None if it isn't one."""
    return _basic_date_s(text) if len(text) == 16 else None


@functools.lru_cache(maxsize=1024)
def _basic_date_s(text: str) -> int | None:
    """Cached: the requests of one second share it."""
    digits = text[:8] + text[9:15]
    if text[8] != "T" or text[15] != "Z" or not (digits.isascii() and digits.isdigit()):
        return None
    try:
        return int(datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp())
    except ValueError:
        return None


def parse_credential(text: str, scheme: Scheme) -> Credential:
    parts = text.rsplit("/", 4)  # from the right: an access key may hold slashes
    if len(parts) != 5:
        raise scheme.malformed('the Credential is mal-formed; expecting "<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request".')
    access_key, date, region, service, terminator = parts
    if not access_key:
        raise scheme.malformed("a non-empty Access Key (AKID) must be provided in the credential.")
    if len(date) != 8 or not (date.isascii() and date.isdigit()):
        raise scheme.malformed(f'incorrect date format "{date}". This date in the credential must be in the format "yyyyMMdd".')
    if terminator != TERMINATOR:
        raise scheme.malformed(f'incorrect terminal "{terminator}". This endpoint uses "{TERMINATOR}".')
    scope = f"{date}/{region}/{service}/{terminator}"
    return Credential(access_key=access_key, date=date, region=region, service=service, scope=scope)


def _authorization(header: str) -> V4 | V2:
    # The common form ends in "Signature=" and 64 digits, and what stands before repeats: parsed once, then looked up.
    if header.endswith(_HEADER_ENDING, 0, -_SIGNATURE_DIGITS) and header.startswith(_PREFIX):
        head = header[len(_PREFIX) : -_SIGNATURE_DIGITS - len(_HEADER_ENDING)]
        claims = _claims(head) if len(head) <= CLAIMS_CHARS_MAX else _claims.__wrapped__(head)
        return V4(claims=claims, signature=header[-_SIGNATURE_DIGITS:])
    scheme, space, rest = header.partition(" ")
    if not space:
        raise _invalid_header("Authorization header is invalid -- one and only one ' ' (space) required", header)
    if scheme == ALGORITHM:
        fields = _fields(rest)
        return V4(claims=_header_claims(fields), signature=fields["Signature"])
    if scheme == "AWS":
        return _v2_header(header, rest)
    if scheme == ALGORITHM_V4A:
        raise S3Error("NotImplemented", Header="Authorization")
    raise _invalid_header("Unsupported Authorization Type", header)


def _v2_header(header: str, rest: str) -> V2:
    rest = rest.strip(" ")
    if " " in rest:
        raise _invalid_header("Authorization header is invalid -- one and only one ' ' (space) required", header)
    access_key, colon, signature = rest.rpartition(":")
    if not colon or not access_key or not signature:
        raise _invalid_header("AWS authorization header is invalid.  Expected AwsAccessKeyId:signature", header)
    return V2(access_key=_from_header(access_key), signature=signature)


def _invalid_header(message: str, header: str) -> S3Error:
    return S3Error("InvalidArgument", message, ArgumentName="Authorization", ArgumentValue=header)


def _fields(text: str) -> dict[str, str]:
    """Credential, SignedHeaders and Signature, in any order."""
    fields: dict[str, str] = {}
    for item in text.split(","):
        name, equals, value = item.strip(" ").partition("=")
        if not name and not equals:
            continue
        if not equals or name in fields:
            raise Scheme.HEADER.malformed(f'the authorization component "{item.strip(" ")}" is malformed.')
        fields[name] = value
    for name in ("Credential", "SignedHeaders", "Signature"):
        if not fields.get(name):
            raise Scheme.HEADER.malformed("the authorization header requires three components: Credential, SignedHeaders, and Signature.")
    return fields


@functools.lru_cache(maxsize=CLAIMS_CACHED)
def _claims(head: str) -> Claims:
    """From ``Credential=…, SignedHeaders=…,``; errors are not cached."""
    return _header_claims(_fields(head + "Signature=elsewhere"))


def _header_claims(fields: dict[str, str]) -> Claims:
    return _make_claims(parse_credential(_from_header(fields["Credential"]), Scheme.HEADER), fields["SignedHeaders"])


@functools.lru_cache(maxsize=CLAIMS_CACHED)
def _query_claims(credential: str, signed_headers: str) -> Claims:
    return _make_claims(parse_credential(credential, Scheme.QUERY), signed_headers)


def _make_claims(credential: Credential, signed_headers: str) -> Claims:
    names = tuple(signed_headers.split(";"))
    return Claims(credential=credential, signed_headers=signed_headers, names=names, signed=frozenset(names))


def _v4_query(request: S3Request) -> V4Query:
    query = request.query
    for name in _QUERY_NAMES:
        if not query.get(name):
            raise _query_error("Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters.")
    _check_no_repeats(request)
    algorithm = query["X-Amz-Algorithm"]
    if algorithm != ALGORITHM:
        if algorithm == ALGORITHM_V4A:
            raise S3Error("NotImplemented", Header="X-Amz-Algorithm")
        raise _query_error(f'X-Amz-Algorithm only supports "{ALGORITHM}"')
    credential, signed_headers = query["X-Amz-Credential"], query["X-Amz-SignedHeaders"]
    short = len(credential) + len(signed_headers) <= CLAIMS_CHARS_MAX
    claims = (_query_claims if short else _query_claims.__wrapped__)(credential, signed_headers)
    date = query["X-Amz-Date"]
    date_s = basic_date_s(date)
    if date_s is None:
        raise _query_error('X-Amz-Date must be in the ISO8601 Long Format "yyyyMMdd\'T\'HHmmss\'Z\'"')
    expires_s = _expires_s(query["X-Amz-Expires"])
    return V4Query(claims=claims, signature=query["X-Amz-Signature"], date=date, date_s=date_s, expires_s=expires_s)


def _check_no_repeats(request: S3Request) -> None:
    """A parameter of the signature that is given twice leaves open which of the two was meant."""
    raw = request.raw_query
    if len(request.query) == raw.count(b"&") + 1:
        return                                # as many names as items: none is repeated
    names = [item.partition(b"=")[0] for item in raw.split(b"&") if item[:6] == b"X-Amz-"]
    if len(set(names)) != len(names):
        raise _query_error("A query-string authentication parameter was given more than once.")


def _expires_s(text: str) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        raise _query_error("X-Amz-Expires should be a number")
    if len(digits) != len(text) and digits.strip("0"):
        raise _query_error("X-Amz-Expires must be non-negative")
    # The number of digits first: a number of thousands of digits must not be converted.
    if len(digits.lstrip("0")) > 6 or int(digits) > EXPIRES_MAX_S:
        raise _query_error("X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be less than 604800 seconds")
    return int(digits)


def _query_error(message: str) -> S3Error:
    return S3Error("AuthorizationQueryParametersError", message)


def _v2_query(query: dict[str, str]) -> V2Query:
    access_key, signature, expires = query.get("AWSAccessKeyId"), query.get("Signature"), query.get("Expires")
    if not access_key or not signature or not expires:
        raise S3Error("AccessDenied", "Query-string authentication requires the Signature, Expires and AWSAccessKeyId parameters")
    if not (expires.isascii() and expires.isdigit()) or len(expires) > 12:
        raise S3Error("AccessDenied", f"Invalid date (should be seconds since epoch): {expires[:64]}")
    return V2Query(access_key=access_key, signature=signature, expires=expires, expires_s=int(expires))


def _from_header(text: str) -> str:
    """Header text is latin-1 by decoding only; what people typed was UTF-8."""
    return text if text.isascii() else text.encode("latin-1").decode("utf-8", "replace")
