"""Multipart uploads as the machine decides them: parts, pages, Complete and its repeats, abort, and what goes then."""

from collections.abc import Iterable
from typing import Any

import pytest

from consensus import queries
from consensus.core.commands import (
    AbortUpload,
    CompleteUpload,
    Condition,
    CreateUpload,
    DeleteBucket,
    DeleteVersion,
    EndSession,
    ListedPart,
    PutPart,
    PutVersion,
    StageParts,
)
from consensus.core.ids import digest
from consensus.core.model import Attributes, Checksum
from consensus.core.results import (
    Committed,
    ConditionConflict,
    ConditionFailed,
    Done,
    Malformed,
    NoBucket,
    NoKey,
    NoUpload,
    PartChanged,
    PartStored,
    Staged,
)
from tests.unit.consensus.metadata import PLAIN, Cluster


class Upload:
    """One upload of key "k" in a bucket."""

    def __init__(self, cluster: Cluster, bucket: int, id: str = "u", **named: Any) -> None:
        self.cluster, self.at = cluster, {"bucket": bucket, "key": "k", "upload_id": id}
        assert cluster.run(CreateUpload(**self.at, owner="o", **{"attributes": PLAIN, **named})) == Done()

    def put(self, number: int, *pieces: bytes, **named: Any) -> Any:
        return self.cluster.run(PutPart(**self.at, number=number, content=self.cluster.content(*pieces, **named)))

    def listed(self, numbers: Iterable[int] | None = None) -> tuple[ListedPart, ...]:
        parts = self.cluster.read(queries.parts, self.at["bucket"], "k", self.at["upload_id"], 0, 10_000)
        wanted = None if numbers is None else set(numbers)
        return tuple(ListedPart(number=part.number, content=part.content) for part in parts
                     if wanted is None or part.number in wanted)

    def stage(self, parts: tuple[ListedPart, ...], into: int | None = None, session: int | None = None) -> Any:
        return self.cluster.run(StageParts(**self.at, parts=parts, into=into), session)

    def complete(self, size: int, parts: tuple[ListedPart, ...] = (), session: int | None = None, **named: Any) -> Any:
        command = CompleteUpload(**self.at, version_id="v", size=size, parts=parts, **{"etag": "e-2", **named})
        return self.cluster.run(command, session)

    def abort(self) -> Any:
        return self.cluster.run(AbortUpload(**self.at))


def read(cluster: Cluster, content: int, start: int = 0, length: int = 1 << 40) -> list[tuple[bytes, int, int]]:
    return [(piece.digest, piece.start, piece.length) for piece in cluster.read(queries.slices, content, start, length)]


def test_complete_makes_one_object_of_the_listed_parts(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    attributes = Attributes(content_type="video/x", metadata=(("a", "b"),))
    upload = Upload(cluster, bucket, attributes=attributes)
    assert upload.put(2, b"wor", b"ld") == PartStored(modified_ms=cluster.now)
    upload.put(7, b"!")
    upload.put(1, b"hello ")
    upload.put(3, b"not listed")
    checksum = Checksum("CRC32", "x-3", "COMPOSITE")
    result = upload.complete(12, upload.listed((1, 2, 7)), checksum=checksum)
    assert result == Committed(version_id=None, order=result.order, modified_ms=cluster.now, etag="e-2",
                               checksum=checksum)
    _, version, slices = cluster.read(queries.opened, "bucket", "k")
    assert (version.size, version.part_count, version.attributes, version.etag) == (12, 3, attributes, "e-2")
    assert [piece.digest for piece in slices] == [digest(piece) for piece in (b"hello ", b"wor", b"ld", b"!")]
    parts = cluster.read(queries.object_parts, version.content)
    assert [(part.number, part.start, part.size) for part in parts] == [(1, 0, 6), (2, 6, 5), (7, 11, 1)]
    assert cluster.read(queries.part_of, version.content, 7) == parts[2]
    assert cluster.read(queries.part_of, version.content, 3) is None
    assert cluster.read(queries.object_parts, version.content, 1, 1) == parts[1:2]
    cluster.drain()
    assert cluster.rows("part") == 0
    assert cluster.chunk_row(b"not listed") is None, "parts that aren't listed are discarded"
    cluster.run(DeleteVersion(bucket=bucket, key="k"))
    cluster.drain(limit=3)
    assert [cluster.rows(table) for table in ("content", "content_part", "chunk", "queue")] == [0, 0, 0, 0]


def test_a_range_touches_its_own_parts(cluster: Cluster) -> None:
    upload = Upload(cluster, cluster.bucket())
    for number, data in enumerate((b"abc", b"", b"defg", b"", b""), 1):
        cluster.run(PutPart(**upload.at, number=number, content=cluster.content(*([data] if data else []))))
    upload.complete(7, upload.listed())
    content = cluster.read(queries.opened, "bucket", "k")[1].content
    abc, defg = digest(b"abc"), digest(b"defg")
    assert read(cluster, content) == [(abc, 0, 3), (defg, 0, 4)]
    assert read(cluster, content, 2, 2) == [(abc, 2, 1), (defg, 0, 1)]
    assert read(cluster, content, 3, 1) == [(defg, 0, 1)]
    assert read(cluster, content, 6, 100) == [(defg, 3, 1)]
    assert read(cluster, content, 7, 1) == []


def test_what_an_upload_was_begun_with_is_known_until_its_completion_is_forgotten(cluster: Cluster) -> None:
    said = (("x-amz-acl", "private"), ("x-amz-tagging", "a=b"))
    upload = Upload(cluster, cluster.bucket(), said=said)
    at = tuple(upload.at.values())
    assert cluster.read(queries.upload, *at).said == said
    upload.put(1, b"abc")
    upload.complete(3, upload.listed())
    assert cluster.read(queries.upload, *at).said == said
    much = (("x-amz-tagging", "x" * (64 << 10)),)
    assert isinstance(cluster.run(CreateUpload(**{**upload.at, "upload_id": "v"}, attributes=PLAIN, owner="o", said=much)),
                      Malformed)


def test_a_part_put_again_replaces_the_first(cluster: Cluster) -> None:
    upload = Upload(cluster, cluster.bucket())
    upload.put(1, b"old")
    upload.put(1, b"newer")
    (part,) = cluster.read(queries.parts, upload.at["bucket"], "k", "u")
    assert part.size == 5
    assert cluster.chunk_row(b"old") is None


@pytest.mark.parametrize("number", [0, -1, 10_001])
def test_part_numbers_have_a_range(cluster: Cluster, number: int) -> None:
    assert isinstance(Upload(cluster, cluster.bucket()).put(number, b"x"), Malformed)


def test_an_unknown_upload_or_another_key_has_no_parts(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    upload = Upload(cluster, bucket)
    other = {**upload.at, "key": "other"}
    assert cluster.run(PutPart(**other, number=1, content=cluster.content(b"x"))) == NoUpload()
    assert cluster.run(AbortUpload(**other)) == NoUpload()
    assert cluster.run(StageParts(**other, parts=())) == NoUpload()
    assert cluster.run(PutPart(**{**other, "bucket": 5}, number=1, content=cluster.content(b"x"))) == NoBucket()
    assert isinstance(cluster.run(CreateUpload(**upload.at, attributes=PLAIN, owner="o")), Malformed), "an id is unique"
    assert cluster.rows("chunk") == 0


def test_abort_discards_all_parts(cluster: Cluster) -> None:
    upload = Upload(cluster, cluster.bucket())
    for number in range(1, 5):
        upload.put(number, bytes([number]))
    assert upload.abort() == Done()
    assert upload.abort() == NoUpload()
    assert upload.put(9, b"late") == NoUpload()
    assert cluster.drain(limit=2) > 1
    assert cluster.rows("part") == cluster.rows("content") == cluster.rows("chunk") == 0


def test_a_deleted_bucket_takes_its_uploads_with_it(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    for id in ("a", "b", "c"):
        Upload(cluster, bucket, id).put(1, b"x")
    assert cluster.run(DeleteBucket(bucket=bucket)) == Done()
    cluster.drain(limit=1)
    assert [cluster.rows(table) for table in ("upload", "part", "content", "chunk")] == [0, 0, 0, 0]


# The list

def test_a_list_is_ascending_and_each_part_is_what_the_gateway_compared(cluster: Cluster) -> None:
    upload = Upload(cluster, cluster.bucket())
    upload.put(1, b"a")
    upload.put(2, b"b")
    one, two = upload.listed()
    assert isinstance(upload.complete(2, (two, one)), Malformed)
    assert isinstance(upload.complete(2, (one, one)), Malformed)
    assert upload.complete(2, (one, ListedPart(number=2, content=one.content))) == PartChanged(number=2)
    assert upload.complete(2, (one, ListedPart(number=3, content=two.content))) == PartChanged(number=3)
    assert isinstance(upload.complete(3, (one, two)), Malformed), "the size is the parts' sum"
    assert isinstance(upload.complete(0), Malformed), "no parts at all"
    upload.put(2, b"c")
    assert upload.complete(2, (one, two)) == PartChanged(number=2)
    assert isinstance(upload.complete(2, upload.listed()), Committed), "a failed Complete leaves the upload usable"


def test_thousands_of_parts_come_in_pages_and_one_command_decides(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    upload = Upload(cluster, bucket)
    contents = [(number, cluster.content(number.to_bytes(2, "big"))) for number in range(1, 2001)]
    cluster.send(*(cluster.envelope(PutPart(**upload.at, number=number, content=content))
                   for number, content in contents))
    parts, staged = upload.listed(), None
    for start in range(0, 1600, 400):
        result = upload.stage(parts[start:start + 400], staged)
        assert isinstance(result, Staged)
        staged = result.content
    assert isinstance(upload.complete(4000, parts[1600:], staged=staged), Committed)
    version = cluster.read(queries.opened, "bucket", "k")[1]
    assert version.part_count == 2000
    assert read(cluster, version.content, 2999, 2) == [
        (digest((1500).to_bytes(2, "big")), 1, 1), (digest((1501).to_bytes(2, "big")), 0, 1)]
    cluster.run(DeleteVersion(bucket=bucket, key="k"))
    cluster.drain()
    assert cluster.rows("content") == cluster.rows("chunk") == cluster.rows("content_part") == 0


def test_a_page_has_a_limit_and_at_least_one_part(cluster: Cluster) -> None:
    upload = Upload(cluster, cluster.bucket())
    upload.put(1, b"a")
    assert isinstance(upload.stage(upload.listed() * 401), Malformed)
    assert isinstance(upload.stage(()), Malformed)


def test_a_part_replaced_after_its_page_makes_the_decision_start_over(cluster: Cluster) -> None:
    upload = Upload(cluster, cluster.bucket())
    upload.put(1, b"a")
    upload.put(2, b"b")
    parts = upload.listed()
    staged = upload.stage(parts[:1]).content
    upload.put(1, b"z")
    assert upload.complete(2, parts[1:], staged=staged) == PartChanged(number=0)
    parts = upload.listed()
    staged = upload.stage(parts[:1]).content
    upload.put(3, b"new")
    assert isinstance(upload.complete(2, parts[1:], staged=staged), Committed), "a part that is new disturbs nobody"
    cluster.drain()
    assert cluster.chunk_row(b"a") is None, "the list that was given up is released"


def test_a_page_after_a_replacement_is_refused_too(cluster: Cluster) -> None:
    upload = Upload(cluster, cluster.bucket())
    upload.put(1, b"a")
    upload.put(2, b"b")
    staged = upload.stage(upload.listed((1,))).content
    upload.put(2, b"z")
    assert upload.stage(upload.listed((2,)), staged) == PartChanged(number=0)


def test_a_list_belongs_to_its_session_and_its_upload(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    upload, other = Upload(cluster, bucket), Upload(cluster, bucket, "other")
    upload.put(1, b"a")
    other.put(1, b"a")
    staged = upload.stage(upload.listed()).content
    session = cluster.open_session()
    assert isinstance(upload.complete(1, staged=staged, session=session), Malformed)
    assert other.complete(1, staged=staged) == PartChanged(number=0)
    staged = upload.stage(upload.listed()).content
    cluster.run(EndSession(session=cluster.session), 0)
    cluster.drain()
    assert cluster.rows("staged") == cluster.rows("content_part") == 0
    assert cluster.rows("part") == 2


def test_a_part_list_is_not_taken_for_a_content_of_slices(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    upload = Upload(cluster, bucket)
    upload.put(1, b"a")
    staged = upload.stage(upload.listed()).content
    content = cluster.content(staged=staged)
    assert isinstance(cluster.run(PutVersion(bucket=bucket, key="x", version_id="v", attributes=PLAIN, owner="o",
                                             content=content)), Malformed)


# Repeats and conditions

def test_a_repeated_complete_gets_the_first_answer_for_a_day(cluster: Cluster) -> None:
    bucket = cluster.bucket(versioning="Enabled")
    upload = Upload(cluster, bucket)
    upload.put(1, b"a")
    parts = upload.listed()
    first = upload.complete(1, parts)
    cluster.put(bucket, "k", b"later")
    assert upload.complete(1, parts) == first
    assert upload.complete(1, parts, etag="other-1") == NoUpload()
    found = cluster.read(queries.upload, bucket, "k", "u")
    assert (found.completed_version, found.completed_etag, found.owner) == ("v", "e-2", "o")
    assert cluster.read(queries.uploads, bucket, "", "", "", None, 9).uploads == ()
    assert upload.put(2, b"b") == NoUpload()
    assert upload.abort() == NoUpload()
    cluster.drain()
    cluster.now += 23 * 3_600_000
    cluster.drain()
    assert upload.complete(1, parts) == first
    cluster.now += 2 * 3_600_000
    assert cluster.machine.has_work(cluster.now)
    cluster.drain()
    assert upload.complete(1, parts) == NoUpload()
    assert cluster.read(queries.upload, bucket, "k", "u") is None


def test_conditions_of_complete_see_a_key_that_changed_since_the_upload_began(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    def begun() -> Upload:
        upload = Upload(cluster, bucket, f"u{cluster.index}")
        upload.put(1, b"a")
        return upload
    def complete(upload: Upload, match: str | None = None, none_match: str | None = None) -> Any:
        return upload.complete(1, upload.listed(), condition=Condition(if_match=match, if_none_match=none_match))
    early = begun()
    assert complete(early, match="x") == NoKey()
    etag = cluster.put(bucket, "k", b"x").etag
    assert complete(early, none_match="*") == ConditionFailed(condition="If-None-Match")
    assert complete(early, match="no") == ConditionFailed(condition="If-Match")
    assert complete(early, match=etag) == ConditionConflict(condition="If-Match"), "it came after the upload began"
    upload = begun()
    assert isinstance(complete(upload, match=etag), Committed)
    late = begun()
    cluster.run(DeleteVersion(bucket=bucket, key="k"))
    assert complete(late, none_match="*") == ConditionConflict(condition="If-None-Match"), "it was there and has gone"
    assert complete(late, match="e-2") == NoKey()
    assert isinstance(complete(late), Committed), "without a condition the last one wins"
    cluster.run(DeleteVersion(bucket=bucket, key="k"))
    assert isinstance(complete(begun(), none_match="*"), Committed)


def test_complete_replaces_and_counts_like_a_put(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    cluster.put(bucket, "k", b"before")
    upload = Upload(cluster, bucket)
    upload.put(1, b"abc")
    upload.complete(3, upload.listed())
    found = cluster.read(queries.bucket_counted, "bucket")
    assert (found.object_count, found.byte_count) == (1, 3)
    assert cluster.chunk_row(b"before") is None


def test_a_composite_is_copied_like_any_content(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    upload = Upload(cluster, bucket)
    upload.put(1, b"abc")
    upload.complete(3, upload.listed())
    content = cluster.read(queries.current, bucket, "k").content
    copy = cluster.run(PutVersion(bucket=bucket, key="c", version_id="v", attributes=PLAIN, owner="o",
                                  content_of=content))
    assert copy.etag == "e-2"
    cluster.run(DeleteVersion(bucket=bucket, key="k"))
    cluster.drain()
    assert cluster.read(queries.current, bucket, "c").part_count == 1
    assert read(cluster, content) == [(digest(b"abc"), 0, 3)]
