"""A store that is opened without serving it: fsck and restore, while no server runs.

The roles of the metadata and of the storage nodes run in this process, on sockets of their own that nobody else knows, and
recover what a crash has left exactly as a server's start does. To look, a folder is only opened; to repair, its storage node
runs whole, for only the node itself may speak for its copies.

Each folder's lock is taken, so a server that runs is noticed and no second one can start meanwhile.
"""

import asyncio
import contextlib
import os
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import msgspec

from consensus import mending, queries, snapshot
from consensus import restore as metadata_restore
from consensus.backup import fingerprint
from consensus.client import MetadataClient
from consensus.core.errors import Refused
from consensus.core.ids import NodeId
from consensus.disk import Disk, make_folder
from consensus.restore import Restored, locked
from consensus.server import MetaServer
from gateway.config import Config
from gateway.folders import Folders, chunks_of, cluster_secret, name_nodes, node_id
from storage_node.checks import fsck, judging
from storage_node.checks.findings import Report
from storage_node.checks.folder_index import FolderIndex
from storage_node.checks.fsck import Node
from storage_node.checks.fsck_nodes import OpenedNode, ServingNode
from storage_node.client import NodeClient
from storage_node.disk_store import DiskStore
from storage_node.index import INDEX_NAME, NEW, SETTLED
from storage_node.server import NodeServer

Progress = Callable[[str, int, int], None]
"""What is being done, how much of it is done, and of how much (0: not known)."""


class RestoreReport(msgspec.Struct, frozen=True, kw_only=True):
    """`fsck` is what the check afterwards has found: its `affected` is the list of what is missing."""

    restored: Restored
    fsck: Report
    notes: list[str]


def _data(config: Config) -> list[Path]:
    return [Path(os.path.abspath(folder)) for folder in config.data]


def _folders(config: Config) -> Folders:
    return Folders(_data(config)[0])


def _nothing(what: str, done: int, of: int) -> None:
    pass


async def check(config: Config, *, verify: bool = False, deep: bool = False, repair: bool = False,
                progress: Progress = _nothing) -> Report:
    """fsck of the store in `config.data`. Raises Refused (a server runs, or a folder is none of ours), FolderError, Corrupt
    (the metadata can't be opened: it must be restored), ClusterError, OSError."""
    mended: list[str] = []
    if repair:
        mended = await _recount(config, progress)
        for folder in _data(config):
            await asyncio.to_thread(_look_for_files, str(chunks_of(folder)))
    async with _opened(config, serving=repair) as (metadata, nodes):
        report = await fsck.run(metadata, nodes, verify=verify, deep=deep, repair=repair, progress=progress)
    if mended:
        report = msgspec.structs.replace(report, repaired={**report.repaired, "metadata": len(mended)})
    return report


async def restore(file: Path, config: Config, *, replace: bool = False, progress: Progress = _nothing) -> RestoreReport:
    """Put the metadata back as it was when the backup `file` was made, and check what is there of it. See
    consensus.restore. Raises Refused (a server runs; there is metadata and not `replace`; no backup, or another cluster's),
    Corrupt, FolderError, ClusterError, OSError: then nothing has changed, unless it comes from the check afterwards."""
    metadata_restore.read_source(str(file))          # before anything is made
    elsewhere = [folder for folder in _data(config)[1:] if (folder / "meta" / "CURRENT").exists()]
    if elsewhere:
        raise Refused(f"{elsewhere[0]} holds the metadata: give it as the first data folder, as for `staddle serve`")
    folders, disk = _folders(config), Disk()
    for folder in _data(config):
        await asyncio.to_thread(make_folder, disk, str(folder), "data.mkdir")
    name_nodes(folders.root, tuple(_data(config)))
    has_secret = (folders.root / "secret").exists()
    cluster = fingerprint(cluster_secret(folders.root)) if has_secret else None
    async with contextlib.AsyncExitStack() as stack:
        stores = [(node_id(folder), await stack.enter_async_context(_store(folder))) for folder in _data(config)]
        indexes = [FolderIndex(node, store) for node, store in stores]
        try:
            restored = await asyncio.to_thread(
                metadata_restore.restore, str(file), str(folders.meta), indexes, cluster=cluster, replace=replace,
                now_ms=time.time_ns() // 1_000_000, progress=progress)
            await _ask_again(folders, stores)
        except sqlite3.Error as error:
            raise OSError(f"SQLite could not write the restored metadata: {error}") from error
    report = await check(config, progress=progress)
    notes = [] if has_secret else [
        "This folder had no `secret`, so a new one is made. Access keys of users are sealed with the lost one: give them new "
        "keys, or stop the server and put the old file back."]
    return RestoreReport(restored=restored, fsck=report, notes=notes)


async def _recount(config: Config, progress: Progress) -> list[str]:
    """Counters made right in the file itself, once the log is in it; then a snapshot, so that they stay right."""
    async with _opened(config, serving=False) as (metadata, _):
        progress("counting", 0, 0)
        if not await metadata.recount():
            return []
    folders = _folders(config)
    with locked(str(folders.meta)):
        return await asyncio.to_thread(_mend, str(folders.meta))


def _look_for_files(chunks: str) -> None:
    """Let the next start compare all files with the index, as after an unclean stop: it takes in what the index lacks."""
    with locked(chunks), contextlib.suppress(sqlite3.DatabaseError), contextlib.closing(        # a damaged index is made anew
            sqlite3.connect(os.path.join(chunks, INDEX_NAME), isolation_level=None)) as db:
        db.execute("PRAGMA synchronous = FULL")
        db.execute("UPDATE state SET value = 0 WHERE name = 'clean'")


def _mend(meta: str) -> list[str]:
    disk = Disk()
    path, _ = snapshot.current_file(meta, disk)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA synchronous = FULL")
        db.execute("BEGIN IMMEDIATE")
        mended = mending.mend(db)
        db.execute("COMMIT")
    snapshot.make(path, meta, disk)
    return mended


async def _ask_again(folders: Folders, stores: list[tuple[NodeId, DiskStore]]) -> None:
    """Copies that counted in the lost life and don't in this one are new again: their nodes ask about them."""
    path, _ = snapshot.current_file(str(folders.meta), Disk())
    now = time.time_ns() // 1_000_000
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        for node, store in stores:
            after: tuple[bytes, bytes] | None = None
            while page := await store.inventory(after, fsck.PAGE):
                await store.mark([(copy, NEW, now) for copy in page if copy.state == SETTLED
                                  and not judging.listed(queries.chunk_place(db, copy.digest), node, copy)])
                after = page[-1][:2]


@contextlib.asynccontextmanager
async def _opened(config: Config, *, serving: bool) -> AsyncIterator[tuple[MetadataClient, Sequence[Node]]]:
    """The metadata serves this process alone; the storage nodes do too if `serving`, else their folders are only open."""
    folders = _folders(config)
    if not (folders.meta / "CURRENT").exists():
        raise Refused(f"there is no metadata in {folders.meta}: give the data folders as `staddle serve` has them, or restore a "
                      "backup")
    secret = cluster_secret(folders.root)
    async with contextlib.AsyncExitStack() as stack:
        sockets = stack.enter_context(tempfile.TemporaryDirectory(prefix="staddle-"))
        address = f"unix:{sockets}/meta.sock"
        failures: list[BaseException] = []
        meta = MetaServer(str(folders.meta), address, secret, copies=config.copies, replication=config.replication,
                          on_failure=failures.append)
        await meta.start()
        stack.push_async_callback(meta.stop)
        metadata = await stack.enter_async_context(_client(address, secret, folders, "fsck"))
        nodes: list[Node] = []
        for number, folder in enumerate(_data(config)):
            node, chunks = node_id(folder), str(chunks_of(folder))
            if serving:
                own = f"unix:{sockets}/node-{number}.sock"
                await stack.enter_async_context(_node(folder, node, own, secret, config, address, folders))
                client = NodeClient(own, secret)
                stack.callback(client.close)
                nodes.append(ServingNode(node, client, chunks))
            else:
                nodes.append(OpenedNode(node, await stack.enter_async_context(_store(folder))))
        yield metadata, nodes


@contextlib.asynccontextmanager
async def _client(address: str, secret: bytes, folders: Folders, owner: str) -> AsyncIterator[MetadataClient]:
    client = MetadataClient(address, secret, str(folders.meta), owner=owner)
    await client.start()
    try:
        yield client
    finally:
        await client.stop()


@contextlib.asynccontextmanager
async def _store(folder: Path) -> AsyncIterator[DiskStore]:
    store = DiskStore(str(chunks_of(folder)))
    await store.start()
    try:
        yield store
    finally:
        await store.stop()


@contextlib.asynccontextmanager
async def _node(folder: Path, node: NodeId, address: str, secret: bytes, config: Config, meta: str,
                folders: Folders) -> AsyncIterator[None]:
    async with _client(meta, secret, folders, f"node {node}") as metadata:
        server = NodeServer(data=str(folder), node=node, address=address, secret=secret, metadata=metadata,
                            read_grace_s=config.read_grace_seconds)
        await server.start()
        try:
            yield
        finally:
            await server.stop()
