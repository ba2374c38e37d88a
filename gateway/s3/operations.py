"""What S3 offers, as a table: every operation of the service model (API 2006-03-01) with its route and its meaning.

`route` finds the row of a request. A row is chosen by method, scope (service, bucket, object), the query names and the
header names it needs. Unknown query names are ignored (SDKs add ``x-id`` to everything); a *sub-resource* that S3 knows
is never ignored: ``DELETE /bucket?lifecycle`` must never be DeleteBucket. Whether a row is implemented is not said
here: `gateway.ops` registers handlers by name, and a row without a handler answers with its `never` (the answer of a
server on which that configuration was never set, which is true as long as it cannot be set), or NotImplemented.
"""

import dataclasses
from collections.abc import Container, Iterable, Mapping
from typing import Literal, NoReturn

from gateway.s3.errors import S3Error

Scope = Literal["service", "bucket", "object"]

XMLNS = "http://s3.amazonaws.com/doc/2006-03-01/"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Never:
    """The answer where something was never configured (S3_SEMANTICS §6): an error (`code`) or a fixed XML `document`."""

    status: int
    code: str = ""
    message: str | None = None
    document: bytes = b""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    name: str
    method: str
    scope: Scope
    query: tuple[str, ...] = ()      # query names that must be there
    headers: tuple[str, ...] = ()    # header names that must be there, lower case
    action: str                      # what policies call it; "" for none (the CORS preflight is not authenticated)
    version_action: str = ""         # instead of `action` when the request has a versionId
    status: int = 200                # of success
    never: Never | None = None
    same_as: str = ""                # the row that answers this very request: an older name, or another endpoint's


def _document(root: str, inner: str = "") -> Never:
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<{root} xmlns="{XMLNS}">{inner}</{root}>'
    return Never(status=200, document=body.encode())


def _error(status: int, code: str, message: str | None = None) -> Never:
    return Never(status=status, code=code, message=message)


def _row(
    name: str,
    method: str,
    scope: Scope,
    query: str = "",
    action: str = "",
    *,
    headers: tuple[str, ...] = (),
    version: str = "",
    status: int = 200,
    never: Never | None = None,
    same_as: str = "",
) -> Operation:
    return Operation(
        name=name,
        method=method,
        scope=scope,
        query=tuple(query.split()),
        headers=headers,
        action=f"s3:{action}" if action else "",
        version_action=f"s3:{version}" if version else "",
        status=status,
        never=never,
        same_as=same_as,
    )


_GONE = Never(status=204)
"""Removing what was never set succeeds. Only where it *cannot* have been set, and where its absence is the default."""

_NO_METADATA_TABLE = _error(404, "MetadataConfigurationNotFound")
_COPY = ("x-amz-copy-source",)

OPERATIONS: tuple[Operation, ...] = (
    # service
    _row("ListBuckets", "GET", "service", "", "ListAllMyBuckets"),
    _row("ListDirectoryBuckets", "GET", "service", "", "ListAllMyDirectoryBuckets", same_as="ListBuckets"),
    # buckets
    _row("CreateBucket", "PUT", "bucket", "", "CreateBucket"),
    _row("HeadBucket", "HEAD", "bucket", "", "ListBucket"),
    _row("DeleteBucket", "DELETE", "bucket", "", "DeleteBucket", status=204),
    _row("GetBucketLocation", "GET", "bucket", "location", "GetBucketLocation"),
    _row("CreateSession", "GET", "bucket", "session", "CreateSession"),
    # listings
    _row("ListObjects", "GET", "bucket", "", "ListBucket"),
    _row("ListObjectsV2", "GET", "bucket", "list-type", "ListBucket"),
    _row("ListObjectVersions", "GET", "bucket", "versions", "ListBucketVersions"),
    _row("ListMultipartUploads", "GET", "bucket", "uploads", "ListBucketMultipartUploads"),
    # objects
    _row("GetObject", "GET", "object", "", "GetObject", version="GetObjectVersion"),
    _row("HeadObject", "HEAD", "object", "", "GetObject", version="GetObjectVersion"),
    _row("PutObject", "PUT", "object", "", "PutObject"),
    _row("CopyObject", "PUT", "object", "", "PutObject", headers=_COPY),
    _row("DeleteObject", "DELETE", "object", "", "DeleteObject", version="DeleteObjectVersion", status=204),
    _row("DeleteObjects", "POST", "bucket", "delete", "DeleteObject"),
    _row("GetObjectAttributes", "GET", "object", "attributes", "GetObjectAttributes",
         version="GetObjectVersionAttributes"),
    _row("RenameObject", "PUT", "object", "renameObject", "RenameObject"),
    _row("RestoreObject", "POST", "object", "restore", "RestoreObject"),
    _row("SelectObjectContent", "POST", "object", "select", "GetObject"),
    _row("GetObjectTorrent", "GET", "object", "torrent", "GetObjectTorrent", version="GetObjectVersionTorrent"),
    _row("UpdateObjectEncryption", "PUT", "object", "encryption", "UpdateObjectEncryption"),
    _row("WriteGetObjectResponse", "POST", "bucket", "", "WriteGetObjectResponse",
         headers=("x-amz-request-route", "x-amz-request-token")),
    # multipart
    _row("CreateMultipartUpload", "POST", "object", "uploads", "PutObject"),
    _row("UploadPart", "PUT", "object", "partNumber uploadId", "PutObject"),
    _row("UploadPartCopy", "PUT", "object", "partNumber uploadId", "PutObject", headers=_COPY),
    _row("ListParts", "GET", "object", "uploadId", "ListMultipartUploadParts"),
    _row("CompleteMultipartUpload", "POST", "object", "uploadId", "PutObject"),
    _row("AbortMultipartUpload", "DELETE", "object", "uploadId", "AbortMultipartUpload", status=204),
    # tags
    _row("GetObjectTagging", "GET", "object", "tagging", "GetObjectTagging", version="GetObjectVersionTagging"),
    _row("PutObjectTagging", "PUT", "object", "tagging", "PutObjectTagging", version="PutObjectVersionTagging"),
    _row("DeleteObjectTagging", "DELETE", "object", "tagging", "DeleteObjectTagging",
         version="DeleteObjectVersionTagging", status=204),
    _row("GetBucketTagging", "GET", "bucket", "tagging", "GetBucketTagging"),
    _row("PutBucketTagging", "PUT", "bucket", "tagging", "PutBucketTagging", status=204),
    _row("DeleteBucketTagging", "DELETE", "bucket", "tagging", "PutBucketTagging", status=204),
    # annotations
    _row("ListObjectAnnotations", "GET", "object", "annotation", "ListObjectAnnotations"),
    _row("GetObjectAnnotation", "GET", "object", "annotation annotationName", "GetObjectAnnotation"),
    _row("PutObjectAnnotation", "PUT", "object", "annotation", "PutObjectAnnotation"),
    _row("DeleteObjectAnnotation", "DELETE", "object", "annotation", "DeleteObjectAnnotation", status=204),
    # access
    _row("GetBucketAcl", "GET", "bucket", "acl", "GetBucketAcl"),
    _row("PutBucketAcl", "PUT", "bucket", "acl", "PutBucketAcl"),
    _row("GetObjectAcl", "GET", "object", "acl", "GetObjectAcl", version="GetObjectVersionAcl"),
    _row("PutObjectAcl", "PUT", "object", "acl", "PutObjectAcl", version="PutObjectVersionAcl"),
    _row("GetBucketPolicy", "GET", "bucket", "policy", "GetBucketPolicy"),
    _row("PutBucketPolicy", "PUT", "bucket", "policy", "PutBucketPolicy", status=204),
    _row("DeleteBucketPolicy", "DELETE", "bucket", "policy", "DeleteBucketPolicy", status=204),
    _row("GetBucketPolicyStatus", "GET", "bucket", "policyStatus", "GetBucketPolicyStatus"),
    _row("GetPublicAccessBlock", "GET", "bucket", "publicAccessBlock", "GetBucketPublicAccessBlock"),
    _row("PutPublicAccessBlock", "PUT", "bucket", "publicAccessBlock", "PutBucketPublicAccessBlock"),
    _row("DeletePublicAccessBlock", "DELETE", "bucket", "publicAccessBlock", "PutBucketPublicAccessBlock", status=204),
    _row("GetBucketOwnershipControls", "GET", "bucket", "ownershipControls", "GetBucketOwnershipControls"),
    _row("PutBucketOwnershipControls", "PUT", "bucket", "ownershipControls", "PutBucketOwnershipControls"),
    _row("DeleteBucketOwnershipControls", "DELETE", "bucket", "ownershipControls", "PutBucketOwnershipControls",
         status=204),
    _row("GetBucketAbac", "GET", "bucket", "abac", "GetBucketAbac",
         never=_document("AbacStatus", "<Status>Disabled</Status>")),
    _row("PutBucketAbac", "PUT", "bucket", "abac", "PutBucketAbac"),
    _row("GetBucketCors", "GET", "bucket", "cors", "GetBucketCORS"),
    _row("PutBucketCors", "PUT", "bucket", "cors", "PutBucketCORS"),
    _row("DeleteBucketCors", "DELETE", "bucket", "cors", "PutBucketCORS", status=204),
    _row("GetBucketRequestPayment", "GET", "bucket", "requestPayment", "GetBucketRequestPayment"),
    _row("PutBucketRequestPayment", "PUT", "bucket", "requestPayment", "PutBucketRequestPayment"),
    # versions and locks
    _row("GetBucketVersioning", "GET", "bucket", "versioning", "GetBucketVersioning"),
    _row("PutBucketVersioning", "PUT", "bucket", "versioning", "PutBucketVersioning"),
    _row("GetObjectLockConfiguration", "GET", "bucket", "object-lock", "GetBucketObjectLockConfiguration"),
    _row("PutObjectLockConfiguration", "PUT", "bucket", "object-lock", "PutBucketObjectLockConfiguration"),
    _row("GetObjectRetention", "GET", "object", "retention", "GetObjectRetention"),
    _row("PutObjectRetention", "PUT", "object", "retention", "PutObjectRetention"),
    _row("GetObjectLegalHold", "GET", "object", "legal-hold", "GetObjectLegalHold"),
    _row("PutObjectLegalHold", "PUT", "object", "legal-hold", "PutObjectLegalHold"),
    # what happens to objects later
    _row("GetBucketLifecycleConfiguration", "GET", "bucket", "lifecycle", "GetLifecycleConfiguration"),
    _row("PutBucketLifecycleConfiguration", "PUT", "bucket", "lifecycle", "PutLifecycleConfiguration"),
    _row("DeleteBucketLifecycle", "DELETE", "bucket", "lifecycle", "PutLifecycleConfiguration", status=204),
    _row("GetBucketLifecycle", "GET", "bucket", "lifecycle", "GetLifecycleConfiguration",
         same_as="GetBucketLifecycleConfiguration"),
    _row("PutBucketLifecycle", "PUT", "bucket", "lifecycle", "PutLifecycleConfiguration",
         same_as="PutBucketLifecycleConfiguration"),
    _row("GetBucketReplication", "GET", "bucket", "replication", "GetReplicationConfiguration"),
    _row("PutBucketReplication", "PUT", "bucket", "replication", "PutReplicationConfiguration"),
    _row("DeleteBucketReplication", "DELETE", "bucket", "replication", "PutReplicationConfiguration", status=204),
    # AWS now shows AES256 here, because it encrypts everything. Nothing is encrypted here: the classic answer is true.
    _row("GetBucketEncryption", "GET", "bucket", "encryption", "GetEncryptionConfiguration",
         never=_error(404, "ServerSideEncryptionConfigurationNotFoundError")),
    _row("PutBucketEncryption", "PUT", "bucket", "encryption", "PutEncryptionConfiguration"),
    _row("DeleteBucketEncryption", "DELETE", "bucket", "encryption", "PutEncryptionConfiguration", status=204,
         never=_GONE),
    # what is told about a bucket, and how it is served
    _row("GetBucketNotificationConfiguration", "GET", "bucket", "notification", "GetBucketNotification"),
    _row("PutBucketNotificationConfiguration", "PUT", "bucket", "notification", "PutBucketNotification"),
    _row("GetBucketNotification", "GET", "bucket", "notification", "GetBucketNotification",
         same_as="GetBucketNotificationConfiguration"),
    _row("PutBucketNotification", "PUT", "bucket", "notification", "PutBucketNotification",
         same_as="PutBucketNotificationConfiguration"),
    _row("GetBucketLogging", "GET", "bucket", "logging", "GetBucketLogging"),
    _row("PutBucketLogging", "PUT", "bucket", "logging", "PutBucketLogging"),
    _row("GetBucketWebsite", "GET", "bucket", "website", "GetBucketWebsite"),
    _row("PutBucketWebsite", "PUT", "bucket", "website", "PutBucketWebsite"),
    _row("DeleteBucketWebsite", "DELETE", "bucket", "website", "DeleteBucketWebsite", status=204),
    _row("GetBucketAccelerateConfiguration", "GET", "bucket", "accelerate", "GetAccelerateConfiguration"),
    _row("PutBucketAccelerateConfiguration", "PUT", "bucket", "accelerate", "PutAccelerateConfiguration"),
    # configurations with an id: the list form is the one without
    _row("ListBucketAnalyticsConfigurations", "GET", "bucket", "analytics", "GetAnalyticsConfiguration"),
    _row("GetBucketAnalyticsConfiguration", "GET", "bucket", "analytics id", "GetAnalyticsConfiguration"),
    _row("PutBucketAnalyticsConfiguration", "PUT", "bucket", "analytics", "PutAnalyticsConfiguration"),
    _row("DeleteBucketAnalyticsConfiguration", "DELETE", "bucket", "analytics", "PutAnalyticsConfiguration",
         status=204),
    _row("ListBucketIntelligentTieringConfigurations", "GET", "bucket", "intelligent-tiering",
         "GetIntelligentTieringConfiguration"),
    _row("GetBucketIntelligentTieringConfiguration", "GET", "bucket", "intelligent-tiering id",
         "GetIntelligentTieringConfiguration"),
    _row("PutBucketIntelligentTieringConfiguration", "PUT", "bucket", "intelligent-tiering",
         "PutIntelligentTieringConfiguration"),
    _row("DeleteBucketIntelligentTieringConfiguration", "DELETE", "bucket", "intelligent-tiering",
         "PutIntelligentTieringConfiguration", status=204),
    _row("ListBucketInventoryConfigurations", "GET", "bucket", "inventory", "GetInventoryConfiguration"),
    _row("GetBucketInventoryConfiguration", "GET", "bucket", "inventory id", "GetInventoryConfiguration"),
    _row("PutBucketInventoryConfiguration", "PUT", "bucket", "inventory", "PutInventoryConfiguration"),
    _row("DeleteBucketInventoryConfiguration", "DELETE", "bucket", "inventory", "PutInventoryConfiguration",
         status=204),
    _row("ListBucketMetricsConfigurations", "GET", "bucket", "metrics", "GetMetricsConfiguration"),
    _row("GetBucketMetricsConfiguration", "GET", "bucket", "metrics id", "GetMetricsConfiguration"),
    _row("PutBucketMetricsConfiguration", "PUT", "bucket", "metrics", "PutMetricsConfiguration"),
    _row("DeleteBucketMetricsConfiguration", "DELETE", "bucket", "metrics", "PutMetricsConfiguration", status=204),
    # metadata tables
    _row("CreateBucketMetadataConfiguration", "POST", "bucket", "metadataConfiguration",
         "CreateBucketMetadataTableConfiguration"),
    _row("GetBucketMetadataConfiguration", "GET", "bucket", "metadataConfiguration",
         "GetBucketMetadataTableConfiguration", never=_NO_METADATA_TABLE),
    _row("DeleteBucketMetadataConfiguration", "DELETE", "bucket", "metadataConfiguration",
         "DeleteBucketMetadataTableConfiguration", status=204, never=_NO_METADATA_TABLE),
    _row("CreateBucketMetadataTableConfiguration", "POST", "bucket", "metadataTable",
         "CreateBucketMetadataTableConfiguration"),
    _row("GetBucketMetadataTableConfiguration", "GET", "bucket", "metadataTable",
         "GetBucketMetadataTableConfiguration", never=_NO_METADATA_TABLE),
    _row("DeleteBucketMetadataTableConfiguration", "DELETE", "bucket", "metadataTable",
         "DeleteBucketMetadataTableConfiguration", status=204, never=_NO_METADATA_TABLE),
    _row("UpdateBucketMetadataInventoryTableConfiguration", "PUT", "bucket", "metadataInventoryTable",
         "UpdateBucketMetadataInventoryTableConfiguration"),
    _row("UpdateBucketMetadataJournalTableConfiguration", "PUT", "bucket", "metadataJournalTable",
         "UpdateBucketMetadataJournalTableConfiguration"),
    _row("UpdateBucketMetadataAnnotationTableConfiguration", "PUT", "bucket", "metadataAnnotationTable",
         "UpdateBucketMetadataAnnotationTableConfiguration"),
)
"""The service model's operations, all of them; a test compares the names, methods and statuses with botocore's."""

BEYOND_MODEL: tuple[Operation, ...] = (
    _row("PostObject", "POST", "bucket", "", "PutObject", status=204),
    _row("PreflightBucket", "OPTIONS", "bucket", "", ""),
    _row("PreflightObject", "OPTIONS", "object", "", ""),
)
"""What browsers do and SDKs don't: form uploads, which authenticate within the form, and CORS preflights."""

OPERATION: dict[str, Operation] = {operation.name: operation for operation in (*OPERATIONS, *BEYOND_MODEL)}
"""By name."""

_SELECTORS = frozenset({"id", "list-type", "partNumber", "annotationName"})
"""Query names that choose between rows but are no sub-resources: where no row wants them they are ignored."""

SUBRESOURCES: frozenset[str] = (
    frozenset(name for operation in OPERATIONS for name in operation.query) - _SELECTORS
)
"""Query names that address something other than the plain bucket or object, whatever the method."""

_METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS")


def _routes() -> dict[tuple[str, Scope, str], tuple[Operation, ...]]:
    """(method, scope, sub-resource or "") -> rows, those with more demands first."""
    routes: dict[tuple[str, Scope, str], tuple[Operation, ...]] = {}
    for operation in OPERATION.values():
        if not operation.same_as:
            named = [name for name in operation.query if name in SUBRESOURCES]
            place = (operation.method, operation.scope, named[0] if named else "")
            rows = (*routes.get(place, ()), operation)
            routes[place] = tuple(sorted(rows, key=lambda row: -len(row.query) - len(row.headers)))
    return routes


_ROUTES = _routes()
_GET = OPERATION["GetObject"]
_HEAD = OPERATION["HeadObject"]
_PUT = OPERATION["PutObject"]
_DELETE = OPERATION["DeleteObject"]
_PLAIN = {"GET": _GET, "HEAD": _HEAD, "PUT": _PUT, "DELETE": _DELETE}
_READS = (_GET, _HEAD)
_COPIES = frozenset({"CopyObject", "UploadPartCopy"})


def route(method: str, scope: Scope, query: Mapping[str, str], headers: Container[str]) -> Operation | None:
    """The row of a request; None when S3 has such a sub-resource but no row fits, which is NotImplemented.

    `query` maps decoded names to values, `headers` holds lower-case names. S3Error MethodNotAllowed when the resource
    has no such method; InvalidArgument for two sub-resources at once, for a multipart upload named by half, and for a
    copy source on what is no copy.
    """
    if scope == "object" and "x-amz-copy-source" not in headers and (not query or SUBRESOURCES.isdisjoint(query)):
        plain = _PLAIN.get(method)
        if plain is not None and (not query or "partNumber" not in query or plain in _READS):
            return plain
    return _route_slowly(method, scope, query, headers)


def _route_slowly(method: str, scope: Scope, query: Mapping[str, str], headers: Container[str]) -> Operation | None:
    named = [name for name in query if name in SUBRESOURCES]
    if len(named) > 1:
        raise S3Error(
            "InvalidArgument",
            f"Conflicting query string parameters: {', '.join(sorted(named))}",
            ArgumentName="ResourceType",
            ArgumentValue=named[0],
        )
    subresource = named[0] if named else ""
    if not subresource and "partNumber" in query and method in ("PUT", "DELETE"):
        # A part of nothing: to take it for the object would replace or remove what was not meant.
        raise S3Error("InvalidArgument", "This operation requires an upload id.", ArgumentName="uploadId")
    rows = _ROUTES.get((method, scope, subresource))
    if rows is None:
        if (scope, subresource) == ("object", "versions"):
            raise S3Error("InvalidRequest", "There is no such thing as the ?versions sub-resource for a key")
        _refuse_method(method, scope, subresource)
        return None
    for row in rows:
        if all(name in query for name in row.query) and all(name in headers for name in row.headers):
            if row.name == "ListObjectsV2" and query["list-type"] != "2":
                continue
            if "x-amz-copy-source" in headers and row.name not in _COPIES:
                raise S3Error(
                    "InvalidArgument",
                    "You can only specify a copy source header for copy requests.",
                    ArgumentName="x-amz-copy-source",
                )
            return row
    if subresource == "uploadId":
        # To put into an upload takes the number of a part: AWS knows no such method of the upload itself.
        _not_allowed(method, "UPLOAD", ("DELETE", "POST", "GET"))
    return None


_RESOURCE_TYPES = {
    "policy": "BUCKETPOLICY", "logging": "LOGGING_STATUS", "requestPayment": "REQUEST_PAYMENT", "list-type": "BUCKET",
    "policyStatus": "POLICY_STATUS", "publicAccessBlock": "PUBLIC_ACCESS_BLOCK", "ownershipControls": "OWNERSHIP_CONTROLS",
    "object-lock": "OBJECT_LOCK_CONFIGURATION", "legal-hold": "OBJECT_LOCK_LEGALHOLD", "retention": "OBJECT_LOCK_RETENTION",
    "attributes": "OBJECT_ATTRIBUTES", "uploadId": "UPLOAD",
}
"""What AWS calls sub-resources, in its errors and its logs, where that isn't their own name."""


def resource_type(subresource: str) -> str:
    return _RESOURCE_TYPES.get(subresource) or subresource.replace("-", "_").upper()


def _refuse_method(method: str, scope: Scope, subresource: str) -> None:
    allowed = [other for other in _METHODS if (other, scope, subresource) in _ROUTES]
    if allowed:
        _not_allowed(method, resource_type(subresource) if subresource else scope.upper(), allowed)


def _not_allowed(method: str, kind: str, allowed: Iterable[str]) -> NoReturn:
    raise S3Error("MethodNotAllowed", headers=(("allow", ", ".join(allowed)),), Method=method, ResourceType=kind)
