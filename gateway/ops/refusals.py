"""What S3 calls a refused command. The outcome comes from `machine.apply`; the name that a client sees is given here.

A refusal that the operation can answer itself (read the source again, start the completion over) never gets here.
"""

from consensus.core.errors import ClusterError, Unavailable, UnknownOutcome
from consensus.core.results import (
    AnyResult,
    BucketNotEmpty,
    ChunkMissing,
    ConditionConflict,
    ConditionFailed,
    ContentMissing,
    Locked,
    Malformed,
    Moved,
    NoBucket,
    NoKey,
    NoObjectLock,
    NotDurable,
    NoUpload,
    NoVersion,
    PartChanged,
    QuotaExceeded,
    SequencePassed,
    SessionEnded,
    TokenReused,
    TooFewCopies,
    WrongBucketState,
    WrongOffset,
)
from gateway.s3.errors import S3Error
from gateway.s3.request import S3Request


def refusal(outcome: AnyResult, request: S3Request, *, key: str | None = None) -> S3Error | ClusterError:
    """The exception to raise for `outcome`. `key` where it isn't the request's own (DeleteObjects)."""
    key = request.key if key is None else key
    match outcome:
        case NoBucket():
            return S3Error("NoSuchBucket", BucketName=request.bucket)
        case BucketNotEmpty():
            return S3Error("BucketNotEmpty", BucketName=request.bucket)
        case NoKey():
            return S3Error("NoSuchKey", Key=key)
        case Locked():
            return S3Error("AccessDenied", "Access Denied because object protected by object lock.")
        case NoObjectLock():
            # AWS has two wordings: for what is asked of a version that is there, and for one that is written.
            asked = "retention" in request.query or "legal-hold" in request.query
            return S3Error("InvalidRequest", "Bucket is missing Object Lock Configuration" if asked else
                           "Bucket is missing ObjectLockConfiguration")
        case WrongBucketState():
            return S3Error("InvalidBucketState", BucketName=request.bucket)
        case NoVersion():
            return S3Error("NoSuchVersion", Key=key, VersionId=request.query.get("versionId", ""))
        case NoUpload():
            return no_such_upload(request)
        case ConditionFailed(condition=condition):
            return S3Error("PreconditionFailed", Condition=condition)
        case ConditionConflict(condition=condition):
            return S3Error("ConditionalRequestConflict", Condition=condition, Key=key)
        case NotDurable(wanted=wanted, present=present):
            # Storage nodes went away between the upload and the commit. Nothing has happened, so the client may retry.
            return Unavailable(f"a chunk of {key!r} is on {present} storage nodes of {wanted} that it must be on")
        case TooFewCopies():
            return Unavailable(f"the source of {key!r} has fewer copies than are wanted, and kept changing")
        case ChunkMissing() | ContentMissing() | PartChanged():
            # Retried by the operation as often as is sensible: somebody else changes the source all the time.
            return Unavailable(f"the source of {key!r} kept changing while it was copied")
        case QuotaExceeded(whose=whose, what=what):
            return S3Error("QuotaExceeded", f"The {whose}'s quota of {what} does not allow this request.")
        case WrongOffset():
            return S3Error("InvalidWriteOffset")
        case TokenReused():
            return S3Error("IdempotencyParameterMismatch")
        case Moved():
            return Unavailable(f"{key!r} kept changing while it was looked at")
        case SessionEnded() | SequencePassed():
            return UnknownOutcome(f"the session that was to write {key!r} ended before its answer came")
        case Malformed(reason=reason):
            raise AssertionError(f"{request.method} {request.bucket}: apply refuses our command: {reason}")
        case _:
            raise AssertionError(f"{request.method} {request.bucket}: unexpected outcome {outcome!r}")


def no_such_upload(request: S3Request) -> S3Error:
    return S3Error("NoSuchUpload", UploadId=request.query.get("uploadId", ""))
