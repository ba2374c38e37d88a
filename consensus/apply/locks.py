"""Object lock: which versions may not be removed, nor their protection shortened (S3's WORM).

Everything that removes a version, or changes its lock, asks here, in `apply`: no other path exists. Time is the log's,
which never runs backwards, so a clock that is set back frees nothing.
"""

from consensus.apply.state import State
from consensus.core.ids import BucketId
from consensus.core.model import Attributes, Lock, LockDefault
from consensus.rows import I63_MAX, decode_lock_default, encode

SETTING = "object-lock"
"""Name of its row among the bucket's settings."""

MODES = ("GOVERNANCE", "COMPLIANCE")
DAY_MS = 86_400_000
YEAR_DAYS = 365

DAYS_MAX, YEARS_MAX = 36_500, 100
"""AWS's limits."""


def of_bucket(state: State, bucket: BucketId) -> LockDefault | None:
    row = state.execute("SELECT document FROM bucket_setting WHERE bucket = ? AND name = ?", (bucket, SETTING)).fetchone()
    return None if row is None else decode_lock_default(row[0])


def keep(state: State, bucket: BucketId, default: LockDefault) -> None:
    state.touch()
    state.execute("INSERT OR REPLACE INTO bucket_setting (bucket, name, document) VALUES (?, ?, ?)",
                  (bucket, SETTING, encode(default)))


def is_default(default: LockDefault) -> bool:
    if not default.mode:
        return not default.days and not default.years
    return (default.mode in MODES and 0 <= default.days <= DAYS_MAX and 0 <= default.years <= YEARS_MAX
            and bool(default.days) != bool(default.years))


def is_lock(lock: Lock | None) -> bool:
    """Whether it makes sense by itself."""
    if lock is None:
        return True
    return 0 <= lock.until_ms <= I63_MAX and (lock.mode in MODES if lock.until_ms else not lock.mode)


def with_default(attributes: Attributes, default: LockDefault | None, now_ms: int) -> Lock | None:
    """The lock of a version that is made now."""
    lock = attributes.lock
    if default is None or not default.mode or (lock is not None and lock.mode):
        return lock
    until = now_ms + (default.days + default.years * YEAR_DAYS) * DAY_MS
    return Lock(default.mode, until, lock is not None and lock.legal_hold)


def protects(lock: Lock | None, now_ms: int, bypass: bool) -> bool:
    """Whether a version with this lock must stay. COMPLIANCE and holds yield to nobody."""
    if lock is None:
        return False
    return lock.legal_hold or _retained(lock, now_ms, bypass)


def forbids(lock: Lock | None, wanted: Lock, now_ms: int, bypass: bool) -> bool:
    """Whether this retention may not be changed to the wanted one: it may only be made longer or stricter."""
    if lock is None or not _retained(lock, now_ms, bypass):
        return False
    stricter = wanted.mode == lock.mode or (lock.mode == "GOVERNANCE" and wanted.mode == "COMPLIANCE")
    return not stricter or wanted.until_ms < lock.until_ms


def _retained(lock: Lock, now_ms: int, bypass: bool) -> bool:
    return bool(lock.mode) and lock.until_ms > now_ms and not (bypass and lock.mode == "GOVERNANCE")
