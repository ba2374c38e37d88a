"""Room on the member's disk. What brings data is refused before the journal could fail for want of it, so that what gives
space back still goes through.
"""

import os
import time

from consensus.core.commands import (
    AnyCommand,
    CompleteUpload,
    CreateBucket,
    CreateUpload,
    PutPart,
    PutVersion,
    StageContent,
    StageParts,
)
from consensus.core.errors import NoSpace

BRINGING = (CreateBucket, CompleteUpload, CreateUpload, PutPart, PutVersion, StageContent, StageParts)
"""Commands after which there is more metadata than before."""

BRINGING_BYTES = 48 << 20
FREEING_BYTES = 24 << 20
"""Free bytes below which such commands, and below which all commands are refused. A start copies one segment (16 MiB) and
SQLite's WAL grows by some more before a checkpoint; storage nodes leave 64 MiB."""

LOOK_S = 1.0
"""Free space is looked up this often: at 100 MB a second it cannot pass both marks in between."""


class Room:
    """How much is left, as of the last look."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._due = 0.0
        self._free = 0

    def check(self, command: AnyCommand) -> None:
        """Raises NoSpace if there is none for it."""
        now = time.monotonic()
        if now >= self._due:
            disk = os.statvfs(self._folder)
            self._free, self._due = disk.f_bavail * disk.f_frsize, now + LOOK_S
        if self._free < BRINGING_BYTES and (self._free < FREEING_BYTES or isinstance(command, BRINGING)):
            raise NoSpace(f"only {self._free >> 20} MiB are free on the metadata's disk")
