"""Opening a member's state: SQLite and journal that fit together, and what to do when SQLite is lost or in doubt.

SQLite is only what the log amounts to. The journal reaches back to the older of two snapshots (or to the beginning, while
there are none), so a damaged or missing SQLite file costs nothing but the time to replay. A damaged journal is another
matter: it alone holds the newest entries, so then the member stops.

Damage shows in three ways, each of which ends in another file instead of the damaged one, without anybody's help:
* the file cannot be opened: `openings` goes on to the next state;
* an entry cannot be applied while the journal is replayed: the caller asks `openings` for the next state;
* a running member meets it, or a reader that tells it: it leaves a mark (`distrust`) and ends, and its next start passes
  that file over.

In a cluster the others have all of it. A member that has no state to go on from there sets what it has aside (`set_aside`)
once a peer says that the cluster is there, and comes back empty, as another incarnation.

States are tried best first: the file in use, the newest snapshot, the older one (the newest may have been taken of a file
that was damaged already), nothing but the journal. An entry that cannot be applied on any of them is a fault of this
program or of the journal: then the member refuses to start, since another start would not help.
"""

import glob
import logging
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import msgspec
import peewee

from consensus import snapshot
from consensus.apply.state import Replication
from consensus.config import MetaConfig
from consensus.core.codec import UNDECODABLE, FutureEntry
from consensus.core.errors import ClusterError, Corrupt, Refused, Unavailable
from consensus.disk import Disk, make_folder, replace_file
from consensus.journal import Journal, JournalFailed, SqliteBehind
from consensus.machine import Machine

log = logging.getLogger("staddle.meta")

MARK = "DISTRUSTED"
"""File in the member's folder: the generation that is not to be opened again, and why."""

MARKS_MAX = 3
MARKS_WITHIN_MS = 3_600_000
"""So many marks within an hour: what comes out of a rebuild is damaged again and again, and one more would not help."""

READ_DAMAGE_AGAIN_MS = 24 * 3_600_000
"""Damage that a read meets is a reason for a rebuild at most once in this time."""

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_OF_THE_DISK = {
    sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PROTOCOL,
}
_TOO_SHORT = 522
"""SQLITE_IOERR_SHORT_READ: a page that should be there lies beyond the file's end."""


class Opening(NamedTuple):
    """A state to go on from. `origin` says what it is, for people."""

    machine: Machine
    journal: Journal
    origin: str

    def close(self) -> None:
        """It could not be used. Damage may show once more here, where it does not matter any more."""
        with suppress(JournalFailed, OSError):
            self.journal.close()
        with suppress(sqlite3.Error, peewee.DatabaseError):
            self.machine.close()


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    generation: int
    why: str
    at_ms: tuple[int, ...]        # of this mark and the ones before, newest last


ASIDE = "damaged"
"""Folder in the member's, of what was set aside last: kept for people, replaced by the next."""


class _Lost(Exception):
    """SQLite's file cannot be used."""


def openings(folder: str, *, disk: Disk, config: MetaConfig, copies: int, replication: Replication,
             now_ms: int, keep_bytes: int = 0) -> Iterator[Opening]:
    """States to go on from, best first. Whoever asks for the next one has closed the one before, for it was damaged.
    `keep_bytes` of entries that SQLite has stay in memory, for other members.

    Raises Corrupt if no state can be had that holds everything acknowledged, Refused if trying again would not help,
    Unavailable if the disk fails.
    """
    given = False
    try:
        _mend_current(folder, disk)
        for origin, prepare in _ways(folder, disk, now_ms):
            try:
                prepare()
                opening = _open(folder, origin, disk, config, copies, replication, keep_bytes)
            except _Lost as error:
                log.error("%s. Going back to an earlier state", error)
                continue
            given = True
            yield opening
    except (JournalFailed, OSError, sqlite3.Error, peewee.DatabaseError) as error:
        raise Unavailable(f"the metadata in {folder} cannot be opened: {error}") from error
    if not given:
        raise Corrupt(f"{folder}: SQLite's file is lost, and neither a snapshot nor the journal's beginning is there to "
                      "make it anew from. `staddle restore` brings back a backup of the metadata")


def _ways(folder: str, disk: Disk, now_ms: int) -> Iterator[tuple[str, Callable[[], object]]]:
    """What each state is, and what has to be done before it can be opened."""
    snapshots = list(reversed(snapshot.listed(folder)))
    path, generation = snapshot.current_file(folder, disk)
    segments = sorted(glob.glob(os.path.join(glob.escape(folder), "journal", "*.log")))
    if not segments and snapshots and not os.path.exists(path):
        raise Corrupt(f"{folder}: the journal is gone, and SQLite's file too. The snapshots there are older than what has "
                      "been acknowledged: put the journal back, or restore a backup with `staddle restore`")
    mark = read_mark(folder)
    if mark is None or mark.generation != generation:
        yield "the metadata file in use", lambda: None
    else:
        _refuse_endless(mark, now_ms)
        log.error("the metadata file in use is passed over: %s", mark.why)
    if not segments:
        return                        # a snapshot without the entries after it would forget what was acknowledged
    for taken in snapshots:
        yield f"the snapshot of entry {taken.index}", partial(_install, taken, folder, disk)
    if int(os.path.basename(segments[0])[:-4]) == 1:
        yield "the journal alone", partial(snapshot.begin_anew, folder, disk)


def _install(taken: snapshot.Snapshot, folder: str, disk: Disk) -> None:
    try:
        snapshot.install(taken, folder, disk)
    except Corrupt as error:
        raise _Lost(str(error)) from error


def _open(folder: str, origin: str, disk: Disk, config: MetaConfig, copies: int, replication: Replication,
          keep_bytes: int) -> Opening:
    try:
        machine = Machine(folder, disk=disk, copies=copies, replication=replication)
    except Exception as error:        # a damaged row may be anything: what is no damage is raised again
        if not in_doubt(error):
            raise
        raise _Lost(f"{origin} cannot be opened: {error!r}") from error
    try:
        journal = Journal(os.path.join(folder, "journal"), disk, config, applied=machine.applied,
                          applied_term=machine.applied_term, keep_bytes=keep_bytes)
    except SqliteBehind as error:
        machine.close()
        raise _Lost(f"{origin} is too old: {error}") from error
    except BaseException:
        machine.close()
        raise
    return Opening(machine, journal, origin)


def _mend_current(folder: str, disk: Disk) -> None:
    """A damaged CURRENT: go on with the newest file. If that is not a whole one, it will show."""
    try:
        snapshot.current_file(folder, disk)
    except (Corrupt, UnicodeDecodeError) as error:
        log.error("%s", error)
        snapshot.use_newest(folder, disk)


def set_aside(folder: str, disk: Disk) -> None:
    """Begin with nothing: journal, snapshots and SQLite's files go into a folder of their own. Copies of backups stay. A
    start that was cut short in the middle finds some of it gone, and does the rest. Raises OSError."""
    aside = os.path.join(folder, ASIDE)
    names = [name for name in os.listdir(folder)
             if name in ("journal", snapshot.FOLDER, snapshot.CURRENT, MARK) or name.startswith("meta.")]
    if "journal" in names:                            # first of all: without it the member knows that it has lost its state
        shutil.rmtree(aside, ignore_errors=True)
        make_folder(disk, aside, "metadata.aside")
        disk.rename(os.path.join(folder, "journal"), os.path.join(aside, "journal"), "metadata.aside.journal")
        disk.fsync_dir(folder, "metadata.aside.fsync_dir")
        names.remove("journal")
    make_folder(disk, aside, "metadata.aside")
    for name in names:
        disk.rename(os.path.join(folder, name), os.path.join(aside, name), "metadata.aside.rename")
    disk.fsync_dir(folder, "metadata.aside.fsync_dir")


def has_journal(folder: str) -> bool:
    """Whether there is anything of the journal, so that no vote is forgotten."""
    return bool(glob.glob(os.path.join(glob.escape(folder), "journal", "*.log")))


# What an error says about the state in which it came up

def in_doubt(error: BaseException) -> bool:
    """Whether metadata on which this came up may be damaged, rather than the disk failing or the set-up being wrong."""
    code = _sqlite_code(error)
    if code is not None:
        return code == _TOO_SHORT or code & 0xFF not in _OF_THE_DISK
    if isinstance(error, FutureEntry):
        return False
    if isinstance(error, Corrupt):
        return True
    return isinstance(error, Exception) and not isinstance(
        error, ClusterError | JournalFailed | OSError | MemoryError | sqlite3.Error | peewee.PeeweeException)


def is_damage(error: BaseException) -> bool:
    """Whether it is damage beyond doubt: rows or pages that no member has written."""
    code = _sqlite_code(error)
    if code is not None:
        return code == _TOO_SHORT or code & 0xFF in _DAMAGED
    return isinstance(error, Corrupt | msgspec.DecodeError | UnicodeDecodeError) and not isinstance(error, FutureEntry)


def _sqlite_code(error: BaseException) -> int | None:
    if isinstance(error, peewee.PeeweeException) and error.__context__ is not None:
        error = error.__context__                     # SQLite's own, which knows its code
    return getattr(error, "sqlite_errorcode", None)


# The mark

def distrust(folder: str, generation: int, why: str, disk: Disk, now_ms: int) -> None:
    """The next start makes the metadata anew instead of opening the file of this generation. Raises OSError."""
    before = read_mark(folder)
    at_ms = (*(before.at_ms if before is not None else ()), now_ms)[-MARKS_MAX:]
    mark = Mark(generation=generation, why=why, at_ms=at_ms)
    replace_file(disk, os.path.join(folder, MARK), msgspec.json.encode(mark), "metadata.distrust")


def read_mark(folder: str) -> Mark | None:
    try:
        with open(os.path.join(folder, MARK), "rb") as file:
            return msgspec.json.decode(file.read(), type=Mark)
    except FileNotFoundError:
        return None
    except UNDECODABLE as error:
        log.error("%s cannot be read, so the metadata file in use is opened: %s", MARK, error)
        return None


def _refuse_endless(mark: Mark, now_ms: int) -> None:
    if len(mark.at_ms) == MARKS_MAX and now_ms - mark.at_ms[0] < MARKS_WITHIN_MS:
        raise Refused(
            f"the metadata was found damaged {MARKS_MAX} times within an hour, although it was made anew from the journal each "
            f"time; the last was: {mark.why}. Nothing acknowledged has been deleted. Look for a failing disk or memory (kernel "
            f"log, memory test); then delete the file {MARK} in the metadata folder to try once more")


def refusal(origin: str, index: int, error: BaseException) -> Refused:
    """When an entry cannot be applied on any state: what to say."""
    return Refused(
        f"log entry {index} cannot be applied, not even on metadata made anew from {origin}: {error!r}. Another start would "
        "not help. Nothing acknowledged has been deleted: keep the data folder as it is. If another version of Staddle wrote "
        "it, start that one; test this machine's memory; or bring back a backup with `staddle restore`. Please report this")
