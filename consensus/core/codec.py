"""Commands, results and log entries as versioned bytes. The log and the disk outlive the code that wrote them.

An entry is one version byte, then a msgpack array of envelopes. Within a version, fields are only ever added at the end
with a default, which old bytes decode to. Anything else is a new version: its decoder is added to `_DECODERS`, the old
one stays, and tests/golden/entries.txt shows that it still reads what it wrote.

New commands are a new version, too, and so are new fields that change what a command does. While a cluster is upgraded machine
by machine, some of its members know only the older version: one that left out what others carry out would hold another metadata
from then on, and nobody would notice. So each entry is of the oldest version whose readers carry out all of it, members stop at
one that they do not know, and the leader takes nothing into the log that a member would stop at (consensus/upgrading.py).
"""

from collections.abc import Iterable

import msgspec

from consensus.core.commands import (
    FAMILY,
    LIFECYCLE,
    AnyCommand,
    AppendVersion,
    CarryOutLifecycle,
    CreateUpload,
    DropDuty,
    Envelope,
    EventsDone,
    PurgeEvents,
    RenameVersion,
    ReportTarget,
    SetBucketSetting,
    SetLegalHold,
    SetNotification,
    SetQuota,
    SetRestored,
    TakeDuty,
)
from consensus.core.errors import Corrupt
from consensus.core.results import AnyResult

ENTRY_OLDEST, ENTRY_NEWEST = 1, 2
ENTRY_BYTES_MAX = 4 << 20
"""No entry is larger: the proposer closes a batch before."""

UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding bytes from elsewhere can raise. Text that is not UTF-8 is no MsgspecError, and neither is deep nesting."""

_encoder = msgspec.msgpack.Encoder()
_envelopes = msgspec.msgpack.Decoder(tuple[Envelope, ...])
_results = msgspec.msgpack.Decoder(tuple[AnyResult, ...])
_DECODERS = {1: _envelopes.decode, 2: _envelopes.decode}

SINCE_2: frozenset[type] = frozenset((
    SetQuota, AppendVersion, RenameVersion, SetRestored, SetNotification, EventsDone, PurgeEvents, ReportTarget,
    CarryOutLifecycle, TakeDuty, DropDuty,
))


class FutureEntry(Corrupt):
    """Of a version that this Staddle doesn't know: a later one has written it."""


def version_of(command: AnyCommand) -> int:
    """The oldest version whose readers carry out all that it says."""
    kind = type(command)
    if kind in SINCE_2:
        return 2
    if kind is SetBucketSetting:
        assert isinstance(command, SetBucketSetting)
        return 2 if command.name == LIFECYCLE or FAMILY in command.name else 1
    if kind is CreateUpload:
        assert isinstance(command, CreateUpload)
        return 2 if command.initiator or command.said else 1
    if kind is SetLegalHold:
        assert isinstance(command, SetLegalHold)
        return 2 if command.remembered else 1
    return 1


def version_of_all(commands: Iterable[AnyCommand]) -> int:
    return max(map(version_of, commands), default=ENTRY_OLDEST)


def encode_entry(envelopes: tuple[Envelope, ...] | list[Envelope]) -> bytes:
    return bytes((version_of_all(envelope.command for envelope in envelopes),)) + _encoder.encode(envelopes)


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
