"""Access logs of buckets."""

from gateway.admin.values.common import Answer


class FlushedLogs(Answer, frozen=True, kw_only=True):
    """`objects` were written to target buckets. What a target did not take stays, and is tried again."""

    objects: int
