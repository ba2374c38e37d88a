"""Restoring the metadata from a backup, while nothing runs: a new `meta` folder is built beside the old one and takes its place.

Names must never be used twice, and what the lost life has used is not known for certain. So the restored one begins far above
whatever is known of it: its log starts at an index that is JUMP above the backup's, the old journal's and the greatest
session in any storage node's index. All ids are positions in the log, so they are new too. All sessions are ended.

A backup says where chunks lay; where they lie now is taken from the storage nodes' own indexes, by digest: equal digests are
equal bytes, so a row takes the generation that is there. A node that is not given keeps the locations that name it, for
nobody has looked.

The last step is a rename, so a restore that was interrupted has done nothing and can be repeated.
"""

import fcntl
import os
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import NamedTuple
from urllib.parse import quote
from zlib import crc32

import msgspec

from consensus import backup, snapshot
from consensus.backup import Descriptor
from consensus.config import MetaConfig
from consensus.core.errors import ClusterError, Corrupt, Refused
from consensus.core.ids import POSITION_BITS
from consensus.disk import CREATE, Disk, make_folder, replace_file
from consensus.fitting import Copies, Fitted, Fitting, Progress
from consensus.journal import Journal, JournalFailed
from consensus.segment import HEAD_BYTES, read_head, records, segment_name, segment_numbers
from consensus.snapshot import CURRENT

JUMP = 1 << 32
"""Log entries between all that is known of the lost life and the new one: at 1,000 a second it would have taken 50 days to
write them unseen. Indices have room for some 500 restores."""

INDEX_MAX = 1 << 41
"""Above, positions would not fit SQLite's integers with room to spare (apply.state.count_fits)."""

BLOCK_BYTES = 1 << 20
_SQLITE = b"SQLite format 3\0"


class Restored(Fitted, frozen=True, kw_only=True):
    """`index`: where the log goes on. `old`: where the metadata that was there has gone to, or ""."""

    backup: Descriptor
    index: int
    old: str = ""


class Source(NamedTuple):
    """A backup in a file: its description, and where in the file the copy begins."""

    path: str
    descriptor: Descriptor
    start: int


def read_source(path: str) -> Source:
    """Raises Refused if the file is no backup, Corrupt if it is a damaged one. The copy itself is checked when it is read."""
    try:
        with open(path, "rb") as file:
            first = file.read(len(_SQLITE))
            if first != _SQLITE:
                file.seek(0)
                head = file.readline(backup.HEAD_BYTES_MAX)
                if not head.startswith(b"{") or not head.endswith(b"\n"):
                    raise Refused(f"{path} is not a backup of Staddle's metadata")
                return Source(path, backup.read_descriptor(head, path), len(head))
    except OSError as error:
        raise Refused(f"the backup {path} cannot be read: {error.strerror}") from error
    beside = (path[:-len(".sqlite")] if path.endswith(".sqlite") else path) + ".json"
    try:
        with open(beside, "rb") as file:
            return Source(path, backup.read_descriptor(file.read(), beside), 0)
    except OSError as error:
        raise Refused(f"{path} is a bare copy; its description {beside} cannot be read: {error.strerror}") from error


def restore(file: str, meta: str, nodes: Sequence[Copies], *, cluster: str | None, replace: bool = False,
            disk: Disk | None = None, now_ms: int, progress: Progress = lambda what, done, of: None) -> Restored:
    """Put the backup `file` in the place of the metadata folder `meta`; `nodes` are the storage nodes of this machine.

    `cluster`: fingerprint of the secret that the folder holds, None if there is none yet. `replace` moves metadata that is
    there out of the way rather than refuse.

    Raises Refused (a server runs; metadata is there; not a backup, or another cluster's) and Corrupt (the copy is not what
    was saved): then nothing has changed. OSError and sqlite3.Error: likewise.
    """
    disk, meta = disk or Disk(), os.path.abspath(meta)
    source = read_source(file)
    if cluster is not None and cluster != source.descriptor.cluster:
        raise Refused(f"{file} is a backup of another cluster: its secret is not the one in {os.path.dirname(meta)}/secret")
    with locked(meta):
        there = _has_metadata(meta)
        if there and not replace:
            raise Refused(f"there is metadata in {meta}: give --replace to put the backup in its place (the old folder is kept)")
        fresh = f"{meta}.restoring"
        shutil.rmtree(fresh, ignore_errors=True)         # of a restore that was interrupted
        try:
            restored = _build(source, fresh, meta, nodes, disk, progress)
        except (OSError, sqlite3.Error, JournalFailed, ClusterError) as error:
            shutil.rmtree(fresh, ignore_errors=True)     # a full disk gets its space back
            if isinstance(error, JournalFailed):
                raise OSError(str(error)) from error
            raise
        old = _swap(meta, fresh, now_ms, disk)
    if old and not there:
        shutil.rmtree(old, ignore_errors=True)
        old = ""
    return msgspec.structs.replace(restored, old=old)


def _build(source: Source, fresh: str, meta: str, nodes: Sequence[Copies], disk: Disk, progress: Progress) -> Restored:
    """A whole metadata folder, durable, beside the one that it will replace."""
    make_folder(disk, fresh, "restore.folder")
    used, term = _used(meta, source.descriptor, nodes)
    if used + JUMP >= INDEX_MAX:
        raise Refused("the log's indices are used up: this metadata has been restored too often")
    index, generation = used + JUMP, _generation(meta) + 1
    path = snapshot.file_of(fresh, generation)
    _copy(source, path, disk, progress)
    with closing(Fitting(path, source.descriptor, nodes, progress)) as fitting:
        fitted = fitting.carry_out(index, term + 1, backup.described(meta))
    _sync(path, disk)
    _carry_over(fitted.kept, meta, fresh, disk)
    Journal(os.path.join(fresh, "journal"), disk, MetaConfig(), applied=index, applied_term=term + 1).close()
    snapshot.make(path, fresh, disk)
    replace_file(disk, os.path.join(fresh, CURRENT), f"{generation}\n".encode(), "restore.current")
    return Restored(**{field: getattr(fitted, field) for field in Fitted.__struct_fields__}, backup=source.descriptor,
                    index=index)


# What is there

@contextmanager
def locked(folder: str) -> Iterator[None]:
    """Nobody else uses the folder (the metadata's, or one of chunks), if it is there. Raises Refused."""
    if not os.path.isdir(folder):
        yield
        return
    fd = os.open(os.path.join(folder, "lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Refused(f"a server uses {folder}: stop it first") from error
        yield
    finally:
        os.close(fd)


def _has_metadata(meta: str) -> bool:
    journal = os.path.join(meta, "journal")
    return os.path.exists(os.path.join(meta, CURRENT)) or (os.path.isdir(journal) and bool(os.listdir(journal)))


def _generation(meta: str) -> int:
    with suppress(OSError, ValueError), open(os.path.join(meta, CURRENT), encoding="ascii") as file:
        return int(file.read())
    return 0


def _used(meta: str, descriptor: Descriptor, nodes: Sequence[Copies]) -> tuple[int, int]:
    """(index, term): the greatest that anything tells of, as far as what is there can be read at all."""
    indices, terms = [descriptor.index], [descriptor.term]
    for index, term in (*_of_journal(os.path.join(meta, "journal")), *_of_sqlite(meta)):
        indices.append(index)
        terms.append(term)
    indices += [node.greatest_session() >> POSITION_BITS for node in nodes]
    return max(indices), max(terms)


def _of_journal(folder: str) -> Iterator[tuple[int, int]]:
    numbers = segment_numbers(folder) if os.path.isdir(folder) else []
    for number in numbers:
        with suppress(OSError, Corrupt), open(os.path.join(folder, segment_name(number)), "rb") as file:
            head = read_head(file.read(HEAD_BYTES), number)
            yield head.base_index, head.term
            if number == numbers[-1]:                # older ones end where the next begins
                file.seek(0)
                for record in records(head, file.read(), torn_end=True, where=file.name):
                    yield record.log_index, record.term


def _of_sqlite(meta: str) -> Iterator[tuple[int, int]]:
    for folder in (meta, os.path.join(meta, snapshot.FOLDER)):
        for name in os.listdir(folder) if os.path.isdir(folder) else ():
            if name.endswith(".sqlite"):
                with suppress(sqlite3.Error), closing(_connect(os.path.join(folder, name), "ro")) as db:
                    found = dict(db.execute("SELECT k, v FROM meta WHERE k IN ('applied', 'term')").fetchall())
                    yield found.get("applied") or 0, found.get("term") or 0


def _connect(path: str, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(path)}?mode={mode}", uri=True, isolation_level=None)


# Files

def _copy(source: Source, path: str, disk: Disk, progress: Progress) -> None:
    """The copy in the backup becomes a file of its own. Raises Corrupt unless it is what was saved."""
    descriptor, done, crc = source.descriptor, 0, 0
    fd = disk.open(path, CREATE)
    try:
        with open(source.path, "rb") as file:
            file.seek(source.start)
            while data := file.read(BLOCK_BYTES):
                disk.write(fd, data, "restore.write")
                done, crc = done + len(data), crc32(data, crc)
                progress("copying the backup", done, descriptor.size)
    finally:
        disk.close(fd)
    if (done, crc) != (descriptor.size, descriptor.crc32):
        raise Corrupt(f"the backup {source.path} is damaged: {done} bytes with CRC-32 {crc:08x}, but {descriptor.size} with "
                      f"{descriptor.crc32:08x} were saved")
    if snapshot.applied_in(path) != (descriptor.index, descriptor.term):
        raise Corrupt(f"the backup {source.path} is not the copy that its description is of")


def _sync(path: str, disk: Disk) -> None:
    fd = disk.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        disk.fsync(fd, "restore.fsync")
    finally:
        disk.close(fd)
    disk.fsync_dir(os.path.dirname(path), "restore.fsync_dir")


def _carry_over(names: list[str], meta: str, fresh: str, disk: Disk) -> None:
    """The files of the backups that are still kept: the same files by another name, so that the old folder keeps them."""
    if names:
        target = os.path.join(fresh, backup.FOLDER)
        make_folder(disk, target, "restore.folder")
        for name in names:
            for end in ("sqlite", "json"):
                os.link(os.path.join(meta, backup.FOLDER, f"{name}.{end}"), os.path.join(target, f"{name}.{end}"))
        disk.fsync_dir(target, "restore.fsync_dir")


def _swap(meta: str, fresh: str, now_ms: int, disk: Disk) -> str:
    """The new folder takes the old one's name. Answers where the old one has gone to, "" if there was none."""
    old = ""
    if os.path.isdir(meta):
        old = f"{meta}.before-restore-{now_ms}"
        disk.rename(meta, old, "restore.aside")
    disk.rename(fresh, meta, "restore.rename")
    disk.fsync_dir(os.path.dirname(meta), "restore.fsync_dir")
    return old
