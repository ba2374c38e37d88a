"""Event notifications of a bucket: what its owner wants told to whom, and what a change carries for that into the log.

Targets are webhooks that the operator has named in the settings; ARNs say their names (gateway/s3/notification.py). What is
told, and when, is decided in the log (consensus/apply/events.py); gateway/events delivers it.
"""

from consensus import queries
from consensus.core.commands import SetNotification
from consensus.core.events import EventRule, Notification, Origin
from consensus.core.model import Bucket
from consensus.core.results import Done
from gateway.ops.context import Context
from gateway.ops.refusals import refusal
from gateway.ops.replies import xml
from gateway.ops.settings import new_rule_id, sent
from gateway.ops.uploads.upload import parsed
from gateway.s3 import notification
from gateway.s3.reply import Reply
from gateway.s3.request import S3Request
from gateway.s3.signing.hoisting import effective_headers


async def get_bucket_notification(ctx: Context, request: S3Request) -> Reply:
    """The configuration that was set; an empty one where there is none."""
    bucket = await ctx.bucket(request)
    found = await ctx.metadata.read(queries.notification, bucket.id)
    if found is None:
        return xml(notification.write(notification.Configuration()))
    rules = tuple(notification.Rule(rule.id, rule.kind, rule.arn, rule.events, rule.filters) for rule in found.rules)
    return xml(notification.write(notification.Configuration(rules, found.event_bridge)))


async def put_bucket_notification(ctx: Context, request: S3Request) -> Reply:
    """In the place of an earlier one; an empty document takes it away. Each topic and queue is sent a test event."""
    bucket, body = await sent(ctx, request, notification.BYTES_MAX)
    wanted = await parsed(lambda raw: notification.read(raw, new_rule_id), body)
    unchecked = effective_headers(request).get("x-amz-skip-destination-validation", "").lower() == "true"
    targets = [_target(ctx, bucket, rule) for rule in wanted.rules]
    unknown = [rule for rule, target in zip(wanted.rules, targets, strict=True) if not target]
    if unknown and not unchecked:
        raise notification.no_such_targets(unknown)
    rules = tuple(
        EventRule(id=rule.id, kind=rule.kind, arn=rule.arn, target=target, events=rule.events, filters=rule.filters)
        for rule, target in zip(wanted.rules, targets, strict=True))
    test = () if unchecked else tuple(dict.fromkeys(rule.target for rule in rules if rule.kind != "CloudFunction"))
    outcome = await ctx.metadata.commit(SetNotification(
        bucket=bucket.id, notification=Notification(rules=rules, event_bridge=wanted.event_bridge) if any(wanted) else None,
        test=test, origin=_origin(ctx, request, "")))
    if not isinstance(outcome, Done):
        raise refusal(outcome, request)
    return Reply()


def _target(ctx: Context, bucket: Bucket, rule: notification.Rule) -> str:
    """"": nobody here delivers to it, or not for this account, which need not know that there is such a target."""
    name = notification.target_of(rule.kind, rule.arn)
    accounts = ctx.settings.webhooks.get(name)
    return name if accounts is not None and (not accounts or bucket.account in accounts) else ""


def origin_of(ctx: Context, request: S3Request, bucket: Bucket, event: str = "") -> Origin | None:
    """What a command that changes an object tells besides, in a bucket of which somebody is told: elsewhere it would only make
    the log longer. `event` where the command does not say which one it is."""
    return _origin(ctx, request, event) if bucket.events else None


def _origin(ctx: Context, request: S3Request, event: str) -> Origin:
    user = ctx.principal.user_id
    return Origin(
        event=event, address=request.remote, principal=f"AWS:{user}" if user else "Anonymous", request_id=request.id,
        host_id=ctx.settings.host_id, queue_max=ctx.settings.event_queue_max)
