"""What an endpoint works with: the services of this gateway process, and who asks."""

from collections.abc import Awaitable, Callable

import msgspec

from consensus.client import MetadataClient
from consensus.core.commands import AnyCommand
from consensus.core.errors import UnknownOutcome
from consensus.core.model import Bucket, NodeInfo
from consensus.core.results import AnyResult, Malformed, SequencePassed, SessionEnded
from gateway.admin.errors import AdminError, no_bucket
from gateway.auth import Principal
from gateway.auth import Settings as AuthSettings
from gateway.cluster.machine import Machine
from gateway.config import Config
from gateway.identities import Identity
from gateway.ops.context import Services
from storage_node.client import NodeClient

Progress = Callable[[dict[str, object]], None]
"""Called now and then by long work with what has been done so far. Never waits."""


async def _nobody() -> None:
    return None


async def _nothing() -> int:
    return 0


class AdminServices(msgspec.Struct, frozen=True, kw_only=True):
    """`reload` makes all gateway workers of this host read the identities again; `secret` is the cluster's."""

    services: Services
    auth: AuthSettings
    config: Config
    secret: bytes = b""
    reload: Callable[[], Awaitable[None]] = _nobody
    flush_logs: Callable[[], Awaitable[int]] = _nothing
    """Makes all gateway workers deliver what they have recorded for logged buckets; the number of objects."""

    root: Identity | None = None
    machine: Machine | None = None
    """This machine, if it is of a cluster."""

    def configured(self) -> list[tuple[str, Identity]]:
        """The identities that are not in the metadata, each with where it comes from: root, configuration."""
        return [*([("root", self.root)] if self.root is not None else []),
                *(("configuration", identity) for identity in self.config.identity)]

    def __repr__(self) -> str:                   # holds secrets
        return "AdminServices(…)"


class AdminContext(msgspec.Struct, frozen=True, kw_only=True):
    """One request to the admin API: the services, and the admin who asks."""

    admin: AdminServices
    principal: Principal
    request_id: str

    @property
    def metadata(self) -> MetadataClient:
        return self.admin.services.metadata

    async def bucket(self, name: str) -> Bucket:
        """Of whatever account. Raises S3Error NoSuchBucket."""
        bucket = await self.metadata.bucket_counted(name)
        if bucket is None:
            raise no_bucket(name)
        return bucket

    async def commit(self, command: AnyCommand) -> AnyResult:
        """Carry out a command. Raises AdminError InvalidArgument for values that the metadata refuses, ClusterError."""
        outcome = await self.metadata.commit(command)
        match outcome:
            case Malformed(reason=reason):
                raise AdminError("InvalidArgument", f"Refused: {reason}.")
            case SessionEnded() | SequencePassed():
                raise UnknownOutcome("the session ended before the answer came")
            case _:
                return outcome

    async def nodes(self, wanted: str = "") -> list[NodeInfo]:
        """All storage nodes, or the one of that name. Raises AdminError NoSuchNode."""
        found = [node for node in await self.metadata.nodes() if wanted in ("", node.node)]
        if wanted and not found:
            raise AdminError("NoSuchNode", f"There is no storage node {wanted!r}; `staddle node list` shows them.")
        return found

    def client(self, node: NodeInfo) -> NodeClient:
        return self.admin.services.replicas.client(node)
