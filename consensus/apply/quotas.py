"""Quotas: the most objects and bytes that a bucket, or all buckets of an account together, may hold.

Checked where the change is made, against counters of the same transaction, so no two writes at once get past one. Buckets
have theirs in their rows; an account with a quota has them in memory, added up from its buckets when it is first met. What
counts are versions (delete markers are none) with their whole size, whoever shares the bytes, and the parts of uploads in
progress. A change is refused if it would *add* to what is at its limit: so whatever frees room, or replaces by less, is
never refused, also where there is more than the quota allows because it was set later.
"""

from consensus.apply import buckets
from consensus.apply.state import BucketState, State, count_fits, texts_fit
from consensus.core.commands import SetQuota
from consensus.core.model import Quota
from consensus.core.results import AnyResult, Done, Malformed, NoBucket, QuotaExceeded


def exceeded(bucket: BucketState, objects: int, bytes: int) -> QuotaExceeded | None:
    """Whether so many more objects and bytes would be too many."""
    if bucket.quota is None and bucket.account.quota is None:
        return None
    for whose, holder in (("bucket", bucket), ("account", bucket.account)):
        quota = holder.quota
        if quota is None:
            continue
        if objects > 0 and quota.objects is not None and holder.objects + objects > quota.objects:
            return QuotaExceeded(whose=whose, what="objects")
        if bytes > 0 and quota.bytes is not None and holder.bytes + holder.uploading + bytes > quota.bytes:
            return QuotaExceeded(whose=whose, what="bytes")
    return None


def set_quota(state: State, command: SetQuota) -> AnyResult:
    quota = command.quota
    if quota is not None and (quota == Quota() or not all(count_fits(most) for most in quota if most is not None)):
        return Malformed(reason="a quota limits objects, bytes or both, by numbers of at most 2**61")
    if command.bucket is None:
        if not command.account or not texts_fit(command.account):
            return Malformed(reason="a quota is a bucket's or an account's")
        state.touch()
        if quota is None:
            state.execute("DELETE FROM account WHERE name = ?", (command.account,))
        else:
            state.execute("INSERT OR REPLACE INTO account (name, objects_max, bytes_max) VALUES (?, ?, ?)",
                          (command.account, *quota))
        state.limit(state.account(command.account), quota)
        return Done()
    bucket = buckets.find(state, command.bucket)
    if bucket is None:
        return NoBucket()
    state.touch()
    state.execute("UPDATE bucket SET objects_max = ?, bytes_max = ? WHERE id = ?", (*(quota or (None, None)), bucket.id))
    bucket.quota = quota
    return Done()
