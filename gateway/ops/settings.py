"""What owners set for their buckets, in requests and answers: any kind of it (gateway/bucket_settings.py)."""

import base64
import uuid
from collections.abc import Iterator
from typing import Any

import msgspec

from consensus.core.commands import SetBucketSetting
from consensus.core.model import Bucket, LockDefault, Pairs
from consensus.core.results import Done
from gateway.bucket_settings import Kind, Value
from gateway.ops.context import Context
from gateway.ops.refusals import refusal
from gateway.ops.uploads.upload import read_body
from gateway.s3 import cors
from gateway.s3.errors import S3Error
from gateway.s3.reply import Reply
from gateway.s3.request import S3Request

CORS: Kind[cors.Rules] = Kind("cors", cors.Rules, "NoSuchCORSConfiguration")
OBJECT_LOCK: Kind[LockDefault] = Kind("object-lock", LockDefault, "ObjectLockConfigurationNotFoundError")
"""Set by a command of its own, since the log enforces it."""
TAGS: Kind[Pairs] = Kind("tags", Pairs, "NoSuchTagSet")


def documents(*values: tuple[Kind[Any], Any]) -> Iterator[tuple[str, bytes]]:
    """Of a bucket that is being made: as metadata keeps them. None is left out."""
    for kind, value in values:
        if value is not None:
            yield kind.name, msgspec.msgpack.encode(value)


async def get(ctx: Context, request: S3Request, kind: Kind[Value]) -> Value:
    """Raises S3Error with the code for a bucket that has none."""
    bucket = await ctx.bucket(request)
    value = await kind.of(ctx.metadata, bucket.id)
    if value is None:
        if kind.missing == "NoSuchConfiguration":
            raise S3Error(kind.missing)      # the one of these errors that names no bucket on AWS
        raise S3Error(kind.missing, BucketName=bucket.name)
    return value


def new_rule_id() -> str:
    """As AWS names rules that have no id."""
    return base64.b64encode(str(uuid.uuid4()).encode()).decode()


async def sent(
    ctx: Context, request: S3Request, limit: int, *, digest_required: bool = False, empty: str = "MissingRequestBodyError",
) -> tuple[Bucket, bytes]:
    """The bucket, and the document that a client sends about it or an object in it. Raises S3Error.

    `digest_required` where AWS has been seen to refuse one without Content-MD5 or checksum: CORS, lifecycle, tags of a bucket
    (and DeleteObjects). SDKs send one with every configuration, and AWS's pages ask for it on more of them, but it takes tags
    of objects, for one, without: to be stricter than AWS would turn clients away for nothing. `empty` is the code for no
    document at all, of which AWS has two."""
    bucket = await ctx.bucket(request)
    body = await read_body(ctx, request, limit, digest_required=digest_required)
    if not body:
        raise S3Error(empty)
    return bucket, body


async def put(
    ctx: Context, request: S3Request, bucket: Bucket, kind: Kind[Value], value: Value | None, status: int = 200,
) -> Reply:
    """Set it, or remove it."""
    document = None if value is None else msgspec.msgpack.encode(value)
    outcome = await ctx.metadata.commit(SetBucketSetting(bucket=bucket.id, name=kind.name, document=document))
    if not isinstance(outcome, Done):
        raise refusal(outcome, request)
    return Reply(status=status)


async def remove(ctx: Context, request: S3Request, kind: Kind[Any]) -> Reply:
    """Succeeds also where nothing was set."""
    return await put(ctx, request, await ctx.bucket(request), kind, None, 204)
