"""Targets of event notifications: which there are and how they do, one tried out, and a queue given up."""

from consensus import queries
from consensus.core.commands import PurgeEvents
from consensus.core.events import Event, EventQueue, Origin, QueuedEvent
from consensus.core.results import Drained
from gateway.admin.context import AdminContext
from gateway.admin.errors import AdminError
from gateway.admin.values import Done, Nothing, OneTarget, Purged, TargetInfo, TargetList
from gateway.events import record
from gateway.events.addresses import AllowList
from gateway.events.sending import DeliveryFailed, Sender
from gateway.s3.times import iso8601


async def list_targets(ctx: AdminContext, asked: Nothing) -> TargetList:
    """List the targets of event notifications: those of the settings, and others for which something waits or was counted."""
    queues = {queue.target: queue for queue in await ctx.metadata.read(queries.event_queues)}
    names = sorted({*ctx.admin.config.webhooks, *queues})
    return TargetList(targets=[_info(ctx, name, queues.get(name) or EventQueue(target=name)) for name in names])


def _info(ctx: AdminContext, name: str, queue: EventQueue) -> TargetInfo:
    config, root = ctx.admin.config, ctx.admin.root
    webhook = config.webhooks.get(name)
    return TargetInfo(
        name=name, arn=f"arn:aws:sqs:{config.region}:{root.account if root is not None else ''}:{name}",
        url="" if webhook is None else webhook.address, configured=webhook is not None, queued=queue.queued,
        delivered=queue.delivered, expired=queue.expired, dropped=queue.dropped, damaged=queue.damaged,
        oldest="" if queue.oldest_ms is None else iso8601(queue.oldest_ms), error=queue.error,
        error_at=iso8601(queue.error_ms) if queue.error else "")


async def test_target(ctx: AdminContext, asked: OneTarget) -> Done:
    """Send a test event to a target, at once and from the gateway that is asked, and say what came of it."""
    config = ctx.admin.config
    webhook = config.webhooks.get(asked.target)
    if webhook is None:
        raise _unknown(asked.target)
    told = Event(name=record.TEST, rule="", bucket="", owner="", region="", at_ms=ctx.admin.services.clock.now_ms(),
                 origin=Origin(request_id=ctx.request_id))
    sender = Sender(webhook, AllowList(config.webhook_allow))
    try:
        await sender.send(record.document(QueuedEvent(order=0, place=0, event=told), config.region))
    except DeliveryFailed as error:
        raise AdminError("TargetFailed", f"{asked.target} ({webhook.address}): {error}.") from None
    finally:
        sender.close()
    return Done()


async def purge_target(ctx: AdminContext, asked: OneTarget) -> Purged:
    """Give up all events that wait for a target, and forget its counts: of one that comes back no more, for instance."""
    queues = [queue.target for queue in await ctx.metadata.read(queries.event_queues)]
    if asked.target not in queues and asked.target not in ctx.admin.config.webhooks:
        raise _unknown(asked.target)
    given_up = 0
    while True:
        outcome = await ctx.commit(PurgeEvents(target=asked.target))
        assert isinstance(outcome, Drained), outcome
        given_up += outcome.released
        if not outcome.more:
            return Purged(events=given_up)


def _unknown(target: str) -> AdminError:
    return AdminError("NoSuchTarget", f"There is no target {target!r}; `staddle events list` shows them.")
