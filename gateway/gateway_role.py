"""A gateway worker as a role: everything that serves clients, put together."""

import asyncio
import logging

import msgspec

from consensus import queries
from consensus.core.clock import SystemClock
from consensus.core.errors import ClusterError, Refused
from consensus.core.ids import NodeId
from consensus.core.model import NodeInfo
from gateway.admin.api import mount as mount_admin
from gateway.admin.context import AdminServices
from gateway.auth import Settings as AuthSettings
from gateway.bucket_log.recorder import BucketLogs
from gateway.cluster.machine import beside
from gateway.cluster.reaching import metadata_client, tls_of
from gateway.cluster.remembering import peers_keeper
from gateway.config import DOOR_PORT, Config, parse_listen
from gateway.duties import Duties
from gateway.events.addresses import AllowList
from gateway.events.courier import DUTY as EVENTS_DUTY
from gateway.events.courier import LEASE_S as EVENTS_LEASE_S
from gateway.events.courier import Courier
from gateway.folders import Folders, chunks_of, node_id
from gateway.http.app import build as build_application
from gateway.http.limits import Limits
from gateway.http.metrics import MetricsPage, open_application
from gateway.http.metrics import routes as metrics_routes
from gateway.http.reply import HOST_ID
from gateway.http.server import GatewayServer
from gateway.http.server_log import ServerLog
from gateway.identities import IdentityStore
from gateway.identity_keeper import IdentityKeeper
from gateway.launch import Launch
from gateway.lifecycle.worker import DUTY as LIFECYCLE_DUTY
from gateway.lifecycle.worker import LifecycleWorker
from gateway.metrics.counters import Counters
from gateway.metrics.gather import Gatherer, local_processes
from gateway.ops import HANDLERS
from gateway.ops.context import Services
from gateway.ops.context import Settings as OperationSettings
from gateway.peers import Peers, PeerServer
from storage_node.replicas import Policy, Replicas

log = logging.getLogger("staddle.roles")

NODES_COME_S = 10.0
"""How long the nodes of a new store are waited for. One that has not come by then may have a disk that is dead, and the
others serve without it."""

NOTICED_S = 1.0
"""After so long, gateways of other machines have as a rule noticed that a node is back."""

READY_ANSWER_S = 3.0
"""Who asks whether we are ready wants an answer while it is true."""


class GatewayRole:
    """A gateway worker: metadata and storage nodes as its clients see them, and the S3 endpoint in front."""

    def __init__(self, folders: Folders, config: Config, secret: bytes, launch: Launch) -> None:
        tls, machine = tls_of(launch), launch.machine
        self._metadata = metadata_client(launch, launch.name if machine is None else f"{machine.name}/{launch.name}", tls)
        own = {node_id(data): (number, data) for number, data in enumerate(config.data, 1)} if "node" in config.roles else {}
        self._replicas = Replicas(
            self._metadata, secret, local={node: str(chunks_of(data.absolute())) for node, (_, data) in own.items()},
            sockets={node: folders.node_address(number) for node, (number, _) in own.items()},
            policy=Policy(copies=config.copies, replication=config.replication), tls=tls)
        configured = (launch.root, *config.identity)
        identities = IdentityStore(configured)
        self._identities = IdentityKeeper(identities, self._metadata, secret, configured)
        services = Services(
            metadata=self._metadata, replicas=self._replicas, clock=SystemClock(),
            settings=OperationSettings(
                region=config.region, any_region=config.any_region, signature_v2=config.signature_v2,
                chunk_bytes=config.chunk_bytes, object_ownership=config.object_ownership,
                block_public_access=config.block_public_access, default_encryption=config.default_encryption,
                webhooks={name: webhook.accounts for name, webhook in config.webhooks.items()},
                event_queue_max=config.event_queue_max, host_id=HOST_ID,
                storage_classes=config.storage_classes, archive_classes=config.archive_classes,
                lifecycle_day_ms=config.lifecycle_day_seconds * 1000),
            identities=identities)
        self._duties = Duties(
            self._metadata, SystemClock(), launch.name if machine is None else f"{machine.name}/{launch.name}")
        self._lifecycle = LifecycleWorker(
            self._metadata, self._duties.duty(LIFECYCLE_DUTY), SystemClock(), day_seconds=config.lifecycle_day_seconds,
            told=lambda bucket, step, version_id: self._bucket_logs.add_of_lifecycle(bucket, step, version_id),
        ) if launch.number == 1 else None
        self._courier = Courier(
            self._metadata, self._duties.duty(EVENTS_DUTY, EVENTS_LEASE_S), webhooks=config.webhooks,
            allow=AllowList(config.webhook_allow), region=config.region, retention_ms=config.event_retention_hours * 3_600_000,
        ) if launch.number == 1 else None
        limits = Limits(connections_max=config.connections_max, requests_max=config.requests_max,
                        shutdown_s=float(config.shutdown_seconds))
        auth = AuthSettings(region=config.region, any_region=config.any_region, signature_v2=config.signature_v2)
        self._restarted, self._machine = launch.restarted, machine
        self._peers_keeper = peers_keeper(launch, self._metadata, folders)
        self._expected = frozenset(own)
        """This machine's storage nodes, until they have come: a write before would have fewer copies than wanted."""
        self._expect_until = 0.0
        self._answered_at: float | None = None
        self._counters = Counters()
        self._bucket_logs = BucketLogs(
            services, folders.bucket_logs(launch.number), deliver_s=float(config.log_delivery_seconds),
            inherited=folders.bucket_logs_left(config.gateway_workers) if launch.number == 1 else ())
        self._server_log = None if config.access_log is None else ServerLog(config.access_log, self._bucket_owner)
        workers = [f"gateway-{number}" for number in range(1, config.gateway_workers + 1)]
        peers = Peers(folders.run, secret, workers, tls=tls, elsewhere=None if machine is None else self._gateways_elsewhere)
        self._peer = PeerServer(
            folders.gateway_address(launch.number), secret, figures=self._figures, reload=self.reload,
            reload_all=peers.reload_here, flush_logs=self._bucket_logs.deliver, flush_logs_all=peers.flush_logs_here, tls=tls,
            also=() if machine is None else (machine.listens(DOOR_PORT + launch.number),))
        self._page = MetricsPage(Gatherer(
            self._metadata, self._replicas, peers, local=local_processes(folders.run, len(config.data)),
            workers=workers))
        admin = AdminServices(services=services, auth=auth, config=config, secret=secret, root=launch.root, reload=peers.reload,
                              flush_logs=peers.flush_logs, machine=machine)
        self._application = build_application(
            services, HANDLERS, ready=self._ready, domains=config.domains, website_domains=config.website_domains,
            website_hosts=config.website_hosts, requests_max=config.requests_max, auth=auth,
            routes=[mount_admin(admin), *metrics_routes(self._page, services, auth, config.metrics_token)],
            counters=self._counters, server_log=self._server_log, bucket_logs=self._bucket_logs)
        self.server = GatewayServer(self._application, host=launch.host, port=launch.port, tls_cert=config.tls_cert,
                                    tls_key=config.tls_key, limits=limits, alone=launch.alone)
        self._metrics_server = None if config.metrics_listen is None else _metrics_server(self._page, config.metrics_listen)

    async def start(self) -> None:
        self._expect_until = asyncio.get_running_loop().time() + NODES_COME_S
        if self._server_log is not None:
            try:
                self._server_log.open()
            except OSError as error:
                self._beside(f"setting 'access_log': cannot write {error.filename}: {error.strerror}", error)
        await self._metadata.start()
        await self._peer.start()              # before identities are read: see gateway/peers.py
        await self._identities.start()
        await self._replicas.start()
        try:
            await self._bucket_logs.start()
        except OSError as error:
            log.error("access logs of buckets are not kept: %s", error)
        if self._peers_keeper is not None:
            self._peers_keeper.start()
        if self._metrics_server is not None:
            try:
                await self._metrics_server.start()
            except OSError as error:
                self._beside(f"setting 'metrics_listen': {error.strerror}", error)
        await self.server.start()
        if self._lifecycle is not None:
            self._lifecycle.start()
        if self._courier is not None:
            self._courier.start()

    async def stop(self) -> None:
        await self.server.stop()
        if self._lifecycle is not None:
            await self._lifecycle.stop()
        if self._courier is not None:
            await self._courier.stop()
        if self._metrics_server is not None:
            await self._metrics_server.stop()
        await self._bucket_logs.stop()
        if self._server_log is not None:
            await self._server_log.stop()
        if self._peers_keeper is not None:
            await self._peers_keeper.stop()
        await self._peer.stop()
        await self._identities.stop()
        await self._replicas.stop()
        await self._metadata.stop()

    async def _gateways_elsewhere(self) -> list[str]:
        """The first worker of each other machine that is known: those with a metadata member. Raises ClusterError."""
        assert self._machine is not None
        members = await self._metadata.read(queries.members)
        return [beside(member.address, DOOR_PORT + 1) for member in members if member.address != self._machine.address()]

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
            bucket_log_records=self._bucket_logs.records, bucket_log_objects=self._bucket_logs.delivered,
            bucket_log_dropped=self._bucket_logs.dropped, bucket_log_bytes=self._bucket_logs.waiting_bytes,
            commit_seconds=commit_seconds, commits_waiting=commits_waiting,
            event_failures={} if self._courier is None else self._courier.failures(), duties=self._duties.figures(),
            lifecycle={} if self._lifecycle is None else self._lifecycle.figures()))

    async def _ready(self) -> str:
        """Why it can't read (the member serves nobody) or write (the member or too many storage nodes refuse)."""
        try:
            async with asyncio.timeout(READY_ANSWER_S):
                status = await self._metadata.status()
            if status.refusing:
                return f"the metadata's disk is {status.refusing}"
            if self._expected:
                known = await self._metadata.nodes()
                missing = self._expected - {node.node for node in known}
                if self._machine is not None and not missing:
                    missing = await self._silent([node for node in known if node.node in self._expected])
                if missing and asyncio.get_running_loop().time() < self._expect_until:
                    return f"storage node {min(missing)} has not come yet"
                self._expected = frozenset()
                self._replicas.look_again()
        except (ClusterError, TimeoutError):
            return "the metadata does not answer"
        try:
            await self._replicas.reach_quorum()
        except ClusterError as error:
            return str(error)
        return ""


    async def _silent(self, own: list[NodeInfo]) -> frozenset[NodeId]:
        """This machine's storage nodes that do not answer yet, or have not for long enough that other machines have noticed.
        In a cluster they are known from before, and whoever restarts machines one by one goes on when we say that we are
        ready: then all copies must be within reach again."""
        try:
            for node in own:
                await self._replicas.client(node).disk()
        except ClusterError:
            self._answered_at = None
            return frozenset((node.node,))
        now = asyncio.get_running_loop().time()
        if self._answered_at is None:
            self._answered_at = now
        return frozenset(node.node for node in own) if now - self._answered_at < NOTICED_S else frozenset()


def _metrics_server(metrics: MetricsPage, address: str) -> GatewayServer:
    host, port = parse_listen(address, "metrics_listen")
    return GatewayServer(open_application(metrics), host=host, port=port, limits=Limits(connections_max=64, shutdown_s=1.0))
