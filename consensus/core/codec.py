"""Commands, results and log entries as versioned bytes. The log and the disk outlive the code that wrote them.

An entry is one version byte, then a msgpack array of envelopes. Within a version, fields are only ever added at the end
with a default, which old bytes decode to. Anything else is a new version: its decoder is added to `_DECODERS`, the old
one stays, and a golden file in tests/golden shows that it still reads what it wrote.
"""

import msgspec

from consensus.core.commands import Envelope
from consensus.core.errors import Corrupt
from consensus.core.results import AnyResult

ENTRY_VERSION = 1
ENTRY_BYTES_MAX = 4 << 20
"""No entry is larger: the proposer closes a batch before."""

UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding bytes from elsewhere can raise. Text that is not UTF-8 is no MsgspecError, and neither is deep nesting."""

_encoder = msgspec.msgpack.Encoder()
_envelopes = msgspec.msgpack.Decoder(tuple[Envelope, ...])
_results = msgspec.msgpack.Decoder(tuple[AnyResult, ...])
_DECODERS = {1: _envelopes.decode}


class FutureEntry(Corrupt):
    """Of a version that this Staddle doesn't know: a later one has written it."""


def encode_entry(envelopes: tuple[Envelope, ...] | list[Envelope]) -> bytes:
    return bytes((ENTRY_VERSION,)) + _encoder.encode(envelopes)


def decode_entry(raw: bytes) -> tuple[Envelope, ...]:
    """Raises Corrupt for bytes that no version of Staddle wrote."""
    decode = _DECODERS.get(raw[0]) if raw else None
    if decode is None:
        raise FutureEntry(f"log entry of version {raw[:1].hex() or 'none'}: this Staddle reads {sorted(_DECODERS)}")
    try:
        return decode(memoryview(raw)[1:])
    except UNDECODABLE as error:
        raise Corrupt(f"log entry cannot be decoded: {error}") from error


def encode_results(results: tuple[AnyResult, ...] | list[AnyResult]) -> bytes:
    return _encoder.encode(results)


def decode_results(raw: bytes) -> tuple[AnyResult, ...]:
    return _results.decode(raw)
