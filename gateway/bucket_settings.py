"""What owners set for their buckets: one document a kind, kept in the metadata and read back as the value it was."""

from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from consensus.core.codec import UNDECODABLE
from consensus.core.errors import Corrupt
from consensus.core.ids import BucketId

if TYPE_CHECKING:
    from consensus.client import MetadataClient

Value = TypeVar("Value")


class Kind(Generic[Value]):
    """Its `name` in the metadata, the type of its value, and the error code of S3 for a bucket that has none."""

    def __init__(self, name: str, type: type[Value], missing: str) -> None:
        self.name, self.missing = name, missing
        self._decoder = msgspec.msgpack.Decoder(type)

    def decode(self, document: bytes) -> Value:
        """Raises Corrupt: what cannot be understood must not be taken for another value, nor for none."""
        try:
            return self._decoder.decode(document)
        except UNDECODABLE as error:
            raise Corrupt(f"the setting {self.name} of a bucket cannot be read: {error}") from error

    async def of(self, metadata: "MetadataClient", bucket: BucketId) -> Value | None:
        """None: it was never set, or taken away. Raises ClusterError."""
        document = await metadata.bucket_setting(bucket, self.name)
        return None if document is None else self.decode(document)
