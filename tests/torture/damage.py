"""Chunks that rot on the disk: no wrong byte is ever served, the scrub finds every one, and fresh bytes mend them.

Objects are written, and their chunks damaged in the files: a third under a running server (which has some of them open,
and has read them before), a third while it is down, after kill -9, so that recovery meets them too, and a third that
nobody reads before the scrub does. Every object is read, as a whole and around the damage. What may come is the right
bytes, an error, or a body that is cut off, right as far as it goes; for a small object only an error: its status is
chosen when its bytes are in hand. At the end the same contents are put once more, and everything reads right.
"""

import asyncio
import contextlib
import hashlib
import http.client
import os
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from consensus.core.ids import Digest
from storage_node.chunk import BLOCK_BYTES, FILE_DATA_START, HEADER_BYTES, block_count, file_name
from storage_node.disk_store import DiskStore
from storage_node.segments import segment_path
from storage_node.young import beyond
from tests.bench.signer import Signer
from tests.servers import ACCESS_KEY, SECRET_KEY, StaddleProcess
from tests.talker import Talker
from tests.torture import admin, leftovers, variants
from tests.torture.contents import KIB, MIB, Content
from tests.torture.report import Report, scratch
from tests.torture.workload import BUCKET

CHUNK_BYTES = 2 * MIB
LARGE_SHARE = 0.15
SPARED = 0.2
"""So many more chunks than are damaged: they must stay as they are."""

WHOLE_AT_ONCE = 256 * KIB
"""Objects up to this size are read before the status is chosen (docs/ARCHITECTURE.md, "A small GET")."""

EQUAL = 5000
"""Many small ones have this size, so that a whole record can be put in the place of another."""

READERS = 4
MEND_PATIENCE_S = 20.0
ROT = 4096


class Place(NamedTuple):
    """Where a copy lies: in the file at `path`, header, bytes and table at these offsets."""

    digest: bytes
    generation: bytes
    path: Path
    header: int
    data: int
    size: int
    is_file: bool

    @property
    def table(self) -> int:
        return self.data + self.size

    @property
    def end(self) -> int:
        return self.table + 4 * block_count(self.size)


class Stored(NamedTuple):
    key: str
    content: Content
    digests: tuple[bytes, ...]


def places(data: Path) -> list[Place]:
    """Of all copies of a data folder."""
    chunks = data / "chunks"
    found = []
    with closing(sqlite3.connect(f"file:{chunks / 'index.sqlite'}?mode=ro", uri=True)) as db:
        young = [tuple(row[:5]) for _, rows in beyond(db, 0) for row in rows]
        copies = {*db.execute("SELECT digest, generation, size, segment, place FROM chunk"), *young}
        for digest, generation, size, segment, place in sorted(copies):
            if segment:
                path, at, start = Path(segment_path(str(chunks), segment)), place, place + HEADER_BYTES
            else:
                path, at, start = chunks / file_name(Digest(digest), generation), 0, FILE_DATA_START
            found.append(Place(digest, generation, path, at, start, size, not segment))
    return found


def rot(data: Path, count: int, choose: random.Random, among: Callable[[bytes], bool] = lambda digest: True) -> int:
    """Damage so many copies of a data folder, or as many as there are of those digests; some may go meanwhile. Returns how
    many."""
    there = places(data)
    fitting = [place for place in there if among(place.digest)]
    done = 0
    for place in choose.sample(fitting, min(count, len(fitting))):
        kind = choose.choice((bit, several, zeroed, header, table, record_zeroed, *((cut, deleted) if place.is_file else ())))
        with contextlib.suppress(FileNotFoundError):
            kind(place, there, choose)
            done += 1
    return done


# Kinds of damage: each changes the file and answers which bytes of the chunk cannot be right any more, or None if all
# bytes are as they were (a header or a table is damaged, or it is unclear).

Span = tuple[int, int]
Kind = Callable[[Place, "list[Place]", random.Random], Span | None]


def _overwrite(place: Place, at: int, data: bytes) -> None:
    fd = os.open(place.path, os.O_RDWR)
    try:
        os.pwrite(fd, data, at)
    finally:
        os.close(fd)


def _read(place: Place, at: int, length: int) -> bytes:
    with place.path.open("rb") as file:
        file.seek(at)
        return file.read(length)


def bit(place: Place, others: list[Place], choose: random.Random) -> Span | None:
    """One bit of the bytes."""
    at = choose.randrange(place.size)
    (byte,) = _read(place, place.data + at, 1)
    _overwrite(place, place.data + at, bytes([byte ^ 1 << choose.randrange(8)]))
    return at, at + 1


def several(place: Place, others: list[Place], choose: random.Random) -> Span | None:
    """A run of bytes."""
    length = choose.randint(1, min(ROT, place.size))
    at = choose.randrange(place.size - length + 1)
    before = _read(place, place.data + at, length)
    _overwrite(place, place.data + at, bytes([byte ^ 0xFF for byte in before]))
    return at, at + length


def zeroed(place: Place, others: list[Place], choose: random.Random) -> Span | None:
    """A block of the disk that reads as zeros."""
    at = choose.randrange(place.size) // ROT * ROT
    length = min(ROT, place.size - at)
    if not any(_read(place, place.data + at, length)):
        return bit(place, others, choose)             # a single byte may have been zero
    _overwrite(place, place.data + at, bytes(length))
    return at, at + length


def header(place: Place, others: list[Place], choose: random.Random) -> Span | None:
    at = place.header + choose.randrange(HEADER_BYTES)
    (byte,) = _read(place, at, 1)
    _overwrite(place, at, bytes([byte ^ 1 << choose.randrange(8)]))
    return None


def table(place: Place, others: list[Place], choose: random.Random) -> Span | None:
    at = choose.randrange(place.table, place.end)
    (byte,) = _read(place, at, 1)
    _overwrite(place, at, bytes([byte ^ 1 << choose.randrange(8)]))
    return None


def swapped(place: Place, others: list[Place], choose: random.Random) -> Span | None:
    """Another chunk's bytes in its place, as far as they go: with their header and their table if the whole fits."""
    same = [other for other in others if other.is_file == place.is_file and other.digest != place.digest]
    other = choose.choice(same)
    length = min(place.size, other.size)
    if other.size == place.size or place.is_file:
        whole = _read(other, other.header, other.end - other.header)
        if place.is_file:
            os.truncate(place.path, 0)
        _overwrite(place, place.header, whole)
    else:
        _overwrite(place, place.data, _read(other, other.data, length))
    return 0, length


def record_zeroed(place: Place, others: list[Place], choose: random.Random) -> Span | None:
    """Header, bytes and table are all zeros: a write that never reached the disk."""
    _overwrite(place, place.header, bytes(place.end - place.header))
    return 0, place.size


def cut(place: Place, others: list[Place], choose: random.Random) -> Span | None:
    """A file that ends too early: in its header, its bytes or its table."""
    to = choose.choice((0, choose.randrange(FILE_DATA_START), place.data + choose.randrange(place.size),
                        choose.randrange(place.table, place.end)))
    os.truncate(place.path, to)
    return (max(0, to - place.data), place.size) if to < place.table else None


def deleted(place: Place, others: list[Place], choose: random.Random) -> Span | None:
    place.path.unlink()
    return 0, place.size


ANYWHERE: tuple[Kind, ...] = (bit, several, zeroed, header, table, swapped, record_zeroed)
FILES_ONLY: tuple[Kind, ...] = (cut, deleted)


class Read(NamedTuple):
    status: int                   # 0: no answer at all
    body: bytes
    announced: int
    """Bytes that the head promised."""

    @property
    def complete(self) -> bool:
        return len(self.body) == self.announced


class Reader:
    """GETs that keep what has come when the connection is cut. One connection for each."""

    def __init__(self, server: StaddleProcess) -> None:
        self._server = server
        self._signer = Signer(host="{}:{}".format(*server.address), access_key=ACCESS_KEY, secret_key=SECRET_KEY)

    def get(self, key: str, span: Span | None = None) -> Read:
        headers = (("range", f"bytes={span[0]}-{span[1] - 1}"),) if span else ()
        connection = self._server.connect(60.0)
        body = bytearray()
        try:
            connection.connect()
            connection.sock.sendall(self._signer.request("GET", f"/{BUCKET}/{key}", headers=headers))
            answer = http.client.HTTPResponse(connection.sock, method="GET")
            try:
                answer.begin()
            except (OSError, http.client.HTTPException):
                return Read(0, b"", 0)
            announced = int(answer.headers["content-length"])
            try:
                while piece := answer.read1(1 << 16):
                    body += piece
            except (OSError, http.client.HTTPException):
                pass                                  # cut: what came is what counts
            return Read(answer.status, bytes(body), announced)
        finally:
            connection.close()


class Run:
    """One run on one server."""

    def __init__(self, server: StaddleProcess, report: Report, count: int, seed: int) -> None:
        self._server, self._report, self._count, self._seed = server, report, count, seed
        self._choose = random.Random(f"damage {seed}")
        self.objects: list[Stored] = []
        self.spans: dict[bytes, Span | None] = {}
        """By the digests of damaged chunks."""
        self.places: dict[bytes, Place] = {}
        self.kinds: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()

    # Writing

    def fill(self) -> list[str]:
        chunks = 0
        while chunks < self._count * (1 + SPARED):
            large = self._choose.random() < LARGE_SHARE
            small = EQUAL if self._choose.random() < 0.2 else round(1000 * 900 ** self._choose.random())
            size = self._choose.randint(CHUNK_BYTES // 2, 3 * CHUNK_BYTES) if large else small
            content = Content(f"damage {self._seed}/{len(self.objects)}", size)
            data = content.bytes()
            digests = tuple(hashlib.sha256(data[at:at + CHUNK_BYTES]).digest() for at in range(0, size, CHUNK_BYTES))
            self.objects.append(Stored(f"o{len(self.objects):05}", content, digests))
            chunks += len(digests)
        return self._in_parallel(self._put, self.objects)

    def _put(self, stored: Stored) -> list[str]:
        with Talker(self._server) as talker:
            status, answer, _ = talker.ask("PUT", f"/{BUCKET}/{stored.key}", body=stored.content.bytes())
        return [] if status == 200 else [f"PUT {stored.key} answers {status}: {answer[:300]!r}"]

    def _in_parallel(self, work: Callable[[Stored], list[str]], objects: list[Stored]) -> list[str]:
        with ThreadPoolExecutor(READERS) as pool:
            return [sentence for found in pool.map(work, objects) for sentence in found]

    # Damaging

    def locate(self) -> None:
        for place in places(self._server.data[0]):
            assert place.digest not in self.places, "each content is written once"
            self.places[place.digest] = place
        assert all(digest in self.places for stored in self.objects for digest in stored.digests)

    def damage(self, count: int) -> None:
        """So many chunks that are whole until now."""
        whole = sorted(digest for digest in self.places if digest not in self.spans)
        others = [place for digest, place in self.places.items() if digest not in self.spans]
        for digest in self._choose.sample(whole, count):
            place = self.places[digest]
            kind = self._choose.choice(ANYWHERE + (FILES_ONLY if place.is_file else ()))
            self.spans[digest] = kind(place, [other for other in others if other.digest not in self.spans], self._choose)
            self.kinds[kind.__name__] += 1

    # Reading

    def read_all(self) -> list[str]:
        return self._in_parallel(self._read, self.objects)

    def _read(self, stored: Stored) -> list[str]:
        reader = Reader(self._server)
        damaged = [digest for digest in stored.digests if digest in self.spans]
        whole = stored.content.bytes()
        found = list(self._judge(stored, whole, reader.get(stored.key), bool(damaged), small=len(whole) <= WHOLE_AT_ONCE))
        for number, digest in enumerate(stored.digests):
            span = self.spans.get(digest)
            if span is not None:
                start = number * CHUNK_BYTES + max(0, span[0] - 10)
                end = min(len(whole), number * CHUNK_BYTES + min(span[1], span[0] + BLOCK_BYTES) + 10)
                part = reader.get(stored.key, (start, end))
                found += self._judge(stored, whole[start:end], part, True, small=end - start <= WHOLE_AT_ONCE)
        return found

    def _judge(self, stored: Stored, right: bytes, read: Read, damaged: bool, *, small: bool) -> Iterator[str]:
        name = f"{stored.key} ({len(right)} of {stored.content.size} bytes)"
        if read.status in (200, 206):
            if not right.startswith(read.body):
                at = next(at for at, (a, b) in enumerate(zip(read.body, right, strict=False)) if a != b)
                yield f"{name}: wrong bytes from {at} on, answer {read.status}, complete: {read.complete}"
            elif read.announced != len(right):
                yield f"{name}: {read.announced} bytes are announced"
            elif read.complete:
                self.seen["right"] += 1
            elif small:
                yield f"{name}: is small, and was begun and cut off after {len(read.body)} bytes"
            elif not damaged:
                yield f"{name}: is whole, and was cut off after {len(read.body)} bytes"
            else:
                self.seen["cut off"] += 1
        elif not damaged or read.status < 500:
            yield f"{name}: answers {read.status}: {read.body[:200]!r}"
        else:
            self.seen[f"error {read.status}"] += 1

    # The scrub

    def scrub(self) -> list[str]:
        """By a pass of the product's: every damaged chunk is noted as damaged, or put away already; every other is held
        and good."""
        done = admin.run(self._server, "scrub/run", full_speed=True)
        wrong = [f"scrub of {node['node']}: {node['error']}{node['trouble']}" for node in done["nodes"]
                 if node["error"] or node["trouble"] or node["errors"]]
        self.seen["found damaged by the scrub"] = sum(node["damaged"] for node in done["nodes"])
        self._server.stop()
        held, noted, bad = asyncio.run(_verify_all(self._server.data[0] / "chunks"))
        for digest in sorted(self.places):
            name = digest.hex()[:12]
            if digest in self.spans:
                if digest in held and digest not in noted:
                    wrong.append(f"chunk {name} is damaged, and was not found")
            elif digest not in held or digest in bad | noted:
                wrong.append(f"chunk {name} is whole, and is {'gone' if digest not in held else 'taken for damaged'}")
        self._server.start()
        return wrong

    def fsck(self) -> list[str]:
        """It names every damaged chunk, as lost or damaged, and no other."""
        report = admin.run(self._server, "fsck/run", verify=True)
        named = {finding["digest"] for finding in report["findings"] if finding["severity"] != "note"}
        damaged = {digest.hex() for digest in self.spans}
        return [*(f"chunk {digest[:12]} is damaged, and fsck does not say so" for digest in sorted(damaged - named)),
                *(f"fsck: {finding['text']}" for finding in report["findings"]
                  if finding["severity"] != "note" and finding["digest"] not in damaged)]

    # Mending

    def mend(self) -> list[str]:
        """The same content again, under another key: both keys read right, soon."""
        hurt = [stored for stored in self.objects if any(digest in self.spans for digest in stored.digests)]
        wrong = self._in_parallel(self._put_again, hurt)
        deadline = time.monotonic() + MEND_PATIENCE_S
        waiting = hurt
        while waiting:
            late = [stored for stored in waiting if self._reads_right(stored, wrong) is False]
            if time.monotonic() > deadline:
                return wrong + [f"{stored.key} is still damaged {MEND_PATIENCE_S} s after a PUT of the same content"
                                for stored in late]
            waiting = late
        return wrong

    def _put_again(self, stored: Stored) -> list[str]:
        return self._put(stored._replace(key=stored.key + "-again"))

    def _reads_right(self, stored: Stored, wrong: list[str]) -> bool:
        """False while an error is answered. Wrong bytes are a violation even so."""
        right, reader = stored.content.bytes(), Reader(self._server)
        for key in (stored.key, stored.key + "-again"):
            read = reader.get(key)
            if not (read.status == 200 and read.complete):
                return False
            if read.body != right:
                wrong.append(f"{key}: wrong bytes after a PUT of the same content")
        return True

    def read_again(self) -> list[str]:
        """All is right by now."""
        self.spans.clear()
        return self.read_all()


async def _verify_all(chunks: Path) -> tuple[set[bytes], set[bytes], set[bytes]]:
    """Digests that the store holds, those that it has noted as damaged, and those that are."""
    store = DiskStore(str(chunks))
    await store.start()
    try:
        held: set[bytes] = set()
        noted = {bytes(digest) for digest, _, _ in await store.damage(10**6)}
        bad: set[bytes] = set()
        after: tuple[bytes, bytes] | None = None
        while page := await store.inventory(after, 1000):
            for copy in page:
                held.add(copy.digest)
                if not await store.verify(copy):
                    bad.add(copy.digest)
            after = page[-1].digest, page[-1].generation
        return held, noted, bad
    finally:
        await store.stop()


def run(count: int, seed: int, *, variant: str = "", quiet: bool = False, parent: Path | None = None,
        until_caught: bool = False) -> Report:
    """With `until_caught` it ends with the first reads that show a violation."""
    title = f"{count} damaged chunks" + (f", with the variant {variant!r}" if variant else "")
    report = Report(title, seed, quiet=quiet)
    with scratch(report, parent, keep=not variant) as folder:
        server = StaddleProcess(folder / "server", settings={"chunk_bytes": f"{CHUNK_BYTES // MIB}MiB"},
                                variables=variants.environment(folder, *filter(None, [variant])))
        try:
            _run(Run(server, report, count, seed), server, report, count, until_caught)
        finally:
            server.kill_all()
    return report


def _run(run: Run, server: StaddleProcess, report: Report, count: int, until_caught: bool) -> None:
    server.start()
    with Talker(server) as talker:
        talker.ask("PUT", f"/{BUCKET}")
    report.violations("writing", run.fill())
    run.locate()
    report.violations("whole", run.read_all())
    report.say(f"{len(run.objects)} objects of {len(run.places)} chunks, "
               f"{sum(place.is_file for place in run.places.values())} of them in files; all read right")
    run.seen.clear()
    third = count // 3
    run.damage(third)
    report.violations("damaged while it runs", run.read_all())
    if until_caught and report.wrong:
        return
    server.kill_all()
    run.damage(third)
    server.start()
    report.violations("damaged while it was down", run.read_all())
    run.damage(count - 2 * third)                     # nobody reads these before the scrub
    report.violations("scrub", run.scrub())
    report.violations("fsck", run.fsck())
    report.violations("after the scrub", run.read_all())
    report.say(f"damage: {dict(run.kinds)}; seen: {dict(run.seen)}")
    report.violations("mending", run.mend())
    report.violations("at last", run.read_again())
    report.violations("leftovers", leftovers.check_listed(server) + admin.fsck(server, thorough=True))
