"""CORS: the rules of a bucket, the preflight that browsers send, and what every answer to another origin says."""

from typing import TYPE_CHECKING

from gateway.ops import settings
from gateway.ops.context import Context
from gateway.ops.replies import xml
from gateway.s3 import cors
from gateway.s3.errors import S3Error
from gateway.s3.reply import Reply
from gateway.s3.request import S3Request

if TYPE_CHECKING:
    from consensus.client import MetadataClient


async def get_bucket_cors(ctx: Context, request: S3Request) -> Reply:
    return xml(cors.write(await settings.get(ctx, request, settings.CORS)))


async def put_bucket_cors(ctx: Context, request: S3Request) -> Reply:
    bucket, body = await settings.sent(ctx, request, cors.BYTES_MAX, digest_required=True)
    return await settings.put(ctx, request, bucket, settings.CORS, cors.read(body))


async def delete_bucket_cors(ctx: Context, request: S3Request) -> Reply:
    return await settings.remove(ctx, request, settings.CORS)


async def preflight(ctx: Context, request: S3Request) -> Reply:
    """Nobody is asked who they are: browsers send this without credentials."""
    origin = request.headers.get("origin")
    if not origin:
        raise S3Error("BadRequest", "Insufficient information. Origin request header needed.")
    method = request.headers.get("access-control-request-method")
    said = method or "OPTIONS"
    bucket = await ctx.metadata.bucket(request.bucket)
    if bucket is None:
        raise S3Error("AccessForbidden", cors.NO_BUCKET, Method=said, ResourceType="BUCKET")
    rules = await settings.CORS.of(ctx.metadata, bucket.id)
    if rules is None:
        raise S3Error("AccessForbidden", cors.NOT_ENABLED, Method=said, ResourceType="BUCKET")
    if method not in cors.METHODS:
        raise S3Error("BadRequest", f"Invalid Access-Control-Request-Method: {method or 'null'}")
    requested = cors.requested_headers(request.headers.get("access-control-request-headers", ""))
    rule = cors.matching(rules, origin, method, requested) if len(requested) <= cors.REQUESTED_MAX else None
    if rule is None:
        raise S3Error("AccessForbidden", cors.NOT_ALLOWED, Method=method, ResourceType="OBJECT" if request.key else "BUCKET")
    return Reply(headers=cors.answer(rule, origin, requested))


async def for_origin(metadata: "MetadataClient", request: S3Request) -> list[tuple[str, str]]:
    """What the answer to this request says to the browser: nothing without a rule that fits. Raises ClusterError."""
    bucket = await metadata.bucket(request.bucket)
    rules = None if bucket is None else await settings.CORS.of(metadata, bucket.id)
    origin = request.headers["origin"]
    rule = None if rules is None else cors.matching(rules, origin, request.method)
    return [] if rule is None else cors.answer(rule, origin)
