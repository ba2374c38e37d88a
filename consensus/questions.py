"""The questions of consensus.queries as methods, for whoever holds a client: what they mean is said there."""

import asyncio
import math
from time import perf_counter

from consensus import accounts, garbage, holdings, queries
from consensus.core.ids import BucketId, ContentId, Digest, Generation, NodeId, UploadId, VersionId
from consensus.core.model import (
    AccessKey,
    Bucket,
    LocatedSlice,
    NodeInfo,
    ObjectVersion,
    Page,
    Part,
    Upload,
    UploadPage,
    User,
)
from consensus.reading import Reading

BUCKETS_SEEN_MAX = 64
"""Names whose last look is kept for others: those of the requests of a moment."""


class Questions(Reading):
    """Each raises Unavailable, Corrupt."""

    async def bucket(self, name: str, since: float = math.inf) -> Bucket | None:
        """Its counters may be old.

        `since`: when the request came that wants to know (time.perf_counter()). What another has read after that moment
        shows all that was answered before it, so it will do (promise 4). Many requests come at once, and their one look
        costs what each one's would. Not in a cluster, where a read may be at an index that was asked for before it.
        """
        seen = self._seen.get(name)
        if seen is not None and seen[0] >= since:
            return seen[1]
        serving, now = self._link.serving, perf_counter()
        found = await self.read(queries.bucket, name)
        if serving is not None and serving.alone and serving is self._link.serving:
            if len(self._seen) >= BUCKETS_SEEN_MAX:
                self._seen.clear()
            self._seen[name] = now, found
        return found

    async def bucket_counted(self, name: str) -> Bucket | None:
        return await self.read(queries.bucket_counted, name)

    async def bucket_setting(self, bucket_id: BucketId, name: str) -> bytes | None:
        return await self.read(queries.bucket_setting, bucket_id, name)

    async def bucket_settings(self, bucket_id: BucketId, beginning: str) -> tuple[int, list[tuple[str, bytes]]]:
        return await self.read(queries.bucket_settings, bucket_id, beginning)

    async def settings_page(
        self, bucket_id: BucketId, beginning: str, after: str, limit: int,
    ) -> list[tuple[str, bytes]]:
        return await self.read(queries.settings_page, bucket_id, beginning, after, limit)

    async def settings_named(self, name: str, after: BucketId, limit: int) -> list[tuple[Bucket, bytes]]:
        return await self.read(queries.settings_named, name, after, limit)

    async def buckets(self, account: str | None, prefix: str = "", after: str = "", limit: int = 1000) -> list[Bucket]:
        return await self.read(queries.buckets, account, prefix, after, limit)

    async def current(self, bucket_id: BucketId, key: str) -> ObjectVersion | None:
        return await self.read(queries.current, bucket_id, key)

    async def version(self, bucket_id: BucketId, key: str, version_id: VersionId) -> ObjectVersion | None:
        return await self.read(queries.version, bucket_id, key, version_id)

    async def opened(
        self, bucket_name: str, key: str, limit_slices: int = 4
    ) -> tuple[Bucket | None, ObjectVersion | None, list[LocatedSlice]]:
        serving = self._link.serving
        if self._reader is not None and serving is not None and serving.alone:
            found = await self.read(queries.opened_at_once, bucket_name, key)
            if found is not None:
                return found
        return await self.read(queries.opened, bucket_name, key, limit_slices)

    async def slices(
        self, content_id: ContentId, start: int, length: int, limit: int = queries.SLICES_PER_CALL_MAX
    ) -> list[LocatedSlice]:
        return await self.read(queries.slices, content_id, start, length, limit)

    async def list_objects(
        self, bucket_id: BucketId, prefix: str, delimiter: str, after: str, limit: int
    ) -> Page:
        return await self.read(queries.list_objects, bucket_id, prefix, delimiter, after, limit)

    async def list_versions(
        self, bucket_id: BucketId, prefix: str, delimiter: str, key_marker: str, version_marker: VersionId | None,
        limit: int,
    ) -> Page:
        return await self.read(queries.list_versions, bucket_id, prefix, delimiter, key_marker, version_marker, limit)

    async def uploads(
        self, bucket_id: BucketId, prefix: str, delimiter: str, key_marker: str, upload_marker: UploadId | None,
        limit: int,
    ) -> UploadPage:
        return await self.read(queries.uploads, bucket_id, prefix, delimiter, key_marker, upload_marker, limit)

    async def upload(self, bucket_id: BucketId, key: str, upload_id: UploadId) -> Upload | None:
        return await self.read(queries.upload, bucket_id, key, upload_id)

    async def parts(
        self, bucket_id: BucketId, key: str, upload_id: UploadId, after: int = 0, limit: int = 1000
    ) -> list[Part]:
        return await self.read(queries.parts, bucket_id, key, upload_id, after, limit)

    async def shape(self, content_id: ContentId) -> queries.Shape:
        return await self.read(queries.shape, content_id)

    async def renamed(self, bucket_id: BucketId, token: str) -> queries.RenamedBefore | None:
        return await self.read(queries.renamed, bucket_id, token)

    async def account_holding(self, account: str) -> accounts.Holding:
        return await self.read(accounts.account_holding, account)

    async def holding_accounts(self, after: str = "", limit: int = accounts.PAGE_MAX) -> list[accounts.Holding]:
        return await self.read(accounts.holding_accounts, after, limit)

    async def limited_accounts(self, after: str = "", limit: int = accounts.PAGE_MAX) -> list[accounts.Holding]:
        return await self.read(accounts.limited_accounts, after, limit)

    async def limited_buckets(self, after: str = "", limit: int = accounts.PAGE_MAX) -> list[accounts.Holding]:
        return await self.read(accounts.limited_buckets, after, limit)

    async def quota_room(self, bucket_id: BucketId) -> list[tuple[str, int]]:
        return await self.read(queries.quota_room, bucket_id)

    async def object_parts(self, content_id: ContentId, after: int = 0, limit: int = 1000) -> list[Part]:
        return await self.read(queries.object_parts, content_id, after, limit)

    async def part_of(self, content_id: ContentId, number: int) -> Part | None:
        return await self.read(queries.part_of, content_id, number)

    async def nodes(self) -> list[NodeInfo]:
        return await self.read(queries.nodes)

    async def chunk_states(
        self, node: NodeId, copies: list[tuple[Digest, Generation]] | tuple[tuple[Digest, Generation], ...]
    ) -> list[holdings.ChunkState]:
        return await self.read(queries.chunk_states, node, copies)

    async def released(self, node: NodeId, after: int = 0, limit: int = 300) -> holdings.Released:
        return await self.read(queries.released, node, after, limit)

    async def live_chunks(
        self, node: NodeId, digests: list[Digest] | tuple[Digest, ...]
    ) -> list[holdings.LiveChunk | None]:
        return await self.read(queries.live_chunks, node, digests)

    async def located(self, digest: Digest) -> tuple[Generation, tuple[NodeId, ...]] | None:
        return await self.read(queries.located, digest)

    async def listed_on(self, node: NodeId, after: bytes = b"", limit: int = 1000) -> holdings.ListedCopies:
        return await self.read(queries.listed_on, node, after, limit)

    async def lineage(self) -> tuple[int, str]:
        return await self.read(queries.lineage)

    async def under_replicated(self, limit: int = 1000, after: tuple[int, bytes] = (0, b"")) -> list[holdings.ShortChunk]:
        return await self.read(queries.under_replicated, limit, after)

    async def over_replicated(
        self, limit: int = 1000, after: tuple[int, bytes] = (-1 << 31, b"")
    ) -> list[holdings.ShortChunk]:
        return await self.read(queries.over_replicated, limit, after)

    async def chunk_places(self, after: bytes = b"", limit: int = 1000) -> list[holdings.ChunkPlace]:
        return await self.read(queries.chunk_places, after, limit)

    async def unequal(self) -> holdings.Unequal:
        return await self.read(queries.unequal)

    async def usage(self) -> queries.Usage:
        return await self.read(queries.usage)

    # Users and their keys

    async def identities_version(self) -> int:
        return await self.read(accounts.identities_version)

    async def identities_at(self) -> tuple[int, dict[str, User], list[AccessKey]]:
        """All users, by name, and all keys, with every change up to the version given; other work goes on between the
        pages, so later changes may be in it by half, and then the version has moved on."""
        version = await self.identities_version()
        users: dict[str, User] = {}
        keys: list[AccessKey] = []
        while page := await self.users(next(reversed(users), "")):
            users.update((user.name, user) for user in page)
            await asyncio.sleep(0)
        while some := await self.access_keys(keys[-1].access_key if keys else ""):
            keys += some
            await asyncio.sleep(0)
        return version, users, keys

    async def identities(self) -> tuple[tuple[User, ...], tuple[AccessKey, ...]]:
        """All users in order of name, all keys in order of the key."""
        _, users, keys = await self.identities_at()
        return tuple(users.values()), tuple(keys)

    async def users(self, after: str = "", limit: int = accounts.PAGE_MAX) -> list[User]:
        return await self.read(accounts.users, after, limit)

    async def user(self, name: str) -> User | None:
        return await self.read(accounts.user, name)

    async def access_keys(self, after: str = "", limit: int = accounts.PAGE_MAX) -> list[AccessKey]:
        return await self.read(accounts.access_keys, after, limit)

    async def access_key(self, name: str) -> AccessKey | None:
        return await self.read(accounts.access_key, name)

    async def keys_of(self, user: str) -> list[AccessKey]:
        return await self.read(accounts.keys_of, user)

    async def user_policies(self) -> dict[str, dict[str, bytes]]:
        """Of all users who have any: by user, by name."""
        found: dict[str, dict[str, bytes]] = {}
        while page := await self.read(accounts.user_policies, next(reversed(found), "")):
            for user, name, document in page:
                found.setdefault(user, {})[name] = document
            await asyncio.sleep(0)
        return found

    async def policies_of(self, user: str) -> list[tuple[str, bytes]]:
        return await self.read(accounts.policies_of, user)

    async def account_usage(self, account: str) -> accounts.AccountUsage:
        return await self.read(accounts.account_usage, account)

    # What waits to be released

    async def gc_report(self) -> garbage.GcReport:
        return await self.read(garbage.gc_report)

    async def staged_contents(
        self, after: int = 0, limit: int = garbage.PAGE_MAX
    ) -> list[garbage.StagedContent]:
        return await self.read(garbage.staged_contents, after, limit)

    async def lingering_contents(
        self, after_ms: int = 0, after: int = 0, limit: int = garbage.PAGE_MAX
    ) -> list[garbage.DeadContent]:
        return await self.read(garbage.lingering_contents, after_ms, after, limit)

    async def held_contents(
        self, after: int = 0, limit: int = garbage.PAGE_MAX
    ) -> list[garbage.DeadContent]:
        return await self.read(garbage.held_contents, after, limit)

    async def open_uploads(self, after: int = 0, limit: int = 100) -> list[garbage.OpenUpload]:
        return await self.read(garbage.open_uploads, after, limit)
