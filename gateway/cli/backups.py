"""`staddle backup`: copies of the metadata, made while the server runs."""

import os
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from gateway.admin import values
from gateway.cli import printing
from gateway.cli.commands import Server, Yes, remote
from gateway.cli.files import is_stream, written
from gateway.cli.keys import CommandError

backup_app = typer.Typer(
    no_args_is_help=True,
    help="Backups of the metadata. What a kept backup refers to is not deleted from the disks until the backup is.")

BACKUP_BEGINS = b'{"format":'
"""The first line of the file says what it is."""

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the backup.")]


@remote(backup_app, "create")
def create(
    server: Server,
    name: Annotated[str, typer.Argument(metavar="NAME", help="(default: the time)", show_default=False)] = "",
    file: Annotated[Path | None, typer.Option("--file", metavar="FILE", help="Fetch it into this file too.")] = None,
) -> None:
    """Make a backup of the metadata while the server runs, and keep it.

    It holds no object bytes: together with the data folders it brings everything back. Keep the file on another disk.

    Example: staddle backup create before-upgrade --file /mnt/usb/before-upgrade.backup
    """
    if file is not None and not is_stream(file) and not os.access(file.parent, os.W_OK):
        raise CommandError(f"cannot write {file}: {file.parent} is no folder that you may write to.", status=2)
    made = server.long("copying the metadata", "backup/create", values.BackupInfo, name=name)
    if file is not None:
        _fetch(server, made.name, file)
    server.show(made, lambda: printing.say(
        f"Backup {made.name} is kept ({printing.size(made.size)})" + (f", and in {file}." if file is not None else ".")))


@remote(backup_app, "list", "ls")
def list_backups(server: Server) -> None:
    """List the backups that are kept.

    Example: staddle backup list
    """
    found = server.get("backup/list", values.BackupList).backups
    server.show(found, lambda: printing.print_table(
        ("backup", "created", "state", "size>", "log index>"),
        ((each.name, printing.moment(each.created), each.state, printing.size(each.size), each.index) for each in found),
        empty="No backup is kept; `staddle backup create` makes one."))


@remote(backup_app, "download", "get")
def download(
    server: Server, name: Name,
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="(default: NAME.backup)", show_default=False)] = None,
) -> None:
    """Fetch a backup into a file, to be kept elsewhere.

    Example: staddle backup download before-upgrade /mnt/usb/before-upgrade.backup
    """
    target = file or Path(f"{name}.backup")
    size = _fetch(server, name, target)
    server.show({"file": str(target), "size": size}, lambda: printing.say(f"{target}: {printing.size(size)}."))


@remote(backup_app, "delete", "rm")
def delete(server: Server, name: Name, yes: Yes = False) -> None:
    """Delete a backup. Objects that were deleted since it was made cannot be brought back from it any more.

    Example: staddle backup delete before-upgrade
    """
    server.confirm(f"Delete the backup {name}? What only it kept is then removed from the disks.", yes)
    server.show(server.post("backup/delete", values.Done, name=name), lambda: printing.say(f"Backup {name} is deleted."))


def _fetch(server: Server, name: str, file: Path) -> int:
    """The file appears when it is whole and on disk, for its owner only: it holds all accounts' metadata. Its size."""
    try:
        size, pieces = server.download("backup/download", name=name)
        first = next(pieces, b"")
        if not first.startswith(BACKUP_BEGINS):      # a login page has status 200 too, and nobody would notice until it is needed
            raise CommandError(f"what {server.endpoint} sends is not a backup. Is it the right address?")
        with written(file, private=True) as sink, printing.progress(f"fetching {name}") as bar:
            bar.total(size)
            for piece in chain((first,), pieces):
                sink.write(piece)
                bar.advance(len(piece))
    except OSError as error:
        raise CommandError(f"cannot write {file}: {error.strerror or error}") from None
    return size
