"""Who and where this machine is in its cluster. A machine without `cluster_listen` is alone and has none of this."""

import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from gateway.config import DOOR_PORT, Config, parse_listen
from gateway.folders import FolderError, Folders, write_private_file

if TYPE_CHECKING:
    from consensus.core.tls import Tls

_UNFIT = re.compile(r"[^a-z0-9-]+")
NAME_CHARACTERS_MAX = 32
PEERS_MAX = 64
"""Addresses that are remembered: far more than there are metadata members."""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """`host` is what others dial, `listen_host` what our sockets are bound to; `port` is the metadata member's, the others
    are counted from it. `peers` leads to other machines (HOST:PORT of theirs). `may_begin`: an empty folder may give birth to
    a cluster; with peers, only after all have said that they know of none."""

    name: str
    zone: str
    host: str
    listen_host: str
    port: int
    peers: tuple[str, ...] = ()
    may_begin: bool = True

    def address(self, offset: int = 0) -> str:
        """Where others find the process at this offset; 0 is the metadata member, and stands for the machine."""
        return _joined(self.host, self.port + offset)

    def listens(self, offset: int = 0) -> str:
        return _joined(self.listen_host, self.port + offset)

    def tls(self, secret: bytes, role: str) -> "Tls":
        """The identity of one of its processes."""
        from consensus.core.tls import Tls  # here: a machine that is alone loads nothing of it

        return Tls(secret, f"{self.name}/{role}")


def door_of(address: str) -> str:
    """The door of the machine whose cluster address this is."""
    return beside(address, DOOR_PORT)


def beside(address: str, offset: int) -> str:
    """Another process of the machine whose cluster address this is."""
    host, port = parse_listen(address, "peers")
    return _joined(host, port + offset)


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def machine_of(config: Config, folders: Folders) -> Machine | None:
    """None for a machine that is alone. Raises FolderError."""
    if config.cluster_listen is None:
        if folders.machine_name.exists():
            raise FolderError(f"{folders.root} belongs to machine {_read(folders.machine_name)} of a cluster: give "
                              "--cluster-listen, as before")
        return None
    listen_host, port = parse_listen(config.cluster_listen, "cluster_listen")
    host = (config.cluster_address or listen_host).strip("[]")
    name = name_of(config, folders)
    own = _joined(host, port)
    peers = tuple(dict.fromkeys(peer for peer in (*config.peers, *remembered_peers(folders)) if peer != own))
    return Machine(name=name, zone=config.zone or name, host=host, listen_host=listen_host, port=port, peers=peers,
                   may_begin=not peers or config.initial or folders.initial.exists())


def name_of(config: Config, folders: Folders) -> str:
    """Kept from the first start on: the cluster knows the machine by it. Raises FolderError."""
    if folders.machine_name.exists():
        name = _read(folders.machine_name)
        if config.name not in (None, name):
            raise FolderError(f"setting 'name': {folders.root} belongs to machine {name}, not {config.name}. A machine keeps "
                              "its name as long as its data")
        return name
    name = config.name or _UNFIT.sub("-", socket.gethostname().partition(".")[0].lower()).strip("-")[:NAME_CHARACTERS_MAX]
    if not name:
        raise FolderError("setting 'name': the host has no name to take; give this machine one")
    make_cluster_folder(folders)
    write_private_file(folders.machine_name, f"{name}\n")
    return name


def make_cluster_folder(folders: Folders) -> None:
    """Raises FolderError."""
    try:
        folders.cluster.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise FolderError(f"cannot make {folders.cluster}: {error.strerror}") from None


def remembered_peers(folders: Folders) -> tuple[str, ...]:
    """Where members were when we last looked. Raises FolderError."""
    if not folders.peers.exists():
        return ()
    return tuple(line for line in _read(folders.peers).split() if line)[:PEERS_MAX]


def remember_peers(folders: Folders, addresses: tuple[str, ...]) -> None:
    """Durable on return. Raises FolderError, OSError."""
    if addresses and addresses != remembered_peers(folders):
        make_cluster_folder(folders)
        write_private_file(folders.peers, "".join(f"{address}\n" for address in addresses[:PEERS_MAX]))


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise FolderError(f"{path} cannot be read: {error}") from None
