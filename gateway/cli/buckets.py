"""`staddle bucket`: buckets of all accounts."""

from typing import Annotated

import typer

from gateway.admin import values
from gateway.cli import printing
from gateway.cli.commands import Server, remote

bucket_app = typer.Typer(no_args_is_help=True, help="Buckets, of all accounts.")

Name = Annotated[str, typer.Argument(metavar="BUCKET", help="Name of the bucket.")]


@remote(bucket_app, "create", "mb")
def create(
    server: Server, bucket: Name,
    user: Annotated[str, typer.Option("--user", metavar="NAME", help="Owner. (default: whose key signs)")] = "",
) -> None:
    """Create a bucket.

    Example: staddle bucket create photos --user alice
    """
    made = server.post("bucket/create", values.BucketInfo, name=_name(bucket), user=user)
    server.show(made, lambda: printing.say(f"Bucket {made.name} is there, owned by account {made.account}."))


@remote(bucket_app, "list", "ls")
def list_buckets(
    server: Server,
    prefix: Annotated[str, typer.Argument(metavar="PREFIX", help="Names that begin so.", show_default=False)] = "",
    account: Annotated[str, typer.Option("--account", metavar="ID", help="Of this account only.")] = "",
) -> None:
    """List buckets.

    Example: staddle bucket list
    """
    found: list[values.BucketInfo] = []
    after = ""
    while True:
        page = server.get("bucket/list", values.BucketList, prefix=prefix, account=account, after=after)
        found += page.buckets
        after = page.next
        if not after:
            break
    server.show(found, lambda: printing.print_table(
        ("bucket", "account", "objects>", "size>", "versions", "created"),
        ((bucket.name, bucket.account, bucket.objects, printing.size(bucket.bytes), bucket.versioning or "no",
          printing.moment(bucket.created)) for bucket in found),
        empty="There are no buckets; `staddle bucket create NAME` makes one."))


@remote(bucket_app, "stat")
def stat(server: Server, bucket: Name) -> None:
    """Show one bucket.

    Example: staddle bucket stat photos
    """
    found = server.get("bucket/stat", values.BucketStat, name=_name(bucket))
    info = found.bucket
    server.show(found, lambda: printing.print_fields([
        ("Bucket", info.name), ("Account", info.account), ("Owner", info.owner), ("Created", printing.moment(info.created)),
        ("Region", info.region), ("Versions", info.versioning or "not kept"), ("Objects", info.objects),
        ("Size", f"{printing.size(info.bytes)} ({info.bytes:,} bytes)"), ("Uploads under way", found.uploads)]))


@remote(bucket_app, "usage", "du")
def usage(server: Server) -> None:
    """Add up buckets, objects and bytes for each account.

    Example: staddle bucket usage
    """
    found = server.get("bucket/usage", values.Usage)
    rows = [(each.account, each.buckets, each.objects, printing.size(each.bytes)) for each in found.accounts]
    total = ("all accounts", found.buckets, found.objects, printing.size(found.bytes))
    server.show(found, lambda: printing.print_table(
        ("account", "buckets>", "objects>", "size>"), [*rows, total], empty=""))


@remote(bucket_app, "delete", "rb", "rm")
def delete(server: Server, bucket: Name) -> None:
    """Delete an empty bucket. Delete its objects first: staddle object rm --recursive s3://BUCKET

    Example: staddle bucket delete photos
    """
    name = _name(bucket)
    server.show(server.post("bucket/delete", values.Done, name=name), lambda: printing.say(f"Bucket {name} is deleted."))


def _name(text: str) -> str:
    return text.removeprefix("s3://").rstrip("/")
