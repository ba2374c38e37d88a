"""The machines of a cluster and the tokens by which they join; what the server is."""

from typing import Annotated

import msgspec

from gateway.admin.values.common import Answer, Request, about


class ClusterMember(Answer, frozen=True, kw_only=True):
    """A machine's metadata member. One that doesn't vote follows, and is not counted. `applied_behind`: log entries that it
    is behind, `heard_s`: seconds since it was heard of; null where the asked member doesn't know, as only the leader does."""

    name: str
    address: str
    voter: bool
    leads: bool
    applied_behind: int | None
    heard_s: float | None


class ClusterStatus(Answer, frozen=True, kw_only=True):
    alone: bool
    leader: str
    term: int
    known_by: str
    commit_index: int
    applied_index: int
    members: list[ClusterMember]


class NewToken(Request, frozen=True, kw_only=True):
    hours: Annotated[int, msgspec.Meta(ge=1, le=24 * 30, description="How long it may be used.")] = 1


class MadeToken(Answer, frozen=True, kw_only=True):
    """`token` is shown this once."""

    token: str
    id: str
    expires: str


class TokenInfo(Answer, frozen=True, kw_only=True):
    """`state`: "may be used", "used" or "expired"."""

    id: str
    created: str
    expires: str
    state: str
    used_by: str
    used: str


class TokenList(Answer, frozen=True, kw_only=True):
    tokens: list[TokenInfo]


class OneToken(Request, frozen=True, kw_only=True):
    id: Annotated[str, about("Id of the token.")]


class OneMember(Request, frozen=True, kw_only=True):
    name: Annotated[str, about("Name of the machine.")]


class Version(Answer, frozen=True, kw_only=True):
    version: str
    python: str
    region: str


class ConfigInForce(Answer, frozen=True, kw_only=True):
    """Setting to value; secret ones are masked."""

    settings: dict[str, object]
