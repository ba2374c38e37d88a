"""What gateways, storage nodes and metadata members say to each other over `core.wire`: operations, statuses, payloads.

| operation | payload | answer |
| --- | --- | --- |
| SUBMIT | msgpack array of envelopes | msgpack array of results, in the same order |
| PING | msgpack array of the sender's open sessions | msgpack array of those that have ended |
| WATCH | nothing | Serving; and again, as a push, whenever it changes |
| STATUS | nothing | Status |
| QUERY | msgpack array: the name of a function in queries.py, then its arguments | its value |
| RECOUNT | nothing | msgpack array of sentences: what doesn't fit (consensus/audit.py), at most 1,000 |
| BACKUP_TAKE | msgpack name of an open backup | Taking: how far its copy is; asked again until it is made |
| | msgpack "" | nothing; the files of backups that were dropped go |
| BACKUP_READ | msgpack (name, offset, length) | a page of its exported form, at most 1 MiB |
| | msgpack ("", 0, 0) | msgpack array of the Descriptors of all copies |
| DAMAGE | as QUERY's: a question whose answer was damage, for the member to ask itself and mend what it finds | nothing |
| HOUSEKEEP | msgpack: Housekeep | msgpack array: units released, whether more is left |
| READ_INDEX | nothing | msgpack integer: a read of the member's file that shows this entry is linearizable |
| MEET | nothing | Met: what a member knows of a cluster; asked before one is born or joined. Members only |
| JOIN | msgpack: Joining | Met, once the cluster has taken the member in as a learner. Members only |
| LEAVE | msgpack name of a member | nothing; the member is none any more |

A status other than OK has a sentence as its payload.

In a group of several members each answers WATCH, STATUS, QUERY, READ_INDEX, RECOUNT and DAMAGE itself; what changes the log
(SUBMIT, PING, HOUSEKEEP, JOIN, LEAVE, BACKUP_TAKE) it passes on to the leader, and the answer back, without looking inside.
Operations 32 to 47 are Raft's own frames (consensus/group).
"""

import msgspec

from consensus.backup import Descriptor, Taking
from consensus.core.commands import EndSession, Envelope, OpenSession, RegisterNode
from consensus.core.errors import ClusterError, Corrupt, NoSpace, NotYet, ReadOnly, Refused, Unavailable, UnknownOutcome
from consensus.core.model import Member
from consensus.core.wire import OK, Link

SUBMIT, PING, WATCH, STATUS, QUERY = 1, 2, 3, 4, 5
RECOUNT, BACKUP_TAKE, BACKUP_READ, HOUSEKEEP, DAMAGE = 6, 7, 8, 9, 10
READ_INDEX, MEET, JOIN, LEAVE = 11, 12, 13, 14
BESIDE = frozenset({RECOUNT, BACKUP_TAKE, BACKUP_READ})
"""Answered by consensus.beside."""

LEADERS = frozenset({SUBMIT, PING, HOUSEKEEP, JOIN, LEAVE, BACKUP_TAKE})
"""Answered by who leads; another member passes them on."""

RAFT_FIRST, RAFT_LAST = 32, 47

UNAVAILABLE, UNKNOWN, REFUSED, CORRUPT, NO_SPACE, READ_ONLY, NOT_YET = 1, 2, 3, 4, 5, 6, 7

_ERRORS: dict[int, type[ClusterError]] = {
    READ_ONLY: ReadOnly, NOT_YET: NotYet, UNAVAILABLE: Unavailable, UNKNOWN: UnknownOutcome, REFUSED: Refused, CORRUPT: Corrupt,
    NO_SPACE: NoSpace,
}

SUBMIT_COMMANDS_MAX = 512
SUBMIT_BYTES_MAX = 1 << 20
"""Of one SUBMIT: it goes into one log entry as a whole. A single command may be larger, up to ENVELOPE_BYTES_MAX."""

ENVELOPE_BYTES_MAX = 2 << 20

WITHOUT_SESSION = (OpenSession, EndSession, RegisterNode)
"""Commands that may come in session 0: they begin or end sessions, and a repeat of them does no harm."""


class Serving(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The member is up to date and answers. `epoch` is new at each start; `generation` names its SQLite file.

    `alone`: no read index has to be asked for. `led`: it knows a leader, so what it is given can get on. `members`: where
    the metadata members of the cluster are (HOST:PORT), this one too, which is at `address`.
    """

    epoch: str
    generation: int
    alone: bool = True
    led: bool = True
    members: tuple[str, ...] = ()
    address: str = ""


class Met(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What a member knows of its cluster: nothing (no members) before it is born. `may_begin`: it would give birth to one
    itself; of several that would, the one with the least name does. `serves`: it is up to date, so a majority is there."""

    name: str
    incarnation: bytes
    may_begin: bool
    members: tuple[Member, ...] = ()
    serves: bool = False


class Joining(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Who asks to be a member: new, or back with an empty folder (another incarnation), or at another address."""

    name: str
    address: str
    incarnation: bytes


class Housekeep(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Release now what nothing refers to, for at most `for_s` seconds. `grace_s`: what readers of deleted objects still
    get; None for as much as is set."""

    grace_s: float | None = None
    for_s: float = 1.0


class MemberStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One member of the cluster's metadata, as another sees it. `match`: the last entry that it has said to hold durably;
    `heard_s`: how long ago. Both None where nobody knows: only the leader is told."""

    name: str
    address: str
    voter: bool
    connected: bool
    match: int | None = None
    heard_s: float | None = None


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """For people and metrics."""

    role: str
    term: int
    leader: str
    commit_index: int
    applied_index: int
    generation: int
    sessions: int
    links: int
    journal_bytes: int
    journal_segments: int
    journal_written_bytes: int
    syncs: int
    sync_seconds: float
    last_sync_s: float
    entries: int
    commands: int
    snapshot_index: int
    refusing: str = ""
    """Why commands that bring data are refused: `full` or `read-only`; empty when they aren't."""
    checked_ms: int = 0
    findings: tuple[str, ...] = ()
    """When SQLite last looked over the whole file, and what it found: empty is good."""
    name: str = ""
    alone: bool = True
    members: tuple[MemberStatus, ...] = ()
    fetched_bytes: int = 0
    of_bytes: int = 0
    """While it fetches a snapshot: how far it is."""
    reads: int = 1
    """The newest version of entries that it reads (consensus/core/codec.py)."""


envelopes = msgspec.msgpack.Decoder(tuple[Envelope, ...])
sessions = msgspec.msgpack.Decoder(tuple[int, ...])
serving = msgspec.msgpack.Decoder(Serving)
status = msgspec.msgpack.Decoder(Status)
met = msgspec.msgpack.Decoder(Met)
joining = msgspec.msgpack.Decoder(Joining)
index = msgspec.msgpack.Decoder(int)
housekeep = msgspec.msgpack.Decoder(Housekeep)
kept_house = msgspec.msgpack.Decoder(tuple[int, bool])
query = msgspec.msgpack.Decoder(tuple[msgspec.Raw, ...])
sentences = msgspec.msgpack.Decoder(list[str])
taking = msgspec.msgpack.Decoder(Taking)
descriptors = msgspec.msgpack.Decoder(list[Descriptor])
encode = msgspec.msgpack.Encoder().encode


def error_of(status_code: int, payload: bytes) -> ClusterError:
    """The error that a status stands for."""
    assert status_code != OK
    return _ERRORS.get(status_code, Unavailable)(payload.decode(errors="replace"))


def status_of(error: ClusterError) -> int:
    for code, kind in _ERRORS.items():
        if isinstance(error, kind):
            return code
    return UNAVAILABLE


def refuse(link: Link, operation: int, request_id: int, error: Exception) -> None:
    """Answer with a ClusterError, or with what decoding a request has raised."""
    if isinstance(error, ClusterError):
        link.send(operation, status_of(error), request_id, str(error).encode())
    else:
        link.send(operation, REFUSED, request_id, f"cannot be decoded: {error}".encode())


def array_body(raw: bytes) -> memoryview:
    """The elements of a msgpack array (one that could be decoded) without its head: so arrays can be joined."""
    first = raw[0]
    if first & 0xF0 == 0x90:
        return memoryview(raw)[1:]
    assert first in (0xDC, 0xDD), "not a msgpack array"
    return memoryview(raw)[3 if first == 0xDC else 5:]


def array_head(count: int) -> bytes:
    return b"\xdd" + count.to_bytes(4, "big")
