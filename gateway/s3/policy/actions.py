"""S3's actions as policies name them: what each is about, the condition keys there are, and what a request needs.

An *action* is about objects, about a bucket, or about the account (`kind_of`). A request needs the action of its row in the
operation table, and more for what its headers ask for beside it (`needed`): a PUT that sets tags needs PutObjectTagging too.
Source: AWS, "Actions, resources, and condition keys for Amazon S3".
"""

from collections.abc import Mapping
from typing import Literal

from gateway.s3.conditions import has_dates
from gateway.s3.locks import BYPASS, HOLD, MODE
from gateway.s3.locks import bypass as bypasses
from gateway.s3.operations import BEYOND_MODEL, OPERATIONS, Operation

Kind = Literal["object", "bucket", "account"]

_ABOUT_OBJECTS = (
    "PutObjectRetention", "PutObjectLegalHold", "BypassGovernanceRetention", "GetObjectVersionForReplication", "ReplicateObject",
    "ReplicateDelete", "ReplicateTags", "ObjectOwnerOverrideToBucketOwner", "InitiateReplication", "DeleteObject",
    "PutObjectVersionAcl", "PutObjectVersionTagging", "GetObjectVersionTorrent",
)
_ABOUT_ACCOUNTS = ("ListAllMyBuckets", "ListAllMyDirectoryBuckets", "CreateJob", "ListJobs", "GetAccountPublicAccessBlock",
                   "PutAccountPublicAccessBlock")
_ABOUT_BUCKETS = ("DeleteBucketWebsite", "PutBucketObjectLockConfiguration")


def _kinds() -> dict[str, Kind]:
    kinds: dict[str, Kind] = {}
    for operation in (*OPERATIONS, *BEYOND_MODEL):
        for action in filter(None, (operation.action, operation.version_action)):
            kind: Kind = "account" if operation.scope == "service" else operation.scope
            if kinds.get(action.lower()) != "object":
                kinds[action.lower()] = kind
    for names, kind in ((_ABOUT_OBJECTS, "object"), (_ABOUT_ACCOUNTS, "account"), (_ABOUT_BUCKETS, "bucket")):
        kinds.update((f"s3:{name.lower()}", kind) for name in names)
    return kinds


KIND_OF: dict[str, Kind] = _kinds()
"""Every action there is, in lower case."""

SPELLING: dict[str, str] = {
    name.lower(): name for name in (
        *(action for row in (*OPERATIONS, *BEYOND_MODEL) for action in (row.action, row.version_action) if action),
        *(f"s3:{name}" for name in (*_ABOUT_OBJECTS, *_ABOUT_ACCOUNTS, *_ABOUT_BUCKETS)))
}
"""In lower case, and as AWS spells it."""

OF_EXISTING_OBJECTS = frozenset(
    f"s3:{name}" for name in (
        "GetObject", "GetObjectVersion", "GetObjectAcl", "GetObjectVersionAcl", "GetObjectTagging", "GetObjectVersionTagging",
        "GetObjectAttributes", "GetObjectVersionAttributes", "GetObjectTorrent", "GetObjectVersionTorrent", "GetObjectRetention",
        "GetObjectLegalHold", "PutObjectAcl", "PutObjectVersionAcl", "PutObjectTagging", "PutObjectVersionTagging",
        "DeleteObjectTagging", "DeleteObjectVersionTagging", "PutObjectRetention", "PutObjectLegalHold", "RestoreObject",
    )
)
"""Actions that depend on the object that is there: its owner, its access list, its tags."""

# Condition keys

_GLOBAL = (
    "CurrentTime", "EpochTime", "SecureTransport", "SourceIp", "UserAgent", "Referer", "PrincipalType", "userid", "username",
    "PrincipalArn", "PrincipalAccount", "PrincipalOrgID", "PrincipalOrgPaths", "PrincipalIsAWSService", "PrincipalServiceName",
    "PrincipalServiceNamesList", "RequestedRegion", "ResourceAccount", "ResourceOrgID", "ResourceOrgPaths", "SourceAccount",
    "SourceArn", "SourceOwner", "SourceOrgID", "SourceOrgPaths", "SourceVpc", "SourceVpce", "SourceVpcArn", "VpcSourceIp",
    "VpceAccount", "VpceOrgID", "VpceOrgPaths", "ViaAWSService", "CalledVia", "CalledViaFirst", "CalledViaLast",
    "MultiFactorAuthPresent", "MultiFactorAuthAge", "TokenIssueTime", "FederatedProvider", "SourceIdentity", "TagKeys",
    "Ec2InstanceSourceVpc", "Ec2InstanceSourcePrivateIPv4", "AssumedRoot", "ChatbotSourceArn",
)
_OF_S3 = (
    "prefix", "delimiter", "max-keys", "VersionId", "x-amz-acl", "x-amz-grant-read", "x-amz-grant-write", "x-amz-grant-read-acp",
    "x-amz-grant-write-acp", "x-amz-grant-full-control", "x-amz-copy-source", "x-amz-metadata-directive", "x-amz-storage-class",
    "x-amz-website-redirect-location", "x-amz-content-sha256", "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-aws-kms-key-id", "x-amz-server-side-encryption-customer-algorithm", "x-amz-object-ownership",
    "authType", "signatureAge", "signatureversion", "TlsVersion", "ResourceAccount", "LocationConstraint", "object-lock-mode",
    "object-lock-retain-until-date", "object-lock-remaining-retention-days", "object-lock-legal-hold", "if-match",
    "if-none-match", "RequestObjectTagKeys", "ObjectCreationOperation", "DataAccessPointArn", "DataAccessPointAccount",
    "AccessPointNetworkOrigin", "AccessGrantsInstanceArn", "InventoryAccessibleOptionalFields", "isReplicationPauseRequest",
)
_WITH_NAMES = ("s3:ExistingObjectTag/", "s3:RequestObjectTag/", "aws:PrincipalTag/", "aws:RequestTag/", "aws:ResourceTag/",
               "s3:BucketTag/")

KEYS = frozenset(f"aws:{key.lower()}" for key in _GLOBAL) | frozenset(f"s3:{key.lower()}" for key in _OF_S3)
"""Condition keys in lower case. What has no meaning here (organisations, VPCs, roles) is known and never there."""

LISTING_KEYS = frozenset({"s3:prefix", "s3:delimiter", "s3:max-keys"})
LISTINGS = frozenset({"s3:listbucket", "s3:listbucketversions", "s3:listbucketmultipartuploads"})
"""A condition on one of those keys says nothing with any other action, and S3 refuses it."""


def known_key(key: str) -> bool:
    folded = key.lower()
    return folded in KEYS or any(folded.startswith(name.lower()) and len(key) > len(name) for name in _WITH_NAMES)


def spelt(key: str) -> str:
    """The key as contexts have it: names of keys in lower case, names of tags as they are."""
    for name in _WITH_NAMES:
        if key.lower().startswith(name.lower()):
            return name.lower() + key[len(name):]
    return key.lower()


# What a request needs

GRANTS = tuple(f"x-amz-grant-{name}" for name in ("read", "write", "read-acp", "write-acp", "full-control"))
_ACL = ("x-amz-acl", *GRANTS)
_WRITES = frozenset({"PutObject", "CopyObject", "CreateMultipartUpload", "PostObject"})
_BYPASSING = frozenset({"DeleteObject", "DeleteObjects", "PutObjectRetention"})
_CONDITIONED = frozenset({"PutObject", "CopyObject", "CompleteMultipartUpload", "DeleteObject", "RenameObject"})


def needed(
    operation: Operation, query: Mapping[str, str], headers: Mapping[str, str], bucket_owner: str = "",
) -> tuple[str, ...]:
    """All of these, on the resource of the request. What a copy needs on its source comes in addition (`needed_of_source`)."""
    name = operation.name
    versioned = "versionId" in query
    actions = [operation.version_action if versioned and operation.version_action else operation.action]
    if name == "GetObjectAttributes":
        actions.append("s3:GetObjectVersion" if versioned else "s3:GetObject")
    elif name in _WRITES:
        if headers.get("x-amz-tagging"):
            actions.append("s3:PutObjectTagging")
        if any(header in headers for header in _ACL) and not _gives_to_bucket_owner(headers, bucket_owner):
            actions.append("s3:PutObjectAcl")
        if MODE in headers:
            actions.append("s3:PutObjectRetention")
        if HOLD in headers:
            actions.append("s3:PutObjectLegalHold")
    elif name == "CreateBucket":
        if any(header in headers for header in _ACL):
            actions.append("s3:PutBucketAcl")
        if "x-amz-object-ownership" in headers:
            actions.append("s3:PutBucketOwnershipControls")
        if headers.get("x-amz-bucket-object-lock-enabled", "").lower() == "true":
            actions += ["s3:PutBucketObjectLockConfiguration", "s3:PutBucketVersioning"]
    elif name == "RenameObject":
        actions.append("s3:PutObject")
    if name in _CONDITIONED and ("if-match" in headers or (name == "RenameObject" and has_dates(headers))):
        actions.append("s3:GetObject")
    if name in _BYPASSING and BYPASS in headers and bypasses(headers) and name != "DeleteObjects":
        actions.append("s3:BypassGovernanceRetention")
    return tuple(actions)


def _gives_to_bucket_owner(headers: Mapping[str, str], bucket_owner: str) -> bool:
    """Whether a new object's list gives nothing to anybody else: AWS's policies that demand just that allow PutObject and no
    more (AWS, "Policy examples for ACLs", and what CloudTrail asks of its bucket)."""
    canned = headers.get("x-amz-acl")
    if canned is not None:
        return canned in ("bucket-owner-read", "bucket-owner-full-control")
    grantees = (item.strip() for name in GRANTS for item in headers.get(name, "").split(",") if item)
    return all(item in (f"id={bucket_owner}", f'id="{bucket_owner}"') for item in grantees)


def needed_of_source(*, versioned: bool, tags: bool) -> tuple[str, ...]:
    """What a copy needs on what it reads. `tags`: they are copied, and there are some."""
    read = "s3:GetObjectVersion" if versioned else "s3:GetObject"
    if not tags:
        return (read,)
    return read, "s3:GetObjectVersionTagging" if versioned else "s3:GetObjectTagging"
