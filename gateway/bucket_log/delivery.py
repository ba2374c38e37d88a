"""One batch of records becomes an object of the target bucket, on behalf of S3's own service (permission.py).

It is an ordinary write: counted by quotas, told as an event, kept by the bucket's default lock. The object is the target
owner's; grants that the configuration asks for are its access list.
"""

from collections.abc import AsyncIterator

from consensus.core.commands import PutVersion
from consensus.core.errors import ClusterError
from consensus.core.model import Attributes, Bucket, Pairs
from consensus.core.results import Committed
from gateway.auth import ANONYMOUS
from gateway.bucket_access import Rules
from gateway.bucket_log.permission import may_deliver
from gateway.bucket_log.spool import Heading
from gateway.http.reply import new_request_id
from gateway.ops.buckets.notification import origin_of
from gateway.ops.context import Services
from gateway.ops.objects.versions import new_version_id
from gateway.ops.refusals import refusal
from gateway.ops.uploads.bringing import bring
from gateway.ops.uploads.upload import store
from gateway.s3 import acl
from gateway.s3.body import checksums
from gateway.s3.body.payload import UNCHECKED
from gateway.s3.bucket_log import Logging, object_key
from gateway.s3.errors import S3Error
from gateway.s3.names import check_key
from gateway.s3.operations import OPERATION
from gateway.s3.request import S3Request

CONTENT_TYPE = "text/plain"


class NotTaken(Exception):
    """Why the target has not taken it. It may later."""


class _Bytes:
    """gateway.s3.request.Body of bytes that are here."""

    def __init__(self, data: bytes) -> None:
        self.length: int | None = len(data)
        self._data = data

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces()

    async def _pieces(self) -> AsyncIterator[bytes]:
        yield self._data

    async def read(self, limit: int) -> bytes:
        assert len(self._data) <= limit, "a batch is larger than what it is read as"
        return self._data


async def deliver(services: Services, heading: Heading, text: bytes, unique: str) -> str:
    """The key of the object. `unique` is the same for each attempt. Raises NotTaken."""
    logging, source = heading.logging, heading.source
    now_ms = services.clock.now_ms()
    key = object_key(logging, source, delivered_s=now_ms // 1000, day=heading.day, unique=unique)
    request = S3Request(
        id=new_request_id(), method="PUT", raw_path=b"", raw_query=b"", headers={"content-length": str(len(text))}, query={},
        bucket=logging.bucket, key=key, host_style=False, secure=True, remote="", now_ms=now_ms, body=_Bytes(text))
    ctx = services.context(OPERATION["PutObject"], ANONYMOUS, UNCHECKED)
    try:
        check_key(key)
        target = await ctx.metadata.bucket(logging.bucket)
        if target is None:
            raise NotTaken("the target bucket is not there")
        rules = await ctx.rules_of(target)
        if target.account != source.account or not may_deliver(rules, target, source, key, now_ms):
            raise NotTaken("neither the target bucket's policy nor its access list allows it")
        stored = await store(ctx, request, checksums.Expected.from_headers({}).hasher(), target)
        outcome = await bring(
            ctx, PutVersion(
                bucket=target.id, key=key, version_id=new_version_id(), owner=target.owner, content=stored.content,
                attributes=Attributes(content_type=CONTENT_TYPE, acl=None if rules.acls_off else _acl(rules, target, logging)),
                origin=origin_of(ctx, request, target)),
            stored.ticket, target)
        if not isinstance(outcome, Committed):
            raise refusal(outcome, request)
    except (S3Error, ClusterError) as error:
        raise NotTaken(str(error)) from error
    return key


def _acl(rules: Rules, target: Bucket, logging: Logging) -> Pairs | None:
    """What is for everybody is left out where the target blocks such lists: any other write with one is refused there."""
    grants = [grant for grant in logging.grants if not (rules.blocked.block_acls and grant[0] in acl.PUBLIC)]
    return (*acl.owned_by(target.owner), *grants) if grants else None
