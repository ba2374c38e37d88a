"""One function per operation: `async def op(ctx: Context, request: S3Request) -> Reply`; one file per topic.

`HANDLERS` finds the function by the operation's name in the table (gateway/s3/operations.py); every name has one.
An operation reads as its steps. What S3 calls an outcome is decided here: lower packages know no S3 errors, and
gateway/s3 knows no outcomes.

Where to look:

here       context: the request and who asks; settings: what a bucket is set to, one document a kind; refusals and replies: what
           came of it; tokens: where a listing goes on; never: what is not there
uploads/   every body on its way in: upload, cutting, bringing; multipart and completing; posting: a browser's form
objects/   writing and reading: put, delete, get; copying, renaming, appending, restoring (archives: what must be); attributes,
           tagging, locking; versions: their ids
buckets/   bucket: made, found, removed; listing and versioning; lifecycle, sharing (CORS), website, bucket_logging, notification,
           quotas; stored: kept and given back, nothing more
access/    policies, acls, ownership, public_access: who may do what
"""

from gateway.ops import never
from gateway.ops.access import acls, ownership, policies, public_access
from gateway.ops.buckets import (
    bucket,
    bucket_logging,
    lifecycle,
    listing,
    notification,
    sharing,
    stored,
    versioning,
    website,
)
from gateway.ops.context import Handler
from gateway.ops.objects import appending, attributes, copying, locking, reading, renaming, restoring, tagging, writing
from gateway.ops.uploads import completing, multipart, posting
from gateway.s3.operations import OPERATION

_IMPLEMENTED: dict[str, Handler] = {
    "ListBuckets": bucket.list_buckets,
    "CreateBucket": bucket.create_bucket,
    "HeadBucket": bucket.head_bucket,
    "DeleteBucket": bucket.delete_bucket,
    "GetBucketLocation": bucket.get_bucket_location,
    "ListObjects": listing.list_objects,
    "ListObjectsV2": listing.list_objects_v2,
    "ListObjectVersions": versioning.list_object_versions,
    "GetBucketVersioning": versioning.get_bucket_versioning,
    "PutBucketVersioning": versioning.put_bucket_versioning,
    "GetObject": reading.get_object,
    "HeadObject": reading.head_object,
    "GetObjectAttributes": attributes.get_object_attributes,
    "GetObjectTagging": tagging.get_object_tagging,
    "PutObjectTagging": tagging.put_object_tagging,
    "DeleteObjectTagging": tagging.delete_object_tagging,
    "GetBucketTagging": tagging.get_bucket_tagging,
    "PutBucketTagging": tagging.put_bucket_tagging,
    "DeleteBucketTagging": tagging.delete_bucket_tagging,
    "GetBucketCors": sharing.get_bucket_cors,
    "PutBucketCors": sharing.put_bucket_cors,
    "DeleteBucketCors": sharing.delete_bucket_cors,
    "GetBucketLogging": bucket_logging.get_bucket_logging,
    "PutBucketLogging": bucket_logging.put_bucket_logging,
    "GetBucketWebsite": website.get_bucket_website,
    "PutBucketWebsite": website.put_bucket_website,
    "DeleteBucketWebsite": website.delete_bucket_website,
    "GetBucketNotificationConfiguration": notification.get_bucket_notification,
    "PutBucketNotificationConfiguration": notification.put_bucket_notification,
    "PostObject": posting.post_object,
    "PreflightBucket": sharing.preflight,
    "PreflightObject": sharing.preflight,
    "GetObjectLockConfiguration": locking.get_object_lock_configuration,
    "PutObjectLockConfiguration": locking.put_object_lock_configuration,
    "GetObjectRetention": locking.get_object_retention,
    "PutObjectRetention": locking.put_object_retention,
    "GetObjectLegalHold": locking.get_object_legal_hold,
    "PutObjectLegalHold": locking.put_object_legal_hold,
    "GetBucketAcl": acls.get_bucket_acl,
    "PutBucketAcl": acls.put_bucket_acl,
    "GetObjectAcl": acls.get_object_acl,
    "PutObjectAcl": acls.put_object_acl,
    "GetBucketPolicy": policies.get_bucket_policy,
    "PutBucketPolicy": policies.put_bucket_policy,
    "DeleteBucketPolicy": policies.delete_bucket_policy,
    "GetBucketPolicyStatus": policies.get_bucket_policy_status,
    "GetPublicAccessBlock": public_access.get_public_access_block,
    "PutPublicAccessBlock": public_access.put_public_access_block,
    "DeletePublicAccessBlock": public_access.delete_public_access_block,
    "GetBucketOwnershipControls": ownership.get_bucket_ownership_controls,
    "PutBucketOwnershipControls": ownership.put_bucket_ownership_controls,
    "DeleteBucketOwnershipControls": ownership.delete_bucket_ownership_controls,
    "PutObject": appending.put_object,
    "RenameObject": renaming.rename_object,
    "DeleteObject": writing.delete_object,
    "DeleteObjects": writing.delete_objects,
    "CopyObject": copying.copy_object,
    "CreateMultipartUpload": multipart.create_multipart_upload,
    "UploadPart": multipart.upload_part,
    "UploadPartCopy": copying.upload_part_copy,
    "CompleteMultipartUpload": completing.complete_multipart_upload,
    "AbortMultipartUpload": multipart.abort_multipart_upload,
    "ListParts": multipart.list_parts,
    "ListMultipartUploads": multipart.list_multipart_uploads,
    "GetBucketLifecycleConfiguration": lifecycle.get_bucket_lifecycle_configuration,
    "PutBucketLifecycleConfiguration": lifecycle.put_bucket_lifecycle_configuration,
    "DeleteBucketLifecycle": lifecycle.delete_bucket_lifecycle,
    "RestoreObject": restoring.restore_object,
    **stored.HANDLERS,
}

HANDLERS: dict[str, Handler] = {name: _IMPLEMENTED.get(name, never.answer) for name in OPERATION}
"""Operation name, as in the table, to its function."""
