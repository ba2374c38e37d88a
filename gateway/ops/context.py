"""What an operation works with: the services of this process, and who asks for what.

Services live as long as the process. A Context lives for one request: the same services plus the operation, the
principal and the check that the body must pass. Operations get everything from it and reach for nothing else, so a
test builds one from fakes.

Until policies exist, the rule of access is one line, in `admit`: an account reaches its own buckets.
"""

import dataclasses
from typing import TYPE_CHECKING

import msgspec

from consensus.core.clock import Clock
from consensus.core.model import Bucket
from gateway.s3.errors import S3Error
from gateway.s3.hoisting import effective_headers
from gateway.s3.names import check_key
from gateway.s3.request import S3Request
from gateway.s3.xml_pieces import Owner

if TYPE_CHECKING:
    from consensus.client import MetadataClient
    from gateway.auth import PayloadCheck, Principal
    from gateway.identities import IdentityStore
    from gateway.s3.operations import Operation
    from storage_node.replicas import Policy, Replicas

ACCOUNT_DIGITS = 12
"""The length of AWS's account ids. Ours are any text; only the error for a malformed one follows AWS's form."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings that operations depend on; the configuration file fills them in."""

    region: str = "us-east-1"
    any_region: bool = False
    signature_v2: bool = True
    chunk_bytes: int = 64 << 20
    """Objects are cut at this size. Objects of other settings live side by side."""
    single_put_bytes_max: int = 5 << 30
    """S3's limit for one PUT or part."""
    part_bytes_min: int = 5 << 20
    """S3's least size of every part but the last, judged at Complete."""
    copy_bytes_max: int | None = None
    """S3 refuses to copy objects over 5 GiB in one call. We copy by reference, so None: no limit."""
    object_ownership: str = "BucketOwnerEnforced"
    block_public_access: bool = True
    default_encryption: bool = False
    """These three say what a bucket answers whose configuration was never set: AWS's defaults, or the classic ones."""


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of this process that operations use."""

    metadata: "MetadataClient"
    replicas: "Replicas"
    clock: Clock
    settings: Settings
    identities: "IdentityStore"

    def context(self, operation: "Operation", principal: "Principal", payload: "PayloadCheck") -> "Context":
        return Context(
            metadata=self.metadata, replicas=self.replicas, clock=self.clock, settings=self.settings,
            identities=self.identities, operation=operation, principal=principal, payload=payload,
        )


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """One request's view of the services. A msgspec Struct because one is made for every request."""

    metadata: "MetadataClient"
    replicas: "Replicas"
    clock: Clock
    settings: Settings
    identities: "IdentityStore"
    operation: "Operation"
    principal: "Principal"
    payload: "PayloadCheck"

    def owner(self, user_id: str) -> Owner:
        """How an owner is shown: the canonical id, and the display name while the identity exists."""
        principal = self.principal.identity
        if principal is None or principal.user_id != user_id:
            principal = self.identities.by_user_id(user_id)
        return Owner(user_id, principal.display_name if principal is not None else "")

    def policy(self, bucket: Bucket | None) -> "Policy | None":
        """How many copies its chunks get, and how many before the answer; None for what is set for all."""
        if bucket is None or (bucket.copies is None and bucket.replication is None):
            return None
        common = self.replicas.policy
        return common._replace(copies=bucket.copies or common.copies, replication=bucket.replication or common.replication)

    async def bucket(self, request: S3Request) -> Bucket:
        """The bucket of the request. Raises S3Error NoSuchBucket, AccessDenied."""
        return self.admit(await self.metadata.bucket(request.bucket), request)

    async def source_bucket(self, name: str, request: S3Request) -> Bucket:
        """The bucket that a copy reads from. Raises S3Error NoSuchBucket, AccessDenied."""
        bucket = await self.metadata.bucket(name)
        return self._admit(bucket, name, effective_headers(request).get("x-amz-source-expected-bucket-owner"))

    def admit(self, bucket: Bucket | None, request: S3Request) -> Bucket:
        """The same for a caller that has looked the bucket up already (`opened` reads all of a small GET at once).

        Every operation on a bucket or an object passes here, so here keys are checked: S3Error KeyTooLongError.
        """
        check_key(request.key)
        return self._admit(bucket, request.bucket, effective_headers(request).get("x-amz-expected-bucket-owner"))

    def _admit(self, bucket: Bucket | None, name: str, expected_owner: str | None) -> Bucket:
        if bucket is None:
            raise S3Error("NoSuchBucket", BucketName=name)
        if self.principal.anonymous or bucket.account != self.principal.account:
            raise S3Error("AccessDenied", headers=(("x-amz-bucket-region", bucket.region or self.settings.region),))
        if expected_owner is not None and expected_owner != bucket.account:
            if len(expected_owner) != ACCOUNT_DIGITS or not expected_owner.isdecimal():
                raise S3Error("InvalidBucketOwnerAWSAccountID")
            raise S3Error("AccessDenied")
        return bucket
