"""Storage nodes: registered at each start, they alone announce and withdraw the copies that they hold.

A node's *number* stands for (node, incarnation of its disk). Another incarnation gets another number, so that every
location on the lost disk stops counting in the step that says so; the rows are tidied up later, in pages.
"""

from consensus.apply import chunks, queue
from consensus.apply.sessions import Sessions
from consensus.apply.state import State, count_fits, texts_fit
from consensus.core.commands import CHUNKS_PER_COMMAND_MAX, Announce, RegisterNode, Withdraw
from consensus.core.ids import DIGEST_BYTES, Digest, Generation, NodeId, parse_node_id
from consensus.core.model import NodeInfo
from consensus.core.results import Announced, AnyResult, Malformed, SessionOpened, Withdrawn

NODES_MAX = 4096
"""Names of all nodes are read with each version: 4096 make about 64 KiB, already more than one wants there."""


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
    info = NodeInfo(node=command.node, incarnation=command.incarnation, address=command.address, zone=command.zone,
                    capacity_bytes=command.capacity_bytes)
    if known is not None and known[1].incarnation == command.incarnation:
        _write(state, known[0], info)
    else:
        _renumber(state, known[0] if known else None, info)
    return SessionOpened(session=sessions.start(f"node {command.node}", command.node).id)


def _renumber(state: State, old: int | None, info: NodeInfo) -> None:
    """A new node, or a new disk: a fresh number, and all chunk rows are looked through again."""
    if old is not None:
        state.touch()
        state.execute("DELETE FROM node WHERE number = ?", (old,))
        del state.names[old]
    number = state.get_meta("next_node") or 1
    state.set_meta("next_node", number + 1)
    _write(state, number, info)
    state.names[number] = info.node
    state.count_nodes()
    state.save_node_map()
    state.touch()
    state.execute("DELETE FROM queue WHERE kind = ?", (queue.REVIEW,))     # at most one: this one starts over
    state.enqueue(queue.REVIEW, 0, b"")


def _write(state: State, number: int, info: NodeInfo) -> None:
    state.touch()
    state.execute(
        "INSERT OR REPLACE INTO node (number, id, incarnation, address, zone, capacity, state)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (number, info.node, info.incarnation, info.address, info.zone, info.capacity_bytes, info.state),
    )
    state.nodes[info.node] = number, info


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
