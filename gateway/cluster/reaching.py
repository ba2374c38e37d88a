"""How a process of this machine reaches the metadata: the member beside it, if there is one, and those of other machines."""

from pathlib import Path
from typing import TYPE_CHECKING

from consensus.client import MetadataClient
from gateway.folders import Folders
from gateway.launch import Launch

if TYPE_CHECKING:
    from consensus.core.tls import Tls


def tls_of(launch: Launch) -> "Tls | None":
    """The identity of a process; None on a machine that is alone."""
    return None if launch.machine is None else launch.machine.tls(bytes.fromhex(launch.secret), launch.name)


def metadata_client(launch: Launch, owner: str, tls: "Tls | None") -> MetadataClient:
    folders, secret = Folders(Path(launch.folders)), bytes.fromhex(launch.secret)
    if launch.machine is None:
        return MetadataClient(folders.meta_address, secret, str(folders.meta), owner=owner)
    home = "meta" in launch.config.roles
    return MetadataClient(folders.meta_address if home else None, secret, str(folders.meta) if home else None, owner=owner,
                          tls=tls, others=launch.machine.peers)
