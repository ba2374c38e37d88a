"""Signature version 4, the arithmetic: canonical request, string to sign, derived keys, comparison. Pure functions.

Text is bytes seen as latin-1, as the wire gave them, so nothing is decoded that the signer did not decode. The path and the
query are percent-decoded once and encoded once, without any normalisation: ``//``, ``.`` and ``..`` are parts of keys.

Source: "Signature Calculations for the Authorization Header: Transferring Payload in a Single Chunk".
"""

import functools
import hashlib
import hmac
from collections.abc import Mapping
from urllib.parse import quote_from_bytes, unquote_to_bytes

from gateway.s3.credentials import ALGORITHM, Claims, Credential

EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()

KEYS_CACHED = 4096
"""Derived keys: one for each (secret, day, region), so this serves as many identities without deriving again."""

RECODED_CACHED = 1024
RECODED_BYTES_MAX = 256
"""Parts of queries whose encoding was checked. Credentials repeat all day; longer parts are not worth the memory."""

_UNRESERVED = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
_PATH_PLAIN = _UNRESERVED + b"/"
_QUERY_PLAIN = _UNRESERVED + b"=&"


@functools.lru_cache(maxsize=KEYS_CACHED)
def signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    """The key of a day: four HMACs, about 6 µs, hence the cache."""
    key = hmac.digest(b"AWS4" + secret.encode(), date.encode("latin-1", "replace"), "sha256")
    for part in (region, service, "aws4_request"):
        key = hmac.digest(key, part.encode("utf-8", "replace"), "sha256")
    return key


def canonical_path(raw: bytes) -> str:
    """Decoded once, encoded once. `raw` is the path as sent, without the query."""
    if not raw.translate(None, _PATH_PLAIN):
        return raw.decode("ascii") or "/"
    return quote_from_bytes(unquote_to_bytes(raw), safe="/-._~")


def canonical_query(raw: bytes, *, without_signature: bool = False) -> str:
    """Sorted by encoded name, then by encoded value. `without_signature` leaves X-Amz-Signature out (presigned URLs)."""
    if not raw:
        return ""
    pairs = []
    for item in raw.split(b"&"):
        if not item:
            continue
        if item.translate(None, _QUERY_PLAIN) or item.count(b"=") > 1:
            item = _recode(item) if len(item) <= RECODED_BYTES_MAX else _recode.__wrapped__(item)
        name, _, value = item.partition(b"=")
        if not (without_signature and name == b"X-Amz-Signature"):
            pairs.append((name, value))
    pairs.sort()
    return b"&".join([name + b"=" + value for name, value in pairs]).decode("ascii")


@functools.lru_cache(maxsize=RECODED_CACHED)
def _recode(item: bytes) -> bytes:
    # "+" is a space here, as it is where the value is used (request.decode_query): one reading for both.
    name, _, value = item.replace(b"+", b" ").partition(b"=")
    return b"=".join([quote_from_bytes(unquote_to_bytes(part), safe="-._~").encode("ascii") for part in (name, value)])


def canonical_request(
    method: str, raw_path: bytes, raw_query: bytes, headers: Mapping[str, str], claims: Claims, payload_hash: str, *,
    by_query: bool = False,
) -> bytes | None:
    """The text whose hash is signed. None if a header that is claimed to be signed was not sent."""
    try:
        lines = [f"{name}:{headers[name]}\n" for name in claims.names]
    except KeyError:
        return None
    block = "".join(lines)
    if "  " in block or ": " in block or " \n" in block or "\t" in block or ":\t" in block:
        block = "".join([f"{name}:{_folded(headers[name])}\n" for name in claims.names])
    path, query = canonical_path(raw_path), canonical_query(raw_query, without_signature=by_query)
    return f"{method}\n{path}\n{query}\n{block}\n{claims.signed_headers}\n{payload_hash}".encode("latin-1", "replace")


def _folded(value: str) -> str:
    # Not str.split(): in text that is UTF-8 seen as latin-1 it would take the second byte of "à" for a space.
    return " ".join([word for word in value.replace("\t", " ").split(" ") if word])


def string_to_sign(date: str, scope: str, canonical: bytes) -> bytes:
    return f"{ALGORITHM}\n{date}\n{scope}\n{hashlib.sha256(canonical).hexdigest()}".encode("utf-8", "replace")


def matches(key: bytes, text: bytes, signature: str) -> bool:
    """Constant time, and on bytes: text that isn't ASCII would make the comparison raise."""
    expected = hmac.digest(key, text, "sha256").hex().encode()
    return hmac.compare_digest(expected, signature.encode("utf-8", "replace"))


def verify_policy(secret: str, credential: Credential, policy: str, signature: str) -> bool:
    """A browser's POST form: the signature is over the base64 text of the policy, as sent."""
    key = signing_key(secret, credential.date, credential.region, credential.service)
    return matches(key, policy.encode("utf-8", "replace"), signature)
