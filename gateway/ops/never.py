"""Operations that are not there: what S3 answers where nothing was ever configured, or NotImplemented with the name.

The answers are data in the operation table. A configuration that cannot be set was never set, so they are true.
Which of AWS's newer defaults a bucket shows is a setting, because tools exist that expect the classic ones.
"""

from typing import NoReturn

from gateway.ops.context import Context
from gateway.ops.objects.reading import find
from gateway.ops.replies import xml
from gateway.s3.errors import S3Error
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
    if operation.scope == "object" and never is not None:
        await find(ctx, request)
    elif operation.scope != "service":
        await ctx.bucket(request)
    if never is None:
        not_implemented(operation.name)
    if operation.name == "GetBucketEncryption" and ctx.settings.default_encryption:
        return xml(_AES256)
    if never.code:
        raise S3Error(never.code, never.message, BucketName=request.bucket)
    if never.document:
        return xml(never.document)
    return Reply(status=never.status)


def not_implemented(name: str) -> NoReturn:
    """A whole operation that Staddle has not got."""
    raise S3Error("NotImplemented", f"Staddle does not implement {name} yet.")
