"""Signature version 4, the arithmetic: canonical request, string to sign, derived keys, comparison. Pure functions.

Text is bytes seen as latin-1, as the wire gave them, so nothing is decoded that the signer did not decode. The path and
the query are percent-decoded once and encoded once, and not normalised: ``//``, ``.`` and ``..`` are parts of keys.

Source: "Signature Calculations for the Authorization Header: Transferring Payload in a Single Chunk".
"""

import functools
import hashlib
import hmac
from collections.abc import Mapping
from urllib.parse import quote_from_bytes, unquote_to_bytes

from gateway.s3.signing.credentials import ALGORITHM, Claims, Credential

EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()

KEYS_CACHED = 4096
"""Derived keys, one for each (secret, day, region): as many identities are served without deriving again."""

_UNRESERVED = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
_PATH_PLAIN = _UNRESERVED + b"/"
_ESCAPED_PLAIN = _UNRESERVED + b"%"
_ESCAPES = frozenset(b"%02X" % byte for byte in range(256) if byte not in _UNRESERVED)
"""The two digits after each % that a canonical query may hold: upper-case hex of bytes that need escaping."""

_SIGNATURE = b"X-Amz-Signature"
_BLOCK_BYTES = 64


class SigningKey:
    """HMAC-SHA256 with a derived key. Holds the two hash states after the key, since copying them costs a third of what
    starting over does, at each request."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        block = key.ljust(_BLOCK_BYTES, b"\0")
        assert len(block) == _BLOCK_BYTES, "derived keys are 32 bytes"
        self._inner = hashlib.sha256(bytes([byte ^ 0x36 for byte in block]))
        self._outer = hashlib.sha256(bytes([byte ^ 0x5C for byte in block]))

    def sign(self, text: bytes) -> bytes:
        """The signature as 64 lower-case hex digits."""
        inner = self._inner.copy()
        inner.update(text)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.hexdigest().encode()

    def matches(self, text: bytes, signature: str) -> bool:
        """Constant time, and on bytes: with text that isn't ASCII the comparison would raise."""
        return hmac.compare_digest(self.sign(text), signature.encode("utf-8", "replace"))


@functools.lru_cache(maxsize=KEYS_CACHED)
def signing_key(secret: str, date: str, region: str, service: str) -> SigningKey:
    """The key of a day: four HMACs, about as long as all the rest, hence the cache."""
    key = ("AWS4" + secret).encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode("utf-8", "replace"), "sha256")
    return SigningKey(key)


def canonical_path(raw: bytes) -> str:
    """Decoded once, encoded once. `raw` is the path as sent, without the query."""
    if not raw.translate(None, _PATH_PLAIN):
        return raw.decode("ascii") or "/"
    return quote_from_bytes(unquote_to_bytes(raw), safe="/-._~")


def canonical_query(raw: bytes) -> str:
    """Sorted by encoded name, then by encoded value."""
    if not raw:
        return ""
    # "=" becomes NUL while sorting: it has to come before every other character, so that "a=" precedes "a-b=".
    items = raw.replace(b"=", b"\0").split(b"&")
    if not _is_canonical(raw, len(items)):
        items = [_recoded(item) for item in raw.split(b"&") if item]
    items.sort()
    return b"&".join(items).replace(b"\0", b"=").decode("ascii")


def without_signature(raw_query: bytes) -> bytes:
    """A presigned URL's query as it was before its signature was added."""
    if raw_query.count(b"&" + _SIGNATURE + b"=") == 1:
        before, _, after = raw_query.partition(b"&" + _SIGNATURE + b"=")
        return before + after[after.find(b"&") :] if b"&" in after else before
    kept = [item for item in raw_query.split(b"&") if unquote_to_bytes(item.partition(b"=")[0]) != _SIGNATURE]
    return b"&".join(kept)


def _is_canonical(raw: bytes, items: int) -> bool:
    """All but the order: most signers send what they signed, so encoding it again would only cost time."""
    if raw.translate(None, _ESCAPED_PLAIN) != (b"=&" * items)[:-1]:
        return False                          # a character to be escaped, or an item without "=", or with two
    escapes = raw.count(b"%")
    return escapes == raw.count(b"%2F") or _ESCAPES.issuperset([part[:2] for part in raw.split(b"%")[1:]])


def _recoded(item: bytes) -> bytes:
    # "+" is a space here, as it is where the value is used (request.decode_query): one reading for both.
    name, _, value = item.replace(b"+", b" ").partition(b"=")
    return b"\0".join([quote_from_bytes(unquote_to_bytes(part), safe="-._~").encode("ascii") for part in (name, value)])


def canonical_request(
    method: str, raw_path: bytes, raw_query: bytes, headers: Mapping[str, str], claims: Claims, payload_hash: str
) -> bytes | None:
    """The text whose hash is signed. None if a header that the signature covers was not sent."""
    try:
        block = "".join([f"{name}:{headers[name]}\n" for name in claims.names])
    except KeyError:
        return None
    if "  " in block or ": " in block or " \n" in block or "\t" in block:
        block = "".join([f"{name}:{_folded(headers[name])}\n" for name in claims.names])
    path, query = canonical_path(raw_path), canonical_query(raw_query)
    return f"{method}\n{path}\n{query}\n{block}\n{claims.signed_headers}\n{payload_hash}".encode("latin-1", "replace")


def _folded(value: str) -> str:
    # Not str.split(): in UTF-8 seen as latin-1 it would take the second byte of "à" for a space.
    return " ".join([word for word in value.replace("\t", " ").split(" ") if word])


def string_to_sign(date: str, scope: str, canonical: bytes) -> bytes:
    return f"{ALGORITHM}\n{date}\n{scope}\n{hashlib.sha256(canonical).hexdigest()}".encode("utf-8", "replace")


def verify_policy(secret: str, credential: Credential, policy: str, signature: str) -> bool:
    """A browser's POST form: the signature is over the base64 text of the policy, as sent."""
    key = signing_key(secret, credential.date, credential.region, credential.service)
    return key.matches(policy.encode("utf-8", "replace"), signature)
