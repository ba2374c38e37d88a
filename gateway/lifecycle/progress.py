"""How far the carrying out of a bucket's lifecycle is: a setting of the bucket, so that any machine can tell and go on.

A *scan* is one look at all that the rules may be about. It is written down once a minute, and when it ends; what a machine
that is lost had looked at since is looked at again, which finds nothing more to do.
"""

import msgspec

from consensus.client import MetadataClient
from consensus.core.codec import UNDECODABLE
from consensus.core.commands import SetBucketSetting
from consensus.core.errors import NoSpace
from consensus.core.ids import BucketId

SETTING = "lifecycle-scan"

SAVE_S = 60.0
"""An entry of the log a minute for a bucket that is scanned for hours, and one for each scan."""


class Counts(msgspec.Struct, kw_only=True, array_like=True):
    """Of one scan; and, added up, of a process since it started."""

    looked: int = 0                 # versions, delete markers and uploads
    expired: int = 0                # current versions that went or got a marker
    removed: int = 0                # noncurrent versions
    markers: int = 0                # delete markers of nothing
    moved: int = 0
    aborted: int = 0
    left: int = 0                   # steps without effect: another version by now, protected, other rules

    @property
    def effects(self) -> int:
        return self.expired + self.removed + self.markers + self.moved + self.aborted

    def told(self) -> str:
        return ", ".join(f"{name} {getattr(self, name)}" for name in self.__struct_fields__)

    def add(self, other: "Counts") -> None:
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Progress(msgspec.Struct, kw_only=True, array_like=True):
    """`lifecycle`: which rules it carries out; with others a scan begins anew. `part` and `at`: where it goes on, at the
    newest version of a key. `ended_ms` 0: it is under way. `trouble`: what the last try ended with, "" if with nothing."""

    lifecycle: int
    began_ms: int
    ended_ms: int = 0
    part: int = 0
    at: bytes = b""
    counts: Counts = msgspec.field(default_factory=Counts)
    trouble: str = ""


_decoder = msgspec.msgpack.Decoder(Progress)


async def load(metadata: MetadataClient, bucket: BucketId) -> Progress | None:
    """None where there is none, or one that another version of Staddle wrote. Raises ClusterError."""
    document = await metadata.bucket_setting(bucket, SETTING)
    if document is None:
        return None
    try:
        return _decoder.decode(document)
    except UNDECODABLE:
        return None


async def save(metadata: MetadataClient, bucket: BucketId, progress: Progress) -> bool:
    """False where the metadata's disk has no room for it: the scan may be what makes room, and goes on without. Raises
    ClusterError."""
    try:
        await metadata.commit(SetBucketSetting(bucket=bucket, name=SETTING, document=msgspec.msgpack.encode(progress)))
    except NoSpace:
        return False
    return True
