"""Configurations that are kept and given back, checked as AWS checks them, though nothing comes of them here.

Kept is what does no harm if nobody acts on it: analytics, inventory, metrics, tiering, accelerate. Refused is what would be
believed and isn't done: replication that is on, attribute-based access. Who pays is more than kept: other accounts must say
that they would (gateway/bucket_access.py). `NOTES` say so in the docs.
"""

import functools
from typing import NamedTuple

from gateway.bucket_access import BUCKET_OWNER, PAYER
from gateway.bucket_settings import Kind
from gateway.ops import settings, tokens
from gateway.ops.context import Context, Handler
from gateway.ops.never import not_implemented
from gateway.ops.replies import xml
from gateway.s3 import configurations as conf
from gateway.s3.configurations import CONFIGURATIONS_MAX, PAGE, Family
from gateway.s3.errors import S3Error
from gateway.s3.reply import Reply
from gateway.s3.request import S3Request
from gateway.s3.xml.pieces import document
from gateway.s3.xml.schema import Tree, branches, leaf

NOTES = {
    "analytics": "kept; nothing is analysed",
    "inventory": "kept; no inventory is written",
    "metrics": "kept; the server's own metrics are in METRICS.md",
    "intelligent-tiering": "kept; objects stay in the class that they were given",
    "accelerate": "kept; there is no other endpoint",
    "requestPayment": "kept; with `Requester`, callers of other accounts are refused unless they send `x-amz-request-payer: "
                      "requester`, and are told `x-amz-request-charged`; nobody is charged",
    "replication": "rules that are Disabled are kept; one that is Enabled is `NotImplemented`, since it would be taken for a "
                   "second copy that nobody makes",
    "encryption": "`NotImplemented`, since nothing is encrypted",
    "abac": "Disabled; to enable it is `NotImplemented`",
}
"""What comes of each kind: for the docs."""


# Families


class Member(NamedTuple):
    """Of a family: `setting` is how the names of its rows begin."""

    family: Family
    setting: str

    def kind(self, id: str) -> Kind[str]:
        return Kind(self.setting + id, str, "NoSuchConfiguration")


FAMILIES = {
    "Analytics": Member(conf.ANALYTICS, "analytics/"),
    "IntelligentTiering": Member(conf.INTELLIGENT_TIERING, "intelligent-tiering/"),
    "Inventory": Member(conf.INVENTORY, "inventory/"),
    "Metrics": Member(conf.METRICS, "metrics/"),
}


async def _put(member: Member, ctx: Context, request: S3Request) -> Reply:
    bucket, body = await settings.sent(ctx, request, member.family.shape.bytes_max)
    id = conf.id_of(request.query.get("id"))
    tree = member.family.read(body, id)
    kind = member.kind(id)
    if await kind.of(ctx.metadata, bucket.id) is None:
        kept = await ctx.metadata.settings_page(bucket.id, member.setting, "", CONFIGURATIONS_MAX)
        if len(kept) >= CONFIGURATIONS_MAX:
            raise S3Error("TooManyConfigurations")
    return await settings.put(ctx, request, bucket, kind, member.family.shape.inner(tree))


async def _get(member: Member, ctx: Context, request: S3Request) -> Reply:
    return xml(document(member.family.shape.root, await _found(member, ctx, request)))


async def _delete(member: Member, ctx: Context, request: S3Request) -> Reply:
    await _found(member, ctx, request)
    return await settings.remove(ctx, request, member.kind(conf.id_of(request.query.get("id"))))


async def _found(member: Member, ctx: Context, request: S3Request) -> str:
    """The one that the request names; who may not ask for it isn't told what is wrong with the name."""
    await ctx.bucket(request)
    return await settings.get(ctx, request, member.kind(conf.id_of(request.query.get("id"))))


async def _list(member: Member, ctx: Context, request: S3Request) -> Reply:
    """In order of their ids."""
    bucket = await ctx.bucket(request)
    token = request.query.get("continuation-token")
    after = member.setting + tokens.parse(token) if token else ""
    found = await ctx.metadata.settings_page(bucket.id, member.setting, after, PAGE + 1)
    shown = found[:PAGE]
    last = shown[-1][0].removeprefix(member.setting) if len(found) > PAGE else None
    return xml(conf.page(
        member.family, [member.kind("").decode(text) for _, text in shown], token=token,
        next_token=None if last is None else tokens.make(last),
    ))


def _of_families() -> dict[str, Handler]:
    handlers: dict[str, Handler] = {}
    for name, member in FAMILIES.items():
        handlers[f"PutBucket{name}Configuration"] = functools.partial(_put, member)
        handlers[f"GetBucket{name}Configuration"] = functools.partial(_get, member)
        handlers[f"DeleteBucket{name}Configuration"] = functools.partial(_delete, member)
        handlers[f"ListBucket{name}Configurations"] = functools.partial(_list, member)
    return handlers


# Once a bucket

_ACCELERATE: Kind[str] = Kind("accelerate", str, "")
_REPLICATION: Kind[str] = Kind("replication", str, "ReplicationConfigurationNotFoundError")


async def put_bucket_accelerate_configuration(ctx: Context, request: S3Request) -> Reply:
    """To suspend what was never enabled changes nothing, as on AWS."""
    bucket, body = await settings.sent(ctx, request, conf.BYTES_MAX)
    if "." in bucket.name:
        raise S3Error("InvalidRequest", "S3 Transfer Acceleration is not supported for buckets with periods (.) in their names")
    tree = conf.ACCELERATE.read(body)
    if leaf(tree, "Status") == "Suspended" and await _ACCELERATE.of(ctx.metadata, bucket.id) is None:
        return Reply()
    return await settings.put(ctx, request, bucket, _ACCELERATE, conf.ACCELERATE.inner(tree))


async def get_bucket_accelerate_configuration(ctx: Context, request: S3Request) -> Reply:
    """Empty where it was never set."""
    inner = await _ACCELERATE.of(ctx.metadata, (await ctx.bucket(request)).id)
    return xml(document(conf.ACCELERATE.root, inner or ""))


async def put_bucket_request_payment(ctx: Context, request: S3Request) -> Reply:
    bucket, body = await settings.sent(ctx, request, conf.BYTES_MAX)
    payer = leaf(conf.REQUEST_PAYMENT.read(body), "Payer")
    if payer == (await ctx.rules_of(bucket)).payer:
        return Reply()      # a bucket where nothing is set stays one for which nothing is looked up
    return await settings.put(ctx, request, bucket, PAYER, None if payer == BUCKET_OWNER else payer)


async def get_bucket_request_payment(ctx: Context, request: S3Request) -> Reply:
    bucket = await ctx.bucket(request)
    return xml(document(conf.REQUEST_PAYMENT.root, f"<Payer>{(await ctx.rules_of(bucket)).payer}</Payer>"))


async def put_bucket_replication(ctx: Context, request: S3Request) -> Reply:
    """Checked to the end, so that who tries it learns of his own mistakes first."""
    bucket, body = await settings.sent(ctx, request, conf.REPLICATION_BYTES_MAX)
    if bucket.versioning != "Enabled":
        raise S3Error(
            "InvalidRequest", "Versioning must be 'Enabled' on the bucket to apply a replication configuration")
    tree = conf.REPLICATION.read(body)
    for name in sorted(conf.destinations(tree)):
        destination = await ctx.metadata.bucket(name)
        # AWS says the same of one that isn't there. Of somebody else's bucket nobody learns more than that.
        if destination is None or (destination.account == bucket.account and destination.versioning != "Enabled"):
            raise S3Error("InvalidRequest", "Destination bucket must have versioning enabled.")
    if any(leaf(rule, "Status") == "Enabled" for rule in branches(tree, "Rule")):
        raise S3Error("NotImplemented", "Staddle does not replicate buckets yet: only rules that are Disabled are kept.")
    return await settings.put(ctx, request, bucket, _REPLICATION, conf.REPLICATION.inner(_with_ids(tree)))


def _with_ids(tree: Tree) -> Tree:
    """A rule without an id is given one."""
    taken = {leaf(rule, "ID") for rule in branches(tree, "Rule")}
    numbers = (f"rule-{number}" for number in range(1, 2 * conf.RULES_MAX + 1))
    free = (name for name in numbers if name not in taken)
    return {**tree, "Rule": [rule if leaf(rule, "ID") else {**rule, "ID": next(free)} for rule in branches(tree, "Rule")]}


async def get_bucket_replication(ctx: Context, request: S3Request) -> Reply:
    return xml(document(conf.REPLICATION.root, await settings.get(ctx, request, _REPLICATION)))


async def delete_bucket_replication(ctx: Context, request: S3Request) -> Reply:
    return await settings.remove(ctx, request, _REPLICATION)


async def put_bucket_abac(ctx: Context, request: S3Request) -> Reply:
    """What is the case may be said again."""
    _, body = await settings.sent(ctx, request, conf.BYTES_MAX)
    if leaf(conf.ABAC.read(body), "Status") == "Enabled":
        not_implemented(ctx.operation.name)
    return Reply()


HANDLERS: dict[str, Handler] = {
    **_of_families(),
    "PutBucketAccelerateConfiguration": put_bucket_accelerate_configuration,
    "GetBucketAccelerateConfiguration": get_bucket_accelerate_configuration,
    "PutBucketRequestPayment": put_bucket_request_payment,
    "GetBucketRequestPayment": get_bucket_request_payment,
    "PutBucketReplication": put_bucket_replication,
    "GetBucketReplication": get_bucket_replication,
    "DeleteBucketReplication": delete_bucket_replication,
    "PutBucketAbac": put_bucket_abac,
}
