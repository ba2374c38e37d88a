"""Disks that break a rule of durability, to show that the harness notices: each must be caught, by some image.

A sync that is swallowed is never carried out. A sync that is late returns at once and is carried out some steps later:
to whoever looks at the disk that is a server which goes on, and answers, before the sync.
"""

from typing import NamedTuple


class Fault(NamedTuple):
    swallowed: frozenset[str] = frozenset()
    late: dict[str, int] = {}     # never changed
    """By the step's name: after so many further steps."""


NO_FAULT = Fault()

FAULTS: dict[str, Fault] = {
    "syncs of segments are swallowed": Fault(frozenset({"segment.fdatasync"})),
    "syncs of chunk files are swallowed": Fault(frozenset({"file.fdatasync"})),
    "syncs of the journal are swallowed": Fault(frozenset({"journal.fdatasync"})),
    "syncs of folders of chunk files are swallowed": Fault(frozenset({"file.fsync_dir"})),
    "syncs of the folder of segments are swallowed": Fault(frozenset({"segment.fsync_dir"})),
    "syncs of the journal's folder are swallowed": Fault(frozenset({"journal.segment.fsync_dir"})),
    # Journal synced after SQLite's commit, the answer, and the next request's write.
    "answers come before the journal's sync": Fault(late={"journal.fdatasync": 3}),
    # Synced after rename, the folder's sync, the index and the answer. (A sync between rename and answer is no fault that
    # could be seen: recovery verifies a file that the index does not know before it vouches for it.)
    "chunk files are renamed and vouched for before their sync": Fault(late={"file.fdatasync": 8}),
}
