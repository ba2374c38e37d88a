"""What a body must satisfy, as x-amz-content-sha256 and its companions announce it.

PayloadCheck   a digest of the whole body, or aws-chunked framing that verifies itself, or nothing
Rules          `known_kind` is asked before the signature is verified (the value is part of what was signed),
               `announced` after it, so that nobody without a key learns from its answers.

Source: "Authenticating Requests: Using the Authorization Header", Overview.
"""

from collections.abc import Mapping

import msgspec

from gateway.s3.body.chunked import TRAILERS_MAX, Framing, Signing
from gateway.s3.errors import S3Error
from gateway.s3.signing.sigv4 import EMPTY_SHA256

DECODED_BYTES_MAX = 50 << 40
"""Only to refuse nonsense early: ten times the largest object. The operation knows the limit that counts."""

UNSIGNED = "UNSIGNED-PAYLOAD"
UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
SIGNED_CHUNKS = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
SIGNED_CHUNKS_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
SIGNED_KINDS = frozenset((SIGNED_CHUNKS, SIGNED_CHUNKS_TRAILER))

_CHUNKED = SIGNED_KINDS | {UNSIGNED_TRAILER}
_V4A = frozenset(("STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD", "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD-TRAILER"))
_COMMON = _CHUNKED | {UNSIGNED, EMPTY_SHA256}
_SHA256_DIGITS = 64
_HEX = "0123456789abcdefABCDEF"


class PayloadCheck(msgspec.Struct, frozen=True, kw_only=True):
    """At most one is set. `sha256`: lower-case hex of the whole body. `framing`: the body is aws-chunked, and
    ``framing.decoder()`` decodes and verifies it. Neither: only its own checksums vouch for the body."""

    sha256: str | None = None
    framing: Framing | None = None

    def verify_sha256(self, computed: str) -> None:
        """`computed` is lower-case hex of the whole body. S3Error XAmzContentSHA256Mismatch."""
        if self.sha256 is not None and computed != self.sha256:
            raise S3Error(
                "XAmzContentSHA256Mismatch",
                ClientComputedContentSHA256=self.sha256, S3ComputedContentSHA256=computed,
            )


UNCHECKED = PayloadCheck()


def known_kind(text: str) -> str:
    """The value of x-amz-content-sha256 if it is one that S3 has. S3Error InvalidArgument, NotImplemented."""
    if text in _COMMON or (len(text) == _SHA256_DIGITS and not text.strip(_HEX)):
        return text
    if text in _V4A:
        raise S3Error("NotImplemented", Header="x-amz-content-sha256")
    raise S3Error(
        "InvalidArgument",
        f"x-amz-content-sha256 must be {UNSIGNED}, {UNSIGNED_TRAILER}, {SIGNED_CHUNKS}, {SIGNED_CHUNKS_TRAILER} "
        "or a valid sha256 value.",
        ArgumentName="x-amz-content-sha256", ArgumentValue=text[:128],
    )


def announced(kind: str, headers: Mapping[str, str], signing: Signing | None) -> PayloadCheck:
    """`kind` is a known one. S3Error MissingContentLength, InvalidArgument, InvalidRequest."""
    trailer = headers.get("x-amz-trailer")
    if kind not in _CHUNKED:
        if trailer is not None:
            # What it announces can't come, and may have been all that was to vouch for the body.
            raise S3Error("InvalidRequest", "The x-amz-trailer header needs a streaming payload with trailers.")
        return UNCHECKED if kind == UNSIGNED else PayloadCheck(sha256=kind.lower())
    if kind in SIGNED_KINDS and signing is None:
        raise S3Error(
            "InvalidRequest",
            f"A payload of kind {kind} needs a signature of version 4. Use {UNSIGNED} or {UNSIGNED_TRAILER}.",
        )
    may_trail = kind != SIGNED_CHUNKS
    return PayloadCheck(framing=Framing(
        decoded_length=_decoded_length(headers), may_trail=may_trail,
        trailers=_trailer_names(trailer, may_trail), signing=signing,
    ))


def _decoded_length(headers: Mapping[str, str]) -> int:
    text = headers.get("x-amz-decoded-content-length")
    if text is None or not (text.isascii() and text.isdigit()):     # what is no number is not there, on AWS
        raise S3Error("MissingContentLength")
    # The number of digits first: a number of thousands of digits must not be converted.
    if len(text.lstrip("0")) > 15 or int(text) > DECODED_BYTES_MAX:
        raise S3Error(
            "InvalidArgument", "The value of x-amz-decoded-content-length is not valid.",
            ArgumentName="x-amz-decoded-content-length", ArgumentValue=text[:64],
        )
    return int(text)


def _trailer_names(text: str | None, may_trail: bool) -> tuple[str, ...]:
    if text is None:
        return ()
    names = tuple([name.strip(" \t").lower() for name in text.split(",") if name.strip(" \t")])
    valid = may_trail and len(names) <= TRAILERS_MAX and all(name.startswith("x-amz-checksum-") for name in names)
    if not valid or len(set(names)) != len(names):
        raise S3Error("InvalidRequest", "The value specified in the x-amz-trailer header is not supported")
    return names
