"""What `staddle init` and `staddle join` do to a data folder before anything is served from it."""

import asyncio
from typing import NamedTuple

from consensus.core.errors import Refused
from gateway.cluster.entering import with_token
from gateway.cluster.machine import machine_of, make_cluster_folder, name_of, remember_peers
from gateway.cluster.tokens import JoinToken
from gateway.config import Config
from gateway.folders import (
    FolderError,
    Folders,
    cluster_secret,
    has_metadata,
    keep_root,
    prepare,
    root_identity,
    write_private_file,
)


class Begun(NamedTuple):
    name: str
    folder: str
    access_key: str = ""
    secret_key: str = ""


def begin(config: Config) -> Begun:
    """An empty folder that may begin a cluster. Raises FolderError."""
    folders = _empty(config)
    name = name_of(config, folders)
    cluster_secret(folders.root)
    root, _ = root_identity(folders.root, None, None)
    write_private_file(folders.initial, "`staddle init` has prepared this folder: it may begin a cluster\n")
    return Begun(name, str(folders.root), root.access_key, root.secret_key)


def join_with(token: JoinToken, config: Config) -> Begun:
    """An empty folder becomes that of a machine of the token's cluster. Raises FolderError, Refused, Unavailable."""
    folders = _empty(config)
    if config.name is not None:         # that of an attempt which was refused, as may be for just this, is nobody's
        folders.machine_name.unlink(missing_ok=True)
    machine = machine_of(config, folders)
    assert machine is not None, "the command has checked that it has a `cluster_listen`"
    welcome = asyncio.run(with_token(token, machine.name))
    if welcome.root is None or not welcome.secret:
        raise Refused("the machine that let us in gave no keys: is the same Staddle on both?")
    keep_root(folders.root, welcome.root.access_key, welcome.root.secret_key)
    make_cluster_folder(folders)
    remember_peers(folders, welcome.peers)
    cluster_secret(folders.root, welcome.secret)          # last: a folder that has it, has all
    return Begun(machine.name, str(folders.root))


def _empty(config: Config) -> Folders:
    folders = prepare(config.data)
    if has_metadata(folders) or (folders.root / "secret").exists():
        raise FolderError(f"{folders.root} belongs to a store already. `staddle serve` goes on with it; another cluster needs "
                          "an empty folder")
    return folders
