"""Event notifications as values: what a bucket's owner wants to be told, who caused a change, and what is then told.

Notification   the rules of a bucket: which changes of which keys go to which *target*
Origin         what only the gateway knows about a change: who asked for it, from where, under which request id
Event          one change that a rule asks for, as it waits in its target's queue
EventQueue     the queue of a target, for those who look after it

A target is a name; where it is and how it is reached is for the gateways to know. Names of events are AWS's, without the
``s3:`` that stands before them in configurations.
"""

from consensus.core.model import Pairs, Value

EVENT_QUEUE_MAX = 100_000
"""Events that wait for one target where nobody has said otherwise: some 40 MB of metadata."""

ERROR_CHARACTERS_MAX = 300
"""Of why a delivery failed, as the log keeps it."""


class EventRule(Value, frozen=True, kw_only=True):
    """One configuration of a notification. `target` "": nobody here delivers to that ARN, so nothing is queued for it."""

    id: str
    kind: str                     # Topic | Queue | CloudFunction
    arn: str
    target: str
    events: tuple[str, ...]       # as they were given: s3:ObjectCreated:*
    filters: Pairs | None = None  # (Prefix | Suffix, value), as given; None: there was no filter


class Notification(Value, frozen=True, kw_only=True):
    """What is set for a bucket."""

    rules: tuple[EventRule, ...] = ()
    event_bridge: bool = False


class Origin(Value, frozen=True, kw_only=True):
    """`event` where the command alone does not say which it is (ObjectCreated:Post); `queue_max` is the gateway's setting,
    which travels with the command so that all members drop alike; 0: as was said last."""

    event: str = ""
    address: str = ""             # of the client
    principal: str = ""
    request_id: str = ""
    host_id: str = ""
    queue_max: int = 0


class Event(Value, frozen=True, kw_only=True):
    """`size` and `etag` None: not told of this kind of event. `version_id` "": the bucket is not versioned. `more`: what one
    kind of event tells besides (the storage class of a transition)."""

    name: str                     # ObjectCreated:Put; TestEvent
    rule: str                     # its id
    bucket: str
    owner: str                    # of the bucket: its canonical id
    region: str                   # of the bucket: "" means the default
    at_ms: int
    key: str = ""
    size: int | None = None
    etag: str | None = None
    version_id: str = ""
    origin: Origin = Origin()
    more: Pairs = ()


class QueuedEvent(Value, frozen=True, kw_only=True, tag=True):
    """`order` and `place` (in its command) are its name in the queue: events of a key come in this order."""

    order: int
    place: int
    event: Event


class DamagedEvent(Value, frozen=True, kw_only=True, tag=True):
    """In the place of one that cannot be read any more."""

    order: int
    place: int
    raw: bytes


class EventQueue(Value, frozen=True, kw_only=True):
    """`delivered`, `expired` (too old when it could be delivered at last), `dropped` (the queue was full) and `damaged` (it could
    not be read any more) count since the target was first used. `oldest_ms`: since when the first one waits. `error`: why the
    last delivery failed; "": it did not."""

    target: str
    queued: int = 0
    delivered: int = 0
    expired: int = 0
    dropped: int = 0
    oldest_ms: int | None = None
    error: str = ""
    error_ms: int = 0
    damaged: int = 0
