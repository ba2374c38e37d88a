"""How many copies are wanted of a chunk: the most that any bucket wants that refers to it, whatever happens meanwhile.

Random walks of everything that refers to chunks, with buckets that change their minds, drained a few units at a time; after
each step no chunk is wanted in fewer copies than a bucket that has not just been raised wants of it, and after a last counting
all are wanted in exactly as many as they should be. Each rule of apply/copies.py switched off is caught.
"""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from consensus import audit, queries
from consensus.apply import chunks, contents, copies, objects, queue
from consensus.core.commands import (
    AbortUpload,
    Announce,
    AskNode,
    CompleteUpload,
    CreateBucket,
    CreateUpload,
    DeleteVersion,
    Drain,
    ListedPart,
    NewContent,
    PutPart,
    PutVersion,
    RemoveNode,
    SetBucketCopies,
    SetDefaults,
    SetNodeState,
    StageContent,
    Withdraw,
)
from consensus.core.ids import Digest, Generation, NodeId, SessionId, digest
from consensus.core.results import (
    Announced,
    BucketCreated,
    Committed,
    Done,
    Malformed,
    NodeInUse,
    NoNode,
    PartStored,
    Staged,
    TooFewCopies,
    Withdrawn,
)
from consensus.rows import decode_locations, unpack_slices
from tests.unit.consensus.metadata import PLAIN, Cluster, whole

WALKS, STEPS = 8, 60
PIECES = [bytes([number]) * 5 for number in range(12)]
LONG = [b"long %d" % number for number in range(70)]


class Walk:
    """One cluster, three buckets, and what their owners want."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.cluster = Cluster(folder, nodes=5, copies=3, replication="async")
        self.buckets = [self.cluster.bucket(f"b{number}", versioning="Enabled" if number == 1 else "") for number in range(3)]
        self.wishes: dict[int, int | None] = dict.fromkeys(self.buckets)
        self.default = 3
        self.raised: set[int] = set()
        """Buckets that want more since a moment ago: what is in them follows."""
        self.uploads: list[tuple[int, str, str]] = []
        self.serial = 0

    def run(self) -> None:
        steps = [self.put, self.put, self.put_long, self.copy, self.delete, self.uncover, self.uncover, self.upload, self.part,
                 self.part, self.complete, self.complete, self.abort, self.wish, self.set_default, *[self.drain] * 6]
        for _ in range(STEPS):
            self.random.choice(steps)()
            self.check()
        self.cluster.drain()
        self.raised.clear()
        self.check()
        # What a deleted object alone had wanted stays wanted until the next counting: it costs space, no more.
        self.default = 5 - self.default
        assert self.cluster.run(SetDefaults(copies=self.default, replication="async"), 0) == Done()
        self.cluster.drain()
        self.check(exactly=True)
        assert audit.recount(self.cluster.db) == []

    # Steps

    def key(self) -> str:
        return f"k{self.random.randrange(4)}"

    def some(self) -> list[bytes]:
        """Chunks that others have too, and often one that nobody else has."""
        self.serial += 1
        own = [b"own %d" % self.serial] if self.random.random() < 0.7 else []
        return own + self.random.sample(PIECES, self.random.randrange(0 if own else 1, 3))

    def put(self) -> None:
        self.cluster.put(self.random.choice(self.buckets), self.key(), *self.some())

    def put_long(self) -> None:
        """In two pages, the first of which knows its bucket."""
        bucket = self.random.choice(self.buckets)
        pieces = LONG + self.some()
        chunks = tuple(self.cluster.chunk(piece) for piece in pieces)
        staged = self.cluster.run(StageContent(slices=tuple(map(whole, pieces[:70])), chunks=chunks[:70], bucket=bucket))
        assert isinstance(staged, Staged)
        if self.random.random() < 0.3:
            self.random.choice([self.drain, self.wish])()
        content = self.cluster.content(*pieces[70:], staged=staged.content)
        self.serial += 1
        result = self.cluster.run(PutVersion(
            bucket=bucket, key=self.key(), version_id=f"s{self.serial}", attributes=PLAIN, owner="o",
            content=NewContent(size=sum(map(len, pieces)), etag="e", slices=content.slices, chunks=content.chunks,
                                  staged=staged.content)))
        assert isinstance(result, Committed), result

    def copy(self) -> None:
        source = self.random.choice(self.buckets)
        version = self.cluster.read(queries.current, source, self.key())
        if version is None or version.delete_marker:
            return
        self.serial += 1
        result = self.cluster.run(PutVersion(
            bucket=self.random.choice(self.buckets), key=self.key(), version_id=f"c{self.serial}", attributes=PLAIN, owner="o",
            content_of=version.content))
        assert isinstance(result, Committed | TooFewCopies), result

    def delete(self) -> None:
        self.serial += 1
        self.cluster.run(DeleteVersion(bucket=self.random.choice(self.buckets), key=self.key(), marker_id=f"d{self.serial}"))

    def uncover(self) -> None:
        """The newest version goes, and the one before is current again."""
        versions = self.cluster.read(queries.list_versions, self.buckets[1], "", "", "", None, 100).objects
        if versions:
            newest = self.random.choice([each for each in versions if each.latest])
            self.cluster.run(DeleteVersion(bucket=self.buckets[1], key=newest.key, version_id=newest.version_id))

    def upload(self) -> None:
        self.serial += 1
        bucket, key, upload = self.random.choice(self.buckets), self.key(), f"u{self.serial}"
        assert self.cluster.run(CreateUpload(bucket=bucket, key=key, upload_id=upload, attributes=PLAIN, owner="o")) == Done()
        self.uploads.append((bucket, key, upload))

    def part(self) -> None:
        if self.uploads:
            bucket, key, upload = self.random.choice(self.uploads)
            result = self.cluster.run(PutPart(bucket=bucket, key=key, upload_id=upload, number=self.random.randrange(1, 4),
                                              content=self.cluster.content(*self.some())))
            assert isinstance(result, PartStored), result

    def complete(self) -> None:
        if not self.uploads:
            return
        at = self.random.randrange(len(self.uploads))
        bucket, key, upload = self.uploads[at]
        parts = self.cluster.read(queries.parts, bucket, key, upload)
        if parts:
            self.serial += 1
            result = self.cluster.run(CompleteUpload(
                bucket=bucket, key=key, upload_id=upload, version_id=f"m{self.serial}", etag="e",
                size=sum(part.size for part in parts),
                parts=tuple(ListedPart(number=part.number, content=part.content) for part in parts)))
            assert isinstance(result, Committed), result
            del self.uploads[at]

    def abort(self) -> None:
        if self.uploads and self.random.random() < 0.3:
            bucket, key, upload = self.uploads.pop(self.random.randrange(len(self.uploads)))
            assert self.cluster.run(AbortUpload(bucket=bucket, key=key, upload_id=upload)) == Done()

    def wish(self) -> None:
        bucket = self.random.choice(self.buckets)
        wished = self.random.choice([None, 1, 2, 3, 4])
        before = self.wishes[bucket] or self.default
        self.wishes[bucket] = wished
        assert self.cluster.run(SetBucketCopies(bucket=bucket, copies=wished)) == Done()
        if (wished or self.default) > before:
            self.raised.add(bucket)

    def set_default(self) -> None:
        if self.random.random() < 0.3:
            before, self.default = self.default, self.random.choice([2, 3])
            assert self.cluster.run(SetDefaults(copies=self.default, replication="async"), 0) == Done()
            if self.default > before:
                self.raised |= {bucket for bucket, wished in self.wishes.items() if wished is None}

    def drain(self) -> None:
        self.cluster.run(Drain(limit=self.random.randrange(1, 9)), 0)
        if not self.pending():
            self.raised.clear()

    def pending(self) -> bool:
        return self.cluster.db.execute("SELECT 1 FROM queue WHERE kind IN (?, ?, ?)", (
            queue.RAISE, queue.MARK, queue.COUNT)).fetchone() is not None

    # What must hold

    def check(self, *, exactly: bool = False) -> None:
        db = self.cluster.db
        wanted: dict[bytes, int] = {}
        referred: dict[int, int] = {}
        for table in ("object", "history"):
            for bucket, content in db.execute(f"SELECT bucket, content FROM {table} WHERE content <> 0"):
                self.add(referred, bucket, content)
        for bucket, content in db.execute("SELECT u.bucket, p.content FROM part p JOIN upload u ON u.ord = p.upload"):
            self.add(referred, bucket, content)
        for content, wish in list(referred.items()):
            for (part,) in db.execute("SELECT part_content FROM content_part WHERE content = ?", (content,)):
                referred[part] = max(referred.get(part, 0), wish)
        for content, wish in referred.items():
            for piece in self.slices(content):
                wanted[piece] = max(wanted.get(piece, 0), wish)
        for chunk, wish in wanted.items():
            (has,) = db.execute("SELECT copies FROM chunk WHERE digest = ?", (chunk,)).fetchone()
            has = has or self.default
            assert has >= wish, f"chunk {chunk.hex()[:8]} is wanted in {has} copies, a bucket wants {wish}"
            assert not exactly or has == wish, f"chunk {chunk.hex()[:8]}: {has} instead of {wish}"

    def add(self, referred: dict[int, int], bucket: int, content: int) -> None:
        wish = 0 if bucket in self.raised else self.wishes[bucket] or self.default
        referred[content] = max(referred.get(content, 0), wish)

    def slices(self, content: int) -> list[Digest]:
        db = self.cluster.db
        rows = db.execute("SELECT slices FROM content WHERE id = ? AND slices IS NOT NULL UNION ALL"
                          " SELECT slices FROM piece WHERE content = ?", (content, content)).fetchall()
        return [piece.digest for (packed,) in rows for piece in unpack_slices(packed)]


def walk(tmp_path: Path, seeds: range) -> str | None:
    for seed in seeds:
        one = Walk(tmp_path / str(seed), seed)
        try:
            one.run()
        except AssertionError as error:
            return f"seed {seed}: {error}"
        finally:
            one.cluster.reader.close()
            one.cluster.machine.close()
    return None


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("walks")


def test_the_most_that_any_bucket_wants(folder: Path) -> None:
    assert walk(folder, range(WALKS)) is None


def no_look_at_what_is_shared(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(contents, "copies", _Without())


def commits_do_not_mark(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(chunks, "mark_of", lambda state, wished: wished)


def history_is_not_looked_through(patch: pytest.MonkeyPatch) -> None:
    page = copies._page
    patch.setattr(copies, "_page", lambda state, phase, *rest: [] if phase == copies._HISTORY else page(state, phase, *rest))


def parts_are_not_looked_through(patch: pytest.MonkeyPatch) -> None:
    page = copies._page
    patch.setattr(copies, "_page", lambda state, phase, *rest: [] if phase == copies._PARTS else page(state, phase, *rest))


class _Without:
    """The module, but nothing is told of references."""

    def __getattr__(self, name: str) -> Any:
        return (lambda *given: 0) if name == "refer" else getattr(copies, name)


@pytest.mark.parametrize("broken", [
    no_look_at_what_is_shared, commits_do_not_mark, history_is_not_looked_through, parts_are_not_looked_through])
def test_without_a_rule_chunks_lose_copies(
    folder: Path, monkeypatch: pytest.MonkeyPatch, broken: Callable[[pytest.MonkeyPatch], None]
) -> None:
    broken(monkeypatch)
    assert walk(folder, range(100)) is not None


# What random walks meet too seldom

def counting(tmp_path: Path) -> tuple[Cluster, int, int]:
    """A store with two buckets that want two copies, in which a third is just being lowered to one: all are counted anew."""
    cluster = Cluster(tmp_path, nodes=3, copies=2, replication="async")
    versioned, lowered = cluster.bucket("versioned", versioning="Enabled"), cluster.bucket("lowered")
    return cluster, versioned, lowered


def wishes(cluster: Cluster) -> dict[bytes, int]:
    return dict(cluster.db.execute("SELECT digest, copies FROM chunk").fetchall())


@pytest.mark.parametrize("units", range(1, 6))
@pytest.mark.parametrize("rule", [True, False])
def test_what_is_uncovered_during_a_counting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, units: int, rule: bool) -> None:
    """The older version of a key goes from history, which is looked through later, to the objects, which were."""
    if not rule:
        monkeypatch.setattr(objects, "copies", _Without())
    cluster, versioned, lowered = counting(tmp_path)
    cluster.put(versioned, "a", b"older")
    cluster.put(versioned, "a", b"newer", version="newest")
    cluster.put(lowered, "b", b"older")              # the same bytes, of which this bucket wants one copy soon
    cluster.drain()
    assert cluster.run(SetBucketCopies(bucket=lowered, copies=1)) == Done()
    cluster.run(Drain(limit=units), 0)
    cluster.run(DeleteVersion(bucket=versioned, key="a", version_id="newest"))
    cluster.drain()
    assert wishes(cluster)[digest(b"older")] == 2 or not rule
    missed.setdefault(rule, set()).add(wishes(cluster)[digest(b"older")])
    cluster.check()


missed: dict[bool, set[int]] = {}


def test_the_rule_about_what_is_uncovered_is_needed() -> None:
    """One of the moments above was the one."""
    if len(missed) == 2:
        assert missed == {True: {2}, False: {1, 2}}


def test_a_copy_may_not_promise_what_is_not_there(tmp_path: Path) -> None:
    """By reference into a bucket that wants more: refused if fewer than its quorum are there, else they are made."""
    cluster = Cluster(tmp_path, nodes=3)
    few, many = cluster.bucket("few"), cluster.bucket("many")
    assert cluster.run(SetBucketCopies(bucket=few, copies=1)) == Done()
    content = cluster.content(b"bytes")
    chunk = cluster.chunk(b"bytes", "n1")
    made = cluster.run(PutVersion(bucket=few, key="k", version_id="v", attributes=PLAIN, owner="o", content=NewContent(
        size=5, etag="e", slices=content.slices, chunks=(chunk,))))
    assert isinstance(made, Committed)
    source = cluster.read(queries.current, few, "k")

    def copied(bucket: int) -> Any:
        return cluster.run(PutVersion(bucket=bucket, key="copy", version_id="w", attributes=PLAIN, owner="o",
                                      content_of=source.content))

    assert isinstance(copied(few), Committed)
    assert copied(many) == TooFewCopies(wanted=2)
    generation = Generation(SessionId(cluster.session), cluster.next[cluster.session] - 3)
    node = cluster.node_sessions["n2"]
    row = cluster.db.execute("SELECT session, sequence FROM chunk").fetchone()
    announced = cluster.run(Announce(node=NodeId("n2"), incarnation=cluster.nodes["n2"], copies=(
        (digest(b"bytes"), Generation(SessionId(row[0]), row[1])),)), node)
    assert announced == Announced(counted=1), generation
    assert isinstance(copied(many), Committed)
    assert [short.wanted for short in cluster.read(queries.under_replicated)] == [3]
    cluster.check()


@pytest.mark.parametrize("pieces", [1, 70])
def test_a_copy_promises_a_quorum_though_its_source_was_acknowledged_with_less(tmp_path: Path, pieces: int) -> None:
    """By reference from an asynchronous bucket into a synchronous one that wants as many copies; a long content as well."""
    cluster = Cluster(tmp_path, nodes=3)
    behind, sync = cluster.bucket("behind"), cluster.bucket("sync")
    assert cluster.run(SetBucketCopies(bucket=behind, replication="async")) == Done()
    parts = [b"piece %d" % number for number in range(pieces)]
    made = cluster.run(PutVersion(bucket=behind, key="k", version_id="v", attributes=PLAIN, owner="o", content=NewContent(
        size=sum(map(len, parts)), etag="e", slices=tuple(map(whole, parts)),
        chunks=tuple(cluster.chunk(part, "n1") for part in parts))))
    assert isinstance(made, Committed)
    content = cluster.read(queries.current, behind, "k").content

    def copied(bucket: int) -> Any:
        return cluster.run(PutVersion(bucket=bucket, key="copy", version_id="w", attributes=PLAIN, owner="o", content_of=content))

    assert isinstance(copied(behind), Committed)
    assert copied(sync) == TooFewCopies(wanted=2)
    rows = cluster.db.execute("SELECT digest, session, sequence FROM chunk").fetchall()
    announced = cluster.run(Announce(node=NodeId("n2"), incarnation=cluster.nodes["n2"], copies=tuple(
        (Digest(row[0]), Generation(SessionId(row[1]), row[2])) for row in rows)), cluster.node_sessions["n2"])
    assert announced == Announced(counted=pieces)
    assert isinstance(copied(sync), Committed)
    cluster.check()


# Nodes

def test_what_is_asked_of_nodes_and_what_they_say(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, nodes=3, copies=2)
    bucket = cluster.bucket()
    content = cluster.content(b"bytes")
    made = cluster.run(PutVersion(bucket=bucket, key="k", version_id="v", attributes=PLAIN, owner="o", content=NewContent(
        size=5, etag="e", slices=content.slices, chunks=(cluster.chunk(b"bytes", "n1", "n2"),))))
    assert isinstance(made, Committed)
    assert cluster.run(AskNode(node=NodeId("n9"), asked="draining")) == NoNode()
    assert isinstance(cluster.run(AskNode(node=NodeId("n1"), asked="gone")), Malformed)
    assert isinstance(cluster.run(SetNodeState(node=NodeId("n1"), state="draining")), Malformed)
    assert cluster.run(AskNode(node=NodeId("n1"), asked="draining")) == Done()
    assert isinstance(cluster.run(RemoveNode(node=NodeId("n1"))), NodeInUse), "not all chunks are looked through"
    cluster.drain()
    assert [each.nodes for each in cluster.read(queries.under_replicated)] == [("n1", "n2")]
    assert isinstance(cluster.run(RemoveNode(node=NodeId("n1"))), NodeInUse), "what it holds is still to be made elsewhere"

    row = cluster.db.execute("SELECT session, sequence FROM chunk").fetchone()
    copy = ((digest(b"bytes"), Generation(SessionId(row[0]), row[1])),)
    give_up = Withdraw(node=NodeId("n1"), copies=copy)
    assert cluster.run(give_up, cluster.node_sessions["n1"]) == Withdrawn(places=()), "it is the second of two"
    assert cluster.run(Announce(node=NodeId("n3"), incarnation=cluster.nodes["n3"], copies=copy),
                       cluster.node_sessions["n3"]) == Announced(counted=1)
    assert [each.nodes for each in cluster.read(queries.over_replicated)] == [("n1", "n2", "n3")]
    assert isinstance(cluster.run(RemoveNode(node=NodeId("n1"))), NodeInUse), "it is listed"
    assert cluster.run(give_up, cluster.node_sessions["n1"]) == Withdrawn(places=(0,))
    late = cluster.run(PutVersion(bucket=bucket, key="l", version_id="v", attributes=PLAIN, owner="o", content=NewContent(
        size=5, etag="e", slices=(whole(b"other"),), chunks=(cluster.chunk(b"other", "n1", "n2"),))))
    assert isinstance(late, Committed), "a gateway that has not heard of it yet: the copy is as durable as another"
    assert [each.nodes for each in cluster.read(queries.under_replicated)] == [("n1", "n2")], "but it has to be made elsewhere"
    assert isinstance(cluster.run(RemoveNode(node=NodeId("n1"))), NodeInUse)
    cluster.run(DeleteVersion(bucket=bucket, key="l"))
    assert cluster.run(RemoveNode(node=NodeId("n1"))) == Done()
    assert isinstance(cluster.run(RemoveNode(node=NodeId("n2"), force=True)), NodeInUse), "it is up"
    assert cluster.run(SetNodeState(node=NodeId("n2"), state="down")) == Done()
    assert cluster.run(RemoveNode(node=NodeId("n2"), force=True)) == Done()
    cluster.drain()
    assert [place.nodes for place in cluster.read(queries.chunk_places)] == [("n3",)]
    assert decode_locations(cluster.db.execute("SELECT locations FROM chunk").fetchone()[0]) == (3,)
    cluster.check()
    cluster.reopen()
    assert [node.node for node in cluster.read(queries.nodes)] == ["n3"]


def test_nothing_is_given_back_for_the_sake_of_copies_that_are_away(tmp_path: Path) -> None:
    """A node that is down counts, so that nobody copies its share for a restart; but it makes nobody else's copy needless."""
    cluster = Cluster(tmp_path, nodes=4, copies=2)
    bucket = cluster.bucket()
    made = cluster.run(PutVersion(bucket=bucket, key="k", version_id="v", attributes=PLAIN, owner="o", content=NewContent(
        size=5, etag="e", slices=(whole(b"bytes"),), chunks=(cluster.chunk(b"bytes", "n1", "n2", "n3"),))))
    assert isinstance(made, Committed)
    row = cluster.db.execute("SELECT session, sequence FROM chunk").fetchone()
    give_up = Withdraw(node=NodeId("n1"), copies=((digest(b"bytes"), Generation(SessionId(row[0]), row[1])),))
    assert cluster.run(SetNodeState(node=NodeId("n2"), state="down")) == Done()
    assert cluster.run(give_up, cluster.node_sessions["n1"]) == Withdrawn(places=())
    assert cluster.read(queries.under_replicated) == []
    assert cluster.run(SetNodeState(node=NodeId("n2"), state="up")) == Done()
    assert cluster.run(give_up, cluster.node_sessions["n1"]) == Withdrawn(places=(0,))
    cluster.check()


def test_replication_and_copies_of_a_bucket_decide_its_quorum(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, nodes=3)
    made = cluster.run(CreateBucket(name="quick", account="a", owner="o", copies=3, replication="async"))
    assert isinstance(made, BucketCreated)
    for wish, quorum in ((None, None), 2), ((3, "async"), 1), ((3, "all"), 3), ((1, "sync"), 1), ((2, "sync"), 2):
        assert cluster.run(SetBucketCopies(bucket=made.bucket, copies=wish[0], replication=wish[1])) == Done()
        data = repr(wish).encode()
        for count in range(1, 4):
            result = cluster.run(PutVersion(bucket=made.bucket, key="k", version_id="v", attributes=PLAIN, owner="o",
                                            content=NewContent(
                                                size=len(data), etag="e", slices=(whole(data),),
                                                chunks=(cluster.chunk(data, *list(cluster.nodes)[:count]),))))
            assert isinstance(result, Committed) == (count >= quorum), (wish, count)
    assert isinstance(cluster.run(SetBucketCopies(bucket=made.bucket, copies=10)), Malformed)
    assert isinstance(cluster.run(SetBucketCopies(bucket=made.bucket, replication="most")), Malformed)
    cluster.drain()
    cluster.check()
