"""Storage nodes, what they hold and what is wrong with it; the metadata member."""

from typing import Annotated

from gateway.admin.values.common import Answer, Request, about


class OneNode(Request, frozen=True, kw_only=True):
    node: Annotated[str, about("This storage node only; empty for all.")] = ""


class NodeStat(Answer, frozen=True, kw_only=True):
    """`statistics` and `care` (scrub, settling, comparison, compaction, upkeep) as the node tells them, in bytes, seconds and ms
    since 1970, counters since its start. Empty while it does not answer: `error` says why. `state`: up, read-only, full,
    draining or down, `since` when; `asked`: what an admin wants of it; `counts`: whether its copies are counted on.

    `to_fetch` copies of `to_fetch_bytes` it has still to make, as far as it knows, in about `seconds_left` (0: not known);
    `to_give_back`: copies that it has too many. `share`: how much of a rebalancing is done, 1 when none is under way."""

    node: str
    state: str
    zone: str
    address: str
    capacity_bytes: int
    error: str
    statistics: dict[str, int | float | bool | str]
    care: dict[str, object]
    since: str = ""
    asked: str = ""
    counts: bool = True
    to_fetch: int = 0
    to_fetch_bytes: int = 0
    to_give_back: int = 0
    share: float = 1.0
    seconds_left: float = 0.0


class NodeList(Answer, frozen=True, kw_only=True):
    """`logical_bytes`: what the objects add up to; `stored_bytes`: what the nodes hold, copies included. `saved_bytes`:
    what deduplication and copying by reference spare, counted with as many copies as are kept; 0 while some are lacking or a
    node does not say.

    `short`: chunks that lack copies, by how many they have left; `short_bytes` in them. `oldest_seconds`: how long the nodes know
    of the one that has waited longest: the lag of asynchronous replication. `over`: chunks with copies that will be given back.
    Counted to 100,000."""

    nodes: list[NodeStat]
    copies: int
    logical_bytes: int
    stored_bytes: int
    saved_bytes: int
    short: dict[str, int] = {}
    short_bytes: int = 0
    oldest_seconds: float = 0.0
    over: int = 0


class AskNode(Request, frozen=True, kw_only=True):
    node: Annotated[str, about("Name of the storage node.")]


class ReadOnlyNode(Request, frozen=True, kw_only=True):
    node: Annotated[str, about("Name of the storage node.")]
    on: Annotated[bool, about("False: it takes chunks again.")] = True


class RemoveNode(Request, frozen=True, kw_only=True):
    node: Annotated[str, about("Name of the storage node.")]
    force: Annotated[bool, about("Remove a node that is down, and give up what only it holds.")] = False


class DamageList(Answer, frozen=True, kw_only=True):
    copies: list["Damage"]


class Damage(Answer, frozen=True, kw_only=True):
    """A copy that was found damaged. `became`: repaired, withdrawn or removed; empty while that is to come."""

    node: str
    digest: str
    generation: str
    reason: str
    when: str
    size: int
    became: str


class MetadataStatus(Answer, frozen=True, kw_only=True):
    """The metadata member, and what waits in it. `short_chunks`: with fewer copies than wanted, counted up to 10,000."""

    role: str
    term: int
    leader: str
    applied_index: int
    commit_index: int
    snapshot_index: int
    sessions: int
    journal_bytes: int
    journal_segments: int
    syncs: int
    sync_seconds: float
    entries: int
    commands: int
    queued: int
    short_chunks: int
