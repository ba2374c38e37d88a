"""The roles of one machine as objects with `start` and `stop`, and the process that runs one of them.

`launches` says which processes a machine needs; `build` makes the role of a launch; `main` is such a process: it reads its
launch from standard input, starts the role, says `ready`, and stops at SIGTERM or when standard input ends.
"""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import msgspec
import uvloop

from consensus.client import MetadataClient
from consensus.config import MetaConfig
from consensus.core import logs
from consensus.core.clock import SystemClock
from consensus.core.errors import ClusterError, Refused
from consensus.core.settings import decode_setting
from consensus.server import MetaServer
from consensus.standby import Member
from gateway.admin.api import mount as mount_admin
from gateway.admin.context import AdminServices
from gateway.auth import Settings as AuthSettings
from gateway.config import Config, parse_listen
from gateway.folders import FolderError, Folders, chunks_of, node_id
from gateway.http.app import build as build_application
from gateway.http.limits import Limits
from gateway.http.metrics import MetricsPage, open_application
from gateway.http.metrics import routes as metrics_routes
from gateway.http.server import GatewayServer
from gateway.http.server_log import ServerLog
from gateway.identities import Identity, IdentityStore
from gateway.identity_keeper import IdentityKeeper
from gateway.metrics.counters import Counters
from gateway.metrics.gather import Gatherer, local_processes
from gateway.ops import HANDLERS
from gateway.ops.context import Services
from gateway.ops.context import Settings as OperationSettings
from gateway.peers import Peers, PeerServer
from storage_node.replicas import Policy, Replicas
from storage_node.server import NodeServer

log = logging.getLogger("staddle.roles")

EX_CONFIG = 78
"""sysexits.h: something is set up wrongly; starting again would not help."""

COLLECT_AFTER = 5_000
"""New containers until the next garbage collection. Python's default of 700 is a few requests, whose objects are all
alive still: it found nothing and took 3 % of a small PUT. Not much more, since cycles that failed requests leave behind
may hold their buffers."""


READY_ANSWER_S = 3.0
"""Who asks whether we are ready wants an answer while it is true."""


class Role(Protocol):
    async def start(self) -> None:
        """Raises Refused when it can never work as it is set up, ClusterError or OSError otherwise."""

    async def stop(self) -> None:
        """Finish what is under way, then let go of everything. Called once."""


R = TypeVar("R", bound=Role)


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """All that a process needs to know. It travels through a pipe: it holds secrets."""

    role: Literal["meta", "node", "gateway"]
    number: int
    config: Config
    folders: str
    secret: str                   # hex
    root: Identity
    host: str
    port: int
    restarted: bool = False       # it has been ready before: what is beside the store must not keep it from coming back
    alone: bool = False           # the machine's only gateway, in a process with all other roles (gateway/single.py)

    @property
    def name(self) -> str:
        return self.role if self.role == "meta" else f"{self.role}-{self.number}"


def launches(config: Config, folders: Folders, secret: bytes, root: Identity, host: str, port: int) -> list[Launch]:
    """The processes of this machine: one metadata member, a node for each data folder, the gateway workers."""
    def launch(role: Literal["meta", "node", "gateway"], number: int) -> Launch:
        return Launch(role=role, number=number, config=config, folders=str(folders.root), secret=secret.hex(), root=root,
                      host=host, port=port)

    return [launch("meta", 1), *(launch("node", number) for number in range(1, len(config.data) + 1)),
            *(launch("gateway", number) for number in range(1, config.gateway_workers + 1))]


def build(launch: Launch) -> Role:
    """The role of a launch, not started. Raises FolderError."""
    folders, config, secret = Folders(Path(launch.folders)), launch.config, bytes.fromhex(launch.secret)
    if launch.role == "meta":
        return Member(lambda: MetaServer(
            str(folders.meta), folders.meta_address, secret, copies=config.copies, replication=config.replication,
            config=MetaConfig(read_grace_s=config.read_grace_seconds, upload_expire_s=config.upload_expire_days * 86400.0,
                              check_interval_s=config.scrub_interval_hours * 3600.0)),
            str(folders.meta), folders.meta_address, secret)
    if launch.role == "node":
        return StorageRole(folders, config, launch.number, secret)
    return GatewayRole(folders, config, secret, launch)


class StorageRole:
    """A storage node and its link to the metadata."""

    def __init__(self, folders: Folders, config: Config, number: int, secret: bytes) -> None:
        data = config.data[number - 1]
        node = node_id(data)
        self._metadata = MetadataClient(folders.meta_address, secret, str(folders.meta), owner=f"node {node}")
        self._node = NodeServer(data=str(data.absolute()), node=node, address=folders.node_address(number), secret=secret,
                                metadata=self._metadata, read_grace_s=config.read_grace_seconds,
                                compact_dead_percent=config.compact_dead_percent,
                                scrub_bytes_per_second=config.scrub_bytes_per_second,
                                scrub_interval_s=config.scrub_interval_hours * 3600.0)

    async def start(self) -> None:
        await self._metadata.start()
        await self._node.start()

    async def stop(self) -> None:
        await self._node.stop()
        await self._metadata.stop()


class GatewayRole:
    """A gateway worker: metadata and storage nodes as its clients see them, and the S3 endpoint in front."""

    def __init__(self, folders: Folders, config: Config, secret: bytes, launch: Launch) -> None:
        self._metadata = MetadataClient(folders.meta_address, secret, str(folders.meta), owner=launch.name)
        self._replicas = Replicas(
            self._metadata, secret, local={node_id(data): str(chunks_of(data.absolute())) for data in config.data},
            policy=Policy(copies=config.copies, replication=config.replication))
        configured = (launch.root, *config.identity)
        identities = IdentityStore(configured)
        self._identities = IdentityKeeper(identities, self._metadata, secret, configured)
        services = Services(
            metadata=self._metadata, replicas=self._replicas, clock=SystemClock(),
            settings=OperationSettings(
                region=config.region, any_region=config.any_region, signature_v2=config.signature_v2,
                chunk_bytes=config.chunk_bytes, object_ownership=config.object_ownership,
                block_public_access=config.block_public_access, default_encryption=config.default_encryption),
            identities=identities)
        limits = Limits(connections_max=config.connections_max, requests_max=config.requests_max,
                        shutdown_s=float(config.shutdown_seconds))
        auth = AuthSettings(region=config.region, any_region=config.any_region, signature_v2=config.signature_v2)
        self._restarted = launch.restarted
        self._counters = Counters()
        self._server_log = None if config.access_log is None else ServerLog(config.access_log, self._bucket_owner)
        workers = [f"gateway-{number}" for number in range(1, config.gateway_workers + 1)]
        peers = Peers(folders.run, secret, workers)
        self._peer = PeerServer(folders.gateway_address(launch.number), secret, figures=self._figures, reload=self.reload)
        self._page = MetricsPage(Gatherer(
            self._metadata, self._replicas, peers, local=local_processes(folders.run, len(config.data)),
            workers=workers))
        admin = AdminServices(services=services, auth=auth, config=config, secret=secret, root=launch.root, reload=peers.reload)
        self._application = build_application(
            services, HANDLERS, ready=self._ready, domains=config.domains, requests_max=config.requests_max, auth=auth,
            routes=[mount_admin(admin), *metrics_routes(self._page, services, auth, config.metrics_token)],
            counters=self._counters, server_log=self._server_log)
        self.server = GatewayServer(self._application, host=launch.host, port=launch.port, tls_cert=config.tls_cert,
                                    tls_key=config.tls_key, limits=limits, alone=launch.alone)
        self._metrics_server = None if config.metrics_listen is None else _metrics_server(self._page, config.metrics_listen)

    async def start(self) -> None:
        if self._server_log is not None:
            try:
                self._server_log.open()
            except OSError as error:
                self._beside(f"setting 'access_log': cannot write {error.filename}: {error.strerror}", error)
        await self._metadata.start()
        await self._peer.start()              # before identities are read: see gateway/peers.py
        await self._identities.start()
        await self._replicas.start()
        if self._metrics_server is not None:
            try:
                await self._metrics_server.start()
            except OSError as error:
                self._beside(f"setting 'metrics_listen': cannot listen there: {error.strerror}", error)
        await self.server.start()

    async def stop(self) -> None:
        await self.server.stop()
        if self._metrics_server is not None:
            await self._metrics_server.stop()
        if self._server_log is not None:
            await self._server_log.stop()
        await self._peer.stop()
        await self._identities.stop()
        await self._replicas.stop()
        await self._metadata.stop()

    async def reload(self) -> None:
        """Read the identities again: another worker has changed them. Raises ClusterError."""
        await self._identities.reload()

    def _beside(self, sentence: str, error: OSError) -> None:
        """What is wrong at the first start is a slip of the pen, and is said by not starting. Later, the store comes first."""
        if not self._restarted:
            raise Refused(sentence) from error
        log.error("%s", sentence)

    def hang_up(self) -> None:
        """SIGHUP: whoever moved the access log away wants a new one."""
        if self._server_log is not None:
            self._server_log.reopen()

    async def _bucket_owner(self, name: str) -> str:
        bucket = await self._metadata.bucket(name)
        return bucket.owner if bucket is not None else ""

    def _figures(self) -> bytes:
        """What this worker has counted, for whichever worker is asked for metrics."""
        shared = self.server.shared
        commits, commit_seconds, commits_waiting = self._metadata.commit_figures
        return msgspec.msgpack.encode(self._counters.figures(
            in_flight=self._application.in_flight, connections=self.server.connections,
            connections_accepted=0 if shared is None else shared.accepted,
            malformed=0 if shared is None else shared.malformed,
            log_lines_dropped=0 if self._server_log is None else self._server_log.dropped, commits=commits,
            commit_seconds=commit_seconds, commits_waiting=commits_waiting))

    async def _ready(self) -> str:
        """Why it can't read (the member serves nobody) or write (the member or too many storage nodes refuse)."""
        try:
            async with asyncio.timeout(READY_ANSWER_S):
                status = await self._metadata.status()
            if status.refusing:
                return f"the metadata's disk is {status.refusing}"
        except (ClusterError, TimeoutError):
            return "the metadata does not answer"
        try:
            await self._replicas.reach_quorum()
        except ClusterError as error:
            return str(error)
        return ""


def _metrics_server(metrics: MetricsPage, address: str) -> GatewayServer:
    host, port = parse_listen(address, "metrics_listen")
    return GatewayServer(open_application(metrics), host=host, port=port, limits=Limits(connections_max=64, shutdown_s=1.0))


def main() -> int:
    line = sys.stdin.buffer.readline()
    if not line:
        return 0                                   # the supervisor went away before it told us what to be
    launch = msgspec.json.decode(line, type=Launch, dec_hook=decode_setting)
    logs.set_up(launch.config.log_level, launch.name)
    return uvloop.run(run(launch.name, Folders(Path(launch.folders)), lambda: build(launch), lambda role: b"ready"))


async def run(name: str, folders: Folders, make: Callable[[], R], ready: Callable[[R], bytes]) -> int:
    """The life of a process: make a role and start it, say `ready` (a line of it) on standard output, stop it when told.

    It is told by SIGTERM, SIGINT or the end of standard input. The exit status.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    loop.add_reader(sys.stdin.fileno(), stopping.set)      # readable means ended: nothing else is ever sent
    try:
        folders.run.mkdir(mode=0o700, exist_ok=True)       # somebody may have tidied it away
        role = make()
        if not await _started(role, stopping):
            return 0
    except (Refused, FolderError, ssl.SSLError) as error:
        log.error("%s", error)
        return EX_CONFIG
    except (ClusterError, OSError) as error:
        log.error("%s could not start: %s", name, error)
        return 1
    hang_up = getattr(role, "hang_up", None)
    if hang_up is not None:
        loop.add_signal_handler(signal.SIGHUP, hang_up)
    gc.enable()                                    # gateway/single.py may come without
    gc.collect()
    gc.freeze()                                    # what start-up made stays; collections need not look at it again
    gc.set_threshold(COLLECT_AFTER, *gc.get_threshold()[1:])
    with contextlib.suppress(BrokenPipeError):
        os.write(sys.stdout.fileno(), ready(role) + b"\n")
    await stopping.wait()
    loop.remove_reader(sys.stdin.fileno())
    await role.stop()
    return 0


async def _started(role: Role, stopping: asyncio.Event) -> bool:
    """False when it was told to stop before it had started: what it waits for (the metadata) may never come."""
    starting, told = asyncio.create_task(role.start()), asyncio.create_task(stopping.wait())
    await asyncio.wait((starting, told), return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    if starting.done():
        starting.result()
        return True
    starting.cancel()
    await asyncio.wait((starting,))
    return False


if __name__ == "__main__":
    sys.exit(main())
