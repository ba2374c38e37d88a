"""What members say to each other: one operation of core.wire per kind, msgpack arrays of exactly these types.

A *request* goes over the sender's own link to the other; its *answer* comes back over the same link. So a link that is
silent after a request is dead in one direction or the other, and whoever asked dials again.

Whatever does not decode into these types closes the link that it came by, and nothing else happens.
"""

from typing import Annotated

import msgspec

from consensus.core.codec import UNDECODABLE
from consensus.core.errors import Refused

VERSION = 1

HELLO = 32
APPEND, APPENDED = 33, 34
ASK_VOTE, VOTED = 35, 36
PROBE, PROBED = 37, 38
READ, READABLE = 39, 40
BEHIND = 41
PAGE, PAGED = 42, 43
CAMPAIGN = 44

Term = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
Index = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
Command = Annotated[bytes, msgspec.Meta(min_length=1)]
Incarnation = Annotated[bytes, msgspec.Meta(min_length=1, max_length=64)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of all."""


class Hello(Message, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The first frame of a link: who is here, and where. Its certificate has to name the same member. `returns`: we only
    dial because you have dialled us; without it, two that know each other no more would hold each other for ever."""

    version: int
    name: Name
    address: Annotated[str, msgspec.Meta(max_length=300)]
    returns: bool


class Append(Message, frozen=True, array_like=True, forbid_unknown_fields=True):
    """From the leader of `term`: entries after `previous`, which may be none. `entries` are (term, entry)."""

    term: Term
    commit: Index
    previous: Index
    previous_term: Term
    entries: list[tuple[Term, Command]]


class Appended(Message, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Held back until it is durable. `reset`: send again from `next` on."""

    term: Term
    incarnation: Incarnation
    next: Index
    reset: bool
    success: bool


class AskVote(Message, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`trial`: only whether a vote in that term would be had; nobody's term changes. `handed`: the leader has asked for
    this election, so those who hear it need not be loyal."""

    term: Term
    last: Index
    last_term: Term
    trial: bool
    handed: bool


class Voted(Message, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`term` is what was asked for; `own_term` the answerer's."""

    term: Term
    own_term: Term
    incarnation: Incarnation
    trial: bool
    granted: bool


class Probe(Message, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Are you still in my term?"""

    term: Term
    number: int


class Probed(Message, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Only said in the same term."""

    term: Term
    incarnation: Incarnation
    number: int


class Read(Message, frozen=True, array_like=True, forbid_unknown_fields=True):
    """To the leader: an index for reads that have begun."""

    number: int


class Readable(Message, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`index` 0: not from me, I don't lead."""

    number: int
    index: Index


class Behind(Message, frozen=True, array_like=True, forbid_unknown_fields=True):
    """From the leader of `term`, in place of entries: its log begins at `first`. Fetch a snapshot."""

    term: Term
    first: Index


class Page(Message, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Bytes of a snapshot from `offset` on. `index` 0: the newest there is."""

    number: int
    index: Index
    offset: Index


class Paged(Message, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`size` 0: there is none (yet), ask again."""

    number: int
    index: Index
    term: Term
    size: Index
    crc32: int
    offset: Index
    data: bytes


class Campaign(Message, frozen=True, array_like=True, forbid_unknown_fields=True):
    """From the leader of `term`, which stops: be elected at once."""

    term: Term


KINDS: dict[int, type[Message]] = {
    HELLO: Hello, APPEND: Append, APPENDED: Appended, ASK_VOTE: AskVote, VOTED: Voted, PROBE: Probe, PROBED: Probed,
    READ: Read, READABLE: Readable, BEHIND: Behind, PAGE: Page, PAGED: Paged, CAMPAIGN: Campaign,
}
ANSWERS = frozenset({APPENDED, VOTED, PROBED, READABLE, PAGED})
ANSWERED = frozenset({APPEND, BEHIND, ASK_VOTE, PROBE, READ, PAGE})
"""Requests that are answered in any case, within a round trip and a sync. What comes from an older term is answered by the
newer one, as a vote that was not given. BEHIND is answered as APPEND is."""

_decoders = {operation: msgspec.msgpack.Decoder(kind, strict=True) for operation, kind in KINDS.items()}
_encode = msgspec.msgpack.Encoder().encode
_operations = {kind: operation for operation, kind in KINDS.items()}


def encode(message: Message) -> tuple[int, bytes]:
    """(operation, payload)"""
    return _operations[type(message)], _encode(message)


def decode(operation: int, payload: bytes | memoryview) -> Message:
    """Raises Refused for anything that is not exactly such a message."""
    decoder = _decoders.get(operation)
    if decoder is None:
        raise Refused(f"there is no operation {operation} between members")
    try:
        message: Message = decoder.decode(payload)
    except UNDECODABLE as error:
        raise Refused(f"a frame of operation {operation} that cannot be understood: {error}") from error
    return message
