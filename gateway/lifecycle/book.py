"""The lifecycles of the buckets that were asked about lately.

A bucket's `lifecycle` moves in the log with each change of it and comes with the bucket, so what is kept is as new as the
bucket, and a bucket without one costs a comparison.
"""

from typing import TYPE_CHECKING

import msgspec

from consensus.core.codec import UNDECODABLE
from consensus.core.commands import LIFECYCLE
from consensus.core.errors import Corrupt
from consensus.core.ids import BucketId
from consensus.core.model import Bucket
from gateway.s3.lifecycle.rules import Lifecycle

if TYPE_CHECKING:
    from consensus.client import MetadataClient

RULES_MAX = 10_000
"""So many rules are kept; then all are forgotten. A thousand take about 1 MB, whether of one bucket or of a thousand."""

_decoder = msgspec.msgpack.Decoder(Lifecycle)


def decode(document: bytes) -> Lifecycle:
    """Raises Corrupt: what cannot be understood must not be taken for another rule."""
    try:
        return _decoder.decode(document)
    except UNDECODABLE as error:
        raise Corrupt(f"the lifecycle of a bucket cannot be read: {error}") from error


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
        document = await metadata.bucket_setting(bucket.id, LIFECYCLE)
        if document is None:
            return None                   # taken away since the bucket was read
        found = decode(document)
        self._rules += len(found.rules)
        if self._rules > RULES_MAX:
            self._known.clear()
            self._rules = len(found.rules)
        self._known[bucket.id] = (bucket.lifecycle, found)
        return found
