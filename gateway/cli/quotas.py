"""`staddle quota`: the most that buckets and accounts may hold; `staddle usage`: what accounts hold."""

from typing import Annotated

import typer

from consensus.core.settings import parse_size
from gateway.admin import values
from gateway.cli import printing
from gateway.cli.commands import Server, remote
from gateway.cli.keys import CommandError

quota_app = typer.Typer(
    no_args_is_help=True, help="Quotas: the most objects and bytes of a bucket, or of all buckets of an account.")

BucketOption = Annotated[str, typer.Option("--bucket", metavar="BUCKET", help="Of this bucket.")]
AccountOption = Annotated[str, typer.Option("--account", metavar="ID", help="Of all buckets of this account together.")]
UserOption = Annotated[str, typer.Option("--user", metavar="NAME", help="Of all buckets of this user's account together.")]

KINDS = ("bucket", "account")


@remote(quota_app, "set")
def set_quota(
    server: Server, bucket: BucketOption = "", account: AccountOption = "", user: UserOption = "",
    size: Annotated[str, typer.Option("--bytes", metavar="SIZE", help="At most so many bytes, such as 10GiB.")] = "",
    objects: Annotated[int | None, typer.Option("--objects", metavar="N", min=0, show_default=False,
                                                help="At most so many objects, older versions counted.")] = None,
) -> None:
    """Set a quota, in place of an earlier one. What is there already stays; what would add to it is refused (QuotaExceeded).

    Example: staddle quota set --bucket photos --bytes 10GiB --objects 100000
    """
    _check(bucket, account, user)
    if not size and objects is None:
        raise CommandError("give --bytes, --objects or both.", status=2)
    try:
        most = int(parse_size(size)) if size else None
    except ValueError as error:
        raise CommandError(f"--bytes: {error}", status=2) from None
    held = server.post("quota/set", values.Held, bucket=bucket, account=account, user=user, objects=objects, bytes=most)
    server.show(held, lambda: _say(held))


@remote(quota_app, "get", "show")
def get_quota(server: Server, bucket: BucketOption = "", account: AccountOption = "", user: UserOption = "") -> None:
    """Show what a bucket or an account holds and may hold; the account of the key that signs, if none is named.

    Example: staddle quota get --user alice
    """
    if bucket or account or user:
        _check(bucket, account, user)
    held = server.get("quota/get", values.Held, bucket=bucket, account=account, user=user)
    server.show(held, lambda: _say(held))


@remote(quota_app, "remove", "rm")
def remove_quota(server: Server, bucket: BucketOption = "", account: AccountOption = "", user: UserOption = "") -> None:
    """Take a quota away.

    Example: staddle quota remove --bucket photos
    """
    _check(bucket, account, user)
    held = server.post("quota/remove", values.Held, bucket=bucket, account=account, user=user)
    server.show(held, lambda: printing.say(f"{held.kind.capitalize()} {held.name} may hold any number of objects and bytes."))


@remote(quota_app, "list", "ls")
def list_quotas(server: Server) -> None:
    """List the buckets and accounts that have a quota, and how much of it is used.

    Example: staddle quota list
    """
    found = [each for kind in KINDS for page in server.pages("quota/list", values.QuotaList, of=kind) for each in page.quotas]
    server.show(found, lambda: printing.print_table(
        ("of", "name", "objects>", "at most>", "size>", "at most>"),
        ((held.kind, held.name, held.objects, _most(held.objects_max), printing.size(held.bytes + held.upload_bytes),
          _size(held.bytes_max)) for held in found),
        empty="There are no quotas; `staddle quota set --bucket NAME --bytes SIZE` sets one."))


def usage(server: Server) -> None:
    """Show what each account holds, and what its quota is. From counters: nothing is read for it.

    Example: staddle usage
    """
    found = server.get("bucket/usage", values.Usage)
    rows = [(each.account, each.buckets, each.objects, printing.size(each.bytes), printing.size(each.upload_bytes),
             _most(each.objects_max), _size(each.bytes_max)) for each in found.accounts]
    total = ("all accounts", found.buckets, found.objects, printing.size(found.bytes),
             printing.size(sum(each.upload_bytes for each in found.accounts)), "", "")
    server.show(found, lambda: printing.print_table(
        ("account", "buckets>", "objects>", "size>", "in uploads>", "objects at most>", "size at most>"), [*rows, total],
        empty=""))


def _check(bucket: str, account: str, user: str) -> None:
    if sum(map(bool, (bucket, account, user))) != 1:
        raise CommandError("give one of --bucket, --account and --user.", status=2)


def _say(held: values.Held) -> None:
    printing.print_fields([
        (held.kind.capitalize(), held.name),
        ("Objects", f"{held.objects} of {_most(held.objects_max)}"),
        ("Size", f"{printing.size(held.bytes + held.upload_bytes)} of {_size(held.bytes_max)}"),
        ("In unfinished uploads", printing.size(held.upload_bytes) if held.upload_bytes else "")])


def _most(count: int | None) -> str:
    return "any number" if count is None else str(count)


def _size(count: int | None) -> str:
    return "any size" if count is None else printing.size(count)
