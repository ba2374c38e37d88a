"""What a bucket's log says of its lifecycle: AWS's names of the operations, and a requester of its own
("How S3 Lifecycle interacts with other bucket configurations")."""

from consensus.core.commands import LifecycleStep
from consensus.lifecycles import LifecycleBucket
from gateway.http.reply import HOST_ID, new_request_id
from gateway.http.server_log import key_field, one_field

REQUESTER = "AmazonS3"

_MOVES = {"STANDARD_IA": "_SIA", "ONEZONE_IA": "_ZIA", "INTELLIGENT_TIERING": "_INT", "GLACIER_IR": "_GIR",
          "DEEP_ARCHIVE": "_GDA"}
"""Others, GLACIER first of all, are a transition without further word."""


def of_lifecycle(bucket: LifecycleBucket, step: LifecycleStep, version_id: str) -> str:
    """Everything behind the time, with the line's end. `version_id`: of what it was about."""
    hidden = step.action == "expire" and bucket.versioning
    if hidden:
        version_id = step.marker_id if bucket.versioning == "Enabled" else "null"
    return " ".join((
        "-", REQUESTER, new_request_id(), _operation(step, bool(hidden)), key_field(step.key), '"-"', "- - - - - -", '"-" "-"',
        one_field(version_id if bucket.versioning else ""), HOST_ID, "- - - - - - - -\n"))


def _operation(step: LifecycleStep, hidden: bool) -> str:
    if step.action == "move":
        return f"S3.TRANSITION{_MOVES.get(step.storage_class, '')}.OBJECT"
    if step.action == "abort":
        return "S3.DELETE.UPLOAD"
    return "S3.CREATE.DELETEMARKER" if hidden else "S3.EXPIRE.OBJECT"
