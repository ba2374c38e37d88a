"""What must never happen, looked at while it runs: two leaders in a term, two entries at an index, a copy deleted that
counts, a copy that counts and isn't there, a queue without bound.
"""

import asyncio
import sqlite3
import zlib
from typing import Any

from consensus import queries
from consensus.core.ids import Generation, NodeId
from consensus.machine import Machine as StateMachine
from consensus.raft import RaftNode
from storage_node.index import Copy
from tests.sim.clock import CURRENT, Process
from tests.sim.machines import Machine
from tests.sim.world import World

_chunk_states = queries.chunk_states          # whatever a control makes of it

LOOK_S = 1.0

CONNECTION_BYTES_MAX = 64 << 20
COMMANDS_WAITING_MAX = 4096
"""Promise 8: far more than a few clients can ask for at once, far less than a minute of them."""


class Watch:
    """`install` puts it into the product, `uninstall` takes it out again."""

    def __init__(self, world: World, machines: list[Machine]) -> None:
        self._world, self._machines = world, machines
        self._entries: dict[int, tuple[int, str]] = {}
        self._leaders: dict[int, Process] = {}
        self._kept: list[tuple[Any, str, Any]] = []
        self.wiped: set[str] = set()
        for machine in machines:
            machine.on_copies_go = self.copies_go

    def install(self) -> None:
        apply, became = StateMachine.apply, RaftNode._SyncObj__onBecomeLeader

        def watched_apply(machine: StateMachine, entry: bytes, index: int, *rest: Any) -> Any:
            self.applied(index, entry)
            return apply(machine, entry, index, *rest)

        def watched_became(node: RaftNode) -> Any:
            self.leads(node)
            return became(node)

        for where, name, stand_in in ((StateMachine, "apply", watched_apply),
                                      (RaftNode, "_SyncObj__onBecomeLeader", watched_became)):
            self._kept.append((where, name, getattr(where, name)))
            setattr(where, name, stand_in)

    def uninstall(self) -> None:
        for where, name, real in self._kept:
            setattr(where, name, real)

    def applied(self, index: int, entry: bytes) -> None:
        process, crc = CURRENT.get(), zlib.crc32(entry)
        known, by = self._entries.setdefault(index, (crc, process.name if process else ""))
        if known != crc:
            self._world.violation(f"promise 5: entry {index} of {process.name if process else ''} is not that of {by}")

    def leads(self, node: RaftNode) -> None:
        process, term = CURRENT.get(), node.term
        assert process is not None
        self._world.note(f"{process.name} leads in term {term}")
        self._world.count("elections")
        other = self._leaders.setdefault(term, process)
        if other is not process:
            self._world.violation(f"promise 4: {other.name} and {process.name} both lead in term {term}")

    @property
    def last_index(self) -> int:
        """The last entry that was applied anywhere."""
        return max(self._entries, default=0)

    def newest(self) -> sqlite3.Connection | None:
        """The metadata of a member that has applied everything that any has; None if none is up."""
        for machine in self._machines:
            if "meta" in machine.processes and machine.meta is not None:
                state = getattr(machine.meta, "_machine", None)
                if state is not None and state.applied == self.last_index:
                    db: sqlite3.Connection = state.db
                    return db
        return None

    def copies_go(self, machine: Machine, copies: list[Copy]) -> None:
        db = self.newest()
        self._world.count("copies removed", len(copies))
        if db is None or not copies:
            return
        names = [(copy.digest, Generation.unpack(copy.generation)) for copy in copies]
        for copy, state in zip(copies, _chunk_states(db, NodeId(machine.name), names), strict=True):
            if state == "listed":
                self._world.violation(f"promise 3: {machine.name} deletes a copy that counts: "
                                      f"{copy.digest.hex()[:8]} {copy.generation.hex()}")

    async def run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            self.look()

    def look(self) -> None:
        world = self._world
        for connection in world.network.connections:
            if connection.out.bytes > CONNECTION_BYTES_MAX:
                world.violation(f"promise 8: {connection.out.bytes} bytes wait in a connection of {connection.process.name}")
        for machine in self._machines:
            gateway = machine.gateway
            if gateway is not None and gateway.metadata.commit_figures[2] > COMMANDS_WAITING_MAX:
                world.violation(f"promise 8: {gateway.metadata.commit_figures[2]} commands wait in {machine.name}")
        db = self.newest()
        if db is not None:
            self.look_at_copies(db)

    def look_at_copies(self, db: sqlite3.Connection) -> None:
        """Every copy that is listed is there."""
        incarnations = {node.node: node.incarnation for node in queries.nodes(db)}
        for machine in self._machines:
            node = NodeId(machine.name)
            if incarnations.get(node) != machine.store.incarnation or machine.name in self.wiped:
                continue
            for digest, generation in listed(db, node):
                if (digest, generation) not in machine.store._copies and \
                        (digest, generation) not in machine.store.damaged_by_faults:
                    self._world.violation(f"promise 3: {machine.name} is listed for a copy that it does not hold: "
                                          f"{digest.hex()[:8]} {generation.hex()}")


def listed(db: sqlite3.Connection, node: NodeId) -> set[tuple[bytes, bytes]]:
    """The copies that a node is listed for."""
    found: set[tuple[bytes, bytes]] = set()
    after: bytes | None = b""
    while after is not None:
        page = queries.listed_on(db, node, after)
        found |= {(digest, generation.pack()) for digest, generation in page.copies}
        after = page.after
    return found
