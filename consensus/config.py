"""Settings of a metadata member: sizes, limits and times, each with the reason for its default."""

from dataclasses import dataclass

from consensus.core.codec import ENTRY_BYTES_MAX

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class MetaConfig:
    segment_bytes: int = 16 * MIB
    """A journal segment is closed at this size. The last one is copied at each start, which must be possible within the
    space that storage nodes leave free (room.py)."""

    batch_commands_max: int = 512
    """Commands in one log entry: bounds how long one entry holds the loop (512 x 40 us = 20 ms)."""

    batch_bytes_max: int = 1 * MIB
    """Bytes after which an entry takes no more frames."""

    queue_bytes_max: int = 64 * MIB
    """Commands waiting for the log; beyond it, clients are told to come back (promise 8)."""

    snapshot_journal_bytes: int = 256 * MIB
    """A snapshot is taken after so many journal bytes, but not before as many as the database is large: so snapshots
    write at most about as much as the journal does, whatever the size of the database."""

    session_silence_s: float = 60.0
    """A session whose process has not been heard for so long is ended. Liveness only: it is safe at any time."""

    down_after_s: float = 15.0
    """A storage node that has not been heard for so long is said to be down. Nodes speak every PING_S; a restart takes two
    seconds, and to copy what is back by then would be in vain."""

    lost_after_s: float = 600.0
    """A storage node that has been silent for so long does not come back soon: its copies are made anew on others. Machines
    are started again in less, and to copy a disk's content takes longer."""

    housekeeping_s: float = 5.0
    """How often the leader looks for silent sessions, work to drain, and a snapshot to take."""

    read_grace_s: float = 3600.0
    """How long after its deletion a client that has begun to read an object may go on."""

    upload_expire_s: float = 0.0
    """Multipart uploads that were begun longer ago are aborted. 0: never."""

    check_interval_s: float = 14 * 24 * 3600.0
    """How often SQLite looks over the whole file of the metadata: with the scrub of the chunks. 0: never."""

    drain_share: float = 0.2
    """Draining takes at most this share of the log's time while clients are waiting."""

    def __post_init__(self) -> None:
        assert self.batch_bytes_max <= ENTRY_BYTES_MAX // 2, "an entry is closed only after the frame that fills it"
        assert self.segment_bytes <= 1 << 30, "offsets in a segment are 32 bits"


PING_S = 4.0
"""A client names its sessions to the leader this often: three chances until a storage node is said to be down."""

COMMIT_DEADLINE_S = 30.0
"""A commit without an answer for so long is given up as unknown: below the minute after which S3 clients give up."""

SERVING_WAIT_S = 10.0
"""A read waits this long for its member to come back (a restart takes about a second, several on a machine that is busy),
then it is Unavailable."""

BUSY_WAIT_S = 2.0
"""SQLite's BUSY and READONLY_* pass within a checkpoint or a recovery; longer means damage."""

SESSION_SPREAD_MAX = 1024
"""Sequences between a session's mark and its next command. At this spread new commands go to a fresh session, so that
one slow upload never makes the machine keep more than a quarter of RESULTS_PER_SESSION_MAX results for it."""
