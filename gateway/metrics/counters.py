"""What one gateway worker counts while it serves. On the path of every request: measured at 0.5 µs, all of it.

Each operation has its cells in one list of integers, so counting is an addition in a place that is known; there is no
lock, since a worker has one loop. `Figures` is a copy, as it travels between workers (gateway/peers.py).
"""

import os
from bisect import bisect_left

import msgspec

from gateway.s3.operations import BEYOND_MODEL, OPERATIONS, Operation

STATUSES = ("1xx", "2xx", "3xx", "4xx", "5xx", "gone")
"""Classes of answers. `gone`: the client had left before it was answered."""

_GONE = STATUSES.index("gone")

BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the latency histogram: from a small GET out of the page cache to a large body over a slow line."""

GROUPS = ("read", "write", "copy", "delete", "list", "other", "unknown")
"""Operations whose latencies are comparable. `unknown`: refused before it was clear what was asked."""

UNKNOWN = ""
"""The operation of a request that was refused before it was clear what was asked."""

_GROUP = {
    "GetObject": "read", "HeadObject": "read", "GetObjectAttributes": "read", "ListParts": "list",
    "PutObject": "write", "UploadPart": "write", "PostObject": "write", "CompleteMultipartUpload": "write",
    "CopyObject": "copy", "UploadPartCopy": "copy", "RenameObject": "copy",
    "DeleteObject": "delete", "DeleteObjects": "delete", "AbortMultipartUpload": "delete",
    "ListBuckets": "list", "ListObjects": "list", "ListObjectsV2": "list", "ListObjectVersions": "list",
    "ListMultipartUploads": "list", "ListDirectoryBuckets": "list", UNKNOWN: "unknown",
}


class Latency(msgspec.Struct, frozen=True):
    """Counts per bound of BOUNDS_S and one for what is above, not yet cumulated; and the sum in seconds."""

    counts: list[int]
    seconds: float


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """One worker's counters since it started, which they never run back behind, and what it holds now."""

    pid: int
    requests: dict[str, list[int]]            # operation -> one for each of STATUSES; only what has happened
    latency: dict[str, Latency]               # by group
    received_bytes: int
    sent_bytes: int
    errors: dict[str, int]                    # by S3's code
    unauthenticated: dict[str, int]           # by S3's code: signatures that were refused
    in_flight: int = 0
    connections: int = 0
    connections_accepted: int = 0
    malformed: int = 0                        # answered by the connection itself, without being a request
    log_lines_dropped: int = 0
    bucket_log_records: int = 0               # records of logged buckets, objects made of them, records that were dropped
    bucket_log_objects: int = 0
    bucket_log_dropped: int = 0
    bucket_log_bytes: int = 0                 # of records that wait for their delivery
    commits: int = 0                          # commands that got their results, and how long that took
    commit_seconds: float = 0.0
    commits_waiting: int = 0
    duties: dict[str, int] = {}               # 1 for those that this worker holds
    lifecycle: dict[str, int] = {}            # what it has done of lifecycles
    event_failures: dict[str, int] = {}       # by target: tries to deliver that came to nothing


class Counters:
    """One for each worker. `served` is called once for each request, by the dispatcher."""

    def __init__(self) -> None:
        operations: tuple[Operation, ...] = (*OPERATIONS, *BEYOND_MODEL)
        names = [UNKNOWN, *(operation.name for operation in operations)]
        groups = {group: place * (len(BOUNDS_S) + 1) for place, group in enumerate(GROUPS)}
        self._cells = [0] * (len(STATUSES) * len(names))
        self._latencies = [0] * ((len(BOUNDS_S) + 1) * len(GROUPS))
        self._seconds = dict.fromkeys(groups.values(), 0.0)
        self._places = {name: (place * len(STATUSES), groups[_GROUP.get(name, "other")]) for place, name in enumerate(names)}
        self._groups = groups
        self._errors: dict[str, int] = {}
        self._unauthenticated: dict[str, int] = {}
        self._received = self._sent = 0

    def served(self, operation: str, status: int, seconds: float, received: int, sent: int) -> None:
        """A request has been answered or given up. `status` 0 or 499: nobody was there to take the answer."""
        place, group = self._places[operation]
        self._cells[place + (status // 100 - 1 if status and status != 499 else _GONE)] += 1
        self._latencies[group + bisect_left(BOUNDS_S, seconds)] += 1
        self._seconds[group] += seconds
        self._received += received
        self._sent += sent

    def refused(self, code: str, *, unauthenticated: bool) -> None:
        """An error of this code was answered. `unauthenticated`: because the signature was not good."""
        self._errors[code] = self._errors.get(code, 0) + 1
        if unauthenticated:
            self._unauthenticated[code] = self._unauthenticated.get(code, 0) + 1

    def figures(self, **now: int | float | dict[str, int]) -> Figures:
        """A copy. `now` are the fields of Figures that others know: what is under way, connections, commits."""
        width, bounds = len(STATUSES), len(BOUNDS_S) + 1
        requests = {name: self._cells[place:place + width] for name, (place, _) in self._places.items()
                    if any(self._cells[place:place + width])}
        latency = {group: Latency(self._latencies[place:place + bounds], self._seconds[place])
                   for group, place in self._groups.items() if any(self._latencies[place:place + bounds])}
        return msgspec.structs.replace(Figures(
            pid=os.getpid(), requests=requests, latency=latency, received_bytes=self._received, sent_bytes=self._sent,
            errors=dict(self._errors), unauthenticated=dict(self._unauthenticated)), **now)
