"""What an operation works with: the services of this process, and who asks for what.

Services live as long as the process. A Context lives for one request: the same services plus the operation, the
principal and the check that the body must pass. Operations get everything from it and reach for nothing else, so a
test builds one from fakes.

Whoever asks passes `admit` before an operation goes on: that is where access is decided (gateway/authorization.py). An
identity with all rights of its account, in a bucket of it where nothing was ever set, passes without a look at anything.
"""

import dataclasses
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec

from consensus.core.clock import Clock
from consensus.core.events import EVENT_QUEUE_MAX
from consensus.core.ids import UploadId, VersionId
from consensus.core.model import Bucket, ObjectVersion, Upload
from gateway import authorization
from gateway.authorization import Case
from gateway.bucket_access import PREFERRED, REQUESTER, RuleBook, Rules, defaults
from gateway.lifecycle.book import LifecycleBook
from gateway.s3.acl import People
from gateway.s3.errors import S3Error
from gateway.s3.headers import STORAGE_CLASSES
from gateway.s3.names import check_key
from gateway.s3.policy import context as policy_context
from gateway.s3.policy.actions import OF_EXISTING_OBJECTS, needed
from gateway.s3.policy.evaluation import Caller
from gateway.s3.policy.evaluation import Context as Keys
from gateway.s3.policy.read import of_identity
from gateway.s3.reply import Reply
from gateway.s3.request import S3Request
from gateway.s3.signing.hoisting import effective_headers
from gateway.s3.times import DAY_MS
from gateway.s3.xml.pieces import Owner, OwnerOf

if TYPE_CHECKING:
    from consensus.client import MetadataClient
    from gateway.auth import PayloadCheck, Principal
    from gateway.identities import IdentityStore
    from gateway.s3.operations import Operation
    from storage_node.replicas import Policy, Replicas

log = logging.getLogger("staddle.access")

ANONYMOUS_ID = "65a011a29cdf8ec533ec3d1ccaae921c"
"""The canonical id that AWS gives to nobody in particular: the owner of what strangers write."""

DECIDED_LATER = frozenset({"DeleteObjects", "PutObjectTagging", "PutObjectRetention", "PutObjectLegalHold"})
"""Operations whose body says what they need: their handlers call `require` when they have read it."""

_CREATES = frozenset({"PutObject", "CopyObject", "CreateMultipartUpload", "PostObject", "RenameObject"})

PAYS, PAYING = "x-amz-request-payer", "requester"
"""How a caller says that he knows that he pays."""

_OF_UPLOADS = frozenset({"AbortMultipartUpload", "ListParts"})

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
    """These three say what holds for a bucket where it was never set: AWS's defaults, or the classic ones."""
    webhooks: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    """Names of the targets that events may be sent to, and the accounts whose buckets may: none stands for all."""
    event_queue_max: int = EVENT_QUEUE_MAX
    host_id: str = ""
    """Of this process, as it stands in x-amz-id-2."""
    storage_classes: tuple[str, ...] = STORAGE_CLASSES
    """Names that objects may carry besides STANDARD."""
    archive_classes: tuple[str, ...] = ()
    """Those of them that are read only after a restore."""
    lifecycle_day_ms: int = DAY_MS
    """How long a day of lifecycles is; real ones, unless somebody tries them out."""


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of this process that operations use."""

    metadata: "MetadataClient"
    replicas: "Replicas"
    clock: Clock
    settings: Settings
    identities: "IdentityStore"
    rules: RuleBook = msgspec.field(default_factory=RuleBook)
    lifecycles: LifecycleBook = msgspec.field(default_factory=LifecycleBook)

    def context(self, operation: "Operation", principal: "Principal", payload: "PayloadCheck") -> "Context":
        return Context(
            metadata=self.metadata, replicas=self.replicas, clock=self.clock, settings=self.settings,
            identities=self.identities, rules=self.rules, lifecycles=self.lifecycles, operation=operation,
            principal=principal, payload=payload,
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
    signers: "list[Principal] | None" = None
    """Where a handler puts who has signed what the body holds, which the request itself does not say: logs name him."""
    rules: RuleBook = msgspec.field(default_factory=RuleBook)
    lifecycles: LifecycleBook = msgspec.field(default_factory=LifecycleBook)

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

    @property
    def people(self) -> People:
        def by_email(email: str) -> str | None:
            found = self.identities.by_email(email)
            return None if found is None else found.user_id

        return People(lambda user_id: self.identities.by_user_id(user_id) is not None, by_email)

    @property
    def default_rules(self) -> Rules:
        return defaults(self.settings.object_ownership, self.settings.block_public_access)

    async def rules_of(self, bucket: Bucket) -> Rules:
        """What is set for the bucket, and the defaults. Raises ClusterError."""
        return await self.rules.of(self.metadata, bucket, self.default_rules)

    async def bucket(self, request: S3Request) -> Bucket:
        """The bucket of the request. Raises S3Error NoSuchBucket, AccessDenied."""
        return await self.admit(await self.metadata.bucket(request.bucket, request.arrived), request)

    async def admit(
        self, bucket: Bucket | None, request: S3Request, version: ObjectVersion | None = None, *, looked: bool = False,
    ) -> Bucket:
        """The same for a caller that has looked the bucket up already, and, with `looked`, the version that the request
        names (`opened` reads all of a small GET at once): who may see the one it found is decided for that very one.

        Every operation on a bucket or an object passes here, so here keys are checked: S3Error KeyTooLongError.
        """
        check_key(request.key)
        found = _found(bucket, request.bucket)
        if not self.unlimited_in(found) and (
                self.operation.name not in DECIDED_LATER or await self._decided_without_body(found)):
            await self._decide(found, request, version, looked)
        return self._expected(found, effective_headers(request).get("x-amz-expected-bucket-owner"))

    async def owner_in(self, bucket: Bucket) -> OwnerOf:
        """How owners of what is in the bucket are shown: the bucket's own, where lists are off, whoever wrote it. Raises
        ClusterError."""
        if (await self.rules_of(bucket)).acls_off:
            own = self.owner(bucket.owner)
            return lambda _: own
        return self.owner

    @property
    def owner_id(self) -> str:
        """The canonical id of the caller's account; "" for nobody in particular."""
        identity = self.principal.identity
        return self.principal.user_id if identity is None else self.identities.stands_for(identity)

    async def owner_of_new(self, bucket: Bucket, given: Mapping[str, str]) -> str:
        """Canonical id of who will own what the caller writes there. `given` are the headers that say so. In a bucket of the
        caller's account that is the account, which the bucket's owner stands for."""
        identity = self.principal.identity
        if identity is not None and identity.account == bucket.account:
            return bucket.owner
        rules = await self.rules_of(bucket)
        if rules.acls_off or (rules.ownership == PREFERRED and given.get("x-amz-acl") == "bucket-owner-full-control"):
            return bucket.owner
        return self.owner_id or ANONYMOUS_ID

    async def source_bucket(self, name: str, request: S3Request) -> Bucket:
        """The bucket that a copy reads from: whether it may is decided by `require_source`. Raises S3Error NoSuchBucket."""
        found = _found(await self.metadata.bucket(name), name)
        return self._expected(found, effective_headers(request).get("x-amz-source-expected-bucket-owner"))

    def unlimited_in(self, bucket: Bucket) -> bool:
        """Whether nothing has to be looked up to know that the caller may do everything there."""
        identity = self.principal.identity
        return identity is not None and not bucket.access and identity.account == bucket.account and not identity.policies

    async def _decided_without_body(self, bucket: Bucket) -> bool:
        """Only a policy looks at what a body says. Strangers are told before anything of theirs is read; the keys of a
        DeleteObjects are judged one by one for everybody else."""
        identity = self.principal.identity
        if identity is not None and (identity.policies or self.operation.name == "DeleteObjects"):
            return False
        return (await self.rules_of(bucket)).policy is None

    async def _decide(self, bucket: Bucket, request: S3Request, version: ObjectVersion | None, looked: bool) -> None:
        actions = needed(self.operation, request.query, effective_headers(request), bucket.owner)
        case = await self.case(bucket, request)
        if self.operation.name in _OF_UPLOADS:
            case = case._replace(initiator=await self._initiator(bucket, request))
        elif self.operation.name in policy_context.CONTINUES:
            case = case._replace(context={**case.context, **await self._said_of_upload(bucket, request)})
        await self._judge(case, request, actions, version, looked)

    async def _initiator(self, bucket: Bucket, request: S3Request) -> str:
        """Of the upload that the request names. Of one that isn't there it is the caller, who then hears just that."""
        upload = await self._upload(bucket, request)
        return (self.principal.user_id or "") if upload is None else upload.initiator or upload.owner

    async def _said_of_upload(self, bucket: Bucket, request: S3Request) -> Keys:
        """By the request that began it. Of an upload that isn't there nothing is known to have been said."""
        upload = await self._upload(bucket, request)
        return {} if upload is None else policy_context.of_upload(upload.said, upload.initiated_ms)

    async def _upload(self, bucket: Bucket, request: S3Request) -> Upload | None:
        return await self.metadata.upload(bucket.id, request.key, UploadId(request.query.get("uploadId", "")))

    async def _judge(
        self, case: Case, request: S3Request, actions: tuple[str, ...], version: ObjectVersion | None, looked: bool,
    ) -> None:
        """What is asked of an object that is there depends on it; what an operation makes isn't there yet."""
        self._must_pay(case, request)
        of_existing = tuple(
            action for action in actions if action in OF_EXISTING_OBJECTS and (not case.creates or action == "s3:GetObject"))
        self._enforce(case, [action for action in actions if action not in of_existing])
        if of_existing:
            if not looked:
                version = await self._version(case, request)
            if version is not None and version.delete_marker:
                version = None
            case = self.about(case, version)
            if version is not None or not self._may_know_absence(case):
                self._enforce(case, of_existing)

    async def require(
        self, bucket: Bucket, request: S3Request, actions: tuple[str, ...], *, key: str | None = None, keys: Keys | None = None,
    ) -> None:
        """For what only the operation knows: further actions, another key than the request's (DeleteObjects), condition keys
        that the body says. Raises S3Error AccessDenied."""
        if self.unlimited_in(bucket):
            return
        case = await self.case(bucket, request, key)
        if key is not None:
            case = _of_version(case, None)
        if keys:
            case = case._replace(context={**case.context, **keys})
        await self._judge(case, request, actions, None, False)

    async def require_source(
        self, bucket: Bucket, request: S3Request, key: str, version: ObjectVersion | None, actions: tuple[str, ...],
        named: str | None = None,
    ) -> None:
        """For what a copy reads; `named` is the version that it names. Raises S3Error AccessDenied."""
        if not self.unlimited_in(bucket):
            case = self.about(_of_version(await self.case(bucket, request, key), named), version)
            self._must_pay(case, request)
            if version is not None or not self._may_know_absence(case):
                self._enforce(case, actions)

    async def absent(self, bucket: Bucket, request: S3Request, error: S3Error) -> S3Error:
        """What is said of a key or version that isn't there: only those who may list learn that."""
        if self.unlimited_in(bucket):
            return error
        decision = authorization.decide(await self.case(bucket, request), "s3:ListBucket")
        return error if decision.allowed else self._denied()

    async def may(self, request: S3Request, actions: tuple[str, ...], keys: Keys | None = None) -> None:
        """For what is about the account and no bucket of it that exists. Raises S3Error AccessDenied."""
        identity = self.principal.identity
        if identity is None:
            raise S3Error("AccessDenied")
        if identity.policies:
            case = self._case(None, request, None)
            refused = authorization.first_refusal(case._replace(context={**case.context, **(keys or {})}), actions)
            if refused is not None:
                raise S3Error("AccessDenied")

    async def case(self, bucket: Bucket, request: S3Request, key: str | None = None) -> Case:
        return self._case(bucket, request, key)._replace(rules=await self.rules_of(bucket))

    def _case(self, bucket: Bucket | None, request: S3Request, key: str | None) -> Case:
        caller = self.caller
        identity = self.principal.identity
        context = policy_context.of_request(
            request, self.operation.name, effective_headers(request), caller, self.principal.how, region=self.settings.region,
            resource_account=bucket.account if bucket is not None else caller.account)
        return Case(
            caller, () if identity is None else tuple(map(of_identity, identity.policies)), context, bucket,
            request.bucket if bucket is None else bucket.name, key=request.key if key is None else key,
            creates=self.operation.name in _CREATES)

    @property
    def caller(self) -> Caller:
        identity = self.principal.identity
        if identity is None:
            return Caller()
        return authorization.caller_of(
            self.identities, identity.account, identity.name, identity.user_id, limited=bool(identity.policies))

    def about(self, case: Case, version: ObjectVersion | None) -> Case:
        """The same about this very version."""
        if version is None or version.delete_marker:
            return case
        assert case.bucket is not None
        tags = policy_context.of_object(version.attributes.tags)
        return case._replace(
            version=version, owner_account=authorization.owner_account(self.identities, case.bucket, version.owner),
            context={**case.context, **tags} if tags else case.context)

    async def _version(self, case: Case, request: S3Request) -> ObjectVersion | None:
        assert case.bucket is not None
        named = request.query.get("versionId")
        if named is None or case.key != request.key:
            return await self.metadata.current(case.bucket.id, case.key)
        return await self.metadata.version(case.bucket.id, case.key, VersionId(named))

    def _may_know_absence(self, case: Case) -> bool:
        """Whether "there is no such key" may be said although nobody could allow reading it: its own list would have, where
        lists count. Whoever may list the bucket sees as much."""
        assert case.rules is not None
        return not case.rules.acls_off and authorization.decide(case, "s3:ListBucket").allowed

    def blocked(self, bucket: Bucket, key: str, why: str) -> S3Error:
        """What is said to who has the right, but what he wants is public, and such is blocked in the bucket."""
        action = self.operation.action
        if self.principal.anonymous:
            return S3Error("AccessDenied")
        return S3Error(
            "AccessDenied", f"User: {self.caller.arn} is not authorized to perform: {action} on resource: "
            f'"{authorization.resource_of(action, bucket.name, key)}" because {why} setting in S3 Block Public Access.')

    def _must_pay(self, case: Case, request: S3Request) -> None:
        """Where the requester pays, callers of other accounts say that they know it; who is nobody cannot pay."""
        assert case.rules is not None
        assert case.bucket is not None
        if case.rules.payer == REQUESTER and case.caller.account != case.bucket.account and (
                case.caller.anonymous or effective_headers(request).get(PAYS) != PAYING):
            raise self._denied()

    async def charged(self, request: S3Request) -> bool:
        """Whether it is the caller who would pay for this request, which says that he knows (`PAYS`)."""
        bucket = await self.metadata.bucket(request.bucket)
        return (bucket is not None and bool(bucket.access) and self.principal.account != bucket.account
                and (await self.rules_of(bucket)).payer == REQUESTER)

    def _enforce(self, case: Case, actions: Iterable[str]) -> None:
        refused = authorization.first_refusal(case, actions)
        if refused is not None:
            assert case.bucket is not None
            log.debug("%s of %s was denied: %s", self.operation.name, case.bucket.name, refused.why)
            raise self._denied()

    def _denied(self) -> S3Error:
        return S3Error("AccessDenied", headers=(("x-amz-bucket-region", self.settings.region),))

    def _expected(self, bucket: Bucket, expected_owner: str | None) -> Bucket:
        if expected_owner is not None and expected_owner != bucket.account:
            if len(expected_owner) != ACCOUNT_DIGITS or not expected_owner.isdecimal():
                raise S3Error("InvalidBucketOwnerAWSAccountID", "The value of the expected bucket owner parameter must be an AWS "
                              f"Account ID... [{expected_owner}]")
            raise S3Error("AccessDenied")
        return bucket


def _of_version(case: Case, named: str | None) -> Case:
    """The version that is named for this very key; what the request's address says is about another."""
    context = {key: value for key, value in case.context.items() if key != "s3:versionid"}
    return case._replace(context=context if named is None else {**context, "s3:versionid": (named,)})


def _found(bucket: Bucket | None, name: str) -> Bucket:
    if bucket is None:
        raise S3Error("NoSuchBucket", BucketName=name)
    return bucket


Handler = Callable[[Context, S3Request], Awaitable[Reply]]
"""What carries out an operation."""
