"""The schema: docs/format/metadata.md names every table and column, and a newer schema is not touched."""

import re
from pathlib import Path
from typing import Any

import pytest

from consensus import queries
from consensus.core.commands import (
    AbortUpload,
    CreateBucket,
    CreateUpload,
    CreateUser,
    NewContent,
    PutPart,
    PutVersion,
    SetBucketCopies,
)
from consensus.core.errors import Refused
from consensus.core.model import User
from consensus.core.results import Committed, Done, PartStored
from consensus.tables import SCHEMA_VERSION, TABLES, open_database
from tests.unit.consensus.metadata import PLAIN, Cluster, whole

PIECES = [bytes([number]) * 3 for number in range(70)]
PAGE = Path(__file__).parents[3] / "docs" / "format" / "metadata.md"


def test_the_page_about_the_format_names_every_column() -> None:
    sections = dict(re.findall(r"^\*\*(\w+)\*\* (.*?)(?=\n\n)", PAGE.read_text(), re.S | re.M))
    for table in TABLES:
        name = table._meta.table_name
        described = set(re.findall(r"`(\w+)`", sections.pop(name)))
        if name == "history":
            described |= set(re.findall(r"`(\w+)`", dict(re.findall(r"^\*\*(object)\*\* (.*?)(?=\n\n)", PAGE.read_text(),
                                                                    re.S | re.M))["object"]))
        assert set(table._meta.columns) <= described, name
    assert not sections, "and no table that is not there"


def test_the_format_of_a_slice_is_as_the_page_says() -> None:
    from consensus.core.model import Slice
    from consensus.rows import pack_slices, unpack_slices

    slices = (Slice(b"d" * 32, 1, 2), Slice(b"e" * 32, 3, 4))  # type: ignore[arg-type]
    packed = pack_slices(slices)
    assert packed == b"d" * 32 + bytes((0, 0, 0, 1, 0, 0, 0, 2)) + b"e" * 32 + bytes((0, 0, 0, 3, 0, 0, 0, 4))
    assert tuple(unpack_slices(packed)) == slices


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    database = open_database(str(tmp_path / "db"))
    database.execute_sql("UPDATE meta SET v = 99 WHERE k = 'schema'")
    database.close()
    with pytest.raises(Refused, match="schema 99"):
        open_database(str(tmp_path / "db"))


def test_a_folder_of_the_first_schema_is_brought_up_to_date(tmp_path: Path) -> None:
    """Its rows stay, and what came since works."""
    cluster = Cluster(tmp_path)
    bucket = cluster.bucket()
    cluster.put(bucket, "k", b"bytes")
    cluster.reader.close()
    cluster.put(bucket, "k", *PIECES)       # what it replaces waits in the queue, from before it had a time
    cluster.put(bucket, "k", b"bytes")
    for table in ("user", "access_key", "backup", "held", "lingering"):
        cluster.db.execute(f"DROP TABLE {table}")
    cluster.db.execute("DROP INDEX upload_ord")
    cluster.db.execute('ALTER TABLE queue DROP COLUMN "at"')
    without_what_came_with_3(cluster)
    cluster.db.execute("UPDATE meta SET v = 1 WHERE k = 'schema'")
    cluster.reopen()
    assert cluster.rows("queue") > 0
    cluster.drain()
    assert cluster.db.execute("SELECT v FROM meta WHERE k = 'schema'").fetchone() == (SCHEMA_VERSION,)
    user = User(name="u", account="1", user_id="1")
    assert cluster.run(CreateUser(user=user)) == Done()
    cluster.check()
    assert cluster.rows("object") == cluster.rows("user") == cluster.rows("chunk") == 1
    as_if_made_today(cluster, tmp_path)


def test_a_folder_of_the_second_schema_is_brought_up_to_date(tmp_path: Path) -> None:
    """What lacked copies still does, and each bucket may have its own number of copies."""
    cluster = Cluster(tmp_path, 3)
    bucket, other = cluster.bucket(), cluster.bucket("other")
    assert isinstance(cluster.run(PutVersion(
        bucket=bucket, key="k", version_id="v", attributes=PLAIN, owner="o", content=NewContent(
            size=1, etag="e", slices=(whole(b"x"),), chunks=(cluster.chunk(b"x", "n1", "n2"),)))), Committed)
    cluster.put(other, "long", *PIECES)
    cluster.reader.close()
    without_what_came_with_3(cluster)
    cluster.db.execute("UPDATE chunk SET short = 1 WHERE short <> 0")
    cluster.db.execute("UPDATE meta SET v = 2 WHERE k = 'schema'")
    cluster.reopen()
    assert cluster.read(queries.under_replicated)[0].nodes == ("n1", "n2")
    cluster.drain()
    assert cluster.read(queries.under_replicated)[0].place[0] == 3, "two are left, as the queue's order needs it"
    for within in (bucket, other):
        assert cluster.run(SetBucketCopies(bucket=within, copies=2)) == Done()
    cluster.drain()
    cluster.check()
    assert cluster.read(queries.under_replicated) == []
    assert len(cluster.read(queries.over_replicated)) == len(PIECES)
    as_if_made_today(cluster, tmp_path)


def test_a_folder_of_the_third_schema_is_brought_up_to_date(tmp_path: Path) -> None:
    """What buckets and accounts hold is counted once; from then on it is counted along."""
    cluster = Cluster(tmp_path)
    bucket = cluster.bucket()
    cluster.run(CreateBucket(name="empty", account="nobody", owner="o"))
    cluster.put(bucket, "k", b"bytes")
    at: dict[str, Any] = {"bucket": bucket, "key": "k", "upload_id": "u"}
    assert cluster.run(CreateUpload(**at, attributes=PLAIN, owner="o")) == Done()
    for number, body in ((1, b"one"), (2, b"two"), (1, b"first")):
        assert isinstance(cluster.run(PutPart(**at, number=number, content=cluster.content(body))), PartStored)
    cluster.reader.close()
    without_what_came_with_4(cluster)
    cluster.db.execute("UPDATE meta SET v = 3 WHERE k = 'schema'")
    cluster.reopen()
    assert cluster.read(queries.holding_accounts) == [("a", 1, 1, 5, 8, None), ("nobody", 1, 0, 0, 0, None)]
    assert cluster.run(AbortUpload(**at)) == Done()
    assert cluster.read(queries.account_holding, "a") == ("a", 1, 1, 5, 0, None)
    cluster.drain()
    cluster.check()
    as_if_made_today(cluster, tmp_path)


def test_a_folder_of_the_fourth_schema_is_brought_up_to_date(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    bucket = cluster.bucket()
    at: dict[str, Any] = {"bucket": bucket, "key": "k", "upload_id": "u"}
    assert cluster.run(CreateUpload(**at, attributes=PLAIN, owner="o")) == Done()
    cluster.reader.close()
    without_what_came_with_5(cluster)
    cluster.db.execute("ALTER TABLE event_target DROP COLUMN damaged")
    cluster.db.execute("UPDATE meta SET v = 4 WHERE k = 'schema'")
    cluster.reopen()
    assert isinstance(cluster.run(PutPart(**at, number=1, content=cluster.content(b"one"))), PartStored)
    assert cluster.run(AbortUpload(**at)) == Done()
    cluster.drain()
    cluster.check()
    as_if_made_today(cluster, tmp_path)


def without_what_came_with_5(cluster: Cluster) -> None:
    for table in ("upload", "completed"):
        cluster.db.execute(f"ALTER TABLE {table} DROP COLUMN said")


def without_what_came_with_4(cluster: Cluster) -> None:
    without_what_came_with_5(cluster)
    for table in ("duty", "event", "event_target", "account", "renamed"):
        cluster.db.execute(f"DROP TABLE {table}")
    for index in ("bucket_lifecycle", "bucket_quota"):
        cluster.db.execute(f"DROP INDEX {index}")
    cluster.db.execute("DROP TRIGGER bucket_changed")
    for table, columns in {"bucket": ("lifecycle", "events", "uploading", "objects_max", "bytes_max", "changed"),
                           "upload": ("bytes", "initiator")}.items():
        for column in columns:
            cluster.db.execute(f"ALTER TABLE {table} DROP COLUMN {column}")


def without_what_came_with_3(cluster: Cluster) -> None:
    without_what_came_with_4(cluster)
    for table in ("member", "join_token", "user_policy"):
        cluster.db.execute(f"DROP TABLE {table}")
    cluster.db.execute("DROP INDEX chunk_unequal")
    for table, columns in {"bucket": ("copies", "replication", "access"), "node": ("since", "asked"),
                           "content": ("copies", "mark"), "chunk": ("copies", "mark")}.items():
        for column in columns:
            cluster.db.execute(f"ALTER TABLE {table} DROP COLUMN {column}")


def as_if_made_today(cluster: Cluster, tmp_path: Path) -> None:
    fresh = Cluster(tmp_path / "fresh")
    for table in TABLES:
        shape = f"SELECT * FROM pragma_table_info('{table._meta.table_name}')"
        columns = [[row[:4] for row in each.db.execute(shape)] for each in (cluster, fresh)]
        assert columns[0] == columns[1], "as if it had been made today"
    for each in (cluster, fresh):
        each.reader.close()
        each.machine.close()
