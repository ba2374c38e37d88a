"""Operations that are not there: what S3 answers where nothing was ever configured, or NotImplemented with the name.

The answers are data in the operation table. A configuration that cannot be set was never set, so they are true.
Which of AWS's newer defaults a bucket shows is a setting, because tools exist that expect the classic ones.
"""

from typing import NoReturn

from gateway.ops.context import Context
from gateway.ops.reading import find
from gateway.ops.replies import xml
from gateway.ops.upload import read_body
from gateway.s3 import xml_read, xml_write
from gateway.s3.errors import S3Error
from gateway.s3.headers import refuse_unsupported
from gateway.s3.hoisting import effective_headers
from gateway.s3.operations import XMLNS
from gateway.s3.reply import Reply
from gateway.s3.request import S3Request

_AES256 = (
    f'<?xml version="1.0" encoding="UTF-8"?>\n<ServerSideEncryptionConfiguration xmlns="{XMLNS}"><Rule>'
    "<ApplyServerSideEncryptionByDefault><SSEAlgorithm>AES256</SSEAlgorithm></ApplyServerSideEncryptionByDefault>"
    "<BucketKeyEnabled>false</BucketKeyEnabled></Rule></ServerSideEncryptionConfiguration>"
).encode()


async def answer(ctx: Context, request: S3Request) -> Reply:
    """The table's answer. The bucket, and the object where the operation is about one, must exist."""
    operation, never = ctx.operation, ctx.operation.never
    owner = ""
    if operation.scope == "object" and never is not None:
        owner = (await find(ctx, request)).version.owner
    elif operation.scope != "service":
        owner = (await ctx.bucket(request)).owner
    if operation.name in _PUT_ACLS and ctx.settings.object_ownership == "BucketOwnerEnforced":
        if operation.scope == "object":
            owner = (await find(ctx, request)).version.owner
        return await _acl(ctx, request, owner)
    if never is None:
        not_implemented(operation.name)
    if operation.name == "GetBucketOwnershipControls" and ctx.settings.object_ownership == "ObjectWriter":
        raise S3Error("OwnershipControlsNotFoundError")
    if operation.name == "GetPublicAccessBlock" and not ctx.settings.block_public_access:
        raise S3Error("NoSuchPublicAccessBlockConfiguration")
    if operation.name == "GetBucketEncryption" and ctx.settings.default_encryption:
        return xml(_AES256)
    if never.code:
        raise S3Error(never.code, never.message, BucketName=request.bucket)
    if never.owner_acl:
        return xml(xml_write.access_control_policy(ctx.owner(owner)))
    if never.document:
        return xml(never.document)
    return Reply(status=never.status)


_PUT_ACLS = frozenset({"PutBucketAcl", "PutObjectAcl"})


async def _acl(ctx: Context, request: S3Request, owner: str) -> Reply:
    """Where the bucket's owner owns everything, access lists are off: S3 takes none but the one that says just that. We also
    take the list that we show, since tools write back what they have read after a copy."""
    given = effective_headers(request)
    refuse_unsupported(given)            # grants, and grants beside a canned list
    canned = given.get("x-amz-acl")
    if canned is not None and await read_body(ctx, request, xml_read.SMALL_BYTES_MAX):
        raise S3Error("UnexpectedContent")
    if canned == "bucket-owner-full-control":
        return Reply()
    if canned is None and xml_read.grants_owner_alone(await read_body(ctx, request, xml_read.SMALL_BYTES_MAX), owner):
        return Reply()
    raise S3Error("AccessControlListNotSupported")


def not_implemented(name: str) -> NoReturn:
    """A whole operation that Staddle has not got."""
    raise S3Error("NotImplemented", f"Staddle does not implement {name} yet.")
