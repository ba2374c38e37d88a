"""Opening a member's state: SQLite and journal that fit together, from a snapshot if SQLite is lost.

The journal reaches back to the older of two snapshots, so a damaged or missing SQLite file costs nothing but the time to
replay. A damaged journal is another matter: it alone holds the newest entries, so then the member stops.
"""

import logging
import os
import sqlite3

import peewee

from consensus import snapshot
from consensus.apply.state import Replication
from consensus.config import MetaConfig
from consensus.core.errors import Corrupt, Unavailable
from consensus.disk import Disk
from consensus.journal import Journal, JournalFailed, SqliteBehind
from consensus.machine import Machine

log = logging.getLogger("staddle.meta")

DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def recover(folder: str, *, disk: Disk, config: MetaConfig, copies: int,
            replication: Replication) -> tuple[Machine, Journal]:
    """Raises Corrupt if no state can be had that holds everything acknowledged, Unavailable if the disk fails."""
    def opened() -> tuple[Machine, Journal]:
        machine = Machine(folder, disk=disk, copies=copies, replication=replication)
        try:
            journal = Journal(os.path.join(folder, "journal"), disk, config, applied=machine.applied,
                              applied_term=machine.applied_term)
        except BaseException:
            machine.close()
            raise
        return machine, journal

    try:
        try:
            return opened()
        except (sqlite3.DatabaseError, peewee.DatabaseError, SqliteBehind) as error:
            if not _is_lost(error):
                raise
            log.error("SQLite's file is lost: %s. Going back to a snapshot", error)
        for taken in reversed(snapshot.listed(folder)):
            try:
                snapshot.verify(taken)
            except Corrupt as error:
                log.error("%s", error)
                continue
            snapshot.install(taken, folder, disk)
            return opened()
        raise Corrupt(f"{folder}: SQLite's file is lost, and there is no snapshot to go back to")
    except (JournalFailed, OSError, sqlite3.Error, peewee.DatabaseError) as error:
        raise Unavailable(f"the metadata in {folder} cannot be opened: {error}") from error


def _is_lost(error: BaseException) -> bool:
    """SQLite's file itself cannot be used; a disk that does not answer is another matter."""
    if isinstance(error, peewee.PeeweeException) and error.__context__ is not None:
        error = error.__context__                     # SQLite's own, which knows its code
    return isinstance(error, SqliteBehind) or getattr(error, "sqlite_errorcode", 0) & 0xFF in DAMAGED
