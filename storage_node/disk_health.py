"""Whether chunks can be written to this disk, since when not, and why. Decides for all writers of a store.

Two things are looked at. *Space and mode* (`statvfs`: full down to the reserve, mounted read-only) whenever somebody wants
to write, at most twice a second. A *probe* (a small file written and synced, a row committed and synced) after any write
that has failed: if the probe succeeds, the failure was that one file's, and writing goes on; if it fails, writes are refused
until one succeeds. So a disk that is fine again is used again by itself, and clients' writes aren't what is tried on it.

Rules:
* a probe is a new file each time: after a failed sync of a file, a second one of the same file tells nothing;
* reads and removals don't ask here;
* changes are logged once, when they happen.
"""

import asyncio
import contextlib
import errno
import logging
import os
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple

from consensus.core import tasks
from consensus.core.clock import Clock
from consensus.core.errors import ClusterError, NoSpace, Unavailable
from consensus.disk import CREATE, Disk
from storage_node.errors import from_os
from storage_node.store import DiskState

log = logging.getLogger("staddle.node")

LOOK_S = 0.5
"""How long the last look at the free space is believed. At 1 GB/s a disk loses 0.5 GB meanwhile; then ENOSPC says
it."""

PROBE_S = 1.0
"""Between probes of a disk that can't be written: it is in use again a second after it has recovered."""

PROBE_NAME = "probe"
_PROBE_BYTES = 4096

Reason = Literal["full", "read-only", "failing"]


class _Refusal(NamedTuple):
    reason: Reason
    text: str

    def error(self) -> ClusterError:
        return NoSpace(self.text) if self.reason == "full" else Unavailable(self.text)


class DiskHealth:
    """One per store. `check` and `look` from its event loop, `failed` from any thread."""

    def __init__(self, folder: str, disk: Disk, clock: Clock, reserve_bytes: int, commit: Callable[[], None]) -> None:
        """`commit` makes a change of the index durable. Raises NoSpace, Unavailable."""
        self.reserve_bytes = reserve_bytes
        self._folder, self._disk, self._clock, self._commit = folder, disk, clock, commit
        self._look_at = 0.0
        self._seen: _Refusal | None = None            # by statvfs
        self._probed: _Refusal | None = None          # by the probe
        self._refusal: _Refusal | None = None
        self._since_ms = 0
        self._errors: Counter[str] = Counter()
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "probe")  # of its own: a disk that hangs must hold up nobody else
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._run(), name="disk probe")

    async def stop(self) -> None:
        await tasks.end(self._task)
        self._task = self._loop = None
        self._thread.shutdown(wait=False)

    # For writers

    def check(self) -> None:
        """Raises NoSpace when only the reserve is left, Unavailable when the disk takes no writes."""
        if time.monotonic() >= self._look_at:
            self.look()
        if self._refusal is not None:
            raise self._refusal.error()

    def check_room(self, count: int) -> None:
        """Raises NoSpace when there is less above the reserve. This says nothing about smaller writes."""
        with contextlib.suppress(OSError):
            free = self.free_bytes()
            if count > free - self.reserve_bytes:
                raise NoSpace(f"{self._folder}: {free} bytes are free, {self.reserve_bytes} of them as a reserve: not enough for "
                              "another large chunk")

    def free_bytes(self) -> int:
        """Raises OSError."""
        disk = os.statvfs(self._folder)
        return disk.f_bavail * disk.f_frsize

    def failed(self, error: OSError | ClusterError) -> None:
        """A write has failed. Whether the next one is refused, the probe decides."""
        self._errors[_reason_of(error)] += 1
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):   # the loop was closed
                loop.call_soon_threadsafe(self._wake.set)

    def unread(self) -> None:
        """The disk has refused a read."""
        self._errors["read"] += 1

    # What is known

    @property
    def state(self) -> DiskState:
        refusal, errors = self._refusal, self._errors
        return DiskState(
            writable=refusal is None, reason=refusal.reason if refusal else "", text=refusal.text if refusal else "",
            since_ms=self._since_ms, errors_full=errors["full"], errors_read_only=errors["read-only"],
            errors_failing=errors["failing"], errors_read=errors["read"])

    def look(self) -> None:
        """At space and mode, now."""
        self._look_at = time.monotonic() + LOOK_S
        try:
            disk = os.statvfs(self._folder)
        except OSError as error:
            self._seen = _Refusal("failing", f"{self._folder}: {error.strerror}")
        else:
            if disk.f_flag & os.ST_RDONLY:
                self._seen = _Refusal("read-only", f"{self._folder} is mounted read-only")
            elif disk.f_bavail * disk.f_frsize <= self.reserve_bytes:
                self._seen = _Refusal("full", f"{self._folder}: only the reserve of {self.reserve_bytes} bytes is free")
            else:
                self._seen = None
        self._conclude()

    def _conclude(self) -> None:
        before, self._refusal = self._refusal, self._seen or self._probed
        if (before is None) == (self._refusal is None):
            return
        now = self._clock.now_ms()
        if self._refusal is not None:
            log.error("no chunks can be written: %s", self._refusal.text)
            self._wake.set()
        else:
            log.warning("%s: chunks can be written again, after %.1f s", self._folder, (now - self._since_ms) / 1000)
        self._since_ms = now

    # The probe

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PROBE_S if self._refusal is not None else None):
                    await self._wake.wait()
            asked = self._wake.is_set()
            self._wake.clear()
            self.look()
            # What statvfs says is enough to refuse, but not to trust a disk that has failed.
            if asked or self._probed is not None:
                self._probed = await loop.run_in_executor(self._thread, self._probe)
                self._conclude()
                if self._refusal is not None:
                    await asyncio.sleep(PROBE_S)      # failing writes ask for a probe each, and there may be thousands

    def _probe(self) -> _Refusal | None:
        path = f"{self._folder}/{PROBE_NAME}"
        try:
            with contextlib.suppress(FileNotFoundError):
                self._disk.unlink(path, "probe.unlink")
            fd = self._disk.open(path, CREATE)
            try:
                self._disk.write(fd, os.urandom(_PROBE_BYTES), "probe.write")
                self._disk.fdatasync(fd, "probe.fdatasync")
            finally:
                self._disk.close(fd)
                self._disk.unlink(path, "probe.unlink")
            self._commit()
        except OSError as error:
            return _Refusal(_reason_of(error), str(from_os(error, f"writing to {self._folder}")))
        except ClusterError as error:
            return _Refusal(_reason_of(error), str(error))
        return None


def _reason_of(error: OSError | ClusterError) -> Reason:
    if isinstance(error, OSError):
        if error.errno == errno.EROFS:
            return "read-only"
        error = from_os(error, "")
    return "full" if isinstance(error, NoSpace) else "failing"
