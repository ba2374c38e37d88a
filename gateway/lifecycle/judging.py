"""Which steps of a bucket's lifecycle are due, page by page. Decides from values; reads and commits nothing.

The keys that enabled rules speak of fall into *parts*: ranges of keys that begin with one prefix, none inside another. A
part is looked at in pages of versions, in the order of listings; a `Judge` remembers what it has seen of the key at hand,
since a version is noncurrent from when the next newer one came, and some rules spare the newest noncurrent ones.
"""

from typing import NamedTuple

from consensus.core.commands import LifecycleStep
from consensus.lifecycles import Looked, LookedUpload
from gateway.s3.lifecycle import due as lifecycle_due
from gateway.s3.lifecycle.due import Days, Due, Version
from gateway.s3.lifecycle.rules import Lifecycle

END = b"\xff"
"""Above every key."""


class Part(NamedTuple):
    """Keys from `start` on and before `end`."""

    start: bytes
    end: bytes


class Wants(NamedTuple):
    """What of a bucket the rules look at at all."""

    versions: bool
    history: bool
    tags: bool
    uploads: bool


def parts(lifecycle: Lifecycle) -> list[Part]:
    """In the order of keys; one for each prefix that no other covers."""
    found: list[bytes] = []
    for prefix in sorted(rule.key_prefix.encode() for rule in lifecycle.rules if rule.enabled):
        if not found or not prefix.startswith(found[-1]):
            found.append(prefix)
    return [Part(prefix, past(prefix)) for prefix in found]


def past(prefix: bytes) -> bytes:
    """The least byte string above every key that begins so. Keys are UTF-8: none of their bytes is 0xFF."""
    return prefix[:-1] + bytes((prefix[-1] + 1,)) if prefix else END


def wants(lifecycle: Lifecycle, versioned: bool) -> Wants:
    """Noncurrent versions and markers there are only where versions were ever kept."""
    rules = [rule for rule in lifecycle.rules if rule.enabled]
    current = any(rule.transitions or (rule.expiration is not None and rule.expiration.marker is None) for rule in rules)
    history = versioned and any(
        rule.noncurrent_expiration or rule.noncurrent_transitions or rule.expiration is not None for rule in rules)
    return Wants(current or history, history, any(rule.tags for rule in rules),
                 any(rule.abort_days is not None for rule in rules))


class Judge:
    """Of one scan. `see` is shown each version in order, and answers the step that is due for it, if any. `now_ms` goes on.
    `keeps`: what expires in this bucket stays, behind a marker."""

    def __init__(self, lifecycle: Lifecycle, days: Days, now_ms: int, *, keeps: bool = False) -> None:
        self._lifecycle, self._days, self.now_ms, self._keeps = lifecycle, days, now_ms, keeps
        self._key: str | None = None
        self._newer: Looked | None = None
        self._newest = self._noncurrent = 0

    def see(self, version: Looked, next_key: str | None) -> LifecycleStep | None:
        """`next_key` of the version that follows: whether a marker is all there is of its key shows only there."""
        newest = version.key != self._key
        if newest:
            self._key, self._newest, self._noncurrent = version.key, version.order, 0
        newer, self._newer = self._newer, version
        if version.current:
            return self._current(version)
        if newest:
            return self._alone(version) if version.marker and next_key != version.key else None
        assert newer is not None
        seen = Version(version.key, newer.modified_ms, version.size, version.tags, version.storage_class, self._noncurrent)
        if version.marker:                    # does not count as a version that is kept
            gone = lifecycle_due.noncurrent_marker_expiration(self._lifecycle, seen, self._days)
            return _step("remove", version, gone, self.now_ms, self._newest)
        self._noncurrent += 1
        gone = lifecycle_due.noncurrent_expiration(self._lifecycle, seen, self._days)
        moved = lifecycle_due.noncurrent_transition(self._lifecycle, seen, self.now_ms, self._days)
        return (_step("remove", version, gone, self.now_ms, self._newest)
                or _step("move", version, moved, self.now_ms, self._newest))

    def _current(self, version: Looked) -> LifecycleStep | None:
        seen = Version(version.key, version.modified_ms, version.size, version.tags, version.storage_class)
        gone = lifecycle_due.expiration(self._lifecycle, seen, self._days)
        moved = lifecycle_due.transition(self._lifecycle, seen, self.now_ms, self._days)
        expire, move = _step("expire", version, gone, self.now_ms), _step("move", version, moved, self.now_ms)
        return move or expire if self._keeps else expire or move         # the other one has its turn in the next scan

    def _alone(self, version: Looked) -> LifecycleStep | None:
        return _step("unmark", version, lifecycle_due.marker_expiration(
            self._lifecycle, version.key, version.modified_ms, self._days), self.now_ms)

    def upload(self, upload: LookedUpload) -> LifecycleStep | None:
        due = lifecycle_due.abort(self._lifecycle, upload.key, upload.initiated_ms, self._days)
        if due is None or due.at_ms > self.now_ms:
            return None
        return LifecycleStep(action="abort", key=upload.key, order=upload.order, due_ms=due.at_ms, upload_id=upload.upload_id)


def _step(action: str, version: Looked, due: Due | None, now_ms: int, newest: int | None = None) -> LifecycleStep | None:
    if due is None or due.at_ms > now_ms:
        return None
    return LifecycleStep(
        action=action, key=version.key, order=version.order, due_ms=due.at_ms, storage_class=due.storage_class,
        current=version.current, seal=version.seal if due.rule.tags else None, newest=newest, spared=due.spared)
