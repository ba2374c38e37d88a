"""The metadata's SQLite schema: what each table holds, and how an older file is brought up to date.

Nouns: a *version* row (`object`, `history`) names a *content*; a content's bytes are *slices* of *chunks*; a chunk row
lists *locations*, the numbers of the nodes that hold it. Rules:
* keys are BLOBs of their UTF-8 bytes, so that SQLite's order is S3's order and its functions count bytes;
* all integers fit 63 bits; ids of buckets, contents, sessions and uploads are positions in the log;
* rows that describe data end in `crc`, over what must not change unseen (`consensus.rows`).

ANALYZE is never run: with its statistics SQLite builds Bloom filters, which read a whole table for one page of it.

Peewee owns schema and migrations; whoever reads or writes rows uses constant SQL on the same connection.
docs/format/metadata.md describes each column.
"""

import functools
from collections.abc import Callable
from typing import Any

import peewee
from peewee import SQL, BlobField, IntegerField, TextField

from consensus.apply import queue
from consensus.core.binding import bind_quickly
from consensus.core.errors import Refused
from consensus.core.events import EVENT_QUEUE_MAX

SCHEMA_VERSION = 5

PRAGMAS = {
    "journal_mode": "wal",
    "synchronous": "normal",        # the journal is the durable log; what a power cut takes away is applied again
    "cache_size": -131072,          # KiB: 128 MiB of pages, the inner nodes of a 10-million-key tree
    "mmap_size": 1 << 30,
    "wal_autocheckpoint": 16384,    # pages (64 MiB): a backstop, checkpoints are asked for
    "busy_timeout": 5000,
    "foreign_keys": 0,
}

VERSION_COLUMNS = (
    "ord, version_id, modified, content, size, etag, checksum, parts, storage_class, owner, attributes, crc"
)
"""What `object` and `history` rows have in common, in one order, so that one statement moves a version between them."""


def columns_of(table: str, columns: str) -> str:
    """As a join names them."""
    return ", ".join(f"{table}.{column.strip()}" for column in columns.split(","))


class _Table(peewee.Model):
    """Base: no database of its own; `create` binds the tables to the one at hand."""


class Meta(_Table):
    """Numbers and blobs about the whole: applied, term, now, schema, generation, nodes, identities, …"""

    k = TextField(primary_key=True)
    v = peewee.BareField(null=True)

    class Meta:
        without_rowid = True


class Bucket(_Table):
    """`changed` counts the changes of all but the counters `objects`, `bytes` and `uploading` (_COUNT_CHANGES)."""

    id = IntegerField(primary_key=True)
    name = TextField(unique=True)
    account = TextField()
    owner = TextField()
    created = IntegerField()
    region = TextField()
    versioning = TextField()
    objects = IntegerField()
    bytes = IntegerField()
    copies = IntegerField(null=True)
    replication = TextField(null=True)
    access = IntegerField(default=0)
    lifecycle = IntegerField(constraints=[SQL("DEFAULT 0")])
    events = IntegerField(constraints=[SQL("DEFAULT 0")])
    uploading = IntegerField(constraints=[SQL("DEFAULT 0")])
    objects_max = IntegerField(null=True)
    bytes_max = IntegerField(null=True)
    changed = IntegerField(constraints=[SQL("DEFAULT 0")])

    class Meta:
        indexes = ((("account", "name"), False),)


class Account(_Table):
    """The quota of all buckets of an account together. What they hold is in their rows."""

    name = TextField(primary_key=True)
    objects_max = IntegerField(null=True)
    bytes_max = IntegerField(null=True)

    class Meta:
        without_rowid = True


class BucketSetting(_Table):
    """What owners have set for their buckets (CORS, tags, ...): documents that the gateways understand."""

    bucket = IntegerField()
    name = TextField()
    document = BlobField()

    class Meta:
        table_name = "bucket_setting"
        without_rowid = True
        primary_key = peewee.CompositeKey("bucket", "name")
        indexes = ((("name", "bucket"), False),)


class Session(_Table):
    id = IntegerField(primary_key=True)
    owner = TextField()
    node = TextField(null=True)
    low = IntegerField()
    last = IntegerField()


class Result(_Table):
    """The answers of a session from its low mark on. Rows and not a blob: a command adds one and rewrites none."""

    session = IntegerField()
    sequence = IntegerField()
    result = BlobField()

    class Meta:
        without_rowid = True
        primary_key = peewee.CompositeKey("session", "sequence")


class Node(_Table):
    """`number` stands for (id, incarnation) and is never used twice: locations on a lost disk stop counting at once.
    `state` is what the node says of itself, or the leader of it; `asked` what an admin wants of it."""

    number = IntegerField(primary_key=True)
    id = TextField(unique=True)
    incarnation = BlobField()
    address = TextField()
    zone = TextField()
    capacity = IntegerField()
    state = TextField()
    since = IntegerField(constraints=[SQL("DEFAULT 0")])
    asked = TextField(constraints=[SQL("DEFAULT ''")])


class _Version(_Table):
    bucket = IntegerField()
    key = BlobField()
    ord = IntegerField()
    version_id = TextField()
    modified = IntegerField()
    content = IntegerField()
    size = IntegerField()
    etag = TextField()
    checksum = BlobField(null=True)
    parts = IntegerField()
    storage_class = TextField()
    owner = TextField()
    attributes = BlobField()
    crc = IntegerField()


class Object(_Version):
    """The current version of each key that has one and isn't deleted: what a plain listing walks."""

    class Meta:
        without_rowid = True
        primary_key = peewee.CompositeKey("bucket", "key")


class History(_Version):
    """Older versions, and every delete marker. A key without an `object` row has a marker as its newest here."""

    marker = IntegerField()

    class Meta:
        without_rowid = True
        primary_key = False
        constraints = (SQL("PRIMARY KEY (bucket, key, ord DESC)"),)
        indexes = ((("bucket", "key", "version_id"), False),)


class Content(_Table):
    """`refs` 0: under construction (`staged`), or waiting in the queue to be taken apart."""

    id = IntegerField(primary_key=True)
    refs = IntegerField()
    kind = IntegerField()
    size = IntegerField()
    etag = TextField()
    checksum = BlobField(null=True)
    parts = IntegerField()
    slices = BlobField(null=True)
    crc = IntegerField()
    copies = IntegerField(constraints=[SQL("DEFAULT 0")])
    mark = IntegerField(constraints=[SQL("DEFAULT 0")])


class Staged(_Table):
    """A content that a session builds in pages. Of a part list also: its upload, that one's revision, last number."""

    content = IntegerField(primary_key=True)
    session = IntegerField(index=True)
    upload = IntegerField()
    revision = IntegerField()
    last = IntegerField()


class Piece(_Table):
    content = IntegerField()
    start = IntegerField()
    slices = BlobField()
    crc = IntegerField()

    class Meta:
        without_rowid = True
        primary_key = peewee.CompositeKey("content", "start")


class ContentPart(_Table):
    content = IntegerField()
    number = IntegerField()
    start = IntegerField()
    part_content = IntegerField()
    size = IntegerField()
    etag = TextField()
    modified = IntegerField()
    checksum = BlobField(null=True)
    crc = IntegerField()

    class Meta:
        table_name = "content_part"
        without_rowid = True
        primary_key = peewee.CompositeKey("content", "number")
        indexes = ((("content", "start"), False),)


class Upload(_Table):
    """Uploads in progress only, so that a listing of them never steps over finished ones."""

    bucket = IntegerField()
    key = BlobField()
    upload_id = TextField()
    ord = IntegerField()
    initiated = IntegerField()
    attributes = BlobField()
    owner = TextField()
    algorithm = TextField()
    kind = TextField()
    existing = IntegerField()
    revision = IntegerField()
    bytes = IntegerField(constraints=[SQL("DEFAULT 0")])
    initiator = TextField(constraints=[SQL("DEFAULT ''")])
    said = BlobField(null=True)

    class Meta:
        without_rowid = True
        primary_key = peewee.CompositeKey("bucket", "key", "upload_id")
        indexes = ((("ord",), False),)      # oldest first, for those that have expired


class Completed(_Table):
    """What a Complete answered, so that its repeats get the same for a day."""

    ord = IntegerField(primary_key=True)
    bucket = IntegerField()
    key = BlobField()
    upload_id = TextField()
    initiated = IntegerField()
    attributes = BlobField()
    owner = TextField()
    algorithm = TextField()
    kind = TextField()
    version_id = TextField(null=True)
    version_ord = IntegerField()
    modified = IntegerField()
    etag = TextField()
    checksum = BlobField(null=True)
    said = BlobField(null=True)

    class Meta:
        indexes = ((("bucket", "key", "upload_id"), True),)


class Renamed(_Table):
    """Renames that came with a token of the client's, so that their repeats get the same answer for a day."""

    ord = IntegerField(primary_key=True)
    bucket = IntegerField()
    token = TextField()
    fingerprint = BlobField()
    version_id = TextField(null=True)
    version_ord = IntegerField()
    modified = IntegerField()
    etag = TextField()
    at = IntegerField()

    class Meta:
        indexes = ((("bucket", "token"), True),)


class Part(_Table):
    upload = IntegerField()
    number = IntegerField()
    size = IntegerField()
    etag = TextField()
    modified = IntegerField()
    content = IntegerField()
    checksum = BlobField(null=True)
    crc = IntegerField()

    class Meta:
        without_rowid = True
        primary_key = peewee.CompositeKey("upload", "number")


class Chunk(_Table):
    """The live generation of each digest that something refers to. `short` is 0 if as many locations count as are wanted
    (consensus.rows.shortness); `copies` and `mark`: see consensus.apply.copies."""

    digest = BlobField(primary_key=True)
    session = IntegerField()
    sequence = IntegerField()
    size = IntegerField()
    refs = IntegerField()
    wanted = IntegerField()
    short = IntegerField()
    locations = BlobField()
    crc = IntegerField()
    copies = IntegerField(constraints=[SQL("DEFAULT 0")])
    mark = IntegerField(constraints=[SQL("DEFAULT 0")])

    class Meta:
        without_rowid = True


class Queue(_Table):
    """Work for `Drain`, oldest first: see `consensus.apply.drain`. `at`: since when (0: unknown, from schema 1)."""

    id = IntegerField(primary_key=True)
    kind = IntegerField()
    a = IntegerField()
    b = BlobField(null=True)
    at = IntegerField(constraints=[SQL("DEFAULT 0")])


class Lingering(_Table):
    """Contents that lost their last reference at `at` and are too long to be read in one look: readers that have begun
    come back for the rest, so `Drain` waits before it takes them."""

    at = IntegerField()
    content = IntegerField()

    class Meta:
        without_rowid = True
        primary_key = peewee.CompositeKey("at", "content")


class Released(_Table):
    """Copies that a node holds and that are listed no more. A hint: the node asks before it deletes."""

    node = IntegerField()
    id = IntegerField()
    at = IntegerField()
    copies = BlobField()

    class Meta:
        without_rowid = True
        primary_key = peewee.CompositeKey("node", "id")
        indexes = ((("id",), False),)


class User(_Table):
    """Who may ask. What it owns is its account's: buckets stay when it goes."""

    name = TextField(primary_key=True)
    account = TextField()
    user_id = TextField()
    display_name = TextField()
    email = TextField()
    admin = IntegerField()
    disabled = IntegerField()
    created = IntegerField()

    class Meta:
        without_rowid = True


class UserPolicy(_Table):
    """What a user may do: documents that the gateways understand."""

    user = TextField()
    name = TextField()
    document = BlobField()

    class Meta:
        table_name = "user_policy"
        without_rowid = True
        primary_key = peewee.CompositeKey("user", "name")


class AccessKey(_Table):
    """`sealed` is the secret as the gateways encrypted it; nothing here can open it."""

    access_key = TextField(primary_key=True)
    user = TextField(index=True)
    sealed = BlobField()
    disabled = IntegerField()
    created = IntegerField()

    class Meta:
        table_name = "access_key"
        without_rowid = True


class QueuedEvent(_Table):
    """What is still to be told to a target about a change, in the order of the log; `place` within the command."""

    target = TextField()
    ord = IntegerField()
    place = IntegerField()
    at = IntegerField()
    event = BlobField()

    class Meta:
        table_name = "event"
        without_rowid = True
        primary_key = peewee.CompositeKey("target", "ord", "place")


class EventTarget(_Table):
    """`queued` rows of `event`, `most` of them at once, and what became of the others."""

    name = TextField(primary_key=True)
    most = IntegerField(constraints=[SQL(f"DEFAULT {EVENT_QUEUE_MAX}")])
    queued = IntegerField(constraints=[SQL("DEFAULT 0")])
    delivered = IntegerField(constraints=[SQL("DEFAULT 0")])
    expired = IntegerField(constraints=[SQL("DEFAULT 0")])
    dropped = IntegerField(constraints=[SQL("DEFAULT 0")])
    error = TextField(constraints=[SQL("DEFAULT ''")])
    error_at = IntegerField(constraints=[SQL("DEFAULT 0")])
    damaged = IntegerField(constraints=[SQL("DEFAULT 0")])

    class Meta:
        table_name = "event_target"
        without_rowid = True


class Backup(_Table):
    """A kept copy of the metadata, of everything up to log index `idx`. While it is made, `idx` is NULL and the backup
    belongs to `session`."""

    name = TextField(primary_key=True)
    ord = IntegerField()
    created = IntegerField()
    idx = IntegerField(null=True)
    session = IntegerField(null=True)

    class Meta:
        without_rowid = True


class Held(_Table):
    """Contents without references that a backup still refers to: in the queue's place until the backup is dropped.
    `died` is the position at which the last reference went."""

    content = IntegerField(primary_key=True)
    died = IntegerField()


class Member(_Table):
    """The metadata members, as the last configuration that was applied says."""

    name = TextField(primary_key=True)
    address = TextField()
    incarnation = BlobField()
    voter = IntegerField()
    ord = IntegerField()

    class Meta:
        without_rowid = True


class JoinToken(_Table):
    """What lets a machine in, once. `hash` is over its secret half, which nobody here knows."""

    id = TextField(primary_key=True)
    hash = BlobField()
    created = IntegerField()
    expires = IntegerField()
    spent_by = TextField(null=True)
    spent_at = IntegerField(null=True)

    class Meta:
        table_name = "join_token"
        without_rowid = True


class Duty(_Table):
    """Which gateway does what work for all, and until when unless it says so again (the log's time)."""

    name = TextField(primary_key=True)
    holder = TextField()
    since = IntegerField()
    expires = IntegerField()

    class Meta:
        without_rowid = True


TABLES = (
    Meta, QueuedEvent, EventTarget, Bucket, BucketSetting, Session, Result, Node, Object, History, Content, Staged, Piece,
    ContentPart, Upload, Completed, Part, Chunk, Queue, Lingering, Released, User, AccessKey, Backup, Held,
    Member, JoinToken, UserPolicy, Duty, Account, Renamed,
)

_PARTIAL = "CREATE INDEX IF NOT EXISTS chunk_unequal ON chunk (short, digest) WHERE short <> 0"
"""The durable queue of replication, repair and giving back: the rows that lack copies, fewest left first, and those that have
more than are wanted; only those."""

_COUNT_CHANGES = """
CREATE TRIGGER IF NOT EXISTS bucket_changed AFTER UPDATE OF
    name, account, owner, created, region, versioning, copies, replication, access, lifecycle, events, objects_max, bytes_max
ON bucket BEGIN UPDATE bucket SET changed = changed + 1 WHERE id = NEW.id; END"""
"""Readers keep what a row stands for as long as this number stays (consensus.queries): no statement can forget to say so."""

_LIFECYCLES = "CREATE INDEX IF NOT EXISTS bucket_lifecycle ON bucket (id) WHERE lifecycle <> 0"
"""Whoever carries lifecycles out asks every few seconds which buckets have one."""

_QUOTAS = "CREATE INDEX IF NOT EXISTS bucket_quota ON bucket (name) WHERE objects_max IS NOT NULL OR bytes_max IS NOT NULL"
"""Few buckets have one, and metrics ask for those every few seconds."""

def _from_1(database: peewee.SqliteDatabase) -> None:
    """`_make_current` has made the tables that were missing. No row changes, so members need not do this together."""
    execute: Callable[..., Any] = database.execute_sql
    execute('ALTER TABLE queue ADD COLUMN "at" INTEGER NOT NULL DEFAULT 0')


def _from_2(database: peewee.SqliteDatabase) -> None:
    """`copies` 0 stands for the cluster's setting. Only stores of one member have had schema 2, so the one row that comes, to
    have `short` counted anew, makes no member differ from another."""
    execute: Callable[..., Any] = database.execute_sql
    execute("ALTER TABLE bucket ADD COLUMN copies INTEGER")
    execute("ALTER TABLE bucket ADD COLUMN replication TEXT")
    execute("ALTER TABLE bucket ADD COLUMN access INTEGER NOT NULL DEFAULT 0")
    execute("ALTER TABLE node ADD COLUMN since INTEGER NOT NULL DEFAULT 0")
    execute("ALTER TABLE node ADD COLUMN asked TEXT NOT NULL DEFAULT ''")
    for table in ("content", "chunk"):
        execute(f"ALTER TABLE {table} ADD COLUMN copies INTEGER NOT NULL DEFAULT 0")
        execute(f"ALTER TABLE {table} ADD COLUMN mark INTEGER NOT NULL DEFAULT 0")
    execute("DROP INDEX IF EXISTS chunk_short")
    execute("DELETE FROM queue WHERE kind = ?", (queue.REVIEW,))
    execute("INSERT INTO queue (kind, a, b, at) VALUES (?, 0, ?, 0)", (queue.REVIEW, b""))


def _from_3(database: peewee.SqliteDatabase) -> None:
    """New tables are there already; columns of older ones come here. No row changes but what every member derives from its
    own in the same way."""
    execute: Callable[..., Any] = database.execute_sql
    execute("ALTER TABLE bucket ADD COLUMN lifecycle INTEGER NOT NULL DEFAULT 0")
    execute("ALTER TABLE bucket ADD COLUMN events INTEGER NOT NULL DEFAULT 0")
    execute("ALTER TABLE bucket ADD COLUMN uploading INTEGER NOT NULL DEFAULT 0")
    execute("ALTER TABLE bucket ADD COLUMN objects_max INTEGER")
    execute("ALTER TABLE bucket ADD COLUMN bytes_max INTEGER")
    execute("ALTER TABLE bucket ADD COLUMN changed INTEGER NOT NULL DEFAULT 0")
    execute("ALTER TABLE upload ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0")
    execute("ALTER TABLE upload ADD COLUMN initiator TEXT NOT NULL DEFAULT ''")
    execute("UPDATE upload SET bytes = coalesce((SELECT sum(size) FROM part WHERE part.upload = upload.ord), 0)")
    execute("UPDATE bucket SET uploading = coalesce((SELECT sum(bytes) FROM upload WHERE upload.bucket = bucket.id), 0)")


def _from_4(database: peewee.SqliteDatabase) -> None:
    execute: Callable[..., Any] = database.execute_sql
    for table in ("upload", "completed"):
        execute(f"ALTER TABLE {table} ADD COLUMN said BLOB")
    if not any(column.name == "damaged" for column in database.get_columns("event_target")):    # one of 3 had no such table
        execute("ALTER TABLE event_target ADD COLUMN damaged INTEGER NOT NULL DEFAULT 0")


_MIGRATIONS: dict[int, Callable[[peewee.SqliteDatabase], None]] = {1: _from_1, 2: _from_2, 3: _from_3, 4: _from_4}
"""Schema version → the step to the next. One that changes rows must be taken by all members at the same log index: by a
command, then."""


def open_database(path: str) -> peewee.SqliteDatabase:
    """The writer's connection, schema present and current.

    Raises peewee.DatabaseError, whose context is SQLite's own error, or Refused for a newer schema.
    """
    bind_quickly()
    database = peewee.SqliteDatabase(path, pragmas=PRAGMAS, cached_statements=256, check_same_thread=False)
    database.connect()
    try:
        with database.atomic():
            _make_current(database, path)
    except BaseException:
        database.close()
        raise
    return database


@functools.cache
def _creation() -> tuple[str, ...]:
    """What makes the tables and indexes that are missing. Written once in a process: peewee takes longer to write it than SQLite
    to carry it out, and some processes open many databases."""
    written: list[str] = []
    database = peewee.SqliteDatabase(":memory:")
    connection: Callable[[], Any] = database.connection
    connection().set_trace_callback(written.append)
    with database.bind_ctx(TABLES, bind_refs=False, bind_backrefs=False):
        database.create_tables(TABLES)
    database.close()
    return tuple(statement for statement in written if statement.startswith("CREATE"))


def _make_current(database: peewee.SqliteDatabase, path: str) -> None:
    execute: Callable[..., Any] = database.execute_sql
    for statement in _creation():
        execute(statement)
    execute(_PARTIAL)
    row = execute("SELECT v FROM meta WHERE k = 'schema'").fetchone()
    version = SCHEMA_VERSION if row is None else row[0]
    if version > SCHEMA_VERSION:
        raise Refused(f"{path} has schema {version}, this Staddle knows up to {SCHEMA_VERSION}")
    while version < SCHEMA_VERSION:
        _MIGRATIONS[version](database)
        version += 1
    execute(_LIFECYCLES)
    execute(_QUOTAS)
    execute(_COUNT_CHANGES)
    execute("INSERT OR REPLACE INTO meta VALUES ('schema', ?)", (version,))
