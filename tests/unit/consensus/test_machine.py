"""The frame: sessions, repeats, transactions, restarts, and what a bad command gets."""

import sqlite3
from pathlib import Path

import msgspec
import pytest

from consensus import audit
from consensus.core.codec import encode_entry
from consensus.core.commands import (
    RESULTS_PER_SESSION_MAX,
    CreateBucket,
    DeleteBucket,
    EndSession,
    Envelope,
    NewContent,
    OpenSession,
    PutVersion,
    SetVersioning,
    StageContent,
)
from consensus.core.errors import Corrupt
from consensus.core.model import Slice
from consensus.core.results import (
    BucketCreated,
    BucketExists,
    Committed,
    Done,
    Malformed,
    NoBucket,
    SequencePassed,
    SessionEnded,
)
from consensus.machine import Machine
from tests.unit.consensus.metadata import PLAIN, Cluster


def test_a_repeat_gets_the_first_result_and_has_no_second_effect(cluster: Cluster) -> None:
    first = cluster.envelope(CreateBucket(name="b", account="a", owner="o"))
    (result,) = cluster.send(first)
    assert cluster.send(first) == [result]
    assert cluster.rows("bucket") == 1


def test_a_repeat_in_the_same_entry_gets_the_first_result(cluster: Cluster) -> None:
    one = cluster.envelope(CreateBucket(name="b", account="a", owner="o"))
    two = cluster.envelope(CreateBucket(name="b", account="z", owner="o"))
    created, again, exists = cluster.send(one, one, two)
    assert created == again
    assert isinstance(created, BucketCreated)
    assert exists == BucketExists(account="a")


def test_refusals_are_kept_too(cluster: Cluster) -> None:
    refused = cluster.envelope(DeleteBucket(bucket=77))
    assert cluster.send(refused) == [NoBucket()]
    bucket = cluster.bucket()
    assert cluster.send(msgspec.structs.replace(refused, command=DeleteBucket(bucket=bucket))) == [NoBucket()]


def test_results_outlive_a_restart(cluster: Cluster) -> None:
    first = cluster.envelope(CreateBucket(name="b", account="a", owner="o"))
    (result,) = cluster.send(first)
    cluster.reopen()
    assert cluster.send(first) == [result]


def test_below_the_mark_a_sequence_is_refused_even_after_a_restart(cluster: Cluster) -> None:
    old = cluster.envelope(CreateBucket(name="b", account="a", owner="o"), sequence=3)
    cluster.send(old)
    cluster.run(CreateBucket(name="c", account="a", owner="o"), sequence=9, low=9)
    assert cluster.send(old) == [SequencePassed()]
    cluster.reopen()
    assert cluster.send(old) == [SequencePassed()]
    assert cluster.rows("result") == 1


def test_an_earlier_low_does_not_lower_the_mark(cluster: Cluster) -> None:
    cluster.run(SetVersioning(bucket=1, status="Enabled"), sequence=9, low=9)
    cluster.run(SetVersioning(bucket=1, status="Enabled"), sequence=12, low=2)
    assert cluster.run(SetVersioning(bucket=1, status="Enabled"), sequence=8) == SequencePassed()


def test_an_ended_or_unknown_session_is_refused(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    assert cluster.run(EndSession(session=cluster.session), 0) == Done()
    assert cluster.put(bucket, "k", b"x") == SessionEnded()
    assert cluster.put(bucket, "k", b"x", session=12345) == SessionEnded()
    assert cluster.run(EndSession(session=cluster.session), 0) == Done(), "ending it again is no fault"
    cluster.drain()
    assert cluster.rows("result") == 0


def test_a_session_can_end_itself(cluster: Cluster) -> None:
    assert cluster.run(EndSession(session=cluster.session)) == Done()
    assert cluster.put(1, "k", b"x") == SessionEnded()


def test_no_session_keeps_more_results_than_the_limit(cluster: Cluster) -> None:
    command = SetVersioning(bucket=1, status="Enabled")
    cluster.send(*(cluster.envelope(command, sequence=n) for n in range(1, RESULTS_PER_SESSION_MAX + 1)))
    assert isinstance(cluster.run(command), Malformed)
    assert cluster.run(command, sequence=5) == NoBucket(), "a repeat is still answered"
    assert cluster.run(command, low=10) == NoBucket(), "and a mark that moves makes room"


def test_now_never_runs_backwards_and_survives_a_restart(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    cluster.now = 5_000_000
    late = cluster.put(bucket, "k", b"x")
    cluster.reopen()
    cluster.now = 3_000_000
    early = cluster.put(bucket, "k", b"y")
    assert early.modified_ms == late.modified_ms
    assert early.order > late.order


def test_uncommitted_entries_leave_nothing_and_can_be_applied_again(cluster: Cluster) -> None:
    before = audit.logical_hash(cluster.db)
    entry = encode_entry([cluster.envelope(CreateBucket(name="b", account="a", owner="o"))])
    cluster.machine.apply(entry, cluster.index + 1)
    cluster.machine.close()
    cluster.machine = Machine(cluster.folder)
    assert audit.logical_hash(cluster.db) == before
    assert isinstance(cluster.machine.apply(entry, cluster.index + 1)[0], BucketCreated)
    cluster.machine.commit(cluster.index + 1, 2)
    assert (cluster.machine.applied, cluster.machine.applied_term) == (cluster.index + 1, 2)


def test_an_entry_without_commands_still_moves_the_applied_index(cluster: Cluster) -> None:
    cluster.machine.commit(cluster.index + 5, 3)
    assert cluster.machine.applied == cluster.index + 5
    cluster.index += 5
    cluster.reopen()
    assert cluster.machine.applied_term == 3


def test_a_checkpoint_says_how_far_the_file_is_durable(cluster: Cluster) -> None:
    cluster.bucket()
    assert cluster.machine.checkpoint() == cluster.machine.applied
    cluster.reopen()
    cluster.bucket("other")
    reader = sqlite3.connect(cluster.machine.path)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM meta").fetchall()
    cluster.bucket("third")
    assert cluster.machine.checkpoint() == 0, "a reader holds the checkpoint up: nothing is known since the start"
    reader.close()
    assert cluster.machine.checkpoint() == cluster.machine.applied


def test_an_entry_of_a_future_version_stops_the_machine(cluster: Cluster) -> None:
    with pytest.raises(Corrupt):
        cluster.machine.apply(b"\x63rest", cluster.index + 1)
    with pytest.raises(Corrupt):
        cluster.machine.apply(b"", cluster.index + 1)


def test_an_entry_that_is_no_list_of_envelopes_is_answered(cluster: Cluster) -> None:
    before = audit.logical_hash(cluster.db)
    for rubbish in (b"\x01", b"\x01\xff\xff", encode_entry([])[:1] + b"\x91\xc0"):
        assert isinstance(cluster.machine.apply(rubbish, cluster.index + 1)[0], Malformed)
    assert audit.logical_hash(cluster.db) == before


HUGE = 1 << 64


@pytest.mark.parametrize("command", [
    CreateBucket(name="", account="a", owner="o"),
    CreateBucket(name="b" * 5000, account="a", owner="o"),
    CreateBucket(name="b", account="a", owner="o", versioning="On"),
    StageContent(slices=()),
    StageContent(slices=(Slice(b"short", 0, 1),)),
    StageContent(slices=(Slice(b"d" * 32, 0, 1),) * 301),
    StageContent(slices=(Slice(b"d" * 32, 0, 1),), into=HUGE - 1),
    PutVersion(bucket=HUGE - 1, key="k", version_id="v", attributes=PLAIN, owner="o"),
    EndSession(session=HUGE - 1),
    DeleteBucket(bucket=-5),
])
def test_bad_commands_are_answered_and_change_nothing(cluster: Cluster, command: object) -> None:
    before = audit.logical_hash(cluster.db)
    envelope = Envelope(session=0, sequence=0, low=0, now_ms=0, command=command)  # type: ignore[arg-type]
    (result,) = cluster.machine.apply(encode_entry([envelope]), cluster.index + 1)
    assert isinstance(result, Malformed | NoBucket | Done)
    assert audit.logical_hash(cluster.db) == before


@pytest.mark.parametrize("numbers", [
    {"sequence": HUGE - 1}, {"low": 5, "sequence": 4}, {"now_ms": HUGE - 1}, {"session": HUGE - 1}, {"now_ms": -1},
    {"low": -1}, {"sequence": -1, "low": -2},
])
def test_an_envelope_out_of_range_changes_nothing(cluster: Cluster, numbers: dict[str, int]) -> None:
    before = audit.logical_hash(cluster.db)
    good = Envelope(session=cluster.session, sequence=7, low=0, now_ms=cluster.now, command=OpenSession(owner="x"))
    (result,) = cluster.machine.apply(encode_entry([msgspec.structs.replace(good, **numbers)]), cluster.index + 1)
    assert isinstance(result, Malformed)
    assert audit.logical_hash(cluster.db) == before


@pytest.mark.parametrize("key", ["", "k" * 1025, "é" * 513])
def test_keys_have_s3s_length(cluster: Cluster, key: str) -> None:
    assert isinstance(cluster.put(cluster.bucket(), key, b"x"), Malformed)


def test_odd_keys_are_kept_exactly(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    for key in ("a\0b", "\x7f", "\U0010ffff", "a//b", " ", "é" * 512):
        assert isinstance(cluster.put(bucket, key, b"x"), Committed)
    from consensus import queries

    page = cluster.read(queries.list_objects, bucket, "", "", "", 100)
    assert [entry.key for entry in page.objects] == sorted(
        ("a\0b", "\x7f", "\U0010ffff", "a//b", " ", "é" * 512), key=str.encode
    )


def test_an_empty_object_has_a_content_without_slices(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    empty = NewContent(size=0, etag="e")
    result = cluster.run(PutVersion(bucket=bucket, key="k", version_id="v", attributes=PLAIN, owner="o", content=empty))
    assert isinstance(result, Committed)
    assert cluster.rows("chunk") == 0


def test_a_damaged_row_is_never_believed(cluster: Cluster) -> None:
    bucket = cluster.bucket()
    cluster.put(bucket, "k", b"x")
    cluster.db.execute("UPDATE chunk SET size = size + 1")
    with pytest.raises(Corrupt):
        cluster.put(bucket, "k2", b"x")
    cluster.db.execute("ROLLBACK")
    cluster.machine._open = False
    cluster.db.execute("UPDATE chunk SET size = size - 1")


def test_equal_logs_give_equal_metadata_however_they_are_cut(cluster: Cluster, tmp_path: Path) -> None:
    bucket = cluster.bucket(versioning="Enabled")
    for number in range(40):
        cluster.put(bucket, f"k{number % 7}", bytes([number % 5]))
        if number % 10 == 9:
            cluster.run(EndSession(session=cluster.session), 0)
            cluster.session = cluster.open_session()
    wanted = audit.logical_hash(cluster.db)
    other = Machine(tmp_path / "other")
    for index, entry in enumerate(cluster.entries, 1):
        other.apply(entry, index)
        if index == len(cluster.entries) // 2:
            other.close()      # nothing was committed: everything is applied again
            other = Machine(tmp_path / "other")
            for earlier, again in enumerate(cluster.entries[:index], 1):
                other.apply(again, earlier)
            other.commit(index, 1)
    other.commit(len(cluster.entries), 1)
    assert audit.logical_hash(other.db) == wanted
    other.close()
