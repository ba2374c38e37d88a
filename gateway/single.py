"""The whole store in one process and one event loop: what `staddle.Server` starts, since one Python is up sooner than
four.

The same roles as `staddle serve` runs in processes of their own (gateway/roles.py), started in the same order, with the
same syncs; a folder that one has written the other opens. It suits tests and small tools: one core does everything.

    python -P -m gateway.single

reads one line of JSON from standard input (`Orders`: it holds a secret, so it is neither argument nor environment),
answers one on standard output (`Ready`) and stops when standard input ends, when the process that started it is gone,
or at SIGTERM.
"""

import asyncio
import logging
import os
import shutil
import signal
import sys
from typing import Any

import msgspec
import uvloop

from consensus.core import logs
from consensus.core.settings import SettingsError, load
from gateway.config import Config, parse_listen
from gateway.folders import FolderError, Folders, cluster_secret, name_nodes, prepare, root_identity
from gateway.gateway_role import GatewayRole
from gateway.identities import Identity, IdentityStore
from gateway.launch import EX_CONFIG, Launch, Role, launches
from gateway.roles import build, run

ORPHAN_LOOK_S = 1.0
"""How often it looks whether who started it is still there: a fork of that process may hold standard input open."""


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """`settings` are those of docs/CONFIGURATION.md, as text like in the environment or as TOML has them."""

    data: list[str]
    listen: str = "127.0.0.1:0"
    settings: dict[str, Any] = {}
    access_key: str | None = None
    secret_key: str | None = None
    remove: str | None = None             # a temporary folder that holds all of it and goes at the end, whoever ends it


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    port: int
    access_key: str
    secret_key: str


class AllRoles:
    """Metadata, storage nodes, gateway: started in this order, stopped in the other."""

    def __init__(self, of: list[Launch]) -> None:
        self._roles: list[Role] = [build(launch) for launch in of]
        self._parent = os.getppid()
        self._watch: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        gateway = self._roles[-1]
        assert isinstance(gateway, GatewayRole)
        return gateway.server.port

    async def start(self) -> None:
        started: list[Role] = []
        try:
            for role in self._roles:
                await role.start()
                started.append(role)
        except BaseException:
            for role in reversed(started):
                await role.stop()
            raise
        self._watch = asyncio.get_running_loop().create_task(self._stop_as_orphan())

    async def stop(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
        for role in reversed(self._roles):
            await role.stop()

    def hang_up(self) -> None:
        gateway = self._roles[-1]
        assert isinstance(gateway, GatewayRole)
        gateway.hang_up()

    async def _stop_as_orphan(self) -> None:
        while os.getppid() == self._parent:               # noqa: ASYNC110 - nothing tells us but the number itself
            await asyncio.sleep(ORPHAN_LOOK_S)
        os.kill(os.getpid(), signal.SIGTERM)


def main() -> int:
    line = sys.stdin.buffer.readline()
    if not line:
        return 0
    try:
        orders = msgspec.json.decode(line, type=Orders)
        config = _settings(orders)
        folders, launched, root = _prepared(orders, config)
    except (SettingsError, FolderError, ValueError) as error:
        sys.stderr.write(f"staddle: {error}\n")
        return EX_CONFIG

    def ready(roles: AllRoles) -> bytes:
        return msgspec.json.encode(Ready(port=roles.port, access_key=root.access_key, secret_key=root.secret_key))

    status = uvloop.run(run("server", folders, lambda: AllRoles(launched), ready))
    if orders.remove is not None and status == 0:     # else its log says why, to who started it
        # Told by name, and nothing but what `tempfile` made for us: who told us may have died without a word.
        assert os.path.basename(orders.remove).startswith("staddle-")
        assert all(os.path.dirname(folder) == orders.remove for folder in orders.data)
        shutil.rmtree(orders.remove, ignore_errors=True)
    return status


def _settings(orders: Orders) -> Config:
    """Raises SettingsError."""
    texts = {f"STADDLE_{name.upper()}": value for name, value in orders.settings.items() if isinstance(value, str)}
    others = {name: value for name, value in orders.settings.items() if not isinstance(value, str)}
    own = {"data": orders.data, "listen": orders.listen, "workers": 1}
    return load(Config, file=None, environ=texts, overrides={**others, **own})


def _prepared(orders: Orders, config: Config) -> tuple[Folders, list[Launch], Identity]:
    """Raises FolderError, ValueError."""
    if config.cluster_listen is not None:
        raise ValueError("setting 'cluster_listen': machines of a cluster are started with `staddle serve`")
    logs.set_up(config.log_level, "server")
    folders = prepare(config.data)
    for sentence in name_nodes(folders.root, config.data):
        logging.getLogger("staddle.single").warning(sentence)
    secret = cluster_secret(folders.root)
    root, _ = root_identity(folders.root, orders.access_key, orders.secret_key)
    IdentityStore((root, *config.identity))           # refuses a key that two have
    host, port = parse_listen(config.listen)
    launched = [msgspec.structs.replace(launch, alone=True) for launch in launches(config, folders, secret, root, host, port)]
    return folders, launched, root


if __name__ == "__main__":
    sys.exit(main())
