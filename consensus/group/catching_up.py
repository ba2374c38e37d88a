"""A member whose next entry has left the leader's memory fetches a snapshot, page by page, beside the log.

Whoever is asked serves: what a snapshot holds is committed, so any member's is good, and a fetch goes on from the same one
when another is elected meanwhile. If that one falls silent, the fetch begins anew with whoever leads. While somebody
fetches, the leader keeps the entries after that snapshot in memory, for a limited time and up to a limited size.

The fetched file is checked against its descriptor, and put among our own snapshots; then, in this order, the journal
begins anew at it and it becomes the metadata file in use. A crash in between leaves a journal that begins after SQLite's
last entry: SQLite is made anew from the newest snapshot then, which is this one. The process ends in any case, and the next
one opens the new state: a running machine's file is never swapped.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress

from consensus import snapshot
from consensus.core.errors import ClusterError, Corrupt
from consensus.disk import Disk
from consensus.group.core import Core
from consensus.group.messages import Message, Page, Paged
from consensus.journal import Journal
from consensus.snapshot import Snapshot

log = logging.getLogger("staddle.meta")

PAGE_BYTES = 1 << 20
PAGES_AHEAD = 4
"""Asked for at once: one would wait for a round trip per mebibyte."""

SILENT_S = 2.0
"""A page that hasn't come is asked for again after this time, ..."""

TRIES = 3
"""... and after so many times from the present leader, from the beginning."""

NEEDED_S = 60.0
"""Entries after a snapshot are kept for who has fetched a page of it within this time."""

AGAIN_S, AGAIN_DISK_S = 1.0, 10.0
"""Between two tries: while there is no snapshot yet, and after our disk could not take it."""

FETCHED = "fetching.sqlite"

Take = Callable[[], Awaitable[object]]


class Server:
    """The side that has a snapshot, or makes one. Files are read in threads."""

    def __init__(self, folder: str, take: Take, core: Core, journal: Journal, now: Callable[[], float],
                 answer: Callable[[str, Message], None]) -> None:
        self._folder, self._take, self._core, self._journal = folder, take, core, journal
        self._now, self._answer = now, answer
        self._needed_at = 0.0
        self._taking: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def asked(self, name: str, page: Page) -> None:
        if len(self._tasks) > 64:                                  # ours to bound: others may ask without end
            return
        task = asyncio.get_running_loop().create_task(self._serve(name, page), name="snapshot page")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, name: str, page: Page) -> None:
        offered = await self._offered(page.index)
        if offered is None:
            self._answer(name, Paged(page.number, 0, 0, 0, 0, 0, b""))
            return
        self._needed_at, self._journal.keep_from = self._now(), offered.index
        try:
            data = await asyncio.get_running_loop().run_in_executor(None, _read, offered.path, page.offset)
        except OSError:                                            # it was replaced by a newer one
            data = b""
        self._answer(name, Paged(page.number, offered.index, offered.term, offered.size, offered.crc32, page.offset, data))

    async def _offered(self, index: int) -> Snapshot | None:
        """The one asked for, as long as it is any use; else the newest, made now if the log does not reach back to it."""
        kept = snapshot.listed(self._folder)
        first = self._journal.first_index
        for one in reversed(kept):
            if one.index >= first and index in (0, one.index):
                return one
        if kept and kept[-1].index >= first:
            return kept[-1]
        if self._taking is None:
            self._journal.keep_from = self._journal.last_index     # what is written while it is made must be there after
            self._needed_at = self._now()
            self._taking = asyncio.get_running_loop().create_task(self._make(), name="snapshot for a member behind")
        return None

    async def _make(self) -> None:
        try:
            await self._take()
        except (ClusterError, OSError) as error:
            log.warning("no snapshot for a member that is behind: %s", error)
        finally:
            self._taking = None

    def look(self) -> None:
        """From time to time: nobody fetches any more."""
        if self._journal.keep_from is not None and self._now() - self._needed_at > NEEDED_S and self._taking is None:
            self._journal.keep_from = None

    async def stop(self) -> None:
        tasks = [*self._tasks, *([self._taking] if self._taking is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _read(path: str, offset: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(PAGE_BYTES)


class Fetcher:
    """The side that is behind. `install` is called with a verified snapshot, and ends this member."""

    def __init__(self, folder: str, disk: Disk, core: Core, send: Callable[[str, Message], None],
                 install: Callable[[Snapshot], None]) -> None:
        self._folder, self._disk, self._core, self._send, self._install = folder, disk, core, send, install
        self._path = os.path.join(folder, snapshot.FOLDER, FETCHED)
        self._task: asyncio.Task[None] | None = None
        self._number = 0
        self._waiting: dict[int, asyncio.Future[Paged]] = {}
        self.got_bytes = self.of_bytes = 0

    @property
    def running(self) -> bool:
        return self._task is not None

    def begin(self) -> None:
        """The leader says that we are behind."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._fetch(), name="fetching a snapshot")

    def no_more(self) -> None:
        """Entries come after all."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def stop(self) -> None:
        if (task := self._task) is not None:
            self.no_more()
            await asyncio.gather(task, return_exceptions=True)

    def paged(self, paged: Paged) -> None:
        waiting = self._waiting.pop(paged.number, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(paged)

    async def _fetch(self) -> None:
        while True:
            again_s = AGAIN_S
            source = self._core.leader
            if source is not None:
                try:
                    fetched = await self._fetch_from(source)
                except Corrupt as error:
                    log.error("a snapshot that was fetched from %s is thrown away: %s", source, error)
                except OSError as error:
                    log.error("a snapshot cannot be fetched: %s", error)
                    again_s = AGAIN_DISK_S
                else:
                    if fetched is not None:
                        log.info("the snapshot at entry %d is fetched", fetched.index, extra={"bytes": fetched.size})
                        self._task = None
                        self._install(fetched)
                        return
            await asyncio.sleep(again_s)

    async def _fetch_from(self, source: str) -> Snapshot | None:
        """None if there is none yet, or `source` has fallen silent. Raises Corrupt, OSError."""
        first = await self._page(source, 0, 0)
        if first is None or first.size == 0:
            return None
        os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
        self.got_bytes, self.of_bytes = 0, first.size
        with suppress(FileNotFoundError):
            self._disk.unlink(self._path, "fetch.unlink")
        fd = self._disk.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC)
        try:
            ahead: dict[int, asyncio.Task[Paged | None]] = {}
            try:
                page: Paged | None = first
                while page is not None:
                    if (page.index, page.size, page.crc32) != (first.index, first.size, first.crc32) or not page.data:
                        return None                                # that one is gone, and another is offered
                    self._disk.write(fd, page.data, "fetch.write")
                    self.got_bytes += len(page.data)
                    if self.got_bytes >= first.size:
                        break
                    for place in range(PAGES_AHEAD):
                        offset = self.got_bytes + place * PAGE_BYTES
                        if offset < first.size and offset not in ahead:
                            ahead[offset] = asyncio.create_task(self._page(source, first.index, offset))
                    page = await ahead.pop(self.got_bytes)
                else:
                    return None
            finally:
                for task in ahead.values():
                    task.cancel()
                await asyncio.gather(*ahead.values(), return_exceptions=True)
            await asyncio.get_running_loop().run_in_executor(None, self._disk.fsync, fd, "fetch.fsync")
        finally:
            self._disk.close(fd)
        fetched = Snapshot(index=first.index, term=first.term, size=first.size, crc32=first.crc32, path=self._path)
        await asyncio.get_running_loop().run_in_executor(None, snapshot.verify, fetched)
        return fetched

    async def _page(self, source: str, index: int, offset: int) -> Paged | None:
        """Asked for until it comes: links are lost, and made anew. None after some tries."""
        for _ in range(TRIES):
            self._number += 1
            number = self._number
            waiting: asyncio.Future[Paged] = asyncio.get_running_loop().create_future()
            self._waiting[number] = waiting
            self._send(source, Page(number, index, offset))
            try:
                async with asyncio.timeout(SILENT_S):
                    return await waiting
            except TimeoutError:
                pass
            finally:
                self._waiting.pop(number, None)
        return None


def install(fetched: Snapshot, folder: str, disk: Disk, journal: Journal) -> None:
    """See the module. The machine and the journal must not be used after it, and the process has to begin anew."""
    kept = snapshot.adopt(fetched, folder, disk)
    journal.reset_to(kept.index, kept.term)
    snapshot.install(kept, folder, disk)
