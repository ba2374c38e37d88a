"""Starts, watches and stops the processes of one machine: metadata, a storage node for each data folder, gateways.

Each process runs `python -P -m gateway.roles`, is told what to be through its standard input (so no secret is in an
argument or the environment), and says `ready` on its standard output. The input stays open: when it ends, the supervisor
is gone and the process stops by itself. A process that dies is started again, ever more slowly while it keeps dying; one
that ends with EX_CONFIG cannot work as it is set up, and then everything stops.
"""

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import anyio
import anyio.abc
import msgspec

from gateway.http.server import listening_socket
from gateway.launch import EX_CONFIG, EX_RESTART, Launch

log = logging.getLogger("staddle.supervisor")

RESTART_DELAY_S_MIN = 0.1
RESTART_DELAY_S_MAX = 5.0
STEADY_S = 1.0
"""A process that was ready for this long has recovered: its next restart is prompt again. Counted from `ready`, so that
one which dies while it starts, however slowly, is started ever more slowly."""

RESTARTS_AT_ONCE_MAX = 5
"""In a row, of a process that asks for it: more, and something is wrong, so that it waits as others do."""

STOP_GRACE_S = 5.0
"""On top of the time that requests get to finish; then a process is killed."""


class SetupError(Exception):
    """A role said that it cannot work as it is set up."""


class Supervisor:
    """Runs the launches until `stop` is called or a signal comes. `ready` is called once all have been ready."""

    def __init__(self, launches: list[Launch], *, shutdown_s: float) -> None:
        self._launches = launches
        self._shutdown_s = shutdown_s
        self._running: dict[str, anyio.abc.Process] = {}
        self._ended: dict[str, anyio.Event] = {}
        self._up: set[str] = set()
        """Those that have been ready since they were started: they know all signals."""
        self._waiting_for = {launch.name for launch in launches}
        self._ready = anyio.Event()
        self._stopping = anyio.Event()
        self._hurried = False
        self._patience: anyio.CancelScope | None = None
        self.failed: str | None = None

    async def run(self, on_ready: Callable[[], Awaitable[None]]) -> None:
        """Raises SetupError when a role cannot work as it is set up."""
        async with anyio.create_task_group() as keepers:
            for launch in self._launches:
                keepers.start_soon(self._keep, launch)
            keepers.start_soon(self._announce, on_ready)
            if any(launch.config.access_log is not None for launch in self._launches):
                keepers.start_soon(self._pass_on_hangups)
            await self._stopping.wait()
            await self._stop_all()
            keepers.cancel_scope.cancel()
        if self.failed is not None:
            raise SetupError(self.failed)

    def stop(self) -> None:
        """Finish what is under way and end; a second call has no more patience with it."""
        self._hurried = self._stopping.is_set()
        if self._hurried and self._patience is not None:
            self._patience.cancel()
        self._stopping.set()

    async def _announce(self, on_ready: Callable[[], Awaitable[None]]) -> None:
        await self._ready.wait()
        await on_ready()

    async def _pass_on_hangups(self) -> None:
        """SIGHUP is for those who write the access log. Without one it ends us, as a closed terminal should."""
        with anyio.open_signal_receiver(signal.SIGHUP) as signals:
            async for _ in signals:
                for name in self._up:
                    if name.startswith("gateway") and name in self._running:
                        with contextlib.suppress(ProcessLookupError):
                            self._running[name].send_signal(signal.SIGHUP)

    async def _keep(self, launch: Launch) -> None:
        delay_s = RESTART_DELAY_S_MIN
        restarts = 0
        while not self._stopping.is_set():
            status, ready_s = await self._run_once(launch)
            if self._stopping.is_set():
                return
            if ready_s:
                launch = msgspec.structs.replace(launch, restarted=True)
            if status == EX_RESTART and restarts < RESTARTS_AT_ONCE_MAX:
                restarts += 1
                log.info("%s begins anew", launch.name, extra={"child": launch.name})
                continue
            restarts = 0
            if status == EX_CONFIG:
                self.failed = f"{launch.name} cannot start as it is set up: see its message above"
                self._stopping.set()
                return
            if ready_s > STEADY_S:
                delay_s = RESTART_DELAY_S_MIN
            log.warning("%s ended with status %d; starting it again in %.1f s", launch.name, status, delay_s,
                        extra={"child": launch.name, "status": status})
            await anyio.sleep(delay_s)
            delay_s = min(delay_s * 2, RESTART_DELAY_S_MAX)

    async def _run_once(self, launch: Launch) -> tuple[int, float]:
        """The exit status of the process, and for how many seconds it was ready."""
        ready_at: float | None = None
        async with _process(launch) as process:
            self._running[launch.name] = process
            ended = self._ended[launch.name] = anyio.Event()
            try:
                assert process.stdin is not None
                assert process.stdout is not None
                with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                    await process.stdin.send(msgspec.json.encode(launch, enc_hook=str) + b"\n")
                async for said in process.stdout:
                    if b"ready" in said:
                        ready_at = time.monotonic()
                        self._waiting_for.discard(launch.name)
                        self._up.add(launch.name)
                        log.info("%s is ready", launch.name, extra={"child": launch.name, "pid": process.pid})
                        if not self._waiting_for:
                            self._ready.set()
                status = await process.wait()
                return status, 0.0 if ready_at is None else time.monotonic() - ready_at
            finally:
                self._running.pop(launch.name, None)
                self._up.discard(launch.name)
                ended.set()

    async def _stop_all(self) -> None:
        """Gateways first, so that requests under way still find nodes and metadata; metadata last."""
        for kind in ("gateway", "node", "meta"):
            names = [launch.name for launch in self._launches if launch.role == kind and launch.name in self._running]
            for name in names:
                with contextlib.suppress(ProcessLookupError, KeyError):
                    self._running[name].send_signal(signal.SIGTERM)
            patience_s = self._shutdown_s + STOP_GRACE_S
            if self._hurried:
                patience_s = 0.0 if kind == "gateway" else STOP_GRACE_S
            with anyio.move_on_after(patience_s) as self._patience:
                for name in names:
                    await self._ended[name].wait()
            self._patience = None
            for name in names:
                if name in self._running:
                    log.error("%s did not stop in time and is killed", name, extra={"child": name})
                    with contextlib.suppress(ProcessLookupError):
                        self._running[name].kill()


@contextlib.asynccontextmanager
async def _process(launch: Launch) -> AsyncIterator[anyio.abc.Process]:
    process = await anyio.open_process(
        [sys.executable, "-P", "-m", "gateway.roles", launch.name],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=None, start_new_session=True, env=_environment(),
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        with anyio.CancelScope(shield=True):
            await process.aclose()


def _environment() -> dict[str, str]:
    """The children's environment: without our settings and keys, which they get through the pipe."""
    return {name: value for name, value in os.environ.items() if not name.startswith("STADDLE_")}


def reserve_port(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen: it keeps the port (and, for 0, chooses it) while gateway processes bind their
    own with SO_REUSEPORT. Raises OSError."""
    if port:
        # SO_REUSEPORT would let two servers of one user share a port unnoticed; a bind without it does not.
        listening_socket(host, port, shared=False).close()
    return listening_socket(host, port)


async def stop_on_signals(stop: Callable[[], None], shutdown_s: float) -> None:
    """Call `stop` at SIGTERM or SIGINT, and again at each one more."""
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for received in signals:
            log.info("stopping at %s; requests under way have %d s, a second signal cuts them off",
                     signal.Signals(received).name, shutdown_s)
            stop()
