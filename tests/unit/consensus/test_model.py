"""Random histories against a plain model in memory: buckets, versions, multipart, copies, renames, appends, quotas, sessions,
restarts.

The model knows S3's words only: lists of versions, parts by number, which session may speak. What it cannot know (chunk
rows, references, counters, the queue) is recounted from the rows after each step. Commands are repeated at random, as
after lost answers.
"""

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from consensus import audit, queries
from consensus.apply import queue
from consensus.core.commands import (
    LIFECYCLE,
    AbortUpload,
    AppendVersion,
    CarryOutLifecycle,
    ChangeKey,
    ChangeUser,
    CompleteUpload,
    Condition,
    CreateBucket,
    CreateKey,
    CreateUpload,
    CreateUser,
    DeleteBucket,
    DeleteKey,
    DeleteUser,
    DeleteVersion,
    Drain,
    EndSession,
    ExpireUploads,
    LifecycleStep,
    ListedPart,
    NewContent,
    PutPart,
    PutVersion,
    RenameVersion,
    SetBucketSetting,
    SetQuota,
    SetVersioning,
    StageContent,
    StageParts,
)
from consensus.core.ids import digest
from consensus.core.model import AccessKey, Quota, User
from consensus.core.results import (
    BucketCreated,
    BucketExists,
    BucketNotEmpty,
    CarriedOut,
    ChunkMissing,
    Committed,
    ConditionConflict,
    ConditionFailed,
    ContentMissing,
    Deleted,
    Done,
    Drained,
    KeyExists,
    Malformed,
    Moved,
    NoAccessKey,
    NoBucket,
    NoKey,
    NotDurable,
    NoUpload,
    NoUser,
    PartChanged,
    PartStored,
    QuotaExceeded,
    SequencePassed,
    SessionEnded,
    Staged,
    TokenReused,
    TooFewCopies,
    UserExists,
    WrongOffset,
)
from consensus.machine import Machine
from consensus.rows import decode_locations
from tests.unit.consensus.metadata import PLAIN, Cluster
from tests.unit.consensus.metadata import whole as whole_slice

PIECES = [bytes([65 + number]) * (number + 1) for number in range(5)]
KEYS = ["a", "b\0"]
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None     # durability isn't the question here


@dataclass
class Version:
    id: str
    order: int
    pieces: list[bytes] = field(default_factory=list)
    etag: str = ""
    content: int = 0            # 0: a delete marker

    @property
    def size(self) -> int:
        return sum(map(len, self.pieces))


@dataclass
class Upload:
    order: int                  # of the key's current version when it began; 0: none
    parts: dict[int, tuple[list[bytes], int]] = field(default_factory=dict)     # pieces and content by number


@dataclass
class Bucket:
    id: int
    name: str
    versioning: str = ""
    keys: dict[str, list[Version]] = field(default_factory=dict)     # oldest first
    uploads: dict[tuple[str, str], Upload] = field(default_factory=dict)
    completed: dict[tuple[str, str], Committed] = field(default_factory=dict)
    quota: Quota | None = None

    @property
    def holds(self) -> tuple[int, int]:
        """Objects, and bytes with those of parts."""
        versions = [version for versions in self.keys.values() for version in versions if version.content]
        parts = [piece for upload in self.uploads.values() for pieces, _ in upload.parts.values() for piece in pieces]
        return len(versions), sum(version.size for version in versions) + sum(map(len, parts))

    def replaces(self, key: str) -> list[Version]:
        """What goes when a new version comes."""
        return [] if self.versioning == "Enabled" else [
            version for version in self.keys.get(key, []) if version.id == "null" and version.content]

    def current(self, key: str) -> Version | None:
        versions = self.keys.get(key)
        return versions[-1] if versions and versions[-1].content else None

    def add(self, key: str, version: Version) -> None:
        if self.versioning != "Enabled":
            version.id = "null"
            self.keys[key] = [old for old in self.keys.get(key, []) if old.id != "null"]
        self.keys.setdefault(key, []).append(version)


class Histories(RuleBasedStateMachine):
    @initialize(nodes=st.integers(1, 3), versioning=st.sampled_from(["", "Suspended"]))
    def begin(self, nodes: int, versioning: str) -> None:
        self.folder = tempfile.TemporaryDirectory(dir=MEMORY)
        self.cluster = Cluster(Path(self.folder.name), nodes)
        self.buckets: dict[int, Bucket] = {}
        self.sent: list[tuple[Any, Any]] = []
        self.lows: dict[int, int] = {self.cluster.session: 0}
        self.counter = 0
        self.users: dict[str, tuple[bool, dict[str, bool]]] = {}       # disabled, keys: disabled
        self.changes = 0
        self.contents: set[int] = set()     # of versions, gone or not
        self.quota: Quota | None = None     # of the account
        self.tokens: dict[tuple[int, str], tuple[bytes, Committed]] = {}
        self.create_bucket("x", versioning)
        self.create_bucket("y", "Enabled")

    def teardown(self) -> None:
        if hasattr(self, "cluster"):
            self.cluster.drain()
            assert audit.recount(self.cluster.db) == []
            live = {digest(piece) for piece in self.live()}
            assert {row[0] for row in self.cluster.db.execute("SELECT digest FROM chunk")} == live
            self.replay()
            self.cluster.reader.close()
            self.cluster.machine.close()
            self.folder.cleanup()

    def replay(self) -> None:
        """The same log, in one transaction, gives the same metadata."""
        with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
            other = Machine(folder)
            for index, entry in enumerate(self.cluster.entries, 1):
                other.apply(entry, index)
            other.commit(len(self.cluster.entries), 1)
            assert audit.logical_hash(other.db) == audit.logical_hash(self.cluster.db)
            other.close()

    # What the model sees

    def live(self) -> set[bytes]:
        """Chunks that something visible refers to (staged contents are left out: they may go at any time)."""
        found = set()
        for bucket in self.buckets.values():
            for versions in bucket.keys.values():
                found.update(piece for version in versions for piece in version.pieces)
            for upload in bucket.uploads.values():
                found.update(piece for pieces, _ in upload.parts.values() for piece in pieces)
        for row in self.cluster.db.execute("SELECT p.slices FROM piece p JOIN staged s ON s.content = p.content"):
            found.update(piece for piece in PIECES if digest(piece) in row[0])
        return found

    def run(self, command: Any) -> Any:
        session = self.cluster.session
        low = max(self.lows[session], self.cluster.next[session] - 5)
        self.lows[session] = low
        envelope = self.cluster.envelope(command, session, low=low)
        (result,) = self.cluster.send(envelope)
        self.sent = [*self.sent[-20:], (envelope, result)]
        return result

    def unique(self, prefix: str) -> str:
        self.counter += 1
        return f"{prefix}{self.counter}"

    def some_bucket(self, data: st.DataObject) -> Bucket:
        return data.draw(st.sampled_from(sorted(self.buckets.values(), key=lambda bucket: bucket.id)))

    def content(self, data: st.DataObject) -> tuple[NewContent, list[bytes], Any]:
        """A content, its pieces, and the refusal it must get, if any. Some pieces come as chunks, some by reference."""
        pieces = data.draw(st.lists(st.sampled_from(PIECES), max_size=3))
        brought, holders = set(pieces), set(self.cluster.nodes)
        unusual = data.draw(st.integers(0, 5))
        if unusual == 5 and pieces:
            brought = data.draw(st.sets(st.sampled_from(pieces)))
        elif unusual == 4:
            holders = data.draw(st.sets(st.sampled_from(sorted(holders)), min_size=1))
        chunks = tuple(self.cluster.chunk(piece, *sorted(holders)) for piece in sorted(brought))
        content = NewContent(size=sum(map(len, pieces)), etag=self.unique("e"), chunks=chunks,
                             slices=tuple(map(whole_slice, pieces)))
        quorum = len(self.cluster.nodes) // 2 + 1
        if brought and len(holders) < quorum:
            return content, pieces, NotDurable
        live = self.live()
        for piece in pieces:
            if piece not in brought and piece not in live:
                return content, pieces, ChunkMissing
            if piece not in brought and self.lacks(piece):
                return content, pieces, TooFewCopies
        return content, pieces, None

    def has_parts(self, version: Version) -> bool:
        return bool(self.cluster.db.execute("SELECT 1 FROM content_part WHERE content = ?", (version.content,)).fetchone())

    def lacks(self, piece: bytes) -> bool:
        """Whether so many of its disks are gone that a reference would acknowledge less than a quorum."""
        (packed,) = self.cluster.db.execute("SELECT locations FROM chunk WHERE digest = ?", (digest(piece),)).fetchone()
        numbers = {number for number, in self.cluster.db.execute("SELECT number FROM node")}
        return len(numbers.intersection(decode_locations(packed))) < len(self.cluster.nodes) // 2 + 1

    def refused(self, result: Any, refusal: Any) -> bool:
        """Whether the content was refused, as it must be. A dead chunk may still be there until it is drained."""
        if refusal is ChunkMissing:
            return isinstance(result, ChunkMissing | TooFewCopies)
        assert isinstance(result, refusal) if refusal else not isinstance(result, NotDurable | ChunkMissing | TooFewCopies)
        return refusal is not None

    def may_be_stored(self, result: Any, refusal: Any) -> bool:
        """Whether nothing but a quota is against the content. A dead chunk may still be there until it is drained."""
        return refusal is None or (refusal is ChunkMissing and not isinstance(result, ChunkMissing | TooFewCopies))

    def too_much(self, bucket: Bucket, objects: int, size: int) -> QuotaExceeded | None:
        everything = [each.holds for each in self.buckets.values()]
        for whose, quota, held in (("bucket", bucket.quota, bucket.holds),
                                   ("account", self.quota, tuple(map(sum, zip(*everything, strict=True))))):
            for what, most, has, more in zip(("objects", "bytes"), quota or (None, None), held, (objects, size), strict=True):
                if most is not None and more > 0 and has + more > most:
                    return QuotaExceeded(whose=whose, what=what)
        return None

    def too_much_for(self, bucket: Bucket, key: str, size: int, freed: int = 0) -> QuotaExceeded | None:
        """Of a new version."""
        gone = bucket.replaces(key)
        return self.too_much(bucket, 1 - len(gone), size - sum(version.size for version in gone) - freed)

    # Steps

    @precondition(lambda self: self.buckets)
    @rule(data=st.data(), objects=st.none() | st.integers(0, 5), size=st.none() | st.integers(0, 40),
          whose=st.sampled_from(["bucket", "account"]), gone=st.booleans())
    def set_quota(self, data: st.DataObject, objects: int | None, size: int | None, whose: str, gone: bool) -> None:
        quota = None if gone or objects is size is None else Quota(objects, size)
        bucket = self.some_bucket(data) if whose == "bucket" else None
        assert self.run(SetQuota(bucket=None if bucket is None else bucket.id, account="a", quota=quota)) == Done()  # type: ignore[arg-type]
        if bucket is None:
            self.quota = quota
        else:
            bucket.quota = quota

    @precondition(lambda self: self.buckets)
    @rule(data=st.data(), what=st.sampled_from(["create", "versioning", "versioning", "delete"]),
          versioning=st.sampled_from(["", "Enabled", "Suspended"]), name=st.sampled_from(["x", "y", "z"]))
    def change_buckets(self, data: st.DataObject, what: str, versioning: str, name: str) -> None:
        if what == "create":
            self.create_bucket(name, versioning)
        elif what == "delete":
            self.delete_bucket(self.some_bucket(data))
        else:
            self.set_versioning(self.some_bucket(data), versioning or "Suspended")

    def create_bucket(self, name: str, versioning: str) -> None:
        result = self.run(CreateBucket(name=name, account="a", owner="o", versioning=versioning))
        if any(bucket.name == name for bucket in self.buckets.values()):
            assert result == BucketExists(account="a")
        else:
            assert isinstance(result, BucketCreated)
            self.buckets[result.bucket] = Bucket(result.bucket, name, versioning)

    def set_versioning(self, bucket: Bucket, status: str) -> None:
        assert self.run(SetVersioning(bucket=bucket.id, status=status)) == Done()
        bucket.versioning = status

    def delete_bucket(self, bucket: Bucket) -> None:
        result = self.run(DeleteBucket(bucket=bucket.id))
        if any(bucket.keys.values()):
            assert result == BucketNotEmpty()
        else:
            assert result == Done()
            del self.buckets[bucket.id]
            assert self.run(DeleteVersion(bucket=bucket.id, key="a")) == NoBucket()

    @precondition(lambda self: self.buckets)
    @rule(data=st.data(), key=st.sampled_from(KEYS), staged=st.booleans())
    def put(self, data: st.DataObject, key: str, staged: bool) -> None:
        bucket = self.some_bucket(data)
        content, pieces, refusal = self.content(data)
        condition, unmet = self.condition(data, bucket.current(key))
        if staged:
            page = self.run(StageContent(slices=(whole_slice(PIECES[0]),), chunks=(self.cluster.chunk(PIECES[0]),)))
            assert isinstance(page, Staged)
            content = msgspec.structs.replace(content, staged=page.content, size=content.size + len(PIECES[0]))
            pieces = [PIECES[0], *pieces]
            if refusal is ChunkMissing and not {piece for piece in pieces if digest(piece) not in
                                                {chunk.digest for chunk in content.chunks}} - self.live():
                refusal = None      # the page brought what was missing
        version = self.unique("v")
        result = self.run(PutVersion(bucket=bucket.id, key=key, version_id=version, attributes=PLAIN, owner="o",
                                     content=content, condition=condition))
        over = self.too_much_for(bucket, key, sum(map(len, pieces)))
        if unmet:
            assert result == unmet
        elif over and self.may_be_stored(result, refusal):
            assert result == over
        elif not self.refused(result, refusal):
            self.committed(bucket, key, Version(version, result.order, pieces, content.etag), result)

    @precondition(lambda self: self.buckets)
    @rule(data=st.data(), key=st.sampled_from(KEYS), off=st.sampled_from([0, 0, 0, 1]), stale=st.sampled_from([0, 0, 0, 1]))
    def append(self, data: st.DataObject, key: str, off: int, stale: int) -> None:
        bucket = self.some_bucket(data)
        content, pieces, refusal = self.content(data)
        if not pieces:
            return
        current = bucket.current(key)
        condition, unmet = self.condition(data, current)
        base, size = (current.order, current.size) if current else (0, 0)
        if whole := current is not None and (self.has_parts(current) or data.draw(st.booleans())):
            content = msgspec.structs.replace(content, size=size + content.size,
                                              slices=(*map(whole_slice, current.pieces), *content.slices))
        version = self.unique("v")
        result = self.run(AppendVersion(
            bucket=bucket.id, key=key, version_id=version, base=base + stale, offset=size + off,  # type: ignore[arg-type]
            content=content, appended=2, whole=whole, condition=condition))
        if whole and content.size <= size + off:
            assert isinstance(result, Malformed), "it would append nothing"
        elif current is None:
            assert result == (unmet or WrongOffset(size=0))
        elif unmet or off or stale:
            assert result == (unmet or (WrongOffset(size=size) if off else Moved()))
        elif over := self.too_much_for(bucket, key, size + sum(map(len, pieces))):
            assert result == over
        elif isinstance(result, TooFewCopies):
            assert refusal or any(self.lacks(piece) for piece in current.pieces)
        elif not self.refused(result, refusal):
            pieces = [*current.pieces, *pieces]
            self.committed(bucket, key, Version(version, result.order, pieces, content.etag), result)

    @precondition(lambda self: self.buckets)
    @rule(data=st.data(), keys=st.permutations(KEYS), stale=st.sampled_from([0, 0, 0, 1]),
          over=st.sampled_from([None, None, 0, 1]), token=st.sampled_from(["", "", "s", "t"]))
    def rename(self, data: st.DataObject, keys: list[str], stale: int, over: int | None, token: str) -> None:
        bucket, (source, key) = self.some_bucket(data), keys
        current, there = bucket.current(source), bucket.current(key)
        condition, unmet = self.condition(data, there)
        fingerprint = f"{source} {condition}".encode()
        version, marker = self.unique("v"), self.unique("m")
        result = self.run(RenameVersion(
            bucket=bucket.id, source=source, source_order=stale + (current.order if current else 0), key=key,  # type: ignore[arg-type]
            version_id=version, marker_id=marker, owner="o", condition=condition, token=token, fingerprint=fingerprint,  # type: ignore[arg-type]
            over=None if over is None else over + (there.order if there else 0)))
        known = self.tokens.get((bucket.id, token)) if token else None
        if known:
            assert result == (known[1] if known[0] == fingerprint else TokenReused())
            return
        if current is None or stale or over:
            assert result == (NoKey() if current is None else Moved())
            return
        gone = [] if bucket.versioning == "Enabled" or current.id != "null" else [current]
        replaced = [*gone, *bucket.replaces(key)]
        too_much = self.too_much(bucket, 1 - len(replaced), current.size - sum(version.size for version in replaced))
        if unmet or too_much:
            assert result == (unmet or too_much)
            return
        self.committed(bucket, key, Version(version, result.order, current.pieces, current.etag), result)
        if bucket.versioning:
            bucket.add(source, Version(marker, 0))
        else:
            bucket.keys.pop(source)
        if token:
            self.tokens[bucket.id, token] = fingerprint, msgspec.structs.replace(result, checksum=None)

    def condition(self, data: st.DataObject, current: Version | None) -> tuple[Condition, Any]:
        kind = data.draw(st.sampled_from(["", "", "", "", "none", "match", "other"]))
        if kind == "none":
            return Condition(if_none_match="*"), ConditionFailed(condition="If-None-Match") if current else None
        if kind == "match":
            return Condition(if_match=current.etag if current else "e"), None if current else NoKey()
        if kind == "other":
            return Condition(if_match="other"), ConditionFailed(condition="If-Match") if current else NoKey()
        return Condition(), None

    def committed(self, bucket: Bucket, key: str, version: Version, result: Any) -> None:
        assert isinstance(result, Committed), result
        bucket.add(key, version)
        assert result.version_id == (version.id if bucket.versioning else None)
        row = self.cluster.db.execute("SELECT content FROM object WHERE bucket = ? AND key = ?",
                                      (bucket.id, key.encode())).fetchone()
        version.content = row[0]
        self.contents.add(row[0])

    @precondition(lambda self: self.buckets)
    @rule(data=st.data(), key=st.sampled_from(KEYS), grown=st.sampled_from([0, 0, 0, 1]))
    def copy(self, data: st.DataObject, key: str, grown: int) -> None:
        bucket = self.some_bucket(data)
        known = [version for each in self.buckets.values() for versions in each.keys.values()
                 for version in versions if version.content]
        gone = self.contents - {version.content for version in known}
        if gone and data.draw(st.booleans()):
            source = Version("", 0, content=data.draw(st.sampled_from(sorted(gone))))
        elif known:
            source = data.draw(st.sampled_from(known))
        else:
            return
        version = self.unique("v")
        result = self.run(PutVersion(bucket=bucket.id, key=key, version_id=version, attributes=PLAIN, owner="o",
                                     content_of=source.content, content_size=source.size + grown))  # type: ignore[arg-type]
        if source not in known or grown:
            assert result in (ContentMissing(), self.too_much_for(bucket, key, source.size + grown))
        elif over := self.too_much_for(bucket, key, source.size):
            assert result == over
        elif isinstance(result, TooFewCopies):
            assert any(self.lacks(piece) for piece in source.pieces)
        else:
            reviewing = self.cluster.db.execute("SELECT 1 FROM queue WHERE kind = ?", (queue.REVIEW,)).fetchone()
            assert reviewing or len(self.cluster.nodes) == 1 or not any(self.lacks(piece) for piece in source.pieces)
            self.committed(bucket, key, Version(version, result.order, source.pieces, source.etag), result)

    @precondition(lambda self: self.buckets)
    @rule(data=st.data(), key=st.sampled_from(KEYS), named=st.booleans())
    def delete(self, data: st.DataObject, key: str, named: bool) -> None:
        bucket = self.some_bucket(data)
        versions = bucket.keys.get(key, [])
        if named:
            wanted = data.draw(st.sampled_from([*(version.id for version in reversed(versions)), "none"]))
            result = self.run(DeleteVersion(bucket=bucket.id, key=key, version_id=wanted))
            gone = [version for version in versions if version.id == wanted]
            marker = bool(gone) and not gone[0].content
            assert result == Deleted(existed=bool(gone), version_id=wanted, delete_marker=marker)
            bucket.keys[key] = [version for version in versions if version.id != wanted]
            return
        present, marker_id = bucket.current(key) is not None, self.unique("m")
        result = self.run(DeleteVersion(bucket=bucket.id, key=key, marker_id=marker_id))
        if not bucket.versioning:
            assert result == Deleted(existed=present)
            bucket.keys.pop(key, None)
        else:
            marker = Version(marker_id, 0)
            bucket.add(key, marker)
            assert result == Deleted(existed=present, version_id=marker.id, delete_marker=True)

    @precondition(lambda self: self.buckets)
    @rule(data=st.data(), key=st.sampled_from(KEYS), action=st.sampled_from(["expire", "remove", "unmark"]))
    def carry_out_lifecycle(self, data: st.DataObject, key: str, action: str) -> None:
        bucket = self.some_bucket(data)
        versions = bucket.keys.get(key, [])
        page = self.cluster.read(queries.list_versions, bucket.id, key, "", "", None, 100)
        if not versions:
            return
        shown = data.draw(st.sampled_from([each for each in page.objects if each.key == key]))
        version = next(each for each in versions if each.id == shown.version_id)
        newest = version is versions[-1]
        holds = {"expire": newest and bool(version.content), "remove": not newest,
                 "unmark": newest and not version.content and len(versions) == 1}[action]
        assert self.run(SetBucketSetting(bucket=bucket.id, name=LIFECYCLE, document=b"rules")) == Done()
        marker = self.unique("m")
        result = self.run(CarryOutLifecycle(
            bucket=bucket.id, lifecycle=self.cluster.read(queries.bucket, bucket.name).lifecycle, steps=(LifecycleStep(
                action=action, key=key, order=shown.order, due_ms=0, marker_id=marker),)))
        assert result == CarriedOut(places=(0,) if holds else (), reached=1)
        if holds and action == "expire" and bucket.versioning:
            bucket.add(key, Version(marker, 0))
        elif holds:
            bucket.keys[key] = [each for each in versions if each is not version]

    # Multipart

    @precondition(lambda self: self.buckets)
    @rule(data=st.data(), key=st.sampled_from(KEYS))
    def create_upload(self, data: st.DataObject, key: str) -> None:
        bucket, id = self.some_bucket(data), self.unique("u")
        assert self.run(CreateUpload(bucket=bucket.id, key=key, upload_id=id, attributes=PLAIN, owner="o")) == Done()
        current = bucket.current(key)
        bucket.uploads[key, id] = Upload(current.order if current else 0)
        for number in range(1, data.draw(st.integers(1, 4))):
            self.put_a_part(data, bucket, key, id, number)

    def some_upload(self, data: st.DataObject) -> tuple[Bucket, str, str, Upload]:
        known = [(bucket.id, key, id) for bucket in self.buckets.values() for key, id in bucket.uploads]
        bucket_id, key, id = data.draw(st.sampled_from(sorted(known)))
        return self.buckets[bucket_id], key, id, self.buckets[bucket_id].uploads[key, id]

    def uploads(self) -> bool:
        return any(bucket.uploads for bucket in self.buckets.values())

    @precondition(uploads)
    @rule(data=st.data(), number=st.integers(1, 4))
    def put_part(self, data: st.DataObject, number: int) -> None:
        self.put_a_part(data, *self.some_upload(data)[:3], number)

    def put_a_part(self, data: st.DataObject, bucket: Bucket, key: str, id: str, number: int) -> None:
        upload = bucket.uploads[key, id]
        content, pieces, refusal = self.content(data)
        result = self.run(PutPart(bucket=bucket.id, key=key, upload_id=id, number=number, content=content))
        over = self.too_much(bucket, 0, content.size - sum(map(len, upload.parts.get(number, ([], 0))[0])))
        if over and self.may_be_stored(result, refusal):
            assert result == over
        elif not self.refused(result, refusal):
            assert isinstance(result, PartStored)
            upload.parts[number] = pieces, self.cluster.index << 20

    def abort(self, bucket: Bucket, key: str, id: str) -> None:
        command = AbortUpload(bucket=bucket.id, key=key, upload_id=id)
        assert self.run(command) == Done()
        assert self.run(command) == NoUpload()
        del bucket.uploads[key, id]

    @precondition(uploads)
    @rule(data=st.data(), pages=st.integers(0, 2), disturbed=st.integers(0, 3).map(lambda number: number == 3))
    def complete(self, data: st.DataObject, pages: int, disturbed: bool) -> None:
        bucket, key, id, upload = self.some_upload(data)
        if not upload.parts:
            self.abort(bucket, key, id)
            return
        numbers = sorted(data.draw(st.sets(st.sampled_from(sorted(upload.parts)), min_size=1)))
        listed = [ListedPart(number=number, content=upload.parts[number][1]) for number in numbers]
        pieces = [piece for number in numbers for piece in upload.parts[number][0]]
        at = {"bucket": bucket.id, "key": key, "upload_id": id}
        staged = None
        pages = min(pages, len(listed))
        for page in range(pages):
            result = self.run(StageParts(**at, parts=(listed[page],), into=staged))
            assert isinstance(result, Staged)
            staged = result.content
        if disturbed:           # somebody puts a listed part again before the decision
            content = self.cluster.content(PIECES[2])
            over = self.too_much(bucket, 0, content.size - sum(map(len, upload.parts[numbers[-1]][0])))
            again = self.run(PutPart(**at, number=numbers[-1], content=content))
            if over:
                assert again == over
                disturbed = False
            else:
                assert isinstance(again, PartStored)
                upload.parts[numbers[-1]] = [PIECES[2]], self.cluster.index << 20
        version, etag = self.unique("v"), self.unique("e")
        condition, unmet = self.condition(data, bucket.current(key))
        command = CompleteUpload(**at, version_id=version, etag=etag, size=sum(map(len, pieces)), condition=condition,
                                 parts=tuple(listed[pages:]), staged=staged)
        result = self.run(command)
        current = bucket.current(key)
        if not unmet and condition.if_match and current and current.order != upload.order:
            unmet = ConditionConflict(condition="If-Match")
        if not unmet and condition.if_none_match and upload.order:
            unmet = ConditionConflict(condition="If-None-Match")
        if unmet:
            assert result == unmet
        elif disturbed:
            assert result == PartChanged(number=0 if pages else numbers[-1])
        elif over := self.too_much_for(bucket, key, command.size, freed=sum(
                len(piece) for each, _ in upload.parts.values() for piece in each)):
            assert result == over
        else:
            self.committed(bucket, key, Version(version, result.order, pieces, etag), result)
            del bucket.uploads[key, id]
            again = msgspec.structs.replace(command, staged=None, parts=(), condition=Condition())
            assert self.run(again) == result

    # Sessions, repeats, restarts, nodes, housekeeping

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """An answer was lost, so the command comes again."""
        envelope, first = data.draw(st.sampled_from(self.sent))
        (result,) = self.cluster.send(envelope)
        if envelope.session != self.cluster.session:
            assert result == SessionEnded()
        elif envelope.sequence < self.lows[envelope.session]:
            assert result == SequencePassed()
        else:
            assert result == first
            assert first != SessionEnded()

    @rule(what=st.sampled_from(["session", "restart", "restart", "drain", "drain", "expire", "node", "disk"]),
          node=st.integers(1, 3), limit=st.integers(1, 5))
    def around(self, what: str, node: int, limit: int) -> None:
        """A session ends, the process or a node starts again, maybe on another disk, or the leader drains a little."""
        name = f"n{node}"
        if what == "session":
            self.cluster.run(EndSession(session=self.cluster.session), 0)
            self.cluster.session = self.cluster.open_session()
            self.lows[self.cluster.session] = 0
        elif what == "restart":
            self.cluster.reopen()
        elif what == "drain":
            self.cluster.run(Drain(limit=limit, grace_ms=limit * 10), 0)
        elif what == "expire":
            self.expire(limit)
        else:
            known = self.cluster.nodes.get(name)
            self.cluster.register(name, self.unique("disk").encode() if what == "disk" or known is None else known)

    def expire(self, limit: int) -> None:
        """All but the newest upload are old."""
        known = self.cluster.read(queries.open_uploads)
        old = [upload for upload in known if upload.initiated_ms < known[-1].initiated_ms]
        result = self.cluster.run(ExpireUploads(before_ms=known[-1].initiated_ms if known else 0, limit=limit), 0)
        assert result == Drained(released=min(limit, len(old)), more=len(old) > limit)
        for upload in old[:limit]:
            if upload.bucket:                       # of a deleted bucket they are gone as it is
                del self.buckets[upload.bucket_id].uploads[upload.key, upload.upload_id]

    # Users and keys

    @rule(what=st.sampled_from(["create", "change", "delete", "key", "key", "rotate", "disable", "delete key"]),
          user=st.sampled_from("uv"), key=st.sampled_from(["AK1", "AK2", "AK3"]), flag=st.booleans())
    def change_users(self, what: str, user: str, key: str, flag: bool) -> None:
        users, known = self.users, user in self.users
        owner = next((name for name, (_, keys) in users.items() if key in keys), None)
        wanted: Any = Done()
        if what == "create":
            result = self.run(CreateUser(user=User(name=user, account="1", user_id="i", disabled=flag)))
            wanted = UserExists() if known else Done()
            users.setdefault(user, (flag, {}))
        elif what == "change":
            result, wanted = self.run(ChangeUser(name=user, disabled=flag)), Done() if known else NoUser()
            if known:
                users[user] = flag, users[user][1]
        elif what == "delete":
            result, wanted = self.run(DeleteUser(name=user)), Done() if known else NoUser()
            users.pop(user, None)
        elif what in ("key", "rotate"):
            old = "AK1" if what == "rotate" else ""
            made = AccessKey(access_key=key, user=user, sealed=b"s", disabled=flag)
            result = self.run(CreateKey(key=made, replaces=old))
            if not known:
                wanted = NoUser()
            elif old and old not in users[user][1]:
                wanted = NoAccessKey()
            elif owner is not None:
                wanted = KeyExists()
            else:
                users[user][1].pop(old, None)
                users[user][1][key] = flag
        else:
            result = self.run(ChangeKey(access_key=key, disabled=flag) if what == "disable" else DeleteKey(access_key=key))
            wanted = Done() if owner else NoAccessKey()
            if owner and what == "disable":
                users[owner][1][key] = flag
            elif owner:
                del users[owner][1][key]
        assert result == wanted
        changed = self.cluster.read(queries.identities_version)
        assert changed == self.changes + (result == Done())
        self.changes = changed

    # What must hold after each step

    @invariant()
    def users_are_as_the_model_has_them(self) -> None:
        if hasattr(self, "users"):
            assert {user.name: user.disabled for user in self.cluster.read(queries.users)} == {
                name: disabled for name, (disabled, _) in self.users.items()}
            assert {(key.user, key.access_key): key.disabled for key in self.cluster.read(queries.access_keys)} == {
                (name, key): disabled for name, (_, keys) in self.users.items() for key, disabled in keys.items()}

    @invariant()
    def rows_fit_together(self) -> None:
        if hasattr(self, "cluster"):
            assert audit.recount(self.cluster.db) == []

    @invariant()
    def versions_are_as_the_model_has_them(self) -> None:
        for bucket in self.buckets.values() if hasattr(self, "buckets") else ():
            page = self.cluster.read(queries.list_versions, bucket.id, "", "", "", None, 1000)
            wanted = [(key, version.id, not version.content, version is versions[-1], sum(map(len, version.pieces)))
                      for key, versions in sorted(bucket.keys.items()) for version in reversed(versions)]
            assert [(entry.key, entry.version_id, entry.delete_marker, entry.latest, entry.size)
                    for entry in page.objects] == wanted
            counted = self.cluster.read(queries.bucket_counted, bucket.name)
            assert counted.object_count == sum(not entry[2] for entry in wanted)
            for key in KEYS:
                found, current, slices = self.cluster.read(queries.opened, bucket.name, key)
                assert found.id == bucket.id
                version = bucket.current(key)
                if version is None:
                    assert current is None or current.delete_marker
                    continue
                assert (current.version_id, current.etag) == (version.id, version.etag)
                assert current.content == version.content
                rest = self.cluster.read(queries.slices, version.content, sum(piece.length for piece in slices), 1000)
                assert [piece.digest for piece in [*slices, *rest]] == [digest(piece) for piece in version.pieces]


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=60, stateful_step_count=60, deadline=None,
                                  suppress_health_check=list(HealthCheck))
