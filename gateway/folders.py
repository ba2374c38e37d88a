"""The data folder of a machine: where each role's files, sockets and secrets lie. The only place that knows."""

import contextlib
import dataclasses
import hashlib
import json
import os
import secrets
import tomllib
from pathlib import Path

from consensus.core.ids import NodeId, parse_node_id
from consensus.disk import Disk, make_folder
from gateway.identities import Identity

ROOT_ACCOUNT = "000000000000"
"""The account of the root key: AWS's form of twelve digits, as no real account has it."""

ROOT_USER_ID = "0" * 64

SECRET_CHARACTERS_MIN = 32
"""Of a cluster's secret that people choose."""


class FolderError(Exception):
    """A sentence that says what is wrong with a data folder, or with the root key."""


@dataclasses.dataclass(frozen=True, slots=True)
class Folders:
    """Paths below the first data folder."""

    root: Path

    @property
    def meta(self) -> Path:
        return self.root / "meta"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def cluster(self) -> Path:
        """What a machine of a cluster knows of it besides `secret` and `root-key` (gateway/cluster/)."""
        return self.root / "cluster"

    @property
    def machine_name(self) -> Path:
        return self.cluster / "name"

    @property
    def peers(self) -> Path:
        """Where metadata members are, one address a line."""
        return self.cluster / "peers"

    @property
    def initial(self) -> Path:
        """Is there if `staddle init` has said that this folder may begin a cluster."""
        return self.cluster / "initial"

    def bucket_logs(self, number: int) -> Path:
        """Where a gateway worker keeps records of logged buckets until they are delivered (gateway/bucket_log/)."""
        return self.root / "bucket-logs" / f"gateway-{number}"

    def bucket_logs_left(self, workers: int) -> list[Path]:
        """The folders of workers beyond that number: there were more of them once."""
        kept = {self.bucket_logs(number) for number in range(1, workers + 1)}
        return [folder for folder in sorted(self.bucket_logs(1).parent.glob("gateway-*")) if folder not in kept]

    @property
    def meta_address(self) -> str:
        return f"unix:{self.run / 'meta.sock'}"

    def node_address(self, number: int) -> str:
        return f"unix:{self.run / f'node-{number}.sock'}"

    def gateway_address(self, number: int) -> str:
        """Where the other workers reach a gateway worker (gateway/peers.py)."""
        return f"unix:{self.run / f'gateway-{number}.sock'}"


def chunks_of(folder: Path) -> Path:
    """Where the storage node of a data folder keeps its chunks."""
    return folder / "chunks"


NAME_OF_MACHINE_MAX = 29
"""Characters of a machine's name in those of its nodes, which have 32."""


def node_id(folder: Path) -> NodeId:
    """The storage node that this data folder is, wherever the folder is moved. Raises FolderError."""
    path = folder / "node-id"
    try:
        return parse_node_id(path.read_text().strip())
    except (OSError, ValueError) as error:
        raise FolderError(f"the node id {path} cannot be read: {error}") from None


def name_nodes(root: Path, data: tuple[Path, ...], machine: str | None = None) -> list[str]:
    """Give each data folder its node id, and answer what the operator should know about those that are missing.

    The file `nodes` of the first folder remembers which node lay where. So an empty folder in the place of a lost disk
    is the same node with another disk, rather than a new node beside one that never comes back and is waited for. The nodes
    of a machine of a cluster are called after it, so that the same holds when all that the machine had is lost.
    Raises FolderError.
    """
    path = root / "nodes"
    try:
        known: dict[str, str] = tomllib.loads(path.read_text()) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise FolderError(f"the list of nodes {path} cannot be read: {error}") from None
    lay = {place: node for node, place in known.items()}
    now: dict[str, str] = {}
    for number, folder in enumerate(data, 1):
        place = str(folder.absolute())
        if not (folder / "node-id").exists():
            called = f"{machine[:NAME_OF_MACHINE_MAX]}-{number}" if machine else ""
            if not called or called in known or called in now:
                called = f"n{secrets.token_hex(4)}"
            write_private_file(folder / "node-id", f"{lay.get(place) or called}\n")
        node = node_id(folder)
        if node in now:
            raise FolderError(f"the data folders {now[node]} and {place} are both node {node}: one is a copy of the other")
        now[node] = place
    if now != {node: place for node, place in known.items() if node in now} or not path.exists():
        write_private_file(path, "".join(f"{node} = {json.dumps(place)}\n" for node, place in {**known, **now}.items()))
    return [f"storage node {node} at {place} belongs to this store but is not given with --data: its copies cannot be read, "
            "and it is waited for when writing" for node, place in known.items() if node not in now]


def prepare(data: tuple[Path, ...], *, elsewhere: bool = False) -> Folders:
    """Make the folders that are missing. Raises FolderError.

    `elsewhere`: other machines have the metadata too, so there is nothing wrong with chunks beside none of it.
    """
    disk = Disk()
    for folder in data:
        try:
            if folder.exists() and not folder.is_dir():
                raise FolderError(f"the data folder {folder} is a file")
            if not folder.parent.is_dir():
                raise FolderError(f"cannot make the data folder {folder}: {folder.parent} is not there")
            make_folder(disk, str(folder), "data.mkdir")
        except OSError as error:
            raise FolderError(f"cannot make the data folder {folder}: {error.strerror}") from None
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            raise FolderError(f"the data folder {folder} is not readable and writable for this user")
    folders = Folders(data[0].absolute())
    try:
        for folder in (folders.meta, folders.run):
            make_folder(disk, str(folder), "data.mkdir")
    except OSError as error:
        raise FolderError(f"cannot prepare the data folder {data[0]}: {error.strerror}") from None
    if not elsewhere and not has_metadata(folders) and (full := next(filter(has_chunks, data), None)):
        # A store whose metadata is gone must not be taken for a new one: all its chunks would be garbage.
        raise FolderError(f"the metadata in {folders.meta} is gone, but {full} holds the chunks of a store. Put it back; "
                          "bring back a backup with `staddle restore`; or give other folders, for a new store")
    return folders


def has_metadata(folders: Folders) -> bool:
    """One of journal and database is enough to go on from, or to see that something is missing."""
    meta = folders.meta
    return any((meta / "journal").glob("*.log")) or any(path.stat().st_size for path in meta.glob("meta.*.sqlite"))


def has_chunks(folder: Path) -> bool:
    """A storage node opens its folder only when the metadata serves, so chunks without metadata are no first start."""
    return (chunks_of(folder) / "incarnation").exists()


def cluster_secret(root: Path, given: str | None = None) -> bytes:
    """The secret that this cluster's processes know each other by; made at the first start, unless it was `given`
    (STADDLE_CLUSTER_SECRET). Raises FolderError."""
    path = root / "secret"
    if not path.exists():
        write_private_file(path, (secrets.token_bytes(32) if given is None else secret_of(given)).hex() + "\n")
    try:
        secret = bytes.fromhex(path.read_text().strip())
    except (OSError, ValueError) as error:
        raise FolderError(f"the cluster's secret {path} cannot be read: {error}") from None
    if len(secret) < 32:
        raise FolderError(f"the cluster's secret {path} is shorter than 32 bytes")
    if given is not None and secret != secret_of(given):
        raise FolderError(f"STADDLE_CLUSTER_SECRET is not the secret in {path}: this folder belongs to another cluster")
    return secret


def secret_of(text: str) -> bytes:
    """What STADDLE_CLUSTER_SECRET stands for: 64 hex digits are the secret itself, other texts are hashed. Raises
    FolderError."""
    with contextlib.suppress(ValueError):
        if len(text) == 64:
            return bytes.fromhex(text)
    if len(text) < SECRET_CHARACTERS_MIN:
        raise FolderError(f"STADDLE_CLUSTER_SECRET is shorter than {SECRET_CHARACTERS_MIN} characters: it could be guessed. "
                          "`openssl rand -hex 32` makes one")
    return hashlib.sha256(text.encode()).digest()


def root_identity(root: Path, access_key: str | None, secret_key: str | None) -> tuple[Identity, bool]:
    """The root key, and whether it was made just now. From the environment if given there, else from the file
    `root-key` (mode 0600), which the first start makes. Raises FolderError."""
    known = known_root(root, access_key, secret_key)
    return (known, False) if known is not None else (keep_root(root, new_access_key(), new_secret_key()), True)


def known_root(root: Path, access_key: str | None, secret_key: str | None) -> Identity | None:
    """The root key of the environment or the file, None if neither has one. Raises FolderError."""
    path = root / "root-key"
    if access_key or secret_key:
        if not access_key or not secret_key:
            raise FolderError("STADDLE_ROOT_ACCESS_KEY and STADDLE_ROOT_SECRET_KEY belong together: set both or none")
        return _root(access_key, secret_key)
    if not path.exists():
        return None
    try:
        values = tomllib.loads(path.read_text())
        return _root(str(values["access_key"]), str(values["secret_key"]))
    except (OSError, KeyError, ValueError) as error:
        raise FolderError(f"the root key {path} cannot be read: {error!r}") from None


def keep_root(root: Path, access_key: str, secret_key: str) -> Identity:
    """From here on, this is the root key."""
    write_private_file(root / "root-key", f"access_key = {json.dumps(access_key)}\nsecret_key = {json.dumps(secret_key)}\n")
    return _root(access_key, secret_key)


def _root(access_key: str, secret_key: str) -> Identity:
    return Identity(name="root", account=ROOT_ACCOUNT, user_id=ROOT_USER_ID, display_name="root", access_key=access_key,
                    secret_key=secret_key, admin=True)


def new_access_key() -> str:
    """20 characters, as AWS's."""
    return "".join(secrets.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") for _ in range(20))


def new_secret_key() -> str:
    """40 characters without any that a shell or a URL minds: 238 bits."""
    return "".join(secrets.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789") for _ in range(40))


def write_private_file(path: Path, text: str) -> None:
    """Durable and never readable by others, not even for a moment."""
    disk = Disk()
    temporary = str(path) + ".new"
    fd = disk.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        disk.write(fd, text.encode(), "secret.write")
        disk.fsync(fd, "secret.fsync")
    finally:
        disk.close(fd)
    disk.rename(temporary, str(path), "secret.rename")
    disk.fsync_dir(str(path.parent), "secret.fsync_dir")
