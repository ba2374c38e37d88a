"""What the member does for clients beside the log, in threads: recounts, and the copies of backups.

Nothing here changes metadata. One copy is made at a time; whoever asks for it asks again until it is done, so a lost link
costs nothing, and a copy that nobody fetches the answer of is simply there.

In a cluster the leader makes the copy, and it stays with that member: any other fetches pages of it from there. If another
leads before it is made, that one makes its own; the log says by its index which copy is the one that is kept.
"""

import asyncio
import os
import sqlite3
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import closing, suppress
from typing import Any, Protocol
from urllib.parse import quote

import msgspec

from consensus import audit, backup, protocol
from consensus.backup import Descriptor, Taking
from consensus.core import tasks
from consensus.core.clock import Clock
from consensus.core.codec import UNDECODABLE
from consensus.core.errors import Refused, Unavailable
from consensus.disk import Disk
from consensus.reads import failure

SENTENCES_MAX = 1000
"""Of a recount: whoever has more wrong needs no longer list."""


TIDY_S = 600.0
"""How often files of backups that were dropped elsewhere go. Whoever drops one has the leader's go at once."""

AskOthers = Callable[[int, bytes], AsyncIterator[bytes]]
"""Operation and payload → the answers of those members who have one, as they come."""


class Holder(Protocol):
    """What is needed of consensus.machine.Machine."""

    path: str
    db: sqlite3.Connection


class Beside:
    """One per member. `stop` waits for what runs in threads."""

    def __init__(self, folder: str, machine: Holder, *, disk: Disk, clock: Clock, secret: bytes,
                 ask_others: AskOthers | None = None) -> None:
        """`ask_others` asks all other members."""
        self._ask_others = ask_others
        self._folder, self._machine, self._disk, self._clock = folder, machine, disk, clock
        self._cluster = backup.fingerprint(secret)
        self._one = asyncio.Lock()
        self._tidying: asyncio.Task[None] | None = None
        self._copied = 0                # position at which the backup was opened that is being copied
        self._copy: asyncio.Future[Descriptor] | None = None
        self.operations: dict[int, Callable[[bytes], Coroutine[Any, Any, bytes]]] = {
            protocol.RECOUNT: self._recount, protocol.BACKUP_TAKE: self._take, protocol.BACKUP_READ: self._read,
        }
        """Operation → what answers its payload. Raises ClusterError and what decoding raises."""

    def start(self) -> None:
        """Files of backups that were given up while nobody looked go. Raises OSError."""
        backup.tidy(self._folder, self._known(), self._disk)
        self._tidying = asyncio.get_running_loop().create_task(self._keep_tidy(), name="meta backups")

    async def _keep_tidy(self) -> None:
        while True:
            await asyncio.sleep(TIDY_S)
            with suppress(OSError):
                await self._tidy()

    async def _tidy(self) -> None:
        if not self._one.locked():                      # else whoever takes the next one tidies up
            async with self._one:
                await asyncio.to_thread(backup.tidy, self._folder, self._known(), self._disk)

    async def stop(self) -> None:
        await tasks.end(self._tidying)
        if self._copy is not None:
            await asyncio.gather(self._copy, return_exceptions=True)     # its thread cannot be cancelled

    async def _recount(self, payload: bytes) -> bytes:
        path = self._machine.path

        def run() -> list[str]:
            """A file that SQLite finds damaged is made anew (server.py), rows that can't be decoded are told of."""
            try:
                with closing(sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, isolation_level=None)) as db:
                    db.execute("BEGIN")              # all of it at one moment
                    return audit.recount(db, SENTENCES_MAX)
            except sqlite3.Error as error:
                raise failure(error) from error
            except (ValueError, struct.error, *UNDECODABLE) as error:
                return [f"a row of the metadata cannot be decoded: {error!r}"]

        return protocol.encode(await asyncio.to_thread(run))

    # Backups

    async def _take(self, payload: bytes) -> bytes:
        """Begin to make a copy, or tell how far it is. An empty name only makes files of dropped backups go."""
        name = msgspec.msgpack.decode(payload, type=str)
        if not name:
            await self._tidy()
            return b""
        row = self._machine.db.execute("SELECT ord, idx FROM backup WHERE name = ?", (name,)).fetchone()
        if row is None or row[1] is not None:
            raise Refused(f"no backup {name} is open")
        if self._copy is not None and self._copied != row[0] and self._copy.done():
            self._copy = None                         # of one that was given up: nobody will ask
        if self._copy is None:
            self._copied, self._copy = row[0], asyncio.ensure_future(self._make(name))
            self._copy.add_done_callback(tasks.seen)     # if nobody asks
        copy = self._copy
        if self._copied != row[0] or not copy.done():
            return protocol.encode(Taking(written=self._written(name), total=os.stat(self._machine.path).st_size))
        self._copy = None
        try:
            made = copy.result()
        except OSError as error:
            raise Unavailable(f"backup {name} could not be made: {error}") from error
        return protocol.encode(Taking(written=made.size, total=made.size, made=made))

    async def _make(self, name: str) -> Descriptor:
        async with self._one:
            known, path, now = self._known(), self._machine.path, self._clock.now_ms()

            def run() -> Descriptor:
                backup.tidy(self._folder, known, self._disk)
                return backup.make(path, self._folder, name, cluster=self._cluster, now_ms=now, disk=self._disk)

            return await asyncio.to_thread(run)

    def _written(self, name: str) -> int:
        with suppress(FileNotFoundError):
            return os.stat(os.path.join(self._folder, backup.FOLDER, f"{name}.sqlite.new")).st_size
        return 0

    async def _read(self, payload: bytes) -> bytes:
        """A page of a backup's exported form; without a name, the descriptors of all copies. What is not here may be with
        another member."""
        name = msgspec.msgpack.decode(payload, type=tuple[str, int, int])[0]
        if self._ask_others is None:
            return await self.read_here(payload)
        if not name:
            found = {(made.name, made.index): made for made in protocol.descriptors.decode(await self.read_here(payload))}
            async for answer in self._ask_others(protocol.BACKUP_READ, payload):
                for made in protocol.descriptors.decode(answer):
                    found.setdefault((made.name, made.index), made)
            return protocol.encode(list(found.values()))
        try:
            return await self.read_here(payload)
        except Unavailable:
            async for answer in self._ask_others(protocol.BACKUP_READ, payload):
                return answer
            raise

    async def read_here(self, payload: bytes) -> bytes:
        """The same of the copies in this member's folder."""
        name, offset, length = msgspec.msgpack.decode(payload, type=tuple[str, int, int])
        if not name:
            return protocol.encode(await asyncio.to_thread(lambda: list(backup.described(self._folder))))
        row = self._machine.db.execute("SELECT idx FROM backup WHERE name = ?", (name,)).fetchone()
        if row is None or row[0] is None:
            raise Refused(f"there is no backup {name}")

        def read() -> bytes:
            if backup.find(self._folder, name).index != row[0]:
                raise Unavailable(f"the copy of backup {name} here is not the one that is kept")
            return backup.read(self._folder, name, offset, length)

        return await asyncio.to_thread(read)

    def _known(self) -> set[str]:
        return {row[0] for row in self._machine.db.execute("SELECT name FROM backup").fetchall()}
