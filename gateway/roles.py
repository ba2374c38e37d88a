"""The process that runs one role of a machine.

`build` makes the role of a launch; `main` is such a process: it reads its launch from standard input, starts the role, says
`ready`, and stops at SIGTERM or when standard input ends.
"""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec
import uvloop

from consensus.core import logs
from consensus.core.errors import ClusterError, Refused
from consensus.core.settings import decode_setting
from gateway.folders import FolderError, Folders
from gateway.launch import EX_CONFIG, Launch, Role

log = logging.getLogger("staddle.roles")

COLLECT_AFTER = 5_000
"""New containers until the next garbage collection. Python's default of 700 is a few requests, whose objects are all
alive still: it found nothing and took 3 % of a small PUT. Not much more, since cycles that failed requests leave behind
may hold their buffers."""

R = TypeVar("R", bound=Role)


def build(launch: Launch) -> Role:
    """The role of a launch, not started. Raises FolderError.

    What it needs is imported here: with all roles' imports each restart would take twice as long, and a storage node would
    depend on the code of the gateway.
    """
    folders, config, secret = Folders(Path(launch.folders)), launch.config, bytes.fromhex(launch.secret)
    if launch.role == "meta":
        from gateway.meta_role import metadata_role

        return metadata_role(folders, config, secret, launch)
    if launch.role == "node":
        from gateway.node_role import StorageRole

        return StorageRole(folders, config, launch, secret)
    from gateway.gateway_role import GatewayRole

    return GatewayRole(folders, config, secret, launch)


def main() -> int:
    line = sys.stdin.buffer.readline()
    if not line:
        return 0                                   # the supervisor went away before it told us what to be
    launch = msgspec.json.decode(line, type=Launch, dec_hook=decode_setting)
    logs.set_up(launch.config.log_level, launch.name)
    return uvloop.run(run(launch.name, Folders(Path(launch.folders)), lambda: build(launch), lambda role: b"ready"))


async def run(name: str, folders: Folders, make: Callable[[], R], ready: Callable[[R], bytes]) -> int:
    """The life of a process: make a role and start it, say `ready` (a line of it) on standard output, stop it when told.

    It is told by SIGTERM, SIGINT or the end of standard input. The exit status.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    loop.add_reader(sys.stdin.fileno(), stopping.set)      # readable means ended: nothing else is ever sent
    try:
        folders.run.mkdir(mode=0o700, exist_ok=True)       # somebody may have tidied it away
        role = make()
        if not await _started(role, stopping):
            return 0
    except (Refused, FolderError, ssl.SSLError) as error:
        log.error("%s", error)
        return EX_CONFIG
    except (ClusterError, OSError) as error:
        log.error("%s could not start: %s", name, error)
        return 1
    hang_up = getattr(role, "hang_up", None)
    if hang_up is not None:
        loop.add_signal_handler(signal.SIGHUP, hang_up)
    gc.enable()                                    # gateway/single.py may come without
    gc.collect()
    gc.freeze()                                    # what start-up made stays; collections need not look at it again
    gc.set_threshold(COLLECT_AFTER, *gc.get_threshold()[1:])
    with contextlib.suppress(BrokenPipeError):
        os.write(sys.stdout.fileno(), ready(role) + b"\n")
    await stopping.wait()
    loop.remove_reader(sys.stdin.fileno())
    await role.stop()
    return 0


async def _started(role: Role, stopping: asyncio.Event) -> bool:
    """False when it was told to stop before it had started: what it waits for (the metadata) may never come."""
    starting, told = asyncio.create_task(role.start()), asyncio.create_task(stopping.wait())
    await asyncio.wait((starting, told), return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    if starting.done():
        starting.result()
        return True
    starting.cancel()
    await asyncio.wait((starting,))
    return False


if __name__ == "__main__":
    sys.exit(main())
