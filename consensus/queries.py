"""Questions to the metadata: plain functions on a read-only SQLite connection, each within one read transaction.

The caller (consensus.client, or the server for hosts without a member) begins the transaction, reads `header` first,
checks that it is not behind the read index, calls one of these, and ends the transaction, all without waiting. A row
that does not fit its checksum raises Corrupt. Every public function here, those imported from where they are kept (buckets.py,
versions.py, uploads.py and so on) too, is one that a process without a member on its host may ask for by name.
"""

import sqlite3
from collections.abc import Callable
from typing import NamedTuple

from consensus.accounts import access_key as access_key
from consensus.accounts import access_keys as access_keys
from consensus.accounts import account_holding as account_holding
from consensus.accounts import account_usage as account_usage
from consensus.accounts import holding_accounts as holding_accounts
from consensus.accounts import identities_version as identities_version
from consensus.accounts import keys_of as keys_of
from consensus.accounts import limited_accounts as limited_accounts
from consensus.accounts import limited_buckets as limited_buckets
from consensus.accounts import policies_of as policies_of
from consensus.accounts import quota_room as quota_room
from consensus.accounts import user as user
from consensus.accounts import user_policies as user_policies
from consensus.accounts import users as users
from consensus.buckets import KnowingBuckets as KnowingBuckets
from consensus.buckets import bucket as bucket
from consensus.buckets import bucket_counted as bucket_counted
from consensus.buckets import bucket_setting as bucket_setting
from consensus.buckets import bucket_settings as bucket_settings
from consensus.buckets import buckets as buckets
from consensus.buckets import settings_named as settings_named
from consensus.buckets import settings_page as settings_page
from consensus.core.model import Backup, Duty, JoinToken, Member
from consensus.event_queues import event_queues as event_queues
from consensus.event_queues import notification as notification
from consensus.event_queues import queued_events as queued_events
from consensus.event_queues import waiting_targets as waiting_targets
from consensus.garbage import gc_report as gc_report
from consensus.garbage import held_contents as held_contents
from consensus.garbage import lingering_contents as lingering_contents
from consensus.garbage import open_uploads as open_uploads
from consensus.garbage import staged_contents as staged_contents
from consensus.holdings import chunk_place as chunk_place
from consensus.holdings import chunk_places as chunk_places
from consensus.holdings import chunk_states as chunk_states
from consensus.holdings import listed_on as listed_on
from consensus.holdings import live_chunks as live_chunks
from consensus.holdings import located as located
from consensus.holdings import nodes as nodes
from consensus.holdings import over_replicated as over_replicated
from consensus.holdings import released as released
from consensus.holdings import under_replicated as under_replicated
from consensus.holdings import unequal as unequal
from consensus.lifecycles import lifecycle_buckets as lifecycle_buckets
from consensus.lifecycles import lifecycle_page as lifecycle_page
from consensus.lifecycles import lifecycle_uploads as lifecycle_uploads
from consensus.lifecycles import log_time as log_time
from consensus.listing import list_objects as list_objects
from consensus.listing import list_versions as list_versions
from consensus.listing import uploads as uploads
from consensus.uploads import object_parts as object_parts
from consensus.uploads import part_of as part_of
from consensus.uploads import parts as parts
from consensus.uploads import upload as upload
from consensus.versions import SLICES_PER_CALL_MAX as SLICES_PER_CALL_MAX
from consensus.versions import RenamedBefore as RenamedBefore
from consensus.versions import Shape as Shape
from consensus.versions import current as current
from consensus.versions import opened as opened
from consensus.versions import opened_at_once as opened_at_once
from consensus.versions import renamed as renamed
from consensus.versions import restored as restored
from consensus.versions import shape as shape
from consensus.versions import slices as slices
from consensus.versions import version as version

Database = sqlite3.Connection


class Usage(NamedTuple):
    """`queued`: items that wait for Drain. `short`: chunks that lack copies, counted up to the limit asked for."""

    buckets: int
    objects: int
    bytes: int
    queued: int
    short: int


def header(db: Database) -> tuple[int, int]:
    """(applied index, generation of the file): the first statement of each read transaction."""
    found = db.execute(
        "SELECT (SELECT v FROM meta WHERE k = 'applied'), (SELECT v FROM meta WHERE k = 'generation')"
    ).fetchone()
    return found[0] or 0, found[1] or 0


ALONE: frozenset[Callable[..., object]] = frozenset({bucket, opened_at_once})
"""Queries of one statement that gives one row at most: a transaction in themselves (consensus.reads)."""


# The cluster, and all of it

def members(db: Database) -> list[Member]:
    """The metadata members, as the last configuration that was applied says; none in a store that never was a cluster."""
    return [Member(name=name, address=address, incarnation=incarnation, voter=bool(voter))
            for name, address, incarnation, voter in
            db.execute("SELECT name, address, incarnation, voter FROM member ORDER BY name").fetchall()]


def join_tokens(db: Database) -> list[JoinToken]:
    """In the order in which they were made."""
    return [JoinToken(id=row[0], hash=row[1], created_ms=row[2], expires_ms=row[3], spent_by=row[4], spent_at_ms=row[5])
            for row in db.execute("SELECT id, hash, created, expires, spent_by, spent_at FROM join_token"
                                  " ORDER BY created, id").fetchall()]


def duties(db: Database) -> list[Duty]:
    """Of gateways, by name: those whose lease is over too, as long as nobody else has taken them."""
    return [Duty(name=name, holder=holder, since_ms=since, expires_ms=expires) for name, holder, since, expires in
            db.execute("SELECT name, holder, since, expires FROM duty ORDER BY name").fetchall()]


def defaults(db: Database) -> tuple[int, str] | None:
    """The cluster's `copies` and `replication`; None while the log says nothing about them."""
    found = dict(db.execute("SELECT k, v FROM meta WHERE k IN ('copies', 'replication')").fetchall())
    return (found["copies"], found["replication"]) if found else None


def lineage(db: Database) -> tuple[int, str]:
    """(applied index, mark of the last restore from a backup or ""): when the index falls or the mark changes, this is
    another history than before, and whoever remembers anything of the old one compares it anew."""
    mark = db.execute("SELECT v FROM meta WHERE k = 'restored'").fetchone()
    return header(db)[0], "" if mark is None else str(mark[0])


def backups(db: Database) -> list[Backup]:
    """Kept ones and those that are being made, oldest first."""
    return [Backup(name=name, created_ms=created, index=index) for name, created, index in
            db.execute("SELECT name, created, idx FROM backup ORDER BY ord").fetchall()]


def usage(db: Database, short_limit: int = 10_000) -> Usage:
    """Totals. Reads the bucket table, not the objects."""
    totals = db.execute("SELECT count(*), coalesce(sum(objects), 0), coalesce(sum(bytes), 0) FROM bucket").fetchone()
    queued = db.execute("SELECT count(*) FROM (SELECT 1 FROM queue LIMIT 100000)").fetchone()[0]
    short = db.execute(
        "SELECT count(*) FROM (SELECT 1 FROM chunk WHERE short <> 0 AND short > 0 LIMIT ?)", (short_limit,)
    ).fetchone()[0]
    return Usage(totals[0], totals[1], totals[2], queued, short)
