"""The S3 script: what the client asks for while its server's steps are recorded. Every request goes through `Told`."""

import asyncio
import base64
import contextlib
import hashlib
from collections.abc import Awaitable, Callable

from gateway.s3.errors import S3Error
from tests.crash import told
from tests.crash.roles import Answer, Roles
from tests.crash.told import ABORTED, COMPLETE, OPEN, Part, Told, body, sha256

BUCKET = "kept"
LARGE = 2 * ((1 << 20) + 4096) + 5000
"""Two chunks in files, one in a segment."""


class Client:
    """S3 requests whose effects are written down. Keys are in one bucket."""

    def __init__(self, roles: Roles, said: Told) -> None:
        self.roles, self.said = roles, said

    async def create_bucket(self, name: str) -> None:
        with self.said.asking(f"create bucket {name}", {told.bucket(name): True}):
            await self.roles.ask("CreateBucket", "PUT", name)

    async def delete_bucket(self, name: str) -> None:
        with self.said.asking(f"delete bucket {name}", {told.bucket(name): False}):
            await self.roles.ask("DeleteBucket", "DELETE", name)

    async def put(self, key: str, data: bytes) -> None:
        with self.said.asking(f"put {key} ({len(data)})", {told.key(key): sha256(data)}):
            await self.roles.ask("PutObject", "PUT", f"{BUCKET}/{key}", data)

    async def put_cut_short(self, key: str, data: bytes) -> None:
        """The sender goes away in the middle, when the node has begun a file for it."""
        incoming = self.roles.root / "chunks" / "incoming"

        async def go_away() -> None:
            await _until(lambda: any(incoming.iterdir()))
            raise S3Error("IncompleteBody")

        with contextlib.suppress(S3Error), self.said.asking(f"half a put of {key}", {}):
            await self.roles.ask("PutObject", "PUT", f"{BUCKET}/{key}", data, ending=go_away)
        await _until(lambda: not any(incoming.iterdir()))

    async def copy(self, source: str, key: str, source_sha256: str) -> None:
        with self.said.asking(f"copy {source} to {key}", {told.key(key): source_sha256}):
            await self.roles.ask("CopyObject", "PUT", f"{BUCKET}/{key}",
                                 headers={"x-amz-copy-source": f"{BUCKET}/{source}"})

    async def rename(self, source: str, key: str, source_sha256: str) -> None:
        with self.said.asking(f"rename {source} to {key}", {told.key(source): None, told.key(key): source_sha256}):
            await self.roles.ask("RenameObject", "PUT", f"{BUCKET}/{key}?renameObject",
                                 headers={"x-amz-rename-source": f"{BUCKET}/{source}"})

    async def append(self, key: str, before: bytes, data: bytes) -> bytes:
        """Answers all of the object."""
        with self.said.asking(f"append to {key} ({len(data)})", {told.key(key): sha256(before + data)}):
            await self.roles.ask("PutObject", "PUT", f"{BUCKET}/{key}", data,
                                 headers={"x-amz-write-offset-bytes": str(len(before))})
        return before + data

    async def delete(self, key: str) -> None:
        with self.said.asking(f"delete {key}", {told.key(key): None}):
            await self.roles.ask("DeleteObject", "DELETE", f"{BUCKET}/{key}")

    async def delete_many(self, *keys: str) -> None:
        listed = "".join(f"<Object><Key>{key}</Key></Object>" for key in keys)
        document = f"<Delete>{listed}</Delete>".encode()
        sums = {"x-amz-checksum-sha256": _base64_sha256(document)}
        with self.said.asking(f"delete {', '.join(keys)}", {told.key(key): None for key in keys}):
            answer = await self.roles.ask("DeleteObjects", "POST", f"{BUCKET}?delete", document, sums)
            if answer.texts("Error"):
                raise S3Error("InternalError")

    async def create_upload(self, key: str) -> str:
        with self.said.asking(f"begin an upload of {key}", {("beginning", key): True}):
            answer = await self.roles.ask("CreateMultipartUpload", "POST", f"{BUCKET}/{key}?uploads")
            upload = answer.text("UploadId")
            self.said.seen(told.upload(upload, key), OPEN)
        return upload

    async def put_part(self, key: str, upload: str, number: int, part: Part) -> Part:
        value = self.said.uploading(part)
        with self.said.asking(f"put part {number} of {key}", {told.part(upload, number): value}):
            await self.roles.ask("UploadPart", "PUT", f"{BUCKET}/{key}?partNumber={number}&uploadId={upload}", part.data)
        return part

    async def complete(self, key: str, upload: str, parts: dict[int, Part]) -> None:
        whole = b"".join(parts[number].data for number in sorted(parts))
        changes: dict[told.Register, told.Value] = {told.upload(upload, key): COMPLETE, told.key(key): sha256(whole)}
        with self.said.asking(f"complete {key}", changes):
            await ask_to_complete(self.roles, key, upload, {number: told.md5(part.data) for number, part in parts.items()})

    async def abort(self, key: str, upload: str) -> None:
        with self.said.asking(f"abort {key}", {told.upload(upload, key): ABORTED}):
            await self.roles.ask("AbortMultipartUpload", "DELETE", f"{BUCKET}/{key}?uploadId={upload}")


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def ask_to_complete(roles: Roles, key: str, upload: str, etags: dict[int, str]) -> Answer:
    listed = "".join(f'<Part><PartNumber>{number}</PartNumber><ETag>"{etags[number]}"</ETag></Part>'
                     for number in sorted(etags))
    document = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()
    return await roles.ask("CompleteMultipartUpload", "POST", f"{BUCKET}/{key}?uploadId={upload}", document)


def _base64_sha256(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


async def whole_life(roles: Roles, said: Told) -> None:
    """From an empty server to all kinds of steps. Its start and stop are the caller's."""
    client = Client(roles, said)
    await client.create_bucket(BUCKET)
    await client.create_bucket("gone")
    await client.delete_bucket("gone")

    small = {f"small{number}": body(f"small{number}", 3000 + 700 * number) for number in range(6)}
    await asyncio.gather(*(client.put(key, data) for key, data in list(small.items())[:4]))
    for key, data in list(small.items())[4:]:
        await client.put(key, data)
    await client.put("small1", body("small1 again", 4000))
    await client.put("empty", b"")
    twin = body("twin", 6000)
    await client.put("twin1", twin)
    await client.put("twin2", twin)                   # its chunk is passed over
    await client.put("large", body("large", LARGE))
    await client.put("large-twin", body("large", LARGE))
    await client.put_cut_short("never", body("never", (1 << 20) + 2000))
    await roles.settle(2)                             # duplicates go, after the copies that stay were read

    upload = await client.create_upload("parts")
    parts = {1: await client.put_part("parts", upload, 1, Part("part1", 5000))}
    await client.put_part("parts", upload, 2, Part("part2 first", 3000))
    parts[2] = await client.put_part("parts", upload, 2, Part("part2", (1 << 20) + 100_000))
    parts[3] = await client.put_part("parts", upload, 3, Part("part3", 700))
    resumable = await client.create_upload("resumable")
    await client.put_part("resumable", resumable, 1, Part("resumed1", 4000))
    await client.complete("parts", upload, parts)
    given_up = await client.create_upload("given-up")
    await client.put_part("given-up", given_up, 1, Part("given up", 9000))

    await client.copy("small0", "copy", sha256(small["small0"]))
    await client.copy("large", "large-copy", sha256(body("large", LARGE)))
    await roles.snapshot()

    short_lived = [f"short-lived{number}" for number in range(7)]
    for key in short_lived:                           # more than two segments hold
        await client.put(key, body(key, 6000))
    await client.delete("small2")
    await client.delete_many(*short_lived)
    await client.delete_many("small3", "small4", "not-there")
    await client.abort("given-up", given_up)
    await client.delete("large")
    await client.delete("large-copy")
    await client.put("after", body("after", 2500))
    await client.rename("copy", "renamed", sha256(small["small0"]))
    longer = await client.append("after", body("after", 2500), body("after that", 1500))
    await client.append("after", longer, body("and that", 500))      # the list of slices grows in place
    await roles.drain()
    await roles.settle(2)                             # segments that hold nothing go
    for number in range(4):
        await client.put("small0", body(f"small0 {number}", 5000))
    await roles.snapshot()
    await client.delete("large-twin")
    await client.delete("twin1")
    await client.put("twin2", body("twin's end", 1000))
    await roles.drain()
    await roles.settle(2)                             # files go
    await asyncio.to_thread(roles.store._index.checkpoint)
    await client.put("last", body("last", 3000))
    await roles.snapshot()
    await client.put_part("resumable", resumable, 2, Part("resumed2", 2000))


async def short_life(roles: Roles, said: Told) -> None:
    """A little of each kind of write: enough for a broken rule to show."""
    client = Client(roles, said)
    await client.create_bucket(BUCKET)
    await client.put("small", body("small", 3000))
    await client.put("large", body("large", LARGE))
    for number in range(9):                           # more than a segment of the journal and one of chunks hold
        await client.put(f"small{number}", body(f"small{number}", 4000))


async def second_life(roles: Roles, said: Told) -> None:
    """After a power cut: what was found is settled, and work goes on."""
    client = Client(roles, said)
    await client.put("second", body("second", 3500))
    await roles.end_sessions_of_the_dead()
    await roles.drain()
    await roles.settle(2)
    await client.put("small0", body("small0 in the second life", 4500))
    await client.put("large-second", body("large-second", LARGE))
    await client.delete("small1")
    await roles.snapshot()
    await roles.drain()
    await roles.settle(2)


Script = Callable[[Roles, Told], Awaitable[None]]
