"""PySyncObj as it is used here: exactly one release of it has been audited, so exactly that one is accepted, and the parts of
it that touch the world (its dump file, its sockets, its thread, its journal) are taken out. Beside this file, raft.py and
group/core.py know what the library calls its private things.
"""

import contextlib
import logging
from collections.abc import Iterator

import pysyncobj.syncobj
from pysyncobj import SyncObj, SyncObjConf
from pysyncobj.config import SERIALIZER_STATE
from pysyncobj.node import Node
from pysyncobj.version import VERSION

from consensus.group.timing import Timing
from consensus.journal import Journal

logging.getLogger(pysyncobj.syncobj.__name__).addFilter(lambda record: not str(record.msg).startswith("truncating already"))
"""The library says so of entries that the journal only hides from it. One that a committed entry contradicts is Corrupt."""

AUDITED_VERSION = "0.3.17"
PRIVATE_METHODS = ("_checkCommandsToApply", "_onTick", "_isLeader", "_getLeader", "_SyncObj__sendAppendEntries",
                   "_SyncObj__doApplyCommand", "_SyncObj__onBecomeLeader", "_SyncObj__generateRaftTimeout")
PRIVATE_FIELDS = ("_SyncObj__raftLastApplied", "_SyncObj__raftLog", "_SyncObj__transport", "_SyncObj__noopIDx",
                  "_SyncObj__commandsWaitingCommit", "_SyncObj__raftElectionDeadline", "_SyncObj__raftCurrentTerm",
                  "_poller")
REPLACED_GLOBALS = ("createJournal", "Serializer", "monotonicTime")
"""What this file uses of the library beside its documented face; `check_library` looks for each."""

NEVER = 2**62


def check_library() -> None:
    """Raises RuntimeError unless the installed PySyncObj is the audited one with the names that we rely on."""
    missing = [name for name in PRIVATE_METHODS if not hasattr(SyncObj, name)]
    missing += [name for name in REPLACED_GLOBALS if not hasattr(pysyncobj.syncobj, name)]
    if VERSION != AUDITED_VERSION or missing:
        raise RuntimeError(f"PySyncObj {AUDITED_VERSION} is needed, not {VERSION}; missing names: {missing or 'none'}")


class NoSerializer:
    """In place of the library's dump file: SQLite is the snapshot."""

    def checkSerializing(self) -> tuple[int, None]:
        return SERIALIZER_STATE.NOT_SERIALIZING, None

    def cancelTransmisstion(self, node: Node) -> None:
        pass

    def getTransmissionData(self, node: Node) -> None:
        return None


class NoPoller:
    """In place of the library's poll of its own sockets: it has none."""

    def poll(self, timeout: float) -> None:
        pass


def configuration(timing: Timing) -> SyncObjConf:
    """Nothing happens by itself: no thread of its own, no dump, no change of members by the library's commands."""
    return SyncObjConf(
        autoTick=False, appendEntriesUseBatch=True, appendEntriesBatchSizeBytes=NEVER, commandsWaitLeader=False,
        raftMinTimeout=timing.election_min_s, raftMaxTimeout=timing.election_max_s,
        appendEntriesPeriod=timing.heartbeat_s, leaderFallbackTimeout=timing.fallback_s,
        logCompactionMinEntries=NEVER, logCompactionMinTime=NEVER, dynamicMembershipChange=False,
    )


@contextlib.contextmanager
def own_parts(journal: Journal) -> Iterator[None]:
    """A member that is made within has our journal and no dump file: there is no other way to pass them."""
    library = pysyncobj.syncobj
    kept = library.createJournal, library.Serializer
    library.createJournal, library.Serializer = lambda file: journal, lambda *arguments: NoSerializer()
    try:
        yield
    finally:
        library.createJournal, library.Serializer = kept
