"""aws-chunked bodies, decoded. Feed bytes, get bytes; knows nothing of sockets or of where the data goes.

    chunk     hex size [;chunk-signature=hex] CRLF  data  CRLF          the last one has size 0
    trailers  name:value CRLF …  [x-amz-trailer-signature:hex CRLF]  CRLF      instead of the last chunk's data

Framing   what the headers announced: length of the decoded data, names of trailers, and the signatures, if signed
Decoder   `feed` gives the data as it comes, `finish` says whether all of it was in order

Rules     Data leaves before its chunk's signature could be checked (a chunk has no size limit, our memory has): so
          nothing that came out of `feed` may become visible before `finish` has returned. Errors are S3Error and final.
          Data pieces are views of what was fed; only fragments are copied together.

Sources: "Signature Calculations … Transferring Payload in Multiple Chunks (Chunked Upload)", and "… Including Trailing
Headers (Chunked Upload)".
"""

import enum
import hashlib
import hmac

import msgspec

from gateway.s3.errors import S3Error
from gateway.s3.signing.sigv4 import EMPTY_SHA256, SigningKey

CHUNK_HEADER_BYTES_MAX = 1024
"""A size, a signature and their names take 87 bytes; extensions that somebody adds get the rest."""

TRAILER_BYTES_MAX = 16 << 10
TRAILERS_MAX = 10
"""A trailer carries a checksum of at most 88 characters; the most that makes sense is one for each algorithm."""

SIGNED_CHUNK_BYTES_MIN = 8192
"""AWS: only the last chunk may be smaller."""

FRAGMENT_BYTES = 1024
"""Data in smaller pieces is copied together: a view costs 200 bytes, so a body of one-byte chunks would take 200 times
its own size in memory."""

SIZE_DIGITS_MAX = 16
TRAILER_SIGNATURE = "x-amz-trailer-signature"

_HEX = b"0123456789abcdefABCDEF"
_CHUNK_SIGNATURE = b"chunk-signature"
_CRLF = b"\r\n"


class Signing(msgspec.Struct, frozen=True, kw_only=True):
    """What chunk signatures are made of; `seed` is the verified signature of the request."""

    key: SigningKey
    date: str
    scope: str
    seed: str


class Framing(msgspec.Struct, frozen=True, kw_only=True):
    """`trailers` are the lower-case names that x-amz-trailer declares; `may_trail` is False for the kind without."""

    decoded_length: int
    may_trail: bool
    trailers: tuple[str, ...] = ()
    signing: Signing | None = None

    def decoder(self) -> "Decoder":
        return Decoder(self)


class _State(enum.Enum):
    HEADER = "chunk header"
    DATA = "chunk data"
    DATA_END = "line end after chunk data"
    TRAILERS = "trailers"
    DONE = "done"
    FAILED = "failed"


class _Signatures:
    """The chain: each signature covers the one before it."""

    def __init__(self, signing: Signing) -> None:
        self._key = signing.key
        self._chunk_head = f"AWS4-HMAC-SHA256-PAYLOAD\n{signing.date}\n{signing.scope}\n"
        self._trailer_head = f"AWS4-HMAC-SHA256-TRAILER\n{signing.date}\n{signing.scope}\n"
        self._previous = signing.seed.encode()
        self._hash = hashlib.sha256()
        self._claimed = b""

    def begin(self, claimed: bytes) -> None:
        self._claimed = claimed
        self._hash = hashlib.sha256()

    def update(self, data: memoryview) -> None:
        self._hash.update(data)

    def end(self) -> None:
        head = self._chunk_head.encode() + self._previous
        self._check(b"\n".join([head, EMPTY_SHA256.encode(), self._hash.hexdigest().encode()]), self._claimed)

    def check_trailers(self, canonical: bytes, claimed: bytes) -> None:
        head = self._trailer_head.encode() + self._previous
        self._check(head + b"\n" + hashlib.sha256(canonical).hexdigest().encode(), claimed)

    def _check(self, text: bytes, claimed: bytes) -> None:
        expected = self._key.sign(text)
        if not hmac.compare_digest(expected, claimed):
            raise S3Error("SignatureDoesNotMatch")
        self._previous = expected


class Decoder:
    """One body. Not for two threads at once; it may run in another thread than its owner's."""

    def __init__(self, framing: Framing) -> None:
        self._framing = framing
        self._signatures = _Signatures(framing.signing) if framing.signing else None
        self._state = _State.HEADER
        self._line = bytearray()            # the beginning of a line whose end has not come
        self._chunk_left = 0
        self._chunks = 0
        self._small_chunk = 0               # size of a chunk that may only be the last, 0 for none
        self._ended = False                 # the chunk of size 0 has been seen
        self._decoded = 0
        self._trailer_bytes = 0
        self._trailers: dict[str, str] = {}
        self._trailers_signed = False

    def feed(self, piece: bytes | bytearray | memoryview) -> list[memoryview]:
        """The data in this piece: views, valid as long as the piece is; none is empty. S3Error SignatureDoesNotMatch,
        IncompleteBody, InvalidChunkSizeError, MalformedTrailerError."""
        try:
            return self._feed(memoryview(piece))
        except S3Error:
            self._state = _State.FAILED
            raise

    def finish(self) -> dict[str, str]:
        """The body has ended: the trailers, lower-case name to value. S3Error IncompleteBody, MalformedTrailerError.

        Only after this returned may the data become visible.
        """
        # AWS's own example ends after the line of the trailer signature; everything has been checked by then.
        ended_early = self._state is _State.TRAILERS and self._trailers_signed and not self._line
        if not (self._state is _State.DONE or ended_early):
            raise S3Error("IncompleteBody")
        if self._decoded != self._framing.decoded_length:
            raise self._other_length()
        if self._signatures and self._framing.may_trail and not self._trailers_signed:
            raise S3Error("SignatureDoesNotMatch" if self._trailers else "MalformedTrailerError")
        if any(name not in self._trailers for name in self._framing.trailers):
            raise S3Error("MalformedTrailerError")
        return self._trailers

    def _feed(self, piece: memoryview) -> list[memoryview]:
        data: list[memoryview] = []
        fragments = bytearray()
        at, end = 0, len(piece)
        while at < end:
            state = self._state
            if state is _State.DATA:
                taken = piece[at : at + self._chunk_left]
                self._chunk_left -= len(taken)
                at += len(taken)
                if self._signatures:
                    self._signatures.update(taken)
                if len(taken) < FRAGMENT_BYTES:
                    fragments += taken
                else:
                    if fragments:
                        data.append(memoryview(bytes(fragments)))
                        fragments.clear()
                    data.append(taken)
                if not self._chunk_left:
                    self._state = _State.DATA_END
            elif state is _State.FAILED:
                raise AssertionError("fed after an error")
            elif state is _State.DONE:
                raise S3Error("IncompleteBody", "The request body continues after its last chunk.")
            else:
                line, at = self._take_line(piece, at)
                if line is not None:
                    self._on_line(state, line)
        if fragments:
            data.append(memoryview(fragments))
        return data

    def _take_line(self, piece: memoryview, at: int) -> tuple[bytes | None, int]:
        """A line without its CRLF, None if it has not ended yet; and where it ended."""
        limit = self._line_bytes_max()
        window = bytes(piece[at : at + limit + 2])
        if self._line:
            kept = len(self._line)
            window = bytes(self._line) + window
            at -= kept                      # the window begins where the kept bytes would be
        found = window.find(_CRLF)
        if found >= 0:
            self._line.clear()
            if found > limit:
                raise self._too_long()
            return window[:found], at + found + 2
        if len(window) > limit + 1:
            raise self._too_long()
        self._line[:] = window
        return None, at + len(window)

    def _line_bytes_max(self) -> int:
        if self._state is _State.HEADER:
            return CHUNK_HEADER_BYTES_MAX
        return TRAILER_BYTES_MAX if self._state is _State.TRAILERS else 0

    def _too_long(self) -> S3Error:
        return S3Error("MalformedTrailerError" if self._state is _State.TRAILERS else "IncompleteBody")

    def _on_line(self, state: _State, line: bytes) -> None:
        if state is _State.HEADER:
            self._on_chunk_header(line)
        elif state is _State.DATA_END:
            self._on_data_end()
        else:
            self._on_trailer_line(line)

    def _on_chunk_header(self, line: bytes) -> None:
        digits, _, extension = line.partition(b";")
        digits = digits.strip(b" \t")
        if not digits or digits.strip(_HEX) or len(digits.lstrip(b"0")) > SIZE_DIGITS_MAX:
            raise S3Error("IncompleteBody", "The request body contains a malformed chunk header.")
        size = int(digits, 16)
        self._chunks += 1
        if self._decoded + size > self._framing.decoded_length:
            self._decoded += size
            raise self._other_length()
        self._decoded += size
        self._chunk_left = size
        if self._signatures:
            self._check_chunk_size(size)
            name, _, claimed = extension.strip(b" \t").partition(b"=")
            # A chunk without a signature fails as one with a wrong signature: the empty one.
            self._signatures.begin(claimed if name == _CHUNK_SIGNATURE else b"")
        if size:
            self._state = _State.DATA
            return
        self._ended = True
        if self._signatures:
            self._signatures.end()
        self._state = _State.TRAILERS if self._framing.may_trail else _State.DATA_END

    def _other_length(self) -> S3Error:
        if self._signatures is None:
            return S3Error("IncompleteBody")
        return S3Error("IncompleteBody", "You did not provide the number of bytes specified by the Content-Length HTTP header",
                       NumberBytesExpected=self._framing.decoded_length, NumberBytesProvided=self._decoded)

    def _check_chunk_size(self, size: int) -> None:
        if size and self._small_chunk:
            raise S3Error("InvalidChunkSizeError", Chunk=self._chunks, BadChunkSize=self._small_chunk)
        if size < SIGNED_CHUNK_BYTES_MIN:
            self._small_chunk = size

    def _on_data_end(self) -> None:
        if self._ended:
            self._state = _State.DONE
            return
        if self._signatures:
            self._signatures.end()
        self._state = _State.HEADER

    def _on_trailer_line(self, line: bytes) -> None:
        self._trailer_bytes += len(line) + 2
        if self._trailer_bytes > TRAILER_BYTES_MAX:
            raise S3Error("MalformedTrailerError")
        if not line:
            self._state = _State.DONE
            return
        # AWS's example, and minio-go after it, end a trailer with LF CRLF: the lone LF is no part of the value.
        for text in line.split(b"\n"):
            if text:
                self._on_trailer(text)

    def _on_trailer(self, text: bytes) -> None:
        name_bytes, colon, value_bytes = text.partition(b":")
        name = name_bytes.strip(b" \t").lower().decode("latin-1")
        value = value_bytes.strip(b" \t").decode("latin-1")
        if not colon or not name or self._trailers_signed:
            raise S3Error("MalformedTrailerError")
        if self._signatures and name == TRAILER_SIGNATURE:
            canonical = "".join([f"{name}:{value}\n" for name, value in sorted(self._trailers.items())])
            self._signatures.check_trailers(canonical.encode("latin-1"), value.encode("latin-1"))
            self._trailers_signed = True
            return
        if name in self._trailers or name not in self._framing.trailers or len(self._trailers) == TRAILERS_MAX:
            raise S3Error("MalformedTrailerError")
        self._trailers[name] = value
