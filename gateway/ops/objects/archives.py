"""Objects that are to be restored before they are read, where the settings name archives (`archive_classes`). By default there
are none: the bytes are there, and whoever runs a store of his own expects to read them."""

from consensus.core.model import ObjectVersion
from gateway.ops.context import Context
from gateway.s3.errors import S3Error


def must_be_readable(ctx: Context, version: ObjectVersion, now_ms: int) -> None:
    """Raises S3Error InvalidObjectState for what is to be restored first."""
    if _archived(ctx, version, now_ms):
        raise S3Error("InvalidObjectState", StorageClass=version.attributes.storage_class)


def must_be_copyable(ctx: Context, version: ObjectVersion, now_ms: int) -> None:
    """The same of the source of a copy. Raises S3Error ObjectNotInActiveTierError."""
    if _archived(ctx, version, now_ms):
        raise S3Error("ObjectNotInActiveTierError")


def restored(version: ObjectVersion, now_ms: int) -> bool:
    return version.attributes.restored_ms > now_ms


def _archived(ctx: Context, version: ObjectVersion, now_ms: int) -> bool:
    return version.attributes.storage_class in ctx.settings.archive_classes and not restored(version, now_ms)
