"""Random interleavings of everything that can happen to the copies of one chunk, on the real settler and the real apply.

Three nodes and their loops, a gateway with two sessions, the state machine; quorum 1, two copies wanted. A step is one of
theirs: begin an upload, store a copy, commit (with some of the acknowledgements; again; with a lost answer), abandon, let
the mark pass, end a session, delete an object, drain, take hints, a round of settling, mending, a crash, a damaged copy, a
message that arrives late. While a node asks the metadata, other steps come between: that is where the rules matter.

After every step must hold, for the one digest of a walk:
  L0  a command had its effect once
  L1  each location of the live row holds the row's generation (good, unless it was damaged and nobody has found out)
  L2  what is referred to has a good copy somewhere, unless the only one was damaged (in some walks)
and at the end, when everybody has done what is left to do:
  L3  every copy is listed and settled, nothing is noted as damaged, and what is referred to reads right from where the
      row says.
The model of the design says why each rule is needed; `test_interleavings.py` switches them off one by one.
"""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from consensus import queries
from consensus.core.commands import (
    AnyCommand,
    DeleteVersion,
    Drain,
    EndSession,
    Envelope,
    NewChunk,
    NewContent,
    PutVersion,
    RegisterNode,
)
from consensus.core.errors import ClusterError, Unavailable, UnknownOutcome
from consensus.core.ids import BucketId, Digest, Generation, NodeId, SessionId, digest
from consensus.core.model import Holder
from consensus.core.results import AnyResult, Committed, SessionOpened
from consensus.rows import decode_locations
from storage_node.care.settle import Settler
from storage_node.chunk import block_table
from storage_node.memory import MemoryStore
from storage_node.store import SETTLED, Copy
from tests.contract.chunk_store import StoppedClock
from tests.unit.consensus.metadata import PLAIN, Cluster, whole

STEPS = 60
DEPTH_MAX = 3
"""Steps within steps."""

LATER_MS = 120_000


class Violation(AssertionError):
    """What must hold doesn't."""


class Crashed(Exception):
    """The node's process is gone, in the middle of what it did."""


@dataclass
class Upload:
    session: int
    sequence: int
    acked: dict[str, bytes] = field(default_factory=dict)
    envelope: Envelope | None = None
    settled: bool = False         # answered, or given up
    took_effect: bool = False

    @property
    def generation(self) -> Generation:
        return Generation(SessionId(self.session), self.sequence)


class Link:
    """The metadata, as one node reaches it: answers get lost, and other things happen meanwhile."""

    def __init__(self, world: "World", node: str) -> None:
        self.world, self.node = world, node

    async def register(self, command: RegisterNode) -> SessionOpened:
        await self.world.meanwhile(self.node)
        session = self.world.cluster.register(self.node, command.incarnation)
        return SessionOpened(session=session)

    async def commit(self, command: AnyCommand) -> AnyResult:
        world = self.world
        await world.meanwhile(self.node)
        cluster = world.cluster
        session = cluster.node_sessions[self.node]
        sequence = cluster.next.get(session, 0)
        envelope = cluster.envelope(command, session, sequence, low=sequence)
        fate = world.chance.random()
        if fate < world.lossy:
            world.late.append(envelope)
            raise UnknownOutcome("lost on its way")
        (result,) = cluster.send(envelope)
        if fate < 2 * world.lossy:
            world.late.append(envelope)                 # it will come once more
        await world.meanwhile(self.node)
        if fate > 1 - world.lossy / 2:
            raise UnknownOutcome("the answer was lost")
        return result

    async def _read(self, query: Callable[..., Any], *arguments: Any) -> Any:
        await self.world.meanwhile(self.node)
        answer = self.world.cluster.read(query, *arguments)
        await self.world.meanwhile(self.node)
        return answer

    async def chunk_states(self, node: NodeId, copies: list[tuple[Digest, Generation]]) -> Any:
        return await self._read(queries.chunk_states, node, copies)

    async def live_chunks(self, node: NodeId, digests: list[Digest]) -> Any:
        return await self._read(queries.live_chunks, node, digests)

    async def listed_on(self, node: NodeId, after: bytes = b"", limit: int = 1000) -> Any:
        return await self._read(queries.listed_on, node, after, limit)

    async def lineage(self) -> Any:
        return await self._read(queries.lineage)

    async def released(self, node: NodeId, after: int = 0, limit: int = 300) -> Any:
        return await self._read(queries.released, node, after, limit)


class Node:
    def __init__(self, world: "World", name: str) -> None:
        self.world, self.name = world, name
        self.store = MemoryStore(world.clock)
        self.link = Link(world, name)
        self.crashing = False
        self.working = False

    async def start(self) -> None:
        await self.register()
        self.settler = Settler(self.store, self.link, NodeId(self.name), register=self.register, clock=self.world.clock,
                               read_grace_s=0)

    async def register(self) -> None:
        await self.link.register(RegisterNode(node=NodeId(self.name), incarnation=self.store.incarnation,
                                              address=f"unix:/{self.name}"))

    async def work(self, step: Callable[[], Awaitable[object]]) -> None:
        """A step of the node's one task. It may fail, and it may be the last of this process."""
        self.working = True
        while True:
            try:
                await step()
            except ClusterError:
                pass
            except Crashed:
                self.crashing = False
                step = self.start
                continue
            break
        self.working = False


class World:
    """One cluster for many walks, each about a digest of its own."""

    def __init__(self, cluster: Cluster, bucket: BucketId, clock: StoppedClock) -> None:
        self.cluster, self.bucket, self.clock = cluster, bucket, clock
        self.nodes = {name: Node(self, name) for name in ("n1", "n2", "n3")}
        self.chance = random.Random(0)
        self.depth = DEPTH_MAX                          # nothing happens meanwhile while the world is set up
        self.trace: list[str] = []
        self.lossy = 0.0
        self.late: list[Envelope] = []
        self.walk = 0

    async def start(self) -> None:
        for node in self.nodes.values():
            await node.start()

    # A walk

    async def run(self, seed: int) -> None:
        """Raises Violation."""
        self.walk += 1
        self.chance = random.Random(seed)
        self.data = b"walk %d" % self.walk
        self.digest = digest(self.data)
        self.sessions = [self.cluster.open_session() for _ in range(2)]
        self.open = set(self.sessions)
        self.uploads: list[Upload] = []
        self.late = []
        self.keys: set[str] = set()
        self.any_damage = seed % 4 == 3
        self.uploads_max = self.chance.choice((1, 2, 3, 5))
        # Each walk has a temper of its own: some things happen often in it, some never. So rare orders come up too.
        self.temper = {name: self.chance.choice((0, 1, 1, 3)) for name in (
            "again", "abandon", "mark", "end", "delete", "drain", "deliver", "mend", "restart", "crash", "rot")}
        self.temper |= {name: self.chance.choice((1, 1, 3)) for name in ("begin", "keep", "commit", "settle")}
        self.lossy = self.chance.choice((0.0, 0.15, 0.4))
        if seed % 5 == 4:                               # one upload, and much talk about it
            self.uploads_max, self.lossy = 1, 0.4
            self.temper |= dict.fromkeys(("delete", "rot", "abandon", "end", "restart", "crash", "again"), 0)
            self.temper |= {"mark": 2, "keep": 3, "settle": 3, "deliver": 1}
        if seed % 20 == 7:                              # copies rot before they are committed
            self.uploads_max, self.lossy = 2, self.chance.choice((0.0, 0.4))
            self.temper |= dict.fromkeys(("delete", "mark", "abandon", "end", "restart", "crash", "again"), 0)
            self.temper |= {"rot": 1, "mend": 3, "keep": 1, "commit": 1, "deliver": 2}
        self.trace = []
        self.depth = 0
        for _ in range(STEPS):
            await self.step()
        self.depth = DEPTH_MAX
        await self.finish()

    async def meanwhile(self, node: str) -> None:
        """Others' steps, while this node waits."""
        if self.nodes[node].crashing and self.depth < DEPTH_MAX:
            raise Crashed
        if self.depth < DEPTH_MAX and self.chance.random() < 0.4:
            self.depth += 1
            try:
                for _ in range(self.chance.randrange(1, 4)):
                    await self.step()
            finally:
                self.depth -= 1
        if self.nodes[node].crashing and self.depth < DEPTH_MAX:
            raise Crashed

    async def step(self) -> None:
        name, act = self.chance.choice(self.possible())
        self.trace.append(f"{'  ' * self.depth}{name}")
        await act()
        self.check()

    def possible(self) -> list[tuple[str, Callable[[], Awaitable[None]]]]:
        steps: list[tuple[str, Callable[[], Awaitable[None]]]] = []

        def can(name: str, act: Callable[..., Awaitable[None]], *arguments: Any, weight: int = 1) -> None:
            steps.extend([(name, lambda: act(*arguments))] * (weight * self.temper[act.__name__]))

        if len(self.uploads) < self.uploads_max:
            for number, session in enumerate(self.sessions):
                can(f"upload begins in session {number}", self.begin, session)
        for upload in self.uploads:
            for name in self.nodes:
                can(f"{name} stores {upload.generation}", self.keep, upload, name, weight=1 if upload.settled else 3)
            if not upload.settled and upload.acked:
                can(f"commit of {upload.generation}", self.commit, upload, weight=3)
            if upload.envelope is not None:
                can(f"commit of {upload.generation} comes again", self.again, upload)
            if not upload.settled:
                can(f"{upload.generation} is abandoned", self.abandon, upload)
        for number, session in enumerate(self.sessions):
            if session in self.open:
                can(f"mark of session {number} moves", self.mark, session, weight=2)
                can(f"session {number} ends", self.end, session)
        for key in sorted(self.keys):
            can(f"{key} is deleted", self.delete, key, weight=2)
        can("drain", self.drain, weight=2)
        for envelope in self.late:
            can(f"late: {type(envelope.command).__name__}", self.deliver, envelope)
        for node in self.nodes.values():
            if not node.working:
                can(f"{node.name} settles", self.settle, node, weight=5)
                can(f"{node.name} mends", self.mend, node, weight=2)
                can(f"{node.name} restarts", self.restart, node)
            elif not node.crashing:
                can(f"{node.name} crashes", self.crash, node)
            for copy in self.may_be_damaged(node):
                can(f"{node.name}: {Generation.unpack(copy.generation)} rots", self.rot, node, copy)
        return steps

    # Steps of gateways

    async def begin(self, session: int) -> None:
        sequence = self.cluster.next[session]
        self.cluster.next[session] = sequence + 1
        self.uploads.append(Upload(session, sequence))

    async def keep(self, upload: Upload, name: str) -> None:
        node = self.nodes[name]
        await node.store.put(self.digest, upload.generation, self.data, block_table(self.data))
        upload.acked[name] = node.store.incarnation

    async def commit(self, upload: Upload) -> None:
        count = self.chance.choice((1, 1, 1, len(upload.acked)))
        holders = self.chance.sample(sorted(upload.acked), count)
        key = f"key {self.chance.randrange(2)}"
        content = NewContent(size=len(self.data), etag="e", slices=(whole(self.data),), chunks=(NewChunk(
            digest=self.digest, size=len(self.data),
            holders=tuple(Holder(name, upload.acked[name]) for name in holders)),))
        command = PutVersion(bucket=self.bucket, key=key, version_id="v", attributes=PLAIN, owner="o", content=content)
        upload.envelope = self.cluster.envelope(command, upload.session, upload.sequence, low=self.low(upload.session))
        await self.again(upload)

    async def again(self, upload: Upload) -> None:
        assert upload.envelope is not None
        (result,) = self.cluster.send(upload.envelope)
        command = upload.envelope.command
        assert isinstance(command, PutVersion)
        if isinstance(result, Committed) and not upload.took_effect:
            self.keys.add(command.key)
            upload.took_effect = True
        if self.chance.random() < 0.7:
            upload.settled = True                       # else the answer was lost: it will be asked again

    async def abandon(self, upload: Upload) -> None:
        if upload.envelope is None:
            upload.settled = True

    def low(self, session: int) -> int:
        open_ = [upload.sequence for upload in self.uploads if upload.session == session and not upload.settled]
        return min([*open_, self.cluster.next[session]])

    async def mark(self, session: int) -> None:
        low = self.low(session)
        sequence = self.cluster.next[session]
        self.cluster.next[session] = sequence + 1
        self.cluster.send(self.cluster.envelope(Drain(limit=1), session, sequence, low=low))

    async def end(self, session: int) -> None:
        self.open.discard(session)
        self.cluster.run(EndSession(session=SessionId(session)), 0)

    async def delete(self, key: str) -> None:
        self.keys.discard(key)
        self.cluster.run(DeleteVersion(bucket=self.bucket, key=key))

    async def drain(self) -> None:
        self.cluster.run(Drain(), 0)

    async def deliver(self, envelope: Envelope) -> None:
        if self.chance.random() < 0.5:
            self.late.remove(envelope)
        self.cluster.send(envelope)

    # Steps of nodes

    async def settle(self, node: Node) -> None:
        self.clock.ms += LATER_MS

        async def rounds() -> None:
            await node.settler.take_hints()
            await node.settler.round()

        await node.work(rounds)

    async def mend(self, node: Node) -> None:
        if self.chance.random() < 0.5:                  # a reader or the scrub has come by
            for copy in await node.store.generations(self.digest):
                await node.store.verify(copy)
        node.settler.mender._later.clear()
        await node.work(node.settler.mend)

    async def restart(self, node: Node) -> None:
        await node.work(node.start)

    async def crash(self, node: Node) -> None:
        node.crashing = True

    def may_be_damaged(self, node: Node) -> list[Copy]:
        """The listed copy, when other good bytes are on the same node: nothing is lost then. In a few walks, anything."""
        good = self.good(node)
        if self.any_damage:
            return good
        row = self.row()
        if row is None or len(good) < 2 or node.name not in row[1]:
            return []
        return [copy for copy in good if copy.generation == row[0].pack()]

    async def rot(self, node: Node, copy: Copy) -> None:
        node.store.damage_copy(copy.digest, Generation.unpack(copy.generation), 0)

    # What must hold

    def row(self) -> tuple[Generation, set[str], int] | None:
        found = self.cluster.db.execute("SELECT session, sequence, locations, refs FROM chunk WHERE digest = ?",
                                        (self.digest,)).fetchone()
        if found is None:
            return None
        names = self.cluster.machine.state.names
        holders = {str(names[number]) for number in decode_locations(found[2]) if number in names}
        return Generation(SessionId(found[0]), found[1]), holders, found[3]

    def good(self, node: Node) -> list[Copy]:
        found = []
        for (name, generation), (data, _) in node.store._bytes.items():
            if name == self.digest and bytes(data) == self.data:
                found.append(node.store._copies[name, generation])
        return found

    def check(self) -> None:
        row = self.row()
        found = {key.decode() for (key,) in self.cluster.db.execute("SELECT key FROM object")}
        if found != self.keys:
            self.fail(f"L0: there are {sorted(found)}, and should be {sorted(self.keys)}: a command took effect twice")
        if row is None:
            if self.keys:
                self.fail("L2: there are references and no row")
            return
        generation, holders, _ = row
        for name in holders:
            if (self.digest, generation.pack()) not in self.nodes[name].store._copies:
                self.fail(f"L1: {generation} is listed at {name}, which does not hold it")
        if self.keys and not self.any_damage and not any(self.good(node) for node in self.nodes.values()):
            self.fail("L2: no good copy is left")

    def fail(self, what: str) -> None:
        raise Violation("\n".join([f"walk {self.walk}: {what}; row {self.row()}", *self.trace]))

    async def finish(self) -> None:
        """Everybody does what is left to do, and nothing new happens."""
        self.lossy = 0.0
        for session in sorted(self.open):
            await self.end(session)
        for envelope in self.late:
            self.cluster.send(envelope)
        for _ in range(6):
            self.cluster.drain()
            for node in self.nodes.values():
                node.crashing = False
                node.settler.mender._later.clear()
                for copy in await node.store.generations(self.digest):
                    await node.store.verify(copy)
                self.clock.ms += LATER_MS
                for work in (node.settler.take_hints, node.settler.round, node.settler.mend):
                    await work()
                self.check()
        self.cluster.check()
        row = self.row()
        for node in self.nodes.values():
            for copy in await node.store.generations(self.digest):
                listed = row is not None and row[0].pack() == copy.generation and node.name in row[1]
                if not listed or copy.state != SETTLED:
                    self.fail(f"L3: {Generation.unpack(copy.generation)} stays on {node.name}, unlisted for ever")
            if await node.store.damage(10):
                self.fail(f"L3: damage on {node.name} is never dealt with")
        if self.keys and not self.any_damage:
            assert row is not None
            if not any(copy.generation == row[0].pack() for name in row[1] for copy in self.good(self.nodes[name])):
                self.fail("L3: no listed copy is good")
        for key in sorted(self.keys):
            await self.delete(key)
        self.cluster.drain()


__all__ = ["Crashed", "Unavailable", "Violation", "World"]
