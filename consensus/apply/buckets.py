"""Buckets: made, removed when nothing is in them, and their versioning."""

from consensus.apply import copies, events, locks, queue
from consensus.apply.state import BucketState, State, count_fits, quota_of, texts_fit
from consensus.core.commands import (
    ACCESS,
    FAMILY,
    LIFECYCLE,
    CreateBucket,
    DeleteBucket,
    SetBucketCopies,
    SetBucketSetting,
    SetDefaults,
    SetObjectLock,
    SetVersioning,
)
from consensus.core.ids import BucketId
from consensus.core.model import COPIES_MAX, REPLICATIONS, LockDefault
from consensus.core.results import (
    AnyResult,
    BucketCreated,
    BucketExists,
    BucketNotEmpty,
    Done,
    Malformed,
    NoBucket,
    WrongBucketState,
)

STATUSES = ("Enabled", "Suspended")
"""What versioning may be set to. "" (never set) can't be returned to."""


SETTING_BYTES_MAX = 512 << 10
"""The greatest is a lifecycle of 1,000 rules."""

SETTINGS_MAX = 64
"""Of one bucket: they go with it in one command. S3 has about 25 kinds."""

FAMILY_MAX = 1100
"""Settings of one family. S3 has 1,000; gateways refuse what is above, and several may be at it at once."""

FAMILIES_MAX = 8
"""S3 has four."""


def find(state: State, id: BucketId) -> BucketState | None:
    bucket = state.buckets.get(id)
    if bucket is None and count_fits(id):
        row = state.execute(
            "SELECT id, name, account, versioning, objects, bytes, copies, replication, uploading, objects_max, bytes_max"
            " FROM bucket WHERE id = ?", (id,)
        ).fetchone()
        if row is not None:
            account, quota = state.account(row[2]), quota_of(row[9], row[10])
            bucket = state.buckets[id] = BucketState(id, row[1], account, quota, *row[3:9])
            bucket.lock = locks.of_bucket(state, id)
            bucket.events = events.of_bucket(state, id)
    return bucket


def create_bucket(state: State, command: CreateBucket) -> AnyResult:
    if not command.name or not texts_fit(command.name, command.account, command.owner, command.region):
        return Malformed(reason="a bucket has a name, and short texts")
    versioning = command.versioning or ("Enabled" if command.object_lock else "")
    if versioning and (versioning not in STATUSES or (command.object_lock and versioning != "Enabled")):
        return Malformed(reason=f"versioning is one of {STATUSES}")
    wrong = bad_copies(command.copies, command.replication) or _bad_settings(command)
    if wrong:
        return wrong
    owner = state.execute("SELECT account FROM bucket WHERE name = ?", (command.name,)).fetchone()
    if owner is not None:
        return BucketExists(account=owner[0])
    id = BucketId(state.position)
    state.touch()
    state.execute(
        "INSERT INTO bucket (id, name, account, owner, created, region, versioning, objects, bytes, copies, replication, access)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, 0, 0, ?, ?, ?)",
        (id, command.name, command.account, command.owner, state.now, command.region, versioning, command.copies,
         command.replication, id if any(name.startswith(ACCESS) for name, _ in command.settings) else 0),
    )
    for setting in command.settings:
        state.touch()
        state.execute("INSERT INTO bucket_setting (bucket, name, document) VALUES (?, ?, ?)", (id, *setting))
    if command.object_lock:
        locks.keep(state, id, LockDefault())
    return BucketCreated(bucket=id)


def _bad_settings(command: CreateBucket) -> Malformed | None:
    names = [name for name, _ in command.settings]
    if len(names) > SETTINGS_MAX or len(set(names)) < len(names):
        return Malformed(reason=f"a new bucket has at most {SETTINGS_MAX} settings, each once")
    return next(filter(None, (_bad_setting(name, document) for name, document in command.settings)), None)


def _bad_setting(name: str, document: bytes) -> Malformed | None:
    if not name or not texts_fit(name) or name in (locks.SETTING, events.SETTING):
        return Malformed(reason="a setting has a short name; object lock and notification have commands of their own")
    if len(document) > SETTING_BYTES_MAX:
        return Malformed(reason=f"a setting of a bucket has at most {SETTING_BYTES_MAX} bytes")
    return None


def delete_bucket(state: State, command: DeleteBucket) -> AnyResult:
    """Refused while any version or delete marker is in it. Its uploads don't count: they go with it."""
    bucket = find(state, command.bucket)
    if bucket is None:
        return NoBucket()
    for table in ("object", "history"):
        if state.execute(f"SELECT 1 FROM {table} WHERE bucket = ? LIMIT 1", (bucket.id,)).fetchone():
            return BucketNotEmpty()
    state.touch()
    state.execute("DELETE FROM bucket WHERE id = ?", (bucket.id,))
    # Families are too many rows for one command: they go from the queue, like the uploads.
    state.touch(state.execute(
        "DELETE FROM bucket_setting WHERE bucket = ? AND instr(name, ?) = 0", (bucket.id, FAMILY)).rowcount)
    state.count(bucket, 0, 0, -bucket.uploading)
    state.forget(bucket)
    state.enqueue(queue.BUCKET, bucket.id)
    return Done()


def set_versioning(state: State, command: SetVersioning) -> AnyResult:
    bucket = find(state, command.bucket)
    if bucket is None:
        return NoBucket()
    if command.status not in STATUSES:
        return Malformed(reason=f"versioning is one of {STATUSES}")
    if bucket.lock is not None and command.status != "Enabled":
        return WrongBucketState()
    state.touch()
    state.execute("UPDATE bucket SET versioning = ? WHERE id = ?", (command.status, bucket.id))
    bucket.versioning = command.status
    return Done()


def bad_copies(wished: int | None, replication: str | None) -> Malformed | None:
    if (wished is None or 1 <= wished <= COPIES_MAX) and (replication is None or replication in REPLICATIONS):
        return None
    return Malformed(reason=f"copies are 1 to {COPIES_MAX}, and replication is one of {', '.join(REPLICATIONS)}")


def set_copies(state: State, command: SetBucketCopies) -> AnyResult:
    bucket = find(state, command.bucket)
    if bucket is None:
        return NoBucket()
    wrong = bad_copies(command.copies, command.replication)
    if wrong:
        return wrong
    before = state.terms_of(bucket).copies
    if (bucket.copies, bucket.replication) == (command.copies, command.replication):
        return Done()
    state.touch()
    state.execute("UPDATE bucket SET copies = ?, replication = ? WHERE id = ?",
                  (command.copies, command.replication, bucket.id))
    bucket.copies, bucket.replication = command.copies, command.replication
    if state.terms_of(bucket).copies < before:
        copies.begin_count(state)
    else:
        copies.begin_raise(state, bucket.id)
    return Done()


def set_defaults(state: State, command: SetDefaults) -> AnyResult:
    wrong = bad_copies(command.copies, command.replication)
    if wrong:
        return wrong
    changed = state.get_meta("copies") != command.copies       # the first time too: nobody knows what held before
    state.set_meta("copies", command.copies)
    state.set_meta("replication", command.replication)
    state.copies, state.replication = command.copies, command.replication
    state.count_nodes()
    if changed:
        copies.begin_count(state)
    return Done()


def set_setting(state: State, command: SetBucketSetting) -> AnyResult:
    bucket = find(state, command.bucket)
    if bucket is None:
        return NoBucket()
    name, document = command.name, command.document
    wrong = _bad_setting(name, document or b"")
    if wrong:
        return wrong
    state.touch()
    if name.startswith(ACCESS):
        # Never 0 again: then a bucket with 0 has no object whose access list was made under other rules.
        state.execute("UPDATE bucket SET access = ? WHERE id = ?", (state.position, bucket.id))
    if name == LIFECYCLE:
        state.execute("UPDATE bucket SET lifecycle = ? WHERE id = ?", (0 if document is None else state.position, bucket.id))
    if document is None:
        state.execute("DELETE FROM bucket_setting WHERE bucket = ? AND name = ?", (bucket.id, name))
        return Done()
    wrong = _too_many(state, bucket.id, name)
    if wrong:
        return wrong
    state.execute("INSERT OR REPLACE INTO bucket_setting (bucket, name, document) VALUES (?, ?, ?)",
                  (bucket.id, name, document))
    return Done()


def _too_many(state: State, bucket: BucketId, name: str) -> Malformed | None:
    family, slash, _ = name.partition(FAMILY)
    if not slash:
        others = state.execute("SELECT count(*) FROM bucket_setting WHERE bucket = ? AND name <> ? AND instr(name, ?) = 0",
                               (bucket, name, FAMILY)).fetchone()[0]
        return Malformed(reason=f"a bucket has at most {SETTINGS_MAX} settings") if others >= SETTINGS_MAX else None
    others = state.execute(
        "SELECT count(*) FROM bucket_setting WHERE bucket = ? AND name <> ? AND substr(name, 1, ?) = ?",
        (bucket, name, len(family) + 1, family + FAMILY)).fetchone()[0]
    if others >= FAMILY_MAX:
        return Malformed(reason=f"a bucket has at most {FAMILY_MAX} settings of one family")
    if not others:
        families = state.execute(
            "SELECT count(DISTINCT substr(name, 1, instr(name, ?))) FROM bucket_setting WHERE bucket = ? AND instr(name, ?)"
            " AND name <> ?", (FAMILY, bucket, FAMILY, name)).fetchone()[0]
        if families >= FAMILIES_MAX:
            return Malformed(reason=f"a bucket has at most {FAMILIES_MAX} families of settings")
    return None


def set_object_lock(state: State, command: SetObjectLock) -> AnyResult:
    bucket = find(state, command.bucket)
    if bucket is None:
        return NoBucket()
    if not locks.is_default(command.default):
        return Malformed(reason="a default retention has a mode, and either days or years")
    if bucket.versioning != "Enabled":
        return WrongBucketState()
    locks.keep(state, bucket.id, command.default)
    bucket.lock = command.default
    return Done()
