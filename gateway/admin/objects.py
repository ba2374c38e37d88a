"""Objects of all buckets: list, look at their chunks, verify every copy, delete. Their bytes travel over S3 itself."""

import asyncio
import hashlib
from collections.abc import AsyncIterator

from consensus.core import commands
from consensus.core.errors import ClusterError, Corrupt
from consensus.core.events import Origin
from consensus.core.ids import VersionId
from consensus.core.model import Bucket, LocatedSlice, NodeInfo, ObjectVersion
from consensus.core.results import Deleted as VersionDeleted
from consensus.core.results import Locked, NoBucket
from gateway.admin.context import AdminContext, Progress
from gateway.admin.errors import AdminError, no_bucket
from gateway.admin.values import (
    PAGE,
    BadCopy,
    ChunkInfo,
    Deleted,
    ListObjects,
    ObjectEntry,
    ObjectList,
    ObjectStat,
    OneObject,
    PartInfo,
    StatObject,
    Verified,
)
from gateway.ops.objects.versions import new_version_id, parse_version_id
from gateway.s3 import names
from gateway.s3.errors import S3Error
from gateway.s3.times import iso8601

SLICES_PER_PAGE = 256
PIECE_BYTES = 1 << 20
"""What a node gives at once."""

BAD_COPIES_MAX = 1000
"""Listed in one answer; further ones only count."""


async def list_objects(ctx: AdminContext, asked: ListObjects) -> ObjectList:
    """List the current objects of a bucket."""
    bucket = await ctx.bucket(asked.bucket)
    page = await ctx.metadata.list_objects(bucket.id, asked.prefix, asked.delimiter, asked.after, asked.limit)
    return ObjectList(
        objects=[ObjectEntry(key=found.key, size=found.size, etag=found.etag, modified=iso8601(found.modified_ms),
                             storage_class=found.storage_class) for found in page.objects],
        prefixes=list(page.common_prefixes), next=page.next_after or "")


async def stat_object(ctx: AdminContext, asked: StatObject) -> ObjectStat:
    """Show one version of an object: its properties, its parts, its chunks and the nodes that hold them."""
    _, version = await _version(ctx, asked.bucket, asked.key, asked.version_id)
    parts, slices = [], []
    if version.content:
        parts = await ctx.metadata.object_parts(version.content, asked.after_part, PAGE)
        if asked.from_byte < version.size:
            slices = await ctx.metadata.slices(version.content, asked.from_byte, version.size - asked.from_byte, SLICES_PER_PAGE)
    chunks, place = [], asked.from_byte
    for part in slices:
        chunks.append(ChunkInfo(
            digest=part.digest.hex(), generation=_generation(part), start=place, length=part.length, chunk_start=part.start,
            chunk_size=part.chunk_size, nodes=sorted(part.nodes)))
        place += part.length
    given = version.attributes
    return ObjectStat(
        bucket=asked.bucket, key=version.key, version_id=version.version_id, latest=version.latest,
        delete_marker=version.delete_marker, size=version.size, etag=version.etag, modified=iso8601(version.modified_ms),
        owner=version.owner, content_type=given.content_type, storage_class=given.storage_class,
        checksum=f"{version.checksum.algorithm} {version.checksum.value}" if version.checksum else "",
        headers=dict(given.headers), metadata=dict(given.metadata), part_count=version.part_count,
        parts=[PartInfo(number=part.number, start=part.start, size=part.size, etag=part.etag) for part in parts],
        more_parts=len(parts) == PAGE and parts[-1].number < version.part_count, chunks=chunks,
        more_chunks=place < version.size)


async def verify_object(ctx: AdminContext, asked: OneObject, progress: Progress) -> Verified:
    """Read every copy of every chunk of an object and compare it with its digest. Damaged copies are told to their node."""
    _, version = await _version(ctx, asked.bucket, asked.key, asked.version_id)
    nodes = {node.node: node for node in await ctx.nodes()}
    seen: set[bytes] = set()
    bad: list[BadCopy] = []
    copies = read = unreadable = done = 0
    async for start, part in _slices(ctx, version):
        done += part.length
        progress({"bytes": done, "of": version.size})
        if part.digest in seen:
            continue                             # deduplicated within the object: one row, looked at once
        seen.add(part.digest)
        good = 0
        for name in part.nodes:
            copies += 1
            read += part.chunk_size
            reason = await _reason(ctx, nodes.get(name), part)
            if reason:
                bad.append(BadCopy(digest=part.digest.hex(), node=name, start=start, length=part.length, reason=reason))
            good += not reason
        unreadable += 0 if good else part.length
    return Verified(bucket=asked.bucket, key=asked.key, clean=not bad and not unreadable, chunks=len(seen), copies=copies,
                    bytes=read, bad=bad[:BAD_COPIES_MAX], unreadable=unreadable)


async def _slices(ctx: AdminContext, version: ObjectVersion) -> AsyncIterator[tuple[int, LocatedSlice]]:
    """Each with its place in the object. S3Error NoSuchKey if the object is deleted meanwhile."""
    place = 0
    while place < version.size:
        page = await ctx.metadata.slices(version.content, place, version.size - place, SLICES_PER_PAGE)
        if not page:
            raise S3Error("NoSuchKey", f"{version.key!r} was deleted or overwritten while it was verified.", Key=version.key)
        for part in page:
            yield place, part
            place += part.length


async def _reason(ctx: AdminContext, node: NodeInfo | None, part: LocatedSlice) -> str:
    """Why this copy is not good; empty if it is."""
    if node is None:
        return "its node is not known"
    client, hashed = ctx.client(node), hashlib.sha256()
    try:
        for start in range(0, part.chunk_size, PIECE_BYTES):
            piece = await client.get(part.digest, part.generation, start, min(PIECE_BYTES, part.chunk_size - start))
            await asyncio.to_thread(hashed.update, piece)
        if hashed.digest() == part.digest:
            return ""
        await client.report(part.digest, part.generation)
        return "its bytes are not those of its digest"
    except Corrupt as error:
        await client.report(part.digest, part.generation)
        return f"damaged: {error}"
    except ClusterError as error:
        return f"not readable now: {error}"


async def delete_object(ctx: AdminContext, asked: OneObject) -> Deleted:
    """Delete the current object, or one version of it, by the rules of S3."""
    bucket = await ctx.bucket(asked.bucket)
    names.check_key(asked.key)
    outcome = await ctx.commit(commands.DeleteVersion(
        bucket=bucket.id, key=asked.key, version_id=_version_id(asked.version_id), marker_id=new_version_id(),
        owner=ctx.principal.user_id,
        origin=Origin(principal=f"AWS:{ctx.principal.user_id}", request_id=ctx.request_id) if bucket.events else None))
    if isinstance(outcome, NoBucket):
        raise no_bucket(asked.bucket)
    if isinstance(outcome, Locked):
        raise AdminError("ObjectLocked", f"A retention or a legal hold protects this version of {asked.key!r}.")
    assert isinstance(outcome, VersionDeleted), outcome
    return Deleted(existed=outcome.existed, delete_marker=outcome.delete_marker, version_id=outcome.version_id or "")


async def _version(ctx: AdminContext, bucket_name: str, key: str, version_id: str) -> tuple[Bucket, ObjectVersion]:
    """Raises S3Error NoSuchBucket, NoSuchKey, NoSuchVersion."""
    bucket = await ctx.bucket(bucket_name)
    wanted = _version_id(version_id)
    if wanted is None:
        version = await ctx.metadata.current(bucket.id, key)
        if version is None:
            raise S3Error("NoSuchKey", f"There is no object {key!r} in bucket {bucket_name!r}.", Key=key)
        return bucket, version
    version = await ctx.metadata.version(bucket.id, key, wanted)
    if version is None:
        raise S3Error("NoSuchVersion", f"{key!r} in bucket {bucket_name!r} has no version {version_id}.", Key=key)
    return bucket, version


def _version_id(text: str) -> VersionId | None:
    return parse_version_id(text) if text else None


def _generation(part: LocatedSlice) -> str:
    return f"{part.generation.session}-{part.generation.sequence}"
