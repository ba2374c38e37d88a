"""What runs on a simulated machine: a metadata member, a storage node and a gateway, each a process of the real code, and
the supervisor that starts again what has ended.
"""

import asyncio
import sqlite3
from typing import Any

from consensus.client import MetadataClient
from consensus.config import MetaConfig
from consensus.core.errors import ClusterError, Corrupt, Refused
from consensus.core.ids import NodeId
from consensus.disk import make_folder
from consensus.joining import ClusterSettings
from consensus.server import MetaServer
from storage_node.index import Copy
from storage_node.replicas import Policy, Replicas
from storage_node.server import NodeServer
from tests.sim.chunks import VirtualStore
from tests.sim.clock import CURRENT, Process, Stuck
from tests.sim.disk import VirtualDisk
from tests.sim.network import Identity
from tests.sim.world import World

SECRET = b"simulated secret" * 2
META_PORT, NODE_PORT = 9400, 9401

READ_GRACE_S = 0.5

CONFIG = MetaConfig(segment_bytes=64 << 10, snapshot_journal_bytes=128 << 10, housekeeping_s=1.0, session_silence_s=20.0,
                    read_grace_s=READ_GRACE_S, check_interval_s=0.0)
"""Small and quick, so that what takes days elsewhere happens within a minute."""

START_AGAIN_S = 0.3
SETTLE_S = 1.0
DEADLINE_S = 4.0
STOPS_MAX = 30

POLICY = Policy(3, "sync")

ROLES = ("meta", "node", "gateway")


class Machine:
    """One per host. `roles` are those that it runs; other members are found on the machines `others`, and without any it
    is alone."""

    def __init__(self, world: World, name: str, roles: tuple[str, ...], others: tuple[str, ...]) -> None:
        self.world, self.name, self.roles = world, name, roles
        self.others = tuple(f"{other}:{META_PORT}" for other in others)
        self.disk = VirtualDisk(f"{world.folder}/{name}", world.chance(f"disk {name}"))
        self.store = VirtualStore(world.chance(f"store {name}"), self._copies_go)
        self.skew_s = 0.0
        self.powered = True
        self.processes: dict[str, Process] = {}
        self.meta: MetaServer | None = None
        self.node: NodeServer | None = None
        self.gateway: Gateway | None = None
        self.on_gateway: Any = lambda gateway: None
        """Called in a gateway's process once it is there: its clients begin."""
        self.on_copies_go: Any = lambda machine, copies: None
        self.broken = ""
        """Why it can't be started again."""
        world.machines[name] = self

    def _copies_go(self, copies: list[Copy]) -> None:
        self.on_copies_go(self, copies)

    # The supervisor

    def start(self) -> None:
        self.powered = True
        for role in self.roles:
            self.start_role(role)

    def start_role(self, role: str) -> None:
        if not self.powered or role in self.processes or self.broken:
            return
        process = self.processes[role] = Process(f"{self.name}/{role}", self.world.loop, self)
        self.world.processes.append(process)
        process.on_end.append(lambda: self._ended(process))
        self.world.note(f"{process.name} starts")
        task = process.spawn(getattr(self, f"_run_{role}")(process))
        task.add_done_callback(lambda task: self._came_to_an_end(process, task))

    def _came_to_an_end(self, process: Process, task: "asyncio.Task[None]") -> None:
        """The role's own coroutine has returned or failed: the process exits."""
        if process.dead or task.cancelled():
            return
        error = task.exception()
        self.world.note(f"{process.name} ends: {error!r}")
        if error is not None and not isinstance(error, ClusterError | OSError):
            self.world.violation(f"{process.name} failed: {error!r}")
        elif isinstance(error, Corrupt | Refused):
            self.broken = f"{process.name}: {error}"
            self.world.violation(f"{process.name} does not start: {error!r}")
        process.kill()

    def _ended(self, process: Process) -> None:
        role = process.name.partition("/")[2]
        self.world.trace(f"{process.name} is gone")
        self.world.network.ended(process, silently=not self.powered)
        self.world.files.end(process)
        if self.powered:
            for connection in self._connections(process):
                connection.close()
        if role == "node":
            self.store.killed()
        if self.processes.get(role) is process:
            del self.processes[role]
            if self.powered:
                self.world.loop.call_later(START_AGAIN_S, self.start_role, role, context=self.world.network.nobody)

    @staticmethod
    def _connections(process: Process) -> list[sqlite3.Connection]:
        return getattr(process, "connections", [])

    # What faults do

    def kill(self, role: str) -> None:
        process = self.processes.get(role)
        if process is not None:
            process.kill()

    def kill_all(self) -> None:
        for role in self.roles:
            self.kill(role)

    def lose_power(self) -> None:
        """All processes at once, and what was not synced."""
        connections = self._power_off()
        self.disk.lose_power(connections)
        self.store.lose_power()

    def wipe(self) -> None:
        """The machine comes back with an empty disk."""
        connections = self._power_off()
        self.disk.wipe(connections)
        self.store = VirtualStore(self.world.chance(f"store {self.name}"), self._copies_go)

    def _power_off(self) -> list[sqlite3.Connection]:
        self.powered = False
        connections = []
        for process in list(self.processes.values()):
            connections += self._connections(process)
            process.kill()
        return connections

    def pause(self) -> None:
        for process in self.processes.values():
            process.pause()

    def go_on(self) -> None:
        for process in self.processes.values():
            process.go_on()

    def forget(self) -> None:
        """The simulation is over."""
        for process in list(self.processes.values()):
            for connection in self._connections(process):
                connection.close()
        self.disk.close_guards()

    # The roles

    @property
    def meta_folder(self) -> str:
        return f"{self.disk.root}/meta"

    def _socket(self, role: str) -> str:
        return f"unix:{self.world.folder}/{self.name}-{role}"

    def failed(self, error: BaseException) -> None:
        """A member ends itself."""
        process = CURRENT.get()
        assert process is not None
        self.world.note(f"{process.name} stops itself: {error!r}")
        self.world.count("members that stopped themselves")
        if self.world.counts["members that stopped themselves"] > STOPS_MAX:
            raise Stuck(f"members stop themselves again and again: {error!r}")
        if isinstance(error, AssertionError):
            self.world.violation(f"{process.name} failed: {error!r}")
        process.kill()

    async def _run_meta(self, process: Process) -> None:
        make_folder(self.disk, self.meta_folder, "start")
        cluster = ClusterSettings(address=f"{self.name}:{META_PORT}", peers=self.others, begins=True)
        self.meta = MetaServer(
            self.meta_folder, self._socket("meta"), SECRET, name=self.name, config=CONFIG, disk=self.disk,
            copies=POLICY.copies, on_failure=self.failed, tls=Identity(f"{self.name}/meta"),  # type: ignore[arg-type]
            also=(f"{self.name}:{META_PORT}",), cluster=cluster if self.others else None)
        await self.meta.start()
        await asyncio.get_running_loop().create_future()

    def _client(self, role: str) -> MetadataClient:
        local = "meta" in self.roles
        return MetadataClient(
            self._socket("meta") if local else None, SECRET, self.meta_folder if local else None,
            owner=f"{self.name}/{role}", deadline_s=DEADLINE_S, serving_wait_s=3.0, others=self.others,
            tls=Identity(f"{self.name}/{role}"))  # type: ignore[arg-type]

    async def _run_node(self, process: Process) -> None:
        metadata = self._client("node")
        await metadata.start()
        self.node = NodeServer(
            data=self.disk.root, node=NodeId(self.name), address=f"{self.name}:{NODE_PORT}", secret=SECRET, zone=self.name,
            metadata=metadata, store=self.store, settle_interval_s=SETTLE_S, read_grace_s=READ_GRACE_S,
            tls=Identity(f"{self.name}/node-1"))  # type: ignore[arg-type]
        await self.node.start()
        await asyncio.get_running_loop().create_future()

    async def _run_gateway(self, process: Process) -> None:
        metadata = self._client("gateway-1")
        await metadata.start()
        replicas = Replicas(metadata, SECRET, policy=POLICY, tls=Identity(f"{self.name}/gateway-1"))  # type: ignore[arg-type]
        await replicas.start()
        self.gateway = Gateway(self, process, metadata, replicas)
        self.on_gateway(self.gateway)
        await asyncio.get_running_loop().create_future()


class Gateway:
    """What clients need of one."""

    def __init__(self, machine: Machine, process: Process, metadata: MetadataClient, replicas: Replicas) -> None:
        self.machine, self.process, self.metadata, self.replicas = machine, process, metadata, replicas
