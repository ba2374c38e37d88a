"""Configurations: who belongs to the group and who is counted, as bytes in the log, and which change may follow which.

One member changes at a time: then a majority before the change and one after it always have a voter in common.
"""

from collections.abc import Iterable

import msgspec

from consensus.core.codec import UNDECODABLE
from consensus.core.errors import Corrupt, Refused
from consensus.core.model import Member
from consensus.journal import CONFIGURATION

VERSION = 1
MEMBERS_MAX = 64
"""Learners included: each gets the whole log from the leader."""

Members = tuple[Member, ...]

_decoder = msgspec.msgpack.Decoder(Members)


def encode(members: Members) -> bytes:
    """The log entry."""
    return bytes((CONFIGURATION, VERSION)) + msgspec.msgpack.encode(members)


def decode(entry: bytes) -> Members:
    """Raises Corrupt for bytes that no version of Staddle wrote."""
    if entry[:2] != bytes((CONFIGURATION, VERSION)):
        raise Corrupt(f"a configuration of version {entry[1:2].hex() or 'none'}: this Staddle reads {VERSION}")
    try:
        members = _decoder.decode(memoryview(entry)[2:])
    except UNDECODABLE as error:
        raise Corrupt(f"a configuration cannot be decoded: {error}") from error
    if len({member.name for member in members}) != len(members) or not any(member.voter for member in members):
        raise Corrupt("a configuration names a member twice, or no voter")
    return members


def find(members: Members, name: str) -> Member | None:
    return next((member for member in members if member.name == name), None)


def voters(members: Members) -> Members:
    return tuple(member for member in members if member.voter)


def majority(members: Members) -> int:
    return len(voters(members)) // 2 + 1


def with_member(members: Members, fresh: Member) -> Members:
    """Add one as a learner. One that comes back with another incarnation has lost what it had: it begins as a learner
    again. One that has only moved keeps its vote. Raises Refused."""
    known = find(members, fresh.name)
    if known is None:
        if len(members) >= MEMBERS_MAX:
            raise Refused(f"a cluster has at most {MEMBERS_MAX} metadata members")
        return (*members, msgspec.structs.replace(fresh, voter=False))
    voter = known.voter and known.incarnation == fresh.incarnation
    return _replaced(members, msgspec.structs.replace(fresh, voter=voter))


def with_voter(members: Members, name: str) -> Members:
    known = find(members, name)
    if known is None:
        raise Refused(f"there is no metadata member {name}")
    return _replaced(members, msgspec.structs.replace(known, voter=True))


def without(members: Members, name: str) -> Members:
    if find(members, name) is None:
        raise Refused(f"there is no metadata member {name}")
    left = tuple(member for member in members if member.name != name)
    if not voters(left):
        raise Refused(f"{name} is the only one that has the metadata")
    return left


def _replaced(members: Members, fresh: Member) -> Members:
    left = tuple(fresh if member.name == fresh.name else member for member in members)
    if not voters(left):
        raise Refused(f"{fresh.name} is the only one that has the metadata")
    return left


def addresses(members: Iterable[Member], but: str) -> dict[str, str]:
    """Where each of the others is."""
    return {member.name: member.address for member in members if member.name != but}
