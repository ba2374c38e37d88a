"""Backups: kept copies of the metadata, and until when their making pins what they refer to.

A backup is *open* while its copy is made, in the session that asked for it; *kept* from then on.
"""

from consensus.apply.state import State, count_fits
from consensus.core.commands import DropBackup, KeepBackup, OpenBackup
from consensus.core.ids import POSITION_BITS
from consensus.core.results import AnyResult, BackupExists, Done, Malformed, NoBackup

NAME_BYTES_MAX = 128

BACKUPS_MAX = 1000
"""Nobody keeps more; a listing of them is one page."""


def open_backup(state: State, command: OpenBackup) -> AnyResult:
    if not 0 < len(command.name.encode()) <= NAME_BYTES_MAX:
        return Malformed(reason=f"a backup has a name of at most {NAME_BYTES_MAX} bytes")
    if not state.session:
        return Malformed(reason="a backup is opened in a session, with which it ends")
    if state.execute("SELECT 1 FROM backup WHERE name = ?", (command.name,)).fetchone():
        return BackupExists()
    if state.execute("SELECT count(*) FROM backup").fetchone()[0] >= BACKUPS_MAX:
        return Malformed(reason=f"there are at most {BACKUPS_MAX} backups")
    state.touch()
    state.execute("INSERT INTO backup (name, ord, created, idx, session) VALUES (?, ?, ?, NULL, ?)",
                  (command.name, state.position, state.now, state.session))
    return Done()


def keep_backup(state: State, command: KeepBackup) -> AnyResult:
    if not (count_fits(command.index) and command.index <= state.position >> POSITION_BITS):
        return Malformed(reason="a copy holds the log up to an entry that is there")
    state.touch()
    found = state.execute("UPDATE backup SET idx = ?, session = NULL WHERE name = ?",
                          (command.index, command.name)).rowcount
    return Done() if found else NoBackup()


def drop_backup(state: State, command: DropBackup) -> AnyResult:
    state.touch()
    return Done() if state.execute("DELETE FROM backup WHERE name = ?", (command.name,)).rowcount else NoBackup()
