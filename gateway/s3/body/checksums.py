"""Digests of bodies: what a client claims, the hashing beside the transfer, and the checksums of whole objects.

*Expected* is what a request says about its body: Content-MD5, and at most one ``x-amz-checksum-*`` as a header or as a
trailer still to come. A *Hasher* computes MD5 (the ETag) and the wanted checksums, and refuses the body if a claim does
not hold. Without a claim the checksum is CRC64NVME, as on AWS. A finished multipart object has either a COMPOSITE value
(the hash of its parts' digests, with ``-N``) or a FULL_OBJECT one, combined from the parts' CRCs and sizes without
reading a byte. S3_SEMANTICS §4 has the rules; awscrt and hashlib do the arithmetic.
"""

import base64
import binascii
import hashlib
import hmac
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec
from awscrt import checksums as crt

from gateway.s3.errors import S3Error

FULL_OBJECT = "FULL_OBJECT"
COMPOSITE = "COMPOSITE"
DEFAULT = "CRC64NVME"
"""What AWS computes when a client names no algorithm."""

_HEADER = "x-amz-checksum-"

Buffer = bytes | bytearray | memoryview


class Checksum(NamedTuple):
    """A stored checksum; the same fields as the metadata's. `value` is base64, with ``-N`` when composite."""

    algorithm: str
    value: str
    kind: str = FULL_OBJECT


class _Running(Protocol):
    def update(self, data: Buffer, /) -> None: ...
    def digest(self) -> bytes: ...


class _Crc:
    __slots__ = ("_function", "_size", "_value")

    def __init__(self, function: Callable[[Buffer, int], int], size: int) -> None:
        self._function = function
        self._size = size
        self._value = 0

    def update(self, data: Buffer, /) -> None:
        self._value = self._function(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size, "big")


class _XxHash:
    __slots__ = ("_running",)

    def __init__(self, running: crt.XXHash) -> None:
        self._running = running

    def update(self, data: Buffer, /) -> None:
        self._running.update(bytes(data))       # it takes nothing else

    def digest(self) -> bytes:
        return bytes(self._running.finalize())


class Algorithm(NamedTuple):
    name: str
    size: int                                                   # of a raw digest, bytes
    new: Callable[[], _Running]
    kinds: tuple[str, ...]                                      # allowed for multipart, the default first
    combine: Callable[[int, int, int], int] | None = None       # crc of A, crc of B, bytes of B -> crc of AB


def _new_sha1() -> _Running:
    return hashlib.sha1(usedforsecurity=False)


def _new_md5() -> _Running:
    return hashlib.md5(usedforsecurity=False)


ALGORITHMS: dict[str, Algorithm] = {
    algorithm.name: algorithm
    for algorithm in (
        # zlib's CRC32 is faster than awscrt's; the others are awscrt's, at tens of GB/s.
        Algorithm("CRC32", 4, lambda: _Crc(zlib.crc32, 4), (COMPOSITE, FULL_OBJECT), crt.combine_crc32),
        Algorithm("CRC32C", 4, lambda: _Crc(crt.crc32c, 4), (COMPOSITE, FULL_OBJECT), crt.combine_crc32c),
        Algorithm("CRC64NVME", 8, lambda: _Crc(crt.crc64nvme, 8), (FULL_OBJECT,), crt.combine_crc64nvme),
        Algorithm("SHA1", 20, _new_sha1, (COMPOSITE,)),
        Algorithm("SHA256", 32, hashlib.sha256, (COMPOSITE,)),
        Algorithm("SHA512", 64, hashlib.sha512, (COMPOSITE,)),
        Algorithm("MD5", 16, _new_md5, (COMPOSITE,)),
        Algorithm("XXHASH64", 8, lambda: _XxHash(crt.XXHash.new_xxhash64()), (COMPOSITE,)),
        Algorithm("XXHASH3", 8, lambda: _XxHash(crt.XXHash.new_xxhash3_64()), (COMPOSITE,)),
        Algorithm("XXHASH128", 16, lambda: _XxHash(crt.XXHash.new_xxhash3_128()), (COMPOSITE,)),
    )
}
"""What is offered, by its name in S3."""

_SAID_TO_BE_VALID = "CRC32, CRC32C, CRC64NVME, SHA1, SHA256"
"""AWS's own words, from before it had the others."""

_SINGLE = "Expecting a single x-amz-checksum- header"
_SEVERAL = f"{_SINGLE}. Multiple checksum Types are not allowed."

_NOT_VALUES = frozenset({"x-amz-checksum-mode", "x-amz-checksum-algorithm", "x-amz-checksum-type"})


class Digests(NamedTuple):
    """What a body is. `checksum` is by the client's algorithm, or the default; `also` are those wanted besides."""

    md5: str                                    # lower-case hex: the ETag of a whole body
    checksum: Checksum
    also: tuple[Checksum, ...] = ()


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What a request claims about its body, checked for form but not yet against the body."""

    md5: bytes | None = None
    algorithm: str = ""                         # "" when the client named none
    value: bytes | None = None                  # raw; None while it is still to come in `trailer`
    trailer: str = ""                           # header name

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> "Expected":
        """S3Error InvalidDigest for a malformed Content-MD5; InvalidRequest for a malformed, unknown, second or missing
        checksum."""
        md5 = None
        if (text := headers.get("content-md5")) is not None:
            md5 = _base64(text, 16)
            if md5 is None:
                raise S3Error("InvalidDigest", None, (), **{"Content-MD5": text})
        algorithm, value, trailer, given = "", None, "", ""
        for name in headers:
            if name.startswith(_HEADER) and name not in _NOT_VALUES:
                if given:
                    raise S3Error("InvalidRequest", _SEVERAL)
                given = name
        if given:
            algorithm = parse_algorithm(given[len(_HEADER) :])
            value = _claimed(algorithm, headers[given], "header")
        if (text := headers.get("x-amz-trailer")) is not None:
            if algorithm:
                raise S3Error("InvalidRequest", _SINGLE)
            trailer = text.strip().lower()
            if not trailer.startswith(_HEADER) or trailer in _NOT_VALUES or "," in trailer:
                raise S3Error("InvalidRequest", "The value specified in the x-amz-trailer header is not supported")
            algorithm = parse_algorithm(trailer[len(_HEADER) :])
        if (text := headers.get("x-amz-sdk-checksum-algorithm")) is not None:
            _check_named(text, algorithm)
        return cls(md5=md5, algorithm=algorithm, value=value, trailer=trailer)

    def require(self) -> None:
        """For documents whose loss would do damage (DeleteObjects, configurations): some digest must be there."""
        if self.md5 is None and not self.algorithm:
            raise S3Error(
                "InvalidRequest", "Missing required header for this request: Content-MD5 OR x-amz-checksum-*"
            )

    def hasher(self, *also: str) -> "Hasher":
        """For a whole body. `also` names algorithms wanted besides the client's."""
        return Hasher(self, self.algorithm or (also[0] if also else DEFAULT), also)

    def part_hasher(self, algorithm: str, kind: str) -> "Hasher":
        """For a part of an upload begun with `algorithm` and `kind` ("" for none).

        Its Digests.also[0] is the checksum to keep with the part: the upload's, or the default for an upload without.
        S3Error InvalidRequest when the client's algorithm is not the upload's, or is missing for a COMPOSITE one.
        """
        if algorithm and self.algorithm != algorithm and (self.algorithm or kind == COMPOSITE):
            raise S3Error(
                "InvalidRequest",
                f"Checksum Type mismatch occurred, expected checksum Type: {algorithm.lower()}, "
                f"actual checksum Type: {self.algorithm.lower() or 'null'}",
            )
        return self.hasher(algorithm or DEFAULT)


class Hasher:
    """Hashes a body as it passes. `update` may run in a thread: all but awscrt's CRCs release the interpreter lock."""

    __slots__ = ("_also", "_expected", "_md5", "_primary", "_running")

    def __init__(self, expected: Expected, primary: str, also: Sequence[str]) -> None:
        self._expected = expected
        self._primary = primary
        self._md5 = _new_md5()
        self._running = ALGORITHMS[primary].new()
        self._also = [(name, self._running if name == primary else ALGORITHMS[name].new()) for name in also] if also else ()

    def update(self, data: Buffer) -> None:
        self._md5.update(data)
        self._running.update(data)
        for _, running in self._also:
            if running is not self._running:
                running.update(data)

    def finish(self, trailers: Mapping[str, str] | None = None) -> Digests:
        """After the last byte. S3Error BadDigest for a body that isn't what the client claimed.

        `trailers` have lower-case names; a declared one that did not come is the decoder's to refuse, and ours again.
        """
        expected = self._expected
        md5 = self._md5.digest()
        if expected.md5 is not None and not hmac.compare_digest(md5, expected.md5):
            # One in hexadecimal, one in base64: so does AWS.
            raise S3Error("BadDigest", ExpectedDigest=expected.md5.hex(), CalculatedDigest=_text(md5))
        raw = self._running.digest()
        value = expected.value
        if expected.trailer:
            text = (trailers or {}).get(expected.trailer)
            if text is None:
                raise S3Error("MalformedTrailerError")
            value = _claimed(expected.algorithm, text, "trailing header")
        if value is not None and not hmac.compare_digest(raw, value):   # the client's algorithm is the primary one
            raise bad_checksum(expected.algorithm)
        return Digests(
            md5.hex(),
            Checksum(self._primary, _text(raw)),
            tuple([Checksum(name, _text(running.digest())) for name, running in self._also]) if self._also else (),
        )


def bad_checksum(algorithm: str) -> S3Error:
    return S3Error("BadDigest", f"The {algorithm} you specified did not match the calculated checksum.")


def parse_algorithm(name: str) -> str:
    """An algorithm's name in any case -> as S3 writes it. S3Error InvalidRequest."""
    upper = name.strip().upper()
    if upper in ALGORITHMS:
        return upper
    raise S3Error(
        "InvalidRequest",
        "Checksum algorithm provided is unsupported. Please try again with any of the valid types: "
        f"[{_SAID_TO_BE_VALID}]",
    )


def _check_named(text: str, algorithm: str) -> None:
    """``x-amz-sdk-checksum-algorithm`` says which checksum the SDK added: it must be there."""
    named = parse_algorithm(text)
    if not algorithm:
        raise S3Error(
            "InvalidRequest",
            "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers "
            "were found.",
        )
    if named != algorithm:
        raise S3Error("InvalidRequest", "Value for x-amz-sdk-checksum-algorithm header is invalid.")


def _claimed(algorithm: str, text: str, where: str) -> bytes:
    value = _base64(text, ALGORITHMS[algorithm].size)
    if value is None:
        raise S3Error("InvalidRequest", f"Value for {_HEADER}{algorithm.lower()} {where} is invalid.")
    return value


def _base64(text: str, size: int) -> bytes | None:
    try:
        value = base64.b64decode(text.strip(), validate=True)
    except ValueError:  # binascii.Error, or text that isn't ASCII
        return None
    return value if len(value) == size else None


def _text(raw: bytes) -> str:
    return binascii.b2a_base64(raw, newline=False).decode()


# Answers


def mode_enabled(headers: Mapping[str, str]) -> bool:
    """Whether a GET or HEAD asks for checksums (the CRT writes it in lower case)."""
    mode = headers.get("x-amz-checksum-mode")
    return mode is not None and mode.strip().upper() == "ENABLED"


def response_headers(checksum: Checksum) -> list[tuple[str, str]]:
    """The headers that show a checksum, its type included. Any value with the fields of `Checksum` will do."""
    return [(f"{_HEADER}{checksum.algorithm.lower()}", checksum.value), ("x-amz-checksum-type", checksum.kind)]


# Multipart


def for_upload(headers: Mapping[str, str]) -> tuple[str, str]:
    """(algorithm, kind) that a CreateMultipartUpload fixes; ("", "") for none. S3Error InvalidRequest."""
    named, kind = headers.get("x-amz-checksum-algorithm"), headers.get("x-amz-checksum-type")
    if named is None:
        if kind is not None:
            raise S3Error(
                "InvalidRequest",
                "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.",
            )
        return "", ""
    algorithm = ALGORITHMS[parse_algorithm(named)]
    if kind is None:
        return algorithm.name, algorithm.kinds[0]
    kind = parse_kind(kind)
    if kind not in algorithm.kinds:
        raise S3Error(
            "InvalidRequest",
            f"The {kind} checksum type cannot be used with the {algorithm.name.lower()} checksum algorithm.",
        )
    return algorithm.name, kind


def parse_kind(text: str) -> str:
    """COMPOSITE or FULL_OBJECT. S3Error InvalidRequest."""
    kind = text.strip().upper()
    if kind not in (COMPOSITE, FULL_OBJECT):
        raise S3Error("InvalidRequest", "Value for x-amz-checksum-type header is invalid.")
    return kind


def claimed_object(headers: Mapping[str, str]) -> tuple[str, str] | None:
    """(algorithm, value) that a CompleteMultipartUpload claims for the whole object; the value may end in ``-N``."""
    claims = [
        (parse_algorithm(name[len(_HEADER) :]), headers[name].strip())
        for name in headers
        if name.startswith(_HEADER) and name not in _NOT_VALUES
    ]
    if len(claims) > 1:
        raise S3Error("InvalidRequest", _SEVERAL)
    return claims[0] if claims else None


def of_parts(algorithm: str, kind: str, parts: Iterable[tuple[str, int]]) -> Checksum:
    """The checksum of an object made of `parts`, each (base64 checksum, bytes) by the same algorithm, in order."""
    known = ALGORITHMS[algorithm]
    raws = [(base64.b64decode(value), size) for value, size in parts]
    if kind == COMPOSITE:
        running = known.new()
        running.update(b"".join(raw for raw, _ in raws))
        return Checksum(algorithm, f"{_text(running.digest())}-{len(raws)}", COMPOSITE)
    assert known.combine is not None, f"{algorithm} has no {FULL_OBJECT} checksum of parts"
    whole = 0
    for raw, size in raws:
        whole = known.combine(whole, int.from_bytes(raw, "big"), size)
    return Checksum(algorithm, _text(whole.to_bytes(known.size, "big")), FULL_OBJECT)


def matches(claim: tuple[str, str], checksum: Checksum) -> bool:
    """Whether a claim for a whole object holds; of a composite value the ``-N`` may be left out."""
    algorithm, value = claim
    return algorithm == checksum.algorithm and value in (checksum.value, checksum.value.partition("-")[0])
