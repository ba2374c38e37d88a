"""What an endpoint refuses, beyond S3's own errors: a code for programs, a sentence that says what to do for people."""

from consensus.core.errors import ClusterError, Corrupt, NoSpace, NotYet, Refused, Unavailable, UnknownOutcome
from gateway.s3.errors import S3Error

STATUS = {
    "InvalidArgument": 400, "InvalidJSON": 400, "RequestTooLarge": 413, "NoSuchEndpoint": 404, "MethodNotAllowed": 405,
    "NoSuchUser": 404, "UserExists": 409, "NoSuchAccessKey": 404, "AccessKeyExists": 409, "NoSuchNode": 404,
    "NoSuchPolicy": 404, "MalformedPolicy": 400,
    "NoCluster": 409, "NoSuchToken": 404, "NoSuchMember": 404,
    "NoSuchTarget": 404, "TargetFailed": 502,
    "NodeInUse": 409, "NoSuchBackup": 404, "BackupExists": 409, "ConfiguredIdentity": 409, "ObjectLocked": 409,
    "Unavailable": 503, "NoSpace": 503, "UnknownOutcome": 500, "Damaged": 500,
    "Misconfigured": 500, "NotYetEverywhere": 503,
}
"""Every code that is not S3's, with its HTTP status."""


class AdminError(Exception):
    """`code` is one of STATUS; `message` is a sentence that a keeper can act upon. Never holds a secret."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message, self.status = code, message, STATUS[code]


def no_bucket(name: str) -> S3Error:
    """S3's code, in the words of all else that isn't there."""
    return S3Error("NoSuchBucket", f"There is no bucket {name!r}; `staddle bucket list` shows them.", BucketName=name)


def of_fault(fault: ClusterError) -> AdminError:
    """The world's faults. Keepers see the reason, which clients of S3 are not shown."""
    match fault:
        case NoSpace():
            return AdminError("NoSpace", f"The disk is full: {fault}")
        case UnknownOutcome():
            return AdminError("UnknownOutcome", f"It is unknown whether this was done ({fault}). Look before you repeat it.")
        case Corrupt():
            return AdminError("Damaged", f"Stored data is damaged: {fault}")
        case Refused():
            return AdminError("Misconfigured", f"The server's parts do not accept each other: {fault}")
        case NotYet():
            return AdminError("Unavailable", f"Not done yet: {fault}")
        case Unavailable():
            return AdminError("Unavailable", f"Not done, try again: {fault}")
        case _:
            return AdminError("Unavailable", str(fault))
