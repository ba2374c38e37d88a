"""An event as AWS writes it: one JSON document with one record (AWS, "Event message structure").

What readers know from AWS holds here: the key is encoded as in forms, the sequencer of a key's events rises, and of the same
length they compare as texts. Version 2.3 is AWS's for what came after 2.1 (lifecycle, tags, access lists).
"""

import json
from typing import Any
from urllib.parse import quote_plus

from consensus.core.events import Event, QueuedEvent
from gateway.s3.times import iso8601

TEST = "TestEvent"
_ITSELF = "s3.amazonaws.com"
"""Who acts where nobody asked, such as a lifecycle."""

_LATER = ("Lifecycle", "IntelligentTiering", "ObjectAcl", "ObjectTagging", "ObjectRestore:Delete")


def document(queued: QueuedEvent, default_region: str) -> bytes:
    """The body that a target gets."""
    event = queued.event
    told = test(event) if event.name == TEST else {"Records": [_record(queued, event.region or default_region)]}
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()


def test(event: Event) -> dict[str, Any]:
    """What S3 sends when a notification is set."""
    return {
        "Service": "Amazon S3", "Event": "s3:TestEvent", "Time": iso8601(event.at_ms), "Bucket": event.bucket,
        "RequestId": event.origin.request_id, "HostId": event.origin.host_id,
    }


def _record(queued: QueuedEvent, region: str) -> dict[str, Any]:
    event, origin = queued.event, queued.event.origin
    thing: dict[str, Any] = {"key": quote_plus(event.key, safe="/*").replace("~", "%7E")}
    if event.size is not None:
        thing["size"] = event.size
    if event.etag is not None:
        thing["eTag"] = event.etag
    if event.version_id:
        thing["versionId"] = event.version_id
    thing["sequencer"] = sequencer(queued)
    record: dict[str, Any] = {
        "eventVersion": "2.3" if event.name.startswith(_LATER) else "2.1",
        "eventSource": "aws:s3",
        "awsRegion": region,
        "eventTime": iso8601(event.at_ms),
        "eventName": event.name,
        "userIdentity": {"principalId": origin.principal or _ITSELF},
        "requestParameters": {"sourceIPAddress": origin.address or _ITSELF},
        "responseElements": {"x-amz-request-id": origin.request_id, "x-amz-id-2": origin.host_id},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": event.rule,
            "bucket": {
                "name": event.bucket, "ownerIdentity": {"principalId": event.owner}, "arn": f"arn:aws:s3:::{event.bucket}",
            },
            "object": thing,
        },
    }
    if event.name == "LifecycleTransition":
        record["lifecycleEventData"] = {"transitionEventData": dict(event.more)}
    if event.name == "ObjectRestore:Completed":
        more = dict(event.more)
        record["glacierEventData"] = {"restoreEventData": {
            "lifecycleRestorationExpiryTime": iso8601(int(more.get("until_ms", "0"))),
            "lifecycleRestoreStorageClass": more.get("storage_class", "")}}
    return record


def sequencer(queued: QueuedEvent) -> str:
    """Where in the log the change is: never the same twice, and always of the same length."""
    return f"{queued.order:016X}{queued.place:04X}"
