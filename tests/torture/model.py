"""Long random histories against a reference model: the real roles in one loop, with real files, and every answer compared.

Several workers, each with its own keys, put new and well-known contents (so they share chunks), copy, delete, upload in
parts, abort, in buckets that were never versioned, are versioned, or are suspended, while collection runs beside them
without any grace. Between two phases all are at rest: listings, counters and recount are compared, versioning is switched,
the server restarted now and then; and when everything was collected, the disk must hold exactly what the model says.
"""

import asyncio
import base64
import dataclasses
import hashlib
import random
import tempfile
import xml.etree.ElementTree as Xml
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from sqlite3 import connect

import msgspec

from consensus.audit import recount
from gateway.s3.errors import S3Error
from storage_node.store import Copy
from tests.crash.roles import SETTINGS, Answer, Roles
from tests.torture.contents import Content
from tests.torture.reference import (
    ENABLED,
    NEVER,
    SUSPENDED,
    Bucket,
    Reference,
    Upload,
    Value,
    joined,
    part_of,
    value_of,
)
from tests.torture.report import Report
from tests.unit.consensus.crash import Unsynced

WORKERS = 6
KEYS_A_WORKER = 12
PHASE = 1000
"""Operations between two comparisons of everything."""

TOLD_EVERY = 10 * PHASE
RESTART = 0.2
COLLECT = 0.2
"""The chance of each after a phase."""

UPLOADS_MAX = 3
COPIES_MAX = 10**6
UNLINK_PATIENCE_S = 10.0
COLLECT_ROUNDS_MAX = 100
"""Each asks about 900 copies: many more than there ever are."""

CUTS = (SETTINGS.chunk_bytes, 400_000)
"""Sizes of chunks; another start may choose the other. (Bodies of up to 256 KiB are one chunk, whatever the setting.)"""

BUCKETS = {"plain": NEVER, "versions": ENABLED, "paused": SUSPENDED}

Step = Callable[[], Awaitable[None]]


class Wrong(AssertionError):
    """The product's answer is not the model's."""


class Worker:
    """Its own keys in all buckets, one request at a time."""

    OPERATIONS = (("put", 26), ("put_if", 8), ("get", 14), ("get_version", 5), ("delete", 12), ("delete_version", 8),
                  ("delete_many", 3), ("copy", 10), ("create", 4), ("part", 8), ("part_copy", 3), ("complete", 4),
                  ("abort", 2), ("list", 1))

    def __init__(self, run: "Run", number: int) -> None:
        self._run, self.name = run, f"w{number}"
        self._choose = random.Random(f"{run.seed} {number}")
        self._made = 0
        self.done: Counter[str] = Counter()
        self.uploads: dict[str, Upload] = {}

    async def work(self, count: int) -> None:
        names, weights = zip(*self.OPERATIONS, strict=True)
        for operation in self._choose.choices(names, weights, k=count):
            await getattr(self, f"_{operation}")()
            self.done[operation] += 1
            self._run.operations += 1

    # Steps

    async def _put(self) -> None:
        name, key = self._bucket(), self._key()
        content = self._content()
        answer = await self._ask("PutObject", "PUT", f"{name}/{key}", content.bytes())
        self._expect(answer.headers["etag"], f'"{content.md5}"', "the ETag of a PUT")
        self._model(name).put(key, value_of(content, self._run.cut), self._version(name, answer))

    async def _put_if(self) -> None:
        name, key = self._bucket(), self._key()
        content, current = self._content(), self._model(name).current(key)
        if self._choose.random() < 0.5:
            headers, code = {"if-none-match": "*"}, "PreconditionFailed" if current else ""
        else:
            etag = current.etag if current and self._choose.random() < 0.7 else "0" * 32
            headers = {"if-match": f'"{etag}"'}
            code = "NoSuchKey" if current is None else "" if current.etag == etag else "PreconditionFailed"
        answer = await self._ask_or_code("PutObject", "PUT", f"{name}/{key}", content.bytes(), headers)
        self._expect(answer if isinstance(answer, str) else "", code, f"PUT {key} with {headers}")
        if not isinstance(answer, str):
            self._model(name).put(key, value_of(content, self._run.cut), self._version(name, answer))

    async def _get(self) -> None:
        name, key = self._bucket(), self._key()
        answer = await self._ask_or_code("GetObject", "GET", f"{name}/{key}")
        self._same(f"{name}/{key}", answer, self._model(name).current(key), "NoSuchKey")

    async def _get_version(self) -> None:
        name, key = self._bucket(), self._key()
        versions = self._model(name).keys.get(key)
        if versions:
            version = self._choose.choice(versions)
            answer = await self._ask_or_code("GetObject", "GET", f"{name}/{key}?versionId={version.id}")
            self._same(f"{name}/{key} {version.id}", answer, version.value, "MethodNotAllowed")

    async def _delete(self) -> None:
        name, key = self._bucket(), self._key()
        answer = await self._ask("DeleteObject", "DELETE", f"{name}/{key}")
        self._model(name).delete(key, self._version(name, answer))

    async def _delete_version(self) -> None:
        name, key = self._bucket(), self._key()
        versions = self._model(name).keys.get(key)
        if versions:
            version = self._choose.choice(versions)
            await self._ask("DeleteObject", "DELETE", f"{name}/{key}?versionId={version.id}")
            self._model(name).remove(key, version.id)

    async def _delete_many(self) -> None:
        name = self._bucket()
        keys = sorted({self._key() for _ in range(self._choose.randrange(1, 6))})
        body = ("<Delete>" + "".join(f"<Object><Key>{key}</Key></Object>" for key in keys) + "</Delete>").encode()
        answer = await self._ask("DeleteObjects", "POST", f"{name}?delete=", body,
                                 {"content-md5": base64.b64encode(hashlib.md5(body).digest()).decode()})
        found = {item.findtext("{*}Key"): item for item in Xml.fromstring(answer.body).iterfind("{*}Deleted")}
        self._expect(sorted(key or "" for key in found), keys, "keys deleted")
        for key in keys:
            self._model(name).delete(key, found[key].findtext("{*}DeleteMarkerVersionId") or "null")

    async def _copy(self) -> None:
        source_name, source, name, key = self._bucket(), self._key(), self._bucket(), self._key()
        versions = self._model(source_name).keys.get(source)
        if not versions:
            return
        version = self._choose.choice(versions) if self._choose.random() < 0.3 else versions[-1]
        if version.value is None:
            return
        asked = f"?versionId={version.id}" if version is not versions[-1] else ""
        headers = {"x-amz-copy-source": f"/{source_name}/{source}{asked}", "x-amz-metadata-directive": "REPLACE"}
        answer = await self._ask("CopyObject", "PUT", f"{name}/{key}", headers=headers)
        self._expect(answer.text("ETag"), f'"{version.value.etag}"', "the ETag of a copy")
        self._model(name).put(key, version.value, self._version(name, answer))

    async def _create(self) -> None:
        if len(self.uploads) < UPLOADS_MAX:
            name, key = self._bucket(), self._key()
            answer = await self._ask("CreateMultipartUpload", "POST", f"{name}/{key}?uploads=")
            self.uploads[answer.text("UploadId")] = Upload(name, key)

    async def _part(self) -> None:
        found = self._upload()
        if found:
            id, upload = found
            content, number = self._content(), self._choose.randrange(1, 5)
            answer = await self._ask("UploadPart", "PUT", self._part_url(id, upload, number), content.bytes())
            self._expect(answer.headers["etag"], f'"{content.md5}"', "the ETag of a part")
            upload.parts[number] = value_of(content, self._run.cut)

    async def _part_copy(self) -> None:
        found, name, key = self._upload(), self._bucket(), self._key()
        value = self._model(name).current(key)
        if not found or value is None or not value.size:
            return
        id, upload = found
        number, headers = self._choose.randrange(1, 5), {"x-amz-copy-source": f"/{name}/{key}"}
        start, end = 0, value.size
        if self._choose.random() < 0.6:
            start = self._choose.randrange(value.size)
            end = self._choose.randint(start + 1, value.size)
            headers["x-amz-copy-source-range"] = f"bytes={start}-{end - 1}"
        part = part_of(value, start, end)
        answer = await self._ask("UploadPartCopy", "PUT", self._part_url(id, upload, number), headers=headers)
        got = answer.text("ETag").strip('"')
        self._expect(got, part.etag, f"the ETag of a part copied from {name}/{key}, {start} to {end}")
        upload.parts[number] = part

    async def _complete(self) -> None:
        found = self._upload()
        if not found or not found[1].parts:
            return
        id, upload = found
        numbers = sorted(upload.parts)
        large = [number for number in numbers[:-1] if upload.parts[number].size >= SETTINGS.part_bytes_min]
        chosen = [*large, numbers[-1]]
        listed = "".join(f"<Part><PartNumber>{number}</PartNumber><ETag>{upload.parts[number].etag}</ETag></Part>"
                         for number in chosen)
        body = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()
        value = joined(upload.parts[number] for number in chosen)
        answer = await self._ask("CompleteMultipartUpload", "POST", f"{upload.bucket}/{upload.key}?uploadId={id}", body)
        self._expect(answer.text("ETag").strip('"'), value.etag, "the ETag of a Complete")
        del self.uploads[id]
        self._model(upload.bucket).put(upload.key, value, self._version(upload.bucket, answer))

    async def _abort(self) -> None:
        found = self._upload()
        if found:
            id, upload = found
            await self._ask("AbortMultipartUpload", "DELETE", f"{upload.bucket}/{upload.key}?uploadId={id}")
            del self.uploads[id]

    async def _list(self) -> None:
        await self._run.compare_listing(self._bucket(), f"{self.name}/")

    # Choices

    def _bucket(self) -> str:
        return self._choose.choice(list(BUCKETS))

    def _model(self, name: str) -> Bucket:
        return self._run.reference.buckets[name]

    def _key(self) -> str:
        return f"{self.name}/{self._choose.randrange(KEYS_A_WORKER):02}"

    def _content(self) -> Content:
        chance = self._choose.random()
        if chance < 0.01:
            return self._choose.choice(self._run.large)
        if chance < 0.5:
            return self._choose.choice(self._run.pool)
        self._made += 1
        return Content(f"{self._run.seed}/{self.name}/{self._made}", round(6000 ** self._choose.random()) - 1)

    def _upload(self) -> tuple[str, Upload] | None:
        return self._choose.choice(list(self.uploads.items())) if self.uploads else None

    @staticmethod
    def _part_url(id: str, upload: Upload, number: int) -> str:
        return f"{upload.bucket}/{upload.key}?partNumber={number}&uploadId={id}"

    # Answers

    async def _ask(self, operation: str, method: str, url: str, data: bytes = b"",
                   headers: dict[str, str] | None = None) -> Answer:
        return await self._run.ask(operation, method, url, data, headers)

    async def _ask_or_code(self, operation: str, method: str, url: str, data: bytes = b"",
                           headers: dict[str, str] | None = None) -> Answer | str:
        """The error's code in place of an answer."""
        try:
            return await self._run.ask(operation, method, url, data, headers)
        except S3Error as error:
            return error.code

    def _version(self, name: str, answer: Answer) -> str:
        id = answer.headers.get("x-amz-version-id")
        expected = {NEVER: id is None, ENABLED: id not in (None, "null"), SUSPENDED: id in (None, "null")}
        self._expect(expected[self._model(name).versioning], True, f"the version id {id} in {name}")
        return id or "null"

    def _same(self, name: str, answer: Answer | str, value: Value | None, code: str) -> None:
        if isinstance(answer, str):
            self._expect(answer, code if value is None else "", f"GET {name}")
            return
        self._expect(answer.status, 200 if value is not None else 404, f"GET {name}")
        assert value is not None
        seen = len(answer.body), hashlib.sha256(answer.body).hexdigest(), answer.headers["etag"].strip('"')
        self._expect(seen, (value.size, value.sha256, value.etag), f"GET {name}")

    @staticmethod
    def _expect(got: object, expected: object, what: str) -> None:
        if got != expected:
            raise Wrong(f"{what}: {got!r}, the model says {expected!r}")


class Run:
    """The server, the model, the workers."""

    def __init__(self, folder: Path, seed: int, report: Report) -> None:
        self._folder, self.seed, self._report = folder, seed, report
        self._choose = random.Random(f"phases {seed}")
        self.reference = Reference()
        self.pool = [Content(f"{seed}/pool/{number}", round(30_000 ** self._choose.random())) for number in range(40)]
        self.large = [Content(f"{seed}/large/{number}", SETTINGS.chunk_bytes * (number + 1) // 2 + number)
                      for number in range(1, 5)]
        self.workers = [Worker(self, number) for number in range(WORKERS)]
        self.cut = CUTS[0]
        self.operations = self.collections = self.restarts = 0

    async def run(self, operations: int) -> None:
        """Raises Wrong."""
        (self._folder / "meta").mkdir()
        await self._start()
        try:
            for name, versioning in BUCKETS.items():
                await self.ask("CreateBucket", "PUT", name)
                self.reference.buckets[name] = Bucket()
                await self._switch(name, versioning)
            left = operations
            while left > 0:
                await self._phase(min(left, PHASE))
                left -= PHASE
                if self.operations % TOLD_EVERY == 0:
                    self._report.say(f"{self.operations:8} operations, {len(self.reference.live_chunks())} live chunks")
            await self._collected()
            await self._all_read()
        finally:
            await self._roles.__aexit__(None, None, None)

    async def _start(self) -> None:
        self._roles = Roles(self._folder, Unsynced())
        await self._roles.__aenter__()
        self.cut = self._choose.choice(CUTS)
        settings = dataclasses.replace(self._roles.services.settings, chunk_bytes=self.cut)
        self._roles.services = msgspec.structs.replace(self._roles.services, settings=settings)

    async def ask(self, operation: str, method: str, url: str, data: bytes = b"",
                  headers: dict[str, str] | None = None) -> Answer:
        return await self._roles.ask(operation, method, url, data, headers)

    async def _phase(self, count: int) -> None:
        collecting = asyncio.create_task(self._collect_beside())
        shares = [count // WORKERS + (number < count % WORKERS) for number in range(WORKERS)]
        working = asyncio.gather(*(worker.work(share) for worker, share in zip(self.workers, shares, strict=True)))
        try:
            await asyncio.wait((working, collecting), return_when=asyncio.FIRST_COMPLETED)
            if collecting.done():
                collecting.result()                   # it only ends by failing
            await working
        finally:
            collecting.cancel()
            working.cancel()
            await asyncio.gather(collecting, working, return_exceptions=True)
        self.reference.uploads = {id: upload for worker in self.workers for id, upload in worker.uploads.items()}
        await self._compare()
        if self._choose.random() < COLLECT:
            await self._collected()
        if self._choose.random() < RESTART:
            await self._restart()
        for name, bucket in self.reference.buckets.items():
            if bucket.versioning != NEVER and self._choose.random() < 0.3:
                await self._switch(name, self._choose.choice((ENABLED, SUSPENDED)))

    async def _collect_beside(self) -> None:
        """Drains and settles at random moments, as the metadata and the node do every few seconds."""
        while True:
            await asyncio.sleep(self._choose.uniform(0, 0.05))
            if self._choose.random() < 0.5:
                await self._roles.drain()
            else:
                await self._roles.settle()
            self.collections += 1

    async def _switch(self, name: str, versioning: str) -> None:
        if versioning != NEVER:
            body = f"<VersioningConfiguration><Status>{versioning}</Status></VersioningConfiguration>".encode()
            await self.ask("PutBucketVersioning", "PUT", f"{name}?versioning=", body)
            self.reference.buckets[name].versioning = versioning

    async def _restart(self) -> None:
        await self._roles.snapshot()
        await self._roles.__aexit__(None, None, None)
        await self._start()
        self.restarts += 1
        await self._compare()

    # Comparisons, at rest

    async def _compare(self) -> None:
        for name in BUCKETS:
            await self.compare_listing(name, "")
            await self._compare_versions(name)
        await self._compare_uploads()
        path = self._roles.meta._machine.path
        with closing(connect(f"file:{path}?mode=ro", uri=True)) as db:
            wrong = recount(db)
            counted = {name: (count, size) for name, count, size in db.execute("SELECT name, objects, bytes FROM bucket")}
        if wrong:
            raise Wrong(f"recount: {wrong[:5]}")
        for name, bucket in self.reference.buckets.items():
            sizes = [value.size for value in bucket.values()]
            Worker._expect(counted[name], (len(sizes), sum(sizes)), f"counters of {name}")

    async def compare_listing(self, name: str, prefix: str) -> None:
        answer = await self.ask("ListObjectsV2", "GET", f"{name}?list-type=2&prefix={prefix}")
        found = list(zip(answer.texts("Key"), answer.texts("ETag"), answer.texts("Size"), strict=True))
        bucket = self.reference.buckets[name]
        current = [(key, bucket.current(key)) for key in sorted(bucket.keys) if key.startswith(prefix)]
        expected = [(key, f'"{value.etag}"', str(value.size)) for key, value in current if value is not None]
        Worker._expect(found, expected, f"the listing of {name}/{prefix}")

    async def _compare_versions(self, name: str) -> None:
        found, marker = [], ""
        while True:
            answer = await self.ask("ListObjectVersions", "GET", f"{name}?versions={marker}")
            page = Xml.fromstring(answer.body)
            found += [(item.findtext("{*}Key"), item.findtext("{*}VersionId"), item.findtext("{*}Size"),
                       item.findtext("{*}IsLatest"))
                      for item in page if item.tag.endswith(("}Version", "}DeleteMarker"))]
            if page.findtext("{*}IsTruncated") != "true":
                break
            marker = f"&key-marker={page.findtext('{*}NextKeyMarker')}" \
                     f"&version-id-marker={page.findtext('{*}NextVersionIdMarker')}"
        expected = [(key, version.id, None if version.value is None else str(version.value.size),
                     "true" if version is versions[-1] else "false")
                    for key, versions in sorted(self.reference.buckets[name].keys.items())
                    for version in reversed(versions)]
        for got, wanted in zip(sorted(found, key=repr), sorted(expected, key=repr), strict=False):
            Worker._expect(got, wanted, f"a version of {name}")
        Worker._expect(found, expected, f"the versions of {name}")

    async def _compare_uploads(self) -> None:
        for name in BUCKETS:
            answer = await self.ask("ListMultipartUploads", "GET", f"{name}?uploads=")
            expected = sorted(id for id, upload in self.reference.uploads.items() if upload.bucket == name)
            Worker._expect(sorted(answer.texts("UploadId")), expected, f"uploads of {name}")
        for id, upload in self.reference.uploads.items():
            answer = await self.ask("ListParts", "GET", f"{upload.bucket}/{upload.key}?uploadId={id}")
            found = list(zip(answer.texts("PartNumber"), answer.texts("Size"), answer.texts("ETag"), strict=True))
            expected_parts = [(str(number), str(part.size), f'"{part.etag}"') for number, part in sorted(upload.parts.items())]
            Worker._expect(found, expected_parts, f"parts of {upload.bucket}/{upload.key}")

    async def _all_read(self) -> None:
        for name, bucket in self.reference.buckets.items():
            for key, versions in bucket.keys.items():
                for version in versions:
                    if version.value is not None:
                        answer = await self.ask("GetObject", "GET", f"{name}/{key}?versionId={version.id}")
                        self.workers[0]._same(f"{name}/{key} {version.id}", answer, version.value, "")

    async def _collected(self) -> None:
        """What nobody refers to goes, all of it; what is left is exactly what the model's values are made of."""
        roles = self._roles
        expected = {(digest, size) for digest, size in self.reference.live_chunks().items()}
        for _ in range(COLLECT_ROUNDS_MAX):
            await self.ask("DeleteObject", "DELETE", "plain/nothing")      # moves the gateway's mark on
            await roles.drain()
            await roles.settle(3)
            copies = await roles.store.inventory(None, COPIES_MAX)
            held = {(copy.digest.hex(), copy.size) for copy in copies}
            if held == expected and len(copies) == len(held):
                break
        Worker._expect(sorted(expected - held)[:5], [], "chunks that are not on the disk")
        Worker._expect(sorted(held - expected)[:5], [], "chunks that are left over on the disk")
        Worker._expect(len(copies), len(held), "copies on the disk")
        # Whoever empties a segment, or leaves one, may be about to unlink it.
        deadline = asyncio.get_running_loop().time() + UNLINK_PATIENCE_S
        while wrong := self._stray(await roles.store.inventory(None, COPIES_MAX)):
            if asyncio.get_running_loop().time() > deadline:
                raise Wrong(f"on the disk after {UNLINK_PATIENCE_S} s: {wrong[:5]}")
            await asyncio.sleep(0.02)

    def _stray(self, copies: list[Copy]) -> list[str]:
        """What keeps the disk's bytes from being those of the copies: files of none, segments without one."""
        chunks = self._folder / "chunks"
        files = {file.name for folder in chunks.iterdir() if len(folder.name) == 2 for file in folder.iterdir()}
        expected = {f"{copy.digest.hex()}.{copy.generation.hex()}" for copy in copies if not copy.segment}
        used = {copy.segment for copy in copies} | {self._roles.store._segments.current[0]}
        segments = {int(file.stem, 16) for file in (chunks / "segments").iterdir()}
        return [*(f"file {name}" for name in sorted(files - expected)), *(f"no file {name}" for name in sorted(expected - files)),
                *(f"half-written {file.name}" for file in (chunks / "incoming").iterdir()),
                *(f"segment {number}, in which nothing lives" for number in sorted(segments - used))]


def run(operations: int, seed: int, *, quiet: bool = False) -> Report:
    report = Report(f"{operations} operations against a model", seed, quiet=quiet)
    with tempfile.TemporaryDirectory(prefix="torture-model-") as folder:
        history = Run(Path(folder), seed, report)
        try:
            asyncio.run(history.run(operations))
        except (Wrong, S3Error) as error:
            report.violations(f"after {history.operations} operations", [f"{type(error).__name__}: {error}"])
    done = sum((worker.done for worker in history.workers), Counter())
    report.say(f"{dict(done)}; {history.collections} collections beside them, {history.restarts} restarts")
    return report
