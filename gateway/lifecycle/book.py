"""The lifecycles of the buckets that were asked about lately.

A bucket's `lifecycle` moves in the log with each change of it and comes with the bucket, so what is kept is as new as the
bucket, and a bucket without one costs a comparison.
"""

from typing import TYPE_CHECKING

from consensus.core.commands import LIFECYCLE
from consensus.core.ids import BucketId
from consensus.core.model import Bucket
from gateway.bucket_settings import Kind
from gateway.s3.lifecycle.rules import Lifecycle

if TYPE_CHECKING:
    from consensus.client import MetadataClient

RULES_MAX = 10_000
"""So many rules are kept; then all are forgotten. A thousand take about 1 MB, whether of one bucket or of a thousand."""

KIND: Kind[Lifecycle] = Kind(LIFECYCLE, Lifecycle, "NoSuchLifecycleConfiguration")


class LifecycleBook:
    """Of one process."""

    def __init__(self) -> None:
        self._known: dict[BucketId, tuple[int, Lifecycle]] = {}
        self._rules = 0

    async def of(self, metadata: "MetadataClient", bucket: Bucket) -> Lifecycle | None:
        """Raises ClusterError."""
        if not bucket.lifecycle:
            return None
        known = self._known.get(bucket.id)
        if known is not None and known[0] == bucket.lifecycle:
            return known[1]
        found = await KIND.of(metadata, bucket.id)
        if found is None:
            return None                   # taken away since the bucket was read
        self._rules += len(found.rules)
        if self._rules > RULES_MAX:
            self._known.clear()
            self._rules = len(found.rules)
        self._known[bucket.id] = (bucket.lifecycle, found)
        return found
