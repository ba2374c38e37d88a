"""What was gathered, as Prometheus reads it. prometheus-client knows the two text forms; the samples are ours.

It is imported when the first page is asked for: a server that nobody scrapes starts without it.
"""

import time
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from consensus.accounts import Holding
from consensus.core.events import EventQueue
from consensus.core.model import Quota
from consensus.garbage import Waiting
from consensus.protocol import Status
from gateway.metrics.counters import BOUNDS_S, STATUSES, UNKNOWN, Figures
from gateway.metrics.families import (
    ACCEPTED,
    BEHIND,
    BUCKET_LOG_BYTES,
    BUCKET_LOG_DROPPED,
    BUCKET_LOG_OBJECTS,
    BUCKET_LOG_RECORDS,
    BUCKETS,
    COMMIT,
    COMMITS_WAITING,
    CONNECTIONS,
    CPU,
    DRAIN_QUEUE,
    DUTY,
    ERRORS,
    EVENT_FAILURES,
    EVENTS,
    EVENTS_AGE,
    EVENTS_WAITING,
    FILES,
    GARBAGE_BYTES,
    GARBAGE_ITEMS,
    HEARD,
    IN_FLIGHT,
    INFO,
    LATENCY,
    LEADS,
    LIFECYCLE,
    LIFECYCLE_SCANS,
    LINKED,
    LOG_DROPPED,
    LOST,
    MALFORMED,
    MEMBER,
    NODE,
    OBJECT_BYTES,
    OBJECTS,
    QUOTA,
    QUOTA_USED,
    RECEIVED,
    REQUESTS,
    RESIDENT,
    SCRUB_STATE,
    SCRUB_STATES,
    SENT,
    SHORT,
    STARTED,
    THREADS,
    UNAUTHENTICATED,
    UP,
    VOTES,
    Family,
    numbers,
    of_field,
)
from gateway.metrics.gather import Gathered
from gateway.metrics.processes import ProcessFigures

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

Sample = tuple[Family, tuple[str, ...], Any]
"""Family, values of its labels, value. Of a histogram, (counts by bound, sum); of a summary, (count, sum)."""


def page(gathered: Gathered, accept: str) -> tuple[str, bytes]:
    """Content type and text. `accept` chooses the form. Takes milliseconds: run it in a thread."""
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import choose_encoder

    made = list(_metrics(samples(gathered, version("staddle"))))

    class Gathering:
        def collect(self) -> Iterator["Metric"]:
            return iter(made)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Gathering())
    encode, content_type = choose_encoder(accept)
    return content_type, encode(registry)


def samples(gathered: Gathered, of_version: str) -> Iterator[Sample]:
    yield INFO, (of_version,), 1
    yield UP, ("metadata",), float(gathered.member is not None)
    for node, told in gathered.nodes.items():
        yield UP, (f"node {node}",), float(told is not None)
    for name, worker in gathered.workers.items():
        yield UP, (name,), float(worker is not None)
        if worker is not None:
            yield from _of_worker(name, worker)
    for name, process in gathered.processes.items():
        yield from _of_process(name, process)
    if gathered.usage is not None:
        usage = gathered.usage
        yield BUCKETS, (), usage.buckets
        yield OBJECTS, (), usage.objects
        yield OBJECT_BYTES, (), usage.bytes
        yield DRAIN_QUEUE, (), usage.queued
        yield SHORT, (), usage.short
    for of, held in gathered.quotas:
        yield from _of_quota(of, held)
    for queue in gathered.events or ():
        yield from _of_queue(queue)
    if gathered.member is not None:
        for field, number in numbers(gathered.member):
            yield of_field(field, MEMBER, "metadata", ""), (), number
        if not gathered.member.alone:
            yield from _of_members(gathered.member)
    if gathered.garbage is not None:
        garbage = gathered.garbage
        yield LOST, (), garbage.lost
        for what in ("lingering", "held", "staged", "uploads"):
            waiting: Waiting = getattr(garbage, what)
            yield GARBAGE_ITEMS, (what,), waiting.items
            yield GARBAGE_BYTES, (what,), waiting.bytes
    for node, told in gathered.nodes.items():
        if told is not None:
            for field, number in numbers(told):
                yield of_field(field, NODE, "node", "node"), (node,), number
            for state in SCRUB_STATES:
                yield SCRUB_STATE, (node, state), float(told.scrub.state == state)


def _of_quota(of: str, held: Holding) -> Iterator[Sample]:
    most = held.quota or Quota()
    for what, limit, used in (("objects", most.objects, held.objects), ("bytes", most.bytes, held.bytes + held.upload_bytes)):
        if limit is not None:
            yield QUOTA, (of, held.name, what), limit
            yield QUOTA_USED, (of, held.name, what), used


def _of_queue(queue: EventQueue) -> Iterator[Sample]:
    yield EVENTS_WAITING, (queue.target,), queue.queued
    yield EVENTS_AGE, (queue.target,), 0.0 if queue.oldest_ms is None else max(0.0, time.time() - queue.oldest_ms / 1000)
    for outcome in ("delivered", "expired", "dropped", "damaged"):
        yield EVENTS, (queue.target, outcome), getattr(queue, outcome)


def _of_members(status: Status) -> Iterator[Sample]:
    yield LEADS, (), float(status.role == "leader")
    for member in status.members:
        yield VOTES, (member.name,), float(member.voter)
        yield LINKED, (member.name,), float(member.connected)
        if member.match is not None:
            yield BEHIND, (member.name,), max(0, status.commit_index - member.match)
        if member.heard_s is not None:
            yield HEARD, (member.name,), member.heard_s


def _of_worker(name: str, worker: Figures) -> Iterator[Sample]:
    for operation, counts in worker.requests.items():
        for status, count in zip(STATUSES, counts, strict=True):
            if count:
                yield REQUESTS, (name, "none" if operation == UNKNOWN else operation, status), count
    for group, latency in worker.latency.items():
        yield LATENCY, (name, group), (latency.counts, latency.seconds)
    for code, count in worker.errors.items():
        yield ERRORS, (name, code), count
    for code, count in worker.unauthenticated.items():
        yield UNAUTHENTICATED, (name, code), count
    for family, number in (
        (RECEIVED, worker.received_bytes), (SENT, worker.sent_bytes), (IN_FLIGHT, worker.in_flight),
        (CONNECTIONS, worker.connections), (ACCEPTED, worker.connections_accepted), (MALFORMED, worker.malformed),
        (LOG_DROPPED, worker.log_lines_dropped), (BUCKET_LOG_RECORDS, worker.bucket_log_records),
        (BUCKET_LOG_OBJECTS, worker.bucket_log_objects), (BUCKET_LOG_DROPPED, worker.bucket_log_dropped),
        (BUCKET_LOG_BYTES, worker.bucket_log_bytes), (COMMITS_WAITING, worker.commits_waiting),
    ):
        yield family, (name,), number
    yield COMMIT, (name,), (worker.commits, worker.commit_seconds)
    for duty, held in worker.duties.items():
        yield DUTY, (name, duty), held
    for what, count in worker.lifecycle.items():
        if what in ("scans", "troubles"):
            yield LIFECYCLE_SCANS, (name, "done" if what == "scans" else "trouble"), count
        else:
            yield LIFECYCLE, (name, what), count
    for target, failures in worker.event_failures.items():
        yield EVENT_FAILURES, (name, target), failures


def _of_process(name: str, process: ProcessFigures) -> Iterator[Sample]:
    yield RESIDENT, (name,), process.resident_bytes
    yield CPU, (name,), process.cpu_s
    if process.open_files is not None:
        yield FILES, (name,), process.open_files
    yield THREADS, (name,), process.threads
    yield STARTED, (name,), process.started_s


def _metrics(found: Iterable[Sample]) -> Iterator["Metric"]:
    """One for each family, in the order in which they came first: the text forms want a family's samples together."""
    from prometheus_client.metrics_core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        SummaryMetricFamily,
    )

    kinds = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily,
             "summary": SummaryMetricFamily}
    made: dict[str, Any] = {}
    for family, labels, value in found:
        metric = made.get(family.name)
        if metric is None:
            metric = made[family.name] = kinds[family.kind](family.name, family.about, labels=family.labels)
        if family.kind == "histogram":
            metric.add_metric(labels, buckets=_cumulated(value[0]), sum_value=value[1])
        elif family.kind == "summary":
            metric.add_metric(labels, count_value=value[0], sum_value=value[1])
        else:
            metric.add_metric(labels, value)
    return iter(made.values())


def _cumulated(counts: list[int]) -> list[tuple[str, float]]:
    buckets, total = [], 0
    for bound, count in zip((*BOUNDS_S, None), counts, strict=True):
        total += count
        buckets.append(("+Inf" if bound is None else repr(bound), float(total)))
    return buckets
