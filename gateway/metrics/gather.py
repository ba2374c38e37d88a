"""Asks everybody for what they know, at once and each with a deadline. What does not answer is missing, and said to be."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from consensus import queries
from consensus.accounts import Holding
from consensus.client import MetadataClient
from consensus.core.errors import ClusterError
from consensus.core.events import EventQueue
from consensus.core.model import NodeInfo
from consensus.garbage import GcReport
from consensus.protocol import Status
from consensus.queries import Usage
from gateway.metrics.counters import Figures
from gateway.metrics.processes import ProcessFigures, figures_of, listener_of
from gateway.peers import Peers
from storage_node.care.status import NodeStatus
from storage_node.replicas import Replicas

PATIENCE_S = 2.0
"""With the metadata member and each storage node: as with the other workers."""

COUNTED_BELIEVED_S = 30.0
"""Counting what waits to be released reads up to 100,000 rows of each kind in one go, while requests wait."""

_figures = msgspec.msgpack.Decoder(Figures)

Answer = TypeVar("Answer")


class Gathered(NamedTuple):
    """One moment of this machine. None: no answer."""

    workers: dict[str, Figures | None]
    member: Status | None
    usage: Usage | None
    garbage: GcReport | None
    nodes: dict[str, NodeStatus | None]
    processes: dict[str, ProcessFigures]
    events: list[EventQueue] | None = None
    quotas: Sequence[tuple[str, Holding]] = ()   # "bucket" or "account", and what it holds


QUOTAS_SHOWN_MAX = 500
"""Of buckets, and of accounts: a page of metrics must stay short, whatever operators set."""


class Gatherer:
    """`workers` are the names of this machine's gateway workers, as peers know them; `local` the addresses of its other
    processes by name, for their memory and CPU."""

    def __init__(
        self, metadata: MetadataClient, replicas: Replicas, peers: Peers, *, workers: Sequence[str], local: Mapping[str, str],
    ) -> None:
        self._metadata, self._replicas, self._peers = metadata, replicas, peers
        self._workers, self._local = tuple(workers), dict(local)
        self._counted: GcReport | None = None
        self._counted_until = 0.0

    async def gather(self) -> Gathered:
        raw, member, usage, garbage, nodes, events = await asyncio.gather(
            self._peers.figures(), _or_none(self._metadata.status), _or_none(self._metadata.usage), self._garbage(),
            self._nodes(), _or_none(lambda: self._metadata.read(queries.event_queues)))
        workers: dict[str, Figures | None] = dict.fromkeys(self._workers)
        workers |= {name: _figures.decode(figures) for name, figures in raw.items()}
        pids = {name: worker.pid for name, worker in workers.items() if worker is not None}
        processes = await asyncio.to_thread(self._processes, pids)
        quotas = [] if usage is None else await self._quotas()
        return Gathered(workers, member, usage, garbage, nodes, processes, events, quotas)

    async def _quotas(self) -> list[tuple[str, Holding]]:
        buckets, accounts = await asyncio.gather(
            _or_none(lambda: self._metadata.limited_buckets(limit=QUOTAS_SHOWN_MAX)),
            _or_none(lambda: self._metadata.limited_accounts(limit=QUOTAS_SHOWN_MAX)))
        return [*(("bucket", held) for held in buckets or ()), *(("account", held) for held in accounts or ())]

    async def _garbage(self) -> GcReport | None:
        now = time.monotonic()
        if now >= self._counted_until:
            self._counted = await _or_none(self._metadata.gc_report)
            self._counted_until = now + COUNTED_BELIEVED_S
        return self._counted

    async def _nodes(self) -> dict[str, NodeStatus | None]:
        nodes = await _or_none(self._metadata.nodes)
        told = await asyncio.gather(*[self._node(node) for node in nodes or ()])
        return {str(node.node): answer for node, answer in zip(nodes or (), told, strict=True)}

    async def _node(self, node: NodeInfo) -> NodeStatus | None:
        return await _or_none(self._replicas.client(node).status)

    def _processes(self, pids: dict[str, int]) -> dict[str, ProcessFigures]:
        """Several names for one process (a server in one process) become one, so that nothing is counted twice."""
        for name, address in self._local.items():
            pid = listener_of(address)
            if pid is not None:
                pids[name] = pid
        names: dict[int, list[str]] = {}
        for name, pid in sorted(pids.items()):
            names.setdefault(pid, []).append(name)
        found = {("+".join(together)): figures_of(pid) for pid, together in names.items()}
        return {name: figures for name, figures in found.items() if figures is not None}


async def _or_none(ask: Callable[[], Awaitable[Answer]]) -> Answer | None:
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await ask()
    except (ClusterError, TimeoutError):
        return None


def local_processes(run: Path, data_folders: int) -> dict[str, str]:
    """The addresses of a machine's processes besides the gateways, by the names that the supervisor gives them."""
    found = {"meta": f"unix:{run / 'meta.sock'}"}
    found |= {f"node-{number}": f"unix:{run / f'node-{number}.sock'}" for number in range(1, data_folders + 1)}
    return found
