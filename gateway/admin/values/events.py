"""Targets of event notifications."""

from typing import Annotated

from gateway.admin.values.common import Answer, Request, about

TargetName = Annotated[str, about("Name of the target, as the settings have it.")]


class TargetInfo(Answer, frozen=True, kw_only=True):
    """`arn` is what a bucket's notification names. `url` is without what comes after the host. `queued` events wait, the first
    of them since `oldest`; `delivered`, `expired` (too old), `dropped` (the queue was full) and `damaged` (could not be read any
    more) are counted since the target was first used. `error`: why the last delivery failed, at `error_at`; "" if it did not.
    `configured`: whether this gateway's settings have it."""

    name: str
    arn: str
    url: str
    configured: bool
    queued: int
    delivered: int
    expired: int
    dropped: int
    oldest: str
    error: str
    error_at: str
    damaged: int = 0


class TargetList(Answer, frozen=True, kw_only=True):
    targets: list[TargetInfo]


class Purged(Answer, frozen=True, kw_only=True):
    """How many events were given up."""

    events: int


class OneTarget(Request, frozen=True, kw_only=True):
    target: TargetName
