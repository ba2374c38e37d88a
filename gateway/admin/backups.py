"""Backups of the metadata: made while the server runs, listed, downloaded, dropped. Restoring is done offline."""

from collections.abc import AsyncIterator

from consensus.backup import Descriptor
from consensus.client import KeptBackup
from consensus.core.errors import Refused
from gateway.admin.context import AdminContext, Progress
from gateway.admin.errors import AdminError
from gateway.admin.table import Download
from gateway.admin.values import BackupInfo, BackupList, CreateBackup, Done, Nothing, OneBackup
from gateway.s3.times import iso8601


async def list_backups(ctx: AdminContext, asked: Nothing) -> BackupList:
    """List the backups that are kept, oldest first."""
    return BackupList(backups=list(map(_info, await ctx.metadata.list_backups())))


async def create_backup(ctx: AdminContext, asked: CreateBackup, progress: Progress) -> BackupInfo:
    """Copy the metadata while it is in use, and keep what the copy refers to until the backup is deleted."""
    name = asked.name or iso8601(ctx.admin.services.clock.now_ms())[:19].replace(":", "").replace("T", "-")
    if any(kept.name == name for kept in await ctx.metadata.list_backups()):
        raise AdminError("BackupExists", f"There is a backup {name!r} already. Take another name, or delete that one.")
    try:
        made = await ctx.metadata.take_backup(name, lambda written, total: progress({"bytes": written, "of": total}))
    except Refused as error:
        raise AdminError("InvalidArgument", f"{error}.") from None
    return BackupInfo(name=name, created=iso8601(made.created_ms), state="kept", index=made.index, size=made.size)


async def download_backup(ctx: AdminContext, asked: OneBackup) -> Download:
    """The backup as one file, to be kept elsewhere and given to `staddle restore`."""
    kept = next((kept for kept in await ctx.metadata.list_backups() if kept.name == asked.name), None)
    if kept is None:
        raise _no_backup(asked.name)
    if kept.file is None:
        raise AdminError("NoSuchBackup", f"The backup {asked.name!r} has no copy in the server's folder (any more).")
    return Download(kept.file.name, len(kept.file.head()) + kept.file.size, _pages(ctx, kept.file))


async def _pages(ctx: AdminContext, file: Descriptor) -> AsyncIterator[bytes]:
    offset = 0
    while page := await ctx.metadata.read_backup(file.name, offset):
        offset += len(page)
        yield page


async def delete_backup(ctx: AdminContext, asked: OneBackup) -> Done:
    """Drop a backup. What only it kept is collected."""
    if not await ctx.metadata.drop_backup(asked.name):
        raise _no_backup(asked.name)
    return Done()


def _info(kept: KeptBackup) -> BackupInfo:
    state = "being made" if kept.index is None else "kept" if kept.file is not None else "without its copy"
    return BackupInfo(name=kept.name, created=iso8601(kept.created_ms), state=state, index=kept.index or 0,
                      size=kept.file.size if kept.file is not None else 0)


def _no_backup(name: str) -> AdminError:
    return AdminError("NoSuchBackup", f"There is no backup {name!r}; `staddle backup list` shows them.")
