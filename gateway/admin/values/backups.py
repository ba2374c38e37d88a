"""Backups of the metadata."""

from typing import Annotated

from gateway.admin.values.common import Answer, Request, about

BackupName = Annotated[str, about("Name of the backup.")]


class BackupInfo(Answer, frozen=True, kw_only=True):
    """`state`: "kept", "being made", or "without its copy" where the server's folder has lost it. `index`: the last log
    entry in it; `size`: bytes of the copy."""

    name: str
    created: str
    state: str
    index: int
    size: int


class BackupList(Answer, frozen=True, kw_only=True):
    backups: list[BackupInfo]


class CreateBackup(Request, frozen=True, kw_only=True):
    name: Annotated[str, about("Name of the backup; empty for one made from the time.")] = ""


class OneBackup(Request, frozen=True, kw_only=True):
    name: BackupName
