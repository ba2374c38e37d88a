"""Continuation tokens: a key, in a form that clients pass back untouched. Opaque to them, strictly parsed by us."""

import base64
import binascii
import zlib

from gateway.s3.errors import S3Error

_VERSION = b"1"
_CHECK_BYTES = 4


def make(after: str) -> str:
    """URL-safe text that stands for the key (or common prefix) after which the next page starts."""
    raw = _VERSION + after.encode()
    return base64.urlsafe_b64encode(zlib.crc32(raw).to_bytes(_CHECK_BYTES, "big") + raw).decode().rstrip("=")


def parse(token: str) -> str:
    """Raises S3Error InvalidArgument for what `make` didn't make: a token cut short would silently skip keys."""
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        after = raw[_CHECK_BYTES + len(_VERSION) :].decode()
    except (binascii.Error, ValueError):
        after = None
    # Made anew, because the decoder takes several spellings of the same bytes.
    if after is not None and make(after) == token:
        return after
    raise S3Error(
        "InvalidArgument", "The continuation token provided is incorrect", ArgumentName="continuation-token"
    )
