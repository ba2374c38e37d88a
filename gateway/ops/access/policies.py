"""The policy of a bucket: put, shown, removed, and whether it is public (S3_SEMANTICS §17)."""

from consensus.core.model import Bucket
from gateway.bucket_access import POLICY
from gateway.identities import IdentityStore
from gateway.ops import settings
from gateway.ops.context import Context
from gateway.ops.replies import xml
from gateway.ops.uploads.upload import read_body
from gateway.s3.errors import S3Error
from gateway.s3.policy import read as policy_read
from gateway.s3.policy.evaluation import Principals
from gateway.s3.policy.public import is_public
from gateway.s3.reply import Reply
from gateway.s3.request import S3Request
from gateway.s3.xml import write as xml_write

_BODY_BYTES_MAX = 1 << 20
"""What is read of a document, so that one that is somewhat too long is told so in the words for policies."""


async def _own_bucket(ctx: Context, request: S3Request) -> Bucket:
    """Policies are for the owning account alone, whatever they say themselves: S3Error MethodNotAllowed."""
    bucket = await ctx.bucket(request)
    if ctx.principal.account != bucket.account:
        raise S3Error("MethodNotAllowed", Method=request.method, ResourceType="BUCKETPOLICY")
    return bucket


async def put_bucket_policy(ctx: Context, request: S3Request) -> Reply:
    """What cannot be understood is refused, and so is a public one where such are blocked."""
    bucket = await _own_bucket(ctx, request)
    body = await read_body(ctx, request, _BODY_BYTES_MAX)
    policy = policy_read.bucket_policy(body, bucket.name, lambda named: exist(ctx.identities, named))
    if is_public(policy) and (await ctx.rules_of(bucket)).blocked.block_policy:
        raise ctx.blocked(bucket, "", "public policies are prevented by the BlockPublicPolicy")
    return await settings.put(ctx, request, bucket, POLICY, body, 204)


def exist(identities: IdentityStore, named: Principals) -> bool:
    """Whether all of them are somebody's."""
    known = list(identities)
    return (named.accounts <= {identity.account for identity in known}
            and named.users <= {(identity.account, identity.name) for identity in known}
            and named.canonical <= {identity.user_id for identity in known})


async def get_bucket_policy(ctx: Context, request: S3Request) -> Reply:
    """As it was put."""
    document = await POLICY.of(ctx.metadata, (await _own_bucket(ctx, request)).id)
    if document is None:
        raise S3Error(POLICY.missing, BucketName=request.bucket)
    return Reply(headers=[("content-type", "application/json")], body=document)


async def delete_bucket_policy(ctx: Context, request: S3Request) -> Reply:
    return await settings.put(ctx, request, await _own_bucket(ctx, request), POLICY, None, 204)


async def get_bucket_policy_status(ctx: Context, request: S3Request) -> Reply:
    bucket = await ctx.bucket(request)
    rules = await ctx.rules_of(bucket)
    if rules.policy is None:
        raise S3Error(POLICY.missing, BucketName=bucket.name)
    return xml(xml_write.policy_status(rules.public))
