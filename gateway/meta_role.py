"""The metadata member as a role."""

from typing import Any

from consensus.config import MetaConfig
from consensus.joining import ClusterSettings
from consensus.server import MetaServer
from consensus.standby import Member
from gateway.cluster.reaching import tls_of
from gateway.config import Config
from gateway.folders import Folders
from gateway.launch import Launch


def metadata_role(folders: Folders, config: Config, secret: bytes, launch: Launch) -> Member:
    """On a machine that is alone, a group of one; else the member of this machine's name."""
    folder, address = str(folders.meta), folders.meta_address
    settings = MetaConfig(read_grace_s=config.read_grace_seconds, upload_expire_s=config.upload_expire_days * 86400.0,
                          check_interval_s=config.scrub_interval_hours * 3600.0)
    of_cluster: dict[str, Any] = {}
    if launch.machine is not None:
        machine = launch.machine
        of_cluster = {
            "name": machine.name, "tls": tls_of(launch), "also": (machine.listens(),),
            "cluster": ClusterSettings(address=machine.address(), peers=machine.peers, begins=machine.may_begin,
                                       voters=config.meta_members)}
    return Member(lambda: MetaServer(folder, address, secret, copies=config.copies, replication=config.replication,
                                     config=settings, **of_cluster), folder, address, secret, alone=not of_cluster)
