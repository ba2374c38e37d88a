"""The product with one rule broken on purpose, or hurried: what shows that torture would notice.

Nothing of this is in the product. A variant is a function that patches modules of the product; `environment` gives the
variables with which a server's processes find it: Python imports `sitecustomize` before anything else, ours applies the
variants that TORTURE_VARIANTS names.

    server = StaddleProcess(folder, variables=variants.environment(folder, "no verification"))

BROKEN are those that a run must catch; TUNED change only times, so that a run need not wait for them.
"""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_NAMES = "TORTURE_VARIANTS"

BROKEN: dict[str, Callable[[], None]] = {}
TUNED: dict[str, Callable[[], None]] = {}

WRITE_BEHIND_S = 0.05
AHEAD_MS = 2 * 3_600_000
"""More than `read_grace_s`."""


def environment(folder: Path, *names: str) -> dict[str, str]:
    """Variables for a server whose processes have these variants. `folder` gets a small one with the hook."""
    if not names:
        return {}
    for name in names:
        assert name in BROKEN or name in TUNED, f"no variant {name!r}"
    hook = folder / "hook"
    hook.mkdir(parents=True, exist_ok=True)
    (hook / "sitecustomize.py").write_text("from tests.torture import variants\n\nvariants.apply()\n")
    return {"PYTHONPATH": f"{hook}:{ROOT}", _NAMES: ",".join(names)}


def apply() -> None:
    """In a process of the server, before it imports anything of its own."""
    for name in filter(None, os.environ.get(_NAMES, "").split(",")):
        (BROKEN.get(name) or TUNED[name])()


def broken(name: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    def add(patch: Callable[[], None]) -> Callable[[], None]:
        BROKEN[name] = patch
        return patch

    return add


def tuned(name: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    def add(patch: Callable[[], None]) -> Callable[[], None]:
        TUNED[name] = patch
        return patch

    return add


@broken("acknowledged before commit")
def _acknowledged_before_commit() -> None:
    """The gateway answers a plain PUT as soon as its bytes are durable; the metadata follow a little later."""
    from consensus.client import MetadataClient
    from consensus.core.commands import PutVersion
    from consensus.core.errors import ClusterError
    from consensus.core.results import Committed

    commit = MetadataClient.commit
    late: set[asyncio.Task[Any]] = set()

    async def behind(client: MetadataClient, command: Any, ticket: Any) -> None:
        await asyncio.sleep(WRITE_BEHIND_S)
        try:
            await commit(client, command, ticket)
        except ClusterError:
            return                                    # nobody is left who could be told

    async def early(client: MetadataClient, command: Any, ticket: Any = None) -> Any:
        if type(command) is not PutVersion or command.content is None or command.condition:
            return await commit(client, command, ticket)
        task = asyncio.get_running_loop().create_task(behind(client, command, ticket))
        late.add(task)
        task.add_done_callback(late.discard)
        return Committed(version_id=None, order=0, modified_ms=0, etag=command.content.etag, checksum=command.content.checksum)

    MetadataClient.commit = early  # type: ignore[method-assign]


@broken("no verification")
def _no_verification() -> None:
    """Reads, the scrub and repair believe what they find: no CRC, no header, no digest is compared."""
    from storage_node import chunk, local

    class Fits(int):
        """A checksum that is equal to every other."""

        __hash__ = int.__hash__

        def __eq__(self, other: object) -> bool:
            return True

        def __ne__(self, other: object) -> bool:
            return False

    def check_blocks(data: Any, table: Any) -> None:
        pass

    def crc32c(data: Any, previous: int = 0) -> int:
        return Fits(0)

    def check_header(raw: bytes, located: Any) -> int:
        return Fits(0)

    chunk.check_blocks = check_blocks
    local.check_blocks = check_blocks  # type: ignore[attr-defined]
    local.crc32c = crc32c              # type: ignore[attr-defined]
    local._check_header = check_header


@tuned("hurried collection")
def _hurried_collection() -> None:
    """Silent sessions end after seconds, readers get no grace, and the node's clock is ahead, so that the grace of what
    was condemned before is over: what nobody refers to goes at once."""
    from consensus import commits
    from consensus.config import MetaConfig
    from consensus.core.clock import SystemClock
    from storage_node.care.settle import Settler
    from storage_node.server import NodeServer

    class Ahead(SystemClock):
        def now_ms(self) -> int:
            return super().now_ms() + AHEAD_MS

    start = Settler.start

    def start_ahead(settler: Settler) -> None:
        settler._clock = Ahead()
        start(settler)

    commits.PING_S = 0.5  # type: ignore[attr-defined]
    MetaConfig.__init__.__kwdefaults__.update(session_silence_s=3.0, housekeeping_s=0.5)
    assert NodeServer.__init__.__kwdefaults__ is not None
    NodeServer.__init__.__kwdefaults__.update(read_grace_s=0.0, settle_interval_s=0.2)
    Settler.start = start_ahead  # type: ignore[method-assign]


# What power cuts and failed syncs must show.


@tuned("small files")
def _small_files() -> None:
    """Segments are full, checkpoints due and snapshots taken after a few writes: what is seldom otherwise is cut too."""
    from consensus import housekeeping
    from consensus.config import MetaConfig
    from storage_node import index
    from storage_node.disk_store import DiskStore

    MetaConfig.__init__.__kwdefaults__.update(segment_bytes=64 << 10, snapshot_journal_bytes=256 << 10, housekeeping_s=0.5)
    assert DiskStore.__init__.__kwdefaults__ is not None
    DiskStore.__init__.__kwdefaults__.update(segment_bytes=2 << 20)
    housekeeping.WAL_BYTES = 128 << 10
    index.CHECKPOINT_PAGES = 64


@broken("no fsync")
def _no_fsync() -> None:
    """Bytes are written and left to the kernel; only folders are synced."""
    from consensus.disk import Disk

    def skip(disk: Disk, fd: int, step: str) -> None:
        pass

    Disk.fdatasync = Disk.fsync = skip  # type: ignore[method-assign]


@broken("no folder fsync")
def _no_folder_fsync() -> None:
    """Bytes are synced, names are not."""
    from consensus.disk import Disk

    def skip(disk: Disk, path: str, step: str) -> None:
        pass

    Disk.fsync_dir = skip  # type: ignore[method-assign]


@broken("swallowed fsync error")
def _swallowed_fsync_error() -> None:
    """A sync that fails is taken for done."""
    _on_failed_sync(lambda again: None)


@broken("merely fsync again")
def _merely_fsync_again() -> None:
    """A sync that fails is tried once more, and believed if that succeeds: it always does, over lost pages."""
    _on_failed_sync(lambda again: again())


def _on_failed_sync(then: Callable[[Callable[[], None]], None]) -> None:
    from consensus.disk import Disk

    for name in ("fdatasync", "fsync", "fsync_dir"):
        _answer_failures(Disk, name, then)


def _answer_failures(disk_type: Any, name: str, then: Callable[[Callable[[], None]], None]) -> None:
    sync = getattr(disk_type, name)

    def believed(disk: Any, what: Any, step: str) -> None:
        try:
            sync(disk, what, step)
        except OSError:
            then(lambda: sync(disk, what, step))

    setattr(disk_type, name, believed)


# What histories of several gateways must show.


@broken("reads without an index")
def _reads_without_an_index() -> None:
    """A gateway believes its member's file, whatever was acknowledged through others."""
    from consensus.moments import Moments

    async def index(moments: Moments) -> int:
        return 0

    Moments.index = index  # type: ignore[method-assign]


@broken("renames leave the old name")
def _renames_leave_the_old_name() -> None:
    """A rename is no more than a copy."""
    from consensus.apply import renaming
    from consensus.core.commands import DeleteVersion

    def elsewhere(**named: Any) -> DeleteVersion:
        return DeleteVersion(**{**named, "key": "nowhere"})

    renaming.DeleteVersion = elsewhere  # type: ignore[misc, assignment]
