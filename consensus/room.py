"""Room on the member's disk. What brings data is refused before the journal could fail for want of it, so that what gives
space back still goes through.
"""

import logging
import os
import time
from collections.abc import Iterable

from consensus.core.commands import (
    AnyCommand,
    AppendVersion,
    CompleteUpload,
    CreateBucket,
    CreateKey,
    CreateUpload,
    CreateUser,
    OpenBackup,
    PutPart,
    PutVersion,
    RenameVersion,
    SetAcl,
    SetBucketSetting,
    SetNotification,
    SetTags,
    SetUserPolicy,
    StageContent,
    StageParts,
)
from consensus.core.errors import NoSpace, ReadOnly, Unavailable

log = logging.getLogger("staddle.meta")

BRINGING = (CreateBucket, CompleteUpload, CreateUpload, PutPart, PutVersion, AppendVersion, RenameVersion, StageContent,
            StageParts, SetTags, SetAcl, SetBucketSetting, SetNotification, SetUserPolicy, CreateUser, CreateKey, OpenBackup)
"""Commands after which there is more metadata than before."""

BRINGING_BYTES = 48 << 20
FREEING_BYTES = 24 << 20
"""Free bytes below which such commands, and below which all commands are refused. A start copies one segment (16 MiB) and
SQLite's WAL grows by some more before a checkpoint; storage nodes leave 64 MiB."""

OWN_BYTES = 12 << 20
"""Below this the member's own housekeeping waits too. It frees rows, not bytes; nodes learn from it what they may delete."""

LOOK_S = 1.0
"""Free space is looked up this often: at 100 MB a second it cannot pass both marks in between."""


class Room:
    """How much is left, and whether the disk is mounted for writing, as of the last look. Changes are logged once."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._due = 0.0
        self._free = 0
        self._read_only = False
        self._said = ""

    def check(self, commands: Iterable[AnyCommand]) -> None:
        """Raises NoSpace if there is none for one of them, ReadOnly."""
        if time.monotonic() >= self._due:
            self._look()
        if self._read_only:
            raise ReadOnly("the metadata's disk is mounted read-only")
        if self._free < BRINGING_BYTES and (
                self._free < FREEING_BYTES or any(isinstance(command, BRINGING) for command in commands)):
            raise NoSpace(f"only {self._free >> 20} MiB are free on the metadata's disk")

    def check_own(self) -> None:
        """For the member's own commands and writes. Raises Unavailable."""
        if time.monotonic() >= self._due:
            self._look()
        if self._read_only:
            raise ReadOnly("the metadata's disk is mounted read-only")
        if self._free < OWN_BYTES:
            raise Unavailable("the metadata's disk is full")

    @property
    def refusing(self) -> str:
        """`full` or `read-only`; empty when data may come."""
        if time.monotonic() >= self._due:
            self._look()
        return "read-only" if self._read_only else "full" if self._free < BRINGING_BYTES else ""

    def _look(self) -> None:
        disk = os.statvfs(self._folder)
        self._free, self._due = disk.f_bavail * disk.f_frsize, time.monotonic() + LOOK_S
        self._read_only = bool(disk.f_flag & os.ST_RDONLY)
        refusing = self.refusing
        if refusing != self._said:
            log.log(logging.ERROR if refusing else logging.WARNING, "the metadata's disk %s",
                    f"is {refusing}: commands are refused" if refusing else "takes writes again")
            self._said = refusing
