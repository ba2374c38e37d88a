"""Delivers the events of all gateways, as long as that duty is ours (gateway/duties.py).

One worker of each machine has a courier. It looks at what waits; if something does, it takes the duty, and each target's
queue becomes a task of its own, so that one that hangs keeps no other waiting. Nothing waits: nothing is taken or renewed,
and an idle store writes no log.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from consensus import queries
from consensus.core import tasks
from consensus.core.errors import ClusterError
from gateway.duties import Duty
from gateway.events.addresses import AllowList
from gateway.events.queue import TargetQueue
from gateway.events.sending import Nowhere, Sender
from gateway.events.targets import Webhook

if TYPE_CHECKING:
    from consensus.client import MetadataClient

log = logging.getLogger("staddle.events")

LOOK_S = 0.25
"""How long an event waits at most before it is seen. A look is one indexed read."""

LOOK_IDLE_S = 2.0
"""While no target was ever told anything."""

TROUBLE_S = 1.0
BUG_S = 30.0
"""How long all is left alone while the metadata does not answer, and after a failure that nobody foresaw."""

DUTY = "events"

LEASE_S = 10.0
"""Listeners wait for so long at most when the gateway that delivers is lost."""


class Courier:
    def __init__(
        self, metadata: "MetadataClient", duty: Duty, *, webhooks: Mapping[str, Webhook], allow: AllowList, region: str,
        retention_ms: int,
    ) -> None:
        self._metadata, self._duty = metadata, duty
        self._webhooks, self._allow, self._region, self._retention_ms = webhooks, allow, region, retention_ms
        self._queues: dict[str, TargetQueue] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        await tasks.end(self._task)
        await self._stop_all()
        await self._duty.release()

    def failures(self) -> dict[str, int]:
        """Tries that came to nothing, by target."""
        return {target: queue.failures for target, queue in self._queues.items()}

    async def _run(self) -> None:
        while True:
            try:
                known = await self._metadata.read(queries.waiting_targets)
                waiting = [target for target, queued in known if queued]
                if waiting and await self._duty.hold():
                    for target in waiting:
                        self._see_to(target)
                rest = LOOK_S if known else LOOK_IDLE_S
            except ClusterError as error:
                log.warning("events wait: %s", error)
                rest = TROUBLE_S
            except Exception:                 # a bug of ours must neither end it in silence nor make it spin
                log.exception("the delivery of events failed, and is tried again in %d s", BUG_S)
                rest = BUG_S
            await asyncio.sleep(rest)

    def _see_to(self, target: str) -> None:
        """Its queue is being delivered from now on, if it is not already."""
        if target in self._running:
            return
        queue = self._queues.get(target)
        if queue is None:
            webhook = self._webhooks.get(target)
            queue = self._queues[target] = TargetQueue(
                target, Nowhere() if webhook is None else Sender(webhook, self._allow), self._metadata,
                now_ms=self._duty.log_now_ms, connections=1 if webhook is None else webhook.connections,
                retention_ms=self._retention_ms, region=self._region, held=lambda: self._duty.held)
        task = self._running[target] = asyncio.create_task(queue.run())
        task.add_done_callback(lambda done: self._ended(target, done))

    def _ended(self, target: str, task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        if error is None:
            del self._running[target]
            return
        if isinstance(error, ClusterError):
            log.warning("target %s: %s", target, error)
        else:
            log.error("target %s: delivery failed", target, exc_info=error)
        asyncio.get_running_loop().call_later(TROUBLE_S, self._running.pop, target)     # it is running, as it were

    async def _stop_all(self) -> None:
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for queue in self._queues.values():
            queue.close()
