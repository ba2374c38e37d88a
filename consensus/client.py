"""How gateways and storage nodes reach the metadata: commits through the member's socket, reads from its SQLite file.

Here: the client's life, what it asks of the member itself, and backups. How a commit is carried out exactly once is in
`consensus.commits`, how a question is put in `consensus.reading`, which questions there are in `consensus.questions`.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from consensus import protocol, queries
from consensus.backup import PAGE_BYTES_MAX, Descriptor
from consensus.commits import Commits
from consensus.config import COMMIT_DEADLINE_S, SERVING_WAIT_S
from consensus.core.clock import Clock, SystemClock
from consensus.core.commands import AnyCommand, DropBackup, KeepBackup, OpenBackup, RegisterNode
from consensus.core.errors import ClusterError, Refused, Unavailable
from consensus.core.ids import ContentId, Generation
from consensus.core.results import AnyResult, BackupExists, Done, Malformed, NotDurable, SessionOpened
from consensus.core.wire import LinkLost
from consensus.link import MemberLink
from consensus.questions import Questions
from consensus.reads import Reader

if TYPE_CHECKING:                                 # a machine that is alone loads nothing of it
    from consensus.core.tls import Tls

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


class MetadataClient(Questions):
    """One per process. All methods belong to the loop in which `start` ran."""

    def __init__(self, address: str | None, secret: bytes, meta_dir: str | None = None, *, owner: str = "",
                 clock: Clock | None = None, deadline_s: float = COMMIT_DEADLINE_S,
                 serving_wait_s: float = SERVING_WAIT_S, tls: "Tls | None" = None, others: Sequence[str] = ()) -> None:
        """`address` is the socket of the member on this host and `meta_dir` its folder; None without one, or `meta_dir` alone
        None to read over the wire. `others`: where members may be found on other machines (HOST:PORT), with `tls`; as soon
        as one has answered, those that it knows."""
        super().__init__(MemberLink(address, secret, on_up=self._up, tls=tls, others=others),
                         None if meta_dir is None else Reader(
                             meta_dir, queries.header, queries.ALONE, queries.KnowingBuckets), serving_wait_s)
        self._commits = Commits(self._link, clock or SystemClock(), owner, deadline_s)
        self._deadline_s = deadline_s
        self._stopped = False
        self.not_durable = 0
        """Commits that were refused because their chunks were on too few nodes."""

    def _up(self) -> None:
        """A member serves: the same as before, another one, or the same in another life."""
        if self._reader is not None:
            self._reader.close()                         # a file of the same name may be another one now
        self._moments.moved()
        self._commits.flush()

    async def start(self) -> None:
        """Raises Unavailable if the member does not serve within the deadline of a commit, Refused if it isn't ours."""
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

    def reserve(self, beside: ContentId | None = None) -> Awaitable[Generation]:
        """A ticket for a later commit, and the generation of the chunks that it will bring.

        `beside` is a content under construction (Staged) that the command will continue or take over: only its own
        session may. Holds its session's mark until `commit` or `release`. Raises Unavailable.
        """
        return self._commits.reserve(beside)

    def reserve_beside(self, ticket: Generation) -> Generation:
        """Another ticket of the same session, for what that ticket's command will take over. Raises Unavailable."""
        return self._commits.reserve_beside(ticket)

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
            self._seen.clear()                           # what a request looks up after its own commit shows it
        if type(result) is NotDurable:
            self.not_durable += 1
        return result

    async def register(self, command: RegisterNode) -> SessionOpened:
        """Begin this storage node's session. All its earlier ones end in the same step. Raises Unavailable, Refused."""
        return await self._commits.register(command)


def _backup_refused(name: str, result: AnyResult) -> ClusterError:
    if isinstance(result, BackupExists):
        return Refused(f"there is a backup {name} already: drop it first, or choose another name")
    return Refused(result.reason if isinstance(result, Malformed) else f"backup {name} was refused: {result}")
