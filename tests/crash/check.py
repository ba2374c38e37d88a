"""A server on an image: is everything there that its client was told, and nothing by halves?

Answers sentences, one for each violation. Checked twice: as found, and again after what the dead have left behind was
collected, for a collector that takes too much is the other way to lose data; then nothing may be left over either.
"""

import asyncio
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from consensus.audit import recount
from consensus.core.errors import ClusterError
from consensus.core.ids import Digest, Generation, SessionId
from consensus.rows import decode_locations
from gateway.s3.errors import S3Error
from tests.crash import told
from tests.crash.disk import Image
from tests.crash.roles import DEADLINE_S, Roles
from tests.crash.script import BUCKET, LARGE, Client, ask_to_complete
from tests.crash.told import ABORTED, COMPLETE, OPEN, Snapshot, Told, body, sha256
from tests.unit.consensus.crash import Unsynced

SHM = "/dev/shm" if Path("/dev/shm").is_dir() else None
WHOLE_DEADLINE_S = 6 * DEADLINE_S
COPIES_MAX = 10_000


def check(image: Image, said: Snapshot) -> list[str]:
    """Lay the image out, start a server on it, look, remove it."""
    folder = Path(tempfile.mkdtemp(prefix="crash-", dir=SHM))
    try:
        image.lay_out(folder)
        (folder / "meta").mkdir(exist_ok=True)        # made by the supervisor before any role starts
        return asyncio.run(_check(folder, said))
    finally:
        shutil.rmtree(folder)


async def _check(folder: Path, said: Snapshot) -> list[str]:
    wrong: list[str] = []
    roles = Roles(folder, Unsynced())
    try:
        async with asyncio.timeout(WHOLE_DEADLINE_S), roles:
            look = Look(roles, said, wrong)
            await look.at_all()
            if wrong:
                return wrong
            await look.at_new_work()
            await roles.end_sessions_of_the_dead()
            await roles.drain()
            roles.settling.move(3_600_000)            # the dead may have moved their clock on
            await roles.settle(3)
            await look.at_all(settled=True)
            await look.at_leftovers()
    except (ClusterError, S3Error, OSError, sqlite3.Error, AssertionError, TimeoutError) as error:
        wrong.append(f"{type(error).__name__}: {error}")
    return wrong + [f"the metadata member failed: {failure!r}" for failure in roles.failures]


UNSYNCED = "damaged in its segment"
"""How the reason ends where a batch was cut off before its sync. The note stays while a commit may still bring the copy."""

PASSING = ("is missing", "but it isn't", UNSYNCED)
"""Ends of reasons for which damage may be noted, for a while, of a copy that the metadata does not list."""


class Look:
    """One look at one server. What it finds it remembers: what was seen once must stay."""

    def __init__(self, roles: Roles, said: Snapshot, wrong: list[str]) -> None:
        self._roles, self._wrong = roles, wrong
        self._said = said
        self._now = Told(said)
        self._settled = False

    def _must(self, fine: bool, sentence: str) -> None:
        if not fine:
            self._wrong.append(sentence)

    async def at_all(self, *, settled: bool = False) -> None:
        self._settled = settled
        self._said = self._now.snapshot()
        await self._buckets()
        if await self._roles.metadata.bucket(BUCKET) is not None:
            await self._objects()
            await self._uploads()
        await self._chunks()
        with closing(sqlite3.connect(f"file:{self._roles.meta._machine.path}?mode=ro", uri=True)) as db:
            self._wrong += [f"recount: {sentence}" for sentence in recount(db)]

    async def _buckets(self) -> None:
        for register, values in self._said.of_kind("bucket").items():
            found = await self._roles.metadata.bucket(register[1]) is not None
            self._must(found in values, f"bucket {register[1]} is there: {found}, told: {set(values)}")
            self._now.seen(register, found)

    async def _objects(self) -> None:
        answer = await self._roles.ask("ListObjectsV2", "GET", f"{BUCKET}?list-type=2")
        listed = dict(zip(answer.texts("Key"), zip(answer.texts("ETag"), answer.texts("Size"), strict=True), strict=True))
        registers = self._said.of_kind("object")
        for key in listed:
            self._must(told.key(key) in registers, f"{key} is listed, and was never asked for")
        for register, values in registers.items():
            key = register[1]
            got = await self._get(key)
            if isinstance(got, S3Error):
                found = None if got.code == "NoSuchKey" else got.code
            else:
                etag, data = got
                found = sha256(data)
                self._must(listed.get(key) == (etag, str(len(data))), f"{key}: GET {etag}, LIST {listed.get(key)}")
                self._must("-" in etag or etag.strip('"') == told.md5(data), f"{key}: its ETag isn't of its bytes")
            self._must((found is None) == (key not in listed), f"{key}: GET finds {found}, listed: {key in listed}")
            self._must(found in values, f"{key}: found {found}, told one of {set(values)}")
            self._now.seen(register, found)

    async def _get(self, key: str) -> tuple[str, bytes] | S3Error:
        try:
            answer = await self._roles.ask("GetObject", "GET", f"{BUCKET}/{key}")
        except S3Error as error:
            return error
        return answer.headers["etag"], answer.body

    async def _uploads(self) -> None:
        answer = await self._roles.ask("ListMultipartUploads", "GET", f"{BUCKET}?uploads")
        listed = set(zip(answer.texts("UploadId"), answer.texts("Key"), strict=True))
        for register, values in self._said.of_kind("upload").items():
            _, upload, key = register
            is_open = (upload, key) in listed
            self._must(OPEN in values if is_open else bool(values - {OPEN, None}),
                       f"upload {key} is open: {is_open}, told: {set(values)}")
            if is_open:
                await self._parts(upload, key)
                # Completing is one step: an object without its upload, or an upload without its object.
            if COMPLETE in values and values != {COMPLETE}:
                got = await self._get(key)
                complete = not isinstance(got, S3Error) and got[0].strip('"').endswith(f"-{self._count(upload)}")
                self._must(complete != is_open, f"upload {key} is open: {is_open}, and its object there: {complete}")
            if not is_open:
                self._now.seen(register, COMPLETE if COMPLETE in values else ABORTED)

    def _count(self, upload: str) -> int:
        return sum(register[1] == upload for register in self._said.of_kind("part"))

    async def _parts(self, upload: str, key: str) -> None:
        answer = await self._roles.ask("ListParts", "GET", f"{BUCKET}/{key}?uploadId={upload}")
        listed = dict(zip(answer.texts("PartNumber"), answer.texts("ETag"), strict=True))
        for register, values in self._said.of_kind("part").items():
            if register[1] == upload:
                etag = listed.pop(register[2], None)
                names = {None if name is None else f'"{told.md5(self._said.parts[str(name)].data)}"': name
                         for name in values}
                self._must(etag in names, f"part {register[2]} of {key}: {etag}, told one of {set(values)}")
                self._now.seen(register, names.get(etag))
        self._must(not listed, f"upload {key} has parts that nobody sent: {set(listed)}")

    async def _chunks(self) -> None:
        """Every chunk that the metadata lists is here and good, and so is every copy that the node knows."""
        store = self._roles.store
        here = self._roles.meta._machine.db.execute("SELECT number FROM node").fetchall()
        listed = set()
        for digest, generation, locations in self._listed():
            copy = await store.find(digest, generation)
            name = f"chunk {digest.hex()[:12]}"
            listed.add((digest, generation.pack()))
            self._must(locations == [number for (number,) in here], f"{name} is listed at {locations}")
            if copy is None:
                self._wrong.append(f"{name} is listed, and not here")
            else:
                self._must(await store.verify(copy), f"{name} is listed, and damaged")
        # A removed copy's row may come back with a power cut, its bytes not. It goes again when the node asks about it. So does
        # what was noted of a batch that was never synced, and what a removal on its way has left: until then, and no longer.
        gone = {(digest, generation) for digest, generation, reason in await store.damage(COPIES_MAX)
                if reason.endswith(PASSING)} - listed
        for copy in await store.inventory(None, COPIES_MAX):
            if self._settled or copy[:2] not in gone:
                self._must(await store.verify(copy), f"the node vouches for {copy.digest.hex()[:12]}, which is damaged")
        self._wrong += [f"damage noted: {digest.hex()[:12]} {reason}"
                        for digest, generation, reason in await store.damage(COPIES_MAX)
                        if (digest, generation) not in gone or (self._settled and not reason.endswith(UNSYNCED))]

    def _listed(self) -> list[tuple[Digest, Generation, list[int]]]:
        rows = self._roles.meta._machine.db.execute("SELECT digest, session, sequence, locations FROM chunk").fetchall()
        return [(Digest(digest), Generation(SessionId(session), sequence), list(decode_locations(locations)))
                for digest, session, sequence, locations in rows]

    async def at_new_work(self) -> None:
        """It takes writes of each kind, and uploads that were open are gone on with and completed."""
        client = Client(self._roles, self._now)
        if await self._roles.metadata.bucket(BUCKET) is None:
            await client.create_bucket(BUCKET)
        await client.put("new-small", body("new-small", 4000))
        await client.put("new-large", body("new-large", LARGE - 1))
        await client.delete("new-large")
        for register, values in self._now.snapshot().of_kind("upload").items():
            if values == {OPEN}:
                await self._finish_upload(client, register[1], register[2])

    async def _finish_upload(self, client: Client, upload: str, key: str) -> None:
        await client.put_part(key, upload, 9, told.Part("part9", 1234))
        snapshot = self._now.snapshot()
        parts = {}
        for register, values in snapshot.of_kind("part").items():
            (name,) = values
            if register[1] == upload and name is not None:
                parts[int(register[2])] = snapshot.parts[str(name)]
        if all(part.size >= 1000 for part in parts.values()):
            await client.complete(key, upload, parts)
        else:                                         # S3 allows only the last part to be small
            etags = {number: told.md5(part.data) for number, part in parts.items() if part.size >= 1000}
            whole = b"".join(parts[number].data for number in sorted(etags))
            await ask_to_complete(self._roles, key, upload, etags)
            self._now.seen(told.upload(upload, key), COMPLETE)
            self._now.seen(told.key(key), sha256(whole))

    async def at_leftovers(self) -> None:
        """The dead have left nothing: no copy that isn't listed, no half-written file."""
        listed = {(digest, generation.pack()) for digest, generation, _ in self._listed()}
        copies = await self._roles.store.inventory(None, COPIES_MAX)
        for copy in copies:
            self._must(copy[:2] in listed, f"chunk {copy.digest.hex()[:12]} is left over")
        chunks = self._roles.root / "chunks"
        files = sum(len(list(folder.iterdir())) for folder in chunks.iterdir() if len(folder.name) == 2)
        self._must(files == sum(copy.segment == 0 for copy in copies), f"{files} chunk files for {len(copies)} copies")
        self._must(not list((chunks / "incoming").iterdir()), "a half-written file is left over")
        used = {copy.segment for copy in copies} | {self._roles.store._segments.current[0]}
        for file in (chunks / "segments").iterdir():
            self._must(int(file.stem, 16) in used, f"segment {file.name} holds nothing and is left over")


