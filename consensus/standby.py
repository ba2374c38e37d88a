"""The metadata member of a machine, in either of two states: it *serves*, or its disk takes no writes and it *stands by*.

A member that meets a failing write ends, rather than answer from a state in doubt; and it cannot start again on a disk that
it cannot write. Reads need no writes, though: standing by, it lets clients read what SQLite's file holds, refuses their
commands, and tries once a second whether the disk takes writes again; then it recovers and serves, in the same process.

What it shows must be all that was ever answered (promise 4). Everything answered is in SQLite's file, as far as this boot of
the machine goes: a commit comes before its answer. After a power cut the file may be behind the journal, though, and only
recovery can tell. So a serving member writes the machine's boot and the file's generation into its lock file, and only the
same file in the same boot is shown.

In a cluster nothing is shown: others serve, and what they have answered meanwhile is not in this file. The member just waits
for its disk, and its clients go to the others (consensus/link.py).
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import secrets
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from consensus import protocol, queries, snapshot
from consensus.core.codec import UNDECODABLE
from consensus.core.errors import ClusterError, Corrupt, ReadOnly, Refused, Unavailable
from consensus.core.wire import OK, Handler, Link, WireServer
from consensus.disk import CREATE, Disk
from consensus.endings import exit_process
from consensus.reads import Reader
from consensus.recovery import read_mark

log = logging.getLogger("staddle.meta")

LOCK = "lock"
PROBE = "probe"
PROBE_S = 1.0
"""Between attempts to write: a second after the disk has recovered the member serves again."""

REFUSAL = "the metadata's disk takes no writes"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Server(Protocol):
    """What is needed of consensus.server.MetaServer."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


class Member:
    """The role. `make` gives a MetaServer that was not started yet."""

    def __init__(self, make: Callable[[], Server], folder: str, address: str, secret: bytes, disk: Disk | None = None,
                 on_failure: Callable[[BaseException], None] = exit_process, *, alone: bool = True) -> None:
        """`on_failure`: when it can neither serve nor stand by any more. `alone`: not in a cluster."""
        self._on_failure, self._alone = on_failure, alone
        self._make, self._folder, self._address, self._secret = make, folder, address, secret
        self._disk = disk or Disk()
        self._server: Server | None = None
        self._standby: _Standby | None = None
        self._waiting: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Raises Refused or Corrupt if another start would not help; what kept it from serving, if it can't stand by either."""
        error = await self._serve()
        if error is None:
            return
        if writable(self._folder, self._disk) is None:
            raise error                               # the disk is well: it is something else
        if not self._alone:
            log.error("%s: %s. Other members serve meanwhile", REFUSAL, error)
            await self._serve_once_writable()
            return
        standby = _Standby(self._folder, self._address, self._secret)
        try:
            await standby.start()
        except (ClusterError, OSError, sqlite3.Error) as other:
            log.error("nor can what is there be read: %s", other)
            raise error from None
        self._standby = standby
        log.error("%s: %s. What is there can be read", REFUSAL, error)
        self._waiting = asyncio.get_running_loop().create_task(self._wait_or_fail(), name="meta standby")

    async def _serve(self) -> ClusterError | OSError | None:
        """None if it serves now."""
        server = self._make()
        try:
            await server.start()
        except (Refused, Corrupt):
            raise
        except (ClusterError, OSError) as error:
            return error
        self._server = server
        return None

    async def _serve_once_writable(self) -> None:
        """Raises what keeps it from serving on a disk that is well."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(PROBE_S)
            if await loop.run_in_executor(None, writable, self._folder, self._disk) is None:
                error = await self._serve()
                if error is None:
                    log.warning("the metadata's disk takes writes again")
                    return
                if writable(self._folder, self._disk) is None:
                    raise error

    async def _wait_or_fail(self) -> None:
        try:
            await self._wait()
        except Exception as error:  # noqa: BLE001  nobody awaits this task: what it can't do, another process may
            self._on_failure(error)

    async def _wait(self) -> None:
        """Until the disk takes writes; then serve."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(PROBE_S)
            if await loop.run_in_executor(None, writable, self._folder, self._disk) is not None:
                continue
            assert self._standby is not None
            await self._standby.stop()
            self._standby = None
            error = await self._serve()
            if error is None:
                log.warning("the metadata's disk takes writes again")
                return
            log.error("%s, after all: %s", REFUSAL, error)
            standby = _Standby(self._folder, self._address, self._secret)
            await standby.start()
            self._standby = standby

    async def stop(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._waiting
        if self._standby is not None:
            await self._standby.stop()
        if self._server is not None:
            await self._server.stop()


class _Standby:
    """Reads without a writer. Holds the folder's lock as a serving member does."""

    def __init__(self, folder: str, address: str, secret: bytes) -> None:
        self._folder = folder
        self._wire = WireServer(address, secret, lambda: _Connection(self))
        self._reader = Reader(folder, queries.header, queries.ALONE, queries.KnowingBuckets)
        self._epoch = secrets.token_hex(8)
        self._generation = self._applied = 0
        self._lock = -1

    async def start(self) -> None:
        """Raises Unavailable if the file may lack something that was answered, OSError, sqlite3.Error."""
        self._lock = os.open(os.path.join(self._folder, LOCK), os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._generation = self._proven()
            self._applied, _ = self._reader.run(self._generation, queries.header)
            await self._wire.start()
        except BaseException:
            self._let_go()
            raise

    def _proven(self) -> int:
        """The generation of the file in use, if it holds all that was answered."""
        _, generation = snapshot.current_file(self._folder, Disk())
        mark = read_mark(self._folder)
        known = proof(generation)
        if not known or os.pread(self._lock, 200, 0) != known:
            raise Unavailable("no member has served this file since the machine started: it may be behind the journal")
        if mark is not None and mark.generation == generation:
            raise Unavailable(f"the metadata file in use is damaged: {mark.why}")
        return generation

    async def stop(self) -> None:
        await self._wire.stop()
        await asyncio.sleep(0)                        # the sockets close
        self._let_go()

    def _let_go(self) -> None:
        self._reader.close()
        os.close(self._lock)

    def answer(self, operation: int, payload: memoryview) -> bytes:
        if operation == protocol.WATCH:
            return protocol.encode(protocol.Serving(epoch=self._epoch, generation=self._generation))
        if operation == protocol.PING:
            protocol.sessions.decode(payload)
            return protocol.encode([])                # nobody can end a session now
        if operation == protocol.STATUS:
            return protocol.encode(self.status())
        raise ReadOnly(REFUSAL)                       # QUERY too: who is on this host reads the file itself

    def status(self) -> protocol.Status:
        return protocol.Status(
            role="standby", term=0, leader="", commit_index=self._applied, applied_index=self._applied,
            generation=self._generation, sessions=0, links=0, journal_bytes=0, journal_segments=0, journal_written_bytes=0,
            syncs=0, sync_seconds=0.0, last_sync_s=0.0, entries=0, commands=0, snapshot_index=0, refusing="read-only")


class _Connection(Handler):
    def __init__(self, standby: _Standby) -> None:
        self._standby = standby

    def frame(self, link: Link, operation: int, status: int, request_id: int, payload: memoryview) -> None:
        try:
            answer = self._standby.answer(operation, payload)
        except (ClusterError, *UNDECODABLE) as error:
            protocol.refuse(link, operation, request_id, error)
        else:
            link.send(operation, OK, request_id, answer)

    def lost(self, link: Link) -> None:
        """Nothing is kept of it."""


def writable(folder: str, disk: Disk) -> OSError | None:
    """None if the disk takes a write and a sync, else why not."""
    path = os.path.join(folder, PROBE)
    try:
        with contextlib.suppress(FileNotFoundError):
            disk.unlink(path, "probe.unlink")
        fd = disk.open(path, CREATE)
        try:
            disk.write(fd, os.urandom(4096), "probe.write")
            disk.fdatasync(fd, "probe.fdatasync")
        finally:
            disk.close(fd)
            disk.unlink(path, "probe.unlink")
    except OSError as error:
        return error
    return None


def proof(generation: int) -> bytes:
    """What a serving member writes into its lock file. Empty where the system does not tell its boots apart."""
    try:
        return f"{BOOT_ID.read_text().strip()} {generation}\n".encode()
    except OSError:
        return b""


def prove(lock: int, generation: int) -> None:
    """From now on this boot's answers are in this file. A disk that does not take it has no standby later."""
    with contextlib.suppress(OSError):
        os.ftruncate(lock, 0)
        os.pwrite(lock, proof(generation), 0)
