"""Who may reach a bucket, as its owner has set it: policy, access list, object ownership, public access block.

Rules       what is in force for one bucket, the defaults of this server filled in
RuleBook    the rules of the buckets that were asked about lately. A bucket's `access` moves in the log with each change of
            them and comes with the bucket, so what is kept is as new as the bucket, and one without any costs nothing.
"""

from typing import TYPE_CHECKING, NamedTuple

from consensus.core.commands import ACCESS
from consensus.core.errors import Corrupt
from consensus.core.ids import BucketId
from consensus.core.model import Bucket, Pairs
from gateway.bucket_settings import Kind
from gateway.s3.errors import S3Error
from gateway.s3.policy.evaluation import Policy
from gateway.s3.policy.public import is_public
from gateway.s3.policy.read import stored_bucket_policy

if TYPE_CHECKING:
    from consensus.client import MetadataClient

POLICY: Kind[bytes] = Kind(f"{ACCESS}policy", bytes, "NoSuchBucketPolicy")
ACL: Kind[Pairs] = Kind(f"{ACCESS}acl", Pairs, "NoSuchKey")
OWNERSHIP: Kind[str] = Kind(f"{ACCESS}ownership", str, "OwnershipControlsNotFoundError")
BLOCK: Kind[tuple[bool, ...]] = Kind(f"{ACCESS}block", tuple[bool, ...], "NoSuchPublicAccessBlockConfiguration")

PAYER: Kind[str] = Kind(f"{ACCESS}requestPayment", str, "")
BUCKET_OWNER, REQUESTER = "BucketOwner", "Requester"
"""Who pays is a matter of access: where it is the requester, callers of other accounts must say that they know."""

ENFORCED, PREFERRED, WRITER = "BucketOwnerEnforced", "BucketOwnerPreferred", "ObjectWriter"

BUCKETS_MAX = 10_000
"""Whose rules are kept; then all are forgotten. They are small but for policies, which have 20 KB at most."""


class Block(NamedTuple):
    """S3's public access block."""

    block_acls: bool = False
    ignore_acls: bool = False
    block_policy: bool = False
    restrict: bool = False


NO_BLOCK = Block()
ALL_BLOCKED = Block(True, True, True, True)


class Rules(NamedTuple):
    """`ownership` "" and `block` None: there are none (and objects are their writers'). `acl` None: the owner alone."""

    ownership: str
    block: Block | None
    document: bytes | None = None      # of the policy, as it was put
    policy: Policy | None = None
    public: bool = False               # the policy
    acl: Pairs | None = None
    payer: str = BUCKET_OWNER

    @property
    def acls_off(self) -> bool:
        return self.ownership == ENFORCED

    @property
    def blocked(self) -> Block:
        return self.block or NO_BLOCK


def defaults(object_ownership: str, block_public_access: bool) -> Rules:
    """Where nothing was ever set. ObjectWriter is how S3 was before there was anything to set."""
    return Rules("" if object_ownership == WRITER else object_ownership, ALL_BLOCKED if block_public_access else None)


class RuleBook:
    """Of one process."""

    def __init__(self) -> None:
        self._known: dict[BucketId, tuple[int, Rules]] = {}

    async def of(self, metadata: "MetadataClient", bucket: Bucket, default: Rules) -> Rules:
        """Raises ClusterError."""
        if not bucket.access:
            return default
        known = self._known.get(bucket.id)
        if known is not None and known[0] == bucket.access:
            return known[1]
        access, settings = await metadata.bucket_settings(bucket.id, ACCESS)
        rules = _read(bucket.name, dict(settings), default)
        if len(self._known) >= BUCKETS_MAX:
            self._known.clear()
        self._known[bucket.id] = (access, rules)
        return rules


def _read(bucket: str, settings: dict[str, bytes], default: Rules) -> Rules:
    """Raises Corrupt: what cannot be understood must not be taken for "no rules"."""
    rules = default
    try:
        if (document := settings.get(OWNERSHIP.name)) is not None:
            rules = rules._replace(ownership=OWNERSHIP.decode(document))
        if (document := settings.get(BLOCK.name)) is not None:
            flags = BLOCK.decode(document)
            rules = rules._replace(block=Block(*flags) if flags else None)
        if (document := settings.get(PAYER.name)) is not None:
            rules = rules._replace(payer=PAYER.decode(document))
        if (document := settings.get(ACL.name)) is not None:
            rules = rules._replace(acl=ACL.decode(document))
        if (document := settings.get(POLICY.name)) is not None:
            text = POLICY.decode(document)
            policy = stored_bucket_policy(text, bucket)
            rules = rules._replace(document=text, policy=policy, public=is_public(policy))
    except (Corrupt, TypeError, S3Error) as error:
        raise Corrupt(f"the access settings of bucket {bucket} cannot be read: {error}") from error
    return rules
