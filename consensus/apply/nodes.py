"""Storage nodes: registered at each start, they alone announce and withdraw the copies that they hold.

A node's *number* stands for (node, incarnation of its disk). Another incarnation gets another number, so that every
location on the lost disk stops counting in the step that says so; the rows are tidied up later, in pages.
"""

from typing import Any

from consensus.apply import chunks, queue
from consensus.apply.sessions import Sessions
from consensus.apply.state import State, count_fits, texts_fit
from consensus.core.commands import (
    CHUNKS_PER_COMMAND_MAX,
    Announce,
    AskNode,
    RegisterNode,
    RemoveNode,
    SetNodeState,
    Withdraw,
)
from consensus.core.ids import DIGEST_BYTES, Digest, Generation, NodeId, parse_node_id
from consensus.core.results import Announced, AnyResult, Done, Malformed, NodeInUse, NoNode, SessionOpened, Withdrawn
from consensus.rows import NODE_COLUMNS, decode_locations, node_info

NODES_MAX = 4096
"""Names of all nodes are read with each version: 4096 make about 64 KiB, already more than one wants there."""

UP, DOWN, LOST, DRAINING = "up", "down", "lost", "draining"

STATES = (UP, "full", "read-only", DOWN, LOST)
"""What a node says of itself, or the leader of it: see SetNodeState."""

ASKED = ("", DRAINING, "read-only")

UNEQUAL_LOOKED_AT_MAX = 1000
"""Rows that the removal of a node looks at: some milliseconds."""


def register_node(state: State, sessions: Sessions, command: RegisterNode) -> AnyResult:
    """The node has started: what it sent before in other sessions counts no more, in this same step."""
    try:
        parse_node_id(command.node)
    except ValueError as error:
        return Malformed(reason=str(error))
    if not (0 < len(command.incarnation) <= 64 and texts_fit(command.address, command.zone)
            and count_fits(command.capacity_bytes)):
        return Malformed(reason="a node has an incarnation of at most 64 bytes, short texts and a capacity")
    known = state.nodes.get(command.node)
    if known is None and len(state.nodes) >= NODES_MAX:
        return Malformed(reason=f"a cluster has at most {NODES_MAX} nodes")
    for id in [session.id for session in sessions.open.values() if session.node == command.node]:
        sessions.stop(id)
    number, row = (None, None) if known is None else (known[0], _row(state, known[0]))
    asked, since = ("", state.now) if row is None else (row[8], row[7] if row[6] == UP else state.now)
    rest = (command.node, command.incarnation, command.address, command.zone, command.capacity_bytes, UP, since, asked)
    if known is not None and known[1].incarnation == command.incarnation:
        _write(state, (known[0], *rest))
    else:
        _renumber(state, number, rest)
    return SessionOpened(session=sessions.start(f"node {command.node}", command.node).id)


def _renumber(state: State, old: int | None, rest: tuple[Any, ...]) -> None:
    """A new node, or a new disk: a fresh number, and all chunk rows are looked through again."""
    if old is not None:
        state.touch()
        state.execute("DELETE FROM node WHERE number = ?", (old,))
        del state.names[old]
    number = state.get_meta("next_node") or 1
    state.set_meta("next_node", number + 1)
    state.names[number] = rest[0]
    _write(state, (number, *rest))
    state.save_node_map()
    _begin_review(state)


def _begin_review(state: State) -> None:
    state.touch()
    state.execute("DELETE FROM queue WHERE kind = ?", (queue.REVIEW,))     # at most one: this one starts over
    state.enqueue(queue.REVIEW, 0, b"")


def _row(state: State, number: int) -> tuple[Any, ...]:
    """NODE_COLUMNS of it."""
    found: tuple[Any, ...] = state.execute(f"SELECT {NODE_COLUMNS} FROM node WHERE number = ?", (number,)).fetchone()
    return found


def _write(state: State, row: tuple[Any, ...]) -> None:
    """`row` is NODE_COLUMNS. If other copies count now than before, all are looked through."""
    state.touch()
    state.execute(f"INSERT OR REPLACE INTO node ({NODE_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    counted = state.uncounted
    state.nodes[row[1]] = row[0], node_info(row)
    state.count_nodes()
    if state.uncounted != counted:
        _begin_review(state)


def set_node_state(state: State, command: SetNodeState) -> AnyResult:
    known = state.nodes.get(command.node)
    if known is None:
        return NoNode()
    if command.state not in STATES:
        return Malformed(reason=f"a node's state is one of {', '.join(STATES)}")
    row = _row(state, known[0])
    if row[6] != command.state and not (command.state == LOST and row[6] != DOWN):
        _write(state, (*row[:6], command.state, state.now, row[8]))
    return Done()


def ask_node(state: State, command: AskNode) -> AnyResult:
    known = state.nodes.get(command.node)
    if known is None:
        return NoNode()
    if command.asked not in ASKED:
        return Malformed(reason="a node may be asked to be draining or read-only, or nothing")
    row = _row(state, known[0])
    if row[8] != command.asked:
        _write(state, (*row[:8], command.asked))
    return Done()


def remove_node(state: State, sessions: Sessions, command: RemoveNode) -> AnyResult:
    known = state.nodes.get(command.node)
    if known is None:
        return NoNode()
    reason = _in_use(state, known[0], command)
    if reason:
        return NodeInUse(reason=reason)
    for id in [session.id for session in sessions.open.values() if session.node == command.node]:
        sessions.stop(id)
    number = known[0]
    state.touch()
    state.execute("DELETE FROM node WHERE number = ?", (number,))
    del state.names[number], state.nodes[command.node]
    state.count_nodes()
    state.save_node_map()
    _begin_review(state)
    return Done()


def _in_use(state: State, number: int, command: RemoveNode) -> str:
    """Why the node may not be removed. While it drains, each row that lists it lacks copies or has one too many, once all have
    been looked through: so those are all that must be looked at, and they are few when it is done."""
    row = _row(state, number)
    if command.force:
        return "" if row[6] in (DOWN, LOST) else "only a node that is down may be removed with what it holds"
    if row[8] != DRAINING:
        return "it is not draining"
    if state.execute("SELECT 1 FROM queue WHERE kind = ? LIMIT 1", (queue.REVIEW,)).fetchone():
        return "the chunks are being looked through for what it holds: ask again in a while"
    rows = state.execute("SELECT locations FROM chunk WHERE short <> 0 LIMIT ?", (UNEQUAL_LOOKED_AT_MAX + 1,)).fetchall()
    if any(number in decode_locations(packed) for (packed,) in rows):
        return "it still holds copies that are to be made elsewhere"
    if len(rows) > UNEQUAL_LOOKED_AT_MAX:
        return f"more than {UNEQUAL_LOOKED_AT_MAX} chunks lack copies or have too many: ask again when they don't"
    return ""


def announce(state: State, command: Announce) -> AnyResult:
    number = _own_number(state, command.node, command.copies)
    if isinstance(number, Malformed):
        return number
    if state.nodes[command.node][1].incarnation != command.incarnation:
        return Malformed(reason="that disk is not this node's present one")
    return Announced(counted=sum(chunks.announce(state, number, digest, generation)
                                 for digest, generation in command.copies))


def withdraw(state: State, command: Withdraw) -> AnyResult:
    number = _own_number(state, command.node, command.copies)
    if isinstance(number, Malformed):
        return number
    return Withdrawn(places=tuple(place for place, (digest, generation) in enumerate(command.copies)
                                  if chunks.withdraw(state, number, digest, generation, command.damaged)))


def _own_number(state: State, node: NodeId, copies: tuple[tuple[Digest, Generation], ...]) -> int | Malformed:
    """Only the node itself speaks for its copies, in the session of its present start. Else a message from before a
    restart could arrive after the node, knowing nothing of it, has deleted the copy."""
    if node not in state.nodes or state.session_node != node:
        return Malformed(reason="only the node itself, in the session of its registration, speaks for its copies")
    if len(copies) > CHUNKS_PER_COMMAND_MAX or not all(
        len(digest) == DIGEST_BYTES and count_fits(generation.session) and count_fits(generation.sequence)
        for digest, generation in copies
    ):
        return Malformed(reason=f"at most {CHUNKS_PER_COMMAND_MAX} copies, each a digest and a generation")
    return state.nodes[node][0]
