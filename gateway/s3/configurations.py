"""Configurations of a bucket that are kept and given back, without anything being done for them: their documents.

Each is a `Shape`: the root element, its fields in AWS's order, and what AWS checks beyond the shape. Some come once a bucket
(accelerate, replication), some many times, each with an id of its own (analytics, inventory, metrics, intelligent tiering).
Source: AWS, the API reference's page of each Put operation.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from gateway.s3.errors import S3Error
from gateway.s3.xml.pieces import document, optional
from gateway.s3.xml.pieces import word as yes_or_no
from gateway.s3.xml.read import malformed, parse
from gateway.s3.xml.schema import (
    Field,
    Tree,
    any_text,
    branch,
    branches,
    leaf,
    read,
    true_or_false,
    whole_number,
    word,
    write,
)

CONFIGURATIONS_MAX = 1000
"""Of one family in a bucket, on AWS."""

PAGE = 100
"""AWS lists so many at once, and takes no wish for another number."""

RULES_MAX = 1000
"""Of a replication."""

BYTES_MAX = 16 << 10
"""Of one document. Ten tags of the longest and a prefix take a third of it, and a thousand such are kept."""

REPLICATION_BYTES_MAX = 64 << 10
"""Some hundred rules. Were it all quotes, of which each is kept as six characters, it would still have its place."""

_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_ARN = re.compile(r"arn:[a-z-]+:s3:::([a-z0-9.-]{3,63})")


def _nothing(_tree: Tree) -> None:
    """The shape says it all."""


class Shape(NamedTuple):
    root: str
    fields: tuple[Field, ...]
    check: Callable[[Tree], None] = _nothing
    bytes_max: int = BYTES_MAX

    def read(self, body: bytes) -> Tree:
        """S3Error MalformedXML, and what `check` raises."""
        tree = self.shaped(body)
        self.check(tree)
        return tree

    def shaped(self, body: bytes) -> Tree:
        return read(parse(body, self.root, self.bytes_max), self.fields)

    def inner(self, tree: Tree) -> str:
        """As it is kept."""
        return write(tree, self.fields)


class Family(NamedTuple):
    """Many configurations of one shape, each with an id. `list_root` is the element around a page of them; `mismatch` what
    AWS says where the document has another id than the request."""

    shape: Shape
    list_root: str
    mismatch: str = "IdMismatch"

    def read(self, body: bytes, id: str) -> Tree:
        """The order of AWS's checks: the shape, the id, the rest."""
        tree = self.shape.shaped(body)
        if leaf(tree, "Id") != id:
            raise S3Error(self.mismatch)
        self.shape.check(tree)
        return tree


# Filters

_TAG = (Field("Key", any_text, required=True), Field("Value", any_text, required=True))
_AND = (Field("Prefix", any_text), Field("Tag", _TAG, many=True))
_FILTER = (Field("Prefix", any_text), Field("Tag", _TAG), Field("And", _AND))


def _check_filter(tree: Tree, *, may_be_empty: bool = True) -> None:
    """One thing, or an And of at least two."""
    if "Filter" not in tree:
        return
    found = branch(tree, "Filter")
    if len(found) > 1 or (not found and not may_be_empty):
        malformed()
    both = branch(found, "And")
    if "And" in found and len(branches(both, "Tag")) + len(both) - ("Tag" in both) < 2:
        malformed()


# Analytics, inventory, metrics, intelligent tiering

_EXPORT = (
    Field("OutputSchemaVersion", word("V_1"), required=True),
    Field("Destination", (
        Field("S3BucketDestination", (
            Field("Format", word("CSV"), required=True), Field("BucketAccountId", any_text),
            Field("Bucket", any_text, required=True), Field("Prefix", any_text),
        ), required=True),
    ), required=True),
)


def _check_analytics(tree: Tree) -> None:
    _check_filter(tree, may_be_empty=False)
    export = branch(branch(tree, "StorageClassAnalysis"), "DataExport")
    if export:
        _check_destination(branch(export, "Destination"))


def _check_destination(tree: Tree) -> None:
    if not _ARN.fullmatch(leaf(branch(tree, "S3BucketDestination"), "Bucket")):
        raise S3Error("InvalidS3DestinationBucket")


ANALYTICS = Family(Shape("AnalyticsConfiguration", (
    Field("Id", any_text, required=True), Field("Filter", _FILTER),
    Field("StorageClassAnalysis", (Field("DataExport", _EXPORT),), required=True),
), _check_analytics), "ListBucketAnalyticsConfigurationResult", "MalformedXML")

_OPTIONAL = word(
    "Size", "LastModifiedDate", "StorageClass", "ETag", "IsMultipartUploaded", "ReplicationStatus", "EncryptionStatus",
    "ObjectLockRetainUntilDate", "ObjectLockMode", "ObjectLockLegalHoldStatus", "ObjectLockEventHoldStatus",
    "ObjectLockEventHoldDuration", "IntelligentTieringAccessTier", "BucketKeyStatus", "ChecksumAlgorithm",
    "ObjectAccessControlList", "ObjectOwner", "LifecycleExpirationDate", "IntelligentTieringReferenceDate",
)


def _check_inventory(tree: Tree) -> None:
    _check_destination(branch(tree, "Destination"))
    encryption = branch(branch(branch(tree, "Destination"), "S3BucketDestination"), "Encryption")
    if len(encryption) > 1:
        malformed()


INVENTORY = Family(Shape("InventoryConfiguration", (
    Field("Id", any_text, required=True),
    Field("IsEnabled", true_or_false, required=True),
    Field("Filter", (Field("Prefix", any_text, required=True),)),
    Field("Destination", (
        Field("S3BucketDestination", (
            Field("Format", word("CSV", "ORC", "Parquet"), required=True), Field("AccountId", any_text),
            Field("Bucket", any_text, required=True), Field("Prefix", any_text),
            Field("Encryption", (Field("SSE-S3", ()), Field("SSE-KMS", (Field("KeyId", any_text, required=True),)))),
        ), required=True),
    ), required=True),
    Field("Schedule", (Field("Frequency", word("Daily", "Weekly"), required=True),), required=True),
    Field("IncludedObjectVersions", word("All", "Current"), required=True),
    Field("OptionalFields", (Field("Field", _OPTIONAL, many=True),)),
), _check_inventory), "ListInventoryConfigurationsResult")


def _check_metrics(tree: Tree) -> None:
    _check_filter(tree, may_be_empty=False)


METRICS = Family(Shape("MetricsConfiguration", (
    Field("Id", any_text, required=True),
    Field("Filter", (
        Field("Prefix", any_text), Field("Tag", _TAG), Field("AccessPointArn", any_text),
        Field("And", (*_AND, Field("AccessPointArn", any_text))),
    )),
), _check_metrics), "ListMetricsConfigurationsResult")

_DAYS = {"ARCHIVE_ACCESS": 90, "DEEP_ARCHIVE_ACCESS": 180}
_DAYS_MAX = 730


def _check_tiering(tree: Tree) -> None:
    _check_filter(tree)
    tiers = branches(tree, "Tiering")
    names = [leaf(tier, "AccessTier") for tier in tiers]
    if len(set(names)) < len(names):
        malformed()
    for tier, name in zip(tiers, names, strict=True):
        if not _DAYS[name] <= int(leaf(tier, "Days")) <= _DAYS_MAX:
            raise S3Error("InvalidArgument", f"'Days' for {name} must be between {_DAYS[name]} and {_DAYS_MAX}",
                          ArgumentName="Days", ArgumentValue=leaf(tier, "Days"))


INTELLIGENT_TIERING = Family(Shape("IntelligentTieringConfiguration", (
    Field("Id", any_text, required=True), Field("Filter", _FILTER), Field("Status", word("Enabled", "Disabled"), required=True),
    Field("Tiering", (
        Field("AccessTier", word(*_DAYS), required=True), Field("Days", whole_number, required=True),
    ), required=True, many=True),
), _check_tiering), "ListBucketIntelligentTieringConfigurationsOutput", "MalformedXML")

# Once a bucket

REQUEST_PAYMENT = Shape("RequestPaymentConfiguration", (Field("Payer", word("Requester", "BucketOwner"), required=True),))
ACCELERATE = Shape("AccelerateConfiguration", (Field("Status", word("Enabled", "Suspended"), required=True),))
ABAC = Shape("AbacStatus", (Field("Status", word("Enabled", "Disabled"), required=True),))

_STATUS = word("Enabled", "Disabled")
_ON = (Field("Status", _STATUS, required=True),)
_V2 = ("for this version of Cross Region Replication configuration schema. Please refer to S3 Developer Guide for more "
       "information.")


def _check_replication(tree: Tree) -> None:
    """Rules with a Filter are of the schema's second version, which wants what the first, with a Prefix, does not know."""
    rules = branches(tree, "Rule")
    if len(rules) > RULES_MAX:
        malformed()
    ids = [leaf(rule, "ID") for rule in rules if "ID" in rule]
    if len(set(ids)) < len(ids):
        raise S3Error("InvalidArgument", "Rule Id must be unique. Found same Id for more than one rule", ArgumentName="ID")
    for rule in rules:
        if len(leaf(rule, "ID")) > 255:
            raise S3Error("InvalidArgument", "ID length should not exceed allowed limit of 255", ArgumentName="ID")
        _check_filter(rule)
        if ("Filter" in rule) == ("Prefix" in rule):
            malformed()
        if "SourceSelectionCriteria" in rule and not branch(rule, "SourceSelectionCriteria"):
            raise S3Error("InvalidRequest", "SourceSelectionCriteria cannot be empty")
        if "Prefix" in rule:
            for name in ("DeleteMarkerReplication", "Priority"):
                if name in rule:
                    raise S3Error("InvalidRequest", f"{name} cannot be used {_V2}")
        else:
            for name in ("DeleteMarkerReplication", "Priority"):
                if name not in rule:
                    raise S3Error("InvalidRequest", f"{name} must be specified {_V2}")
            chosen = branch(rule, "Filter")
            if ("Tag" in chosen or "Tag" in branch(chosen, "And")) and \
                    leaf(branch(rule, "DeleteMarkerReplication"), "Status") == "Enabled":
                raise S3Error("InvalidRequest", "Delete marker replication is not supported if any Tag filter is specified. "
                              "Please refer to S3 Developer Guide for more information.")
        if not _ARN.fullmatch(leaf(branch(rule, "Destination"), "Bucket")):
            raise S3Error("InvalidArgument", "Invalid bucket ARN", ArgumentName="Bucket",
                          ArgumentValue=leaf(branch(rule, "Destination"), "Bucket"))


REPLICATION = Shape("ReplicationConfiguration", (
    Field("Role", any_text, required=True),
    Field("Rule", (
        Field("ID", any_text), Field("Priority", whole_number), Field("Prefix", any_text), Field("Filter", _FILTER),
        Field("Status", _STATUS, required=True),
        Field("SourceSelectionCriteria", (Field("SseKmsEncryptedObjects", _ON), Field("ReplicaModifications", _ON))),
        Field("ExistingObjectReplication", _ON),
        Field("Destination", (
            Field("Bucket", any_text, required=True), Field("Account", any_text), Field("StorageClass", any_text),
            Field("AccessControlTranslation", (Field("Owner", word("Destination"), required=True),)),
            Field("EncryptionConfiguration", (Field("ReplicaKmsKeyID", any_text),)),
            Field("ReplicationTime", (*_ON, Field("Time", (Field("Minutes", whole_number),), required=True))),
            Field("Metrics", (*_ON, Field("EventThreshold", (Field("Minutes", whole_number),)))),
        ), required=True),
        Field("DeleteMarkerReplication", (Field("Status", _STATUS),)),
    ), required=True, many=True),
), _check_replication, REPLICATION_BYTES_MAX)


def destinations(tree: Tree) -> set[str]:
    """Names of the buckets that a replication leads to."""
    found = (_ARN.fullmatch(leaf(branch(rule, "Destination"), "Bucket")) for rule in branches(tree, "Rule"))
    return {match[1] for match in found if match is not None}


# Ids and pages


def id_of(text: str | None) -> str:
    """The id that a request names. S3Error InvalidConfigurationId."""
    if text is None or not _ID.fullmatch(text):
        raise S3Error("InvalidConfigurationId")
    return text


def page(family: Family, kept: list[str], *, token: str | None, next_token: str | None) -> bytes:
    """The list of a family; `kept` are documents as `Shape.inner` made them."""
    root = family.shape.root
    return document(family.list_root, "".join(
        [f"<{root}>{inner}</{root}>" for inner in kept]) + f"<IsTruncated>{yes_or_no(next_token is not None)}</IsTruncated>"
        + optional("ContinuationToken", token) + optional("NextContinuationToken", next_token))
