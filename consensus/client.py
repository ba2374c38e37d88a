"""How gateways and storage nodes reach the metadata: commits through the member's socket, reads from its SQLite file.

A read is one synchronous transaction on the local file, allowed only while the link holds the member's word that it
serves. Where no member is on this host, or it does not serve just now, the same function runs at another one. In a cluster
each read is at a read index (consensus.moments); a machine that is alone needs none. For commits see `consensus.commits`.
"""

import asyncio
import contextlib
import inspect
import logging
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, get_type_hints

import msgspec

from consensus import accounts, garbage, holdings, protocol, queries
from consensus.backup import PAGE_BYTES_MAX, Descriptor
from consensus.commits import RETRY_S, Commits
from consensus.config import BUSY_WAIT_S, COMMIT_DEADLINE_S, SERVING_WAIT_S
from consensus.core.clock import Clock, SystemClock
from consensus.core.commands import AnyCommand, DropBackup, KeepBackup, OpenBackup, RegisterNode
from consensus.core.errors import ClusterError, Corrupt, Refused, Unavailable
from consensus.core.ids import (
    BucketId,
    ContentId,
    Digest,
    Generation,
    NodeId,
    UploadId,
    VersionId,
)
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
from consensus.core.results import AnyResult, BackupExists, Done, Malformed, NotDurable, SessionOpened
from consensus.core.wire import LinkLost
from consensus.link import RECONNECT_S_MIN, MemberLink
from consensus.moments import Moments
from consensus.reads import Reader, failure, passes

if TYPE_CHECKING:                                 # a machine that is alone loads nothing of it
    from consensus.core.tls import Tls

log = logging.getLogger("staddle.meta.client")

Asked = ParamSpec("Asked")
Value = TypeVar("Value")


BACKUP_LOOK_S = 0.1
"""How often the member is asked how far a copy is."""

BACKUP_TRIES = 20
"""How often it may be Unavailable in a row: an election takes less. What a disk refuses it refuses each time."""


class KeptBackup(msgspec.Struct, frozen=True, kw_only=True):
    """`index` is None while it is made; `file` is None if its copy is not (any more) in the member's folder."""

    name: str
    created_ms: int
    index: int | None
    file: Descriptor | None


REMOTE_S = 5.0
"""A member that has not answered a question for so long is asked again, or another one is: questions take milliseconds."""

TELL_S = 10.0
"""At most one report of damage in this time: the member mends all of it at once, whatever is reported."""


class MetadataClient:
    """One per process. All methods belong to the loop in which `start` ran."""

    def __init__(self, address: str | None, secret: bytes, meta_dir: str | None = None, *, owner: str = "",
                 clock: Clock | None = None, deadline_s: float = COMMIT_DEADLINE_S,
                 serving_wait_s: float = SERVING_WAIT_S, tls: "Tls | None" = None, others: Sequence[str] = ()) -> None:
        """`address` is the socket of the member on this host and `meta_dir` its folder; None without one, or `meta_dir` alone
        None to read over the wire. `others`: where members may be found on other machines (HOST:PORT), with `tls`; as soon
        as one has answered, those that it knows."""
        self._link = MemberLink(address, secret, on_up=self._up, tls=tls, others=others)
        self._moments = Moments(self._link)
        self._commits = Commits(self._link, clock or SystemClock(), owner, deadline_s)
        self._reader = None if meta_dir is None else Reader(meta_dir, queries.header, queries.ALONE)
        self._deadline_s, self._serving_wait_s = deadline_s, serving_wait_s
        self._stopped = False
        self.not_durable = 0
        """Commits that were refused because their chunks were on too few nodes."""
        self._may_tell_at = 0.0
        self._telling: set[asyncio.Task[bytes]] = set()

    def _up(self) -> None:
        """A member serves: the same as before, another one, or the same in another life."""
        if self._reader is not None:
            self._reader.close()                         # a file of the same name may be another one now
        self._moments.moved()
        self._commits.flush()

    async def start(self) -> None:
        """Raises Unavailable if the member does not serve within the deadline of a commit, Refused if it isn't ours."""
        self._loop = asyncio.get_running_loop()
        self._commits.start()
        self._link.start()
        await self._link.wait(self._deadline_s)

    async def stop(self) -> None:
        """End our sessions as far as nothing of them is open, and let go. Open commits are given up as unknown."""
        if self._stopped:
            return
        self._stopped = True
        await self._commits.stop()
        await self._link.stop()
        if self._reader is not None:
            self._reader.close()

    @property
    def serving(self) -> bool:
        """Whether reads and commits can go through now."""
        return self._link.serving is not None

    @property
    def commit_figures(self) -> tuple[int, float, int]:
        """Commands that got their results, seconds that this took them, and commands that still wait. For metrics."""
        return self._commits.answered, self._commits.answer_seconds, self._commits.waiting

    @property
    def file(self) -> str | None:
        """The member's SQLite file, for long reads beside it; None if it is on another host, or does not serve now."""
        if self._reader is None or self._link.serving is None or not self._link.at_home:
            return None
        return self._reader.path_of(self._link.serving.generation)

    async def status(self) -> protocol.Status:
        """Of the member. Raises Unavailable."""
        await self._link.wait(self._serving_wait_s)
        return protocol.status.decode(await self._link.ask(protocol.STATUS, b""))

    async def housekeep(self, *, grace_s: float | None = None,
                        progress: Callable[[int], None] = lambda released: None) -> int:
        """Have the member release all that nothing refers to, now: how many units. Storage nodes learn of it by hints.

        `grace_s`: what readers of deleted objects still get, None for as much as is set; `progress` is told the units so
        far. Cancelling it leaves the rest to the member's own housekeeping. Raises Unavailable.
        """
        released, more = 0, True
        payload = protocol.encode(protocol.Housekeep(grace_s=grace_s))
        while more:
            await self._link.wait(self._serving_wait_s)
            units, more = protocol.kept_house.decode(await self._link.ask(protocol.HOUSEKEEP, payload))
            released += units
            progress(released)
        return released

    async def remove_member(self, name: str) -> None:
        """Take a metadata member out of the cluster. Raises Refused (no such member, the last one), Unavailable."""
        await self._link.wait(self._serving_wait_s)
        await self._link.ask(protocol.LEAVE, protocol.encode(name))

    async def recount(self) -> list[str]:
        """Have the member count and check all its rows: what doesn't fit, in sentences. Raises Unavailable, Corrupt."""
        await self._link.wait(self._serving_wait_s)
        return protocol.sentences.decode(await self._link.ask(protocol.RECOUNT, b""))

    # Backups: see consensus.backup

    async def take_backup(self, name: str, progress: Callable[[int, int], None] = lambda written, total: None
                          ) -> Descriptor:
        """Make a copy of the metadata while it is in use, and keep it until `drop_backup`: what it refers to stays.

        `progress` is told the bytes written and about how many there will be. Raises Refused (a name that is taken or no
        name), NoSpace, Unavailable: then there is no such backup. After UnknownOutcome there may be one.
        """
        opening, keeping = await self._commits.reserve_two()
        ours = False                                     # what is there under this name, and not kept
        try:
            result = await self.commit(OpenBackup(name=name), opening)
            if not isinstance(result, Done):
                raise _backup_refused(name, result)
            ours = True
            made = await self._copy_backup(name, progress)
            result = await self.commit(KeepBackup(name=name, index=made.index), keeping)
            ours = False
            if not isinstance(result, Done):
                raise Unavailable(f"backup {name} was given up while it was made: {result}")
            return made
        finally:
            self.release(opening)
            if ours:
                # In the session that opened it, so that nobody else's backup of that name goes.
                with contextlib.suppress(ClusterError):  # else it goes with the session
                    await self.commit(DropBackup(name=name, own=True), keeping)
                    await self._link.ask(protocol.BACKUP_TAKE, protocol.encode(""))
            self.release(keeping)

    async def _copy_backup(self, name: str, progress: Callable[[int, int], None]) -> Descriptor:
        payload = protocol.encode(name)
        failed = 0
        while True:
            await self._link.wait(self._deadline_s)
            try:
                taking = protocol.taking.decode(await self._link.ask(protocol.BACKUP_TAKE, payload))
            except Unavailable as error:                 # the member has started again, or another leads: it begins anew
                failed += not isinstance(error, LinkLost)
                if failed > BACKUP_TRIES:
                    raise
                await asyncio.sleep(BACKUP_LOOK_S)
                continue
            failed = 0
            progress(taking.written, taking.total)
            if taking.made is not None:
                return taking.made
            await asyncio.sleep(BACKUP_LOOK_S)

    async def list_backups(self) -> list[KeptBackup]:
        """All that are kept or being made, oldest first. Raises Unavailable."""
        known = await self.read(queries.backups)
        files = {(made.name, made.index): made for made in protocol.descriptors.decode(
            await self._link.ask(protocol.BACKUP_READ, protocol.encode(("", 0, 0))))}
        return [KeptBackup(name=backup.name, created_ms=backup.created_ms, index=backup.index,
                           file=None if backup.index is None else files.get((backup.name, backup.index)))
                for backup in known]

    async def read_backup(self, name: str, offset: int, length: int = PAGE_BYTES_MAX) -> bytes:
        """A page of a kept backup as one file (consensus.backup: exported form), at most 1 MiB; empty behind its end. Raises
        Refused (no such backup), Unavailable, Corrupt."""
        await self._link.wait(self._serving_wait_s)
        return await self._link.ask(protocol.BACKUP_READ, protocol.encode((name, offset, length)))

    async def drop_backup(self, name: str) -> bool:
        """It goes, and with it all that only it kept. False if there is none. Raises Unavailable, UnknownOutcome."""
        result = await self.commit(DropBackup(name=name))
        with contextlib.suppress(ClusterError):          # the files: else they go when the next copy is made
            await self._link.ask(protocol.BACKUP_TAKE, protocol.encode(""))
        return isinstance(result, Done)

    # Commits: see consensus.commits

    async def reserve(self, beside: ContentId | None = None) -> Generation:
        """A ticket for a later commit, and the generation of the chunks that it will bring.

        `beside` is a content under construction (Staged) that the command will continue or take over: only its own
        session may. Holds its session's mark until `commit` or `release`. Raises Unavailable.
        """
        return await self._commits.reserve(beside)

    def release(self, ticket: Generation) -> None:
        """The ticket will not be committed (any more): the mark may pass it. Repeats do no harm."""
        self._commits.release(ticket)

    def abandon(self, content: ContentId) -> None:
        """A content under construction will not be continued. It is released with its session, which now ends soon."""
        self._commits.abandon(content)

    async def commit(self, command: AnyCommand, ticket: Generation | None = None) -> AnyResult:
        """Carry out a command: its result, once it is durable. Consumes the ticket, whatever happens.

        Raises Unavailable or NoSpace (not done, and will not be) or UnknownOutcome. Of RegisterNode see `register`.
        """
        try:
            result = await self._commits.commit(command, ticket)
        finally:
            self._moments.passed()
        if type(result) is NotDurable:
            self.not_durable += 1
        return result

    async def register(self, command: RegisterNode) -> SessionOpened:
        """Begin this storage node's session. All its earlier ones end in the same step. Raises Unavailable, Refused."""
        return await self._commits.register(command)

    # Reads

    def one_moment(self) -> AbstractContextManager[None]:
        """`with` this, all reads of one request share one read index: they are at least as new as its first one, and as its
        own commits. Costs nothing while the member is alone."""
        return self._moments.one()

    async def read(self, query: Callable[Concatenate[sqlite3.Connection, Asked], Value], *arguments: Asked.args,
                   **named: Asked.kwargs) -> Value:
        """Any function of queries.py, at one moment that is not before this call. Raises Unavailable, Corrupt.

        Does not suspend while the member on this host serves and is alone.
        """
        serving, reader = self._link.serving, self._reader
        if serving is not None and serving.alone and reader is not None:
            try:
                return reader.run(serving.generation, query, *arguments, **named)
            except Corrupt:
                self._tell_damage(query, arguments, named)
                raise
            except sqlite3.Error as error:
                if not passes(error):
                    failed = failure(error)
                    if isinstance(failed, Corrupt):
                        self._tell_damage(query, arguments, named)
                    raise failed from error
        return await self._read_later(query, arguments, named)

    def read_now(self, query: Callable[Concatenate[sqlite3.Connection, Asked], Value], *arguments: Asked.args,
                 **named: Asked.kwargs) -> Value | None:
        """The same where nobody can wait. None if the metadata cannot be read at once, as in a cluster, where a read index
        has to be asked for. Raises Corrupt, Unavailable."""
        serving = self._link.serving
        if serving is None or not serving.alone:
            return None
        return self.glance(query, *arguments, **named)

    def glance(self, query: Callable[Concatenate[sqlite3.Connection, Asked], Value], *arguments: Asked.args,
               **named: Asked.kwargs) -> Value | None:
        """What the file on this host shows. In a cluster that may be behind what was answered elsewhere, by milliseconds as
        a rule and without limit while this member is cut off: only for what is looked up again anyway, and never for
        buckets and objects (promise 4). None if there is no file to look at. Raises Corrupt, Unavailable."""
        serving, reader = self._link.serving, self._reader
        if serving is None or reader is None or not self._link.at_home:
            return None
        try:
            return reader.run(serving.generation, query, *arguments, **named)
        except sqlite3.Error as error:
            if passes(error):
                return None
            raise failure(error) from error

    def _tell_damage(self, query: Callable[..., object], arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        """A read on the local file has met damage. The member looks for itself: what it finds too, it mends."""
        now = self._loop.time()
        if now < self._may_tell_at:
            return
        self._may_tell_at = now + TELL_S
        given = inspect.signature(query).bind(None, *arguments, **named).args[1:]
        task = self._loop.create_task(self._link.ask(protocol.DAMAGE, protocol.encode([query.__name__, *given])))
        self._telling.add(task)
        task.add_done_callback(self._told)

    def _told(self, task: "asyncio.Task[bytes]") -> None:
        self._telling.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.info("the metadata member did not look at damage that a read has met: %s", error)

    async def _read_later(self, query: Callable[..., Value], arguments: tuple[Any, ...], named: dict[str, Any]) -> Value:
        """A read that has to wait: for a member that serves, for a read index, or for an answer from another machine. What
        fails for a moment is tried again: reading twice does no harm."""
        reader, until = self._reader, self._loop.time() + self._serving_wait_s
        busy_until = self._loop.time() + BUSY_WAIT_S
        while True:
            serving = await self._link.wait(self._serving_wait_s)
            try:
                if reader is None or not self._link.at_home:
                    return await self._read_remote(query, arguments, named)
                if serving.alone:
                    return reader.run(serving.generation, query, *arguments, **named)
                index = await self._moments.index()
                if self._link.serving is None or not self._link.at_home:
                    continue                             # it has gone meanwhile, and perhaps its file with it
                return reader.run_at(index, self._link.serving.generation, query, *arguments, **named)
            except Corrupt:
                self._tell_damage(query, arguments, named)
                raise
            except Unavailable:
                if self._loop.time() > until:
                    raise
            except sqlite3.Error as error:
                if not passes(error) or self._loop.time() > busy_until:
                    failed = failure(error)
                    if isinstance(failed, Corrupt):
                        self._tell_damage(query, arguments, named)
                    raise failed from error
                assert reader is not None
                reader.close()
                await asyncio.sleep(RECONNECT_S_MIN)
                continue
            await asyncio.sleep(RETRY_S)

    async def _read_remote(self, query: Callable[..., Value], arguments: tuple[Any, ...],
                           named: dict[str, Any]) -> Value:
        """Run by the member at the other end of the link, at an index that it asks for itself."""
        if named:                                        # arguments travel by position
            arguments = inspect.signature(query).bind(None, *arguments, **named).args[1:]
        try:
            async with asyncio.timeout(REMOTE_S):
                answer = await self._link.ask(protocol.QUERY, protocol.encode([query.__name__, *arguments]))
        except TimeoutError:
            raise Unavailable(f"no answer to {query.__name__} in {REMOTE_S:g} s") from None
        value: Value = msgspec.msgpack.decode(answer, type=get_type_hints(query)["return"])
        return value

    async def bucket(self, name: str) -> Bucket | None:
        return await self.read(queries.bucket, name)

    async def bucket_setting(self, bucket_id: BucketId, name: str) -> bytes | None:
        return await self.read(queries.bucket_setting, bucket_id, name)

    async def bucket_settings(self, bucket_id: BucketId, beginning: str) -> tuple[int, list[tuple[str, bytes]]]:
        return await self.read(queries.bucket_settings, bucket_id, beginning)

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


def _backup_refused(name: str, result: AnyResult) -> ClusterError:
    if isinstance(result, BackupExists):
        return Refused(f"there is a backup {name} already: drop it first, or choose another name")
    return Refused(result.reason if isinstance(result, Malformed) else f"backup {name} was refused: {result}")
