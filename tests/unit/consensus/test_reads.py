"""Queries that are a transaction in themselves: they see what was committed, and leave nothing open behind them."""

import sqlite3
from pathlib import Path
from typing import get_type_hints

import msgspec
import pytest

from consensus import queries
from consensus.core.commands import SetBucketCopies, SetVersioning
from consensus.core.errors import Unavailable
from consensus.reads import Reader, query_named
from tests.unit.consensus.metadata import Cluster


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    made = Cluster(tmp_path)
    made.put(made.bucket("bucket"), "small", b"bytes")
    return made


@pytest.mark.parametrize("key", ["small", "none"])
def test_a_query_alone_pins_no_snapshot(cluster: Cluster, key: str) -> None:
    """Else the log could not be folded into the file, and the connection would go on reading the past."""
    assert cluster.read(queries.bucket, "bucket") is not None
    found = cluster.read(queries.opened_at_once, "bucket", key)
    assert found is not None
    assert (found[1] is not None) == (key == "small")
    writer = sqlite3.connect(cluster.machine.path, isolation_level=None)
    writer.execute("PRAGMA busy_timeout = 0")
    busy, left, _ = writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    writer.close()
    assert (busy, left) == (0, 0)


def test_a_query_alone_sees_the_latest_commit(cluster: Cluster) -> None:
    within = cluster.read(queries.bucket, "bucket").id
    for number in range(3):
        key = f"k{number}"
        assert cluster.read(queries.opened_at_once, "bucket", key)[1] is None
        cluster.put(within, key, b"bytes")
        assert cluster.read(queries.opened_at_once, "bucket", key)[1].key == key


def test_a_bucket_that_a_reader_knows_is_read_anew_when_it_has_changed(cluster: Cluster) -> None:
    within = cluster.read(queries.bucket, "bucket")
    assert cluster.read(queries.bucket, "bucket") is within, "not known"
    cluster.run(SetVersioning(bucket=within.id, status="Enabled"))
    assert cluster.read(queries.opened_at_once, "bucket", "small") is None, "the bucket is not that one any more"
    assert cluster.read(queries.opened, "bucket", "small")[0].versioning == "Enabled"
    assert cluster.read(queries.opened_at_once, "bucket", "small")[0].versioning == "Enabled"
    cluster.run(SetBucketCopies(bucket=within.id, copies=2))
    assert cluster.read(queries.bucket, "bucket").copies == 2


def test_counters_are_those_of_the_moment_where_they_are_asked_for(cluster: Cluster) -> None:
    known = cluster.read(queries.bucket, "bucket")
    cluster.put(known.id, "one more", b"bytes")
    assert cluster.read(queries.bucket, "bucket") is known
    assert cluster.read(queries.bucket_counted, "bucket").object_count == known.object_count + 1


def test_every_column_of_a_bucket_but_its_counters_counts_as_a_change(cluster: Cluster) -> None:
    """Else a reader would not notice: a new column belongs into the trigger."""
    database = cluster.machine.db
    columns = {row[1] for row in database.execute("PRAGMA table_info(bucket)")}
    ((trigger,),) = database.execute("SELECT sql FROM sqlite_master WHERE name = 'bucket_changed'").fetchall()
    watched = set(trigger.partition("UPDATE OF")[2].partition("ON bucket")[0].replace(",", " ").split())
    assert columns - watched == {"id", "objects", "bytes", "uploading", "changed"}


def test_what_needs_more_than_one_statement_is_not_told_at_once(cluster: Cluster) -> None:
    cluster.put(cluster.read(queries.bucket, "bucket").id, "long", b"one", b"two")
    assert cluster.read(queries.opened_at_once, "bucket", "long") is None
    assert cluster.read(queries.opened, "bucket", "long")[1].key == "long"


def test_a_file_of_another_generation_is_not_read_by_a_query_alone(cluster: Cluster, tmp_path: Path) -> None:
    generation = cluster.machine.generation
    (tmp_path / f"meta.{generation + 1}.sqlite").symlink_to(cluster.machine.path)
    reader = Reader(str(tmp_path), queries.header, queries.ALONE)
    for _ in range(2):
        with pytest.raises(Unavailable, match="generation"):
            reader.run(generation + 1, queries.bucket, "bucket")
    reader.close()


def test_every_query_can_be_asked_from_elsewhere() -> None:
    """Its arguments and its value travel: a host without a member has its queries run by another."""
    for name in vars(queries):
        try:
            function = query_named(queries, name)
        except LookupError:
            continue
        for kind in get_type_hints(function).values():
            if kind is not sqlite3.Connection:
                msgspec.msgpack.Decoder(kind)
