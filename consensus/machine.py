"""The metadata state machine: log entries in, results out, rows in one SQLite file. Nothing else writes metadata.

Rules:
* `apply` is called with each committed entry in log order, `commit` when the journal holds them durably. Rows and the
  applied index change in one transaction; after a power cut, SQLite may be older than the journal, and is caught up.
* A command's effect depends on the log alone: time and random ids come inside the command (consensus.apply).
* A bad command is answered with Malformed and changes nothing. A fault of SQLite or a damaged row is raised: the
  process must end, since what it holds in memory no longer fits the file.
* The file in use is named by `CURRENT` (consensus.snapshot). One process writes it: the caller holds the folder's lock.
"""

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from consensus.apply import (
    appending,
    attributes,
    backups,
    buckets,
    contents,
    drain,
    duties,
    event_queues,
    identities,
    lifecycle,
    members,
    multipart,
    nodes,
    objects,
    quotas,
    renaming,
    sessions,
    tokens,
)
from consensus.apply.sessions import Sessions
from consensus.apply.state import COUNT_MAX, Replication, State
from consensus.core import codec, commands
from consensus.core.commands import RESULTS_PER_SESSION_MAX, Envelope
from consensus.core.errors import Corrupt
from consensus.core.ids import POSITION_BITS, position
from consensus.core.model import Member
from consensus.core.results import AnyResult, Malformed, SequencePassed, SessionEnded
from consensus.disk import Disk
from consensus.snapshot import current_file
from consensus.tables import open_database

NOW_MS_MAX = 1 << 52
"""A proposer's clock beyond the year 140,000 is damage; it would stop `now` for good."""

_HANDLERS: dict[type, Callable[[State, Any], AnyResult]] = {
    commands.Announce: nodes.announce,
    commands.Withdraw: nodes.withdraw,
    commands.SetNodeState: nodes.set_node_state,
    commands.AskNode: nodes.ask_node,
    commands.SetDefaults: buckets.set_defaults,
    commands.CreateToken: tokens.create_token,
    commands.SpendToken: tokens.spend_token,
    commands.DeleteToken: tokens.delete_token,
    commands.CarryOutLifecycle: lifecycle.carry_out,
    commands.TakeDuty: duties.take_duty,
    commands.DropDuty: duties.drop_duty,
    commands.CreateBucket: buckets.create_bucket,
    commands.DeleteBucket: buckets.delete_bucket,
    commands.SetVersioning: buckets.set_versioning,
    commands.SetBucketCopies: buckets.set_copies,
    commands.SetBucketSetting: buckets.set_setting,
    commands.SetQuota: quotas.set_quota,
    commands.StageContent: contents.stage_content,
    commands.PutVersion: objects.put_version,
    commands.DeleteVersion: objects.delete_version,
    commands.RenameVersion: renaming.rename_version,
    commands.AppendVersion: appending.append_version,
    commands.SetTags: attributes.set_tags,
    commands.SetAcl: attributes.set_acl,
    commands.SetRetention: attributes.set_retention,
    commands.SetLegalHold: attributes.set_legal_hold,
    commands.SetRestored: attributes.set_restored,
    commands.SetObjectLock: buckets.set_object_lock,
    commands.CreateUpload: multipart.create_upload,
    commands.PutPart: multipart.put_part,
    commands.StageParts: multipart.stage_parts,
    commands.CompleteUpload: multipart.complete_upload,
    commands.AbortUpload: multipart.abort_upload,
    commands.Drain: drain.drain,
    commands.ExpireUploads: multipart.expire_uploads,
    commands.SetNotification: event_queues.set_notification,
    commands.EventsDone: event_queues.events_done,
    commands.PurgeEvents: event_queues.purge_events,
    commands.ReportTarget: event_queues.report_target,
    commands.CreateUser: identities.create_user,
    commands.ChangeUser: identities.change_user,
    commands.DeleteUser: identities.delete_user,
    commands.SetUserPolicy: identities.set_policy,
    commands.CreateKey: identities.create_key,
    commands.ChangeKey: identities.change_key,
    commands.DeleteKey: identities.delete_key,
    commands.OpenBackup: backups.open_backup,
    commands.KeepBackup: backups.keep_backup,
    commands.DropBackup: backups.drop_backup,
}

_OF_SESSIONS: dict[type, Callable[[State, Sessions, Any], AnyResult]] = {
    commands.OpenSession: sessions.open_session,
    commands.EndSession: sessions.end_session,
    commands.RegisterNode: nodes.register_node,
    commands.RemoveNode: nodes.remove_node,
}


class Machine:
    """`applied` and `applied_term` are as in the file: they move with `commit`.

    `copies` and `replication` hold until the log says others (SetDefaults): apply counts by them, so all members must agree.
    """

    def __init__(
        self, folder: str | Path, *, copies: int = 3, replication: Replication = "sync", disk: Disk | None = None
    ) -> None:
        assert copies >= 1
        self._disk = disk or Disk()
        self.path, self.generation = current_file(str(folder), self._disk)
        self._database = open_database(self.path)
        self.db: sqlite3.Connection = self._database.connection()  # type: ignore[no-untyped-call]  # peewee
        meta = dict(self.db.execute("SELECT k, v FROM meta WHERE k IN ('applied', 'term', 'now')").fetchall())
        self.applied: int = meta.get("applied", 0)
        self.applied_term: int = meta.get("term", 0)
        self.db.execute("INSERT OR REPLACE INTO meta (k, v) VALUES ('generation', ?)", (self.generation,))
        self._durable = 0
        self._open = False
        self._checkpointer: sqlite3.Connection | None = None
        self.state = State(self.db, now=meta.get("now", 0), copies=copies, replication=replication)
        backups.load_pin(self.state)
        self.sessions = Sessions(self.state)

    # The log's side

    def apply(self, entry: bytes, index: int, decoded: Sequence[Envelope] | None = None) -> list[AnyResult]:
        """Carry out one entry; `decoded` is what decoding it gives, if that was done before. Raises Corrupt for an entry of a
        version that this program doesn't know: to skip what others understand would make members differ."""
        self._begin(index)
        try:
            envelopes = codec.decode_entry(entry) if decoded is None else decoded
        except Corrupt as error:
            if isinstance(error, codec.FutureEntry):
                raise
            return [Malformed(reason=str(error))]
        if len(envelopes) >= 1 << POSITION_BITS:
            return [Malformed(reason="too many commands in one entry")]
        apply_one = self._apply_one
        return [apply_one(envelope, place) for place, envelope in enumerate(envelopes, position(index, 0))]

    def configure(self, configured: tuple[Member, ...], index: int) -> None:
        """A configuration of the group of metadata members is committed, as entry `index`."""
        self._begin(index)
        members.store(self.state, index, configured)

    def _begin(self, index: int) -> None:
        assert index > self.applied, f"entry {index} is applied already (up to {self.applied})"
        if not self._open:
            self.db.execute("BEGIN IMMEDIATE")
            self._open = True

    def _apply_one(self, envelope: Envelope, position: int) -> AnyResult:
        sequence, now_ms = envelope.sequence, envelope.now_ms
        if not (0 <= now_ms <= NOW_MS_MAX and 0 <= envelope.low <= sequence <= COUNT_MAX
                and 0 <= envelope.session <= COUNT_MAX):
            return Malformed(reason="an envelope's numbers are out of range, or its mark is above its sequence")
        state = self.state
        if now_ms > state.now:
            state.now = now_ms
        if not envelope.session:
            state.begin(position, 0, 0, None)
            return self._carry_out(envelope.command)
        session = self.sessions.open.get(envelope.session)
        if session is None:
            return SessionEnded()
        if sequence < session.low:
            return SequencePassed()
        self.sessions.mark(session)
        session.raise_low(envelope.low)
        known = session.results.get(sequence)
        if known is not None:
            return known
        if len(session.results) >= RESULTS_PER_SESSION_MAX:
            return Malformed(reason=f"a session has at most {RESULTS_PER_SESSION_MAX} results that are unanswered")
        state.begin(position, session.id, sequence, session.node)
        result = self._carry_out(envelope.command)
        session.keep(sequence, result)
        return result

    def _carry_out(self, command: commands.AnyCommand) -> AnyResult:
        kind = type(command)
        handler = _HANDLERS.get(kind)
        if handler is not None:
            result = handler(self.state, command)
        else:
            result = _OF_SESSIONS[kind](self.state, self.sessions, command)
        self.state.end()
        return result

    def commit(self, applied: int, term: int) -> None:
        """End the transaction: rows and the applied index become visible to readers in one step."""
        assert applied >= self.applied
        if not self._open:
            if applied == self.applied:
                return
            self.db.execute("BEGIN IMMEDIATE")
        self.sessions.flush()
        self.state.flush()
        self.db.execute("INSERT OR REPLACE INTO meta (k, v) VALUES ('applied', ?), ('term', ?), ('now', ?)",
                        (applied, term, self.state.now))
        self._disk.step("metadata.commit", self.path)
        self.db.execute("COMMIT")
        self._open = False
        self.applied, self.applied_term = applied, term

    def checkpoint(self) -> int:
        """Bring committed pages into the file. Answers the applied index that is durable now: 0 if none is known since
        the start, since after an unclean stop the page cache isn't to be believed before a whole checkpoint.

        May run in a thread of its own, one at a time, while `apply` goes on: it has its own connection.
        """
        if self._checkpointer is None:
            self._checkpointer = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            self._checkpointer.execute("PRAGMA synchronous = NORMAL")
        applied = self.applied
        self._disk.step("metadata.checkpoint", self.path)
        busy, pages, moved = self._checkpointer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if not busy and pages == moved:
            self._durable = max(self._durable, applied)
        return self._durable

    def has_work(self, now_ms: int, grace_ms: int = 0) -> bool:
        """Whether the leader should propose a Drain with that grace."""
        return drain.has_work(self.state, now_ms, grace_ms)

    def oldest_upload_ms(self) -> int | None:
        """When the oldest multipart upload in progress was begun."""
        row = self.db.execute("SELECT initiated FROM upload ORDER BY ord LIMIT 1").fetchone()
        return None if row is None else row[0]

    def close(self) -> None:
        """What isn't committed is given up: it is in the journal."""
        if self._checkpointer is not None:
            self._checkpointer.close()
        if self.db.in_transaction:        # after some errors SQLite has given it up by itself
            self.db.execute("ROLLBACK")
        self._database.close()
