"""The table of metrics. docs/METRICS.md is printed from it, and the page is made from it: neither knows a name of its own.

A family has a name without suffix (counters get `_total` on the page), a kind, labels and a sentence. What the metadata
member and the storage nodes tell of themselves are fields of their structs (consensus.protocol.Status,
storage_node.care.status.NodeStatus): a number with a row in MEMBER or NODE is that family; a new number without
one is shown all the same, as a gauge named after the field, so that nothing is hidden until somebody writes a row.
"""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, get_args, get_type_hints

import msgspec

Kind = Literal["counter", "gauge", "histogram", "summary"]


class Family(NamedTuple):
    name: str
    kind: Kind
    labels: tuple[str, ...]
    about: str

    @property
    def shown(self) -> str:
        """The name as it stands on the page."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


def _family(name: str, kind: Kind, labels: str, about: str) -> Family:
    return Family(f"staddle_{name}", kind, tuple(labels.split()), about)


UP = _family("up", "gauge", "source", "Whether this part answered: metadata, each storage node, each gateway worker.")
INFO = _family("build_info", "gauge", "version", "Always 1; the version of Staddle.")

REQUESTS = _family("requests", "counter", "worker operation status",
                   "S3 requests answered, by operation and class of status. Status \"gone\": the client had left. Operation "
                   "\"none\": refused before it was clear what was asked.")
LATENCY = _family("request_seconds", "histogram", "worker group",
                  "From a request's head to the end of its answer, by group of operations: read, write, copy, delete, list, "
                  "other, unknown.")
RECEIVED = _family("received_bytes", "counter", "worker", "Bytes of request bodies.")
SENT = _family("sent_bytes", "counter", "worker", "Bytes of answers' bodies.")
ERRORS = _family("errors", "counter", "worker code", "Errors answered, by S3's code.")
UNAUTHENTICATED = _family("authentication_failures", "counter", "worker code",
                          "Requests whose signature was refused, by S3's code. They are among the errors too.")
IN_FLIGHT = _family("requests_in_flight", "gauge", "worker", "S3 requests under way.")
CONNECTIONS = _family("connections", "gauge", "worker", "Client connections open.")
ACCEPTED = _family("connections_accepted", "counter", "worker", "Client connections taken.")
MALFORMED = _family("requests_malformed", "counter", "worker",
                    "Answers of the connection itself: what is no HTTP, heads that are too long or too slow, connections "
                    "beyond the limit. They are not among the requests.")
LOG_DROPPED = _family("access_log_lines_dropped", "counter", "worker",
                      "Lines of the access log that were not written, because the disk was full or slow.")
BUCKET_LOG_RECORDS = _family("bucket_log_records", "counter", "worker", "Requests recorded for buckets with logging.")
BUCKET_LOG_OBJECTS = _family("bucket_log_objects", "counter", "worker", "Objects of such records delivered to target buckets.")
BUCKET_LOG_DROPPED = _family("bucket_log_records_dropped", "counter", "worker",
                             "Records that were not kept, or that no target bucket took for a day. The log says why.")
BUCKET_LOG_BYTES = _family("bucket_log_waiting_bytes", "gauge", "worker", "Records that wait for their delivery.")
COMMIT = _family("commit_seconds", "summary", "worker",
                 "From a command's sending to its durable result, as gateways see it: the metadata's latency.")
COMMITS_WAITING = _family("commits_waiting", "gauge", "worker", "Commands that have no result yet.")

DUTY = _family("duty_held", "gauge", "worker duty", "1 while this worker does that work for all gateways.")
LIFECYCLE = _family("lifecycle_versions", "counter", "worker what",
                    "Versions, delete markers and uploads that lifecycles were about: looked (at), expired, removed "
                    "(noncurrent), markers (of nothing), moved, aborted, left (another one by now, or protected).")
LIFECYCLE_SCANS = _family("lifecycle_scans", "counter", "worker result", "Looks through a bucket: done, trouble.")

WORKER_FAMILIES = (DUTY, LIFECYCLE, LIFECYCLE_SCANS, REQUESTS, LATENCY, RECEIVED, SENT, ERRORS, UNAUTHENTICATED, IN_FLIGHT,
                   CONNECTIONS, ACCEPTED, MALFORMED, LOG_DROPPED, BUCKET_LOG_RECORDS, BUCKET_LOG_OBJECTS,
                   BUCKET_LOG_DROPPED, BUCKET_LOG_BYTES, COMMIT, COMMITS_WAITING)

RESIDENT = _family("process_resident_memory_bytes", "gauge", "process", "Memory of a process that is in RAM.")
CPU = _family("process_cpu_seconds", "counter", "process", "CPU time of a process, user and system.")
FILES = _family("process_open_fds", "gauge", "process", "Open files and sockets of a process.")
THREADS = _family("process_threads", "gauge", "process", "Threads of a process.")
STARTED = _family("process_start_time_seconds", "gauge", "process", "When a process started, in Unix time.")

PROCESS_FAMILIES = (RESIDENT, CPU, FILES, THREADS, STARTED)

BUCKETS = _family("buckets", "gauge", "", "Buckets.")
OBJECTS = _family("objects", "gauge", "", "Objects, all versions, as the buckets count them.")
OBJECT_BYTES = _family("object_bytes", "gauge", "", "Bytes of objects as clients see them, before deduplication and copies.")
DRAIN_QUEUE = _family("metadata_drain_queue_items", "gauge", "",
                      "Deleted contents and the like that wait to be taken apart. Counted to 100,000.")
SHORT = _family("chunks_short_of_copies", "gauge", "", "Chunks with fewer copies than wanted. Counted to 10,000.")

GARBAGE_ITEMS = _family("metadata_waiting_items", "gauge", "what",
                        "What has been deleted and is not free yet, or is not yet part of an object: lingering (readers get "
                        "time), held (a backup refers to it), staged (a session builds it), uploads (in progress). Counted to "
                        "100,000 each, at most twice a minute.")
GARBAGE_BYTES = _family("metadata_waiting_bytes", "gauge", "what", "Bytes of objects and parts in them.")
LOST = _family("chunks_without_copies", "gauge", "", "Chunks that no node is known to hold. Anything but 0: `staddle fsck`.")

QUOTA = _family("quota_limit", "gauge", "of name what",
                "The most that a bucket or an account may hold: objects, or bytes. 500 of each are shown, in order of name.")
QUOTA_USED = _family("quota_used", "gauge", "of name what", "What it holds of it.")

EVENTS_WAITING = _family("events_waiting", "gauge", "target", "Events that wait to be sent to this target.")
EVENTS_AGE = _family("events_oldest_seconds", "gauge", "target", "How long the first of them has waited; 0: none does.")
EVENTS = _family("events", "counter", "target outcome",
                 "Events that wait no more: delivered, expired (too old before they could be), dropped (the queue was full), "
                 "damaged (could not be read any more).")
EVENT_FAILURES = _family("event_delivery_failures", "counter", "worker target",
                         "Tries to send an event that came to nothing, of the worker that delivers.")

EVENT_FAMILIES = (EVENTS_WAITING, EVENTS_AGE, EVENTS, EVENT_FAILURES)

USAGE_FAMILIES = (BUCKETS, OBJECTS, OBJECT_BYTES, DRAIN_QUEUE, SHORT, LOST, GARBAGE_ITEMS, GARBAGE_BYTES, QUOTA, QUOTA_USED)

SCRUB_STATE = _family("node_scrub_state", "gauge", "node state",
                      "1 for the state that the scrub is in: off, idle, running, trouble.")
SCRUB_STATES = ("off", "idle", "running", "trouble")

LEADS = _family("metadata_leads", "gauge", "", "1 if this machine's metadata member leads the cluster's. Their sum is 1.")
VOTES = _family("metadata_member_votes", "gauge", "member", "1 for a metadata member that is counted, 0 for one that follows.")
LINKED = _family("metadata_member_linked", "gauge", "member", "1 if there is a link to that member.")
BEHIND = _family("metadata_member_behind_entries", "gauge", "member",
                 "How many entries of the log that member has not acknowledged. Only the leader knows.")
HEARD = _family("metadata_member_heard_seconds", "gauge", "member", "Since that member's last acknowledgement. Likewise.")

MEMBER_FAMILIES = (LEADS, VOTES, LINKED, BEHIND, HEARD)
"""Of a cluster only."""

MEMBER: dict[str, Family] = {
    "term": _family("metadata_term", "gauge", "", "The log's term."),
    "commit_index": _family("metadata_commit_index", "gauge", "", "The last entry of the log that is decided."),
    "applied_index": _family("metadata_applied_index", "gauge", "", "The last entry of the log that readers see."),
    "generation": _family("metadata_generation", "gauge", "", "Which SQLite file is in use; grows when it is made anew."),
    "sessions": _family("metadata_sessions", "gauge", "", "Open sessions of gateways and storage nodes."),
    "links": _family("metadata_clients", "gauge", "", "Processes connected to the metadata member."),
    "journal_bytes": _family("metadata_journal_bytes", "gauge", "", "The journal's size on disk."),
    "journal_segments": _family("metadata_journal_segments", "gauge", "", "The journal's files."),
    "journal_written_bytes": _family("metadata_journal_written_bytes", "counter", "", "Bytes written to the journal."),
    "syncs": _family("metadata_fsyncs", "counter", "", "Syncs of the journal; each makes all commands durable that had queued."),
    "sync_seconds": _family("metadata_fsync_seconds", "counter", "", "Time spent in them. Divide the rates for the latency."),
    "last_sync_s": _family("metadata_last_fsync_seconds", "gauge", "", "How long the last of them took."),
    "entries": _family("metadata_entries", "counter", "", "Entries of the log made from commands that came."),
    "commands": _family("metadata_commands", "counter", "", "Commands in them: divide for the size of a batch."),
    "snapshot_index": _family("metadata_snapshot_index", "gauge", "", "The entry up to which the newest snapshot reaches."),
    "fetched_bytes": _family("metadata_fetched_bytes", "gauge", "", "Of a snapshot that this member fetches from another."),
    "of_bytes": _family("metadata_fetched_of_bytes", "gauge", "", "How large that snapshot is; 0: it fetches none."),
    "checked_ms": _family("metadata_checked_timestamp_seconds", "gauge", "",
                          "When SQLite last looked over the whole file of the metadata (or that file was made)."),
}
"""Fields of consensus.protocol.Status."""

NODE: dict[str, Family] = {
    "capacity_bytes": _family("node_capacity_bytes", "gauge", "node", "Of the disk under the data folder."),
    "free_bytes": _family("node_free_bytes", "gauge", "node", "Of that disk, what is free for us."),
    "chunks": _family("node_chunks", "gauge", "node", "Copies of chunks."),
    "chunk_bytes": _family("node_chunk_bytes", "gauge", "node", "Bytes in them."),
    "unsettled": _family("node_unsettled_chunks", "gauge", "node", "Copies of which it is not yet decided whether they stay."),
    "damaged": _family("node_damaged_chunks", "gauge", "node", "Copies known to be damaged."),
    "segments": _family("node_segments", "gauge", "node", "Files with small chunks."),
    "segment_bytes": _family("node_segment_bytes", "gauge", "node", "Bytes in those files."),
    "dead_bytes": _family("node_dead_bytes", "gauge", "node", "Of these, what removed chunks left: compaction gives it back."),
    "puts": _family("node_puts", "counter", "node", "Small chunks stored."),
    "put_bytes": _family("node_put_bytes", "counter", "node", "Bytes of chunks stored."),
    "files_finished": _family("node_files_finished", "counter", "node", "Large chunks stored, each a file."),
    "syncs": _family("node_fsyncs", "counter", "node", "Syncs of segments; each makes all chunks durable that had queued."),
    "sync_s": _family("node_fsync_seconds", "counter", "node", "Time spent in them."),
    "longest_sync_s": _family("node_longest_fsync_seconds", "gauge", "node", "The longest of them since the start."),
    "disk_errors": _family("node_disk_errors", "counter", "node", "Reads and writes that the disk refused."),
    "writable": _family("node_writable", "gauge", "node", "1: takes chunks. 0: the disk is full or fails; reads go on."),
    "disk_since_ms": _family("node_disk_since_timestamp_seconds", "gauge", "node",
                             "Since when the disk takes writes, or takes none; 0: always as now."),
    "disk_errors_full": _family("node_disk_errors_full", "counter", "node", "Writes refused for lack of space."),
    "disk_errors_read_only": _family("node_disk_errors_read_only", "counter", "node", "Writes refused by a read-only disk."),
    "disk_errors_failing": _family("node_disk_errors_failing", "counter", "node", "Writes and syncs that failed otherwise."),
    "disk_errors_read": _family("node_disk_errors_read", "counter", "node", "Reads that failed."),
    "moves": _family("node_compaction_moves", "counter", "node", "Small chunks that compaction has copied."),
    "returned_bytes": _family("node_compaction_freed_bytes", "counter", "node", "Space that compaction has given back."),
    "allocated_ahead_bytes": _family("node_allocated_ahead_bytes", "gauge", "node",
                                     "What the segment being written takes beyond its end."),
    "scrub_passes": _family("node_scrub_passes", "counter", "node", "Times that the scrub has read everything, ever."),
    "scrub_chunks": _family("node_scrub_chunks", "gauge", "node", "Copies read in this pass of the scrub, or the last one."),
    "scrub_bytes": _family("node_scrub_bytes", "gauge", "node", "Bytes read in it."),
    "scrub_total_bytes": _family("node_scrub_pass_bytes", "gauge", "node", "Bytes that it has to read."),
    "scrub_damaged": _family("node_scrub_damaged_chunks", "gauge", "node", "Copies that it found damaged."),
    "scrub_errors": _family("node_scrub_errors", "gauge", "node", "Copies that it could not read."),
    "scrub_bytes_per_second": _family("node_scrub_bytes_per_second", "gauge", "node", "How fast it reads."),
    "scrub_full_speed": _family("node_scrub_full_speed", "gauge", "node", "1 if it was told not to be gentle."),
    "settle_announced": _family("node_collection_announced", "counter", "node", "Copies announced to the metadata later."),
    "settle_removed": _family("node_collection_removed_chunks", "counter", "node", "Copies removed, since nothing needs them."),
    "settle_removed_bytes": _family("node_collection_removed_bytes", "counter", "node", "Bytes in them."),
    "settle_repaired": _family("node_repaired_chunks", "counter", "node", "Damaged copies replaced by good bytes."),
    "settle_withdrawn": _family("node_withdrawn_chunks", "counter", "node", "Damaged copies that the metadata lists no more."),
    "settle_damaged_removed": _family("node_damaged_removed_chunks", "counter", "node", "Damaged copies put aside or removed."),
    "settle_unanswered": _family("node_unanswered_chunks", "gauge", "node",
                                 "Copies about which the metadata was told something and has not answered."),
    "compared_unlisted": _family("node_unlisted_chunks", "gauge", "node",
                                 "In the last comparison with the metadata: copies that it does not list."),
    "compared_missing": _family("node_missing_chunks", "gauge", "node",
                                "In the last comparison: copies that the metadata lists and that are not here."),
    "scrub_started_ms": _family("node_scrub_started_timestamp_seconds", "gauge", "node", "When this pass, or the last, began."),
    "scrub_finished_ms": _family("node_scrub_finished_timestamp_seconds", "gauge", "node", "When the last pass ended; 0: never."),
    "scrub_next_ms": _family("node_scrub_next_timestamp_seconds", "gauge", "node", "When the next pass is due."),
    "comparing": _family("node_comparing", "gauge", "node", "1 while the node compares itself with the metadata."),
    "compared_finished_ms": _family("node_compared_timestamp_seconds", "gauge", "node", "When the last comparison ended."),
    "compaction_running": _family("node_compaction_running", "gauge", "node", "1 while compaction runs."),
    "compaction_run": _family("node_compaction_runs", "counter", "node", "Runs of compaction."),
    "compaction_segments": _family("node_compaction_run_segments", "gauge", "node", "Segments that the run is to empty."),
    "compaction_done": _family("node_compaction_run_done_segments", "gauge", "node", "Of these, done."),
    "compaction_moved_chunks": _family("node_compaction_run_moved_chunks", "gauge", "node", "Chunks that the run has moved."),
    "compaction_moved_bytes": _family("node_compaction_run_moved_bytes", "gauge", "node", "Bytes in them."),
    "compaction_returned_bytes": _family("node_compaction_run_freed_bytes", "gauge", "node", "Space that the run gave back."),
    "compaction_kept_chunks": _family("node_compaction_run_kept_chunks", "gauge", "node", "Damaged ones that it left in place."),
    "compaction_started_ms": _family("node_compaction_started_timestamp_seconds", "gauge", "node", "When the run began."),
    "compaction_ended_ms": _family("node_compaction_ended_timestamp_seconds", "gauge", "node", "When it ended."),
    "upkeep_repair_running": _family("node_repair_running", "gauge", "node", "1 while the node makes copies that are lacking."),
    "upkeep_repair_waiting": _family("node_repair_waiting_chunks", "gauge", "node", "Copies that it has still to make."),
    "upkeep_repair_waiting_bytes": _family("node_repair_waiting_bytes", "gauge", "node", "Bytes in them."),
    "upkeep_repair_oldest_ms": _family("node_repair_oldest_seconds", "gauge", "node",
                                       "How long it knows of the one that has waited longest: the lag of replication."),
    "upkeep_repair_copies": _family("node_repair_copies", "counter", "node", "Copies made because they were lacking."),
    "upkeep_repair_bytes": _family("node_fetched_bytes", "counter", "node", "Bytes fetched from other nodes."),
    "upkeep_repair_failed": _family("node_fetch_failures", "counter", "node", "Copies that could be had from no holder."),
    "upkeep_repair_bytes_per_second": _family("node_repair_bytes_per_second", "gauge", "node", "How fast it makes copies."),
    "upkeep_repair_seconds_left": _family("node_repair_left_seconds", "gauge", "node", "Until all are made; 0: not known."),
    "upkeep_rebalance_running": _family("node_rebalance_running", "gauge", "node", "1 while it takes over its share."),
    "upkeep_rebalance_passes": _family("node_rebalance_passes", "counter", "node", "Times that it has, ever."),
    "upkeep_rebalance_share": _family("node_rebalance_done_ratio", "gauge", "node", "How much of this pass is done, 0 to 1."),
    "upkeep_rebalance_copies": _family("node_rebalance_copies", "gauge", "node", "Copies taken over in this pass, or the last."),
    "upkeep_rebalance_bytes": _family("node_rebalance_bytes", "gauge", "node", "Bytes in them."),
    "upkeep_rebalance_started_ms": _family("node_rebalance_started_timestamp_seconds", "gauge", "node", "When the pass began."),
    "upkeep_rebalance_finished_ms": _family("node_rebalance_finished_timestamp_seconds", "gauge", "node", "When it ended."),
    "upkeep_rebalance_seconds_left": _family("node_rebalance_left_seconds", "gauge", "node", "Until it ends; 0: not known."),
    "upkeep_giving_back_leaving": _family("node_draining", "gauge", "node", "1 while an admin is taking the node out."),
    "upkeep_giving_back_waiting": _family("node_give_back_waiting_chunks", "gauge", "node", "Copies that are too many here."),
    "upkeep_giving_back_given": _family("node_given_back_chunks", "counter", "node", "Copies given back, as others are enough."),
    "upkeep_giving_back_given_bytes": _family("node_given_back_bytes", "counter", "node", "Bytes in them."),
    "upkeep_giving_back_kept": _family("node_give_back_refusals", "counter", "node",
                                       "Copies kept for now, since no other could be verified."),
    "compared_copies": _family("node_compared_chunks", "gauge", "node", "Copies in the last comparison."),
    "quarantined": _family("node_quarantined_findings", "gauge", "node", "Damaged copies that are remembered after they went."),
    "quarantined_bytes": _family("node_quarantine_bytes", "gauge", "node", "What is kept of them."),
}
"""Numbers of storage_node.care.status.NodeStatus by the path of their fields; those of its `statistics` have no prefix."""

UNINTERESTING = frozenset({"compared_version", "compared_applied", "disk_writable", "alone", "members"})
"""Numbers that mean nothing to an operator, or that are told twice."""

FIXED = (UP, INFO, *WORKER_FAMILIES, *PROCESS_FAMILIES, *USAGE_FAMILIES, *EVENT_FAMILIES, *MEMBER_FAMILIES, SCRUB_STATE)


def numbers(value: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers in a struct and in the structs inside it, each by the path of its fields joined by `_`, in base units."""
    for name in getattr(value, "__struct_fields__", getattr(value, "_fields", ())):
        path = _path(prefix, name)
        inner = getattr(value, name)
        if path in UNINTERESTING:
            continue
        if isinstance(inner, bool | int | float):
            yield path, inner / 1000 if name.endswith("_ms") else float(inner)
        else:
            yield from numbers(inner, path and path + "_")


def _path(prefix: str, name: str) -> str:
    return "" if name == "statistics" else prefix + name


def of_field(field: str, known: dict[str, Family], what: str, labels: str) -> Family:
    """The family of a field: its row, or one made from its name."""
    row = known.get(field)
    if row is not None:
        return row
    name = field
    if field.endswith("_ms"):
        name = field[:-3] + "_timestamp_seconds"           # all of them are times since 1970
    elif field.endswith("_s"):
        name = field[:-2] + "_seconds"
    return _family(f"{what}_{name}", "gauge", labels, f"`{field}`, as the {what} tells it.")


def every_family() -> list[Family]:
    """All that the page may have, in its order. Struct types are asked for their fields, so that new ones are among them."""
    from consensus.protocol import Status
    from storage_node.care.status import NodeStatus

    found = [*FIXED]
    found += [of_field(field, MEMBER, "metadata", "") for field in _numeric_fields(Status)]
    found += [of_field(field, NODE, "node", "node") for field in _numeric_fields(NodeStatus)]
    return found


def _numeric_fields(kind: Any, prefix: str = "") -> Iterator[str]:
    """As `numbers` finds them in a value, from its type."""
    for name, of in get_type_hints(kind).items():
        path = _path(prefix, name)
        if path in UNINTERESTING:
            continue
        for choice in get_args(of) or (of,):
            if choice in (int, float, bool):
                yield path
            elif isinstance(choice, type) and (issubclass(choice, msgspec.Struct) or hasattr(choice, "_fields")):
                yield from _numeric_fields(choice, path and path + "_")


def documentation(note: str) -> str:
    """docs/METRICS.md."""
    lines = [
        "# Metrics", note,
        "`GET /-/metrics` of any gateway worker answers for the whole machine, in Prometheus' text form, or in OpenMetrics'",
        "if the request's `Accept` asks for that. It wants credentials:", "",
        "* an admin's signature (AWS version 4, in headers), or",
        "* `Authorization: Bearer <token>` with the setting `metrics_token`, which is what Prometheus can send:", "",
        "```yaml", "scrape_configs:", "  - job_name: staddle", "    metrics_path: /-/metrics",
        "    authorization: {credentials_file: /etc/prometheus/staddle-token}",
        "    static_configs: [{targets: [\"127.0.0.1:9000\"]}]", "```", "",
        "Without credentials it can be had only from a listener of its own, `metrics_listen`, which is off by default: bind it",
        "to an address that strangers cannot reach.", "",
        "No label has a value that a client can choose: no bucket, no key, no address. Each worker counts from its own start,",
        "and has the label `worker`, so that a worker that starts again is a reset that `rate()` understands; for the machine",
        "add them up: `sum without (worker) (rate(staddle_requests_total[5m]))`. A part that does not answer is left out, and",
        "its `staddle_up` is 0.", "",
        "| metric | kind | labels | |", "|---|---|---|---|",
    ]
    for family in every_family():
        labels = ", ".join(f"`{label}`" for label in family.labels) or "-"
        lines.append(f"| `{family.shown}` | {family.kind} | {labels} | {family.about} |")
    return "\n".join([*lines, ""])
