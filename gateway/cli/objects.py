"""`staddle object`: files in and out of buckets without another S3 client, and what lies behind an object.

Looking and deleting goes over the admin API, so that a keeper reaches every account's buckets; for others, and for bytes,
over S3 itself, with the rights of the key that signs.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated, Any
from urllib.parse import quote

import typer

from gateway.admin import values
from gateway.cli import printing, without_admin
from gateway.cli.commands import FOUND_SOMETHING, Server, Yes, remote
from gateway.cli.files import written
from gateway.cli.keys import CommandError
from gateway.cli.s3 import Place, client, explained, is_place, place, versioned

object_app = typer.Typer(no_args_is_help=True, help="Objects: copy files in and out, list, look, verify, delete.")

At = Annotated[str, typer.Argument(metavar="s3://BUCKET/KEY", help="The object.")]
Version = Annotated[str, typer.Option("--version-id", metavar="ID", help="This version. (default: the current one)")]
Recursive = Annotated[bool, typer.Option("--recursive", "-r", help="All keys that begin like this.")]

PART_BYTES = 64 << 20
"""Of a multipart upload: one chunk of the store each."""

PIPED_PART_BYTES = 16 << 20
"""Of standard input: about ten parts of it are held in memory. So 160 GB fit."""

PARTS_MAX = 10_000


@remote(object_app, "ls", "list")
def list_objects(
    server: Server,
    at: Annotated[str, typer.Argument(metavar="s3://BUCKET[/PREFIX]", help="Keys that begin like this.")],
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="All keys, not one level of folders.")] = False,
) -> None:
    """List objects. A `/` in keys is shown as a folder, unless --recursive.

    Example: staddle object ls s3://photos/2024/
    """
    where = place(at, key=False)
    if server.as_json:
        pages = list(_pages(server, where, "" if recursive else "/"))
        printing.print_json({"objects": [entry for page in pages for entry in page.objects],
                             "prefixes": [prefix for page in pages for prefix in page.prefixes]})
        return
    found = False
    for page in _pages(server, where, "" if recursive else "/"):      # printed as they come: there may be millions
        for prefix in page.prefixes:
            printing.say(f"{'':19}  {'folder':>10}  {prefix}")
        for entry in page.objects:
            printing.say(f"{printing.moment(entry.modified)}  {printing.size(entry.size):>10}  {entry.key}")
        found = found or bool(page.objects or page.prefixes)
    if not found:
        printing.say(f"There is nothing at {where}.")


@remote(object_app, "stat")
def stat(server: Server, at: At, version_id: Version = "") -> None:
    """Show an object: its properties, its parts, its chunks and the storage nodes that hold them.

    Example: staddle object stat s3://photos/2024/sea.jpg
    """
    where = place(at, key=True)
    found = without_admin.either(
        lambda: server.get("object/stat", values.ObjectStat, bucket=where.bucket, key=where.key, version_id=version_id),
        lambda: without_admin.stat(server, where, version_id))

    def people() -> None:
        printing.print_fields([
            ("Object", where), ("Size", f"{printing.size(found.size)} ({found.size:,} bytes)"), ("ETag", found.etag),
            ("Checksum", found.checksum), ("Modified", printing.moment(found.modified)), ("Type", found.content_type),
            ("Storage class", found.storage_class), ("Version", found.version_id),
            ("State", "delete marker" if found.delete_marker else "current" if found.latest else "older version"),
            ("Owner", found.owner), *((f"{name}:", value) for name, value in found.headers.items()),
            *((f"x-amz-meta-{name}:", value) for name, value in found.metadata.items())])
        if found.parts:
            printing.print_table(("part>", "from>", "size>", "etag"), (
                (part.number, part.start, printing.size(part.size), part.etag) for part in found.parts), empty="")
        if found.chunks:
            printing.print_table(("from>", "size>", "chunk", "nodes"), (
                (chunk.start, printing.size(chunk.length), chunk.digest, ", ".join(chunk.nodes) or "NONE")
                for chunk in found.chunks), empty="")
        if found.more_parts or found.more_chunks:
            printing.say("There is more of it than shown.")

    server.show(found, people)


@remote(object_app, "verify")
def verify(server: Server, at: At, version_id: Version = "", recursive: Recursive = False) -> None:
    """Read every copy of every chunk of an object and compare it with its digest. Status 1 if any is damaged.

    Example: staddle object verify s3://photos/2024/sea.jpg
    """
    where = place(at, key=not recursive)
    keys = (entry.key for page in _pages(server, where, "") for entry in page.objects) if recursive else [where.key]
    done: list[values.Verified] = []
    gone = 0
    for key in keys:
        try:
            done.append(server.long(f"verifying {Place(where.bucket, key)}", "object/verify", values.Verified,
                                    bucket=where.bucket, key=key, version_id=version_id))
        except CommandError as error:
            if not recursive or error.code not in ("NoSuchKey", "NoSuchVersion"):
                raise
            gone += 1           # deleted or overwritten since it was listed, which is no reason to leave the others unread
    clean = all(each.clean for each in done)

    def people() -> None:
        bad = [(each.key, copy) for each in done for copy in each.bad]
        if bad:
            printing.print_table(("object", "chunk", "node", "what is wrong"), (
                (key, copy.digest, copy.node, copy.reason) for key, copy in bad), empty="")
        for each in done:
            if each.unreadable:
                printing.say(f"{Place(where.bucket, each.key)}: {each.unreadable:,} bytes have no good copy left. Restore them.")
        copies, size = sum(each.copies for each in done), printing.size(sum(each.bytes for each in done))
        printing.say(f"{len(done)} object(s), {copies} copies, {size} read: {'all good.' if clean else 'NOT all good.'}")
        if gone:
            printing.say(f"{gone} object(s) were deleted or overwritten meanwhile and not verified.")

    server.show(done if recursive else done[0], people)
    if not clean:
        raise typer.Exit(FOUND_SOMETHING)


@remote(object_app, "rm", "delete")
def delete(server: Server, at: At, version_id: Version = "", recursive: Recursive = False, yes: Yes = False) -> None:
    """Delete an object, or with --recursive all whose keys begin like this. In a bucket that keeps versions, delete markers come.

    Example: staddle object rm s3://photos/2024/sea.jpg
    """
    where = place(at, key=not recursive)
    if not recursive:
        gone = _delete(server, where, version_id)
        if not gone.existed and not gone.delete_marker:
            raise CommandError(f"there is no object {where}.", code="NoSuchKey")
        server.show(gone, lambda: printing.say(
            f"{where} is hidden by a delete marker." if gone.delete_marker else f"{where} is deleted."))
        return
    server.confirm(f"Delete every object whose name begins with {where}?", yes)
    count = 0
    with printing.progress(f"deleting {where}") as bar:
        for page in _pages(server, where, ""):
            for entry in page.objects:
                _delete(server, Place(where.bucket, entry.key), "")
                count += 1
                bar.show({"done": count})
    server.show({"deleted": count}, lambda: printing.say(f"{count} object(s) deleted."))


@remote(object_app, "put")
def put(
    server: Server,
    file: Annotated[str, typer.Argument(metavar="FILE", help="File to send; - for standard input.")],
    at: Annotated[str, typer.Argument(metavar="s3://BUCKET/KEY", help="Where to. With / at its end the file's name is added.")],
    content_type: Annotated[str, typer.Option("--content-type", metavar="TYPE", help="(default: from the name)")] = "",
) -> None:
    """Store a file as an object. Large ones go in parts; nothing is seen before all of it is stored.

    Example: staddle object put sea.jpg s3://photos/2024/
    """
    import mimetypes

    where = place(at if file == "-" or not at.endswith("/") else at + os.path.basename(file), key=True)
    kind = content_type or mimetypes.guess_type(where.key)[0] or "binary/octet-stream"
    try:
        with _source(file) as source, printing.progress(f"sending {file}") as bar:
            bar.total(0 if file == "-" else os.fstat(source.fileno()).st_size)
            s3 = client(server)
            with explained(server, where):
                s3.upload_fileobj(source, where.bucket, where.key, ExtraArgs={"ContentType": kind}, Callback=bar.advance,
                                  Config=_transfer(file, source))
                head = s3.head_object(Bucket=where.bucket, Key=where.key)
    except OSError as error:                # /proc has files that cannot be read from any place
        raise CommandError(f"cannot read {file}: {error.strerror or error}") from None
    server.show({"bucket": where.bucket, "key": where.key, "size": head["ContentLength"], "etag": head["ETag"].strip('"')},
                lambda: printing.say(f"{where}: {printing.size(head['ContentLength'])} stored."))


@remote(object_app, "get")
def get(
    server: Server, at: At,
    file: Annotated[str, typer.Argument(
        metavar="FILE", help="Where to; - for standard output. (default: the last part of the key)", show_default=False)] = "",
    version_id: Version = "",
) -> None:
    """Fetch an object into a file. The file appears when all of it is there.

    Example: staddle object get s3://photos/2024/sea.jpg
    """
    where = place(at, key=True)
    if file in ("-", "/dev/stdout"):
        _cat(server, where, version_id)
        return
    target = Path(file or os.path.basename(where.key.rstrip("/")) or "object")
    if target.is_dir():
        target = target / (os.path.basename(where.key.rstrip("/")) or "object")
    s3, size = client(server), 0
    try:
        with written(target, private=False) as sink, printing.progress(f"fetching {where}") as bar, explained(server, where):
            answer = s3.get_object(Bucket=where.bucket, Key=where.key, **versioned(version_id))
            bar.total(answer["ContentLength"])
            for piece in answer["Body"].iter_chunks(1 << 20):
                sink.write(piece)
                size += len(piece)
                bar.advance(len(piece))
    except OSError as error:
        raise CommandError(f"cannot write {target}: {error.strerror or error}") from None
    server.show({"file": str(target), "size": size}, lambda: printing.say(f"{target}: {printing.size(size)} fetched."))


@remote(object_app, "cat")
def cat(server: Server, at: At, version_id: Version = "") -> None:
    """Write an object to standard output.

    Example: staddle object cat s3://photos/list.txt | head
    """
    _cat(server, place(at, key=True), version_id)


@remote(object_app, "cp", "copy")
def copy(
    server: Server,
    source: Annotated[str, typer.Argument(metavar="FROM", help="s3://BUCKET/KEY, or a file.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="s3://BUCKET/KEY, or a file.")],
) -> None:
    """Copy an object to another name, within the server: no bytes move. With a file on one side, the same as put or get.

    Example: staddle object cp s3://photos/sea.jpg s3://archive/sea.jpg
    """
    if not is_place(source) and not is_place(target):
        raise CommandError("neither FROM nor TO is an object: s3://BUCKET/KEY is wanted.", status=2)
    if not is_place(source):
        put(server, source, target)
        return
    if not is_place(target):
        get(server, source, target)
        return
    here = place(source, key=True)
    there = place(target + os.path.basename(here.key) if target.endswith("/") else target, key=True)
    s3 = client(server)
    with explained(server, f"{here} or {there}", here):
        s3.copy_object(CopySource={"Bucket": here.bucket, "Key": here.key}, Bucket=there.bucket, Key=there.key)
    server.show({"from": str(here), "to": str(there)}, lambda: printing.say(f"{here} is copied to {there}."))


@remote(object_app, "mv", "move", "rename")
def move(
    server: Server,
    source: Annotated[str, typer.Argument(metavar="FROM", help="s3://BUCKET/KEY.")],
    target: Annotated[str, typer.Argument(
        metavar="TO", help="s3://BUCKET/KEY, in the same bucket. With / at its end the name stays.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an object that has that name.")] = False,
) -> None:
    """Give an object another name in its bucket, in one step: no bytes move, and nobody sees it under both names or none.

    Example: staddle object mv s3://photos/in/sea.jpg s3://photos/2024/
    """
    here = place(source, key=True)
    there = place(target + os.path.basename(here.key) if target.endswith("/") else target, key=True)
    if here.bucket != there.bucket:
        raise CommandError("an object can be renamed within its bucket only. Between buckets: cp, then rm.", status=2)
    s3 = client(server)
    try:
        with explained(server, f"{here} or {there}", here):
            s3.rename_object(Bucket=here.bucket, Key=there.key, RenameSource=f"/{here.bucket}/{quote(here.key)}",
                             **({} if overwrite else {"DestinationIfNoneMatch": "*"}))
    except CommandError as error:
        if error.code != "PreconditionFailed":
            raise
        raise CommandError(f"there is an object {there} already: --overwrite replaces it.", code=error.code) from None
    server.show({"from": str(here), "to": str(there)}, lambda: printing.say(f"{here} is now {there}."))


def _pages(server: Server, where: Place, delimiter: str) -> Iterator[values.ObjectList]:
    after = ""
    while True:
        try:
            page = server.get("object/list", values.ObjectList, bucket=where.bucket, prefix=where.key, delimiter=delimiter,
                              after=after)
        except CommandError as error:
            if error.code != "AccessDenied" or after:
                raise
            yield from without_admin.objects(server, where, delimiter)
            return
        yield page
        after = page.next
        if not after:
            return


def _delete(server: Server, where: Place, version_id: str) -> values.Deleted:
    return without_admin.either(
        lambda: server.post("object/delete", values.Deleted, bucket=where.bucket, key=where.key, version_id=version_id),
        lambda: without_admin.delete(server, where, version_id))


def _cat(server: Server, where: Place, version_id: str) -> None:
    s3 = client(server)
    try:
        with explained(server, where):
            for piece in s3.get_object(Bucket=where.bucket, Key=where.key, **versioned(version_id))["Body"].iter_chunks(1 << 20):
                sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())    # whoever read has enough: Python must not complain


def _source(file: str) -> IO[bytes]:
    try:
        return sys.stdin.buffer if file == "-" else open(file, "rb")
    except OSError as error:
        raise CommandError(f"cannot read {file}: {error.strerror}", status=2) from None


def _transfer(file: str, source: IO[bytes]) -> Any:
    """Parts large enough for 10,000 of them to hold the file."""
    from boto3.s3.transfer import TransferConfig

    size = 0 if file == "-" else os.fstat(source.fileno()).st_size
    part = max(PART_BYTES, -(-size // PARTS_MAX)) if source.seekable() else PIPED_PART_BYTES
    return TransferConfig(multipart_threshold=part, multipart_chunksize=part, max_concurrency=4)
