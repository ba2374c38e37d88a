"""`staddle bucket`: buckets of all accounts."""

from typing import Annotated

import typer

from gateway.admin import values
from gateway.cli import printing
from gateway.cli.commands import Server, remote

bucket_app = typer.Typer(no_args_is_help=True, help="Buckets, of all accounts.")

Name = Annotated[str, typer.Argument(metavar="BUCKET", help="Name of the bucket.")]

CopiesOption = Annotated[int | None, typer.Option(
    "--copies", metavar="N", min=0, max=9, help="Copies of each chunk, 1 to 9; 0: as the cluster keeps.", show_default=False)]
ReplicationOption = Annotated[str | None, typer.Option(
    "--replication", metavar="MODE", show_default=False,
    help="Acknowledge a write with a majority of the copies (sync), with one (async), or with every one (all); default: as "
         "the cluster does.")]


@remote(bucket_app, "create", "mb")
def create(
    server: Server, bucket: Name,
    user: Annotated[str, typer.Option("--user", metavar="NAME", help="Owner. (default: whose key signs)")] = "",
    copies: CopiesOption = None, replication: ReplicationOption = None,
) -> None:
    """Create a bucket.

    Example: staddle bucket create photos --user alice
    """
    made = server.post("bucket/create", values.BucketInfo, name=_name(bucket), user=user, copies=copies,
                       replication=_replication(replication))
    server.show(made, lambda: printing.say(f"Bucket {made.name} is there, owned by account {made.account}."))


@remote(bucket_app, "set")
def set_copies(
    server: Server, bucket: Name, copies: CopiesOption = None, replication: ReplicationOption = None,
) -> None:
    """Set how many copies a bucket wants, and when a write to it is acknowledged. What is in it follows by itself.

    Example: staddle bucket set photos --copies 2 --replication async
    """
    if copies is None and replication is None:
        raise typer.BadParameter("give --copies, --replication or both")
    info = server.post("bucket/set", values.BucketInfo, name=_name(bucket), copies=copies,
                       replication=_replication(replication))
    server.show(info, lambda: printing.say(f"Bucket {info.name}: {_durability(info)}. `staddle node list` shows what is still to "
                                           "be done."))


@remote(bucket_app, "lifecycle")
def lifecycle(server: Server) -> None:
    """Show the buckets that have a lifecycle: how far it is carried out, and what the last scan did.

    Example: staddle bucket lifecycle
    """
    found = [each for page in server.pages("lifecycle/status", values.LifecycleList) for each in page.buckets]
    server.show(found, lambda: printing.print_table(
        ("bucket", "rules>", "state", "began", "looked at>", "expired>", "removed>", "markers>", "moved>", "aborted>", "left>",
         "trouble"),
        ((info.bucket, info.rules, info.state, printing.moment(info.began), info.looked, info.expired, info.removed, info.markers,
          info.moved, info.aborted, info.left, info.trouble) for info in found),
        empty="No bucket has a lifecycle."))


@remote(bucket_app, "list", "ls")
def list_buckets(
    server: Server,
    prefix: Annotated[str, typer.Argument(metavar="PREFIX", help="Names that begin so.", show_default=False)] = "",
    account: Annotated[str, typer.Option("--account", metavar="ID", help="Of this account only.")] = "",
) -> None:
    """List buckets.

    Example: staddle bucket list
    """
    found = [each for page in server.pages("bucket/list", values.BucketList, prefix=prefix, account=account)
             for each in page.buckets]
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
        ("Region", info.region), ("Copies", _durability(info)), ("Versions", info.versioning or "not kept"),
        ("Objects", info.objects),
        ("Size", f"{printing.size(info.bytes)} ({info.bytes:,} bytes)"), ("Uploads under way", found.uploads)]))


@remote(bucket_app, "flush-logs")
def flush_logs(server: Server) -> None:
    """Deliver at once what was recorded for buckets with access logging (PutBucketLogging), on all machines.

    Example: staddle bucket flush-logs
    """
    done = server.post("bucket/flush-logs", values.FlushedLogs)
    server.show(done, lambda: printing.say(f"{done.objects} object{'' if done.objects == 1 else 's'} written to target buckets."))


@remote(bucket_app, "delete", "rb", "rm")
def delete(server: Server, bucket: Name) -> None:
    """Delete an empty bucket. Delete its objects first: staddle object rm --recursive s3://BUCKET

    Example: staddle bucket delete photos
    """
    name = _name(bucket)
    server.show(server.post("bucket/delete", values.Done, name=name), lambda: printing.say(f"Bucket {name} is deleted."))


def _replication(text: str | None) -> str | None:
    return "" if text == "default" else text


def _durability(info: values.BucketInfo) -> str:
    copies = "as many copies as the cluster keeps" if info.copies is None else (
        f"{info.copies} cop{'y' if info.copies == 1 else 'ies'}")
    return f"{copies}, replication {info.replication or 'as the cluster does'}"


def _name(text: str) -> str:
    return text.removeprefix("s3://").rstrip("/")
